//! The two streams of the program: results go to stdout, everything else to stderr. Whatever is said on stderr is said
//! here, so that one format holds for all of it and no line runs into a bar.

use super::line::{Format, Line};
use crate::error::{Error, Result};
use anstream::{AutoStream, ColorChoice};
use indicatif::MultiProgress;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How this process speaks. There is one stderr, so there is one of this.
#[derive(Clone)]
struct Voice {
    format: Format,
    bars: Option<MultiProgress>,
}

static VOICE: Mutex<Voice> = Mutex::new(Voice { format: Format::Text, bars: None });

fn with_voice<T>(act: impl FnOnce(&mut Voice) -> T) -> T {
    act(&mut VOICE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Decides how everything is said from now on.
pub fn set_format(format: Format) {
    with_voice(|voice| voice.format = format);
    if format == Format::Json {
        std::panic::set_hook(Box::new(|panic| say(Line::panic(&panic.to_string()))));
    }
}

/// How everything is said.
pub fn format() -> Format {
    with_voice(|voice| voice.format)
}

/// Has every line stand above these bars from now on; `None`: there are no bars any more.
pub fn stand_above(bars: Option<MultiProgress>) {
    with_voice(|voice| voice.bars = bars);
}

/// Whether stderr takes colours: a terminal, unless the environment says otherwise (`NO_COLOR`).
pub fn is_coloured() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

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
pub fn say(line: impl Into<Line>) {
    let line = line.into();
    // Not held while the line is written: what draws the bars may panic, and a panic is said here too.
    let Voice { format, bars } = with_voice(|voice| voice.clone());
    let mut text = match format {
        Format::Text => line.text(is_coloured()),
        Format::Json => line.json(SystemTime::now()).to_string(),
    };
    text.push('\n');
    // In one piece: other processes may write to the same stream.
    let write = || {
        let _ = io::stderr().write_all(text.as_bytes());
    };
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Says that something went wrong that the run outlives.
pub fn warn(message: impl Into<String>) {
    say(Line::warning(message));
}

/// Leaves a line empty, where people read.
pub fn gap() {
    if format() == Format::Text {
        say("");
    }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=:@,".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
