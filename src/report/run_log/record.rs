//! What the thread of a run log writes: lines, the same figures for TensorBoard, and the curves after each epoch.
//!
//! A disk that is full is told of once. What does not fit is left out, and later lines are written when there is room.

use super::appender::Appender;
use super::tensorboard::EventFile;
use crate::report::curves::{self, Run};
use crate::report::{console, epochs};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the curves of epochs that follow each other closely are not drawn again: a picture takes time that grows with them.
const REDRAWN: Duration = Duration::from_secs(1);

/// What there is to do.
pub enum Entry {
    /// Write a line.
    Line(Value),
    /// Make sure that what is written is on the disk.
    Sync,
    /// Draw the curves if they lack an epoch.
    Draw,
}

/// The files of a record that grow.
pub struct Record {
    folder: PathBuf,
    picture: PathBuf,
    metrics: Appender,
    events: EventFile,
    epochs: Vec<epochs::Epoch>,
    /// Lines that are missing in a file.
    missing: Arc<AtomicU64>,
    /// Whether the last drawing was written.
    drawn: bool,
    /// When that was.
    drawn_at: Option<Instant>,
    /// Whether the picture lacks an epoch.
    stale: bool,
}

impl Record {
    /// A record that has these epochs, with its curves in the file `picture`.
    pub fn new(
        folder: PathBuf,
        picture: &str,
        metrics: Appender,
        events: EventFile,
        epochs: Vec<epochs::Epoch>,
        missing: Arc<AtomicU64>,
    ) -> Self {
        let picture = folder.join(picture);
        Self { picture, folder, metrics, events, epochs, missing, drawn: true, drawn_at: None, stale: false }
    }

    /// Does what there is to do.
    pub fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Line(line) => self.line(&line),
            // A disk that does not tell whether it has something is not told of: the lines are in the file.
            Entry::Sync => drop(self.metrics.sync()),
            Entry::Draw if self.stale => self.draw(),
            Entry::Draw => {}
        }
    }

    fn line(&mut self, line: &Value) {
        let written = self.metrics.append(format!("{line}\n").as_bytes());
        let shown = self.events.append(line);
        if let Err(error) = written.and(shown) {
            self.left_out(&error);
        }
        if let Some(epoch) = epochs::of_line(line) {
            self.epochs.push(epoch);
            self.stale = true;
        }
        if self.stale && self.drawn_at.is_none_or(|at| at.elapsed() >= REDRAWN) {
            self.draw();
        }
    }

    fn left_out(&self, error: &io::Error) {
        if self.missing.fetch_add(1, Ordering::Relaxed) == 0 {
            let folder = self.folder.display();
            console::warn(format!("the record in {folder} has a gap: {error}; training goes on"));
        }
    }

    fn draw(&mut self) {
        let name = self.folder.to_string_lossy().into_owned();
        let run = Run { name, about: String::new(), epochs: self.epochs.clone() };
        let drawn = curves::draw(&run, &self.picture);
        if let (Err(error), true) = (&drawn, self.drawn) {
            console::warn(format!("the curves are not drawn: {error}; training goes on"));
        }
        (self.drawn, self.drawn_at, self.stale) = (drawn.is_ok(), Some(Instant::now()), false);
    }
}
