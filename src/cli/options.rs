//! The options that say what to run and on what: the same for every subcommand that has them.

use crate::comm::nccl::library;
use crate::error::{Error, Result};
use crate::launch::visible;
use crate::recipe::Layered;
use crate::recipe::settings::OwnHalf;
use crate::torch::device::load_cuda;
use clap::{Args, ValueEnum};
use tch::Device;

/// The recipe where none is named.
const DEFAULT_RECIPE: &str = "fashion-mnist";

/// What to run.
#[derive(Debug, Default, Args)]
pub struct What {
    /// A shipped recipe, or a file ending in .toml (`mpt show recipes` lists them) [default: fashion-mnist]
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// A shipped model, or a file ending in .toml
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Set any key of the recipe; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Examples in a step, over all devices
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The seed of every random number
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The type of the numbers: auto, bf16, fp32 or fp64
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
}

/// Which devices to use.
#[derive(Debug, Default, Args)]
pub struct Which {
    /// How many devices to use
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    gpus: Option<u32>,
    /// Which GPUs of this machine to use, by number, like 0,2
    #[arg(long = "devices", value_name = "LIST", value_delimiter = ',', conflicts_with = "gpus")]
    numbers: Vec<usize>,
    /// The kind of device; auto: GPUs if the machine has any, else CPU devices
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto)]
    device: DeviceKind,
}

/// On what to run.
#[derive(Debug, Default, Args)]
pub struct Where {
    /// The devices.
    #[command(flatten)]
    pub which: Which,
    /// How the devices share the work: single, data-parallel or model-parallel [default: single for one device, else
    /// data-parallel]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// The devices as a grid of data by model, like 2x2
    #[arg(long, value_name = "DATAxMODEL")]
    mesh: Option<String>,
}

/// The kind of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DeviceKind {
    #[default]
    Auto,
    Cuda,
    Cpu,
}

/// The devices of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Threads of this process.
    Cpu,
    /// GPUs: one process each.
    Cuda,
    /// Processes that compute on the CPU, while what they exchange travels by simulated GPUs.
    Simulated,
}

impl Devices {
    /// Where the tensors live of the `local`-th rank of a machine.
    pub fn tensors(self, local: usize) -> Device {
        match self {
            Self::Cuda => Device::Cuda(local),
            Self::Cpu | Self::Simulated => Device::Cpu,
        }
    }

    /// The name of a rank's device.
    pub fn name(self, rank: usize) -> String {
        match self {
            Self::Cpu => format!("cpu:{rank}"),
            Self::Cuda => format!("cuda:{rank}"),
            Self::Simulated => format!("sim:{rank}"),
        }
    }

    /// Lays over settings that leave it open whether layers compute with their own part while the others travel: on GPUs
    /// they do.
    ///
    /// # Errors
    /// The settings are not sound.
    pub fn fit_own_half(self, layered: &mut Layered) -> Result<()> {
        let open = self == Self::Cuda && layered.recipe()?.parallel.own_half == OwnHalf::Auto;
        set(layered, "the GPU", "parallel.own_half", open.then_some(OwnHalf::On.name()))
    }
}

impl What {
    /// The recipe with the environment and these options laid over it.
    ///
    /// # Errors
    /// Names the option or the key, and what is wrong with it.
    pub fn recipe(&self, place: &Where) -> Result<Layered> {
        let mut layered = self.base()?;
        self.lay(&mut layered, place)?;
        Ok(layered)
    }

    /// The recipe as it was written.
    ///
    /// # Errors
    /// There is no such recipe, or something is wrong with it.
    pub fn base(&self) -> Result<Layered> {
        Layered::from_recipe(self.recipe.as_deref().unwrap_or(DEFAULT_RECIPE))
    }

    /// Lays the environment and these options over settings.
    ///
    /// # Errors
    /// Names the option or the key, and what is wrong with it.
    pub fn lay(&self, layered: &mut Layered, place: &Where) -> Result<()> {
        layered.set_environment(std::env::vars_os())?;
        set(layered, "--model", "model.name", self.model.as_ref())?;
        set(layered, "--batch-size", "train.batch_size", self.batch_size)?;
        set(layered, "--seed", "seed", self.seed)?;
        set(layered, "--precision", "train.precision", self.precision.as_ref())?;
        place.lay(layered)?;
        self.assign(layered)
    }

    /// The recipe that was named on the command line.
    pub fn named_recipe(&self) -> Option<&str> {
        self.recipe.as_deref()
    }

    /// Lays `--set` over the settings: after every other flag, for it names its key in full.
    ///
    /// # Errors
    /// Names the key, and what is wrong with it.
    pub fn assign(&self, layered: &mut Layered) -> Result<()> {
        self.assignments.iter().try_for_each(|assignment| layered.set(assignment, "--set"))
    }
}

impl What {
    /// Whether a batch size was given on the command line.
    pub fn names_batch_size(&self) -> bool {
        self.batch_size.is_some() || self.assignments.iter().any(|set| set.trim_start().starts_with("train.batch_size"))
    }
}

/// Lays the value of a flag, if it was given, over a key.
///
/// # Errors
/// The value does not fit the key.
pub fn set(layered: &mut Layered, flag: &str, key: &str, value: Option<impl ToString>) -> Result<()> {
    match value {
        Some(value) => layered.set(&format!("{key}={}", value.to_string()), flag),
        None => Ok(()),
    }
}

impl Where {
    /// Lays these options over settings.
    ///
    /// # Errors
    /// Names the option, and what is wrong with it.
    pub fn lay(&self, layered: &mut Layered) -> Result<()> {
        set(layered, "--gpus", "parallel.devices", self.which.count())?;
        set(layered, "--mode", "parallel.mode", self.mode.as_ref())?;
        set(layered, "--mesh", "parallel.mesh", self.mesh.as_ref())
    }

    /// Whether nothing was said about devices, mode or mesh.
    pub fn is_open(&self) -> bool {
        self.which.count().is_none() && self.mode.is_none() && self.mesh.is_none()
    }
}

impl Which {
    /// Lets there be as many devices as a launcher started ranks, on all its machines, whatever `--gpus` says of one.
    pub fn spread(&mut self, ranks: usize) {
        self.gpus = u32::try_from(ranks).ok();
    }

    /// How many devices were asked for, if that was said.
    pub fn count(&self) -> Option<usize> {
        let named = (!self.numbers.is_empty()).then_some(self.numbers.len());
        self.gpus.map(|gpus| gpus as usize).or(named)
    }

    /// The GPUs that were asked for by number.
    ///
    /// # Errors
    /// One is named twice.
    pub fn numbers(&self) -> Result<&[usize]> {
        let numbers = &self.numbers[..];
        match numbers.iter().enumerate().find(|(at, number)| numbers[..*at].contains(number)) {
            None => Ok(numbers),
            Some((_, twice)) => Err(Error::usage(format!("--devices names GPU {twice} twice: a GPU takes one rank"))),
        }
    }

    /// The devices that were asked for; with `auto`, GPUs where the machine has any.
    ///
    /// # Errors
    /// CUDA devices were asked for, and something that they need is missing; or devices were named that are no GPUs.
    pub fn devices(&self) -> Result<Devices> {
        visible::choose(self.numbers()?)?;
        let found = self.kind()?;
        if found == Devices::Cpu && !self.numbers.is_empty() {
            let count = self.numbers.len();
            return Err(Error::usage(format!(
                "--devices names GPUs, and this run is on CPU devices, which have no numbers: use --gpus {count}"
            )));
        }
        Ok(found)
    }

    fn kind(&self) -> Result<Devices> {
        match self.device {
            DeviceKind::Cpu => Ok(Devices::Cpu),
            _ if library::is_simulated() => Ok(Devices::Simulated),
            DeviceKind::Auto if library::gpus() == 0 => Ok(Devices::Cpu),
            DeviceKind::Auto | DeviceKind::Cuda => {
                library::load()?;
                load_cuda()?;
                Ok(Devices::Cuda)
            }
        }
    }

    /// The devices that were asked for, of a command that knows CPU devices only.
    ///
    /// # Errors
    /// CUDA devices were asked for.
    pub fn on_cpu(&self, command: &str) -> Result<()> {
        let (asked, instead) = match (self.device, &self.numbers[..]) {
            (DeviceKind::Cuda, _) => ("--device cuda", "--device cpu".to_owned()),
            (_, [_, ..]) => ("--devices", format!("--gpus {}", self.numbers.len())),
            _ => return Ok(()),
        };
        Err(Error::usage(format!("{asked}: `mpt {command}` knows CPU devices only; use {instead}")))
    }
}
