//! Stochastic gradient descent with momentum and weight decay.

use crate::error::Result;
use crate::model::kind::Multipliers;
use crate::torch::update::{self, UpdateRule, Updated, update};
use tch::Tensor;

/// A parameter, or what a shard has of it: where it ends in a part of the shard, and how fast it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Where it ends. It begins where the one before it does.
    pub end: usize,
    /// What the learning rate and the weight decay are multiplied with.
    pub multipliers: Multipliers,
    /// Whether it is trained at all.
    pub trained: bool,
}

/// What of SGD is the same for all parameters and steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The share of the velocity that is kept.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the learning rate goes into the velocity, as in the paper of 2012, and not on top of it, as in PyTorch. The two
    /// differ when the rate changes: what was gathered before moves the weights with the rate of then, or with that of now.
    pub rate_in_velocity: bool,
}

/// PyTorch's SGD: `g <- g + decay * w; v <- momentum * v + g; w <- w - rate * v`, with `v = g` in the first step. Or that of
/// Krizhevsky, Sutskever and Hinton (2012): `v <- momentum * v - rate * (g + decay * w); w <- w + v`.
///
/// Works on a shard of a rank's flat parameters, which lies in several parts: each rank of the data axis updates its own
/// and keeps only its own velocities.
pub struct Sgd {
    rule: Rule,
    velocities: Vec<Tensor>,
}

impl Sgd {
    /// An optimizer for the parts of a shard.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(rule: Rule, shard: &[Tensor]) -> Result<Self> {
        let parts = if rule.momentum == 0.0 { &[] } else { shard };
        let velocities = parts.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { rule, velocities })
    }

    /// The velocities of each part; `None` without momentum.
    pub fn velocities(&self) -> Option<&[Tensor]> {
        (!self.velocities.is_empty()).then_some(&self.velocities[..])
    }

    /// Updates `weights`, a part of the shard that consists of `segments`, in place with the sum of `gradients`, and writes
    /// them, rounded, to `shadow`; all of one size. Gives the sums of the squares of the gradients, before decay, of each
    /// segment: see [`update()`].
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
        segments: &[Segment],
    ) -> Result<Tensor> {
        let Rule { momentum, weight_decay, rate_in_velocity } = self.rule;
        let target = Updated { weights, velocity: self.velocities.get(part), shadow };
        let told = segments.iter().map(|&Segment { end, multipliers, trained }| update::Segment {
            end: end as i64,
            rate: rate * multipliers.rate,
            decay: weight_decay * multipliers.decay,
            trained,
        });
        update(&target, gradients, UpdateRule { momentum, rate_in_velocity }, &told.collect::<Vec<_>>())
    }
}
