//! The settings of a run. Every one has a default and stands in the effective recipe that is printed and saved; the
//! file `shipped/defaults.toml` says what each means.

use super::duration;
use crate::error::{Error, Result};
use crate::keys::{Keys, suggestion};
use crate::model::parse::{Edits, activation};
use crate::optim::Schedule;
use crate::plan::{Mesh, Mode};
use std::str::FromStr;
use std::time::Duration;
use toml::Table;

/// Every setting of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The name that run directories carry.
    pub name: String,
    /// What the recipe shows, in a sentence.
    pub about: String,
    /// Seed of every random number.
    pub seed: u64,
    /// The network.
    pub model: ModelSettings,
    /// The examples.
    pub data: DataSettings,
    /// How long, and in which batches.
    pub train: TrainSettings,
    /// SGD.
    pub optimizer: OptimizerSettings,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Over which devices, and how.
    pub parallel: ParallelSettings,
    /// When checkpoints are written.
    pub checkpoint: CheckpointSettings,
}

/// Which network.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// A shipped model's name, or a file's.
    pub name: String,
    /// Changes to the model as written.
    pub edits: Edits,
}

/// Which examples.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSettings {
    /// What kind of source.
    pub source: SourceKind,
    /// The folder of the files; empty for the cache that `scripts/mpt` fills.
    pub dir: String,
    /// Examples used of the training set; 0 for all.
    pub train_examples: usize,
    /// Examples used of the test set; 0 for all.
    pub test_examples: usize,
    /// `[C, H, W]` of synthetic images.
    pub image: [usize; 3],
    /// Classes of synthetic images.
    pub classes: usize,
    /// Whether images are mirrored at random in training.
    pub flip: bool,
    /// By how many pixels images are shifted at random in training.
    pub crop: usize,
}

/// What kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The four files of Fashion-MNIST.
    FashionMnist,
    /// The four files of another data set in the format of MNIST.
    Idx,
    /// Learnable images that are computed, without any file.
    Synthetic,
    /// Random pixels and labels, for comparing runs.
    Noise,
}

/// How long, and in which batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainSettings {
    /// Examples in a step, over all devices.
    pub batch_size: usize,
    /// Passes over the training set.
    pub epochs: u64,
    /// Steps after which training ends; 0 for no limit.
    pub steps: u64,
    /// Time after which training ends with the step at hand; `None` for no limit.
    pub max_time: Option<Duration>,
    /// The type of the numbers.
    pub precision: Precision,
}

/// The type of the numbers that layers compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the device computes with it natively, else fp32.
    Auto,
    /// bf16, with the weights kept in fp32 beside it and the loss in fp32.
    Bf16,
    /// 32-bit floating point.
    Fp32,
    /// 64-bit floating point.
    Fp64,
}

/// SGD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// The base learning rate.
    pub learning_rate: f64,
    /// The share of the velocity that is kept.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// Over which devices, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ParallelSettings {
    /// The number of devices; 0: those of the mesh, or one.
    pub devices: usize,
    /// The mode; `None`: `single` on one device, else `data-parallel`.
    pub mode: Option<Mode>,
    /// The mesh; `None`: what the mode makes of the devices.
    pub mesh: Option<Mesh>,
    /// Threads of a CPU device; 0: its share of the cores.
    pub threads: usize,
    /// How long a rank waits for the others before it takes them for lost, where they are processes.
    pub timeout: Duration,
    /// About how many bytes of gradients are summed over the data axis together; 0: all of them.
    pub bucket: u64,
    /// Whether exchanges begin as soon as what they bring is there, and not when it is needed.
    pub early_exchange: bool,
}

/// When checkpoints are written. One is written at the end of a run in any case, also of one that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Epochs from one to the next; 0: not at the ends of epochs.
    pub every_epochs: u64,
    /// Steps from one to the next; 0: not between.
    pub every_steps: u64,
    /// How many are kept, the newest; 0: none is written at all.
    pub keep: usize,
}

impl Precision {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bf16 => "bf16",
            Self::Fp32 => "fp32",
            Self::Fp64 => "fp64",
        }
    }

    /// What is computed with on this machine's CPU.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if native_bf16() => Self::Bf16,
            Self::Auto => Self::Fp32,
            other => other,
        }
    }

    /// libtorch's name of what is computed with.
    pub fn kind(self) -> tch::Kind {
        match self.resolved() {
            Self::Fp64 => tch::Kind::Double,
            Self::Bf16 => tch::Kind::BFloat16,
            Self::Auto | Self::Fp32 => tch::Kind::Float,
        }
    }

    /// libtorch's name of what weights are kept in between steps.
    pub fn master_kind(self) -> tch::Kind {
        match self.kind() {
            tch::Kind::BFloat16 => tch::Kind::Float,
            kind => kind,
        }
    }
}

/// Whether the processor multiplies bf16 in hardware. Those with AMX have AVX512_BF16 too.
pub fn native_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        one_of("precision", text, [Self::Auto, Self::Bf16, Self::Fp32, Self::Fp64], Self::name)
    }
}

impl SourceKind {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::FashionMnist => "fashion-mnist",
            Self::Idx => "idx",
            Self::Synthetic => "synthetic",
            Self::Noise => "noise",
        }
    }
}

/// The most examples of a data set: an epoch's order is kept in memory.
const MOST_EXAMPLES: usize = 100_000_000;
/// The most classes that computed images may have: each has a pattern that is kept in memory.
const MOST_CLASSES: usize = 10_000;

fn one_of<T: Copy, const N: usize>(what: &str, text: &str, all: [T; N], name: fn(T) -> &'static str) -> Result<T> {
    all.into_iter().find(|&value| name(value) == text).ok_or_else(|| {
        let hint = suggestion(text, all.into_iter().map(name));
        Error::usage(format!("there is no {what} `{text}`{hint}"))
    })
}

impl Recipe {
    /// Reads a complete table of settings. `origin` names, in messages, the source that was laid on last.
    ///
    /// # Errors
    /// One sentence that names the key, and the nearest known one for a key that is unknown.
    pub fn read(table: &Table, origin: &str) -> Result<Self> {
        let mut keys = Keys::new(table, origin);
        let recipe = Self {
            name: keys.required("name")?,
            about: keys.required("about")?,
            seed: keys.required("seed")?,
            model: section(&mut keys, "model", origin, read_model)?,
            data: section(&mut keys, "data", origin, read_data)?,
            train: section(&mut keys, "train", origin, read_train)?,
            optimizer: section(&mut keys, "optimizer", origin, read_optimizer)?,
            schedule: section(&mut keys, "schedule", origin, read_schedule)?,
            parallel: section(&mut keys, "parallel", origin, read_parallel)?,
            checkpoint: section(&mut keys, "checkpoint", origin, read_checkpoint)?,
        };
        keys.finish()?;
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if recipe.name.is_empty() || recipe.name.starts_with('.') || !recipe.name.chars().all(safe) {
            let rule = "may hold only letters, digits, `-`, `_` and `.`, for it names a folder";
            return Err(Error::usage(format!("{origin}: the name {:?} {rule}", recipe.name)));
        }
        Ok(recipe)
    }

    /// The mesh and the mode of this run.
    ///
    /// # Errors
    /// Devices, mode and mesh do not fit together.
    pub fn layout(&self) -> Result<(Mesh, Mode)> {
        let ParallelSettings { devices, mode, mesh, .. } = self.parallel;
        let devices = match (devices, mesh) {
            (0, Some(mesh)) => mesh.ranks(),
            (0, None) => 1,
            (devices, _) => devices,
        };
        if let Some(mesh) = mesh.filter(|mesh| mesh.ranks() != devices) {
            let needs = mesh.ranks();
            return Err(Error::usage(format!("the mesh {mesh} needs {needs} devices, but {devices} are asked for")));
        }
        let mode = mode.unwrap_or(match mesh {
            Some(mesh) if mesh.model > 1 => Mode::ModelParallel,
            _ if devices > 1 => Mode::DataParallel,
            _ => Mode::Single,
        });
        let mesh = match mesh {
            Some(mesh) => mode.check(mesh).map(|()| mesh)?,
            None => mode.mesh(devices)?,
        };
        Ok((mesh, mode))
    }
}

fn section<T>(keys: &mut Keys, name: &'static str, origin: &str, read: fn(&mut Keys) -> Result<T>) -> Result<T> {
    let table: Table = keys.required(name)?;
    let mut keys = Keys::new(&table, format!("{origin}: [{name}]"));
    let value = read(&mut keys)?;
    keys.finish()?;
    Ok(value)
}

fn read_model(keys: &mut Keys) -> Result<ModelSettings> {
    let name = keys.required("name")?;
    let function: String = keys.required("activation")?;
    let activation = match function.as_str() {
        "as-written" => None,
        other => Some(activation(other).ok_or_else(|| {
            let known = ["as-written", "relu", "sigmoid", "tanh"];
            let hint = suggestion(other, known.into_iter());
            Error::usage(format!("{}: there is no activation `{other}`{hint}", keys.context()))
        })?),
    };
    let dropout: f64 = keys.required("dropout")?;
    if dropout >= 1.0 {
        return Err(Error::usage(format!(
            "{}: `dropout` must be below 1 (negative: as written), not {dropout}",
            keys.context()
        )));
    }
    Ok(ModelSettings { name, edits: Edits { activation, dropout: (dropout >= 0.0).then_some(dropout) } })
}

fn read_data(keys: &mut Keys) -> Result<DataSettings> {
    let all = [SourceKind::FashionMnist, SourceKind::Idx, SourceKind::Synthetic, SourceKind::Noise];
    let source = one_of("data source", &keys.required::<String>("source")?, all, SourceKind::name)
        .map_err(|error| error.within(keys.context()))?;
    let image: Vec<usize> = keys.required("image")?;
    let &[channels, height, width] = &image[..] else {
        return Err(Error::usage(format!(
            "{}: `image` must be [channels, height, width], not {image:?}",
            keys.context()
        )));
    };
    if image.iter().any(|&size| size == 0 || size > 4096) {
        return Err(Error::usage(format!(
            "{}: the sizes of `image` must lie between 1 and 4096, not {image:?}",
            keys.context()
        )));
    }
    Ok(DataSettings {
        source,
        dir: keys.required("dir")?,
        train_examples: at_most(keys, "train_examples", MOST_EXAMPLES)?,
        test_examples: at_most(keys, "test_examples", MOST_EXAMPLES)?,
        image: [channels, height, width],
        classes: between_one_and(keys, "classes", MOST_CLASSES)?,
        flip: keys.required("flip")?,
        crop: at_most(keys, "crop", 4096)?,
    })
}

fn read_train(keys: &mut Keys) -> Result<TrainSettings> {
    let max_time: String = keys.required("max_time")?;
    let precision: String = keys.required("precision")?;
    let in_context = |error: Error| error.within(keys.context());
    let precision = precision.parse().map_err(in_context)?;
    let max_time = match max_time.as_str() {
        "" => None,
        span => Some(duration::parse(span).map_err(in_context)?),
    };
    Ok(TrainSettings {
        batch_size: between_one_and(keys, "batch_size", 1 << 20)?,
        epochs: between_one_and(keys, "epochs", 1_000_000)? as u64,
        steps: keys.required("steps")?,
        max_time,
        precision,
    })
}

fn read_optimizer(keys: &mut Keys) -> Result<OptimizerSettings> {
    let settings = OptimizerSettings {
        learning_rate: not_negative(keys, "learning_rate")?,
        momentum: not_negative(keys, "momentum")?,
        weight_decay: not_negative(keys, "weight_decay")?,
    };
    if settings.momentum >= 1.0 {
        return Err(Error::usage(format!("{}: `momentum` must be below 1, not {}", keys.context(), settings.momentum)));
    }
    Ok(settings)
}

fn read_schedule(keys: &mut Keys) -> Result<Schedule> {
    let kind: String = keys.required("kind")?;
    let every = not_negative(keys, "every")?;
    let factor = not_negative(keys, "factor")?;
    let warmup = not_negative(keys, "warmup")?;
    let minimum = not_negative(keys, "minimum")?;
    match kind.as_str() {
        "constant" => Ok(Schedule::Constant),
        "step" if every > 0.0 => Ok(Schedule::Step { every, factor }),
        "step" => Err(Error::usage(format!("{}: `every` must be more than 0 epochs", keys.context()))),
        "cosine" => Ok(Schedule::Cosine { warmup, minimum }),
        other => {
            let hint = suggestion(other, ["constant", "step", "cosine"].into_iter());
            Err(Error::usage(format!("{}: there is no schedule `{other}`{hint}", keys.context())))
        }
    }
}

fn read_parallel(keys: &mut Keys) -> Result<ParallelSettings> {
    let devices = at_most(keys, "devices", Mesh::LARGEST)?;
    let mode: String = keys.required("mode")?;
    let mesh: String = keys.required("mesh")?;
    let (timeout, bucket): (String, String) = (keys.required("timeout")?, keys.required("bucket")?);
    let in_context = |error: Error| error.within(keys.context());
    let timeout = duration::parse(&timeout).map_err(in_context)?;
    let bucket = if bucket == "all" { 0 } else { duration::parse_bytes(&bucket).map_err(in_context)? };
    let mode = if mode == "auto" { None } else { Some(mode.parse().map_err(in_context)?) };
    let mesh = if mesh == "auto" { None } else { Some(mesh.parse().map_err(in_context)?) };
    Ok(ParallelSettings {
        devices,
        mode,
        mesh,
        threads: at_most(keys, "threads", 1024)?,
        timeout,
        bucket,
        early_exchange: keys.required("early_exchange")?,
    })
}

fn read_checkpoint(keys: &mut Keys) -> Result<CheckpointSettings> {
    Ok(CheckpointSettings {
        every_epochs: keys.required("every_epochs")?,
        every_steps: keys.required("every_steps")?,
        keep: keys.required("keep")?,
    })
}

fn between_one_and(keys: &mut Keys, key: &'static str, most: usize) -> Result<usize> {
    match keys.required(key)? {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must lie between 1 and {most}, not {value}", keys.context()))),
    }
}

fn at_most(keys: &mut Keys, key: &'static str, most: usize) -> Result<usize> {
    match keys.required(key)? {
        value if value <= most => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` may be {most} at most, not {value}", keys.context()))),
    }
}

fn not_negative(keys: &mut Keys, key: &'static str) -> Result<f64> {
    match keys.required(key)? {
        value if value >= 0.0 => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must not be negative, but is {value}", keys.context()))),
    }
}
