//! How long the rest of a run takes, at its pace so far.

use crate::events::{Started, Step};
use std::time::{Duration, Instant};

/// Steps that are timed before the time of the whole run is estimated. The first is left out: it warms up.
pub const ESTIMATE_AFTER: u64 = 4;
/// The cost of evaluating an example against training on it: a forward pass against a forward and a backward pass,
/// of which the backward pass takes about two thirds.
const EVALUATION_COST: f64 = 1.0 / 3.0;

/// The pace of a run.
pub struct Pace {
    begin: Instant,
    started: Started,
    any: bool,
    timed: Duration,
    timed_steps: u64,
}

impl Pace {
    /// The pace of a run that began at `begin`.
    pub fn new(begin: Instant, started: Started) -> Self {
        Self { begin, started, any: false, timed: Duration::ZERO, timed_steps: 0 }
    }

    /// Counts a step.
    pub fn count(&mut self, step: &Step) {
        if self.any {
            self.timed += step.time;
            self.timed_steps += 1;
        }
        self.any = true;
    }

    /// The time of a step; `None` before there are two.
    fn measured(&self) -> Option<Duration> {
        (self.timed_steps > 0).then(|| self.timed.div_f64(self.timed_steps as f64))
    }

    /// The time of a step; after the first step, that of it.
    pub fn of(&self, step: &Step) -> Duration {
        self.measured().unwrap_or(step.time)
    }

    /// What is left of the run after a step, evaluations included, until it ends or the time is up.
    pub fn left(&self, step: &Step) -> Duration {
        let whole = self.left_of_all(step);
        match self.started.max_time {
            // When the time is up, the step at hand and one evaluation follow.
            Some(limit) => {
                let last = self.of(step) + self.evaluation(step);
                whole.min(limit.saturating_sub(self.begin.elapsed()) + last)
            }
            None => whole,
        }
    }

    /// What is left of all steps after a step, evaluations included.
    pub fn left_of_all(&self, step: &Step) -> Duration {
        let Started { total_steps, steps_per_epoch, .. } = self.started;
        let steps = total_steps.saturating_sub(step.step);
        let evaluations = (total_steps.div_ceil(steps_per_epoch) + 1).saturating_sub(step.epoch);
        self.of(step).mul_f64(steps as f64) + self.evaluation(step).mul_f64(evaluations as f64)
    }

    fn evaluation(&self, step: &Step) -> Duration {
        let examples = self.started.test_examples as f64 / step.outcome.examples.max(1) as f64;
        self.of(step).mul_f64(examples * EVALUATION_COST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::{started, step};
    use super::*;

    #[test]
    fn the_first_step_is_no_measure_once_there_are_others() {
        // Two epochs of ten steps; an evaluation costs as much as one step does.
        let mut pace = Pace::new(Instant::now(), started(2, 10, 24));
        let slow = step(1, 1, 1.0);
        pace.count(&slow);
        assert_eq!(pace.left(&slow), Duration::from_secs(19 + 2));
        for number in 2..=4 {
            pace.count(&step(number, 1, 0.1));
        }
        let left = pace.left(&step(4, 1, 0.1)).as_secs_f64();
        assert!((left - (1.6 + 0.2)).abs() < 1e-6, "{left}");
        let left = pace.left(&step(20, 2, 0.1)).as_secs_f64();
        assert!((left - 0.1).abs() < 1e-6, "an evaluation is left: {left}");
    }

    #[test]
    fn a_run_that_has_a_time_ends_then() {
        let limited = Started { max_time: Some(Duration::from_secs(4)), ..started(2, 10, 24) };
        let mut pace = Pace::new(Instant::now(), limited);
        let first = step(1, 1, 1.0);
        pace.count(&first);
        let left = pace.left(&first).as_secs_f64();
        assert!(left <= 4.0 + 1.0 + 1.0, "the time, a step and an evaluation: {left}");
        assert_eq!(pace.left_of_all(&first), Duration::from_secs(19 + 2));
    }
}
