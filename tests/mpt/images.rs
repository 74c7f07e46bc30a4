//! Training on folders of image files, as a user meets it: the same numbers on any split and after any interruption, whatever
//! lies among the images.

use crate::program::{numbers, output, stderr, stdout, text};
use image::{Rgb, RgbImage};
use mpt::data::prepare::statistics::Statistics;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::{Event, Summary};
use mpt::launch::control::Control;
use mpt::layers::Outcome;
use mpt::recipe::{Layered, Recipe};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Three classes of bright spots: in the upper left, the upper right, and below; and some files that are no images.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (subset, images) in [("train", 40), ("val", 9)] {
        for (class, (x, y)) in [("left", (4, 4)), ("low", (10, 16)), ("right", (16, 4))] {
            let folder = dir.path().join(subset).join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..images {
                let near = |at: u32, of: u32| at.abs_diff(of + number % 3) < 4;
                let grain = |x: u32, y: u32| (x * 31 + y * 17 + number * 7) as u8 % 60;
                let image = RgbImage::from_fn(24, 24, |across, down| {
                    let spot = near(across, x) && near(down, y);
                    Rgb([if spot { 220 } else { grain(across, down) }, grain(down, across), 90])
                });
                let ending = if number % 2 == 0 { "jpg" } else { "png" };
                image.save(folder.join(format!("{number:02}.{ending}"))).unwrap();
            }
        }
    }
    fs::write(dir.path().join("train/low/03.png"), b"this is no image").unwrap();
    let path = dir.path().join("train/right/04.jpg");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(dir.path().join("train/left/05.png"), b"").unwrap();
    dir
}

fn settings(dir: &Path) -> Vec<String> {
    let dir = format!("data.dir={}", dir.display());
    let fixed = [
        "model.name=quick",
        "model.input=[3,16,16]",
        "model.classes=data",
        "data.source=images",
        "schedule.kind=constant",
        "train.batch_size=16",
    ];
    fixed.into_iter().map(str::to_owned).chain([dir]).collect()
}

fn recipe(dir: &Path, more: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("quick").unwrap();
    for assignment in settings(dir).iter().map(String::as_str).chain(more.iter().copied()) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

fn trained(recipe: &Recipe) -> (Summary, Vec<Outcome>, Vec<String>) {
    let (mut outcomes, mut unread) = (Vec::new(), Vec::new());
    let job = Job::new(recipe, Control::default()).unwrap();
    let summary = run(job, Ranks::All, &mut |event| match event {
        Event::Step(step) => outcomes.push(step.outcome),
        Event::Unread(problems) => unread.extend(problems.iter().cloned()),
        _ => {}
    });
    unread.sort_unstable();
    (summary.unwrap(), outcomes, unread)
}

#[test]
fn a_folder_of_images_is_learned_and_what_is_damaged_is_named() {
    let dir = folder();
    let more = ["train.epochs=6", "train.precision=fp32"];
    let (summary, _, unread) = trained(&recipe(dir.path(), &more));
    let last = summary.last.unwrap();
    let (train, test) = (last.train, last.test.unwrap());
    assert_eq!((train.examples, test.examples), (119, 27));
    assert!(test.accuracy() > 0.9, "{}", test.accuracy());
    let shown = dir.path().display();
    let expected = [
        format!(
            "{shown}/train/low/03.png: is neither a JPEG nor a PNG image; the next image that can be read stands in for it"
        ),
        format!("{shown}/train/right/04.jpg: is truncated; the next image that can be read stands in for it"),
    ];
    assert_eq!(unread, expected);
}

#[test]
fn every_split_learns_the_same_from_image_files() {
    let dir = folder();
    let law = |mesh: &str, readers: &str| {
        let more = [
            "train.steps=6",
            "train.epochs=1",
            "train.precision=fp64",
            "data.flip=true",
            "data.crop=2",
            "data.colour_noise=0.1",
            "data.subtract=channels",
            mesh,
            readers,
        ];
        let (_, outcomes, _) = trained(&recipe(dir.path(), &more));
        outcomes
    };
    let whole = law("parallel.mesh=1x1", "data.readers=1");
    assert_eq!(law("parallel.mesh=1x1", "data.readers=3"), whole, "threads of the loader");
    for mesh in ["parallel.mesh=1x2", "parallel.mesh=2x1", "parallel.mesh=3x1"] {
        let split = law(mesh, "data.readers=2");
        assert_eq!(split.len(), whole.len());
        for (split, whole) in split.iter().zip(&whole) {
            assert_eq!((split.examples, split.correct), (whole.examples, whole.correct), "{mesh}");
            assert!((split.loss_sum - whole.loss_sum).abs() < 1e-9 * whole.loss_sum, "{mesh}");
        }
    }
}

#[test]
fn colours_end_when_an_event_says_so() {
    let dir = folder();
    // 120 files in batches of 16 are 8 steps an epoch.
    let losses = |more: &[&str]| -> Vec<f64> {
        let fixed = ["train.steps=12", "train.epochs=2", "train.precision=fp64", "parallel.threads=1"];
        trained(&recipe(dir.path(), &[&fixed, more].concat())).1.iter().map(|outcome| outcome.loss_sum).collect()
    };
    let noisy = "data.colour_noise=0.5";
    let (without, with) = (losses(&[]), losses(&[noisy]));
    let never = losses(&[noisy, "schedule.events=[{epoch = 0, colour_noise = 0}]"]);
    let ended = losses(&[noisy, "schedule.events=[{epoch = 1, colour_noise = 0}]"]);
    let begun = losses(&["schedule.events=[{epoch = 1, colour_noise = 0.5}]"]);
    assert_eq!(never, without);
    assert_eq!(ended[..8], with[..8]);
    assert_eq!(begun[..8], without[..8]);
    assert!((0..8).all(|step| with[step] != without[step]), "{with:?} {without:?}");
    assert!((8..12).all(|step| ended[step] != with[step] && begun[step] != without[step]), "{ended:?} {begun:?}");
}

#[test]
fn a_run_on_images_is_told_resumed_and_evaluated() {
    let dir = folder();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let common = settings(dir.path());
    let train = |more: &[&str]| {
        let common = common.iter().flat_map(|assignment| ["--set", assignment]);
        let arguments: Vec<&str> = ["train", "--recipe", "quick", "--precision", "fp32"]
            .into_iter()
            .chain(common)
            .chain(more.iter().copied())
            .collect();
        let done = output(&arguments);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        stderr(&done)
    };
    let said = train(&["--epochs", "2", "--run-dir", text(&whole)]);
    let shown = dir.path().display();
    for part in [
        "classes = \"3\"".to_owned(),
        format!("left out: {shown}/train/left/05.png is empty"),
        format!("{shown}/train/right/04.jpg: is truncated; the next image that can be read stands in for it"),
    ] {
        assert!(said.contains(&part), "`{part}` is not in:\n{said}");
    }
    train(&["--epochs", "2", "--steps", "3", "--run-dir", text(&parts)]);
    train(&["--epochs", "2", "--steps", "0", "--run-dir", text(&parts), "--resume", "auto"]);
    let steps = |run: &Path| numbers(run).into_iter().filter(|line| line["kind"] == "step").collect::<Vec<_>>();
    assert_eq!(steps(&parts), steps(&whole));
    let evaluated = |more: &[&str]| {
        let done = output(&[&["eval", text(&whole), "--json"], more].concat());
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        serde_json::from_str::<serde_json::Value>(&stdout(&done)).unwrap()
    };
    let centre = evaluated(&[]);
    assert_eq!(centre["examples"], 27);
    let (ten, split) = (evaluated(&["--ten-crop"]), evaluated(&["--ten-crop", "--mesh", "2x2", "--batch-size", "5"]));
    assert_eq!((&ten["examples"], &ten["confusion"]), (&split["examples"], &split["confusion"]));
    assert_ne!(ten["loss"], centre["loss"]);
    assert_eq!((&ten["views"], &centre["views"]), (&10.into(), &1.into()));
    let apart = ten["loss"].as_f64().unwrap() - split["loss"].as_f64().unwrap();
    assert_eq!(ten["examples"], 27);
    assert!(apart.abs() < 1e-5, "{apart}");
}

/// Real pictures, as idx files and as the JPEG files made of them: a network learns as much from these as from those.
#[test]
fn files_made_of_a_data_set_are_learned_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    let few = ["--set", "data.train_examples=2000", "--set", "data.test_examples=500"];
    let made = output(&[&["data", "files", "--out", text(&files)], &few[..]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let in_class = |class: fs::DirEntry| fs::read_dir(class.path()).unwrap().count();
    let count = |subset: &str| -> usize {
        fs::read_dir(files.join(subset)).unwrap().map(|class| in_class(class.unwrap())).sum()
    };
    assert_eq!((count("train"), count("test")), (2000, 500));
    let accuracy = |more: &[&str]| {
        let mut layered = Layered::from_recipe("quick").unwrap();
        let fixed =
            ["data.train_examples=2000", "data.test_examples=500", "train.epochs=3", "train.batch_size=32", "seed=3"];
        fixed.iter().chain(more).for_each(|assignment| layered.set(assignment, "test").unwrap());
        trained(&layered.recipe().unwrap()).0.last.unwrap().test.unwrap().accuracy()
    };
    let data_dir = format!("data.dir={}", text(&files));
    let (of_idx, of_files) = (accuracy(&[]), accuracy(&["data.source=images", "data.side=28", &data_dir]));
    assert!(of_idx > 0.6 && (of_files - of_idx).abs() < 0.05, "{of_idx} of idx, {of_files} of files");
    let again = output(&["data", "files", "--out", text(&files)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("train is there already; name a new folder"), "{}", stderr(&again));
}

#[test]
fn statistics_of_a_folder_are_written_and_used() {
    let dir = folder();
    let (file, run) = (dir.path().join("stats.safetensors"), dir.path().join("run"));
    let common = settings(dir.path());
    let sets: Vec<&str> = common.iter().flat_map(|assignment| ["--set", assignment]).collect();
    let done = output(&[&["data", "stats", "--recipe", "quick", "--out", text(&file)], &sets[..]].concat());
    let (table, said) = (stdout(&done), stderr(&done));
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(table.contains("principal colour") && said.contains("train/right/04.jpg: is truncated"), "{table}{said}");
    let statistics = Statistics::read(&file).unwrap();
    // The third channel is 90 but for what JPEG makes of it.
    assert!((statistics.mean[2] - 90.0 / 255.0).abs() < 0.02, "{statistics:?}");
    let file = format!("data.statistics={}", file.display());
    let more =
        ["--set", &file, "--set", "data.subtract=image", "--set", "data.divide=true", "--set", "data.colour_noise=0.1"];
    let short = ["train", "--recipe", "quick", "--steps", "2", "--run-dir", text(&run)];
    let trained = output(&[&short[..], &sets, &more].concat());
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
    let other = output(&[&short[..], &sets, &more, &["--set", "data.side=17"]].concat());
    let said = stderr(&other);
    let last = said.lines().last().unwrap();
    assert_eq!(other.status.code(), Some(2), "{said}");
    assert!(
        last.contains("has one of [3, 19, 19] in place of one of [3, 17, 17]; `mpt data stats` makes it"),
        "{last}"
    );
}

#[test]
fn without_a_folder_or_with_a_model_of_other_images_a_sentence_says_what_to_do() {
    let dir = folder();
    let refusal = |more: &[&str]| {
        let refused = output(&[&["train", "--set", "data.source=images"], more].concat());
        assert_eq!(refused.status.code(), Some(2));
        stderr(&refused).lines().last().unwrap().to_owned()
    };
    assert_eq!(refusal(&[]), "mpt: data.source is images, so say in which folder they are: --data-dir DIR");
    let expected = "mpt: data.source is images, which have 1 channel or 3, but the model reads 2; see model.input";
    assert_eq!(refusal(&["--model", "tiny", "--data-dir", text(dir.path())]), expected);
    let expected = "mpt: --set: [model]: `classes` must be as-written, data, or a number from 1 to 1048576, not none";
    assert_eq!(refusal(&["--set", "model.classes=none"]), expected);
    let expected =
        "mpt: model.classes is data, but idx does not tell its classes before it is read; use --set model.classes=N";
    assert_eq!(refusal(&["--set", "data.source=idx", "--set", "model.classes=data"]), expected);
}

/// What a run on the same images from another source gives: equal to the last bit.
fn the_same_is_learned(from: &Path, more: &[&str]) {
    let dir = whole_folder();
    let law = ["train.steps=6", "train.epochs=1", "train.precision=fp32", "data.side=20", "data.flip=true"];
    let (folder, outcomes, unread) = trained(&recipe(dir.path(), &law));
    assert!(unread.is_empty() && folder.last.unwrap().test.is_some());
    let more: Vec<&str> = law.iter().chain(more).copied().collect();
    let (other, same, _) = trained(&recipe(from, &more));
    assert_eq!(same, outcomes);
    assert_eq!(other.last.unwrap().test, folder.last.unwrap().test);
}

/// The folder without what is damaged.
fn whole_folder() -> TempDir {
    let dir = folder();
    for name in ["train/low/03.png", "train/right/04.jpg", "train/left/05.png"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn archives_of_the_same_images_are_learned_to_the_same_bits() {
    let (dir, shards) = (whole_folder(), tempfile::tempdir().unwrap());
    for subset in ["train", "val"] {
        fs::create_dir(shards.path().join(subset)).unwrap();
        // An archive a class, so that the order is the folder's.
        for (class, name) in ["left", "low", "right"].into_iter().enumerate() {
            let file = fs::File::create(shards.path().join(subset).join(format!("{class:05}.tar"))).unwrap();
            let mut archive = tar::Builder::new(file);
            let folder = dir.path().join(subset).join(name);
            let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort_unstable();
            for file in files {
                let base = file.file_name().unwrap();
                archive.append_path_with_name(&file, base).unwrap();
                let label = class.to_string();
                let mut header = tar::Header::new_gnu();
                header.set_size(label.len() as u64);
                let key = Path::new(base).with_extension("cls");
                archive.append_data(&mut header, key, label.as_bytes()).unwrap();
            }
            archive.finish().unwrap();
        }
    }
    the_same_is_learned(shards.path(), &["data.source=shards"]);
}

#[test]
fn a_pack_of_the_same_images_is_learned_to_the_same_bits() {
    let dir = whole_folder();
    let pack = dir.path().join("images.pack");
    let packs = |more: &[&str]| {
        let settings = settings(dir.path());
        let settings = settings.iter().map(String::as_str).chain(more.iter().copied());
        let arguments: Vec<&str> = ["data", "pack", "--recipe", "quick", "--out", text(&pack)]
            .into_iter()
            .chain(settings.flat_map(|assignment| ["--set", assignment]))
            .collect();
        output(&arguments)
    };
    let done = packs(&["data.side=20"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).starts_with("117 training and 27 test images, "), "{}", stdout(&done));
    the_same_is_learned(&pack, &["data.source=pack", "data.side=0"]);
    let refused = output(&[
        "train",
        "--recipe",
        "quick",
        "--set",
        "data.source=pack",
        "--data-dir",
        text(&pack),
        "--set",
        "data.side=24",
    ]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("holds images of 20 x 20: leave data.side out, or pack again"),
        "{}",
        stderr(&refused)
    );
    fs::write(dir.path().join("train/low/07.png"), b"this is no image").unwrap();
    let done = packs(&["data.side=20"]);
    assert!(stdout(&done).starts_with("116 training and 27 test images, "), "{}", stdout(&done));
    let named = format!("left out: {}/train/low/07.png: is neither a JPEG nor a PNG image", dir.path().display());
    assert!(stderr(&done).contains(&named), "{}", stderr(&done));
}
