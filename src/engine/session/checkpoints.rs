//! The loop's checkpoints: when the ranks wait for a copy, and what is said of its writing.

use super::Session;
use crate::engine::background::{Background, Written};
use crate::engine::rank::Shard;
use crate::engine::worker::{Order, Report};
use crate::error::Result;
use crate::events::{Event, Saved};
use std::sync::Arc;
use std::time::Instant;

impl Session<'_> {
    /// Has a checkpoint written, unless that was tried after this step: the ranks wait for a copy of what they hold. One
    /// that cannot be written does not end the run. Only the process of the first rank writes.
    pub(super) fn save(&mut self) -> Result<()> {
        let step = self.position.step;
        if self.job.saving.is_none() || self.tried == Some(step) {
            return Ok(());
        }
        self.tried = Some(step);
        let begin = Instant::now();
        // One is written at a time.
        self.tell_of_checkpoint(true);
        let Some(shards) = self.shards()? else {
            self.saved = Some(step);
            return Ok(());
        };
        self.position.whole_time = self.whole_time();
        if let Err(problem) = self.write(&shards, begin) {
            self.say(Event::NotSaved { step, problem });
        }
        Ok(())
    }

    fn write(&mut self, shards: &[Shard], since: Instant) -> Result<()> {
        let Some(saving) = &self.job.saving else { return Ok(()) };
        let background = match &mut self.background {
            Some(background) => background,
            none => none.insert(Background::start(saving.clone(), Arc::clone(&self.job.assignment.plan))?),
        };
        background.write(self.position, shards, since)
    }

    /// Says what became of the checkpoint under way, if that is known; with `wait` it is waited for.
    pub(super) fn tell_of_checkpoint(&mut self, wait: bool) {
        let written = self.background.as_mut().and_then(|background| background.finished(wait));
        let Some(Written { step, folder, held_up, time }) = written else { return };
        match folder {
            Ok(folder) => {
                self.saved = Some(step);
                self.say(Event::Saved(Saved { step, folder, held_up, time }));
            }
            Err(problem) => self.say(Event::NotSaved { step, problem }),
        }
    }

    /// What each rank holds, in rank order, if the first rank is in this process.
    fn shards(&mut self) -> Result<Option<Vec<Shard>>> {
        self.order(self.orders.iter().map(|_| Order::Save))?;
        let (mut ended, mut found) = (0, None);
        while ended < self.orders.len() {
            match self.report()? {
                Report::Shards(shards) => found = Some(shards),
                Report::Done { .. } => ended += 1,
                Report::Step { .. } | Report::Evaluated(_) => {}
            }
        }
        Ok(found)
    }
}
