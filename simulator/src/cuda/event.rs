//! Events: marks that streams reach.

use super::clock::Clock;
use super::stream::Stream;
use crate::handles::{Kind, Table};
use crate::sync::{lock, wait};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// The events that programs made.
pub static EVENTS: Table<Event> = Table::new(Kind::Event);

/// An event: the newest mark that was recorded for it.
pub struct Event {
    /// The number of the device whose context it was made in.
    pub device: usize,
    /// Whether it may be used to measure time.
    pub has_time: bool,
    newest: Mutex<Option<Arc<Mark>>>,
}

/// A place in a stream.
pub struct Mark {
    flag: Arc<Flag>,
    /// What comes before it.
    clock: Clock,
}

#[derive(Default)]
struct Flag {
    reached: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Event {
    /// An event that nothing was recorded for.
    pub fn new(device: usize, has_time: bool) -> Self {
        Self { device, has_time, newest: Mutex::new(None) }
    }

    /// Puts a mark into the stream, which is the event's newest from now on.
    pub fn record(&self, stream: &Arc<Stream>) {
        // Under the lock, so that of two threads' marks the newest is also the later in the stream.
        let mut newest = lock(&self.newest);
        *newest = Some(Mark::put(stream));
    }

    /// The newest mark; none means that the event is complete.
    pub fn newest(&self) -> Option<Arc<Mark>> {
        lock(&self.newest).clone()
    }
}

impl Mark {
    /// Puts a new mark into a stream.
    pub fn put(stream: &Arc<Stream>) -> Arc<Self> {
        let flag = Arc::new(Flag::default());
        let raised = Arc::clone(&flag);
        let clock = stream.push_mark(move || {
            *lock(&raised.reached) = Some(Instant::now());
            raised.changed.notify_all();
        });
        Arc::new(Self { flag, clock })
    }

    /// Lets a stream wait until the mark is reached.
    pub fn hold_back(&self, stream: &Arc<Stream>) {
        let flag = Arc::clone(&self.flag);
        stream.push_wait(
            move || {
                flag.wait();
            },
            &self.clock,
        );
    }

    /// When the mark was reached, if it was: then the program knows it.
    pub fn reached(&self) -> Option<Instant> {
        let reached = *lock(&self.flag.reached);
        if reached.is_some() {
            self.clock.host_learns();
        }
        reached
    }

    /// Lets the program wait until the mark is reached.
    pub fn wait(&self) {
        self.flag.wait();
        self.clock.host_learns();
    }
}

impl Flag {
    fn wait(&self) {
        let mut reached = lock(&self.reached);
        while reached.is_none() {
            reached = wait(&self.changed, reached);
        }
    }
}
