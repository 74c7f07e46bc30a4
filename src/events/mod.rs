//! What the loop says, once. Progress, run log, metrics: all that watches a run listens here.

mod bottleneck;

pub use bottleneck::{Bottleneck, Bound, DeviceTime, Shares};

use crate::checkpoint::Best;
use crate::comm::Traffic;
use crate::engine::phases::Phases;
use crate::error::Error;
use crate::layers::Outcome;
use crate::plan::Plan;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// Training is about to begin.
    Started(Started),
    /// A step has ended on every rank.
    Step(Step),
    /// Evaluation goes on: so many of so many examples are done.
    Evaluating {
        /// Examples done, over all ranks.
        done: u64,
        /// Examples in all.
        of: u64,
    },
    /// Training stands for a checkpoint: it is copied, once the one before it is written.
    Saving,
    /// A checkpoint has been written.
    Saved(Saved),
    /// A checkpoint could not be written; the ones before it are there still.
    NotSaved {
        /// The steps done.
        step: u64,
        /// Why.
        problem: Error,
    },
    /// No link leads to the best checkpoint, which is there all the same; told once.
    NotLinked(Error),
    /// Images that cannot be read, and why, in sentences; each comes once. Others stand in for them.
    Unread(Vec<String>),
    /// What bounded an epoch's training; it comes before [`Event::Epoch`]. None comes where no step was done.
    Bottleneck(Bottleneck),
    /// An epoch, or the part of one that there was time for, has ended.
    Epoch(Epoch),
    /// The run has ended.
    Finished(Summary),
}

/// What a run is, and its length.
#[derive(Clone, Debug)]
pub struct Started {
    /// The name of each rank's device.
    pub devices: Vec<String>,
    /// The network, the mesh, and which rank holds what.
    pub plan: Arc<Plan>,
    /// The type of the numbers that layers compute with, by its name in recipes.
    pub precision: String,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the whole run, if nothing ends it early.
    pub total_steps: u64,
    /// Steps that were done before: where a resumed run goes on.
    pub steps_done: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Examples in an epoch's training set.
    pub train_examples: u64,
    /// Examples in the test set.
    pub test_examples: u64,
    /// The time after which the run ends.
    pub max_time: Option<Duration>,
}

/// A step, over all ranks.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number of steps done, this one included.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Sums over the step's examples.
    pub outcome: Outcome,
    /// Sums over the epoch so far.
    pub epoch_outcome: Outcome,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The 2-norm of the step's gradient, summed over all examples, over all parameters, before weight decay; not
    /// finite where a gradient is not.
    pub gradient_norm: f64,
    /// The same for each layer with weights, by its name, in the model's order. Whole tensors count,
    /// whatever the split.
    pub layer_gradient_norms: Vec<(String, f64)>,
    /// The batches that were ready in the loader's queue when the first rank of this process asked for one.
    pub loader_queue: usize,
    /// Where its numbers first were not finite, if it was left out for that: weights and velocities are as they were.
    pub left_out: Option<String>,
    /// How long the step took on the first rank: its phases add up to this.
    pub time: Duration,
    /// Each rank's part.
    pub ranks: Vec<RankStep>,
}

/// A step on one rank: from when the ranks had agreed on the step before to when this one was done with this.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RankStep {
    /// The examples that the rank worked on.
    pub examples: u64,
    /// Where its time went.
    pub phases: Phases,
    /// The part of the phase `data` in which it waited for the loader.
    pub loader_wait: Duration,
    /// The time hidden behind compute: in which it was in a phase that computes while a call of its was under way, that is
    /// from when it had arrived at the call to when all that the call brings was there, whether for waiting or for
    /// travelling. It would have been exposed, had the rank waited for the call as soon as it began. Calls that were
    /// under way together count once. No part of the phases.
    pub overlapped: Duration,
    /// How long the other ranks waited for it, added up.
    pub awaited: Duration,
    /// What it sent and received.
    pub traffic: Traffic,
    /// The bytes in use on its device, as they were within a second; `None` where they cannot be told apart from those
    /// of other devices, as of threads of one process.
    pub memory: Option<u64>,
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The steps done.
    pub step: u64,
    /// Where it lies.
    pub folder: PathBuf,
    /// The time in which the ranks waited for a copy of what they hold.
    pub held_up: Duration,
    /// The time in which it was written, while they went on.
    pub time: Duration,
}

/// An epoch.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// The epoch, from 1.
    pub epoch: u64,
    /// Sums over its training steps, in training mode.
    pub train: Outcome,
    /// Sums over the test set, if it was evaluated.
    pub test: Option<Outcome>,
    /// The time of its training steps, without waiting for the loader.
    pub train_time: Duration,
    /// The time in which the first rank waited for the loader.
    pub loader_wait: Duration,
    /// The time of its evaluation.
    pub test_time: Duration,
    /// Whether it ended before its last example.
    pub cut_short: Option<StopReason>,
}

/// Why a run ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The time was up.
    Time,
    /// The number of steps asked for was done.
    Steps,
    /// A signal came: its number.
    Signal(i32),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its last epoch, if a step was done.
    pub last: Option<Epoch>,
    /// Steps done, those before the run was resumed included.
    pub steps: u64,
    /// Examples trained on, each counted each time.
    pub examples: u64,
    /// The time of all training steps, without waiting for the loader.
    pub train_time: Duration,
    /// The time from the first step to the end, with loading, evaluation and checkpoints.
    pub whole_time: Duration,
    /// Why it ended early, if it did.
    pub stopped: Option<StopReason>,
    /// Whether there is a checkpoint of its last step.
    pub saved: bool,
    /// The checkpoint that evaluated best, where this process writes them and there is one.
    pub best: Option<Best>,
    /// The device of each rank.
    pub devices: Vec<String>,
}

impl Outcome {
    /// The mean loss; NaN where there is no example.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.examples as f64
    }

    /// The share of right answers; NaN where there is no example.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.examples as f64
    }

    /// Adds the sums of another outcome.
    pub fn add(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.examples += other.examples;
    }
}
