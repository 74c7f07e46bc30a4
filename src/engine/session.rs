//! The loop: epochs of training, an evaluation after each, until the last step or an early end. It gives orders to the
//! ranks, puts their reports together, and says what happened as events.
//!
//! * `checkpoints` the loop's checkpoints
//! * `streams` the batches that it hands to the ranks

mod checkpoints;
mod streams;

use self::checkpoints::Checkpoints;
pub use self::streams::masks;
use super::agreement::Agreed;
use super::nonfinite::Origin;
use super::norms;
use super::saving::Saving;
use super::worker::{Assignment, Ended, MOST_LEFT_OUT, Order, Report, Seat, work};
use crate::checkpoint::Position;
use crate::comm::Groups;
use crate::data::{Counts, Preparation, Source, Supply};
use crate::error::{Error, Result};
use crate::events::{Bottleneck, DeviceTime, Epoch, Event, Started, Step, StopReason, Summary};
use crate::launch::peers::Peers;
use crate::launch::threads::{self, Crew};
use crate::layers::Outcome;
use crate::plan::Mesh;
use crate::recipe::Precision;
use crossbeam::channel::{Receiver, Sender, never, unbounded};
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
    /// The most steps of the whole run; 0: no limit.
    pub most_steps: u64,
    /// How images are prepared in training.
    pub prepare_train: Preparation,
    /// How they are in evaluations.
    pub prepare_test: Preparation,
    /// The name of each rank's device.
    pub devices: Vec<String>,
    /// The time after which the run ends, to be told at the start.
    pub max_time: Option<Duration>,
    /// How many threads of the loader read, where examples are slow to read; 0: one for each core.
    pub readers: usize,
    /// Where the loaders of this process count what they make.
    pub loaded: Arc<Counts>,
    /// Where and when checkpoints are written; `None`: there are none.
    pub saving: Option<Saving>,
    /// The other processes of the run, if each writes its own slices of a checkpoint; else the first rank writes all.
    pub peers: Option<Peers>,
}

/// The ranks of a run that are in this process, a thread each.
pub enum Ranks {
    /// All of them, over shared memory.
    All,
    /// Those that were put in their groups elsewhere.
    Grouped(Grouped),
}

/// Ranks in their groups.
pub struct Grouped {
    /// Where their batches come from.
    pub supply: Supply,
    /// Each rank with its groups.
    pub groups: Vec<(usize, Groups)>,
    /// What ends the run from without.
    pub interrupts: Receiver<Error>,
}

impl Ranks {
    fn grouped(self, mesh: Mesh) -> Grouped {
        match self {
            Self::All => {
                let groups = threads::groups(mesh).into_iter().enumerate().collect();
                Grouped { supply: Supply::Here, groups, interrupts: never() }
            }
            Self::Grouped(grouped) => grouped,
        }
    }
}

/// Runs the ranks of a job that are in this process, and tells `listen` what happens.
///
/// # Errors
/// The error of the rank that ended the run.
pub fn run(mut job: Job, ranks: Ranks, listen: &mut dyn FnMut(&Event)) -> Result<Summary> {
    let mut assignment = job.assignment.clone();
    assignment.checkpoint_every = assignment.checkpoint_every.filter(|_| job.saving.is_some());
    let Grouped { supply, groups, interrupts } = ranks.grouped(assignment.plan.mesh);
    let speaks = groups.iter().any(|(rank, _)| *rank == 0);
    let writes = speaks || job.peers.is_some();
    if writes {
        // As it is when the run begins: it may shrink under a run.
        job.saving = job.saving.take().map(|saving| saving.with_train_set(job.train.identity()));
    }
    let to_first = job.peers.is_none() && groups.len() < assignment.plan.mesh.ranks();
    let (mut senders, mut seats) = (Vec::new(), Vec::new());
    for (rank, groups) in groups {
        let (sender, orders) = unbounded();
        seats.push((rank, Seat { groups, orders, speaks: senders.is_empty() }));
        senders.push(sender);
    }
    let orders = senders;
    let crew = threads::start_some(seats, move |rank, seat, reporter| work(&assignment, rank, seat, reporter))?;
    let crew = crew.interrupted_by(interrupts);
    let position = job.assignment.position;
    let saved = job.assignment.begin.as_ref().map(|_| position.step);
    let time_before = position.whole_time;
    let begin = Instant::now();
    let plan = &job.assignment.plan;
    let layers = norms::layers(plan).into_iter().map(|layer| plan.model.layers[layer].name.clone()).collect();
    let times = vec![DeviceTime::default(); job.devices.len()];
    let checkpoints = Checkpoints { speaks, writes, to_first, tried: saved, saved, unlinked: false, background: None };
    Session { job, supply, crew, orders, listen, position, checkpoints, begin, time_before, times, layers }.run()
}

struct Session<'l> {
    job: Job,
    /// Where the batches of the ranks of this process come from.
    supply: Supply,
    crew: Crew<Report>,
    orders: Vec<Sender<Order>>,
    listen: &'l mut dyn FnMut(&Event),
    position: Position,
    checkpoints: Checkpoints,
    begin: Instant,
    /// The time of the run before it was resumed.
    time_before: Duration,
    /// The time of each rank in the epoch's steps.
    times: Vec<DeviceTime>,
    /// The names of the layers with weights.
    layers: Vec<String>,
}

impl Session<'_> {
    fn run(mut self) -> Result<Summary> {
        self.say(Event::Started(self.length()));
        let (last, stopped) = loop {
            let (done, stopped) = self.epoch()?;
            if stopped.is_some() || self.position.epoch >= self.job.epochs {
                break (done, stopped);
            }
            self.position = self.position.next_epoch();
        };
        let best = self.end_checkpoints();
        self.orders.clear();
        while self.crew.next_report()?.is_some() {}
        let summary = Summary {
            last: Some(last),
            steps: self.position.step,
            examples: self.position.examples,
            train_time: self.position.train_time,
            whole_time: self.whole_time(),
            stopped,
            saved: self.checkpoints.saved == Some(self.position.step),
            best,
            devices: self.job.devices.clone(),
        };
        self.say(Event::Finished(summary.clone()));
        Ok(summary)
    }

    fn whole_time(&self) -> Duration {
        self.time_before + self.begin.elapsed()
    }

    fn say(&mut self, event: Event) {
        (self.listen)(&event);
    }

    fn length(&self) -> Started {
        let Assignment { total_steps, steps_per_epoch, .. } = self.job.assignment;
        Started {
            devices: self.job.devices.clone(),
            plan: Arc::clone(&self.job.assignment.plan),
            precision: Precision::of(self.job.assignment.settings.kind).name().to_owned(),
            steps_per_epoch,
            total_steps,
            steps_done: self.position.step,
            epochs: self.job.epochs,
            train_examples: self.job.train.len() as u64,
            test_examples: self.job.test.len() as u64,
            max_time: self.job.max_time,
        }
    }

    /// What is left of the epoch at hand: its training, a checkpoint, its evaluation. In this order: of a run that ends
    /// while it evaluates nothing is lost, for the evaluation can be done again.
    /// With the epoch it gives why the run ends now, if it does.
    fn epoch(&mut self) -> Result<(Epoch, Option<StopReason>)> {
        let cut_short = self.train()?;
        let epoch = self.position.epoch;
        let ends = cut_short.is_some() || epoch == self.job.epochs;
        if ends || self.job.saving.as_ref().is_some_and(|saving| saving.is_due_after(epoch)) {
            self.save()?;
        }
        let begin = Instant::now();
        // Who sends a signal wants the end, not another evaluation.
        let (test, stopped) = match cut_short {
            Some(StopReason::Signal(_)) => (None, cut_short),
            // A signal may end the evaluation of a whole epoch.
            _ => self.evaluate().map(|(test, stopped)| (test, stopped.or(cut_short)))?,
        };
        if stopped.is_some() {
            // A signal during an evaluation: this epoch may be one without a checkpoint of its own.
            self.save()?;
        }
        if let Some(test) = &test {
            self.position.plateau = self.job.assignment.schedule.after(self.position.plateau, test);
            self.score(test)?;
        }
        let Position { epoch_outcome: train, epoch_train_time: train_time, epoch_loader_wait: loader_wait, .. } =
            self.position;
        let epoch = Epoch { epoch, train, test, train_time, loader_wait, test_time: begin.elapsed(), cut_short };
        if let Some(bottleneck) = Bottleneck::of(epoch.epoch, &self.job.devices, &self.times) {
            self.say(Event::Bottleneck(bottleneck));
        }
        self.times.fill(DeviceTime::default());
        self.say(Event::Epoch(epoch));
        Ok((epoch, stopped))
    }

    /// Trains to the end of the epoch, with a checkpoint where one is due on the way. Says why if the end is early.
    fn train(&mut self) -> Result<Option<StopReason>> {
        let Assignment { total_steps, steps_per_epoch, .. } = self.job.assignment;
        let mut streams = Vec::new();
        loop {
            let of_run = total_steps.saturating_sub(self.position.step);
            let of_epoch = steps_per_epoch - self.position.steps_in_epoch;
            if of_epoch == 0 {
                let over = of_run == 0 && self.position.epoch < self.job.epochs;
                return Ok(over.then_some(StopReason::Steps));
            }
            if of_run == 0 {
                return Ok(Some(StopReason::Steps));
            }
            if streams.is_empty() {
                streams = self.training_streams()?;
            }
            let ahead = self.job.saving.as_ref().map_or(u64::MAX, |saving| saving.steps_ahead(&self.position));
            let limit = of_run.min(of_epoch).min(ahead);
            let plateau = self.position.plateau;
            self.order(streams.iter().map(|batches| Order::Train { batches: batches.clone(), limit, plateau }))?;
            let Ended { stopped, save, .. } = self.steps()?;
            if stopped.is_some() {
                return Ok(stopped);
            }
            if save || limit == ahead {
                self.save()?;
            }
        }
    }

    /// Follows the ranks through an order to train; says why they left it early, if they did.
    fn steps(&mut self) -> Result<Ended> {
        let (mut ended, mut together) = (0, Ended::default());
        while ended < self.orders.len() {
            match self.report()? {
                Report::Step { agreed, learning_rate, loader_queue, nonfinite } => {
                    self.step(agreed, learning_rate, loader_queue, nonfinite);
                    self.tell_of_unread();
                }
                Report::Done(Ended { stopped, save, nonfinite }) => {
                    ended += 1;
                    together.stopped = together.stopped.or(stopped);
                    together.save |= save;
                    together.nonfinite = together.nonfinite.or(nonfinite);
                }
                Report::Evaluated(_) | Report::Shards(_) => {}
            }
        }
        together.nonfinite.map_or(Ok(together), |origin| Err(self.not_finite(origin)))
    }

    /// Why the run cannot go on after the step at hand.
    fn not_finite(&self, origin: Origin) -> Error {
        let Assignment { plan, settings, .. } = &self.job.assignment;
        let (step, place) = (self.position.step, origin.describe(&plan.model));
        let (row, or) = if settings.skip_nonfinite {
            (format!(", the {MOST_LEFT_OUT}th in a row"), "")
        } else {
            (String::new(), ", or have such steps left out: --set train.nonfinite=skip")
        };
        Error::failed(format!(
            "step {step} is not finite{row}: the first numbers that are not are {place}; no checkpoint has been written since. \
             Go on from the newest one with a lower learning rate{or}"
        ))
    }

    fn step(&mut self, agreed: Agreed, learning_rate: f64, loader_queue: usize, nonfinite: Option<Origin>) {
        let (outcome, ranks, norms) = (agreed.outcome, agreed.ranks(), agreed.gradient_norms());
        self.times.iter_mut().zip(&ranks).for_each(|(time, step)| time.add(step));
        // The ranks go in step, so one rank's clock tells the time of all. The slowest rank's time of each step would
        // count a delay twice: as its own, and as the others' waiting in the next step.
        let (time, loader_wait) = ranks.first().map(|own| (own.phases.total(), own.loader_wait)).unwrap_or_default();
        let training = time.saturating_sub(loader_wait);
        let Assignment { plan, settings, .. } = &self.job.assignment;
        let left_out = nonfinite.filter(|_| settings.skip_nonfinite).map(|origin| origin.describe(&plan.model));
        let position = &mut self.position;
        position.step += 1;
        position.steps_in_epoch += 1;
        if left_out.is_none() {
            position.examples += outcome.examples;
            position.epoch_outcome.add(&outcome);
        }
        position.epoch_train_time += training;
        position.epoch_loader_wait += loader_wait;
        position.train_time += training;
        let Position { step, epoch, epoch_outcome, .. } = *position;
        self.say(Event::Step(Step {
            step,
            epoch,
            outcome,
            epoch_outcome,
            learning_rate,
            gradient_norm: norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt(),
            layer_gradient_norms: self.layers.iter().cloned().zip(norms).collect(),
            loader_queue,
            left_out,
            time,
            ranks,
        }));
    }

    /// The outcome over the test set; `None`, with the reason, if a signal came.
    fn evaluate(&mut self) -> Result<(Option<Outcome>, Option<StopReason>)> {
        let streams = self.test_streams()?;
        self.order(streams.into_iter().map(Order::Evaluate))?;
        let of = self.job.test.len() as u64;
        let (mut ended, mut total, mut stopped) = (0, Outcome::default(), None);
        while ended < self.orders.len() {
            match self.report()? {
                Report::Evaluated(outcome) => {
                    total = outcome;
                    self.say(Event::Evaluating { done: outcome.examples, of });
                    self.tell_of_unread();
                }
                Report::Done(Ended { stopped: early, .. }) => {
                    ended += 1;
                    stopped = stopped.or(early);
                }
                Report::Step { .. } | Report::Shards(_) => {}
            }
        }
        Ok((stopped.is_none().then_some(total), stopped))
    }

    /// Says which images the loader has found that it cannot read.
    fn tell_of_unread(&mut self) {
        let problems = self.job.loaded.news();
        if !problems.is_empty() {
            self.say(Event::Unread(problems));
        }
    }

    fn order(&self, orders: impl Iterator<Item = Order>) -> Result<()> {
        for (sender, order) in self.orders.iter().zip(orders) {
            if sender.send(order).is_err() {
                // The rank has ended; what it had to say is among the reports.
                break;
            }
        }
        Ok(())
    }

    fn report(&mut self) -> Result<Report> {
        self.tell_of_checkpoint(false);
        self.crew.next_report()?.ok_or_else(|| Error::failed("the ranks ended before their work was done"))
    }
}
