//! What goes wrong around a run: each fault ends it with one sentence or lets it go on, and no checkpoint is lost.
//!
//! Elsewhere: a full disk (`resume`, `command_line`), every kind of damage to a checkpoint's files (`checkpoint`), ranks that are
//! killed, stopped or hang (`supervision`, `watchdog`), runs that are killed (`scripts/drill`).

use crate::checkpoint::{at, recipe, tensors, trained};
use crate::command_line::{mpt, output, stderr, stdout, tiny};
use crate::resume::{numbers, text};
use mpt::checkpoint::{Checkpoint, Checkpoints};
use mpt::data::Source;
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::error::Error;
use mpt::launch::control::Control;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The examples of an epoch of `checkpoint`'s runs, which has six steps.
const EXAMPLES: usize = 44;

/// What happens to a training set in the middle of a run.
#[derive(Clone, Copy)]
enum Fault {
    Unreadable,
    Panic,
    Shrinks,
}

/// A training set to which something happens after so many reads.
struct Faulty {
    sound: Arc<dyn Source>,
    fault: Fault,
    after: usize,
    reads: AtomicUsize,
}

impl Source for Faulty {
    fn len(&self) -> usize {
        let shrunk = matches!(self.fault, Fault::Shrinks) && self.reads.load(Ordering::Relaxed) >= self.after;
        if shrunk { self.sound.len() / 2 } else { self.sound.len() }
    }

    fn shape(&self) -> [usize; 3] {
        self.sound.shape()
    }

    fn classes(&self) -> usize {
        self.sound.classes()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> mpt::error::Result<i64> {
        let is_over = self.reads.fetch_add(1, Ordering::Relaxed) >= self.after;
        match self.fault {
            Fault::Unreadable if is_over => Err(Error::failed("Input/output error (os error 5)")),
            Fault::Panic if is_over => panic!("the reader has lost its way"),
            _ => self.sound.read(index, pixels),
        }
    }
}

/// The sentence with which a run in a folder ends, changed as `spoil` does; it goes on from a checkpoint, if one is given.
fn failed(folder: &Path, from: Option<u64>, settings: &[&str], spoil: impl FnOnce(&mut Job)) -> String {
    let recipe = recipe(settings);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, folder);
    if let Some(step) = from {
        job.resume(Arc::new(Checkpoint::open(&at(folder, step)).unwrap())).unwrap();
    }
    spoil(&mut job);
    run(job, Ranks::All, &mut |_| {}).unwrap_err().to_string()
}

/// Whether a run goes on from a checkpoint, the newest that a fault left, to the end of one that met no fault.
fn goes_on(folder: &Path, step: u64, settings: &[&str]) {
    let newest = Checkpoints::of_run(folder).newest(&mut |damage| panic!("{damage}")).unwrap().unwrap();
    assert_eq!(newest.state.position.step, step);
    trained(folder, Some(&newest.folder), settings);
    let sound = tempfile::tempdir().unwrap();
    trained(sound.path(), None, settings);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(tensors(&at(folder, 18), file), tensors(&at(sound.path(), 18), file));
    }
}

#[test]
fn a_training_set_that_fails_ends_the_run_with_its_words_and_after_its_checkpoint() {
    let two = ["parallel.devices=2", "parallel.mode=model-parallel"];
    let shared = ["parallel.devices=2", "parallel.mode=data-parallel"];
    // Into the second epoch, of which two batches of eight are whole.
    let within = EXAMPLES + 20;
    let cases = [
        (Fault::Unreadable, within, "example "),
        (Fault::Panic, within, "the data loader panicked: the reader has lost its way"),
        (Fault::Shrinks, EXAMPLES, "the training set has shrunk: it has no examples for step 10"),
    ];
    for settings in [&two[..], &shared[..]] {
        for (fault, after, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let said = failed(dir.path(), None, settings, |job| {
                let sound = Arc::clone(&job.train);
                job.train = Arc::new(Faulty { sound, fault, after, reads: AtomicUsize::new(0) });
            });
            assert!(said.starts_with(expected), "{said}");
            if matches!(fault, Fault::Unreadable) {
                assert!(said.ends_with(" of the data set: Input/output error (os error 5)"), "{said}");
            }
            goes_on(dir.path(), 6, settings);
        }
    }
}

/// One of two devices panics in its step, while the other waits for it.
#[test]
fn a_device_that_panics_ends_the_run_with_its_words() {
    static GONE: AtomicBool = AtomicBool::new(false);
    for mode in ["model-parallel", "data-parallel"] {
        GONE.store(false, Ordering::Relaxed);
        // A rate that does not depend on how long the run is.
        let settings = ["parallel.devices=2", &format!("parallel.mode={mode}"), "schedule.kind=constant"];
        let dir = tempfile::tempdir().unwrap();
        trained(dir.path(), None, &[&settings[..], &["train.steps=8"]].concat());
        let said = failed(dir.path(), Some(8), &settings, |job| {
            job.assignment.memory = Some(|| {
                assert!(GONE.swap(true, Ordering::Relaxed), "it has fallen off the bus");
                None
            });
        });
        let [first, second] = [0, 1].map(|rank| format!("rank {rank} panicked: it has fallen off the bus"));
        assert!(said == first || said == second, "{said}");
        goes_on(dir.path(), 8, &settings);
    }
}

/// A tiny run in two modes, of threads and of rehearsed processes.
fn forms() -> [Vec<&'static str>; 3] {
    let common = ["--gpus", "2", "--precision", "fp32", "--set", "optimizer.momentum=0.9", "--mode"];
    let of = |command, mode| {
        let mut all = tiny(&[&common[..], &[mode]].concat());
        all[0] = command;
        all
    };
    [of("train", "model-parallel"), of("train", "data-parallel"), of("rehearse", "model-parallel")]
}

fn with<'a>(form: &[&'a str], run: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let device: &[&str] = if form[0] == "train" { &["--device", "cpu"] } else { &[] };
    [form, device, &["--run-dir", text(run)], more].concat()
}

fn ended_well(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().next().unwrap().to_owned()
}

/// mpt for which folders that cannot be written are just that, also where root runs the tests.
#[cfg(target_os = "linux")]
fn without_privileges(arguments: &[&str]) -> Command {
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
    let mut command = mpt(arguments);
    let drop_privilege = || {
        // SAFETY: changes what the program that this process becomes may do, and no memory. Without the right to do so there
        // is nothing to drop.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: between fork and exec there is but one system call.
    unsafe { command.pre_exec(drop_privilege) };
    command
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_named_and_training_goes_on_without_its_checkpoints() {
    let set = |folder: &Path, mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    for form in forms() {
        let dir = tempfile::tempdir().unwrap();
        let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
        set(dir.path(), 0o555);
        let refused = without_privileges(&with(&form, &run, &["--steps", "2", "--quiet"])).output().unwrap();
        set(dir.path(), 0o755);
        let sentence = format!("mpt: --run-dir: {} cannot be written: Permission denied (os error 13)", run.display());
        assert!(stderr(&refused).lines().any(|line| line == sentence), "{}", stderr(&refused));
        assert_eq!(refused.status.code(), Some(1));

        // The folder of checkpoints, and the run's own, are closed between two starts.
        ended_well(&output(&with(&form, &run, &["--steps", "2"])));
        let checkpoints = run.join("checkpoints");
        let more = ["--resume", "auto", "--steps", "4", "--quiet"];
        set(&run, 0o555);
        let refused = without_privileges(&with(&form, &run, &more)).output().unwrap();
        set(&run, 0o755);
        let sentence = format!("mpt: {} cannot be written: Permission denied (os error 13)", run.display());
        assert!(stderr(&refused).lines().any(|line| line == sentence), "{}", stderr(&refused));
        assert_eq!(refused.status.code(), Some(1));
        set(&checkpoints, 0o555);
        let goes_on = without_privileges(&with(&form, &run, &more)).output().unwrap();
        set(&checkpoints, 0o755);
        let found = ended_well(&goes_on);
        let because = format!("{}: Permission denied (os error 13); training goes on", checkpoints.display());
        let said = stderr(&goes_on);
        assert!(said.contains(&format!("no checkpoint of step 4: {because}")), "{said}");
        assert_eq!(found, ended_well(&output(&with(&form, &whole, &["--steps", "4"]))));
        assert_eq!(Checkpoints::of_run(&run).list().unwrap(), [(2, at(&run, 2))]);
        assert_eq!(ended_well(&output(&with(&form, &run, &more))), found);
        assert_eq!(numbers(&run), numbers(&whole));
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_auto_goes_on_from_the_one_before() {
    let [form, ..] = forms();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let expected = ended_well(&output(&with(&form, &whole, &["--steps", "6"])));
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 2] = [cut, flip];
    for (number, (file, damage)) in ["model.safetensors", "optimizer.safetensors", "state.json"]
        .into_iter()
        .flat_map(|file| damages.map(|damage| (file, damage)))
        .enumerate()
    {
        let run = dir.path().join(number.to_string());
        ended_well(&output(&with(&form, &run, &["--steps", "4", "--set", "checkpoint.every_steps=2"])));
        let path = at(&run, 4).join(file);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let resumed = output(&with(&form, &run, &["--resume", "auto", "--steps", "6"]));
        let said = stderr(&resumed);
        assert!(said.contains(&format!("{} is damaged", path.display())), "{said}");
        assert!(said.contains("\nresumed after step 2 of 6, from "), "{said}");
        assert_eq!(ended_well(&resumed), expected);
        let name = "model.safetensors";
        assert_eq!(fs::read(at(&run, 6).join(name)).unwrap(), fs::read(at(&whole, 6).join(name)).unwrap());
    }
}

/// The files are in memory, so that what happens to them does not reach a run.
#[test]
fn idx_files_that_shrink_under_a_run_leave_it_as_it_is_and_are_named_at_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, dimensions: &[u32]| {
        let mut file = vec![0, 0, 8, dimensions.len() as u8];
        file.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        file.extend((0..dimensions.iter().product()).map(|index| (index % 7) as u8));
        fs::write(dir.path().join(name), file).unwrap();
    };
    for (subset, examples) in [("train", 32), ("t10k", 8)] {
        write(&format!("{subset}-images-idx3-ubyte"), &[examples, 28, 28]);
        write(&format!("{subset}-labels-idx1-ubyte"), &[examples]);
    }
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    let common = ["train", "--device", "cpu", "--model", "lenet", "--set", "data.source=idx", "--batch-size", "8"];
    let of = |run| {
        let more =
            ["--steps", "60", "--epochs", "15", "--precision", "fp32", "--data-dir", text(dir.path()), "--run-dir"];
        [&common[..], &more[..], &[run]].concat()
    };
    let expected = ended_well(&output(&of(text(&whole))));
    let mut child = mpt(&of(text(&run))).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().starts_with("first step after")).unwrap().unwrap();
    let images = dir.path().join("train-images-idx3-ubyte");
    fs::File::options().write(true).open(&images).unwrap().set_len(1000).unwrap();
    lines.for_each(|line| drop(line.unwrap()));
    assert_eq!(ended_well(&child.wait_with_output().unwrap()), expected);
    assert_eq!(numbers(&run), numbers(&whole));
    let refused = output(&[&of(text(&run))[..], &["--resume", "auto"]].concat());
    let sentence = stderr(&refused).lines().last().unwrap().to_owned();
    assert!(sentence.starts_with(&format!("mpt: {} ", images.display())), "{sentence}");
    assert_eq!(refused.status.code(), Some(2));
}

/// Each name in a run's folder that mpt writes to leads to something outside, as in a folder that comes from someone else.
#[test]
fn nothing_outside_of_a_runs_folder_is_written_through_a_link() {
    let rehearsed = &forms()[2];
    let dir = tempfile::tempdir().unwrap();
    let (run, outside) = (dir.path().join("run"), dir.path().join("outside"));
    ended_well(&output(&with(rehearsed, &run, &["--steps", "2"])));
    let resumed = |steps: &str| output(&with(rehearsed, &run, &["--resume", "auto", "--steps", steps]));
    // What a run writes to where it lies.
    for name in ["metrics.jsonl", "logs", "checkpoints"] {
        fs::rename(run.join(name), &outside).unwrap();
        let before = content(&outside);
        symlink(&outside, run.join(name)).unwrap();
        let refused = resumed("3");
        let sentence = format!(
            "mpt: {} is a link, which may lead anywhere, and a run writes only to its own folder: put what it leads to in \
             its place, or remove it",
            run.join(name).display()
        );
        assert!(stderr(&refused).lines().any(|line| line == sentence), "{}", stderr(&refused));
        assert_eq!(refused.status.code(), Some(2));
        assert_eq!(content(&outside), before, "{name}");
        let begun = dir.path().join("begun");
        fs::create_dir(&begun).unwrap();
        symlink(&outside, begun.join(name)).unwrap();
        let refused = output(&with(rehearsed, &begun, &["--steps", "1"]));
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert_eq!(content(&outside), before, "{name}");
        fs::remove_dir_all(&begun).unwrap();
        fs::remove_file(run.join(name)).unwrap();
        fs::rename(&outside, run.join(name)).unwrap();
    }
    // What is written aside and renamed, what two processes find out whether they share a folder by, and the log of a rank,
    // which is left out.
    fs::write(&outside, "as it was").unwrap();
    for name in ["recipe.toml", "curves.svg", "logs/rank-0.log"] {
        fs::rename(run.join(name), dir.path().join("kept")).unwrap();
        let target = if name == "recipe.toml" { dir.path().join("kept") } else { outside.clone() };
        symlink(target, run.join(name)).unwrap();
        for beside in [".recipe.toml", "curves.svg.part", ".shared", "checkpoints/.best", "checkpoints/.step-00000003"]
        {
            let _ = fs::remove_file(run.join(beside));
            symlink(&outside, run.join(beside)).unwrap();
        }
        let kept = content(&dir.path().join("kept"));
        let said = resumed("3");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "as it was", "{name}");
        assert_eq!(content(&dir.path().join("kept")), kept, "{name}");
        ended_well(&said);
        if name == "logs/rank-0.log" {
            let end = format!("the ranks' logs in {} end here: it is a link, which", run.join("logs").display());
            assert!(stderr(&said).contains(&end), "{}", stderr(&said));
        } else {
            assert!(!run.join(name).is_symlink(), "{name} was not replaced");
        }
    }
}

/// The names of the files at a path and below, and what is in them.
fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    if !path.is_dir() {
        return vec![(path.to_owned(), fs::read(path).unwrap())];
    }
    let mut names: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().filter(|path| !path.is_symlink()).flat_map(|path| content(path)).collect()
}

/// A library that is loaded before the system's refuses links, as file systems like FAT do.
const NO_LINKS: &str = r"
#include <errno.h>

int symlink(const char *target, const char *path)
{
    errno = EPERM;
    return -1;
}
";

#[cfg(target_os = "linux")]
#[test]
fn without_links_the_best_checkpoint_is_kept_and_that_nothing_leads_to_it_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let library = preloaded(dir.path(), NO_LINKS);
    let [form, ..] = forms();
    let more = ["--set", "data.train_examples=24", "--set", "checkpoint.keep=1", "--learning-rate", "0", "--epochs"];
    let said = |run: &Path, epochs: &[&str]| {
        let done = mpt(&with(&form, run, &[&more[..], epochs].concat())).env("LD_PRELOAD", &library).output().unwrap();
        ended_well(&done);
        stderr(&done)
    };
    // With a learning rate of 0 no later checkpoint is better than the first.
    for quiet in [false, true] {
        let run = dir.path().join(format!("run-{quiet}"));
        let all = said(&run, if quiet { &["3", "--quiet"] } else { &["3"] });
        let best = run.join("checkpoints/best");
        let sentence = format!(
            "no link leads to the best checkpoint: {}: Operation not permitted (os error 1); it is kept under its own name, \
             and training goes on",
            best.display()
        );
        assert_eq!(all.lines().filter(|line| *line == sentence).count(), 1, "{all}");
        let kept: Vec<u64> = Checkpoints::of_run(&run).list().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(kept, [9, 3], "the best is kept all the same");
        let end = all.lines().find(|line| line.starts_with("best: "));
        assert_eq!(end.is_none(), quiet);
        assert!(end.is_none_or(|line| line.ends_with(" after step 3, kept as checkpoints/step-00000003")), "{end:?}");
        let refused = output(&["eval", text(&best)]);
        let sentence = format!(
            "mpt: {} is not there: no checkpoint of the run has been evaluated yet, or its file system has no links; the run \
             said which is the best, and {} has those that are kept\n",
            best.display(),
            run.join("checkpoints").display()
        );
        assert_eq!((stderr(&refused), refused.status.code()), (sentence, Some(2)));
    }
    // The runs of a recipe have no link to the newest: it is found by its number.
    let numbered = |more: &[&str]| {
        let mut command = mpt(&[&form[..], &["--device", "cpu", "--resume", "auto"], more].concat());
        let done = command.env("LD_PRELOAD", &library).current_dir(dir.path()).output().unwrap();
        ended_well(&done);
        stderr(&done)
    };
    numbered(&["--steps", "2"]);
    assert!(!dir.path().join("runs/fashion-mnist-tiny/latest").is_symlink());
    let again = numbered(&["--steps", "3"]);
    assert!(again.contains("\nresumed after step 2 of 3, from runs/fashion-mnist-tiny/001/checkpoints/"), "{again}");
}

/// A library of a C source.
fn preloaded(folder: &Path, source: &str) -> PathBuf {
    let (file, library) = (folder.join("preloaded.c"), folder.join("preloaded.so"));
    fs::write(&file, source).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &file]).status().unwrap();
    assert!(made.success());
    library
}

/// A library that is loaded before the system's sets the clock an hour back whenever it is read.
const CLOCK: &str = r"
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static atomic_long hours;
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME)
        time->tv_sec -= 3600 * ++hours;
    return result;
}
";

#[cfg(target_os = "linux")]
#[test]
fn a_clock_that_goes_backwards_changes_nothing_but_the_times_of_day() {
    let dir = tempfile::tempdir().unwrap();
    let library = preloaded(dir.path(), CLOCK);
    for (number, form) in forms().iter().enumerate() {
        let (run, whole) = (dir.path().join(format!("run-{number}")), dir.path().join(format!("whole-{number}")));
        let more = ["--steps", "6", "--set", "checkpoint.every_time=1h", "--set", "parallel.timeout=20s"];
        let expected = ended_well(&output(&with(form, &whole, &more)));
        let done = mpt(&with(form, &run, &more)).env("LD_PRELOAD", &library).output().unwrap();
        assert_eq!(ended_well(&done), expected);
        assert_eq!(numbers(&run), numbers(&whole));
        let record = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let times: Vec<f64> = lines.iter().map(|line| line["time"].as_f64().unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[1] < pair[0] - 3000.0), "the clock went on: {times:?}");
        let seconds: Vec<f64> = lines.iter().map(|line| line["seconds"].as_f64().unwrap()).collect();
        assert!(seconds.iter().all(|seconds| (0.0..600.0).contains(seconds)), "{seconds:?}");
        assert_eq!(Checkpoints::of_run(&run).list().unwrap(), [(6, at(&run, 6))]);
    }
}
