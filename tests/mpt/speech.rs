//! What is said on stderr: for people on a terminal and in a pipe, and as JSON for programs.

use crate::program::{mpt, output, stderr, stdout, tiny};
use serde_json::Value;
use std::process::Output;

/// What was said, each line of which must be one object with what every line has.
pub fn objects(done: &Output) -> Vec<Value> {
    let said = stderr(done);
    let read = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\nin {said}"));
        let time = object["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(["info", "warning", "error"].contains(&object["level"].as_str().unwrap()), "{line}");
        assert!(object["kind"].is_string() && object["message"].is_string(), "{line}");
        object
    };
    said.lines().map(read).collect()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn every_line_of_a_run_is_an_object_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = ["--gpus", "2", "--mode", "model-parallel", "--set", "data.train_examples=40", "--epochs", "2"];
    let place = ["--log-format", "json", "--run-dir", run.to_str().unwrap()];
    let done = output(&tiny(&[&more[..], &place].concat()));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).starts_with("loss "), "results are for people still: {}", stdout(&done));
    let said = objects(&done);
    let kinds: Vec<&str> = said.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let mut once = kinds.clone();
    once.dedup();
    let first = ["devices", "run_directory", "recipe", "plan", "started", "first_step", "estimate"];
    assert_eq!(once[..first.len()], first, "{kinds:?}");
    assert_eq!(once[once.len() - 2..], ["finished", "memory"], "{kinds:?}");
    let one = |kind: &str| of_kind(&said, kind)[0];
    assert_eq!(one("recipe")["recipe"]["train"]["batch_size"], 8);
    assert_eq!(one("plan")["mesh"], "1x2");
    assert!(one("plan")["exchanges"][0].as_str().unwrap().starts_with("before conv3: all-gather"));
    assert_eq!(one("started")["total_steps"], 10);
    let last = *of_kind(&said, "step").last().unwrap();
    assert_eq!((&last["step"], &last["epoch"]), (&10.into(), &2.into()));
    assert_eq!(last["devices"].as_array().unwrap().len(), 2);
    assert!(last["devices"][1]["examples_per_second"].as_f64() > Some(0.0), "{last}");
    let waiting = last["devices"][1]["waiting_share"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&waiting), "{last}");

    let record = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (told, recorded) = (of_kind(&said, "epoch"), of_kind(&record, "epoch"));
    assert_eq!((told.len(), recorded.len()), (2, 2));
    for (told, recorded) in told.iter().zip(recorded) {
        for key in ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "examples_per_second"] {
            assert_eq!(told[key], recorded[key], "{key}");
        }
    }
    let saved = of_kind(&said, "checkpoint");
    assert_eq!(saved.last().unwrap()["step"], 10);
}

#[test]
fn what_goes_wrong_is_an_object_too() {
    let wrong = ["train", "--mode", "modelparallel", "--log-format", "json"];
    let done = output(&wrong);
    let said = objects(&done);
    assert_eq!((said.len(), done.status.code()), (1, Some(2)));
    assert_eq!((&said[0]["level"], &said[0]["exit_code"]), (&"error".into(), &2.into()));
    let sentence = "--mode: [parallel]: there is no mode `modelparallel`; did you mean `model-parallel`?";
    assert_eq!(said[0]["message"], sentence);

    // The environment may ask for it too, and a flag goes before the environment.
    let done = mpt(&wrong[..3]).env("MPT_LOG_FORMAT", "json").output().unwrap();
    assert_eq!(objects(&done)[0]["message"], sentence);
    let done = mpt(&[&wrong[..3], &["--log-format", "text"]].concat()).env("MPT_LOG_FORMAT", "json").output().unwrap();
    assert_eq!(stderr(&done), format!("mpt: {sentence}\n"));
    let done = mpt(&["train"]).env("MPT_LOG_FORMAT", "xml").output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("'xml'") && stderr(&done).contains("[possible values: text, json]"));
}

#[test]
fn quiet_is_quiet_in_json_too() {
    let done = output(&tiny(&["--steps", "2", "--quiet", "--log-format", "json"]));
    assert_eq!((stderr(&done), done.status.code()), (String::new(), Some(0)));
}

#[test]
fn each_device_has_a_line_after_an_epoch() {
    let done = output(&tiny(&["--set", "data.train_examples=40", "--epochs", "2", "--gpus", "2"]));
    let said = stderr(&done);
    let lines: Vec<&str> = said.lines().collect();
    let after: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].starts_with("epoch ")).collect();
    let epochs: Vec<usize> = after.into_iter().filter(|&line| lines[line].contains("waiting for data")).collect();
    assert_eq!(epochs.len(), 2, "{said}");
    for line in epochs {
        for (device, line) in ["  cpu:0 ", "  cpu:1 "].iter().zip(&lines[line + 1..]) {
            assert!(
                line.starts_with(device) && line.contains(" examples/sec ") && line.ends_with(" % waiting"),
                "{said}"
            );
        }
    }
}

/// A run whose stderr is a terminal: all that it writes there.
#[cfg(target_os = "linux")]
fn on_a_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    use std::io::Read;
    use std::os::fd::{FromRawFd, OwnedFd};

    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are written, the name and the settings may be null, and the size is read.
    let opened = unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(opened, 0);
    // SAFETY: `openpty` has just opened them, and nothing else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut command = mpt(arguments);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").envs(environment.iter().copied()).stderr(theirs);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    // Its end of the terminal is open in the command too.
    drop(command);
    let mut written = Vec::new();
    // The end of a terminal that nobody holds any more is an error.
    let _ = std::fs::File::from(ours).read_to_end(&mut written);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    String::from_utf8(written).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_a_bar_and_a_line_for_each_device() {
    let run = tiny(&["--steps", "200", "--gpus", "2", "--set", "data.train_examples=800"]);
    let drawn = on_a_terminal(&run, &[]);
    assert!(drawn.contains("epoch 1/10 ") && drawn.contains("━") && drawn.contains(" left"), "{drawn}");
    assert!(drawn.contains("  cpu:0 ") && drawn.contains("  cpu:1 ") && drawn.contains(" % waiting"), "{drawn}");
    assert!(drawn.contains("\u{1b}[32m"), "the bar is coloured: {drawn}");
    let (before, rest) = drawn.split_once("epoch 1/10: loss ").expect(&drawn);
    let command = before.rsplit('\u{1b}').next().unwrap();
    assert!(matches!(command, "[2K" | "[1A" | "[2A"), "what is said stands where the bars were cleared: {command:?}");
    assert!(rest.lines().next().unwrap().ends_with(" evaluation"), "and alone: {rest}");
    // Clearing lines is no colour: only sequences that end in m are.
    let plain = on_a_terminal(&run, &[("NO_COLOR", "1")]);
    let is_colour =
        |rest: &&str| rest.trim_start_matches(|c: char| c == '[' || c == ';' || c.is_ascii_digit()).starts_with('m');
    let colours: Vec<&str> = plain.split('\u{1b}').skip(1).filter(is_colour).collect();
    assert_eq!(colours, Vec::<&str>::new(), "{plain:?}");
    assert!(plain.contains("━"), "{plain}");
}
