//! Runs whose ranks are processes, and what becomes of them when one is killed, stopped or hangs: the sentence, the exit
//! code, what is kept, and that no process is left. Nothing is asserted about time but that it ends at all.

use crate::program::{mpt, text, tiny};
use crate::terminal::terminal;
use mpt::launch::watchdog::finding::Finding;
use mpt::launch::watchdog::report::{FILE, Report};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// A variable that every process of a run has in its environment.
const MARK: &str = "SUPERVISION_TEST_RUN";

/// A rehearsal under way.
struct Run {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    folder: tempfile::TempDir,
}

impl Run {
    fn begin(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (run, mark) = (folder.path().join("run"), folder.path().to_owned());
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let common = ["--gpus", "2", "--run-dir", text(&run), "--precision", "fp32"];
        let mut all = tiny(&[&common[..], arguments].concat());
        all[0] = "rehearse";
        let mut command = mpt(&all);
        command.env(MARK, &mark).env("TMPDIR", folder.path().join("tmp")).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new(), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Reads on until something is said.
    fn until(&mut self, words: &str) {
        while !self.said.last().is_some_and(|line| line.contains(words)) {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("`{words}` not in {:#?}", self.said));
            self.said.push(line);
        }
    }

    /// The processes of the run, with their ranks.
    fn processes(&self) -> Vec<(i32, Option<usize>)> {
        let mark = format!("{MARK}={}", self.folder.path().display());
        let of_run = |process: i32| {
            let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
            let variables: Vec<&str> =
                environment.split(|&byte| byte == 0).map_while(|v| str::from_utf8(v).ok()).collect();
            let rank = variables.iter().find_map(|variable| variable.strip_prefix("RANK=")?.parse().ok());
            variables.contains(&mark.as_str()).then_some((process, rank))
        };
        let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter_map(of_run).collect()
    }

    fn signal_rank(&self, rank: usize, signal: i32) {
        let (process, _) = self.processes().into_iter().find(|(_, found)| *found == Some(rank)).unwrap();
        // SAFETY: sends a signal to a rank of this run.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Waits for the supervisor's end; gives its exit code and all that was said.
    fn end(&mut self) -> (Option<i32>, String) {
        let begin = Instant::now();
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            if begin.elapsed() > PATIENCE {
                self.said.extend(self.lines.try_iter());
                self.child.kill().unwrap();
                panic!("it has not ended: {:#?}", self.said);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.said.extend(self.lines.iter());
        (ended.code(), self.said.join("\n"))
    }

    /// Waits until no process is left; those of a supervisor that was killed are not waited for by anybody here.
    fn nothing_is_left(&self) {
        let begin = Instant::now();
        while !self.processes().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "left: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_line(&self) -> &str {
        self.said.last().map_or("", String::as_str)
    }

    fn report(&self) -> Report {
        serde_json::from_slice(&fs::read(self.path().join(FILE)).unwrap()).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MODEL: [&str; 2] = ["--mode", "model-parallel"];
const DATA: [&str; 2] = ["--mode", "data-parallel"];
/// Until somebody ends it.
const LONG: [&str; 2] = ["--epochs", "100"];

#[test]
fn a_collective_that_hangs_is_named_and_kept_in_both_modes() {
    for (mode, layer) in [(MODEL, "conv3"), (DATA, "the gradients of bucket 0")] {
        let limit = ["--set", "parallel.timeout=2s", "--fault", "hang:1@5"];
        // Not even an abort that hangs keeps the processes.
        let mut run = Run::begin(&[&mode[..], &limit, &LONG].concat(), &[("MPT_SIMULATOR_ABORT", "hangs")]);
        let (code, said) = run.end();
        assert_eq!(code, Some(1), "{said}");
        run.nothing_is_left();
        let report = run.report();
        let Finding::Stuck { record, .. } = &report.finding else { panic!("{:?}\n{said}", report.finding) };
        assert!(said.contains(&format!("{}; if it is merely slow, raise parallel.timeout", report.sentence)), "{said}");
        assert!(said.matches("has not ended after").count() == 1, "one report: {said}");
        assert!(report.ranks.iter().all(Option::is_some), "{report:?}");
        assert_eq!((record.layer.as_str(), record.ranks.as_slice()), (layer, &[0, 1][..]), "{said}");
        let last = format!("mpt: {} for {layer} did not end, as rank ", record.operation);
        assert!(run.last_line().starts_with(&last), "{said}");
    }
}

#[test]
fn a_rank_that_is_stopped_is_named_as_the_one_that_lags() {
    for rank in [0, 1] {
        let limit = ["--set", "parallel.timeout=2s"];
        let mut run = Run::begin(&[&MODEL[..], &limit, &LONG].concat(), &[]);
        run.until("first step after");
        run.signal_rank(rank, libc::SIGSTOP);
        let (code, said) = run.end();
        assert_eq!(code, Some(1), "{said}");
        run.nothing_is_left();
        let report = run.report();
        let Finding::Behind { rank: named, silence: Some(silence), .. } = &report.finding else { panic!("{said}") };
        assert_eq!(*named, rank, "{said}");
        assert!(silence.contains("is stopped, as by SIGSTOP"), "{silence}");
        assert!(said.contains(&format!("rank {rank} has not come to ")) && said.contains(silence), "{said}");
        assert!(report.ranks[rank].is_none() && report.ranks[1 - rank].is_some());
        let last = format!("mpt: rank {rank} did not answer, as rank {} says above", 1 - rank);
        assert_eq!(run.last_line(), last);
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_run_with_its_name() {
    for rank in [0, 1] {
        let mut run = Run::begin(&[&MODEL[..], &LONG].concat(), &[]);
        run.until("first step after");
        run.signal_rank(rank, libc::SIGKILL);
        let (code, said) = run.end();
        assert_eq!(code, Some(1), "{said}");
        run.nothing_is_left();
        let last = run.last_line();
        assert!(last.starts_with(&format!("mpt: rank {rank} (process ")), "{said}");
        assert!(last.contains(") was killed by SIGKILL; another rank waited for it and was stopped"), "{said}");
    }
}

/// Memory of the loader is mapped where batches are made for others, or made by others.
#[test]
fn the_ranks_of_a_host_share_one_loader() {
    for mode in [MODEL, DATA] {
        let mut run = Run::begin(&[&mode[..], &LONG].concat(), &[]);
        run.until("first step after");
        for (process, rank) in run.processes() {
            // Between two streams there is none.
            let begin = Instant::now();
            let shares = || fs::read_to_string(format!("/proc/{process}/maps")).unwrap().contains("memfd:mpt-loader");
            while rank.is_some() && !shares() {
                assert!(begin.elapsed() < PATIENCE, "rank {rank:?} has a loader of its own");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let mut run = Run::begin(&[&MODEL[..], &LONG].concat(), &[]);
    run.until("first step after");
    assert_eq!(run.processes().len(), 3);
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    run.nothing_is_left();
    let tmp = run.folder.path().join("tmp");
    let folders = || fs::read_dir(&tmp).unwrap().count();
    assert_eq!(folders(), 1, "the simulator's folder, which nobody could take away");
    let next = tiny(&["--gpus", "1", "--steps", "1", "--quiet"]);
    let next = mpt(&[&["rehearse"], &next[1..]].concat()).env("TMPDIR", &tmp).output().unwrap();
    assert!(next.status.success());
    assert_eq!(folders(), 0);
}

#[test]
fn a_signal_to_the_supervisor_ends_the_run_after_a_checkpoint() {
    for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
        let mut run = Run::begin(&[&DATA[..], &LONG].concat(), &[]);
        run.until("first step after");
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(run.child.id() as i32, signal) }, 0);
        let (code, said) = run.end();
        assert_eq!(code, Some(75), "{said}");
        run.nothing_is_left();
        assert!(said.contains("go on with: mpt train --resume "), "{said}");
        assert!(fs::read_dir(run.path().join("checkpoints")).unwrap().count() > 0);
    }
}

/// At that moment the first rank is about to compare its settings with the other, and catches signals only after that.
#[test]
fn a_signal_before_ranks_catch_them_is_no_failure() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        let mut run = Run::begin(&[&DATA[..], &LONG].concat(), &[]);
        run.until("devices: 2 simulated GPUs");
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(run.child.id() as i32, signal) }, 0);
        let (code, said) = run.end();
        // It may come so late that they end after a checkpoint.
        assert!(code == Some(128 + signal) || code == Some(75), "{code:?}: {said}");
        assert!(!said.contains("was killed by"), "{said}");
        run.nothing_is_left();
    }
}

/// A rank hangs in the second step, so that the first signal ends nothing.
#[test]
fn a_second_signal_to_the_supervisor_ends_the_run_at_once() {
    let hang = ["--fault", "hang:1@2", "--set", "parallel.timeout=1h"];
    let mut run = Run::begin(&[&MODEL[..], &LONG, &hang].concat(), &[]);
    run.until("first step after");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(run.child.id() as i32, signal) }, 0);
    }
    let (code, said) = run.end();
    assert!(matches!(code, Some(130 | 143)), "{code:?}: {said}");
    assert!(!said.contains("was killed by"), "{said}");
    run.nothing_is_left();
}

#[test]
fn what_ranks_say_is_filed_also_what_they_said_before_there_was_a_folder() {
    let mut run = Run::begin(&[&MODEL[..], &["--steps", "6", "--fault", "fail:1@5"]].concat(), &[]);
    let (code, said) = run.end();
    assert_eq!(code, Some(1), "{said}");
    let log = |rank: usize| fs::read_to_string(run.path().join(format!("logs/rank-{rank}.log"))).unwrap();
    let (first, second) = (log(0), log(1));
    // The first rank speaks for all, and began to before it had made the folder.
    assert!(first.starts_with("devices: 2 simulated GPUs"), "{first}");
    assert!(first.contains("run directory: ") && first.contains("first step after"), "{first}");
    let told = second.lines().find(|line| line.starts_with("mpt: ")).unwrap();
    assert!(said.contains(&format!("rank 1: {told}")), "{said}");
    assert!(told.contains("NCCL: ") && told.contains("every rank's last calls are in "), "{told}");
    assert!(Path::new(&run.path()).join(FILE).exists());
}

#[test]
fn a_request_that_no_rank_can_begin_is_a_usage_error() {
    let mut run = Run::begin(&[&MODEL[..], &["--set", "data.crop=99"]].concat(), &[]);
    let (code, said) = run.end();
    assert_eq!(code, Some(2), "{said}");
    run.nothing_is_left();
    assert!(run.last_line().contains("could not begin, as it says above"), "{said}");
    assert!(!run.path().exists());
}

#[test]
fn the_first_rank_draws_on_a_terminal_and_its_log_has_plain_lines() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let (mut seeing, drawing) = terminal();
    let mut arguments = tiny(&["--gpus", "2", "--steps", "40", "--run-dir", text(&run)]);
    arguments[0] = "rehearse";
    let mut command = mpt(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(drawing).env("TERM", "xterm").spawn().unwrap();
    drop(command);
    let mut seen = Vec::new();
    // It ends in an error when nobody is there to draw any more.
    let _ = seeing.read_to_end(&mut seen);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&seen));
    assert!(seen.contains(&b'\x1b'), "nothing is drawn: {}", String::from_utf8_lossy(&seen));
    let log = fs::read_to_string(run.join("logs/rank-0.log")).unwrap();
    assert!(log.contains("\nfirst step after ") && log.contains("\nmemory: "), "{log}");
    assert!(!log.contains(['\x1b', '\r']), "{log:?}");
}
