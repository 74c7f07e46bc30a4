//! What curves are drawn from: a bounded number of points over the whole run. When there are too many, neighbours are
//! put together two by two, and from then on a point stands for twice as many steps.

use crate::events::{Epoch, Step};
use crate::layers::Outcome;
use std::time::Duration;

/// The most points that are kept; after putting neighbours together there are half as many.
const MOST_POINTS: usize = 480;

/// A run from its first step that was seen here to its last.
#[derive(Clone, Debug)]
pub struct History {
    /// What some steps in a row came to, in order.
    pub points: Vec<Point>,
    /// What evaluations gave, in order.
    pub tests: Vec<Test>,
    /// The steps that a point stands for.
    stride: u64,
}

/// What some steps in a row came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The last of them.
    pub step: u64,
    /// Sums over their examples.
    pub outcome: Outcome,
    /// The examples that each rank worked on.
    pub examples: Vec<u64>,
    /// The time that they took.
    pub time: Duration,
    steps: u64,
}

/// What an evaluation gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// The step after which it was.
    pub step: u64,
    /// Sums over the test set.
    pub outcome: Outcome,
}

impl Default for History {
    fn default() -> Self {
        Self { points: Vec::new(), tests: Vec::new(), stride: 1 }
    }
}

impl History {
    /// Adds a step.
    pub fn step(&mut self, step: &Step) {
        let examples = step.ranks.iter().map(|own| own.examples).collect();
        let point = Point { step: step.step, outcome: step.outcome, examples, time: step.time, steps: 1 };
        match self.points.last_mut().filter(|last| last.steps < self.stride) {
            Some(last) => last.join(&point),
            None => self.points.push(point),
        }
        if self.points.len() > MOST_POINTS {
            self.stride *= 2;
            self.points = self.points.chunks(2).filter_map(joined).collect();
        }
    }

    /// Adds what an epoch ended with after a step, if it was evaluated.
    pub fn epoch(&mut self, step: u64, epoch: &Epoch) {
        self.tests.extend(epoch.test.map(|outcome| Test { step, outcome }));
        if self.tests.len() > MOST_POINTS {
            // Every second one, and among them the last: there is an odd number of them.
            let mut kept = false;
            self.tests.retain(|_| {
                kept = !kept;
                kept
            });
        }
    }
}

fn joined(neighbours: &[Point]) -> Option<Point> {
    let mut points = neighbours.iter();
    let mut first = points.next()?.clone();
    points.for_each(|point| first.join(point));
    Some(first)
}

impl Point {
    fn join(&mut self, next: &Self) {
        self.step = next.step;
        self.outcome.add(&next.outcome);
        self.examples.iter_mut().zip(&next.examples).for_each(|(sum, examples)| *sum += examples);
        self.time += next.time;
        self.steps += next.steps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::step;

    #[test]
    fn evaluations_are_bounded_and_the_last_is_always_there() {
        let mut history = History::default();
        for epoch in 1..=2000 {
            let outcome = Outcome { loss_sum: 1.0, correct: 1, examples: 1 };
            let (train_time, loader_wait, test_time) = Default::default();
            let test = Some(outcome);
            history.epoch(
                epoch,
                &Epoch { epoch, train: outcome, test, train_time, loader_wait, test_time, cut_short: None },
            );
            let tests = &history.tests;
            assert_eq!(tests.last().map(|test| test.step), Some(epoch));
            assert!(tests.len() <= MOST_POINTS && tests.len() as u64 >= epoch.min(MOST_POINTS as u64 / 2), "{epoch}");
        }
    }

    #[test]
    fn points_are_bounded_and_lose_no_example() {
        for steps in [0, 1, 480, 481, 962, 100_003] {
            let mut history = History::default();
            (1..=steps).for_each(|number| history.step(&step(number, 4, Duration::from_millis(3))));
            let points = &history.points;
            assert!(points.len() <= MOST_POINTS && points.len() as u64 >= steps.min(MOST_POINTS as u64 / 2), "{steps}");
            assert_eq!(points.last().map_or(0, |last| last.step), steps);
            assert_eq!(points.iter().map(|point| point.outcome.examples).sum::<u64>(), 8 * steps);
            assert_eq!(points.iter().map(|point| point.examples[1]).sum::<u64>(), 4 * steps);
            assert_eq!(points.iter().map(|point| point.time).sum::<Duration>(), Duration::from_millis(3 * steps));
            // Each but the last stands for as many steps as any other.
            let strides: Vec<u64> = points.windows(2).map(|pair| pair[1].step - pair[0].step).collect();
            assert!(strides.iter().rev().skip(1).all(|&stride| stride == points[0].step), "{steps}: {strides:?}");
            // The mean loss of a point is that of the middle of its steps.
            let first = points.first().map_or(0, |first| first.step);
            assert!(steps == 0 || points[0].outcome.loss() == (first + 1) as f64 / 2.0);
        }
    }
}
