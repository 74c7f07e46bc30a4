//! `mpt eval`.

use super::options::{Where, set};
use super::place::Place;
use super::ranks::on_ranks;
use super::resume::is_among;
use super::trained::{Trained, split_left_open};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::export::write_tensor;
use crate::data::Counts;
use crate::engine::evaluation::{Evaluated, Evaluation};
use crate::engine::job::plan_of;
use crate::error::{Error, Result};
use crate::launch::environment;
use crate::recipe::{Layered, Precision};
use crate::report::console;
use crate::report::evaluation_table::{self, Heading};
use crate::report::line::Line;
use crate::report::progress::unread;
use crate::report::table::commas;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an evaluation may have otherwise than training had: keys, or sections that end in a dot.
const MAY_CHANGE: [&str; 4] = ["data.", "train.batch_size", "train.precision", "parallel."];
/// Time between two lines that say how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Arguments of `mpt eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The folder of a run, for its newest checkpoint that is whole, or the folder of one of its checkpoints
    #[arg(value_name = "RUN|CHECKPOINT")]
    trained: PathBuf,
    #[command(flatten)]
    place: Where,
    /// Examples that are evaluated together, over all devices [default: as in training]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The type of the numbers: bf16, fp32 or fp64 [default: fp32; fp64 after training in that]
    ///
    /// In fp32 and fp64 every split counts the same answers. bf16, in which training may have evaluated, has so few digits that
    /// a logit which the next one nearly equals may come out otherwise where sums are taken in another order.
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
    /// The folder of the data set's files [default: as in training]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Judge ten views of each image by the mean of their probabilities: corners and centre, also mirrored
    #[arg(long)]
    ten_crop: bool,
    /// Set a key of the run's recipe, of [data], [parallel], train.batch_size or train.precision; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Write the logits of all examples, in their order, to this file, as a tensor `logits` of the format safetensors
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print JSON, with the confusion of up to 1,000 classes: `confusion[class][answer]` examples
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Evaluates, and prints what came of it on stdout.
    ///
    /// # Errors
    /// The request cannot be carried out, or a rank failed.
    pub fn run(self) -> Result<u8> {
        environment::suit_training();
        let trained = Trained::named(&self.trained)?;
        let mut layered = self.settings(&trained)?;
        let asked = layered.recipe()?;
        let count = plan_of(&asked)?.mesh.ranks();
        on_ranks("eval", &self.place.which, asked.parallel.meeting, count, |place| {
            let Checkpoint { folder, state, model, .. } = share_checkpoint(place, &trained)?;
            place.fit(&mut layered)?;
            let recipe = layered.recipe()?;
            let mut evaluation = Evaluation::new(&recipe, model, place.tensors(), place.threads(&recipe, count))?;
            evaluation.keep_logits = self.logits.is_some();
            let plan = evaluation.plan();
            let heading = Heading {
                model: plan.model.name.clone(),
                checkpoint: folder,
                position: state.position,
                data: recipe.data.source.name(),
                views: evaluation.views(),
                layout: (plan.mode, plan.mesh),
                precision: recipe.train.precision.resolved().name(),
                devices: (0..count).map(|rank| place.devices().name(rank)).collect(),
            };
            let (grouped, watchdog) = place.grouped("evaluation", plan.mesh, recipe.parallel.timeout, None)?;
            if place.speaks() {
                evaluation.test().remarks().iter().for_each(console::warn);
            }
            let mut progress = Progress::begin(&heading, evaluation.test().len() as u64, place.speaks());
            let loaded = Arc::clone(&evaluation.loaded);
            let evaluated = evaluation.run(grouped, &mut |done| progress.show(done, &loaded));
            let evaluated = evaluated.map_err(|error| watchdog.conclude(error))?;
            if place.speaks() { self.tell(&heading, &evaluated) } else { Ok(()) }
        })
    }

    /// The run's settings, with one device and in the type that weights are kept in, and what is asked for over them.
    fn settings(&self, trained: &Trained) -> Result<Layered> {
        let mut layered = split_left_open(&trained.saved, 0)?;
        let kept = Precision::of(trained.saved.recipe()?.train.precision.master_kind()).name();
        set(&mut layered, "eval", "train.precision", Some(kept))?;
        layered.set_environment(std::env::vars_os())?;
        set(&mut layered, "--batch-size", "train.batch_size", self.batch_size)?;
        set(&mut layered, "--precision", "train.precision", self.precision.as_ref())?;
        set(&mut layered, "--ten-crop", "data.ten_crop", self.ten_crop.then_some(true))?;
        set(&mut layered, "--data-dir", "data.dir", self.data_dir.as_ref())?;
        self.place.lay(&mut layered)?;
        self.assignments.iter().try_for_each(|assignment| layered.set(assignment, "--set"))?;
        match trained.saved.differences(&layered).into_iter().find(|(key, ..)| !is_among(key, &MAY_CHANGE)) {
            Some((key, trained_with, asked)) => Err(Error::usage(format!(
                "{key} was {trained_with} when {} was trained and cannot become {asked}: an evaluation may change data., \
                 parallel., train.batch_size and train.precision only",
                trained.run.display()
            ))),
            None => Ok(layered),
        }
    }

    fn tell(&self, heading: &Heading, evaluated: &Evaluated) -> Result<()> {
        if let (Some(file), Some(logits)) = (&self.logits, &evaluated.logits) {
            write_tensor("logits", logits, file).map_err(|error| error.within("--logits"))?;
        }
        if self.json {
            console::results(&format!("{:#}\n", evaluation_table::to_json(heading, evaluated)))
        } else {
            console::results(&evaluation_table::render(heading, evaluated))
        }
    }
}

/// The checkpoint, which the first rank finds for all: a run that goes on may write another meanwhile.
fn share_checkpoint(place: &Place, trained: &Trained) -> Result<Checkpoint> {
    let mut found = None;
    let folder = place.share("evaluated", || Ok(Some(found.insert(trained.checkpoint()?).folder.clone())))?;
    match (found, folder) {
        (Some(found), _) => Ok(found),
        (None, Some(folder)) => Checkpoint::open(&folder),
        (None, None) => Err(Error::failed("the first rank found no checkpoint")),
    }
}

/// What is said of an evaluation as it goes, by the process that speaks for all.
struct Progress {
    examples: u64,
    speaks: bool,
    last_line: Instant,
}

impl Progress {
    fn begin(heading: &Heading, examples: u64, speaks: bool) -> Self {
        if speaks {
            let (checkpoint, devices) = (heading.checkpoint.display().to_string(), heading.devices.join(", "));
            let message = format!("evaluating {checkpoint} on {devices}: {} examples", commas(examples));
            let line = Line::new("evaluation", message).with("checkpoint", checkpoint);
            console::say(line.with("devices", heading.devices.clone()).with("examples", examples));
        }
        Self { examples, speaks, last_line: Instant::now() }
    }

    fn show(&mut self, done: u64, loaded: &Counts) {
        loaded.news().iter().for_each(|problem| console::say(unread(problem)));
        if self.speaks && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let line = Line::new("evaluating", format!("evaluating: {done}/{} examples", self.examples));
            console::say(line.with("done", done).with("of", self.examples));
        }
    }
}
