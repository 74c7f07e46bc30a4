//! From a recipe to all that a run needs. Whatever can be wrong with a request is found here, before the first step.

use super::rank::Settings;
use super::saving::described;
use super::session::Job;
use super::worker::Assignment;
use crate::checkpoint::{Position, TensorFile, WeightFile};
use crate::data::images::{decode::Form, listing::class_names};
use crate::data::{Augmentation, IdxDataset, ImageFolder, Limited, Noise, Source, Subset, Synthetic};
use crate::error::{Error, Result};
use crate::launch::control::Control;
use crate::model::names::Naming;
use crate::model::rewrite::relu_after_pool;
use crate::model::{Model, Shape, shipped};
use crate::optim::Timeline;
use crate::plan::{Plan, plan};
use crate::recipe::Recipe;
use crate::recipe::settings::{DataSettings, NonFinite, OwnHalf, SourceKind};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Device;

/// The most CPU devices of a run: each is a thread with its own copy of what it holds.
const MOST_CPU_DEVICES: usize = 64;
/// Examples of computed training and test sets, where the recipe does not say.
const COMPUTED: [usize; 2] = [60_000, 10_000];

impl Job {
    /// Everything for a run of `recipe` on CPU devices, ended early by `control`.
    ///
    /// # Errors
    /// The recipe's parts do not fit together, or its data cannot be read.
    pub fn new(recipe: &Recipe, control: Control) -> Result<Self> {
        let plan = Arc::new(plan_of(recipe)?);
        check_devices(&plan)?;
        check_timeline(&plan, &recipe.timeline)?;
        let train = source(recipe, &plan, Subset::Train)?;
        check_fit(&plan, train.as_ref(), &recipe.data)?;
        let test = test_set(recipe, &plan)?;
        if train.shape() != test.shape() {
            let (name, of_train, of_test) = (recipe.data.source.name(), train.shape(), test.shape());
            return Err(Error::usage(format!(
                "the images of {name} differ in size: those for training are {of_train:?}, those for testing {of_test:?} \
                 [channels, height, width]"
            )));
        }
        let side = train.shape()[1].min(train.shape()[2]);
        if recipe.data.crop >= side {
            let crop = recipe.data.crop;
            return Err(Error::usage(format!(
                "data.crop is {crop} pixels, but the images' shorter side has only {side}"
            )));
        }
        let steps_per_epoch = train.len().div_ceil(recipe.train.batch_size) as u64;
        let all = steps_per_epoch.saturating_mul(recipe.train.epochs);
        let total_steps = if recipe.train.steps == 0 { all } else { all.min(recipe.train.steps) };
        let devices = (0..plan.mesh.ranks()).map(|rank| format!("cpu:{rank}")).collect();
        let assignment = Assignment {
            threads: threads(recipe, plan.mesh.ranks()),
            plan,
            settings: settings(recipe),
            stored: train.shape(),
            learning_rate: recipe.optimizer.learning_rate,
            schedule: recipe.schedule,
            timeline: Arc::new(recipe.timeline.clone()),
            total_steps,
            steps_per_epoch,
            control,
            checkpoint_every: recipe.checkpoint.every_time,
            on_step: None,
            memory: None,
            steps_ahead: 0,
            position: Position::default(),
            begin: None,
            weights: None,
        };
        Ok(Self {
            assignment,
            train,
            test,
            batch_size: recipe.train.batch_size,
            epochs: recipe.train.epochs,
            most_steps: recipe.train.steps,
            augmentation: Augmentation { flip: recipe.data.flip, crop: recipe.data.crop },
            devices,
            max_time: recipe.train.max_time,
            readers: recipe.data.readers,
            loaded: Arc::default(),
            saving: None,
            peers: None,
        })
    }
}

impl Job {
    /// Lets the weights begin as a file has them, which anyone may have written.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the model: names the tensor, and both sizes.
    pub fn init_from(&mut self, path: &Path) -> Result<()> {
        let model = &self.assignment.plan.model;
        let weights = WeightFile::fitting(TensorFile::of_others(path)?, model, &described(model))?;
        self.assignment.weights = Some(Arc::new(weights));
        Ok(())
    }
}

/// Sees that a plan's devices, if they are of the CPU, are as many as one machine may have.
///
/// # Errors
/// They are more.
pub fn check_devices(plan: &Plan) -> Result<()> {
    match plan.mesh.ranks() {
        ranks if ranks > MOST_CPU_DEVICES => Err(Error::usage(format!(
            "{ranks} CPU devices are more than the {MOST_CPU_DEVICES} that one machine may have"
        ))),
        _ => Ok(()),
    }
}

fn check_timeline(plan: &Plan, timeline: &Timeline) -> Result<()> {
    let names = Naming::Layers.of(&plan.model);
    match timeline.stray(&names) {
        None => Ok(()),
        Some(pattern) => Err(Error::usage(format!(
            "[schedule]: an event's `parameters`, `{pattern}`, are no parameters of model {}; they are called like {}",
            plan.model.name,
            names.first().map_or("conv1.weight", String::as_str)
        ))),
    }
}

/// The test set of a recipe.
///
/// # Errors
/// It cannot be read, or does not fit the model.
pub fn test_set(recipe: &Recipe, plan: &Plan) -> Result<Arc<dyn Source>> {
    let test = source(recipe, plan, Subset::Test)?;
    check_fit(plan, test.as_ref(), &recipe.data)?;
    Ok(test)
}

/// The plan that a recipe asks for, of its model with the layers in the cheapest order. What the recipe leaves open is
/// decided as for CPU devices.
///
/// # Errors
/// Its model cannot be read, or cannot be laid out over its devices.
pub fn plan_of(recipe: &Recipe) -> Result<Plan> {
    let model = relu_after_pool(&model_of(recipe)?);
    let (mesh, mode) = recipe.layout()?;
    let plan = plan(&model, mesh, mode)?;
    Ok(if recipe.parallel.own_half.resolved() == OwnHalf::On { plan.own_part_first() } else { plan })
}

/// The model that a recipe names, changed as it says.
///
/// # Errors
/// It cannot be read, or is to have as many outputs as the data has classes, and there is no such data.
pub fn model_of(recipe: &Recipe) -> Result<Model> {
    let mut edits = recipe.model.edits.clone();
    if recipe.model.classes_of_data {
        edits.classes = Some(match recipe.data.source {
            SourceKind::Images => class_names(image_folder(&recipe.data)?)?.len(),
            SourceKind::Synthetic | SourceKind::Noise => recipe.data.classes,
            SourceKind::FashionMnist | SourceKind::Idx => {
                let name = recipe.data.source.name();
                return Err(Error::usage(format!(
                    "model.classes is data, but {name} does not tell its classes before it is read; use --set \
                     model.classes=N"
                )));
            }
        });
    }
    shipped::load(&recipe.model.name, &edits)
}

fn image_folder(data: &DataSettings) -> Result<&Path> {
    match data.dir.as_str() {
        "" => Err(Error::usage("data.source is images, so say in which folder they are: --data-dir DIR")),
        dir => Ok(Path::new(dir)),
    }
}

/// What each rank needs of a recipe, on CPU devices.
pub fn settings(recipe: &Recipe) -> Settings {
    Settings {
        device: Device::Cpu,
        seed: recipe.seed,
        kind: recipe.train.precision.kind(),
        momentum: recipe.optimizer.momentum,
        weight_decay: recipe.optimizer.weight_decay,
        rate_in_velocity: recipe.optimizer.rate_in_velocity,
        bucket: recipe.parallel.bucket as usize / recipe.train.precision.kind().elt_size_in_bytes(),
        early_exchange: recipe.parallel.early_exchange,
        skip_nonfinite: recipe.train.nonfinite == NonFinite::Skip,
    }
}

/// The threads of each of `ranks` CPU devices: what the recipe says, or a fair share of the cores.
pub fn threads(recipe: &Recipe, ranks: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match recipe.parallel.threads {
        0 => (cores / ranks).max(1),
        threads => threads,
    }
}

/// The folder in which `scripts/mpt` keeps data sets: `mpt/data` in the user's cache.
pub fn data_cache() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("mpt").join("data")
}

fn source(recipe: &Recipe, plan: &Plan, subset: Subset) -> Result<Arc<dyn Source>> {
    let Recipe { data, seed, .. } = recipe;
    let (wanted, computed) = match subset {
        Subset::Train => (data.train_examples, COMPUTED[0]),
        Subset::Test => (data.test_examples, COMPUTED[1]),
    };
    let length = if wanted == 0 { computed } else { wanted };
    let files = |default: PathBuf| -> Result<Arc<dyn Source>> {
        let dir = if data.dir.is_empty() { default } else { PathBuf::from(&data.dir) };
        let found = IdxDataset::open(&dir, subset)?;
        Ok(if wanted == 0 { Arc::new(found) } else { Arc::new(Limited::new(found, wanted)) })
    };
    match data.source {
        SourceKind::FashionMnist => files(data_cache().join("fashion-mnist")),
        SourceKind::Idx if data.dir.is_empty() => {
            Err(Error::usage("data.source is idx, so say where the files are: --data-dir DIR"))
        }
        SourceKind::Idx => files(PathBuf::new()),
        SourceKind::Images => {
            let form = image_form(data, plan.model.input)?;
            Ok(Arc::new(ImageFolder::open(image_folder(data)?, subset, wanted, form)?))
        }
        SourceKind::Synthetic => Ok(Arc::new(Synthetic::new(*seed, length, data.image, data.classes, subset)?)),
        SourceKind::Noise => Ok(Arc::new(Noise::new(*seed, length, data.image, data.classes)?)),
    }
}

/// What image files are made into for a network that reads images of this shape.
fn image_form(data: &DataSettings, input: Shape) -> Result<Form> {
    let channels = input.channels;
    if ![1, 3].contains(&channels) {
        return Err(Error::usage(format!(
            "data.source is images, which have 1 channel or 3, but the model reads {channels}; see model.input"
        )));
    }
    let (height, width) = input.pixels.unwrap_or((1, 1));
    let side = if data.side == 0 { height.min(width) } else { data.side };
    Ok(Form { channels, side })
}

fn check_fit(plan: &Plan, source: &dyn Source, data: &DataSettings) -> Result<()> {
    let model = &plan.model;
    let [channels, height, width] = source.shape();
    let name = data.source.name();
    if channels != model.input.channels {
        let (stored, wanted) = (Shape::image(channels, height, width), model.input);
        let remedy = match data.source {
            SourceKind::Synthetic | SourceKind::Noise => {
                let (height, width) = wanted.pixels.unwrap_or((height, width));
                format!("; use --set data.image=[{},{height},{width}]", wanted.channels)
            }
            _ => String::new(),
        };
        return Err(Error::usage(format!(
            "model {} reads images of {wanted}, but those of {name} are {stored}: the channels differ{remedy}",
            model.name
        )));
    }
    if source.classes() > model.classes() {
        let (found, known) = (source.classes(), model.classes());
        return Err(Error::usage(format!(
            "{name} has {found} classes, but model {} tells only {known} apart",
            model.name
        )));
    }
    Ok(())
}
