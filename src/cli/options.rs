//! The options that say what to run and on what: the same for every subcommand that has them.

use crate::error::{Error, Result};
use crate::recipe::{Layered, Recipe};
use clap::{Args, ValueEnum};

/// What to run.
#[derive(Debug, Args)]
pub struct What {
    /// A shipped recipe, or a file ending in .toml (`mpt show recipes` lists them)
    #[arg(long, value_name = "NAME|FILE", default_value = "fashion-mnist")]
    recipe: String,
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
    /// The type of the numbers: auto, fp32 or fp64
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
}

/// On what to run.
#[derive(Debug, Args)]
pub struct Where {
    /// How many devices to use
    #[arg(long, value_name = "N", visible_alias = "num-devices")]
    gpus: Option<usize>,
    /// How the devices share the work: single, data-parallel or model-parallel [default: single for one device, else
    /// data-parallel]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// The devices as a grid of data by model, like 2x2
    #[arg(long, value_name = "DATAxMODEL")]
    mesh: Option<String>,
    /// The kind of device: auto takes CUDA if the machine has a GPU, else the CPU
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto)]
    device: DeviceKind,
}

/// The kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeviceKind {
    Auto,
    Cuda,
    Cpu,
}

impl What {
    /// The recipe with the environment and these options laid over it.
    ///
    /// # Errors
    /// Names the option or the key, and what is wrong with it.
    pub fn recipe(&self, place: &Where) -> Result<Layered> {
        let mut layered = Layered::from_recipe(&self.recipe)?;
        layered.set_environment(|name| std::env::var(name).ok())?;
        set(&mut layered, "--model", "model.name", self.model.as_ref())?;
        set(&mut layered, "--batch-size", "train.batch_size", self.batch_size)?;
        set(&mut layered, "--seed", "seed", self.seed)?;
        set(&mut layered, "--precision", "train.precision", self.precision.as_ref())?;
        set(&mut layered, "--gpus", "parallel.devices", place.gpus)?;
        set(&mut layered, "--mode", "parallel.mode", place.mode.as_ref())?;
        set(&mut layered, "--mesh", "parallel.mesh", place.mesh.as_ref())?;
        for assignment in &self.assignments {
            layered.set(assignment, "--set")?;
        }
        Ok(layered)
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
    /// Says on stderr, once, that CPU devices are used; that is what this version has.
    ///
    /// # Errors
    /// CUDA devices were asked for.
    pub fn check(&self, recipe: &Recipe, quiet: bool) -> Result<()> {
        match self.device {
            DeviceKind::Cuda => {
                Err(Error::usage("--device cuda: this version of mpt runs on CPU devices only; use --device cpu"))
            }
            DeviceKind::Auto if !quiet => {
                let (mesh, _) = recipe.layout()?;
                let each = crate::engine::job::threads(recipe, mesh.ranks());
                eprintln!("devices: {} on the CPU, {each} thread(s) each", mesh.ranks());
                Ok(())
            }
            DeviceKind::Auto | DeviceKind::Cpu => Ok(()),
        }
    }
}
