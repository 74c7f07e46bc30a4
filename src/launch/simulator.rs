//! Simulated GPUs: the library that stands in for the driver and NCCL, and what the ranks of a rehearsal find in their
//! environment. It is a simulator of documented rules, not a proof on GPUs.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

/// The library, which `cargo build` puts beside the program.
const LIBRARY: &str = "libmpt_simulator.so";
/// The names under which it is looked up.
const NAMES: [&str; 4] = ["libcuda.so", "libcuda.so.1", "libnccl.so", "libnccl.so.2"];
/// Where the dynamic linker looks first.
const SEARCH_PATH: &str = "LD_LIBRARY_PATH";
/// The kinds of faults.
const FAULTS: [&str; 4] = ["kill", "hang", "fail", "delay"];
/// How long a delay is where nothing is said.
const DELAY_MILLISECONDS: u64 = 500;

/// Something that is made to go wrong: `kill:1@20` kills rank 1 in step 20.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens, as the simulator calls it.
    action: String,
    /// On which rank.
    pub rank: usize,
    /// In which step, from 1.
    pub step: u64,
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "--fault {text}: a fault is kill:RANK@STEP, hang:RANK@STEP, fail:RANK@STEP or delay:RANK@STEP"
            ))
        };
        let (kind, place) = text.split_once(':').ok_or_else(wrong)?;
        let (rank, step) = place.split_once('@').ok_or_else(wrong)?;
        let kind = FAULTS.into_iter().find(|known| *known == kind).ok_or_else(wrong)?;
        let (rank, step) = (rank.parse().map_err(|_| wrong())?, step.parse().map_err(|_| wrong())?);
        if step == 0 {
            return Err(Error::usage(format!("--fault {text}: steps count from 1")));
        }
        let action = if kind == "delay" { format!("delay:{DELAY_MILLISECONDS}") } else { kind.to_owned() };
        Ok(Self { action, rank, step })
    }
}

/// A folder with the simulator's links and sockets, which goes when this is dropped.
pub struct Simulator {
    folder: PathBuf,
}

impl Simulator {
    /// Makes the folder, with the library that lies beside a program of mpt's.
    ///
    /// # Errors
    /// The simulator's library is not there, or the folder cannot be made.
    pub fn beside(program: &Path) -> Result<Self> {
        let beside = |folder: &Path| folder.join(LIBRARY);
        let library = program.parent().map(beside).filter(|library| library.exists()).ok_or_else(|| {
            let program = program.display();
            Error::usage(format!("{LIBRARY} is not beside {program}: build both with `cargo build --release`"))
        })?;
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("mpt-rehearsal-{}-{number}", process::id()));
        let made = Self { folder: folder.clone() };
        let prepare = || {
            fs::create_dir_all(&folder)?;
            NAMES.iter().try_for_each(|name| symlink(&library, folder.join(name)))
        };
        prepare().map_err(|error| Error::failed(format!("{}: {error}", folder.display())))?;
        Ok(made)
    }

    /// What a rank of a rehearsal on `devices` GPUs finds in its environment.
    pub fn environment(&self, devices: usize, rank: usize, fault: Option<&Fault>) -> Vec<(String, OsString)> {
        let mut search = self.folder.clone().into_os_string();
        if let Some(before) = env::var_os(SEARCH_PATH).filter(|path| !path.is_empty()) {
            search.push(":");
            search.push(before);
        }
        let mut environment = vec![
            (SEARCH_PATH.to_owned(), search),
            ("MPT_SIMULATOR_FOLDER".to_owned(), self.folder.clone().into_os_string()),
            ("MPT_SIMULATOR_DEVICES".to_owned(), devices.to_string().into()),
        ];
        if let Some(Fault { action, step, .. }) = fault.filter(|fault| fault.rank == rank) {
            environment.push(("MPT_SIMULATOR_FAULT".to_owned(), format!("{action}@step:{step}").into()));
        }
        environment
    }

    /// The rules that were broken on any rank, one a line.
    pub fn broken_rules(&self) -> Vec<String> {
        let found = fs::read_to_string(self.folder.join("broken-rules")).unwrap_or_default();
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // What is left over lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_kind_a_rank_and_a_step() {
        let fault: Fault = "kill:1@20".parse().unwrap();
        assert_eq!(fault, Fault { action: "kill".into(), rank: 1, step: 20 });
        let fault: Fault = "delay:0@3".parse().unwrap();
        assert_eq!(fault.action, "delay:500");
        for wrong in ["kill", "kill:1", "kill:1@", "maim:1@20", "kill:x@2", "kill:1@0"] {
            let message = wrong.parse::<Fault>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("--fault {wrong}: ")), "{message}");
        }
    }
}
