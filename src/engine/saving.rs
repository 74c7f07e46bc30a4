//! Checkpoints, seen from the loop: when one is due, and how the shards of the ranks become whole parameters. (The way
//! back is [`super::parameters::Store::read`], and [`super::resuming`].)

use super::job::settings;
use super::layout::{Layout, Run};
use super::rank::Shard;
use crate::checkpoint::state::About;
use crate::checkpoint::{Best, Checkpoints, Content, Described, Position, Whole};
use crate::error::Result;
use crate::model::Model;
use crate::model::cost::{parameter_name, parameters};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::recipe::settings::CheckpointSettings;
use crate::torch;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

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
        })
    }

    /// The same, whose checkpoints have every effective value of the recipe.
    #[must_use]
    pub fn with_recipe(self, recipe: serde_json::Value) -> Self {
        Self { recipe, ..self }
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

    /// Writes a checkpoint from what each rank holds, in rank order; gives its folder.
    ///
    /// # Errors
    /// The file system's, as on a full disk.
    pub fn write(&self, plan: &Plan, standing: Standing, shards: &[Shard]) -> Result<PathBuf> {
        let Standing { position, learning_rate, best, steps_per_epoch } = standing;
        let tensors = described(&plan.model);
        let layout = |model_rank| Layout::new(plan, model_rank, self.bucket);
        let layouts: Vec<Layout> = (0..plan.mesh.model).map(layout).collect();
        let about = About {
            model: plan.model.name.clone(),
            precision: self.precision.to_owned(),
            seed: self.seed,
            batch_size: self.batch_size,
            steps_per_epoch,
            mesh: plan.mesh.to_string(),
            mode: plan.mode.name().to_owned(),
            plan: plan.title(),
            libtorch: torch::version(),
            recipe: self.recipe.clone(),
        };
        let masters: Vec<&[Tensor]> = shards.iter().map(|shard| &shard.masters[..]).collect();
        let velocities: Option<Vec<&[Tensor]>> = shards.iter().map(|shard| shard.velocities.as_deref()).collect();
        let kind = masters.first().and_then(|masters| masters.first()).map_or(Kind::Float, Tensor::kind);
        let of_model = |index, indices| whole(plan, &layouts, &masters, index, indices);
        let velocities_of_all = velocities.as_deref().unwrap_or_default();
        let of_optimizer = |index, indices| whole(plan, &layouts, velocities_of_all, index, indices);
        let model = Whole { kind, tensors: &tensors, values: &of_model };
        let optimizer = velocities.as_ref().map(|_| Whole { kind, tensors: &tensors, values: &of_optimizer });
        self.checkpoints.write(&Content { position, learning_rate, best, about, model, optimizer }, self.settings.keep)
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

/// The bytes of some values of one whole parameter, put together from one shard of each rank.
fn whole(
    plan: &Plan,
    layouts: &[Layout],
    shards: &[&[Tensor]],
    parameter: usize,
    indices: Range<usize>,
) -> Result<Vec<u8>> {
    let kind = shards.first().and_then(|shard| shard.first()).map(Tensor::kind);
    let width = kind.map_or(0, |kind| kind.elt_size_in_bytes());
    let mut bytes = vec![0; indices.len() * width];
    for (rank, shard) in shards.iter().enumerate() {
        let layout = &layouts[plan.mesh.model_rank(rank)];
        for (part, values) in layout.shard(plan.mesh.data_rank(rank)).iter().zip(*shard) {
            for Run { place, whole } in layout.entries[parameter].runs(part) {
                let wanted = whole.start.max(indices.start)..whole.end.min(indices.end);
                if wanted.is_empty() {
                    continue;
                }
                let at = place - part.start + wanted.start - whole.start;
                let values = values.f_narrow(0, at as i64, wanted.len() as i64)?;
                let first = wanted.start - indices.start;
                values.f_copy_data_u8(&mut bytes[first * width..(first + wanted.len()) * width], wanted.len())?;
            }
        }
    }
    Ok(bytes)
}
