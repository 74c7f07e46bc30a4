//! Files in folders that may come from anyone: small ones are read with a bound and never waited for, and none is written
//! through a link, which may lead anywhere; and files of ours, which are whole or not there.

use crate::error::{Error, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
        return Err(a_link());
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

/// Opens a file that is written where it lies, as one that grows.
///
/// # Errors
/// The file system's; or what lies there is a link, or a pipe that has no other end.
pub fn open_in_place(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // To open a pipe would wait for its other end. What is written to it later waits as ever.
    let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| if error.raw_os_error() == Some(libc::ELOOP) { a_link() } else { error })?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Sees that what was opened is a file, which has an end.
///
/// # Errors
/// It is none.
pub fn check(opened: &File) -> io::Result<()> {
    if opened.metadata()?.is_file() { Ok(()) } else { Err(no_file()) }
}

/// A new file in the place of the file or link that lies there, if one does.
///
/// # Errors
/// The file system's.
pub fn anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    }
}

/// Writes a file under another name beside its place, and gives it its own when it is whole. What lies in its place until
/// then is replaced, also if it is a link.
///
/// # Errors
/// The file system's, as on a full disk; then what was there is there still.
pub fn replace(path: &Path, beside: &Path, content: &[u8]) -> io::Result<()> {
    let written = anew(beside).and_then(|mut file| file.write_all(content)).and_then(|()| fs::rename(beside, path));
    if written.is_err() {
        // What a full disk could not take should not go on filling it.
        let _ = fs::remove_file(beside);
    }
    written
}

/// Makes a folder that is written to where it lies, unless it is there.
///
/// # Errors
/// The file system's; or what lies there is a link or no folder.
pub fn folder_in_place(path: &Path) -> io::Result<()> {
    if path.is_symlink() { Err(a_link()) } else { fs::create_dir_all(path) }
}

fn a_link() -> io::Error {
    io::Error::other("it is a link, which may lead anywhere")
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

    #[test]
    fn nothing_is_written_through_a_link_or_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("outside"), "as it was").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for name in ["link", "beside", "place"] {
            symlink(at("outside"), at(name)).unwrap();
        }
        symlink(at("folder"), at("folder-link")).unwrap();
        let open = |name: &str| open_in_place(&at(name), File::options().append(true).create(true));
        assert_eq!(open("link").unwrap_err().to_string(), "it is a link, which may lead anywhere");
        assert_eq!(open("pipe").unwrap_err().raw_os_error(), Some(libc::ENXIO));
        let both_ends = open_in_place(&at("pipe"), File::options().read(true).append(true)).unwrap();
        assert_eq!(check(&both_ends).unwrap_err().to_string(), "it is no file");
        assert!(!fcntl_getfl(&both_ends).unwrap().contains(OFlags::NONBLOCK));
        check(&open("new").unwrap()).unwrap();
        replace(&at("place"), &at("beside"), b"new").unwrap();
        assert_eq!((fs::read(at("place")).unwrap(), at("place").is_symlink()), (b"new".to_vec(), false));
        assert_eq!(fs::read(at("outside")).unwrap(), b"as it was");
        assert!(!at("beside").is_symlink());
        assert_eq!(
            folder_in_place(&at("folder-link")).unwrap_err().to_string(),
            "it is a link, which may lead anywhere"
        );
        folder_in_place(&at("folder")).unwrap();
        replace(&at("folder"), &at("beside"), b"new").unwrap_err();
        assert!(!at("beside").exists(), "what cannot be put in its place is not left");
    }
}
