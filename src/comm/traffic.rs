//! The bytes that travel, counted by operation.

use super::call::Operation;
use std::ops::AddAssign;

/// Bytes that travelled in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Bytes that other ranks took from this one.
    pub sent_bytes: u64,
    /// Bytes that this rank took from others.
    pub received_bytes: u64,
}

/// What has travelled, by operation.
///
/// A rank's bytes are those that an operation, by its meaning, brings from one rank to another, each pair of ranks by
/// itself; what a rank has for itself does not travel. In a group of `n` ranks, with `b` bytes in the tensor that a rank
/// puts in, or in each of its `n` parts, a rank sends and receives
///
/// * all-gather, all-reduce: `(n - 1) b` each, for every rank needs what every other one put in;
/// * reduce-scatter, all-to-all: `(n - 1) b` each, for each other rank has a part of its own;
/// * broadcast: the root sends `(n - 1) b`, each other rank receives `b`;
/// * sends and receives: what it puts in, and what it expects.
///
/// So the count is the plan's and the same on every transport. NCCL's algorithms may move other amounts over a link (a
/// ring's all-reduce `2 (n - 1) / n b`), and threads with common memory hand over references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic([Volume; Operation::ALL.len()]);

impl Traffic {
    /// What has travelled by an operation.
    pub fn of(&self, operation: Operation) -> Volume {
        self.0[operation as usize]
    }

    /// Bytes that other ranks took from this one, by whatever operation.
    pub fn sent_bytes(&self) -> u64 {
        self.0.iter().map(|volume| volume.sent_bytes).sum()
    }

    /// Bytes that this rank took from others, by whatever operation.
    pub fn received_bytes(&self) -> u64 {
        self.0.iter().map(|volume| volume.received_bytes).sum()
    }

    /// Counts what an operation sends and receives.
    pub fn count(&mut self, operation: Operation, volume: Volume) {
        let counted = &mut self.0[operation as usize];
        counted.sent_bytes += volume.sent_bytes;
        counted.received_bytes += volume.received_bytes;
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        Operation::ALL.into_iter().for_each(|operation| self.count(operation, other.of(operation)));
    }
}
