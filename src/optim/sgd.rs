//! Stochastic gradient descent with momentum and weight decay, in PyTorch's form.

use crate::error::Result;
use crate::torch::{UpdateRule, Updated, update};
use tch::{Kind, Tensor};

/// `g <- g + decay * w; v <- momentum * v + g; w <- w - rate * v`, with `v = g` in the first step.
///
/// Works on a shard of a rank's flat parameters: each rank of the data axis updates its own and keeps only its own
/// velocities.
pub struct Sgd {
    momentum: f64,
    decay: f64,
    velocity: Option<Tensor>,
}

impl Sgd {
    /// An optimizer for a shard of `size` weights of type `kind`.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(momentum: f64, decay: f64, size: usize, kind: Kind) -> Result<Self> {
        let velocity = match momentum {
            0.0 => None,
            _ => Some(Tensor::f_zeros([size as i64], (kind, tch::Device::Cpu))?),
        };
        Ok(Self { momentum, decay, velocity })
    }

    /// The velocities, `[size]`; `None` without momentum.
    pub fn velocity(&self) -> Option<&Tensor> {
        self.velocity.as_ref()
    }

    /// Updates `weights` in place with the sum of `gradients`, and writes them, rounded, to `shadow`; all `[size]`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn step(&mut self, weights: &Tensor, shadow: Option<&Tensor>, gradients: &[Tensor], rate: f64) -> Result<()> {
        let target = Updated { weights, velocity: self.velocity.as_ref(), shadow };
        update(&target, gradients, UpdateRule { rate, momentum: self.momentum, decay: self.decay })
    }
}
