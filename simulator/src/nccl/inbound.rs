//! What a rank knows of the others: what they came to, what bytes came, and whether they are still there.

use super::deadlock::{Need, Probe, Prober};
use super::header::{Header, Lane};
use super::link::Channel;
use super::result::Failure;
use std::collections::VecDeque;

/// What has come, and how things stand.
#[derive(Default)]
pub struct Inbound {
    peers: Vec<Peer>,
    /// Why nothing more can be carried out.
    pub failure: Option<Failure>,
    /// Whether this rank has found a broken rule itself: what others report of it is no news then.
    pub has_found: bool,
    /// Whether operations have met that do not belong together: nothing goes on until the failure is told.
    pub is_disputed: bool,
    /// Whether this rank has aborted.
    pub is_aborted: bool,
    /// Questions who waits for whom.
    pub prober: Prober,
}

#[derive(Default)]
struct Peer {
    lanes: [Meeting; 3],
    collective: Bytes,
    message: Bytes,
    has_left: bool,
}

/// The operations of one lane that have not met yet. The first of one side meets the first of the other.
#[derive(Default)]
struct Meeting {
    mine: VecDeque<Header>,
    theirs: VecDeque<Header>,
    /// How many have met.
    met: u64,
    /// How many of this rank's were told to the other.
    announced: u64,
}

/// Bytes that came and were not taken yet.
#[derive(Default)]
struct Bytes {
    parts: VecDeque<Vec<u8>>,
    /// How much of the first part is taken.
    taken: usize,
}

impl Inbound {
    /// Of a communicator of `size` ranks.
    pub fn new(size: usize) -> Self {
        Self { peers: (0..size).map(|_| Peer::default()).collect(), ..Self::default() }
    }

    /// An own operation; `is_ordered`: whether it comes in the order of the peer's. Gives the peer's one, and why they do
    /// not belong together, where that is so.
    pub fn issue(&mut self, peer: usize, header: Header, is_ordered: bool) -> Option<(Header, &'static str)> {
        self.is_disputed |= !is_ordered;
        let meeting = self.meeting(peer, header.lane());
        meeting.mine.push_back(header);
        let other = *meeting.theirs.get(meeting.mine.len() - 1)?;
        let reason = header.mismatch(&other)?;
        self.is_disputed = true;
        Some((other, reason))
    }

    /// An operation that a peer has come to; `is_ordered`: whether it comes in the order of this rank's. Gives the own
    /// one, and why they do not belong together, where that is so.
    pub fn arrive(&mut self, peer: usize, header: Header, is_ordered: bool) -> Option<(Header, &'static str)> {
        self.is_disputed |= !is_ordered;
        let meeting = self.meeting(peer, header.lane().mirrored());
        meeting.theirs.push_back(header);
        let own = *meeting.mine.get(meeting.theirs.len() - 1)?;
        let reason = own.mismatch(&header)?;
        self.is_disputed = true;
        Some((own, reason))
    }

    /// The peer is told of the next own operation.
    pub fn announce(&mut self, peer: usize, lane: Lane) {
        self.meeting(peer, lane).announced += 1;
    }

    /// The own operations that the peer was not told of.
    pub fn untold(&self, peer: usize, lane: Lane) -> Vec<Header> {
        let meeting = &self.peers[peer].lanes[lane as usize];
        let told = usize::try_from(meeting.announced.saturating_sub(meeting.met)).unwrap_or(usize::MAX);
        meeting.mine.iter().skip(told).copied().collect()
    }

    /// Keeps bytes of a peer.
    pub fn store(&mut self, peer: usize, channel: Channel, bytes: Vec<u8>) {
        self.bytes(peer, channel).parts.push_back(bytes);
    }

    /// The peer has said goodbye.
    pub fn leave(&mut self, peer: usize) {
        self.peers[peer].has_left = true;
    }

    /// Whether the peer has said goodbye.
    pub fn has_left(&self, peer: usize) -> bool {
        self.peers[peer].has_left
    }

    fn meeting(&mut self, peer: usize, lane: Lane) -> &mut Meeting {
        &mut self.peers[peer].lanes[lane as usize]
    }

    fn bytes(&mut self, peer: usize, channel: Channel) -> &mut Bytes {
        let peer = &mut self.peers[peer];
        match channel {
            Channel::Collective => &mut peer.collective,
            Channel::Message => &mut peer.message,
        }
    }

    /// Whether a peer has come to what the own first operation of a lane waits for.
    pub fn has_met(&self, peer: usize, lane: Lane) -> bool {
        !self.peers[peer].lanes[lane as usize].theirs.is_empty()
    }

    /// Ends the waiting of two operations that have met.
    pub fn part(&mut self, peer: usize, lane: Lane) {
        let meeting = self.meeting(peer, lane);
        meeting.mine.pop_front();
        meeting.theirs.pop_front();
        meeting.met += 1;
    }

    /// Takes as many bytes from a peer as have come and are wanted.
    pub fn take(&mut self, peer: usize, channel: Channel, into: &mut [u8]) -> usize {
        self.bytes(peer, channel).take(into)
    }

    /// Takes what has come from a peer, at most `limit` bytes of it and not more than came at once.
    pub fn take_part(&mut self, peer: usize, channel: Channel, limit: usize) -> Option<Vec<u8>> {
        let bytes = self.bytes(peer, channel);
        let length = bytes.parts.front()?.len() - bytes.taken;
        let mut part = vec![0; length.min(limit)];
        bytes.take(&mut part);
        Some(part)
    }

    /// What is to be asked while this rank waits: see [`Prober::turn`].
    ///
    /// # Errors
    /// An own question has come back.
    pub fn probes(
        &mut self,
        rank: usize,
        batch: u64,
        needs: &[Need],
        ask: bool,
    ) -> Result<Vec<(usize, Probe)>, String> {
        let Self { peers, prober, .. } = self;
        prober.turn(rank, batch, needs, ask, |peer, lane| peers[peer].lanes[lane as usize].announced)
    }
}

impl Bytes {
    fn take(&mut self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            let Some(part) = self.parts.front() else { break };
            let count = (part.len() - self.taken).min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&part[self.taken..self.taken + count]);
            filled += count;
            self.taken += count;
            if self.taken == part.len() {
                self.parts.pop_front();
                self.taken = 0;
            }
        }
        filled
    }
}
