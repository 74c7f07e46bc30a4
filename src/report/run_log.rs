//! The run directory: the effective recipe, one line of JSON for every step and epoch, the same for TensorBoard, and the
//! curves.
//!
//! A run that cannot be recorded is still a run, and none waits for its record: see `background` and `record`.

mod appender;
mod background;
mod lines;
mod record;
mod tensorboard;

use super::console;
use super::line::Line;
use crate::checkpoint::{self, Position};
use crate::error::{Error, Result};
use crate::events::{Bottleneck, Event};
use crate::file;
use appender::Appender;
use background::Background;
use lines::Kept;
use record::{Entry, Record};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tensorboard::EventFile;

/// The effective recipe: its presence says that a folder holds a run.
pub const RECIPE: &str = "recipe.toml";
/// One line of JSON for every step and epoch.
pub const METRICS: &str = "metrics.jsonl";
/// The folder of what ranks that are processes say.
pub const LOGS: &str = "logs";
const CURVES: &str = "curves.svg";
/// Beside the numbered runs, a link to the newest.
const LATEST: &str = "latest";

/// Lines that wait for a slow disk before those of steps are left out: some megabytes.
const MOST_WAITING: usize = 4096;
/// How long the end of a run waits for its record.
const LAST_LINES: Duration = Duration::from_secs(5);

/// The record of a run.
pub struct RunLog {
    folder: PathBuf,
    devices: Vec<String>,
    writer: Background<Entry>,
    /// The steps done.
    step: u64,
    /// What bounded the epoch that is about to be told of.
    bottleneck: Option<Bottleneck>,
    /// Lines that the disk was too slow for.
    left_out: u64,
    /// Lines that the disk had no room for.
    missing: Arc<AtomicU64>,
}

impl RunLog {
    /// Begins a record in `folder`, which must not hold one yet.
    ///
    /// # Errors
    /// The folder holds a run already, or a link where a run writes, or cannot be written.
    pub fn in_folder(folder: &Path, recipe: &str, devices: &[String]) -> Result<Self> {
        if folder.join(RECIPE).exists() {
            let folder = folder.display();
            return Err(Error::usage(format!(
                "--run-dir: {folder} holds a run already; name another folder, or go on with that run: --resume {folder}"
            )));
        }
        check_links(folder)?;
        let begun = fs::create_dir_all(folder).and_then(|()| Self::begin(folder, recipe, devices));
        begun.map_err(|error| Error::failed(format!("--run-dir: {} cannot be written: {error}", folder.display())))
    }

    /// Begins a record in the next numbered folder of `parent`, with a link `latest` to it.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn numbered(parent: &Path, recipe: &str, devices: &[String]) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let taken = fs::read_dir(parent)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut number = taken.max().unwrap_or(0).saturating_add(1);
        let folder = loop {
            let folder = parent.join(format!("{number:03}"));
            match fs::create_dir(&folder) {
                Ok(()) => break folder,
                // Another run has begun at the same moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        };
        let log = Self::begin(&folder, recipe, devices)?;
        let fresh = parent.join(format!(".{LATEST}-{number:03}"));
        // A convenience: a run is recorded without it as well.
        let _ = symlink(format!("{number:03}"), &fresh).and_then(|()| fs::rename(&fresh, parent.join(LATEST)));
        Ok(log)
    }

    /// Goes on with the record in `folder`, without what it tells of steps after `position`: they will be done again.
    ///
    /// # Errors
    /// Another process still writes to the record, or it cannot be written.
    pub fn resumed(folder: &Path, recipe: &str, devices: &[String], position: &Position) -> Result<Self> {
        let fault = |error: io::Error| Error::failed(format!("{} cannot be written: {error}", folder.display()));
        let options = &mut File::options();
        let options = options.read(true).append(true).create(true);
        let metrics = file::open_in_place(&folder.join(METRICS), options).map_err(fault)?;
        file::check(&metrics).map_err(fault)?;
        if let Err(TryLockError::WouldBlock) = metrics.try_lock() {
            return Err(Error::usage(format!("{} is the record of a run that still goes on", folder.display())));
        }
        let kept = Kept::of(&metrics, position).map_err(fault)?;
        metrics.set_len(kept.length).and_then(|()| Self::write_recipe(folder, recipe)).map_err(fault)?;
        Self::go_on(folder, metrics, devices, position.step, kept).map_err(fault)
    }

    fn begin(folder: &Path, recipe: &str, devices: &[String]) -> io::Result<Self> {
        let options = &mut File::options();
        let metrics = file::open_in_place(&folder.join(METRICS), options.write(true).create(true).truncate(true))?;
        // For `resumed`. A file system that has no locks has no such help.
        let _ = metrics.try_lock();
        Self::write_recipe(folder, recipe)?;
        Self::go_on(folder, metrics, devices, 0, Kept::default())
    }

    /// Goes on after `step` steps, behind what is kept of the lines in `metrics`.
    fn go_on(folder: &Path, metrics: File, devices: &[String], step: u64, kept: Kept) -> io::Result<Self> {
        let missing = Arc::new(AtomicU64::new(0));
        let events = EventFile::new(folder, step, &kept.of_last_step);
        let metrics = Appender::new(metrics, kept.length);
        let counter = Arc::clone(&missing);
        let mut record = Record::new(folder.to_owned(), CURVES, metrics, events, kept.epochs, counter);
        let writer = Background::start("run log", MOST_WAITING, move |entry| record.take(entry))?;
        Ok(Self {
            folder: folder.to_owned(),
            devices: devices.to_vec(),
            writer,
            step,
            bottleneck: None,
            left_out: 0,
            missing,
        })
    }

    fn write_recipe(folder: &Path, recipe: &str) -> io::Result<()> {
        // Under its name only when it is whole: its presence says that the folder holds a run.
        file::replace(&folder.join(RECIPE), &folder.join(format!(".{RECIPE}")), recipe.as_bytes())
    }

    /// The folder of this run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Records an event, without waiting for the disk.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                self.step = step.step;
                if !self.writer.offer(Entry::Line(lines::step(step, &self.devices))) {
                    self.leave_out();
                }
            }
            Event::Bottleneck(bottleneck) => self.bottleneck = Some(bottleneck.clone()),
            Event::Epoch(epoch) => {
                // Of this epoch only: one that has nothing left but its evaluation has none.
                let bottleneck = self.bottleneck.take().filter(|found| found.epoch == epoch.epoch);
                self.writer.insist(Entry::Line(lines::epoch(epoch, self.step, bottleneck.as_ref())));
            }
            // A resumed run needs the lines before its checkpoint.
            Event::Saved(_) => {
                self.writer.insist(Entry::Sync);
            }
            _ => {}
        }
    }

    fn leave_out(&mut self) {
        if self.left_out == 0 {
            let (folder, step) = (self.folder.display(), self.step);
            let message = format!("the record in {folder} has a gap: the disk is too slow from step {step} on");
            console::warn(format!("{message}; training goes on"));
        }
        self.left_out += 1;
    }
}

impl Drop for RunLog {
    /// Waits for what is not written yet, but no longer than a person does.
    fn drop(&mut self) {
        self.writer.insist(Entry::Draw);
        let left = self.writer.finish(LAST_LINES);
        let lines = left.waiting.iter().filter(|entry| matches!(entry, Entry::Line(_))).count();
        let unwritten = lines as u64 + u64::from(left.at_hand);
        let missing = self.left_out + unwritten + self.missing.load(Ordering::Relaxed);
        if missing > 0 {
            let folder = self.folder.display().to_string();
            let line = Line::warning(format!("{missing} line(s) are missing in the record in {folder}"));
            console::say(line.with("folder", folder).with("missing", missing));
        }
    }
}

/// The newest of the numbered runs in a folder, which need not be there.
pub fn newest_in(parent: &Path) -> PathBuf {
    let latest = parent.join(LATEST);
    // On a file system without links the highest number is the newest.
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let numbered = entries.filter(|_| !latest.is_symlink()).max_by_key(number).filter(|path| number(path).is_some());
    numbered.unwrap_or(latest)
}

/// Sees that nothing of a folder that a run writes to where it lies is a link: the folder may come from anyone. All else is
/// put in the place of what was there.
///
/// # Errors
/// One is: names it.
pub fn check_links(folder: &Path) -> Result<()> {
    let linked = [METRICS, LOGS, checkpoint::folder::FOLDER].map(|name| folder.join(name));
    match linked.iter().find(|path| path.is_symlink()) {
        Some(path) => Err(Error::usage(format!(
            "{} is a link, which may lead anywhere, and a run writes only to its own folder: put what it leads to in its \
             place, or remove it",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// The folder of the numbered runs of a recipe and a model.
pub fn runs_of(recipe: &str, model: &str) -> PathBuf {
    Path::new("runs").join(format!("{recipe}-{model}"))
}
