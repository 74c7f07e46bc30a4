//! Where the time of a step goes, on one rank. At any moment a rank is in one phase, so that the phases of a step add
//! up to the step.

use crate::clock::Moment;
use std::ops::AddAssign;
use std::time::Duration;

/// What a rank is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taking a batch from the loader and putting it on the device.
    Data,
    /// Layers, forward.
    Forward,
    /// Moving activations and their gradients between ranks.
    Exchange,
    /// Waiting for another rank to arrive: see [`super::waiting`].
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

    /// Whether the rank computes in it, so that what travels meanwhile is hidden.
    pub fn computes(self) -> bool {
        matches!(self, Self::Forward | Self::Backward | Self::Optimizer)
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

    /// Counts a part of the time in one phase for another; never more than there is.
    pub fn reassign(&mut self, from: Phase, to: Phase, time: Duration) {
        let time = time.min(self.get(from));
        self.0[from as usize] -= time;
        self.0[to as usize] += time;
    }
}

impl AddAssign for Phases {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, time)| *sum += time);
    }
}

/// A clock that is always in one phase.
pub struct Stopwatch {
    phases: Phases,
    current: Phase,
    since: Moment,
    /// When the rank computed.
    computed: Vec<Span>,
}

/// From one moment to another.
pub type Span = (Moment, Moment);

impl Stopwatch {
    /// Starts in a phase.
    pub fn start(phase: Phase) -> Self {
        Self { phases: Phases::default(), current: phase, since: Moment::now(), computed: Vec::new() }
    }

    /// Ends the current phase and enters another; gives the one that was left.
    pub fn enter(&mut self, phase: Phase) -> Phase {
        let now = Moment::now();
        self.phases.0[self.current as usize] += now.since(self.since);
        if self.current.computes() {
            self.computed.push((self.since, now));
        }
        self.since = now;
        std::mem::replace(&mut self.current, phase)
    }

    /// The times since the last call of this, or since the start, and when the rank computed.
    pub fn lap(&mut self) -> (Phases, Vec<Span>) {
        self.enter(self.current);
        (std::mem::take(&mut self.phases), std::mem::take(&mut self.computed))
    }
}

/// How long some of the first spans and some of the second, which are in order and do not overlap, lasted at the same
/// time; spans of the first may overlap each other, and time in several of them counts once.
pub fn overlap(mut some: Vec<Span>, others: &[Span]) -> Duration {
    some.sort_unstable();
    let (mut total, mut end, mut others) = (Duration::ZERO, Moment::default(), others.iter().peekable());
    for (from, to) in some {
        let from = from.max(end);
        end = end.max(to);
        while let Some(&&(start, stop)) = others.peek() {
            total += to.min(stop).since(from.max(start));
            if stop > to {
                break;
            }
            others.next();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_the_time_that_passed() {
        let begin = Moment::now();
        let mut watch = Stopwatch::start(Phase::Data);
        assert_eq!(watch.enter(Phase::Backward), Phase::Data);
        let work = Moment::now();
        while Moment::now().since(work) < Duration::from_millis(2) {}
        watch.enter(Phase::Reduce);
        watch.enter(Phase::Optimizer);
        let (mut phases, computed) = watch.lap();
        let passed = Moment::now().since(begin);
        assert!(phases.total() <= passed && phases.get(Phase::Backward) >= Duration::from_millis(2), "{phases:?}");
        let [(from, to), (start, end)] = computed[..] else { panic!("{computed:?}") };
        assert_eq!(to.since(from), phases.get(Phase::Backward));
        assert_eq!(end.since(start), phases.get(Phase::Optimizer));
        let before = phases;
        phases.reassign(Phase::Backward, Phase::Wait, Duration::from_millis(1));
        phases.reassign(Phase::Reduce, Phase::Wait, Duration::from_secs(1));
        assert_eq!(phases.total(), before.total());
        assert_eq!(phases.get(Phase::Reduce), Duration::ZERO);
        assert_eq!(phases.get(Phase::Wait), Duration::from_millis(1) + before.get(Phase::Reduce));
        assert!(watch.lap().0.total() < phases.total());
    }

    #[test]
    fn time_in_several_spans_counts_once() {
        let at = |seconds: u64| Moment::default().shifted(seconds as f64);
        let spans = |all: &[(u64, u64)]| all.iter().map(|&(from, to)| (at(from), at(to))).collect::<Vec<_>>();
        let seconds = |some: &[(u64, u64)], others: &[(u64, u64)]| overlap(spans(some), &spans(others)).as_secs();
        assert_eq!(seconds(&[(10, 20)], &[(0, 12), (14, 16), (18, 30)]), 6);
        assert_eq!(seconds(&[(12, 20), (10, 15), (13, 14)], &[(0, 30)]), 10);
        assert_eq!(seconds(&[(0, 2), (4, 6)], &[(1, 5)]), 2);
        assert_eq!(seconds(&[(0, 2), (8, 9)], &[(2, 8)]), 0);
        assert_eq!(seconds(&[], &[(2, 8)]), 0);
    }
}
