//! When checkpoints are written, and which are kept.

use crate::training::{at, recipe, steps, trained};
use mpt::checkpoint::{Best, Checkpoint};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::Event;
use mpt::launch::control::Control;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn checkpoints_come_as_often_as_asked_and_the_newest_are_kept() {
    let kept = |settings: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        trained(dir.path(), None, settings);
        steps(dir.path())
    };
    assert_eq!(kept(&["checkpoint.every_steps=5"]), [18, 15, 12, 10, 6, 5]);
    // Weights that never change are never better than at first.
    assert_eq!(kept(&["checkpoint.every_steps=5", "checkpoint.keep=2", "optimizer.learning_rate=0"]), [18, 15, 6]);
    assert_eq!(kept(&["checkpoint.every_epochs=2", "train.epochs=5"]), [30, 24, 12]);
    assert_eq!(kept(&["checkpoint.every_epochs=0", "train.steps=7"]), [7]);
    assert_eq!(kept(&["checkpoint.every_epochs=0", "checkpoint.every_steps=6"]), [18, 12, 6]);
    let by_time = ["checkpoint.every_epochs=0", "checkpoint.every_time=0.000001s", "parallel.mesh=2x2"];
    assert_eq!(kept(&by_time), (1..=18).rev().collect::<Vec<u64>>());
    assert_eq!(kept(&["checkpoint.every_epochs=0", "checkpoint.every_time=1d"]), [18]);
    assert!(kept(&["checkpoint.keep=0"]).is_empty());
}

/// The clock of one of four ranks says that a checkpoint is due, those of the others do not.
#[test]
fn a_checkpoint_is_due_for_all_ranks_by_the_clock_of_any_and_then_not_at_once_again() {
    static ONE: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&["checkpoint.every_epochs=0", "checkpoint.every_time=1s", "parallel.mesh=2x2"]);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, dir.path());
    // Asked by each rank at the end of its step, before it looks at its clock.
    job.assignment.memory = Some(|| {
        if !ONE.swap(true, Ordering::Relaxed) {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(1) {
                std::thread::yield_now();
            }
        }
        None
    });
    run(job, Ranks::All, &mut |_| {}).unwrap();
    let steps = steps(dir.path());
    assert!(steps.ends_with(&[1]) && steps.len() < 18, "{steps:?}");
}

/// The test accuracies of a run's epochs, with their steps, six of which are an epoch.
fn evaluations(events: &[Event]) -> Vec<(u64, f64)> {
    let evaluated = events.iter().filter_map(|event| match event {
        Event::Epoch(epoch) => epoch.test.map(|test| (6 * epoch.epoch, test.accuracy())),
        _ => None,
    });
    evaluated.collect()
}

/// The first of those with the most right answers.
fn best_of(evaluations: &[(u64, f64)]) -> Best {
    let most = evaluations.iter().map(|(_, accuracy)| *accuracy).fold(0.0, f64::max);
    let (step, test_accuracy) = *evaluations.iter().find(|(_, accuracy)| *accuracy == most).unwrap();
    Best { step, test_accuracy }
}

#[test]
fn the_best_is_kept_and_linked_also_when_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (of_run, linked) = (dir.path().join("checkpoints"), dir.path().join("checkpoints/best"));
    let settings =
        ["checkpoint.keep=1", "data.test_examples=40", "optimizer.learning_rate=0.02", "schedule.kind=constant"];
    let longer = |epochs: &'static str| [&settings[..], &[epochs]].concat();
    let (summary, events) = trained(dir.path(), None, &longer("train.epochs=5"));
    let mut evaluated = evaluations(&events);
    let best = best_of(&evaluated);
    assert!(best.step < 30, "it is not the last that is the best: {evaluated:?}");
    assert_eq!((summary.best, steps(dir.path())), (Some(best), vec![30, best.step]));
    assert_eq!(fs::read_link(&linked).unwrap(), Path::new(&format!("step-{:08}", best.step)));
    assert_eq!(Checkpoint::open(&linked).unwrap().state.position.step, best.step);
    let state = Checkpoint::open(&at(dir.path(), 30)).unwrap().state;
    assert_eq!(state.best, Some(best_of(&evaluated[..4])), "those before it");

    // The last epoch is evaluated again, which makes it no better than itself.
    let (summary, events) = trained(dir.path(), Some(&at(dir.path(), 30)), &longer("train.epochs=9"));
    evaluated.extend(&evaluations(&events)[1..]);
    let best = best_of(&evaluated);
    assert_eq!(summary.best, Some(best));
    assert_eq!(steps(dir.path()).last(), Some(&best.step));
    assert_eq!(fs::read_link(&linked).unwrap(), Path::new(&format!("step-{:08}", best.step)));

    // From before the best there was, it is another's.
    let (from, other) = (dir.path().join("from"), dir.path().join("other"));
    trained(&from, None, &longer("train.epochs=1"));
    fs::create_dir(&other).unwrap();
    fs::rename(from.join("checkpoints"), other.join("checkpoints")).unwrap();
    fs::create_dir(at(&other, best.step)).unwrap();
    fs::remove_file(other.join("checkpoints/best")).unwrap();
    symlink(format!("step-{:08}", best.step), other.join("checkpoints/best")).unwrap();
    trained(&other, Some(&at(&other, 6)), &longer("train.steps=7"));
    let link = fs::read_link(other.join("checkpoints/best")).unwrap();
    assert!([6, 7].map(|step| format!("step-{step:08}")).contains(&link.to_str().unwrap().to_owned()), "{link:?}");
    assert!(of_run.is_dir());
}

#[test]
fn going_on_from_an_older_checkpoint_leaves_later_ones_behind() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), None, &["checkpoint.every_steps=4"]);
    trained(dir.path(), Some(&at(dir.path(), 6)), &["train.steps=7"]);
    assert_eq!(steps(dir.path()), [7, 6, 4]);
}
