//! Data-parallel: every rank holds the whole network. `single` is its case of one rank.

use crate::plan::Weights;

/// All weights on every rank; the gradients are summed over the data axis.
pub fn weights() -> Weights {
    Weights::Replicated
}
