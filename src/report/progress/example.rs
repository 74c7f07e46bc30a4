//! A run as events tell of it, for tests.

use crate::engine::phases::Phases;
use crate::events::{RankStep, Started, Step};
use crate::layers::Outcome;
use crate::model::parse::Edits;
use crate::model::shipped;
use crate::plan::{Mode, plan};
use std::sync::Arc;
use std::time::Duration;

/// A run of so many epochs on two devices, in batches of eight examples.
pub fn started(epochs: u64, steps_per_epoch: u64, test_examples: u64) -> Started {
    let (model, mode) = (shipped::load("tiny", &Edits::default()).unwrap(), Mode::DataParallel);
    Started {
        plan: Arc::new(plan(&model, mode.mesh(2).unwrap(), mode).unwrap()),
        precision: "fp32".into(),
        devices: vec!["cpu:0".into(), "cpu:1".into()],
        steps_per_epoch,
        total_steps: epochs * steps_per_epoch,
        steps_done: 0,
        epochs,
        train_examples: 8 * steps_per_epoch,
        test_examples,
        max_time: None,
    }
}

/// A step of such a run, which took so many seconds: all of them forward.
pub fn step(step: u64, epoch: u64, seconds: f64) -> Step {
    let outcome = Outcome { loss_sum: 4.0, correct: 6, examples: 8 };
    let own = RankStep {
        examples: 4,
        phases: Phases::from_seconds([0.0, seconds, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ..RankStep::default()
    };
    Step {
        step,
        epoch,
        outcome,
        epoch_outcome: outcome,
        learning_rate: 0.1,
        gradient_norm: 1.0,
        layer_gradient_norms: vec![("conv1".into(), 0.5)],
        loader_queue: 1,
        left_out: None,
        time: Duration::from_secs_f64(seconds),
        ranks: vec![own; 2],
    }
}
