//! The trace: one JSON object a line for each call, written at once, so that nothing is lost when a process is killed.
//!
//! Questions that a program asks over and over ("is it done yet?") are written when the answer is no longer "not yet";
//! `asked_before` is the number of such answers before a call, on its thread.

use crate::environment::settings;
use std::cell::Cell;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

thread_local! {
    /// How often this thread was told "not yet" since its last line.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// The trace's file, where one was asked for and could be made.
fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    FILE.get_or_init(|| {
        let prefix = settings().trace.as_ref()?;
        let path = format!("{prefix}{}.jsonl", std::process::id());
        match File::options().create(true).append(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                crate::rules::say(&format!("simulator: MPT_SIMULATOR_TRACE: {path}: {error}"));
                None
            }
        }
    })
    .as_ref()
}

/// A line that is being made; nothing at all where no trace was asked for.
pub struct Line(Option<String>);

impl Line {
    /// The line of a call that begins now.
    pub fn call(name: &str) -> Self {
        Self::begin("call", name)
    }

    /// The line of something that a stream has done.
    pub fn done(what: &str) -> Self {
        Self::begin("done", what)
    }

    fn begin(key: &str, name: &str) -> Self {
        Self(file().map(|_| {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let thread = std::thread::current();
            let mut text = format!("{{\"time\":{}.{:06}", time.as_secs(), time.subsec_micros());
            let _ = write!(text, ",\"thread\":{}", quoted(thread.name().unwrap_or("unnamed")));
            let _ = write!(text, ",\"{key}\":{}", quoted(name));
            text
        }))
    }

    /// Adds a number, as it displays.
    pub fn number(&mut self, key: &str, value: impl Display) -> &mut Self {
        if let Some(text) = &mut self.0 {
            let _ = write!(text, ",\"{key}\":{value}");
        }
        self
    }

    /// Adds an address or a handle.
    pub fn address(&mut self, key: &str, value: u64) -> &mut Self {
        if let Some(text) = &mut self.0 {
            let _ = write!(text, ",\"{key}\":\"{value:#x}\"");
        }
        self
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: impl Display) -> &mut Self {
        if let Some(text) = &mut self.0 {
            let _ = write!(text, ",\"{key}\":{}", quoted(&value.to_string()));
        }
        self
    }

    /// Counts the call instead of writing its line: its answer is "not yet".
    pub fn not_yet(&mut self) {
        if self.0.take().is_some() {
            ASKED.set(ASKED.get() + 1);
        }
    }

    /// Writes the line with a call's result.
    pub fn result(mut self, name: &str) {
        if self.0.is_none() {
            return;
        }
        let asked = ASKED.take();
        if asked > 0 {
            self.number("asked_before", asked);
        }
        self.text("result", name);
        self.end();
    }

    /// Writes the line.
    pub fn end(self) {
        if let (Some(mut text), Some(mut file)) = (self.0, file()) {
            text.push_str("}\n");
            // A full disk must not change what the program sees.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

/// The line of a broken rule.
pub fn rule(sentence: &str) {
    Line::begin("broken_rule", sentence).end();
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn texts_are_quoted_as_json_asks() {
        assert_eq!(quoted("a \"b\" \\ \n"), "\"a \\\"b\\\" \\\\ \\u000a\"");
    }
}
