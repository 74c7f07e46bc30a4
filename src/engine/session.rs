//! The loop: epochs of training, an evaluation after each, until the last step or an early end. It gives orders to the
//! ranks, puts their reports together, and says what happened as events.

use super::worker::{Assignment, Order, Report, work};
use crate::data::{Augmentation, LoaderOptions, MaskSpec, Order as DataOrder, Source, start};
use crate::error::{Error, Result};
use crate::events::{Epoch, Event, RankStep, Started, Step, StopReason, Summary};
use crate::launch::threads::{self, Crew};
use crate::layers::Outcome;
use crate::model::Kind;
use crate::plan::Plan;
use crossbeam::channel::{Sender, unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that a run needs, checked.
pub struct Job {
    /// What is the same on every rank.
    pub assignment: Assignment,
    /// The training set.
    pub train: Arc<dyn Source>,
    /// The test set.
    pub test: Arc<dyn Source>,
    /// Examples in a step, over all ranks.
    pub batch_size: usize,
    /// Passes over the training set.
    pub epochs: u64,
    /// How images are changed in training.
    pub augmentation: Augmentation,
    /// The name of each rank's device.
    pub devices: Vec<String>,
    /// The time after which the run ends, to be told at the start.
    pub max_time: Option<Duration>,
}

/// The dropout layers of a model, for the loader to draw masks for.
pub fn masks(plan: &Plan) -> Vec<MaskSpec> {
    let layers = plan.model.layers.iter().enumerate();
    layers
        .filter_map(|(layer, found)| match found.kind {
            Kind::Dropout { probability } => {
                Some(MaskSpec { layer: layer as u32, features: found.output.len(), probability })
            }
            _ => None,
        })
        .collect()
}

/// Runs a job on CPU devices, one thread each, and tells `listen` what happens.
///
/// # Errors
/// The error of the rank that ended the run.
pub fn run(job: Job, listen: &mut dyn FnMut(&Event)) -> Result<Summary> {
    let assignment = job.assignment.clone();
    let (orders, seats): (Vec<_>, Vec<_>) = threads::groups(assignment.plan.mesh)
        .into_iter()
        .map(|groups| {
            let (sender, receiver) = unbounded();
            (sender, (groups, receiver))
        })
        .unzip();
    let crew = threads::start(seats, move |rank, (groups, orders), reporter| {
        work(&assignment, rank, groups, &orders, reporter)
    })?;
    Session {
        job,
        crew,
        orders,
        listen,
        steps: 0,
        examples: 0,
        train_time: Duration::ZERO,
        loader_wait: Duration::ZERO,
    }
    .run()
}

struct Session<'l> {
    job: Job,
    crew: Crew<Report>,
    orders: Vec<Sender<Order>>,
    listen: &'l mut dyn FnMut(&Event),
    steps: u64,
    examples: u64,
    train_time: Duration,
    loader_wait: Duration,
}

impl Session<'_> {
    fn run(mut self) -> Result<Summary> {
        let begin = Instant::now();
        self.say(Event::Started(self.length()));
        let (mut last, mut stopped) = (None, None);
        for epoch in 0..self.job.epochs {
            let done = self.epoch(epoch)?;
            last = Some(done);
            stopped = match done.test {
                // A signal ended the evaluation of a whole epoch.
                None => self.job.assignment.control.wish(),
                Some(_) => done.cut_short,
            };
            if stopped.is_some() {
                break;
            }
        }
        self.orders.clear();
        while self.crew.next_report()?.is_some() {}
        let summary = Summary {
            last,
            steps: self.steps,
            examples: self.examples,
            train_time: self.train_time,
            whole_time: begin.elapsed(),
            stopped,
            devices: self.job.devices.clone(),
        };
        self.say(Event::Finished(summary.clone()));
        Ok(summary)
    }

    fn say(&mut self, event: Event) {
        (self.listen)(&event);
    }

    fn length(&self) -> Started {
        let Assignment { total_steps, steps_per_epoch, .. } = self.job.assignment;
        Started {
            devices: self.job.devices.clone(),
            steps_per_epoch,
            total_steps,
            epochs: self.job.epochs,
            train_examples: self.job.train.len() as u64,
            test_examples: self.job.test.len() as u64,
            max_time: self.job.max_time,
        }
    }

    fn epoch(&mut self, epoch: u64) -> Result<Epoch> {
        let (time_before, wait_before) = (self.train_time, self.loader_wait);
        let (train, mut cut_short) = self.train(epoch)?;
        let all_steps = self.job.assignment.total_steps;
        if cut_short.is_none()
            && self.steps >= all_steps
            && self.steps < self.job.epochs.saturating_mul(self.job.assignment.steps_per_epoch)
        {
            cut_short = Some(StopReason::Steps);
        }
        let (train_time, loader_wait) = (self.train_time - time_before, self.loader_wait - wait_before);
        let begin = Instant::now();
        // Who sends a signal wants the end, not another evaluation.
        let test = match cut_short {
            Some(StopReason::Signal(_)) => None,
            _ => self.evaluate()?,
        };
        let epoch =
            Epoch { epoch: epoch + 1, train, test, train_time, loader_wait, test_time: begin.elapsed(), cut_short };
        self.say(Event::Epoch(epoch));
        Ok(epoch)
    }

    fn train(&mut self, epoch: u64) -> Result<(Outcome, Option<StopReason>)> {
        let options = LoaderOptions {
            order: DataOrder::Shuffled { epoch },
            masks: masks(&self.job.assignment.plan),
            augmentation: self.job.augmentation,
            ..self.loader_options()
        };
        let limit = self.job.assignment.total_steps - self.steps;
        let streams = start(Arc::clone(&self.job.train), options)?;
        self.order(streams.into_iter().map(|batches| Order::Train { batches, limit }))?;
        let mut total = Outcome::default();
        let mut ranks: Vec<Option<RankStep>> = vec![None; self.orders.len()];
        let (mut ended, mut stopped) = (0, false);
        while ended < self.orders.len() {
            match self.report()? {
                Report::Step { rank, outcome, learning_rate, own } => {
                    ranks[rank] = Some(own);
                    if ranks.iter().all(Option::is_some) {
                        let own = ranks.iter_mut().filter_map(Option::take).collect();
                        total.add(&outcome);
                        self.step(epoch, outcome, total, learning_rate, own);
                    }
                }
                Report::Done { stopped: early } => {
                    ended += 1;
                    stopped |= early;
                }
                Report::Evaluated { .. } => {}
            }
        }
        let reason = if stopped { self.job.assignment.control.wish() } else { None };
        Ok((total, reason))
    }

    fn step(&mut self, epoch: u64, outcome: Outcome, epoch_outcome: Outcome, learning_rate: f64, ranks: Vec<RankStep>) {
        self.steps += 1;
        self.examples += outcome.examples;
        // The ranks go in step, so one rank's clock tells the time of all. The slowest rank's time of each step would
        // count a delay twice: as its own, and as the others' waiting in the next step.
        let (time, loader_wait) = ranks.first().map(|own| (own.phases.total(), own.loader_wait)).unwrap_or_default();
        self.train_time += time.saturating_sub(loader_wait);
        self.loader_wait += loader_wait;
        let step = self.steps;
        self.say(Event::Step(Step { step, epoch: epoch + 1, outcome, epoch_outcome, learning_rate, time, ranks }));
    }

    /// The outcome over the test set; `None` if a signal came.
    fn evaluate(&mut self) -> Result<Option<Outcome>> {
        let streams = start(Arc::clone(&self.job.test), self.loader_options())?;
        self.order(streams.into_iter().map(Order::Evaluate))?;
        let of = self.job.test.len() as u64;
        let (mut ended, mut total, mut stopped) = (0, Outcome::default(), false);
        while ended < self.orders.len() {
            match self.report()? {
                Report::Evaluated { rank: 0, outcome } => {
                    total = outcome;
                    self.say(Event::Evaluating { done: outcome.examples, of });
                }
                Report::Done { stopped: early } => {
                    ended += 1;
                    stopped |= early;
                }
                Report::Evaluated { .. } | Report::Step { .. } => {}
            }
        }
        Ok((!stopped).then_some(total))
    }

    fn loader_options(&self) -> LoaderOptions {
        let Assignment { plan, settings, .. } = &self.job.assignment;
        LoaderOptions {
            seed: settings.seed,
            batch_size: self.job.batch_size,
            order: DataOrder::InOrder,
            first_step: self.steps,
            data_ranks: plan.mesh.data,
            replicas: plan.mesh.model,
            ..LoaderOptions::default()
        }
    }

    fn order(&mut self, orders: impl Iterator<Item = Order>) -> Result<()> {
        for (sender, order) in self.orders.iter().zip(orders) {
            if sender.send(order).is_err() {
                // The rank has ended; what it had to say is among the reports.
                break;
            }
        }
        Ok(())
    }

    fn report(&mut self) -> Result<Report> {
        self.crew.next_report()?.ok_or_else(|| Error::failed("the ranks ended before their work was done"))
    }
}
