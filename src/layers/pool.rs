//! Pooling, and flattening after it.

use super::{Context, Layer, kept};
use crate::error::Result;
use crate::model::kind::Window;
use crate::torch::{PoolWindow, channels_last, max_pool, max_pool_backward};
use tch::Tensor;

fn sides(window: Window) -> ([i64; 2], [i64; 2], [i64; 2]) {
    ([window.kernel as i64; 2], [window.stride as i64; 2], [window.padding as i64; 2])
}

/// The largest value of each window.
pub struct MaxPool {
    /// The window.
    pub window: Window,
    /// The height and width of the input, and where in each window its largest value was found; kept for the backward
    /// pass.
    pub saved: Option<([i64; 2], Tensor)>,
}

impl MaxPool {
    fn window(&self) -> PoolWindow {
        let Window { kernel, stride, padding, ceil_mode } = self.window;
        PoolWindow { kernel: kernel as i64, stride: stride as i64, padding: padding as i64, ceil_mode }
    }
}

impl Layer for MaxPool {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let (output, places) = max_pool(&inputs[0], self.window())?;
        let size = inputs[0].size();
        self.saved = context.training.then_some(([size[2], size[3]], places));
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let (size, places) = kept(&mut self.saved)?;
        Ok(vec![Some(max_pool_backward(gradient, &places, size, self.window())?)])
    }
}

/// The mean of each window, padding counted as zeros, what hangs over not counted.
pub struct AveragePool {
    /// The window.
    pub window: Window,
    /// The input, whose shape the backward pass needs.
    pub saved: Option<Tensor>,
}

impl Layer for AveragePool {
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor> {
        let (kernel, stride, padding) = sides(self.window);
        let output = inputs[0].f_avg_pool2d(kernel, stride, padding, self.window.ceil_mode, true, None::<i64>)?;
        self.saved = context.training.then(|| inputs[0].shallow_clone());
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, _: &Context) -> Result<Vec<Option<Tensor>>> {
        let input = kept(&mut self.saved)?;
        let (kernel, stride, padding) = sides(self.window);
        let up = self.window.ceil_mode;
        let input_gradient = input.f_avg_pool2d_backward(gradient, kernel, stride, padding, up, true, None::<i64>)?;
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
