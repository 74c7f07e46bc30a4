//! `mpt train`.

use super::announcement;
use super::endpoint::{self, Endpoint};
use super::listeners::Listeners;
use super::options::{Devices, What, Where, set};
use super::place::Place;
use super::resume::{Look, Resume};
use crate::engine::job::plan_of;
use crate::engine::saving::Saving;
use crate::engine::session::{Job, Ranks, run};
use crate::engine::worker::Assignment;
use crate::error::{Error, Result};
use crate::events::{StopReason, Summary};
use crate::launch::control::{Control, exit_code};
use crate::launch::word::{Word, tell};
use crate::launch::{environment, launchers, supervisor, visible};
use crate::metrics::server::Port;
use crate::model::shipped;
use crate::plan::Plan;
use crate::recipe::address::Address;
use crate::recipe::duration::show_bytes;
use crate::recipe::{Layered, Precision, Recipe, fast_bf16};
use crate::report::line::{Format, Line};
use crate::report::run_log::{RunLog, runs_of};
use crate::report::{console, results};
use clap::Args;
use std::env;
use std::ffi::OsString;
use std::path::{self, Path, PathBuf};
use std::time::Instant;

/// The exit code of a run that a signal ended after a checkpoint: EX_TEMPFAIL of sysexits.h, "try again later".
const RESUMABLE_EXIT: u8 = 75;

/// A request that was found to be sound.
struct Prepared {
    layered: Layered,
    recipe: Recipe,
    resume: Option<Resume>,
    job: Job,
}

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
    /// Go on with a run in its folder: `auto` (that of --run-dir, else the newest of this recipe and model; a new one
    /// if there is none), a run directory, or one of its checkpoints
    ///
    /// The run keeps the settings that it was begun with. Flags may change how it is split and how long it goes on, but
    /// nothing that would change its numbers, unless with --allow-changes. What is changed is said.
    #[arg(long, value_name = "auto|PATH")]
    resume: Option<String>,
    /// Let a resumed run go on with settings that make its numbers another run's, like the seed or the batch size
    #[arg(long, requires = "resume")]
    allow_changes: bool,
    /// Begin with the weights of this file, in the format safetensors, instead of those drawn from the seed
    ///
    /// `mpt export` writes such a file, and so does PyTorch: safetensors.torch.save_file(network.state_dict(), FILE), in fp32,
    /// fp64, bf16 or fp16. Tensors are called as the layers are (conv1.weight) or, in a network without branches, as in
    /// nn.Sequential of all layers but the loss (0.weight).
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    init_from: Option<PathBuf>,
    /// How all that is said on stderr is written: for people, or as one JSON object a line
    #[arg(long, value_enum, value_name = "text|json", env = "MPT_LOG_FORMAT", hide_env_values = true, default_value_t)]
    log_format: Format,
    /// Serve Prometheus metrics at /metrics and a live page at /; a port alone is for this machine, 0 for any free one
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_addr: Option<String>,
    /// Say nothing but the result
    #[arg(long)]
    quiet: bool,
}

impl Train {
    /// Trains, and prints the result lines on stdout.
    ///
    /// # Errors
    /// The request cannot be carried out, or a rank failed.
    pub fn run(mut self) -> Result<u8> {
        self.begin_to_speak();
        environment::suit_training();
        let begin = Instant::now();
        let meeting = || Ok(self.settings()?.recipe()?.parallel.meeting);
        let mut served = None;
        let count = || {
            let (ranks, address) = self.foreseen()?;
            served = address;
            Ok(ranks)
        };
        let place = Place::find(launchers::detect()?, &self.place.which, meeting, count)?;
        if let Place::Nowhere(count) = place {
            return supervise(count, served.as_ref(), env::args_os().skip(1).collect(), &|_| Vec::new());
        }
        // The first rank speaks for all.
        self.quiet |= !place.speaks();
        place.started().into_iter().for_each(|ranks| self.place.which.spread(ranks));
        self.train(begin, &place).inspect_err(|error| place.fail(error))
    }

    /// Has everything said as was asked for.
    pub fn begin_to_speak(&self) {
        console::set_format(self.log_format);
    }

    /// What is known of the run before there are ranks: how many it will have, and where it is to serve metrics. What a run
    /// goes on from rank 0 looks at, and speaks of.
    ///
    /// # Errors
    /// Something in the request is wrong.
    pub fn foreseen(&self) -> Result<(usize, Option<Address>)> {
        let layered = match self.find_resumed(Look::Settings)? {
            Some(resume) => resume.settings(self.allow_changes, |layered| self.lay(layered))?,
            None => self.settings()?,
        };
        let recipe = layered.recipe()?;
        let plan = plan_of(&recipe)?;
        Ok((plan.mesh.ranks(), recipe.metrics.addr))
    }

    /// The GPUs that were asked for by number.
    ///
    /// # Errors
    /// One is named twice.
    pub fn numbers(&self) -> Result<&[usize]> {
        self.place.which.numbers()
    }

    fn train(self, begin: Instant, place: &Place) -> Result<u8> {
        let Prepared { layered, recipe, resume, mut job } = self.prepare(begin, place)?;
        place.agree(&layered, &job)?;
        let port = endpoint::port(&recipe, place)?;
        let mut log = None;
        let run_folder = place.share("run folder", || {
            log = self.run_log(&recipe, &layered.to_toml(), &job, resume.as_ref())?;
            resume.as_ref().map(Resume::leave_behind).transpose()?;
            Ok(log.as_ref().map(|log| log.folder().to_owned()))
        })?;
        if place.speaks() {
            tell(&Word::RunFolder(run_folder.clone().map(PathBuf::into_os_string)));
        }
        let saving = run_folder.as_deref().and_then(|folder| Saving::new(&recipe, folder));
        job.saving = saving.map(|saving| saving.with_recipe(layered.to_json()));
        if let Some(folder) = run_folder.as_deref().filter(|_| job.saving.is_some()) {
            job.peers = place.peers(folder)?;
            if job.peers.is_none() && place.started().is_some_and(|ranks| ranks > 1) && !self.quiet {
                let folder = folder.display();
                let message =
                    format!("not all ranks see {folder}: checkpoints are brought to rank 0, which writes them");
                console::say(Line::new("checkpoints", message));
            }
        }
        if !self.quiet {
            resume.iter().flat_map(|resume| resume.changes(&layered)).for_each(console::say);
            let recipe = Line::new("recipe", "the effective recipe").with("recipe", layered.to_json());
            console::say(recipe.shown_as(layered.to_toml()));
            announcement::say(&job);
            console::gap();
        }
        job.assignment.control.catch_signals()?;
        let what = description(&recipe, &job.assignment.plan);
        let _heartbeat = place.heartbeat(&recipe.parallel)?;
        let (mesh, limit) = (job.assignment.plan.mesh, recipe.parallel.timeout);
        let (grouped, watchdog) = place.grouped("training", mesh, limit, run_folder.clone())?;
        let open = |port| Endpoint::open(port, &recipe, &job, &grouped.supply, self.quiet);
        let endpoint = port.map(open).transpose()?.flatten();
        let mut listeners = Listeners::new(begin, self.quiet, log, endpoint);
        let ended = run(job, Ranks::Grouped(grouped), &mut |event| listeners.hear(event));
        let summary = ended.map_err(|error| watchdog.conclude(error))?;
        if let Some(bytes) = environment::most_memory().filter(|_| !self.quiet) {
            console::say(Line::new("memory", format!("memory: {} at most", show_bytes(bytes))).with("bytes", bytes));
        }
        if place.speaks() {
            console::results(&results::lines(&summary, &what))?;
        }
        Ok(self.end(&summary, run_folder.as_deref()))
    }

    /// Finds whatever is wrong with the request before anything is written.
    fn prepare(&self, begin: Instant, place: &Place) -> Result<Prepared> {
        let resume = self.share_resumed(place)?;
        let mut layered = match &resume {
            Some(resume) => resume.settings(self.allow_changes, |layered| self.lay(layered))?,
            None => self.settings()?,
        };
        place.fit(&mut layered)?;
        let recipe = layered.recipe()?;
        place.check_ranks(recipe.layout()?.0.ranks())?;
        let control = Control::until(recipe.train.max_time.and_then(|limit| begin.checked_add(limit)));
        let mut job = Job::new(&recipe, control)?;
        place.suit(&mut job, &recipe);
        match (resume.as_ref().and_then(|resume| resume.checkpoint.clone()), &recipe.model.init_from) {
            (Some(checkpoint), _) if self.allow_changes => job.resume_changed(checkpoint)?,
            (Some(checkpoint), _) => job.resume(checkpoint)?,
            (None, Some(file)) => job.init_from(file).map_err(|error| error.within("--init-from"))?,
            (None, None) => {}
        }
        self.resolve(&mut layered, &recipe, &job, place)?;
        Ok(Prepared { layered, recipe, resume, job })
    }

    /// The settings of a new run.
    fn settings(&self) -> Result<Layered> {
        let mut layered = self.what.base()?;
        self.lay(&mut layered)?;
        Ok(layered)
    }

    /// Lays the environment and every flag over settings.
    fn lay(&self, layered: &mut Layered) -> Result<()> {
        self.what.lay(layered, &self.place)?;
        set(layered, "--epochs", "train.epochs", self.epochs)?;
        set(layered, "--steps", "train.steps", self.steps)?;
        set(layered, "--max-time", "train.max_time", self.max_time.as_ref())?;
        // In the form of recipes, which has an exponent where a number is long: 1e30.
        let learning_rate = self.learning_rate.map(|rate| format!("{rate:?}"));
        set(layered, "--learning-rate", "optimizer.learning_rate", learning_rate)?;
        set(layered, "--data-dir", "data.dir", self.data_dir.as_ref())?;
        set(layered, "--init-from", "model.init_from", self.init_from()?)?;
        set(layered, "--metrics-addr", "metrics.addr", self.metrics_addr.as_ref())?;
        self.what.assign(layered)
    }

    /// The file of `--init-from`, as it is found from any folder: the run may begin again from another.
    fn init_from(&self) -> Result<Option<String>> {
        let Some(path) = &self.init_from else { return Ok(None) };
        let fault = |problem: &str| Error::usage(format!("--init-from: {}: {problem}", path.display()));
        let whole = path::absolute(path).map_err(|error| fault(&error.to_string()))?;
        whole.to_str().map(|whole| Some(whole.to_owned())).ok_or_else(|| fault("the name is no UTF-8"))
    }

    /// The run to go on with, which the first rank finds for all.
    fn share_resumed(&self, place: &Place) -> Result<Option<Resume>> {
        let mut found = None;
        let path = place.share("resumed", || {
            found = self.find_resumed(Look::All)?;
            Ok(found.as_ref().map(|resume| resume.path().to_owned()))
        })?;
        match (found, path) {
            (None, Some(path)) => Resume::at(&path).map(Some),
            (found, _) => Ok(found),
        }
    }

    /// The run to go on with, if one was asked for and there is one.
    fn find_resumed(&self, look: Look) -> Result<Option<Resume>> {
        let Some(argument) = &self.resume else { return Ok(None) };
        let asked = || {
            let recipe = self.settings()?.recipe()?;
            let model = shipped::load(&recipe.model.name, &recipe.model.edits)?;
            Ok((recipe.name, model.name))
        };
        let found = Resume::find(argument, self.run_dir.as_deref(), look, asked)?;
        if let (Some(found), Some(recipe)) = (&found, self.what.named_recipe()) {
            found.check_recipe(recipe)?;
        }
        Ok(found)
    }

    /// Says how to go on with a run that was stopped; gives the exit code.
    fn end(&self, summary: &Summary, run: Option<&Path>) -> u8 {
        let resumable = run.filter(|_| summary.saved);
        if let (Some(run), Some(StopReason::Signal(_) | StopReason::Time), false) =
            (resumable, summary.stopped, self.quiet)
        {
            let command = format!("mpt train --resume {}", console::quoted(run));
            console::say(Line::new("go_on", format!("go on with: {command}")).with("command", command));
        }
        match (summary.stopped, resumable) {
            (Some(StopReason::Signal(_)), Some(_)) => RESUMABLE_EXIT,
            (Some(StopReason::Signal(signal)), None) => exit_code(signal),
            _ => 0,
        }
    }
}

impl Train {
    /// Puts what was chosen automatically into the effective recipe, and says on what the run will be.
    fn resolve(&self, layered: &mut Layered, recipe: &Recipe, job: &Job, place: &Place) -> Result<()> {
        let Assignment { plan, threads, .. } = &job.assignment;
        let devices = plan.mesh.ranks();
        set(layered, "resolved", "train.precision", Some(recipe.train.precision.resolved().name()))?;
        let classes = recipe.model.classes_of_data.then(|| plan.model.classes());
        set(layered, "resolved", "model.classes", classes)?;
        set(layered, "resolved", "parallel.devices", Some(devices))?;
        set(layered, "resolved", "parallel.mode", Some(plan.mode))?;
        set(layered, "resolved", "parallel.mesh", Some(plan.mesh))?;
        set(layered, "resolved", "parallel.threads", Some(threads))?;
        set(layered, "resolved", "parallel.own_half", Some(recipe.parallel.own_half.resolved().name()))?;
        if !self.quiet {
            let precision = match (recipe.train.precision, fast_bf16()) {
                (Precision::Auto, true) => "bf16, in which this processor is faster than in fp32".to_owned(),
                (Precision::Auto, false) => "fp32, for this processor is not faster in bf16".to_owned(),
                (asked, _) => asked.name().to_owned(),
            };
            let on = match place.devices() {
                Devices::Cpu => format!("on the CPU, {threads} thread(s) each"),
                Devices::Simulated => format!("simulated GPUs, computing on the CPU, {threads} thread(s) each"),
                Devices::Cuda => "GPUs".to_owned(),
            };
            let line = Line::new("devices", format!("devices: {devices} {on}; precision: {precision}"));
            console::say(line.with("devices", job.devices.clone()));
            if let Some(launched) = place.launched() {
                console::say(
                    Line::new("launcher", launched.to_string()).with("launcher", launched.launcher.to_string()),
                );
            }
        }
        Ok(())
    }

    /// The record of the run; `None`, with a word on stderr, where nobody named a folder and none can be written.
    fn run_log(&self, recipe: &Recipe, effective: &str, job: &Job, resume: Option<&Resume>) -> Result<Option<RunLog>> {
        let log = match (resume, &self.run_dir) {
            (Some(Resume { run, checkpoint, .. }), _) => {
                let position = checkpoint.as_ref().map(|checkpoint| checkpoint.state.position).unwrap_or_default();
                Some(RunLog::resumed(run, effective, &job.devices, &position)?)
            }
            (None, Some(folder)) => Some(RunLog::in_folder(folder, effective, &job.devices)?),
            (None, None) => {
                let parent = runs_of(&recipe.name, &job.assignment.plan.model.name);
                let begun = RunLog::numbered(&parent, effective, &job.devices);
                let parent = parent.display();
                begun
                    .map_err(|error| {
                        console::warn(format!("this run is not recorded: {parent} cannot be written: {error}"))
                    })
                    .ok()
            }
        };
        if let Some(log) = log.as_ref().filter(|_| !self.quiet) {
            let folder = log.folder().display().to_string();
            console::say(Line::new("run_directory", format!("run directory: {folder}")).with("folder", folder));
        }
        Ok(log)
    }
}

/// Starts the ranks of a run as processes with these arguments, each in its environment, and waits for them. Metrics are to be
/// served at `served`.
///
/// # Errors
/// The address cannot be listened on, or a rank failed.
pub fn supervise(
    count: usize,
    served: Option<&Address>,
    arguments: Vec<OsString>,
    environment: &dyn Fn(usize) -> Vec<(String, OsString)>,
) -> Result<u8> {
    // Rank 0 takes the port; that it cannot is told before there are ranks.
    served.map(Port::take).transpose()?;
    let arguments = visible::numbers_as_count(arguments, count);
    supervisor::supervise(&supervisor::Ranks { count, arguments, environment })
}

fn description(recipe: &Recipe, plan: &Plan) -> String {
    let precision = recipe.train.precision.resolved().name();
    format!("{}, {} {}, {precision}", plan.model.name, plan.mode, plan.mesh)
}
