//! Forward and backward of each layer kind, by hand, on libtorch's own kernels. A layer here computes on one device
//! what it is given; it knows no ranks and no exchanges. Which channels it computes was decided by the plan.
//!
//! Activations are `[N, C, H, W]` with the channels of a pixel side by side in memory, or `[N, F]`.

mod answers;
mod conv;
mod dropout;
mod join;
mod linear;
pub mod loss;
mod norm;
mod parts;
mod pointwise;
mod pool;
mod select;

pub use answers::Answers;
pub use conv::{Conv, ConvCall};
pub use dropout::Dropout;
pub use join::{Add, Concat};
pub use linear::Linear;
pub use loss::{Loss, Outcome};
pub use norm::{LocalResponseNorm, SameMapNorm};
pub use parts::Parts;
pub use pointwise::{Pointwise, PointwiseKind};
pub use pool::{AveragePool, Flatten, MaxPool};
pub use select::{place, select};

use crate::error::{Error, Result};
use crate::model::LayerId;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::Tensor;

/// What a layer may want to know of the batch at hand.
pub struct Context<'b> {
    /// Whether a backward pass follows: only then do layers keep what it needs, and dropout drops.
    pub training: bool,
    /// For each dropout layer the features that are kept, `[N, F]` of the whole layer: 1 to keep, 0 to drop.
    pub masks: &'b BTreeMap<LayerId, Tensor>,
}

/// A layer on one device.
pub trait Layer {
    /// Computes as much as can be with the part of the input that is there before the others, of a layer that reads its
    /// input in parts.
    ///
    /// # Errors
    /// What libtorch reports.
    fn begin(&mut self, _own: &Tensor, _context: &Context) -> Result<()> {
        Ok(())
    }

    /// The output for these inputs, or parts of the one input. In training, keeps what [`Layer::backward`] needs.
    ///
    /// # Errors
    /// What libtorch reports.
    fn forward(&mut self, inputs: &[Tensor], context: &Context) -> Result<Tensor>;

    /// From the gradient of the output to those of the inputs, or of the parts of the one input, in order; `None` where no
    /// gradient is wanted.
    ///
    /// # Errors
    /// What libtorch reports.
    fn backward(&mut self, gradient: &Tensor, context: &Context) -> Result<Vec<Option<Tensor>>>;

    /// Writes the gradients of the parameters, from the gradient that [`Layer::backward`] has had just before, and drops
    /// what the forward pass kept for it. On its own, because the gradients of the inputs may be on their way to other
    /// ranks meanwhile.
    ///
    /// # Errors
    /// What libtorch reports.
    fn backward_parameters(&mut self, _gradient: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// The parameters of a layer and their gradients: views into the buffers of the rank.
pub struct Parameters {
    /// `[out, in / groups, k, k]` or `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// The gradient of `weight`.
    pub weight_gradient: Tensor,
    /// The gradient of `bias`.
    pub bias_gradient: Option<Tensor>,
}

impl Parameters {
    /// Those of a dense layer that read the channels, or features, `input`: columns of the weight, and the bias if it goes
    /// with them.
    ///
    /// # Errors
    /// What libtorch reports, as for columns outside the weight.
    pub fn columns(&self, input: &Range<usize>, with_bias: bool) -> Result<Self> {
        let bias = |tensor: &Option<Tensor>| tensor.as_ref().filter(|_| with_bias).map(Tensor::shallow_clone);
        Ok(Self {
            weight: narrow(&self.weight, 1, input)?,
            bias: bias(&self.bias),
            weight_gradient: narrow(&self.weight_gradient, 1, input)?,
            bias_gradient: bias(&self.bias_gradient),
        })
    }
}

fn narrow(tensor: &Tensor, dimension: i64, range: &Range<usize>) -> Result<Tensor> {
    Ok(tensor.f_narrow(dimension, range.start as i64, range.len() as i64)?)
}

/// What the forward pass kept for the backward pass.
fn kept<T>(saved: &mut Option<T>) -> Result<T> {
    saved.take().ok_or_else(|| Error::failed("a backward pass without a forward pass in training before it"))
}

/// Like [`kept`], where it is needed once more.
fn still_kept(saved: &Option<Tensor>) -> Result<Tensor> {
    kept(&mut saved.as_ref().map(Tensor::shallow_clone))
}
