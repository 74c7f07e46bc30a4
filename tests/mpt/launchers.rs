//! Ranks that a launcher starts, here with torch's names set by hand: they meet, compare what they are about to do, compute
//! what threads compute, and say why they do not. `scripts/try-launchers` tries the same with real launchers.

use crate::program::{mpt, numbers, output, stderr, text, tiny};
use crate::rehearsal::rehearse;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

const TWO: [&str; 8] =
    ["--mode", "model-parallel", "--steps", "4", "--precision", "fp32", "--set", "parallel.meeting=60s"];

/// One of two ranks, as a launcher starts it.
fn rank(rank: usize, port: u16, arguments: &[&str]) -> Command {
    let mut command = mpt(&rehearse(&[&TWO[..], arguments].concat()));
    let (rank, port) = (rank.to_string(), port.to_string());
    command.envs([("RANK", &rank), ("LOCAL_RANK", &rank), ("MASTER_PORT", &port)]);
    command.envs([("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts two ranks at the same time and waits for both; `change` changes the second.
fn both(arguments: &[&str], change: impl FnOnce(&mut Command)) -> [Output; 2] {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (first, mut second) = (rank(0, port, arguments), rank(1, port, arguments));
    change(&mut second);
    outputs(first, second)
}

fn outputs(mut first: Command, mut second: Command) -> [Output; 2] {
    let second = second.spawn().unwrap();
    let second = thread::spawn(move || second.wait_with_output().unwrap());
    [first.output().unwrap(), second.join().unwrap()]
}

#[test]
fn ranks_that_a_launcher_started_compute_what_threads_compute() {
    let dir = tempfile::tempdir().unwrap();
    let (threads, ranks) = (dir.path().join("threads"), dir.path().join("ranks"));
    let one = output(&tiny(&[&TWO[..], &["--gpus", "2", "--device", "cpu", "--run-dir", text(&threads)]].concat()));
    assert_eq!(one.status.code(), Some(0), "{}", stderr(&one));
    let [first, second] = both(&["--gpus", "2", "--run-dir", text(&ranks)], |_| {});
    assert_eq!((first.status.code(), second.status.code()), (Some(0), Some(0)), "{}", stderr(&first));
    assert_eq!(numbers(&threads), numbers(&ranks));
    let file = Path::new("checkpoints/step-00000004/model.safetensors");
    assert!(fs::read(threads.join(file)).unwrap() == fs::read(ranks.join(file)).unwrap());
    let said = stderr(&first);
    assert!(!said.contains("not all ranks see"), "each wrote its own slices: {said}");
    assert!(
        said.contains("started by a launcher that sets RANK and WORLD_SIZE: 2 rank(s), 2 on this machine"),
        "{said}"
    );
    assert!(!stderr(&second).contains("started by"), "{}", stderr(&second));
}

/// As on machines that share no disk: the second rank does not see the folder of the run.
#[test]
fn where_ranks_do_not_share_the_folder_the_first_writes_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there, threads) = (dir.path().join("here"), dir.path().join("there"), dir.path().join("threads"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    let one = output(&tiny(&[&TWO[..], &["--gpus", "2", "--device", "cpu", "--run-dir", text(&threads)]].concat()));
    assert_eq!(one.status.code(), Some(0), "{}", stderr(&one));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = ["--gpus", "2", "--run-dir", "run"];
    let (mut first, mut second) = (rank(0, port, &arguments), rank(1, port, &arguments));
    first.current_dir(&here);
    second.current_dir(&there);
    let [first, second] = outputs(first, second);
    assert_eq!((first.status.code(), second.status.code()), (Some(0), Some(0)), "{}", stderr(&first));
    let said = stderr(&first);
    assert!(said.contains("\nnot all ranks see run: checkpoints are brought to rank 0, which writes them\n"), "{said}");
    let file = Path::new("checkpoints/step-00000004/model.safetensors");
    assert!(fs::read(threads.join(file)).unwrap() == fs::read(here.join("run").join(file)).unwrap());
    assert!(!there.join("run").exists());
}

#[test]
fn ranks_that_differ_refuse_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let (run, error) = (dir.path().join("run"), dir.path().join("error.json"));
    let change = |second: &mut Command| {
        second.env("MPT_OPTIMIZER_MOMENTUM", "0.5").env("TORCHELASTIC_ERROR_FILE", &error);
    };
    let expected = "rank 1 differs from rank 0 in optimizer.momentum: 0.5 instead of 0.0; start every rank with the same \
                    command and environment";
    for refused in both(&["--run-dir", text(&run)], change) {
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(&format!("mpt: {expected}\n")), "{}", stderr(&refused));
    }
    assert!(!run.exists());
    let left: Value = serde_json::from_str(&fs::read_to_string(&error).unwrap()).unwrap();
    assert_eq!(left["message"]["message"], format!("mpt: {expected}"));
}

/// As where the second machine has another run, which lies at the same path.
#[test]
fn ranks_that_would_go_on_from_different_checkpoints_refuse_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    for (folder, rate) in [(&here, "0.01"), (&there, "0.02")] {
        fs::create_dir(folder).unwrap();
        let split = ["--gpus", "2", "--device", "cpu", "--mode", "model-parallel", "--precision", "fp32"];
        let more = ["--steps", "2", "--run-dir", "run", "--learning-rate", rate];
        let begun = mpt(&tiny(&[&split[..], &more].concat())).current_dir(folder).output().unwrap();
        assert_eq!(begun.status.code(), Some(0), "{}", stderr(&begun));
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // With the same settings from now on.
    let arguments = ["--resume", "run", "--allow-changes", "--learning-rate", "0.01"];
    let (mut first, mut second) = (rank(0, port, &arguments), rank(1, port, &arguments));
    first.current_dir(&here);
    second.current_dir(&there);
    for refused in outputs(first, second) {
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        let expected = "mpt: rank 1 differs from rank 0 in the checkpoint to go on from: step 2, model.safetensors of ";
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
}

#[test]
fn a_rank_that_cannot_begin_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let [first, second] = both(&["--run-dir", text(&run)], |second| {
        second.args(["--set", "data.source=idx", "--data-dir", "/nowhere"]);
    });
    assert_eq!(second.status.code(), Some(2), "{}", stderr(&second));
    assert_eq!(first.status.code(), Some(1), "{}", stderr(&first));
    let said = stderr(&first);
    assert!(said.contains("mpt: another rank failed: rank 1: neither train-images-idx3-ubyte nor"), "{said}");
}

#[test]
fn gpus_must_be_those_that_the_launcher_started_ranks_for() {
    for refused in both(&["--gpus", "4"], |_| {}) {
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(
            said.contains("--gpus 4: a launcher that sets RANK and WORLD_SIZE started 2 rank(s) on this machine"),
            "{said}"
        );
    }
}
