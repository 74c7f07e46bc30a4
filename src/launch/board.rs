//! What the ranks of a run tell each other: notes under the keys of the run in its store. What they tell beside their work
//! goes over a connection of its own, so that a thread may wait for a note while the rank goes on.

use crate::error::Result;
use crate::torch::store::Store;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a note may take to arrive that is there.
const ARRIVAL: Duration = Duration::from_millis(500);
/// An error that comes sooner was not waited for: the connection is closed, or an earlier call still hangs.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A connection to the store of a run.
pub struct Board {
    store: Store,
    prefix: String,
    /// Whether the last call that told anything of that was given up after some time without an answer.
    silent: AtomicBool,
}

impl Board {
    /// The notes whose keys begin with `prefix`.
    pub fn new(store: Store, prefix: String) -> Self {
        Self { store, prefix, silent: AtomicBool::new(false) }
    }

    /// Another connection to the same notes, for which the store is waited for at most so long.
    ///
    /// # Errors
    /// It does not answer within the limit.
    pub fn reopened(&self, limit: Duration) -> Result<Self> {
        Ok(Self::new(self.store.reopened(limit)?, self.prefix.clone()))
    }

    /// The address of the store.
    pub fn address(&self) -> String {
        self.store.address()
    }

    /// Whether the store does not answer, but its connection is not known to be closed: it may answer again.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Asks the store something that may take so long.
    fn ask<T>(&self, wait: Duration, call: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        let asked = Instant::now();
        let answered = call(&self.store);
        if answered.is_ok() {
            self.silent.store(false, Ordering::Relaxed);
        } else if asked.elapsed() >= wait + AT_ONCE {
            self.silent.store(true, Ordering::Relaxed);
        }
        answered
    }

    /// Puts up a note.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn post(&self, name: &str, note: &[u8]) -> Result<()> {
        self.ask(Duration::ZERO, |store| store.set(&self.key(name), note))
    }

    /// Puts up a note if nobody has; gives the one that is there then.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn post_first(&self, name: &str, note: &[u8]) -> Result<Vec<u8>> {
        self.ask(Duration::ZERO, |store| store.set_first(&self.key(name), note))
    }

    /// A note, which is waited for so long; `None` if nobody put it up in this time.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn wait_within(&self, name: &str, wait: Duration) -> Result<Option<Vec<u8>>> {
        self.ask(wait, |store| store.get_within(&self.key(name), wait))
    }

    /// A note, if it is there.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn look_for(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if self.has(name)? { self.wait_within(name, ARRIVAL) } else { Ok(None) }
    }

    /// Whether a note is there.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn has(&self, name: &str) -> Result<bool> {
        self.ask(Duration::ZERO, |store| store.contains(&self.key(name)))
    }

    /// Takes a note down, if it is there.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn take_down(&self, name: &str) -> Result<()> {
        self.ask(Duration::ZERO, |store| store.remove(&self.key(name)))
    }

    /// Draws a number, from 1: no two ranks get the same.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn draw(&self, name: &str) -> Result<i64> {
        self.ask(Duration::ZERO, |store| store.add(&self.key(name), 1))
    }
}

#[cfg(test)]
impl Board {
    /// The number of keys in the store.
    pub fn count(&self) -> i64 {
        self.store.count()
    }

    /// The port at which the store listens.
    pub fn port(&self) -> u16 {
        self.store.port()
    }
}
