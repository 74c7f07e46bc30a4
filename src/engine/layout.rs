//! Where the parameters that a rank holds lie in its flat buffers, and which values of the whole parameters they are.
//! Pure: the ranks and the loop know it from the plan alone.
//!
//! A buffer is cut into buckets, without regard to where a parameter ends: the gradients of one are summed over the data
//! axis together, as soon as the backward pass has written them all. Each rank of the axis updates an equal part of each
//! bucket; its parts make up its shard.

use crate::error::Result;
use crate::model::LayerId;
use crate::plan::{ParameterShare, Plan};
use std::ops::Range;
use tch::Tensor;

/// Values between the starts of two parameters are a multiple of this: 64 bytes in fp32, a cache line and the widest
/// vector register.
const ALIGNMENT: usize = 16;

/// One parameter, or a rank's share of one, and where it lies in the buffers.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What part of which parameter.
    pub share: ParameterShare,
    /// Where its values lie in the buffers.
    pub values: Range<usize>,
}

/// The buffers of a rank.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The parameters in the model's order: the same ones on every rank.
    pub entries: Vec<Entry>,
    /// The number of values of a buffer.
    pub size: usize,
    /// The buckets, in ascending order; together they are the buffer.
    pub buckets: Vec<Range<usize>>,
    shards: usize,
}

/// Values that lie side by side in the buffer and in the whole parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first one lies in the buffer.
    pub place: usize,
    /// Their indices in the whole parameter, in row-major order.
    pub whole: Range<usize>,
}

/// A parameter in a part of the buffer, with the gap behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The parameter's place among the entries.
    pub entry: usize,
    /// Where it ends, counted from the start of the part.
    pub end: usize,
}

impl Layout {
    /// The layout of the ranks at a place on the model axis, with buckets of about so many values; 0: one bucket.
    pub fn new(plan: &Plan, model_rank: usize, bucket: usize) -> Self {
        let mut entries = Vec::new();
        let mut end = 0;
        for layer in 0..plan.model.layers.len() {
            for share in plan.parameter_shares(layer, model_rank) {
                let start = end;
                end = (start + share.len()).next_multiple_of(ALIGNMENT);
                entries.push(Entry { values: start..start + share.len(), share });
            }
        }
        let shards = plan.mesh.data;
        let size = end.next_multiple_of(ALIGNMENT * shards);
        let step = if bucket == 0 { size } else { bucket.next_multiple_of(ALIGNMENT * shards) };
        let buckets = (0..size).step_by(step.max(1)).map(|start| start..(start + step).min(size)).collect();
        Self { entries, size, buckets, shards }
    }

    /// The parts of a bucket that the ranks of the data axis update, in rank order.
    pub fn parts(&self, bucket: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let Range { start, end } = self.buckets[bucket];
        let length = (end - start) / self.shards;
        (0..self.shards).map(move |rank| start + rank * length..start + (rank + 1) * length)
    }

    /// The parts of a buffer that a rank of the data axis updates, one of each bucket.
    pub fn shard(&self, data_rank: usize) -> Vec<Range<usize>> {
        (0..self.buckets.len()).filter_map(|bucket| self.parts(bucket).nth(data_rank)).collect()
    }

    /// The parameters that make up a part of the buffer, in order. The gaps hold zeros.
    pub fn segments(&self, part: &Range<usize>) -> Vec<Segment> {
        let starts = self.entries.iter().map(|entry| entry.values.start);
        let ends = starts.clone().skip(1).chain([self.size]);
        let segments = starts.zip(ends).enumerate().filter_map(|(entry, (start, end))| {
            let own = start.max(part.start)..end.min(part.end);
            (own.start < own.end).then(|| Segment { entry, end: own.end - part.start })
        });
        segments.collect()
    }

    /// The layer whose backward pass writes the last gradients of a bucket; `None` for one without parameters.
    pub fn completed_by(&self, bucket: usize) -> Option<LayerId> {
        let Range { start, end } = self.buckets[bucket];
        // The backward pass comes to the first of its layers last.
        let first = self.entries.iter().find(|entry| entry.values.start < end && start < entry.values.end);
        first.map(|entry| entry.share.layer)
    }
}

impl Entry {
    /// The view of this parameter in a buffer of its layout, in its shape.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn view(&self, buffer: &Tensor) -> Result<Tensor> {
        let flat = buffer.f_narrow(0, self.values.start as i64, self.values.len() as i64)?;
        let shape: Vec<i64> = self.share.shape().into_iter().map(|size| size as i64).collect();
        Ok(flat.f_view(&shape[..])?)
    }

    /// Those of its values that lie in a part of the buffer, in the buffer's order; they leave no gap there.
    pub fn runs(&self, part: &Range<usize>) -> impl Iterator<Item = Run> + '_ {
        let part = part.clone();
        let mut end = self.values.start;
        whole_indices(&self.share).filter_map(move |whole| {
            let start = end;
            end = start + whole.len();
            let own = start.max(part.start)..end.min(part.end);
            let first = whole.start + own.start - start;
            (own.start < own.end).then(|| Run { place: own.start, whole: first..first + own.len() })
        })
    }
}

/// The runs of indices of the whole parameter, in row-major order, that make up a share.
fn whole_indices(share: &ParameterShare) -> impl Iterator<Item = Range<usize>> + '_ {
    let length = share.whole[share.dimension];
    let outer: usize = share.whole[..share.dimension].iter().product();
    let inner: usize = share.whole[share.dimension + 1..].iter().product();
    (0..outer).flat_map(move |row| {
        share.held.ranges().map(move |range| (row * length + range.start) * inner..(row * length + range.end) * inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cost::Role;
    use crate::model::parse::Edits;
    use crate::model::{Channels, shipped};
    use crate::plan::{Mode, plan};

    fn entry() -> Entry {
        let held: Channels = [1..2, 3..4].into_iter().collect();
        let share = ParameterShare { layer: 0, role: Role::Weight, whole: vec![2, 4, 3], dimension: 1, held };
        Entry { share, values: 100..112 }
    }

    #[test]
    fn a_share_covers_the_indices_of_its_slice() {
        let indices: Vec<usize> = whole_indices(&entry().share).flatten().collect();
        assert_eq!(indices, [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23]);
    }

    #[test]
    fn shards_are_an_equal_part_of_each_bucket_and_leave_nothing_out() {
        let model = shipped::load("tiny", &Edits::default()).unwrap();
        let plan = plan(&model, Mode::DataParallel.mesh(3).unwrap(), Mode::DataParallel).unwrap();
        for bucket in [0, 1, 100, 1000] {
            let layout = Layout::new(&plan, 0, bucket);
            let shards: Vec<_> = (0..3).map(|rank| layout.shard(rank)).collect();
            let sizes: Vec<usize> = shards.iter().map(|shard| shard.iter().map(Range::len).sum()).collect();
            assert_eq!(sizes, [layout.size / 3; 3]);
            let in_turn = (0..layout.buckets.len()).flat_map(|bucket| shards.iter().map(move |shard| &shard[bucket]));
            let mut end = 0;
            for part in in_turn {
                assert_eq!((part.start, part.start % ALIGNMENT), (end, 0));
                end = part.end;
            }
            assert_eq!(end, layout.size);
            // The segments of all parts, in turn, are the buffer.
            let mut covered = vec![0; layout.entries.len()];
            for part in shards.iter().flatten() {
                let mut start = 0;
                for Segment { entry, end } in layout.segments(part) {
                    covered[entry] += end - start;
                    start = end;
                }
                assert_eq!(start, part.len());
            }
            let wide = |entry: &Entry| entry.values.len().next_multiple_of(ALIGNMENT);
            let last = covered.len() - 1;
            assert!(layout.entries[..last].iter().zip(&covered).all(|(entry, &found)| found == wide(entry)));
            assert!(covered[last] >= wide(&layout.entries[last]));
            // Buckets are completed from the last to the first, each by a layer that has values in it.
            let completed: Vec<_> =
                (0..layout.buckets.len()).filter_map(|bucket| layout.completed_by(bucket)).collect();
            assert!(completed.is_sorted() && completed[0] == layout.entries[0].share.layer, "{completed:?}");
        }
    }

    #[test]
    fn runs_are_cut_where_a_shard_ends() {
        let runs = |part: Range<usize>| entry().runs(&part).collect::<Vec<_>>();
        let run = |place, whole| Run { place, whole };
        assert_eq!(runs(96..104), [run(100, 3..6), run(103, 9..10)]);
        assert_eq!(runs(104..112), [run(104, 10..12), run(106, 15..18), run(109, 21..24)]);
        assert_eq!(runs(112..120), []);
    }
}
