//! The command line: one file a subcommand. Each parses nothing but its own arguments, builds everything that can fail
//! once, and then runs.

mod announcement;
mod bench;
mod data;
mod declaration;
mod doctor;
mod endpoint;
mod eval;
mod export;
mod listeners;
mod options;
mod place;
mod plan;
mod ranks;
mod rehearse;
mod resume;
mod show;
mod train;
mod trained;
mod verify;

use crate::error::Result;
use clap::{Parser, Subcommand};

/// mpt trains convolutional networks split across several devices: channel-wise, by examples, or both.
#[derive(Debug, Parser)]
#[command(name = "mpt", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network
    Train(train::Train),
    /// Train on simulated GPUs: real processes and real calls of the driver and of NCCL, answered by a simulator
    ///
    /// Takes every argument of `mpt train`. The simulator holds to the documented rules more strictly than GPUs do, and is
    /// no proof on GPUs.
    Rehearse(rehearse::Rehearse),
    /// Evaluate a run's weights on its test set: loss, top-1, top-5 and the answers by class
    ///
    /// On one device, unless flags say otherwise; each example is counted once, whatever the split.
    Eval(eval::Eval),
    /// Write a run's weights for others to read, in the format safetensors
    ///
    /// Under `--names sequential` a tensor is called by its layer's place, `0.weight`: torch.nn.Sequential of the same
    /// layers but the loss (Conv2d, ReLU, MaxPool2d, Flatten, Linear, ...; a layer in groups is Conv2d(groups=2)) takes it by
    /// load_state_dict(safetensors.torch.load_file(FILE)). Under `--names layers` it is called `conv1.weight`, as in
    /// nn.Sequential(OrderedDict(conv1=...)), or in any module that names its parts so; this is for networks with branches too.
    /// The values are those of the checkpoint, to the last bit, in fp32 (fp64 if it was trained in that).
    Export(export::Export),
    /// Show how a network is split: what each device holds, sends and has to compute
    Plan(plan::PlanCommand),
    /// Run the split network against the whole one, layer by layer
    ///
    /// On random images, in fp64 and with batches of 8, unless flags say otherwise; on two devices model-parallel,
    /// unless flags or the recipe say otherwise.
    Verify(verify::Verify),
    /// Measure steps, scaling, exchanges and the loader on this machine, on random images
    Bench(bench::Bench),
    /// Statistics of data sets
    Data(data::Data),
    /// Show models, kernels, curves of runs and recipes, as tables and pictures
    Show(show::Show),
    /// Show what this machine has and what it lacks: libtorch, GPUs and their links, NCCL, network, memory, data
    ///
    /// Per problem a sentence, and what to do. Nothing is changed, and that something is absent is no error.
    Doctor(doctor::Doctor),
}

/// Runs a command; gives the exit code.
///
/// # Errors
/// What the command reports: see [`crate::error::Error::exit_code`].
pub fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Train(command) => command.run(),
        Command::Rehearse(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Data(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Doctor(command) => command.run(),
    }
}
