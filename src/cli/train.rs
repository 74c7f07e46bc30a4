//! `mpt train`.

use super::options::{What, Where, set};
use crate::engine::session::{Job, run};
use crate::engine::worker::Assignment;
use crate::error::Result;
use crate::events::{Event, StopReason};
use crate::launch::control::Control;
use crate::launch::environment;
use crate::plan::{Mesh, Plan};
use crate::recipe::duration::show_bytes;
use crate::recipe::{Layered, Precision, Recipe, native_bf16};
use crate::report::{console, plan_table, progress::Progress, results, run_log::RunLog};
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

/// The exit code of a run that a signal ended is this and the signal's number, as shells have it.
const SIGNAL_EXIT: i32 = 128;

/// Arguments of `mpt train`.
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    place: Where,
    /// Passes over the training set
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// End after so many steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// End after this time, like 5m, with the step at hand
    #[arg(long, value_name = "TIME")]
    max_time: Option<String>,
    /// The base learning rate
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// The folder of the data set's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The folder that records the run [default: the next number under runs/RECIPE-MODEL/]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Say nothing but the result
    #[arg(long)]
    quiet: bool,
}

impl Train {
    /// Trains, and prints the result lines on stdout.
    ///
    /// # Errors
    /// The request cannot be carried out, or a rank failed.
    pub fn run(self) -> Result<u8> {
        environment::suit_training();
        let begin = Instant::now();
        let mut layered = self.what.recipe(&self.place)?;
        set(&mut layered, "--epochs", "train.epochs", self.epochs)?;
        set(&mut layered, "--steps", "train.steps", self.steps)?;
        set(&mut layered, "--max-time", "train.max_time", self.max_time.as_ref())?;
        set(&mut layered, "--learning-rate", "optimizer.learning_rate", self.learning_rate)?;
        set(&mut layered, "--data-dir", "data.dir", self.data_dir.as_ref())?;
        self.what.assign(&mut layered)?;
        let recipe = layered.recipe()?;
        self.place.check()?;
        let control = Control::until(recipe.train.max_time.and_then(|limit| begin.checked_add(limit)));
        let job = Job::new(&recipe, control.clone())?;
        self.resolve(&mut layered, &recipe, &job)?;
        let mut log = self.run_log(&recipe, &layered.to_toml(), &job)?;
        if !self.quiet {
            console::say(&layered.to_toml());
            announce(&job.assignment.plan);
            console::say("");
        }
        control.catch_signals()?;
        let what = description(&recipe, &job.assignment.plan);
        let mut progress = Progress::new(begin, !self.quiet && std::io::stderr().is_terminal());
        let summary = run(job, &mut |event: &Event| {
            if !self.quiet {
                progress.event(event);
            }
            if let Some(log) = &mut log {
                log.event(event);
            }
        })?;
        if let Some(bytes) = environment::most_memory().filter(|_| !self.quiet) {
            console::say(&format!("memory: {} at most", show_bytes(bytes)));
        }
        console::results(&results::lines(&summary, &what))?;
        Ok(match summary.stopped {
            Some(StopReason::Signal(signal)) => u8::try_from(SIGNAL_EXIT + signal).unwrap_or(1),
            _ => 0,
        })
    }
}

impl Train {
    /// Puts what was chosen automatically into the effective recipe, and says on what the run will be.
    fn resolve(&self, layered: &mut Layered, recipe: &Recipe, job: &Job) -> Result<()> {
        let Assignment { plan, threads, .. } = &job.assignment;
        let devices = plan.mesh.ranks();
        set(layered, "resolved", "train.precision", Some(recipe.train.precision.resolved().name()))?;
        set(layered, "resolved", "parallel.devices", Some(devices))?;
        set(layered, "resolved", "parallel.mode", Some(plan.mode))?;
        set(layered, "resolved", "parallel.mesh", Some(plan.mesh))?;
        set(layered, "resolved", "parallel.threads", Some(threads))?;
        if !self.quiet {
            let precision = match (recipe.train.precision, native_bf16()) {
                (Precision::Auto, true) => "bf16, which this processor computes with natively".to_owned(),
                (Precision::Auto, false) => "fp32, for this processor has no native bf16".to_owned(),
                (asked, _) => asked.name().to_owned(),
            };
            console::say(&format!("devices: {devices} on the CPU, {threads} thread(s) each; precision: {precision}"));
        }
        Ok(())
    }

    /// The record of the run; `None`, with a word on stderr, where nobody named a folder and none can be written.
    fn run_log(&self, recipe: &Recipe, effective: &str, job: &Job) -> Result<Option<RunLog>> {
        let log = match &self.run_dir {
            Some(folder) => Some(RunLog::in_folder(folder, effective, &job.devices)?),
            None => {
                let name = format!("{}-{}", recipe.name, job.assignment.plan.model.name);
                let begun = RunLog::numbered(&name, effective, &job.devices);
                begun
                    .map_err(|error| {
                        console::say(&format!("this run is not recorded: runs/{name} cannot be written: {error}"))
                    })
                    .ok()
            }
        };
        if let Some(log) = log.as_ref().filter(|_| !self.quiet) {
            console::say(&format!("run directory: {}", log.folder().display()));
        }
        Ok(log)
    }
}

fn announce(plan: &Plan) {
    let Mesh { data, model } = plan.mesh;
    console::say(&format!("plan: {}, {}, {data} data x {model} model", plan.model.name, plan.mode));
    for line in plan_table::exchange_lines(plan) {
        console::say(&format!("  {line}"));
    }
    if data > 1 {
        console::say(&format!(
            "  after backward: gradients summed over {data} ranks, each updating its shard of the weights"
        ));
    }
}

fn description(recipe: &Recipe, plan: &Plan) -> String {
    let precision = recipe.train.precision.resolved().name();
    format!("{}, {} {}, {precision}", plan.model.name, plan.mode, plan.mesh)
}
