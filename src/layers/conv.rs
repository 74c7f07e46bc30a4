//! Convolution. A rank's share is a list of kernel calls: one for whole groups that lie side by side, one for each
//! part of a group.

use super::{Context, Layer, Parameters, kept, narrow, still_kept};
use crate::error::Result;
use crate::torch::{Sliding, channels_last, convolution_backward_input, convolution_backward_weight};
use std::ops::Range;
use tch::Tensor;

/// One kernel call of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvCall {
    /// Groups in the call.
    pub groups: usize,
    /// The channels that it reads, as positions in the layer's input tensor.
    pub input: Range<usize>,
    /// The channels that it gives, as positions in the layer's output tensor (and in its weight).
    pub output: Range<usize>,
}

/// A convolution, or a device's share of one.
pub struct Conv {
    /// The kernel calls, in ascending order of their outputs, which they cover without gaps.
    pub calls: Vec<ConvCall>,
    /// Weight `[C_out, C_in / groups, k, k]` and bias `[C_out]`.
    pub parameters: Parameters,
    /// Pixels from one window to the next.
    pub stride: i64,
    /// Pixels of zeros around the image.
    pub padding: i64,
    /// Rows and columns of zeros behind those, where the last windows reach beyond them: sizes are rounded up.
    pub overhang: [i64; 2],
    /// Whether the gradient of the input is wanted.
    pub wants_input_gradient: bool,
    /// The input, with what hangs over, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl Conv {
    fn sliding(&self, call: &ConvCall) -> Sliding {
        Sliding { stride: self.stride, padding: self.padding, groups: call.groups as i64 }
    }

    /// The input with zeros where the last windows reach beyond it.
    fn hung_over(&self, input: &Tensor) -> Result<Tensor> {
        match self.overhang {
            [0, 0] => Ok(input.shallow_clone()),
            [down, across] => channels_last(&input.f_constant_pad_nd([0, across, 0, down])?),
        }
    }

    /// The part of the gradient of [`Conv::hung_over`] that is the input's.
    fn of_image(&self, gradient: Tensor) -> Result<Tensor> {
        let [down, across] = self.overhang;
        if [down, across] == [0, 0] {
            return Ok(gradient);
        }
        let size = gradient.size();
        channels_last(&gradient.f_narrow(2, 0, size[2] - down)?.f_narrow(3, 0, size[3] - across)?)
    }

    fn backward_input(&self, gradient: &Tensor, input: &Tensor) -> Result<Tensor> {
        let part = |call: &ConvCall| -> Result<Tensor> {
            let weight = narrow(&self.parameters.weight, 0, &call.output)?;
            let (gradient, input) = (narrow(gradient, 1, &call.output)?, narrow(input, 1, &call.input)?);
            convolution_backward_input(&gradient, &input, &weight, self.sliding(call))
        };
        match &self.calls[..] {
            [call] if call.input.len() as i64 == input.size()[1] => part(call),
            calls => {
                let sum = input.f_zeros_like()?;
                for call in calls {
                    let _ = narrow(&sum, 1, &call.input)?.f_add_(&part(call)?)?;
                }
                Ok(sum)
            }
        }
    }
}

impl Layer for Conv {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let whole = self.hung_over(&inputs[0])?;
        let mut outputs = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let input = narrow(&whole, 1, &call.input)?;
            let weight = narrow(&self.parameters.weight, 0, &call.output)?;
            let bias = self.parameters.bias.as_ref().map(|bias| narrow(bias, 0, &call.output)).transpose()?;
            let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
            outputs.push(input.f_conv2d(&weight, bias.as_ref(), stride, padding, [1, 1], call.groups as i64)?);
        }
        self.saved = context.training.then_some(whole);
        match &outputs[..] {
            [output] => Ok(output.shallow_clone()),
            _ => Ok(Tensor::f_cat(&outputs, 1)?),
        }
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        if !self.wants_input_gradient {
            return Ok(vec![None]);
        }
        let of_input = self.backward_input(gradient, &still_kept(&self.saved)?)?;
        Ok(vec![Some(self.of_image(of_input)?)])
    }

    fn backward_parameters(&mut self, gradient: &Tensor) -> Result<()> {
        let input = kept(&mut self.saved)?;
        for call in &self.calls {
            let (gradient, input) = (narrow(gradient, 1, &call.output)?, narrow(&input, 1, &call.input)?);
            let weight = narrow(&self.parameters.weight, 0, &call.output)?;
            let wants_bias = self.parameters.bias.is_some();
            let (of_weight, of_bias) =
                convolution_backward_weight(&gradient, &input, &weight, self.sliding(call), wants_bias)?;
            narrow(&self.parameters.weight_gradient, 0, &call.output)?.f_copy_(&of_weight)?;
            if let (Some(target), Some(bias)) = (&self.parameters.bias_gradient, &of_bias) {
                narrow(target, 0, &call.output)?.f_copy_(bias)?;
            }
        }
        Ok(())
    }
}
