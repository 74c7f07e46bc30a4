//! Stochastic gradient descent with momentum and weight decay, in PyTorch's form.

use crate::error::Result;
use crate::torch::{SgdSettings, fused_sgd};
use tch::{Kind, Tensor};

/// `g <- g + decay * w; v <- momentum * v + g; w <- w - rate * v`, with `v = g` in the first step.
///
/// Works on a shard of a rank's flat parameters: each rank of the data axis updates its own and keeps only its own
/// velocities.
pub struct Sgd {
    momentum: f64,
    decay: f64,
    velocity: Option<Tensor>,
    steps: u64,
}

impl Sgd {
    /// An optimizer for a shard of `size` values of type `kind`.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(momentum: f64, decay: f64, size: usize, kind: Kind) -> Result<Self> {
        let velocity = match momentum {
            0.0 => None,
            _ => Some(Tensor::f_zeros([size as i64], (kind, tch::Device::Cpu))?),
        };
        Ok(Self { momentum, decay, velocity, steps: 0 })
    }

    /// Updates `weights` in place with `gradients`, both `[size]`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn step(&mut self, weights: &Tensor, gradients: &Tensor, rate: f64) -> Result<()> {
        let (momentum, decay, first) = (self.momentum, self.decay, self.steps == 0);
        self.steps += 1;
        fused_sgd(weights, gradients, self.velocity.as_ref(), SgdSettings { rate, momentum, decay, first })
    }
}
