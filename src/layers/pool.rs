//! Pooling, and flattening after it.

use super::{Context, Layer, kept};
use crate::error::Result;
use crate::model::kind::Window;
use crate::torch::channels_last;
use tch::Tensor;

fn sides(window: Window) -> ([i64; 2], [i64; 2], [i64; 2]) {
    ([window.kernel as i64; 2], [window.stride as i64; 2], [window.padding as i64; 2])
}

/// The largest value of each window.
pub struct MaxPool {
    /// The window.
    pub window: Window,
    /// The input, and where in it each output was found; kept for the backward pass.
    pub saved: Option<(Tensor, Tensor)>,
}

impl Layer for MaxPool {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let (kernel, stride, padding) = sides(self.window);
        let (output, indices) = inputs[0].f_max_pool2d_with_indices(kernel, stride, padding, [1, 1], false)?;
        self.saved = context.training.then(|| (inputs[0].shallow_clone(), indices));
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let (input, indices) = kept(&mut self.saved)?;
        let (kernel, stride, padding) = sides(self.window);
        let input_gradient =
            input.f_max_pool2d_with_indices_backward(gradient, kernel, stride, padding, [1, 1], false, &indices)?;
        Ok(vec![Some(input_gradient)])
    }
}

/// The mean of each window, padding counted as zeros.
pub struct AveragePool {
    /// The window.
    pub window: Window,
    /// The input, whose shape the backward pass needs.
    pub saved: Option<Tensor>,
}

impl Layer for AveragePool {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let (kernel, stride, padding) = sides(self.window);
        let output = inputs[0].f_avg_pool2d(kernel, stride, padding, false, true, None::<i64>)?;
        self.saved = context.training.then(|| inputs[0].shallow_clone());
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let input = kept(&mut self.saved)?;
        let (kernel, stride, padding) = sides(self.window);
        let input_gradient =
            input.f_avg_pool2d_backward(gradient, kernel, stride, padding, false, true, None::<i64>)?;
        Ok(vec![Some(input_gradient)])
    }
}

/// `[N, C, H, W]` to `[N, C * H * W]`, the pixels of a channel side by side.
pub struct Flatten {
    /// The input's shape, kept for the backward pass.
    pub saved: Option<Vec<i64>>,
}

impl Layer for Flatten {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        self.saved = context.training.then(|| inputs[0].size());
        Ok(inputs[0].f_flatten(1, -1)?)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let shape = kept(&mut self.saved)?;
        Ok(vec![Some(channels_last(&gradient.f_reshape(shape)?)?)])
    }
}
