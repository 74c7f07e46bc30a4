//! What a stream carries out in one go: one operation, or those of a group on one communicator. First the collectives
//! in the order in which they were issued, then all sends and receives at once, as NCCL does.

use super::communicator::Communicator;
use super::exchange::{Exchange, Stopped};
use super::header::Header;
use super::link::Channel;
use super::operation::Operation;
use super::result::{Failure, NcclResult};
use super::{collective, message};
use crate::cuda::access::Access;
use crate::cuda::memory::Range;
use crate::fault::Action;
use crate::trace::Line;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// The operations that are carried out in one go.
pub struct Batch {
    /// Whose they are.
    pub communicator: Arc<Communicator>,
    /// The connections.
    pub exchange: Arc<Exchange>,
    /// The how-many-th batch of the communicator this is, from 1.
    pub number: u64,
    /// The operations in the order of their calls.
    pub operations: Vec<Planned>,
}

/// An operation with what the other ranks are told of it.
pub struct Planned {
    /// The operation.
    pub operation: Operation,
    /// By peer.
    pub headers: Vec<(usize, Header)>,
}

impl Batch {
    /// Carries out everything; where that is not possible, what would have been written is poisoned.
    pub fn carry_out(&self) {
        let begin = Instant::now();
        let result = self.communicator.turns.wait_for(self.number).and_then(|()| self.try_carry_out());
        for planned in &self.operations {
            if result.is_err() {
                planned.operation.poison();
            }
            self.trace(planned, begin, result.is_ok());
        }
        self.communicator.turns.finish();
    }

    /// The device memory that it touches.
    pub fn accesses(&self) -> Vec<Access> {
        self.operations.iter().flat_map(|planned| planned.operation.accesses()).collect()
    }

    fn try_carry_out(&self) -> Result<(), Stopped> {
        for planned in &self.operations {
            match planned.operation.fault {
                Some(Action::Hang) => return Err(self.exchange.hang()),
                Some(Action::Cut) => return Err(self.cut()),
                Some(Action::Delay(delay)) => std::thread::sleep(delay),
                _ => {}
            }
        }
        let (messages, collectives): (Vec<_>, Vec<_>) =
            self.operations.iter().partition(|planned| planned.operation.is_message());
        for planned in collectives {
            collective::carry_out(self, planned)?;
        }
        if messages.is_empty() { Ok(()) } else { message::carry_out(self, &messages) }
    }

    /// The fault `cut`: the other ranks learn nothing of it.
    fn cut(&self) -> Stopped {
        let sentence = format!("rank {}: a link is cut, as MPT_SIMULATOR_FAULT asks", self.exchange.rank);
        self.exchange.fail_silently(Failure::new(NcclResult::REMOTE_ERROR, sentence));
        Stopped
    }

    fn trace(&self, planned: &Planned, begin: Instant, succeeded: bool) {
        let operation = &planned.operation;
        let mut line = Line::done(&operation.kind.to_string());
        line.text("outcome", if succeeded { "done" } else { "stopped" });
        line.number("rank", self.exchange.rank).number("batch", self.number);
        line.number("count", operation.count).text("type", operation.datatype);
        if let Some(peer) = operation.peer {
            line.number("peer", peer);
        }
        line.text("stream", &operation.stream).number("microseconds", begin.elapsed().as_micros());
        line.end();
    }

    /// Copies device memory into a buffer.
    pub fn read(&self, from: &Range, into: &mut [u8]) -> Result<(), Stopped> {
        from.look(|bytes| into.copy_from_slice(bytes)).map_err(|sentence| self.lost_memory(&sentence))
    }

    /// Copies a buffer into device memory.
    pub fn write(&self, into: &Range, from: &[u8]) -> Result<(), Stopped> {
        into.change(|bytes| bytes.copy_from_slice(from)).map_err(|sentence| self.lost_memory(&sentence))
    }

    /// Takes bytes of a peer.
    pub fn take(&self, peer: usize, channel: Channel, into: &mut [u8]) -> Result<(), Stopped> {
        self.exchange.take_bytes(self.number, peer, channel, into)
    }

    /// Memory that the operations need was freed under them.
    fn lost_memory(&self, sentence: &str) -> Stopped {
        let rank = self.exchange.rank;
        self.communicator.device.broken(format_args!("rank {rank}"), sentence);
        self.exchange.fail(Failure::new(NcclResult::UNHANDLED_CUDA_ERROR, sentence));
        Stopped
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.operations.iter().map(|planned| planned.operation.kind.to_string()).collect();
        write!(formatter, "rank {}'s {}", self.exchange.rank, kinds.join(" and "))
    }
}
