//! What a rank does about numbers that are not finite.

use super::Rank;
use crate::comm::{Call, Stage};
use crate::engine::input::DeviceBatch;
use crate::engine::nonfinite::is_finite;
use crate::engine::norms;
use crate::engine::phases::Phase;
use crate::error::Result;
use crate::model::ActivationId;
use tch::Tensor;

impl Rank {
    /// Finds the first activation of a batch that is not finite, after a loss that is not: runs the forward pass again with
    /// a look at every output, which would take time in every step. All ranks of the model axis have the same loss, so that
    /// they all do; what each finds in its share the ranks tell each other with their word.
    pub(super) fn find_nonfinite(&mut self, batch: &DeviceBatch) -> Result<()> {
        self.looks = true;
        let logits = self.logits(batch, true);
        self.looks = false;
        drop(logits?);
        // If all that leads to it is finite, it is the loss itself.
        self.nonfinite.get_or_insert(self.plan.model.layers.len());
        Ok(())
    }

    /// Looks at an activation, where that was asked for.
    pub(super) fn look(&mut self, activation: ActivationId, own: &Tensor) -> Result<()> {
        if self.looks && self.nonfinite.is_none() && !is_finite(own)? {
            self.nonfinite = Some(activation);
        }
        Ok(())
    }

    /// Whether the loss and all gradients are finite on every rank, given those that have arrived here from the ranks of the
    /// data axis.
    pub(super) fn all_is_finite(&mut self, arrived: &[(usize, Vec<Tensor>)]) -> Result<bool> {
        let mut own = self.nonfinite.is_none();
        for gradient in arrived.iter().flat_map(|(_, gradients)| gradients) {
            own = own && is_finite(gradient)?;
        }
        let call = Call::new("whether all is finite", Stage::Agree);
        let before = self.watch.enter(Phase::Reduce);
        let words = self.groups.world.all_gather(&call, &Tensor::from_slice(&[f64::from(u8::from(own))]))?;
        self.leave_collective(before);
        words.iter().try_fold(true, |all, word| Ok(all && word.f_double_value(&[0])? == 1.0))
    }

    /// What stands for the squares of the gradients in a step that is left out, by layer with weights: NaN where this rank's
    /// gradients are not finite.
    pub(super) fn squares_left_out(&self) -> Result<Vec<f64>> {
        let layers = norms::layers(&self.plan);
        let mut squares = vec![0.0; layers.len()];
        for entry in &self.store.layout.entries {
            let place = layers.iter().position(|&layer| layer == entry.share.layer);
            if let Some(place) = place.filter(|&place| squares[place] == 0.0)
                && !is_finite(&self.store.gradient(entry)?)?
            {
                squares[place] = f64::NAN;
            }
        }
        Ok(squares)
    }
}
