//! Checkpoints that are written while training goes on. The ranks wait for a copy of what they hold; a thread of its own
//! writes it. One is written at a time, and the memory of the copy is kept for the next.

use super::rank::Shard;
use super::saving::{Saving, Standing};
use super::slices::Numbered;
use super::writer::Writer;
use crate::checkpoint::{Best, State};
use crate::error::{Error, Result};
use crate::launch::environment::yield_to_training;
use crate::launch::peers::{Leaver, Peers};
use crate::launch::threads::words;
use crate::plan::Plan;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// See [`Work::unlinked`].
    pub unlinked: Option<Error>,
}

/// What is known of the best checkpoint when all is done.
#[derive(Default)]
pub struct Ended {
    /// The best checkpoint.
    pub best: Option<Best>,
    /// See [`Work::unlinked`].
    pub unlinked: Option<Error>,
}

/// What a thread of its own does.
pub trait Work: Send + 'static {
    /// Writes a checkpoint of what the ranks of this process hold, if that could be copied; gives its folder.
    ///
    /// # Errors
    /// There is none.
    fn write(&mut self, standing: Standing, shards: Result<&[Numbered], &Error>) -> Result<PathBuf>;

    /// Notes how the newest checkpoint evaluated, if it could be written.
    fn score(&mut self, score: Best);

    /// The best checkpoint.
    fn best(&self) -> Option<Best>;

    /// Why no link leads to the best checkpoint, if there is none.
    fn unlinked(&self) -> Option<&Error>;
}

/// What the thread is to do.
enum Task {
    /// Write a checkpoint, from a copy if there is one: other processes are to hear of it if there is not.
    Write(Box<Standing>, Result<Vec<Numbered>>),
    /// Note how a checkpoint evaluated.
    Score(Best),
}

/// What came of it, and its memory back.
struct Done {
    folder: Result<PathBuf>,
    time: Duration,
    shards: Vec<Numbered>,
    unlinked: Option<Error>,
}

/// A checkpoint that is being written.
struct UnderWay {
    step: u64,
    held_up: Duration,
}

/// The thread that writes. When this is dropped, as after an error, the checkpoint at hand is written to its end first, unless
/// other processes write it too: they may be gone, and who waited for them would be killed before it had said what is wrong. Then
/// it is given up, and the one before it is the newest.
pub struct Background {
    tasks: Option<Sender<Task>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<Ended>>,
    under_way: Option<UnderWay>,
    /// The memory of the last copy, while nothing is under way.
    kept: Option<Vec<Numbered>>,
    /// Ends the thread's waiting for other processes.
    leaver: Option<Leaver>,
}

impl Background {
    /// Starts the thread, which writes with the other processes of the run if it has any, after the checkpoint that the run goes
    /// on from, if it does.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(saving: Saving, plan: Arc<Plan>, peers: Option<Peers>, after: Option<&State>) -> Result<Self> {
        let leaver = peers.as_ref().map(Peers::leaver);
        Self::of(Writer::new(saving, plan, peers, after), leaver)
    }

    fn of(mut work: impl Work, leaver: Option<Leaver>) -> Result<Self> {
        let (tasks, ordered) = unbounded();
        let (sender, done) = bounded(1);
        let run = move || {
            yield_to_training();
            let mut problem = None;
            for task in ordered {
                match task {
                    Task::Write(standing, shards) => {
                        let done = write(&mut work, *standing, shards);
                        let unlinked = problem.take().or_else(|| work.unlinked().cloned());
                        // If nobody listens any more, the run has ended with an error, and the checkpoint is there all the
                        // same.
                        let _ = sender.send(Done { unlinked, ..done });
                    }
                    Task::Score(score) => {
                        // A checkpoint that is whole stays one, and others come after it, whatever becomes of its score.
                        let noted = catch_unwind(AssertUnwindSafe(|| work.score(score)));
                        problem =
                            noted.err().map(|panic| Error::failed(format!("its thread panicked: {}", words(&*panic))));
                    }
                }
            }
            Ended { best: work.best(), unlinked: problem.or_else(|| work.unlinked().cloned()) }
        };
        let thread = thread::Builder::new().name("checkpoints".into()).spawn(run);
        let thread = thread.map_err(|error| Error::failed(format!("a thread cannot be started: {error}")))?;
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread), under_way: None, kept: None, leaver })
    }

    /// Copies what ranks of this process hold, and has it written. They have waited for this since `since`, and may go on when
    /// it returns. The one before must have been taken from [`Background::finished`].
    pub fn write(&mut self, standing: Standing, shards: &[Numbered], since: Instant) {
        let copy = copied(self.kept.take(), shards);
        self.under_way = Some(UnderWay { step: standing.position.step, held_up: since.elapsed() });
        self.have_done(Task::Write(Box::new(standing), copy));
    }

    /// Tells how the newest checkpoint evaluated, which may still be under way. One that could not be written is no best.
    pub fn score(&self, score: Best) {
        self.have_done(Task::Score(score));
    }

    fn have_done(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // If the thread has gone, `finished` says so.
            let _ = tasks.send(task);
        }
    }

    /// Waits until all is done.
    pub fn end(mut self) -> Ended {
        drop(self.tasks.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
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
        let folder = || Err(Error::failed("its thread panicked"));
        let gone = || Done { folder: folder(), time: Duration::ZERO, shards: Vec::new(), unlinked: None };
        let Done { folder, time, shards, unlinked } = done.unwrap_or_else(gone);
        self.kept = (!shards.is_empty()).then_some(shards);
        Some(Written { step, folder, held_up, time, unlinked })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // What other processes are to write may never come.
        self.leaver.iter().for_each(Leaver::leave);
        drop(self.tasks.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn write(work: &mut impl Work, standing: Standing, shards: Result<Vec<Numbered>>) -> Done {
    let begin = Instant::now();
    let folder = work.write(standing, shards.as_deref());
    Done { folder, time: begin.elapsed(), shards: shards.unwrap_or_default(), unlinked: None }
}

/// A copy of shards, in memory that was kept from one before.
fn copied(kept: Option<Vec<Numbered>>, shards: &[Numbered]) -> Result<Vec<Numbered>> {
    let room = |(rank, shard): &Numbered| Ok((*rank, room_for(shard)?));
    let mut copy = kept.map_or_else(|| shards.iter().map(room).collect::<Result<_>>(), Ok)?;
    copy.iter_mut().zip(shards).try_for_each(|((_, copy), (_, shard))| fill(copy, shard))?;
    Ok(copy)
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
    use crate::checkpoint::{Checkpoint, Position};
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
        (Background::start(saving, Arc::clone(&plan), None, None).unwrap(), plan, size)
    }

    fn at(step: u64) -> Standing {
        Standing { position: Position { step, ..Position::default() }, ..Standing::default() }
    }

    fn shard(size: i64) -> Shard {
        let of = |value: f64| vec![Tensor::full([size], value, (Kind::Float, Device::Cpu))];
        Shard { masters: of(1.0), velocities: Some(of(2.0)) }
    }

    #[test]
    fn what_is_written_is_what_was_there_when_the_ranks_went_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut background, plan, size) = of_quick(dir.path());
        let mut shards = [(0, shard(size))];
        let mut memory = Vec::new();
        for step in 1..=2 {
            background.write(at(step), &shards, Instant::now());
            let _ = shards[0].1.masters[0].g_add_scalar_(1.0);
            let _ = shards[0].1.velocities.as_mut().unwrap()[0].g_add_scalar_(1.0);
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
            memory.push(background.kept.as_ref().unwrap()[0].1.masters[0].data_ptr());
            assert!(background.finished(true).is_none(), "told twice");
        }
        assert_eq!(memory[0], memory[1], "the memory of the copy is used again");
    }

    /// Writes nothing, and panics over the score of step 1.
    struct Clumsy;

    impl Work for Clumsy {
        fn write(&mut self, standing: Standing, _: Result<&[Numbered], &Error>) -> Result<PathBuf> {
            Ok(PathBuf::from(standing.position.step.to_string()))
        }

        fn score(&mut self, score: Best) {
            assert!(score.step != 1, "no room for a name");
        }

        fn best(&self) -> Option<Best> {
            None
        }

        fn unlinked(&self) -> Option<&Error> {
            None
        }
    }

    #[test]
    fn a_checkpoint_is_one_whatever_becomes_of_its_score() {
        let mut background = Background::of(Clumsy, None).unwrap();
        let mut said = Vec::new();
        for step in 1..=3 {
            background.write(at(step), &[], Instant::now());
            background.score(Best { step, test_accuracy: 0.5 });
            let written = background.finished(true).unwrap();
            assert_eq!(written.folder, Ok(PathBuf::from(step.to_string())));
            said.push(written.unlinked.map(|problem| problem.to_string()));
        }
        assert!(background.end().unlinked.is_none());
        let [first, second, third] = &said[..] else { panic!("{said:?}") };
        assert!(first.is_none() && third.is_none(), "{said:?}");
        assert!(second.as_ref().is_some_and(|problem| problem.contains("panicked: no room for a name")), "{said:?}");
    }

    #[test]
    fn what_is_being_written_is_finished_though_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut background, _, size) = of_quick(dir.path());
        background.write(at(3), &[(0, shard(size))], Instant::now());
        drop(background);
        Checkpoint::open(&dir.path().join("checkpoints/step-00000003")).unwrap();
    }
}
