//! The loop: evaluation counts every example once (law 4), whatever the split; runs end when they should.

use mpt::engine::session::{Job, Ranks, run};
use mpt::events::{Event, StopReason, Summary};
use mpt::launch::control::Control;
use mpt::recipe::{Layered, Recipe};
use std::time::Instant;

fn recipe(settings: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
    let small =
        ["model.name=tiny", "data.source=noise", "data.image=[2,13,13]", "data.classes=5", "train.precision=fp64"];
    for assignment in small.iter().chain(settings) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

fn trained(settings: &[&str], control: Control) -> (Summary, Vec<Event>) {
    let mut events = Vec::new();
    let job = Job::new(&recipe(settings), control).unwrap();
    let summary = run(job, Ranks::All, &mut |event| events.push(event.clone())).unwrap();
    (summary, events)
}

#[test]
fn evaluation_counts_every_example_once_on_any_mesh() {
    let sizes = ["data.train_examples=40", "data.test_examples=37", "train.batch_size=8", "train.epochs=1"];
    let outcome = |mesh: &str| {
        let mesh = format!("parallel.mesh={mesh}");
        let settings: Vec<&str> = sizes.iter().copied().chain([mesh.as_str()]).collect();
        let last = trained(&settings, Control::default()).0.last.unwrap();
        (last.train, last.test.unwrap())
    };
    let (train, test) = outcome("1x1");
    assert_eq!((train.examples, test.examples), (40, 37));
    for mesh in ["1x2", "1x3", "1x4", "2x1", "3x1", "4x1", "2x2"] {
        let (split_train, split_test) = outcome(mesh);
        assert_eq!((split_test.examples, split_test.correct), (test.examples, test.correct), "{mesh}");
        assert!((split_test.loss_sum - test.loss_sum).abs() < 1e-9 * test.loss_sum, "{mesh}");
        assert_eq!((split_train.examples, split_train.correct), (train.examples, train.correct), "{mesh}");
    }
}

#[test]
fn a_learnable_task_is_learned_in_each_mode() {
    for mesh in ["1x1", "1x2", "2x1"] {
        let mesh = format!("parallel.mesh={mesh}");
        let settings = [
            "data.source=synthetic",
            "data.train_examples=600",
            "data.test_examples=200",
            "train.batch_size=20",
            "train.epochs=4",
            "optimizer.learning_rate=0.05",
            "optimizer.momentum=0.9",
            "model.dropout=0",
            &mesh,
        ];
        let (summary, events) = trained(&settings, Control::default());
        let test = summary.last.unwrap().test.unwrap();
        assert!(test.accuracy() > 0.8, "{mesh}: {}", test.accuracy());
        let epochs = events.iter().filter(|event| matches!(event, Event::Epoch(_))).count();
        let steps = events.iter().filter(|event| matches!(event, Event::Step(_))).count();
        assert_eq!((epochs, steps as u64, summary.steps, summary.examples), (4, 120, 120, 2400), "{mesh}");
    }
}

#[test]
fn a_run_ends_after_the_steps_asked_for_and_evaluates() {
    let settings =
        ["data.train_examples=40", "data.test_examples=9", "train.batch_size=8", "train.steps=7", "parallel.devices=2"];
    let (summary, _) = trained(&settings, Control::default());
    let last = summary.last.unwrap();
    assert_eq!((summary.steps, summary.stopped, last.epoch), (7, Some(StopReason::Steps), 2));
    assert_eq!((last.train.examples, last.test.unwrap().examples), (16, 9));
}

#[test]
fn a_run_whose_time_is_up_ends_after_the_step_at_hand_and_evaluates() {
    let settings = ["data.train_examples=4000", "data.test_examples=9", "train.batch_size=8", "parallel.devices=2"];
    let (summary, _) = trained(&settings, Control::until(Some(Instant::now())));
    assert_eq!((summary.steps, summary.stopped), (1, Some(StopReason::Time)));
    assert_eq!(summary.last.unwrap().test.unwrap().examples, 9);
}

#[test]
fn the_learning_rate_follows_the_schedule() {
    let settings = [
        "data.train_examples=32",
        "data.test_examples=8",
        "train.batch_size=8",
        "train.epochs=3",
        "optimizer.learning_rate=0.4",
        "schedule.kind=cosine",
        "schedule.warmup=1",
        "parallel.devices=2",
    ];
    let (_, events) = trained(&settings, Control::default());
    let rates = events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(step.learning_rate),
        _ => None,
    });
    // Four steps of rise, then half a cosine over the eight that are left.
    let fall = (0..8).map(|step| 0.2 * (1.0 + (std::f64::consts::PI * f64::from(step) / 8.0).cos()));
    let expected: Vec<f64> = [0.1, 0.2, 0.3, 0.4].into_iter().chain(fall).collect();
    let rates: Vec<f64> = rates.collect();
    assert_eq!(rates.len(), expected.len());
    assert!(rates.iter().zip(&expected).all(|(found, wanted)| (found - wanted).abs() < 1e-12), "{rates:?}");
}
