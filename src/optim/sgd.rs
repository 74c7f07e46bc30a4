//! Stochastic gradient descent with momentum and weight decay, in PyTorch's form.

use crate::error::Result;
use crate::torch::{UpdateRule, Updated, update};
use tch::Tensor;

/// `g <- g + decay * w; v <- momentum * v + g; w <- w - rate * v`, with `v = g` in the first step.
///
/// Works on a shard of a rank's flat parameters, which lies in several parts: each rank of the data axis updates its own
/// and keeps only its own velocities.
pub struct Sgd {
    momentum: f64,
    decay: f64,
    velocities: Vec<Tensor>,
}

impl Sgd {
    /// An optimizer for the parts of a shard.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(momentum: f64, decay: f64, shard: &[Tensor]) -> Result<Self> {
        let parts = if momentum == 0.0 { &[] } else { shard };
        let velocities = parts.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { momentum, decay, velocities })
    }

    /// The velocities of each part; `None` without momentum.
    pub fn velocities(&self) -> Option<&[Tensor]> {
        (!self.velocities.is_empty()).then_some(&self.velocities[..])
    }

    /// Updates `weights`, a part of the shard, in place with the sum of `gradients`, and writes them, rounded, to
    /// `shadow`; all of one size. Gives the sums of the squares of the gradients, before decay, over segments that end
    /// at `ends`: see [`update`].
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn step(
        &mut self,
        part: usize,
        weights: &Tensor,
        shadow: Option<&Tensor>,
        gradients: &[Tensor],
        rate: f64,
        ends: &[i64],
    ) -> Result<Tensor> {
        let target = Updated { weights, velocity: self.velocities.get(part), shadow };
        update(&target, gradients, UpdateRule { rate, momentum: self.momentum, decay: self.decay }, ends)
    }
}
