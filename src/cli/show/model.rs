//! `mpt show model`.

use super::write;
use crate::cli::options::{What, Where};
use crate::error::{Error, Result};
use crate::model::parse::Edits;
use crate::model::shipped;
use crate::plan::plan;
use crate::report::{console, diagram, model_table};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `mpt show model`.
#[derive(Debug, Args)]
pub struct ShowModel {
    /// Shipped models, or files ending in .toml [default: a list of the shipped ones; with --svg: alexnet]
    #[arg(value_name = "NAME|FILE")]
    models: Vec<String>,
    /// Draw one model into this file: a lane for each device or tower, and arrows for what they exchange
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

impl ShowModel {
    /// Prints tables of the models, or a list of those that there are, and draws the picture.
    ///
    /// # Errors
    /// A model cannot be read, or not be laid out over the devices, or the picture cannot be written.
    pub fn run(self) -> Result<()> {
        self.place.which.on_cpu("show model")?;
        let Some(file) = &self.svg else {
            if !self.place.is_open() {
                return Err(Error::usage(
                    "--gpus, --mode and --mesh say how a picture is split: add --svg FILE, or use `mpt plan`",
                ));
            }
            return console::results(&self.table()?);
        };
        let [name] = self.models.as_slice() else {
            return match self.models.len() {
                0 => self.draw("alexnet", file),
                more => Err(Error::usage(format!("--svg: a picture shows one model, not {more}"))),
            };
        };
        self.draw(name, file)
    }

    fn table(&self) -> Result<String> {
        if self.models.is_empty() {
            return Ok(shipped::names().map(|name| format!("{name}\n")).collect());
        }
        let models = self.models.iter().map(|name| shipped::load(name, &Edits::default()));
        Ok(model_table::render(&models.collect::<Result<Vec<_>>>()?))
    }

    fn draw(&self, name: &str, file: &Path) -> Result<()> {
        let model = shipped::load(name, &Edits::default())?;
        let (mesh, mode) = What::default().recipe(&self.place)?.recipe()?.layout()?;
        write("--svg", file, diagram::draw(&plan(&model, mesh, mode)?).as_bytes())?;
        console::results(&model_table::render(&[model]))
    }
}
