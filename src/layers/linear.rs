//! Fully connected layer: `y = x W^T + b`.

use super::{Context, Layer, Parameters, kept};
use crate::error::Result;
use tch::{Kind, Tensor};

/// A linear layer, or a device's share of one: by output features, or by input features.
pub struct Linear {
    /// Weight `[out, in]` and bias `[out]`.
    pub parameters: Parameters,
    /// Whether the bias is added here. A layer split by its inputs gives summands, and the bias goes into one of them.
    pub adds_bias: bool,
    /// Whether the gradient of the input is wanted.
    pub wants_input_gradient: bool,
    /// The input, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl Layer for Linear {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let bias = self.parameters.bias.as_ref().filter(|_| self.adds_bias);
        let output = inputs[0].f_linear(&self.parameters.weight, bias)?;
        self.saved = context.training.then(|| inputs[0].shallow_clone());
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let wanted = self.wants_input_gradient.then(|| gradient.f_mm(&self.parameters.weight));
        Ok(vec![wanted.transpose()?])
    }

    fn backward_parameters(&mut self, gradient: &Tensor) -> Result<()> {
        let input = kept(&mut self.saved)?;
        let _ = gradient.f_tr()?.f_mm_out(&self.parameters.weight_gradient, &input)?;
        if let Some(bias_gradient) = &mut self.parameters.bias_gradient {
            bias_gradient.f_copy_(&gradient.f_sum_dim_intlist(0, false, None::<Kind>)?)?;
        }
        Ok(())
    }
}
