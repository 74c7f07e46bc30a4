//! `mpt bench`: that it measures what it says. How fast anything is, no test asks.

use crate::program::{mpt, output, stderr, stdout};
use mpt::launch::simulator::Simulator;
use serde_json::Value;
use std::path::Path;

/// A small network and few steps.
const TINY: [&str; 6] = ["--model", "tiny", "--batch-size", "8", "--steps", "3"];

fn json(arguments: &[&str]) -> Value {
    let done = output(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    serde_json::from_str(&stdout(&done)).unwrap()
}

/// The same on simulated GPUs of a machine that has four: one process for each that is asked for, and no broken rule.
fn json_simulated(asked: usize, arguments: &[&str]) -> Value {
    let simulator = Simulator::beside(Path::new(env!("CARGO_BIN_EXE_mpt"))).unwrap();
    let mut command = mpt(&[&["bench"], arguments, &["--device", "cuda", "--json"]].concat());
    let trace = tempfile::tempdir().unwrap();
    let prefix = trace.path().join("process-");
    let done = command.envs(simulator.environment(4, 0, None)).env("MPT_SIMULATOR_TRACE", prefix).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(simulator.broken_rules(), Vec::<String>::new());
    let called = |file: &Path| std::fs::read_to_string(file).unwrap().contains("ncclCommInitRankConfig");
    let files = std::fs::read_dir(trace.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|file| called(file)).count(), asked, "each GPU has a process that is in a group");
    assert!(!stderr(&done).contains("rank 1"), "the first rank speaks for all: {}", stderr(&done));
    serde_json::from_str(&stdout(&done)).unwrap()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[test]
fn a_step_is_told_layer_by_layer() {
    let arguments = [&["step", "--gpus", "2", "--mode", "model-parallel", "--precision", "fp32"], &TINY[..]].concat();
    check_step(&json(&arguments));
    check_step(&json_simulated(2, &arguments));
}

fn check_step(measured: &Value) {
    let rows = measured["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["layer"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["conv1", "pool1", "relu1"]) && names.ends_with(&["fc5", "loss"]), "{names:?}");
    for row in rows {
        let counted = number(row, "forward_operations");
        assert_eq!(row["multiplies"].as_bool().unwrap(), counted > 0.0, "{row}");
        assert!(number(row, "forward_seconds") > 0.0, "{row}");
    }
    // conv1 reads the image, which needs no gradient.
    assert_eq!(number(&rows[0], "backward_operations"), number(&rows[0], "forward_operations"));
    assert!(number(measured, "multiplying_share") > 0.0 && number(measured, "multiplying_share") < 1.0);
    assert!(number(measured, "matrix_product_operations_per_second") > 1e8);
    assert!(number(&measured["phases"], "exchange_seconds") > 0.0);
    // Both kinds of devices compute on the processor, which computes while it is asked.
    assert_eq!(measured["layers_one_by_one"], false);
}

#[test]
fn scaling_has_every_configuration_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("scaling.svg");
    let svg = picture.to_str().unwrap();
    check_scaling(&json(&[&["scaling", "--gpus", "2", "--rounds", "1", "--svg", svg], &TINY[..]].concat()), 2);
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.contains("model-parallel, weak") && picture.contains("examples/sec"));
}

/// The third GPU is in the last rows only.
#[test]
fn scaling_over_gpus_has_every_configuration() {
    let arguments = [&["scaling", "--devices", "1,2,3", "--rounds", "1"], &TINY[..]].concat();
    check_scaling(&json_simulated(3, &arguments), 3);
}

fn check_scaling(measured: &Value, devices: u64) {
    let rows = measured["rows"].as_array().unwrap();
    let seen: Vec<(&str, u64, &str, u64)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap();
            (text("mode"), row["devices"].as_u64().unwrap(), text("scaling"), row["batch_size"].as_u64().unwrap())
        })
        .collect();
    let of_many = |devices| {
        let modes = ["data-parallel", "model-parallel"].into_iter();
        modes.flat_map(move |mode| [(mode, devices, "strong", 8), (mode, devices, "weak", 8 * devices)])
    };
    let expected: Vec<_> = [("single", 1, "strong", 8)].into_iter().chain((2..=devices).flat_map(of_many)).collect();
    assert_eq!(seen, expected);
    let alone = number(&rows[0], "examples_per_second");
    for row in rows {
        let times_one = number(row, "examples_per_second") / alone;
        assert!(times_one > 0.0 && (number(row, "speedup") - times_one).abs() < 1e-9, "{row}");
        assert!((number(row, "efficiency") * number(row, "devices") - times_one).abs() < 1e-9, "{row}");
    }
    assert!(number(&rows[3], "exchange_share") > 0.0);
}

#[test]
fn every_collective_is_measured() {
    check_exchange(&json(&["exchange", "--gpus", "3"]), &[4 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20]);
    check_exchange(&json_simulated(3, &["exchange", "--gpus", "3", "--sizes", "2MiB,8MiB"]), &[2 << 20, 8 << 20]);
}

fn check_exchange(measured: &Value, sizes: &[u64]) {
    let rows = measured["rows"].as_array().unwrap();
    let expected = ["all-gather", "reduce-scatter", "all-to-all", "all-reduce", "send-receive"]
        .into_iter()
        .flat_map(|operation| sizes.iter().map(move |&size| (operation, size)));
    let seen = rows.iter().map(|row| (row["operation"].as_str().unwrap(), row["received_bytes"].as_u64().unwrap()));
    assert!(seen.clone().eq(expected), "{:?}", seen.collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row["ranks"], 3);
        let rate = number(row, "received_bytes") / number(row, "seconds");
        assert!((number(row, "bytes_per_second") / rate - 1.0).abs() < 1e-9, "{row}");
        // No memory is so fast: a call that does nothing would be.
        assert!(number(row, "received_bytes") < 1e6 || rate < 1e13, "{row}");
    }
}

#[test]
fn the_loader_hands_out_every_image() {
    let computed = ["--set", "data.source=synthetic", "--set", "data.train_examples=300"];
    let measured = json(&[&["loader"], &computed[..]].concat());
    let rows = measured["rows"].as_array().unwrap();
    let what: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["images", "images, dropout masks", "images, dropout masks, random changes"]);
    assert!(rows.iter().all(|row| row["images"] == 300 && number(row, "images_per_second_and_core") > 0.0));
}

#[test]
fn what_cannot_be_measured_is_one_sentence() {
    let done = output(&["bench", "exchange", "--gpus", "1"]);
    let sentence = "mpt: --gpus 1: one device has no other to exchange anything with\n";
    assert_eq!((done.status.code(), stderr(&done).as_str()), (Some(2), sentence));
    let done = output(&["bench", "scaling", "--model", "tiny", "--gpus", "40"]);
    assert_eq!(done.status.code(), Some(2));
    // At once, and not when it has measured what can be.
    assert!(stderr(&done).contains("tiny") && stderr(&done).lines().count() == 1, "{}", stderr(&done));
    let done = output(&[&["bench", "scaling", "--rounds", "1", "--svg", "/nowhere/scaling.svg"], &TINY[..]].concat());
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("--svg: /nowhere/scaling.svg cannot be written"), "{}", stderr(&done));
}
