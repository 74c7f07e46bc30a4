//! One training step, layer by layer, against the machine's own matrix products.

use super::statistics::median;
use super::workload::{self, Length};
use crate::comm::Groups;
use crate::data::{LoaderOptions, Order, Source, start};
use crate::engine::agreement::Word;
use crate::engine::input::DeviceBatch;
use crate::engine::job::{plan_of, settings};
use crate::engine::phases::{Phase, Phases};
use crate::engine::profile::Profile;
use crate::engine::rank::{Rank, Settings};
use crate::engine::session::masks;
use crate::engine::worker::Batches;
use crate::error::Result;
use crate::launch::threads::{self, Reporter};
use crate::model::ranges::share;
use crate::model::{Kind, LayerId};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::torch;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Tensor};

/// The side of the square matrices whose product tells what the machine can do: large enough that memory is no limit.
const SIDE: i64 = 2048;

/// What a layer takes on the first device.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// The layer.
    pub layer: LayerId,
    /// Whether it is a convolution or a matrix product.
    pub multiplies: bool,
    /// Seconds forward, the median.
    pub forward: f64,
    /// Seconds backward, the median.
    pub backward: f64,
    /// Floating-point operations forward: two for each multiply-accumulate.
    pub forward_operations: f64,
    /// Floating-point operations backward: those of the weights' gradient, and of the input's where it is wanted.
    pub backward_operations: f64,
}

/// A step on the first device.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// What was run.
    pub plan: Arc<Plan>,
    /// Examples in the step, over all devices.
    pub batch_size: usize,
    /// Seconds of the step, the median; without waiting for the loader.
    pub seconds: f64,
    /// Seconds in each phase, the medians.
    pub phases: Vec<(Phase, f64)>,
    /// The layers, in the model's order.
    pub layers: Vec<LayerTime>,
    /// What a device computes of a product of two large square matrices while the others do too, in floating-point
    /// operations a second: the median of one product after each step.
    pub product_rate: f64,
}

impl StepTime {
    /// The share of the step that is spent inside convolutions and matrix products.
    pub fn multiplying_share(&self) -> f64 {
        let inside = self.layers.iter().filter(|layer| layer.multiplies);
        inside.map(|layer| layer.forward + layer.backward).sum::<f64>() / self.seconds
    }
}

struct Sample {
    rank: usize,
    phases: Phases,
    profile: Profile,
    product_seconds: f64,
}

#[derive(Clone)]
struct Task {
    plan: Arc<Plan>,
    settings: Settings,
    learning_rate: f64,
    threads: usize,
    source: Arc<dyn Source>,
    warmup: u64,
}

/// Measures the steps of a recipe, on random images.
///
/// # Errors
/// The recipe cannot be laid out, or a rank failed.
pub fn measure(base: &Recipe, length: Length) -> Result<StepTime> {
    let (mesh, mode) = base.layout()?;
    let recipe = workload::recipe(base, mesh, mode, base.train.batch_size, length)?;
    let plan = Arc::new(plan_of(&recipe)?);
    let source = workload::images(recipe.seed, recipe.data.train_examples, recipe.data.image, plan.model.classes())?;
    let options = LoaderOptions {
        seed: recipe.seed,
        batch_size: recipe.train.batch_size,
        order: Order::Shuffled { epoch: 0 },
        data_ranks: mesh.data,
        replicas: mesh.model,
        masks: masks(&plan),
        ..LoaderOptions::default()
    };
    let streams = start(Arc::clone(&source), options)?;
    let task = Task {
        plan: Arc::clone(&plan),
        settings: settings(&recipe),
        learning_rate: recipe.optimizer.learning_rate,
        threads: recipe.parallel.threads,
        source,
        warmup: length.warmup,
    };
    let seats = threads::groups(mesh).into_iter().zip(streams).collect();
    let mut crew = threads::start(seats, move |number, (groups, batches), reporter| {
        run(&task, number, groups, &batches, reporter)
    })?;
    let mut samples = Vec::new();
    while let Some(sample) = crew.next_report()? {
        if sample.rank == 0 {
            samples.push(sample);
        }
    }
    Ok(summary(&plan, recipe.train.batch_size, &samples))
}

fn run(task: &Task, rank: usize, groups: Groups, batches: &Batches, reporter: &Reporter<Sample>) -> Result<()> {
    let _no_autograd = tch::no_grad_guard();
    torch::set_threads(task.threads);
    let kind = task.settings.kind;
    let mut own = Rank::new(Arc::clone(&task.plan), rank, groups, task.settings)?;
    let factors = [(); 2].map(|()| Tensor::f_ones([SIDE, SIDE], (kind, Device::Cpu)));
    let [left, right] = factors;
    let (left, right) = (left?, right?);
    for (step, batch) in batches.iter().enumerate() {
        let batch = batch?;
        own.lap()?;
        own.take_profile();
        let batch = DeviceBatch::new(&batch, task.source.shape(), task.plan.model.input, kind, Device::Cpu)?;
        let outcome = own.train(&batch, task.learning_rate)?;
        let lap = own.lap()?;
        let agreed = own.agree(&Word { lap, ..Word::of(outcome) })?;
        let begin = Instant::now();
        drop(left.f_mm(&right)?);
        let product_seconds = begin.elapsed().as_secs_f64();
        if step as u64 >= task.warmup {
            let phases = agreed.ranks()[rank].phases;
            reporter.report(Sample { rank, phases, profile: own.take_profile(), product_seconds })?;
        }
    }
    Ok(())
}

fn summary(plan: &Arc<Plan>, batch_size: usize, samples: &[Sample]) -> StepTime {
    let over_steps = |of: &dyn Fn(&Sample) -> f64| median(&samples.iter().map(of).collect::<Vec<_>>());
    let examples = share(batch_size, plan.mesh.data, 0).len() as f64;
    let needs_gradient = plan.model.needs_gradient();
    let layers = (0..plan.model.layers.len()).map(|layer| {
        let described = &plan.model.layers[layer];
        let operations = 2.0 * examples * plan.multiply_accumulates(layer, 0) as f64;
        let gradients = if described.inputs.iter().any(|&input| needs_gradient[input]) { 2.0 } else { 1.0 };
        LayerTime {
            layer,
            multiplies: matches!(described.kind, Kind::Conv(_) | Kind::Linear(_)),
            forward: over_steps(&|sample| sample.profile.forward[layer].as_secs_f64()),
            backward: over_steps(&|sample| sample.profile.backward[layer].as_secs_f64()),
            forward_operations: operations,
            backward_operations: gradients * operations,
        }
    });
    StepTime {
        plan: Arc::clone(plan),
        batch_size,
        seconds: over_steps(&|sample| sample.phases.total().as_secs_f64()),
        phases: Phase::ALL
            .into_iter()
            .map(|phase| (phase, over_steps(&|sample| sample.phases.get(phase).as_secs_f64())))
            .collect(),
        layers: layers.collect(),
        product_rate: 2.0 * (SIDE as f64).powi(3) / over_steps(&|sample| sample.product_seconds),
    }
}
