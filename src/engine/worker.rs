//! What a rank does from the start of a run to its end: it carries out the orders of the loop, step by step.

use super::agreement::{Agreed, Word};
use super::input::DeviceBatch;
use super::memory::{Ask, Memory};
use super::rank::{Rank, Settings, Shard};
use crate::checkpoint::{Checkpoint, WeightFile};
use crate::comm::Groups;
use crate::data::Batch;
use crate::error::Result;
use crate::events::StopReason;
use crate::launch::control::Control;
use crate::launch::threads::Reporter;
use crate::layers::Outcome;
use crate::optim::Schedule;
use crate::plan::Plan;
use crate::torch;
use crossbeam::channel::Receiver;
use std::sync::Arc;
use std::time::Instant;

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
    },
    /// Evaluate on a stream of batches, to its end.
    Evaluate(Batches),
    /// Report what a checkpoint needs, and leave it as it is until the next order.
    Save,
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
    },
    /// A batch has been evaluated: the outcome over all ranks, summed over the batches so far.
    Evaluated(Outcome),
    /// What a checkpoint needs of each rank, in rank order. The ranks leave it as it is until their next order.
    Shards(Vec<Shard>),
    /// The order is done.
    Done {
        /// Why it ended early, if a rank wished so.
        stopped: Option<StopReason>,
    },
}

/// What is the same on every rank of a run.
#[derive(Clone)]
pub struct Assignment {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Seed, precision and optimizer.
    pub settings: Settings,
    /// `[C, H, W]` of the images as they are stored.
    pub stored: [usize; 3],
    /// The base learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Threads that libtorch may use for this rank.
    pub threads: usize,
    /// What ends the run early.
    pub control: Control,
    /// What is told the number of each step, from 1, as the rank begins it.
    pub on_step: Option<extern "C" fn(u64)>,
    /// What tells the bytes in use on the device of a rank of this process, where each has memory of its own.
    pub memory: Option<Ask>,
    /// Where the run begins; `None`: at its first step.
    pub begin: Option<Arc<Checkpoint>>,
    /// The weights of its first step; `None`: those that are drawn.
    pub weights: Option<Arc<WeightFile>>,
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
    let (rank, steps) = match (assignment.begin.as_deref(), assignment.weights.as_deref()) {
        (None, None) => (Rank::new(plan, number, groups, settings)?, 0),
        (None, Some(weights)) => (Rank::begun_with(plan, number, groups, settings, weights)?, 0),
        (Some(begin), _) => (Rank::resumed(plan, number, groups, settings, begin)?, begin.state.position.step),
    };
    let memory = Memory::new(assignment.memory);
    let mut worker = Worker { assignment, rank, reporter, speaks, steps, memory };
    for order in orders {
        let stopped = match order {
            Order::Train { batches, limit } => worker.train(&batches, limit)?,
            Order::Evaluate(batches) => worker.evaluate(&batches)?,
            Order::Save => {
                let shards = worker.rank.shards()?;
                shards.map_or(Ok(()), |shards| reporter.report(Report::Shards(shards)))?;
                None
            }
        };
        reporter.report(Report::Done { stopped })?;
    }
    Ok(())
}

struct Worker<'a> {
    assignment: &'a Assignment,
    rank: Rank,
    reporter: &'a Reporter<Report>,
    speaks: bool,
    steps: u64,
    memory: Memory,
}

impl Worker<'_> {
    fn train(&mut self, batches: &Batches, limit: u64) -> Result<Option<StopReason>> {
        // What passed before, such as an evaluation, is not part of the first step.
        self.rank.lap()?;
        for _ in 0..limit {
            let (asked, loader_queue) = (Instant::now(), batches.len());
            let Ok(batch) = batches.recv() else { break };
            let loader_wait = asked.elapsed();
            let batch = self.on_device(batch?.as_ref())?;
            if let Some(on_step) = self.assignment.on_step {
                on_step(self.steps + 1);
            }
            let learning_rate = self.learning_rate();
            let outcome = self.rank.train(&batch, learning_rate)?;
            self.steps += 1;
            let (examples, lap) = (batch.examples() as u64, self.rank.lap()?);
            let wish = self.assignment.control.wish();
            let memory = self.memory.in_use();
            let agreed = self.rank.agree(&Word { outcome, wish, examples, loader_wait, memory, lap })?;
            let stop = agreed.stop;
            self.say(Report::Step { agreed, learning_rate, loader_queue })?;
            if stop.is_some() {
                return Ok(stop);
            }
        }
        Ok(None)
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
        let Assignment { plan, settings, stored, .. } = self.assignment;
        DeviceBatch::new(batch, *stored, plan.model.input, settings.kind, settings.device)
    }

    fn learning_rate(&self) -> f64 {
        let Assignment { learning_rate, schedule, total_steps, steps_per_epoch, .. } = self.assignment;
        learning_rate * schedule.factor(self.steps, *total_steps, *steps_per_epoch)
    }
}
