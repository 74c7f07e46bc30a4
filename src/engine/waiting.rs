//! Who waited for whom. A rank knows when it came to each of its calls and how long it was held up there, not why: the
//! time may have gone by until the last of the others came, or in travelling. So the ranks tell each other, once a step and
//! with all else that they say, when they came; then each can be told.
//!
//! Of the time from when a rank asked for what a call brings to when it had it, it *waited* until the last rank of the
//! group had arrived at the call; the rest is travelling, and counts as exchange or reduction. The last rank is the one
//! that was waited for. If it came late because it had been waiting itself, the time is counted for it all the same.
//!
//! All moments are those of the thread that works for the rank. Where tensors are in the machine's memory, on CPU devices
//! and simulated GPUs, that thread waits for each call itself; on a GPU it only queues what is to be done and runs ahead, so
//! that there the times of a step are told whole, at the next thing that the thread waits for.
//!
//! Processes of one machine read the same clock. Between machines, moments are compared by how long they are after the
//! end of the last agreement, which all ranks leave together but for its own latency.

use crate::comm::Timing;
use crate::plan::{Mesh, Plan};
use std::ops::Range;
use std::time::Duration;

/// When a rank came to a call, asked for what it brings and had it, in seconds on its clock; NaN for no call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visit {
    /// See [`Timing::arrived`].
    pub arrived: f64,
    /// See [`Timing::asked`].
    pub asked: f64,
    /// See [`Timing::done`].
    pub done: f64,
}

impl Visit {
    /// No call.
    pub const NONE: Self = Self { arrived: f64::NAN, asked: f64::NAN, done: f64::NAN };
}

impl From<&Timing> for Visit {
    fn from(timing: &Timing) -> Self {
        Self { arrived: timing.arrived.seconds(), asked: timing.asked.seconds(), done: timing.done.seconds() }
    }
}

/// The clock that a rank reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The same number on every rank that reads the same clock; NaN if it is not known.
    pub machine: f64,
    /// When the last agreement ended, in seconds; NaN before the first.
    pub agreed: f64,
}

/// The most calls that a rank makes in a step, by its groups: the ranks of a group make the same ones in the same order,
/// and what every rank tells of them is of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    world: usize,
    model: usize,
    data: usize,
}

/// What a rank waited in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// In exchanges.
    pub in_exchange: Duration,
    /// In sums of gradients, in gathering weights, and for the agreement on the step before.
    pub in_reduction: Duration,
    /// What the other ranks waited for this one, added up.
    pub awaited: Duration,
}

impl Slots {
    /// The calls of a plan's step, where gradients are summed in at most so many buckets: each exchange and its way
    /// back, each bucket's gradients and weights, the agreement on the step before, and, where steps that are not finite
    /// are left out, whether this one is finite.
    pub fn of(plan: &Plan, buckets: usize, skip_nonfinite: bool) -> Self {
        let if_several = |ranks: usize, calls: usize| if ranks > 1 { calls } else { 0 };
        Self {
            world: if_several(plan.mesh.ranks(), 1 + usize::from(skip_nonfinite)),
            model: if_several(plan.mesh.model, 2 * plan.exchanges.len()),
            data: if_several(plan.mesh.data, 2 * buckets),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.world + self.model + self.data
    }

    /// Puts what a rank knows of the calls of its groups each in its place.
    pub fn fill(&self, world: &[Timing], model: &[Timing], data: &[Timing]) -> Vec<Visit> {
        let mut visits = Vec::with_capacity(self.count());
        for (timings, size) in [(world, self.world), (model, self.model), (data, self.data)] {
            let known = timings.iter().map(Visit::from).chain(std::iter::repeat(Visit::NONE));
            visits.extend(known.take(size));
        }
        visits
    }

    fn places(&self) -> [Range<usize>; 3] {
        let (model, data) = (self.world, self.world + self.model);
        [0..model, model..data, data..self.count()]
    }

    /// What each rank waited, from what all ranks, in rank order, tell of their calls and clocks.
    pub fn settle(&self, mesh: Mesh, visits: &[&[Visit]], clocks: &[Reading]) -> Vec<Waited> {
        let mut waited = vec![Waited::default(); mesh.ranks()];
        if visits.len() != mesh.ranks() || visits.iter().any(|own| own.len() != self.count()) {
            return waited;
        }
        let shifts = shifts(clocks);
        let [world, model, data] = self.places();
        let everyone: Vec<usize> = (0..mesh.ranks()).collect();
        let mut count = |places: Range<usize>, members: &[usize], which: fn(&mut Waited) -> &mut Duration| {
            for place in places {
                let arrival = |&rank: &usize| (visits[rank][place].arrived - shifts[rank], rank);
                let arrivals = members.iter().map(arrival).filter(|(moment, _)| !moment.is_nan());
                let Some((moment, last)) = arrivals.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
                for &rank in members.iter().filter(|&&rank| rank != last) {
                    let Visit { asked, done, .. } = visits[rank][place];
                    let until = moment + shifts[rank];
                    // Of clocks that cannot be compared yet nothing is known.
                    let seconds = if until.is_nan() { 0.0 } else { until.min(done) - asked };
                    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
                    *which(&mut waited[rank]) += time;
                    waited[last].awaited += time;
                }
            }
        };
        count(world, &everyone, |waited| &mut waited.in_reduction);
        // Each group once, with its first rank.
        for &rank in &everyone {
            let (of_model, of_data) = (mesh.model_group(rank), mesh.data_group(rank));
            if of_model[0] == rank {
                count(model.clone(), &of_model, |waited| &mut waited.in_exchange);
            }
            if of_data[0] == rank {
                count(data.clone(), &of_data, |waited| &mut waited.in_reduction);
            }
        }
        waited
    }
}

/// By how much each rank's clock is ahead of the first rank's. Ranks of one machine share the clock of its first rank.
fn shifts(clocks: &[Reading]) -> Vec<f64> {
    let first_of_machine =
        |rank: usize| clocks[..rank].iter().position(|clock| clock.machine == clocks[rank].machine).unwrap_or(rank);
    let shift = |rank: usize| match first_of_machine(rank) {
        0 => 0.0,
        first => clocks[first].agreed - clocks[0].agreed,
    };
    (0..clocks.len()).map(shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{parse::Edits, shipped};
    use crate::plan::{Mode, plan};

    fn visit(arrived: f64, asked: f64, done: f64) -> Visit {
        Visit { arrived, asked, done }
    }

    const CLOCK: Reading = Reading { machine: 7.0, agreed: 1.0 };

    fn seconds(time: Duration) -> f64 {
        (time.as_secs_f64() * 1e6).round() / 1e6
    }

    fn in_exchange(waited: &[Waited]) -> Vec<f64> {
        waited.iter().map(|own| seconds(own.in_exchange)).collect()
    }

    fn awaited(waited: &[Waited]) -> Vec<f64> {
        waited.iter().map(|own| seconds(own.awaited)).collect()
    }

    #[test]
    fn a_rank_waits_until_the_last_has_come_and_the_rest_is_travelling() {
        let slots = Slots { world: 0, model: 2, data: 0 };
        let mesh = Mesh { data: 1, model: 3 };
        let visits = [
            [visit(1.0, 1.5, 4.0), Visit::NONE],
            [visit(3.0, 3.0, 4.0), Visit::NONE],
            // It came early and asked when all was there.
            [visit(0.5, 3.5, 4.0), Visit::NONE],
        ];
        let told: Vec<&[Visit]> = visits.iter().map(|own| &own[..]).collect();
        let waited = slots.settle(mesh, &told, &[CLOCK; 3]);
        assert_eq!(in_exchange(&waited), [1.5, 0.0, 0.0]);
        assert_eq!(awaited(&waited), [0.0, 1.5, 0.0]);
        // Nothing is told after an evaluation.
        let silent: [&[Visit]; 3] = [&[]; 3];
        assert_eq!(slots.settle(mesh, &silent, &[CLOCK; 3]), [Waited::default(); 3]);
    }

    #[test]
    fn groups_are_told_apart() {
        let slots = Slots { world: 1, model: 1, data: 1 };
        let mesh = Mesh { data: 2, model: 2 };
        // Ranks 0 and 1 are a model group, 0 and 2 a data group.
        let visits = [
            [visit(0.0, 0.0, 2.0), visit(4.0, 4.0, 5.0), visit(9.0, 9.0, 10.0)],
            [visit(1.0, 1.0, 2.0), visit(4.5, 4.5, 5.0), visit(6.0, 6.0, 10.0)],
            [visit(0.0, 0.0, 2.0), visit(7.0, 7.0, 8.0), visit(6.0, 6.0, 10.0)],
            [visit(0.0, 0.0, 2.0), visit(7.0, 7.0, 8.0), visit(6.5, 6.5, 10.0)],
        ];
        let told: Vec<&[Visit]> = visits.iter().map(|own| &own[..]).collect();
        let waited = slots.settle(mesh, &told, &[CLOCK; 4]);
        assert_eq!(in_exchange(&waited), [0.5, 0.0, 0.0, 0.0]);
        let in_reduction: Vec<f64> = waited.iter().map(|own| seconds(own.in_reduction)).collect();
        assert_eq!(in_reduction, [1.0, 0.5, 4.0, 1.0]);
        assert_eq!(awaited(&waited), [3.0, 3.5, 0.0, 0.5]);
    }

    #[test]
    fn machines_are_compared_by_the_end_of_the_last_agreement() {
        let slots = Slots { world: 0, model: 1, data: 0 };
        let mesh = Mesh { data: 1, model: 3 };
        // The second machine was started a hundred seconds earlier; its second rank noticed the agreement's end late.
        let clocks = [
            Reading { machine: 1.0, agreed: 10.0 },
            Reading { machine: 2.0, agreed: 110.0 },
            Reading { machine: 2.0, agreed: 110.3 },
        ];
        let visits = [[visit(11.0, 11.0, 14.0)], [visit(113.0, 113.0, 114.0)], [visit(112.0, 112.0, 114.0)]];
        let told: Vec<&[Visit]> = visits.iter().map(|own| &own[..]).collect();
        let waited = slots.settle(mesh, &told, &clocks);
        assert_eq!(in_exchange(&waited), [2.0, 0.0, 1.0]);
        // Before the first agreement nothing can be compared: all of it counts as travelling.
        let unknown = clocks.map(|clock| Reading { agreed: f64::NAN, ..clock });
        assert_eq!(in_exchange(&slots.settle(mesh, &told, &unknown)), [0.0; 3]);
    }

    #[test]
    fn every_rank_has_the_same_number_of_slots_and_fills_them_in_order() {
        let model = shipped::load("tiny", &Edits::default()).unwrap();
        let slots = Slots::of(&plan(&model, Mesh { data: 2, model: 2 }, Mode::ModelParallel).unwrap(), 3, false);
        let timing = Timing::default();
        let visits = slots.fill(&[], &[timing], &[timing; 6]);
        assert_eq!(visits.len(), slots.count());
        let filled: Vec<bool> = visits.iter().map(|visit| !visit.arrived.is_nan()).collect();
        assert_eq!(filled.iter().filter(|&&known| known).count(), 7);
        assert!(!filled[0] && filled[1] && !filled[2] && filled[filled.len() - 6..].iter().all(|&known| known));
        let alone = Slots::of(&plan(&model, Mesh { data: 1, model: 1 }, Mode::Single).unwrap(), 3, false);
        assert_eq!(alone.count(), 0);
    }
}
