//! Where a run goes on: a checkpoint is held against what the run is to be.

use super::saving::described;
use super::session::Job;
use crate::checkpoint::{Checkpoint, Position};
use crate::error::{Error, Result};
use std::sync::Arc;
use tch::Kind;

impl Job {
    /// Lets the run begin where a checkpoint ends, as if it had not stopped.
    ///
    /// # Errors
    /// The checkpoint does not fit the model, the optimizer or the training set: says what differs.
    pub fn resume(&mut self, checkpoint: Arc<Checkpoint>) -> Result<()> {
        let settings = self.assignment.settings;
        let kind = if settings.kind == Kind::BFloat16 { Kind::Float } else { settings.kind };
        let tensors = described(&self.assignment.plan.model);
        checkpoint.model.check(&tensors, Some(kind))?;
        let folder = checkpoint.folder.display();
        match &checkpoint.optimizer {
            Some(optimizer) if settings.momentum > 0.0 => optimizer.check(&tensors, Some(kind))?,
            None if settings.momentum > 0.0 => {
                return Err(Error::usage(format!("{folder} has no velocities, but this run has momentum")));
            }
            _ => {}
        }
        let Position { step, epoch, steps_in_epoch, .. } = checkpoint.state.position;
        let per_epoch = self.assignment.steps_per_epoch;
        if !self.counts_as(&checkpoint) {
            return Err(Error::usage(format!(
                "{folder} is at step {step}, step {steps_in_epoch} of epoch {epoch}, but the training set gives \
                 {per_epoch} steps an epoch: it is not the one that the run began with"
            )));
        }
        if let Some((begun, here)) = self.other_train_set(&checkpoint) {
            return Err(Error::usage(format!(
                "{folder} was trained on {begun}, but the training set has {here}: the numbers would be another run's; \
                 --allow-changes goes on all the same"
            )));
        }
        self.begin_after(checkpoint)
    }

    /// The training set of a checkpoint, and that of this run, where they are not the same. Older checkpoints do not tell.
    pub fn other_train_set<'c>(&self, checkpoint: &'c Checkpoint) -> Option<(&'c str, String)> {
        let (begun, here) = (checkpoint.state.run.train_set.as_str(), self.train.identity());
        (!begun.is_empty() && begun != here).then_some((begun, here))
    }

    /// Lets the run begin where a checkpoint ends, though it is not the run any more that it was: with numbers of another type,
    /// velocities that begin at zero where there were none, and epochs of other lengths. Of the epoch at hand so many examples
    /// count as done as make whole batches.
    ///
    /// # Errors
    /// The checkpoint's tensors are not those of the model: names one, with both sizes.
    pub fn resume_changed(&mut self, checkpoint: Arc<Checkpoint>) -> Result<()> {
        let tensors = described(&self.assignment.plan.model);
        checkpoint.model.check(&tensors, None)?;
        if let Some(optimizer) = &checkpoint.optimizer {
            optimizer.check(&tensors, None)?;
        }
        self.begin_after(checkpoint)
    }

    fn begin_after(&mut self, checkpoint: Arc<Checkpoint>) -> Result<()> {
        let mut position = checkpoint.state.position;
        if !self.counts_as(&checkpoint) {
            position.steps_in_epoch = self.steps_of_epoch_done(&checkpoint);
        }
        let Position { step, epoch, steps_in_epoch, .. } = position;
        if epoch > self.epochs {
            let (folder, epochs) = (checkpoint.folder.display(), self.epochs);
            return Err(Error::usage(format!(
                "{folder} is in epoch {epoch} already, and the run is to end with epoch {epochs}"
            )));
        }
        let assignment = &mut self.assignment;
        let per_epoch = assignment.steps_per_epoch;
        // Where all epochs had as many steps as they have, this is `step`.
        let in_epochs = epoch.saturating_sub(1).saturating_mul(per_epoch).saturating_add(steps_in_epoch);
        assignment.steps_ahead = in_epochs as i64 - step as i64;
        let left = per_epoch.saturating_mul(self.epochs).saturating_sub(in_epochs);
        let limit = if self.most_steps == 0 { u64::MAX } else { self.most_steps };
        assignment.total_steps = step.saturating_add(left).min(limit);
        assignment.position = position;
        assignment.begin = Some(checkpoint);
        Ok(())
    }

    /// Whether a checkpoint's epochs have as many steps as this run's.
    fn counts_as(&self, checkpoint: &Checkpoint) -> bool {
        let Position { step, epoch, steps_in_epoch, .. } = checkpoint.state.position;
        let per_epoch = self.assignment.steps_per_epoch;
        let sound = epoch > 0 && steps_in_epoch <= per_epoch;
        match checkpoint.state.run.steps_per_epoch {
            // It does not tell: then they had so many if that gives its number of steps.
            0 => sound && (epoch - 1).saturating_mul(per_epoch).saturating_add(steps_in_epoch) == step,
            told => sound && told == per_epoch && checkpoint.state.run.batch_size == self.batch_size,
        }
    }

    /// The steps of this run that a checkpoint's epoch makes, whose epochs had other lengths.
    fn steps_of_epoch_done(&self, checkpoint: &Checkpoint) -> u64 {
        let Position { steps_in_epoch, epoch_outcome, .. } = checkpoint.state.position;
        let (per_epoch, examples) = (self.assignment.steps_per_epoch, epoch_outcome.examples);
        let whole = steps_in_epoch == checkpoint.state.run.steps_per_epoch || examples >= self.train.len() as u64;
        if whole { per_epoch } else { (examples / self.batch_size as u64).min(per_epoch) }
    }
}
