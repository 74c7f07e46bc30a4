//! How tensors travel between ranks. The engine knows only [`Collective`]; a transport implements it.
//!
//! * [`local`] ranks are threads of one process; tensors pass through shared memory

pub mod call;
pub mod local;

pub use call::{Call, Operation, Stage};

use crate::error::Result;
use std::time::Duration;
use tch::Tensor;

/// A group of ranks that act together. Every rank of the group makes the same calls in the same order; ranks that make
/// different calls of a group get an error each, and do not hang. Sums are taken in rank order, so that they are the same bits on
/// every rank and in every run. A group of one is a group: nothing travels, and every call gives what was put in.
///
/// Tensors that are given to a call may be read by other ranks after it returns: they must not be written to again
/// until every rank of the group has made its next call with this one's result.
pub trait Collective: Send {
    /// The place of this rank in the group.
    fn rank(&self) -> usize;

    /// The number of ranks in the group.
    fn size(&self) -> usize;

    /// What every rank put in, in rank order; all of one shape.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn all_gather(&mut self, call: &Call, own: &Tensor) -> Result<Vec<Tensor>>;

    /// `parts[r]` goes to rank `r`; gives the sum of what came to this rank. The shapes of `parts` are the same on
    /// every rank.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn reduce_scatter(&mut self, call: &Call, parts: &[Tensor]) -> Result<Tensor>;

    /// Like [`Collective::reduce_scatter`], with the last sum left to the caller, whose next pass over memory may take
    /// it along: gives tensors whose sum, in this order, is the result.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn reduce_scatter_summands(&mut self, call: &Call, parts: &[Tensor]) -> Result<Vec<Tensor>>;

    /// A buffer for what all ranks of the group hold alike, made from what each puts in, of one shape: the same memory
    /// on every rank where the transport has that, else the own tensor. Its values are not meant to be read before
    /// they have been written.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn common(&mut self, call: &Call, own: Tensor) -> Result<Tensor>;

    /// The sum of what every rank put in; all of one shape.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn all_reduce(&mut self, call: &Call, own: &Tensor) -> Result<Tensor>;

    /// One group of sends and receives: `sends[r]` goes to rank `r`, and what rank `r` sends must have the shape
    /// `receives[r]` (`None`: nothing is sent to, or expected from, that rank). Gives what came, by rank.
    ///
    /// # Errors
    /// The ranks' calls are not alike, something came of another shape than expected, or a rank has gone.
    fn send_receive(
        &mut self,
        call: &Call,
        sends: &[Option<Tensor>],
        receives: &[Option<Vec<i64>>],
    ) -> Result<Vec<Option<Tensor>>>;

    /// What has travelled since the last time it was asked.
    fn take_traffic(&mut self) -> Traffic;

    /// How long this rank had nothing to do but wait for another to arrive, since the last time it was asked.
    fn take_waited(&mut self) -> Duration;
}

/// The groups that a rank belongs to.
pub struct Groups {
    /// Every rank of the run.
    pub world: Box<dyn Collective>,
    /// The ranks with other channels of the same examples.
    pub model: Box<dyn Collective>,
    /// The ranks with the same channels of other examples.
    pub data: Box<dyn Collective>,
}

/// What has travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that other ranks took from this one.
    pub sent_bytes: u64,
    /// Bytes that this rank took from others.
    pub received_bytes: u64,
}
