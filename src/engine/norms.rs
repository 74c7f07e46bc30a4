//! The norms of gradients. The update sums the squares of the gradients on its way through memory, each rank those of its
//! shard; added up over the ranks they give the norm of every layer's whole gradient, whatever the split.

use super::layout::{Layout, Segment};
use crate::error::Result;
use crate::model::{LayerId, cost};
use crate::plan::Plan;
use tch::Tensor;

/// The layers with weights, in the model's order: those whose gradients have a norm.
pub fn layers(plan: &Plan) -> Vec<LayerId> {
    (0..plan.model.layers.len()).filter(|&layer| !cost::parameters(&plan.model, layer).is_empty()).collect()
}

/// The squares of the gradients that a rank updates, in a step.
pub struct Squares {
    /// Of each bucket, the parameters in this rank's part of it.
    segments: Vec<Vec<Segment>>,
    /// For each parameter, the place of its layer among those with weights; `None` where another rank counts it.
    places: Vec<Option<usize>>,
    layers: usize,
    /// What the updates of the step gave, by bucket. On a GPU it may be yet to come.
    found: Vec<(usize, Tensor)>,
}

impl Squares {
    /// None yet, of a rank with this layout.
    pub fn new(plan: &Plan, layout: &Layout, rank: usize) -> Self {
        let layers = layers(plan);
        let places = layout.entries.iter().map(|entry| {
            let share = &entry.share;
            // A parameter that the ranks of the model axis hold alike has the same gradient on each: the first counts it.
            let counts = share.is_split() || plan.mesh.model_rank(rank) == 0;
            layers.iter().position(|&layer| layer == share.layer).filter(|_| counts)
        });
        let shard = layout.shard(plan.mesh.data_rank(rank));
        let segments = shard.iter().map(|part| layout.segments(part)).collect();
        Self { segments, places: places.collect(), layers: layers.len(), found: Vec::new() }
    }

    /// Keeps what the update of a bucket gave.
    pub fn keep(&mut self, bucket: usize, squares: Tensor) {
        self.found.push((bucket, squares));
    }

    /// The sums of the squares by layer, of what was kept since the last call of this.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn take(&mut self) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.layers];
        for (bucket, squares) in self.found.drain(..) {
            let squares = Vec::<f64>::try_from(&squares)?;
            for (segment, square) in self.segments[bucket].iter().zip(squares) {
                if let Some(place) = self.places[segment.entry] {
                    sums[place] += square;
                }
            }
        }
        Ok(sums)
    }
}
