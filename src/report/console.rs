//! The two streams of the program: results go to stdout, everything else to stderr.

use crate::error::{Error, Result};
use std::io::{self, Write};
use std::path::Path;

/// Writes results to stdout. That nobody reads them to the end, as in `mpt plan | head`, is no error.
///
/// # Errors
/// They cannot be written, as on a full disk.
pub fn results(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("the results cannot be written to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says a line on stderr. Whoever listened may be gone; that ends no run.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=:@,".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
