//! The run as it goes, on stderr: bars on a terminal, else a line now and then.

mod bars;
mod devices;
#[cfg(test)]
mod example;
mod pace;

use super::line::{Format, Line};
use super::table::commas;
use super::{console, results};
use crate::checkpoint::{Best, folder};
use crate::error::Error;
use crate::events::{Bottleneck, Epoch, Event, Saved, Shares, Started, Step, StopReason, Summary};
use crate::recipe::duration::show;
use bars::Bars;
use devices::Devices;
use pace::{ESTIMATE_AFTER, Pace};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// That a checkpoint could not be written.
pub fn not_saved(step: u64, problem: &Error) -> Line {
    let message = format!("no checkpoint of step {}: {problem}; training goes on", commas(step));
    Line::warning(message).with("step", step)
}

/// That no link leads to the best checkpoint.
pub fn not_linked(problem: &Error) -> Line {
    let message =
        format!("no link leads to the best checkpoint: {problem}; it is kept under its own name, and training goes on");
    Line::warning(message)
}

/// That a step was left out; `None` where it was not.
pub fn left_out(step: &Step) -> Option<Line> {
    let place = step.left_out.as_ref()?;
    let message = format!("step {} is left out: the first numbers that are not finite are {place}", commas(step.step));
    Some(Line::warning(message).with("step", step.step))
}

/// That an image cannot be read.
pub fn unread(problem: &str) -> Line {
    Line::warning(problem).with("problem", problem)
}

/// Shows events.
pub struct Progress {
    begin: Instant,
    terminal: bool,
    run: Option<Run>,
    /// Whether a link leads to the best checkpoint.
    best_is_linked: bool,
}

impl Progress {
    /// Shows a run that began at `begin`, with bars if `terminal`.
    pub fn new(begin: Instant, terminal: bool) -> Self {
        Self { begin, terminal: terminal && console::format() == Format::Text, run: None, best_is_linked: true }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        match (event, &mut self.run) {
            (Event::Started(started), _) => self.run = Some(Run::new(self.begin, self.terminal, started)),
            (_, None) | (Event::Saving, _) => {}
            (Event::Step(step), Some(run)) => {
                if let Some(line) = left_out(step) {
                    console::say(line);
                }
                run.step(step);
            }
            (Event::Evaluating { done, of }, Some(run)) => run.evaluating(*done, *of),
            (Event::Saved(saved), _) => console::say(saved_line(saved)),
            (Event::NotSaved { step, problem }, _) => console::say(not_saved(*step, problem)),
            (Event::NotLinked(problem), _) => {
                self.best_is_linked = false;
                console::say(not_linked(problem));
            }
            (Event::Unread(problems), _) => problems.iter().for_each(|problem| console::say(unread(problem))),
            (Event::Bottleneck(bottleneck), _) => console::say(bottleneck_line(bottleneck)),
            (Event::Epoch(epoch), Some(run)) => run.epoch(epoch),
            (Event::Finished(summary), _) => {
                self.run = None;
                if let Some(best) = summary.best.filter(|best| best.step != summary.steps) {
                    console::say(best_line(best, self.best_is_linked));
                }
                if let Some(line) = finished(summary) {
                    console::say(line);
                }
            }
        }
    }
}

fn saved_line(saved: &Saved) -> Line {
    let (folder, held_up) = (saved.folder.display().to_string(), saved.held_up.as_secs_f64());
    let message = format!("checkpoint: {folder} in {}, for which training stood {held_up:.2} s", show(saved.time));
    let line = Line::new("checkpoint", message).with("step", saved.step).with("folder", folder);
    line.with("seconds", saved.time.as_secs_f64()).with("held_up_seconds", held_up)
}

/// The best checkpoint, where it is not that of the last step.
fn best_line(best: Best, is_linked: bool) -> Line {
    let Best { step, test_accuracy } = best;
    let name = if is_linked { folder::BEST.to_owned() } else { folder::name_of(step) };
    let message = format!("best: test acc {test_accuracy:.3} after step {}, kept as checkpoints/{name}", commas(step));
    Line::new("best", message).with("step", step).with("test_accuracy", test_accuracy)
}

fn bottleneck_line(bottleneck: &Bottleneck) -> Line {
    let Shares { data, compute, link, waiting } = bottleneck.shares;
    let line = Line::new("bottleneck", bottleneck.to_string()).with("epoch", bottleneck.epoch);
    let line = line.with("bound", bottleneck.bound.name()).with("data_share", data).with("compute_share", compute);
    line.with("link_share", link).with("wait_share", waiting)
}

/// The end of a run. People hear of it if it is early; the results say the rest.
fn finished(summary: &Summary) -> Option<Line> {
    let step = commas(summary.steps);
    let message = match summary.stopped {
        Some(StopReason::Signal(_)) => format!("stopped by a signal after step {step}"),
        Some(stopped) => format!("ended after step {step}: {}", results::reason(stopped)),
        None if console::format() == Format::Json => format!("ended after step {step}, the last"),
        None => return None,
    };
    let line = Line::new("finished", message).with("step", summary.steps).with("examples", summary.examples);
    Some(line.with("seconds", summary.whole_time.as_secs_f64()).with("resumable", summary.saved))
}

/// A run that has begun.
struct Run {
    begin: Instant,
    started: Started,
    bars: Option<Bars>,
    last_line: Cell<Instant>,
    first_step_done: bool,
    pace: Pace,
    devices: Devices,
}

impl Run {
    fn new(begin: Instant, terminal: bool, started: &Started) -> Self {
        if console::format() == Format::Json {
            console::say(began(started));
        }
        Self {
            begin,
            bars: terminal.then(|| Bars::new(started.devices.len())),
            last_line: Cell::new(Instant::now()),
            first_step_done: false,
            pace: Pace::new(begin, started.clone()),
            devices: Devices::new(started.devices.clone()),
            started: started.clone(),
        }
    }

    fn step(&mut self, step: &Step) {
        let Started { steps_done, total_steps, .. } = self.started;
        self.pace.count(step);
        self.devices.step(step);
        if !self.first_step_done {
            self.first_step_done = true;
            let after = self.begin.elapsed();
            let line = Line::new("first_step", format!("first step after {}", show(after)));
            console::say(line.with("seconds", after.as_secs_f64()));
        }
        if step.step == (steps_done + ESTIMATE_AFTER).min(total_steps) {
            console::say(self.estimate(step));
        }
        let is_last = step.step == total_steps;
        match &self.bars {
            Some(bars) => {
                let (prefix, in_epoch, steps) = self.place(step);
                bars.show(prefix, in_epoch, steps, self.figures(step));
                if bars.lines() > 0 {
                    bars.show_devices(self.devices.lines(&self.devices.recent()));
                }
            }
            None if self.is_time_for_a_line() || is_last => console::say(self.line(step)),
            None => {}
        }
    }

    /// Whether there has been no line for a while; one is said now, then.
    fn is_time_for_a_line(&self) -> bool {
        let due = self.last_line.get().elapsed() >= LINE_EVERY;
        if due {
            self.last_line.set(Instant::now());
        }
        due
    }

    /// The epoch for people, the number of a step in it, and how many it has.
    fn place(&self, step: &Step) -> (String, u64, u64) {
        let Started { steps_per_epoch, epochs, .. } = self.started;
        (format!("epoch {}/{epochs}", step.epoch), (step.step - 1) % steps_per_epoch + 1, steps_per_epoch)
    }

    fn figures(&self, step: &Step) -> String {
        let (loss, accuracy) = (step.epoch_outcome.loss(), step.epoch_outcome.accuracy());
        let (rate, left) = (rate(step.outcome.examples, step.time), show(self.pace.left(step)));
        format!("loss {loss:.3}, acc {accuracy:.3}, {rate:.1} examples/sec, {left} left")
    }

    fn line(&self, step: &Step) -> Line {
        let (epoch, in_epoch, steps) = self.place(step);
        let line = Line::new("step", format!("{epoch}, step {in_epoch}/{steps}: {}", self.figures(step)));
        line.with("step", step.step)
            .with("epoch", step.epoch)
            .with("loss", step.epoch_outcome.loss())
            .with("accuracy", step.epoch_outcome.accuracy())
            .with("learning_rate", step.learning_rate)
            .with("examples_per_second", rate(step.outcome.examples, step.time))
            .with("seconds_left", self.pace.left(step).as_secs_f64())
            .with("devices", self.devices.json(&self.devices.recent()))
    }

    fn estimate(&self, step: &Step) -> Line {
        let (left, pace) = (self.pace.left_of_all(step), self.pace.of(step));
        let advice = match self.started.max_time {
            Some(limit) if limit < self.begin.elapsed() + left => {
                format!("; it will end after {}, as asked", show(limit))
            }
            _ if left > Duration::from_secs(300) => "; shorter: --max-time 5m, --epochs N, or --recipe quick".into(),
            _ => String::new(),
        };
        let (steps, left_shown) = (commas(self.started.total_steps), show(left));
        let pace_shown = match pace.as_millis() {
            milliseconds @ 0..100 => format!("{milliseconds} ms"),
            _ => show(pace),
        };
        let message = format!(
            "estimate: {left_shown} more for all {steps} steps at {pace_shown} a step, with evaluation{advice}"
        );
        let line = Line::new("estimate", message).with("seconds_left", left.as_secs_f64());
        line.with("seconds_per_step", pace.as_secs_f64()).with("steps", self.started.total_steps)
    }

    fn evaluating(&self, done: u64, of: u64) {
        match &self.bars {
            Some(bars) => bars.show("evaluating".into(), done, of, "examples".into()),
            None if self.is_time_for_a_line() => {
                let line = Line::new("evaluating", format!("evaluating: {done}/{of} examples"));
                console::say(line.with("done", done).with("of", of));
            }
            None => {}
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let works = self.devices.take_epoch();
        console::say(epoch_line(epoch, self.started.epochs).with("devices", self.devices.json(&works)));
        if self.bars.is_none() && self.devices.count() > 1 && console::format() == Format::Text {
            for line in self.devices.lines(&works) {
                console::say(&line);
            }
        }
    }
}

fn rate(examples: u64, time: Duration) -> f64 {
    examples as f64 / time.as_secs_f64().max(1e-9)
}

fn began(started: &Started) -> Line {
    let (done, total) = (started.steps_done, started.total_steps);
    let message = format!("training begins after step {} of {}", commas(done), commas(total));
    Line::new("started", message)
        .with("devices", started.devices.clone())
        .with("steps_done", done)
        .with("total_steps", total)
        .with("steps_per_epoch", started.steps_per_epoch)
        .with("epochs", started.epochs)
        .with("train_examples", started.train_examples)
        .with("test_examples", started.test_examples)
        .with("max_seconds", started.max_time.map(|time| time.as_secs_f64()))
}

fn epoch_line(epoch: &Epoch, epochs: u64) -> Line {
    let rate = rate(epoch.train.examples, epoch.train_time);
    let part = match epoch.cut_short {
        Some(_) => format!(" (its first {} examples)", commas(epoch.train.examples)),
        None => String::new(),
    };
    let mut message = format!("epoch {}/{epochs}{part}: {}", epoch.epoch, results::line_of(epoch));
    message += &format!(", {rate:.1} examples/sec, {}", show(epoch.train_time));
    message += &format!(" + {} waiting for data", show(epoch.loader_wait));
    if epoch.test.is_some() {
        message += &format!(" + {} evaluation", show(epoch.test_time));
    }
    Line::new("epoch", message)
        .with("epoch", epoch.epoch)
        .with("train_loss", epoch.train.loss())
        .with("train_accuracy", epoch.train.accuracy())
        .with("test_loss", epoch.test.map(|test| test.loss()))
        .with("test_accuracy", epoch.test.map(|test| test.accuracy()))
        .with("examples", epoch.train.examples)
        .with("examples_per_second", rate)
        .with("train_seconds", epoch.train_time.as_secs_f64())
        .with("loader_wait_seconds", epoch.loader_wait.as_secs_f64())
        .with("test_seconds", epoch.test_time.as_secs_f64())
}
