//! What a device has to hold while it trains, counted from the plan: the reason the original was split.

use super::{Exchange, Plan, Read};
use crate::model::kind::Window;
use crate::model::ranges::share;
use crate::model::{ActivationId, Kind, LayerId};

/// What decides the sizes besides the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Examples in a step, over all devices.
    pub batch_size: usize,
    /// Bytes of a value that layers compute with.
    pub value_bytes: usize,
    /// Bytes of a weight as the optimizer keeps it: more than a value's with bf16.
    pub master_bytes: usize,
    /// Whether the optimizer keeps velocities.
    pub momentum: bool,
    /// Whether checkpoints are written, from a copy in the memory of the machine.
    pub checkpoints: bool,
    /// Bytes that max-pooling keeps for each output, where it was found: [`CPU_PLACE_BYTES`] or [`GPU_PLACE_BYTES`].
    pub place_bytes: usize,
    /// Bytes of the data set that lie in the memory of a process.
    pub data_set: u64,
}

/// Bytes on one device at the fullest moment of a step, which is the beginning of the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights and biases, and the shard of this device in full precision where layers compute with less.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimizer's velocities: the shard of this device.
    pub optimizer: u64,
    /// What the forward pass keeps for the backward pass: inputs, outputs, pooling indices, dropout masks, and what
    /// exchanges brought; and the two largest gradients of activations that are alive together.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

/// What max-pooling keeps for each output on the CPU: where in its window it was found.
pub const CPU_PLACE_BYTES: usize = 2;
/// What libtorch's does on GPUs: where in the image.
pub const GPU_PLACE_BYTES: usize = 8;

/// What a rank holds. Ranks with a larger share of the batch or of the channels hold more; see [`fullest`].
pub fn of_rank(plan: &Plan, rank: usize, sizes: Sizes) -> Memory {
    let (model_rank, data_rank) = (plan.mesh.model_rank(rank), plan.mesh.data_rank(rank));
    let examples = share(sizes.batch_size, plan.mesh.data, data_rank).len();
    let parameters = parameters(plan, model_rank);
    let computed = (parameters * sizes.value_bytes) as u64;
    let shard = shard(plan, parameters, sizes);
    let masters = if sizes.master_bytes == sizes.value_bytes { 0 } else { shard };
    let optimizer = if sizes.momentum { shard } else { 0 };
    let per_example = kept(plan, model_rank, sizes) + working(plan, model_rank) * sizes.value_bytes;
    Memory { weights: computed + masters, gradients: computed, optimizer, activations: (per_example * examples) as u64 }
}

/// The parameters that the ranks at a place on the model axis hold.
fn parameters(plan: &Plan, model_rank: usize) -> usize {
    let shares = (0..plan.model.layers.len()).flat_map(|layer| plan.parameter_shares(layer, model_rank));
    shares.map(|share| share.len()).sum()
}

/// Bytes of a rank's shard of so many parameters, in full precision.
fn shard(plan: &Plan, parameters: usize, sizes: Sizes) -> u64 {
    (parameters * sizes.master_bytes).div_ceil(plan.mesh.data) as u64
}

/// What the rank with the most to hold holds.
pub fn fullest(plan: &Plan, sizes: Sizes) -> Memory {
    let ranks = (0..plan.mesh.ranks()).map(|rank| of_rank(plan, rank, sizes));
    ranks.max_by_key(Memory::total).unwrap_or_default()
}

/// What the program, libtorch and its kernels take in a process besides what is counted here: seen with `lenet` and `quick`.
const LIBRARIES: u64 = 155_000_000;
/// What CPU devices together were seen to need of the sum of what each needs at its fullest moment: those moments do not fall
/// together, and most of what the forward pass kept is gone when the largest gradients are alive. Between 0.6 (`alexnet-dense`)
/// and 0.9 was seen.
const TOGETHER: f64 = 0.8;

/// The most that a process holds in which all devices are CPU devices: what they hold together, where the weights that
/// layers compute with are held once for a data axis, and what is none of a device's.
pub fn of_process(plan: &Plan, sizes: Sizes) -> u64 {
    let devices: Vec<Memory> = (0..plan.mesh.ranks()).map(|rank| of_rank(plan, rank, sizes)).collect();
    let all: u64 = devices.iter().map(Memory::total).sum();
    let activations: u64 = devices.iter().map(|device| device.activations).sum();
    // Gradients are of the type that layers compute with, so a device's take as much as those weights.
    let others = (0..plan.mesh.ranks()).filter(|&rank| plan.mesh.data_rank(rank) > 0);
    let held_once: u64 = others.map(|rank| devices[rank].gradients).sum();
    // What comes in parts stays where its owner has it.
    let elsewhere = (0..plan.mesh.ranks()).map(|rank| {
        let examples = share(sizes.batch_size, plan.mesh.data, plan.mesh.data_rank(rank)).len();
        let in_parts = plan.exchanges.iter().filter(|exchange| exchange.in_parts);
        let values = in_parts.map(|exchange| brought(plan, exchange, plan.mesh.model_rank(rank))).sum::<usize>();
        (values * examples * sizes.value_bytes) as u64
    });
    // The copy that a checkpoint is written from is kept from one to the next.
    let copies = (0..plan.mesh.ranks()).filter(|_| sizes.checkpoints).map(|rank| {
        let copied = shard(plan, parameters(plan, plan.mesh.model_rank(rank)), sizes);
        if sizes.momentum { 2 * copied } else { copied }
    });
    all - activations - held_once
        + (TOGETHER * (activations - elsewhere.sum::<u64>()) as f64) as u64
        + copies.sum::<u64>()
        + sizes.data_set
        + LIBRARIES
}

fn values(plan: &Plan, activation: ActivationId, model_rank: usize) -> usize {
    plan.held(activation, model_rank).len() * plan.model.shape(activation).area()
}

/// Whether a layer keeps what it reads for its backward pass.
fn keeps_input(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Conv(_) | Kind::Linear(_) | Kind::AveragePool(_) | Kind::LocalResponseNorm { .. } | Kind::SameMapNorm(_)
    )
}

/// Whether a layer keeps what it gives.
fn keeps_output(kind: &Kind) -> bool {
    matches!(kind, Kind::Relu | Kind::Sigmoid | Kind::Tanh | Kind::SoftmaxCrossEntropy)
}

/// Bytes per example that the forward pass keeps on a model rank; a tensor that two layers keep counts once.
fn kept(plan: &Plan, model_rank: usize, sizes: Sizes) -> usize {
    let value_bytes = sizes.value_bytes;
    let layers = &plan.model.layers;
    let reads_held = |layer: LayerId, activation| {
        let inputs = layers[layer].inputs.iter().zip(&plan.layers[layer].sources);
        inputs.into_iter().any(|(&input, source)| {
            let brought_whole = matches!(source, &Read::Exchanged(id) if !plan.exchanges[id].in_parts);
            input == activation && !brought_whole
        })
    };
    let activations: usize = (0..=layers.len())
        .filter(|&activation| {
            let as_output = activation > 0 && keeps_output(&layers[activation - 1].kind);
            let as_input = plan
                .model
                .readers(activation)
                .any(|layer| keeps_input(&layers[layer].kind) && reads_held(layer, activation));
            as_output || as_input
        })
        .map(|activation| values(plan, activation, model_rank) * value_bytes)
        .sum();
    let exchanged: usize = plan
        .exchanges
        .iter()
        .enumerate()
        .filter(|(id, _)| {
            let reads = |layer: &LayerId| plan.layers[*layer].sources.contains(&Read::Exchanged(*id));
            (0..layers.len()).filter(reads).any(|layer| keeps_input(&layers[layer].kind))
        })
        .map(|(_, exchange)| brought(plan, exchange, model_rank) * value_bytes)
        .sum();
    let besides: usize = (0..layers.len())
        .map(|layer| match &layers[layer].kind {
            Kind::MaxPool(_) => values(plan, layer + 1, model_rank) * sizes.place_bytes,
            Kind::Dropout { .. } => values(plan, layer + 1, model_rank) * value_bytes,
            Kind::Conv(conv) => padded(plan, layer, model_rank, conv.window) * value_bytes,
            _ => 0,
        })
        .sum();
    activations + exchanged + besides
}

/// Values per example of the copy of its input that a convolution keeps whose last window reaches beyond it.
fn padded(plan: &Plan, layer: LayerId, model_rank: usize, window: Window) -> usize {
    let Some((height, width)) = plan.model.input_shapes(layer)[0].pixels else { return 0 };
    let (down, across) = (window.overhang(height), window.overhang(width));
    match down + across {
        0 => 0,
        _ => plan.layers[layer].reads[0][model_rank].len() * (height + down) * (width + across),
    }
}

/// Values per example that a model rank holds of an exchange besides what it owns: in parts, those of the others; else a
/// copy of all.
fn brought(plan: &Plan, exchange: &Exchange, model_rank: usize) -> usize {
    let needed = &exchange.needed[model_rank];
    let channels = if exchange.in_parts { needed.difference(&exchange.owned[model_rank]).len() } else { needed.len() };
    channels * plan.model.shape(exchange.source).area()
}

/// The most values per example in the gradients of a layer's output and input, which are alive together.
fn working(plan: &Plan, model_rank: usize) -> usize {
    let layers = (0..plan.model.layers.len()).map(|layer| {
        let inputs = plan.model.layers[layer].inputs.iter();
        values(plan, layer + 1, model_rank) + inputs.map(|&input| values(plan, input, model_rank)).sum::<usize>()
    });
    layers.max().unwrap_or(0)
}
