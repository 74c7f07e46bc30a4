//! Checkpoints, seen from the loop: when one is due, and what it says of the run. ([`super::slices`] says which values come from
//! where; the way back is [`super::parameters::Store::read`], and [`super::resuming`].)

use super::job::settings;
use super::layout::Layout;
use super::slices::{Draft, Sums};
use crate::checkpoint::state::About;
use crate::checkpoint::{Best, Checkpoints, Content, Described, Position};
use crate::error::Result;
use crate::model::Model;
use crate::model::cost::{parameter_name, parameters};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::recipe::settings::CheckpointSettings;
use crate::torch;
use std::path::{Path, PathBuf};

/// Where a run's checkpoints go, and when.
#[derive(Clone, Debug)]
pub struct Saving {
    checkpoints: Checkpoints,
    settings: CheckpointSettings,
    precision: &'static str,
    seed: u64,
    batch_size: usize,
    bucket: usize,
    recipe: serde_json::Value,
    train_set: String,
}

/// Where a run stands when a checkpoint is due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// What it has done.
    pub position: Position,
    /// The learning rate of its next step.
    pub learning_rate: f64,
    /// The checkpoint that is the best so far.
    pub best: Option<Best>,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

impl Saving {
    /// What a recipe says of the checkpoints of the run in a folder; `None`: there are to be none.
    pub fn new(recipe: &Recipe, run: &Path) -> Option<Self> {
        (recipe.checkpoint.keep > 0).then(|| Self {
            checkpoints: Checkpoints::of_run(run),
            settings: recipe.checkpoint,
            precision: recipe.train.precision.resolved().name(),
            seed: recipe.seed,
            batch_size: recipe.train.batch_size,
            bucket: settings(recipe).bucket,
            recipe: serde_json::Value::Null,
            train_set: String::new(),
        })
    }

    /// The same, whose checkpoints have every effective value of the recipe.
    #[must_use]
    pub fn with_recipe(self, recipe: serde_json::Value) -> Self {
        Self { recipe, ..self }
    }

    /// The same, whose checkpoints say what they were trained on.
    #[must_use]
    pub fn with_train_set(self, train_set: String) -> Self {
        Self { train_set, ..self }
    }

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// How many are kept besides the best.
    pub fn keep(&self) -> usize {
        self.settings.keep
    }

    /// The steps from a position to the next checkpoint within an epoch, at least one.
    pub fn steps_ahead(&self, position: &Position) -> u64 {
        match self.settings.every_steps {
            0 => u64::MAX,
            every => every - position.step % every,
        }
    }

    /// Whether the end of a position's epoch is to have a checkpoint.
    pub fn is_due_after(&self, epoch: u64) -> bool {
        self.settings.every_epochs != 0 && epoch.is_multiple_of(self.settings.every_epochs)
    }

    /// The layouts of the ranks at each place of the model axis.
    pub fn layouts(&self, plan: &Plan) -> Vec<Layout> {
        (0..plan.mesh.model).map(|model_rank| Layout::new(plan, model_rank, self.bucket)).collect()
    }

    /// Makes the unfinished folder of a checkpoint, with its files; gives it.
    ///
    /// # Errors
    /// The file system's, as on a full disk.
    pub fn begin(&self, step: u64, draft: &Draft) -> Result<PathBuf> {
        let unfinished = self.checkpoints.begin(step)?;
        let made = draft.create(&unfinished);
        made.inspect_err(|_| self.checkpoints.abandon(step)).map(|()| unfinished)
    }

    /// Lets a checkpoint be one if all of its files could be written: `sums` of all who did.
    ///
    /// # Errors
    /// They could not, or the file system's; then what was there is there still.
    pub fn finish(&self, draft: &Draft, plan: &Plan, standing: Standing, sums: Result<Vec<Sums>>) -> Result<()> {
        let Standing { position, learning_rate, best, steps_per_epoch } = standing;
        let about = About {
            model: plan.model.name.clone(),
            precision: self.precision.to_owned(),
            seed: self.seed,
            batch_size: self.batch_size,
            steps_per_epoch,
            train_set: self.train_set.clone(),
            mesh: plan.mesh.to_string(),
            mode: plan.mode.name().to_owned(),
            plan: plan.title(),
            libtorch: torch::version(),
            recipe: self.recipe.clone(),
        };
        let files = sums.and_then(|sums| draft.whole(&sums));
        let content = files.map(|files| Content { position, learning_rate, best, about, files });
        let finished = content.and_then(|content| self.checkpoints.finish(content));
        finished.inspect_err(|_| self.checkpoints.abandon(position.step))
    }
}

/// Every parameter of a model, whole, in its order.
pub fn described(model: &Model) -> Vec<Described> {
    let of_layer = |layer| parameters(model, layer).into_iter().map(move |parameter| (layer, parameter));
    (0..model.layers.len())
        .flat_map(of_layer)
        .map(|(layer, found)| Described { name: parameter_name(model, layer, found.role), shape: found.shape })
        .collect()
}
