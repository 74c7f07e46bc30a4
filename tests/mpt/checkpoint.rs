//! Checkpoints: law 3, resumed equals uninterrupted; what is in the files; how a run may go on.

mod damage;
mod kept;

use crate::training::{at, recipe, steps, tensors, trained};
use mpt::checkpoint::{Checkpoint, State};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::{Event, Summary};
use mpt::launch::control::Control;
use mpt::layers::Outcome;
use mpt::random::{Purpose, Stream};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tch::{Kind, Tensor};

/// What a run says of its numbers after a step, without its times.
#[derive(Debug, PartialEq)]
enum Told {
    Step(u64, u64, Outcome, Outcome, f64),
    Epoch(u64, Outcome, Option<Outcome>),
}

fn told_after(step: u64, events: &[Event]) -> Vec<Told> {
    let begin = events.iter().position(|event| matches!(event, Event::Step(found) if found.step == step));
    let after = &events[begin.map_or(0, |begin| begin + 1)..];
    let told = after.iter().filter_map(|event| match event {
        Event::Step(found) => {
            Some(Told::Step(found.step, found.epoch, found.outcome, found.epoch_outcome, found.learning_rate))
        }
        Event::Epoch(found) => Some(Told::Epoch(found.epoch, found.train, found.test)),
        _ => None,
    });
    told.collect()
}

#[test]
fn resumed_equals_uninterrupted_to_the_last_bit() {
    for (precision, mesh, own_half) in [
        ("fp32", "1x1", "off"),
        ("fp32", "1x2", "on"),
        ("fp32", "2x1", "off"),
        ("bf16", "1x3", "off"),
        ("bf16", "2x2", "on"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (precision, mesh) = (format!("train.precision={precision}"), format!("parallel.mesh={mesh}"));
        let own_half = format!("parallel.own_half={own_half}");
        let settings = [precision.as_str(), mesh.as_str(), own_half.as_str(), "checkpoint.every_steps=4"];
        let whole = dir.path().join("whole");
        let (summary, events) = trained(&whole, None, &settings);
        // 4, 8 and 16 lie within an epoch, 6, 12 and 18 at the end of one, before its evaluation.
        assert_eq!(steps(&whole), [18, 16, 12, 8, 6, 4], "{settings:?}");
        for step in [4, 6, 8, 12, 16, 18] {
            let resumed = dir.path().join(step.to_string());
            let (again, its_events) = trained(&resumed, Some(&at(&whole, step)), &settings);
            assert_eq!(told_after(0, &its_events), told_after(step, &events), "{settings:?} from step {step}");
            assert_eq!((again.steps, again.examples), (summary.steps, summary.examples));
            assert!(again.train_time > Duration::ZERO && again.whole_time > again.train_time);
            let last = if step == 18 { continue } else { at(&resumed, 18) };
            for file in ["model.safetensors", "optimizer.safetensors"] {
                let (found, expected) =
                    (fs::read(last.join(file)).unwrap(), fs::read(at(&whole, 18).join(file)).unwrap());
                assert!(found == expected, "{settings:?} from step {step}: {file} has other bits");
            }
        }
    }
}

#[test]
fn checkpoints_leave_a_run_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["train.precision=fp32", "parallel.mesh=2x1"];
    let without = trained(dir.path(), None, &[&settings[..], &["checkpoint.keep=0"]].concat()).1;
    assert!(!dir.path().join("checkpoints").exists());
    let with = trained(dir.path(), None, &[&settings[..], &["checkpoint.every_steps=1"]].concat()).1;
    assert_eq!(told_after(0, &with), told_after(0, &without));
}

#[test]
fn a_run_goes_on_over_other_devices() {
    let dir = tempfile::tempdir().unwrap();
    let fp64 = "train.precision=fp64";
    let whole = dir.path().join("whole");
    trained(&whole, None, &[fp64, "parallel.mesh=1x2", "checkpoint.every_steps=4"]);
    for (step, mesh) in [(4, "1x1"), (6, "2x2"), (8, "1x3"), (4, "3x1"), (6, "1x4"), (8, "3x2")] {
        let resumed = dir.path().join(mesh);
        trained(&resumed, Some(&at(&whole, step)), &[fp64, &format!("parallel.mesh={mesh}")]);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let (found, expected) = (tensors(&at(&resumed, 18), file), tensors(&at(&whole, 18), file));
            assert!(found.keys().eq(expected.keys()), "{mesh}: {file}");
            for (name, expected) in expected {
                let apart = (&found[&name] - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
                assert!(apart < 1e-9, "{mesh} from step {step}: {name} in {file} is {apart} apart");
            }
        }
    }
}

#[test]
fn files_hold_whole_tensors_under_pytorchs_names() {
    for (precision, kind) in [("fp32", Kind::Float), ("bf16", Kind::Float), ("fp64", Kind::Double)] {
        let dir = tempfile::tempdir().unwrap();
        let precision = format!("train.precision={precision}");
        // With a learning rate of 0 the weights stay as they were drawn.
        let settings = ["parallel.mesh=2x3", "optimizer.learning_rate=0", "train.steps=1", &precision];
        trained(dir.path(), None, &settings);
        let model = tensors(&at(dir.path(), 1), "model.safetensors");
        let expected: [(&str, &[i64]); 10] = [
            ("conv1.bias", &[8]),
            ("conv1.weight", &[8, 2, 3, 3]),
            ("conv2.bias", &[12]),
            ("conv2.weight", &[12, 4, 3, 3]),
            ("conv3.bias", &[10]),
            ("conv3.weight", &[10, 12, 3, 3]),
            ("fc4.bias", &[14]),
            ("fc4.weight", &[14, 90]),
            ("fc5.bias", &[5]),
            ("fc5.weight", &[5, 14]),
        ];
        let shapes: Vec<(&str, Vec<i64>)> = model.iter().map(|(name, found)| (name.as_str(), found.size())).collect();
        assert_eq!(shapes, expected.map(|(name, shape)| (name, shape.to_vec())));
        assert!(model.values().all(|found| found.kind() == kind), "{precision}");
        // fc5, layer 13 of `tiny` counted from 0, is split by input, and kaiming-uniform over 14 inputs.
        let mut drawn = vec![0.0; 5 * 14];
        Stream::new(0, Purpose::Weights, 13, 0).fill_uniform(0, &mut drawn);
        let bound = (6.0f64 / 14.0).sqrt();
        let values: Vec<f64> = drawn.iter().map(|value| bound * (2.0 * value - 1.0)).collect();
        assert_eq!(model["fc5.weight"], Tensor::from_slice(&values).view([5, 14]).to_kind(kind), "{precision}");
        let velocities = tensors(&at(dir.path(), 1), "optimizer.safetensors");
        assert!(velocities.iter().all(|(name, found)| found.size() == model[name].size()));
    }
}

/// fc4 of `quick` has 802,816 weights: more than are written, or read, at once.
#[test]
fn long_tensors_are_written_and_read_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let quick = ["model.name=quick", "data.image=[1,28,28]", "optimizer.learning_rate=0", "train.precision=fp64"];
    trained(dir.path(), None, &[&quick[..], &["parallel.mesh=2x3", "train.steps=1"]].concat());
    trained(dir.path(), Some(&at(dir.path(), 1)), &[&quick[..], &["parallel.mesh=3x1", "train.steps=2"]].concat());
    let mut drawn = vec![0.0; 256 * 3136];
    Stream::new(0, Purpose::Weights, 9, 0).fill_normal(0, &mut drawn);
    drawn.iter_mut().for_each(|value| *value *= (2.0f64 / 3136.0).sqrt());
    let expected = Tensor::from_slice(&drawn).view([256, 3136]);
    for step in [1, 2] {
        assert_eq!(tensors(&at(dir.path(), step), "model.safetensors")["fc4.weight"], expected, "step {step}");
    }
}

#[test]
fn without_momentum_there_is_no_optimizer_file() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["optimizer.momentum=0", "train.steps=1"]);
    assert!(at(dir.path(), 1).join("model.safetensors").exists());
    assert!(!at(dir.path(), 1).join("optimizer.safetensors").exists());
    let mut job = Job::new(&recipe(&[]), Control::default()).unwrap();
    let refused = job.resume(Arc::new(Checkpoint::open(&at(dir.path(), 1)).unwrap())).unwrap_err().to_string();
    assert!(refused.ends_with("step-00000001 has no velocities, but this run has momentum"), "{refused}");
}

#[test]
fn each_checkpoint_is_told_when_it_is_written_also_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (summary, events) = trained(dir.path(), None, &["checkpoint.every_steps=1"]);
    let told = |event: &Event| match event {
        Event::Saved(saved) => Some((saved.step, saved.folder.clone())),
        _ => None,
    };
    let told: Vec<(u64, PathBuf)> = events.iter().filter_map(told).collect();
    assert_eq!(told, (1..=18).map(|step| (step, at(dir.path(), step))).collect::<Vec<_>>());
    assert!(summary.saved && matches!(events.last(), Some(Event::Finished(_))));
}

#[test]
fn training_goes_on_without_checkpoints_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("checkpoints"), "in the way").unwrap();
    let (summary, events) = trained(dir.path(), None, &["checkpoint.every_steps=5"]);
    let told = |event: &Event| match event {
        Event::NotSaved { step, problem } => Some((*step, problem.to_string())),
        _ => None,
    };
    let told: Vec<(u64, String)> = events.iter().filter_map(told).collect();
    let because = format!("{}/checkpoints: File exists (os error 17)", dir.path().display());
    assert_eq!(told, [5, 6, 10, 12, 15, 18].map(|step| (step, because.clone())));
    assert_eq!((summary.steps, summary.saved), (18, false));
}

#[test]
fn a_checkpoint_says_what_was_run() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["checkpoint.every_steps=7", "train.precision=bf16", "parallel.mesh=1x2"]);
    let State { position, learning_rate, run, .. } = Checkpoint::open(&at(dir.path(), 7)).unwrap().state;
    assert_eq!((position.step, position.epoch, position.steps_in_epoch), (7, 2, 1));
    // Half a cosine over 18 steps.
    let expected = 0.05 * 0.5 * (1.0 + (std::f64::consts::PI * 7.0 / 18.0).cos());
    assert!((learning_rate.unwrap() - expected).abs() < 1e-12, "{learning_rate:?}");
    assert_eq!((run.precision.as_str(), run.plan.as_str()), ("bf16", "tiny, model-parallel, 1 data x 2 model"));
    assert_eq!(run.libtorch, mpt::torch::version());
}

/// A run in a folder, from a checkpoint that need not be its own.
fn changed(folder: &Path, from: &Path, settings: &[&str]) -> (Summary, Vec<Event>) {
    let recipe = recipe(settings);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, folder);
    job.resume_changed(Arc::new(Checkpoint::open(from).unwrap())).unwrap();
    let mut events = Vec::new();
    let summary = run(job, Ranks::All, &mut |event| events.push(event.clone())).unwrap();
    (summary, events)
}

/// 44 examples an epoch, six batches of eight. Of the second epoch 16 or 24 are done after steps 8 and 9, and all of the
/// first after step 6.
#[test]
fn a_run_goes_on_with_another_batch_size_where_its_examples_are() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    trained(&whole, None, &["checkpoint.every_steps=1"]);
    for (from, batch, steps_done, last, examples) in [
        (8, 4, 11 + 4, 26, vec![44, 44]),
        (6, 4, 11, 28, vec![44, 44, 44]),
        (8, 16, 3 + 1, 13, vec![44, 44]),
        // Half a batch cannot be left out: eight examples are trained on again.
        (9, 16, 3 + 1, 14, vec![52, 44]),
    ] {
        let resumed = dir.path().join(format!("{from}-{batch}"));
        let batch_size = format!("train.batch_size={batch}");
        let settings = [batch_size.as_str(), "checkpoint.every_steps=1"];
        let (summary, events) = changed(&resumed, &at(&whole, from), &settings);
        let epochs: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                Event::Epoch(epoch) => Some(epoch.train.examples),
                _ => None,
            })
            .collect();
        assert_eq!((summary.steps, epochs), (last, examples), "from step {from} in batches of {batch}");
        let rate = events.iter().find_map(|event| match event {
            Event::Step(step) => Some(step.learning_rate),
            _ => None,
        });
        let progress = steps_done as f64 / (3.0 * (44f64 / batch as f64).ceil());
        let expected = 0.05 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        assert!((rate.unwrap() - expected).abs() < 1e-12, "from step {from} in batches of {batch}: {rate:?}");
        // From a checkpoint of its own it goes on to the same bits.
        let again = dir.path().join(format!("{from}-{batch}-again"));
        trained(&again, Some(&at(&resumed, last - 2)), &settings);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let (found, expected) = (fs::read(at(&again, last).join(file)), fs::read(at(&resumed, last).join(file)));
            assert!(found.unwrap() == expected.unwrap(), "from step {from} in batches of {batch}: {file}");
        }
    }
}

#[test]
fn a_run_goes_on_in_another_precision_and_with_momentum_that_it_had_not() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    trained(&whole, None, &["train.precision=fp32", "optimizer.momentum=0", "train.steps=6"]);
    let (summary, _) = changed(dir.path(), &at(&whole, 6), &["train.precision=fp64", "train.steps=7"]);
    assert_eq!(summary.steps, 7);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert!(tensors(&at(dir.path(), 7), file).values().all(|found| found.kind() == Kind::Double), "{file}");
    }
    // From a velocity of zero on, the first step is one without momentum.
    let (plain, fp64) = (dir.path().join("plain"), "train.precision=fp64");
    changed(&plain, &at(&whole, 6), &[fp64, "train.steps=7", "optimizer.momentum=0"]);
    let (found, expected) =
        (tensors(&at(dir.path(), 7), "model.safetensors"), tensors(&at(&plain, 7), "model.safetensors"));
    assert_eq!(found, expected);
}
