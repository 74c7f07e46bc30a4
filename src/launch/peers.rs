//! What the processes of a run tell each other when they write a checkpoint together, each its own slices of the files: notes
//! in the store, over a connection of the thread that writes, which waits for the others while the ranks go on.

use super::board::Board;
use super::patience::Patience;
use super::world::World;
use crate::error::{Error, Result};
use crate::file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a thread waits between two looks whether its run has ended.
const LOOK: Duration = Duration::from_millis(500);
/// How long the store may take to let in the thread that writes.
const ADMISSION: Duration = Duration::from_secs(30);
/// How long the first rank, which may serve the store, waits for the others to have heard all of a checkpoint.
const FAREWELL: Duration = Duration::from_secs(2);
/// A file by which ranks find out whether they share a folder.
const PROBE: &str = ".shared";

/// What a process tells of a checkpoint.
#[derive(Clone, Copy)]
pub enum Note {
    /// The first: whether the files are there to be written to.
    Begun,
    /// A rank: what it wrote of them.
    Slices(usize),
    /// The first: what became of the checkpoint.
    End,
    /// A rank: that it looks at no note of this checkpoint any more.
    Parted(usize),
}

/// The processes of a run, one a rank.
pub struct Peers {
    board: Board,
    /// The rank of this process.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// How long the store may be silent.
    limit: Duration,
    left: Arc<AtomicBool>,
    /// The steps of checkpoints whose notes are still up; kept by the first.
    noted: Vec<u64>,
}

impl Peers {
    /// The processes of a run that all see one folder, of which every one must ask; `None`: some do not see it.
    ///
    /// # Errors
    /// The store's.
    pub fn sharing(world: &World, folder: &Path) -> Result<Option<Self>> {
        let (rank, size) = (world.who.rank, world.who.size);
        let probe = folder.join(PROBE);
        let mark = world.share("mark", 0, || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let mark = format!("{} {}", process::id(), now.as_nanos());
            // A folder that cannot be written to is seen by nobody; what is wrong is told when it is written to.
            let _ = file::anew(&probe).and_then(|mut file| file.write_all(mark.as_bytes()));
            Ok(mark.into_bytes())
        })?;
        let mut all_see = true;
        for number in 0..size {
            let seen = world.share(&format!("sees/{number}"), number, || {
                let sees = file::bytes(&probe).is_ok_and(|found| found == mark);
                Ok(vec![u8::from(sees)])
            })?;
            all_see &= seen == [1];
        }
        if rank == 0 {
            let _ = fs::remove_file(&probe);
        }
        if !all_see {
            return Ok(None);
        }
        let (board, limit) = (world.board(ADMISSION)?, world.limit);
        Ok(Some(Self { board, rank, size, limit, left: Arc::default(), noted: Vec::new() }))
    }

    /// What makes every wait end, from another thread, when the run has ended.
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.left))
    }

    /// Tells the others what came of something in the checkpoint of a step, once. They wait for it: a store that is silent for
    /// a while is told again.
    ///
    /// # Errors
    /// The store has gone, or has been silent for too long, or the run has ended meanwhile.
    pub fn tell<T: Serialize>(&self, step: u64, note: Note, outcome: &Result<T>) -> Result<()> {
        let name = key(step, note);
        let told = serde_json::to_vec(outcome).map_err(|error| Error::failed(format!("{name}: {error}")))?;
        self.post(&name, &told)
    }

    fn post(&self, name: &str, told: &[u8]) -> Result<()> {
        let mut patience = Patience::new(&self.board, self.limit);
        while patience.bear(|| self.board.post(name, told))?.is_none() {
            self.go_on()?;
        }
        Ok(())
    }

    /// # Errors
    /// The run has ended: nothing is to be waited for any more.
    fn go_on(&self) -> Result<()> {
        if self.left.load(Ordering::Relaxed) { Err(Error::PeerGone("the run has ended".into())) } else { Ok(()) }
    }

    /// What another has told of the checkpoint of a step, however long that takes. It tells `last` after it: where that is
    /// there and the note is not, it has given up.
    ///
    /// # Errors
    /// What it told, if that is an error; it has given up; the store has gone, or has been silent for too long; or the run has
    /// ended.
    pub fn hear<T: DeserializeOwned>(&self, step: u64, note: Note, last: Option<Note>) -> Result<T> {
        let (name, last) = (key(step, note), last.map(|last| key(step, last)));
        let mut patience = Patience::new(&self.board, self.limit);
        let mut given_up = false;
        loop {
            self.go_on()?;
            let Some(told) = patience.bear(|| self.board.wait_within(&name, LOOK))? else { continue };
            if let Some(told) = told {
                let told: Result<T> =
                    serde_json::from_slice(&told).map_err(|error| Error::failed(format!("{name}: {error}")))?;
                return told;
            }
            // The note was looked for once more after the last one was seen.
            if given_up {
                return Err(Error::failed(format!("{name} was not told: who was to tell it has given up")));
            }
            if let Some(last) = &last {
                given_up = patience.bear(|| self.board.has(last))?.unwrap_or(false);
            }
        }
    }

    /// Is done with the checkpoint of a step, whatever became of it. The first may still wait for this one's slices, and then
    /// until the others are done too, for its store may end with it; it takes down their notes: a store keeps what nobody
    /// removes.
    pub fn part(&mut self, step: u64) {
        if self.rank > 0 {
            let _ = self.post(&key(step, Note::Parted(self.rank)), &[]);
            return;
        }
        self.noted.push(step);
        let deadline = Instant::now() + FAREWELL;
        for rank in (1..self.size).take_while(|_| !self.left.load(Ordering::Relaxed)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = self.board.wait_within(&key(step, Note::Parted(rank)), left);
        }
        self.take_down();
    }

    /// Takes down the notes of those checkpoints with which every process is done; the others come later.
    fn take_down(&mut self) {
        let Self { board, size, noted, .. } = self;
        let ranks = 1..*size;
        let all_parted = |step| ranks.clone().all(|rank| board.has(&key(step, Note::Parted(rank))).unwrap_or(false));
        let take_down = |step| {
            let of_ranks = ranks.clone().flat_map(|rank| [Note::Slices(rank), Note::Parted(rank)]);
            let mut notes = [Note::Begun, Note::End].into_iter().chain(of_ranks);
            notes.try_for_each(|note| board.take_down(&key(step, note)))
        };
        noted.retain(|&step| !all_parted(step) || take_down(step).is_err());
    }
}

/// See [`Peers::leaver`].
pub struct Leaver(Arc<AtomicBool>);

impl Leaver {
    /// Ends the waits.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn key(step: u64, note: Note) -> String {
    match note {
        Note::Begun => format!("checkpoint/{step}/begun"),
        Note::Slices(rank) => format!("checkpoint/{step}/slices/{rank}"),
        Note::End => format!("checkpoint/{step}/end"),
        Note::Parted(rank) => format!("checkpoint/{step}/parted/{rank}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::launch::patience::tests::through;
    use crate::launch::world::tests::rank;
    use std::sync::Mutex;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Two ranks, each in a folder, and the store of the first, which they meet in.
    pub fn two(folders: [&Path; 2]) -> (World, [Option<Peers>; 2]) {
        two_by(folders, |port| port)
    }

    /// The same; the second gets to the first's port by another.
    fn two_by(folders: [&Path; 2], way: impl FnOnce(u16) -> u16) -> (World, [Option<Peers>; 2]) {
        let first = rank(0, 2, 0, LIMIT);
        let port = way(first.port());
        thread::scope(|scope| {
            let second = scope.spawn(move || {
                let second = rank(1, 2, port, LIMIT);
                Peers::sharing(&second, folders[1]).unwrap()
            });
            let peers = Peers::sharing(&first, folders[0]).unwrap();
            (first, [peers, second.join().unwrap()])
        })
    }

    #[test]
    fn folders_that_are_not_the_same_are_not_shared() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shared = |folders| two(folders).1.map(|peers| peers.is_some());
        assert_eq!(shared([here.path(), here.path()]), [true, true]);
        assert_eq!(shared([here.path(), there.path()]), [false, false]);
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_silence_that_outlasts_a_call_ends_no_checkpoint() {
        let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(())));
        let (_store, peers) = two_by([folder.path(), folder.path()], |port| through(&gate, port));
        let [first, second] = peers.map(Option::unwrap);
        let held = gate.lock().unwrap();
        thread::scope(|scope| {
            let hearing = scope.spawn(|| second.hear::<()>(1, Note::Begun, Some(Note::End)));
            while !second.board.is_silent() {
                thread::sleep(LOOK);
            }
            first.tell(1, Note::Begun, &Ok(())).unwrap();
            drop(held);
            assert_eq!(hearing.join().unwrap(), Ok(()));
            second.tell(1, Note::Slices(1), &Ok(7)).unwrap();
            assert_eq!(first.hear(1, Note::Slices(1), Some(Note::Parted(1))), Ok(7));
        });
    }

    /// As when the store was silent for too long for one of them.
    #[test]
    fn whoever_gives_up_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, peers) = two([folder.path(), folder.path()]);
        let [first, mut second] = peers.map(Option::unwrap);
        second.part(1);
        let gone = first.hear::<()>(1, Note::Slices(1), Some(Note::Parted(1))).unwrap_err().to_string();
        assert_eq!(gone, "checkpoint/1/slices/1 was not told: who was to tell it has given up");
        first.tell::<()>(2, Note::End, &Err(Error::failed("the store did not answer"))).unwrap();
        let gone = second.hear::<()>(2, Note::Begun, Some(Note::End)).unwrap_err().to_string();
        assert_eq!(gone, "checkpoint/2/begun was not told: who was to tell it has given up");
        // What was told before counts.
        second.tell(3, Note::Slices(1), &Ok(7)).unwrap();
        second.part(3);
        assert_eq!(first.hear(3, Note::Slices(1), Some(Note::Parted(1))), Ok(7));
    }

    #[test]
    fn notes_of_a_checkpoint_stay_until_every_process_is_done_with_it_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let (world, peers) = two([folder.path(), folder.path()]);
        let [mut first, mut second] = peers.map(Option::unwrap);
        let before = world.keys();
        // The second is slow: it is done with a checkpoint only when the first is about to begin the next.
        let leaver = first.leaver();
        leaver.leave();
        for step in 1..=4 {
            first.tell(step, Note::Begun, &Ok(())).unwrap();
            second.tell(step, Note::Slices(1), &Ok(())).unwrap();
            first.tell::<()>(step, Note::End, &Err(Error::failed("the disk is full"))).unwrap();
            first.part(step);
            assert_eq!(world.keys(), before + 3, "those of step {step} and no other");
            second.part(step);
        }
        first.take_down();
        assert_eq!(world.keys(), before);
        assert!(first.noted.is_empty());
    }
}
