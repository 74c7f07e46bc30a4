//! What can be watched of a run while it goes on, over HTTP: Prometheus metrics, for programs.
//!
//! A listener of events and nothing more: the loop knows nothing of it, and what goes wrong here does not reach it. The
//! listener writes to atomics and, under a lock that is held for microseconds, to a [`window::Window`]; whoever asks is
//! answered by a thread of its own.
//!
//! * [`series`] how families of series are made, with every series there from the start
//! * [`device`] the series of each device
//! * [`job`] the series of the whole job
//! * [`window`] the last half minute of training, for averages
//! * [`server`] HTTP
//!
//! Counters count what this process has seen, from 0, also where a run is resumed. Prometheus takes one that falls
//! for one that began again at 0: a counter that began at the steps of a checkpoint would have all of them counted twice.

pub mod device;
pub mod job;
pub mod series;
pub mod server;
pub mod window;

use crate::data::Counts;
use crate::error::{Error, Result};
use crate::events::{Event, Step};
use crate::plan::Plan;
use device::DeviceSeries;
use job::JobSeries;
use prometheus::TextEncoder;
use series::Series;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use window::Window;

/// What is watched: known before there are ranks, so that every series is there before the first step.
pub struct Watched {
    /// Who holds what.
    pub plan: Arc<Plan>,
    /// The name of each rank's device.
    pub devices: Vec<String>,
    /// The ranks whose devices are shown: those of this host.
    pub shown: Range<usize>,
    /// The type of the numbers, by its name.
    pub precision: &'static str,
    /// What the loader of this process counts.
    pub loader: Arc<Counts>,
}

/// The metrics of a run.
pub struct Metrics {
    series: Series,
    devices: Vec<DeviceSeries>,
    job: JobSeries,
    loader: Arc<Counts>,
    state: Mutex<State>,
}

/// What averages and differences are taken from.
struct State {
    window: Window,
    /// The examples of the evaluation at hand that have been counted.
    evaluated: u64,
    total_steps: u64,
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
        let state = Mutex::new(State { window, evaluated: 0, total_steps: 0 });
        Ok(Self { series, devices, job, loader: Arc::clone(&watched.loader), state })
    }

    /// Takes note of what happened.
    pub fn event(&self, event: &Event) {
        let now = Instant::now();
        let mut state = self.state();
        match event {
            Event::Started(started) => {
                state.total_steps = started.total_steps;
                self.job.remaining_steps.set(started.total_steps.saturating_sub(started.steps_done) as f64);
            }
            Event::Step(step) => self.step(&mut state, step, now),
            Event::Evaluating { done, .. } => {
                self.job.evaluated.inc_by(done.saturating_sub(state.evaluated));
                state.evaluated = *done;
                state.window.hear(now);
            }
            Event::Saved(_) => {
                self.job.last_checkpoint.set(unix_time());
                state.window.hear(now);
            }
            Event::Epoch(epoch) => {
                self.job.epoch_ended(epoch);
                state.evaluated = 0;
                state.window.hear(now);
            }
            Event::Finished(_) => state.window.close(),
            _ => state.window.hear(now),
        }
    }

    fn step(&self, state: &mut State, step: &Step, now: Instant) {
        for device in &self.devices {
            if let Some(own) = step.ranks.get(device.rank) {
                device.count(own);
            }
        }
        self.job.count(step, state.total_steps);
        self.job.last_step.set(unix_time());
        state.window.add(step, now);
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

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers that a panic left half written are numbers still.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(f64::NAN, |time| time.as_secs_f64())
}
