//! `mpt export`.

use super::trained::Trained;
use crate::checkpoint::{Checkpoint, WeightFile, export};
use crate::engine::saving::described;
use crate::error::{Error, Result};
use crate::model::names::{Naming, first_branch};
use crate::model::{Model, shipped};
use crate::recipe::duration::show_bytes;
use crate::report::console;
use crate::report::table::commas;
use clap::{Args, ValueEnum};
use std::collections::HashMap;
use std::path::PathBuf;

/// Arguments of `mpt export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The folder of a run, for its newest checkpoint that is whole, or the folder of one of its checkpoints
    #[arg(value_name = "RUN|CHECKPOINT")]
    trained: PathBuf,
    /// The file to write, in the format safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the tensors are called
    #[arg(long, value_enum, value_name = "sequential|layers", default_value_t, hide_possible_values = true)]
    names: Names,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// What tensors are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Names {
    #[default]
    Sequential,
    Layers,
}

impl Export {
    /// Writes the file, and says on stdout what it holds.
    ///
    /// # Errors
    /// The request cannot be carried out, or the file cannot be written.
    pub fn run(self) -> Result<u8> {
        let trained = Trained::named(&self.trained)?;
        let recipe = trained.saved.recipe()?;
        let model = shipped::load(&recipe.model.name, &recipe.model.edits)?;
        let naming = self.naming(&model)?;
        if self.out.exists() && !self.force {
            let out = self.out.display();
            return Err(Error::usage(format!("--out: {out} is there already; --force writes over it")));
        }
        let Checkpoint { state, model: weights, .. } = trained.checkpoint()?;
        let weights = WeightFile::fitting(weights, &model, &described(&model))?;
        let names: HashMap<String, String> = Naming::Layers.of(&model).into_iter().zip(naming.of(&model)).collect();
        let bytes = export::export(weights.file(), |name| names[name].clone(), &self.out)
            .map_err(|error| error.within("--out"))?;
        console::results(&format!(
            "{}: {} after step {}, {} tensors under {naming}, {}\n",
            self.out.display(),
            model.name,
            commas(state.position.step),
            names.len(),
            show_bytes(bytes)
        ))?;
        Ok(0)
    }

    fn naming(&self, model: &Model) -> Result<Naming> {
        match (self.names, first_branch(model)) {
            (Names::Layers, _) => Ok(Naming::Layers),
            (Names::Sequential, None) => Ok(Naming::Sequential),
            (Names::Sequential, Some(branch)) => Err(Error::usage(format!(
                "model {} is no sequence of layers, for {} does not read the layer before it alone: use --names layers",
                model.name, branch.name
            ))),
        }
    }
}
