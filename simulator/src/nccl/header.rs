//! What ranks tell each other about an operation before any byte of it moves, and the comparison of what they told.

use super::operation::Kind;
use super::types::{DataType, Reduction};
use std::fmt;

/// Which of the sequences between two ranks an operation belongs to, seen from one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Collectives, which meet the other's collectives.
    Collective = 0,
    /// Sends, which meet the other's receives.
    Send = 1,
    /// Receives, which meet the other's sends.
    Receive = 2,
}

impl Lane {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Collective, Self::Send, Self::Receive];

    /// The lane that the other rank sees.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Collective => Self::Collective,
            Self::Send => Self::Receive,
            Self::Receive => Self::Send,
        }
    }
}

/// One operation, as it is told to one other rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// The type of its elements.
    pub datatype: DataType,
    /// How elements are combined, where they are.
    pub reduction: Option<Reduction>,
    /// The root, where there is one.
    pub root: Option<u32>,
    /// How many elements.
    pub count: u64,
    /// Its place in its lane of the communicator, from 1.
    pub sequence: u64,
    /// The how-many-th operation this is towards the other's device, over all communicators; 0: not known any more.
    pub sent: u64,
    /// The how-many-th operation this is from the other's device, over all communicators; 0: not known any more.
    pub received: u64,
}

/// Bytes of a header between processes.
pub const LENGTH: usize = 40;

/// Stands for "none" in the fields that need not be there.
const NONE: u8 = 0xFF;

impl Header {
    /// The lane of the rank whose operation this is.
    pub fn lane(&self) -> Lane {
        match self.kind {
            Kind::Send => Lane::Send,
            Kind::Receive => Lane::Receive,
            _ => Lane::Collective,
        }
    }

    /// Why two ranks' operations do not belong together; `None` where they do.
    pub fn mismatch(&self, other: &Self) -> Option<&'static str> {
        if self.lane() != other.lane().mirrored() || (self.lane() == Lane::Collective && self.kind != other.kind) {
            Some("different operations")
        } else if self.datatype != other.datatype {
            Some("different types")
        } else if self.count != other.count {
            Some("different counts")
        } else if self.reduction != other.reduction {
            Some("different reductions")
        } else if self.root != other.root {
            Some("different roots")
        } else {
            None
        }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = self.kind as u8;
        bytes[1] = self.datatype as u8;
        bytes[2] = self.reduction.map_or(NONE, |reduction| reduction as u8);
        bytes[4..8].copy_from_slice(&self.root.unwrap_or(u32::MAX).to_ne_bytes());
        for (place, number) in [self.count, self.sequence, self.sent, self.received].into_iter().enumerate() {
            bytes[8 + 8 * place..][..8].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let (numbers, _) = bytes[8..].as_chunks::<8>();
        let root = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Some(Self {
            kind: Kind::numbered(bytes[0])?,
            datatype: DataType::numbered(bytes[1].into())?,
            reduction: if bytes[2] == NONE { None } else { Some(Reduction::numbered(bytes[2].into())?) },
            root: (root != u32::MAX).then_some(root),
            count: u64::from_ne_bytes(numbers[0]),
            sequence: u64::from_ne_bytes(numbers[1]),
            sent: u64::from_ne_bytes(numbers[2]),
            received: u64::from_ne_bytes(numbers[3]),
        })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} of {} x {}", self.kind, self.sequence, self.count, self.datatype)?;
        if let Some(reduction) = self.reduction {
            write!(formatter, ", {reduction}")?;
        }
        if let Some(root) = self.root {
            write!(formatter, ", root {root}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DataType, Header, Kind, Reduction};

    const HEADER: Header = Header {
        kind: Kind::Reduce,
        datatype: DataType::Bfloat16,
        reduction: Some(Reduction::Sum),
        root: Some(1),
        count: 12,
        sequence: 3,
        sent: 7,
        received: 8,
    };

    #[test]
    fn a_header_survives_its_way() {
        let plain = Header { kind: Kind::AllGather, reduction: None, root: None, ..HEADER };
        for header in [HEADER, plain] {
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
        assert_eq!(Header::decode(&[0xFF; 40]), None);
    }

    #[test]
    fn each_field_that_must_agree_is_compared() {
        assert_eq!(HEADER.mismatch(&HEADER), None);
        for (other, expected) in [
            (Header { kind: Kind::AllReduce, ..HEADER }, "different operations"),
            (Header { kind: Kind::Receive, ..HEADER }, "different operations"),
            (Header { datatype: DataType::Float16, ..HEADER }, "different types"),
            (Header { count: 11, ..HEADER }, "different counts"),
            (Header { reduction: Some(Reduction::Max), ..HEADER }, "different reductions"),
            (Header { root: Some(0), ..HEADER }, "different roots"),
        ] {
            assert_eq!(HEADER.mismatch(&other), Some(expected));
        }
        let send = Header { kind: Kind::Send, ..HEADER };
        assert_eq!(send.mismatch(&Header { kind: Kind::Receive, ..HEADER }), None);
        assert!(send.mismatch(&send).is_some());
    }
}
