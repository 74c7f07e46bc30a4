//! A run's folder as anyone may have left it: what is called like a checkpoint and is none, links out of it, files that never
//! end. Nothing outside is read or changed, and the next checkpoint is written all the same.

use super::checkpoint::sum_up;
use super::training::{go_on, sound, train};
use super::{Entry, accepted, emptied, measured, refused, remove};
use mpt::checkpoint::{Checkpoint, Checkpoints};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A folder of checkpoints.
pub const FOLDER: Entry = Entry { name: "folder", run: folder, seeds, tokens: &[] };

/// What things are called.
const NAMES: [&str; 10] = [
    "step-00000001",
    "step-00000004",
    "step-5",
    "step-18446744073709551615",
    "step-99999999999999999999",
    "step-",
    "step--1",
    ".step-00000001",
    ".step-x",
    "other",
];
const STATE: &str = "state.json";
const TENSORS: &str = "model.safetensors";
/// The length of a file that no reader should begin to read.
const ENDLESS: u64 = 1 << 42;

/// Each two bytes put one thing into the folder: what it is and what it is called. Then a run looks for its newest
/// checkpoint, and writes another.
fn folder(bytes: &[u8]) {
    let place = emptied("folder");
    let (run, outside) = (place.join("run"), place.join("outside"));
    let checkpoints = run.join("checkpoints");
    fs::create_dir_all(&checkpoints).expect("a folder can be written");
    copy(&sound(), &outside).expect("a folder can be written");
    for pair in bytes.chunks_exact(2).take(12) {
        put(pair[0], &checkpoints.join(NAMES[usize::from(pair[1]) % NAMES.len()]), &outside);
    }
    let before = files(&outside);
    measured(bytes, || read(&run));
    train(&run, 1).unwrap_or_else(|error| panic!("a checkpoint could not be written: {error}"));
    let left = Checkpoints::of_run(&run).list().expect("a folder that can be read");
    assert_eq!(left.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1], "only the newest is to be kept");
    assert!(files(&outside) == before, "something outside of the run's folder was changed");
}

fn read(run: &Path) {
    let checkpoints = Checkpoints::of_run(run);
    let newest = checkpoints.newest(&mut |damage| refused(damage));
    for (_, folder) in checkpoints.list().expect("a folder that can be read") {
        accepted(Checkpoint::open(&folder));
    }
    let Some(checkpoint) = accepted(newest).flatten() else { return };
    let within = run.canonicalize().expect("a folder");
    let files = [Some(&checkpoint.model), checkpoint.optimizer.as_ref()];
    for file in files.into_iter().flatten() {
        let path = file.path().canonicalize().expect("a file that was opened");
        assert!(path.starts_with(&within), "{} is outside of the run's folder", path.display());
    }
    go_on(checkpoint);
}

/// Puts a thing at a path.
fn put(what: u8, path: &Path, outside: &Path) {
    remove(path);
    let made = match what % 13 {
        0 => copy(&sound(), path),
        1 => fs::create_dir(path),
        2 => fs::write(path, "no folder"),
        3 => symlink(outside, path),
        4 => symlink("/nowhere/at/all", path),
        5 => pipe(path),
        6 => in_place_of(path, STATE, |file| symlink(outside.join(STATE), file)),
        7 => in_place_of(path, TENSORS, |file| symlink(outside.join(TENSORS), file)),
        8 => in_place_of(path, TENSORS, pipe),
        9 => in_place_of(path, STATE, |file| fs::create_dir(file)),
        10 => in_place_of(path, STATE, endless),
        11 => in_place_of(path, TENSORS, endless),
        _ => in_place_of(path, TENSORS, |_| speak_of(path, "../../../outside/model.safetensors")),
    };
    made.expect("a folder can be written");
}

/// A sound checkpoint but for one file.
fn in_place_of(checkpoint: &Path, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    copy(&sound(), checkpoint)?;
    let file = checkpoint.join(name);
    fs::remove_file(&file)?;
    make(&file)
}

/// Lets a checkpoint's state call its weights otherwise.
fn speak_of(checkpoint: &Path, name: &str) -> io::Result<()> {
    let path = checkpoint.join(STATE);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace(TENSORS, name))?;
    sum_up(checkpoint);
    Ok(())
}

fn endless(path: &Path) -> io::Result<()> {
    File::create(path)?.set_len(ENDLESS)
}

fn pipe(path: &Path) -> io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)?)
}

/// Copies the files of a folder into a new one.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)?.flatten() {
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// The names and the content of the files in a folder.
fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let found = fs::read_dir(folder).expect("a folder that is there").flatten();
    let mut files: Vec<_> = found.map(|file| (file.file_name(), fs::read(file.path()).unwrap_or_default())).collect();
    files.sort();
    files
}

/// Each thing under the name of the newest, beside a sound one.
fn seeds() -> Vec<Vec<u8>> {
    (0..13).map(|what| vec![0, 1, what, 2, what, 0, what, 7]).collect()
}
