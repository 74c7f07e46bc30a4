//! The run as it goes, on stderr: a bar on a terminal, else a line now and then.

use super::table::commas;
use super::{console, results};
use crate::error::Error;
use crate::events::{Epoch, Event, Started, Step, StopReason};
use crate::recipe::duration::show;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Steps that are timed before the time of the whole run is estimated. The first is left out: it warms up.
const ESTIMATE_AFTER: u64 = 4;
/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The cost of evaluating an example against training on it: a forward pass against a forward and a backward pass,
/// of which the backward pass takes about two thirds.
const EVALUATION_COST: f64 = 1.0 / 3.0;

/// That a checkpoint could not be written, for people.
pub fn not_saved(step: u64, problem: &Error) -> String {
    format!("no checkpoint of step {}: {problem}; training goes on", commas(step))
}

/// Shows events.
pub struct Progress {
    begin: Instant,
    bar: Option<ProgressBar>,
    started: Option<Started>,
    last_line: Instant,
    first_step_done: bool,
    timed: Duration,
    timed_steps: u64,
}

impl Progress {
    /// Shows a run that began at `begin`, with a bar if `terminal`.
    pub fn new(begin: Instant, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{prefix} [{bar:24}] {pos}/{len}  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self {
            begin,
            bar,
            started: None,
            last_line: Instant::now(),
            first_step_done: false,
            timed: Duration::ZERO,
            timed_steps: 0,
        }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.started = Some(started.clone()),
            Event::Step(step) => self.step(step),
            Event::Evaluating { done, of } => self.evaluating(*done, *of),
            Event::Saved(saved) => {
                self.say(&format!("checkpoint: {} in {}", saved.folder.display(), show(saved.time)));
            }
            Event::NotSaved { step, problem } => self.say(&not_saved(*step, problem)),
            Event::Epoch(epoch) => self.epoch(epoch),
            Event::Finished(summary) => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                match summary.stopped {
                    Some(StopReason::Signal(_)) => {
                        console::say(&format!("stopped by a signal after step {}", commas(summary.steps)))
                    }
                    Some(stopped) => console::say(&format!(
                        "ended after step {}: {}",
                        commas(summary.steps),
                        results::reason(stopped)
                    )),
                    None => {}
                }
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| console::say(line)),
            None => console::say(line),
        }
    }

    fn step(&mut self, step: &Step) {
        let Some(started) = self.started.clone() else { return };
        if !self.first_step_done {
            self.first_step_done = true;
            self.say(&format!("first step after {}", show(self.begin.elapsed())));
        } else {
            self.timed += step.time;
            self.timed_steps += 1;
        }
        if step.step == (started.steps_done + ESTIMATE_AFTER).min(started.total_steps) {
            self.estimate(&started, step);
        }
        let rate = step.outcome.examples as f64 / step.time.as_secs_f64().max(1e-9);
        let in_epoch = (step.step - 1) % started.steps_per_epoch + 1;
        let left = self.time_left(&started, step);
        let message = format!(
            "loss {:.3}, acc {:.3}, {rate:.1} examples/sec, {} left",
            step.epoch_outcome.loss(),
            step.epoch_outcome.accuracy(),
            show(left)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_length(started.steps_per_epoch);
                bar.set_prefix(format!("epoch {}/{}", step.epoch, started.epochs));
                bar.set_position(in_epoch);
                bar.set_message(message);
            }
            None if self.last_line.elapsed() >= LINE_EVERY || step.step == started.total_steps => {
                self.last_line = Instant::now();
                let (epoch, epochs, steps) = (step.epoch, started.epochs, started.steps_per_epoch);
                console::say(&format!("epoch {epoch}/{epochs}, step {in_epoch}/{steps}: {message}"));
            }
            None => {}
        }
    }

    /// What is left of the run, evaluations included, at the pace so far.
    fn time_left(&self, started: &Started, step: &Step) -> Duration {
        let per_step = match self.timed_steps {
            0 => step.time,
            steps => self.timed.div_f64(steps as f64),
        };
        let steps = started.total_steps.saturating_sub(step.step);
        let evaluations = started.total_steps.div_ceil(started.steps_per_epoch) + 1 - step.epoch;
        let per_example = per_step.as_secs_f64() / step.outcome.examples.max(1) as f64;
        let evaluating = evaluations as f64 * started.test_examples as f64 * per_example * EVALUATION_COST;
        let left = per_step.mul_f64(steps as f64) + Duration::from_secs_f64(evaluating);
        let last = Duration::from_secs_f64(started.test_examples as f64 * per_example * EVALUATION_COST);
        match started.max_time {
            // When the time is up, the step at hand and one evaluation follow.
            Some(limit) => left.min(limit.saturating_sub(self.begin.elapsed()) + per_step + last),
            None => left,
        }
    }

    fn estimate(&self, started: &Started, step: &Step) {
        let whole = Started { max_time: None, ..started.clone() };
        let left = self.time_left(&whole, step);
        let pace = self.timed.div_f64(self.timed_steps.max(1) as f64);
        let (steps, pace) = (commas(started.total_steps), show(pace));
        let advice = match started.max_time {
            Some(limit) if limit < self.begin.elapsed() + left => {
                format!("; it will end after {}, as asked", show(limit))
            }
            _ if left > Duration::from_secs(300) => "; shorter: --max-time 5m, --epochs N, or --recipe quick".into(),
            _ => String::new(),
        };
        self.say(&format!(
            "estimate: {} more for all {steps} steps at {pace} a step, with evaluation{advice}",
            show(left)
        ));
    }

    fn evaluating(&mut self, done: u64, of: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of);
                bar.set_position(done);
                bar.set_message("evaluating");
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                console::say(&format!("evaluating: {done}/{of} examples"));
            }
            None => {}
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let epochs = self.started.as_ref().map_or(0, |started| started.epochs);
        let rate = epoch.train.examples as f64 / epoch.train_time.as_secs_f64().max(1e-9);
        let part = match epoch.cut_short {
            Some(_) => format!(" (its first {} examples)", commas(epoch.train.examples)),
            None => String::new(),
        };
        let mut line = format!("epoch {}/{epochs}{part}: {}", epoch.epoch, results::line_of(epoch));
        line += &format!(", {rate:.1} examples/sec, {}", show(epoch.train_time));
        line += &format!(" + {} waiting for data", show(epoch.loader_wait));
        if epoch.test.is_some() {
            line += &format!(" + {} evaluation", show(epoch.test_time));
        }
        self.say(&line);
    }
}
