//! From a recipe to all that a run needs. Whatever can be wrong with a request is found here, before the first step.

use super::data_sets;
use super::rank::Settings;
use super::saving::described;
use super::session::Job;
use super::worker::Assignment;
use crate::checkpoint::{Position, TensorFile, WeightFile};
use crate::data::images::listing::class_names;
use crate::data::prepare::Views;
use crate::data::{Source, Subset, pack, shards};
use crate::error::{Error, Result};
use crate::launch::control::Control;
use crate::model::names::Naming;
use crate::model::rewrite::relu_after_pool;
use crate::model::{Model, shipped};
use crate::optim::Timeline;
use crate::plan::{Mesh, Mode, Plan, plan};
use crate::recipe::Precision;
use crate::recipe::Recipe;
use crate::recipe::settings::{ExchangePrecision, NonFinite, OwnHalf, SourceKind};
use std::path::Path;
use std::sync::Arc;
use tch::Device;

impl Job {
    /// Everything for a run of `recipe` on CPU devices, ended early by `control`.
    ///
    /// # Errors
    /// The recipe's parts do not fit together, or its data cannot be read.
    pub fn new(recipe: &Recipe, control: Control) -> Result<Self> {
        let plan = Arc::new(plan_of(recipe)?);
        check_timeline(&plan, &recipe.timeline)?;
        let train = data_sets::open(recipe, &plan.model, Subset::Train)?;
        data_sets::check_fit(&plan, train.as_ref(), &recipe.data)?;
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
        let views = if recipe.data.random_window { Views::Random } else { Views::Centre };
        let prepare_train = data_sets::for_training(recipe, &plan.model, train.as_ref(), views)?;
        let prepare_test = data_sets::for_evaluation(recipe, &plan.model, test.as_ref(), Views::Centre)?;
        let steps_per_epoch = train.len().div_ceil(recipe.train.batch_size) as u64;
        let all = steps_per_epoch.saturating_mul(recipe.train.epochs);
        let total_steps = if recipe.train.steps == 0 { all } else { all.min(recipe.train.steps) };
        let devices = (0..plan.mesh.ranks()).map(|rank| format!("cpu:{rank}")).collect();
        let assignment = Assignment {
            threads: threads(recipe, plan.mesh.ranks()),
            plan,
            settings: settings(recipe),
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
            prepare_train,
            prepare_test,
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
    let test = data_sets::open(recipe, &plan.model, Subset::Test)?;
    data_sets::check_fit(plan, test.as_ref(), &recipe.data)?;
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
    laid_out(&model, mesh, mode, recipe, recipe.parallel.own_half.resolved() == OwnHalf::On)
}

/// The plan of a model whose exchanges are as a recipe has them; `own_first`: layers that can compute with their own part
/// before the others are there.
///
/// # Errors
/// The model cannot be laid out so, or what is exchanged cannot be rounded.
pub fn laid_out(model: &Model, mesh: Mesh, mode: Mode, recipe: &Recipe, own_first: bool) -> Result<Plan> {
    let plan = plan(model, mesh, mode)?;
    let plan = if own_first { plan.own_part_first() } else { plan };
    match recipe.train.exchange {
        ExchangePrecision::Full => Ok(plan),
        ExchangePrecision::Half if recipe.train.precision.resolved() == Precision::Bf16 => Err(Error::usage(
            "train.exchange is fp16, and bf16 values have no more bytes to begin with: use train.precision=fp32, or \
             train.exchange=full",
        )),
        ExchangePrecision::Half => Ok(plan.exchanged_in_half()),
    }
}

/// The model that a recipe names, changed as it says.
///
/// # Errors
/// It cannot be read, or is to have as many outputs as the data has classes, and there is no such data.
pub fn model_of(recipe: &Recipe) -> Result<Model> {
    let mut edits = recipe.model.edits.clone();
    if recipe.model.classes_of_data {
        edits.classes = Some(match recipe.data.source {
            SourceKind::Images => class_names(data_sets::files_of(&recipe.data)?)?.len(),
            SourceKind::Pack => pack::classes(data_sets::files_of(&recipe.data)?)?,
            SourceKind::Shards => shards::classes(data_sets::files_of(&recipe.data)?)?,
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
