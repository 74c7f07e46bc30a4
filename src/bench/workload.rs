//! Training steps on random images, timed.

use crate::data::{Noise, Source};
use crate::engine::job::plan_of;
use crate::engine::session::{Job, Ranks, run};
use crate::error::Result;
use crate::events::{Event, Step};
use crate::plan::{Mesh, Mode};
use crate::recipe::Recipe;
use crate::recipe::settings::SourceKind;
use std::sync::Arc;

/// How many steps are timed, after how many that are not: the first ones map memory and compile kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Steps that are not timed.
    pub warmup: u64,
    /// Steps that are timed.
    pub steps: u64,
}

/// A recipe made ready for timing: on random images, for so many steps, laid out in a given way. The images have the
/// recipe's size if the network takes that (it enlarges what is smaller), else the size that the network reads.
///
/// # Errors
/// The network cannot be laid out like this.
pub fn recipe(base: &Recipe, mesh: Mesh, mode: Mode, batch_size: usize, length: Length) -> Result<Recipe> {
    let mut recipe = base.clone();
    recipe.parallel.devices = mesh.ranks();
    recipe.parallel.mesh = Some(mesh);
    recipe.parallel.mode = Some(mode);
    let model = plan_of(&recipe)?.model;
    recipe.data.source = SourceKind::Noise;
    recipe.data.classes = model.classes();
    if recipe.data.image[0] != model.input.channels {
        let (height, width) = model.input.pixels.unwrap_or((1, 1));
        recipe.data.image = [model.input.channels, height, width];
    }
    recipe.data.train_examples = batch_size * (length.warmup + length.steps) as usize;
    // The loop evaluates at the end of an epoch; one example is the least of it.
    recipe.data.test_examples = 1;
    recipe.train.batch_size = batch_size;
    recipe.train.epochs = 1;
    recipe.train.steps = 0;
    recipe.train.max_time = None;
    // Every device has the same number of threads, however many devices there are.
    recipe.parallel.threads = base.parallel.threads.max(1);
    Ok(recipe)
}

/// The timed steps of a job whose recipe was made ready, run by the ranks that are in this process.
///
/// # Errors
/// A rank failed.
pub fn steps(job: Job, ranks: Ranks, length: Length) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(length.steps as usize);
    run(job, ranks, &mut |event| match event {
        Event::Step(step) if step.step > length.warmup => steps.push(step.clone()),
        _ => {}
    })?;
    Ok(steps)
}

/// Random images of a shape, in so many classes.
///
/// # Errors
/// A part of the shape is zero.
pub fn images(seed: u64, count: usize, shape: [usize; 3], classes: usize) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Noise::new(seed, count, shape, classes)?))
}
