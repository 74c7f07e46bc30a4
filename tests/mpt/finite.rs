//! Steps whose numbers are not finite: named by their first layer, alike on every split, and left out if asked.

use crate::program::{numbers, output, stderr, text, tiny};
use mpt::checkpoint::Checkpoint;
use mpt::data::{LoaderOptions, Noise, Order, Source, start};
use mpt::engine::agreement::{Agreed, Word};
use mpt::engine::input::DeviceBatch;
use mpt::engine::nonfinite::Origin;
use mpt::engine::norms;
use mpt::engine::rank::{Rank, Settings};
use mpt::engine::session::masks;
use mpt::launch::threads;
use mpt::model::cost::Role;
use mpt::model::parse::Edits;
use mpt::model::shipped;
use mpt::plan::{Mesh, Mode, Plan, plan};
use mpt::torch;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const MESHES: [[&str; 2]; 4] = [["--mesh", "1x1"], ["--mesh", "1x2"], ["--mesh", "2x1"], ["--mesh", "2x2"]];

/// A rate that makes numbers overflow within a few steps, in a network whose layers do not confine them.
const TOO_HIGH: [&str; 8] =
    ["--learning-rate", "1e30", "--precision", "fp32", "--set", "model.activation=relu", "--steps", "40"];

/// What is said on stderr last, of a run that failed.
fn failure(arguments: &[&str]) -> String {
    let done = output(&tiny(arguments));
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", stderr(&done));
    stderr(&done).lines().last().unwrap().to_owned()
}

/// Weights of tiny, one value of one of which is not a number.
fn with_one_nan(dir: &Path, name: &str) -> String {
    let (run, out) = (dir.join("run"), dir.join("weights.safetensors"));
    assert!(output(&tiny(&["--steps", "1", "--quiet", "--run-dir", text(&run)])).status.success());
    let names = ["export", text(&run), "--out", text(&out), "--names", "layers"];
    assert!(output(&names).status.success(), "{}", stderr(&output(&names)));
    let tensors = Tensor::read_safetensors(&out).unwrap();
    for (found, tensor) in &tensors {
        if found == name {
            let _ = tensor.view(-1).narrow(0, 5, 1).fill_(f64::NAN);
        }
    }
    Tensor::write_safetensors(&tensors, &out).unwrap();
    text(&out).to_owned()
}

#[test]
fn a_run_ends_with_the_first_layer_that_is_not_finite_whatever_the_split() {
    let dir = tempfile::tempdir().unwrap();
    let weights = with_one_nan(dir.path(), "conv2.weight");
    for (number, mesh) in MESHES.into_iter().enumerate() {
        let run = dir.path().join(number.to_string());
        let told = failure(&[&mesh[..], &["--init-from", &weights, "--run-dir", text(&run)]].concat());
        let expected = "mpt: step 1 is not finite: the first numbers that are not are in the output of layer conv2; no \
                        checkpoint has been written since. Go on from the newest one with a lower learning rate, or have such \
                        steps left out: --set train.nonfinite=skip";
        assert_eq!(told, expected);
        assert!(!run.join("checkpoints").exists());
        // The record tells of the step all the same.
        let record = numbers(&run);
        assert_eq!((record.len(), &record[0]["loss"]), (1, &serde_json::Value::Null));
    }
}

#[test]
fn a_rate_that_is_too_high_ends_a_run_and_the_checkpoint_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    for (number, mesh) in MESHES.into_iter().enumerate() {
        let run = dir.path().join(number.to_string());
        let more = ["--set", "checkpoint.every_steps=1", "--run-dir", text(&run)];
        let told = failure(&[&mesh[..], &TOO_HIGH, &more].concat());
        assert!(told.starts_with("mpt: step 2 is not finite: the first numbers that are not are in the"), "{told}");
        let kept = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept.filter(|path| !path.is_symlink()).collect();
        assert_eq!(kept.iter().map(|path| path.file_name().unwrap()).collect::<Vec<_>>(), ["step-00000001"]);
        Checkpoint::open(&kept[0]).unwrap();
    }
}

#[test]
fn steps_that_are_left_out_are_told_counted_and_too_many_of_them_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let skip = ["--set", "train.nonfinite=skip", "--mesh", "2x1", "--quiet", "--run-dir", text(&run)];
    let done = output(&tiny(&[&TOO_HIGH[..], &skip].concat()));
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    for step in 2..=21 {
        assert!(
            said.contains(&format!("step {step} is left out: the first numbers that are not finite are in ")),
            "{said}"
        );
    }
    assert!(said.contains("step 21 is not finite, the 20th in a row: "), "{said}");
    assert_eq!(numbers(&run).len(), 21);
}

/// What a rank does with a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Train,
    /// Train on it with a pixel of the last data rank that is not a number.
    Spoil,
    /// Train on it with weights that give a finite loss and gradients that are not.
    Overflow,
    /// Go on to the next.
    Leave,
}

/// Multiplies weights of tiny (`sign` 1) so that one layer takes back what another adds forward, and nothing does backward; or
/// divides them again (-1): powers of two leave every bit. The ranks of a data axis have their weights in common.
fn stretch(rank: &Rank, plan: &Plan, number: usize, sign: i32) {
    for entry in &rank.store().layout.entries {
        let power = match (plan.model.layers[entry.share.layer].name.as_str(), entry.share.role) {
            ("conv1", _) => -60,
            ("conv2" | "fc4" | "fc5", Role::Weight) => 60,
            _ => 0,
        };
        if plan.mesh.data_rank(number) == 0 {
            let _ = rank.store().weight(entry).unwrap().f_mul_scalar_(2_f64.powi(sign * power)).unwrap();
        }
    }
}

/// The weights and velocities after batches of noise, with what was done with each, on every rank; and what was agreed on.
fn after(plan: &Arc<Plan>, kind: Kind, deeds: &[Deed]) -> (Vec<Vec<Tensor>>, Vec<Agreed>) {
    let source: Arc<dyn Source> = Arc::new(Noise::new(3, 8 * deeds.len(), [2, 13, 13], 5).unwrap());
    let options = LoaderOptions {
        seed: 3,
        batch_size: 8,
        order: Order::InOrder,
        data_ranks: plan.mesh.data,
        replicas: plan.mesh.model,
        masks: masks(plan),
        ..LoaderOptions::default()
    };
    let settings = Settings {
        device: Device::Cpu,
        seed: 3,
        kind,
        momentum: 0.9,
        weight_decay: 0.0,
        rate_in_velocity: false,
        bucket: 500,
        early_exchange: true,
        skip_nonfinite: true,
    };
    let streams = start(Arc::clone(&source), options).unwrap();
    let seats = threads::groups(plan.mesh).into_iter().zip(streams).collect();
    let (shared, deeds) = (Arc::clone(plan), deeds.to_vec());
    let mut crew = threads::start(seats, move |number, (groups, batches), reporter| {
        let _no_autograd = tch::no_grad_guard();
        // How many threads share a sum decides how it is rounded.
        torch::set_threads(1);
        let mut rank = Rank::new(Arc::clone(&shared), number, groups, settings)?;
        let mut agreed = Vec::new();
        for (batch, deed) in batches.iter().zip(&deeds) {
            let batch = DeviceBatch::new(batch?.as_ref(), shared.model.input, kind, Device::Cpu)?;
            if *deed == Deed::Leave {
                continue;
            }
            if *deed == Deed::Spoil && shared.mesh.data_rank(number) + 1 == shared.mesh.data {
                let _ = batch.image.narrow(0, 0, 1).narrow(2, 3, 1).narrow(3, 4, 1).fill_(f64::NAN);
            }
            if *deed == Deed::Overflow {
                stretch(&rank, &shared, number, 1);
            }
            // No rank goes on before all weights are as they should be.
            rank.add_up(&[0])?;
            rank.lap()?;
            let outcome = rank.train(&batch, 0.05)?;
            let lap = rank.lap()?;
            rank.add_up(&[0])?;
            if *deed == Deed::Overflow {
                assert!(outcome.loss_sum.is_finite());
                stretch(&rank, &shared, number, -1);
            }
            rank.add_up(&[0])?;
            agreed.push(rank.agree(&Word { lap, ..Word::of(outcome) })?);
        }
        let full = rank.full_weights()?.copy();
        let shards = rank.shards()?.into_iter();
        let kept =
            shards.flat_map(|(_, shard)| shard.masters.into_iter().chain(shard.velocities.into_iter().flatten()));
        let tensors = std::iter::once(full).chain(kept.map(|tensor| tensor.copy())).collect::<Vec<_>>();
        reporter.report((number, tensors, agreed))
    })
    .unwrap();
    let mut found: Vec<Vec<Tensor>> = (0..plan.mesh.ranks()).map(|_| Vec::new()).collect();
    let mut words = Vec::new();
    while let Some((number, tensors, agreed)) = crew.next_report().unwrap() {
        found[number] = tensors;
        words = agreed;
    }
    (found, words)
}

#[test]
fn a_step_that_is_left_out_changes_no_bit() {
    let model = shipped::load("tiny", &Edits::default()).unwrap();
    for (data, on_model) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let mesh = Mesh { data, model: on_model };
        let mode = if on_model > 1 { Mode::ModelParallel } else { Mode::DataParallel };
        let plan = Arc::new(plan(&model, mesh, mode).unwrap());
        for kind in [Kind::Float, Kind::BFloat16] {
            let (spoiled, agreed) = after(&plan, kind, &[Deed::Train, Deed::Spoil, Deed::Train]);
            let (expected, _) = after(&plan, kind, &[Deed::Train, Deed::Leave, Deed::Train]);
            assert_eq!(spoiled, expected, "{mesh} in {kind:?}");
            let layers = norms::layers(&plan);
            let origins: Vec<_> = agreed.iter().map(|agreed| agreed.nonfinite(&layers)).collect();
            assert_eq!(origins, [None, Some(Origin::Activation(0)), None], "{mesh} in {kind:?}");
        }
    }
}

/// A loss that is finite tells nothing of the gradients: these are looked at themselves.
#[test]
fn a_step_of_which_only_gradients_are_not_finite_changes_no_bit() {
    let model = shipped::load("tiny", &Edits { activation: Some(mpt::model::Kind::Relu), ..Edits::default() }).unwrap();
    for (data, on_model) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let mesh = Mesh { data, model: on_model };
        let mode = if on_model > 1 { Mode::ModelParallel } else { Mode::DataParallel };
        let plan = Arc::new(plan(&model, mesh, mode).unwrap());
        let (left_out, agreed) = after(&plan, Kind::Float, &[Deed::Train, Deed::Overflow, Deed::Train]);
        let (expected, _) = after(&plan, Kind::Float, &[Deed::Train, Deed::Leave, Deed::Train]);
        assert_eq!(left_out, expected, "{mesh}");
        let layers = norms::layers(&plan);
        let origins: Vec<_> = agreed.iter().map(|agreed| agreed.nonfinite(&layers)).collect();
        assert!(matches!(origins[..], [None, Some(Origin::Gradient(_)), None]), "{mesh}: {origins:?}");
    }
}
