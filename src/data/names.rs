//! Names of files in data sets: what images are called, how a name is told, and what is said of files that cannot be used.

use crate::error::Error;
use std::io;
use std::path::Path;

/// What image files are called behind the last dot, in capitals or not. What is in them decides how they are read.
pub const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// The most bytes of an image file.
pub const MOST_BYTES: u64 = 256 << 20;
/// The most files, or images, that are named because they cannot be used.
pub const MOST_NAMED: usize = 100;
/// The most bytes of a name that are told.
const LONGEST: usize = 1000;

/// A name as text of bearable length that does nothing to a terminal.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(LONGEST)]);
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// Keeps so many sentences about what is left out of a folder as people read, and counts the others.
pub fn shorten(left_out: &mut Vec<String>, folder: &Path) {
    if left_out.len() > MOST_NAMED {
        let more = left_out.len() - MOST_NAMED;
        left_out.truncate(MOST_NAMED);
        left_out.push(format!("left out: {more} more in {}", folder.display()));
    }
}

/// The error for a file or a folder that the system does not let us read.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::usage(format!(
        "cannot read {}: {error}; make it readable or name another folder with --data-dir",
        path.display()
    ))
}
