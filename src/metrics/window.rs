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

/// By how much a step must be overdue before people are told.
const LATE: Duration = Duration::from_secs(10);

/// The last half minute of training.
pub struct Window {
    ranks: usize,
    slots: VecDeque<Slot>,
    /// The time of the steps in all slots.
    time: Duration,
    /// When something happened last; `None`: nothing has yet, or no step is due.
    heard: Option<Instant>,
}

/// What some steps in a row came to.
struct Slot {
    steps: u64,
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
    steps: u64,
    /// The time of all steps, and that by which one is overdue.
    time: Duration,
    late: Duration,
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

    /// Takes note that no step is due: the run is over, or stands for a checkpoint.
    pub fn rest(&mut self) {
        self.heard = None;
    }

    /// What the steps in it came to. A step is overdue when nothing has happened for longer than the longest one took:
    /// that time counts as well, so that the rates of a run that hangs fall.
    pub fn averages(&self, now: Instant) -> Averages {
        let longest = self.slots.iter().map(|slot| slot.longest).max().unwrap_or_default();
        let silence = self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard));
        let (mut steps, mut outcome, mut ranks) = (0, Outcome::default(), vec![Work::default(); self.ranks]);
        for slot in &self.slots {
            steps += slot.steps;
            outcome.add(&slot.outcome);
            ranks.iter_mut().zip(&slot.ranks).for_each(|(sum, work)| sum.add(work));
        }
        // Before the first step none is overdue.
        let late = if self.slots.is_empty() { Duration::ZERO } else { silence.saturating_sub(longest) };
        Averages { outcome, steps, time: self.time + late, late, ranks }
    }
}

impl Slot {
    fn empty(ranks: usize) -> Self {
        let (time, longest) = (Duration::ZERO, Duration::ZERO);
        Self { steps: 0, time, longest, outcome: Outcome::default(), ranks: vec![Work::default(); ranks] }
    }

    fn add(&mut self, step: &Step) {
        self.steps += 1;
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

    /// The examples that all ranks work on in a second, each counted once; NaN where there is no step.
    pub fn job_examples_per_second(&self) -> f64 {
        self.outcome.examples as f64 / self.time.as_secs_f64()
    }

    /// The seconds that a step takes; NaN where there is none.
    pub fn step_seconds(&self) -> f64 {
        (self.time - self.late).as_secs_f64() / self.steps as f64
    }

    /// Whether a step is long overdue.
    pub fn is_late(&self) -> bool {
        self.steps > 0 && self.late >= LATE
    }

    /// The seconds that a rank spent in each phase, in the order of [`Phase::ALL`].
    pub fn phases(&self, rank: usize) -> [f64; Phase::ALL.len()] {
        self.ranks.get(rank).map(|work| work.phases).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::step;

    /// A window of steps of so many examples and milliseconds each, and when the last of them ended.
    fn window(steps: impl IntoIterator<Item = (u64, u64)>) -> (Window, Instant) {
        let (mut window, now) = (Window::new(2), Instant::now());
        steps.into_iter().for_each(|(examples, milliseconds)| {
            window.add(&step(1, examples, Duration::from_millis(milliseconds)), now);
        });
        (window, now)
    }

    #[test]
    fn an_average_is_over_the_last_half_minute_and_the_last_step_at_least() {
        for (steps, expected) in [
            (vec![(8, 1000); 5], 8.0),
            ([vec![(8, 1000); 100], vec![(16, 1000); 30]].concat(), 16.0),
            ([vec![(8, 1000); 100], vec![(16, 1000); 15]].concat(), 12.0),
            (vec![(8, 2000), (8, 100_000)], 0.08),
            (vec![(1, 1); 70_000], 1000.0),
        ] {
            let (window, now) = window(steps);
            let averages = window.averages(now);
            assert!((averages.examples_per_second(1) / expected - 1.0).abs() < 1e-9, "{expected}");
            assert!((averages.job_examples_per_second() / expected - 2.0).abs() < 1e-9, "{expected}");
            assert!(window.slots.len() <= 31, "{} slots", window.slots.len());
        }
        assert!(window([]).0.averages(Instant::now()).examples_per_second(0).is_nan());
    }

    #[test]
    fn a_rate_falls_when_a_step_is_overdue() {
        let (mut window, now) = window([(8, 2000), (8, 2000)]);
        let rate = |window: &Window, seconds| {
            let averages = window.averages(now + Duration::from_secs(seconds));
            (averages.examples_per_second(0), averages.is_late())
        };
        assert_eq!(rate(&window, 2), (4.0, false));
        assert_eq!(rate(&window, 6), (2.0, false));
        assert_eq!(rate(&window, 14), (1.0, true));
        // An evaluation that goes on is no step that is overdue.
        window.hear(now + Duration::from_secs(13));
        assert_eq!(rate(&window, 14), (4.0, false));
        window.rest();
        assert_eq!(rate(&window, 1000), (4.0, false));
    }
}
