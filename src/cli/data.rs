//! `mpt data`.

use super::options::{What, Where, set};
use crate::data::images::files;
use crate::data::names::MOST_NAMED;
use crate::data::prepare::statistics::Statistics;
use crate::data::{Source, Subset, pack};
use crate::engine::data_sets;
use crate::engine::job::model_of;
use crate::error::{Error, Result};
use crate::events::StopReason;
use crate::launch::control::{Control, exit_code};
use crate::recipe::Recipe;
use crate::recipe::duration::show_bytes;
use crate::report::console;
use crate::report::line::Line;
use crate::report::table::{commas, table, text};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `mpt data`.
#[derive(Debug, Args)]
pub struct Data {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The mean, the spread, the mean image and the principal colours of a training set, into a file that data.statistics names
    ///
    /// Of the recipe's training set, as its images are stored (data.side), before anything is done to them at random.
    Stats {
        #[command(flatten)]
        which: DataSet,
        /// Write them to this file, in the format safetensors
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Any data set as a folder of JPEG files, as --set data.source=images reads them
    ///
    /// The recipe's training set comes into DIR/train, its test set into DIR/test, each class into a folder of its number.
    Files {
        #[command(flatten)]
        which: DataSet,
        /// The quality of the JPEG files, 1 to 100
        #[arg(long, value_name = "N", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
        quality: u8,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// The images of a data set, decoded, in one file: train on it with --set data.source=pack --data-dir FILE
    ///
    /// Of the recipe's training and test set, as their images are stored (data.side), before anything is done to them at random.
    /// Images that cannot be read are named and left out. The file has the format safetensors.
    Pack {
        #[command(flatten)]
        which: DataSet,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Of which recipe the data set is, and where its files are.
#[derive(Debug, Args)]
struct DataSet {
    #[command(flatten)]
    what: What,
    /// The folder of the data set's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

impl DataSet {
    fn recipe(&self) -> Result<Recipe> {
        let mut layered = self.what.recipe(&Where::default())?;
        set(&mut layered, "--data-dir", "data.dir", self.data_dir.as_ref())?;
        self.what.assign(&mut layered)?;
        layered.recipe()
    }
}

impl Data {
    /// Does what was asked for, and prints what came of it on stdout.
    ///
    /// # Errors
    /// The data set cannot be read, or a file cannot be written.
    pub fn run(self) -> Result<u8> {
        match self.task {
            Task::Stats { which, out } => {
                let recipe = which.recipe()?;
                let source = opened(&recipe, Subset::Train)?;
                console::say(&format!("reading {} images", commas(source.len() as u64)));
                let (found, unread) = Statistics::of(source.as_ref())?;
                tell_left_out(&unread);
                found.write(&out)?;
                console::results(&shown(&found))?;
                console::say(&format!("written: {}; use it with --set data.statistics=FILE", out.display()));
                Ok(0)
            }
            Task::Files { which, quality, out } => {
                let recipe = which.recipe()?;
                let sources = [opened(&recipe, Subset::Train)?, opened(&recipe, Subset::Test)?];
                for (source, name) in sources.iter().zip(["train", "test"]) {
                    let folder = out.join(name);
                    console::say(&format!("writing {} images to {}", commas(source.len() as u64), folder.display()));
                    tell_left_out(&files::write(source.as_ref(), &folder, quality)?);
                }
                Ok(0)
            }
            Task::Pack { which, out } => pack(&which.recipe()?, &out),
        }
    }
}

/// Packs the data set of a recipe. A signal ends it after a few images, and leaves nothing.
fn pack(recipe: &Recipe, out: &Path) -> Result<u8> {
    let control = Control::default();
    control.catch_signals()?;
    let [train, test] = [opened(recipe, Subset::Train)?, opened(recipe, Subset::Test)?];
    let names = data_sets::class_names(&recipe.data)?;
    let (all, mut told) = (train.len() + test.len(), 0);
    console::say(&format!("packing {} images", commas(all as u64)));
    let packed = pack::write::write(out, [train.as_ref(), test.as_ref()], &names, &mut |read| {
        if 10 * read / all > told {
            told = 10 * read / all;
            console::say(&format!("{} of {}", commas(read as u64), commas(all as u64)));
        }
        control.wish().map_or(Ok(()), |_| Err(Error::failed("a signal ended it")))
    });
    let packed = match (packed, control.wish()) {
        (Err(error), Some(StopReason::Signal(signal))) => {
            console::say(&format!("{error}; nothing is left of it"));
            return Ok(exit_code(signal));
        }
        (packed, _) => packed?,
    };
    tell_left_out(&packed.left_out);
    let [train, test] = packed.counts.map(|count| commas(count as u64));
    let size = show_bytes(packed.bytes);
    console::results(&format!("{train} training and {test} test images, {size}: {}\n", out.display()))?;
    Ok(0)
}

/// A subset of the data set of a recipe, with a word about what is left out of it.
fn opened(recipe: &Recipe, subset: Subset) -> Result<Arc<dyn Source>> {
    let source = data_sets::open(recipe, &model_of(recipe)?, subset)?;
    source.remarks().iter().for_each(console::warn);
    Ok(source)
}

/// Says which images were left out and why, of very many only how many.
fn tell_left_out(problems: &[String]) {
    let line = |problem: &String| Line::warning(format!("left out: {problem}")).with("problem", problem.as_str());
    problems.iter().take(MOST_NAMED).for_each(|problem| console::say(line(problem)));
    if problems.len() > MOST_NAMED {
        console::warn(format!("{} more images were left out", problems.len() - MOST_NAMED));
    }
}

/// In 0 to 255, as images are stored.
fn shown(found: &Statistics) -> String {
    let number = |value: f64| format!("{:.2}", 255.0 * value);
    let mut channels = table(&["channel", "mean", "standard deviation"], &[1, 2]);
    for (channel, (mean, deviation)) in found.mean.iter().zip(&found.deviation).enumerate() {
        channels.add_row([channel.to_string(), number((*mean).into()), number((*deviation).into())]);
    }
    let Some(axes) = found.colours else { return text(&channels) };
    let mut colours = table(&["principal colour", "standard deviation", "red, green, blue"], &[1]);
    for (axis, part) in axes.iter().enumerate() {
        let length = part.iter().map(|part| part * part).sum::<f64>().sqrt();
        let unit = part.map(|part| format!("{:.4}", if length > 0.0 { part / length } else { 0.0 }));
        colours.add_row([(axis + 1).to_string(), number(length), unit.join(", ")]);
    }
    format!("{}\n{}", text(&channels), text(&colours))
}
