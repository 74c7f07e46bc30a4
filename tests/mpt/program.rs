//! The program as the tests start it, and what is read of a run that it made.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub fn mpt(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpt"));
    // Runs are recorded under the working directory.
    command.args(arguments).stdin(Stdio::null()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MPT_")) {
        command.env_remove(name);
    }
    command
}

pub fn output(arguments: &[&str]) -> Output {
    mpt(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const TINY: [&str; 13] = [
    "train",
    "--model",
    "tiny",
    "--batch-size",
    "8",
    "--set",
    "data.source=synthetic",
    "--set",
    "data.image=[2,13,13]",
    "--set",
    "data.classes=5",
    "--set",
    "data.test_examples=16",
];

pub fn tiny<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TINY.iter().copied().chain(more.iter().copied()).collect()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers of a record, without its times and devices.
pub fn numbers(run: &Path) -> Vec<Value> {
    let record = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let timeless = lines.map(|mut line| {
        for time in ["seconds", "examples_per_second", "devices", "time", "loader_queue", "bottleneck"] {
            line.as_object_mut().unwrap().remove(time);
        }
        line
    });
    timeless.collect()
}
