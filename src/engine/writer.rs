//! Writes checkpoints, alone or with the other processes of a run, and keeps which one is the best: an epoch is evaluated
//! while its checkpoint is being written.
//!
//! Together: the first process makes the unfinished folder and the files; each writes its slices and waits until they are on the
//! disk; when all have, the first writes `state.json` and gives the folder its name. Whatever fails anywhere, all hear of it.

use super::background::Work;
use super::layout::Layout;
use super::saving::{Saving, Standing};
use super::slices::{Draft, Numbered, Sums};
use crate::checkpoint::{Best, State};
use crate::error::{Error, Result};
use crate::launch::peers::{Note, Peers};
use crate::plan::Plan;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What writes the checkpoints of a run.
pub struct Writer {
    saving: Saving,
    plan: Arc<Plan>,
    layouts: Vec<Layout>,
    peers: Option<Peers>,
    best: Option<Best>,
    /// The step of the newest checkpoint that is whole.
    newest: Option<u64>,
    /// Why no link leads to the best, where the file system refused it.
    unlinked: Option<Error>,
}

impl Writer {
    /// What writes, with others if there are some, in a run that goes on after a checkpoint, if it does.
    pub fn new(saving: Saving, plan: Arc<Plan>, peers: Option<Peers>, after: Option<&State>) -> Self {
        let best = after.and_then(|state| state.best).filter(|best| saving.checkpoints().at(best.step).is_dir());
        let layouts = saving.layouts(&plan);
        Self { saving, plan, layouts, peers, best, newest: after.map(|state| state.position.step), unlinked: None }
    }

    /// The first process's part, or that of the only one.
    fn lead(&self, peers: Option<&Peers>, standing: Standing, shards: Result<&[Numbered]>) -> Result<()> {
        let step = standing.position.step;
        let draft = shards.and_then(|shards| Ok((Draft::of(&self.plan, shards)?, shards)));
        let begun = draft.and_then(|(draft, shards)| Ok((self.saving.begin(step, &draft)?, draft, shards)));
        if let Some(peers) = peers {
            let told = peers.tell(step, Note::Begun, &begun.as_ref().map(|_| ()).map_err(Error::clone));
            // Who does not hear of the begin hears of the end.
            told.inspect_err(|error| drop(peers.tell::<()>(step, Note::End, &Err(error.clone()))))?;
        }
        let (unfinished, draft, shards) = begun?;
        let own = self.slices(&draft, &unfinished, shards);
        let of_others = peers.into_iter().flat_map(|peers| (1..peers.size).map(move |rank| (peers, rank)));
        let of_others = of_others.map(|(peers, rank)| {
            let heard = peers.hear(step, Note::Slices(rank), Some(Note::Parted(rank)));
            heard.map_err(|error| error.within(format!("rank {rank}")))
        });
        // Nobody writes any more when all have told.
        let all: Vec<Result<Sums>> = [own].into_iter().chain(of_others).collect();
        let sums = all.into_iter().collect::<Result<Vec<Sums>>>();
        let ended = self.saving.finish(&draft, &self.plan, standing, sums);
        if let Some(peers) = peers {
            // It is what it is, whether others hear of it or not.
            let _ = peers.tell(step, Note::End, &ended);
        }
        ended
    }

    /// The part of every other process.
    fn follow(&self, peers: &Peers, step: u64, shards: Result<&[Numbered]>) -> Result<()> {
        peers.hear::<()>(step, Note::Begun, Some(Note::End))?;
        let unfinished = self.saving.checkpoints().unfinished(step);
        let written = shards.and_then(|shards| self.slices(&Draft::of(&self.plan, shards)?, &unfinished, shards));
        peers.tell(step, Note::Slices(peers.rank), &written)?;
        peers.hear(step, Note::End, None)
    }

    fn slices(&self, draft: &Draft, unfinished: &Path, shards: &[Numbered]) -> Result<Sums> {
        draft.write(unfinished, &self.plan, &self.layouts, shards)
    }

    /// Lets the link `best` lead to the best checkpoint, and removes what is not to be kept beside the newest; the first
    /// process does. The newest is there, whatever becomes of others: what the file system refuses the next write tries again.
    fn tidy(&mut self, newest: u64) {
        if self.peers.as_ref().is_some_and(|peers| peers.rank > 0) {
            return;
        }
        let (checkpoints, best) = (self.saving.checkpoints(), self.best.map(|best| best.step));
        self.unlinked = checkpoints.link(best).err();
        let _ = checkpoints.thin_out(newest, self.saving.keep(), best);
    }
}

impl Work for Writer {
    fn write(&mut self, standing: Standing, shards: Result<&[Numbered], &Error>) -> Result<PathBuf> {
        let step = standing.position.step;
        let standing = Standing { best: self.best, ..standing };
        let shards = shards.map_err(Error::clone);
        let written = match &self.peers {
            Some(peers) if peers.rank > 0 => self.follow(peers, step, shards),
            peers => self.lead(peers.as_ref(), standing, shards),
        };
        self.newest = written.is_ok().then_some(step);
        if written.is_ok() {
            self.tidy(step);
        }
        if let Some(peers) = &mut self.peers {
            peers.part(step);
        }
        written.map(|()| self.saving.checkpoints().at(step))
    }

    fn score(&mut self, score: Best) {
        // That of an empty test set is not a number, and never better.
        let before = self.best.map_or(f64::NEG_INFINITY, |best| best.test_accuracy);
        let is_better = score.test_accuracy > before;
        if self.newest != Some(score.step) || !is_better {
            return;
        }
        self.best = Some(score);
        self.tidy(score.step);
    }

    fn best(&self) -> Option<Best> {
        self.best
    }

    fn unlinked(&self) -> Option<&Error> {
        self.unlinked.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, Position};
    use crate::engine::job::plan_of;
    use crate::engine::rank::Shard;
    use crate::launch::peers::tests::two;
    use crate::recipe::Layered;
    use std::fs;
    use std::thread;
    use tch::{Kind, Tensor};

    fn writer(folder: &Path, peers: Option<Peers>) -> Writer {
        let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
        for assignment in ["model.name=tiny", "parallel.mesh=1x2", "parallel.bucket=4KiB", "train.precision=fp32"] {
            layered.set(assignment, "test").unwrap();
        }
        let recipe = layered.recipe().unwrap();
        let plan = Arc::new(plan_of(&recipe).unwrap());
        Writer::new(Saving::new(&recipe, folder).unwrap(), plan, peers, None)
    }

    /// A shard of each of two ranks, which hold the bias of the last layer alike.
    fn shards(writer: &Writer) -> [Numbered; 2] {
        [0, 1].map(|rank| {
            let layout = &writer.layouts[rank];
            let all = Tensor::arange(layout.size as i64, (Kind::Float, tch::Device::Cpu)) + 10_000 * rank as i64;
            let alike = layout.entries.iter().filter(|entry| !entry.share.is_split());
            alike.for_each(|entry| drop(entry.view(&all).unwrap().f_fill_(7.0).unwrap()));
            let parts = |of: &Tensor| -> Vec<Tensor> {
                layout.buckets.iter().map(|part| of.narrow(0, part.start as i64, part.len() as i64)).collect()
            };
            let masters = parts(&all);
            (rank, Shard { masters, velocities: Some(parts(&(&all * 2))) })
        })
    }

    fn at(step: u64) -> Standing {
        Standing { position: Position { step, ..Position::default() }, ..Standing::default() }
    }

    #[test]
    fn what_processes_write_together_is_what_one_writes() {
        let (alone, together) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut one = writer(alone.path(), None);
        let place = one.write(at(3), Ok(&shards(&one))).unwrap();
        let of_process = |peers: Option<Peers>| {
            let folder = together.path().to_owned();
            thread::spawn(move || {
                let peers = peers.unwrap();
                let rank = peers.rank;
                let mut writer = writer(&folder, Some(peers));
                let own = [shards(&writer).into_iter().nth(rank).unwrap()];
                // What one cannot write there is no checkpoint of, and each knows; then all is as it was.
                let broken = Error::failed("no memory for a copy");
                let failed = if rank == 1 { writer.write(at(2), Err(&broken)) } else { writer.write(at(2), Ok(&own)) };
                (failed.unwrap_err().to_string(), writer.write(at(3), Ok(&own)).unwrap(), writer)
            })
        };
        let (store, peers) = two([together.path(), together.path()]);
        let keys = store.keys();
        let [first, second] = peers.map(of_process).map(|process| process.join().unwrap());
        let mut peers = first.2.peers.unwrap();
        peers.leaver().leave();
        peers.part(4);
        assert_eq!(store.keys(), keys, "notes of checkpoints that are done are still there");
        for (failed, written) in [(first.0, first.1), (second.0, second.1)] {
            assert_eq!(failed, "rank 1: no memory for a copy");
            Checkpoint::open(&written).unwrap();
            for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
                let (found, expected) = (fs::read(written.join(file)).unwrap(), fs::read(place.join(file)).unwrap());
                assert!(found == expected, "{file}");
            }
        }
        assert_eq!(
            fs::read_dir(together.path().join("checkpoints")).unwrap().count(),
            1,
            "no step 2, nothing unfinished"
        );
    }

    #[test]
    fn the_best_is_one_that_was_written_and_is_there_and_no_worse_than_any_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path(), None);
        let own = shards(&writer);
        let best = |step| Some(Best { step, test_accuracy: 0.5 });
        writer.write(at(1), Err(&Error::failed("no memory for a copy"))).unwrap_err();
        writer.score(Best { step: 1, test_accuracy: 0.9 });
        assert_eq!(writer.best(), None, "of step 1 there is no checkpoint");
        writer.write(at(2), Ok(&own)).unwrap();
        writer.score(Best { step: 2, test_accuracy: f64::NAN });
        assert_eq!(writer.best(), None, "an empty test set tells nothing");
        writer.write(at(3), Ok(&own)).unwrap();
        writer.score(Best { step: 3, test_accuracy: 0.5 });
        assert_eq!(writer.best(), best(3));
        // A run that goes on knows of it as long as it is there.
        writer.write(at(4), Ok(&own)).unwrap();
        let folder = writer.saving.checkpoints().at(4);
        let state = Checkpoint::open(&folder).unwrap().state;
        let again =
            |writer: &Writer| Writer::new(writer.saving.clone(), Arc::clone(&writer.plan), None, Some(&state)).best();
        assert_eq!(again(&writer), best(3));
        fs::remove_dir_all(writer.saving.checkpoints().at(3)).unwrap();
        assert_eq!(again(&writer), None);
    }

    #[test]
    fn whoever_waits_for_a_process_that_has_gone_can_be_told_to_leave() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, [first, _second]) = two([folder.path(), folder.path()]);
        let first = first.unwrap();
        let leaver = first.leaver();
        let mut writer = writer(folder.path(), Some(first));
        let waiting = thread::spawn(move || {
            let [own, _] = shards(&writer);
            writer.write(at(1), Ok(&[own])).unwrap_err().to_string()
        });
        leaver.leave();
        assert_eq!(waiting.join().unwrap(), "rank 1: the run has ended");
        assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 0);
    }
}
