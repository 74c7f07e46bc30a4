//! `--resume` as a user meets it: exit codes, the record, what is found and what is refused.

mod changes;

use crate::program::{mpt, numbers, output, stderr, stdout, text, tiny};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

/// A tiny run with momentum, recorded in a folder.
fn recorded<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["--run-dir", run, "--precision", "fp32", "--set", "optimizer.momentum=0.9"];
    tiny(&[&common[..], more].concat())
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().next().unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_a_signal_stopped_goes_on_as_if_it_had_not() {
    let dir = tempfile::tempdir().unwrap();
    let (run, whole) = (dir.path().join("stopped"), dir.path().join("whole"));
    let more = ["--gpus", "2", "--mode", "model-parallel", "--epochs", "2"];
    let start = recorded(text(&run), &more);
    let mut child = mpt(&start).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("first step after")).unwrap().unwrap();
    let busy = output(&recorded(text(&run), &["--resume", "auto"]));
    let last = stderr(&busy).lines().last().unwrap().to_owned();
    assert_eq!(last, format!("mpt: {} is the record of a run that still goes on", run.display()));
    assert_eq!(busy.status.code(), Some(2));
    // SAFETY: sends a signal to a child that has not been waited for, so its process id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) }, 0);
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{said:?}");
    let before = numbers(&run);
    let stopped = before.iter().filter(|line| line["kind"] == "step").count() as u64;

    // It goes on where it was, with a word about nothing but the steps.
    let steps = (stopped + 20).to_string();
    let resumed = output(&["train", "--resume", text(&run), "--steps", &steps]);
    let said = stderr(&resumed);
    assert!(said.contains(&format!("\nresumed after step {stopped} of {steps}, from {}/", run.display())), "{said}");
    let expected = output(&recorded(text(&whole), &[&more[..], &["--steps", &steps]].concat()));
    assert_eq!(done(&resumed), done(&expected));
    assert_eq!(numbers(&run), numbers(&whole));
    let file = format!("checkpoints/step-{:08}/model.safetensors", stopped + 20);
    assert_eq!(fs::read(run.join(&file)).unwrap(), fs::read(whole.join(&file)).unwrap());
}

#[test]
fn a_finished_run_says_its_result_again_and_goes_on_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    let small = ["--set", "data.train_examples=40", "--epochs", "2"];
    let first = output(&recorded(text(&run), &small));
    let record = numbers(&run);
    // A crash may leave half a line.
    let mut torn = fs::read(run.join("metrics.jsonl")).unwrap();
    torn.extend(b"{\"kind\":\"st");
    fs::write(run.join("metrics.jsonl"), torn).unwrap();
    let again = output(&["train", "--resume", text(&run)]);
    assert_eq!(done(&again), done(&first));
    assert!(stderr(&again).contains("\nnothing is left to train; "), "{}", stderr(&again));
    assert_eq!(numbers(&run), record);
    // Or all of a line but its end: no other line may be written behind it.
    let bytes = fs::read(run.join("metrics.jsonl")).unwrap();
    let last_step = record.iter().rposition(|line| line["kind"] == "step").unwrap();
    let length: usize = bytes.split_inclusive(|byte| *byte == b'\n').take(last_step + 1).map(<[u8]>::len).sum();
    fs::write(run.join("metrics.jsonl"), &bytes[..length - 1]).unwrap();
    done(&output(&["train", "--resume", text(&run)]));
    let mut rest = record.clone();
    rest.remove(last_step);
    assert_eq!(numbers(&run), rest);
    fs::write(run.join("metrics.jsonl"), bytes).unwrap();
    let longer = output(&["train", "--resume", text(&run), "--epochs", "3"]);
    let expected = output(&recorded(text(&whole), &["--set", "data.train_examples=40", "--epochs", "3"]));
    assert_eq!(done(&longer), done(&expected));
    assert_eq!(numbers(&run), numbers(&whole));
}

/// What a schedule remembers of evaluations is in the checkpoint, and a timeline goes on where it was.
#[test]
fn a_schedule_that_waits_for_evaluations_goes_on_as_if_the_run_had_not_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    let settings = [
        "schedule.kind=plateau",
        "schedule.factor=0.5",
        "schedule.patience=0",
        "schedule.threshold=0.1",
        "optimizer.rate_in_velocity=true",
        "schedule.events=[{epoch = 1, parameters = \"conv1.*\", frozen = true}, {epoch = 3, lr_mult = 0.1}]",
        "data.train_examples=40",
    ];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    done(&output(&recorded(text(&run), &[&set[..], &["--epochs", "2"]].concat())));
    let longer = output(&["train", "--resume", text(&run), "--epochs", "6"]);
    let expected = output(&recorded(text(&whole), &[&set[..], &["--epochs", "6"]].concat()));
    assert_eq!(done(&longer), done(&expected));
    assert_eq!(numbers(&run), numbers(&whole));
    let rates: Vec<f64> = numbers(&run).iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    let mut distinct = rates.clone();
    distinct.dedup();
    // The first falls of the rate come from evaluations, before and after the run went on; one comes from the event.
    assert!(distinct.len() >= 4 && distinct.is_sorted_by(|a, b| a > b), "{distinct:?}");
}

/// With a learning rate of 0 no later checkpoint is better than the first, which stays while others go.
#[test]
fn the_best_checkpoint_is_a_path_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = ["--epochs", "4", "--learning-rate", "0", "--set", "data.train_examples=24"];
    let more = [&more[..], &["--set", "checkpoint.keep=1", "--set", "checkpoint.every_time=1h"]].concat();
    let done = output(&recorded(text(&run), &more));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let line = stderr(&done).lines().find(|line| line.starts_with("best: test acc ")).unwrap().to_owned();
    assert!(line.ends_with(" after step 3, kept as checkpoints/best"), "{line}");
    let best = run.join("checkpoints/best");
    let evaluated = output(&["eval", text(&best), "--json"]);
    let evaluated: Value = serde_json::from_str(&stdout(&evaluated)).unwrap();
    assert!(evaluated["checkpoint"].as_str().unwrap().ends_with("checkpoints/step-00000003"), "{evaluated}");
    let resumed = output(&["train", "--resume", text(&best), "--epochs", "2"]);
    assert!(stderr(&resumed).contains("\nresumed after step 3 of 6, from "), "{}", stderr(&resumed));
    let state = fs::read_to_string(run.join("checkpoints/step-00000006/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["run"]["recipe"]["train"]["epochs"], &state["best"]["step"]), (&2.into(), &3.into()));
}

#[test]
fn auto_finds_the_newest_run_or_begins_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let small = ["--set", "data.train_examples=40", "--resume", "auto"];
        let done = mpt(&tiny(&[&small[..], more].concat())).current_dir(dir.path()).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        stderr(&done)
    };
    let said = run(&["--steps", "3"]);
    let begun = "nothing to resume: runs/fashion-mnist-tiny/latest holds no run; a new one begins\n";
    assert!(said.starts_with(begun), "{said}");
    let said = run(&["--steps", "7", "--mesh", "1x3"]);
    let from = "resumed after step 3 of 7, from runs/fashion-mnist-tiny/001/checkpoints/step-00000003";
    assert!(said.contains(from) && said.contains("plan: tiny, model-parallel, 1 data x 3 model"), "{said}");
    let said = run(&["--steps", "8", "--mode", "data-parallel"]);
    assert!(said.contains("plan: tiny, data-parallel, 3 data x 1 model"), "{said}");
    assert!(!dir.path().join("runs/fashion-mnist-tiny/002").exists());

    // The newest has lost a byte: the one before is taken, and the damaged one named.
    let newest = dir.path().join("runs/fashion-mnist-tiny/001/checkpoints/step-00000008/model.safetensors");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[1..]).unwrap();
    let said = run(&["--steps", "9"]);
    assert!(
        said.starts_with(
            "left out: runs/fashion-mnist-tiny/001/checkpoints/step-00000008/model.safetensors is damaged"
        )
    );
    assert!(said.contains("resumed after step 7 of 9"), "{said}");

    // A run that never came to a checkpoint begins again.
    fs::remove_dir_all(dir.path().join("runs/fashion-mnist-tiny/001/checkpoints")).unwrap();
    let said = run(&["--steps", "2"]);
    assert!(said.starts_with("runs/fashion-mnist-tiny/001 holds no checkpoint; the run begins again\n"), "{said}");
    assert_eq!(numbers(&dir.path().join("runs/fashion-mnist-tiny/001")).len(), 3);
}

/// A run that went back and ended before it had a checkpoint of its own must not come to what it has left behind.
#[test]
fn a_run_that_went_back_is_not_found_where_it_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    done(&output(&recorded(
        text(&run),
        &[
            "--steps",
            "3",
            "--set",
            "checkpoint.every_steps=1",
            "--set",
            "checkpoint.keep=9",
            "--set",
            "model.activation=relu",
        ],
    )));
    let older = run.join("checkpoints/step-00000001");
    let back = ["train", "--resume", text(&older), "--allow-changes", "--set", "checkpoint.every_steps=0"];
    let failed = output(&[&back[..], &["--learning-rate", "1e30", "--steps", "9"]].concat());
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    assert!(stderr(&failed).contains("is not finite"), "{}", stderr(&failed));
    let again =
        output(&["train", "--resume", text(&run), "--learning-rate", "0.01", "--steps", "2", "--allow-changes"]);
    done(&again);
    assert!(stderr(&again).contains("\nresumed after step 1 of 2, from "), "{}", stderr(&again));
    let names =
        fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert!(!names.iter().any(|name| name.contains("00000003")), "{names:?}");
}

#[test]
fn what_cannot_be_resumed_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let run = text(&run);
    assert_eq!(output(&recorded(run, &["--steps", "2"])).status.code(), Some(0));
    let checkpoint = format!("{run}/checkpoints/step-00000002");
    let moved = format!("{}/moved", dir.path().display());
    fs::create_dir(&moved).unwrap();
    fs::copy(format!("{checkpoint}/state.json"), format!("{moved}/state.json")).unwrap();
    for (arguments, sentence) in [
        (
            vec!["--resume", "nowhere"],
            "mpt: --resume: nowhere is neither a run directory (recipe.toml is not in it) nor a checkpoint".to_owned(),
        ),
        (
            vec!["--resume", &moved],
            format!(
                "mpt: --resume: {moved} does not lie in the folder `checkpoints` of a run, where recipe.toml says \
                 what was trained"
            ),
        ),
        (
            vec!["--resume", run, "--run-dir", "other"],
            format!("mpt: --run-dir: a run goes on where it lies; leave this out, as --resume {run} names the run"),
        ),
    ] {
        let done = output(&[&["train"], &arguments[..]].concat());
        assert_eq!((stderr(&done).trim_end(), done.status.code()), (sentence.as_str(), Some(2)));
    }
    // One checkpoint that was named is taken or not: there is no other in its place.
    fs::write(format!("{checkpoint}/model.safetensors"), "short").unwrap();
    let done = output(&["train", "--resume", &checkpoint]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("step-00000002/model.safetensors is damaged: it has 5 bytes"), "{}", stderr(&done));
    fs::remove_dir_all(format!("{run}/checkpoints")).unwrap();
    let done = output(&["train", "--resume", run]);
    let sentence = format!("mpt: --resume: the run {run} holds no checkpoint\n");
    assert_eq!((stderr(&done), done.status.code()), (sentence, Some(2)));
}

/// A limit on the size of files stands for a full disk: the write fails when some of the file is there.
#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_does_not_fit_on_the_disk_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    assert_eq!(output(&recorded(text(&run), &["--steps", "2"])).status.code(), Some(0));
    let limited = mpt(&["train", "--resume", text(&run), "--steps", "4", "--quiet"]);
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "ulimit -f 8; exec \"$@\"", "bash"]).arg(limited.get_program());
    let done = shell.args(limited.get_args()).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let (run_shown, too_large) = (run.display(), "File too large (os error 27); training goes on");
    let said = stderr(&done);
    // Each is written by a thread of its own.
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    let unfinished = format!("{run_shown}/checkpoints/.step-00000004/model.safetensors");
    assert_eq!(
        said,
        [
            format!("no checkpoint of step 4: {unfinished}: {too_large}"),
            format!("the curves are not drawn: {run_shown}/curves.svg: {too_large}")
        ]
    );
    assert!(!run.join("curves.svg.part").exists());
    let left = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name != "best").collect::<Vec<_>>(), ["step-00000002"]);
    assert_eq!(numbers(&run).len(), 5);
}
