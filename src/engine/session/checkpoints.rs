//! The loop's checkpoints: when the ranks wait for a copy, and what is said of its writing.

use super::Session;
use crate::checkpoint::Best;
use crate::engine::background::{Background, Ended, Written};
use crate::engine::saving::Standing;
use crate::engine::slices::Numbered;
use crate::engine::worker::{Assignment, Order, Report};
use crate::error::{Error, Result};
use crate::events::{Event, Saved};
use crate::layers::Outcome;
use std::sync::Arc;
use std::time::Instant;

/// What the loop knows of its checkpoints.
pub(super) struct Checkpoints {
    /// Whether the first rank is in this process.
    pub speaks: bool,
    /// Whether this process writes: that of the first rank does, and others where each writes its own slices.
    pub writes: bool,
    /// Whether what other processes hold is brought to the first rank.
    pub to_first: bool,
    /// The step after which one was asked for last: the same on every rank.
    pub tried: Option<u64>,
    /// The step of the newest one that is written.
    pub saved: Option<u64>,
    /// Whether it was said that no link leads to the best.
    pub unlinked: bool,
    /// What writes them, once there is something to do.
    pub background: Option<Background>,
}

impl Session<'_> {
    /// Has a checkpoint written, unless that was tried after this step: the ranks wait for a copy of what they hold. One
    /// that cannot be written does not end the run.
    pub(super) fn save(&mut self) -> Result<()> {
        let step = self.position.step;
        if self.job.saving.is_none() || self.checkpoints.tried == Some(step) {
            return Ok(());
        }
        self.checkpoints.tried = Some(step);
        let begin = Instant::now();
        self.say(Event::Saving);
        // One is written at a time.
        self.tell_of_checkpoint(true);
        let shards = self.shards()?;
        if !self.checkpoints.writes {
            // The first rank's process knows better.
            self.checkpoints.saved = Some(step);
            return Ok(());
        }
        self.position.whole_time = self.whole_time();
        if let Err(problem) = self.write(&shards, begin) {
            self.not_saved(step, problem);
        }
        Ok(())
    }

    /// The process of the first rank says it for all.
    fn not_saved(&mut self, step: u64, problem: Error) {
        if self.checkpoints.speaks {
            self.say(Event::NotSaved { step, problem });
        }
    }

    /// Says once that no link leads to the best checkpoint.
    fn not_linked(&mut self, problem: Option<Error>) {
        if let Some(problem) = problem.filter(|_| self.checkpoints.speaks && !self.checkpoints.unlinked) {
            self.checkpoints.unlinked = true;
            self.say(Event::NotLinked(problem));
        }
    }

    fn write(&mut self, shards: &[Numbered], since: Instant) -> Result<()> {
        let (position, assignment) = (self.position, &self.job.assignment);
        let learning_rate = assignment.learning_rate_of(position.step, position.plateau);
        let standing = Standing { position, learning_rate, best: None, steps_per_epoch: assignment.steps_per_epoch };
        if let Some(background) = self.background()? {
            background.write(standing, shards, since);
        }
        Ok(())
    }

    /// What writes, where this process does.
    fn background(&mut self) -> Result<Option<&mut Background>> {
        let Some(saving) = self.job.saving.as_ref().filter(|_| self.checkpoints.writes) else { return Ok(None) };
        let background = match self.checkpoints.background.take() {
            Some(background) => background,
            None => {
                let Assignment { plan, begin, .. } = &self.job.assignment;
                let after = begin.as_ref().map(|checkpoint| &checkpoint.state);
                Background::start(saving.clone(), Arc::clone(plan), self.job.peers.take(), after)?
            }
        };
        Ok(Some(self.checkpoints.background.insert(background)))
    }

    /// Notes how the weights evaluated, if there is to be a checkpoint of them.
    pub(super) fn score(&mut self, test: &Outcome) -> Result<()> {
        let step = self.position.step;
        if self.checkpoints.tried == Some(step)
            && let Some(background) = self.background()?
        {
            background.score(Best { step, test_accuracy: test.accuracy() });
        }
        Ok(())
    }

    /// Waits for what is being written, and says what became of it; gives the best checkpoint.
    pub(super) fn end_checkpoints(&mut self) -> Option<Best> {
        self.tell_of_checkpoint(true);
        match self.checkpoints.background.take() {
            Some(background) => {
                let Ended { best, unlinked } = background.end();
                self.not_linked(unlinked);
                best
            }
            None => self.job.assignment.begin.as_ref().and_then(|checkpoint| checkpoint.state.best),
        }
    }

    /// Says what became of the checkpoint under way, if that is known; with `wait` it is waited for.
    pub(super) fn tell_of_checkpoint(&mut self, wait: bool) {
        let written = self.checkpoints.background.as_mut().and_then(|background| background.finished(wait));
        let Some(Written { step, folder, held_up, time, unlinked }) = written else { return };
        self.not_linked(unlinked);
        match folder {
            Ok(folder) => {
                self.checkpoints.saved = Some(step);
                self.say(Event::Saved(Saved { step, folder, held_up, time }));
            }
            Err(problem) => self.not_saved(step, problem),
        }
    }

    /// What the ranks of this process hold, or all ranks, where they bring it to the first, which is in this one.
    fn shards(&mut self) -> Result<Vec<Numbered>> {
        let to_first = self.checkpoints.to_first;
        self.order(self.orders.iter().map(|_| Order::Save { to_first }))?;
        let (mut ended, mut found) = (0, Vec::new());
        while ended < self.orders.len() {
            match self.report()? {
                Report::Shards(shards) => found.extend(shards),
                Report::Done { .. } => ended += 1,
                Report::Step { .. } | Report::Evaluated(_) => {}
            }
        }
        // In rank order, so that each finds its memory of the last copy.
        found.sort_unstable_by_key(|(rank, _)| *rank);
        Ok(found)
    }
}
