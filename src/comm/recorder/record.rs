//! What is told of a rank's calls, as it stands in `flight-recorder.json`. Times are seconds since 1970.

use crate::comm::{Operation, Stage};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The rank's thread is inside the start of it.
    Started,
    /// It is under way.
    Travelling,
    /// It has ended.
    Done,
    /// It ended with an error.
    Failed,
}

/// A collective call of a rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The group: `world`, `model` or `data`.
    pub group: String,
    /// The ranks of the group.
    pub ranks: Vec<usize>,
    /// The how-many-th call of the group this is, from 1.
    pub sequence: u64,
    /// The operation.
    pub operation: Operation,
    /// The layer (or other thing) that it serves.
    pub layer: String,
    /// The part of the step.
    pub stage: Stage,
    /// The bytes that the rank put in.
    pub bytes: u64,
    /// How far it has come.
    pub state: State,
    /// When the rank came to it.
    pub started: f64,
    /// When its start had returned.
    pub travelling: Option<f64>,
    /// When the rank began to wait for its end.
    pub awaited: Option<f64>,
    /// When the rank went on.
    pub finished: Option<f64>,
    /// How long the rank, or its GPU, has had nothing to do but wait for it (until it failed).
    pub blocked_seconds: Option<f64>,
}

impl Record {
    /// Whether two ranks mean the same by it, as far as records tell: what ranks send each other may differ in size.
    pub fn agrees(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.layer == other.layer
            && self.stage == other.stage
            && (self.bytes == other.bytes || self.operation == Operation::SendReceive)
    }

    /// Whether the rank waits in it, or waited until it gave up.
    pub fn blocks(&self) -> bool {
        self.blocked_seconds.is_some()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, ranks, sequence, operation, layer, stage, .. } = self;
        write!(formatter, "{operation} for {layer} ({stage}), call {sequence} of the {group} group of ranks {ranks:?}")
    }
}

/// How far a rank has come in one of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Its name.
    pub name: String,
    /// Its ranks.
    pub ranks: Vec<usize>,
    /// The calls that the rank has begun in it.
    pub calls: u64,
}

/// All that is known of a rank at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flight {
    /// The rank.
    pub rank: usize,
    /// Its process.
    pub process: u32,
    /// The time.
    pub at: f64,
    /// Its groups.
    pub groups: Vec<GroupState>,
    /// Its last calls, the oldest first.
    pub records: Vec<Record>,
}
