//! What a rank tells about itself: times, parameters, recordings.

use super::Rank;
use crate::comm::{Call, Stage, Timing};
use crate::engine::agreement::Lap;
use crate::engine::parameters::Store;
use crate::engine::phases::{Phase, overlap};
use crate::engine::profile::{Pass, Profile};
use crate::engine::recording::{Quantity, Recording};
use crate::error::{Error, Result};
use crate::model::LayerId;
use crate::model::ranges::share;
use tch::{Device, Kind, Tensor};

impl Rank {
    /// What this rank alone can tell of the time since the last call of this: where it went and what travelled, which is
    /// activations, gradients and weights, not the few words in which the ranks agree.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn lap(&mut self) -> Result<Lap> {
        // On a GPU this waits for what the backward pass and the update have only asked for: it is their time.
        let before = self.watch.enter(Phase::Backward);
        let squares = self.left_out.take().map_or_else(|| self.squares.take(), Ok)?;
        self.watch.enter(before);
        let (phases, computed) = self.watch.lap();
        let groups = [&mut self.groups.world, &mut self.groups.model, &mut self.groups.data];
        let [world, model, data] = groups.map(|group| group.take_timings());
        let under_way = [&world, &model, &data].into_iter().flatten().map(Timing::in_passing).collect();
        let mut traffic = self.groups.model.take_traffic();
        traffic += self.groups.data.take_traffic();
        Ok(Lap {
            phases,
            overlapped: overlap(under_way, &computed),
            traffic,
            clock: self.clock,
            squares,
            nonfinite: self.nonfinite.take(),
            visits: self.slots.fill(&world, &model, &data),
        })
    }

    /// Adds counts up over the examples of all ranks, each example once: those of a model group have seen the same ones, and
    /// the first counts for them. Exact up to 2^53.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn add_up(&mut self, own: &[u64]) -> Result<Vec<u64>> {
        let own: Vec<f64> = own.iter().map(|&count| count as f64).collect();
        let all = self.groups.world.all_gather(&Call::new("the counts", Stage::Agree), &Tensor::from_slice(&own))?;
        let mut sums = vec![0; own.len()];
        for counts in all.iter().step_by(self.plan.mesh.model) {
            let counts = Vec::<f64>::try_from(counts)?;
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count as u64);
        }
        Ok(sums)
    }

    /// The rows, `[N, K]`, of a whole batch of so many examples, from those of each rank's share, in the batch's order and in
    /// the memory of the CPU. Rows of bf16 become fp32.
    ///
    /// # Errors
    /// What the collective and libtorch report.
    pub fn gather_rows(&mut self, own: &Tensor, global_examples: usize) -> Result<Tensor> {
        let mesh = self.plan.mesh;
        let rows = |data_rank| share(global_examples, mesh.data, data_rank).len() as i64;
        let kind = if own.kind() == Kind::BFloat16 { Kind::Float } else { own.kind() };
        // What is gathered is of one shape, and the first ranks have the larger shares.
        let padded = Tensor::f_zeros([rows(0), own.size()[1]], (kind, Device::Cpu))?;
        padded.f_narrow(0, 0, own.size()[0])?.f_copy_(own)?;
        let all = self.groups.world.all_gather(&Call::new("the logits", Stage::Agree), &padded)?;
        let parts =
            all.iter().step_by(mesh.model).enumerate().map(|(rank, part)| Ok(part.f_narrow(0, 0, rows(rank))?));
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The parameters, as they are now.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Times every layer from now on, until the profile is taken.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::new(self.plan.model.layers.len(), self.store.gradients.device()));
    }

    /// The time that each layer has taken since it was asked for, if it was.
    pub fn take_profile(&mut self) -> Option<Profile> {
        self.profile.take()
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

    /// What a layer computes in a pass: its errors name the layer, and its time is counted where a profile is taken.
    pub(super) fn compute<T>(
        &mut self,
        pass: Pass,
        layer: LayerId,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let begin = self.profile.as_ref().map(Profile::now).transpose()?;
        let result = work(self).map_err(|error| self.in_layer(layer, error))?;
        if let (Some(profile), Some(begin)) = (&mut self.profile, begin) {
            profile.count(pass, layer, begin)?;
        }
        Ok(result)
    }

    /// Enters the phase after a collective.
    pub(super) fn leave_collective(&mut self, next: Phase) {
        self.watch.enter(next);
    }

    pub(super) fn in_layer(&self, layer: LayerId, error: Error) -> Error {
        error.within(format!("rank {}: layer {}", self.rank, self.plan.model.layers[layer].name))
    }
}
