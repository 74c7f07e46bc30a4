//! Finding ranks that wait for one another, by the edge-chasing probes of Chandy, Misra and Haas (1983).
//!
//! A rank that has waited for a while asks the ranks that it waits for. A rank that is asked, and has not come to what it
//! is asked for, and waits itself, asks on. Each step of such a chain is a fact that lasts until its first rank goes on;
//! so a question that comes back to who asked it first, and who still waits in the same place, has gone round a
//! deadlock.

use super::header::{Header, Lane};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a rank waits before it asks: nearly every wait is over by then.
pub const PATIENCE: Duration = Duration::from_millis(20);

/// What a rank waits for: that another comes to the operation that meets this one.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The rank that is waited for.
    pub peer: usize,
    /// The own operation.
    pub header: Header,
}

/// The question that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asked first.
    initiator: u32,
    /// In which of its batches.
    batch: u64,
    /// What the receiver is waited for: its lane, and the place in it.
    lane: Lane,
    sequence: u64,
    /// Who waits for whom, in words.
    path: String,
}

/// The questions of one communicator that this rank has got and sent.
#[derive(Default)]
pub struct Prober {
    arrived: Vec<(usize, Probe)>,
    batch: u64,
    sent: BTreeSet<(u32, u64, usize, Lane, u64)>,
}

impl Prober {
    /// Keeps a question until this rank waits.
    pub fn arrive(&mut self, from: usize, probe: Probe) {
        self.arrived.push((from, probe));
    }

    /// What is to be asked now by `rank`, which waits in `batch` for `needs`; `ask`: whether it has waited long enough to
    /// ask itself. `announced` tells how far this rank has come towards another in a lane.
    ///
    /// # Errors
    /// An own question has come back: who waits for whom.
    pub fn turn(
        &mut self,
        rank: usize,
        batch: u64,
        needs: &[Need],
        ask: bool,
        announced: impl Fn(usize, Lane) -> u64,
    ) -> Result<Vec<(usize, Probe)>, String> {
        if self.batch != batch {
            self.batch = batch;
            self.sent.clear();
        }
        let mut outgoing = Vec::new();
        for (from, probe) in std::mem::take(&mut self.arrived) {
            if announced(from, probe.lane) >= probe.sequence {
                continue;
            }
            if probe.initiator as usize != rank {
                self.ask(rank, (probe.initiator, probe.batch), &format!("{}; ", probe.path), needs, &mut outgoing);
            } else if probe.batch == batch {
                return Err(probe.path);
            }
        }
        if ask {
            self.ask(rank, (rank as u32, batch), "", needs, &mut outgoing);
        }
        Ok(outgoing)
    }

    /// Asks all who are waited for, unless that was done.
    fn ask(
        &mut self,
        rank: usize,
        (initiator, batch): (u32, u64),
        path: &str,
        needs: &[Need],
        outgoing: &mut Vec<(usize, Probe)>,
    ) {
        for &Need { peer, header } in needs {
            let (lane, sequence) = (header.lane().mirrored(), header.sequence);
            if self.sent.insert((initiator, batch, peer, lane, sequence)) {
                let path = format!("{path}rank {rank} waits in {header} for rank {peer}");
                outgoing.push((peer, Probe { initiator, batch, lane, sequence, path }));
            }
        }
    }
}

impl Probe {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.initiator.to_ne_bytes());
        bytes.extend(self.batch.to_ne_bytes());
        bytes.push(self.lane as u8);
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(self.path.as_bytes());
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (initiator, rest) = bytes.split_first_chunk::<4>()?;
        let (batch, rest) = rest.split_first_chunk::<8>()?;
        let (lane, rest) = rest.split_first()?;
        let (sequence, path) = rest.split_first_chunk::<8>()?;
        Some(Self {
            initiator: u32::from_ne_bytes(*initiator),
            batch: u64::from_ne_bytes(*batch),
            lane: *Lane::ALL.get(*lane as usize)?,
            sequence: u64::from_ne_bytes(*sequence),
            path: String::from_utf8_lossy(path).into_owned(),
        })
    }
}
