//! `mpt rehearse`: a `train` command line on simulated GPUs. The ranks are real processes that make real calls of the
//! driver and of NCCL; what answers is the simulator. Under a launcher, each rank that it starts prepares its own
//! environment: `torchrun --no-python mpt rehearse ...` on one machine.

use super::train::{Train, supervise};
use crate::error::{Error, Result};
use crate::launch::launchers;
use crate::launch::simulator::{Fault, Simulator};
use crate::launch::visible::{VISIBLE, listed};
use crate::report::console;
use crate::report::line::Line;
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Arguments of `mpt rehearse`: its own, and those of `mpt train`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// Let something go wrong: kill, hang, fail, cut (a call fails on its way), delay (it takes long) or slow (the rank comes
    /// late), like kill:1@20 for rank 1 in step 20
    #[arg(long, value_name = "FAULT:RANK@STEP")]
    fault: Option<String>,
    /// Write what each rank calls of the driver and of NCCL to a file in this folder, one JSON object a line
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    train: Train,
}

impl Rehearse {
    /// Rehearses.
    ///
    /// # Errors
    /// The request cannot be carried out, a rank failed, or a rule of the driver or of NCCL was broken.
    pub fn run(self) -> Result<u8> {
        self.train.begin_to_speak();
        let fault: Option<Fault> = self.fault.as_deref().map(str::parse).transpose()?;
        let started = launchers::detect()?;
        if let (Some(_), Some(simulator)) = (&started, Simulator::of_environment()) {
            return judged(self.train.run(), &simulator);
        }
        let (count, served) = match &started {
            Some(who) => (who.size, None),
            None => self.train.foreseen()?,
        };
        if let Some(Fault { rank, .. }) = fault.as_ref().filter(|fault| fault.rank >= count) {
            return Err(Error::usage(format!("--fault: there is no rank {rank}, the run has {count}")));
        }
        let trace = self.trace.as_deref().map(made).transpose()?;
        let program = env::current_exe().map_err(|error| Error::failed(format!("where is this program? {error}")))?;
        let named = self.train.numbers()?.to_vec();
        // The machine has all GPUs up to the last one that is named, and shows `gpus` of them.
        let environment = |simulator: &Simulator, gpus: &[usize], rank: usize| {
            let devices = gpus.iter().max().map_or(0, |last| last + 1);
            let mut environment = simulator.environment(devices, rank, fault.as_ref());
            environment.push((VISIBLE.to_owned(), listed(gpus).into()));
            if let Some(trace) = &trace {
                // The simulator adds the number of the process, which messages name.
                let prefix = trace.join(format!("rank-{rank}-process-"));
                environment.push(("MPT_SIMULATOR_TRACE".to_owned(), prefix.into_os_string()));
            }
            environment
        };
        if started.as_ref().is_none_or(|who| who.rank == 0) {
            let message =
                format!("rehearsal: {count} simulated GPU(s); a simulator of documented rules, not a proof on GPUs");
            console::say(Line::new("rehearsal", message).with("devices", count));
        }
        if let Some(who) = started {
            // One of the ranks that a launcher started: this process becomes it.
            let run = format!("{} {}:{}", who.prefix(), who.host, who.port);
            let simulator = Simulator::of_run(&program, &run)?;
            let gpus: Vec<usize> = (0..named.iter().map(|last| last + 1).max().unwrap_or(0).max(who.size)).collect();
            let environment = environment(&simulator, &gpus, who.rank);
            return simulator.begin_anew(environment);
        }
        let simulator = Simulator::beside(&program)?;
        let arguments = arguments_of_train(env::args_os().skip(2));
        let gpus = if named.is_empty() { (0..count).collect() } else { named };
        let ended = supervise(count, served.as_ref(), arguments, &|rank| environment(&simulator, &gpus, rank));
        judged(ended, &simulator)
    }
}

/// How a rehearsal ended: badly too if a rule was broken.
fn judged(ended: Result<u8>, simulator: &Simulator) -> Result<u8> {
    let broken = simulator.broken_rules();
    match (ended, broken.first()) {
        (Ok(_), Some(first)) => {
            let number = broken.len();
            Err(Error::failed(format!("{number} time(s) a rule of the driver or of NCCL was broken, first: {first}")))
        }
        (ended, _) => ended,
    }
}

/// Makes a folder; gives its path as it holds in every process, wherever it works.
fn made(path: &Path) -> Result<PathBuf> {
    let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
    made.map_err(|error| Error::usage(format!("--trace: {} cannot be made: {error}", path.display())))
}

/// What is left for `mpt train` of the arguments after `rehearse`.
fn arguments_of_train(all: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("train")];
    let mut all = all.peekable();
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy().into_owned();
        if text == "--fault" || text == "--trace" {
            all.next();
        } else if !text.starts_with("--fault=") && !text.starts_with("--trace=") {
            arguments.push(argument);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn train_gets_every_argument_but_those_of_the_rehearsal() {
        let all =
            ["--gpus", "2", "--fault", "kill:1@20", "--trace=t", "--steps", "3", "--fault=hang:0@1", "--trace", "x"];
        let left = arguments_of_train(all.into_iter().map(OsString::from));
        assert_eq!(left, ["train", "--gpus", "2", "--steps", "3"].map(OsString::from));
    }
}
