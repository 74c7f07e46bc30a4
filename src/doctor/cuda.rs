//! What the driver and NCCL tell, asked in a process of its own: a broken driver may hang, or end the process that asks.

use super::mapped;
use crate::comm::nccl::facts::{Driver, Nccl};
use crate::torch::device::load_cuda;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

/// The argument that makes `mpt doctor` the process that asks.
pub const ASKING: &str = "--ask-the-driver";

/// A driver that takes longer is broken; a healthy one that has slept takes some seconds, and so does loading libtorch's
/// CUDA library.
const LIMIT: Duration = Duration::from_secs(60);

/// What the driver and NCCL tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    /// What the driver tells; `None` where there is none, or it refuses to work.
    pub driver: Option<Driver>,
    /// Why the driver refuses to work, in its own words.
    pub driver_refusal: Option<String>,
    /// The files of the driver's library that were loaded.
    pub driver_files: Vec<PathBuf>,
    /// Why libtorch's CUDA library cannot be used; `None` where it can, and where there is no GPU that it would be for.
    pub libtorch_refusal: Option<String>,
    /// What NCCL tells.
    pub nccl: Option<Nccl>,
    /// Why NCCL cannot be used.
    pub nccl_refusal: Option<String>,
    /// The files of NCCL that were loaded, by mpt and by libtorch: one, if all is well.
    pub nccl_files: Vec<PathBuf>,
}

impl Cuda {
    /// Asks in this process, in the order in which a rank loads the libraries.
    pub fn ask_here() -> Self {
        let (driver, driver_refusal) = split(Driver::ask());
        let (nccl, nccl_refusal) = split(Nccl::ask());
        let has_gpus = driver.as_ref().is_some_and(|driver| !driver.simulated && !driver.gpus.is_empty());
        Self {
            libtorch_refusal: has_gpus.then(load_cuda).and_then(Result::err).map(|error| error.to_string()),
            driver_files: mapped::files("libcuda.so"),
            nccl_files: mapped::files("libnccl.so"),
            driver,
            driver_refusal,
            nccl,
            nccl_refusal,
        }
    }

    /// Asks in a process of its own.
    pub fn ask() -> Self {
        let asking = env::current_exe().map(|program| {
            let mut command = Command::new(program);
            command.args(["doctor", ASKING]);
            command
        });
        let told = asking.map_err(|error| format!("this program is not found any more: {error}"));
        told.and_then(|command| asked(command, LIMIT))
            .unwrap_or_else(|reason| Self { driver_refusal: Some(reason), ..Self::default() })
    }
}

fn split<T>(told: crate::error::Result<Option<T>>) -> (Option<T>, Option<String>) {
    match told {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// Starts the process that asks, and reads what it says.
fn asked(mut command: Command, limit: Duration) -> Result<Cuda, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child =
        command.spawn().map_err(|error| format!("the process that asks the driver cannot be started: {error}"))?;
    // A process keeps this name for good, where its number may be given away as soon as it has ended.
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(limit) {
        Ok(Ok(output)) if output.status.success() => serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the process that asked the driver cannot be understood: {error}")),
        Ok(Ok(output)) => Err(format!("asking the driver ended the process that did so ({})", output.status)),
        Ok(Err(error)) => Err(format!("the process that asks the driver cannot be followed: {error}")),
        Err(_) => {
            // One that hangs in the driver outlives even this.
            let _ = process.and_then(|process| pidfd_send_signal(process, Signal::KILL));
            Err(format!("the driver does not answer within {} s", limit.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Cuda, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        asked(command, limit)
    }

    #[test]
    fn a_driver_that_hangs_or_crashes_is_told_of_in_a_sentence() {
        let hangs = shell("exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert_eq!(hangs, "the driver does not answer within 0 s");
        let crashes = shell("kill -SEGV $$", LIMIT).unwrap_err();
        assert!(crashes.starts_with("asking the driver ended the process that did so (signal: 11"), "{crashes}");
        let mumbles = shell("echo no JSON", LIMIT).unwrap_err();
        assert!(mumbles.starts_with("the process that asked the driver cannot be understood: "), "{mumbles}");
    }
}
