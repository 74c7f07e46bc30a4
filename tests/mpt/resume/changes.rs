//! What may change when a run goes on, and what may not.

use super::{done, recorded};
use crate::program::{numbers, output, stderr, text, tiny};
use serde_json::Value;
use std::fs;

#[test]
fn what_would_change_the_numbers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    assert_eq!(output(&recorded(text(&run), &["--steps", "2"])).status.code(), Some(0));
    let record = fs::read(run.join("metrics.jsonl")).unwrap();
    for (flags, change) in [
        (&["--seed", "3"][..], "seed was 0 | 3"),
        (&["--batch-size", "16"], "train.batch_size was 8 | 16"),
        (&["--model", "tiny-concat"], "model.name was \"tiny\" | \"tiny-concat\""),
        (&["--learning-rate", "0.5"], "optimizer.learning_rate was 0.01 | 0.5"),
        (&["--set", "optimizer.momentum=0"], "optimizer.momentum was 0.9 | 0"),
        (&["--set", "schedule.kind=cosine"], "schedule.kind was \"constant\" | \"cosine\""),
        (&["--set", "data.flip=true"], "data.flip was false | true"),
        (&["--set", "model.dropout=0.1"], "model.dropout was -1 | 0.1"),
        (&["--precision", "fp64"], "train.precision was \"fp32\" | \"fp64\""),
        (&["--recipe", "quick"], "the recipe was \"fashion-mnist\" | \"quick\""),
    ] {
        let done = output(&[&["train", "--resume", text(&run)], flags].concat());
        let (begun, asked) = change.split_once(" | ").unwrap();
        let run = run.display();
        let allow = if flags[0] == "--recipe" { "" } else { "; --allow-changes goes on all the same" };
        let sentence = format!(
            "mpt: --resume: {begun} when {run} was begun and cannot become {asked}: the numbers would be another \
             run's{allow}\n"
        );
        assert_eq!((stderr(&done), done.status.code()), (sentence, Some(2)));
    }
    assert_eq!(fs::read(run.join("metrics.jsonl")).unwrap(), record);
    let free = ["--steps", "3", "--max-time", "1h", "--epochs", "4", "--seed", "0", "--learning-rate", "1e-2"];
    let keys = ["--set", "parallel.threads=2", "--set", "checkpoint.keep=5", "--gpus", "3"];
    let keys = [&keys[..], &["--set", "parallel.own_half=on"]].concat();
    let went_on = output(&[&["train", "--resume", text(&run)], &free[..], &keys].concat());
    done(&went_on);
    let said = stderr(&went_on);
    for change in [
        "train.epochs: 4 instead of 10",
        "parallel.mesh: \"3x1\" instead of \"1x1\"",
        "checkpoint.keep: 5 instead of 2",
    ] {
        assert!(said.contains(&format!("\n{change}\n")), "{change}: {said}");
    }
    assert!(!said.contains("seed: ") && !said.contains("another run's"), "{said}");
}

#[test]
fn what_changes_the_numbers_is_said_and_done_when_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let small = ["--epochs", "2", "--steps", "7", "--set", "data.train_examples=40"];
    done(&output(&recorded(text(&run), &small)));
    let changes = ["--seed", "3", "--batch-size", "4", "--precision", "fp64", "--learning-rate", "0.5", "--steps", "0"];
    let went_on = output(&[&["train", "--resume", text(&run), "--allow-changes"], &changes[..]].concat());
    done(&went_on);
    let said = stderr(&went_on);
    let effect = ", which makes the numbers another run's";
    for change in [
        "seed: 3 instead of 0",
        "train.batch_size: 4 instead of 8",
        "train.precision: \"fp64\" instead of \"fp32\"",
        "optimizer.learning_rate: 0.5 instead of 0.01",
    ] {
        assert!(said.contains(&format!("\n{change}{effect}\n")), "{change}: {said}");
    }
    assert!(said.contains("\ntrain.steps: 0 instead of 7\n"), "{said}");
    // Two of five batches were done, which are four of ten.
    assert!(said.contains("\nresumed after step 7 of 13, from "), "{said}");
    let record = numbers(&run);
    let steps: Vec<u64> =
        record.iter().filter(|line| line["kind"] == "step").map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=13).collect::<Vec<_>>());
    // It goes on from there as any run does.
    done(&output(&["train", "--resume", text(&run), "--epochs", "3"]));
    let refused = output(&["train", "--resume", text(&run), "--batch-size", "8"]);
    assert!(stderr(&refused).contains("train.batch_size was 4 when"), "{}", stderr(&refused));

    let wider = dir.path().join("wider.toml");
    fs::write(&wider, include_str!("../../../src/model/shipped/tiny.toml").replace("out = 14", "out = 16")).unwrap();
    let other = output(&["train", "--resume", text(&run), "--allow-changes", "--model", text(&wider)]);
    assert_eq!(other.status.code(), Some(2));
    let sentence = "/model.safetensors has fc4.weight as [14, 90], but the model has it as [16, 90]";
    assert!(stderr(&other).contains(sentence), "{}", stderr(&other));
    let alone = output(&tiny(&["--allow-changes"]));
    assert_eq!(alone.status.code(), Some(2), "{}", stderr(&alone));
}

/// One byte of one image is another; and as in a checkpoint of an older version, nothing is known of the training set.
#[test]
fn another_training_set_is_said_and_refused_unless_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let images = dir.path().join("train-images-idx3-ubyte");
    let write = |name: &str, dimensions: &[u32]| {
        let sizes = dimensions.iter().flat_map(|size| size.to_be_bytes());
        let bytes = (0..dimensions.iter().product()).map(|index: u32| (index % 7) as u8);
        let file: Vec<u8> = [0, 0, 8, dimensions.len() as u8].into_iter().chain(sizes).chain(bytes).collect();
        fs::write(dir.path().join(name), file).unwrap();
    };
    for (subset, examples) in [("train", 32), ("t10k", 8)] {
        write(&format!("{subset}-images-idx3-ubyte"), &[examples, 28, 28]);
        write(&format!("{subset}-labels-idx1-ubyte"), &[examples]);
    }
    let set = ["--set", "data.source=idx", "--data-dir", text(dir.path()), "--batch-size", "8"];
    let begin = ["train", "--device", "cpu", "--model", "lenet", "--run-dir", text(&run), "--steps", "2"];
    done(&output(&[&begin[..], &set].concat()));
    let mut bytes = fs::read(&images).unwrap();
    bytes[100] ^= 1;
    fs::write(&images, &bytes).unwrap();
    let checkpoint = run.join("checkpoints/step-00000002");
    let state = fs::read_to_string(checkpoint.join("state.json")).unwrap();
    let begun = serde_json::from_str::<Value>(&state).unwrap()["run"]["train_set"].as_str().unwrap().to_owned();
    let resume = ["train", "--resume", text(&run), "--steps", "3"];
    let refused = output(&resume);
    let said = stderr(&refused);
    let start =
        format!("mpt: {} was trained on {begun}, but the training set has 32 examples with ", checkpoint.display());
    assert!(said.starts_with(&start) && said.lines().count() == 1, "{said}");
    assert!(said.ends_with("another run's; --allow-changes goes on all the same\n"), "{said}");
    assert_eq!(refused.status.code(), Some(2));
    let allowed = output(&[&resume[..], &["--allow-changes"]].concat());
    done(&allowed);
    let said = stderr(&allowed);
    let change = said.lines().find(|line| line.starts_with("the training set: 32 examples with checksum ")).unwrap();
    assert!(change.ends_with(&format!(" instead of {begun}, which makes the numbers another run's")), "{change}");
    // It is the run's own from there on.
    let again = output(&["train", "--resume", text(&run), "--steps", "4"]);
    done(&again);
    assert!(!stderr(&again).contains("the training set: "), "{}", stderr(&again));
    // An older checkpoint does not tell; without a sum of its own a state is taken as it is.
    bytes[100] ^= 1;
    fs::write(&images, &bytes).unwrap();
    let path = run.join("checkpoints/step-00000004/state.json");
    let state = fs::read_to_string(&path).unwrap();
    let (before, rest) = state.split_once("    \"train_set\": ").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    let (said, _) = after.split_once(",\n  \"crc32\"").unwrap();
    fs::write(&path, format!("{before}{said}\n}}\n")).unwrap();
    let older = output(&["train", "--resume", text(&run), "--steps", "5"]);
    done(&older);
    assert!(!stderr(&older).contains("the training set: "), "{}", stderr(&older));
}
