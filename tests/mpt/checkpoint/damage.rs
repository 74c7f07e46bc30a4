//! Checkpoints that are unfinished, damaged, or another network's.

use crate::training::{at, recipe, steps, trained};
use mpt::checkpoint::{Checkpoint, Checkpoints};
use mpt::engine::session::Job;
use mpt::launch::control::Control;
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[test]
fn what_a_crash_left_unfinished_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["train.steps=3"]);
    let unfinished = dir.path().join("checkpoints/.step-00000006");
    fs::create_dir(&unfinished).unwrap();
    fs::copy(at(dir.path(), 3).join("model.safetensors"), unfinished.join("model.safetensors")).unwrap();
    let newest = Checkpoints::of_run(dir.path()).newest(&mut |damage| panic!("{damage}")).unwrap().unwrap();
    assert_eq!(newest.state.position.step, 3);
    trained(dir.path(), Some(&newest.folder), &["train.steps=4"]);
    assert_eq!(steps(dir.path()), [4, 3]);
    assert!(!unfinished.exists());
}

#[test]
fn damage_is_named_and_the_checkpoint_before_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["train.steps=3"]);
    trained(dir.path(), Some(&at(dir.path(), 3)), &["train.steps=4"]);
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 3] = [
        (|file| fs::remove_file(file).unwrap(), "cannot be read"),
        (|file| fs::write(file, &fs::read(file).unwrap()[..200]).unwrap(), "is damaged"),
        (
            |file| {
                let mut bytes = fs::read(file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x80;
                fs::write(file, bytes).unwrap();
            },
            "is damaged",
        ),
    ];
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        for (damage, word) in damages {
            let path = at(dir.path(), 4).join(file);
            let sound = fs::read(&path).unwrap();
            damage(&path);
            let told = Checkpoint::open(&at(dir.path(), 4)).unwrap_err().to_string();
            assert!(told.contains(&path.display().to_string()) && told.contains(word), "{told}");
            let mut warnings = Vec::new();
            let newest = Checkpoints::of_run(dir.path()).newest(&mut |found| warnings.push(found.to_string()));
            assert_eq!(newest.unwrap().unwrap().state.position.step, 3);
            assert_eq!(warnings, [told]);
            fs::write(&path, sound).unwrap();
        }
    }
    for step in [3, 4] {
        fs::remove_file(at(dir.path(), step).join("state.json")).unwrap();
    }
    let told = Checkpoints::of_run(dir.path()).newest(&mut |_| {}).unwrap_err().to_string();
    assert!(told.starts_with("no checkpoint is whole: ") && told.contains("step-00000004/state.json"), "{told}");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["train.steps=8", "train.precision=fp32"]);
    let refused = |settings: &[&str]| {
        let mut job = Job::new(&recipe(settings), Control::default()).unwrap();
        job.resume(Arc::new(Checkpoint::open(&at(dir.path(), 8)).unwrap())).unwrap_err().to_string()
    };
    let fits = ["train.precision=fp32"];
    let folder = at(dir.path(), 8).display().to_string();
    let model = |from: &str, to: &str| {
        let path = dir.path().join("other.toml");
        let text = include_str!("../../../src/model/shipped/tiny.toml").replace(from, to);
        fs::write(&path, text).unwrap();
        refused(&[fits[0], &format!("model.name={}", path.display())])
    };
    assert_eq!(
        model("out = 14", "out = 16"),
        format!("{folder}/model.safetensors has fc4.weight as [14, 90], but the model has it as [16, 90]")
    );
    assert_eq!(
        model("\"fc4\"", "\"fc6\""),
        format!("{folder}/model.safetensors has no tensor fc6.weight, which the model has as [14, 90]")
    );
    assert!(
        model("out = 5 },", "out = 5, bias = false },")
            .ends_with("model.safetensors has a tensor fc5.bias, which the model has not")
    );
    assert!(refused(&["train.precision=fp64"]).ends_with("has conv1.weight in F32, but this run keeps it in Double"));
    assert_eq!(
        refused(&[fits[0], "data.train_examples=80"]),
        format!(
            "{folder} is at step 8, step 2 of epoch 2, but the training set gives 10 steps an epoch: it is not the one \
             that the run began with"
        )
    );
    assert_eq!(
        refused(&[fits[0], "train.epochs=1"]),
        format!("{folder} is in epoch 2 already, and the run is to end with epoch 1")
    );
}
