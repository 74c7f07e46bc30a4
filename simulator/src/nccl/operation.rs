//! One operation: what the program asked for, with its memory checked.

use super::result::{Failure, NcclResult};
use super::types::{DataType, Reduction};
use crate::cuda::access::Access;
use crate::cuda::device::{self, Device};
use crate::cuda::memory::Range;
use crate::cuda::stream::Stream;
use crate::fault::Action;
use std::fmt;
use std::sync::Arc;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `ncclAllReduce`
    AllReduce = 0,
    /// `ncclAllGather`
    AllGather = 1,
    /// `ncclReduceScatter`
    ReduceScatter = 2,
    /// `ncclBroadcast`
    Broadcast = 3,
    /// `ncclReduce`
    Reduce = 4,
    /// `ncclSend`
    Send = 5,
    /// `ncclRecv`
    Receive = 6,
}

impl Kind {
    /// The kind of this number.
    pub fn numbered(number: u8) -> Option<Self> {
        const ALL: [Kind; 7] = [
            Kind::AllReduce,
            Kind::AllGather,
            Kind::ReduceScatter,
            Kind::Broadcast,
            Kind::Reduce,
            Kind::Send,
            Kind::Receive,
        ];
        ALL.get(number as usize).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AllReduce => "all-reduce",
            Self::AllGather => "all-gather",
            Self::ReduceScatter => "reduce-scatter",
            Self::Broadcast => "broadcast",
            Self::Reduce => "reduce",
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

/// What a call gave, before it is checked.
#[derive(Clone, Copy)]
pub struct Request {
    /// What it is.
    pub kind: Kind,
    /// The buffer that is read.
    pub send: u64,
    /// The buffer that is written.
    pub receive: u64,
    /// How many elements, as the call counts them.
    pub count: usize,
    /// The number of the elements' type.
    pub datatype: u32,
    /// The number of the reduction, where there is one.
    pub reduction: Option<u32>,
    /// The root or the other rank, where there is one.
    pub peer: Option<i32>,
}

/// An operation that may be carried out.
pub struct Operation {
    /// What it is.
    pub kind: Kind,
    /// The type of its elements.
    pub datatype: DataType,
    /// How elements are combined, where they are.
    pub reduction: Option<Reduction>,
    /// The root or the other rank, where there is one.
    pub peer: Option<usize>,
    /// How many elements, as the call counts them.
    pub count: usize,
    /// What is read; `None` where this rank reads nothing.
    pub send: Option<Range>,
    /// What is written; `None` where this rank writes nothing.
    pub receive: Option<Range>,
    /// Where it is carried out.
    pub stream: Arc<Stream>,
    /// What goes wrong with it.
    pub fault: Option<Action>,
}

/// The rank that issues an operation.
pub struct Issuer {
    /// Its rank.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// Its device.
    pub device: &'static Device,
}

impl Issuer {
    /// Checks a request; nothing of it has happened where that fails.
    pub fn check(&self, request: &Request, stream: Arc<Stream>) -> Result<Operation, Failure> {
        let Request { kind, count, .. } = *request;
        let wrong = |sentence: String| self.broken(kind, &sentence);
        let datatype = DataType::numbered(request.datatype)
            .ok_or_else(|| wrong(format!("data type {} is not simulated", request.datatype)))?;
        let reduction = match request.reduction.map(|number| (number, Reduction::numbered(number))) {
            None => None,
            Some((_, Some(reduction))) => Some(reduction),
            Some((number, None)) => {
                return Err(wrong(format!("reduction {number} is not simulated: only sum, product, max and min are")));
            }
        };
        let peer = match request.peer.map(usize::try_from) {
            None => None,
            Some(Ok(peer)) if peer < self.size => Some(peer),
            Some(_) => {
                return Err(wrong(format!("rank {} is not one of {}", request.peer.unwrap_or(-1), self.size)));
            }
        };
        if stream.device != self.device.ordinal {
            return Err(wrong(format!("the stream ({stream}) is not one of the communicator's {}", self.device)));
        }
        let bytes = count
            .checked_mul(datatype.size())
            .filter(|bytes| bytes.checked_mul(self.size).is_some())
            .ok_or_else(|| wrong(format!("{count} elements are more than any memory has")))?;
        let (sent, received) = self.lengths(kind, peer, bytes);
        let send = self.buffer(kind, "send", request.send, sent, datatype)?;
        let receive = self.buffer(kind, "receive", request.receive, received, datatype)?;
        self.check_overlap(kind, bytes, send.as_ref(), receive.as_ref())?;
        Ok(Operation { kind, datatype, reduction, peer, count, send, receive, stream, fault: None })
    }

    /// How many bytes this rank reads and writes.
    fn lengths(&self, kind: Kind, peer: Option<usize>, bytes: usize) -> (usize, usize) {
        let at_root = peer == Some(self.rank);
        match kind {
            Kind::AllReduce => (bytes, bytes),
            Kind::AllGather => (bytes, bytes * self.size),
            Kind::ReduceScatter => (bytes * self.size, bytes),
            Kind::Broadcast => (if at_root { bytes } else { 0 }, bytes),
            Kind::Reduce => (bytes, if at_root { bytes } else { 0 }),
            Kind::Send => (bytes, 0),
            Kind::Receive => (0, bytes),
        }
    }

    /// A buffer: live memory of the communicator's device, large enough, aligned to its type.
    fn buffer(
        &self,
        kind: Kind,
        which: &str,
        address: u64,
        length: usize,
        datatype: DataType,
    ) -> Result<Option<Range>, Failure> {
        if length == 0 {
            return Ok(None);
        }
        if !address.is_multiple_of(datatype.size() as u64) {
            let sentence = format!("the {which} buffer at {address:#x} is not aligned to {datatype}");
            return Err(self.broken(kind, &sentence));
        }
        self.device.memory.range(address, length).map(Some).map_err(|sentence| {
            let owner = match device::of_address(address) {
                Some(owner) if owner.ordinal != self.device.ordinal => format!(" (it belongs to {owner})"),
                None => " (it looks like host memory)".to_owned(),
                Some(_) => String::new(),
            };
            self.broken(kind, &format!("the {which} buffer: {sentence}{owner}"))
        })
    }

    /// The two buffers are apart, or placed as the operation's in-place form asks.
    fn check_overlap(
        &self,
        kind: Kind,
        bytes: usize,
        send: Option<&Range>,
        receive: Option<&Range>,
    ) -> Result<(), Failure> {
        let (Some(send), Some(receive)) = (send, receive) else { return Ok(()) };
        let share = (self.rank * bytes) as u64;
        let in_place = match kind {
            Kind::AllGather => send.address() == receive.address() + share,
            Kind::ReduceScatter => receive.address() == send.address() + share,
            _ => send.address() == receive.address(),
        };
        if in_place || !send.overlaps(receive) {
            return Ok(());
        }
        Err(self.broken(kind, "the send and the receive buffer overlap, and not as the in-place form asks"))
    }

    fn broken(&self, kind: Kind, sentence: &str) -> Failure {
        Failure::broken_rule(
            format_args!("rank {}", self.rank),
            NcclResult::INVALID_ARGUMENT,
            format!("{kind}: {sentence}"),
        )
    }
}

impl Operation {
    /// Whether it is between two ranks only.
    pub fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Send | Kind::Receive)
    }

    /// The device memory that it touches.
    pub fn accesses(&self) -> impl Iterator<Item = Access> + '_ {
        self.send.iter().map(Access::reads).chain(self.receive.iter().map(Access::writes))
    }

    /// Poisons what it would have written.
    pub fn poison(&self) {
        if let Some(receive) = &self.receive {
            receive.poison();
        }
    }
}
