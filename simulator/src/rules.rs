//! Broken rules: each is told on standard error, in the trace, in the folder where a parent process looks, and
//! counted.

use crate::environment::settings;
use crate::trace;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

static BROKEN: AtomicU64 = AtomicU64::new(0);

/// Tells that the program broke a rule. `place` says who: a rank, or a device and its stream.
pub fn broken(place: impl Display, sentence: &str) {
    BROKEN.fetch_add(1, Ordering::Relaxed);
    let line = format!("simulator: {place}: {sentence}");
    say(&line);
    trace::rule(&line);
    // The file is a help for a parent process; the program's own results do not depend on it.
    if let Ok(folder) = settings().folder.made() {
        let file = OpenOptions::new().create(true).append(true).open(folder.join("broken-rules"));
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// One line on standard error, written at once so that the lines of several processes do not mix.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// How many rules this process has broken so far.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_simulator_broken_rules() -> u64 {
    BROKEN.load(Ordering::Relaxed)
}
