//! The settings of a run. Every one has a default and stands in the effective recipe that is printed and saved; the
//! file `shipped/defaults.toml` says what each means.

use super::address::Address;
use super::precision::Precision;
use crate::error::{Error, Result};
use crate::model::parse::Edits;
use crate::optim::{Schedule, Timeline};
use crate::plan::{Mesh, Mode};
use std::path::PathBuf;
use std::time::Duration;

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
    /// What else changes, and when.
    pub timeline: Timeline,
    /// Over which devices, and how.
    pub parallel: ParallelSettings,
    /// When checkpoints are written.
    pub checkpoint: CheckpointSettings,
    /// Who may watch the run.
    pub metrics: MetricsSettings,
}

/// Which network.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// A shipped model's name, or a file's.
    pub name: String,
    /// Changes to the model as written.
    pub edits: Edits,
    /// Whether it has as many outputs as the data set has classes; else what `edits` say.
    pub classes_of_data: bool,
    /// The file of weights that a run begins with; `None`: they are drawn.
    pub init_from: Option<PathBuf>,
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
    /// Pixels of each side of the squares that image files become; 0: 8/7 of what the network reads, as 256 is of 224.
    pub side: usize,
    /// Threads that read image files; 0: one for each core.
    pub readers: usize,
    /// Whether what the network reads is cut out of image files at a random place in training; else out of the centre.
    pub random_window: bool,
    /// Whether `mpt eval` takes ten views of each image.
    pub ten_crop: bool,
    /// The file of the training set's statistics, or `imagenet`.
    pub statistics: String,
    /// What is subtracted from images.
    pub subtract: Mean,
    /// Whether channels are divided by their standard deviation.
    pub divide: bool,
    /// What values from 0 to 1 are multiplied with before the network reads them.
    pub scale: f64,
    /// How wide random colours are, of the colours of the training set; 0: there are none.
    pub colour_noise: f64,
    /// By how many pixels images are shifted at random in training.
    pub crop: usize,
}

/// What is subtracted from images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mean {
    /// Nothing.
    Nothing,
    /// The mean of each channel.
    Channels,
    /// The mean image.
    Image,
}

impl Mean {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Channels => "channels",
            Self::Image => "image",
        }
    }
}

/// What kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The four files of Fashion-MNIST.
    FashionMnist,
    /// The four files of another data set in the format of MNIST.
    Idx,
    /// Folders of image files, one for each class.
    Images,
    /// Tar archives of image files and labels.
    Shards,
    /// A file of decoded images.
    Pack,
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
    /// In what activations and their gradients travel between devices.
    pub exchange: ExchangePrecision,
    /// What is done about a step whose loss or gradients are not finite.
    pub nonfinite: NonFinite,
}

/// In what activations and their gradients travel between devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangePrecision {
    /// As they are computed.
    Full,
    /// In fp16; sums of activations as they are computed.
    Half,
}

/// What is done about a step whose loss or gradients are infinite or not numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFinite {
    /// The run ends.
    Stop,
    /// It changes nothing, and the run goes on.
    Skip,
}

impl ExchangePrecision {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Half => "fp16",
        }
    }
}

impl NonFinite {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
        }
    }
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
    /// Whether velocities have the learning rate in them.
    pub rate_in_velocity: bool,
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
    /// How long the ranks have to come together, where they are processes.
    pub meeting: Duration,
    /// How long a rank waits for the others before the run ends.
    pub timeout: Duration,
    /// About how many bytes of gradients are summed over the data axis together; 0: all of them.
    pub bucket: u64,
    /// Whether exchanges begin as soon as what they bring is there, and not when it is needed.
    pub early_exchange: bool,
    /// Whether dense layers compute with their rank's own part of the input while the others travel.
    pub own_half: OwnHalf,
}

/// Whether dense layers compute with their rank's own part of the input while the others travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnHalf {
    /// Where tensors live on GPUs. Between CPU devices little or nothing travels, and an output is gone over twice.
    Auto,
    /// They do.
    On,
    /// They wait for all of it.
    Off,
}

impl OwnHalf {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// What is done with tensors in the memory of the CPU.
    #[must_use]
    pub fn resolved(self) -> Self {
        if self == Self::On { Self::On } else { Self::Off }
    }
}

/// When checkpoints are written. One is written at the end of a run in any case, also of one that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Epochs from one to the next; 0: not at the ends of epochs.
    pub every_epochs: u64,
    /// Steps from one to the next; 0: not between.
    pub every_steps: u64,
    /// Time from one to the next; `None`: not by time.
    pub every_time: Option<Duration>,
    /// How many are kept, the newest, besides the one that evaluated best; 0: none is written at all.
    pub keep: usize,
}

/// Who may watch the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where metrics and the live page are served; `None`: nowhere.
    pub addr: Option<Address>,
}

impl SourceKind {
    /// Whether what the network reads is cut out of larger images, and these are not made smaller.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Images | Self::Shards | Self::Pack)
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::FashionMnist => "fashion-mnist",
            Self::Idx => "idx",
            Self::Images => "images",
            Self::Shards => "shards",
            Self::Pack => "pack",
            Self::Synthetic => "synthetic",
            Self::Noise => "noise",
        }
    }
}

impl Recipe {
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
