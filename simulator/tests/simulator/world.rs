//! A test runs itself again in processes of their own, with the simulator where a CUDA program looks for its libraries:
//! the library path and the simulator's variables are read when a process starts.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Tells a process of a test which rank it is.
const RANK: &str = "MPT_SIMULATOR_TEST_RANK";

/// How long a process may take that is expected to end.
const DEADLINE: Duration = Duration::from_secs(20);

/// The rank of this process, or `None` in the process that the test began in.
pub fn rank() -> Option<usize> {
    std::env::var(RANK).ok().map(|rank| rank.parse().unwrap())
}

/// Whether the processes are ranks of a variant: a test with several programs names the one that is to run.
pub fn variant() -> String {
    std::env::var("MPT_SIMULATOR_TEST_VARIANT").unwrap_or_default()
}

/// Where the processes of a test meet.
pub fn folder() -> PathBuf {
    std::env::var_os("MPT_SIMULATOR_FOLDER").unwrap().into()
}

/// The processes of a test.
pub struct World {
    folder: TempDir,
    test: String,
    ranks: usize,
    variables: BTreeMap<String, String>,
    own_variables: BTreeMap<usize, BTreeMap<String, String>>,
}

/// How one of them ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; none where it had to be ended after the deadline.
    pub status: Option<ExitStatus>,
    /// Whether it ran the test, and to its end.
    has_passed: bool,
    /// What it wrote on standard error.
    pub errors: String,
}

impl World {
    /// For the test of this name, as `module_path!()` and its function give it.
    pub fn new(test: &str, ranks: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = std::env::current_exe().unwrap().with_file_name("libmpt_simulator.so");
        assert!(library.exists(), "{} is not built", library.display());
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        for name in ["libcuda.so", "libcuda.so.1", "libnccl.so", "libnccl.so.2"] {
            symlink(&library, folder.path().join("lib").join(name)).unwrap();
        }
        let test = test.split_once("::").map_or(test, |(_, rest)| rest).to_owned();
        Self { folder, test, ranks, variables: BTreeMap::new(), own_variables: BTreeMap::new() }
    }

    /// Sets a variable of the simulator, without its prefix, for all ranks.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(format!("MPT_SIMULATOR_{name}"), value.to_string());
        self
    }

    /// Sets a variable of another name, for all ranks.
    pub fn set_plain(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets a variable for one rank.
    pub fn set_for(mut self, rank: usize, name: &str, value: impl ToString) -> Self {
        let variables = self.own_variables.entry(rank).or_default();
        variables.insert(format!("MPT_SIMULATOR_{name}"), value.to_string());
        self
    }

    /// Names the program that runs, in a test that has several.
    pub fn variant(self, name: &str) -> Self {
        self.set("TEST_VARIANT", name)
    }

    /// The folder of the simulator.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the ranks until all have ended, or the deadline has come.
    pub fn run(&self) -> Vec<Ended> {
        self.start().end_within(DEADLINE)
    }

    /// Starts the ranks.
    pub fn start(&self) -> Running<'_> {
        Running { world: self, children: (0..self.ranks).map(|rank| self.start_rank(rank)).collect() }
    }

    /// Runs the ranks, which must all succeed and break no rule.
    pub fn succeeds(&self) {
        for (rank, ended) in self.run().iter().enumerate() {
            assert!(ended.succeeded(), "rank {rank}: {:?}\n{}", ended.status, ended.errors);
        }
        assert_eq!(self.broken_rules(), "");
    }

    /// Runs the ranks, whose programs must all end as they expect, and break rules with these sentences.
    pub fn breaks(&self, sentences: &[&str]) {
        let all = self.run();
        for (rank, ended) in all.iter().enumerate() {
            assert!(ended.succeeded(), "rank {rank}: {:?}\n{}", ended.status, ended.errors);
        }
        for sentence in sentences {
            assert!(self.broken_rules().contains(sentence), "no {sentence:?} in:\n{}", self.broken_rules());
        }
    }

    /// The lines that broken rules left behind.
    pub fn broken_rules(&self) -> String {
        std::fs::read_to_string(self.folder().join("broken-rules")).unwrap_or_default()
    }

    fn start_rank(&self, rank: usize) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &self.test, "--nocapture", "--test-threads=1"])
            .env("LD_LIBRARY_PATH", self.folder().join("lib"))
            .env("MPT_SIMULATOR_FOLDER", self.folder())
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env(RANK, rank.to_string())
            .envs(&self.variables)
            .envs(self.own_variables.get(&rank).into_iter().flatten())
            .stdin(Stdio::null())
            .stdout(self.file("stdout", rank))
            .stderr(self.file("stderr", rank))
            .spawn()
            .unwrap()
    }

    fn written(&self, name: &str, rank: usize) -> String {
        std::fs::read_to_string(self.folder().join(format!("{name}-{rank}"))).unwrap()
    }

    /// Where a rank's output goes: a pipe would have to be read while the ranks run.
    fn file(&self, name: &str, rank: usize) -> Stdio {
        std::fs::File::create(self.folder().join(format!("{name}-{rank}"))).unwrap().into()
    }
}

/// The ranks while they run.
pub struct Running<'a> {
    world: &'a World,
    children: Vec<Child>,
}

impl Running<'_> {
    /// Waits for something that the ranks do, with a generous deadline.
    pub fn until(mut self, has_come: impl Fn(&mut Self) -> bool) -> Self {
        let deadline = Instant::now() + DEADLINE;
        while !has_come(&mut self) {
            assert!(Instant::now() < deadline, "it never came");
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }

    /// Whether a rank has ended.
    pub fn has_ended(&mut self, rank: usize) -> bool {
        self.children[rank].try_wait().unwrap().is_some()
    }

    /// What a rank has written on standard error so far.
    pub fn errors(&self, rank: usize) -> String {
        self.world.written("stderr", rank)
    }

    /// Waits for the ranks; those that have not ended after this long are ended.
    pub fn end_within(mut self, limit: Duration) -> Vec<Ended> {
        let deadline = Instant::now() + limit;
        let statuses: Vec<_> = self.children.iter_mut().map(|child| wait(child, deadline)).collect();
        let ended = statuses.into_iter().enumerate().map(|(rank, status)| Ended {
            status,
            has_passed: self.world.written("stdout", rank).contains("1 passed"),
            errors: self.errors(rank),
        });
        ended.collect()
    }
}

impl Ended {
    /// Whether it ended as a test that passed.
    pub fn succeeded(&self) -> bool {
        self.has_passed && self.status.is_some_and(|status| status.success())
    }

    /// Whether it was killed, by itself or by a fault.
    pub fn was_killed(&self) -> bool {
        self.status.is_some_and(|status| status.signal() == Some(9))
    }
}

/// Waits for a process; one that has not ended by the deadline is killed.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The full name of the test that this is called from.
macro_rules! this_test {
    () => {{
        fn here() {}
        std::any::type_name_of_val(&here).trim_end_matches("::here")
    }};
}
pub(crate) use this_test;
