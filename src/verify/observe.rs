//! Runs a plan for some steps and puts what its ranks saw together again, whole.

use crate::comm::Groups;
use crate::data::{LoaderOptions, Order, Source, start};
use crate::engine::agreement::Word;
use crate::engine::input::DeviceBatch;
use crate::engine::rank::{Rank, Settings};
use crate::engine::recording::{Piece, Quantity};
use crate::engine::session::masks;
use crate::engine::worker::Batches;
use crate::error::{Error, Result};
use crate::launch::threads::{self, Reporter};
use crate::layers::Outcome;
use crate::model::cost::Role;
use crate::model::{Channels, LayerId};
use crate::optim::Timeline;
use crate::plan::{ParameterShare, Plan};
use crate::torch;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Tensor;

/// What is run, the same for each plan that is compared.
#[derive(Clone)]
pub struct Trial {
    /// The examples; one pass over them is made.
    pub source: Arc<dyn Source>,
    /// Examples in a step, over all ranks.
    pub batch_size: usize,
    /// Seed, precision and optimizer.
    pub settings: Settings,
    /// The learning rate.
    pub learning_rate: f64,
    /// What changes on the way.
    pub timeline: Timeline,
    /// Threads that libtorch may use for each rank.
    pub threads: usize,
}

/// A run, put together: everything as one device would have seen it.
#[derive(Debug, Default)]
pub struct Observed {
    /// The outcome of each step.
    pub outcomes: Vec<Outcome>,
    /// Activations and their gradients in the first step, `[N, C, ...]` over the whole batch.
    pub quantities: BTreeMap<Quantity, Tensor>,
    /// The gradients of parameters in the first step, summed over the batch.
    pub gradients: BTreeMap<(LayerId, Role), Tensor>,
    /// The parameters after the last step.
    pub weights: BTreeMap<(LayerId, Role), Tensor>,
}

enum Seen {
    Outcome(usize, Outcome),
    Pieces(usize, Vec<Piece>),
    Gradients(usize, Vec<(ParameterShare, Tensor)>),
    Weights(usize, Vec<(ParameterShare, Tensor)>),
}

/// Runs a plan over the examples of a trial.
///
/// # Errors
/// What a rank reports, or ranks that hold copies of a tensor and do not agree on it.
pub fn observe(plan: &Arc<Plan>, trial: &Trial) -> Result<Observed> {
    let options = LoaderOptions {
        seed: trial.settings.seed,
        batch_size: trial.batch_size,
        order: Order::Shuffled { epoch: 0 },
        data_ranks: plan.mesh.data,
        replicas: plan.mesh.model,
        masks: masks(plan),
        ..LoaderOptions::default()
    };
    let streams = start(Arc::clone(&trial.source), options)?;
    let seats = threads::groups(plan.mesh).into_iter().zip(streams).collect();
    let (shared, own_trial) = (Arc::clone(plan), trial.clone());
    let mut crew = threads::start(seats, move |rank, (groups, batches), reporter| {
        run(&shared, &own_trial, rank, groups, &batches, reporter)
    })?;
    let (mut pieces, mut gradients, mut weights) = (by_rank(plan), by_rank(plan), by_rank(plan));
    let mut observed = Observed::default();
    while let Some(seen) = crew.next_report()? {
        match seen {
            Seen::Outcome(0, outcome) => observed.outcomes.push(outcome),
            Seen::Outcome(..) => {}
            Seen::Pieces(rank, found) => pieces[rank] = found,
            Seen::Gradients(rank, found) => gradients[rank] = found,
            Seen::Weights(rank, found) => weights[rank] = found,
        }
    }
    observed.quantities = whole_quantities(plan, pieces)?;
    observed.gradients = whole_parameters(plan, gradients, true)?;
    observed.weights = whole_parameters(plan, weights, false)?;
    Ok(observed)
}

fn by_rank<T>(plan: &Plan) -> Vec<Vec<T>> {
    (0..plan.mesh.ranks()).map(|_| Vec::new()).collect()
}

fn run(
    plan: &Arc<Plan>,
    trial: &Trial,
    number: usize,
    groups: Groups,
    batches: &Batches,
    reporter: &Reporter<Seen>,
) -> Result<()> {
    let _no_autograd = tch::no_grad_guard();
    torch::set_threads(trial.threads);
    let mut rank = Rank::new(Arc::clone(plan), number, groups, trial.settings)?;
    rank.start_recording();
    for (step, batch) in batches.iter().enumerate() {
        let batch = DeviceBatch::new(batch?.as_ref(), plan.model.input, trial.settings.kind, trial.settings.device)?;
        let passed = trial.timeline.passed(step as u64, trial.source.len().div_ceil(trial.batch_size) as u64);
        rank.tune(&trial.timeline, passed);
        let outcome = rank.train(&batch, trial.learning_rate * trial.timeline.rate(passed))?;
        reporter.report(Seen::Outcome(number, rank.agree(&Word::of(outcome))?.outcome))?;
        if step == 0 {
            reporter.report(Seen::Pieces(number, rank.take_recording().pieces))?;
            let gradients = rank
                .store()
                .layout
                .entries
                .iter()
                .map(|entry| Ok((entry.share.clone(), rank.store().gradient(entry)?.copy())));
            reporter.report(Seen::Gradients(number, gradients.collect::<Result<_>>()?))?;
        }
    }
    let full = rank.full_weights()?;
    let weights = rank.store().layout.entries.iter().map(|entry| Ok((entry.share.clone(), entry.view(&full)?)));
    reporter.report(Seen::Weights(number, weights.collect::<Result<_>>()?))
}

/// Joins the pieces of each quantity: channels over the model axis, examples over the data axis.
fn whole_quantities(plan: &Plan, pieces: Vec<Vec<Piece>>) -> Result<BTreeMap<Quantity, Tensor>> {
    let mut found: BTreeMap<Quantity, BTreeMap<usize, Parts>> = BTreeMap::new();
    for (rank, own) in pieces.into_iter().enumerate() {
        for Piece { quantity, channels, tensor } in own {
            let shares = found.entry(quantity).or_default().entry(plan.mesh.data_rank(rank)).or_default();
            shares.push((channels, tensor));
        }
    }
    found
        .into_iter()
        .map(|(quantity, by_data_rank)| {
            let (Quantity::Activation(activation) | Quantity::Gradient(activation)) = quantity;
            let channels = plan.model.shape(activation).channels;
            let examples = by_data_rank.into_values().map(|parts| join(&parts, channels, 1));
            Ok((quantity, Tensor::f_cat(&examples.collect::<Result<Vec<_>>>()?, 0)?))
        })
        .collect()
}

/// Joins the shares of each parameter over the model axis; over the data axis gradients are summed, and of weights,
/// which are the same there, the first is taken.
fn whole_parameters(
    plan: &Plan,
    shares: Vec<Vec<(ParameterShare, Tensor)>>,
    sum: bool,
) -> Result<BTreeMap<(LayerId, Role), Tensor>> {
    let mut whole: BTreeMap<(LayerId, Role), Tensor> = BTreeMap::new();
    let mut rows = shares.into_iter();
    for data_rank in 0..plan.mesh.data {
        let mut found: BTreeMap<(LayerId, Role), (usize, usize, Parts)> = BTreeMap::new();
        for (share, tensor) in rows.by_ref().take(plan.mesh.model).flatten() {
            let size = share.whole[share.dimension];
            let entry = found.entry((share.layer, share.role)).or_insert((share.dimension, size, Vec::new()));
            entry.2.push((share.held, tensor));
        }
        for (key, (dimension, size, parts)) in found {
            let tensor = join(&parts, size, dimension as i64)?;
            let tensor = match whole.remove(&key) {
                Some(before) if sum => before.f_add(&tensor)?,
                Some(before) if before != tensor => {
                    let layer = &plan.model.layers[key.0].name;
                    return Err(Error::failed(format!(
                        "data rank {data_rank} has other weights of {layer} than data rank 0"
                    )));
                }
                Some(before) => before,
                None => tensor,
            };
            whole.insert(key, tensor);
        }
    }
    Ok(whole)
}

type Parts = Vec<(Channels, Tensor)>;

/// Puts parts together along a dimension; where ranks hold copies, they must be the same bits.
fn join(parts: &Parts, size: usize, dimension: i64) -> Result<Tensor> {
    let (_, first) = parts.first().ok_or_else(|| Error::failed("a tensor that no rank holds"))?;
    let mut shape = first.size();
    shape[dimension as usize] = size as i64;
    let whole = first.f_new_zeros(shape, (first.kind(), first.device()))?;
    let mut covered = Channels::none();
    for (channels, part) in parts {
        let mut from = 0;
        for range in channels.ranges() {
            let length = range.len() as i64;
            let mut target = whole.f_narrow(dimension, range.start as i64, length)?;
            let source = part.f_narrow(dimension, from, length)?;
            if covered.contains(&range.clone().into()) && target != source {
                return Err(Error::failed("ranks that hold copies of a tensor do not agree on it"));
            }
            target.f_copy_(&source)?;
            from += length;
        }
        covered = covered.union(channels);
    }
    if covered.len() != size {
        return Err(Error::failed(format!("ranks hold only the parts {covered} of {size}")));
    }
    Ok(whole)
}
