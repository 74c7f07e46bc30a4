//! Signs of life through the store, while a run of many processes trains. A machine that is cut off sends nothing, not even
//! an error, and neither does a process that was killed where nobody watches it: whoever waits for it would wait as long
//! as a collective may take, and be none the wiser.
//!
//! Each rank counts up a key of its own. Rank 0 looks at all of them and the others at its; all look whether another has
//! failed. Who hears nothing for too long ends its process with a sentence.

use super::last_word;
use super::world::{World, named};
use crate::error::{Error, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a rank's key holds once it has ended.
const ENDED: &[u8] = b"ended";
/// Signs of life in the time after which silence is an error.
const BEATS: u32 = 8;
/// The longest time between two of them.
const SLOWEST: Duration = Duration::from_secs(5);
/// How much longer than a collective a silence may last, a beat and the watchdog's report included, which says more.
const AFTER_COLLECTIVES: Duration = Duration::from_secs(12);

/// Gives and watches for signs of life until it is dropped.
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Begins; a collective of this run may take as long as `collectives`.
    ///
    /// # Errors
    /// The store's, or a thread cannot be started.
    pub fn start(world: Arc<World>, collectives: Duration) -> Result<Self> {
        Self::start_with(world, collectives + AFTER_COLLECTIVES, |error| last_word::end(error))
    }

    /// Begins, and tells `lost` when the run cannot go on: after a silence of `limit`, or when another rank failed.
    fn start_with(world: Arc<World>, limit: Duration, lost: impl Fn(&Error) + Send + 'static) -> Result<Self> {
        let (stop, stopped) = bounded(0);
        let mut watch = Watch::new(world, limit)?;
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || {
            if let Err(error) = watch.beat_until(&stopped) {
                watch.world.fail(&error);
                lost(&error);
            }
        });
        let thread = thread.map_err(|error| Error::failed(format!("a thread cannot be started: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    world: Arc<World>,
    beats: u64,
    /// What was last seen of each rank that is watched, and when it changed.
    seen: BTreeMap<usize, (Vec<u8>, Instant)>,
    /// When the store last answered.
    answered: Instant,
    /// After how long silence is an error.
    limit: Duration,
}

impl Watch {
    fn new(world: Arc<World>, limit: Duration) -> Result<Self> {
        let now = Instant::now();
        let watched = if world.who.rank == 0 { 1..world.who.size } else { 0..1 };
        let seen = watched.map(|rank| (rank, (Vec::new(), now))).collect();
        let watch = Self { world, beats: 0, seen, answered: now, limit };
        watch.give(b"0")?;
        Ok(watch)
    }

    /// Gives and looks for signs of life until it is told to stop.
    fn beat_until(&mut self, stopped: &Receiver<()>) -> Result<()> {
        let interval = (self.limit / BEATS).min(SLOWEST);
        let mut failure = None;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
            // One beat after it was seen, so that the rank that failed ends first.
            if let Some(failure) = failure {
                return Err(failure);
            }
            match self.beat() {
                Ok(found) => (failure, self.answered) = (found, Instant::now()),
                Err(error) if self.answered.elapsed() >= self.limit => return Err(self.cut_off(&error)),
                Err(_) => {}
            }
            self.check_silence()?;
        }
        // It is told for those who end later; rank 0, which may serve the store, may have gone already.
        let _ = self.give(ENDED);
        Ok(())
    }

    /// One sign of life, and a look at the others; tells whether one has failed.
    fn beat(&mut self) -> Result<Option<Error>> {
        self.beats += 1;
        self.give(self.beats.to_string().as_bytes())?;
        for (&rank, (sign, changed)) in &mut self.seen {
            let found = self.world.look(&alive(rank))?.unwrap_or_default();
            if found != *sign {
                (*sign, *changed) = (found, Instant::now());
            }
        }
        self.world.failure()
    }

    fn give(&self, sign: &[u8]) -> Result<()> {
        self.world.tell(&alive(self.world.who.rank), sign)
    }

    /// # Errors
    /// Some rank has given no sign of life for too long, though the store answers.
    fn check_silence(&self) -> Result<()> {
        // While the store is silent nothing can be known of the others.
        let since = self.answered;
        let is_silent = |sign: &[u8], changed| sign != ENDED && since.saturating_duration_since(changed) >= self.limit;
        let seen = self.seen.iter().filter(|(_, (sign, changed))| is_silent(sign, *changed));
        let silent: Vec<usize> = seen.map(|(&rank, _)| rank).collect();
        if silent.is_empty() {
            return Ok(());
        }
        let places: Vec<String> = silent.iter().filter_map(|&rank| self.world.place_of(rank)).collect();
        let (verb, limit) = (if silent.len() == 1 { "has" } else { "have" }, self.limit);
        let (names, places) = (named(&silent), places.join(", "));
        Err(Error::failed(format!(
            "{names} ({places}) {verb} not been heard of for {limit:.0?}: the process was killed or stopped, or its \
             machine is cut off"
        )))
    }

    fn cut_off(&self, error: &Error) -> Error {
        let (limit, address) = (self.limit, self.world.address());
        let server = if self.world.who.served { "its launcher" } else { "rank 0, which serves it," };
        Error::failed(format!(
            "the store of the ranks at {address} has not answered for {limit:.0?}: this machine is cut off from it, or \
             {server} has ended ({error})"
        ))
    }
}

fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}

#[cfg(test)]
mod tests {
    use super::super::world::tests::rank;
    use super::*;
    use crossbeam::channel::unbounded;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(400);

    /// A heartbeat that tells what it ends with.
    fn watched(world: World, limit: Duration) -> (Heartbeat, Receiver<Error>) {
        let (sender, errors) = unbounded();
        let lost = move |error: &Error| sender.send(error.clone()).unwrap();
        (Heartbeat::start_with(Arc::new(world), limit, lost).unwrap(), errors)
    }

    #[test]
    fn a_rank_that_falls_silent_is_named_with_its_machine_and_one_that_has_ended_is_not() {
        let first = rank(0, 3, 0, LONG);
        let ended = watched(rank(1, 3, first.port(), LONG), LONG);
        let _silent = rank(2, 3, first.port(), LONG);
        drop(ended);
        let mut watch = Watch::new(Arc::new(first), Duration::ZERO).unwrap();
        watch.beat().unwrap();
        let message = watch.check_silence().unwrap_err().to_string();
        assert!(message.starts_with("rank 2 (") && message.contains(") has not been heard of for 0ns: "), "{message}");
    }

    #[test]
    fn a_rank_that_failed_ends_the_others() {
        let first = rank(0, 2, 0, LONG);
        let second = rank(1, 2, first.port(), LONG);
        second.fail(&Error::failed("no memory"));
        let (_first, errors) = watched(first, SHORT);
        assert_eq!(errors.recv().unwrap(), Error::PeerGone("another rank failed: rank 1: no memory".into()));
    }

    #[test]
    fn a_store_that_has_gone_ends_the_rank_when_the_time_is_up() {
        let first = rank(0, 2, 0, LONG);
        let (_second, errors) = watched(rank(1, 2, first.port(), LONG), SHORT);
        drop(first);
        let message = errors.recv().unwrap().to_string();
        assert!(message.starts_with("the store of the ranks at 127.0.0.1:"), "{message}");
        assert!(message.contains("rank 0, which serves it, has ended"), "{message}");
    }

    #[test]
    fn ranks_that_live_are_left_alone() {
        let first = rank(0, 2, 0, LONG);
        let second = rank(1, 2, first.port(), LONG);
        let (first, second) = (watched(first, LONG), watched(second, LONG));
        drop((second.0, first.0));
        assert!(first.1.try_recv().is_err() && second.1.try_recv().is_err());
    }
}
