//! `mpt bench`.

use super::options::{What, Where, set};
use crate::bench::scaling::{Configuration, Extent};
use crate::bench::workload::Length;
use crate::bench::{exchange, loader, scaling, step};
use crate::engine::job::plan_of;
use crate::engine::session::{Job, masks};
use crate::error::{Error, Result};
use crate::launch::control::Control;
use crate::launch::environment;
use crate::recipe::Recipe;
use crate::report::{bench_table, console};
use clap::{Args, Subcommand, value_parser};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Bytes that a rank receives, where the command line does not say.
const SIZES: [usize; 5] = [4 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20];

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
    /// Examples a second from 1 to N devices, in both modes, strong (the batch stays) and weak (the batch per device)
    Scaling {
        #[command(flatten)]
        what: What,
        /// The most devices
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u32).range(1..=64))]
        gpus: u32,
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
    /// Each collective, by size, against a copy in memory
    Exchange {
        /// How many devices take part
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u32).range(2..=64))]
        gpus: u32,
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
            Measure::Step { what, place, length, json } => measure_step(&what, &place, length, json)?,
            Measure::Scaling { what, gpus, length, rounds, svg, json } => {
                let recipe = what.recipe(&Where::default())?.recipe()?;
                let extent = Extent { devices: gpus as usize, rounds: rounds as usize, length: length.into() };
                measure_scaling(&recipe, extent, svg, json)?;
            }
            Measure::Exchange { gpus, json } => {
                let rows = exchange::measure(gpus as usize, &exchange::jobs(&SIZES))?;
                let value = || json!({ "rows": bench_table::exchanges_json(&rows) });
                print(json, &bench_table::exchanges(&rows), &value)?;
            }
            Measure::Loader { what, json } => measure_loader(&what, json)?,
        }
        Ok(0)
    }
}

fn print(json: bool, table: &str, value: &dyn Fn() -> Value) -> Result<()> {
    if json { console::results(&format!("{:#}\n", value())) } else { console::results(table) }
}

/// `alexnet, bf16, 1 thread(s) a device`.
fn described(recipe: &Recipe) -> String {
    let threads = recipe.parallel.threads.max(1);
    format!("{}, {}, {threads} thread(s) a device", recipe.model.name, recipe.train.precision.resolved().name())
}

fn measure_step(what: &What, place: &Where, length: Steps, json: bool) -> Result<()> {
    place.on_cpu("bench")?;
    let recipe = what.recipe(place)?.recipe()?;
    let measured = step::measure(&recipe, length.into())?;
    let plan = &measured.plan;
    let heading = format!("{}, {} {}", described(&recipe), plan.mode, plan.mesh);
    let value = || {
        let mut value = bench_table::step_json(&measured);
        value["what"] = heading.clone().into();
        value
    };
    print(json, &format!("{heading}\n\n{}", bench_table::step(&measured)), &value)
}

fn measure_scaling(recipe: &Recipe, extent: Extent, svg: Option<PathBuf>, json: bool) -> Result<()> {
    let heading = described(recipe);
    let rows = scaling::measure(recipe, extent, &mut |round, Configuration { mode, devices, scaling }| {
        let (round, rounds) = (round + 1, extent.rounds);
        console::say(&format!("round {round} of {rounds}: {mode}, {devices} device(s), {}", scaling.name()));
    })?;
    if let Some(file) = svg {
        let picture = bench_table::scaling_plot(&heading, &rows).svg()?;
        std::fs::write(&file, picture)
            .map_err(|error| Error::failed(format!("--svg: {} cannot be written: {error}", file.display())))?;
    }
    let value =
        || json!({ "what": heading.clone(), "rounds": extent.rounds, "rows": bench_table::scaling_json(&rows) });
    print(json, &format!("{heading}\n\n{}", bench_table::scaling(&rows)), &value)
}

fn measure_loader(what: &What, json: bool) -> Result<()> {
    let mut layered = what.recipe(&Where::default())?;
    set(&mut layered, "bench loader", "parallel.devices", Some(1))?;
    let recipe = layered.recipe()?;
    let masks = masks(&plan_of(&recipe)?);
    let job = Job::new(&recipe, Control::default())?;
    let variants = loader::variants(&masks).into_iter();
    let rows =
        variants.map(|variant| loader::measure(&job.train, job.batch_size, variant)).collect::<Result<Vec<_>>>()?;
    print(json, &bench_table::loader(&rows), &|| json!({ "rows": bench_table::loader_json(&rows) }))
}
