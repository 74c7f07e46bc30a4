//! What a layer costs: parameters, multiply-accumulates, and the shapes of its parameters.

use super::initial::{Distribution, Fans};
use super::kind::Multipliers;
use super::{Kind, LayerId, Model};

/// One parameter tensor of a layer, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// `weight` or `bias`.
    pub role: Role,
    /// `[out, in / groups, k, k]` for a convolution, `[out, in]` for a linear layer, `[out]` for a bias.
    pub shape: Vec<usize>,
    /// What it is drawn from at the start.
    pub distribution: Distribution,
    /// How fast it is trained.
    pub multipliers: Multipliers,
}

/// Which parameter of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The kernels or the matrix.
    Weight,
    /// One number per output channel.
    Bias,
}

impl Role {
    /// The name in parameter names: `conv1.weight`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
        }
    }
}

/// The parameters of a layer: none, a weight, or a weight and a bias.
pub fn parameters(model: &Model, layer: LayerId) -> Vec<Parameter> {
    let input = model.input_shapes(layer)[0];
    let (shape, groups, has_bias, initials, multipliers) = match &model.layers[layer].kind {
        Kind::Conv(conv) => {
            let kernel = conv.window.kernel;
            let shape = vec![conv.out_channels, input.channels / conv.groups, kernel, kernel];
            let initials = [conv.weight_initial, conv.bias_initial];
            (shape, conv.groups, conv.bias, initials, [conv.weight_multipliers, conv.bias_multipliers])
        }
        Kind::Linear(linear) => {
            let shape = vec![linear.out_features, input.channels];
            let initials = [linear.weight_initial, linear.bias_initial];
            (shape, 1, linear.bias, initials, [linear.weight_multipliers, linear.bias_multipliers])
        }
        _ => return Vec::new(),
    };
    let area: usize = shape[2..].iter().product();
    let fans = Fans { fan_in: shape[1].saturating_mul(area), fan_out: shape[0] * area, groups };
    let [of_weight, of_bias] = initials.map(|initial| initial.distribution(fans));
    let bias_shape = vec![shape[0]];
    let weight = Parameter { role: Role::Weight, shape, distribution: of_weight, multipliers: multipliers[0] };
    let bias = Parameter { role: Role::Bias, shape: bias_shape, distribution: of_bias, multipliers: multipliers[1] };
    if has_bias { vec![weight, bias] } else { vec![weight] }
}

/// The name of a parameter, as PyTorch forms it: `conv1.weight`.
pub fn parameter_name(model: &Model, layer: LayerId, role: Role) -> String {
    format!("{}.{}", model.layers[layer].name, role.name())
}

/// The number of parameters of a layer.
pub fn parameter_count(model: &Model, layer: LayerId) -> usize {
    parameters(model, layer).iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
}

/// Multiply-accumulates of the forward pass of `out` output channels of a layer, per example. Only convolutions and
/// linear layers count, as is the custom: what others do is little, and bound by memory.
pub fn multiply_accumulates(model: &Model, layer: LayerId, out: usize) -> u64 {
    let (input, output) = (model.input_shapes(layer)[0], model.layers[layer].output);
    let per_output = match &model.layers[layer].kind {
        Kind::Conv(conv) => input.channels / conv.groups * conv.window.kernel.pow(2),
        Kind::Linear(_) => input.channels,
        _ => 0,
    };
    per_output as u64 * (out * output.area()) as u64
}
