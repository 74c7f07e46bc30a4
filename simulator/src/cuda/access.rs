//! Races: two operations that touch the same memory, at least one of them writing, with nothing that puts one before the
//! other. Whether they are found does not depend on which came first this time.

use super::clock::{Clock, StreamId};
use super::memory::Range;
use std::fmt;
use std::sync::Arc;

/// What an operation does with a part of device memory.
pub struct Access {
    /// The memory.
    pub range: Range,
    /// Whether it is changed, or only read.
    pub writes: bool,
}

/// Who accesses memory: an operation and its place among all.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its stream.
    pub stream: StreamId,
    /// Its number in the stream.
    pub number: u64,
    /// What it is and where, in words.
    pub words: Arc<str>,
}

/// How many records are kept before those are looked for that every later operation is ordered with anyway.
const MANY: usize = 64;

/// The accesses to an allocation that a later one may have to be ordered with.
#[derive(Default)]
pub struct History(Vec<Record>);

struct Record {
    from: usize,
    to: usize,
    writes: bool,
    actor: Actor,
}

impl Access {
    /// Memory that is read.
    pub fn reads(range: &Range) -> Self {
        Self { range: range.clone(), writes: false }
    }

    /// Memory that is written.
    pub fn writes(range: &Range) -> Self {
        Self { range: range.clone(), writes: true }
    }

    /// Takes note of it. Gives in words the operation with which it races, if there is one.
    pub fn race(&self, actor: &Actor, clock: &Clock) -> Option<String> {
        let other = self.range.note(self.writes, actor, clock)?;
        Some(format!(
            "{actor} {} memory at {:#x} that {other} {} too, and nothing puts one before the other: an event is missing \
             between their streams",
            if self.writes { "writes" } else { "reads" },
            self.range.address(),
            if self.writes { "touches" } else { "writes" },
        ))
    }

    /// Whether two operations with these accesses need an order.
    pub fn conflicts(&self, other: &Self) -> bool {
        (self.writes || other.writes) && self.range.overlaps(&other.range)
    }
}

impl History {
    /// Adds an access to the bytes from `from` to `to` by an operation that comes after all that `clock` knows. Gives the
    /// operation with which it races, if there is one.
    pub fn add(&mut self, (from, to): (usize, usize), writes: bool, actor: &Actor, clock: &Clock) -> Option<Actor> {
        let conflicts = |record: &&Record| {
            (writes || record.writes)
                && record.from < to
                && from < record.to
                && !clock.knows(record.actor.stream, record.actor.number)
        };
        let race = self.0.iter().find(conflicts).map(|record| record.actor.clone());
        // What lies in this access and is ordered before it, later ones need not be ordered with: they are with this.
        self.0.retain(|record| {
            let lies_within = from <= record.from && record.to <= to;
            let is_replaced = writes || (!record.writes && record.actor.stream == actor.stream);
            !(lies_within && is_replaced)
        });
        if self.0.len() >= MANY {
            let host = Clock::of_host();
            self.0.retain(|record| !host.knows(record.actor.stream, record.actor.number));
        }
        self.0.push(Record { from, to, writes, actor: actor.clone() });
        race
    }

    /// An operation that the clock does not know to be done.
    pub fn unknown_to(&self, clock: &Clock) -> Option<Actor> {
        let unknown = self.0.iter().find(|record| !clock.knows(record.actor.stream, record.actor.number));
        unknown.map(|record| record.actor.clone())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::{Actor, Clock, History};

    fn actor(stream: u64, clock: &mut Clock) -> Actor {
        Actor { stream, number: clock.count(stream), words: format!("stream {stream}").into() }
    }

    #[test]
    fn two_writers_without_an_order_race_and_with_one_do_not() {
        let (mut history, mut one, mut two) = (History::default(), Clock::default(), Clock::default());
        let writer = actor(1, &mut one);
        assert!(history.add((0, 8), true, &writer, &one).is_none());
        let reader = actor(2, &mut two);
        assert!(history.add((8, 9), false, &reader, &two).is_none(), "other bytes");
        assert!(history.add((7, 9), false, &reader, &two).is_some());
        two.learn(&one);
        assert!(history.add((7, 9), false, &reader, &two).is_none());
    }

    #[test]
    fn readers_do_not_race_with_each_other_but_with_the_next_writer() {
        let (mut history, mut one, mut two) = (History::default(), Clock::default(), Clock::default());
        let (first, second) = (actor(1, &mut one), actor(2, &mut two));
        assert!(history.add((0, 8), false, &first, &one).is_none());
        assert!(history.add((0, 8), false, &second, &two).is_none());
        let writer = actor(1, &mut one);
        assert_eq!(history.add((0, 8), true, &writer, &one).unwrap().stream, 2);
        assert!(history.unknown_to(&two).is_some());
        two.learn(&one);
        assert!(history.unknown_to(&two).is_none());
    }
}
