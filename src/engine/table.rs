//! From layer kinds to layers: one line a kind.

use crate::error::{Error, Result};
use crate::layers::{
    Add, AveragePool, Concat, Conv, ConvCall, Dropout, Flatten, Layer, Linear, MaxPool, Parameters, Pointwise,
    PointwiseKind,
};
use crate::model::reads::conv_segments;
use crate::model::{Kind, LayerId, kind};
use crate::plan::{Plan, Weights};

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
            Box::new(conv(plan, layer, model_rank, settings, parameters, wants_input_gradient)?)
        }
        Kind::Linear(_) => {
            let adds_bias = plan.layers[layer].weights != Weights::InputSplit || model_rank == 0;
            let parameters = parameters.ok_or_else(weights)?;
            Box::new(Linear { parameters, adds_bias, wants_input_gradient, saved: None })
        }
        Kind::Relu => pointwise(PointwiseKind::Relu),
        Kind::Sigmoid => pointwise(PointwiseKind::Sigmoid),
        Kind::Tanh => pointwise(PointwiseKind::Tanh),
        Kind::MaxPool(window) => Box::new(MaxPool { window: *window, saved: None }),
        Kind::AveragePool(window) => Box::new(AveragePool { window: *window, saved: None }),
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

fn conv(
    plan: &Plan,
    layer: LayerId,
    model_rank: usize,
    settings: &kind::Conv,
    parameters: Parameters,
    wants_input_gradient: bool,
) -> Result<Conv> {
    let planned = &plan.layers[layer];
    let (read, given) = (&planned.reads[0][model_rank], &planned.outputs[model_rank]);
    let in_channels = plan.model.input_shapes(layer)[0].channels;
    let calls = conv_segments(settings.groups, in_channels, settings.out_channels, given)
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
        .ok_or_else(|| Error::failed(format!("the plan does not bring layer {layer} what it reads")))?;
    Ok(Conv {
        calls,
        parameters,
        stride: settings.window.stride as i64,
        padding: settings.window.padding as i64,
        wants_input_gradient,
        saved: None,
    })
}
