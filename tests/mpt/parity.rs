//! Law 5: mpt equals PyTorch. The expectations are PyTorch's, from the same Philox draws: `scripts/parity write` makes
//! them anew. They hold no whole tensors; of each parameter there is the norm, some values, and its products with
//! random vectors, which hardly any wrong tensor gets right.

use mpt::data::{Noise, Source, Subset, Synthetic};
use mpt::engine::rank::Settings;
use mpt::engine::recording::Quantity;
use mpt::model::cost::Role;
use mpt::model::parse::{Edits, activation};
use mpt::model::rewrite::relu_after_pool;
use mpt::model::{Layer, LayerId, Model, shipped};
use mpt::optim::{Event, Patience, Plateau, Timeline};
use mpt::plan::{Mesh, Mode, plan};
use mpt::random::{Purpose, Stream};
use mpt::verify::{Observed, Trial, observe};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Both sides round to 1e-16 and add up to a million numbers, each in its own order: 1e-13 apart or less. Four more
/// digits are for other processors and for what a few steps make of it; a wrong formula is off by 1e-3.
const FP64: f64 = 1e-9;
/// Smooth functions all along, and a learning rate at which errors do not grow: PyTorch in fp32 is within 1e-6 of
/// itself in fp64 to the end. One more digit is for other processors.
const FP32_CURVE: f64 = 1e-5;
/// One device, a split network, a split batch.
const MESHES: [&str; 3] = ["1x1", "1x2", "2x1"];
/// Draws of a probe that are made at once.
const AT_ONCE: usize = 1 << 18;

/// What `scripts/parity` trained; its `jobs.py` explains each field.
#[derive(Deserialize)]
struct Job {
    model: String,
    activation: String,
    precision: String,
    seed: u64,
    source: String,
    source_seed: u64,
    image: [usize; 3],
    examples: usize,
    batch_size: usize,
    learning_rate: f64,
    momentum: f64,
    weight_decay: f64,
    #[serde(default)]
    timeline: Vec<JobEvent>,
}

/// What changes on the way.
#[derive(Deserialize)]
struct JobEvent {
    epoch: f64,
    parameters: Option<String>,
    lr_mult: Option<f64>,
    decay_mult: Option<f64>,
    frozen: Option<bool>,
}

impl JobEvent {
    fn event(&self) -> Event {
        let &Self { epoch, ref parameters, lr_mult, decay_mult, frozen } = self;
        Event { epoch, parameters: parameters.clone(), lr_mult, decay_mult, frozen, colour_noise: None }
    }
}

/// What PyTorch found.
#[derive(Deserialize)]
struct Expected {
    job: Job,
    losses: Vec<f64>,
    #[serde(default)]
    activations: BTreeMap<String, ExpectedActivation>,
    #[serde(default)]
    parameters: BTreeMap<String, ExpectedParameter>,
}

/// Norms of what a layer gave in the first step, and of the gradient that came back to it.
#[derive(Deserialize)]
struct ExpectedActivation {
    output: f64,
    gradient: f64,
}

/// A parameter's gradient in the first step, and the parameter after the last.
#[derive(Deserialize)]
struct ExpectedParameter {
    /// Where in the flat parameter the samples are.
    indices: Vec<i64>,
    gradient: ExpectedTensor,
    weight: ExpectedTensor,
}

#[derive(Deserialize)]
struct ExpectedTensor {
    norm: f64,
    samples: Vec<f64>,
    projections: Vec<f64>,
}

fn expected(file: &str) -> Expected {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mpt/expected").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Job {
    fn model(&self) -> Model {
        let edits = Edits { activation: activation(&self.activation), ..Edits::default() };
        shipped::load(&self.model, &edits).unwrap()
    }

    fn trial(&self, classes: usize) -> Trial {
        let (seed, examples, image) = (self.source_seed, self.examples, self.image);
        let source: Arc<dyn Source> = match self.source.as_str() {
            "noise" => Arc::new(Noise::new(seed, examples, image, classes).unwrap()),
            "synthetic" => Arc::new(Synthetic::new(seed, examples, image, classes, Subset::Train).unwrap()),
            other => panic!("no source is called {other}"),
        };
        let kind = match self.precision.as_str() {
            "fp64" => Kind::Double,
            "fp32" => Kind::Float,
            other => panic!("no precision is called {other}"),
        };
        let (momentum, weight_decay) = (self.momentum, self.weight_decay);
        let settings = Settings {
            device: Device::Cpu,
            seed: self.seed,
            kind,
            momentum,
            weight_decay,
            rate_in_velocity: false,
            bucket: 10_000,
            early_exchange: true,
            skip_nonfinite: false,
        };
        let timeline = Timeline::new(self.timeline.iter().map(JobEvent::event).collect());
        let (batch_size, learning_rate) = (self.batch_size, self.learning_rate);
        Trial { source, batch_size, settings, learning_rate, timeline, threads: 1 }
    }
}

/// Compares numbers and keeps the largest distance.
struct Comparison {
    run: String,
    bound: f64,
    largest: f64,
}

impl Comparison {
    /// `found` is to be `expected`, to the bound's part of `scale`.
    fn check(&mut self, what: &str, found: f64, expected: f64, scale: f64) {
        let Self { run, bound, largest } = self;
        let distance = if found == expected { 0.0 } else { (found - expected).abs() / scale };
        assert!(
            distance <= *bound,
            "{run}: {what}: mpt found {found:e}, PyTorch {expected:e}: {distance:.1e} of {scale:e} apart, not {bound:e}"
        );
        *largest = largest.max(distance);
    }

    fn losses(&mut self, found: &Observed, expected: &Expected) {
        assert_eq!(found.outcomes.len(), expected.losses.len(), "{}: the number of steps", self.run);
        for (step, (outcome, &loss)) in found.outcomes.iter().zip(&expected.losses).enumerate() {
            self.check(&format!("loss of step {}", step + 1), outcome.loss(), loss, loss.abs());
        }
    }

    /// In the order in which a step computes, so that the first difference is where it arose.
    fn activations(&mut self, model: &Model, found: &Observed, expected: &Expected) {
        let layers = &model.layers[..model.layers.len() - 1];
        assert_eq!(layers.len(), expected.activations.len(), "{}: the number of activations", self.run);
        let norm_of = |quantity| norm(&found.quantities[&quantity]);
        for (index, Layer { name, .. }) in layers.iter().enumerate() {
            let output = expected.activations[name].output;
            let what = format!("{name}: norm of the output in step 1");
            self.check(&what, norm_of(Quantity::Activation(index + 1)), output, output);
        }
        for (index, Layer { name, .. }) in layers.iter().enumerate().rev() {
            let gradient = expected.activations[name].gradient;
            let what = format!("{name}: norm of the gradient of the output in step 1");
            self.check(&what, norm_of(Quantity::Gradient(index + 1)), gradient, gradient);
        }
    }

    fn parameters(&mut self, model: &Model, seed: u64, found: &Observed, expected: &Expected) {
        assert_eq!(found.weights.len(), expected.parameters.len(), "{}: the number of parameters", self.run);
        for (&key, weight) in &found.weights {
            let name = format!("{}.{}", model.layers[key.0].name, key.1.name());
            let ExpectedParameter { indices, gradient: expected_gradient, weight: expected_weight } =
                &expected.parameters[&name];
            let gradient = &found.gradients[&key];
            let tensors = [
                (format!("{name}: gradient in step 1"), gradient.reshape([-1]), expected_gradient),
                (format!("{name}: weight after the last step"), weight.reshape([-1]), expected_weight),
            ];
            for (what, tensor, expected) in &tensors {
                self.check(&format!("{what}: norm"), norm(tensor), expected.norm, expected.norm);
                // A value is compared with the others' size, not with its own, which may be next to nothing.
                let usual = expected.norm / (tensor.numel() as f64).sqrt();
                for (&index, &value) in indices.iter().zip(&expected.samples) {
                    self.check(&format!("{what}: value {index}"), tensor.double_value(&[index]), value, usual);
                }
            }
            for number in 0..expected_weight.projections.len() {
                let products = products(&probe(seed, key, number), tensors.each_ref().map(|(_, tensor, _)| tensor));
                for ((what, _, expected), found) in tensors.iter().zip(products) {
                    let what = format!("{what}: projection {number}");
                    self.check(&what, found, expected.projections[number], expected.norm);
                }
            }
        }
    }
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}

/// The draws of a parameter's `number`-th vector.
fn probe(seed: u64, (layer, role): (LayerId, Role), number: usize) -> Stream {
    let parameter = match role {
        Role::Weight => 0,
        Role::Bias => 1,
    };
    Stream::new(seed, Purpose::Probe, layer as u32, 2 * number as u64 + parameter)
}

/// The products of flat tensors of one size with the vector 2 u - 1 of a stream's uniform draws u, made piece by piece.
fn products(stream: &Stream, tensors: [&Tensor; 2]) -> [f64; 2] {
    let size = tensors[0].numel();
    let mut sums = [0.0; 2];
    for first in (0..size).step_by(AT_ONCE) {
        let mut vector = vec![0.0; AT_ONCE.min(size - first)];
        stream.fill_uniform(first as u64, &mut vector);
        vector.iter_mut().for_each(|draw| *draw = 2.0 * *draw - 1.0);
        let vector = Tensor::from_slice(&vector);
        for (sum, tensor) in sums.iter_mut().zip(tensors) {
            *sum += tensor.narrow(0, first as i64, vector.numel() as i64).dot(&vector).double_value(&[]);
        }
    }
    sums
}

/// Every mesh gives what PyTorch gave for the model as it is written.
fn check(file: &str, bound: f64) {
    let expected = expected(file);
    check_model(file, bound, &expected, &expected.job.model());
}

/// Every mesh gives PyTorch's loss curve for the model as `mpt train` reorders it.
fn check_curve(file: &str, bound: f64) {
    let expected = expected(file);
    check_model(file, bound, &expected, &relu_after_pool(&expected.job.model()));
}

fn check_model(file: &str, bound: f64, expected: &Expected, model: &Model) {
    let trial = expected.job.trial(model.classes());
    for mesh in MESHES {
        let laid_out: Mesh = mesh.parse().unwrap();
        let mode = match (laid_out.data, laid_out.model) {
            (1, 1) => Mode::Single,
            (_, 1) => Mode::DataParallel,
            _ => Mode::ModelParallel,
        };
        let found = observe(&Arc::new(plan(model, laid_out, mode).unwrap()), &trial).unwrap();
        let mut comparison = Comparison { run: format!("{file} on {mesh}"), bound, largest: 0.0 };
        if !expected.parameters.is_empty() {
            comparison.activations(model, &found, expected);
            comparison.parameters(model, trial.settings.seed, &found, expected);
        }
        comparison.losses(&found, expected);
        println!("{}: at most {:.1e} apart", comparison.run, comparison.largest);
    }
}

#[test]
fn alexnet_equals_pytorch() {
    check("alexnet.json", FP64);
}

#[test]
fn alexnet_dense_equals_pytorch() {
    check("alexnet-dense.json", FP64);
}

#[test]
fn the_network_of_2012_equals_pytorch() {
    check("alexnet-2012-code.json", FP64);
}

#[test]
fn small_networks_equal_pytorch() {
    for file in ["lenet.json", "quick.json", "tiny.json", "tiny-residual.json", "tiny-concat.json", "tiny-2012.json"] {
        check(file, FP64);
    }
}

/// Rates and decays that change on the way, for all parameters and for some, and a layer that is frozen.
#[test]
fn a_timeline_equals_pytorchs_parameter_groups() {
    check("tiny-2012-timeline.json", FP64);
}

/// With a rate that does not change, the velocities of 2012 are PyTorch's times the rate, and the weights the same.
#[test]
fn the_rate_in_the_velocity_equals_pytorch_where_it_does_not_change() {
    let expected = expected("tiny-2012.json");
    let model = expected.job.model();
    let mut trial = expected.job.trial(model.classes());
    trial.settings.rate_in_velocity = true;
    let single = plan(&model, Mesh { data: 1, model: 1 }, Mode::Single).unwrap();
    let found = observe(&Arc::new(single), &trial).unwrap();
    let mut comparison = Comparison { run: "the rate in the velocity".into(), bound: FP64, largest: 0.0 };
    comparison.parameters(&model, trial.settings.seed, &found, &expected);
    comparison.losses(&found, &expected);
    let torchs = expected.job.trial(model.classes());
    let torchs = observe(&Arc::new(plan(&model, Mesh { data: 1, model: 1 }, Mode::Single).unwrap()), &torchs).unwrap();
    assert!(found.weights != torchs.weights, "not a bit is otherwise: this was PyTorch's form");
}

#[test]
fn a_plateau_is_found_when_pytorch_finds_it() {
    #[derive(Deserialize)]
    struct Found {
        job: PlateauJob,
        rates: Vec<f64>,
    }
    #[derive(Deserialize)]
    struct PlateauJob {
        learning_rate: f64,
        factor: f64,
        patience: u64,
        threshold: f64,
        values: Vec<f64>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mpt/expected/plateau.json");
    let Found { job, rates } = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let patience = Patience { epochs: job.patience, threshold: job.threshold };
    let mut plateau = Plateau::default();
    let found: Vec<f64> = job
        .values
        .iter()
        .map(|&value| {
            plateau = plateau.after(value, patience);
            job.learning_rate * job.factor.powf(f64::from(plateau.lowered))
        })
        .collect();
    assert!(found.iter().zip(&rates).all(|(found, rate)| (found / rate - 1.0).abs() < 1e-12), "{found:?} {rates:?}");
    assert!(plateau.lowered >= 3 && rates.len() == job.values.len());
}

#[test]
fn fifty_steps_of_learning_in_fp32_equal_pytorchs() {
    check_curve("lenet-curve.json", FP32_CURVE);
}

#[test]
fn fifty_steps_of_learning_with_dropout_and_groups_equal_pytorchs() {
    check_curve("quick-curve.json", FP64);
}
