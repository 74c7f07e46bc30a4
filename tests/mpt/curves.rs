//! `mpt show curves` as a user meets it: the epochs of runs, beside each other and in a picture.

use crate::program::{mpt, output, stderr, stdout, tiny};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Trains for some epochs of a few steps, in a folder.
fn trained(folder: &Path, epochs: &str, more: &[&str]) {
    let common = ["--set", "data.train_examples=40", "--epochs", epochs, "--precision", "fp32", "--run-dir"];
    let done = output(&tiny(&[&common[..], &[folder.to_str().unwrap()], more].concat()));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

#[test]
fn runs_are_shown_side_by_side_with_the_best_of_each() {
    let dir = tempfile::tempdir().unwrap();
    trained(&dir.path().join("short"), "1", &[]);
    trained(&dir.path().join("long"), "3", &["--gpus", "2", "--learning-rate", "0.1"]);
    let show = |arguments: &[&str]| mpt(&[&["show", "curves"], arguments].concat()).current_dir(dir.path()).output();
    let shown = stdout(&show(&["long", "short", "--svg", "both.svg"]).unwrap());
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(lines[0], ["long", "short"], "{shown}");
    assert_eq!(lines[1], ["tiny, data-parallel 2x1, fp32, batch 8", "tiny, single 1x1, fp32, batch 8"]);
    assert_eq!(lines[2], ["epoch  train loss  train acc  test acc"; 2]);
    let record = fs::read_to_string(dir.path().join("long/metrics.jsonl")).unwrap();
    let epochs: Vec<Value> = record
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["kind"] == "epoch")
        .collect();
    for (row, epoch) in lines[3..6].iter().zip(&epochs) {
        let value = |key: &str| format!("{:.4}", epoch[key].as_f64().unwrap());
        let expected =
            [epoch["epoch"].to_string(), value("train_loss"), value("train_accuracy"), value("test_accuracy")];
        assert_eq!(row[0].split_whitespace().collect::<Vec<_>>(), expected);
    }
    let losses = epochs.iter().map(|epoch| epoch["train_loss"].as_f64().unwrap());
    let least = format!("{:.4}", losses.fold(f64::INFINITY, f64::min));
    assert_eq!(lines[6][0].split_whitespace().take(2).collect::<Vec<_>>(), ["best", &least], "{shown}");
    assert!(lines[7][0].starts_with("in epoch"), "{shown}");

    let both = fs::read_to_string(dir.path().join("both.svg")).unwrap();
    // Three epochs and one, in three plots.
    assert_eq!((both.matches("\nlong\n").count(), both.matches("<circle").count()), (3, 3 * 4), "{both}");
    assert_eq!(show(&["long", "--svg", "one.svg"]).unwrap().status.code(), Some(0));
    let own = fs::read_to_string(dir.path().join("long/curves.svg")).unwrap();
    let one = fs::read_to_string(dir.path().join("one.svg")).unwrap();
    let title = format!("\n{}\n", dir.path().join("long").display());
    assert_eq!(one, own.replace(&title, "\nlong\n"), "one run is drawn as in its folder");
}

#[test]
fn what_cannot_be_shown_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, record: Option<&str>| {
        fs::create_dir(dir.path().join(name)).unwrap();
        if let Some(record) = record {
            fs::write(dir.path().join(name).join("metrics.jsonl"), record).unwrap();
        }
    };
    let epoch = "{\"kind\":\"epoch\",\"epoch\":1,\"train_loss\":1.5,\"train_accuracy\":0.5,\"test_accuracy\":null}\n";
    let step = "{\"kind\":\"step\",\"step\":1}\n";
    run("other", None);
    run("young", Some(step));
    run("damaged", Some(&format!("{step}{{\"kind\":\"st\n{epoch}")));
    run("torn", Some(&format!("{epoch}{{\"kind\":\"st")));
    let show = |arguments: &[&str]| {
        let done = mpt(&[&["show", "curves"], arguments].concat()).current_dir(dir.path()).output().unwrap();
        (done.status.code(), stdout(&done), stderr(&done))
    };
    for (arguments, code, sentence) in [
        (&["nowhere"][..], 2, "nowhere is no folder; name the folder of a run, like runs/quick-quick/001"),
        (&["torn", "other"], 2, "other is not the folder of a run: metrics.jsonl is not in it"),
        (&["young"], 2, "the run young has not come to the end of an epoch yet"),
        (&["damaged"], 1, "damaged/metrics.jsonl is damaged: line 2 is no line of a record"),
        (&["torn"; 8], 0, ""),
        (
            &["torn", "torn", "torn", "torn", "torn", "torn", "torn", "torn", "--svg", "many.svg"],
            2,
            "--svg: a picture tells 7 runs apart, not 8",
        ),
        (
            &["torn", "--svg", "none/x.svg"],
            1,
            "--svg: none/x.svg cannot be written: No such file or directory (os error 2)",
        ),
    ] {
        let expected = if code == 0 { String::new() } else { format!("mpt: {sentence}\n") };
        let (found, _, said) = show(arguments);
        assert_eq!((found, said), (Some(code), expected), "{arguments:?}");
    }
    let (_, shown, _) = show(&["torn"]);
    let rows: Vec<Vec<&str>> = shown.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
    let expected =
        [&["1", "1.5000", "0.5000", "-"][..], &["best", "1.5000", "0.5000", "-"], &["in", "epoch", "1", "1", "-"]];
    assert_eq!(rows, expected, "{shown}");
}

#[test]
fn gradients_of_runs_are_shown_layer_by_layer() {
    let dir = tempfile::tempdir().unwrap();
    let record = |run: &str, conv: f64| {
        let step = |step: u64, epoch: u64| {
            let norms = format!("{{\"conv1\":{conv},\"fc\":0.5}}");
            format!("{{\"kind\":\"step\",\"step\":{step},\"epoch\":{epoch},\"layer_gradient_norms\":{norms}}}\n")
        };
        fs::create_dir(dir.path().join(run)).unwrap();
        fs::write(dir.path().join(run).join("metrics.jsonl"), step(1, 1) + &step(2, 2)).unwrap();
    };
    record("relu", 0.25);
    record("sigmoid", 1e-6);
    let show = |arguments: &[&str]| {
        let all = [&["show", "curves", "--gradients"], arguments].concat();
        mpt(&all).current_dir(dir.path()).output().unwrap()
    };
    let shown = stdout(&show(&["relu", "sigmoid", "--svg", "both.svg"]));
    let rows: Vec<String> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "relu | sigmoid",
        "layer epoch 1 epoch 2 | layer epoch 1 epoch 2",
        "conv1 2.5e-1 2.5e-1 | conv1 1.0e-6 1.0e-6",
        "fc 5.0e-1 5.0e-1 | fc 5.0e-1 5.0e-1",
    ];
    assert_eq!(rows, expected, "{shown}");
    let both = fs::read_to_string(dir.path().join("both.svg")).unwrap();
    assert_eq!((both.matches("\nconv1\n").count(), both.matches("\n1e-6\n").count()), (2, 2), "{both}");

    fs::create_dir(dir.path().join("old")).unwrap();
    fs::write(dir.path().join("old/metrics.jsonl"), "{\"kind\":\"step\",\"step\":1}\n").unwrap();
    let old = show(&["old"]);
    let sentence = "mpt: the record of the run old tells of no gradients\n";
    assert_eq!((old.status.code(), stderr(&old).as_str()), (Some(2), sentence));
}
