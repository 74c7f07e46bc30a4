//! What the ranks of a run tell each other: notes under the keys of the run in its store. What they tell beside their work
//! goes over a connection of its own, so that a thread may wait for a note while the rank goes on.

use crate::error::Result;
use crate::torch::store::Store;
use std::time::Duration;

/// How long a note may take to arrive that is there.
const ARRIVAL: Duration = Duration::from_millis(500);

/// A connection to the store of a run.
pub struct Board {
    store: Store,
    prefix: String,
}

impl Board {
    /// The notes whose keys begin with `prefix`.
    pub fn new(store: Store, prefix: String) -> Self {
        Self { store, prefix }
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

    /// See [`Store::is_silent`].
    pub fn is_silent(&self) -> bool {
        self.store.is_silent()
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Puts up a note.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn post(&self, name: &str, note: &[u8]) -> Result<()> {
        self.store.set(&self.key(name), note)
    }

    /// Puts up a note if nobody has; gives the one that is there then.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn post_first(&self, name: &str, note: &[u8]) -> Result<Vec<u8>> {
        self.store.set_first(&self.key(name), note)
    }

    /// A note, which is waited for so long; `None` if nobody put it up in this time.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn wait_within(&self, name: &str, wait: Duration) -> Result<Option<Vec<u8>>> {
        self.store.get_within(&self.key(name), wait)
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
        self.store.contains(&self.key(name))
    }

    /// Takes a note down, if it is there.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn take_down(&self, name: &str) -> Result<()> {
        self.store.remove(&self.key(name))
    }

    /// Draws a number, from 1: no two ranks get the same.
    ///
    /// # Errors
    /// The store has gone, or does not answer.
    pub fn draw(&self, name: &str) -> Result<i64> {
        self.store.add(&self.key(name), 1)
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
