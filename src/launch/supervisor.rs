//! Ranks as processes of this machine: starts them, hands signals on, and ends them all when one has ended badly, with
//! the word of the one that did so first.

use crate::error::{Error, Result};
use crate::launch::launchers::SUPERVISED;
use crate::report::console;
use crate::torch::store::Store;
use crossbeam::channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

/// Where the ranks meet: they are all on this machine.
const HOST: &str = "127.0.0.1";
/// How long the ranks have to join the store.
const STORE_LIMIT: Duration = Duration::from_secs(60);
/// How long the others may take to end by themselves when one rank has ended badly.
const GRACE: Duration = Duration::from_secs(3);

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
}

/// Starts ranks and waits for their end; gives the exit code of the run.
///
/// # Errors
/// A rank could not be started, or ended badly: names the first that did, and how.
pub fn supervise(ranks: &Ranks) -> Result<u8> {
    let store = Store::serve(HOST, 0, STORE_LIMIT)?;
    let (sender, happenings) = unbounded();
    hand_on_signals(&sender)?;
    let mut running = Running::new();
    for rank in 0..ranks.count {
        match start(ranks, rank, store.port()) {
            Ok(child) => {
                running.insert(rank, watch(rank, child, &sender));
            }
            Err(error) => {
                send(&running, libc::SIGKILL);
                return Err(Error::failed(format!("rank {rank} cannot be started: {error}")));
            }
        }
    }
    follow(running, &happenings)
}

fn start(ranks: &Ranks, rank: usize, port: u16) -> io::Result<Child> {
    let (size, port) = (ranks.count.to_string(), port.to_string());
    let mut command = Command::new(env::current_exe()?);
    command
        .args(&ranks.arguments)
        .envs([("RANK", rank.to_string()), ("LOCAL_RANK", rank.to_string())])
        .envs([("WORLD_SIZE", &size), ("LOCAL_WORLD_SIZE", &size), ("MASTER_PORT", &port)])
        .envs([("MASTER_ADDR", HOST), (SUPERVISED, &std::process::id().to_string())])
        .envs((ranks.environment)(rank))
        .stdin(Stdio::null())
        // A terminal's Ctrl-C reaches this process alone, which hands it on: once.
        .process_group(0);
    if rank > 0 {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    unsafe {
        command.pre_exec(|| {
            // A rank does not outlive the process that started it, even if that is killed.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn()
}

/// Follows a rank's lines and its end on threads of their own; gives its process number.
fn watch(rank: usize, mut child: Child, sender: &Sender<Happening>) -> i32 {
    let process = child.id() as i32;
    let lines = child.stderr.take().map(|lines| {
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                console::say(&format!("rank {rank}: {line}"));
            }
        })
    });
    let sender = sender.clone();
    thread::spawn(move || {
        let ended = child.wait();
        // What it said last is to be read before it is said that it has ended.
        lines.map(thread::JoinHandle::join);
        let _ = sender.send(Happening::Ended(rank, ended));
    });
    process
}

fn hand_on_signals(sender: &Sender<Happening>) -> Result<()> {
    let signals = Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| Error::failed(format!("signals cannot be handled: {error}")))?;
    let sender = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = sender.send(Happening::Signal(signal));
        }
    });
    Ok(())
}

/// Waits until every rank has ended, or one badly; gives the exit code of the run, that of the first rank.
fn follow(mut running: Running, happenings: &Receiver<Happening>) -> Result<u8> {
    let mut code = 0;
    while !running.is_empty() {
        match happenings.recv() {
            Ok(Happening::Signal(signal)) => send(&running, signal),
            Ok(Happening::Ended(rank, ended)) => {
                let process = running.remove(&rank);
                let ended = ended.map_err(|error| Error::failed(format!("rank {rank} cannot be watched: {error}")))?;
                if is_bad(ended) {
                    let stopped = stop(running, happenings);
                    return Err(root_cause(rank, process.unwrap_or_default(), ended, stopped));
                }
                if rank == 0 {
                    code = ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                }
            }
            Err(_) => return Err(Error::failed("the ranks cannot be watched any more")),
        }
    }
    Ok(code)
}

/// Whether a rank ended otherwise than done, or stopped on request.
fn is_bad(ended: ExitStatus) -> bool {
    !matches!(ended.code(), Some(0 | 75 | 130 | 143))
}

/// Gives the ranks that are left a while to end, then kills them; tells how many it killed.
fn stop(mut running: Running, happenings: &Receiver<Happening>) -> usize {
    let deadline = Instant::now() + GRACE;
    while !running.is_empty() {
        match happenings.recv_deadline(deadline) {
            Ok(Happening::Ended(rank, _)) => {
                running.remove(&rank);
            }
            // Who asks twice does not want to wait.
            Ok(Happening::Signal(_)) | Err(_) => break,
        }
    }
    send(&running, libc::SIGKILL);
    running.len()
}

fn root_cause(rank: usize, process: i32, ended: ExitStatus, stopped: usize) -> Error {
    let others = match stopped {
        0 => String::new(),
        1 => "; another rank waited for it and was stopped".to_owned(),
        _ => format!("; {stopped} other ranks waited for it and were stopped"),
    };
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

fn send(running: &Running, signal: i32) {
    for &process in running.values() {
        // SAFETY: the call takes any numbers. A process that has ended keeps its number until its watching thread takes
        // note, and what that says is read before the next signal is sent, so that the number is hardly another's.
        unsafe { libc::kill(process, signal) };
    }
}
