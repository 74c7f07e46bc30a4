//! What the ranks of a run tell each other beside their work: notes under the keys of the run in its store, over a
//! connection of its own, so that a thread may wait for one while the rank goes on.

use crate::error::Result;
use crate::torch::store::Store;
use std::time::Duration;

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

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Puts up a note.
    ///
    /// # Errors
    /// The store has gone.
    pub fn post(&self, name: &str, note: &[u8]) -> Result<()> {
        self.store.set(&self.key(name), note)
    }

    /// A note, which is waited for.
    ///
    /// # Errors
    /// Nobody put it up within the connection's limit, or the store has gone.
    pub fn wait_for(&self, name: &str) -> Result<Vec<u8>> {
        self.store.get(&self.key(name))
    }

    /// A note, which is waited for so long; `None` if nobody put it up in this time.
    ///
    /// # Errors
    /// The store has gone.
    pub fn wait_within(&self, name: &str, wait: Duration) -> Result<Option<Vec<u8>>> {
        self.store.get_within(&self.key(name), wait)
    }

    /// A note, if it is there.
    ///
    /// # Errors
    /// The store has gone.
    pub fn look_for(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let there = self.has(name)?;
        there.then(|| self.wait_for(name)).transpose()
    }

    /// Whether a note is there.
    ///
    /// # Errors
    /// The store has gone.
    pub fn has(&self, name: &str) -> Result<bool> {
        self.store.contains(&self.key(name))
    }

    /// Takes a note down, if it is there.
    ///
    /// # Errors
    /// The store has gone.
    pub fn take_down(&self, name: &str) -> Result<()> {
        self.store.remove(&self.key(name))
    }

    /// Draws a number, from 1: no two ranks get the same.
    ///
    /// # Errors
    /// The store has gone.
    pub fn draw(&self, name: &str) -> Result<i64> {
        self.store.add(&self.key(name), 1)
    }
}
