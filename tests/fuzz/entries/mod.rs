//! Readers of what others may have written, one function each: recipes, models, `state.json`, tensors, a run's folder, idx
//! files, image files, tar archives, packs, records and HTTP requests. Each takes bytes, drives the reader as mpt does, and asserts what must hold of
//! any input: no panic, memory in proportion to the input, nothing outside of the run's folder, and either something sound or
//! one sentence. `tests/hostile` calls them with mutations of the seeds, cargo-fuzz with what it finds.
//!
//! Folders of classes and a file of statistics have no entry.

pub mod archive;
pub mod checkpoint;
pub mod folder;
pub mod http;
pub mod idx;
pub mod meter;
pub mod model;
pub mod pack;
pub mod picture;
pub mod recipe;
pub mod record;
pub mod training;

use mpt::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A reader and how to try it.
pub struct Entry {
    /// Its name, which is that of its target for cargo-fuzz too.
    pub name: &'static str,
    /// Tries it with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that its inputs are made of.
    pub tokens: &'static [&'static str],
}

/// All of them.
pub const ALL: [Entry; 11] = [
    checkpoint::STATE,
    checkpoint::TENSORS,
    folder::FOLDER,
    recipe::RECIPE,
    model::MODEL,
    idx::IDX,
    archive::ARCHIVE,
    pack::PACK,
    picture::PICTURE,
    record::RECORD,
    http::HTTP,
];

/// Bytes that a reader may take whatever it reads.
const FREE: usize = 32 << 20;
/// Bytes that it may take for each byte of the input: deflate makes 1032 of one, and a buffer that grows has twice as many.
const FOR_EACH: usize = 2500;
/// The most characters of a refusal.
const LONGEST: usize = 5000;

/// What `read` gives; asserts that it took memory in proportion to the input.
pub fn measured<T>(input: &[u8], read: impl FnOnce() -> T) -> T {
    let (value, peak) = meter::peak(read);
    let (limit, length) = (FREE + FOR_EACH * input.len(), input.len());
    assert!(peak <= limit, "{peak} bytes were taken for an input of {length} bytes, more than {limit}");
    value
}

/// Asserts that an error is one sentence that a terminal can show.
pub fn refused(error: &Error) {
    let said = error.to_string();
    assert!(!said.is_empty() && !said.contains(char::is_control), "a refusal is no plain sentence: {said:?}");
    assert!(said.chars().count() <= LONGEST, "a refusal has {} bytes: {said}", said.len());
    assert!(!said.contains("panicked"), "{said}");
}

/// What `found` holds, if it is no refusal; a refusal is looked at.
pub fn accepted<T>(found: mpt::error::Result<T>) -> Option<T> {
    found.map_err(|error| refused(&error)).ok()
}

/// Where Linux keeps files in memory: thousands of small ones, each made to reach the disk, would take minutes.
const IN_MEMORY: &str = "/dev/shm";

/// A path in a folder of this thread's own, which goes with the thread.
pub fn scratch(name: &str) -> PathBuf {
    thread_local! {
        static FOLDER: TempDir =
            tempfile::tempdir_in(IN_MEMORY).or_else(|_| tempfile::tempdir()).expect("a folder for temporary files");
    }
    FOLDER.with(|folder| folder.path().join(name))
}

/// A folder of this thread's own with nothing in it.
pub fn emptied(name: &str) -> PathBuf {
    let folder = scratch(name);
    remove(&folder);
    fs::create_dir(&folder).expect("a folder for temporary files can be written");
    folder
}

/// Removes whatever lies at a path.
pub fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.expect("a folder for temporary files can be written");
}
