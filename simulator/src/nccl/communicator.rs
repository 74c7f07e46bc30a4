//! One rank's communicator: what it may do next, and its way from being asked for to being destroyed.

use super::batch::{Batch, Planned};
use super::exchange::{Exchange, Stopped};
use super::header::{Header, Lane};
use super::job::Job;
use super::operation::{Issuer, Operation};
use super::rendezvous::{self, Identity};
use super::result::{Failure, NcclResult};
use crate::cuda::device::Device;
use crate::cuda::event::Mark;
use crate::cuda::stream::Stream;
use crate::environment::settings;
use crate::handles::{Kind, Table};
use crate::random::{Purpose, draw};
use crate::sync::{lock, wait};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::ThreadId;

/// The communicators that are alive.
pub static COMMUNICATORS: Table<Communicator> = Table::new(Kind::Communicator);

/// One rank's communicator.
pub struct Communicator {
    /// The own rank.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// The own device.
    pub device: &'static Device,
    /// Whether its calls return only when they have taken effect.
    pub is_blocking: bool,
    /// Its number in this process: part of the key of its polls.
    number: u64,
    exchange: OnceLock<Arc<Exchange>>,
    is_aborted: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    /// Why the ranks did not meet.
    failure: Option<Failure>,
    /// Whether the ranks have met, or failed to.
    has_joined: bool,
    /// How many polls are left before a change of phase is told.
    polls: u64,
    draws: u64,
    /// Operations that are not on their streams yet.
    pending: Option<Arc<Job>>,
    /// The thread with an open group that has operations of this communicator.
    group: Option<ThreadId>,
    /// How many operations there were in each lane with each peer; all collectives count under the own rank.
    sequences: BTreeMap<(Lane, usize), u64>,
    issued: u64,
    done: u64,
}

/// Where on its way it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    Ready,
    Finalizing,
    Finalized,
}

impl Communicator {
    /// Begins to join the other ranks, in a thread of its own.
    pub fn join(own: Identity, device: &'static Device, token: String, is_blocking: bool) -> Arc<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let state = State {
            phase: Phase::Joining,
            failure: None,
            has_joined: false,
            polls: 0,
            draws: 0,
            pending: None,
            group: None,
            sequences: BTreeMap::new(),
            issued: 0,
            done: 0,
        };
        let communicator = Arc::new(Self {
            rank: own.rank,
            size: own.size,
            device,
            is_blocking,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            exchange: OnceLock::new(),
            is_aborted: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        communicator.draw_polls(&mut lock(&communicator.state));
        let joining = Arc::clone(&communicator);
        let thread = std::thread::Builder::new().name(format!("join {}", own.rank));
        if let Err(error) = thread.spawn(move || joining.joined(joining.meet(own, &token))) {
            communicator
                .joined(Err(Failure::new(NcclResult::SYSTEM_ERROR, format!("no thread can be started: {error}"))));
        }
        communicator
    }

    fn meet(&self, own: Identity, token: &str) -> Result<Arc<Exchange>, Failure> {
        let met = rendezvous::meet(own, token, &self.is_aborted)?;
        let number = token.bytes().fold(0, |number, byte| draw(&[number, u64::from(byte)]));
        Exchange::new(own.rank, number, met.devices, met.links)
            .map_err(|error| Failure::new(NcclResult::SYSTEM_ERROR, format!("no thread can be started: {error}")))
    }

    fn joined(&self, met: Result<Arc<Exchange>, Failure>) {
        let mut state = lock(&self.state);
        match met {
            Ok(exchange) => {
                if self.is_aborted.load(Ordering::Acquire) {
                    exchange.abort();
                }
                // Joined once, so that there is none yet.
                let _ = self.exchange.set(exchange);
            }
            Err(failure) => state.failure = Some(failure),
        }
        state.has_joined = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the ranks have met.
    pub fn wait_until_joined(&self) -> Result<(), Failure> {
        let mut state = lock(&self.state);
        while !state.has_joined {
            state = wait(&self.changed, state);
        }
        state.phase = Phase::Ready;
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn draw_polls(&self, state: &mut State) {
        state.draws += 1;
        state.polls = self.drawn_polls(state.draws);
    }

    fn drawn_polls(&self, number: u64) -> u64 {
        let key = [Purpose::Polls as u64, settings().seed, self.device.ordinal as u64, self.number, number];
        draw(&key) % 4 + 1
    }

    /// How often a job must be polled for.
    pub fn polls_of_a_job(&self) -> u64 {
        let mut state = lock(&self.state);
        state.draws += 1;
        self.drawn_polls(state.draws)
    }

    /// Who issues operations here.
    pub fn issuer(&self) -> Issuer {
        Issuer { rank: self.rank, size: self.size, device: self.device }
    }

    /// Why it has failed, if it has.
    pub fn failure(&self) -> Option<Failure> {
        let failure = lock(&self.state).failure.clone();
        failure.or_else(|| self.exchange.get().and_then(|exchange| exchange.failure()))
    }

    /// Ends its work on this rank, as a fault that was asked for does: no other rank is told.
    pub fn fail_silently(&self, failure: Failure) {
        match self.exchange.get() {
            Some(exchange) => exchange.fail_silently(failure),
            None => lock(&self.state).failure = Some(failure),
        }
    }

    /// Checks that a call may use it now.
    pub fn check(&self, call: &str) -> Result<(), Failure> {
        self.check_thread(call)?;
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let state = lock(&self.state);
        let sentence = match state.phase {
            Phase::Joining => {
                "the communicator is still being made: poll ncclCommGetAsyncError until it gives ncclSuccess"
            }
            Phase::Finalizing => "the communicator is being finalized",
            Phase::Finalized => "the communicator is finalized",
            Phase::Ready if state.pending.is_some() => {
                "the operation before is still in progress: poll ncclCommGetAsyncError until it gives ncclSuccess"
            }
            Phase::Ready => return Ok(()),
        };
        drop(state);
        Err(self.broken(call, sentence))
    }

    /// Checks that no other thread has it in an open group.
    pub fn check_thread(&self, call: &str) -> Result<(), Failure> {
        let owner = lock(&self.state).group;
        if owner.is_none_or(|owner| owner == std::thread::current().id()) {
            return Ok(());
        }
        Err(self.broken(call, "another thread has an open group with operations of this communicator"))
    }

    /// Notes that the calling thread's open group has operations of it.
    pub fn enter_group(&self) {
        lock(&self.state).group = Some(std::thread::current().id());
    }

    /// The group has ended.
    pub fn leave_group(&self) {
        lock(&self.state).group = None;
    }

    /// Operations are on their way: nothing else may be asked before they are polled for.
    pub fn set_pending(&self, job: Option<Arc<Job>>) {
        lock(&self.state).pending = job;
    }

    /// A poll: what `ncclCommGetAsyncError` tells.
    pub fn poll(&self) -> NcclResult {
        if let Some(failure) = self.failure() {
            return failure.told();
        }
        let pending = lock(&self.state).pending.clone();
        if let Some(job) = pending {
            return job.poll();
        }
        let mut state = lock(&self.state);
        let is_over = match state.phase {
            Phase::Ready | Phase::Finalized => return NcclResult::SUCCESS,
            Phase::Joining => state.has_joined,
            Phase::Finalizing => state.done == state.issued,
        };
        state.polls = state.polls.saturating_sub(1);
        if !is_over || state.polls > 0 {
            return NcclResult::IN_PROGRESS;
        }
        state.phase = if state.phase == Phase::Joining { Phase::Ready } else { Phase::Finalized };
        NcclResult::SUCCESS
    }

    /// Puts operations that belong together on their streams.
    pub fn launch(self: &Arc<Self>, operations: Vec<Operation>) -> Result<(), Failure> {
        let Some(exchange) = self.exchange.get().map(Arc::clone) else { return Ok(()) };
        let mut streams: Vec<Arc<Stream>> = Vec::new();
        for operation in &operations {
            if operation.stream.is_closed() {
                return Err(self.broken("launch", "the stream was destroyed before the operation was put on it"));
            }
            if !streams.iter().any(|stream| Arc::ptr_eq(stream, &operation.stream)) {
                streams.push(Arc::clone(&operation.stream));
            }
        }
        let Some((first, others)) = streams.split_first() else { return Ok(()) };
        let number = {
            let mut state = lock(&self.state);
            state.issued += 1;
            state.issued
        };
        let operations = self.plan(&exchange, operations);
        let batch = Batch { communicator: Arc::clone(self), exchange: Arc::clone(&exchange), number, operations };
        let (words, accesses) = (batch.to_string(), batch.accesses());
        // A group over several streams begins when all of them have come to it, and all go on after it.
        others.iter().for_each(|other| Mark::put(other).hold_back(first));
        let pushed = first.push(&words, &accesses, move || batch.carry_out());
        others.iter().for_each(|other| Mark::put(first).hold_back(other));
        if let Err(race) = pushed {
            exchange.fail(self.broken("launch", &race));
            self.finish_turn();
        }
        Ok(())
    }

    /// Numbers the operations, in the order in which they are carried out.
    fn plan(&self, exchange: &Exchange, operations: Vec<Operation>) -> Vec<Planned> {
        let (messages, collectives): (Vec<_>, Vec<_>) = operations.into_iter().partition(Operation::is_message);
        let mut state = lock(&self.state);
        let planned = collectives.into_iter().chain(messages).map(|operation| {
            let lane = operation.lane();
            let other = operation.peer.filter(|_| operation.is_message()).unwrap_or(self.rank);
            let sequence = state.sequences.entry((lane, other)).or_insert(0);
            *sequence += 1;
            let header = operation.header(*sequence);
            let peers: Vec<usize> = exchange.peers().filter(|&peer| !operation.is_message() || peer == other).collect();
            let headers = peers.into_iter().map(|peer| (peer, exchange.issue(peer, header))).collect();
            Planned { operation, headers }
        });
        planned.collect()
    }

    /// Waits until all batches before this one are done: a communicator does one thing after the other, whatever streams
    /// its operations are on.
    pub fn wait_for_turn(&self, batch: u64) -> Result<(), Stopped> {
        let mut state = lock(&self.state);
        while state.done + 1 < batch {
            if self.is_aborted.load(Ordering::Acquire) {
                return Err(Stopped);
            }
            state = wait(&self.changed, state);
        }
        Ok(())
    }

    /// A batch is done.
    pub fn finish_turn(&self) {
        lock(&self.state).done += 1;
        self.changed.notify_all();
    }

    /// Begins to finalize; a blocking communicator is finalized when this returns.
    pub fn finalize(&self) -> Result<(), NcclResult> {
        self.check("ncclCommFinalize").map_err(|failure| failure.told())?;
        let mut state = lock(&self.state);
        if !self.is_blocking {
            state.phase = Phase::Finalizing;
            self.draw_polls(&mut state);
            return Err(NcclResult::IN_PROGRESS);
        }
        while state.done < state.issued {
            state = wait(&self.changed, state);
        }
        state.phase = Phase::Finalized;
        Ok(())
    }

    /// Ends it in peace: nothing may be in flight.
    pub fn destroy(&self) -> Result<(), Failure> {
        self.check_thread("ncclCommDestroy")?;
        if let Some(failure) = self.failure() {
            self.abort();
            return Err(failure);
        }
        let state = lock(&self.state);
        let sentence = match state.phase {
            Phase::Joining => Some("the communicator is still being made"),
            Phase::Finalizing => Some("the communicator is still being finalized: poll until it gives ncclSuccess"),
            _ if state.pending.is_some() => Some("an operation is still in progress: poll until it gives ncclSuccess"),
            _ if state.done < state.issued => {
                Some("operations are still in flight: finalize the communicator first, or wait for their stream")
            }
            _ => None,
        };
        drop(state);
        if let Some(sentence) = sentence {
            let failure = self.broken("ncclCommDestroy", sentence);
            self.abort();
            return Err(failure);
        }
        if let Some(exchange) = self.exchange.get() {
            exchange.leave();
        }
        Ok(())
    }

    /// Ends what is in flight on this rank.
    pub fn abort(&self) {
        self.is_aborted.store(true, Ordering::Release);
        if let Some(exchange) = self.exchange.get() {
            exchange.abort();
        }
        // Under the lock, so that nobody who is about to wait misses it.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    fn broken(&self, call: &str, sentence: &str) -> Failure {
        Failure::broken_rule(
            format_args!("rank {}", self.rank),
            NcclResult::INVALID_USAGE,
            format!("{call}: {sentence}"),
        )
    }
}

impl Operation {
    /// Its lane.
    fn lane(&self) -> Lane {
        self.header(0).lane()
    }

    /// What the other ranks are told of it.
    fn header(&self, sequence: u64) -> Header {
        Header {
            kind: self.kind,
            datatype: self.datatype,
            reduction: self.reduction,
            root: if self.is_message() { None } else { self.peer.map(|root| root as u32) },
            count: self.count as u64,
            sequence,
            sent: 0,
            received: 0,
        }
    }
}
