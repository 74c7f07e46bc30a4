//! The parameters in a rank's part of each bucket, and how fast each of them is trained.

use super::layout::{self, Entry, Layout};
use crate::model::cost;
use crate::model::kind::Multipliers;
use crate::optim::{Segment, Timeline, Tuning};
use crate::plan::Plan;

/// Of each bucket, the parameters in a rank's part of it, in the order in which they lie there.
pub struct Segments {
    /// Which parameters of the layout, and where each ends.
    places: Vec<Vec<layout::Segment>>,
    /// How they are trained.
    trained: Vec<Vec<Segment>>,
}

impl Segments {
    /// Those of a rank with this layout, trained as its model says.
    pub fn new(plan: &Plan, layout: &Layout, rank: usize) -> Self {
        let parts = layout.shard(plan.mesh.data_rank(rank));
        let mut segments =
            Self { places: parts.iter().map(|part| layout.segments(part)).collect(), trained: Vec::new() };
        segments.tune(plan, layout, &Timeline::default(), 0);
        segments
    }

    /// Trains them as the model says and as a timeline has it once so many of its events hold.
    pub fn tune(&mut self, plan: &Plan, layout: &Layout, timeline: &Timeline, passed: usize) {
        let of_entry = |entry: &Entry| {
            let name = cost::parameter_name(&plan.model, entry.share.layer, entry.share.role);
            let Tuning { multipliers: Multipliers { rate, decay }, trained } = timeline.of(passed, &name);
            let of_model = multipliers(plan, entry);
            (Multipliers { rate: of_model.rate * rate, decay: of_model.decay * decay }, trained)
        };
        let of_entries: Vec<(Multipliers, bool)> = layout.entries.iter().map(of_entry).collect();
        let segment = |place: &layout::Segment| {
            let (multipliers, trained) = of_entries[place.entry];
            Segment { end: place.end, multipliers, trained }
        };
        self.trained = self.places.iter().map(|part| part.iter().map(segment).collect()).collect();
    }

    /// Those in this rank's part of a bucket.
    pub fn of(&self, bucket: usize) -> &[Segment] {
        &self.trained[bucket]
    }
}

/// What the model says of a parameter.
fn multipliers(plan: &Plan, entry: &Entry) -> Multipliers {
    let mut parameters = cost::parameters(&plan.model, entry.share.layer).into_iter();
    let own = parameters.find(|parameter| parameter.role == entry.share.role);
    own.map(|parameter| parameter.multipliers).unwrap_or_default()
}
