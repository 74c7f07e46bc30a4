//! Streams: a queue each, run by a thread of its own. Before an operation the thread waits for a time drawn from the
//! seed, so that orders which the program did not ask for do vary.

use super::access::{Access, Actor};
use super::clock::{Clock, StreamId};
use super::context;
use super::device::Device;
use super::result::CuResult;
use crate::environment::settings;
use crate::handles::{Kind, Table};
use crate::random::{Purpose, draw};
use crate::rules;
use crate::sync::{lock, wait};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The streams that programs made.
pub static STREAMS: Table<Stream> = Table::new(Kind::Stream);

/// One stream.
pub struct Stream {
    /// The number of its device.
    pub device: usize,
    /// Its number on that device; 0 is the null stream.
    pub number: u64,
    /// Its number in the process.
    id: StreamId,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    issued: u64,
    done: u64,
    /// What comes before the next operation.
    clock: Clock,
    has_thread: bool,
    is_closed: bool,
}

struct Task {
    delay: Duration,
    run: Box<dyn FnOnce() + Send>,
}

/// The stream that a program means by a handle: one of its own, or the null stream of its current device.
pub fn resolve(handle: u64, device: &'static Device) -> Result<Arc<Stream>, CuResult> {
    /// `CU_STREAM_LEGACY`, another name of the null stream.
    const LEGACY: u64 = 1;
    /// `CU_STREAM_PER_THREAD`.
    const PER_THREAD: u64 = 2;
    match handle {
        0 | LEGACY => Ok(Arc::clone(&device.null_stream)),
        PER_THREAD => {
            rules::broken(device, "the null stream of a thread is not simulated: use a stream or the null stream");
            Err(CuResult::NOT_SUPPORTED)
        }
        other => STREAMS.get(other).ok_or_else(|| {
            rules::broken(device, &format!("{other:#x} is not a stream, or no longer"));
            CuResult::INVALID_HANDLE
        }),
    }
}

/// The stream of a handle, seen from the calling thread's device.
pub fn of_current(handle: u64) -> Result<Arc<Stream>, CuResult> {
    resolve(handle, context::current()?)
}

impl Stream {
    /// A stream without a thread: that comes with the first operation.
    pub fn new(device: usize, number: u64) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Self { device, number, id, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Puts an operation into the queue; it waits its delay first.
    ///
    /// # Errors
    /// The operation races with another, in words: it is not put into the queue.
    pub fn push(
        self: &Arc<Self>,
        what: &str,
        accesses: &[Access],
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), String> {
        let mut queue = lock(&self.queue);
        queue.clock.learn_from_host();
        let number = queue.clock.count(self.id);
        let actor = Actor { stream: self.id, number, words: format!("{what} on {self}").into() };
        let race = accesses.iter().find_map(|access| access.race(&actor, &queue.clock));
        if let (Some(race), true) = (race, settings().races_are_reported) {
            return Err(race);
        }
        let delay = self.delay(number);
        self.enqueue(&mut queue, Task { delay, run: Box::new(run) });
        Ok(())
    }

    /// Puts a mark into the queue, which takes no time on a device; gives what comes before it.
    pub fn push_mark(self: &Arc<Self>, run: impl FnOnce() + Send + 'static) -> Clock {
        let mut queue = lock(&self.queue);
        self.enqueue(&mut queue, Task { delay: Duration::ZERO, run: Box::new(run) });
        queue.clock.learn_from_host();
        queue.clock.clone()
    }

    /// Puts into the queue something to wait for, and what is known when that is over.
    pub fn push_wait(self: &Arc<Self>, run: impl FnOnce() + Send + 'static, known: &Clock) {
        let mut queue = lock(&self.queue);
        self.enqueue(&mut queue, Task { delay: Duration::ZERO, run: Box::new(run) });
        queue.clock.learn(known);
    }

    fn enqueue(self: &Arc<Self>, queue: &mut Queue, task: Task) {
        queue.waiting.push_back(task);
        queue.issued += 1;
        if !queue.has_thread {
            let stream = Arc::clone(self);
            let thread = std::thread::Builder::new().name(format!("stream {}.{}", self.device, self.number));
            match thread.spawn(move || stream.run()) {
                Ok(_) => queue.has_thread = true,
                // The next operation tries again; until then the stream stands still, which its owner sees as a hang.
                Err(error) => rules::say(&format!("simulator: {self}: no thread can be started: {error}")),
            }
        }
        self.changed.notify_all();
    }

    /// The delay before the operation of this number: none for every other one, else up to the longest.
    fn delay(&self, operation: u64) -> Duration {
        let longest = settings().longest_delay;
        let drawn = draw(&[Purpose::Delay as u64, settings().seed, self.device as u64, self.number, operation]);
        if drawn.is_multiple_of(2) {
            return Duration::ZERO;
        }
        longest.mul_f64((drawn >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// What the stream's thread does, until the stream is destroyed and empty.
    fn run(&self) {
        // Without this the kernel rounds each sleep up by 50 microseconds.
        // SAFETY: changes the calling thread's timer slack and nothing else.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        while let Some(task) = self.next() {
            if !task.delay.is_zero() {
                std::thread::sleep(task.delay);
            }
            if catch_unwind(AssertUnwindSafe(task.run)).is_err() {
                rules::say(&format!("simulator: {self}: the simulator itself has a mistake here (panic above)"));
            }
            lock(&self.queue).done += 1;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(task) = queue.waiting.pop_front() {
                return Some(task);
            }
            if queue.is_closed {
                return None;
            }
            queue = wait(&self.changed, queue);
        }
    }

    /// Waits until all that is in the queue now is done.
    pub fn synchronize(&self) {
        let mut queue = lock(&self.queue);
        let issued = queue.issued;
        let known = queue.clock.clone();
        while queue.done < issued {
            queue = wait(&self.changed, queue);
        }
        known.host_learns();
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        let queue = lock(&self.queue);
        let is_idle = queue.done == queue.issued;
        if is_idle {
            queue.clock.host_learns();
        }
        is_idle
    }

    /// Whether it was destroyed: nothing more may be put into it.
    pub fn is_closed(&self) -> bool {
        lock(&self.queue).is_closed
    }

    /// Lets the thread end after what is in the queue; gives what is done then.
    pub fn close(&self) -> Clock {
        let mut queue = lock(&self.queue);
        queue.is_closed = true;
        self.changed.notify_all();
        queue.clock.clone()
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(formatter, "device {}, null stream", self.device),
            number => write!(formatter, "device {}, stream {number}", self.device),
        }
    }
}
