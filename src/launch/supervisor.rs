//! Ranks as processes of this machine: starts them, passes on and files what they say, hands signals on, and ends them
//! all when one has ended badly, with the word of the one that did so first.

use super::control::exit_code;
use super::launchers::SUPERVISED;
use super::listening::{listen, speak};
use super::rank_logs::RankLogs;
use super::word::{self, Word};
use crate::error::{Error, Result};
use crate::torch::store::Store;
use crossbeam::channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

/// Where the ranks meet: they are all on this machine.
const HOST: &str = "127.0.0.1";
/// How long the ranks have to join the store.
const STORE_LIMIT: Duration = Duration::from_secs(60);
/// How long the others may take to end by themselves when one rank has ended badly.
const GRACE: Duration = Duration::from_secs(3);
/// The exit codes of a run that is done, or was stopped as it was asked to be: see README.
const GOOD: [i32; 5] = [0, 75, 130, 138, 143];

/// What to start.
pub struct Ranks<'a> {
    /// How many.
    pub count: usize,
    /// The arguments of each.
    pub arguments: Vec<OsString>,
    /// What the environment of rank `r` has besides this process's own.
    pub environment: &'a dyn Fn(usize) -> Vec<(String, OsString)>,
}

/// The process of each rank that has not ended.
type Running = BTreeMap<usize, i32>;

enum Happening {
    Ended(usize, io::Result<ExitStatus>),
    Signal(i32),
    /// A rank has said why the run ends.
    Told(Verdict),
}

/// Why the run ends, by a rank's word: who said so, and, unless it failed itself, in a few words why.
struct Verdict {
    rank: usize,
    why: Option<String>,
}

/// Starts ranks and waits for their end; gives the exit code of the run.
///
/// # Errors
/// A rank could not be started, or ended badly: names the first that did, and how.
pub fn supervise(ranks: &Ranks) -> Result<u8> {
    let store = Store::serve(HOST, 0, STORE_LIMIT)?;
    let (sender, happenings) = unbounded();
    hand_on_signals(&sender)?;
    let logs = Arc::new(RankLogs::default());
    let mut running = Running::new();
    for rank in 0..ranks.count {
        match start(ranks, rank, store.port(), &logs) {
            Ok((child, line)) => {
                running.insert(rank, watch(rank, child, line, &logs, &sender));
            }
            Err(error) => {
                end(&running);
                return Err(Error::failed(format!("rank {rank} cannot be started: {error}")));
            }
        }
    }
    Watched { running, ended: BTreeMap::new(), verdict: None, asked: Vec::new() }.follow(&happenings)
}

type Lines = thread::JoinHandle<()>;

/// A rank's process, and the threads that follow what it says until it has ended.
struct Rank {
    child: Child,
    lines: Lines,
}

fn start(ranks: &Ranks, rank: usize, port: u16, logs: &Arc<RankLogs>) -> io::Result<(Rank, UnixStream)> {
    let (size, port) = (ranks.count.to_string(), port.to_string());
    let (line, ranks_line) = word::line()?;
    let mut command = Command::new(env::current_exe()?);
    command
        .args(&ranks.arguments)
        .envs([("RANK", rank.to_string()), ("LOCAL_RANK", rank.to_string())])
        .envs([("WORLD_SIZE", &size), ("LOCAL_WORLD_SIZE", &size), ("MASTER_PORT", &port)])
        .envs([("MASTER_ADDR", HOST), (SUPERVISED, &process::id().to_string())])
        .envs((ranks.environment)(rank))
        .stdin(ranks_line)
        // A terminal's Ctrl-C reaches this process alone, which hands it on: once.
        .process_group(0);
    let voice = speak(rank, &mut command)?;
    let parent = process::id();
    // SAFETY: between fork and exec only system calls are made, which is safe there.
    unsafe {
        command.pre_exec(move || {
            // A rank does not outlive the process that started it, even if that is killed, or was before it could say so.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent as i32 { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        });
    }
    let child = command.spawn()?;
    let logs = Arc::clone(logs);
    let lines = thread::spawn(move || listen(rank, voice, &logs));
    Ok((Rank { child, lines }, line))
}

/// Follows a rank's words and its end on threads of their own; gives its process number.
fn watch(rank: usize, started: Rank, line: UnixStream, logs: &Arc<RankLogs>, sender: &Sender<Happening>) -> i32 {
    let Rank { mut child, lines } = started;
    let process = child.id() as i32;
    let (logs, told) = (Arc::clone(logs), sender.clone());
    thread::spawn(move || {
        for word in word::words(line) {
            match word {
                Word::RunFolder(folder) => logs.open(folder.as_deref().map(Path::new)),
                Word::Ending { rank, why } => {
                    let _ = told.send(Happening::Told(Verdict { rank, why }));
                }
            }
        }
    });
    let sender = sender.clone();
    thread::spawn(move || {
        wait_unreaped(process);
        // Processes of its own do not outlive it; until it is reaped its number, and that of its group, is not another's.
        signal_group(process, libc::SIGKILL);
        // What it said last is to be read before it is said that it has ended.
        let _ = lines.join();
        let _ = sender.send(Happening::Ended(rank, child.wait()));
    });
    process
}

/// Waits for the end of a child, which stays there to be waited for.
fn wait_unreaped(process: i32) {
    loop {
        // SAFETY: a siginfo_t of zeros is valid, and the call writes to nothing else.
        let waited = unsafe {
            let mut found: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, process as libc::id_t, &mut found, libc::WEXITED | libc::WNOWAIT)
        };
        if waited == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

fn hand_on_signals(sender: &Sender<Happening>) -> Result<()> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]);
    let mut signals = signals.map_err(|error| Error::failed(format!("signals cannot be handled: {error}")))?;
    let sender = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = sender.send(Happening::Signal(signal));
        }
    });
    Ok(())
}

/// The ranks as the supervisor knows them.
struct Watched {
    running: Running,
    /// The process of each rank that has ended, and how.
    ended: BTreeMap<usize, (i32, ExitStatus)>,
    verdict: Option<Verdict>,
    /// The signals that were handed on.
    asked: Vec<i32>,
}

impl Watched {
    /// Waits until every rank has ended, or one badly; gives the exit code of the run, that of the first rank.
    fn follow(mut self, happenings: &Receiver<Happening>) -> Result<u8> {
        while !self.running.is_empty() {
            let happening = happenings.recv().map_err(|_| Error::failed("the ranks cannot be watched any more"))?;
            if let Happening::Signal(signal) = happening {
                self.running.values().for_each(|&process| send(process, signal));
                self.asked.push(signal);
            }
            if let Some(rank) = self.note(happening)?
                && is_bad(self.ended[&rank].1)
            {
                let stopped = self.stop(happenings)?;
                if let Some(signal) = self.ended_by_request() {
                    return Ok(exit_code(signal));
                }
                return Err(self.root_cause(rank, stopped));
            }
        }
        let code = self.ended.get(&0).and_then(|(_, ended)| ended.code());
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }

    /// Takes note of what happened; gives the rank that has ended, if one has.
    fn note(&mut self, happening: Happening) -> Result<Option<usize>> {
        match happening {
            Happening::Signal(_) => Ok(None),
            Happening::Told(verdict) => {
                self.verdict.get_or_insert(verdict);
                Ok(None)
            }
            Happening::Ended(rank, ended) => {
                let ended = ended.map_err(|error| Error::failed(format!("rank {rank} cannot be watched: {error}")))?;
                self.ended.insert(rank, (self.running.remove(&rank).unwrap_or_default(), ended));
                Ok(Some(rank))
            }
        }
    }

    /// Gives the ranks that are left a while to end, then kills them; tells how many it killed.
    fn stop(&mut self, happenings: &Receiver<Happening>) -> Result<usize> {
        let deadline = Instant::now() + GRACE;
        while !self.running.is_empty() {
            match happenings.recv_deadline(deadline) {
                // Who asks twice does not want to wait.
                Ok(Happening::Signal(_)) | Err(_) => break,
                Ok(happening) => self.note(happening)?,
            };
        }
        let killed = self.running.len();
        end(&self.running);
        while !self.running.is_empty() {
            let happening = happenings.recv().map_err(|_| Error::failed("the ranks cannot be watched any more"))?;
            self.note(happening)?;
        }
        Ok(killed)
    }

    /// The signal that was handed on and ended a rank at once: a second one, or the first where the rank does not catch
    /// signals, or not yet. What other ranks ended with follows from that.
    fn ended_by_request(&self) -> Option<i32> {
        let mut signals = self.ended.values().filter_map(|(_, ended)| ended.signal());
        signals.find(|signal| self.asked.contains(signal))
    }

    fn root_cause(&self, first: usize, stopped: usize) -> Error {
        let others = match stopped {
            0 => String::new(),
            1 => "; another rank waited for it and was stopped".to_owned(),
            _ => format!("; {stopped} other ranks waited for it and were stopped"),
        };
        let rank = match &self.verdict {
            Some(Verdict { rank, why: Some(why) }) => {
                return Error::failed(format!("{why}, as rank {rank} says above"));
            }
            Some(Verdict { rank, why: None }) if self.ended.contains_key(rank) => *rank,
            _ => first,
        };
        let (process, ended) = self.ended[&rank];
        match (ended.code(), ended.signal()) {
            (Some(2), _) => Error::usage(format!("rank {rank} could not begin, as it says above")),
            (Some(code), _) => Error::failed(format!(
                "rank {rank} (process {process}) failed with exit code {code}, as it says above{others}"
            )),
            (_, signal) => {
                let name = signal.and_then(signal_hook::low_level::signal_name).unwrap_or("a signal");
                Error::failed(format!("rank {rank} (process {process}) was killed by {name}{others}"))
            }
        }
    }
}

/// Whether a rank ended otherwise than done, or stopped on request.
fn is_bad(ended: ExitStatus) -> bool {
    ended.code().is_none_or(|code| !GOOD.contains(&code))
}

/// Kills ranks with all that they started.
fn end(running: &Running) {
    running.values().for_each(|&process| signal_group(process, libc::SIGKILL));
}

fn send(process: i32, signal: i32) {
    // SAFETY: the call takes any numbers. A process that has ended keeps its number until its watching thread takes note,
    // and what that says is read before the next signal is sent, so that the number is hardly another's.
    unsafe { libc::kill(process, signal) };
}

/// A rank leads a process group of its own number.
fn signal_group(process: i32, signal: i32) {
    send(-process, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has this number.
    const NOBODY: i32 = i32::MAX;

    /// What comes of a run of two ranks in which this happens.
    fn followed(happenings: impl IntoIterator<Item = Happening>) -> Result<u8> {
        let (sender, receiver) = unbounded();
        happenings.into_iter().for_each(|happening| sender.send(happening).unwrap());
        let running = Running::from([(0, NOBODY), (1, NOBODY)]);
        Watched { running, ended: BTreeMap::new(), verdict: None, asked: Vec::new() }.follow(&receiver)
    }

    fn killed(rank: usize, signal: i32) -> Happening {
        Happening::Ended(rank, Ok(ExitStatus::from_raw(signal)))
    }

    fn exited(rank: usize, code: i32) -> Happening {
        Happening::Ended(rank, Ok(ExitStatus::from_raw(code << 8)))
    }

    #[test]
    fn ranks_that_a_signal_to_the_run_ended_at_once_were_asked_to() {
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143), (SIGUSR1, 138)] {
            assert_eq!(followed([Happening::Signal(signal), killed(1, signal), killed(0, signal)]), Ok(code));
            // One caught signals already, and met an end of the connection to the other.
            assert_eq!(followed([Happening::Signal(signal), exited(0, 1), killed(1, signal)]), Ok(code));
        }
        assert_eq!(followed([Happening::Signal(SIGTERM), exited(0, 75), exited(1, 75)]), Ok(75));
        for not_asked in [vec![], vec![Happening::Signal(SIGUSR1)]] {
            let ended = followed(not_asked.into_iter().chain([killed(1, SIGTERM), exited(0, 1)])).unwrap_err();
            assert!(ended.to_string().ends_with(") was killed by SIGTERM"), "{ended}");
        }
    }
}
