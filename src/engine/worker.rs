//! What a rank does from the start of a run to its end: it carries out the orders of the loop, step by step.

use super::agreement::{Agreed, Word};
use super::input::DeviceBatch;
use super::memory::{Ask, Memory};
use super::nonfinite::Origin;
use super::norms;
use super::rank::{Rank, Settings};
use super::slices::Numbered;
use crate::checkpoint::{Checkpoint, Position, WeightFile};
use crate::comm::Groups;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::events::StopReason;
use crate::launch::control::Control;
use crate::launch::threads::Reporter;
use crate::layers::Outcome;
use crate::model::LayerId;
use crate::optim::{Plateau, Schedule, Timeline};
use crate::plan::Plan;
use crate::torch;
use crossbeam::channel::Receiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many steps in a row that are not finite end a run that leaves them out: the weights themselves are the reason, then.
pub const MOST_LEFT_OUT: u64 = 20;

/// A stream of batches from the loader.
pub type Batches = Receiver<Result<Arc<Batch>>>;

/// What the loop asks of a rank.
pub enum Order {
    /// Train on a stream of batches, at most `limit` of them.
    Train {
        /// The batches.
        batches: Batches,
        /// After so many steps the stream is left.
        limit: u64,
        /// How evaluations went so far.
        plateau: Plateau,
    },
    /// Evaluate on a stream of batches, to its end.
    Evaluate(Batches),
    /// Report what a checkpoint needs, and leave it as it is until the next order.
    Save {
        /// Whether the first rank reports that of all, which all bring to it.
        to_first: bool,
    },
}

/// What a rank tells the loop.
pub enum Report {
    /// A step has been done, on all ranks.
    Step {
        /// What all ranks agreed on.
        agreed: Agreed,
        /// The learning rate that was used.
        learning_rate: f64,
        /// The batches that were ready when this rank asked for one.
        loader_queue: usize,
        /// Where its numbers first were not finite, if they were not.
        nonfinite: Option<Origin>,
    },
    /// A batch has been evaluated: the outcome over all ranks, summed over the batches so far.
    Evaluated(Outcome),
    /// What a checkpoint needs of some ranks. They leave it as it is until their next order.
    Shards(Vec<Numbered>),
    /// The order is done.
    Done(Ended),
}

/// How an order ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// Why it ended early, if a rank wished so.
    pub stopped: Option<StopReason>,
    /// Whether it ended early because a checkpoint is due by a rank's clock.
    pub save: bool,
    /// Where the numbers of its last step first were not finite, if the run cannot go on for that.
    pub nonfinite: Option<Origin>,
}

/// What is the same on every rank of a run.
#[derive(Clone)]
pub struct Assignment {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Seed, precision and optimizer.
    pub settings: Settings,
    /// The base learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// What else changes, and when.
    pub timeline: Arc<Timeline>,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Threads that libtorch may use for this rank.
    pub threads: usize,
    /// What ends the run early.
    pub control: Control,
    /// The time from one checkpoint to the next; `None`: none is due by time.
    pub checkpoint_every: Option<Duration>,
    /// What is told the number of each step, from 1, as the rank begins it.
    pub on_step: Option<extern "C" fn(u64)>,
    /// What tells the bytes in use on the device of a rank of this process, where each has memory of its own.
    pub memory: Option<Ask>,
    /// How many steps further the schedule is than steps were done: none, unless epochs had other lengths before.
    pub steps_ahead: i64,
    /// Where the run begins.
    pub position: Position,
    /// What it begins with; `None`: it begins at its first step.
    pub begin: Option<Arc<Checkpoint>>,
    /// The weights of its first step; `None`: those that are drawn.
    pub weights: Option<Arc<WeightFile>>,
}

impl Assignment {
    /// The learning rate of a step, from 0, evaluations so far having gone as `plateau` says.
    pub fn learning_rate_of(&self, step: u64, plateau: Plateau) -> f64 {
        let (at, of) = (self.ahead(step), self.ahead(self.total_steps));
        let factor = self.schedule.factor(at, of, self.steps_per_epoch, plateau);
        self.learning_rate * factor * self.timeline.rate(self.passed(step))
    }

    /// How many events of the timeline hold at a step, from 0.
    fn passed(&self, step: u64) -> usize {
        self.timeline.passed(self.ahead(step), self.steps_per_epoch)
    }

    fn ahead(&self, steps: u64) -> u64 {
        steps.saturating_add_signed(self.steps_ahead)
    }
}

/// Where a rank works.
pub struct Seat {
    /// Its place in the groups.
    pub groups: Groups,
    /// What it is asked to do.
    pub orders: Receiver<Order>,
    /// Whether it reports what all ranks of this process know alike.
    pub speaks: bool,
}

/// Runs a rank until there are no more orders.
///
/// # Errors
/// What a layer, a collective or the loader reports.
pub fn work(assignment: &Assignment, number: usize, seat: Seat, reporter: &Reporter<Report>) -> Result<()> {
    let Seat { groups, orders, speaks } = seat;
    let _no_autograd = tch::no_grad_guard();
    torch::set_threads(assignment.threads);
    let (plan, settings) = (Arc::clone(&assignment.plan), assignment.settings);
    let rank = match (assignment.begin.as_deref(), assignment.weights.as_deref()) {
        (None, None) => Rank::new(plan, number, groups, settings)?,
        (None, Some(weights)) => Rank::begun_with(plan, number, groups, settings, weights)?,
        (Some(begin), _) => Rank::resumed(plan, number, groups, settings, begin)?,
    };
    let steps = assignment.position.step;
    let memory = Memory::new(assignment.memory);
    let (layers, saved_at) = (norms::layers(&assignment.plan), Instant::now());
    let (passed, left_out) = (0, 0);
    let mut worker = Worker { assignment, rank, reporter, speaks, steps, passed, layers, left_out, memory, saved_at };
    for order in orders {
        let ended = match order {
            Order::Train { batches, limit, plateau } => worker.train(&batches, limit, plateau)?,
            Order::Evaluate(batches) => Ended { stopped: worker.evaluate(&batches)?, ..Ended::default() },
            Order::Save { to_first } => worker.save(to_first)?,
        };
        reporter.report(Report::Done(ended))?;
    }
    Ok(())
}

struct Worker<'a> {
    assignment: &'a Assignment,
    rank: Rank,
    reporter: &'a Reporter<Report>,
    speaks: bool,
    steps: u64,
    /// How many events of the timeline hold.
    passed: usize,
    /// The layers with weights.
    layers: Vec<LayerId>,
    /// The steps in a row that were left out, for they were not finite.
    left_out: u64,
    memory: Memory,
    /// When the last checkpoint was due, or the run began.
    saved_at: Instant,
}

impl Worker<'_> {
    fn train(&mut self, batches: &Batches, limit: u64, plateau: Plateau) -> Result<Ended> {
        // What passed before, such as an evaluation, is not part of the first step.
        self.rank.lap()?;
        for _ in 0..limit {
            let (asked, loader_queue) = (Instant::now(), batches.len());
            // The loader tells why it fails. If it just ends, the data set has fewer examples than when the run began.
            let ended = |_| {
                Error::failed(format!("the training set has shrunk: it has no examples for step {}", self.steps + 1))
            };
            let batch = batches.recv().map_err(ended)?;
            let loader_wait = asked.elapsed();
            let batch = self.on_device(batch?.as_ref())?;
            if let Some(on_step) = self.assignment.on_step {
                on_step(self.steps + 1);
            }
            let learning_rate = self.assignment.learning_rate_of(self.steps, plateau);
            self.tune();
            let outcome = self.rank.train(&batch, learning_rate)?;
            self.steps += 1;
            let (examples, lap) = (batch.examples() as u64, self.rank.lap()?);
            let (wish, memory) = (self.assignment.control.wish(), self.memory.in_use());
            let saves = self.assignment.checkpoint_every.is_some_and(|every| self.saved_at.elapsed() >= every);
            let agreed = self.rank.agree(&Word { outcome, wish, saves, examples, loader_wait, memory, lap })?;
            let nonfinite = agreed.nonfinite(&self.layers);
            let is_last = self.is_last(nonfinite);
            let last = nonfinite.filter(|_| is_last);
            let ended = Ended { stopped: agreed.stop, save: agreed.save, nonfinite: last };
            self.say(Report::Step { agreed, learning_rate, loader_queue, nonfinite })?;
            if ended.stopped.is_some() || ended.save || last.is_some() {
                return Ok(ended);
            }
        }
        Ok(Ended::default())
    }

    /// Lets each event of the timeline hold from its step on.
    fn tune(&mut self) {
        let passed = self.assignment.passed(self.steps);
        if passed != self.passed {
            self.rank.tune(&self.assignment.timeline, passed);
            self.passed = passed;
        }
    }

    /// Whether the run cannot go on after a step, for it was not finite: the same on every rank.
    fn is_last(&mut self, nonfinite: Option<Origin>) -> bool {
        self.left_out = if nonfinite.is_some() { self.left_out + 1 } else { 0 };
        let most = if self.assignment.settings.skip_nonfinite { MOST_LEFT_OUT } else { 1 };
        self.left_out >= most
    }

    fn save(&mut self, to_first: bool) -> Result<Ended> {
        let shards = if to_first { self.rank.shards()? } else { vec![self.rank.shard()] };
        if !shards.is_empty() {
            self.reporter.report(Report::Shards(shards))?;
        }
        self.saved_at = Instant::now();
        Ok(Ended::default())
    }

    /// Reports what every rank knows, if this one is to.
    fn say(&self, report: Report) -> Result<()> {
        if self.speaks { self.reporter.report(report) } else { Ok(()) }
    }

    fn evaluate(&mut self, batches: &Batches) -> Result<Option<StopReason>> {
        let mut total = Outcome::default();
        while let Ok(batch) = batches.recv() {
            let batch = self.on_device(batch?.as_ref())?;
            let outcome = self.rank.evaluate(&batch)?;
            // Time that is up does not end an evaluation: it is how the run ends. A signal does.
            let wish = self.assignment.control.wish().filter(|wish| matches!(wish, StopReason::Signal(_)));
            let agreed = self.rank.agree(&Word { wish, ..Word::of(outcome) })?;
            if agreed.stop.is_some() {
                return Ok(agreed.stop);
            }
            total.add(&agreed.outcome);
            // The accounts are of steps: those of an evaluation are not kept until the next one.
            self.rank.lap()?;
            self.say(Report::Evaluated(total))?;
        }
        Ok(None)
    }

    fn on_device(&self, batch: &Batch) -> Result<DeviceBatch> {
        let Assignment { plan, settings, .. } = self.assignment;
        DeviceBatch::new(batch, plan.model.input, settings.kind, settings.device)
    }
}
