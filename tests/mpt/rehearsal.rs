//! Rehearsals: real ranks as processes, real calls of the driver and of NCCL, answered by the simulator. What they
//! compute is what threads of one process compute, and what goes wrong is told.

use crate::program::{mpt, numbers, output, stderr, stdout, text, tiny};
use mpt::comm::nccl::library::{DRIVER, NCCL};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

/// The command line of a tiny run, with another command instead of `train`.
pub fn rehearse<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = tiny(more);
    arguments[0] = "rehearse";
    arguments
}

fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// Runs the same twice, on threads and rehearsed, and compares every number of the record and every bit of the weights.
pub fn equals_threads(arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (threads, ranks) = (dir.path().join("threads"), dir.path().join("ranks"));
    let steps = ["--steps", "6", "--set", "optimizer.momentum=0.9", "--set", "parallel.bucket=4KiB"];
    let common = [arguments, &steps[..]].concat();
    succeeded(&output(&tiny(&[&common[..], &["--run-dir", text(&threads)]].concat())));
    let rehearsed = output(&rehearse(&[&common[..], &["--run-dir", text(&ranks)]].concat()));
    succeeded(&rehearsed);
    assert_eq!(numbers(&threads), numbers(&ranks), "{arguments:?}");
    let own_half = |run: &Path| {
        let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
        recipe.lines().find(|line| line.starts_with("own_half")).unwrap().to_owned()
    };
    let expected = if arguments.contains(&"parallel.own_half=on") { "on" } else { "off" };
    for run in [&threads, &ranks] {
        assert_eq!(own_half(run), format!("own_half = \"{expected}\""));
    }
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let file = Path::new("checkpoints/step-00000006").join(file);
        let same = fs::read(threads.join(&file)).unwrap() == fs::read(ranks.join(&file)).unwrap();
        assert!(same, "{arguments:?}: {}", file.display());
    }
    assert!(stdout(&rehearsed).contains("on sim:0"), "{}", stdout(&rehearsed));
}

#[test]
fn a_rehearsal_computes_what_threads_compute() {
    equals_threads(&["--gpus", "2", "--mode", "model-parallel", "--precision", "fp32"]);
    equals_threads(&["--gpus", "2", "--mode", "data-parallel", "--precision", "bf16"]);
    let by_time = ["--set", "checkpoint.every_time=0.000001s"];
    equals_threads(&[&["--gpus", "4", "--mesh", "2x2", "--precision", "fp64"], &by_time[..]].concat());
}

/// The ranks share one loader, which changes images and draws dropout masks for all of them, in several epochs.
#[test]
fn a_rehearsal_with_changed_images_computes_what_threads_compute() {
    let changed = ["--set", "data.flip=true", "--set", "data.crop=1", "--set", "data.train_examples=20"];
    for mesh in ["1x2", "2x1", "2x2"] {
        let devices = if mesh == "2x2" { "4" } else { "2" };
        equals_threads(&[&["--gpus", devices, "--mesh", mesh, "--precision", "fp32"], &changed[..]].concat());
    }
}

/// Three ranks share no layer evenly: everything goes by sends and receives.
#[test]
fn a_rehearsal_of_uneven_shares_computes_what_threads_compute() {
    equals_threads(&["--gpus", "3", "--mode", "model-parallel", "--precision", "fp32"]);
}

/// What a rank computes while the others' channels travel is the same wherever they come from.
#[test]
fn a_rehearsal_that_begins_with_the_own_part_computes_what_threads_compute() {
    let own_half = ["--set", "parallel.own_half=on"];
    let on = |arguments: &[&'static str]| equals_threads(&[arguments, &own_half[..]].concat());
    on(&["--gpus", "2", "--mode", "model-parallel", "--precision", "bf16"]);
    on(&["--gpus", "3", "--mode", "model-parallel", "--precision", "fp32"]);
    on(&["--gpus", "4", "--mesh", "2x2", "--precision", "fp64"]);
}

/// What is rounded on its way is rounded alike, also where gradients are summed in fp16.
#[test]
fn a_rehearsal_that_exchanges_in_half_precision_computes_what_threads_compute() {
    let half = ["--precision", "fp32", "--set", "train.exchange=fp16"];
    equals_threads(&[&["--gpus", "2", "--mode", "model-parallel"], &half[..]].concat());
    equals_threads(&[&["--gpus", "4", "--mesh", "2x2"], &half[..], &["--set", "parallel.own_half=on"]].concat());
    equals_threads(&[&["--gpus", "3", "--mode", "model-parallel"], &half[..]].concat());
}

/// Ends a rehearsal with a fault in step 5; gives its exit code and what it said.
fn with_fault(fault: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let common =
        ["--gpus", "2", "--mode", "model-parallel", "--steps", "10", "--run-dir", text(&run), "--fault", fault];
    let ended = output(&rehearse(&common));
    (ended.status.code(), stderr(&ended))
}

#[test]
fn a_call_that_fails_is_told_with_the_layer_and_nccls_words() {
    let (code, said) = with_fault("fail:1@5");
    assert_eq!(code, Some(1), "{said}");
    let told = said.lines().find(|line| line.starts_with("rank 1: mpt: ")).unwrap_or_default();
    assert!(told.contains(" in all-gather for conv3 (forward), its call "), "{said}");
    assert!(told.contains("NCCL: "), "{said}");
    assert!(said.lines().last().unwrap().starts_with("mpt: rank 1 (process "), "{said}");
}

#[test]
fn a_call_that_is_late_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let of_run = |name: &str, fault: &[&str]| {
        let run = dir.path().join(name);
        let common = ["--gpus", "2", "--mode", "model-parallel", "--steps", "10", "--run-dir", text(&run)];
        succeeded(&output(&rehearse(&[&common[..], fault].concat())));
        (run.clone(), fs::read(run.join("checkpoints/step-00000010/model.safetensors")).unwrap())
    };
    let (expected, weights) = of_run("in-time", &[]);
    let (found, late) = of_run("late", &["--fault", "delay:1@5"]);
    assert_eq!(numbers(&found), numbers(&expected));
    assert!(late == weights, "the weights differ");
    // The call rests for half a second, and the step cannot end without it.
    let record = fs::read_to_string(found.join("metrics.jsonl")).unwrap();
    let fifth: Value = serde_json::from_str(record.lines().nth(4).unwrap()).unwrap();
    assert!(fifth["seconds"].as_f64().unwrap() >= 0.5, "no call was late: {fifth}");
}

/// What a driver must offer for a context as cudarc makes one; at its end it is released.
const OF_A_CONTEXT: [&str; 6] =
    ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuDeviceGetAttribute", "cuCtxGetCurrent", "cuCtxSetCurrent"];

/// What a rank called, one object a call, as its trace tells.
fn calls(trace: &Path, rank: usize) -> Vec<Value> {
    let files = fs::read_dir(trace).unwrap().map(|entry| entry.unwrap());
    let of_rank = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("rank-{rank}-"));
    let file = files.into_iter().find(of_rank).unwrap();
    fs::read_to_string(file.path()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_trace_tells_what_each_rank_called() {
    let dir = tempfile::tempdir().unwrap();
    let (run, trace) = (dir.path().join("run"), dir.path().join("trace"));
    let more = ["--gpus", "2", "--mode", "model-parallel", "--steps", "2", "--run-dir", text(&run)];
    succeeded(&output(&rehearse(&[&more[..], &["--trace", text(&trace)]].concat())));
    for rank in 0..2 {
        let calls = calls(&trace, rank);
        for name in ["cuInit", "ncclCommInitRankConfig", "ncclAllGather", "cuStreamWaitEvent", "cuMemcpyDtoHAsync_v2"] {
            assert!(calls.iter().any(|call| call["call"] == name), "rank {rank}: {name}");
        }
        let names: Vec<&str> = calls.iter().filter_map(|call| call["call"].as_str()).collect();
        // cudarc looks each function up when it is first called, and panics where there is none.
        let unknown = names.iter().find(|name| !DRIVER.contains(name) && !NCCL.contains(name));
        assert_eq!(unknown, None, "rank {rank} called what was not looked up before the first call");
        let begin = names.iter().position(|name| *name == "cuInit").unwrap();
        let made: Vec<&str> = names[begin..].iter().copied().take_while(|name| *name != "cuCtxSynchronize").collect();
        let once: Vec<&str> =
            made.iter().enumerate().filter(|(at, name)| !made[..*at].contains(name)).map(|(_, name)| *name).collect();
        assert_eq!(once, OF_A_CONTEXT, "rank {rank}: before there is a stream");
        assert_eq!(names.last(), Some(&"cuDevicePrimaryCtxRelease_v2"), "rank {rank}");
    }
}

/// What starts the ranks reads the settings of the run alone.
#[test]
fn what_a_rehearsal_goes_on_from_is_looked_at_and_said_by_the_first_rank() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = ["--gpus", "2", "--run-dir", text(&run), "--resume", "auto", "--steps"];
    let until = |steps: &str| {
        let done = output(&rehearse(&[&more[..], &[steps]].concat()));
        succeeded(&done);
        stderr(&done)
    };
    let said = until("2");
    assert_eq!(said.matches("nothing to resume: ").count(), 1, "{said}");
    let said = until("4");
    assert!(said.contains("resumed after step 2 of 4, from "), "{said}");
    let newest = run.join("checkpoints/step-00000004/model.safetensors");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[1..]).unwrap();
    let said = until("6");
    assert_eq!(said.matches("left out: ").count(), 1, "{said}");
    assert!(said.contains("resumed after step 2 of 6, from "), "{said}");
}

/// The ranks see the GPUs that were named, and no other.
#[test]
fn gpus_are_chosen_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let (run, trace) = (dir.path().join("run"), dir.path().join("trace"));
    let more = ["--devices", "3,1", "--mode", "model-parallel", "--steps", "1", "--run-dir", text(&run)];
    let done = output(&rehearse(&[&more[..], &["--trace", text(&trace)]].concat()));
    succeeded(&done);
    assert!(stderr(&done).contains("devices = 2\n"), "{}", stderr(&done));
    for (rank, number) in [(0, 3), (1, 1)] {
        let joined: Vec<Value> =
            calls(&trace, rank).into_iter().filter(|call| call["call"] == "ncclCommInitRankConfig").collect();
        assert!(!joined.is_empty() && joined.iter().all(|call| call["device"] == number), "rank {rank}: {joined:?}");
    }
}

#[test]
fn a_rehearsal_that_cannot_be_is_refused_in_a_sentence() {
    for (more, expected) in [
        (vec!["--devices", "0,2,0"], "--devices names GPU 0 twice: a GPU takes one rank"),
        (vec!["--gpus", "2", "--fault", "maim:1@5"], "--fault maim:1@5: a fault is kill:RANK@STEP"),
        (vec!["--gpus", "2", "--fault", "kill:2@5"], "--fault: there is no rank 2, the run has 2"),
        (vec!["--gpus", "2", "--trace", "/proc/nowhere"], "--trace: /proc/nowhere cannot be made"),
        (vec!["--gpus", "2", "--mesh", "3x1"], "the mesh 3x1 needs 3 devices, but 2 are asked for"),
    ] {
        let refused = output(&rehearse(&more));
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
    // A launcher's rank on CPU devices.
    let environment = [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "127.0.0.1")];
    let alone = mpt(&tiny(&[])).envs(environment).output().unwrap();
    assert_eq!(alone.status.code(), Some(2), "{}", stderr(&alone));
    assert!(stderr(&alone).contains("but MASTER_PORT is not set"), "{}", stderr(&alone));
}
