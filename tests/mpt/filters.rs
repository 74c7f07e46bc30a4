//! `mpt show filters` as a user meets it: the kernels of runs and of files, as pictures.

use crate::program::{mpt, output, stderr, stdout, text, tiny};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use tch::{Kind, Tensor};

/// Kernels of 2x2 pixels, in red, green and blue: two without colour, then one of opponents, and one of red alone.
const KERNELS: [[f64; 12]; 4] = [
    [1.0, 0.5, 0.0, -1.0, 1.0, 0.5, 0.0, -1.0, 1.0, 0.5, 0.0, -1.0],
    [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
];

fn kernels(shape: &[i64]) -> Tensor {
    Tensor::from_slice(&KERNELS.concat()).reshape(shape).to_kind(Kind::Float)
}

/// A file of tensors, as PyTorch would save it.
fn saved(file: &Path, tensors: &[(&str, Tensor)]) {
    Tensor::write_safetensors(tensors, file).unwrap();
}

/// A PNG file's width, height and pixels, each of so many values.
fn decoded(file: &Path) -> (usize, usize, Vec<Vec<u8>>) {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    let mut values = vec![0; reader.output_buffer_size().unwrap()];
    let about = reader.next_frame(&mut values).unwrap();
    let pixels = values.chunks(about.color_type.samples()).map(<[u8]>::to_vec).collect();
    (about.width as usize, about.height as usize, pixels)
}

#[test]
fn each_tower_is_a_block_of_its_kernels() {
    let dir = tempfile::tempdir().unwrap();
    // The next kernels in the order of numbers read two of four channels: two towers.
    let next = |read: i64| Tensor::zeros([4, read, 1, 1], (Kind::Float, tch::Device::Cpu));
    let tensors = [
        ("features.10.weight", next(4)),
        ("features.3.weight", next(2)),
        ("features.0.weight", kernels(&[4, 3, 2, 2])),
    ];
    saved(&dir.path().join("w.safetensors"), &tensors);
    let show = |more: &[&str]| {
        let done =
            mpt(&[&["show", "filters", "w.safetensors"], more].concat()).current_dir(dir.path()).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        stdout(&done)
    };
    let lines: Vec<String> =
        show(&[]).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "features.0.weight of w.safetensors: 4 kernels of 2x2, in colour, in 2 towers");
    assert_eq!(lines[3], "1 0..2 -1.000 1.000 0.000 0.000", "{lines:?}");
    // 2 of opponents, and 1/4, of which a third lies along grey.
    assert_eq!(lines[4], "2 2..4 -1.000 1.000 0.963 1.000", "{lines:?}");
    assert_eq!(lines.last().unwrap(), "drawn: filters.png");

    // A weight is 28 pixels wide, kernels are 4 and towers 20 apart; -1 is dark, 1 is light.
    let (width, height, pixels) = decoded(&dir.path().join("filters.png"));
    assert_eq!((width, height), (124, 140));
    let shade = |weight: f64| (255.0 * (weight + 1.0) / 2.0).round() as u8;
    for (kernel, (left, top)) in [(4, 4), (64, 4), (4, 80), (64, 80)].into_iter().enumerate() {
        for (y, x) in (0..56).flat_map(|y| (0..56).map(move |x| (y, x))) {
            let expected = [0, 1, 2].map(|channel| shade(KERNELS[kernel][channel * 4 + y / 28 * 2 + x / 28]));
            assert_eq!(pixels[(top + y) * width + left + x], expected, "kernel {kernel} at {y}, {x}");
        }
    }
    let drawn = pixels.iter().filter(|pixel| **pixel != [255; 3]).count();
    // One pixel of the first kernel has the greatest weight in all channels, and is as white as what lies around it.
    assert_eq!(drawn, (4 * 4 - 1) * 28 * 28);

    assert!(show(&["--svg", "w.svg"]).ends_with("\ndrawn: w.svg\n"));
    let svg = fs::read_to_string(dir.path().join("w.svg")).unwrap();
    assert!(svg.contains(">tower 1: kernels 0..2, colour selectivity 0.000<"), "{svg}");
    assert!(svg.contains(">tower 2: kernels 2..4, colour selectivity 0.963<"), "{svg}");
    assert_eq!(svg.matches("h28v28h-28z").count(), 4 * 4);
    // The third kernel's first weight, below two captions.
    assert!(svg.contains("<path fill=\"#ff0080\" d=\"M4 124h28"), "{svg}");
    // Each kernel's own mean and variance: the second has no contrast.
    assert!(show(&["--normalize", "--png", "n.png", "--svg", "n.svg"]).ends_with("\ndrawn: n.png, n.svg\n"));
    let (.., normalized) = decoded(&dir.path().join("n.png"));
    let middle = &normalized[4 * width + 64];
    assert!((0..56 * 56).all(|at| normalized[(4 + at / 56) * width + 64 + at % 56] == *middle), "{middle:?}");
    assert!(normalized[4 * width + 4] != pixels[4 * width + 4]);
}

#[test]
fn a_run_a_checkpoint_and_a_file_of_its_weights_show_the_same_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let train = ["train", "--recipe", "quick", "--set", "data.source=synthetic", "--batch-size", "8", "--quiet"];
    let small = ["--set", "data.test_examples=8", "--steps", "2", "--mesh", "1x2", "--precision", "fp32", "--run-dir"];
    let done = output(&[&train[..], &small, &[text(&run)]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let exported = dir.path().join("out.safetensors");
    assert_eq!(output(&["export", text(&run), "--out", text(&exported)]).status.code(), Some(0));
    let checkpoint = run.join("checkpoints/step-00000002");
    let file = checkpoint.join("model.safetensors");
    let mut pictures = Vec::new();
    for (which, model, about) in [
        (&run, None, "conv1.weight of quick after step 2"),
        (&checkpoint, None, "conv1.weight of quick after step 2"),
        (&file, None, &*format!("conv1.weight of {}", file.display())),
        (&exported, None, &*format!("0.weight of {}", exported.display())),
        (&exported, Some("quick"), &*format!("conv1.weight of {}", exported.display())),
    ] {
        let picture = dir.path().join("picture.png");
        let mut arguments = vec!["show", "filters", text(which), "--png", text(&picture)];
        arguments.extend(model.into_iter().flat_map(|name| ["--model", name]));
        let shown = output(&arguments);
        let said = stdout(&shown);
        assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
        assert!(said.starts_with(&format!("{about}: 32 kernels of 5x5, in grey, in 2 towers\n")), "{said}");
        assert!(said.contains("no colour to be selective for") && said.contains("16..32"), "{said}");
        pictures.push(fs::read(&picture).unwrap());
    }
    assert!(pictures.iter().all(|picture| *picture == pictures[0]));
    // Grey: one value a pixel. Two towers of a row each, of kernels 55 pixels wide.
    let found = decoded(&dir.path().join("picture.png"));
    assert_eq!((found.0, found.1, found.2[0].len()), (4 + 16 * 59, 4 + 59 + 16 + 59, 1));
}

#[test]
fn what_has_no_kernels_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = |name: &str, tensor: Tensor| saved(&at(name), &[("w", tensor)]);
    file("flat.safetensors", kernels(&[4, 12]));
    file("two.safetensors", kernels(&[6, 2, 2, 2]));
    file("large.safetensors", Tensor::zeros([1, 1, 65, 2], (Kind::Float, tch::Device::Cpu)));
    file("whole.safetensors", kernels(&[4, 3, 2, 2]).to_kind(Kind::Int));
    file("nan.safetensors", Tensor::from_slice(&[1.0f32, f32::NAN]).reshape([2, 1, 1, 1]));
    let whole = fs::read(at("two.safetensors")).unwrap();
    fs::write(at("short.safetensors"), &whole[..whole.len() - 1]).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(
        at("linear.toml"),
        "name = \"linear\"\ninput = [1, 2, 2]\nlayers = [{ kind = \"flatten\" }, { name = \"fc1\", kind = \"linear\", out = 2 }, \
         { kind = \"softmax-cross-entropy\" }]",
    )
    .unwrap();
    let run = at("run");
    let trained = output(&tiny(&["--steps", "1", "--quiet", "--run-dir", text(&run)]));
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
    for (arguments, code, sentence) in [
        (&["none"][..], 2, "none cannot be read: No such file or directory (os error 2)"),
        (&["empty"], 2, "empty is neither a run directory (recipe.toml is not in it) nor a checkpoint"),
        (&["flat.safetensors"], 2, "flat.safetensors has no kernels: no tensor in it has four sides"),
        (
            &["two.safetensors"],
            2,
            "two.safetensors: w reads images of 2 channels; a kernel is drawn in grey for one channel, or in colour for three",
        ),
        (
            &["large.safetensors"],
            2,
            "large.safetensors: w has 1 kernels of 65x2; a picture has room for 1 to 4096 of at most 64x64",
        ),
        (&["whole.safetensors"], 1, "whole.safetensors: w is in I32"),
        (
            &["nan.safetensors"],
            1,
            "w cannot be drawn: kernel 1 has a weight that is NaN; the run diverged, or the file is damaged",
        ),
        (
            &["short.safetensors"],
            2,
            "short.safetensors is no whole file in the format safetensors: its header tells of 264 bytes, but it has 263; \
             PyTorch writes one with safetensors.torch.save_file(network.state_dict(), FILE)",
        ),
        (
            &["two.safetensors", "--model", "linear.toml"],
            2,
            "model linear has no convolution that reads the image: fc1, of kind linear, comes first",
        ),
        (
            &["two.safetensors", "--model", "lenet"],
            2,
            "two.safetensors has no tensor conv1.weight, which model lenet has as [6, 1, 5, 5]; it holds w",
        ),
        (&["run", "--model", "tiny"], 2, "--model is for a file of weights: what a run trained, its recipe says"),
        (
            &["run"],
            2,
            "conv1.weight reads images of 2 channels; a kernel is drawn in grey for one channel, or in colour for three",
        ),
    ] {
        let done = mpt(&[&["show", "filters"], arguments].concat()).current_dir(dir.path()).output().unwrap();
        assert_eq!(stderr(&done).trim_end(), format!("mpt: {sentence}"), "{arguments:?}");
        assert_eq!((done.status.code(), stdout(&done)), (Some(code), String::new()), "{arguments:?}");
    }
    assert!(!at("filters.png").exists());
    file("good.safetensors", kernels(&[16, 3, 1, 1]));
    let unwritable =
        mpt(&["show", "filters", "good.safetensors", "--png", "none/a.png"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(unwritable.status.code(), Some(1));
    assert_eq!(
        stderr(&unwritable).trim_end(),
        "mpt: --png: none/a.png cannot be written: No such file or directory (os error 2)"
    );
}
