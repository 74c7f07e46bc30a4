//! Ranks as threads of this process: how CPU devices run. A rank that fails or panics ends the run with its own error;
//! the errors of those that waited for it are not what the user hears.

use crate::comm::{Groups, local};
use crate::error::{Error, Result};
use crate::plan::Mesh;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, never, select, unbounded};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// How long the end of a run waits for the rank that caused it to be found among those that merely noticed.
const ROOT_CAUSE_LIMIT: Duration = Duration::from_millis(500);

enum Message<R> {
    Report(R),
    Ended(Result<()>),
}

/// Ranks that run, seen from the thread that started them.
pub struct Crew<R> {
    messages: Receiver<Message<R>>,
    running: usize,
    interrupts: Receiver<Error>,
}

/// Reports to the thread that started the ranks.
pub struct Reporter<R>(Sender<Message<R>>);

impl<R> Reporter<R> {
    /// Reports.
    ///
    /// # Errors
    /// Nobody listens any more: the run has ended.
    pub fn report(&self, report: R) -> Result<()> {
        self.0.send(Message::Report(report)).map_err(|_| Error::PeerGone("the run has ended".into()))
    }
}

/// Starts a thread for each rank of a run; `body` gets the rank, its own entry of `seats`, and a way to report.
///
/// # Errors
/// A thread cannot be started.
pub fn start<S, R, B>(seats: Vec<S>, body: B) -> Result<Crew<R>>
where
    S: Send + 'static,
    R: Send + 'static,
    B: Fn(usize, S, &Reporter<R>) -> Result<()> + Clone + Send + 'static,
{
    start_some(seats.into_iter().enumerate().collect(), body)
}

/// Like [`start`], for those ranks of a run that are in this process.
///
/// # Errors
/// A thread cannot be started.
pub fn start_some<S, R, B>(seats: Vec<(usize, S)>, body: B) -> Result<Crew<R>>
where
    S: Send + 'static,
    R: Send + 'static,
    B: Fn(usize, S, &Reporter<R>) -> Result<()> + Clone + Send + 'static,
{
    let (sender, messages) = unbounded();
    let running = seats.len();
    for (rank, seat) in seats {
        let (reporter, body) = (Reporter(sender.clone()), body.clone());
        let run = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| body(rank, seat, &reporter)));
            let ended =
                outcome.unwrap_or_else(|panic| Err(Error::failed(format!("rank {rank} panicked: {}", words(&*panic)))));
            // If nobody listens any more, another rank's error has ended the run already.
            let _ = reporter.0.send(Message::Ended(ended));
        };
        thread::Builder::new()
            .name(format!("rank {rank}"))
            .spawn(run)
            .map_err(|error| Error::failed(format!("the thread of rank {rank} cannot be started: {error}")))?;
    }
    Ok(Crew { messages, running, interrupts: never() })
}

/// What a panic said.
pub fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl<R> Crew<R> {
    /// The same ranks, whose run may also be ended from without: by an error that comes through a channel.
    #[must_use]
    pub fn interrupted_by(self, interrupts: Receiver<Error>) -> Self {
        Self { interrupts, ..self }
    }

    /// The next report; `None` when every rank has ended well.
    ///
    /// # Errors
    /// The error of the rank that ended the run, or of who interrupted it.
    pub fn next_report(&mut self) -> Result<Option<R>> {
        while self.running > 0 {
            let message = select! {
                recv(self.messages) -> message => message,
                recv(self.interrupts) -> error => match error {
                    Ok(error) => return Err(error),
                    Err(_) => {
                        self.interrupts = never();
                        continue;
                    }
                },
            };
            match message {
                Ok(Message::Report(report)) => return Ok(Some(report)),
                Ok(Message::Ended(Ok(()))) => self.running -= 1,
                Ok(Message::Ended(Err(error))) => return Err(self.root_cause(error)),
                Err(_) => return Err(Error::failed("the ranks ended without a word")),
            }
        }
        Ok(None)
    }

    /// The error that began it all: one that does not merely say that another rank has gone.
    fn root_cause(&mut self, mut first: Error) -> Error {
        self.running -= 1;
        let deadline = Instant::now() + ROOT_CAUSE_LIMIT;
        while matches!(first, Error::PeerGone(_)) && self.running > 0 {
            match self.messages.recv_deadline(deadline) {
                Ok(Message::Report(_)) => {}
                Ok(Message::Ended(ended)) => {
                    self.running -= 1;
                    match ended {
                        Err(error) if !matches!(error, Error::PeerGone(_)) => first = error,
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        first
    }
}

/// The groups of every rank of a mesh, over shared memory.
pub fn groups(mesh: Mesh) -> Vec<Groups> {
    let everyone: Vec<usize> = (0..mesh.ranks()).collect();
    let mut world: Vec<_> = local::group(&everyone).into_iter().map(Some).collect();
    let take = |along: fn(Mesh, usize) -> Vec<usize>| {
        let mut ends: Vec<_> = everyone.iter().map(|_| None).collect();
        for &rank in &everyone {
            let members = along(mesh, rank);
            if members[0] == rank {
                for (member, end) in members.iter().zip(local::group(&members)) {
                    ends[*member] = Some(end);
                }
            }
        }
        ends
    };
    let (mut model, mut data) = (take(Mesh::model_group), take(Mesh::data_group));
    everyone
        .iter()
        .filter_map(|&rank| {
            Some(Groups {
                world: Box::new(world[rank].take()?),
                model: Box::new(model[rank].take()?),
                data: Box::new(data[rank].take()?),
            })
        })
        .collect()
}
