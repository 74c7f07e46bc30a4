//! `mpt plan` as a user meets it: what it foretells of a run.

use crate::program::{output, stderr, stdout};

#[test]
fn plan_prints_json_that_parses() {
    let done = output(&[
        "plan",
        "--gpus",
        "2",
        "--mode",
        "model-parallel",
        "--device-memory",
        "450MiB",
        "--precision",
        "fp32",
        "--set",
        "parallel.own_half=on",
        "--json",
    ]);
    let value: serde_json::Value = serde_json::from_str(&stdout(&done)).unwrap();
    let before: Vec<&str> =
        value["exchanges"].as_array().unwrap().iter().map(|e| e["before"].as_str().unwrap()).collect();
    assert_eq!(before, ["conv3", "fc6", "fc7", "loss"]);
    let begun: Vec<bool> =
        value["exchanges"].as_array().unwrap().iter().map(|e| e["own_part_first"].as_bool().unwrap()).collect();
    assert_eq!(begun, [true, true, true, false]);
    let fits: Vec<bool> =
        value["modes"].as_array().unwrap().iter().map(|mode| mode["fits"].as_bool().unwrap()).collect();
    assert_eq!(fits, [false, false, true]);
}

/// The most that a run held, in MiB as it says itself, and what the plan said.
fn held_and_planned(mode: &str, batch: &str) -> (f64, f64) {
    let common = ["--gpus", "2", "--mode", mode, "--batch-size", batch, "--precision", "fp32"];
    let plan = output(&[&["plan", "--json"], &common[..]].concat());
    let plan: serde_json::Value = serde_json::from_str(&stdout(&plan)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = ["--steps", "2", "--set", "data.source=noise", "--set", "data.test_examples=1"];
    let recorded = ["--set", "checkpoint.every_steps=1", "--run-dir", dir.path().to_str().unwrap()];
    let json = ["--log-format", "json"];
    let said = stderr(&output(&[&["train"], &common[..], &run[..], &recorded, &json].concat()));
    let mut lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let held = lines.find(|line| line["kind"] == "memory").expect(&said)["bytes"].as_f64().unwrap();
    (held, plan["process_bytes"].as_f64().unwrap())
}

#[test]
fn plan_foretells_the_memory_of_a_run() {
    for mode in ["model-parallel", "data-parallel"] {
        let (held, planned) = held_and_planned(mode, "64");
        assert!((planned / held - 1.0).abs() < 0.1, "{mode}: {planned} planned, {held} held");
    }
}

/// 60,000 images of 28 x 28 and 10,000, with a byte for the label of each.
#[test]
fn plan_counts_the_data_set_that_is_read_whole() {
    let planned = |source: &str| {
        let done =
            output(&["plan", "--json", "--model", "lenet", "--gpus", "1", "--set", &format!("data.source={source}")]);
        let plan: serde_json::Value = serde_json::from_str(&stdout(&done)).unwrap();
        plan["process_bytes"].as_u64().unwrap()
    };
    assert_eq!(planned("fashion-mnist") - planned("noise"), 54_950_000);
}

#[test]
fn exchanges_in_half_precision_are_planned_and_refused_where_they_make_no_sense() {
    let planned = |exchange: &str| {
        let exchange = format!("train.exchange={exchange}");
        let common = ["plan", "--json", "--model", "tiny", "--mesh", "1x2", "--precision", "fp32", "--set", &exchange];
        let plan: serde_json::Value = serde_json::from_str(&stdout(&output(&common))).unwrap();
        plan["traffic"][0]["sent_bytes"].as_u64().unwrap()
    };
    let (full, half) = (planned("full"), planned("fp16"));
    assert!(half < full && 2 * half > full, "all but the sums of logits: {half} of {full}");
    let refused = |arguments: &[&str]| {
        let done = output(&[arguments, &["--model", "tiny", "--mesh", "1x2", "--set", "train.exchange=fp16"]].concat());
        assert_eq!(done.status.code(), Some(2));
        stderr(&done)
    };
    let said = refused(&["plan", "--precision", "bf16"]);
    assert!(said.contains("bf16 values have no more bytes to begin with"), "{said}");
    let said = refused(&["verify"]);
    assert!(said.contains("check the split with --set train.exchange=full"), "{said}");
}

#[test]
fn plan_shows_what_the_network_of_2012_exchanges() {
    let planned = stdout(&output(&["plan", "--model", "alexnet-2012", "--mesh", "1x2", "--precision", "fp32"]));
    for (layer, values) in [("conv3", "21,632"), ("fc6", "4,608"), ("fc7", "2,048"), ("loss", "1,000")] {
        let row = planned.lines().find(|line| line.trim().starts_with(&format!("before {layer} "))).unwrap();
        assert!(row.split_whitespace().any(|word| word == values), "{row}");
    }
}

/// GPUs keep eight bytes for each output of a max-pool, CPU devices two; and what they are judged by is the plan that they run.
#[test]
fn what_fits_is_judged_as_gpus_hold_it() {
    let common = ["--model", "tiny", "--mesh", "1x2", "--batch-size", "8", "--precision", "fp32", "--json"];
    let memory = ["--device-memory", "1GiB"];
    for own_half in ["parallel.own_half=on", "parallel.own_half=off"] {
        let done = output(&[&["plan", "--set", own_half], &common[..], &memory].concat());
        let plan: serde_json::Value = serde_json::from_str(&stdout(&done)).unwrap();
        let of_device = |device: &serde_json::Value| -> u64 {
            ["weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"]
                .map(|part| device[part].as_u64().unwrap())
                .iter()
                .sum()
        };
        let fullest = plan["memory"].as_array().unwrap().iter().map(of_device).max().unwrap();
        let asked = plan["modes"].as_array().unwrap().iter().find(|mode| mode["mode"] == "model-parallel").unwrap();
        // Half of the 8 x 6 x 6 values of pool1 and the 10 x 3 x 3 of pool3, of 8 images: six bytes more for each.
        let pools = (4 * 36 + 5 * 9) * 8 * 6;
        assert_eq!(asked["needs_bytes"].as_u64().unwrap(), fullest + pools, "{own_half}");
    }
}
