//! The run directory as a run leaves it: what a line tells, and that a disk that is full or slow ends nothing.

use crate::program::{mpt, output, stderr, stdout, tiny};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn lines(run: &Path) -> Vec<Value> {
    let record = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    record.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn event_files(run: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.");
    paths.filter(named).collect()
}

#[test]
fn a_line_has_every_field() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = ["--gpus", "2", "--steps", "2", "--quiet", "--precision", "fp32", "--run-dir", run.to_str().unwrap()];
    let done = output(&tiny(&more));
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let lines = lines(&run);
    let step = [
        "kind",
        "step",
        "epoch",
        "loss",
        "accuracy",
        "learning_rate",
        "gradient_norm",
        "layer_gradient_norms",
        "examples",
        "seconds",
        "examples_per_second",
        "loader_queue",
        "time",
        "devices",
    ];
    assert_eq!(keys(&lines[0]), step);
    let device = [
        "device",
        "examples_per_second",
        "data_seconds",
        "forward_seconds",
        "exchange_seconds",
        "wait_seconds",
        "backward_seconds",
        "reduce_seconds",
        "optimizer_seconds",
        "overlapped_seconds",
        "awaited_seconds",
        "loader_wait_seconds",
        "sent_bytes",
        "received_bytes",
        "memory_bytes",
    ];
    assert_eq!(keys(&lines[0]["devices"][1]), device);
    let epoch = [
        "kind",
        "epoch",
        "step",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "examples_per_second",
        "seconds",
        "bottleneck",
        "time",
    ];
    assert_eq!(keys(&lines[2]), epoch);
    assert_eq!(lines[2]["step"], 2);
    let norms = lines[0]["layer_gradient_norms"].as_object().unwrap();
    let whole = norms.values().map(|norm| norm.as_f64().unwrap().powi(2)).sum::<f64>().sqrt();
    let told = lines[0]["gradient_norm"].as_f64().unwrap();
    assert!(whole > 0.0 && (whole / told - 1.0).abs() < 1e-9, "{norms:?} are parts of {told}");
    assert_eq!(norms.keys().next().unwrap(), "conv1", "in the model's order");
    let bottleneck = &lines[2]["bottleneck"];
    let shares =
        ["data_share", "compute_share", "link_share", "wait_share"].map(|key| bottleneck[key].as_f64().unwrap());
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6 && bottleneck["bound"].is_string(), "{bottleneck}");
    assert!(lines[0]["time"].as_f64() > Some(1.7e9) && lines[0]["time"].as_f64() <= lines[1]["time"].as_f64());
    assert_eq!(event_files(&run).len(), 1);
}

/// A limit on the size of files stands for a full disk; that it is lifted, for room that is made.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_of_once_and_the_record_goes_on_when_there_is_room() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut command = mpt(&tiny(&["--quiet", "--run-dir", run.to_str().unwrap()]));
    let limit = |bytes| libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &limit(8192)) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let shown = run.display();
    let gap = format!("the record in {shown} has a gap: File too large (os error 27); training goes on");
    assert_eq!(said.next(), Some(gap));
    let process = child.id() as libc::pid_t;
    // SAFETY: reads one limit, and the other may be null; the child has not been waited for, so its number is its own.
    let lifted =
        unsafe { libc::prlimit(process, libc::RLIMIT_FSIZE, &limit(libc::RLIM_INFINITY), std::ptr::null_mut()) };
    assert_eq!(lifted, 0);
    let before = fs::metadata(run.join("metrics.jsonl")).unwrap().len();
    while fs::metadata(run.join("metrics.jsonl")).unwrap().len() <= before.max(8192) {
        std::thread::yield_now();
    }
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(process, libc::SIGINT) }, 0);
    let rest: Vec<String> = said.collect();
    assert_eq!((child.wait().unwrap().code(), rest.len()), (Some(75), 1), "{rest:?}");
    let missing: u64 = rest[0].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(rest[0], format!("{missing} line(s) are missing in the record in {shown}"));
    // What is there is whole and in order, and what is missing was counted: in one file, or in the other.
    let steps: Vec<u64> =
        lines(&run).iter().filter(|line| line["kind"] == "step").map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted_by(|step, next| step < next), "{steps:?}");
    let gap = steps.last().unwrap() - steps.len() as u64;
    assert!(gap > 0 && gap <= missing, "{gap} of {missing}");
}

/// A pipe that nobody reads stands for a disk that has stopped.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_has_stopped_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let pipe = run.join("metrics.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let open = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let done = output(&tiny(&["--steps", "300", "--quiet", "--run-dir", run.to_str().unwrap()]));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).starts_with("loss "), "{}", stdout(&done));
    let said = stderr(&done);
    let missing: u64 = said.split(' ').next().unwrap().parse().expect(&said);
    assert_eq!(said, format!("{missing} line(s) are missing in the record in {}\n", run.display()));
    assert!((1..300).contains(&missing), "a pipe takes some: {missing}");
    drop(open);
}
