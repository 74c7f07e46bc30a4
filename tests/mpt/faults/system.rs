//! A system that is not as others: without links, with a clock that goes backwards.

use super::{ended_well, forms, with};
use crate::program::{mpt, numbers, output, stderr, text};
use crate::training::at;
use mpt::checkpoint::Checkpoints;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that is loaded before the system's refuses links, as file systems like FAT do.
const NO_LINKS: &str = r"
#include <errno.h>

int symlink(const char *target, const char *path)
{
    errno = EPERM;
    return -1;
}
";

#[cfg(target_os = "linux")]
#[test]
fn without_links_the_best_checkpoint_is_kept_and_that_nothing_leads_to_it_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let library = preloaded(dir.path(), NO_LINKS);
    let [form, ..] = forms();
    let more = ["--set", "data.train_examples=24", "--set", "checkpoint.keep=1", "--learning-rate", "0", "--epochs"];
    let said = |run: &Path, epochs: &[&str]| {
        let done = mpt(&with(&form, run, &[&more[..], epochs].concat())).env("LD_PRELOAD", &library).output().unwrap();
        ended_well(&done);
        stderr(&done)
    };
    // With a learning rate of 0 no later checkpoint is better than the first.
    for quiet in [false, true] {
        let run = dir.path().join(format!("run-{quiet}"));
        let all = said(&run, if quiet { &["3", "--quiet"] } else { &["3"] });
        let best = run.join("checkpoints/best");
        let sentence = format!(
            "no link leads to the best checkpoint: {}: Operation not permitted (os error 1); it is kept under its own name, \
             and training goes on",
            best.display()
        );
        assert_eq!(all.lines().filter(|line| *line == sentence).count(), 1, "{all}");
        let kept: Vec<u64> = Checkpoints::of_run(&run).list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(kept, [9, 3], "the best is kept all the same");
        let end = all.lines().find(|line| line.starts_with("best: "));
        assert_eq!(end.is_none(), quiet);
        assert!(end.is_none_or(|line| line.ends_with(" after step 3, kept as checkpoints/step-00000003")), "{end:?}");
        let refused = output(&["eval", text(&best)]);
        let sentence = format!(
            "mpt: {} is not there: no checkpoint of the run has been evaluated yet, or its file system has no links; the run \
             said which is the best, and {} has those that are kept\n",
            best.display(),
            run.join("checkpoints").display()
        );
        assert_eq!((stderr(&refused), refused.status.code()), (sentence, Some(2)));
    }
    // The runs of a recipe have no link to the newest: it is found by its number.
    let numbered = |more: &[&str]| {
        let mut command = mpt(&[&form[..], &["--device", "cpu", "--resume", "auto"], more].concat());
        let done = command.env("LD_PRELOAD", &library).current_dir(dir.path()).output().unwrap();
        ended_well(&done);
        stderr(&done)
    };
    numbered(&["--steps", "2"]);
    assert!(!dir.path().join("runs/fashion-mnist-tiny/latest").is_symlink());
    let again = numbered(&["--steps", "3"]);
    assert!(again.contains("\nresumed after step 2 of 3, from runs/fashion-mnist-tiny/001/checkpoints/"), "{again}");
}

/// A library of a C source.
fn preloaded(folder: &Path, source: &str) -> PathBuf {
    let (file, library) = (folder.join("preloaded.c"), folder.join("preloaded.so"));
    fs::write(&file, source).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &file]).status().unwrap();
    assert!(made.success());
    library
}

/// A library that is loaded before the system's sets the clock an hour back whenever it is read.
const CLOCK: &str = r"
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static atomic_long hours;
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME)
        time->tv_sec -= 3600 * ++hours;
    return result;
}
";

#[cfg(target_os = "linux")]
#[test]
fn a_clock_that_goes_backwards_changes_nothing_but_the_times_of_day() {
    let dir = tempfile::tempdir().unwrap();
    let library = preloaded(dir.path(), CLOCK);
    for (number, form) in forms().iter().enumerate() {
        let (run, whole) = (dir.path().join(format!("run-{number}")), dir.path().join(format!("whole-{number}")));
        let more = ["--steps", "6", "--set", "checkpoint.every_time=1h", "--set", "parallel.timeout=20s"];
        let expected = ended_well(&output(&with(form, &whole, &more)));
        let done = mpt(&with(form, &run, &more)).env("LD_PRELOAD", &library).output().unwrap();
        assert_eq!(ended_well(&done), expected);
        assert_eq!(numbers(&run), numbers(&whole));
        let record = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let times: Vec<f64> = lines.iter().map(|line| line["time"].as_f64().unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[1] < pair[0] - 3000.0), "the clock went on: {times:?}");
        let seconds: Vec<f64> = lines.iter().map(|line| line["seconds"].as_f64().unwrap()).collect();
        assert!(seconds.iter().all(|seconds| (0.0..600.0).contains(seconds)), "{seconds:?}");
        assert_eq!(Checkpoints::of_run(&run).list().unwrap(), [(6, at(&run, 6))]);
    }
}
