//! How far a run is.

use crate::events::{Bottleneck, Event};
use crate::report::table::commas;

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done, those before the run was resumed included.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// The epoch at hand, from 1; 0: none has begun.
    pub epoch: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// The learning rate of the last step; NaN before it.
    pub learning_rate: f64,
    /// What bounded the last epoch; `None`: none has ended.
    pub bottleneck: Option<Bottleneck>,
    doing: Doing,
}

/// What a run is doing.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Beginning,
    Training,
    Evaluating { done: u64, of: u64 },
    Ended,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: 0,
            total_steps: 0,
            steps_per_epoch: 0,
            epoch: 0,
            epochs: 0,
            learning_rate: f64::NAN,
            bottleneck: None,
            doing: Doing::Beginning,
        }
    }
}

impl Progress {
    /// Takes note of what happened.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) => {
                self.step = started.steps_done;
                self.total_steps = started.total_steps;
                self.steps_per_epoch = started.steps_per_epoch;
                self.epochs = started.epochs;
            }
            Event::Step(step) => {
                self.step = step.step;
                self.epoch = step.epoch;
                self.learning_rate = step.learning_rate;
                self.doing = Doing::Training;
            }
            Event::Evaluating { done, of } => self.doing = Doing::Evaluating { done: *done, of: *of },
            Event::Bottleneck(bottleneck) => self.bottleneck = Some(bottleneck.clone()),
            Event::Epoch(_) => self.doing = Doing::Training,
            Event::Finished(_) => self.doing = Doing::Ended,
            _ => {}
        }
    }

    /// Steps that are left.
    pub fn remaining_steps(&self) -> u64 {
        self.total_steps.saturating_sub(self.step)
    }

    /// The examples done of the evaluation at hand.
    pub fn evaluated(&self) -> u64 {
        if let Doing::Evaluating { done, .. } = self.doing { done } else { 0 }
    }

    /// What the run is doing, as a word and for people. `late`: nothing has been heard of it for too long.
    pub fn state(&self, late: bool) -> (&'static str, String) {
        match self.doing {
            Doing::Ended => ("ended", "ended".into()),
            _ if late => ("late", "a step is overdue".into()),
            Doing::Beginning => ("beginning", "before the first step".into()),
            Doing::Training => ("training", "training".into()),
            Doing::Evaluating { done, of } => ("evaluating", format!("evaluating, {} of {}", commas(done), commas(of))),
        }
    }
}
