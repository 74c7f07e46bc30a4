//! The scripts of `cluster/slurm`, run as Slurm runs them: with its variables, with stand-ins for `srun`, `scancel` and
//! `scontrol`, and with the signal that their `#SBATCH --signal` asks for, sent to whom it asks for. And that of
//! `cluster/mpi`, with a stand-in for `mpirun`. What they start is mpt, on simulated GPUs.

use crate::program::{text, tiny};
use mpt::launch::simulator::Simulator;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any of this takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A job of a batch script, with a folder for what it leaves.
struct Job {
    /// Its number, from which ports are drawn: of all that run at once, no other has it.
    number: u32,
    script: PathBuf,
    folder: TempDir,
    simulator: Simulator,
    environment: Vec<(&'static str, String)>,
}

/// A job that is running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind: the script leads a group of all that it started.
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(-(self.0.id() as i32), libc::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Job {
    fn new(script: &str) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        Self {
            number: 16 * std::process::id() + STARTED.fetch_add(1, Ordering::Relaxed),
            script: repository().join("cluster").join(script),
            folder: tempfile::tempdir().unwrap(),
            simulator: Simulator::beside(Path::new(env!("CARGO_BIN_EXE_mpt"))).unwrap(),
            environment: Vec::new(),
        }
    }

    fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Makes a program of a shell script in the job's folder; gives its path.
    fn program(&self, name: &str, script: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        text(&path).to_owned()
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("runs").join(format!("slurm-{}", self.number))
    }

    /// Starts the script for the `restart`-th time, with two tasks on this host.
    fn start(&self, restart: u32, arguments: &[&str]) -> Running {
        let _ = fs::remove_file(self.folder.path().join("tasks"));
        let stand_ins = repository().join("tests/mpt/cluster");
        let search = format!("{}:{}", stand_ins.display(), std::env::var("PATH").unwrap());
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new("bash");
        command.arg(&self.script).args(arguments).current_dir(self.folder.path()).process_group(0);
        for (name, _) in std::env::vars() {
            if ["MPT_", "SLURM_", "SRUN_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("SLURM_JOB_ID", self.number.to_string())
            .envs([("SLURM_JOB_NODELIST", "localhost"), ("SLURM_NODELIST", "localhost")])
            .envs([("SLURM_NTASKS", "2"), ("SLURM_NNODES", "1"), ("SLURM_TASKS_PER_NODE", "2"), ("SLURM_PROCID", "0")])
            .env("SLURM_CPUS_PER_TASK", "3")
            .env("SLURM_RESTART_COUNT", restart.to_string())
            .env("SLURM_SUBMIT_DIR", self.folder.path())
            .env("STAND_IN", self.folder.path())
            .env("PATH", search)
            .env("MPT", env!("CARGO_BIN_EXE_mpt"))
            .envs(self.simulator.environment(2, 0, None))
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Running(command.spawn().unwrap())
    }

    /// Sends TERM to those to whom the script's own `#SBATCH --signal` sends it: its tasks, or itself.
    fn warn(&self, running: &Running) {
        let script = fs::read_to_string(&self.script).unwrap();
        let asked = script.lines().find_map(|line| line.strip_prefix("#SBATCH --signal=")).unwrap();
        match asked.split_once('@').unwrap() {
            ("B:TERM", _) => signal(running.0.id() as i32, libc::SIGTERM),
            ("TERM", _) => self.tasks().into_iter().for_each(|task| signal(task, libc::SIGTERM)),
            other => panic!("{other:?}"),
        }
    }

    fn tasks(&self) -> Vec<i32> {
        let told = self.read("tasks");
        told.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Waits until something is so; where that does not come, shows what the job said.
    fn until(&self, running: &mut Running, what: &str, so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !so() {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < LIMIT, "{what}: {ended:?}\n{}", self.read("log"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the script; gives its exit code.
    fn end(&self, mut running: Running) -> i32 {
        let begin = Instant::now();
        loop {
            if let Some(ended) = running.0.try_wait().unwrap() {
                return ended.code().unwrap_or_else(|| panic!("{ended:?}\n{}", self.read("log")));
            }
            assert!(begin.elapsed() < LIMIT, "it does not end\n{}", self.read("log"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How often the job was put back into the queue.
    fn requeued(&self) -> usize {
        self.read("calls").lines().filter(|call| *call == format!("scontrol requeue {}", self.number)).count()
    }

    fn steps_recorded(&self) -> usize {
        let record = fs::read_to_string(self.run_folder().join("metrics.jsonl")).unwrap_or_default();
        record.lines().filter(|line| line.contains("\"kind\":\"step\"")).count()
    }
}

fn signal(process: i32, number: i32) {
    // SAFETY: the call takes any numbers; these are of processes that the test started and has not waited for.
    unsafe { libc::kill(process, number) };
}

/// The arguments of a tiny training that would go on for long, without `train`, which the scripts say themselves.
fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    tiny(&[&["--mode", "model-parallel", "--precision", "fp32"], more].concat()).split_off(1)
}

#[test]
fn a_batch_jobs_tasks_train_as_ranks_of_one_run() {
    let job = Job::new("slurm/srun.sbatch");
    assert_eq!(job.end(job.start(0, &arguments(&["--steps", "5"]))), 0, "{}", job.read("log"));
    assert_eq!((job.requeued(), job.steps_recorded()), (0, 5), "{}", job.read("log"));
    assert!(job.read("log").contains(" examples/sec on sim:0, sim:1"), "{}", job.read("log"));
    assert!(job.read("calls").contains("3 core(s) a task\n"), "{}", job.read("calls"));
}

#[test]
fn a_batch_job_that_is_stopped_goes_back_into_the_queue_and_goes_on() {
    let job = Job::new("slurm/srun.sbatch");
    let long = arguments(&["--epochs", "100000"]);
    let mut running = job.start(0, &long);
    job.until(&mut running, "it does not train", || job.steps_recorded() >= 3);
    job.warn(&running);
    assert_eq!(job.end(running), 75, "{}", job.read("log"));
    assert_eq!(job.requeued(), 1);
    let first = job.steps_recorded();

    let mut running = job.start(1, &long);
    job.until(&mut running, "it does not go on", || job.steps_recorded() > first);
    assert!(job.read("log").contains("resumed after step "), "{}", job.read("log"));
    // A signal to the whole job, as scancel and preemption send it, reaches the script too.
    signal(running.0.id() as i32, libc::SIGTERM);
    job.warn(&running);
    assert_eq!(job.end(running), 75, "{}", job.read("log"));
    assert_eq!(job.requeued(), 2);
}

#[test]
fn a_batch_job_that_fails_is_not_put_back_into_the_queue() {
    let job = Job::new("slurm/srun.sbatch");
    assert_eq!(job.end(job.start(0, &["--model", "there-is-none"])), 2, "{}", job.read("log"));
    assert_eq!(job.requeued(), 0);
}

/// Puts a program in the place of torchrun that ends as torchrun does: with 1, whatever its ranks ended with.
fn with_torchrun(script: &str) -> Job {
    let job = Job::new("slurm/torchrun.sbatch");
    let torchrun = job.program("torchrun", &format!("echo \"torchrun $*\" >>\"$STAND_IN/calls\"\n{script}"));
    // One agent a node.
    job.set("TORCHRUN", torchrun).set("RANKS_PER_NODE", "2").set("SLURM_NTASKS", "1")
}

#[test]
fn torchrun_that_was_asked_to_stop_goes_back_into_the_queue() {
    let job = with_torchrun(
        "trap 'kill $sleeping; echo \"the ranks have written a checkpoint\"; exit 1' TERM\n\
         sleep 600 & sleeping=$!\ntouch \"$STAND_IN/ready\"\nwait",
    );
    let mut running = job.start(0, &["--mesh", "1x2"]);
    job.until(&mut running, "torchrun is not started", || job.folder.path().join("ready").exists());
    job.warn(&running);
    assert_eq!((job.end(running), job.requeued()), (1, 1), "{}", job.read("log"));
    assert!(job.read("log").contains("the ranks have written a checkpoint\n"), "{}", job.read("log"));
    let run = job.run_folder();
    let port = 20_000 + job.number % 10_000;
    for part in [
        "--no-python --nnodes=1 --nproc-per-node=2 --max-restarts=3 --rdzv-backend=c10d",
        &format!("--rdzv-endpoint=localhost:{port} --rdzv-id={}", job.number),
        &format!("mpt train --run-dir {} --resume auto --mesh 1x2", text(&run)),
        &format!("scancel --signal=TERM {}\n", job.number),
        "3 core(s) a task\n",
    ] {
        assert!(job.read("calls").contains(part), "{part} is not in:\n{}", job.read("calls"));
    }
}

#[test]
fn torchrun_that_fails_or_ends_well_is_not_put_back() {
    for code in [0, 1] {
        let job = with_torchrun(&format!("exit {code}"));
        assert_eq!((job.end(job.start(0, &[])), job.requeued()), (code, 0), "{}", job.read("log"));
    }
}

/// mpirun kills what is left when one rank ends with anything but 0, and at TERM: neither must come to pass, whichever rank
/// is the first to end.
#[test]
fn mpirun_that_was_asked_to_stop_ends_after_the_checkpoint_of_all_ranks() {
    let job = Job::new("mpi/mpirun");
    let run = job.run_folder();
    // Free, for as long as nobody else asks for one.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job = job.set("RUN_DIR", text(&run)).set("RENDEZVOUS_PORT", port.to_string());
    let hosts = job.folder.path().join("hosts");
    fs::write(&hosts, "# one host\n\nlocalhost slots=2\n").unwrap();
    let long = arguments(&["--epochs", "100000"]);
    for restart in 0..2 {
        let (before, arguments) = (job.steps_recorded(), [&[text(&hosts)], &long[..]].concat());
        let mut running = job.start(restart, &arguments);
        job.until(&mut running, "it does not train", || job.steps_recorded() > before + 2);
        signal(running.0.id() as i32, libc::SIGTERM);
        assert_eq!(job.end(running), 75, "{}", job.read("log"));
        assert!(job.read("log").contains("go on with: mpt train --resume "), "{}", job.read("log"));
    }
    assert!(job.read("log").contains("resumed after step "), "{}", job.read("log"));
    let calls = job.read("calls");
    assert!(calls.contains("-x MASTER_ADDR -x MASTER_PORT"), "{calls}");
    assert_eq!(calls.matches("a rank ended with 0\n").count(), 4, "{calls}");
}

/// Whoever stopped the ranks, as a batch system does that signals them itself: what is not at its end is not told as done.
#[test]
fn mpirun_tells_how_its_ranks_ended() {
    for code in [75, 0, 1] {
        let job = Job::new("mpi/mpirun");
        let (run, program) = (job.run_folder(), job.program("mpt", &format!("exit {code}")));
        let job = job.set("RUN_DIR", text(&run)).set("MPT", program);
        let hosts = job.folder.path().join("hosts");
        fs::write(&hosts, "localhost slots=2\n").unwrap();
        assert_eq!(job.end(job.start(0, &[text(&hosts)])), code, "{}", job.read("log"));
        assert!(!run.with_extension("stopped").exists());
    }
}

#[test]
fn mpirun_without_hosts_says_how_it_is_called() {
    let job = Job::new("mpi/mpirun");
    assert_eq!(job.end(job.start(0, &["nowhere", "--steps", "1"])), 2);
    assert!(job.read("log").starts_with("Usage: cluster/mpi/mpirun HOSTFILE"), "{}", job.read("log"));
}
