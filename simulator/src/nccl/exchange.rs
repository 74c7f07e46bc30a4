//! What a rank knows of the others of its communicator: what they came to, what bytes came, and whether they are still
//! there. A thread for each connection takes everything in at once, so that no sender ever waits for a receiver that is
//! sending itself.

use super::deadlock::{Need, PATIENCE, Prober};
use super::header::{Header, Lane};
use super::link::{self, Channel, Frame, Link};
use super::order;
use super::result::{Failure, NcclResult};
use crate::environment::settings;
use crate::sync::{lock, wait};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The operation cannot go on: the communicator failed or was aborted. Why is known to the exchange.
#[derive(Debug)]
pub struct Stopped;

/// The connections of one rank of one communicator.
pub struct Exchange {
    /// The own rank.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// The communicator's token, the same on all ranks.
    token: u64,
    /// The ranks' devices.
    devices: Vec<usize>,
    /// By rank; none to oneself.
    links: Vec<Option<Link>>,
    inbound: Mutex<Inbound>,
    changed: Condvar,
}

/// What has come, and how things stand.
pub struct Inbound {
    peers: Vec<Peer>,
    failure: Option<Failure>,
    is_aborted: bool,
    prober: Prober,
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

impl Exchange {
    /// The connections `links`, by rank, of the rank whose place has none; starts the threads that read.
    pub fn new(rank: usize, token: u64, devices: Vec<usize>, links: Vec<Option<Link>>) -> std::io::Result<Arc<Self>> {
        let size = links.len();
        let peers = (0..size).map(|_| Peer::default()).collect();
        let inbound = Inbound { peers, failure: None, is_aborted: false, prober: Prober::default() };
        let changed = Condvar::new();
        let exchange = Arc::new(Self { rank, size, token, devices, links, inbound: Mutex::new(inbound), changed });
        for peer in exchange.peers() {
            let Some(link) = &exchange.links[peer] else { continue };
            let mut socket = link.reading_side()?;
            let exchange = Arc::clone(&exchange);
            std::thread::Builder::new().name(format!("link {rank}-{peer}")).spawn(move || {
                while let Some(frame) = link::receive(&mut socket) {
                    exchange.take_in(peer, frame);
                }
                exchange.lost(peer);
            })?;
        }
        Ok(exchange)
    }

    /// The other ranks.
    pub fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.size).filter(move |&peer| peer != rank)
    }

    /// Takes note of an own operation towards a peer that is put on a stream now: gives it its numbers.
    pub fn issue(&self, peer: usize, mut header: Header) -> Header {
        let ordered = order::issue(self.pair(peer), self.token, &mut header);
        let meeting_failure = {
            let mut inbound = lock(&self.inbound);
            let meeting = &mut inbound.peers[peer].lanes[header.lane() as usize];
            meeting.mine.push_back(header);
            let place = meeting.mine.len() - 1;
            meeting.mismatch_at(place)
        };
        if let Some((other, reason)) = meeting_failure {
            self.break_rule(peer, &header, &format!("rank {peer} issued {other}: {reason}"));
        } else if let Err(number) = ordered {
            self.break_order(peer, &header, number);
        }
        header
    }

    /// Tells a peer that this rank has come to the operation.
    pub fn announce(&self, peer: usize, header: &Header) {
        lock(&self.inbound).peers[peer].lanes[header.lane() as usize].announced += 1;
        self.send(peer, &Frame::Header(*header));
    }

    /// Sends a part of an operation's bytes.
    pub fn send_bytes(&self, peer: usize, channel: Channel, bytes: &[u8]) {
        if let Some(link) = &self.links[peer] {
            // A peer that is gone is noticed by the thread that reads; what is meant for it is lost.
            let _ = link.send_bytes(channel, bytes);
        }
    }

    fn send(&self, peer: usize, frame: &Frame) {
        if let Some(link) = &self.links[peer] {
            // As above.
            let _ = link.send(frame);
        }
    }

    /// Waits until `ready` gives something, or else says what it needs.
    pub fn until<T>(
        &self,
        batch: u64,
        mut ready: impl FnMut(&mut Inbound) -> Result<T, Vec<Need>>,
    ) -> Result<T, Stopped> {
        let mut inbound = lock(&self.inbound);
        let mut is_patient = true;
        loop {
            if inbound.is_aborted || inbound.failure.is_some() {
                return Err(Stopped);
            }
            let needs = match ready(&mut inbound) {
                Ok(result) => return Ok(result),
                Err(needs) => needs,
            };
            if let Some(need) = needs.iter().find(|need| inbound.peers[need.peer].has_left) {
                drop(inbound);
                self.break_rule(need.peer, &need.header, &format!("rank {} has destroyed its communicator", need.peer));
                return Err(Stopped);
            }
            match inbound.probes(self.rank, batch, &needs, !is_patient) {
                Err(path) => {
                    drop(inbound);
                    self.fail(Failure::broken_rule(
                        self,
                        NcclResult::INVALID_USAGE,
                        format!("deadlock: these ranks wait for one another: {path}"),
                    ));
                    return Err(Stopped);
                }
                Ok(probes) if !probes.is_empty() => {
                    drop(inbound);
                    probes.into_iter().for_each(|(peer, probe)| self.send(peer, &Frame::Probe(probe)));
                    inbound = lock(&self.inbound);
                }
                Ok(_) => inbound = self.wait(inbound, &mut is_patient),
            }
        }
    }

    fn wait<'a>(&self, inbound: MutexGuard<'a, Inbound>, is_patient: &mut bool) -> MutexGuard<'a, Inbound> {
        if !*is_patient {
            return wait(&self.changed, inbound);
        }
        let (inbound, timeout) = self.changed.wait_timeout(inbound, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        *is_patient = !timeout.timed_out();
        inbound
    }

    /// Waits until `into` is full of bytes from a peer.
    pub fn take_bytes(&self, batch: u64, peer: usize, channel: Channel, into: &mut [u8]) -> Result<(), Stopped> {
        let mut filled = 0;
        self.until(batch, |inbound| {
            filled += inbound.take(peer, channel, &mut into[filled..]);
            if filled == into.len() { Ok(()) } else { Err(Vec::new()) }
        })
    }

    /// Never ends, except by an abort.
    pub fn hang(&self) -> Stopped {
        let mut inbound = lock(&self.inbound);
        while !inbound.is_aborted {
            inbound = wait(&self.changed, inbound);
        }
        Stopped
    }

    /// Ends all that is in flight on this rank. The peers see a rank that is gone.
    pub fn abort(&self) {
        lock(&self.inbound).is_aborted = true;
        self.changed.notify_all();
        self.links.iter().flatten().for_each(Link::cut);
        self.peers().for_each(|peer| order::give_up(self.pair(peer)));
    }

    /// Says goodbye: what a peer issues after this can never be carried out.
    pub fn leave(&self) {
        self.peers().for_each(|peer| self.send(peer, &Frame::Goodbye));
    }

    /// Why nothing more can be carried out, if so.
    pub fn failure(&self) -> Option<Failure> {
        lock(&self.inbound).failure.clone()
    }

    /// Ends the communicator's work with a failure that the peers learn of too.
    pub fn fail(&self, failure: Failure) {
        let sentence = failure.sentence.clone();
        self.fail_silently(failure);
        self.peers().for_each(|peer| self.send(peer, &Frame::Broken(sentence.clone())));
    }

    /// Ends the communicator's work on this rank only.
    pub fn fail_silently(&self, failure: Failure) {
        lock(&self.inbound).failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    /// A rule that an own operation breaks together with a peer. The peer is given what it needs to find that too.
    fn break_rule(&self, peer: usize, own: &Header, sentence: &str) {
        let failure = Failure::broken_rule(
            self,
            NcclResult::INVALID_USAGE,
            format!("rank {} issued {own}; {sentence}", self.rank),
        );
        let untold = lock(&self.inbound).peers[peer].lanes[own.lane() as usize].untold();
        untold.iter().for_each(|header| self.send(peer, &Frame::Header(*header)));
        self.fail(failure);
    }

    fn break_order(&self, peer: usize, own: &Header, number: u64) {
        let sentence = format!(
            "but operation {number} between the devices of rank {} and rank {peer} is another one on rank {peer}: over \
             their communicators the two issue in different orders, which can wait for ever on real devices",
            self.rank
        );
        self.break_rule(peer, own, &sentence);
    }

    /// Takes in what came from a peer.
    fn take_in(&self, peer: usize, frame: Frame) {
        let mut inbound = lock(&self.inbound);
        match frame {
            Frame::Header(header) => {
                drop(inbound);
                self.meet(peer, header);
                inbound = lock(&self.inbound);
            }
            Frame::Bytes(Channel::Collective, bytes) => inbound.peers[peer].collective.parts.push_back(bytes),
            Frame::Bytes(Channel::Message, bytes) => inbound.peers[peer].message.parts.push_back(bytes),
            Frame::Probe(probe) => inbound.prober.arrive(peer, probe),
            Frame::Goodbye => inbound.peers[peer].has_left = true,
            Frame::Broken(sentence) => {
                let sentence = format!("rank {peer} reports: {sentence}");
                inbound.failure.get_or_insert_with(|| Failure::new(NcclResult::REMOTE_ERROR, sentence));
            }
        }
        drop(inbound);
        self.changed.notify_all();
    }

    /// A peer has come to an operation: it is compared with the own one, if that is issued already.
    fn meet(&self, peer: usize, header: Header) {
        let ordered = order::arrive(self.pair(peer), self.token, &header);
        let mut inbound = lock(&self.inbound);
        if inbound.failure.is_some() {
            return;
        }
        let meeting = &mut inbound.peers[peer].lanes[header.lane().mirrored() as usize];
        meeting.theirs.push_back(header);
        let place = meeting.theirs.len() - 1;
        let own = meeting.mine.get(place).copied();
        let mismatch = meeting.mismatch_at(place);
        drop(inbound);
        if let (Some(own), Some((other, reason))) = (own, mismatch) {
            self.break_rule(peer, &own, &format!("rank {peer} issued {other}: {reason}"));
        } else if let Err(number) = ordered {
            let sentence = format!(
                "rank {peer} issued {header} as operation {number} between its device and that of rank {}, which issued \
                 another one there: over their communicators the two issue in different orders, which can wait for \
                 ever on real devices",
                self.rank
            );
            self.fail(Failure::broken_rule(self, NcclResult::INVALID_USAGE, sentence));
        }
    }

    /// A connection has ended.
    fn lost(&self, peer: usize) {
        let mut inbound = lock(&self.inbound);
        if settings().peer_death_is_reported && !inbound.peers[peer].has_left && !inbound.is_aborted {
            let sentence = format!("rank {peer} is gone");
            inbound.failure.get_or_insert_with(|| Failure::new(NcclResult::REMOTE_ERROR, sentence));
        }
        drop(inbound);
        self.changed.notify_all();
    }

    fn pair(&self, peer: usize) -> order::Pair {
        (self.devices[self.rank], self.devices[peer])
    }
}

impl std::fmt::Display for Exchange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "rank {}", self.rank)
    }
}

impl Inbound {
    /// Whether a peer has come to what the own first operation of a lane waits for.
    pub fn has_met(&self, peer: usize, lane: Lane) -> bool {
        !self.peers[peer].lanes[lane as usize].theirs.is_empty()
    }

    /// Ends the waiting of two operations that have met.
    pub fn part(&mut self, peer: usize, lane: Lane) {
        let meeting = &mut self.peers[peer].lanes[lane as usize];
        meeting.mine.pop_front();
        meeting.theirs.pop_front();
        meeting.met += 1;
    }

    /// Takes as many bytes from a peer as have come and are wanted.
    pub fn take(&mut self, peer: usize, channel: Channel, into: &mut [u8]) -> usize {
        let peer = &mut self.peers[peer];
        match channel {
            Channel::Collective => peer.collective.take(into),
            Channel::Message => peer.message.take(into),
        }
    }

    /// Takes what has come from a peer, at most `limit` bytes of it and not more than came at once.
    pub fn take_part(&mut self, peer: usize, channel: Channel, limit: usize) -> Option<Vec<u8>> {
        let peer = &mut self.peers[peer];
        let bytes = match channel {
            Channel::Collective => &mut peer.collective,
            Channel::Message => &mut peer.message,
        };
        let length = bytes.parts.front()?.len() - bytes.taken;
        let mut part = vec![0; length.min(limit)];
        bytes.take(&mut part);
        Some(part)
    }

    fn probes(
        &mut self,
        rank: usize,
        batch: u64,
        needs: &[Need],
        ask: bool,
    ) -> Result<Vec<(usize, super::deadlock::Probe)>, String> {
        let Self { peers, prober, .. } = self;
        prober.turn(rank, batch, needs, ask, |peer, lane| peers[peer].lanes[lane as usize].announced)
    }
}

impl Meeting {
    /// Compares the operations at a place, if both are known.
    fn mismatch_at(&self, place: usize) -> Option<(Header, &'static str)> {
        let (mine, theirs) = (self.mine.get(place)?, self.theirs.get(place)?);
        Some((*theirs, mine.mismatch(theirs)?))
    }

    /// The own operations that the other was not told of.
    fn untold(&self) -> Vec<Header> {
        let told = usize::try_from(self.announced.saturating_sub(self.met)).unwrap_or(usize::MAX);
        self.mine.iter().skip(told).copied().collect()
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
