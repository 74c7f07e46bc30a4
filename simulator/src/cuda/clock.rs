//! What is known to be done before what. Every stream has a clock: for each stream how many of its operations come before
//! whatever is put into this one next. Events carry clocks from stream to stream; the host's clock holds what the
//! program has waited for, on whichever thread, and every stream learns it with its next operation.
//!
//! These are the vector clocks of Lamport, Fidge and Mattern. They are kept when calls are made, not when streams come to
//! them, so what they tell does not depend on delays.

use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A stream's number in the process.
pub type StreamId = u64;

/// For each stream how many of its operations are known to be done before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(BTreeMap<StreamId, u64>);

static HOST: Mutex<Clock> = Mutex::new(Clock(BTreeMap::new()));

impl Clock {
    /// What the program has waited for.
    pub fn of_host() -> Self {
        lock(&HOST).clone()
    }

    /// The program has waited for all this.
    pub fn host_learns(&self) {
        lock(&HOST).learn(self);
    }

    /// Learns what another clock knows.
    pub fn learn(&mut self, other: &Self) {
        for (&stream, &number) in &other.0 {
            let known = self.0.entry(stream).or_insert(0);
            *known = number.max(*known);
        }
    }

    /// Learns what the program has waited for.
    pub fn learn_from_host(&mut self) {
        self.learn(&lock(&HOST));
    }

    /// Counts an operation of the stream whose clock this is; gives its number.
    pub fn count(&mut self, stream: StreamId) -> u64 {
        let number = self.0.entry(stream).or_insert(0);
        *number += 1;
        *number
    }

    /// Whether an operation is known to be done before.
    pub fn knows(&self, stream: StreamId, number: u64) -> bool {
        self.0.get(&stream).is_some_and(|&known| known >= number)
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn a_clock_knows_what_it_has_learned() {
        let (mut one, mut two) = (Clock::default(), Clock::default());
        assert_eq!((one.count(1), one.count(1), two.count(2)), (1, 2, 1));
        assert!(one.knows(1, 2) && !one.knows(1, 3) && !one.knows(2, 1));
        two.learn(&one);
        assert!(two.knows(1, 2) && two.knows(2, 1));
        one.count(1);
        assert!(!two.knows(1, 3));
    }
}
