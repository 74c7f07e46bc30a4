//! A communicator does one batch after the other, whatever streams they are on.

use super::exchange::Stopped;
use crate::sync::{lock, wait};
use std::sync::{Condvar, Mutex};

/// The batches of a communicator: how many were issued, and how many are done.
#[derive(Default)]
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    issued: u64,
    done: u64,
    is_aborted: bool,
}

impl Turns {
    /// The number of a new batch, from 1.
    pub fn issue(&self) -> u64 {
        let mut state = lock(&self.state);
        state.issued += 1;
        state.issued
    }

    /// Waits until all batches before this one are done.
    pub fn wait_for(&self, batch: u64) -> Result<(), Stopped> {
        let mut state = lock(&self.state);
        while state.done + 1 < batch && !state.is_aborted {
            state = wait(&self.changed, state);
        }
        if state.is_aborted { Err(Stopped) } else { Ok(()) }
    }

    /// A batch is done.
    pub fn finish(&self) {
        lock(&self.state).done += 1;
        self.changed.notify_all();
    }

    /// Whether nothing is in flight.
    pub fn are_over(&self) -> bool {
        let state = lock(&self.state);
        state.done == state.issued
    }

    /// Waits until nothing is in flight.
    pub fn wait_until_over(&self) {
        let mut state = lock(&self.state);
        while state.done < state.issued {
            state = wait(&self.changed, state);
        }
    }

    /// No more waiting for a turn.
    pub fn abort(&self) {
        lock(&self.state).is_aborted = true;
        self.changed.notify_all();
    }
}
