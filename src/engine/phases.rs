//! Where the time of a step goes, on one rank. At any moment a rank is in one phase, so that the phases of a step add
//! up to the step.

use std::time::{Duration, Instant};

/// What a rank is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taking a batch from the loader and putting it on the device.
    Data,
    /// Layers, forward.
    Forward,
    /// Moving activations and their gradients between ranks.
    Exchange,
    /// Waiting for another rank to arrive.
    Wait,
    /// Layers, backward.
    Backward,
    /// Summing gradients, and gathering weights, over the data axis.
    Reduce,
    /// Updating weights.
    Optimizer,
}

impl Phase {
    /// Every phase, in the order of a step.
    pub const ALL: [Self; 7] =
        [Self::Data, Self::Forward, Self::Exchange, Self::Wait, Self::Backward, Self::Reduce, Self::Optimizer];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Forward => "forward",
            Self::Exchange => "exchange",
            Self::Wait => "wait",
            Self::Backward => "backward",
            Self::Reduce => "reduce",
            Self::Optimizer => "optimizer",
        }
    }
}

/// The time spent in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases([Duration; Phase::ALL.len()]);

impl Phases {
    /// The seconds spent in each phase, in the order of [`Phase::ALL`].
    pub fn seconds(&self) -> [f64; Phase::ALL.len()] {
        self.0.map(|time| time.as_secs_f64())
    }

    /// Phases of so many seconds each.
    pub fn from_seconds(seconds: [f64; Phase::ALL.len()]) -> Self {
        Self(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }

    /// The time spent in a phase.
    pub fn get(&self, phase: Phase) -> Duration {
        self.0[phase as usize]
    }

    /// The time spent in all phases.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// A clock that is always in one phase.
pub struct Stopwatch {
    phases: Phases,
    current: Phase,
    since: Instant,
}

impl Stopwatch {
    /// Starts in a phase.
    pub fn start(phase: Phase) -> Self {
        Self { phases: Phases::default(), current: phase, since: Instant::now() }
    }

    /// Ends the current phase and enters another; gives the one that was left.
    pub fn enter(&mut self, phase: Phase) -> Phase {
        let now = Instant::now();
        self.phases.0[self.current as usize] += now - self.since;
        self.since = now;
        std::mem::replace(&mut self.current, phase)
    }

    /// Counts a part of the current phase as waiting for another rank instead.
    pub fn waited(&mut self, time: Duration) {
        self.phases.0[Phase::Wait as usize] += time;
        self.since += time;
    }

    /// The times since the last call of this, or since the start.
    pub fn lap(&mut self) -> Phases {
        self.enter(self.current);
        std::mem::take(&mut self.phases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_the_time_that_passed() {
        let begin = Instant::now();
        let mut watch = Stopwatch::start(Phase::Data);
        assert_eq!(watch.enter(Phase::Exchange), Phase::Data);
        let work = Instant::now();
        while work.elapsed() < Duration::from_millis(2) {}
        watch.waited(Duration::from_millis(1));
        watch.enter(Phase::Optimizer);
        let phases = watch.lap();
        let passed = begin.elapsed();
        assert!(phases.total() <= passed, "{phases:?} {passed:?}");
        assert!(phases.get(Phase::Wait) == Duration::from_millis(1) && phases.get(Phase::Exchange) > Duration::ZERO);
        assert!(watch.lap().total() < phases.total());
    }
}
