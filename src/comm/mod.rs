//! How tensors travel between ranks. The engine knows only [`Collective`]; a transport implements it.
//!
//! * [`call`] what a call is, and why it is made
//! * [`request`] what a rank puts into a call, and what it gets
//! * [`traffic`] the bytes that travel, counted
//! * [`timing`] when a rank did what in a call
//! * [`local`] ranks are threads of one process; tensors pass through shared memory
//! * [`nccl`] ranks are processes with a GPU each; tensors travel by NCCL
//! * [`recorder`] each rank's last calls, on any transport

pub mod call;
pub mod local;
pub mod nccl;
pub mod recorder;
pub mod request;
pub mod timing;
pub mod traffic;

pub use call::{Call, Operation, Stage};
pub use request::{Arrived, Form, Request, Ticket};
pub use timing::Timing;
pub use traffic::{Traffic, Volume};

use self::recorder::Probe;
use crate::error::Result;
use tch::Tensor;

/// A group of ranks that act together. Every rank of the group makes the same calls in the same order. Of ranks that make
/// different calls [`local`] tells each: they get an error, and do not hang. NCCL does not compare calls: such ranks may hang,
/// and the watchdog tells after `parallel.timeout`. A group of one is a group: nothing travels, and every call gives what was
/// put in.
///
/// A call is started and finished: between the two the rank may compute while tensors travel, and start or finish
/// other calls. Tensors that are given to a call may be read by other ranks after
/// it has finished: they must not be written to again until every rank of the group has made its next call with this
/// one's result.
///
/// Sums are the same bits on every rank. On one machine's threads they are taken in rank order; NCCL chooses an order
/// by its algorithm, which `NCCL_ALGO=Ring` makes the same in every run.
pub trait Collective: Send {
    /// The place of this rank in the group.
    fn rank(&self) -> usize;

    /// The number of ranks in the group.
    fn size(&self) -> usize;

    /// Starts a call: what this rank puts in is on its way.
    ///
    /// # Errors
    /// The tensors do not fit the operation, the ranks' calls are not alike, or a rank has gone.
    fn start(&mut self, call: &Call, request: Request) -> Result<Ticket>;

    /// Waits for a call that was started, and gives what came.
    ///
    /// # Errors
    /// The ranks' calls are not alike, something came of another shape than expected, or a rank has gone.
    fn finish(&mut self, ticket: Ticket) -> Result<Arrived>;

    /// What tells from any thread whether a call that was started has travelled, where the end of it does not wait for
    /// that.
    fn probe(&self, _ticket: &Ticket) -> Option<Probe> {
        None
    }

    /// A buffer for what all ranks of the group hold alike, made from what each puts in, of one shape: the same memory
    /// on every rank where the transport has that, else the own tensor. Its values are not meant to be read before
    /// they have been written.
    ///
    /// # Errors
    /// The ranks' calls are not alike, or a rank has gone.
    fn common(&mut self, call: &Call, own: Tensor) -> Result<Tensor>;

    /// What has travelled since the last time it was asked.
    fn take_traffic(&mut self) -> Traffic;

    /// The calls that were finished since the last time it was asked, in the order in which they were started: the same
    /// on every rank of the group. None in a group of one.
    fn take_timings(&mut self) -> Vec<Timing>;

    /// What every rank put in, in rank order; all of one shape.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn all_gather(&mut self, call: &Call, own: &Tensor) -> Result<Vec<Tensor>> {
        let ticket = self.start_all_gather(call, own)?;
        self.finish(ticket)?.from_all()
    }

    /// `parts[r]` goes to rank `r`; gives the sum of what came to this rank. The parts have one shape.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn reduce_scatter(&mut self, call: &Call, parts: &[Tensor]) -> Result<Tensor> {
        let ticket = self.start(call, Request::ReduceScatter(shallow(parts)))?;
        self.finish(ticket)?.one()
    }

    /// `parts[r]` goes to rank `r`; gives what came to this rank, in rank order. The parts have one shape.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn all_to_all(&mut self, call: &Call, parts: &[Tensor]) -> Result<Vec<Tensor>> {
        let ticket = self.start_all_to_all(call, parts)?;
        self.finish(ticket)?.from_all()
    }

    /// Starts [`Collective::all_gather`].
    ///
    /// # Errors
    /// As [`Collective::start`].
    fn start_all_gather(&mut self, call: &Call, own: &Tensor) -> Result<Ticket> {
        self.start(call, Request::AllGather(own.shallow_clone()))
    }

    /// Starts [`Collective::all_to_all`].
    ///
    /// # Errors
    /// As [`Collective::start`].
    fn start_all_to_all(&mut self, call: &Call, parts: &[Tensor]) -> Result<Ticket> {
        self.start(call, Request::AllToAll(shallow(parts)))
    }

    /// The sum of what every rank put in; all of one shape.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn all_reduce(&mut self, call: &Call, own: &Tensor) -> Result<Tensor> {
        let ticket = self.start(call, Request::AllReduce(own.shallow_clone()))?;
        self.finish(ticket)?.one()
    }

    /// What rank `root` put in, on every rank; all of one shape.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn broadcast(&mut self, call: &Call, own: &Tensor, root: usize) -> Result<Tensor> {
        let ticket = self.start(call, Request::Broadcast(own.shallow_clone(), root))?;
        self.finish(ticket)?.one()
    }

    /// One group of sends and receives: `sends[r]` goes to rank `r`, and what rank `r` sends must have the form
    /// `receives[r]` (`None`: nothing is sent to, or expected from, that rank). Gives what came, by rank.
    ///
    /// # Errors
    /// As [`Collective::start`] and [`Collective::finish`].
    fn send_receive(
        &mut self,
        call: &Call,
        sends: Vec<Option<Tensor>>,
        receives: Vec<Option<Form>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let ticket = self.start(call, Request::SendReceive { sends, receives })?;
        Ok(self.finish(ticket)?.by_rank())
    }
}

fn shallow(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
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
