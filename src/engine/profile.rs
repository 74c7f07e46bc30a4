//! What each layer costs on one rank, for `mpt bench step`.

use crate::model::LayerId;
use std::time::{Duration, Instant};

/// The time spent in each layer; exchanges are not part of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Forward, by layer.
    pub forward: Vec<Duration>,
    /// Backward, by layer.
    pub backward: Vec<Duration>,
}

impl Profile {
    /// Nothing spent yet in any of so many layers.
    pub fn new(layers: usize) -> Self {
        Self { forward: vec![Duration::ZERO; layers], backward: vec![Duration::ZERO; layers] }
    }

    /// Counts what has passed since `begin` for the forward pass of a layer.
    pub fn forward(&mut self, layer: LayerId, begin: Instant) {
        self.forward[layer] += begin.elapsed();
    }

    /// Counts what has passed since `begin` for the backward pass of a layer.
    pub fn backward(&mut self, layer: LayerId, begin: Instant) {
        self.backward[layer] += begin.elapsed();
    }
}
