//! The batches that the loop hands to the ranks: of an epoch in training, and of the test set.

use super::Session;
use crate::data::{LoaderOptions, MaskSpec, Order};
use crate::engine::worker::{Assignment, Batches};
use crate::error::Result;
use crate::model::Kind;
use crate::plan::Plan;
use std::sync::Arc;

/// The dropout layers of a model, for the loader to draw masks for.
pub fn masks(plan: &Plan) -> Vec<MaskSpec> {
    let layers = plan.model.layers.iter().enumerate();
    layers
        .filter_map(|(layer, found)| match found.kind {
            Kind::Dropout { probability } => {
                Some(MaskSpec { layer: layer as u32, features: found.output.len(), probability })
            }
            _ => None,
        })
        .collect()
}

impl Session<'_> {
    /// The batches of the epoch at hand that have not been trained on, for each rank.
    pub(super) fn training_streams(&self) -> Result<Vec<Batches>> {
        let (epochs_done, timeline) = (self.position.epoch - 1, &self.job.assignment.timeline);
        let preparation = self.job.prepare_train.clone();
        let preparation = match timeline.colour_noise(epochs_done) {
            Some(scale) => preparation.with_colour_noise(scale),
            None => preparation,
        };
        let options = LoaderOptions {
            order: Order::Shuffled { epoch: epochs_done },
            masks: masks(&self.job.assignment.plan),
            preparation,
            skip_batches: self.position.steps_in_epoch,
            ..self.loader_options()
        };
        self.supply.stream(&self.job.train, options)
    }

    /// The batches of the test set, for each rank.
    pub(super) fn test_streams(&self) -> Result<Vec<Batches>> {
        self.supply.stream(&self.job.test, self.loader_options())
    }

    fn loader_options(&self) -> LoaderOptions {
        let Assignment { plan, settings, .. } = &self.job.assignment;
        LoaderOptions {
            seed: settings.seed,
            batch_size: self.job.batch_size,
            order: Order::InOrder,
            first_step: self.position.step,
            data_ranks: plan.mesh.data,
            replicas: plan.mesh.model,
            preparation: self.job.prepare_test.clone(),
            threads: self.job.readers,
            counts: Arc::clone(&self.job.loaded),
            ..LoaderOptions::default()
        }
    }
}
