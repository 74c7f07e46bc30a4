//! The parameters that a rank holds, in one flat buffer, with their gradients in another of the same layout: so that
//! the sum of gradients over the data axis and the update are each one pass over memory, cut into equal shards without
//! regard to where a tensor ends.

use super::layout::{Entry, Layout, Run};
use super::rank::Settings;
use crate::checkpoint::tensors::pieces;
use crate::comm::{Call, Collective, Stage};
use crate::error::Result;
use crate::layers::Parameters;
use crate::model::LayerId;
use crate::model::cost::{self, Role};
use crate::model::initial::Distribution;
use crate::plan::Plan;
use crate::random::{Purpose, Stream};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Values that are drawn before they are moved to the buffer: 8 MiB of them.
const DRAWN_AT_ONCE: usize = 1 << 20;

/// Some values of a whole parameter, of whatever type, by its name and their indices in row-major order.
pub type Values<'v> = dyn Fn(&str, Range<usize>) -> Result<Tensor> + 'v;

/// All parameters of a rank.
pub struct Store {
    /// Where each parameter lies.
    pub layout: Layout,
    /// The values that the layers compute with. The ranks of the data axis hold the same ones, and where the transport
    /// has memory in common they hold them once.
    pub weights: Tensor,
    /// The gradients of the latest step, of this rank's examples, of the same type.
    pub gradients: Tensor,
    /// The shard of the weights that this rank updates, in full precision, a tensor for each bucket: parts of `weights`,
    /// or what their bf16 values are rounded from.
    pub masters: Vec<Tensor>,
    /// Where the parts of the shard lie.
    shard: Vec<Range<usize>>,
}

impl Store {
    /// The parameters of a rank at the start of a run, every value drawn by its index in the whole parameter. The
    /// ranks of the group `data` draw a shard each; what they drew is not yet gathered.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out, and what the collective reports.
    pub fn new(plan: &Plan, rank: usize, data: &mut dyn Collective, settings: Settings) -> Result<Self> {
        let store = Self::zeros(plan, rank, data, settings)?;
        store.layout.entries.iter().try_for_each(|entry| store.draw(plan, entry, settings.seed))?;
        store.round()
    }

    /// The parameters of a rank as `values` gives them: see [`Store::read`]. The ranks of the group `data` read a shard each; what they read is
    /// not yet gathered.
    ///
    /// # Errors
    /// The file cannot be read, and what libtorch and the collective report.
    pub fn restored(
        plan: &Plan,
        rank: usize,
        data: &mut dyn Collective,
        settings: Settings,
        values: &Values,
    ) -> Result<Self> {
        let store = Self::zeros(plan, rank, data, settings)?;
        store.read(plan, &store.masters, values)?;
        store.round()
    }

    fn zeros(plan: &Plan, rank: usize, data: &mut dyn Collective, settings: Settings) -> Result<Self> {
        let Settings { kind, device, .. } = settings;
        let layout = Layout::new(plan, plan.mesh.model_rank(rank), settings.bucket);
        let (shard, size) = (layout.shard(data.rank()), layout.size as i64);
        let weights = data.common(&Call::new("all weights", Stage::Begin), Tensor::f_empty([size], (kind, device))?)?;
        let master = |part: &Range<usize>| -> Result<Tensor> {
            let own = narrow(&weights, part)?;
            let mut master = if kind == Kind::BFloat16 { own.f_to_kind(Kind::Float)? } else { own };
            Ok(master.f_zero_()?)
        };
        let masters = shard.iter().map(master).collect::<Result<Vec<_>>>()?;
        let gradients = Tensor::f_zeros([size], (kind, device))?;
        Ok(Self { layout, weights, gradients, masters, shard })
    }

    /// Writes what the masters hold, rounded, to the values that layers compute with, where those are others.
    fn round(self) -> Result<Self> {
        for (bucket, master) in self.masters.iter().enumerate() {
            if let Some(mut shadow) = self.shadow(bucket)? {
                shadow.f_copy_(master)?;
            }
        }
        Ok(self)
    }

    /// Reads this rank's shard of what lies like the weights, a tensor for each bucket, some values at a time.
    ///
    /// # Errors
    /// What `values` and libtorch report.
    pub fn read(&self, plan: &Plan, targets: &[Tensor], values: &Values) -> Result<()> {
        for entry in &self.layout.entries {
            let name = cost::parameter_name(&plan.model, entry.share.layer, entry.share.role);
            for (part, target) in self.shard.iter().zip(targets) {
                for Run { place, whole } in entry.runs(part) {
                    let begin = place - part.start;
                    for indices in pieces(whole.clone()) {
                        let at = begin + indices.start - whole.start;
                        let mut target = target.f_narrow(0, at as i64, indices.len() as i64)?;
                        target.f_copy_(&values(&name, indices)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Draws those of a parameter's values that lie in the own shard, each by its index in the whole parameter, some
    /// at a time: drawn all at once in double precision they would take more memory than anything that training needs.
    fn draw(&self, plan: &Plan, entry: &Entry, seed: u64) -> Result<()> {
        let share = &entry.share;
        let parameters = cost::parameters(&plan.model, share.layer);
        let Some(parameter) = parameters.iter().find(|parameter| parameter.role == share.role) else { return Ok(()) };
        let purpose = match share.role {
            Role::Weight => Purpose::Weights,
            Role::Bias => Purpose::Biases,
        };
        let stream = Stream::new(seed, purpose, share.layer as u32, 0);
        let fill = |from, values: &mut [f64]| fill(&stream, parameter.distribution, from, values);
        let parts = self.shard.iter().zip(&self.masters);
        parts.into_iter().try_for_each(|(part, master)| draw_part(entry, part, master, fill))
    }

    /// The part of the own shard in a bucket, of the values that the layers compute with, where those are not the masters
    /// themselves.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn shadow(&self, bucket: usize) -> Result<Option<Tensor>> {
        let separate = self.masters[bucket].kind() != self.weights.kind();
        Ok(if separate { Some(self.own_weights(bucket)?) } else { None })
    }

    /// The part of the own shard in a bucket of `weights`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn own_weights(&self, bucket: usize) -> Result<Tensor> {
        narrow(&self.weights, &self.shard[bucket])
    }

    /// The parts of a bucket of a buffer of this layout, one for each rank of the data axis.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn parts(&self, buffer: &Tensor, bucket: usize) -> Result<Vec<Tensor>> {
        self.layout.parts(bucket).map(|part| narrow(buffer, &part)).collect()
    }

    /// A view of a parameter, in its shape.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn weight(&self, entry: &Entry) -> Result<Tensor> {
        entry.view(&self.weights)
    }

    /// A view of a parameter's gradient, in its shape.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn gradient(&self, entry: &Entry) -> Result<Tensor> {
        entry.view(&self.gradients)
    }

    /// Views of a layer's parameters and gradients; `None` for a layer without weights.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn of_layer(&self, layer: LayerId) -> Result<Option<Parameters>> {
        let find =
            |role| self.layout.entries.iter().find(|entry| entry.share.layer == layer && entry.share.role == role);
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

/// Draws those of a parameter's values that lie in a part of the shard and moves them to `master`.
fn draw_part(entry: &Entry, part: &Range<usize>, master: &Tensor, fill: impl Fn(u64, &mut [f64])) -> Result<()> {
    let mut drawn = Vec::with_capacity(DRAWN_AT_ONCE);
    let mut to = entry.values.start.max(part.start) - part.start;
    for Run { whole, .. } in entry.runs(part) {
        let mut from = whole.start;
        while from < whole.end {
            let count = (whole.end - from).min(DRAWN_AT_ONCE - drawn.len());
            let begin = drawn.len();
            drawn.resize(begin + count, 0.0);
            fill(from as u64, &mut drawn[begin..]);
            from += count;
            if drawn.len() == DRAWN_AT_ONCE {
                to = keep(master, to, &mut drawn)?;
            }
        }
    }
    keep(master, to, &mut drawn).map(|_| ())
}

/// Moves drawn values to their place; gives the place after them.
fn keep(master: &Tensor, to: usize, drawn: &mut Vec<f64>) -> Result<usize> {
    let end = to + drawn.len();
    if !drawn.is_empty() {
        narrow(master, &(to..end))?.f_copy_(&Tensor::from_slice(drawn))?;
        drawn.clear();
    }
    Ok(end)
}

fn narrow(tensor: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    Ok(tensor.f_narrow(0, range.start as i64, range.len() as i64)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::local;
    use crate::model::{parse::Edits, shipped};
    use crate::plan::{Mode, plan};
    use std::thread;

    fn alone(plan: &Plan, rank: usize, seed: u64, kind: Kind) -> Store {
        let mut group = local::group(&[rank]);
        Store::new(plan, rank, &mut group[0], settings(seed, kind)).unwrap()
    }

    /// Buckets that are much smaller than the parameters.
    fn settings(seed: u64, kind: Kind) -> Settings {
        let device = tch::Device::Cpu;
        Settings {
            device,
            seed,
            kind,
            momentum: 0.0,
            weight_decay: 0.0,
            rate_in_velocity: false,
            bucket: 500,
            early_exchange: true,
            skip_nonfinite: false,
        }
    }

    #[test]
    fn split_parameters_begin_as_the_whole_ones() {
        let model = shipped::load("tiny", &Edits::default()).unwrap();
        let whole = plan(&model, Mode::Single.mesh(1).unwrap(), Mode::Single).unwrap();
        let split = plan(&model, Mode::ModelParallel.mesh(3).unwrap(), Mode::ModelParallel).unwrap();
        let reference = alone(&whole, 0, 7, Kind::Double);
        for rank in 0..3 {
            let store = alone(&split, rank, 7, Kind::Double);
            for (entry, whole) in store.layout.entries.iter().zip(&reference.layout.entries) {
                let indices: Vec<i64> = entry.share.held.ranges().flatten().map(|index| index as i64).collect();
                let dimension = entry.share.dimension as i64;
                let expected = reference.weight(whole).unwrap().index_select(dimension, &Tensor::from_slice(&indices));
                assert_eq!(store.weight(entry).unwrap(), expected, "{:?}", entry.share);
            }
        }
    }

    #[test]
    fn ranks_of_the_data_axis_draw_a_shard_each_of_the_same_weights() {
        let model = shipped::load("tiny", &Edits::default()).unwrap();
        let single = plan(&model, Mode::Single.mesh(1).unwrap(), Mode::Single).unwrap();
        let plan = plan(&model, Mode::DataParallel.mesh(3).unwrap(), Mode::DataParallel).unwrap();
        let draw_in_turn = |kind| {
            let stores: Vec<Store> = thread::scope(|scope| {
                let start = |(rank, mut group): (usize, local::Local)| {
                    let plan = &plan;
                    scope.spawn(move || Store::new(plan, rank, &mut group, settings(7, kind)).unwrap())
                };
                let ranks: Vec<_> = local::group(&[0, 1, 2]).into_iter().enumerate().map(start).collect();
                ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
            });
            stores
        };
        let whole = alone(&single, 0, 7, Kind::Double);
        let shared = draw_in_turn(Kind::Double);
        assert!(shared.iter().all(|store| store.weights.data_ptr() == shared[0].weights.data_ptr()));
        for entry in &whole.layout.entries {
            assert_eq!(shared[0].weight(entry).unwrap(), whole.weight(entry).unwrap());
        }
        let rounded = draw_in_turn(Kind::BFloat16);
        let buckets = 0..rounded[0].masters.len();
        let in_turn: Vec<&Tensor> =
            buckets.flat_map(|bucket| rounded.iter().map(move |store| &store.masters[bucket])).collect();
        let masters = Tensor::cat(&in_turn, 0);
        for entry in &whole.layout.entries {
            let expected = whole.weight(entry).unwrap().to_kind(Kind::Float);
            assert_eq!(entry.view(&masters).unwrap(), expected);
            assert_eq!(rounded[1].weight(entry).unwrap(), expected.to_kind(Kind::BFloat16));
        }
    }

    #[test]
    fn parameters_have_the_spread_of_their_distribution() {
        let model = shipped::load("quick", &Edits::default()).unwrap();
        let plan = plan(&model, Mode::Single.mesh(1).unwrap(), Mode::Single).unwrap();
        let store = alone(&plan, 0, 1, Kind::Double);
        for entry in store.layout.entries.iter().filter(|entry| entry.share.whole.len() > 1) {
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
        let biases = store.layout.entries.iter().filter(|entry| entry.share.whole.len() == 1);
        assert!(
            biases.map(|entry| store.weight(entry).unwrap()).all(|bias| bias.count_nonzero(0).int64_value(&[]) == 0)
        );
    }
}
