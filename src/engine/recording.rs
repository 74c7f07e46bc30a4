//! What a rank saw while it ran, kept so that two runs can be compared tensor by tensor.

use crate::model::{ActivationId, Channels};
use tch::Tensor;

/// What a kept tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    /// An activation, forward.
    Activation(ActivationId),
    /// The gradient that has reached an activation, backward.
    Gradient(ActivationId),
}

/// A rank's part of a quantity.
#[derive(Debug)]
pub struct Piece {
    /// What it is.
    pub quantity: Quantity,
    /// The channels that it holds, along dimension 1.
    pub channels: Channels,
    /// The values, a copy.
    pub tensor: Tensor,
}

/// The pieces of one step on one rank, in the order in which they came about.
#[derive(Debug, Default)]
pub struct Recording {
    /// The pieces.
    pub pieces: Vec<Piece>,
}

impl Recording {
    /// Keeps a copy of a tensor.
    pub fn keep(&mut self, quantity: Quantity, channels: Channels, tensor: &Tensor) {
        self.pieces.push(Piece { quantity, channels, tensor: tensor.copy() });
    }
}
