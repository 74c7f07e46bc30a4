//! Each layer kind's backward pass against finite differences of its forward pass, in fp64.

use mpt::layers::{
    Add, AveragePool, Concat, Context, Conv, ConvCall, Dropout, Flatten, Layer, Linear, LocalResponseNorm, Loss,
    MaxPool, Parameters, Pointwise, PointwiseKind, SameMapNorm,
};
use mpt::model::Channels;
use mpt::model::kind::{Norm, Window};
use mpt::torch::norm::NormCall;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const STEP: f64 = 1e-6;
const BOUND: f64 = 1e-7;

/// Numbers without ties, so that no maximum changes within a step.
fn spread(shape: &[i64], seed: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    let steps = Tensor::arange(count, (Kind::Double, Device::Cpu));
    ((steps + seed) * 12.9898).sin().reshape(shape)
}

fn masks() -> BTreeMap<usize, Tensor> {
    BTreeMap::from([(7, (spread(&[2, 24], 5.0).gt(0.0)).to_kind(Kind::Uint8))])
}

/// The sum of outputs times `weights`: a function whose gradient of the output is `weights`.
fn objective(layer: &mut dyn Layer, inputs: &[Tensor], weights: &Tensor) -> f64 {
    let masks = masks();
    let output = layer.forward(inputs, &Context { training: true, masks: &masks }).unwrap();
    (output * weights).sum(Kind::Double).double_value(&[])
}

/// The derivative by each value of `tensor`, which `layer` reads, by central differences.
fn differences(layer: &mut dyn Layer, inputs: &[Tensor], weights: &Tensor, tensor: &Tensor) -> Tensor {
    let flat = tensor.view([-1]);
    let derivatives: Vec<f64> = (0..flat.numel() as i64)
        .map(|index| {
            let at = |offset: f64, layer: &mut dyn Layer| {
                let _ = flat.get(index).g_add_scalar_(offset);
                let value = objective(layer, inputs, weights);
                let _ = flat.get(index).g_sub_scalar_(offset);
                value
            };
            (at(STEP, layer) - at(-STEP, layer)) / (2.0 * STEP)
        })
        .collect();
    Tensor::from_slice(&derivatives).view(tensor.size().as_slice())
}

fn close(found: &Tensor, expected: &Tensor, what: &str) {
    let apart = (found - expected).abs().max().double_value(&[]);
    let size = expected.abs().max().double_value(&[]);
    assert!(size > 1e-3, "{what}: the gradient is too small to say anything");
    assert!(apart < BOUND * size.max(1.0), "{what}: {apart}");
}

fn check(layer: &mut dyn Layer, inputs: &[Tensor], parameters: &[(Tensor, Tensor)]) {
    let masks = masks();
    let context = Context { training: true, masks: &masks };
    let output = layer.forward(inputs, &context).unwrap();
    let weights = spread(&output.size(), 0.3);
    let gradients = layer.backward(&weights, &context).unwrap();
    layer.backward_parameters(&weights).unwrap();
    assert_eq!(gradients.len(), inputs.len());
    for (which, (input, gradient)) in inputs.iter().zip(gradients).enumerate() {
        close(&gradient.unwrap(), &differences(layer, inputs, &weights, input), &format!("input {which}"));
    }
    let found: Vec<Tensor> = parameters.iter().map(|(_, gradient)| gradient.copy()).collect();
    for (which, ((parameter, _), gradient)) in parameters.iter().zip(found).enumerate() {
        close(&gradient, &differences(layer, inputs, &weights, parameter), &format!("parameter {which}"));
    }
}

fn parameters(weight: &[i64]) -> (Parameters, Vec<(Tensor, Tensor)>) {
    let (weight, bias) = (spread(weight, 1.0), spread(&weight[..1], 2.0));
    let (weight_gradient, bias_gradient) = (weight.zeros_like(), bias.zeros_like());
    let pairs = [(&weight, &weight_gradient), (&bias, &bias_gradient)];
    let pairs = pairs.map(|(value, gradient)| (value.shallow_clone(), gradient.shallow_clone()));
    let parameters = Parameters { weight, bias: Some(bias), weight_gradient, bias_gradient: Some(bias_gradient) };
    (parameters, Vec::from(pairs))
}

fn conv(weight: &[i64], calls: Vec<ConvCall>, stride: i64, padding: i64) -> (Conv, Vec<(Tensor, Tensor)>) {
    let (parameters, pairs) = parameters(weight);
    (Conv { calls, parameters, stride, padding, overhang: [0, 0], wants_input_gradient: true, saved: None }, pairs)
}

#[test]
fn convolution_in_one_call() {
    let calls = vec![ConvCall { groups: 2, input: 0..4, output: 0..6 }];
    let (mut layer, pairs) = conv(&[6, 2, 3, 3], calls, 2, 1);
    check(&mut layer, &[spread(&[2, 4, 5, 6], 0.0)], &pairs);
}

#[test]
fn convolution_of_parts_of_groups() {
    let calls =
        vec![ConvCall { groups: 1, input: 0..2, output: 0..1 }, ConvCall { groups: 1, input: 2..4, output: 1..4 }];
    let (mut layer, pairs) = conv(&[4, 2, 3, 3], calls, 1, 0);
    check(&mut layer, &[spread(&[2, 4, 5, 5], 0.0)], &pairs);
}

#[test]
fn convolution_that_reads_only_a_part_of_its_input() {
    let calls = vec![ConvCall { groups: 1, input: 1..3, output: 0..3 }];
    let (mut layer, pairs) = conv(&[3, 2, 2, 2], calls, 1, 1);
    check(&mut layer, &[spread(&[2, 4, 3, 3], 0.0)], &pairs);
}

#[test]
fn convolution_whose_last_windows_reach_beyond_the_image() {
    let calls = vec![ConvCall { groups: 2, input: 0..4, output: 0..6 }];
    let (mut layer, pairs) = conv(&[6, 2, 3, 3], calls, 2, 0);
    layer.overhang = [1, 0];
    check(&mut layer, &[spread(&[2, 4, 6, 5], 0.0)], &pairs);
    let output = layer.forward(&[spread(&[2, 4, 6, 5], 0.0)], &Context { training: false, masks: &masks() }).unwrap();
    assert_eq!(output.size(), [2, 6, 3, 2]);
}

#[test]
fn linear() {
    let (parameters, pairs) = parameters(&[5, 7]);
    let mut layer = Linear { parameters, adds_bias: true, wants_input_gradient: true, saved: None };
    check(&mut layer, &[spread(&[3, 7], 0.0)], &pairs);
}

#[test]
fn pointwise_functions() {
    for kind in [PointwiseKind::Relu, PointwiseKind::Sigmoid, PointwiseKind::Tanh] {
        check(&mut Pointwise { kind, saved: None }, &[spread(&[2, 3, 4, 4], 0.1)], &[]);
    }
}

#[test]
fn pools() {
    let window = |kernel, padding, ceil_mode| Window { kernel, stride: 2, padding, ceil_mode };
    for window in [window(3, 0, false), window(2, 1, false), window(3, 0, true), window(4, 1, true)] {
        check(&mut MaxPool { window, saved: None }, &[spread(&[2, 3, 7, 6], 0.0)], &[]);
        check(&mut AveragePool { window, saved: None }, &[spread(&[2, 3, 7, 6], 0.0)], &[]);
    }
}

#[test]
fn norms_across_channels_of_whole_groups_and_of_parts() {
    let call = |input, output, before| NormCall { input, output, before };
    for (size, beta, calls) in [
        (5, 0.75, vec![call(0..4, 0..4, 0), call(4..8, 4..8, 0)]),
        // Parts of two groups, with what lies beside them, and two parts of one group that read a channel in common.
        (3, 0.75, vec![call(0..4, 0..3, 0), call(4..8, 3..5, 1)]),
        (4, 1.2, vec![call(0..5, 0..3, 1), call(4..8, 3..6, 0)]),
    ] {
        let norm = Norm { size, alpha: 1.3, beta, k: 0.8 };
        check(&mut LocalResponseNorm { norm, calls, saved: None }, &[spread(&[2, 8, 3, 2], 0.0)], &[]);
    }
}

#[test]
fn norms_over_the_pixels_of_a_map() {
    for (size, beta) in [(3, 0.75), (5, 1.2)] {
        let norm = Norm { size, alpha: 1.3, beta, k: 0.8 };
        check(&mut SameMapNorm { norm, saved: None }, &[spread(&[2, 3, 6, 5], 0.0)], &[]);
    }
}

#[test]
fn flatten_add_and_concat() {
    let image = |channels, seed| spread(&[2, channels, 3, 2], seed);
    check(&mut Flatten { saved: None }, &[image(4, 0.0)], &[]);
    check(&mut Add { inputs: 3 }, &[image(4, 0.0), image(4, 1.0), image(4, 2.0)], &[]);
    check(&mut Concat { saved: None }, &[image(4, 0.0), image(2, 1.0)], &[]);
}

#[test]
fn dropout_drops_by_the_mask_and_scales_the_rest() {
    let features: Channels = [0..6, 12..18].into_iter().collect();
    let mut layer = Dropout { layer: 7, probability: 0.25, features, saved: None };
    let input = spread(&[2, 2, 3, 2], 0.0);
    check(&mut layer, &[input.shallow_clone()], &[]);
    let masks = masks();
    let output = layer.forward(&[input.shallow_clone()], &Context { training: true, masks: &masks }).unwrap();
    let mask = Tensor::cat(&[masks[&7].narrow(1, 0, 6), masks[&7].narrow(1, 12, 6)], 1).reshape([2, 2, 3, 2]);
    assert!(output.allclose(&(&input * mask / 0.75), 1e-12, 1e-12, false));
    let evaluated = layer.forward(&[input.shallow_clone()], &Context { training: false, masks: &masks }).unwrap();
    assert_eq!(evaluated, input);
}

#[test]
fn the_loss_is_softmax_cross_entropy_over_the_whole_batch() {
    let (logits, labels) = (spread(&[3, 4], 0.0), Tensor::from_slice(&[2i64, 0, 3]));
    let mut loss = Loss::default();
    let at = |logits: &Tensor| Loss::default().forward(logits, &labels, false).unwrap().loss_sum;
    let outcome = loss.forward(&logits, &labels, true).unwrap();
    let by_hand: f64 = (0..3)
        .map(|row| {
            let values: Vec<f64> = (0..4).map(|column| logits.double_value(&[row, column])).collect();
            let label = labels.int64_value(&[row]) as usize;
            values.iter().map(|value| value.exp()).sum::<f64>().ln() - values[label]
        })
        .sum();
    assert!((outcome.loss_sum - by_hand).abs() < 1e-12);
    let best =
        |row: i64| (0..4).max_by(|&a, &b| logits.double_value(&[row, a]).total_cmp(&logits.double_value(&[row, b])));
    let correct = (0..3).filter(|&row| best(row) == Some(labels.int64_value(&[row]))).count();
    assert_eq!((outcome.correct, outcome.examples), (correct as u64, 3));
    // The batch has six examples in all, three of them on another rank.
    let gradient = loss.backward(6).unwrap();
    for row in 0..3 {
        for column in 0..4 {
            let nudged = |offset: f64| {
                let moved = logits.copy();
                let _ = moved.get(row).get(column).g_add_scalar_(offset);
                at(&moved) / 6.0
            };
            let expected = (nudged(STEP) - nudged(-STEP)) / (2.0 * STEP);
            assert!((gradient.double_value(&[row, column]) - expected).abs() < BOUND, "{row} {column}");
        }
    }
}
