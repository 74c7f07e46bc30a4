//! The run that this process is a rank of, and the store in which it meets the others: each says that it has come, what
//! one finds out all hear of, and what stops one before the first step none of the others waits for.

use super::board::Board;
use super::launchers::Described;
use super::patience::Patience;
use crate::error::{Error, Result};
use crate::torch::store::Store;
use std::fs;
use std::process;
use std::time::{Duration, Instant};

/// How long a rank waits between two looks whether another has failed.
const LOOK: Duration = Duration::from_millis(500);
/// How long rank 0 keeps the store for the others when it has failed.
const FAREWELL: Duration = Duration::from_secs(2);
/// The key under which the first failure is told.
const FAILED: &str = "failed";

/// One rank of many, in the store of its run.
pub struct World {
    /// Which.
    pub who: Described,
    /// How long it waits for the others.
    pub limit: Duration,
    board: Board,
}

impl World {
    /// Joins the store of a run, or serves it, and says there that this rank has come.
    ///
    /// # Errors
    /// The store does not answer within the limit, or this rank is there already.
    pub fn join(who: Described, limit: Duration) -> Result<Self> {
        let Described { ref host, port, rank, launcher, served, .. } = who;
        let store = match rank == 0 && !served {
            true => Store::serve(host, port, limit).map_err(|error| {
                error.within(format!("rank 0, started by {launcher}, serves it; MASTER_PORT names another port"))
            }),
            false => Store::join(host, port, limit).map_err(|error| {
                let server = if served { launcher.to_string() } else { "rank 0".to_owned() };
                error
                    .within(format!("rank {rank}, started by {launcher}, was to meet the others where {server} serves"))
            }),
        }?;
        let board = Board::new(store, who.prefix());
        let world = Self { who, limit, board };
        world.come()?;
        Ok(world)
    }

    /// Says that this rank has come, from where.
    fn come(&self) -> Result<()> {
        let here = format!("{} (process {})", machine(), process::id());
        let first = self.insist(|| self.board.post_first(&joined(self.who.rank), here.as_bytes()))?;
        if first == here.as_bytes() {
            return Ok(());
        }
        let (rank, launcher, first) = (self.who.rank, self.who.launcher, String::from_utf8_lossy(&first));
        Err(Error::usage(format!(
            "rank {rank} of run {} is there twice, on {first} and on {here}: {launcher} must give each process a rank of \
             its own, and each run a MASTER_PORT of its own",
            self.who.run
        )))
    }

    /// What one rank found out, for all: it sets a key, and the others wait for it.
    ///
    /// # Errors
    /// What finding out reports; the store's; or nobody found it within the limit, or some rank failed.
    pub fn share(&self, key: &str, by: usize, find: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        if self.who.rank != by {
            return self.wait_for(key, &format!("the {key} of rank {by}"));
        }
        let value = find()?;
        self.declare(key, &value)?;
        Ok(value)
    }

    /// Sets a key of the run that others wait for, though the store be silent for a while.
    ///
    /// # Errors
    /// The store has gone, or has been silent for the limit.
    pub fn declare(&self, key: &str, value: &[u8]) -> Result<()> {
        self.insist(|| self.tell(key, value))
    }

    /// Asks the store until it answers.
    fn insist<T>(&self, ask: impl Fn() -> Result<T>) -> Result<T> {
        let mut patience = Patience::new(&self.board, self.limit);
        loop {
            if let Some(answer) = patience.bear(&ask)? {
                return Ok(answer);
            }
        }
    }

    /// Sets a key of the run.
    ///
    /// # Errors
    /// The store's.
    pub fn tell(&self, key: &str, value: &[u8]) -> Result<()> {
        self.board.post(key, value)
    }

    /// The value of a key of the run, if it is set.
    ///
    /// # Errors
    /// The store's.
    pub fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.board.look_for(key)
    }

    /// The value of a key of the run, which some rank is to set: `what` it is in words.
    ///
    /// # Errors
    /// The store has gone, or has been silent for the limit; or it was not set within the limit: names the ranks that have not
    /// come; or some rank failed.
    pub fn wait_for(&self, key: &str, what: &str) -> Result<Vec<u8>> {
        self.wait(key, Some(Instant::now() + self.limit), what)
    }

    /// Waits, however long that takes, until rank 0 has come to the same point, which no other is called.
    ///
    /// # Errors
    /// The store's; or some rank failed.
    pub fn follow(&self, point: &str) -> Result<()> {
        let key = format!("point/{point}");
        if self.who.rank == 0 { self.declare(&key, &[]) } else { self.wait(&key, None, point).map(|_| ()) }
    }

    fn wait(&self, key: &str, deadline: Option<Instant>, what: &str) -> Result<Vec<u8>> {
        let mut patience = Patience::new(&self.board, self.limit);
        let mut failure = None;
        loop {
            let found = patience.bear(|| self.board.wait_within(key, LOOK));
            if let Some(value) = found.map_err(|error| self.without_server(error))?.flatten() {
                return Ok(value);
            }
            // One look later, so that the rank that failed ends first: whoever watches the ranks takes the first that
            // ends for the cause.
            if let Some(failure) = failure {
                return Err(failure);
            }
            failure = patience.bear(|| self.failure()).map_err(|error| self.without_server(error))?.flatten();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) && failure.is_none() {
                // Of a store that is silent nobody knows who has come.
                let silence = patience.silence().map(|error| self.without_server(error.clone()));
                return Err(silence.unwrap_or_else(|| self.too_late(what)));
            }
        }
    }

    /// Tells the others what stopped this rank, unless another has told so before. That nobody can be told changes
    /// nothing.
    pub fn fail(&self, error: &Error) {
        let word = format!("rank {}: {error}", self.who.rank);
        let told = self.board.post_first(FAILED, word.as_bytes()).is_ok();
        if told && self.who.rank == 0 && !self.who.served {
            // The store ends with this process: the others get a moment to read there.
            let deadline = Instant::now() + FAREWELL;
            for rank in 1..self.who.size {
                let left = deadline.saturating_duration_since(Instant::now());
                let _ = self.board.wait_within(&heard(rank), left);
            }
        }
    }

    /// What stopped another rank, if one was stopped.
    ///
    /// # Errors
    /// The store's.
    pub fn failure(&self) -> Result<Option<Error>> {
        let word = self.look(FAILED)?;
        if word.is_some() {
            self.tell(&heard(self.who.rank), &[])?;
        }
        Ok(word.map(|word| Error::PeerGone(format!("another rank failed: {}", String::from_utf8_lossy(&word)))))
    }

    /// Where a rank runs, as it said when it came.
    pub fn place_of(&self, rank: usize) -> Option<String> {
        let place = self.look(&joined(rank)).ok()??;
        Some(String::from_utf8_lossy(&place).into_owned())
    }

    /// A connection of its own to the store of the run, which is waited for at most so long. Its calls are given up sooner,
    /// as those of any connection are.
    ///
    /// # Errors
    /// The store does not answer within the limit.
    pub fn board(&self, limit: Duration) -> Result<Board> {
        self.board.reopened(limit)
    }

    /// The number of keys in the store.
    #[cfg(test)]
    pub fn keys(&self) -> i64 {
        self.board.count()
    }

    /// The address of the store.
    pub fn address(&self) -> String {
        self.board.address()
    }

    fn too_late(&self, what: &str) -> Error {
        let Described { size, launcher, .. } = self.who;
        let (limit, address) = (self.limit, self.board.address());
        let missing: Vec<usize> =
            (0..size).filter(|&rank| self.board.has(&joined(rank)).is_ok_and(|come| !come)).collect();
        let why = match missing.len() {
            0 => format!("though all {size} ranks have come"),
            _ => format!("and of {size} ranks {} did not come: see what became of them", named(&missing)),
        };
        Error::failed(format!(
            "{what} was waited for {limit:.0?} in the store at {address} (ranks started by {launcher}), {why}; \
             parallel.meeting sets how long"
        ))
    }

    /// A failure of the store, where it means that its server has gone.
    fn without_server(&self, error: Error) -> Error {
        match self.who.served {
            true => error,
            false => Error::PeerGone(format!("rank 0 serves the store, and has probably ended: {error}")),
        }
    }
}

fn heard(rank: usize) -> String {
    format!("heard/{rank}")
}

fn joined(rank: usize) -> String {
    format!("joined/{rank}")
}

/// The name of this machine, as its kernel has it.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "a machine without a name".into() } else { name.trim().to_owned() }
}

/// Ranks in words: `rank 1`, `ranks 1 and 3`, `ranks 1, 2 and 3`.
pub fn named(ranks: &[usize]) -> String {
    let words: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match words.as_slice() {
        [] => "no rank".into(),
        [one] => format!("rank {one}"),
        [all @ .., last] => format!("ranks {} and {last}", all.join(", ")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::launch::launchers::Launcher;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A rank of a run on this machine; rank 0 serves at any port, which the others are told.
    pub fn rank(rank: usize, size: usize, port: u16, limit: Duration) -> World {
        World::join(described(rank, size, port), limit).unwrap()
    }

    fn described(rank: usize, size: usize, port: u16) -> Described {
        Described {
            launcher: Launcher::ByHand,
            rank,
            size,
            local_rank: rank,
            local_size: size,
            host: "127.0.0.1".into(),
            port,
            served: false,
            run: "test".into(),
            restart: "0".into(),
        }
    }

    impl World {
        /// The port at which rank 0 serves.
        pub fn port(&self) -> u16 {
            self.board.port()
        }
    }

    #[test]
    fn what_the_first_rank_finds_all_hear() {
        let first = rank(0, 2, 0, LIMIT);
        let port = first.port();
        let second = thread::spawn(move || rank(1, 2, port, LIMIT).share("folder", 0, || unreachable!()).unwrap());
        assert_eq!(first.share("folder", 0, || Ok(b"runs/1".to_vec())).unwrap(), b"runs/1");
        assert_eq!(second.join().unwrap(), b"runs/1");
        assert!(first.place_of(1).unwrap().ends_with(&format!("(process {})", process::id())));
    }

    #[test]
    fn the_first_rank_is_followed_however_long_it_takes() {
        let (limit, longer) = (Duration::from_millis(100), Duration::from_secs(2));
        let first = rank(0, 2, 0, longer);
        let second = rank(1, 2, first.port(), limit);
        let follower = thread::spawn(move || second.follow("run 2"));
        assert!(first.wait_for("nothing", "what nobody tells").is_err());
        first.follow("run 2").unwrap();
        assert_eq!(follower.join().unwrap(), Ok(()));
    }

    #[test]
    fn ranks_that_have_not_come_are_named() {
        let first = rank(0, 4, 0, Duration::from_millis(300));
        let _third = rank(2, 4, first.port(), LIMIT);
        let message = first.wait_for("id", "the id of rank 1").unwrap_err().to_string();
        assert!(message.starts_with("the id of rank 1 was waited for 300ms in the store at 127.0.0.1:"), "{message}");
        assert!(message.contains("of 4 ranks ranks 1 and 3 did not come"), "{message}");
    }

    #[test]
    fn what_stops_one_rank_the_others_do_not_wait_for() {
        let first = rank(0, 2, 0, Duration::from_secs(600));
        let second = rank(1, 2, first.port(), LIMIT);
        second.fail(&Error::usage("there is no data"));
        first.fail(&Error::failed("another, later"));
        let stopped = first.wait_for("id", "the id of rank 1").unwrap_err();
        assert_eq!(stopped, Error::PeerGone("another rank failed: rank 1: there is no data".into()));
    }

    #[test]
    fn a_rank_that_is_there_twice_is_refused() {
        let first = rank(0, 3, 0, LIMIT);
        let _second = rank(1, 3, first.port(), LIMIT);
        first.tell("joined/2", b"elsewhere (process 1)").unwrap();
        let message = World::join(described(2, 3, first.port()), LIMIT).err().unwrap().to_string();
        assert!(
            message.starts_with("rank 2 of run test is there twice, on elsewhere (process 1) and on "),
            "{message}"
        );
    }

    #[test]
    fn the_end_of_rank_0_is_told_as_such() {
        let first = rank(0, 2, 0, LIMIT);
        let second = rank(1, 2, first.port(), LIMIT);
        drop(first);
        let gone = second.wait_for("id", "the id of rank 0").unwrap_err();
        assert!(matches!(&gone, Error::PeerGone(message) if message.starts_with("rank 0 serves the store,")), "{gone}");
    }
}
