//! The program as a user meets it: what it prints where, its exit codes, and its sentences.

use crate::program::{mpt, output, stderr, stdout, tiny};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

#[test]
fn training_prints_the_result_lines_on_stdout_and_the_rest_on_stderr() {
    let fp32 = ["--precision", "fp32"];
    let done = output(&tiny(
        &[&["--gpus", "2", "--mode", "model-parallel", "--steps", "12", "--seed", "7"], &fp32[..]].concat(),
    ));
    let (results, said) = (stdout(&done), stderr(&done));
    assert_eq!(done.status.code(), Some(0), "{said}");
    let lines: Vec<&str> = results.lines().collect();
    assert_eq!(lines.len(), 3, "{results}");
    let numbers = |line: &str| -> Vec<f64> {
        line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok()).collect()
    };
    let figures = numbers(lines[0]);
    assert!(lines[0].starts_with("loss ") && lines[0].contains(", train acc ") && lines[0].contains(", test acc "));
    assert!(figures.len() == 3 && figures[0] > 0.1 && figures[0] < 10.0, "{}", lines[0]);
    assert!(lines[1].ends_with(" examples/sec on cpu:0, cpu:1") && numbers(lines[1])[0] > 0.0, "{}", lines[1]);
    assert!(lines[2].ends_with(" examples/sec end to end: tiny, model-parallel 1x2, fp32"), "{}", lines[2]);
    for part in [
        "seed = 7",
        "batch_size = 8",
        "plan: tiny, model-parallel, 1 data x 2 model",
        "before conv3: all-gather of tanh2, 216 values per example and device; back: reduce-scatter, 216 values",
        "before loss: all-reduce of fc5",
        "estimate: ",
        "epoch 1/10 (its first 96 examples): loss ",
        "ended after step 12: the steps asked for were done",
    ] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[test]
fn modes_give_the_same_result() {
    let line = |more: &[&'static str]| {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("run");
        let common = ["--steps", "20", "--precision", "fp64", "--quiet", "--run-dir", record.to_str().unwrap()];
        let done = output(&tiny(&[&common[..], more].concat()));
        assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));
        let lines = std::fs::read_to_string(record.join("metrics.jsonl")).unwrap();
        let values = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let losses: Vec<f64> =
            values.filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 20);
        (stdout(&done).lines().next().unwrap().to_owned(), losses)
    };
    let (single, expected) = line(&[]);
    for more in [&["--gpus", "2"][..], &["--gpus", "3", "--mode", "model-parallel"], &["--mesh", "2x2"]] {
        let (result, losses) = line(more);
        assert_eq!(result, single);
        assert!(
            losses.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9 * b),
            "{more:?}: {losses:?} {expected:?}"
        );
    }
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_exit_code_2() {
    for (arguments, sentence) in [
        (
            vec!["train", "--mode", "modelparallel"],
            "mpt: --mode: [parallel]: there is no mode `modelparallel`; did you mean `model-parallel`?",
        ),
        (
            vec!["train", "--gpus", "0"],
            "error: invalid value '0' for '--gpus <N>': 0 is not in 1..=1024\n\nFor more information, try '--help'.",
        ),
        (
            vec!["train", "--gpus", "2", "--mode", "single"],
            "mpt: mode single uses one device, but the mesh is 2x1: 2 devices",
        ),
        (
            vec!["train", "--gpus", "65", "--device", "cpu"],
            "mpt: 65 CPU devices are more than the 64 that one machine may have",
        ),
        (
            vec!["verify", "--gpus", "65", "--mode", "data-parallel", "--device", "cpu"],
            "mpt: 65 CPU devices are more than the 64 that one machine may have",
        ),
        (vec!["train", "--gpus", "3", "--mesh", "2x2"], "mpt: the mesh 2x2 needs 4 devices, but 3 are asked for"),
        (
            vec!["train", "--mesh", "2by2"],
            "mpt: --mesh: [parallel]: `2by2` is no mesh; write DATAxMODEL, like 2x2, with at most 1024 devices in all",
        ),
        (
            vec!["train", "--model", "alexnett"],
            "mpt: there is no model `alexnett` (one of your own is a file ending in .toml); did you mean `alexnet`?",
        ),
        (
            vec!["train", "--model", "none.toml"],
            "mpt: model file none.toml cannot be read: No such file or directory (os error 2)",
        ),
        (
            vec!["train", "--max-time", "soon"],
            "mpt: --max-time: [train]: `soon` is no span of time; write it like 90s, 5m or 1h30m",
        ),
        (
            vec!["train", "--set", "train.epoch=3"],
            "mpt: --set: unknown key `train.epoch`; did you mean `train.epochs`?",
        ),
        (
            vec!["train", "--learning-rate", "-1"],
            "mpt: --learning-rate: [optimizer]: `learning_rate` must not be negative, but is -1",
        ),
        (
            vec!["train", "--set", "data.source=synthetic", "--model", "tiny"],
            "mpt: model tiny reads images of 2x13x13, but those of synthetic are 1x28x28: the channels differ; use --set data.image=[2,13,13]",
        ),
        (
            vec!["plan", "--device-memory", "lots"],
            "mpt: `lots` is no amount of memory; write it like 3GiB, 512MiB or 3GB",
        ),
        (
            vec!["verify", "--model", "tiny", "--mesh", "1x2", "--break-adjoint", "conv2"],
            "mpt: --break-adjoint: no gradients are summed before layer `conv2`; did you mean `conv3`?",
        ),
        (
            vec!["train", "--devices", "0,2", "--device", "cpu"],
            "mpt: --devices names GPUs, and this run is on CPU devices, which have no numbers: use --gpus 2",
        ),
        (
            tiny(&["--set", "schedule.events=[{epoch = 1, parameters = \"conv9.*\", frozen = true}]"]),
            "mpt: [schedule]: an event's `parameters`, `conv9.*`, are no parameters of model tiny; they are called like conv1.weight",
        ),
        (vec!["plan", "--devices", "0,2"], "mpt: --devices: `mpt plan` knows CPU devices only; use --gpus 2"),
        (vec!["train", "--devices", "1,1"], "mpt: --devices names GPU 1 twice: a GPU takes one rank"),
        (vec!["plan", "--device", "cuda"], "mpt: --device cuda: `mpt plan` knows CPU devices only; use --device cpu"),
    ] {
        let mut arguments = arguments;
        let needs_data = arguments[0] == "train" && !arguments.contains(&"data.source=synthetic");
        if needs_data {
            arguments.extend(["--set", "data.source=synthetic"]);
        }
        let done = output(&arguments);
        assert_eq!(stderr(&done).trim_end(), sentence, "{arguments:?}");
        assert_eq!((done.status.code(), stdout(&done)), (Some(2), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_variable_that_sets_nothing_is_named() {
    let done = mpt(&["plan"]).env("MPT_TRAIN_BATCHSIZE", "3").output().unwrap();
    let sentence = "mpt: environment variable MPT_TRAIN_BATCHSIZE: it sets no key of the recipe; did you mean \
                    `MPT_TRAIN_BATCH_SIZE`?\n";
    assert_eq!((done.status.code(), stderr(&done).as_str()), (Some(2), sentence));
}

#[test]
fn missing_data_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let done = mpt(&["train"]).env("XDG_CACHE_HOME", empty.path()).output().unwrap();
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("mpt/data/fashion-mnist") && said.contains("data.source=synthetic"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn verify_fails_and_names_the_layer_when_an_adjoint_is_broken() {
    let good = output(&["verify", "--model", "tiny", "--mesh", "1x3"]);
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    assert!(stdout(&good).contains("equal: nothing is further apart than"), "{}", stdout(&good));
    let own_half = ["--set", "parallel.own_half=on"];
    let own_first = output(&[&["verify", "--model", "tiny", "--mesh", "1x3"], &own_half[..]].concat());
    assert!(stdout(&own_first).contains("equal: nothing is further apart than"), "{}", stdout(&own_first));
    assert_ne!(stdout(&own_first), stdout(&good), "the sums are taken in another order");
    let broken = output(&["verify", "--model", "tiny", "--mesh", "1x3", "--break-adjoint", "conv3"]);
    assert_eq!(broken.status.code(), Some(1));
    let said = stderr(&broken);
    assert!(said.contains("first at layer conv3: gradient of its input, tanh2"), "{said}");
}

#[test]
fn show_lists_models_and_recipes() {
    let models = stdout(&output(&["show", "model", "alexnet-dense", "lenet"]));
    assert!(models.contains("46,764,746") && models.contains("61,706") && models.contains("   |   lenet"), "{models}");
    let recipes = stdout(&output(&["show", "recipes"]));
    assert!(recipes.contains("fashion-mnist") && recipes.contains("alexnet-sigmoid"), "{recipes}");
    let (_, by_others) = recipes.split_once("errors on ImageNet that Alex Krizhevsky measured").unwrap();
    let of_no_norm = by_others.lines().find_map(|line| line.trim().strip_prefix("imagenet-2012-no-norm "));
    assert_eq!(of_no_norm.map(str::trim), Some("42.03 % top-1, 19.36 % top-5"), "{by_others}");
    assert!(by_others.ends_with("Nobody has run these recipes on ImageNet with mpt.\n"), "{by_others}");
}

#[test]
fn a_run_is_recorded_and_its_recipe_runs_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| mpt(arguments).current_dir(dir.path()).output().unwrap();
    let more = ["--steps", "3", "--epochs", "1", "--gpus", "2", "--precision", "fp64", "--seed", "5"];
    let first = run(&tiny(&more));
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let folder = dir.path().join("runs/fashion-mnist-tiny/latest");
    let curves = std::fs::read_to_string(folder.join("curves.svg")).unwrap();
    assert!(["train loss", "train acc", "test acc"].iter().all(|name| curves.contains(name)), "{curves}");
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(folder.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["step", "step", "step", "epoch"]);
    let step = &lines[1];
    assert_eq!(
        (step["step"].as_u64(), step["examples"].as_u64(), step["learning_rate"].as_f64()),
        (Some(2), Some(8), Some(0.01))
    );
    assert_eq!(step["devices"].as_array().unwrap().len(), 2);
    assert!(step["devices"][1]["sent_bytes"].as_u64() > Some(0));
    let seconds: f64 = step["devices"][0]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| {
            key.ends_with("_seconds") && !["overlapped_seconds", "awaited_seconds"].contains(&key.as_str())
        })
        .map(|(_, value)| value.as_f64().unwrap())
        .sum();
    let inside = step["devices"][0]["loader_wait_seconds"].as_f64().unwrap();
    let (sum, whole) = (seconds - inside, step["seconds"].as_f64().unwrap());
    assert!(whole > 0.0 && (sum / whole - 1.0).abs() < 0.05, "phases add up to the step: {sum} {whole}");
    let times: f64 =
        lines.iter().filter(|line| line["kind"] == "epoch").map(|line| line["seconds"].as_f64().unwrap()).sum();
    let steps: f64 =
        lines.iter().filter(|line| line["kind"] == "step").map(|line| line["seconds"].as_f64().unwrap()).sum();
    assert!(times > 0.0 && times <= steps, "{times} {steps}");
    let again = run(&["train", "--recipe", folder.join("recipe.toml").to_str().unwrap(), "--run-dir", "second"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(stdout(&again).lines().next(), stdout(&first).lines().next());
    let taken = run(&tiny(&["--run-dir", "second"]));
    assert_eq!(
        stderr(&taken).lines().last(),
        Some(
            "mpt: --run-dir: second holds a run already; name another folder, or go on with that run: --resume second"
        )
    );
    assert_eq!(taken.status.code(), Some(2));
}

#[test]
fn nobody_reading_is_no_error_and_a_full_disk_is_one_sentence() {
    let mut child = mpt(&["show", "model", "alexnet"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));

    let full = || std::fs::File::create("/dev/full").unwrap();
    let done = mpt(&["show", "model", "alexnet"]).stdout(full()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).starts_with("mpt: the results cannot be written to stdout: "), "{}", stderr(&done));

    let mut child = mpt(&tiny(&["--steps", "5"])).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let mut results = String::new();
    child.stdout.take().unwrap().read_to_string(&mut results).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(results.starts_with("loss "), "training goes on when its log reader is gone: {results}");
}

#[test]
fn the_rate_of_training_is_not_below_the_rate_end_to_end() {
    for mesh in ["1x1", "2x1", "1x2"] {
        let done = output(&tiny(&["--steps", "60", "--quiet", "--mesh", mesh]));
        let rates: Vec<f64> =
            stdout(&done).lines().skip(1).map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(rates[0] >= rates[1], "{mesh}: {rates:?}");
    }
}

#[test]
fn train_and_test_images_of_unlike_sizes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, dimensions: &[u32], bytes: usize| {
        let mut file = vec![0, 0, 8, dimensions.len() as u8];
        file.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        file.extend((0..bytes).map(|index| (index % 7) as u8));
        std::fs::write(dir.path().join(name), file).unwrap();
    };
    write("train-images-idx3-ubyte", &[4, 28, 28], 4 * 28 * 28);
    write("train-labels-idx1-ubyte", &[4], 4);
    write("t10k-images-idx3-ubyte", &[4, 14, 56], 4 * 14 * 56);
    write("t10k-labels-idx1-ubyte", &[4], 4);
    let folder = dir.path().to_str().unwrap();
    let done = output(&["train", "--model", "lenet", "--set", "data.source=idx", "--data-dir", folder]);
    let expected = "mpt: the images of idx differ in size: those for training are [1, 28, 28], those for testing [1, 14, 56] [channels, height, width]\n";
    assert_eq!((done.status.code(), stderr(&done).as_str()), (Some(2), expected));
}

#[test]
fn a_model_of_ones_own_trains() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    let text = r#"
        name = "mine"
        input = [1, 14, 14]
        layers = [
            { kind = "conv", name = "c", out = 6, kernel = 3, groups = 1 },
            { kind = "tanh" },
            { kind = "average-pool", kernel = 2 },
            { kind = "flatten" },
            { kind = "linear", out = 3 },
            { kind = "softmax-cross-entropy" },
        ]"#;
    std::fs::write(&path, text).unwrap();
    let run = |path: &Path| {
        let model = path.to_str().unwrap();
        let common = [
            "train",
            "--steps",
            "3",
            "--set",
            "data.source=noise",
            "--set",
            "data.classes=3",
            "--set",
            "data.test_examples=8",
        ];
        output(&[&common[..], &["--gpus", "3", "--mode", "model-parallel", "--model", model]].concat())
    };
    let done = run(&path);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).contains("mine, model-parallel 1x3"), "{}", stdout(&done));
}

#[test]
fn a_machine_without_a_gpu_says_what_is_missing() {
    if Path::new("/proc/driver/nvidia/version").exists() {
        return;
    }
    let done = output(&tiny(&["--device", "cuda"]));
    let said = stderr(&done);
    assert!(
        said.starts_with("mpt: ") && said.ends_with("or use --device cpu\n") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(done.status.code(), Some(2));
}
