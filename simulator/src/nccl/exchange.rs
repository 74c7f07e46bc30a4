//! The connections of a rank to the others of its communicator. A thread for each takes everything in at once, so that
//! no sender ever waits for a receiver that is sending itself.

use super::deadlock::{Need, PATIENCE};
use super::header::{Header, Lane};
use super::inbound::Inbound;
use super::link::{self, Channel, Frame, Link};
use super::order;
use super::result::{Failure, NcclResult};
use crate::environment::settings;
use crate::sync::{lock, wait};
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

impl Exchange {
    /// The connections `links`, by rank, of the rank whose place has none; starts the threads that read.
    pub fn new(rank: usize, token: u64, devices: Vec<usize>, links: Vec<Option<Link>>) -> std::io::Result<Arc<Self>> {
        let size = links.len();
        let inbound = Inbound::new(size);
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
        let mismatch = lock(&self.inbound).issue(peer, header, ordered.is_ok());
        if let Some((other, reason)) = mismatch {
            self.break_agreement(peer, &header, &other, reason);
        } else if let Err(number) = ordered {
            self.break_order(peer, header.lane(), number, self.rank, &header);
        }
        header
    }

    /// Tells a peer that this rank has come to the operation.
    pub fn announce(&self, peer: usize, header: &Header) {
        lock(&self.inbound).announce(peer, header.lane());
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
            if inbound.is_disputed {
                // Whoever found that is telling the peers.
                inbound = wait(&self.changed, inbound);
                continue;
            }
            let needs = match ready(&mut inbound) {
                Ok(result) => return Ok(result),
                Err(needs) => needs,
            };
            if let Some(Need { peer, header }) = needs.iter().find(|need| inbound.has_left(need.peer)) {
                drop(inbound);
                let sentence =
                    format!("rank {} issued {header}; rank {peer} has destroyed its communicator", self.rank);
                self.break_rule(None, sentence);
                return Err(Stopped);
            }
            match inbound.probes(self.rank, batch, &needs, !is_patient) {
                Err(path) => {
                    drop(inbound);
                    self.break_rule(None, format!("deadlock: these ranks wait for one another: {path}"));
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
        self.links.iter().flatten().for_each(Link::finish);
    }

    /// Why nothing more can be carried out, if so.
    pub fn failure(&self) -> Option<Failure> {
        lock(&self.inbound).failure.clone()
    }

    /// Ends the communicator's work with a failure that the peers learn of too. They are told first: this process may end
    /// as soon as it knows.
    pub fn fail(&self, failure: Failure) {
        lock(&self.inbound).has_found = true;
        let frame = Frame::Broken(failure.sentence.clone());
        self.peers().for_each(|peer| self.send(peer, &frame));
        self.fail_silently(failure);
    }

    /// Ends the communicator's work on this rank only. What the own rank found counts more than what others report.
    pub fn fail_silently(&self, failure: Failure) {
        let mut inbound = lock(&self.inbound);
        if inbound.failure.as_ref().is_none_or(|failure| failure.code == NcclResult::REMOTE_ERROR) {
            inbound.failure = Some(failure);
        }
        drop(inbound);
        self.changed.notify_all();
    }

    /// A rule is broken. Where a peer breaks it too, that is given what it needs to find it.
    fn break_rule(&self, other: Option<(usize, Lane)>, sentence: String) {
        let untold = {
            let mut inbound = lock(&self.inbound);
            if std::mem::replace(&mut inbound.has_found, true) {
                return;
            }
            other.map(|(peer, lane)| (peer, inbound.untold(peer, lane)))
        };
        let failure = Failure::broken_rule(self, NcclResult::INVALID_USAGE, sentence);
        if let Some((peer, headers)) = untold {
            headers.into_iter().for_each(|header| self.send(peer, &Frame::Header(header)));
        }
        self.fail(failure);
    }

    /// Two ranks' operations do not belong together.
    fn break_agreement(&self, peer: usize, own: &Header, other: &Header, reason: &str) {
        let sentence = format!("rank {} issued {own}; rank {peer} issued {other}: {reason}", self.rank);
        self.break_rule(Some((peer, own.lane())), sentence);
    }

    /// Two ranks use their communicators in different orders.
    fn break_order(&self, peer: usize, lane: Lane, number: u64, issuer: usize, header: &Header) {
        let sentence = format!(
            "rank {issuer} issued {header} as operation {number} between the devices of ranks {} and {peer}, where the \
             other issued another one: over their communicators the two issue in different orders, which can wait for \
             ever on real devices",
            self.rank
        );
        self.break_rule(Some((peer, lane)), sentence);
    }

    /// Takes in what came from a peer.
    fn take_in(&self, peer: usize, frame: Frame) {
        match frame {
            Frame::Header(header) => self.meet(peer, header),
            Frame::Bytes(channel, bytes) => lock(&self.inbound).store(peer, channel, bytes),
            Frame::Probe(probe) => lock(&self.inbound).prober.arrive(peer, probe),
            Frame::Goodbye => lock(&self.inbound).leave(peer),
            Frame::Broken(sentence) => self.learn_of_failure(format!("rank {peer} reports: {sentence}")),
        }
        self.changed.notify_all();
    }

    /// A peer has come to an operation: it is compared with the own one, if that is issued already.
    fn meet(&self, peer: usize, header: Header) {
        let ordered = order::arrive(self.pair(peer), self.token, &header);
        let mismatch = lock(&self.inbound).arrive(peer, header, ordered.is_ok());
        if let Some((own, reason)) = mismatch {
            self.break_agreement(peer, &own, &header, reason);
        } else if let Err(number) = ordered {
            self.break_order(peer, header.lane().mirrored(), number, peer, &header);
        }
    }

    /// A connection has ended.
    fn lost(&self, peer: usize) {
        let has_died = {
            let inbound = lock(&self.inbound);
            !inbound.has_left(peer) && !inbound.is_aborted
        };
        if has_died && settings().peer_death_is_reported {
            self.learn_of_failure(format!("rank {peer} is gone"));
        }
        self.changed.notify_all();
    }

    /// Something went wrong elsewhere.
    fn learn_of_failure(&self, sentence: String) {
        let mut inbound = lock(&self.inbound);
        if !inbound.has_found {
            inbound.failure.get_or_insert(Failure::new(NcclResult::REMOTE_ERROR, sentence));
        }
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
