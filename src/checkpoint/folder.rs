//! A run's checkpoints: `RUN/checkpoints/step-00000469/`.
//!
//! A checkpoint is written into a hidden folder beside its place, each file made to reach the disk, `state.json` last,
//! and the folder then renamed: under its name it is whole, whatever happened when. Only then are older ones removed.

use super::state::{About, Best, FORMAT, Position, State};
use super::tensors::{FileSum, TensorFile};
use crate::error::{Error, Result};
use crate::file;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The folder in a run directory.
pub const FOLDER: &str = "checkpoints";
/// What a checkpoint's name begins with; the number of steps follows.
const PREFIX: &str = "step-";
/// What the name of an unfinished one begins with.
const UNFINISHED: &str = ".step-";
/// The link to the one that evaluated best.
pub const BEST: &str = "best";
/// Its name until it takes the place of the one before.
const NEXT_BEST: &str = ".best";
/// The file of the weights in full precision.
pub const MODEL: &str = "model.safetensors";
/// The file of the velocities.
pub const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// What a checkpoint is made of.
pub struct Content {
    /// Where the run stands.
    pub position: Position,
    /// The learning rate of its next step.
    pub learning_rate: f64,
    /// The checkpoint that is the best so far.
    pub best: Option<Best>,
    /// What was run.
    pub about: About,
    /// Its files, which are on the disk.
    pub files: BTreeMap<String, FileSum>,
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it lies.
    pub folder: PathBuf,
    /// What it says of itself.
    pub state: State,
    /// The weights in full precision.
    pub model: TensorFile,
    /// The velocities, where there was momentum.
    pub optimizer: Option<TensorFile>,
}

impl Checkpoints {
    /// The checkpoints in a run directory.
    pub fn of_run(run: &Path) -> Self {
        Self { folder: run.join(FOLDER) }
    }

    /// Where the checkpoint of a step lies until it is whole.
    pub fn unfinished(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{UNFINISHED}{step:08}"))
    }

    /// Makes the folder of a checkpoint that is to be written, after it has removed what a crash left unfinished.
    ///
    /// # Errors
    /// The file system's.
    pub fn begin(&self, step: u64) -> Result<PathBuf> {
        let unfinished = self.unfinished(step);
        let begun =
            file::folder_in_place(&self.folder).and_then(|()| self.clear()).and_then(|()| fs::create_dir(&unfinished));
        begun.map(|()| unfinished).map_err(|error| self.fault(&error))
    }

    /// Removes a checkpoint that cannot be written: what a full disk could not take should not go on filling it. If that
    /// fails too, the next one tries.
    pub fn abandon(&self, step: u64) {
        let _ = fs::remove_dir_all(self.unfinished(step));
    }

    /// Writes the last file of a checkpoint and gives it its name.
    ///
    /// # Errors
    /// The file system's; then what was there is there still.
    pub fn finish(&self, content: Content) -> Result<()> {
        let step = content.position.step;
        let (unfinished, place) = (self.unfinished(step), self.at(step));
        write_state(&unfinished, content)?;
        let install = || {
            // A damaged one, or one that a run which went on from an earlier one has come to again.
            remove(&place)?;
            fs::rename(&unfinished, &place)?;
            sync(&self.folder)
        };
        install().map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &io::Error) -> Error {
        Error::failed(format!("{}: {error}", self.folder.display()))
    }

    /// Removes what a crash left unfinished.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Where the checkpoint of a step lies.
    pub fn at(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    /// Removes what is not among the `keep` newest up to a step, nor the best: older ones, and those of later steps, which a
    /// run that went on from an earlier one has left behind.
    ///
    /// # Errors
    /// The file system's; what was not removed the next call tries again.
    pub fn thin_out(&self, newest: u64, keep: usize, best: Option<u64>) -> io::Result<()> {
        let mut kept = 0;
        for (step, folder) in self.list()? {
            let is_new = step <= newest && kept < keep;
            kept += usize::from(is_new);
            if !is_new && best != Some(step) {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    }

    /// Goes back to a checkpoint: those of later steps are hidden, as unfinished ones are, and removed when the next one is
    /// begun; else the newest would be one that the run has left behind.
    ///
    /// # Errors
    /// The file system's.
    pub fn go_back_to(&self, state: &State) -> io::Result<()> {
        for (step, folder) in self.list()?.into_iter().filter(|(step, _)| *step > state.position.step) {
            remove(&self.unfinished(step))?;
            fs::rename(folder, self.unfinished(step))?;
        }
        // A file system without links has none that could lead to what is hidden.
        let _ = self.link(state.best.map(|best| best.step));
        Ok(())
    }

    /// Lets the link `best` lead to the checkpoint of a step; where there is none, the link is no more.
    ///
    /// # Errors
    /// The file system's: some have no links. Names the link.
    pub fn link(&self, best: Option<u64>) -> Result<()> {
        let link = self.folder.join(BEST);
        self.link_at(&link, best).map_err(|error| Error::failed(format!("{}: {error}", link.display())))
    }

    fn link_at(&self, link: &Path, best: Option<u64>) -> io::Result<()> {
        let next = self.folder.join(NEXT_BEST);
        let target = best.map(|step| self.at(step)).filter(|place| place.is_dir());
        let Some(name) = target.as_ref().and_then(|place| place.file_name()) else {
            return if link.is_symlink() { fs::remove_file(link) } else { Ok(()) };
        };
        if link.read_link().is_ok_and(|found| found == name) {
            return Ok(());
        }
        // There is one if a crash came before it took its place.
        remove(&next)?;
        symlink(name, &next)?;
        fs::rename(next, link)
    }

    /// The steps and folders of all checkpoints, the newest first. A file of such a name is none, nor is a link, which may
    /// lead anywhere.
    ///
    /// # Errors
    /// The file system's.
    pub fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let step = |name: &str| name.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.extend(entry.file_name().to_str().and_then(step).map(|step| (step, entry.path())));
            }
        }
        found.sort_unstable_by(|a: &(u64, PathBuf), b| b.cmp(a));
        Ok(found)
    }

    /// The newest checkpoint that is whole, `None` if there is none at all; tells `warn` of damaged ones.
    ///
    /// # Errors
    /// There are checkpoints, but all are damaged: what is wrong with the newest.
    pub fn newest(&self, warn: &mut dyn FnMut(&Error)) -> Result<Option<Checkpoint>> {
        let found =
            self.list().map_err(|error| Error::failed(format!("{} cannot be read: {error}", self.folder.display())))?;
        let mut first = None;
        for (_, folder) in found {
            match Checkpoint::open(&folder) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    warn(&error);
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(None), |error| Err(error.within("no checkpoint is whole")))
    }
}

/// The name of the checkpoint of a step.
pub fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

fn write_state(folder: &Path, content: Content) -> Result<()> {
    let Content { position, learning_rate, best, about: run, files } = content;
    let (mpt, learning_rate) = (env!("CARGO_PKG_VERSION").to_owned(), Some(learning_rate));
    State { format: FORMAT, mpt, position, learning_rate, best, run, files }.write(&folder.join(STATE))?;
    sync(folder).map_err(|error| Error::failed(format!("{}: {error}", folder.display())))
}

/// Removes what lies at a path, if anything does: a folder with all that is in it, a file, or a link and not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the names in a folder are on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Checkpoint {
    /// Opens a checkpoint, after a look at every byte of it.
    ///
    /// # Errors
    /// Names the file that is missing, damaged or of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let state = State::read(&folder.join(STATE))?;
        let open = |name: &str| state.files.get(name).map(|sum| TensorFile::open(&folder.join(name), sum)).transpose();
        let (model, optimizer) = (open(MODEL)?, open(OPTIMIZER)?);
        let model = model.ok_or_else(|| {
            Error::failed(format!("{} is damaged: it does not speak of {MODEL}", folder.join(STATE).display()))
        })?;
        Ok(Self { folder: folder.to_owned(), state, model, optimizer })
    }

    /// Whether a folder looks like a checkpoint, whole or not.
    pub fn is_one(folder: &Path) -> bool {
        folder.join(STATE).exists() || folder.join(MODEL).exists()
    }
}
