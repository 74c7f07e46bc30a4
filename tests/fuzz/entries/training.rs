//! A small training, from which sound checkpoints come, and which goes on from what is accepted as one.

use super::{emptied, refused, scratch};
use mpt::checkpoint::{Checkpoint, Checkpoints};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::launch::control::Control;
use mpt::recipe::{Layered, Recipe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A network of few weights on computed images, three steps an epoch.
const SETTINGS: [&str; 11] = [
    "model.name=tiny",
    "data.source=noise",
    "data.image=[2,13,13]",
    "data.classes=5",
    "data.train_examples=6",
    "data.test_examples=2",
    "train.batch_size=2",
    "train.epochs=2",
    "train.precision=fp32",
    "optimizer.momentum=0.9",
    "parallel.threads=1",
];

/// The recipe, with something else.
pub fn recipe(settings: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("fashion-mnist").expect("a shipped recipe");
    for assignment in SETTINGS.iter().chain(settings) {
        layered.set(assignment, "test").expect("a sound setting");
    }
    layered.recipe().expect("a sound recipe")
}

/// A job of it that writes no checkpoints.
pub fn job() -> Job {
    Job::new(&recipe(&[]), Control::default()).expect("a sound job")
}

/// Trains as many steps from the start in a folder, with a checkpoint at the end.
pub fn train(folder: &Path, steps: u64) -> mpt::error::Result<()> {
    let recipe = recipe(&[&format!("train.steps={steps}"), "checkpoint.keep=1"]);
    let mut job = Job::new(&recipe, Control::default())?;
    job.saving = Saving::new(&recipe, folder);
    run(job, Ranks::All, &mut |_| {}).map(drop)
}

/// The folder of a sound checkpoint of this thread's own, after four steps: in the middle of the second epoch.
pub fn sound() -> PathBuf {
    let run = scratch("sound");
    if !run.exists() {
        train(&emptied("sound"), 4).expect("a sound training");
    }
    let checkpoints = Checkpoints::of_run(&run).list().expect("a folder that can be read");
    checkpoints.first().expect("a checkpoint").1.clone()
}

/// Goes on from a checkpoint to the end of the training, or is told why not.
pub fn go_on(checkpoint: Checkpoint) {
    let mut job = job();
    let ended = job.resume(Arc::new(checkpoint)).and_then(|()| run(job, Ranks::All, &mut |_| {}));
    if let Err(error) = ended {
        refused(&error);
    }
}
