//! Where the parameters that a rank holds lie in its flat buffers, and which values of the whole parameters they are.
//! Pure: the ranks and the loop know it from the plan alone.

use crate::error::Result;
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

/// The buffers of a rank, of which each rank of the data axis updates a shard.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The parameters in the model's order: the same ones on every rank.
    pub entries: Vec<Entry>,
    /// The number of values of a buffer.
    pub size: usize,
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

impl Layout {
    /// The layout of the ranks at a place on the model axis.
    pub fn new(plan: &Plan, model_rank: usize) -> Self {
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
        Self { entries, size: end.next_multiple_of(ALIGNMENT * shards), shards }
    }

    /// The part of a buffer that a rank of the data axis updates.
    pub fn shard(&self, data_rank: usize) -> Range<usize> {
        shard_of(self.size, data_rank, self.shards)
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

/// One of equal shards of a buffer.
pub fn shard_of(size: usize, shard: usize, shards: usize) -> Range<usize> {
    let length = size / shards;
    shard * length..(shard + 1) * length
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
    use crate::model::Channels;
    use crate::model::cost::Role;

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
    fn runs_are_cut_where_a_shard_ends() {
        let runs = |part: Range<usize>| entry().runs(&part).collect::<Vec<_>>();
        let run = |place, whole| Run { place, whole };
        assert_eq!(runs(96..104), [run(100, 3..6), run(103, 9..10)]);
        assert_eq!(runs(104..112), [run(104, 10..12), run(106, 15..18), run(109, 21..24)]);
        assert_eq!(runs(112..120), []);
    }
}
