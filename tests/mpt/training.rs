//! Runs inside the test program: small, but with everything that keeps something from step to step.

use mpt::checkpoint::{Checkpoint, Checkpoints};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::{Event, Summary};
use mpt::launch::control::Control;
use mpt::recipe::{Layered, Recipe};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Tensor;

/// Six steps an epoch, the last with half a batch; everything that keeps something from step to step, or is drawn at
/// random.
const EVENTFUL: [&str; 16] = [
    "model.name=tiny",
    "data.source=noise",
    "data.image=[2,13,13]",
    "data.classes=5",
    "data.train_examples=44",
    "data.test_examples=9",
    "data.flip=true",
    "data.crop=2",
    "train.batch_size=8",
    "train.epochs=3",
    "optimizer.learning_rate=0.05",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=0.01",
    "schedule.kind=cosine",
    "parallel.threads=1",
    "checkpoint.keep=100",
];

pub fn recipe(settings: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
    for assignment in EVENTFUL.iter().chain(settings) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

/// A run in a folder, from its start or from a checkpoint.
pub fn trained(folder: &Path, from: Option<&Path>, settings: &[&str]) -> (Summary, Vec<Event>) {
    let recipe = recipe(settings);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, folder);
    if let Some(from) = from {
        job.resume(Arc::new(Checkpoint::open(from).unwrap())).unwrap();
    }
    let mut events = Vec::new();
    let summary = run(job, Ranks::All, &mut |event| events.push(event.clone())).unwrap();
    (summary, events)
}

/// The steps of a run's checkpoints, the newest first, and where they lie.
pub fn steps(run: &Path) -> Vec<u64> {
    Checkpoints::of_run(run).list().unwrap().into_iter().map(|(step, _)| step).collect()
}

pub fn at(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

pub fn tensors(checkpoint: &Path, file: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(checkpoint.join(file)).unwrap().into_iter().collect()
}
