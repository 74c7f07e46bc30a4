//! Files that anyone may have written, read with a bound and never waited for; and files of ours, which are whole or not there.

use crate::error::{Error, Result};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The most bytes of a file of settings or of a model: a thousand times what people write.
const MOST_BYTES: u64 = 1 << 20;

/// The content of a small file.
///
/// # Errors
/// Those of [`bytes_up_to`].
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    bytes_up_to(path, MOST_BYTES)
}

/// The content of a file of `most` bytes, or less.
///
/// # Errors
/// It cannot be read, is no file (to open a pipe would wait for its writer), or is longer.
pub fn bytes_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

/// The text of a small file.
///
/// # Errors
/// Those of [`bytes`], or it is no UTF-8 text.
pub fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(bytes(path)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// What the system says of a file that lies itself at a path: of no link, which may lead anywhere, and of nothing that may
/// have no end.
///
/// # Errors
/// There is none.
pub fn in_place(path: &Path) -> io::Result<Metadata> {
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Err(io::Error::other("it is a link, which may lead anywhere"));
    }
    if found.is_file() { Ok(found) } else { Err(no_file()) }
}

/// Lets `write` write a file beside its place, which appears under its name only when it is whole. Gives what `write` gives.
///
/// # Errors
/// What `write` says, or the file system; then what was there before is there still.
pub fn whole_or_not<T>(place: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let unfinished = beside(place);
    let install = || File::open(&unfinished)?.sync_all().and_then(|()| fs::rename(&unfinished, place));
    let written = write(&unfinished)
        .and_then(|value| install().map(|()| value).map_err(|error| Error::failed(error.to_string())));
    written.map_err(|error| {
        // What a full disk could not take should not go on filling it.
        let _ = fs::remove_file(&unfinished);
        Error::failed(format!("{} cannot be written: {error}", place.display()))
    })
}

fn beside(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    place.with_file_name(name)
}

fn no_file() -> io::Error {
    io::Error::other("it is no file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_small_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("small"), "é").unwrap();
        fs::write(at("bytes"), b"\xff").unwrap();
        File::create(at("large")).unwrap().set_len(MOST_BYTES + 1).unwrap();
        symlink(at("small"), at("link")).unwrap();
        assert_eq!((text(&at("small")).unwrap(), text(&at("link")).unwrap()), ("é".to_owned(), "é".to_owned()));
        let refused = |name: &str| text(&at(name)).unwrap_err().to_string();
        assert_eq!((refused("large"), refused(".")), ("it is longer than 1 MiB".into(), "it is no file".into()));
        assert!(refused("bytes").contains("invalid utf-8"), "{}", refused("bytes"));
        assert_eq!(in_place(&at("small")).unwrap().len(), 2);
        let refused = |name: &str| in_place(&at(name)).unwrap_err().to_string();
        assert_eq!(refused("link"), "it is a link, which may lead anywhere");
        assert_eq!(refused("."), "it is no file");
    }
}
