//! The end of a process that failed: what it says on stderr, and what it leaves for the launcher.

use crate::error::Error;
use crate::report::console;
use crate::report::line::Line;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, io};

/// The file in which torchrun looks for the error of a rank.
const ERROR_FILE: &str = "TORCHELASTIC_ERROR_FILE";
/// torchrun shows the earliest error, in whole seconds. That another rank has gone is what others noticed: it is dated
/// later, so that the error that began it is shown.
const ECHO: Duration = Duration::from_secs(2);

/// Says an error and ends the process with its exit code.
pub fn end(error: &Error) -> ! {
    console::say(Line::error(error));
    record(error);
    // SAFETY: ends the process and touches nothing. Ranks that did not fail may still be computing, and an ordinary exit
    // would run libtorch's destructors under them.
    unsafe { libc::_exit(i32::from(error.exit_code())) }
}

/// Leaves an error for torchrun's report, if torchrun started this process. Only a rank's first error counts.
pub fn record(error: &Error) {
    if let Some(path) = env::var_os(ERROR_FILE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        let echo = if matches!(error, Error::PeerGone(_)) { ECHO } else { Duration::ZERO };
        // Its report is a help, and no reason to fail in another way.
        let _ = write(&path, &error.to_string(), SystemTime::now() + echo);
    }
}

/// Writes torchelastic's format (`ErrorHandler.record_exception`), unless an error is there already.
fn write(path: &Path, message: &str, time: SystemTime) -> io::Result<()> {
    let file = File::create_new(path)?;
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let message = format!("mpt: {message}");
    // torchrun's report shows what Python would have put into `py_callstack`, and the message only where that is absent.
    let about = json!({ "py_callstack": message, "timestamp": seconds.to_string() });
    let error = json!({ "message": { "message": message, "extraInfo": about } });
    serde_json::to_writer(file, &error).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs;

    #[test]
    fn the_first_error_stays_in_torchelastics_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("error.json");
        write(&path, "no data", UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)).unwrap();
        assert_eq!(write(&path, "another", UNIX_EPOCH).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let found: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(found["message"]["message"], "mpt: no data");
        assert_eq!(found["message"]["extraInfo"]["timestamp"], "1700000000");
        assert_eq!(found["message"]["extraInfo"]["py_callstack"], "mpt: no data");
    }
}
