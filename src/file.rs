//! Small files that anyone may have written: read with a bound, and never waited for.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The most bytes of a file of settings or of a model: a thousand times what people write.
const MOST_BYTES: u64 = 1 << 20;

/// The content of a small file.
///
/// # Errors
/// It cannot be read, is no file (to open a pipe would wait for its writer), or is no small one.
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is longer than {} MiB", MOST_BYTES >> 20)));
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
