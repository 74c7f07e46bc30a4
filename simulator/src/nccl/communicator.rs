//! One rank's communicator: what it may do next, and its way from being asked for to being destroyed.

use super::exchange::Exchange;
use super::header::Lane;
use super::job::Job;
use super::operation::Issuer;
use super::rendezvous::{self, Identity};
use super::result::{Failure, NcclResult};
use super::turns::Turns;
use crate::cuda::device::Device;
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
    /// Its batches.
    pub turns: Turns,
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
        };
        let communicator = Arc::new(Self {
            rank: own.rank,
            size: own.size,
            device,
            is_blocking,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            exchange: OnceLock::new(),
            is_aborted: AtomicBool::new(false),
            turns: Turns::default(),
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

    /// The connections to the other ranks, once they have met.
    pub fn exchange(&self) -> Option<&Arc<Exchange>> {
        self.exchange.get()
    }

    /// The place of the next operation in its lane. A collective's peer is the own rank.
    pub fn next_sequence(&self, lane: Lane, peer: usize) -> u64 {
        let mut state = lock(&self.state);
        let sequence = state.sequences.entry((lane, peer)).or_insert(0);
        *sequence += 1;
        *sequence
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
            Phase::Finalizing => self.turns.are_over(),
        };
        state.polls = state.polls.saturating_sub(1);
        if !is_over || state.polls > 0 {
            return NcclResult::IN_PROGRESS;
        }
        state.phase = if state.phase == Phase::Joining { Phase::Ready } else { Phase::Finalized };
        NcclResult::SUCCESS
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
        drop(state);
        self.turns.wait_until_over();
        lock(&self.state).phase = Phase::Finalized;
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
            _ if !self.turns.are_over() => {
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
        self.turns.abort();
    }

    /// A rule that a call breaks.
    pub fn broken(&self, call: &str, sentence: &str) -> Failure {
        Failure::broken_rule(
            format_args!("rank {}", self.rank),
            NcclResult::INVALID_USAGE,
            format!("{call}: {sentence}"),
        )
    }
}
