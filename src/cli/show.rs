//! `mpt show`.

mod filters;
mod model;

use crate::error::{Error, Result};
use crate::recipe::{Layered, SHIPPED, reported};
use crate::report::curves::{Run, alone, compared};
use crate::report::gradients::Gradients;
use crate::report::plot::{MOST_CURVES, stacked};
use crate::report::run_log::RECIPE;
use crate::report::table::{table, text};
use crate::report::{console, curves_table, epochs, gradients};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Arguments of `mpt show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(subcommand)]
    thing: Thing,
}

#[derive(Debug, Subcommand)]
enum Thing {
    /// The layers of models, side by side: output shapes, parameters, multiply-accumulates
    ///
    /// With `--svg FILE`, one of them as a picture too, split as `mpt train` would split it: a lane for each device, or on one
    /// device for each tower, what each holds of every layer, and what is exchanged before which layer.
    Model(model::ShowModel),
    /// Train loss, train accuracy and test accuracy of runs by epoch, side by side, and the best of each
    Curves {
        /// The folders of runs
        #[arg(value_name = "RUN", required = true)]
        runs: Vec<PathBuf>,
        /// Draw them into this file too
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// The norm of each layer's gradient instead
        #[arg(long)]
        gradients: bool,
    },
    /// The kernels of the first convolution as a picture, each tower in a block of its own
    ///
    /// They are the weights themselves, enlarged, in grey where the network reads grey images and else in colour; one scale,
    /// from the least weight to the greatest, serves all of them. For kernels in colour, a table says of each tower how much
    /// of it answers to colour alone.
    Filters(filters::ShowFilters),
    /// The shipped recipes and what each shows
    Recipes,
}

impl Show {
    /// Prints what was asked for.
    ///
    /// # Errors
    /// A model or a run cannot be read, or a picture cannot be written.
    pub fn run(self) -> Result<u8> {
        match self.thing {
            Thing::Model(model) => model.run()?,
            Thing::Curves { runs, svg, gradients: true } => gradients(&runs, svg.as_deref())?,
            Thing::Curves { runs, svg, gradients: false } => curves(&runs, svg.as_deref())?,
            Thing::Filters(filters) => filters.run()?,
            Thing::Recipes => console::results(&recipes()?)?,
        }
        Ok(0)
    }
}

fn curves(folders: &[PathBuf], svg: Option<&Path>) -> Result<()> {
    let read = |folder: &PathBuf| {
        let (name, about) = (folder.display().to_string(), described(folder));
        Ok(Run { name, about, epochs: epochs::of_run(folder)? })
    };
    let runs = folders.iter().map(read).collect::<Result<Vec<_>>>()?;
    if let Some(file) = svg {
        if runs.len() > MOST_CURVES {
            let sentence = format!("--svg: a picture tells {MOST_CURVES} runs apart, not {}", runs.len());
            return Err(Error::usage(sentence));
        }
        let picture = match &runs[..] {
            [run] => alone(run).svg()?,
            several => stacked(&compared(several))?,
        };
        write("--svg", file, picture.as_bytes())?;
    }
    console::results(&curves_table::render(&runs))
}

fn gradients(folders: &[PathBuf], svg: Option<&Path>) -> Result<()> {
    let runs = folders.iter().map(|folder| Gradients::of_run(folder)).collect::<Result<Vec<_>>>()?;
    if let Some(file) = svg {
        write("--svg", file, stacked(&gradients::plots(&runs))?.as_bytes())?;
    }
    console::results(&gradients::tables(&runs))
}

/// Writes what a flag asked for.
pub(super) fn write(flag: &str, file: &Path, picture: &[u8]) -> Result<()> {
    std::fs::write(file, picture)
        .map_err(|error| Error::failed(format!("{flag}: {} cannot be written: {error}", file.display())))
}

/// What a run was, as far as its recipe can be read: `alexnet, model-parallel 1x2, bf16, batch 128`.
fn described(run: &Path) -> String {
    let read = || {
        let recipe = Layered::saved(&run.join(RECIPE))?.recipe()?;
        let (mesh, mode) = recipe.layout()?;
        let (precision, batch) = (recipe.train.precision.name(), recipe.train.batch_size);
        Ok(format!("{}, {mode} {mesh}, {precision}, batch {batch}", recipe.model.name))
    };
    read().unwrap_or_else(|problem: Error| format!("({problem})"))
}

fn recipes() -> Result<String> {
    let mut rows = table(&["recipe", "model", "epochs", "what it shows"], &[2]);
    for (name, _) in SHIPPED {
        let recipe = Layered::from_recipe(name)?.recipe()?;
        rows.add_row([recipe.name, recipe.model.name, recipe.train.epochs.to_string(), recipe.about]);
    }
    Ok(format!("{}\n{}", text(&rows), by_their_author()))
}

/// What the author of the networks of 2012 and 2014 measured: his figures, and nobody's with mpt.
fn by_their_author() -> String {
    let mut rows = table(&["recipe", "errors on ImageNet that Alex Krizhevsky measured"], &[]);
    for (name, _) in SHIPPED {
        if let Some(figures) = reported(name) {
            rows.add_row([name, &figures]);
        }
    }
    let note = "His figures, of his own program: single runs on the validation set of 2012, 0.2 to 0.4 apart when repeated. Nobody \
                has run these recipes on ImageNet with mpt.";
    format!("{}{note}\n", text(&rows))
}
