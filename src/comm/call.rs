//! What a collective call is, so that two ranks can find out that theirs are not the same.

use super::request::Request;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tch::Kind;

/// Why a call is made: what it serves, and in which part of the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The layer (or other thing) that it serves.
    pub subject: Arc<str>,
    /// The part of the step.
    pub stage: Stage,
}

/// The part of a step in which a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before the first step.
    Begin,
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
    /// The sum of gradients over the data axis.
    Reduce,
    /// The gathering of updated weights over the data axis.
    Update,
    /// Agreement on the outcome of a batch.
    Agree,
    /// The gathering of what a checkpoint needs.
    Save,
}

impl Call {
    /// A call for `subject` in a part of the step.
    pub fn new(subject: &str, stage: Stage) -> Self {
        Self { subject: subject.into(), stage }
    }
}

/// The operation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// See [`super::Collective::all_gather`].
    AllGather,
    /// See [`super::Collective::reduce_scatter`].
    ReduceScatter,
    /// See [`super::Collective::all_to_all`].
    AllToAll,
    /// See [`super::Collective::all_reduce`].
    AllReduce,
    /// See [`super::Collective::broadcast`].
    Broadcast,
    /// See [`super::Collective::send_receive`].
    SendReceive,
}

/// All that must be alike when ranks meet in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The how-many-th call of the group this is, from 1.
    pub sequence: u64,
    /// The operation.
    pub operation: Operation,
    /// Why it is made.
    pub call: Call,
    /// The shapes of the tensors, where all ranks have the same ones (not for sends and receives).
    pub shapes: Vec<Vec<i64>>,
    /// The type of the values; `None` if the rank sends nothing.
    pub kind: Option<Kind>,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] =
        [Self::AllGather, Self::ReduceScatter, Self::AllToAll, Self::AllReduce, Self::Broadcast, Self::SendReceive];

    /// The name in messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllGather => "all-gather",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllToAll => "all-to-all",
            Self::AllReduce => "all-reduce",
            Self::Broadcast => "broadcast",
            Self::SendReceive => "send-receive",
        }
    }
}

impl Signature {
    /// The signature of a rank's `sequence`-th call of a group.
    pub fn new(sequence: u64, call: &Call, request: &Request) -> Self {
        let (operation, tensors) = (request.operation(), request.tensors());
        let shapes = match operation {
            Operation::SendReceive => Vec::new(),
            _ => tensors.iter().filter(|tensor| tensor.defined()).map(|tensor| tensor.size()).collect(),
        };
        let kind = tensors.first().filter(|tensor| tensor.defined()).map(|tensor| tensor.kind());
        Self { sequence, operation, call: call.clone(), shapes, kind }
    }

    /// Whether two ranks with these signatures meet in the same call.
    pub fn agrees(&self, other: &Self) -> bool {
        let kinds_agree = match (self.kind, other.kind) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        };
        kinds_agree
            && self.sequence == other.sequence
            && self.operation == other.operation
            && self.call == other.call
            && self.shapes == other.shapes
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Begin => "begin",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Reduce => "reduce",
            Self::Update => "update",
            Self::Agree => "agree",
            Self::Save => "save",
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, operation, call, shapes, kind } = self;
        write!(formatter, "{operation} for {} ({}), its call {sequence}", call.subject, call.stage)?;
        if !shapes.is_empty() {
            write!(formatter, ", with {shapes:?}")?;
        }
        match kind {
            Some(kind) => write!(formatter, " of {kind:?}"),
            None => Ok(()),
        }
    }
}
