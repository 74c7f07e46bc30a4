//! `mpt plan`.

use super::options::{What, Where};
use crate::engine::data_sets::kept_in_memory;
use crate::engine::job::{laid_out, plan_of};
use crate::error::Result;
use crate::plan::memory::{CPU_PLACE_BYTES, GPU_PLACE_BYTES, Sizes, fullest};
use crate::plan::{Mode, Plan};
use crate::recipe::Recipe;
use crate::recipe::duration::{parse_bytes, show_bytes};
use crate::recipe::settings::OwnHalf;
use crate::report::table::{table, text};
use crate::report::{console, plan_table};
use clap::Args;

/// Arguments of `mpt plan`.
#[derive(Debug, Args)]
pub struct PlanCommand {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    place: Where,
    /// Say which modes fit GPUs with this much memory, like 3GiB
    #[arg(long, value_name = "SIZE")]
    device_memory: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    /// Prints the plan.
    ///
    /// # Errors
    /// The model cannot be laid out over the devices.
    pub fn run(self) -> Result<u8> {
        self.place.which.on_cpu("plan")?;
        let recipe = self.what.recipe(&self.place)?.recipe()?;
        let plan = plan_of(&recipe)?;
        let sizes = Sizes {
            batch_size: recipe.train.batch_size,
            value_bytes: recipe.train.precision.kind().elt_size_in_bytes(),
            master_bytes: recipe.train.precision.master_kind().elt_size_in_bytes(),
            momentum: recipe.optimizer.momentum > 0.0,
            checkpoints: recipe.checkpoint.keep > 0,
            place_bytes: CPU_PLACE_BYTES,
            data_set: kept_in_memory(&recipe.data),
        };
        let limit = self.device_memory.as_deref().map(parse_bytes).transpose()?;
        let fits = limit.map(|limit| (limit, modes_that_fit(&recipe, &plan, sizes, limit)));
        if self.json {
            let mut value = plan_table::to_json(&plan, sizes);
            if let Some((limit, modes)) = fits {
                value["device_memory_bytes"] = limit.into();
                value["modes"] = modes.iter().map(Fit::to_json).collect();
            }
            console::results(&format!("{value:#}\n"))?;
        } else {
            let mut tables = plan_table::render(&plan, sizes);
            if let Some((limit, modes)) = fits {
                tables += &format!("\n{}", fit_table(limit, &modes));
            }
            console::results(&tables)?;
        }
        Ok(0)
    }
}

/// What a mode needs of its fullest device, or why it cannot be used.
struct Fit {
    mode: Mode,
    mesh: String,
    needs: std::result::Result<u64, String>,
    fits: bool,
}

impl Fit {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "mode": self.mode.name(), "mesh": self.mesh, "fits": self.fits,
            "needs_bytes": self.needs.as_ref().ok(), "problem": self.needs.as_ref().err(),
        })
    }
}

/// The modes on GPUs, which are what has memory of its own.
fn modes_that_fit(recipe: &Recipe, asked: &Plan, sizes: Sizes, limit: u64) -> Vec<Fit> {
    let sizes = Sizes { place_bytes: GPU_PLACE_BYTES, ..sizes };
    let own_first = recipe.parallel.own_half != OwnHalf::Off;
    let devices = asked.mesh.ranks();
    let mut layouts: Vec<(Mode, Result<crate::plan::Mesh>)> =
        Mode::ALL.into_iter().map(|mode| (mode, mode.mesh(if mode == Mode::Single { 1 } else { devices }))).collect();
    if recipe.parallel.mesh.is_some()
        && !layouts.iter().any(|(mode, mesh)| *mode == asked.mode && *mesh == Ok(asked.mesh))
    {
        layouts.push((asked.mode, Ok(asked.mesh)));
    }
    layouts
        .into_iter()
        .map(|(mode, mesh)| {
            let name = mesh.as_ref().map_or_else(|_| "-".to_owned(), ToString::to_string);
            let needs = mesh
                .and_then(|mesh| laid_out(&asked.model, mesh, mode, recipe, own_first))
                .map(|found| fullest(&found, sizes).total())
                .map_err(|error| error.to_string());
            let fits = needs.as_ref().is_ok_and(|&bytes| bytes <= limit);
            Fit { mode, mesh: name, needs, fits }
        })
        .collect()
}

fn fit_table(limit: u64, modes: &[Fit]) -> String {
    let heading = format!("on GPUs of {}", show_bytes(limit));
    let mut rows = table(&["mode", "mesh", "fullest device", &heading], &[2]);
    for Fit { mode, mesh, needs, fits } in modes {
        let (needs, verdict) = match needs {
            Ok(bytes) if *fits => (show_bytes(*bytes), "fits".to_owned()),
            Ok(bytes) => (show_bytes(*bytes), format!("does not fit: {} too much", show_bytes(bytes - limit))),
            Err(problem) => ("-".to_owned(), format!("cannot be used: {problem}")),
        };
        rows.add_row([mode.name().to_owned(), mesh.clone(), needs, verdict]);
    }
    text(&rows)
}
