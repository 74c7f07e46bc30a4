//! Weights that others read and wrote: `mpt export` and `--init-from`. (That PyTorch reads and writes the same is for
//! `scripts/parity exchange` to show.)

use crate::program::{mpt, output, stderr, stdout, text, tiny};
use crate::rehearsal::equals_threads;
use mpt::checkpoint::{Described, TensorFile, WeightFile};
use mpt::engine::saving::described;
use mpt::error::Error;
use mpt::model::names::Naming;
use mpt::model::parse::Edits;
use mpt::model::{Model, shipped};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn done(arguments: &[&str]) -> String {
    let done = output(arguments);
    assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", stderr(&done));
    stdout(&done)
}

fn refused(arguments: &[&str]) -> String {
    let done = output(arguments);
    assert_eq!((done.status.code(), stdout(&done)), (Some(2), String::new()), "{arguments:?}: {}", stderr(&done));
    stderr(&done)
}

/// Trains in a folder; gives the weights' file of the last checkpoint.
fn trained(run: &Path, steps: &str, more: &[&str]) -> PathBuf {
    let common = ["--steps", steps, "--quiet", "--run-dir", text(run)];
    done(&tiny(&[&common[..], more].concat()));
    run.join(format!("checkpoints/step-{steps:0>8}/model.safetensors"))
}

fn tensors(file: &Path) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(file).unwrap().into_iter().collect()
}

/// A run of a network with branches.
fn branched<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let settings = ["--set", "data.source=synthetic", "--set", "data.image=[1,10,10]", "--set", "data.classes=9"];
    [&["train", "--model", "tiny-concat"], &settings[..], more].concat()
}

/// The numbers of tiny's layers with weights in an nn.Sequential.
const NUMBERS: [(&str, &str); 5] = [("conv1", "0"), ("conv2", "3"), ("conv3", "5"), ("fc4", "10"), ("fc5", "13")];

#[test]
fn what_is_exported_begins_a_run_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("weights.safetensors");
    for (precision, from, to) in [("fp32", "1x2", "3x1"), ("bf16", "2x1", "1x3"), ("fp64", "1x1", "2x2")] {
        let run = dir.path().join(precision);
        let precision = ["--precision", precision];
        let expected = trained(&run, "7", &[&precision[..], &["--mesh", from]].concat());
        let said = done(&["export", text(&run), "--out", text(&out), "--force"]);
        let start = format!("{}: tiny after step 7, 10 tensors under the numbers of an nn.Sequential, ", out.display());
        assert!(said.starts_with(&start), "{said}");
        let (model, exported) = (tensors(&expected), tensors(&out));
        assert_eq!(exported.len(), 10);
        for (layer, number) in NUMBERS {
            for role in ["weight", "bias"] {
                assert_eq!(exported[&format!("{number}.{role}")], model[&format!("{layer}.{role}")], "{layer}");
            }
        }
        for names in ["sequential", "layers"] {
            let checkpoint = run.join("checkpoints/step-00000007");
            done(&["export", text(&checkpoint), "--out", text(&out), "--names", names, "--force"]);
            let again = dir.path().join(format!("{names}-{}", run.file_name().unwrap().display()));
            // Without a rate the weights stay as they began. Another seed would have drawn others.
            let kept = ["--learning-rate", "0", "--seed", "5", "--mesh", to, "--init-from", text(&out)];
            let found = trained(&again, "1", &[&precision[..], &kept].concat());
            assert!(fs::read(&found).unwrap() == fs::read(&expected).unwrap(), "{precision:?} {names}");
        }
    }
}

#[test]
fn ranks_that_are_processes_begin_with_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let file = trained(&dir.path().join("run"), "3", &["--precision", "fp32"]);
    let init_from = ["--init-from", text(&file)];
    equals_threads(&[&["--gpus", "2", "--mode", "model-parallel", "--precision", "fp32"], &init_from[..]].concat());
    equals_threads(&[&["--gpus", "2", "--precision", "bf16"], &init_from[..]].concat());
}

#[test]
fn weights_of_every_float_type_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let weights = tensors(&trained(&dir.path().join("run"), "3", &["--precision", "fp32"]));
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        let file = dir.path().join("others.safetensors");
        let of_kind: Vec<(&String, Tensor)> =
            weights.iter().map(|(name, tensor)| (name, tensor.to_kind(kind))).collect();
        Tensor::write_safetensors(&of_kind, &file).unwrap();
        let run = dir.path().join(format!("{kind:?}"));
        let arguments = ["--precision", "fp32", "--learning-rate", "0", "--mesh", "2x2", "--init-from", text(&file)];
        let found = tensors(&trained(&run, "1", &arguments));
        for (name, tensor) in of_kind {
            assert_eq!(found[name], tensor.to_kind(Kind::Float), "{name} in {kind:?}");
        }
    }
}

#[test]
fn a_run_says_with_which_weights_it_begins_and_keeps_that() {
    let dir = tempfile::tempdir().unwrap();
    let file = trained(&dir.path().join("first"), "3", &[]);
    let run = dir.path().join("second");
    let arguments = ["--steps", "2", "--run-dir", text(&run), "--init-from"];
    // From wherever it is called, the file is found again.
    let mut command = mpt(&tiny(&[&arguments[..], &["first/checkpoints/step-00000003/model.safetensors"]].concat()));
    let begun = command.current_dir(dir.path()).output().unwrap();
    let said = stderr(&begun);
    let sentence = format!("\nthe weights begin as {} has them, under the layers' names\n", file.display());
    assert!(begun.status.success() && said.contains(&sentence), "{said}");
    let recorded = fs::read_to_string(run.join("recipe.toml")).unwrap();
    assert!(recorded.contains(&format!("init_from = \"{}\"\n", file.display())), "{recorded}");
    // A run that has a checkpoint goes on from that, whatever became of the file.
    fs::remove_file(&file).unwrap();
    let resumed = output(&["train", "--resume", text(&run), "--steps", "3"]);
    assert!(resumed.status.success() && !stderr(&resumed).contains("the weights begin"), "{}", stderr(&resumed));
    // One that has none begins again as it began.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let again = refused(&["train", "--resume", "auto", "--run-dir", text(&run), "--quiet"]);
    assert!(
        again.ends_with(&format!(
            "mpt: --init-from: {} cannot be read: No such file or directory (os error 2)\n",
            file.display()
        )),
        "{again}"
    );
}

#[test]
fn what_does_not_fit_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = trained(&dir.path().join("run"), "1", &["--precision", "fp32"]);
    let sound = tensors(&file);
    let other = dir.path().join("other.safetensors");
    let with = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors: BTreeMap<String, Tensor> =
            sound.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        change(&mut tensors);
        Tensor::write_safetensors(&tensors.into_iter().collect::<Vec<_>>(), &other).unwrap();
        let said = refused(&tiny(&["--quiet", "--steps", "1", "--init-from", text(&other)]));
        let said = said.strip_prefix(&format!("mpt: --init-from: {} ", other.display())).expect(&said);
        said.trim_end().to_owned()
    };
    assert_eq!(
        with(&|tensors| _ =
            tensors.insert("fc4.weight".into(), Tensor::zeros([16, 90], (Kind::Float, tch::Device::Cpu)))),
        "has fc4.weight as [16, 90], but model tiny has it as [14, 90]"
    );
    assert_eq!(
        with(&|tensors| _ = tensors.remove("fc4.bias")),
        "has no tensor fc4.bias, which model tiny has as [14]; it holds conv1.bias, conv1.weight, conv2.bias, ..."
    );
    assert_eq!(
        with(&|tensors| _ = tensors.insert("bn\n.weight".into(), Tensor::from_slice(&[1.0f32]))),
        "has a tensor \"bn\\n.weight\", which model tiny has not"
    );
    assert_eq!(
        with(&|tensors| _ = tensors.insert("fc5.bias".into(), Tensor::from_slice(&[1i64, 2, 3, 4, 5]))),
        "has fc5.bias in I64; weights can be read from F64, F32, BF16 and F16"
    );
    assert_eq!(
        with(&|tensors| {
            let numbered = NUMBERS.iter().flat_map(|(layer, number)| {
                ["weight", "bias"].map(|role| (format!("{layer}.{role}"), format!("{number}.{role}")))
            });
            for (own, number) in numbered {
                let tensor = tensors.remove(&own).unwrap();
                let tensor = if number == "3.weight" { tensor.repeat([1, 2, 1, 1]) } else { tensor };
                tensors.insert(number, tensor);
            }
        }),
        "has 3.weight (conv2.weight) as [12, 8, 3, 3], but model tiny has it as [12, 4, 3, 3]"
    );
    // Numbers mean nothing in a network with branches.
    let numbers = dir.path().join("numbers.safetensors");
    done(&["export", text(&dir.path().join("run")), "--out", text(&numbers)]);
    let said = refused(&branched(&["--quiet", "--steps", "1", "--init-from", text(&numbers)]));
    assert!(said.contains("has no tensor stem.weight, which model tiny-concat has as [7, 1, 3, 3]"), "{said}");
    let said = refused(&["train", "--resume", "auto", "--init-from", text(&file)]);
    assert!(
        said.starts_with("error: the argument '--resume <auto|PATH>' cannot be used with '--init-from <FILE>'"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_exported_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (run, out) = (dir.path().join("run"), dir.path().join("out.safetensors"));
    done(&branched(&["--set", "data.test_examples=9", "--steps", "1", "--quiet", "--run-dir", text(&run)]));
    assert_eq!(
        refused(&["export", text(&run), "--out", text(&out)]),
        "mpt: model tiny-concat is no sequence of layers, for wide does not read the layer before it alone: use --names \
         layers\n"
    );
    let layers = ["export", text(&run), "--names", "layers", "--out", text(&out)];
    done(&layers);
    let written = fs::read(&out).unwrap();
    assert_eq!(refused(&layers), format!("mpt: --out: {} is there already; --force writes over it\n", out.display()));
    // On a full disk, for which a limit on the size of files stands, what was there stays, and nothing is left beside it.
    let limited = mpt(&[&layers[..], &["--force"]].concat());
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "bash"]).arg(limited.get_program());
    let full = shell.args(limited.get_args()).output().unwrap();
    let sentence = format!("mpt: --out: {} cannot be written: File too large (os error 27)\n", out.display());
    assert_eq!((full.status.code(), stderr(&full)), (Some(1), sentence));
    assert_eq!(fs::read(&out).unwrap(), written);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

fn model() -> Model {
    shipped::load("tiny", &Edits::default()).unwrap()
}

fn opened(file: &Path) -> Result<WeightFile, Error> {
    WeightFile::fitting(TensorFile::of_others(file)?, &model(), &described(&model()))
}

/// A file of tiny's weights, all zeros, but with this header.
fn with_header(length: u64, header: &[u8]) -> Vec<u8> {
    let values: usize = described(&model()).iter().map(Described::len).sum();
    [&length.to_le_bytes()[..], header, &vec![0; 4 * values]].concat()
}

#[test]
fn whatever_a_file_says_of_itself_it_is_opened_or_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights.safetensors");
    let mut end = 0;
    let entries: Vec<String> = described(&model())
        .iter()
        .zip(Naming::Sequential.of(&model()))
        .map(|(described, name)| {
            let begin = end;
            end += 4 * described.len();
            format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{:?},\"data_offsets\":[{begin},{end}]}}", described.shape)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let sound = with_header(header.len() as u64, header.as_bytes());
    fs::write(&file, &sound).unwrap();
    assert_eq!(opened(&file).unwrap().naming(), Naming::Sequential);
    let one_sentence = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        match opened(&file) {
            // A changed value is another value.
            Ok(weights) => _ = weights.reader().unwrap()("conv1.weight", 0..144).unwrap(),
            Err(error) => {
                let said = error.to_string();
                let is_one = !said.contains(char::is_control) && said.len() < 1000 && error.exit_code() == 2;
                assert!(is_one && said.starts_with(text(&file)), "{what}: {said}");
            }
        }
    };
    for place in 0..8 + header.len() {
        for change in [1, 0x20, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[place] ^= change;
            one_sentence(&bytes, &format!("byte {place} ^ {change}"));
        }
    }
    for length in (0..sound.len()).step_by(7) {
        one_sentence(&sound[..length], &format!("{length} bytes"));
        fs::write(&file, &sound[..length]).unwrap();
        assert!(opened(&file).is_err(), "{length} bytes of {}", sound.len());
    }
    let most = u64::MAX.to_string();
    let replaced = |from: &str, to: &str| header.replacen(from, to, 1);
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let hostile = [
        String::new(),
        "{}".into(),
        "null".into(),
        nested,
        replaced("[8, 2, 3, 3]", &format!("[{most}, {most}, {most}, {most}]")),
        replaced("[8, 2, 3, 3]", &format!("[{}144]", "1, ".repeat(100_000))),
        replaced("[0,576]", &format!("[0,{most}]")),
        replaced("[0,576]", "[576,0]"),
        replaced("F32", "F64"),
        replaced("F32", &format!("F{}", "9".repeat(100_000))),
        replaced("0.weight", &"0".repeat(1_000_000)),
        replaced("0.weight", "1.weight"),
        replaced("\"0.weight\"", "\"\\u001b[31m\\n\""),
        format!("{{\"__metadata__\":{{\"a\":1}},{}", &header[1..]),
    ];
    for header in hostile {
        let what: String = header.chars().take(100).collect();
        let bytes = with_header(header.len() as u64, header.as_bytes());
        one_sentence(&bytes, &what);
        assert!(opened(&file).is_err(), "{what}");
        // Nor is a length believed that the file has not.
        for length in [u64::MAX, 1 << 62, 99_999_999, bytes.len() as u64, bytes.len() as u64 - 7] {
            one_sentence(&with_header(length, header.as_bytes()), &format!("length {length}"));
        }
    }
    fs::remove_file(&file).unwrap();
    for (path, problem) in
        [(dir.path(), "is no file"), (&file, "cannot be read: No such file or directory (os error 2)")]
    {
        assert_eq!(opened(path).unwrap_err().to_string(), format!("{} {problem}", path.display()));
    }
}
