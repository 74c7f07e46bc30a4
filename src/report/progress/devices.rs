//! What each device does: its rate, and the share of its time in which it waits for others.

use crate::engine::phases::Phase;
use crate::events::{RankStep, Step};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Steps over which what a device does now is averaged.
const RECENT: usize = 20;

/// What a device did over some steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    examples: u64,
    time: Duration,
    waiting: Duration,
}

impl Work {
    /// Examples a second.
    pub fn rate(&self) -> f64 {
        share(self.examples as f64, self.time)
    }

    /// The share of its time in which it waited for other devices.
    pub fn waiting(&self) -> f64 {
        share(self.waiting.as_secs_f64(), self.time)
    }

    fn add(&mut self, other: &Self) {
        self.examples += other.examples;
        self.time += other.time;
        self.waiting += other.waiting;
    }
}

impl From<&RankStep> for Work {
    fn from(step: &RankStep) -> Self {
        Self { examples: step.examples, time: step.phases.total(), waiting: step.phases.get(Phase::Wait) }
    }
}

fn share(part: f64, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part / whole.as_secs_f64() }
}

/// What every device does.
pub struct Devices {
    names: Vec<String>,
    epoch: Vec<Work>,
    recent: VecDeque<Vec<Work>>,
}

impl Devices {
    /// Devices of these names, which have done nothing yet.
    pub fn new(names: Vec<String>) -> Self {
        Self { epoch: vec![Work::default(); names.len()], names, recent: VecDeque::new() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Counts a step.
    pub fn step(&mut self, step: &Step) {
        let works: Vec<Work> = step.ranks.iter().map(Work::from).collect();
        for (sum, work) in self.epoch.iter_mut().zip(&works) {
            sum.add(work);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(works);
    }

    /// What each did over the last steps.
    pub fn recent(&self) -> Vec<Work> {
        let mut sums = vec![Work::default(); self.names.len()];
        for works in &self.recent {
            sums.iter_mut().zip(works).for_each(|(sum, work)| sum.add(work));
        }
        sums
    }

    /// What each did since this was asked for last: over an epoch.
    pub fn take_epoch(&mut self) -> Vec<Work> {
        let length = self.names.len();
        std::mem::replace(&mut self.epoch, vec![Work::default(); length])
    }

    /// A line for each device that has done something: of an epoch that was only evaluated there is nothing to tell.
    pub fn lines(&self, works: &[Work]) -> Vec<String> {
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        let line = |(name, work): (&String, &Work)| {
            format!("  {name:width$} {:>9.1} examples/sec {:>5.1} % waiting", work.rate(), 100.0 * work.waiting())
        };
        self.busy(works).map(line).collect()
    }

    fn busy<'w>(&'w self, works: &'w [Work]) -> impl Iterator<Item = (&'w String, &'w Work)> {
        self.names.iter().zip(works).filter(|(_, work)| !work.time.is_zero())
    }

    /// The same for programs.
    pub fn json(&self, works: &[Work]) -> Value {
        let object = |(name, work): (&String, &Work)| json!({ "device": name, "examples_per_second": work.rate(), "waiting_share": work.waiting() });
        self.busy(works).map(object).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::step;
    use super::*;
    use crate::engine::phases::Phases;

    /// A step in which the first device works for a second and the second waits for half of it.
    fn uneven() -> Step {
        let rank = |examples, forward, wait| RankStep {
            examples,
            phases: Phases::from_seconds([0.0, forward, 0.0, wait, 0.0, 0.0, 0.0]),
            ..RankStep::default()
        };
        Step { ranks: vec![rank(6, 1.0, 0.0), rank(2, 0.5, 0.5)], ..step(1, 1, 1.0) }
    }

    #[test]
    fn who_waits_is_told_from_who_is_waited_for() {
        let mut devices = Devices::new(vec!["cpu:0".into(), "cpu:10".into()]);
        devices.step(&uneven());
        devices.step(&uneven());
        let works = devices.take_epoch();
        assert_eq!(
            devices.lines(&works),
            ["  cpu:0        6.0 examples/sec   0.0 % waiting", "  cpu:10       2.0 examples/sec  50.0 % waiting"]
        );
        let expected = json!([
            { "device": "cpu:0", "examples_per_second": 6.0, "waiting_share": 0.0 },
            { "device": "cpu:10", "examples_per_second": 2.0, "waiting_share": 0.5 },
        ]);
        assert_eq!(devices.json(&works), expected);
        let none = devices.take_epoch();
        assert_eq!(none, [Work::default(); 2], "an epoch is counted once");
        assert_eq!((devices.lines(&none), devices.json(&none)), (Vec::new(), json!([])));
    }

    #[test]
    fn what_is_recent_forgets_what_was_long_ago() {
        let mut devices = Devices::new(vec!["cpu:0".into(), "cpu:1".into()]);
        devices.step(&uneven());
        assert_eq!(devices.recent()[1].waiting(), 0.5);
        for number in 0..RECENT as u64 {
            devices.step(&step(2 + number, 1, 0.1));
        }
        assert_eq!(devices.recent()[1].waiting(), 0.0);
        assert_eq!(devices.take_epoch()[1].waiting(), 0.5 / (1.0 + 2.0));
    }
}
