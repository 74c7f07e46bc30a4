//! The last half minute of training, for averages. Steps are kept in slots of a second or more, so that what is kept is
//! bounded however short they are.

use crate::engine::phases::Phase;
use crate::events::Step;
use crate::layers::Outcome;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much training averages go back. The last step counts however long it took.
const LENGTH: Duration = Duration::from_secs(30);
/// The time from which on a slot is full.
const SLOT: Duration = Duration::from_secs(1);

/// The last half minute of training.
pub struct Window {
    ranks: usize,
    slots: VecDeque<Slot>,
    /// The time of the steps in all slots.
    time: Duration,
    /// When something happened last; `None`: nothing has yet, or nothing will any more.
    heard: Option<Instant>,
}

/// What some steps in a row came to.
struct Slot {
    time: Duration,
    longest: Duration,
    outcome: Outcome,
    ranks: Vec<Work>,
}

/// What a rank did in some steps.
#[derive(Clone, Copy, Default)]
struct Work {
    examples: u64,
    /// Seconds in each phase, in the order of [`Phase::ALL`].
    phases: [f64; Phase::ALL.len()],
}

/// What the steps of a window came to.
pub struct Averages {
    /// Sums over the examples of all steps, each counted once.
    pub outcome: Outcome,
    /// The time of all steps, and that by which one is overdue.
    time: Duration,
    ranks: Vec<Work>,
}

impl Window {
    /// A window over so many ranks, with no step in it.
    pub fn new(ranks: usize) -> Self {
        Self { ranks, slots: VecDeque::new(), time: Duration::ZERO, heard: None }
    }

    /// Adds a step that has ended.
    pub fn add(&mut self, step: &Step, now: Instant) {
        self.hear(now);
        if self.slots.back().is_none_or(|slot| slot.time >= SLOT) {
            self.slots.push_back(Slot::empty(self.ranks));
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.add(step);
        }
        self.time += step.time;
        while let Some(oldest) = self.slots.front().map(|slot| slot.time)
            && self.slots.len() > 1
            && self.time - oldest >= LENGTH
        {
            self.slots.pop_front();
            self.time -= oldest;
        }
    }

    /// Takes note that the run goes on.
    pub fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Takes note that the run is over: nothing is overdue any more.
    pub fn close(&mut self) {
        self.heard = None;
    }

    /// What the steps in it came to. A step is overdue when nothing has happened for longer than the longest one took:
    /// that time counts as well, so that the rates of a run that hangs fall.
    pub fn averages(&self, now: Instant) -> Averages {
        let longest = self.slots.iter().map(|slot| slot.longest).max().unwrap_or_default();
        let silence = self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
        let (mut outcome, mut ranks) = (Outcome::default(), vec![Work::default(); self.ranks]);
        for slot in &self.slots {
            outcome.add(&slot.outcome);
            ranks.iter_mut().zip(&slot.ranks).for_each(|(sum, work)| sum.add(work));
        }
        Averages { outcome, time: self.time + silence.saturating_sub(longest), ranks }
    }
}

impl Slot {
    fn empty(ranks: usize) -> Self {
        let (time, longest) = (Duration::ZERO, Duration::ZERO);
        Self { time, longest, outcome: Outcome::default(), ranks: vec![Work::default(); ranks] }
    }

    fn add(&mut self, step: &Step) {
        self.time += step.time;
        self.longest = self.longest.max(step.time);
        self.outcome.add(&step.outcome);
        for (sum, own) in self.ranks.iter_mut().zip(&step.ranks) {
            sum.add(&Work { examples: own.examples, phases: own.phases.seconds() });
        }
    }
}

impl Work {
    fn add(&mut self, other: &Self) {
        self.examples += other.examples;
        self.phases.iter_mut().zip(other.phases).for_each(|(sum, seconds)| *sum += seconds);
    }
}

impl Averages {
    /// The examples that a rank works on in a second; NaN where there is no step.
    pub fn examples_per_second(&self, rank: usize) -> f64 {
        let examples = self.ranks.get(rank).map_or(0, |work| work.examples);
        examples as f64 / self.time.as_secs_f64()
    }

    /// The seconds that a rank spent in each phase, in the order of [`Phase::ALL`].
    pub fn phases(&self, rank: usize) -> [f64; Phase::ALL.len()] {
        self.ranks.get(rank).map(|work| work.phases).unwrap_or_default()
    }
}
