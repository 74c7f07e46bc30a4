//! What signals do to a run: it ends after the step at hand, and the exit code says whether it can go on.

use crate::program::{mpt, tiny};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// A run that gets SIGINT after its first step: its exit code, and what it says after that.
#[cfg(target_os = "linux")]
fn interrupted(command: &mut Command) -> (Option<i32>, Vec<String>, String) {
    signalled(command, &[libc::SIGINT])
}

/// The same with these signals.
#[cfg(target_os = "linux")]
fn signalled(command: &mut Command, signals: &[libc::c_int]) -> (Option<i32>, Vec<String>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("first step after")).unwrap().unwrap();
    for signal in signals {
        // SAFETY: sends a signal to a child that has not been waited for, so its process id is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, *signal) }, 0);
    }
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    let mut results = String::new();
    child.stdout.take().unwrap().read_to_string(&mut results).unwrap();
    (child.wait().unwrap().code(), said, results)
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_run_after_the_step_at_hand() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let run = run.to_str().unwrap();
    let (code, said, results) = interrupted(&mut mpt(&tiny(&["--gpus", "2", "--run-dir", run])));
    assert_eq!(code, Some(75), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("stopped by a signal after step ")), "{said:?}");
    assert_eq!(said.last(), Some(&format!("go on with: mpt train --resume {run}")));
    assert!(results.starts_with("loss ") && !results.contains("test acc"), "{results}");
}

/// A cluster warns by SIGUSR1, and may send SIGTERM after it while the run still writes its checkpoint.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_after_a_warning_does_not_end_the_run_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut command = mpt(&tiny(&["--run-dir", run.to_str().unwrap()]));
    let (code, said, _) = signalled(&mut command, &[libc::SIGUSR1, libc::SIGTERM]);
    assert_eq!(code, Some(75), "{said:?}");
}

/// The evaluation of a million images would take long; what was learned before it is not lost.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_an_evaluation_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let long = ["--set", "data.train_examples=8", "--set", "data.test_examples=1000000"];
    // The second is an epoch without a checkpoint of its own: it is written when the signal comes.
    for (number, more) in
        [["--epochs", "1"].as_slice(), &["--epochs", "2", "--set", "checkpoint.every_epochs=0"]].iter().enumerate()
    {
        let run = run.join(number.to_string());
        let mut command = mpt(&tiny(&[&long[..], more, &["--run-dir", run.to_str().unwrap()]].concat()));
        let (code, said, results) = interrupted(&mut command);
        assert_eq!(code, Some(75), "{said:?}");
        assert!(results.starts_with("loss ") && !results.contains("test acc"), "{results}");
        assert!(run.join("checkpoints/step-00000001/state.json").exists());
    }
}

/// No folder to write to, or checkpoints switched off: there is nothing to go on with, and the exit code says so.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_without_a_checkpoint_is_told_by_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("runs"), "no folder").unwrap();
    let without = ["--run-dir", "run", "--set", "checkpoint.keep=0"];
    for (more, signal, expected) in [(&[][..], libc::SIGINT, 130), (&without, libc::SIGTERM, 143)] {
        let (code, said, _) = signalled(mpt(&tiny(more)).current_dir(dir.path()), &[signal]);
        assert_eq!(code, Some(expected), "{said:?}");
        assert!(!said.iter().any(|line| line.starts_with("go on with")), "{said:?}");
    }
}
