//! The watchdog: sees, on a thread of its own, a collective call that does not end, or hears of one from another rank;
//! lays the last calls of all ranks side by side, says in one report which rank and operation disagrees or lags, and ends
//! the run, whatever state the ranks' own threads and NCCL are in.
//!
//! * [`finding`] what the records, laid side by side, say
//! * [`council`] how ranks that are processes put their records together
//! * [`report`] the file that keeps them
//!
//! Ranks that are threads have their recorders in one memory. Ranks that are processes meet in the run's store: whoever
//! notices first raises the alarm, all put up their records, one of them reports and the others end too.

pub mod council;
pub mod finding;
pub mod report;

use self::council::{Advice, Council};
use self::finding::{Finding, find};
use self::report::Report;
use super::board::Board;
use super::last_word;
use super::word::{Word, tell};
use crate::comm::Groups;
use crate::comm::recorder::record::Flight;
use crate::comm::recorder::{Recorded, Recorder};
use crate::error::{Error, Result};
use crate::plan::Mesh;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the recorders are looked at, where the limit is not shorter still.
const TICK: Duration = Duration::from_millis(250);
/// A thread that wakes so much too late was stopped, and the whole process with it: that is not waiting.
const STOPPED: Duration = Duration::from_secs(2);
/// How long the main thread has to end the process after an alarm, before the watchdog does.
const FAREWELL: Duration = Duration::from_secs(10);

/// What a watchdog is told.
pub struct Watch {
    /// How long a call may keep a rank waiting.
    pub limit: Duration,
    /// The run's folder, which keeps the report.
    pub folder: Option<PathBuf>,
    /// Whether the process is ended, if it does not end by itself after an alarm.
    pub exits: bool,
}

/// Watches the ranks of this process.
pub struct Watchdog {
    shared: Arc<Shared>,
    interrupts: Receiver<Error>,
    /// Closed when the watchdog is not needed any more.
    _needed: Sender<()>,
}

struct Shared {
    watch: Watch,
    /// The recorders of this process's ranks.
    recorders: Vec<Arc<Recorder>>,
    /// The other ranks, where they are processes.
    council: Option<Council>,
    ending: Mutex<Option<Ending>>,
}

/// What was found out, once.
#[derive(Clone)]
struct Ending {
    advice: Told,
    /// The error that the run ends with.
    error: Option<Error>,
}

#[derive(Clone)]
enum Told {
    /// This process reports.
    Here { finding: Finding, kept: String },
    /// Another rank reports.
    By(usize),
}

/// Ranks, each with its groups.
type RankGroups = Vec<(usize, Groups)>;

/// The groups of ranks with what records their calls.
fn recorded(groups: RankGroups, mesh: Mesh) -> (RankGroups, Vec<Arc<Recorder>>) {
    let everyone: Vec<usize> = (0..mesh.ranks()).collect();
    let record = |(rank, groups): (usize, Groups)| {
        let recorder = Recorder::new(rank);
        let group = |transport, name: &str, ranks: &[usize]| Box::new(Recorded::new(transport, &recorder, name, ranks));
        let groups = Groups {
            world: group(groups.world, "world", &everyone),
            model: group(groups.model, "model", &mesh.model_group(rank)),
            data: group(groups.data, "data", &mesh.data_group(rank)),
        };
        ((rank, groups), recorder)
    };
    groups.into_iter().map(record).unzip()
}

impl Watchdog {
    /// Records the calls of ranks, and watches them; `boards` are two connections to the other ranks, where those are
    /// processes: one to listen, one to speak.
    ///
    /// # Errors
    /// A thread cannot be started, or the store has gone.
    pub fn over(
        groups: RankGroups,
        mesh: Mesh,
        watch: Watch,
        boards: Option<[Board; 2]>,
    ) -> Result<(RankGroups, Self)> {
        let (groups, recorders) = recorded(groups, mesh);
        let (alarms, alarm) = unbounded();
        let (needed, over) = bounded(0);
        let council = match (boards, recorders.first()) {
            (Some([listening, speaking]), Some(own)) => {
                let council = Council::join(speaking, own.rank(), mesh.ranks())?;
                let closed = over.clone();
                begin("alarm", move || council::listen(&listening, &alarms, &closed))?;
                Some(council)
            }
            _ => None,
        };
        let on_gpus = council.is_some();
        let shared = Arc::new(Shared { watch, recorders, council, ending: Mutex::default() });
        let (interrupt, interrupts) = unbounded();
        let (watching, closed) = (Arc::clone(&shared), over.clone());
        begin("watchdog", move || watching.guard(&closed, &alarm, &interrupt))?;
        if on_gpus {
            let probing = Arc::clone(&shared);
            begin("probes", move || probing.probe(&over))?;
        }
        Ok((groups, Self { shared, interrupts, _needed: needed }))
    }

    /// What ends the run when a call does not end.
    pub fn interrupts(&self) -> Receiver<Error> {
        self.interrupts.clone()
    }

    /// What a run ends with that ended with an error: where that is about a collective call, or the other ranks are
    /// processes that do not know of it, the report is made, and if a rank merely waited for another, it is the error.
    pub fn conclude(&self, error: Error) -> Error {
        let collective = self.shared.recorders.iter().any(|recorder| recorder.has_failed());
        if collective || self.shared.council.is_some() { self.shared.end(Some(error)) } else { error }
    }
}

impl Drop for Watchdog {
    /// What was asked about calls keeps hold of the GPU, and is not asked any more.
    fn drop(&mut self) {
        self.shared.recorders.iter().for_each(|recorder| recorder.forget_probes());
    }
}

/// Starts a thread.
fn begin(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let begun = thread::Builder::new().name(name.into()).spawn(work);
    begun.map(|_| ()).map_err(|error| Error::failed(format!("the thread `{name}` cannot be started: {error}")))
}

impl Shared {
    fn tick(&self) -> Duration {
        TICK.min(self.watch.limit / 8).max(Duration::from_millis(5))
    }

    /// Waits for a call to last too long, or for an alarm; then ends the run.
    fn guard(&self, closed: &Receiver<()>, alarm: &Receiver<()>, interrupt: &Sender<Error>) {
        let mut clock = Clock::default();
        let mut listening = true;
        loop {
            let heard = if listening {
                crossbeam::channel::select! {
                    recv(closed) -> _ => return,
                    recv(alarm) -> heard => { listening = heard.is_ok(); heard.is_ok() },
                    default(self.tick()) => false,
                }
            } else {
                match closed.recv_timeout(self.tick()) {
                    Err(RecvTimeoutError::Timeout) => false,
                    _ => return,
                }
            };
            clock.tick(self.tick());
            let longest = self.recorders.iter().filter_map(|recorder| recorder.blocked_since()).min();
            if heard || longest.is_some_and(|since| clock.since(since) >= self.watch.limit) {
                break;
            }
        }
        let error = self.end(None);
        let _ = interrupt.send(error.clone());
        if self.watch.exits {
            self.make_sure(&error);
        }
    }

    /// Ends the process, unless its main thread does so first.
    fn make_sure(&self, error: &Error) {
        thread::sleep(FAREWELL);
        last_word::end(error)
    }

    /// Asks, on a thread that the driver may keep, what has travelled.
    fn probe(&self, closed: &Receiver<()>) {
        while closed.recv_timeout(self.tick()) == Err(RecvTimeoutError::Timeout) {
            self.recorders.iter().for_each(|recorder| recorder.look());
        }
    }

    /// The error that the run ends with, after one report, whoever asks first.
    fn end(&self, error: Option<Error>) -> Error {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &*ending {
            Some(known) if known.error == error => return error.unwrap_or_else(nothing),
            Some(known) => known.advice.clone(),
            None => self.consult(error.as_ref()),
        };
        let error = known.error(error);
        *ending = Some(Ending { advice: known, error: Some(error.clone()) });
        error
    }

    /// Puts the records together, or hears that another rank does.
    fn consult(&self, error: Option<&Error>) -> Told {
        let own = self.recorders.iter().map(|recorder| recorder.flight()).collect::<Vec<_>>();
        let Some(council) = &self.council else {
            let finding = find(&own.iter().cloned().map(Some).collect::<Vec<_>>());
            return self.report(finding, own.into_iter().map(Some).collect(), error, report::FILE.into());
        };
        let Some(own) = own.into_iter().next() else { return Told::By(0) };
        match council.consult(&own) {
            Advice::Heard(rank) => Told::By(rank),
            Advice::Report(flights) => {
                let finding = council.located(find(&flights));
                // Of a rank with an error of its own it is known who ended the run; else the finding tells.
                let own_error = error.is_some_and(|error| !matches!(error, Error::PeerGone(_)));
                let why = if own_error { None } else { finding.short() };
                tell(&Word::Ending { rank: own.rank, why });
                let told = self.report(finding, flights, error, report::FILE.into());
                council.reported();
                told
            }
            Advice::Alone => {
                let mut flights = vec![None; council.ranks()];
                let rank = own.rank;
                flights[rank] = Some(own);
                let finding = find(&flights);
                self.report(finding, flights, error, format!("flight-recorder-rank-{rank}.json"))
            }
        }
    }

    fn report(&self, finding: Finding, flights: Vec<Option<Flight>>, error: Option<&Error>, name: String) -> Told {
        let report = Report {
            finding: finding.clone(),
            sentence: finding.to_string(),
            error: error.map(ToString::to_string),
            limit_seconds: self.watch.limit.as_secs_f64(),
            ranks: flights,
        };
        let kept = match &self.watch.folder {
            None => String::new(),
            Some(folder) => match report.write(&folder.join(&name)) {
                Ok(()) => format!("; every rank's last calls are in {}", folder.join(&name).display()),
                Err(error) => format!("; the ranks' last calls could not be kept: {error}"),
            },
        };
        Told::Here { finding, kept }
    }
}

fn nothing() -> Error {
    Error::failed("the run was ended")
}

impl Told {
    /// The error that a run ends with, of which the rank itself may have had one.
    fn error(&self, own: Option<Error>) -> Error {
        match (self, own) {
            (Self::Here { finding: Finding::Nothing, kept }, Some(Error::PeerGone(own))) => Error::PeerGone(own + kept),
            (Self::Here { finding: finding @ Finding::Differs { .. }, kept }, _)
            | (Self::Here { finding, kept }, None | Some(Error::PeerGone(_))) => {
                let slow = match finding {
                    Finding::Behind { silence: None, .. } | Finding::Stuck { .. } => {
                        "; if it is merely slow, raise parallel.timeout"
                    }
                    _ => "",
                };
                Error::failed(format!("{finding}{slow}{kept}"))
            }
            (Self::Here { kept, .. }, Some(Error::Failed(own))) => Error::Failed(own + kept),
            (Self::By(rank), None | Some(Error::PeerGone(_))) => {
                Error::PeerGone(format!("the run ends; rank {rank} says why"))
            }
            (_, Some(own)) => own,
        }
    }
}

/// Tells how long something has lasted, without the time in which the whole process was stopped.
#[derive(Default)]
struct Clock {
    last: Option<Instant>,
    stops: Vec<(Instant, Duration)>,
}

impl Clock {
    /// To be called again and again, every `due`.
    fn tick(&mut self, due: Duration) {
        let now = Instant::now();
        let late = self.last.map_or(Duration::ZERO, |last| now.duration_since(last).saturating_sub(due));
        if late > STOPPED {
            self.stops.push((now, late));
        }
        self.last = Some(now);
    }

    fn since(&self, begin: Instant) -> Duration {
        let stopped: Duration = self.stops.iter().filter(|(end, _)| *end > begin).map(|(_, time)| *time).sum();
        begin.elapsed().saturating_sub(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let begin = Instant::now();
        let mut clock = Clock::default();
        let ago = |seconds| begin.checked_sub(Duration::from_secs(seconds)).unwrap();
        clock.last = Some(ago(50));
        clock.tick(TICK);
        assert!(clock.since(ago(60)) < Duration::from_secs(20));
        assert!(clock.since(begin) < Duration::from_secs(20));
        clock.tick(TICK);
        assert_eq!(clock.stops.len(), 1);
    }
}
