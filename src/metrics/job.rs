//! The series of the whole job, each example counted once. Every host's endpoint has them: take one, not their sum.

use super::Watched;
use super::series::Series;
use crate::data::Counts;
use crate::error::Result;
use crate::events::{Epoch, Step};
use crate::layers::Outcome;
use crate::torch;
use prometheus::{Gauge, Histogram, IntCounter};

/// Upper bounds of a step's duration in seconds: from a toy network's to a step of many minutes.
const DURATIONS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

/// The series of the whole job.
pub struct JobSeries {
    examples: IntCounter,
    /// Steps done.
    pub steps: IntCounter,
    /// Steps that are left.
    pub remaining_steps: Gauge,
    /// Examples of evaluations.
    pub evaluated: IntCounter,
    epoch: Gauge,
    step_duration: Histogram,
    train: Quality,
    test: Quality,
    learning_rate: Gauge,
    gradient_norm: Gauge,
    nonfinite_steps: IntCounter,
    loader_queue: Gauge,
    images_decoded: IntCounter,
    decode_failures: IntCounter,
    /// When a step ended last, in seconds since 1970.
    pub last_step: Gauge,
    /// When a checkpoint was written last, in seconds since 1970.
    pub last_checkpoint: Gauge,
}

/// How good the network is on one of the two sets.
struct Quality {
    loss: Gauge,
    accuracy: Gauge,
}

impl Quality {
    fn show(&self, outcome: &Outcome) {
        self.loss.set(outcome.loss());
        self.accuracy.set(outcome.accuracy());
    }
}

impl JobSeries {
    /// The series of a job that has not begun.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn new(series: &Series, watched: &Watched) -> Result<Self> {
        infos(series, watched)?;
        let loss = series.gauges(
            "loss",
            "Mean loss: of train over the last 30 s of training steps, of test over the last evaluation.",
            &["subset"],
        )?;
        let accuracy =
            series.gauges("accuracy_ratio", "Share of right answers, over the examples of mpt_loss.", &["subset"])?;
        let quality = |subset| {
            let quality =
                Quality { loss: loss.with_label_values(&[subset]), accuracy: accuracy.with_label_values(&[subset]) };
            quality.show(&Outcome::default());
            quality
        };
        Ok(Self {
            train: quality("train"),
            test: quality("test"),
            examples: series.counter(
                "job_examples_total",
                "Examples trained on, each counted once in an epoch, however many devices work on it.",
            )?,
            steps: series.counter("steps_total", "Training steps done by this process.")?,
            remaining_steps: series.gauge("remaining_steps", "Training steps that are left.")?,
            evaluated: series.counter("evaluated_examples_total", "Examples evaluated on, each counted once.")?,
            epoch: series.gauge("epoch", "The epoch of the last step, from 1.")?,
            step_duration: series.histogram("step_duration_seconds", "How long training steps took.", &DURATIONS)?,
            learning_rate: series.gauge("learning_rate", "The learning rate of the last step.")?,
            gradient_norm: series.gauge(
                "gradient_norm",
                "The 2-norm of the last step's gradient over all parameters, before weight decay.",
            )?,
            nonfinite_steps: series
                .counter("nonfinite_steps_total", "Steps whose loss or gradients were infinite or not numbers.")?,
            loader_queue: series
                .gauge("loader_queue_batches", "Batches that were ready when the last step asked for one.")?,
            images_decoded: series.counter(
                "images_decoded_total",
                "Images that the loader of this process has made, for all ranks of its host.",
            )?,
            decode_failures: series
                .counter("image_decode_failures_total", "Images that the loader of this process could not make.")?,
            last_step: series
                .gauge("last_step_timestamp_seconds", "When a training step ended last, in seconds since 1970.")?,
            last_checkpoint: series.gauge(
                "last_checkpoint_timestamp_seconds",
                "When this process wrote a checkpoint last, in seconds since 1970.",
            )?,
        })
    }

    /// Counts a step, after which so many are left.
    pub fn count(&self, step: &Step, remaining_steps: u64) {
        self.examples.inc_by(step.outcome.examples);
        self.steps.inc();
        self.remaining_steps.set(remaining_steps as f64);
        self.epoch.set(step.epoch as f64);
        self.step_duration.observe(step.time.as_secs_f64());
        self.learning_rate.set(step.learning_rate);
        self.gradient_norm.set(step.gradient_norm);
        if !(step.outcome.loss_sum.is_finite() && step.gradient_norm.is_finite()) {
            self.nonfinite_steps.inc();
        }
        self.loader_queue.set(step.loader_queue as f64);
    }

    /// Shows how an epoch ended.
    pub fn epoch_ended(&self, epoch: &Epoch) {
        if let Some(test) = &epoch.test {
            self.test.show(test);
        }
    }

    /// Shows what is looked up when someone asks: the outcome of the last while, and what the loader has made.
    pub fn show(&self, train: Outcome, loader: &Counts) {
        self.train.show(&train);
        for (counter, count) in [(&self.images_decoded, loader.made()), (&self.decode_failures, loader.failed())] {
            // Whoever asks at the same time may have counted more.
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}

fn infos(series: &Series, watched: &Watched) -> Result<()> {
    let plan = &watched.plan;
    let build = [("version", env!("CARGO_PKG_VERSION")), ("libtorch", &torch::version())];
    series.info("build_info", "The versions of mpt and of libtorch.", &build)?;
    let (mode, mesh) = (plan.mode.to_string(), plan.mesh.to_string());
    let run = [("model", plan.model.name.as_str()), ("mode", &mode), ("mesh", &mesh), ("precision", watched.precision)];
    series.info("run_info", "What is trained, and how it is split.", &run)
}
