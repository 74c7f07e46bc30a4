//! Model-parallel, as on the two GPUs of 2012: every layer is split by its output channels, and only a layer that
//! reads channels of both halves makes the ranks exchange.
//!
//! The layer that gives the logits is split by its inputs instead: each rank multiplies the features that it holds
//! with its columns of the matrix, and the partial logits, a few numbers per example, are summed. (The original
//! gathered the features of fc7; the function is the same.)

use crate::model::{Kind, LayerId, Model};
use crate::plan::Weights;

/// The logits' layer by input, every other by output.
pub fn weights(model: &Model, layer: LayerId) -> Weights {
    let gives_logits = model.readers(layer + 1).all(|reader| model.layers[reader].kind == Kind::SoftmaxCrossEntropy);
    match model.layers[layer].kind {
        Kind::Linear(_) if gives_logits => Weights::InputSplit,
        _ => Weights::OutputSplit,
    }
}
