//! `mpt show`.

use crate::error::Result;
use crate::model::parse::Edits;
use crate::model::shipped;
use crate::recipe::{Layered, SHIPPED};
use crate::report::table::{table, text};
use crate::report::{console, model_table};
use clap::{Args, Subcommand};

/// Arguments of `mpt show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(subcommand)]
    thing: Thing,
}

#[derive(Debug, Subcommand)]
enum Thing {
    /// The layers of models, side by side: output shapes, parameters, multiply-accumulates
    Model {
        /// Shipped models, or files ending in .toml [default: a list of the shipped ones]
        #[arg(value_name = "NAME|FILE")]
        models: Vec<String>,
    },
    /// The shipped recipes and what each shows
    Recipes,
}

impl Show {
    /// Prints what was asked for.
    ///
    /// # Errors
    /// A model cannot be read.
    pub fn run(self) -> Result<u8> {
        match self.thing {
            Thing::Model { models } if models.is_empty() => {
                console::results(&shipped::names().map(|name| format!("{name}\n")).collect::<String>())?;
            }
            Thing::Model { models } => {
                let models = models.iter().map(|name| shipped::load(name, &Edits::default()));
                console::results(&model_table::render(&models.collect::<Result<Vec<_>>>()?))?;
            }
            Thing::Recipes => console::results(&recipes()?)?,
        }
        Ok(0)
    }
}

fn recipes() -> Result<String> {
    let mut rows = table(&["recipe", "model", "epochs", "what it shows"], &[2]);
    for (name, _) in SHIPPED {
        let recipe = Layered::from_recipe(name)?.recipe()?;
        rows.add_row([recipe.name, recipe.model.name, recipe.train.epochs.to_string(), recipe.about]);
    }
    Ok(text(&rows))
}
