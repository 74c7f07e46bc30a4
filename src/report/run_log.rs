//! The run directory: the effective recipe, one line of JSON for every step and epoch, and their curves.
//!
//! A run that cannot be recorded is still a run: a disk that fills up is reported once, and training goes on.

use super::{console, curves};
use crate::checkpoint::Position;
use crate::engine::phases::Phase;
use crate::error::{Error, Result};
use crate::events::{Epoch, Event, RankStep, Step};
use serde_json::{Value, json};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The effective recipe: its presence says that a folder holds a run.
pub const RECIPE: &str = "recipe.toml";
/// One line of JSON for every step and epoch.
pub const METRICS: &str = "metrics.jsonl";
const CURVES: &str = "curves.svg";
/// Beside the numbered runs, a link to the newest.
pub const LATEST: &str = "latest";

/// The record of a run.
pub struct RunLog {
    folder: PathBuf,
    metrics: Option<BufWriter<File>>,
    devices: Vec<String>,
}

impl RunLog {
    /// Begins a record in `folder`, which must not hold one yet.
    ///
    /// # Errors
    /// The folder holds a run already, or cannot be written.
    pub fn in_folder(folder: &Path, recipe: &str, devices: &[String]) -> Result<Self> {
        if folder.join(RECIPE).exists() {
            let folder = folder.display();
            return Err(Error::usage(format!(
                "--run-dir: {folder} holds a run already; name another folder, or go on with that run: --resume {folder}"
            )));
        }
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
        let path = folder.join(METRICS);
        let metrics = File::options().read(true).append(true).create(true).open(&path).map_err(fault)?;
        if let Err(TryLockError::WouldBlock) = metrics.try_lock() {
            return Err(Error::usage(format!("{} is the record of a run that still goes on", folder.display())));
        }
        let kept = length_until(&metrics, position).map_err(fault)?;
        metrics.set_len(kept).and_then(|()| Self::write_recipe(folder, recipe)).map_err(fault)?;
        Ok(Self { folder: folder.to_owned(), metrics: Some(BufWriter::new(metrics)), devices: devices.to_vec() })
    }

    fn begin(folder: &Path, recipe: &str, devices: &[String]) -> io::Result<Self> {
        let metrics = File::create(folder.join(METRICS))?;
        // For `resumed`. A file system that has no locks has no such help.
        let _ = metrics.try_lock();
        Self::write_recipe(folder, recipe)?;
        Ok(Self { folder: folder.to_owned(), metrics: Some(BufWriter::new(metrics)), devices: devices.to_vec() })
    }

    fn write_recipe(folder: &Path, recipe: &str) -> io::Result<()> {
        // Under its name only when it is whole: its presence says that the folder holds a run.
        let unfinished = folder.join(format!(".{RECIPE}"));
        fs::write(&unfinished, recipe)?;
        fs::rename(unfinished, folder.join(RECIPE))
    }

    /// The folder of this run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Records an event.
    pub fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Step(step) => self.step(step),
            Event::Epoch(epoch) => epoch_line(epoch),
            _ => return,
        };
        let Some(metrics) = &mut self.metrics else { return };
        // Flushed line by line: whoever follows the file sees each step, and a crash loses none.
        if let Err(error) = writeln!(metrics, "{line}").and_then(|()| metrics.flush()) {
            console::warn(format!("the record in {} ends here: {error}; training goes on", self.folder.display()));
            self.metrics = None;
        } else if matches!(event, Event::Epoch(_)) {
            self.draw();
        }
    }

    fn draw(&self) {
        let (record, picture) = (self.folder.join(METRICS), self.folder.join(CURVES));
        if let Err(error) = curves::draw(&record, &picture, &self.folder.to_string_lossy()) {
            console::warn(format!("the curves are not drawn: {error}; training goes on"));
        }
    }

    fn step(&self, step: &Step) -> Value {
        let seconds = step.time.as_secs_f64();
        let devices: Vec<Value> =
            self.devices.iter().zip(&step.ranks).map(|(device, own)| rank_step(device, own, seconds)).collect();
        json!({
            "kind": "step", "step": step.step, "epoch": step.epoch,
            "loss": step.outcome.loss(), "accuracy": step.outcome.accuracy(), "learning_rate": step.learning_rate,
            "examples": step.outcome.examples, "seconds": seconds,
            "examples_per_second": rate(step.outcome.examples, seconds), "devices": devices,
        })
    }
}

/// The folder of the numbered runs of a recipe and a model.
pub fn runs_of(recipe: &str, model: &str) -> PathBuf {
    Path::new("runs").join(format!("{recipe}-{model}"))
}

/// The length of the lines that tell of nothing after `position`. The epoch at hand is told of when it is over.
fn length_until(metrics: &File, position: &Position) -> io::Result<u64> {
    let (mut reader, mut line, mut kept) = (BufReader::new(metrics), Vec::new(), 0);
    loop {
        line.clear();
        kept += match reader.read_until(b'\n', &mut line)? {
            length if line.ends_with(b"\n") && is_done(&line, position) => length as u64,
            // What a crash has cut short tells nothing either.
            _ => return Ok(kept),
        };
    }
}

/// Whether a line of the record tells of what was done at `position`.
fn is_done(line: &[u8], position: &Position) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
    let number = |key: &str| value[key].as_u64().unwrap_or(0);
    match value["kind"].as_str() {
        Some("step") => number("step") <= position.step,
        Some("epoch") => number("epoch") < position.epoch,
        _ => true,
    }
}

fn rate(examples: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { examples as f64 / seconds } else { 0.0 }
}

fn rank_step(device: &str, own: &RankStep, seconds: f64) -> Value {
    let mut line = json!({
        "device": device, "examples_per_second": rate(own.examples, seconds),
        // Hidden behind compute: no part of the phases.
        "overlapped_seconds": own.overlapped.as_secs_f64(),
        // A part of data_seconds.
        "loader_wait_seconds": own.loader_wait.as_secs_f64(),
        "sent_bytes": own.traffic.sent_bytes(), "received_bytes": own.traffic.received_bytes(),
    });
    for phase in Phase::ALL {
        line[format!("{}_seconds", phase.name())] = own.phases.get(phase).as_secs_f64().into();
    }
    line
}

fn epoch_line(epoch: &Epoch) -> Value {
    let seconds = epoch.train_time.as_secs_f64();
    json!({
        "kind": "epoch", "epoch": epoch.epoch,
        "train_loss": epoch.train.loss(), "train_accuracy": epoch.train.accuracy(),
        "test_loss": epoch.test.map(|test| test.loss()), "test_accuracy": epoch.test.map(|test| test.accuracy()),
        "examples_per_second": rate(epoch.train.examples, seconds), "seconds": seconds,
    })
}
