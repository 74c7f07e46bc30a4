//! ReLU, sigmoid and tanh. The gradient of each is a function of its output, so only that is kept.

use super::{Context, Layer, kept};
use crate::error::Result;
use tch::Tensor;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointwiseKind {
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
}

/// A function of each value alone.
pub struct Pointwise {
    /// Which function.
    pub kind: PointwiseKind,
    /// The output, kept for the backward pass.
    pub saved: Option<Tensor>,
}

impl Layer for Pointwise {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let output = match self.kind {
            PointwiseKind::Relu => inputs[0].f_relu()?,
            PointwiseKind::Sigmoid => inputs[0].f_sigmoid()?,
            PointwiseKind::Tanh => inputs[0].f_tanh()?,
        };
        self.saved = context.training.then(|| output.shallow_clone());
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let output = kept(&mut self.saved)?;
        let input_gradient = match self.kind {
            PointwiseKind::Relu => output.f_threshold_backward(gradient, 0)?,
            PointwiseKind::Sigmoid => Tensor::f_sigmoid_backward(gradient, &output)?,
            PointwiseKind::Tanh => Tensor::f_tanh_backward(gradient, &output)?,
        };
        Ok(vec![Some(input_gradient)])
    }
}
