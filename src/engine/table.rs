//! From layer kinds to layers: one line a kind.

use crate::error::{Error, Result};
use crate::layers::{
    Add, AveragePool, Concat, Conv, ConvCall, Dropout, Flatten, Layer, Linear, LocalResponseNorm, MaxPool, Parameters,
    Parts, Pointwise, PointwiseKind, SameMapNorm,
};
use crate::model::reads::{conv_segments, window_segments};
use crate::model::{Channels, Kind, LayerId, kind};
use crate::plan::{Plan, Read, Weights};
use crate::torch::norm::NormCall;

/// The share of a layer that a model rank computes; `None` for the loss, which is no layer like the others.
///
/// # Errors
/// The plan does not give the layer what it reads: a fault of the planner.
pub fn layer(
    plan: &Plan,
    layer: LayerId,
    model_rank: usize,
    parameters: Option<Parameters>,
    wants_input_gradient: bool,
) -> Result<Option<Box<dyn Layer>>> {
    let pointwise = |kind| Box::new(Pointwise { kind, saved: None }) as Box<dyn Layer>;
    let weights = || Error::failed(format!("layer {} came without its weights", plan.model.layers[layer].name));
    Ok(Some(match &plan.model.layers[layer].kind {
        Kind::Conv(settings) => {
            let parameters = parameters.ok_or_else(weights)?;
            let outputs = plan.layers[layer].outputs[model_rank].len();
            let overhang = overhang(plan, layer, settings);
            let conv = |calls, parameters| conv(settings, overhang, calls, parameters, wants_input_gradient);
            let of_part = |parameters, input: usize| {
                let call = ConvCall { groups: 1, input: 0..input, output: 0..outputs };
                Box::new(conv(vec![call], parameters)) as Box<dyn Layer>
            };
            match parts(plan, layer) {
                Some(owned) => Box::new(in_parts(owned, model_rank, &parameters, of_part)?),
                None => Box::new(conv(conv_calls(plan, layer, model_rank, settings)?, parameters)),
            }
        }
        Kind::Linear(_) => {
            let parameters = parameters.ok_or_else(weights)?;
            let adds_bias = plan.layers[layer].weights != Weights::InputSplit || model_rank == 0;
            let linear =
                |parameters| Box::new(Linear { parameters, adds_bias, wants_input_gradient, saved: None }) as Box<_>;
            match parts(plan, layer) {
                Some(owned) => Box::new(in_parts(owned, model_rank, &parameters, |columns, _| linear(columns))?),
                None => linear(parameters),
            }
        }
        Kind::Relu => pointwise(PointwiseKind::Relu),
        Kind::Sigmoid => pointwise(PointwiseKind::Sigmoid),
        Kind::Tanh => pointwise(PointwiseKind::Tanh),
        Kind::MaxPool(window) => Box::new(MaxPool { window: *window, saved: None }),
        Kind::AveragePool(window) => Box::new(AveragePool { window: *window, saved: None }),
        &Kind::LocalResponseNorm { norm, groups } => {
            let calls = norm_calls(plan, layer, model_rank, norm.size, groups)?;
            Box::new(LocalResponseNorm { norm, calls, saved: None })
        }
        Kind::SameMapNorm(norm) => Box::new(SameMapNorm { norm: *norm, saved: None }),
        Kind::Dropout { probability } => {
            let features = plan.held(layer + 1, model_rank).scaled(plan.model.layers[layer].output.area());
            Box::new(Dropout { layer, probability: *probability, features, saved: None })
        }
        Kind::Flatten => Box::new(Flatten { saved: None }),
        Kind::Add => Box::new(Add { inputs: plan.model.layers[layer].inputs.len() }),
        Kind::Concat => Box::new(Concat { saved: None }),
        Kind::SoftmaxCrossEntropy => return Ok(None),
    }))
}

/// The channels that each rank owns of what a layer reads, if they come to it in parts.
fn parts(plan: &Plan, layer: LayerId) -> Option<&[Channels]> {
    plan.layers[layer].sources.iter().find_map(|source| match source {
        &Read::Exchanged(id) if plan.exchanges[id].in_parts => Some(&plan.exchanges[id].owned[..]),
        _ => None,
    })
}

/// A dense layer as the sum of one for each part of its input; `of_part` makes one from its columns of the weights and the
/// number of channels that it reads.
fn in_parts(
    owned: &[Channels],
    own: usize,
    parameters: &Parameters,
    of_part: impl Fn(Parameters, usize) -> Box<dyn Layer>,
) -> Result<Parts> {
    let layer = |(part, channels): (usize, &Channels)| -> Result<Box<dyn Layer>> {
        let columns = channels.ranges().next().unwrap_or_default();
        Ok(of_part(parameters.columns(&columns, part == own)?, columns.len()))
    };
    Ok(Parts { layers: owned.iter().enumerate().map(layer).collect::<Result<_>>()?, own, begun: None })
}

fn conv(
    settings: &kind::Conv,
    overhang: [i64; 2],
    calls: Vec<ConvCall>,
    parameters: Parameters,
    wants_input_gradient: bool,
) -> Conv {
    let (stride, padding) = (settings.window.stride as i64, settings.window.padding as i64);
    Conv { calls, parameters, stride, padding, overhang, wants_input_gradient, saved: None }
}

/// The rows and columns by which the last windows of a convolution reach beyond its image.
fn overhang(plan: &Plan, layer: LayerId, settings: &kind::Conv) -> [i64; 2] {
    let (height, width) = plan.model.input_shapes(layer)[0].pixels.unwrap_or_default();
    [height, width].map(|size| settings.window.overhang(size) as i64)
}

/// The kernel calls of a model rank's share of a convolution that reads its input in one piece.
fn conv_calls(plan: &Plan, layer: LayerId, model_rank: usize, settings: &kind::Conv) -> Result<Vec<ConvCall>> {
    let planned = &plan.layers[layer];
    let (read, given) = (&planned.reads[0][model_rank], &planned.outputs[model_rank]);
    let in_channels = plan.model.input_shapes(layer)[0].channels;
    conv_segments(settings.groups, in_channels, settings.out_channels, given)
        .into_iter()
        .map(|segment| {
            let input = read.position(segment.input.start)?;
            let output = given.position(segment.output.start)?;
            Some(ConvCall {
                groups: segment.groups,
                input: input..input + segment.input.len(),
                output: output..output + segment.output.len(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| not_brought(layer))
}

/// The kernel calls of a model rank's share of a normalisation across windows of `size` channels.
fn norm_calls(plan: &Plan, layer: LayerId, model_rank: usize, size: usize, groups: usize) -> Result<Vec<NormCall>> {
    let planned = &plan.layers[layer];
    let (read, given) = (&planned.reads[0][model_rank], &planned.outputs[model_rank]);
    window_segments(groups, plan.model.layers[layer].output.channels, size, given)
        .into_iter()
        .map(|segment| {
            let input = read.position(segment.input.start)?;
            let output = given.position(segment.output.start)?;
            Some(NormCall {
                input: input..input + segment.input.len(),
                output: output..output + segment.output.len(),
                before: segment.output.start - segment.input.start,
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| not_brought(layer))
}

fn not_brought(layer: LayerId) -> Error {
    Error::failed(format!("the plan does not bring layer {layer} what it reads"))
}
