//! The flight recorder: each rank's last collective calls, with their times, whatever the transport. [`Recorded`] stands
//! before a transport; the engine does not know of it. A call costs a lock that nobody else holds, and no allocation but
//! that of its ticket's place.
//!
//! * [`record`] what is told of a call and of a rank
//!
//! A call passes through these states: *started*, while the rank's thread is inside the start of it; *travelling*, until
//! its end; *done* or *failed*. On a GPU the end of a call puts work on a stream and waits for nothing, so that the call
//! is travelling until the GPU has come past it, which [`Recorder::look`] asks from a thread of its own.

pub mod record;

use self::record::{Flight, GroupState, Record, State};
use super::{Arrived, Call, Collective, Operation, Request, Ticket, Timing, Traffic};
use crate::error::Result;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tch::Tensor;

/// How many calls of a rank are kept: some steps of a large network.
const KEPT: usize = 256;

/// Tells from any thread whether a call has travelled.
pub type Probe = Arc<dyn Fn() -> bool + Send + Sync>;

/// The last calls of one rank, in all its groups.
pub struct Recorder {
    rank: usize,
    begun: (Instant, SystemTime),
    log: Mutex<Log>,
}

struct Log {
    calls: VecDeque<Entry>,
    /// The number of calls that are not kept any more: that of the first one that is.
    forgotten: u64,
    groups: Vec<GroupState>,
}

struct Entry {
    group: usize,
    sequence: u64,
    operation: Operation,
    call: Call,
    bytes: u64,
    started: Instant,
    travelling: Option<Instant>,
    awaited: Option<Instant>,
    finished: Option<Instant>,
    failed: bool,
    probe: Option<Probe>,
}

impl Entry {
    fn state(&self) -> State {
        match (self.failed, self.finished, self.travelling) {
            (true, ..) => State::Failed,
            (_, Some(_), _) if self.probe.is_none() => State::Done,
            (_, None, None) => State::Started,
            _ => State::Travelling,
        }
    }

    /// Since when the rank, or its GPU, can do nothing but wait for this call.
    fn blocked_since(&self) -> Option<Instant> {
        match self.state() {
            State::Started => Some(self.started),
            State::Travelling if self.finished.is_some() => Some(self.started),
            State::Travelling => self.awaited,
            State::Done | State::Failed => None,
        }
    }
}

impl Recorder {
    /// The recorder of a rank of the run.
    pub fn new(rank: usize) -> Arc<Self> {
        let log = Log { calls: VecDeque::with_capacity(KEPT), forgotten: 0, groups: Vec::new() };
        Arc::new(Self { rank, begun: (Instant::now(), SystemTime::now()), log: Mutex::new(log) })
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the rank can do nothing but wait for a call to end; `None`: it is not waiting.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.log().calls.iter().filter_map(Entry::blocked_since).min()
    }

    /// Whether a call of the rank has failed.
    pub fn has_failed(&self) -> bool {
        self.log().calls.iter().any(|call| call.failed)
    }

    /// Asks which of the calls that a GPU carries out have travelled. The driver may keep the asking thread for ever.
    pub fn look(&self) {
        let asked: Vec<(u64, Probe)> = {
            let log = self.log();
            let numbers = log.forgotten..;
            numbers
                .zip(&log.calls)
                .filter_map(|(number, call)| Some((number, Arc::clone(call.probe.as_ref()?))))
                .collect()
        };
        for (number, probe) in asked {
            // One stream carries out all of them in order.
            if !probe() {
                break;
            }
            self.note(number, |call| call.probe = None);
        }
    }

    /// Gives up what [`Recorder::look`] asks: calls that were under way are taken for done.
    pub fn forget_probes(&self) {
        let probes: Vec<Probe> = self.log().calls.iter_mut().filter_map(|call| call.probe.take()).collect();
        // Without the lock: to let go of a GPU may take its time.
        drop(probes);
    }

    /// All that is known of the rank.
    pub fn flight(&self) -> Flight {
        let now = Instant::now();
        let log = self.log();
        let records = log.calls.iter().map(|call| self.record(call, &log.groups[call.group], now)).collect();
        Flight { rank: self.rank, process: std::process::id(), at: self.unix(now), groups: log.groups.clone(), records }
    }

    fn record(&self, call: &Entry, group: &GroupState, now: Instant) -> Record {
        // A call that failed held the rank up until then.
        let until = if call.failed { call.finished.unwrap_or(now) } else { now };
        let since = if call.failed { call.awaited.or(Some(call.started)) } else { call.blocked_since() };
        Record {
            group: group.name.clone(),
            ranks: group.ranks.clone(),
            sequence: call.sequence,
            operation: call.operation,
            layer: call.call.subject.to_string(),
            stage: call.call.stage,
            bytes: call.bytes,
            state: call.state(),
            started: self.unix(call.started),
            travelling: call.travelling.map(|time| self.unix(time)),
            awaited: call.awaited.map(|time| self.unix(time)),
            finished: call.finished.map(|time| self.unix(time)),
            blocked_seconds: since.map(|since| until.saturating_duration_since(since).as_secs_f64()),
        }
    }

    /// A time in seconds since 1970, so that ranks' records can be laid side by side.
    fn unix(&self, time: Instant) -> f64 {
        let since = time.saturating_duration_since(self.begun.0);
        (self.begun.1 + since).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Makes a group known; gives its number.
    fn join(&self, name: &str, ranks: &[usize]) -> usize {
        let mut log = self.log();
        log.groups.push(GroupState { name: name.to_owned(), ranks: ranks.to_vec(), calls: 0 });
        log.groups.len() - 1
    }

    /// Takes note of a call that begins; gives its number.
    fn begin(&self, group: usize, operation: Operation, call: &Call, bytes: u64) -> u64 {
        let mut log = self.log();
        log.groups[group].calls += 1;
        if log.calls.len() == KEPT {
            log.calls.pop_front();
            log.forgotten += 1;
        }
        let entry = Entry {
            group,
            sequence: log.groups[group].calls,
            operation,
            call: call.clone(),
            bytes,
            started: Instant::now(),
            travelling: None,
            awaited: None,
            finished: None,
            failed: false,
            probe: None,
        };
        log.calls.push_back(entry);
        log.forgotten + log.calls.len() as u64 - 1
    }

    /// Takes note of something about a call, if it is still kept.
    fn note(&self, number: u64, what: impl FnOnce(&mut Entry)) {
        let mut log = self.log();
        let place = number.checked_sub(log.forgotten).and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| log.calls.get_mut(place)) {
            what(call);
        }
    }

    fn end<T>(&self, number: u64, result: &Result<T>) {
        let mut probe = None;
        self.note(number, |call| {
            call.finished = Some(Instant::now());
            call.failed = result.is_err();
            probe = if call.failed { call.probe.take() } else { call.probe.clone() };
        });
        // Without the lock: the driver may keep who asks, and then the watchdog needs the log.
        if result.is_ok() && probe.as_ref().is_some_and(|probe| probe()) {
            self.note(number, |call| call.probe = None);
        }
    }
}

/// A transport whose calls are recorded.
pub struct Recorded {
    transport: Box<dyn Collective>,
    recorder: Arc<Recorder>,
    group: usize,
    /// The recorder's numbers of the calls that are not finished, by their tickets.
    open: BTreeMap<u64, u64>,
}

impl Recorded {
    /// Records the calls of a group of these ranks, under a name.
    pub fn new(transport: Box<dyn Collective>, recorder: &Arc<Recorder>, name: &str, ranks: &[usize]) -> Self {
        let group = recorder.join(name, ranks);
        Self { transport, recorder: Arc::clone(recorder), group, open: BTreeMap::new() }
    }
}

/// The bytes that a rank puts in.
fn bytes(tensors: &[&Tensor]) -> u64 {
    let defined = tensors.iter().filter(|tensor| tensor.defined());
    defined.map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}

impl Collective for Recorded {
    fn rank(&self) -> usize {
        self.transport.rank()
    }

    fn size(&self) -> usize {
        self.transport.size()
    }

    fn start(&mut self, call: &Call, request: Request) -> Result<Ticket> {
        let number = self.recorder.begin(self.group, request.operation(), call, bytes(&request.tensors()));
        match self.transport.start(call, request) {
            Ok(ticket) => {
                let probe = self.transport.probe(&ticket);
                self.recorder.note(number, |call| {
                    call.travelling = Some(Instant::now());
                    call.probe = probe;
                });
                self.open.insert(ticket.0, number);
                Ok(ticket)
            }
            failed => {
                self.recorder.end(number, &failed);
                failed
            }
        }
    }

    fn finish(&mut self, ticket: Ticket) -> Result<Arrived> {
        let number = self.open.remove(&ticket.0);
        if let Some(number) = number {
            self.recorder.note(number, |call| call.awaited = Some(Instant::now()));
        }
        let finished = self.transport.finish(ticket);
        if let Some(number) = number {
            self.recorder.end(number, &finished);
        }
        finished
    }

    fn probe(&self, ticket: &Ticket) -> Option<Probe> {
        self.transport.probe(ticket)
    }

    fn common(&mut self, call: &Call, own: Tensor) -> Result<Tensor> {
        let number = self.recorder.begin(self.group, Operation::AllGather, call, bytes(&[&own]));
        let common = self.transport.common(call, own);
        self.recorder.end(number, &common);
        common
    }

    fn take_traffic(&mut self) -> Traffic {
        self.transport.take_traffic()
    }

    fn take_timings(&mut self) -> Vec<Timing> {
        self.transport.take_timings()
    }
}

#[cfg(test)]
mod tests;
