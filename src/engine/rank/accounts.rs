//! What a rank tells about itself: times, parameters, recordings.

use super::Rank;
use crate::comm::Traffic;
use crate::engine::parameters::Store;
use crate::engine::phases::{Phase, Phases};
use crate::engine::profile::Profile;
use crate::engine::recording::{Quantity, Recording};
use crate::error::Error;
use crate::model::LayerId;
use tch::Tensor;

impl Rank {
    /// The time spent since the last call of this, by phase, and what travelled: activations, gradients and weights, not
    /// the few words in which the ranks agree.
    pub fn lap(&mut self) -> (Phases, Traffic) {
        let mut traffic = Traffic::default();
        for group in [&mut self.groups.model, &mut self.groups.data] {
            traffic += group.take_traffic();
        }
        (self.watch.lap(), traffic)
    }

    /// The parameters, as they are now.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time that each layer has taken since the last call of this.
    pub fn take_profile(&mut self) -> Profile {
        std::mem::replace(&mut self.profile, Profile::new(self.plan.model.layers.len()))
    }

    /// Keeps every activation and gradient from now on, until the recording is taken.
    pub fn start_recording(&mut self) {
        self.recording = Some(Recording::default());
    }

    /// What was recorded.
    pub fn take_recording(&mut self) -> Recording {
        self.recording.take().unwrap_or_default()
    }

    pub(super) fn record(&mut self, quantity: Quantity, tensor: &Tensor) {
        if let Some(recording) = &mut self.recording {
            let (Quantity::Activation(activation) | Quantity::Gradient(activation)) = quantity;
            let channels = self.plan.held(activation, self.plan.mesh.model_rank(self.rank));
            recording.keep(quantity, channels, tensor);
        }
    }

    /// Enters the phase after a collective; what it spent waiting for others counts as waiting.
    pub(super) fn leave_collective(&mut self, next: Phase) {
        for group in [&mut self.groups.world, &mut self.groups.model, &mut self.groups.data] {
            self.watch.waited(group.take_waited());
        }
        self.watch.enter(next);
    }

    pub(super) fn in_layer(&self, layer: LayerId, error: Error) -> Error {
        error.within(format!("rank {}: layer {}", self.rank, self.plan.model.layers[layer].name))
    }
}
