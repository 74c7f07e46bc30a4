//! Layers of several inputs.

use super::{Context, Layer, kept};
use crate::error::Result;
use tch::Tensor;

/// The sum of the inputs.
pub struct Add {
    /// The number of inputs.
    pub inputs: usize,
}

impl Layer for Add {
    fn forward(&mut self, inputs: &[Tensor], _: &Context) -> Result<Tensor> {
        let mut sum = inputs[0].f_add(&inputs[1])?;
        for input in &inputs[2..] {
            sum = sum.f_add_(input)?;
        }
        Ok(sum)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        Ok((0..self.inputs).map(|_| Some(gradient.shallow_clone())).collect())
    }
}

/// The channels that a device holds of each input, put where the whole layer has them: one input after the other. As
/// a device's channels are kept in ascending order, and every channel of one input comes before those of the next,
/// this is a plain concatenation on any device.
pub struct Concat {
    /// The channels of each input, kept for the backward pass.
    pub saved: Option<Vec<i64>>,
}

impl Layer for Concat {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        self.saved = context.training.then(|| inputs.iter().map(|input| input.size()[1]).collect());
        Ok(Tensor::f_cat(inputs, 1)?)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let channels = kept(&mut self.saved)?;
        let parts = gradient.f_split_with_sizes(channels, 1)?;
        Ok(parts.into_iter().map(Some).collect())
    }
}
