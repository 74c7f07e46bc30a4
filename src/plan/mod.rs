//! Who holds what: a placement for every layer, and from the placements every exchange. Pure code: no tensor, no
//! device and no rank that runs.
//!
//! * [`mesh`] the devices as a grid, data by model
//! * [`modes`] which weights a mode splits, and how: the only thing that a mode decides
//! * [`build`] from there to the placement of every activation and to the exchanges
//! * [`exchange`] what travels from whom to whom, and back with the gradients
//! * [`parts`] which exchanges bring an activation part by part
//! * [`narrow`] which exchanges travel in fp16
//! * [`memory`] what a device has to hold

pub mod build;
pub mod exchange;
pub mod memory;
pub mod mesh;
pub mod modes;
pub mod narrow;
pub mod parts;

pub use build::plan;
pub use exchange::{Adjoint, Exchange, Operation, Transfer};
pub use mesh::Mesh;
pub use modes::Mode;

use crate::model::cost::{self, Role};
use crate::model::{ActivationId, Channels, LayerId, Model};

/// The position of an exchange in [`Plan::exchanges`].
pub type ExchangeId = usize;

/// How an activation lies over the ranks of the model axis. Over the data axis it is always split by examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Every rank holds all channels.
    Replicated,
    /// Rank `r` holds the `r`-th set; every channel is in one set.
    Shard(Vec<Channels>),
    /// Every rank holds all channels of its own summand; the sum over the ranks is the activation.
    Partial,
}

/// How the weights of a layer lie over the ranks of the model axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// The layer has none.
    None,
    /// Every rank holds all of them.
    Replicated,
    /// Each rank holds those of its output channels.
    OutputSplit,
    /// Each rank holds those that read its input features; the bias is replicated and added by the first rank.
    InputSplit,
}

/// Where a layer finds one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// What the rank holds of the activation, as it is.
    Held,
    /// A part of what the rank holds: the `r`-th set on rank `r`.
    Part(Vec<Channels>),
    /// What an exchange brings.
    Exchanged(ExchangeId),
}

/// One layer over the model axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// Where its weights lie.
    pub weights: Weights,
    /// The output channels that each rank computes (for `InputSplit`, all of them, partially).
    pub outputs: Vec<Channels>,
    /// The channels of each input that each rank reads: `reads[input][rank]`.
    pub reads: Vec<Vec<Channels>>,
    /// Where each input comes from.
    pub sources: Vec<Read>,
}

/// A model laid out over a mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The network.
    pub model: Model,
    /// The devices.
    pub mesh: Mesh,
    /// The mode that chose the placements.
    pub mode: Mode,
    /// The placement of every activation, the image first.
    pub placements: Vec<Placement>,
    /// Every layer, in the model's order.
    pub layers: Vec<LayerPlan>,
    /// Every exchange, in the order in which the forward pass meets them.
    pub exchanges: Vec<Exchange>,
}

/// The part of a parameter that a rank holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterShare {
    /// The layer.
    pub layer: LayerId,
    /// Weight or bias.
    pub role: Role,
    /// The whole parameter's shape.
    pub whole: Vec<usize>,
    /// The dimension that is split, and the indices held along it.
    pub dimension: usize,
    /// The indices held along `dimension`.
    pub held: Channels,
}

impl ParameterShare {
    /// The shape of the part that is held.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.whole.clone();
        shape[self.dimension] = self.held.len();
        shape
    }

    /// The number of values that are held.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether the ranks of the model axis hold a part each; else all hold the same.
    pub fn is_split(&self) -> bool {
        self.held.len() < self.whole[self.dimension]
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Plan {
    /// Model, mode and mesh in a few words.
    pub fn title(&self) -> String {
        let Mesh { data, model } = self.mesh;
        format!("{}, {}, {data} data x {model} model", self.model.name, self.mode)
    }

    /// The channels of an activation that a model rank holds.
    pub fn held(&self, activation: ActivationId, model_rank: usize) -> Channels {
        match &self.placements[activation] {
            Placement::Shard(owned) => owned[model_rank].clone(),
            Placement::Replicated | Placement::Partial => Channels::all(self.model.shape(activation).channels),
        }
    }

    /// What a model rank holds of a layer's parameters: the weight, then the bias.
    pub fn parameter_shares(&self, layer: LayerId, model_rank: usize) -> Vec<ParameterShare> {
        let planned = &self.layers[layer];
        cost::parameters(&self.model, layer)
            .into_iter()
            .map(|parameter| {
                let (dimension, held) = match (planned.weights, parameter.role) {
                    (Weights::OutputSplit, _) => (0, planned.outputs[model_rank].clone()),
                    (Weights::InputSplit, Role::Weight) => (1, planned.reads[0][model_rank].clone()),
                    _ => (0, Channels::all(parameter.shape[0])),
                };
                ParameterShare { layer, role: parameter.role, whole: parameter.shape, dimension, held }
            })
            .collect()
    }

    /// Floating-point operations of a training step on a model rank, per example: what convolutions and linear layers
    /// multiply and add, forward and backward.
    pub fn training_flops(&self, model_rank: usize) -> u64 {
        (0..self.layers.len()).map(|layer| self.layer_flops(layer, model_rank)).sum()
    }

    /// The part of a layer in [`Plan::training_flops`]. A multiply-accumulate is two operations, and the backward pass does
    /// it again for the gradient of the weights and, where that is wanted, for that of the input.
    pub fn layer_flops(&self, layer: LayerId, model_rank: usize) -> u64 {
        let needs_gradient = self.model.needs_gradient();
        let inputs = &self.model.layers[layer].inputs;
        let backward = if inputs.iter().any(|&input| needs_gradient[input]) { 2 } else { 1 };
        2 * (1 + backward) * self.multiply_accumulates(layer, model_rank)
    }

    /// Multiply-accumulates of a layer's forward pass on a model rank, per example.
    pub fn multiply_accumulates(&self, layer: LayerId, model_rank: usize) -> u64 {
        let planned = &self.layers[layer];
        let whole = cost::multiply_accumulates(&self.model, layer, planned.outputs[model_rank].len());
        match planned.weights {
            Weights::InputSplit => {
                let features = self.model.input_shapes(layer)[0].channels as u64;
                whole / features * planned.reads[0][model_rank].len() as u64
            }
            _ => whole,
        }
    }
}
