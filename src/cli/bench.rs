//! `mpt bench`.

use super::options::{Devices, What, Where, Which, set};
use super::place::Place;
use super::ranks::on_ranks;
use super::show::write;
use crate::bench::scaling::{Configuration, Extent, Row};
use crate::bench::workload::{self, Length};
use crate::bench::{exchange, loader, scaling, step};
use crate::engine::job::plan_of;
use crate::engine::session::{Grouped, Job, Ranks, masks};
use crate::error::{Error, Result};
use crate::launch::control::Control;
use crate::launch::environment;
use crate::launch::watchdog::Watchdog;
use crate::plan::Mesh;
use crate::recipe::Recipe;
use crate::recipe::duration::parse_bytes;
use crate::report::{bench_table, console};
use clap::{Args, Subcommand, value_parser};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Devices of a measurement that is of more than one, where the command line does not say.
const DEVICES: usize = 2;

/// Arguments of `mpt bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// One training step, layer by layer, against the machine's own matrix products
    Step {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        length: Steps,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Examples a second from 1 to N devices (2, unless --gpus or --devices say otherwise), in both modes, strong (the batch
    /// stays) and weak (the batch per device)
    Scaling {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        length: Steps,
        /// How often everything is measured, in turn
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Write the plot to this file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Each collective, by size, against a copy in memory; between two devices, unless --gpus or --devices say otherwise
    Exchange {
        #[command(flatten)]
        which: Which,
        /// About how many bytes a rank receives in a call
        #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_bytes,
              default_values = ["4KiB", "64KiB", "1MiB", "8MiB", "64MiB"])]
        sizes: Vec<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Images a second of the loader, one epoch of the recipe's training set
    Loader {
        #[command(flatten)]
        what: What,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// How many steps are timed.
#[derive(Clone, Copy, Debug, Args)]
struct Steps {
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u64).range(1..=100_000))]
    steps: u64,
    /// Steps before them that are not
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u64).range(0..=100_000))]
    warmup: u64,
}

impl From<Steps> for Length {
    fn from(Steps { steps, warmup }: Steps) -> Self {
        Self { warmup, steps }
    }
}

impl Bench {
    /// Measures, and prints what was measured on stdout.
    ///
    /// # Errors
    /// The request cannot be carried out, or a rank failed.
    pub fn run(self) -> Result<u8> {
        environment::suit_training();
        match self.what {
            Measure::Step { what, place, length, json } => measure_step(&what, &place, length.into(), json),
            Measure::Scaling { what, which, length, rounds, svg, json } => {
                let devices = which.count().unwrap_or(DEVICES);
                let extent = Extent { devices, rounds: rounds as usize, length: length.into() };
                measure_scaling(&what, &which, extent, svg.as_deref(), json)
            }
            Measure::Exchange { which, sizes, json } => measure_exchange(&which, &sizes, json),
            Measure::Loader { what, json } => measure_loader(&what, json),
        }
    }
}

/// The job of a recipe that was made ready, its ranks that are in this process, and what watches them.
fn seated(place: &Place, purpose: &str, recipe: &Recipe) -> Result<(Job, Grouped, Watchdog)> {
    let mut job = Job::new(recipe, Control::default())?;
    place.suit(&mut job, recipe);
    let (grouped, watchdog) = place.grouped(purpose, job.assignment.plan.mesh, recipe.parallel.timeout, None)?;
    Ok((job, grouped, watchdog))
}

fn print(json: bool, table: &str, value: &dyn Fn() -> Value) -> Result<()> {
    if json { console::results(&format!("{:#}\n", value())) } else { console::results(table) }
}

/// `alexnet, bf16, 1 thread(s) a device`.
fn described(recipe: &Recipe, devices: Devices) -> String {
    let on = match devices {
        Devices::Cpu => format!("{} thread(s) a device", recipe.parallel.threads.max(1)),
        Devices::Cuda => "GPUs".to_owned(),
        Devices::Simulated => "simulated GPUs".to_owned(),
    };
    format!("{}, {}, {on}", recipe.model.name, recipe.train.precision.resolved().name())
}

fn measure_step(what: &What, place: &Where, length: Length, json: bool) -> Result<u8> {
    let mut layered = what.recipe(place)?;
    let asked = layered.recipe()?;
    let count = plan_of(&asked)?.mesh.ranks();
    on_ranks("bench", &place.which, asked.parallel.meeting, count, |place| {
        place.fit(&mut layered)?;
        let base = layered.recipe()?;
        let (mesh, mode) = base.layout()?;
        let recipe = workload::recipe(&base, mesh, mode, base.train.batch_size, length)?;
        let (job, grouped, watchdog) = seated(place, "step", &recipe)?;
        let measured = step::measure(job, grouped, length).map_err(|error| watchdog.conclude(error))?;
        let Some(measured) = measured else { return Ok(()) };
        let heading = format!("{}, {mode} {mesh}", described(&recipe, place.devices()));
        let value = || {
            let mut value = bench_table::step_json(&measured);
            value["what"] = heading.clone().into();
            value
        };
        print(json, &format!("{heading}\n\n{}", bench_table::step(&measured)), &value)
    })
}

fn measure_scaling(what: &What, which: &Which, extent: Extent, svg: Option<&Path>, json: bool) -> Result<u8> {
    let mut layered = what.recipe(&Where::default())?;
    let asked = layered.recipe()?;
    scaling::check(&asked, extent)?;
    on_ranks("bench", which, asked.parallel.meeting, extent.devices, |place| {
        place.fit(&mut layered)?;
        let base = layered.recipe()?;
        let Some(rows) = scaling_rows(place, &base, extent)? else { return Ok(()) };
        let heading = described(&base, place.devices());
        if let Some(file) = svg {
            write("--svg", file, bench_table::scaling_plot(&heading, &rows).svg()?.as_bytes())?;
        }
        let value =
            || json!({ "what": heading.clone(), "rounds": extent.rounds, "rows": bench_table::scaling_json(&rows) });
        print(json, &format!("{heading}\n\n{}", bench_table::scaling(&rows)), &value)
    })
}

/// The rows, on the process of the first rank. Ranks that are processes are the same for all rows: those that a row does not
/// need wait until the first rank, which is in all of them, has come to the next.
fn scaling_rows(place: &Place, base: &Recipe, extent: Extent) -> Result<Option<Vec<Row>>> {
    let mut run_before = 0;
    let mut run = |recipe: &Recipe| {
        run_before += 1;
        let name = format!("run {run_before}");
        place.follow(&name)?;
        if !place.has_any_of(recipe.parallel.devices) {
            return Ok(None);
        }
        let (job, grouped, watchdog) = seated(place, &name, recipe)?;
        let steps = workload::steps(job, Ranks::Grouped(grouped), extent.length);
        steps.map(Some).map_err(|error| watchdog.conclude(error))
    };
    scaling::measure(base, extent, &mut run, &mut |round, Configuration { mode, devices, scaling }| {
        let (round, rounds) = (round + 1, extent.rounds);
        if place.speaks() {
            console::say(&format!("round {round} of {rounds}: {mode}, {devices} device(s), {}", scaling.name()));
        }
    })
}

fn measure_exchange(which: &Which, sizes: &[u64], json: bool) -> Result<u8> {
    let count = which.count().unwrap_or(DEVICES);
    if count < 2 {
        return Err(Error::usage(format!("--gpus {count}: one device has no other to exchange anything with")));
    }
    let sizes: Vec<usize> = sizes.iter().map(|&size| size as usize).collect();
    // Waiting is limited as in training.
    let parallel = What::default().recipe(&Where::default())?.recipe()?.parallel;
    on_ranks("bench", which, parallel.meeting, count, |place| {
        let mesh = Mesh { data: 1, model: count };
        let (grouped, watchdog) = place.grouped("exchange", mesh, parallel.timeout, None)?;
        let rows = exchange::measure(grouped, place.tensors(), &exchange::jobs(&sizes))
            .map_err(|error| watchdog.conclude(error))?;
        if !place.speaks() {
            return Ok(());
        }
        let value = || json!({ "rows": bench_table::exchanges_json(&rows) });
        print(json, &bench_table::exchanges(&rows), &value)
    })
}

fn measure_loader(what: &What, json: bool) -> Result<u8> {
    let mut layered = what.recipe(&Where::default())?;
    set(&mut layered, "bench loader", "parallel.devices", Some(1))?;
    let recipe = layered.recipe()?;
    let masks = masks(&plan_of(&recipe)?);
    let job = Job::new(&recipe, Control::default())?;
    let variants = loader::variants(&masks, &job.prepare_train).into_iter();
    let measure = |variant| loader::measure(&job.train, job.batch_size, job.readers, variant);
    let rows = variants.map(measure).collect::<Result<Vec<_>>>()?;
    print(json, &bench_table::loader(&rows), &|| json!({ "rows": bench_table::loader_json(&rows) }))?;
    Ok(0)
}
