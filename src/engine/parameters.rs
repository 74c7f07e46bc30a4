//! The parameters that a rank holds, in one flat buffer, with their gradients in another of the same layout: so that
//! the sum of gradients over the data axis and the update are each one pass over memory, cut into equal shards without
//! regard to where a tensor ends.

use crate::error::Result;
use crate::layers::Parameters;
use crate::model::LayerId;
use crate::model::cost::{self, Role};
use crate::model::initial::Distribution;
use crate::plan::{ParameterShare, Plan};
use crate::random::{Purpose, Stream};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Values between the starts of two parameters are a multiple of this: 64 bytes in fp32, a cache line and the widest
/// vector register.
const ALIGNMENT: usize = 16;

/// Values that are drawn before they are moved to the buffer: 8 MiB of them.
const DRAWN_AT_ONCE: usize = 1 << 20;

/// One parameter, or a rank's share of one, and where it lies in the buffers.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What part of which parameter.
    pub share: ParameterShare,
    /// Where its values lie in the buffers.
    pub values: Range<usize>,
}

/// All parameters of a rank.
pub struct Store {
    /// The parameters in the model's order.
    pub entries: Vec<Entry>,
    /// The values.
    pub weights: Tensor,
    /// The gradients of the latest step, of this rank's examples.
    pub gradients: Tensor,
}

impl Store {
    /// The parameters of a rank at the start of a run, every value drawn by its index in the whole parameter.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(plan: &Plan, rank: usize, seed: u64, kind: Kind) -> Result<Self> {
        let mut entries = Vec::new();
        let mut end = 0;
        for layer in 0..plan.model.layers.len() {
            for share in plan.parameter_shares(layer, plan.mesh.model_rank(rank)) {
                let start = end;
                end = (start + share.len()).next_multiple_of(ALIGNMENT);
                entries.push(Entry { values: start..start + share.len(), share });
            }
        }
        let size = end.next_multiple_of(ALIGNMENT * plan.mesh.data) as i64;
        let options = (kind, tch::Device::Cpu);
        let store =
            Self { entries, weights: Tensor::f_zeros([size], options)?, gradients: Tensor::f_zeros([size], options)? };
        for entry in &store.entries {
            store.draw(plan, entry, seed)?;
        }
        Ok(store)
    }

    /// Draws a parameter's values, each by its index in the whole parameter, some at a time: drawn all at once in
    /// double precision they would take more memory than anything that training needs.
    fn draw(&self, plan: &Plan, entry: &Entry, seed: u64) -> Result<()> {
        let share = &entry.share;
        let parameters = cost::parameters(&plan.model, share.layer);
        let Some(parameter) = parameters.iter().find(|parameter| parameter.role == share.role) else { return Ok(()) };
        let purpose = match share.role {
            Role::Weight => Purpose::Weights,
            Role::Bias => Purpose::Biases,
        };
        let stream = Stream::new(seed, purpose, share.layer as u32, 0);
        let mut drawn = Vec::with_capacity(DRAWN_AT_ONCE);
        let mut to = entry.values.start;
        for indices in whole_indices(share) {
            let mut from = indices.start;
            while from < indices.end {
                let count = (indices.end - from).min(DRAWN_AT_ONCE - drawn.len());
                let begin = drawn.len();
                drawn.resize(begin + count, 0.0);
                fill(&stream, parameter.distribution, from as u64, &mut drawn[begin..]);
                from += count;
                if drawn.len() == DRAWN_AT_ONCE {
                    to = self.keep(to, &mut drawn)?;
                }
            }
        }
        self.keep(to, &mut drawn).map(|_| ())
    }

    /// Moves drawn values to their place in the buffer; gives the place after them.
    fn keep(&self, to: usize, drawn: &mut Vec<f64>) -> Result<usize> {
        let mut target = self.weights.f_narrow(0, to as i64, drawn.len() as i64)?;
        target.f_copy_(&Tensor::from_slice(drawn))?;
        let end = to + drawn.len();
        drawn.clear();
        Ok(end)
    }

    /// The number of values in a buffer, padding included.
    pub fn size(&self) -> usize {
        self.weights.numel()
    }

    /// The part of both buffers that the `shard`-th of `shards` ranks updates.
    pub fn shard(&self, shard: usize, shards: usize) -> Range<usize> {
        let size = self.size() / shards;
        shard * size..(shard + 1) * size
    }

    /// A view of a parameter, in its shape.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn weight(&self, entry: &Entry) -> Result<Tensor> {
        view(&self.weights, entry)
    }

    /// A view of a parameter's gradient, in its shape.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn gradient(&self, entry: &Entry) -> Result<Tensor> {
        view(&self.gradients, entry)
    }

    /// Views of a layer's parameters and gradients; `None` for a layer without weights.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn of_layer(&self, layer: LayerId) -> Result<Option<Parameters>> {
        let find = |role| self.entries.iter().find(|entry| entry.share.layer == layer && entry.share.role == role);
        let Some(weight) = find(Role::Weight) else { return Ok(None) };
        let bias = find(Role::Bias);
        Ok(Some(Parameters {
            weight: self.weight(weight)?,
            weight_gradient: self.gradient(weight)?,
            bias: bias.map(|entry| self.weight(entry)).transpose()?,
            bias_gradient: bias.map(|entry| self.gradient(entry)).transpose()?,
        }))
    }
}

/// Values of a distribution, by their indices from `first` on.
fn fill(stream: &Stream, distribution: Distribution, first: u64, values: &mut [f64]) {
    match distribution {
        Distribution::Uniform { bound } => {
            stream.fill_uniform(first, values);
            values.iter_mut().for_each(|value| *value = bound * (2.0 * *value - 1.0));
        }
        Distribution::Normal { std } => {
            stream.fill_normal(first, values);
            values.iter_mut().for_each(|value| *value *= std);
        }
        Distribution::Constant { value } => values.fill(value),
    }
}

impl Entry {
    fn shape(&self) -> Vec<i64> {
        self.share.shape().into_iter().map(|size| size as i64).collect()
    }
}

fn view(buffer: &Tensor, entry: &Entry) -> Result<Tensor> {
    let flat = buffer.f_narrow(0, entry.values.start as i64, entry.values.len() as i64)?;
    Ok(flat.f_view(&entry.shape()[..])?)
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
    use crate::model::{parse::Edits, shipped};
    use crate::plan::{Mode, plan};

    #[test]
    fn a_share_covers_the_indices_of_its_slice() {
        let held: Channels = [1..2, 3..4].into_iter().collect();
        let share = ParameterShare { layer: 0, role: Role::Weight, whole: vec![2, 4, 3], dimension: 1, held };
        let indices: Vec<usize> = whole_indices(&share).flatten().collect();
        assert_eq!(indices, [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23]);
    }

    #[test]
    fn split_parameters_begin_as_the_whole_ones() {
        let model = shipped::load("tiny", &Edits::default()).unwrap();
        let whole = plan(&model, Mode::Single.mesh(1).unwrap(), Mode::Single).unwrap();
        let split = plan(&model, Mode::ModelParallel.mesh(3).unwrap(), Mode::ModelParallel).unwrap();
        let reference = Store::new(&whole, 0, 7, Kind::Double).unwrap();
        for rank in 0..3 {
            let store = Store::new(&split, rank, 7, Kind::Double).unwrap();
            for (entry, whole) in store.entries.iter().zip(&reference.entries) {
                let indices: Vec<i64> = entry.share.held.ranges().flatten().map(|index| index as i64).collect();
                let dimension = entry.share.dimension as i64;
                let expected = reference.weight(whole).unwrap().index_select(dimension, &Tensor::from_slice(&indices));
                assert_eq!(store.weight(entry).unwrap(), expected, "{:?}", entry.share);
            }
        }
    }

    #[test]
    fn parameters_have_the_spread_of_their_distribution() {
        let model = shipped::load("quick", &Edits::default()).unwrap();
        let plan = plan(&model, Mode::Single.mesh(1).unwrap(), Mode::Single).unwrap();
        let store = Store::new(&plan, 0, 1, Kind::Double).unwrap();
        for entry in store.entries.iter().filter(|entry| entry.share.whole.len() > 1) {
            // quick's weights are Kaiming-normal, its biases zero.
            let fan_in: usize = entry.share.whole[1..].iter().product();
            let weight = store.weight(entry).unwrap();
            let expected = (2.0 / fan_in as f64).sqrt();
            let spread = weight.std(true).double_value(&[]);
            // The spread of a sample of n normal numbers is itself spread by 1 / sqrt(2 n) of it: six times that.
            let bound = 6.0 / (2.0 * weight.numel() as f64).sqrt();
            assert!((spread / expected - 1.0).abs() < bound, "{:?}: {spread} {expected}", entry.share.whole);
            assert!(
                weight.mean(Kind::Double).double_value(&[]).abs() < 6.0 * expected / (weight.numel() as f64).sqrt()
            );
        }
        let biases = store.entries.iter().filter(|entry| entry.share.whole.len() == 1);
        assert!(
            biases.map(|entry| store.weight(entry).unwrap()).all(|bias| bias.count_nonzero(0).int64_value(&[]) == 0)
        );
    }
}
