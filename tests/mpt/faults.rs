//! What goes wrong around a run: each fault ends it with one sentence or lets it go on, and no checkpoint is lost.
//!
//! Elsewhere: a full disk (`resume`, `command_line`), every kind of damage to a checkpoint's files (`checkpoint`), ranks that are
//! killed, stopped or hang (`supervision`, `watchdog`), runs that are killed (`scripts/drill`).

mod inside;
mod system;

use crate::program::{mpt, numbers, output, stderr, stdout, text, tiny};
use crate::training::at;
use mpt::checkpoint::Checkpoints;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
