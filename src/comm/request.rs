//! What a rank puts into a collective call, and what it gets from it.

use super::call::{Operation, Signature};
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// The shape and type of a tensor, and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The shape.
    pub shape: Vec<i64>,
    /// The type of the values.
    pub kind: Kind,
    /// The device.
    pub device: Device,
}

impl Form {
    /// The form of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self { shape: tensor.size(), kind: tensor.kind(), device: tensor.device() }
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// The bytes of the values.
    pub fn bytes(&self) -> usize {
        self.count() * self.kind.elt_size_in_bytes()
    }
}

/// An operation with the tensors that a rank puts in.
#[derive(Debug)]
pub enum Request {
    /// See [`super::Collective::all_gather`].
    AllGather(Tensor),
    /// See [`super::Collective::reduce_scatter`].
    ReduceScatter(Vec<Tensor>),
    /// See [`super::Collective::all_to_all`].
    AllToAll(Vec<Tensor>),
    /// See [`super::Collective::all_reduce`].
    AllReduce(Tensor),
    /// See [`super::Collective::broadcast`]: the own tensor, and the rank whose tensor all get.
    Broadcast(Tensor, usize),
    /// See [`super::Collective::send_receive`].
    SendReceive {
        /// What goes to each rank.
        sends: Vec<Option<Tensor>>,
        /// The form of what each rank sends to this one.
        receives: Vec<Option<Form>>,
    },
}

impl Request {
    /// The operation.
    pub fn operation(&self) -> Operation {
        match self {
            Self::AllGather(_) => Operation::AllGather,
            Self::ReduceScatter(_) => Operation::ReduceScatter,
            Self::AllToAll(_) => Operation::AllToAll,
            Self::AllReduce(_) => Operation::AllReduce,
            Self::Broadcast(..) => Operation::Broadcast,
            Self::SendReceive { .. } => Operation::SendReceive,
        }
    }

    /// The tensors that are put in, in the order of the ranks they are for, where they are for one.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::AllGather(own) | Self::AllReduce(own) | Self::Broadcast(own, _) => vec![own],
            Self::ReduceScatter(parts) | Self::AllToAll(parts) => parts.iter().collect(),
            Self::SendReceive { sends, .. } => sends.iter().flatten().collect(),
        }
    }

    /// Finds what no group of `size` ranks can carry out, before anything has travelled: a tensor for each rank where
    /// one is due, all defined, on one device, of one type, and of one shape where the operation needs that.
    ///
    /// # Errors
    /// Says which, naming the call.
    pub fn check(&self, signature: &Signature, size: usize) -> Result<()> {
        let wrong = |what: String| Err(Error::failed(format!("{signature}: {what}")));
        let tensors = self.tensors();
        if tensors.iter().any(|tensor| !tensor.defined()) {
            return wrong("a tensor is undefined".into());
        }
        let (entries, root) = match self {
            Self::ReduceScatter(parts) | Self::AllToAll(parts) => (parts.len(), 0),
            Self::SendReceive { sends, receives } if sends.len() != receives.len() => {
                return wrong("sends and receives must be given for each rank".into());
            }
            Self::SendReceive { sends, .. } => (sends.len(), 0),
            Self::Broadcast(_, root) => (size, *root),
            Self::AllGather(_) | Self::AllReduce(_) => (size, 0),
        };
        if entries != size {
            return wrong(format!("{entries} parts for a group of {size} ranks"));
        }
        if root >= size {
            return wrong(format!("there is no rank {root} in a group of {size} ranks"));
        }
        let Some((first, others)) = tensors.split_first() else { return Ok(()) };
        if let Some(other) = others.iter().find(|other| other.kind() != first.kind()) {
            return wrong(format!("its tensors are of {:?} and of {:?}", first.kind(), other.kind()));
        }
        if let Some(other) = others.iter().find(|other| other.device() != first.device()) {
            return wrong(format!("its tensors are on {:?} and on {:?}", first.device(), other.device()));
        }
        let alike = !matches!(self, Self::SendReceive { .. });
        match others.iter().find(|other| other.size() != first.size()) {
            Some(other) if alike => wrong(format!("its parts are of {:?} and of {:?}", first.size(), other.size())),
            _ => Ok(()),
        }
    }

    /// The type of the values; `None` if this rank puts nothing in.
    pub fn kind(&self) -> Option<Kind> {
        self.tensors().first().map(|tensor| tensor.kind())
    }
}

/// A call that was started and waits to be finished: its number among those of the group.
#[must_use = "a call that is started must be finished"]
#[derive(Debug)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// The error of a ticket of another group.
    pub(super) fn unknown(&self) -> Error {
        Error::failed(format!("call {} of a group is finished, but it was not started", self.0))
    }
}

/// What came from a call: for each rank what it sent, or the one result.
#[derive(Debug)]
pub struct Arrived(Vec<Option<Tensor>>);

impl Arrived {
    /// What each rank sent, where it sent something.
    pub(super) fn new(by_rank: Vec<Option<Tensor>>) -> Self {
        Self(by_rank)
    }

    /// One result.
    pub(super) fn single(result: Tensor) -> Self {
        Self(vec![Some(result)])
    }

    /// What came from each rank, which each sent something.
    ///
    /// # Errors
    /// A rank sent nothing.
    pub fn from_all(self) -> Result<Vec<Tensor>> {
        let all: Option<Vec<Tensor>> = self.0.into_iter().collect();
        all.ok_or_else(|| Error::failed("a rank put nothing into a call where each has something"))
    }

    /// The one result.
    ///
    /// # Errors
    /// There is none.
    pub fn one(self) -> Result<Tensor> {
        self.0.into_iter().flatten().next().ok_or_else(|| Error::failed("a call gave nothing"))
    }

    /// What came from each rank.
    pub fn by_rank(self) -> Vec<Option<Tensor>> {
        self.0
    }
}
