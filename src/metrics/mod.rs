//! What can be watched of a run while it goes on, over HTTP: Prometheus metrics for programs, a live page
//! for people.
//!
//! A listener of events and nothing more: the loop knows nothing of it, and what goes wrong here does not reach it. The
//! listener writes to atomics and, under a lock that is held for microseconds, to a [`window::Window`]; whoever asks is
//! answered by a thread of its own.
//!
//! * [`series`] how families of series are made, with every series there from the start
//! * [`device`] the series of each device
//! * [`job`] the series of the whole job
//! * [`window`] the last half minute of training, for averages
//! * [`progress`] how far the run is
//! * [`history`] the run so far, for curves
//! * [`page`] the page for people
//! * [`server`] HTTP
//!
//! Counters count what this process has seen, from 0, also where a run is resumed. Prometheus takes one that falls for
//! one that began again at 0: a counter that began at the steps of a checkpoint would have these counted twice.

pub mod device;
pub mod history;
pub mod job;
pub mod page;
pub mod progress;
pub mod series;
pub mod server;
pub mod window;

use crate::clock::time_of_day;
use crate::data::Counts;
use crate::error::{Error, Result};
use crate::events::{Event, Step};
use crate::plan::Plan;
use device::DeviceSeries;
use history::History;
use hyper::body::Bytes;
use job::JobSeries;
use page::{Page, Snapshot};
use progress::Progress;
use prometheus::TextEncoder;
use series::Series;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use window::Window;

/// How long a page that was drawn is handed out.
const REDRAWN: Duration = Duration::from_secs(1);

/// What is watched: known before there are ranks, so that every series is there before the first step.
pub struct Watched {
    /// Who holds what.
    pub plan: Arc<Plan>,
    /// The name of each rank's device.
    pub devices: Vec<String>,
    /// The ranks whose devices are shown: those of this host.
    pub shown: BTreeSet<usize>,
    /// The type of the numbers, by its name.
    pub precision: &'static str,
    /// What the loader of this process counts.
    pub loader: Arc<Counts>,
}

impl Watched {
    /// The rank and the name of each device that is shown.
    pub fn shown(&self) -> impl Iterator<Item = (usize, &str)> {
        let named = self.devices.iter().map(String::as_str).enumerate();
        named.filter(|(rank, _)| self.shown.contains(rank))
    }
}

/// The metrics of a run.
pub struct Metrics {
    series: Series,
    devices: Vec<DeviceSeries>,
    job: JobSeries,
    loader: Arc<Counts>,
    page: Page,
    /// The page when it was drawn last, and when that was.
    drawn: Mutex<Option<(Instant, Bytes)>>,
    state: Mutex<State>,
}

/// What averages, differences and curves are taken from.
struct State {
    window: Window,
    history: History,
    progress: Progress,
}

impl Metrics {
    /// Every series of a run, before its first step.
    ///
    /// # Errors
    /// Two families have one name, which is a fault of mpt.
    pub fn new(watched: &Watched) -> Result<Self> {
        let series = Series::new()?;
        let devices = DeviceSeries::of_all(&series, watched)?;
        let job = JobSeries::new(&series, watched)?;
        let window = Window::new(watched.devices.len());
        let (history, progress, page) = (History::default(), Progress::default(), Page::new(watched));
        let state = Mutex::new(State { window, history, progress });
        let (loader, drawn) = (Arc::clone(&watched.loader), Mutex::default());
        Ok(Self { series, devices, job, loader, page, drawn, state })
    }

    /// Takes note of what happened.
    pub fn event(&self, event: &Event) {
        let now = Instant::now();
        let mut state = self.state();
        let evaluated = state.progress.evaluated();
        state.progress.event(event);
        match event {
            Event::Started(started) => {
                self.job.remaining_steps.set(started.total_steps.saturating_sub(started.steps_done) as f64);
            }
            Event::Step(step) => self.step(&mut state, step, now),
            Event::Evaluating { done, .. } => {
                self.job.evaluated.inc_by(done.saturating_sub(evaluated));
                state.window.hear(now);
            }
            Event::Saved(_) => {
                self.job.last_checkpoint.set(time_of_day());
                state.window.hear(now);
            }
            Event::Epoch(epoch) => {
                self.job.epoch_ended(epoch);
                let step = state.progress.step;
                state.history.epoch(step, epoch);
                state.window.hear(now);
            }
            Event::Saving | Event::Finished(_) => state.window.rest(),
            _ => state.window.hear(now),
        }
    }

    fn step(&self, state: &mut State, step: &Step, now: Instant) {
        for device in &self.devices {
            if let Some(own) = step.ranks.get(device.rank) {
                device.count(own);
            }
        }
        self.job.count(step, state.progress.remaining_steps());
        self.job.last_step.set(time_of_day());
        state.window.add(step, now);
        state.history.step(step);
    }

    /// Whether a step has been done: training goes on.
    pub fn is_ready(&self) -> bool {
        self.job.steps.get() > 0
    }

    /// All series, in Prometheus's text format.
    ///
    /// # Errors
    /// They cannot be written as text, which is a fault of mpt.
    pub fn text(&self) -> Result<String> {
        let averages = self.state().window.averages(Instant::now());
        for device in &self.devices {
            device.show(averages.examples_per_second(device.rank));
        }
        self.job.show(averages.outcome, &self.loader);
        let encoded = TextEncoder::new().encode_to_string(&self.series.gather());
        encoded.map_err(|error| Error::failed(format!("metrics cannot be written as text: {error}")))
    }

    /// The page for people, as it is now; drawn once a second at most, however many ask.
    ///
    /// # Errors
    /// What the drawing library reports.
    pub fn html(&self) -> Result<Bytes> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((_, html)) = drawn.as_ref().filter(|(time, _)| now.saturating_duration_since(*time) < REDRAWN) {
            return Ok(html.clone());
        }
        let html = Bytes::from(self.page.html(&self.snapshot(now))?);
        *drawn = Some((now, html.clone()));
        Ok(html)
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let State { window, history, progress } = &*self.state();
        Snapshot { progress: progress.clone(), averages: window.averages(now), history: history.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers that a panic left half written are numbers still.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod testing {
    use crate::events::{RankStep, Step};
    use crate::layers::Outcome;
    use std::time::Duration;

    /// A step of two ranks with so many examples each, whose mean loss is its number.
    pub fn step(number: u64, examples: u64, time: Duration) -> Step {
        let outcome = Outcome { loss_sum: 2.0 * (examples * number) as f64, correct: 0, examples: 2 * examples };
        Step {
            step: number,
            epoch: 1,
            outcome,
            epoch_outcome: outcome,
            learning_rate: 0.1,
            gradient_norm: 1.0,
            layer_gradient_norms: Vec::new(),
            loader_queue: 0,
            left_out: None,
            time,
            ranks: vec![RankStep { examples, ..RankStep::default() }; 2],
        }
    }
}
