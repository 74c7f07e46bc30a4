//! A run, or one of its checkpoints, as an argument names it.

use crate::checkpoint::folder::{BEST, FOLDER};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::error::{Error, Result};
use crate::recipe::Layered;
use crate::report::console;
use crate::report::run_log::RECIPE;
use std::path::{Path, PathBuf};

/// A run that was found.
pub struct Trained {
    /// Its folder.
    pub run: PathBuf,
    /// The settings that it was begun with.
    pub saved: Layered,
    /// The checkpoint that was named; `None`: its newest one that is whole.
    named: Option<PathBuf>,
}

impl Trained {
    /// The run at a path, which is its folder or that of one of its checkpoints.
    ///
    /// # Errors
    /// There is none, or its settings cannot be read.
    pub fn named(path: &Path) -> Result<Self> {
        let shown = path.display();
        if path.join(RECIPE).exists() {
            return Self::from(followed(path), None);
        }
        if !Checkpoint::is_one(path) {
            if let Some(run) = run_without_best(path) {
                return Err(Error::usage(format!(
                    "{shown} is not there: no checkpoint of the run has been evaluated yet, or its file system has no links; \
                     the run said which is the best, and {} has those that are kept",
                    run.join(FOLDER).display()
                )));
            }
            return Err(Error::usage(format!(
                "{shown} is neither a run directory ({RECIPE} is not in it) nor a checkpoint"
            )));
        }
        let whole = path.canonicalize().map_err(|error| Error::usage(format!("{shown}: {error}")))?;
        match whole.parent().and_then(Path::parent).filter(|run| run.join(RECIPE).exists()) {
            Some(run) => Self::from(run.to_owned(), Some(whole.clone())),
            None => Err(Error::usage(format!(
                "{shown} does not lie in the folder `checkpoints` of a run, where {RECIPE} says what was trained"
            ))),
        }
    }

    fn from(run: PathBuf, named: Option<PathBuf>) -> Result<Self> {
        let saved = Layered::saved(&run.join(RECIPE))?;
        Ok(Self { run, saved, named })
    }

    /// The checkpoint that was named, or the newest one that is whole, with a word about those that are not.
    ///
    /// # Errors
    /// It is damaged, or there is none.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        match &self.named {
            Some(folder) => Checkpoint::open(folder),
            None => newest(&self.run)?
                .ok_or_else(|| Error::usage(format!("the run {} holds no checkpoint", self.run.display()))),
        }
    }
}

/// The run whose best checkpoint a path names, though it is not there.
fn run_without_best(path: &Path) -> Option<&Path> {
    let run = path.parent()?.parent()?;
    (path.ends_with(Path::new(FOLDER).join(BEST)) && !path.is_symlink() && run.join(RECIPE).exists()).then_some(run)
}

/// Settings with how the work is split left open but for the number of devices; 0: left open too.
///
/// # Errors
/// They are not sound.
pub fn split_left_open(saved: &Layered, devices: usize) -> Result<Layered> {
    let mut layered = saved.clone();
    for open in [&format!("devices={devices}"), "mode=auto", "mesh=auto", "threads=0", "own_half=auto"] {
        layered.set(&format!("parallel.{open}"), "the run's settings")?;
    }
    Ok(layered)
}

/// A run's newest checkpoint that is whole, with a word about those that are not.
///
/// # Errors
/// There are some, but all are damaged.
pub fn newest(run: &Path) -> Result<Option<Checkpoint>> {
    Checkpoints::of_run(run).newest(&mut |damage| console::warn(format!("left out: {damage}")))
}

/// The folder that a link like `latest` leads to now: the link may lead elsewhere later.
pub fn followed(path: &Path) -> PathBuf {
    match (path.read_link(), path.parent()) {
        (Ok(target), Some(parent)) => parent.join(target),
        _ => path.to_owned(),
    }
}
