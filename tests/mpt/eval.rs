//! `mpt eval`: the same answers on any split, counted right, and what a user is told.

use crate::program::{mpt, output, stderr, stdout, text, tiny};
use mpt::checkpoint::Checkpoint;
use mpt::data::Supply;
use mpt::engine::evaluation::{Evaluated, Evaluation};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Grouped, Job, Ranks, run};
use mpt::launch::control::Control;
use mpt::launch::simulator::Simulator;
use mpt::launch::threads;
use mpt::layers::Outcome;
use mpt::recipe::{Layered, Recipe};
use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Reduction, Tensor};

/// Nine classes, branches, and a test set that no number of devices divides.
const SETTINGS: [&str; 12] = [
    "model.name=tiny-concat",
    "data.source=synthetic",
    "data.image=[1,10,10]",
    "data.classes=9",
    "data.train_examples=480",
    "data.test_examples=101",
    "train.batch_size=16",
    "train.epochs=3",
    "optimizer.learning_rate=0.05",
    "optimizer.momentum=0.9",
    "model.dropout=0",
    "parallel.threads=1",
];

fn recipe(settings: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
    for assignment in SETTINGS.iter().chain(settings) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

/// Trains in a folder; gives the last outcome on the test set.
fn trained(folder: &Path, settings: &[&str]) -> Outcome {
    let recipe = recipe(settings);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, folder);
    run(job, Ranks::All, &mut |_| {}).unwrap().last.unwrap().test.unwrap()
}

fn evaluated(folder: &Path, settings: &[&str]) -> Evaluated {
    let recipe = recipe(settings);
    let checkpoint = Checkpoint::open(&folder.join("checkpoints/step-00000090")).unwrap();
    let mut evaluation = Evaluation::new(&recipe, checkpoint.model, Device::Cpu, 1).unwrap();
    evaluation.keep_logits = true;
    let groups = threads::groups(evaluation.plan().mesh).into_iter().enumerate().collect();
    let mut done = Vec::new();
    let ranks = Grouped { supply: Supply::Here, groups, interrupts: crossbeam::channel::never() };
    let evaluated = evaluation.run(ranks, &mut |examples| done.push(examples)).unwrap();
    assert_eq!(done, [16, 32, 48, 64, 80, 96, 101]);
    evaluated
}

fn apart(found: &Tensor, expected: &Tensor) -> f64 {
    (found - expected).norm().double_value(&[]) / expected.norm().double_value(&[])
}

#[test]
fn every_split_counts_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    for (precision, bound) in [("fp64", 1e-9), ("fp32", 1e-4)] {
        let folder = dir.path().join(precision);
        let precision = format!("train.precision={precision}");
        let of_training = trained(&folder, &[&precision, "parallel.mesh=1x1"]);
        let whole = evaluated(&folder, &[&precision, "parallel.mesh=1x1"]);
        // To the last bit: the same layers on the same batches, summed in the same order.
        assert_eq!(whole.outcome, of_training);
        assert!(whole.outcome.correct > 20, "it has learned something: {:?}", whole.outcome);
        let logits = whole.logits.unwrap();
        assert_eq!(logits.size(), [101, 9]);
        for mesh in ["1x2", "1x3", "1x4", "2x1", "3x1", "4x1", "2x2"] {
            let split = evaluated(&folder, &[&precision, &format!("parallel.mesh={mesh}")]);
            assert_eq!(split.tally, whole.tally, "{mesh}");
            let (found, expected) = (split.outcome, whole.outcome);
            assert_eq!((found.correct, found.examples), (expected.correct, expected.examples), "{mesh}");
            assert!((found.loss_sum / expected.loss_sum - 1.0).abs() < bound, "{mesh}: {found:?} {expected:?}");
            assert!(apart(&split.logits.unwrap(), &logits) < bound, "{mesh}");
        }
    }
}

/// The counts are those that follow from the logits, by other functions of libtorch.
#[test]
fn answers_are_counted_as_the_logits_say() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path(), &["train.precision=fp64"]);
    let Evaluated { outcome, tally, logits } = evaluated(dir.path(), &["train.precision=fp64", "parallel.mesh=2x2"]);
    let logits = logits.unwrap();
    let recipe = recipe(&[]);
    let test = Job::new(&recipe, Control::default()).unwrap().test;
    let mut image = vec![0.0; test.shape().iter().product()];
    let labels: Vec<i64> = (0..test.len()).map(|index| test.read(index, &mut image).unwrap()).collect();
    let (_, likeliest) = logits.topk(5, 1, true, true);
    let likeliest: Vec<Vec<i64>> = Vec::try_from(&likeliest).unwrap();
    let mut confusion = vec![0; 81];
    let (mut correct, mut among_five) = (0, 0);
    for (&label, row) in labels.iter().zip(&likeliest) {
        confusion[(label * 9 + row[0]) as usize] += 1;
        correct += u64::from(row[0] == label);
        among_five += u64::from(row.contains(&label));
    }
    assert_eq!((tally.classes, tally.among_five, &tally.confusion), (9, among_five, &confusion));
    assert_eq!((outcome.correct, outcome.examples), (correct, 101));
    assert!(among_five > correct && among_five < 101, "{correct} {among_five}");
    let loss = logits.cross_entropy_loss::<Tensor>(&Tensor::from_slice(&labels), None, Reduction::Mean, -100, 0.0);
    let loss = loss.double_value(&[]);
    assert!((outcome.loss() - loss).abs() < 1e-12 * loss);
    assert_eq!(logits.kind(), Kind::Double);
}

/// A small run in a folder: what training said of the test set.
fn run_in(folder: &Path, more: &[&str]) -> String {
    let learns = ["--learning-rate", "0.01", "--set", "optimizer.momentum=0.9", "--set", "model.dropout=0"];
    let common = ["--steps", "200", "--precision", "fp32", "--quiet", "--run-dir", text(folder)];
    let common = [&common[..], &learns].concat();
    let done = output(&tiny(&[&common[..], more].concat()));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    stdout(&done).lines().next().unwrap().rsplit_once("test acc ").unwrap().1.to_owned()
}

fn json(arguments: &[&str]) -> Value {
    let done = output(&[&["eval"], arguments, &["--json"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    serde_json::from_str(&stdout(&done)).unwrap()
}

#[test]
fn a_run_is_evaluated_as_it_was_while_it_trained() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let accuracy = run_in(&run, &["--gpus", "2", "--mode", "model-parallel"]);
    let checkpoint = run.join("checkpoints/step-00000200");
    let whole = json(&[text(&run)]);
    assert_eq!(format!("{:.3}", whole["top_1"].as_f64().unwrap()), accuracy);
    assert_eq!((whole["step"].as_u64(), whole["mesh"].as_str()), (Some(200), Some("1x1")));
    assert_eq!(whole["checkpoint"], text(&checkpoint));
    let counted = |value: &Value| {
        let keys = ["examples", "correct", "top_1", "top_5", "among_five", "classes", "confusion"];
        keys.map(|key| value[key].clone())
    };
    let cells = whole["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    let cells: Vec<u64> = cells.map(|cell| cell.as_u64().unwrap()).collect();
    assert_eq!(cells.iter().sum::<u64>(), 16);
    assert!(cells.iter().filter(|&&count| count > 0).count() > 5, "more than one class is answered: {cells:?}");
    for more in [
        &["--gpus", "2"][..],
        &["--gpus", "3", "--mode", "model-parallel"],
        &["--mesh", "2x2", "--batch-size", "5"],
        &["--precision", "fp64"],
    ] {
        let split = json(&[&[text(&checkpoint)], more].concat());
        assert_eq!(counted(&split), counted(&whole), "{more:?}");
        let loss = |value: &Value| value["loss"].as_f64().unwrap();
        assert!((loss(&split) / loss(&whole) - 1.0).abs() < 1e-5, "{more:?}");
    }
    // What was trained in bf16 is evaluated in the type that its weights are kept in, unless asked otherwise.
    let coarse = dir.path().join("coarse");
    let common = ["--steps", "12", "--precision", "bf16", "--quiet", "--run-dir", text(&coarse)];
    assert_eq!(output(&tiny(&common)).status.code(), Some(0));
    let precision = |more: &[&str]| json(&[&[text(&coarse)], more].concat())["precision"].clone();
    assert_eq!((precision(&[]), precision(&["--precision", "bf16"])), ("fp32".into(), "bf16".into()));
    let done = output(&["eval", text(&run), "--set", "data.test_examples=7"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let lines: Vec<String> = stdout(&done).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("loss ") && lines[0].ends_with(", top-5 1.0000, 7 examples"), "{lines:?}");
    assert_eq!(lines[1], "tiny after step 200 on the test set of synthetic: single 1x1, fp32");
    assert_eq!(
        lines[3].split_whitespace().collect::<Vec<_>>(),
        ["class", "\\", "answer", "0", "1", "2", "3", "4", "right"]
    );
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert_eq!(stderr(&done), format!("evaluating {} on cpu:0: 7 examples\n", checkpoint.display()));
}

/// One process a GPU: they find the same checkpoint, and the first speaks for all.
#[test]
fn on_simulated_gpus_the_answers_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    run_in(&run, &[]);
    let whole = json(&[text(&run)]);
    let logits = dir.path().join("logits.safetensors");
    for layout in [&["--gpus", "2"][..], &["--mesh", "1x3"]] {
        let simulator = Simulator::beside(Path::new(env!("CARGO_BIN_EXE_mpt"))).unwrap();
        let arguments = ["eval", text(&run), "--device", "cuda", "--json", "--logits", text(&logits)];
        let mut command = mpt(&[&arguments[..], layout].concat());
        let done = command.envs(simulator.environment(4, 0, None)).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        assert_eq!(simulator.broken_rules(), Vec::<String>::new());
        let split: Value = serde_json::from_str(&stdout(&done)).unwrap();
        assert_eq!(split["devices"][1], "sim:1");
        assert_eq!(split["confusion"], whole["confusion"], "{layout:?}");
        assert_eq!(stderr(&done).lines().count(), 1, "the first rank speaks for all: {}", stderr(&done));
        let written = Tensor::read_safetensors(&logits).unwrap();
        assert_eq!((written[0].0.as_str(), written[0].1.size()), ("logits", vec![16, 5]));
        std::fs::remove_file(&logits).unwrap();
    }
}

#[test]
fn what_cannot_be_evaluated_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    run_in(&run, &[]);
    let shown = run.display().to_string();
    let refused = |arguments: &[&str]| {
        let done = output(&[&["eval"], arguments].concat());
        assert_eq!((done.status.code(), stdout(&done)), (Some(2), String::new()), "{}", stderr(&done));
        stderr(&done)
    };
    let only = "an evaluation may change data., parallel., train.batch_size and train.precision only";
    for (arguments, sentence) in [
        (
            vec!["nowhere"],
            "mpt: nowhere is neither a run directory (recipe.toml is not in it) nor a checkpoint\n".to_owned(),
        ),
        (
            vec![&shown, "--set", "model.name=quick"],
            format!("mpt: model.name was \"tiny\" when {shown} was trained and cannot become \"quick\": {only}\n"),
        ),
        (
            vec![&shown, "--set", "train.epochs=3"],
            format!("mpt: train.epochs was 10 when {shown} was trained and cannot become 3: {only}\n"),
        ),
        (
            vec![&shown, "--gpus", "3", "--mesh", "2x2"],
            "mpt: the mesh 2x2 needs 4 devices, but 3 are asked for\n".into(),
        ),
        (
            vec![&shown, "--set", "data.classes=6"],
            "mpt: synthetic has 6 classes, but model tiny tells only 5 apart\n".into(),
        ),
    ] {
        assert_eq!(refused(&arguments), sentence);
    }
    // A full disk, for which a limit on the size of files stands, leaves nothing behind.
    let logits = dir.path().join("logits");
    let limited = mpt(&["eval", &shown, "--logits", text(&logits), "--set", "data.test_examples=500"]);
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "bash"]).arg(limited.get_program());
    let done = shell.args(limited.get_args()).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let last = stderr(&done).lines().last().unwrap().to_owned();
    assert!(last.starts_with(&format!("mpt: --logits: {} cannot be written: ", logits.display())), "{last}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    assert_eq!(refused(&[&shown]), format!("mpt: the run {shown} holds no checkpoint\n"));
}
