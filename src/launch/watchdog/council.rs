//! How ranks that are processes put their records together when one raises the alarm: over the store of the run, each
//! step with a time limit, for a rank may be stopped, dead or cut off, and so may the store.

use super::finding::Finding;
use crate::comm::recorder::record::Flight;
use crate::error::{Error, Result};
use crate::launch::board::Board;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Set by whoever notices first that the run does not go on.
const ALARM: &str = "flight/alarm";
/// Drawn by each rank that hears of it: who draws 1 reports.
const TURN: &str = "flight/turn";
/// Set by who reports, when it has.
const REPORTED: &str = "flight/reported";

/// How long the one who reports waits for the records of the others.
const GATHERING: Duration = Duration::from_secs(3);
/// How long anything may take: then the store does not answer, or the one who was to report does not.
const LIMIT: Duration = Duration::from_secs(8);
/// How often what cannot be waited for is looked for.
const REST: Duration = Duration::from_millis(20);
/// How long a rank listens for an alarm before it looks whether it still is to.
const LISTENING: Duration = Duration::from_secs(2);
/// How long the store may take to let in who begins to listen or to speak. It is given up sooner in each call after that.
pub const SPEAKING: Duration = Duration::from_secs(30);

/// A rank's way to the others.
pub struct Council {
    board: Mutex<Option<Board>>,
    rank: usize,
    ranks: usize,
}

/// What becomes of an alarm.
pub enum Advice {
    /// This rank reports: the records of every rank that answered.
    Report(Vec<Option<Flight>>),
    /// That rank has reported.
    Heard(usize),
    /// Nobody can be reached.
    Alone,
}

/// Where a rank's process is, so that another on the same machine can see what has become of it.
#[derive(Serialize, Deserialize)]
struct Whereabouts {
    host: String,
    /// Machine and namespace in which the process's number is unique.
    numbers: String,
    process: u32,
}

/// Waits for an alarm, and passes it on, until `closed` is.
pub fn listen(board: &Board, alarm: &Sender<()>, closed: &Receiver<()>) {
    while closed.try_recv() == Err(TryRecvError::Empty) {
        match board.wait_within(ALARM, LISTENING) {
            Ok(None) => {}
            Ok(Some(_)) => {
                let _ = alarm.send(());
                return;
            }
            // A store that does not answer may do so again, as when its process, or this one, was stopped.
            Err(_) => drop(closed.recv_timeout(LISTENING)),
        }
    }
}

impl Council {
    /// Joins; tells the others where this rank is.
    ///
    /// # Errors
    /// The store has gone.
    pub fn join(board: Board, rank: usize, ranks: usize) -> Result<Self> {
        let here = serde_json::to_vec(&Whereabouts::of_this_process()).unwrap_or_default();
        board.post(&format!("flight/place/{rank}"), &here)?;
        Ok(Self { board: Mutex::new(Some(board)), rank, ranks })
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Does something with the board on a thread that is left behind when it takes too long.
    fn within_limit<T: Send + 'static>(&self, what: impl FnOnce(&Board) -> Result<T> + Send + 'static) -> Option<T> {
        let mut place = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let board = place.take()?;
        let (sender, done) = bounded(1);
        let work = move || {
            let result = what(&board);
            let _ = sender.send((board, result));
        };
        thread::Builder::new().name("council".into()).spawn(work).ok()?;
        let (board, result) = done.recv_timeout(LIMIT).ok()?;
        *place = Some(board);
        result.ok()
    }

    /// Raises the alarm, if nobody has, and puts up this rank's records.
    pub fn consult(&self, own: &Flight) -> Advice {
        let (own, rank, ranks) = (own.clone(), self.rank, self.ranks);
        let advice = self.within_limit(move |board| {
            let text = serde_json::to_vec(&own).map_err(|error| Error::failed(error.to_string()))?;
            board.post(&format!("flight/rank/{rank}"), &text)?;
            let turn = board.draw(TURN)?;
            board.post(ALARM, &[])?;
            if turn == 1 { gather(board, own, ranks).map(Advice::Report) } else { hear(board).map(Advice::Heard) }
        });
        advice.unwrap_or(Advice::Alone)
    }

    /// Tells the others that this rank has reported.
    pub fn reported(&self) {
        let rank = self.rank;
        self.within_limit(move |board| board.post(REPORTED, rank.to_string().as_bytes()));
    }

    /// A finding, with what has become of a rank that does not answer.
    pub fn located(&self, mut finding: Finding) -> Finding {
        if let Finding::Behind { rank, silence: Some(silence), .. } = &mut finding {
            let name = format!("flight/place/{rank}");
            let note = self.within_limit(move |board| board.look_for(&name)).flatten();
            let place: Option<Whereabouts> = note.and_then(|note| serde_json::from_slice(&note).ok());
            if let Some(found) = place.map(|place| place.fate()) {
                *silence = found;
            }
        }
        finding
    }
}

/// The records of every rank that answers in time.
fn gather(board: &Board, own: Flight, ranks: usize) -> Result<Vec<Option<Flight>>> {
    let begin = Instant::now();
    let own_rank = own.rank;
    let mut flights: Vec<Option<Flight>> = vec![None; ranks];
    flights[own_rank] = Some(own);
    while flights.contains(&None) && begin.elapsed() < GATHERING {
        for (rank, flight) in flights.iter_mut().enumerate().filter(|(_, flight)| flight.is_none()) {
            let note = board.look_for(&format!("flight/rank/{rank}"))?;
            *flight = note.and_then(|note| serde_json::from_slice(&note).ok());
        }
        thread::sleep(REST);
    }
    Ok(flights)
}

/// Waits until another rank has reported; gives its number.
fn hear(board: &Board) -> Result<usize> {
    loop {
        if let Some(note) = board.look_for(REPORTED)? {
            return Ok(String::from_utf8_lossy(&note).parse().unwrap_or_default());
        }
        thread::sleep(REST);
    }
}

impl Whereabouts {
    fn of_this_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            numbers: format!("{} {}", read("/proc/sys/kernel/random/boot_id"), namespace.display()),
            process: std::process::id(),
        }
    }

    /// What has become of the process, as far as it can be seen from here.
    fn fate(&self) -> String {
        let Self { host, numbers, process } = self;
        if *numbers != Self::of_this_process().numbers {
            return format!("its process {process} on {host} does not answer");
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The state comes after the name, which stands in brackets and may hold anything.
        match stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()) {
            None | Some('Z' | 'X') => format!("its process {process} has ended"),
            Some('T' | 't') => format!("its process {process} is stopped, as by SIGSTOP"),
            Some(_) => format!("its process {process} is there, but does not answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::store::Store;
    use std::process::Command;

    fn flight(rank: usize) -> Flight {
        Flight { rank, process: 1, at: 0.0, groups: Vec::new(), records: Vec::new() }
    }

    fn board(server: &Store) -> Board {
        Board::new(server.reopened(SPEAKING).unwrap(), "run".into())
    }

    #[test]
    fn one_rank_reports_what_all_have_put_up_and_the_others_hear_of_it() {
        let server = Store::serve("127.0.0.1", 0, SPEAKING).unwrap();
        let (alarms, alarm) = crossbeam::channel::unbounded();
        let listening = board(&server);
        let (_needed, closed) = bounded(0);
        thread::spawn(move || listen(&listening, &alarms, &closed));
        // Rank 2 of three is silent.
        let councils = [0, 1].map(|rank| Council::join(board(&server), rank, 3).unwrap());
        let [first, second] = councils.map(|council| {
            thread::spawn(move || match council.consult(&flight(council.rank)) {
                Advice::Report(flights) => {
                    council.reported();
                    (council.rank, Some(flights))
                }
                Advice::Heard(rank) => (rank, None),
                Advice::Alone => panic!("rank {} hears nobody", council.rank),
            })
        });
        let advice = [first.join().unwrap(), second.join().unwrap()];
        assert_eq!(advice[0].0, advice[1].0, "both know who reported");
        let reports: Vec<_> = advice.into_iter().filter_map(|(_, flights)| flights).collect();
        assert_eq!(reports, [vec![Some(flight(0)), Some(flight(1)), None]]);
        assert!(alarm.recv().is_ok());
    }

    #[test]
    fn who_is_not_needed_any_more_listens_no_more() {
        let server = Store::serve("127.0.0.1", 0, SPEAKING).unwrap();
        let (alarms, alarm) = bounded(0);
        let (needed, closed) = bounded(0);
        let listening = board(&server);
        let listener = thread::spawn(move || listen(&listening, &alarms, &closed));
        drop(needed);
        listener.join().unwrap();
        assert!(alarm.recv().is_err(), "there was no alarm");
    }

    #[test]
    fn a_rank_whose_store_has_gone_is_alone() {
        let server = Store::serve("127.0.0.1", 0, SPEAKING).unwrap();
        let council = Council::join(board(&server), 0, 2).unwrap();
        drop(server);
        assert!(matches!(council.consult(&flight(0)), Advice::Alone));
    }

    #[test]
    fn it_can_be_seen_what_has_become_of_a_process() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let place = Whereabouts { process: child.id(), ..Whereabouts::of_this_process() };
        assert!(place.fate().ends_with(" is there, but does not answer"), "{}", place.fate());
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) }, 0);
        while !place.fate().ends_with(" is stopped, as by SIGSTOP") {
            thread::sleep(REST);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(place.fate().ends_with(" has ended"), "{}", place.fate());
        let elsewhere = Whereabouts { host: "node7".into(), numbers: "another machine".into(), process: 5 };
        assert_eq!(elsewhere.fate(), "its process 5 on node7 does not answer");
    }
}
