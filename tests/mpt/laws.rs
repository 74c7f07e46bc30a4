//! Law 1: split equals whole. Losses, activations, gradients and weights, over steps with dropout, momentum and weight
//! decay, the last batch half full.

use crate::networks::{Piece, network, pieces};
use mpt::data::Noise;
use mpt::engine::rank::Settings;
use mpt::model::Model;
use mpt::model::cost::Role;
use mpt::model::parse::{Edits, parse};
use mpt::model::rewrite::relu_after_pool;
use mpt::model::shipped;
use mpt::optim::{Event, Timeline};
use mpt::plan::{Adjoint, Mesh, Mode, Plan, plan};
use mpt::verify::{Comparison, Observed, Trial, observe};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind};

const FP64: f64 = 1e-9;

fn model(name: &str) -> Model {
    shipped::load(name, &Edits::default()).unwrap()
}

/// Steps of training, of which the last has half a batch: fewer of networks that take seconds for each.
fn steps(model: &Model) -> usize {
    if model.input.area() < 100 * 100 { 5 } else { 3 }
}

fn trial(model: &Model, batch_size: usize, kind: Kind) -> Trial {
    let (height, width) = model.input.pixels.unwrap();
    let examples = batch_size * steps(model) - batch_size / 2;
    let image = [model.input.channels, height, width];
    Trial {
        source: Arc::new(Noise::new(3, examples, image, model.classes()).unwrap()),
        batch_size,
        // Buckets that cut parameters, and layers, at odd places.
        settings: Settings {
            device: Device::Cpu,
            seed: 3,
            kind,
            momentum: 0.9,
            weight_decay: 5e-4,
            rate_in_velocity: false,
            bucket: 3000,
            early_exchange: true,
            skip_nonfinite: false,
        },
        learning_rate: 1e-3,
        timeline: Timeline::default(),
        threads: 1,
    }
}

fn laid_out(model: &Model, mesh: &str) -> Arc<Plan> {
    let mesh: Mesh = mesh.parse().unwrap();
    let mode = if mesh.model > 1 { Mode::ModelParallel } else { Mode::DataParallel };
    Arc::new(plan(model, mesh, mode).unwrap())
}

fn whole(model: &Model, trial: &Trial) -> Observed {
    let single = plan(model, Mesh { data: 1, model: 1 }, Mode::Single).unwrap();
    observe(&Arc::new(single), trial).unwrap()
}

/// Every mesh gives what one device gives, to `bound`.
fn check(name: &str, batch_size: usize, kind: Kind, bound: f64, meshes: &[&str]) {
    let model = model(name);
    check_plans(&model, batch_size, kind, bound, &plans(&model, meshes));
}

/// Also where each rank begins with its own part of what it reads.
fn check_own_part_first(name: &str, batch_size: usize, kind: Kind, bound: f64, meshes: &[&str]) {
    let model = model(name);
    let plans: Vec<_> = plans(&model, meshes).iter().map(own_part_first).collect();
    for plan in &plans {
        assert!(
            plan.exchanges.iter().any(|exchange| exchange.in_parts),
            "{name} on {}: nothing comes in parts",
            plan.mesh
        );
    }
    check_plans(&model, batch_size, kind, bound, &plans);
}

fn plans(model: &Model, meshes: &[&str]) -> Vec<Arc<Plan>> {
    meshes.iter().map(|mesh| laid_out(model, mesh)).collect()
}

fn own_part_first(plan: &Arc<Plan>) -> Arc<Plan> {
    Arc::new(Plan::clone(plan).own_part_first())
}

fn check_plans(model: &Model, batch_size: usize, kind: Kind, bound: f64, plans: &[Arc<Plan>]) {
    let name = &model.name;
    let trial = trial(model, batch_size, kind);
    let expected = whole(model, &trial);
    assert_eq!(expected.outcomes.len(), steps(model));
    for plan in plans {
        let mesh = plan.mesh;
        let found = observe(plan, &trial).unwrap();
        assert_eq!(found.quantities.len(), expected.quantities.len(), "{name} {mesh}: a tensor was not seen");
        let comparison = Comparison::new(model, &found, &expected).unwrap();
        assert_eq!(comparison.first_difference(model, bound), None, "{name} on {mesh}: {comparison:?}");
        assert_eq!(comparison.losses.len(), steps(model));
    }
}

const EVERY_MESH: [&str; 9] = ["1x1", "1x2", "1x3", "1x4", "2x2", "2x1", "3x1", "4x1", "3x2"];

#[test]
fn tiny_networks_split_equal_whole_in_fp64() {
    for name in ["tiny", "tiny-residual", "tiny-concat", "tiny-2012"] {
        check(name, 8, Kind::Double, FP64, &EVERY_MESH);
    }
}

#[test]
fn lenet_and_quick_split_equal_whole_in_fp64() {
    for name in ["lenet", "quick"] {
        check(name, 8, Kind::Double, FP64, &EVERY_MESH);
    }
}

#[test]
fn alexnet_split_equals_whole_in_fp64() {
    check("alexnet", 4, Kind::Double, FP64, &["1x2", "1x3", "1x4", "2x2", "3x1"]);
}

#[test]
fn alexnet_dense_split_equals_whole_in_fp64() {
    check("alexnet-dense", 4, Kind::Double, FP64, &["1x2", "1x3", "1x4", "2x2"]);
}

#[test]
fn the_network_of_2012_split_equals_whole_in_fp64() {
    check("alexnet-2012", 2, Kind::Double, FP64, &["1x2", "1x3"]);
}

/// Rates that change, for all and for some, and a layer that stops, with the rate in the velocity.
#[test]
fn a_timeline_is_the_same_on_any_split() {
    let model = model("tiny-2012");
    let event =
        |epoch| Event { epoch, parameters: None, lr_mult: None, decay_mult: None, frozen: None, colour_noise: None };
    let timeline = Timeline::new(vec![
        Event { lr_mult: Some(3.0), decay_mult: Some(2.0), ..event(0.0) },
        Event { parameters: Some("conv2.*".into()), lr_mult: Some(0.5), ..event(0.4) },
        Event { parameters: Some("conv1.*".into()), frozen: Some(true), ..event(0.6) },
    ]);
    let plain = trial(&model, 8, Kind::Double);
    let trial = Trial { timeline, settings: Settings { rate_in_velocity: true, ..plain.settings }, ..plain.clone() };
    let expected = whole(&model, &trial);
    for plan in plans(&model, &["1x2", "1x3", "2x2", "3x1"]) {
        let found = observe(&plan, &trial).unwrap();
        let comparison = Comparison::new(&model, &found, &expected).unwrap();
        assert_eq!(comparison.first_difference(&model, FP64), None, "{}: {comparison:?}", plan.mesh);
    }
    let without = Comparison::new(&model, &whole(&model, &plain), &expected).unwrap();
    assert!(without.first_difference(&model, 1e-6).is_some(), "nothing came of the events");
}

const SPLIT_MESHES: [&str; 4] = ["1x2", "1x3", "2x2", "3x2"];

#[test]
fn networks_that_begin_with_the_own_part_equal_whole_in_fp64() {
    for name in ["tiny", "tiny-residual", "tiny-concat", "tiny-2012", "lenet", "quick"] {
        check_own_part_first(name, 8, Kind::Double, FP64, &SPLIT_MESHES);
    }
}

#[test]
fn alexnet_that_begins_with_the_own_part_equals_whole_in_fp64() {
    check_own_part_first("alexnet", 4, Kind::Double, FP64, &["1x2", "1x3", "2x2"]);
}

/// The order of sums is another: this is not the same computation by accident.
#[test]
fn to_begin_with_the_own_part_changes_last_bits() {
    for name in ["tiny", "lenet"] {
        let (model, plan) = (model(name), laid_out(&model(name), "1x2"));
        let trial = trial(&model, 8, Kind::Float);
        let (all, own) = (observe(&plan, &trial).unwrap(), observe(&own_part_first(&plan), &trial).unwrap());
        let apart = Comparison::new(&model, &own, &all).unwrap().largest();
        assert!(apart > 0.0 && apart < 1e-4, "{name}: {apart}");
    }
}

/// When tensors travel is a matter of time only.
#[test]
fn buckets_and_early_exchanges_change_no_bit() {
    for (name, mesh) in [("tiny-residual", "2x2"), ("tiny-concat", "1x3"), ("quick", "3x1"), ("lenet", "2x2")] {
        let model = model(name);
        let early = trial(&model, 8, Kind::Float);
        let late = Trial { settings: Settings { bucket: 0, early_exchange: false, ..early.settings }, ..early.clone() };
        let plan = laid_out(&model, mesh);
        for plan in [own_part_first(&plan), plan] {
            let (early, late) = (observe(&plan, &early).unwrap(), observe(&plan, &late).unwrap());
            assert_eq!(early.outcomes, late.outcomes, "{name} on {mesh}");
            assert!(!early.weights.is_empty() && early.weights == late.weights, "{name} on {mesh}");
            assert!(early.gradients == late.gradients, "{name} on {mesh}");
        }
    }
}

/// In fp32 sums in another order differ in the last bits, and five steps of momentum make more of it.
#[test]
fn splits_stay_close_in_fp32() {
    for name in ["tiny", "tiny-residual", "tiny-concat", "tiny-2012", "lenet", "quick"] {
        check(name, 8, Kind::Float, 1e-4, &["1x2", "1x3", "2x2", "3x1"]);
        check_own_part_first(name, 8, Kind::Float, 1e-4, &["1x2", "1x3"]);
    }
    check("alexnet", 8, Kind::Float, 1e-4, &["1x2", "1x3"]);
}

/// bf16 keeps 8 bits, so that a sum in another order may round to a neighbour 2^-8 away, and gradients of noise, which
/// nearly cancel, keep fewer good bits: biases that began at zero and are nothing but such sums were 7e-2 apart. A slice
/// in place of a sum is 7e-1 apart.
const BF16: f64 = 1e-1;

#[test]
fn splits_stay_close_in_bf16() {
    for name in ["tiny", "tiny-residual", "tiny-concat", "tiny-2012", "lenet", "quick"] {
        check(name, 8, Kind::BFloat16, BF16, &["1x2", "1x3", "2x2", "3x1"]);
        check_own_part_first(name, 8, Kind::BFloat16, BF16, &["1x2", "1x3"]);
    }
    check("alexnet", 4, Kind::BFloat16, BF16, &["1x2", "2x1"]);
}

/// What bf16 gives is what fp32 gives, but for its rounding, which also makes ties in max-pooling.
#[test]
fn bf16_stays_close_to_fp32() {
    for name in ["lenet", "quick", "tiny-residual"] {
        let model = model(name);
        let precise = whole(&model, &trial(&model, 8, Kind::Float));
        let rounded = whole(&model, &trial(&model, 8, Kind::BFloat16));
        let comparison = Comparison::new(&model, &rounded, &precise).unwrap();
        assert_eq!(comparison.first_difference(&model, 2.0 * BF16), None, "{name}: {comparison:?}");
        assert!(comparison.losses.iter().all(|&apart| apart < 5e-3), "{name}: {comparison:?}");
        assert!(comparison.largest() > 1e-4, "{name}: this was not bf16");
    }
}

#[test]
fn fewer_examples_than_ranks_still_give_the_same() {
    check("tiny", 2, Kind::Double, FP64, &["3x1", "4x1", "3x2"]);
    check("tiny-concat", 1, Kind::Double, FP64, &["2x1", "2x2"]);
}

#[test]
fn a_broken_adjoint_is_found_and_its_layer_named() {
    for (name, mesh, layer, own_first) in [
        ("tiny", "1x2", "conv3", false),
        ("tiny", "1x2", "conv3", true),
        ("tiny", "1x3", "conv2", false),
        ("tiny", "1x3", "conv3", true),
        ("tiny-2012", "1x2", "norm2", false),
        ("tiny-2012", "1x3", "norm1", false),
        ("alexnet", "1x2", "conv3", false),
    ] {
        let model = model(name);
        let trial = trial(&model, 2, Kind::Double);
        let plan = laid_out(&model, mesh);
        let plan = if own_first { own_part_first(&plan) } else { plan };
        let mut broken = Plan::clone(&plan);
        let reader = model.layers.iter().position(|found| found.name == layer).unwrap();
        let exchange = broken.exchanges.iter_mut().find(|exchange| exchange.reader == reader).unwrap();
        assert_eq!(exchange.adjoint, Adjoint::Sum);
        exchange.adjoint = Adjoint::Slice;
        let found = observe(&Arc::new(broken), &trial).unwrap();
        let comparison = Comparison::new(&model, &found, &whole(&model, &trial)).unwrap();
        let difference = comparison.first_difference(&model, FP64).expect("a broken adjoint must show");
        assert_eq!(difference.layer, layer, "{difference:?}");
        assert!(difference.what.starts_with("gradient of its input"), "{difference:?}");
    }
}

/// Shapes in which a rank reads, keeps or sends nothing of an activation.
#[test]
fn odd_networks_split_equal_whole() {
    let end =
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 7 }, { name = \"loss\", kind = \"softmax-cross-entropy\" }";
    for layers in [
        "{ name = \"c\", kind = \"conv\", out = 6, kernel = 3, padding = 1 }, \
         { kind = \"concat\", inputs = [\"image\", \"c\"] }, { kind = \"conv\", out = 5, kernel = 3 },",
        "{ name = \"a\", kind = \"conv\", out = 6, kernel = 1 }, \
         { name = \"b\", kind = \"conv\", out = 6, kernel = 1, inputs = [\"image\"] }, \
         { name = \"j\", kind = \"concat\", inputs = [\"a\", \"b\"] }, \
         { name = \"c\", kind = \"conv\", out = 12, kernel = 1 }, { kind = \"add\", inputs = [\"j\", \"c\"] },",
        "{ name = \"a\", kind = \"conv\", out = 6, kernel = 1 }, \
         { name = \"j\", kind = \"concat\", inputs = [\"a\", \"a\"] }, { kind = \"concat\", inputs = [\"j\", \"a\"] }, \
         { kind = \"conv\", out = 9, kernel = 1, groups = 9 },",
        "{ kind = \"max-pool\", kernel = 2 }, { kind = \"dropout\", probability = 0.3 }, { kind = \"relu\" }, \
         { kind = \"conv\", out = 6, kernel = 3, bias = false },",
        "",
    ] {
        let text = format!("name = \"odd\"\ninput = [1, 8, 8]\nlayers = [ {layers} {end} ]");
        let model = parse(&text, "odd.toml", &Edits::default()).unwrap();
        let plans = plans(&model, &["1x2", "1x3", "1x4", "1x5", "2x2", "3x1"]);
        let own_first = plans.iter().map(own_part_first);
        check_plans(&model, 3, Kind::Double, FP64, &plans.iter().cloned().chain(own_first).collect::<Vec<_>>());
    }
}

#[test]
fn random_networks_split_equal_whole() {
    // The same networks each time: a network may be drawn whose activations blow up, and then there is nothing to compare.
    let config = ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() };
    let checked = Cell::new(0);
    let check = |(pieces, devices): (Vec<Piece>, usize)| {
        let mesh = Mesh { data: 1, model: devices };
        let model = network(&pieces).filter(|model| plan(model, mesh, Mode::ModelParallel).is_ok());
        if let Some(model) = model {
            let plans = plans(&model, &[&mesh.to_string(), &format!("2x{devices}")]);
            let all = [own_part_first(&plans[0]), Arc::clone(&plans[0]), Arc::clone(&plans[1])];
            check_plans(&model, 3, Kind::Double, FP64, &all);
            checked.set(checked.get() + 1);
        }
        Ok(())
    };
    TestRunner::new(config).run(&(pieces(), 2_usize..6), check).unwrap();
    assert!(checked.get() >= 24, "only {} of the networks could be laid out", checked.get());
}

/// The reordered model that is trained is the model as written: the same bits, for no number is computed otherwise.
#[test]
fn relu_after_pool_is_the_same_network() {
    for name in ["quick", "alexnet"] {
        let written = model(name);
        let rewritten = relu_after_pool(&written);
        assert_ne!(rewritten, written, "{name} has no such layers");
        let trial = trial(&written, 2, Kind::Double);
        for mesh in ["1x1", "1x2"] {
            let expected = observe(&laid_out(&written, mesh), &trial).unwrap();
            let found = observe(&laid_out(&rewritten, mesh), &trial).unwrap();
            let names = |run: &Observed, model: &Model| -> BTreeMap<_, _> {
                let named = |(layer, role): &(usize, Role)| (model.layers[*layer].name.clone(), *role);
                let both = run.gradients.iter().zip(run.weights.values());
                both.map(|((key, gradient), weight)| (named(key), (gradient.copy(), weight.copy()))).collect()
            };
            assert_eq!(names(&found, &rewritten), names(&expected, &written), "{name} on {mesh}");
            assert_eq!(found.outcomes, expected.outcomes, "{name} on {mesh}");
        }
    }
}

#[test]
fn another_seed_is_another_run() {
    let model = model("tiny");
    let first = trial(&model, 4, Kind::Double);
    let other = Trial { settings: Settings { seed: 4, ..first.settings }, ..first.clone() };
    let comparison = Comparison::new(&model, &whole(&model, &other), &whole(&model, &first)).unwrap();
    assert!(comparison.first_difference(&model, 1e-3).is_some());
}

#[test]
fn the_same_run_twice_is_the_same_bits() {
    let model = model("tiny");
    let trial = trial(&model, 8, Kind::Float);
    for mesh in ["1x2", "2x1", "2x2"] {
        let plan = laid_out(&model, mesh);
        let (first, again) = (observe(&plan, &trial).unwrap(), observe(&plan, &trial).unwrap());
        assert_eq!(Comparison::new(&model, &again, &first).unwrap().largest(), 0.0, "{mesh}");
        assert_eq!(again.weights, first.weights, "{mesh}");
    }
}
