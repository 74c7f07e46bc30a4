//! `--resume`: which run goes on, from where, and with which settings.

use super::trained::{Trained, followed, newest, split_left_open};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::engine::job::model_of;
use crate::error::{Error, Result};
use crate::recipe::Layered;
use crate::report::console;
use crate::report::line::Line;
use crate::report::run_log::{RECIPE, check_links, newest_in, runs_of};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Value;

/// The value of `--resume` that stands for the newest run.
const AUTO: &str = "auto";

/// What a resumed run may have otherwise: keys, or sections that end in a dot. How long it goes on leaves the numbers of a
/// step as they are, and how the work is split does but for the order of sums: without a flag it stays as it was, to the
/// last bit. A data set may have moved.
const MAY_CHANGE: [&str; 11] = [
    "name",
    "about",
    "data.dir",
    "data.readers",
    "train.epochs",
    "train.steps",
    "train.max_time",
    "train.nonfinite",
    "parallel.",
    "checkpoint.",
    "metrics.",
];

/// What is looked at of a run that goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The settings that it was begun with alone, without a word.
    Settings,
    /// The checkpoint that it goes on from too, every byte of it.
    All,
}

/// A run that goes on.
pub struct Resume {
    /// Its folder.
    pub run: PathBuf,
    /// From where; `None`: from its start, or that was not looked at.
    pub checkpoint: Option<Arc<Checkpoint>>,
    saved: Layered,
}

impl Resume {
    /// The run that an argument of `--resume` names; `None` for `auto` where there is none yet, so that one command
    /// serves a job's first start and every other. `run_dir` is what `--run-dir` names, and `asked` gives the recipe
    /// and the model that are asked for, which `auto` goes by where it names nothing. Who looks at all also says what it
    /// did not find.
    ///
    /// # Errors
    /// There is no such run, or nothing in it is whole, or it has a link where it writes: names what was looked at.
    pub fn find(
        argument: &str,
        run_dir: Option<&Path>,
        look: Look,
        asked: impl FnOnce() -> Result<(String, String)>,
    ) -> Result<Option<Self>> {
        if argument != AUTO {
            return Self::named(Path::new(argument), run_dir, look).map(Some);
        }
        let run = match run_dir {
            Some(folder) => folder.to_owned(),
            None => {
                let (recipe, model) = asked()?;
                newest_in(&runs_of(&recipe, &model))
            }
        };
        let is_one = run.join(RECIPE).exists();
        if look == Look::Settings {
            return is_one.then(|| Self::from(followed(&run), None)).transpose();
        }
        if !is_one {
            console::say(&format!("nothing to resume: {} holds no run; a new one begins", run.display()));
            return Ok(None);
        }
        let found = Self::newest(followed(&run))?;
        if found.checkpoint.is_none() {
            console::say(&format!("{} holds no checkpoint; the run begins again", found.run.display()));
        }
        Ok(Some(found))
    }

    /// The run, or the checkpoint, at a path.
    fn named(path: &Path, run_dir: Option<&Path>, look: Look) -> Result<Self> {
        if run_dir.is_some_and(|folder| folder != path) {
            let shown = path.display();
            return Err(Error::usage(format!(
                "--run-dir: a run goes on where it lies; leave this out, as --resume {shown} names the run"
            )));
        }
        let found = Trained::named(path).and_then(|trained| {
            let checkpoint = (look == Look::All).then(|| trained.checkpoint()).transpose()?;
            Ok((checkpoint, trained))
        });
        let (checkpoint, Trained { run, saved, .. }) = found.map_err(|error| error.within("--resume"))?;
        check_links(&run)?;
        Ok(Self { run, checkpoint: checkpoint.map(Arc::new), saved })
    }

    /// What another rank of this run has found: a checkpoint, or a run that begins again.
    ///
    /// # Errors
    /// It is not to be found here.
    pub fn at(path: &Path) -> Result<Self> {
        if Checkpoint::is_one(path) { Self::named(path, None, Look::All) } else { Self::from(path.to_owned(), None) }
    }

    /// Leaves behind what the run did after the checkpoint that it goes on from, as its record does.
    ///
    /// # Errors
    /// The file system's.
    pub fn leave_behind(&self) -> Result<()> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let behind = Checkpoints::of_run(&self.run).go_back_to(&checkpoint.state);
        behind.map_err(|error| Error::failed(format!("{}: {error}", self.run.display())))
    }

    /// The path by which [`Resume::at`] finds it again.
    pub fn path(&self) -> &Path {
        self.checkpoint.as_ref().map_or(&self.run, |checkpoint| &checkpoint.folder)
    }

    /// A run from its newest checkpoint that is whole, with a word about those that are not.
    fn newest(run: PathBuf) -> Result<Self> {
        let checkpoint = newest(&run)?;
        Self::from(run, checkpoint)
    }

    fn from(run: PathBuf, checkpoint: Option<Checkpoint>) -> Result<Self> {
        check_links(&run)?;
        let saved = Layered::saved(&run.join(RECIPE))?;
        Ok(Self { run, checkpoint: checkpoint.map(Arc::new), saved })
    }

    /// The settings that the run goes on with: those it was begun with, and over them what `lay` lays. With `any_change` it may
    /// become another run.
    ///
    /// # Errors
    /// What `lay` reports, or a setting that would change the numbers of a run half done: names it with both values.
    pub fn settings(&self, any_change: bool, lay: impl Fn(&mut Layered) -> Result<()>) -> Result<Layered> {
        let mut layered = self.saved.clone();
        lay(&mut layered)?;
        let (begun, asked) = (self.saved.recipe()?.parallel, layered.recipe()?.parallel);
        if (begun.devices, begun.mode, begun.mesh) != (asked.devices, asked.mode, asked.mesh) {
            // The rest of how the run was laid out was not asked for, and may not go with what is.
            let devices = if begun.mesh == asked.mesh { begun.devices } else { 0 };
            layered = split_left_open(&self.saved, devices)?;
            lay(&mut layered)?;
        }
        let asked = layered.recipe()?;
        if asked.model.classes_of_data {
            layered.set(&format!("model.classes={}", model_of(&asked)?.classes()), "resumed")?;
        }
        let precision = asked.train.precision.resolved().name();
        layered.set(&format!("train.precision={precision}"), "resumed")?;
        let mut differences = self.saved.differences(&layered).into_iter();
        match differences.find(|(key, ..)| !any_change && !is_among(key, &MAY_CHANGE)) {
            Some((key, begun, asked)) => Err(Error::usage(format!(
                "{}; --allow-changes goes on all the same",
                self.refused(&key, &begun, &asked)
            ))),
            None => Ok(layered),
        }
    }

    /// What the run has otherwise than it was begun with, for people.
    pub fn changes(&self, effective: &Layered) -> Vec<Line> {
        let changed = |(key, begun, goes_on): (String, Value, Value)| {
            let free = is_among(&key, &MAY_CHANGE);
            let effect = if free { "" } else { ", which makes the numbers another run's" };
            let line = Line::new("changed", format!("{key}: {goes_on} instead of {begun}{effect}"));
            line.with("key", key).with("begun", json!(begun)).with("now", json!(goes_on)).with("free", free)
        };
        self.saved.differences(effective).into_iter().map(changed).collect()
    }

    /// Refuses another recipe than the one that the run was begun with.
    ///
    /// # Errors
    /// It is another.
    pub fn check_recipe(&self, asked: &str) -> Result<()> {
        let (begun, asked) = (self.saved.recipe()?.name, Layered::from_recipe(asked)?.recipe()?.name);
        if begun == asked {
            return Ok(());
        }
        Err(Error::usage(self.refused("the recipe", &Value::String(begun), &Value::String(asked))))
    }

    fn refused(&self, key: &str, begun: &Value, asked: &Value) -> String {
        let run = self.run.display();
        format!(
            "--resume: {key} was {begun} when {run} was begun and cannot become {asked}: the numbers would be another \
             run's"
        )
    }
}

/// Whether a key is among these, of which those that end in a dot stand for a section.
pub(super) fn is_among(key: &str, keys: &[&str]) -> bool {
    keys.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
}
