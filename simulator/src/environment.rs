//! Every environment variable that the simulator knows, read once.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `MPT_SIMULATOR_DEVICES` | 2 | how many devices the machine has |
//! | `CUDA_VISIBLE_DEVICES` | all | which of them the process sees, and in which order, as with a real driver |
//! | `MPT_SIMULATOR_MEMORY` | 8 GiB | bytes of each device; host memory is taken only for what is allocated |
//! | `MPT_SIMULATOR_SEED` | 0 | seed of the delays and of the number of polls |
//! | `MPT_SIMULATOR_DELAY` | 100 | the longest delay before an operation, in microseconds; 0: none |
//! | `MPT_SIMULATOR_RACES` | `reported` | `silent`: operations without an order are not reported, only wrong now and then |
//! | `MPT_SIMULATOR_FOLDER` | one of the process | where ranks meet and `broken-rules` is written; all ranks need the same |
//! | `MPT_SIMULATOR_TRACE` | no trace | the trace of a process goes to this, its number and `.jsonl` |
//! | `MPT_SIMULATOR_FAULT` | none | what goes wrong and when: see [`crate::fault`] |
//! | `MPT_SIMULATOR_PEER_DEATH` | `silent` | a dead peer's operations never end; `reported`: they end in `ncclRemoteError` |
//! | `MPT_SIMULATOR_ABORT` | `works` | `hangs`: `ncclCommAbort` never returns, as in NCCL's issue 1013 |
//!
//! A value that cannot be understood ends the process with exit code 2 and one line that says why.

use crate::fault::Fault;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Once, OnceLock};
use std::time::Duration;

/// What the environment asks for.
#[derive(Debug)]
pub struct Settings {
    /// The devices that the process sees, by their numbers on the machine.
    pub devices: Vec<usize>,
    /// Bytes of each device.
    pub memory: u64,
    /// Seed of the delays and of the number of polls.
    pub seed: u64,
    /// The longest delay before an operation.
    pub longest_delay: Duration,
    /// Whether operations that nothing orders are a broken rule even when all goes well.
    pub races_are_reported: bool,
    /// Where ranks meet.
    pub folder: Folder,
    /// What the names of the traces begin with.
    pub trace: Option<String>,
    /// What goes wrong, and when.
    pub fault: Option<Fault>,
    /// Whether a dead peer is reported; otherwise what waits for it never ends.
    pub peer_death_is_reported: bool,
    /// Whether an abort never returns.
    pub abort_hangs: bool,
}

/// The folder where ranks meet and where broken rules are written.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether it was made up for this process, which then takes it away if nothing is left in it.
    is_own: bool,
}

impl Folder {
    /// The folder, which is made when it is first needed.
    pub fn made(&self) -> std::io::Result<&Path> {
        static TIDIED: Once = Once::new();
        std::fs::create_dir_all(&self.path)?;
        if self.is_own {
            // SAFETY: the function lives as long as the process: the library is never unloaded. Where it cannot be
            // registered, an empty folder is left behind.
            TIDIED.call_once(|| unsafe {
                libc::atexit(tidy);
            });
        }
        Ok(&self.path)
    }

    /// The folder's name, as ranks compare it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the process's own folder away, unless broken rules are written there.
extern "C" fn tidy() {
    let _ = std::fs::remove_dir(&settings().folder.path);
}

/// What the environment asks for; ends the process where it cannot be understood.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())).unwrap_or_else(|line| {
            crate::rules::say(&format!("simulator: {line}"));
            std::process::exit(2)
        })
    })
}

/// Reads the settings from variables.
fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let devices = number(&variable, "MPT_SIMULATOR_DEVICES", 2)?;
    if !(1..=64).contains(&devices) {
        return Err(format!("MPT_SIMULATOR_DEVICES={devices}: give a number from 1 to 64"));
    }
    let delay = number(&variable, "MPT_SIMULATOR_DELAY", 100)?;
    let folder = match variable("MPT_SIMULATOR_FOLDER").filter(|folder| !folder.is_empty()) {
        Some(path) => Folder { path: path.into(), is_own: false },
        None => {
            let path = std::env::temp_dir().join(format!("mpt-simulator-{}", std::process::id()));
            Folder { path, is_own: true }
        }
    };
    Ok(Settings {
        devices: visible(variable("CUDA_VISIBLE_DEVICES"), devices),
        memory: number(&variable, "MPT_SIMULATOR_MEMORY", 8 << 30)?,
        seed: number(&variable, "MPT_SIMULATOR_SEED", 0)?,
        longest_delay: Duration::from_micros(delay),
        races_are_reported: !choice(&variable, "MPT_SIMULATOR_RACES", ["reported", "silent"])?,
        folder,
        trace: variable("MPT_SIMULATOR_TRACE").filter(|prefix| !prefix.is_empty()),
        fault: variable("MPT_SIMULATOR_FAULT")
            .filter(|fault| !fault.is_empty())
            .map(|fault| fault.parse().map_err(|reason| format!("MPT_SIMULATOR_FAULT={fault}: {reason}")))
            .transpose()?,
        peer_death_is_reported: choice(&variable, "MPT_SIMULATOR_PEER_DEATH", ["silent", "reported"])?,
        abort_hangs: choice(&variable, "MPT_SIMULATOR_ABORT", ["works", "hangs"])?,
    })
}

/// The devices that a list shows: where it names what is none, or one again, the list ends, as with a real driver.
fn visible(list: Option<String>, devices: usize) -> Vec<usize> {
    let Some(list) = list else { return (0..devices).collect() };
    let mut shown = Vec::new();
    for name in list.split(',') {
        match name.trim().parse() {
            Ok(number) if number < devices && !shown.contains(&number) => shown.push(number),
            _ => break,
        }
    }
    shown
}

/// A whole number, or its default.
fn number<T: FromStr>(variable: impl Fn(&str) -> Option<String>, name: &str, default: T) -> Result<T, String> {
    match variable(name) {
        None => Ok(default),
        Some(text) if text.is_empty() => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name}={text}: give a whole number")),
    }
}

/// One of two words; whether it is the second.
fn choice(variable: impl Fn(&str) -> Option<String>, name: &str, words: [&str; 2]) -> Result<bool, String> {
    match variable(name) {
        None => Ok(false),
        Some(text) if text.is_empty() || text == words[0] => Ok(false),
        Some(text) if text == words[1] => Ok(true),
        Some(text) => Err(format!("{name}={text}: give {} or {}", words[0], words[1])),
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, read};

    fn with(name: &str, value: &str) -> Result<Settings, String> {
        read(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = read(|_| None).unwrap();
        assert_eq!((&settings.devices[..], settings.memory, settings.seed), (&[0, 1][..], 8 << 30, 0));
        assert!(settings.fault.is_none() && settings.trace.is_none());
    }

    #[test]
    fn the_list_of_visible_devices_ends_where_it_names_none() {
        for (list, shown) in [("1,0", &[1, 0][..]), ("1", &[1]), ("0,7,1", &[0]), ("1,1", &[1]), ("", &[]), ("-1", &[])]
        {
            assert_eq!(with("CUDA_VISIBLE_DEVICES", list).unwrap().devices, shown, "{list:?}");
        }
    }

    #[test]
    fn values_that_cannot_be_understood_say_which_and_why() {
        for (name, value, expected) in [
            ("MPT_SIMULATOR_DEVICES", "0", "MPT_SIMULATOR_DEVICES=0: give a number from 1 to 64"),
            ("MPT_SIMULATOR_SEED", "-1", "MPT_SIMULATOR_SEED=-1: give a whole number"),
            ("MPT_SIMULATOR_ABORT", "maybe", "MPT_SIMULATOR_ABORT=maybe: give works or hangs"),
        ] {
            assert_eq!(with(name, value).unwrap_err(), expected);
        }
        assert!(with("MPT_SIMULATOR_FAULT", "explode@call:1").unwrap_err().contains("kill"));
    }
}
