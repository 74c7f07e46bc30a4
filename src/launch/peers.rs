//! What the processes of a run tell each other when they write a checkpoint together, each its own slices of the files: notes
//! in the store, over a connection of the thread that writes, which waits for the others while the ranks go on.

use super::board::Board;
use super::world::World;
use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a thread waits between two looks whether its run has ended.
const LOOK: Duration = Duration::from_millis(500);
/// How long the store may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the first rank, which may serve the store, waits for the others to have heard what it told last.
const FAREWELL: Duration = Duration::from_secs(2);
/// A file by which ranks find out whether they share a folder.
const PROBE: &str = ".shared";

/// The processes of a run, one a rank.
pub struct Peers {
    board: Board,
    /// The rank of this process.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    left: Arc<AtomicBool>,
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
            let _ = fs::write(&probe, &mark);
            Ok(mark.into_bytes())
        })?;
        let mut all_see = true;
        for number in 0..size {
            let seen = world.share(&format!("sees/{number}"), number, || {
                let sees = fs::read(&probe).is_ok_and(|found| found == mark);
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
        Ok(Some(Self { board: world.board(ANSWER)?, rank, size, left: Arc::default() }))
    }

    /// What makes every wait end, from another thread, when the run has ended.
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.left))
    }

    /// Tells the others what came of something, under a name that is used once.
    ///
    /// # Errors
    /// The store's.
    pub fn tell<T: Serialize>(&self, name: &str, outcome: &Result<T>) -> Result<()> {
        let note = serde_json::to_vec(outcome).map_err(|error| Error::failed(format!("{name}: {error}")))?;
        self.board.post(&key(name), &note)
    }

    /// What another has told under a name, however long that takes.
    ///
    /// # Errors
    /// What it told, if that is an error; the store's; or the run has ended.
    pub fn hear<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        while !self.left.load(Ordering::Relaxed) {
            if let Some(note) = self.board.wait_within(&key(name), LOOK)? {
                let told: Result<T> =
                    serde_json::from_slice(&note).map_err(|error| Error::failed(format!("{name}: {error}")))?;
                return told;
            }
        }
        Err(Error::PeerGone("the run has ended".into()))
    }

    /// Waits until all have heard what the first has told last under a name: its store may end with it.
    pub fn part(&self, name: &str) {
        let heard = |rank: usize| key(&format!("{name}/heard/{rank}"));
        if self.rank > 0 {
            let _ = self.board.post(&heard(self.rank), &[]);
        } else {
            (1..self.size).for_each(|rank| drop(self.board.wait_within(&heard(rank), FAREWELL)));
        }
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

fn key(name: &str) -> String {
    format!("checkpoint/{name}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::launch::world::tests::rank;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Two ranks, each in a folder, and the store of the first, which they meet in.
    pub fn two(folders: [&Path; 2]) -> (World, [Option<Peers>; 2]) {
        let first = rank(0, 2, 0, LIMIT);
        let port = first.port();
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
}
