//! One training step, layer by layer, against the machine's own matrix products.

use super::statistics::{median, timed};
use super::workload::Length;
use crate::comm::Groups;
use crate::data::{LoaderOptions, Order};
use crate::engine::agreement::Word;
use crate::engine::input::DeviceBatch;
use crate::engine::phases::{Phase, Phases};
use crate::engine::profile::Profile;
use crate::engine::rank::{Rank, Settings};
use crate::engine::session::{Grouped, Job, masks};
use crate::engine::worker::{Assignment, Batches};
use crate::error::Result;
use crate::launch::threads::{self, Reporter};
use crate::model::ranges::share;
use crate::model::{Kind, LayerId};
use crate::plan::Plan;
use crate::torch;
use std::sync::Arc;
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
    /// Where the tensors lived.
    pub device: Device,
}

impl StepTime {
    /// Whether the device was waited for before and after each layer: else a GPU tells no layer's time.
    pub fn one_by_one(&self) -> bool {
        self.device.is_cuda()
    }

    /// The share of the step that is spent inside convolutions and matrix products.
    pub fn multiplying_share(&self) -> f64 {
        let inside = self.layers.iter().filter(|layer| layer.multiplies);
        inside.map(|layer| layer.forward + layer.backward).sum::<f64>() / self.seconds
    }
}

struct Sample {
    phases: Phases,
    profile: Profile,
    product_seconds: f64,
}

/// Measures the steps of a job whose recipe was made ready, run by the ranks that are in this process; `None` where the
/// first is not.
///
/// # Errors
/// A rank failed.
pub fn measure(job: Job, ranks: Grouped, length: Length) -> Result<Option<StepTime>> {
    let (assignment, batch_size) = (job.assignment, job.batch_size);
    let (plan, device) = (Arc::clone(&assignment.plan), assignment.settings.device);
    let options = LoaderOptions {
        seed: assignment.settings.seed,
        batch_size,
        order: Order::Shuffled { epoch: 0 },
        data_ranks: plan.mesh.data,
        replicas: plan.mesh.model,
        masks: masks(&plan),
        ..LoaderOptions::default()
    };
    let streams = ranks.supply.stream(&job.train, options)?;
    let seats = ranks.groups.into_iter().zip(streams);
    let seats = seats.map(|((rank, groups), batches)| (rank, (groups, batches))).collect();
    let crew = threads::start_some(seats, move |rank, (groups, batches), reporter| {
        run(&assignment, length.warmup, rank, groups, &batches, reporter)
    })?;
    let mut crew = crew.interrupted_by(ranks.interrupts);
    let mut samples = Vec::new();
    while let Some(sample) = crew.next_report()? {
        samples.push(sample);
    }
    Ok((!samples.is_empty()).then(|| summary(&plan, device, batch_size, &samples)))
}

/// The part of one rank, of whom the first reports.
fn run(
    assignment: &Assignment,
    warmup: u64,
    rank: usize,
    groups: Groups,
    batches: &Batches,
    reporter: &Reporter<Sample>,
) -> Result<()> {
    let Assignment { plan, settings, learning_rate, threads, .. } = assignment;
    let Settings { kind, device, .. } = *settings;
    let _no_autograd = tch::no_grad_guard();
    torch::set_threads(*threads);
    let mut own = Rank::new(Arc::clone(plan), rank, groups, *settings)?;
    let factors = [(); 2].map(|()| Tensor::f_ones([SIDE, SIDE], (kind, device)));
    let [left, right] = factors;
    let (left, right) = (left?, right?);
    for (step, batch) in batches.iter().enumerate() {
        let batch = batch?;
        own.lap()?;
        own.start_profile();
        let batch = DeviceBatch::new(&batch, plan.model.input, kind, device)?;
        let outcome = own.train(&batch, *learning_rate)?;
        let lap = own.lap()?;
        let agreed = own.agree(&Word { lap, ..Word::of(outcome) })?;
        let product_seconds = timed(device, || Ok(left.f_mm(&right)?))?;
        if let Some(profile) = own.take_profile().filter(|_| rank == 0 && step as u64 >= warmup) {
            let phases = agreed.ranks()[rank].phases;
            reporter.report(Sample { phases, profile, product_seconds })?;
        }
    }
    Ok(())
}

fn summary(plan: &Arc<Plan>, device: Device, batch_size: usize, samples: &[Sample]) -> StepTime {
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
        device,
    }
}
