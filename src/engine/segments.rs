//! The parameters in a rank's part of each bucket, and how fast each of them is trained.

use super::layout::Layout;
use crate::model::cost;
use crate::model::kind::Multipliers;
use crate::optim::Segment;
use crate::plan::Plan;

/// Of each bucket, the parameters in a rank's part of it, in the order in which they lie there.
pub struct Segments(Vec<Vec<Segment>>);

impl Segments {
    /// Those of a rank with this layout, trained as its model says.
    pub fn new(plan: &Plan, layout: &Layout, rank: usize) -> Self {
        let of_entries: Vec<Multipliers> = layout
            .entries
            .iter()
            .map(|entry| {
                let parameters = cost::parameters(&plan.model, entry.share.layer).into_iter();
                let mut own = parameters.filter(|parameter| parameter.role == entry.share.role);
                own.next().map(|parameter| parameter.multipliers).unwrap_or_default()
            })
            .collect();
        let of_part = |part| {
            let segments = layout.segments(&part).into_iter();
            let segment = |found: super::layout::Segment| Segment {
                end: found.end,
                multipliers: of_entries[found.entry],
                trained: true,
            };
            segments.map(segment).collect()
        };
        Self(layout.shard(plan.mesh.data_rank(rank)).into_iter().map(of_part).collect())
    }

    /// Those in this rank's part of a bucket.
    pub fn of(&self, bucket: usize) -> &[Segment] {
        &self.0[bucket]
    }
}
