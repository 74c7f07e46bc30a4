//! Checkpoints that are written while training goes on. The ranks wait for a copy of what they hold; a thread of its own
//! writes it. One is written at a time, and the memory of the copy is kept for the next.

use super::rank::Shard;
use super::saving::Saving;
use crate::checkpoint::Position;
use crate::error::{Error, Result};
use crate::launch::environment::yield_to_training;
use crate::plan::Plan;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// A checkpoint that was written, or could not be.
pub struct Written {
    /// The steps done.
    pub step: u64,
    /// Where it lies, or why there is none.
    pub folder: Result<PathBuf>,
    /// The time in which the ranks waited.
    pub held_up: Duration,
    /// The time in which it was written.
    pub time: Duration,
}

/// What is to be written.
struct Task {
    position: Position,
    shards: Vec<Shard>,
}

/// What came of it, and its memory back.
struct Done {
    folder: Result<PathBuf>,
    time: Duration,
    shards: Vec<Shard>,
}

/// A checkpoint that is being written.
struct UnderWay {
    step: u64,
    held_up: Duration,
}

/// The thread that writes. When this is dropped, the checkpoint at hand is written to its end first.
pub struct Background {
    tasks: Option<Sender<Task>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    under_way: Option<UnderWay>,
    /// The memory of the last copy, while nothing is under way.
    kept: Option<Vec<Shard>>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(saving: Saving, plan: Arc<Plan>) -> Result<Self> {
        let (tasks, ordered) = bounded::<Task>(1);
        let (sender, done) = bounded(1);
        let run = move || {
            yield_to_training();
            for Task { position, shards } in ordered {
                let begin = Instant::now();
                let folder = saving.write(&plan, position, &shards);
                // If nobody listens any more, the run has ended with an error, and the checkpoint is there all the same.
                let _ = sender.send(Done { folder, time: begin.elapsed(), shards });
            }
        };
        let thread = thread::Builder::new().name("checkpoints".into()).spawn(run);
        let thread = thread.map_err(|error| Error::failed(format!("a thread cannot be started: {error}")))?;
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread), under_way: None, kept: None })
    }

    /// Copies what the ranks hold, and has it written. They have waited for this since `since`, and may go on when it
    /// returns. The one before must have been taken from [`Background::finished`].
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn write(&mut self, position: Position, shards: &[Shard], since: Instant) -> Result<()> {
        let mut copy = match self.kept.take() {
            Some(kept) => kept,
            None => shards.iter().map(room_for).collect::<Result<_>>()?,
        };
        copy.iter_mut().zip(shards).try_for_each(|(copy, shard)| fill(copy, shard))?;
        self.under_way = Some(UnderWay { step: position.step, held_up: since.elapsed() });
        if let Some(tasks) = &self.tasks {
            // If the thread has gone, `finished` says so.
            let _ = tasks.send(Task { position, shards: copy });
        }
        Ok(())
    }

    /// The checkpoint that was under way, if its writing has ended; with `wait` it is waited for.
    pub fn finished(&mut self, wait: bool) -> Option<Written> {
        self.under_way.as_ref()?;
        let done = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
        let has_gone = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if done.is_none() && !wait && !has_gone() {
            return None;
        }
        let UnderWay { step, held_up } = self.under_way.take()?;
        let gone =
            || Done { folder: Err(Error::failed("its thread panicked")), time: Duration::ZERO, shards: Vec::new() };
        let Done { folder, time, shards } = done.unwrap_or_else(gone);
        self.kept = (!shards.is_empty()).then_some(shards);
        Some(Written { step, folder, held_up, time })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.tasks.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Memory for a copy of a shard.
fn room_for(shard: &Shard) -> Result<Shard> {
    let room = |parts: &[Tensor]| -> Result<Vec<Tensor>> {
        parts.iter().map(|part| Ok(Tensor::f_empty(part.size(), (part.kind(), Device::Cpu))?)).collect()
    };
    let velocities = shard.velocities.as_deref().map(room).transpose()?;
    Ok(Shard { masters: room(&shard.masters)?, velocities })
}

fn fill(copy: &mut Shard, shard: &Shard) -> Result<()> {
    let to = copy.masters.iter_mut().chain(copy.velocities.iter_mut().flatten());
    let from = shard.masters.iter().chain(shard.velocities.iter().flatten());
    to.zip(from).try_for_each(|(to, from)| Ok(to.f_copy_(from).map(drop)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::engine::job::plan_of;
    use crate::engine::layout::Layout;
    use crate::engine::saving::described;
    use crate::recipe::Layered;
    use std::path::Path;
    use tch::Kind;

    /// What writes the checkpoints of a network in one bucket on one device, and its number of values.
    fn of_quick(folder: &Path) -> (Background, Arc<Plan>, i64) {
        let mut layered = Layered::from_recipe("quick").unwrap();
        layered.set("parallel.bucket=all", "test").unwrap();
        let recipe = layered.recipe().unwrap();
        let plan = Arc::new(plan_of(&recipe).unwrap());
        let saving = Saving::new(&recipe, folder).unwrap();
        let size = Layout::new(&plan, 0, 0).size as i64;
        (Background::start(saving, Arc::clone(&plan)).unwrap(), plan, size)
    }

    fn shard(size: i64) -> Shard {
        let of = |value: f64| vec![Tensor::full([size], value, (Kind::Float, Device::Cpu))];
        Shard { masters: of(1.0), velocities: Some(of(2.0)) }
    }

    #[test]
    fn what_is_written_is_what_was_there_when_the_ranks_went_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut background, plan, size) = of_quick(dir.path());
        let mut shards = [shard(size)];
        let mut memory = Vec::new();
        for step in 1..=2 {
            background.write(Position { step, ..Position::default() }, &shards, Instant::now()).unwrap();
            let _ = shards[0].masters[0].g_add_scalar_(1.0);
            let _ = shards[0].velocities.as_mut().unwrap()[0].g_add_scalar_(1.0);
            let written = background.finished(true).unwrap();
            assert_eq!(written.step, step);
            let checkpoint = Checkpoint::open(&written.folder.unwrap()).unwrap();
            for described in described(&plan.model) {
                let all = 0..described.len();
                for (file, expected) in [(&checkpoint.model, 0.0), (checkpoint.optimizer.as_ref().unwrap(), 1.0)] {
                    let found = file.reader().unwrap().values(&described.name, all.clone()).unwrap();
                    let expected = Tensor::full_like(&found, expected + step as f64);
                    assert_eq!(found, expected, "{} of step {step}", described.name);
                }
            }
            memory.push(background.kept.as_ref().unwrap()[0].masters[0].data_ptr());
            assert!(background.finished(true).is_none(), "told twice");
        }
        assert_eq!(memory[0], memory[1], "the memory of the copy is used again");
    }

    #[test]
    fn what_is_being_written_is_finished_though_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut background, _, size) = of_quick(dir.path());
        background.write(Position { step: 3, ..Position::default() }, &[shard(size)], Instant::now()).unwrap();
        drop(background);
        Checkpoint::open(&dir.path().join("checkpoints/step-00000003")).unwrap();
    }
}
