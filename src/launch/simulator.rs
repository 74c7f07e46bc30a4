//! Simulated GPUs: the library that stands in for the driver and NCCL, and what the ranks of a rehearsal find in their
//! environment. It is a simulator of documented rules, not a proof on GPUs.

use crate::error::{Error, Result};
use crate::file;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, process};

/// The library, which `cargo build` puts beside the program.
const LIBRARY: &str = "libmpt_simulator.so";
/// What the names of the folders begin with.
const FOLDER: &str = "mpt-rehearsal-";
/// The names under which it is looked up.
const NAMES: [&str; 4] = ["libcuda.so", "libcuda.so.1", "libnccl.so", "libnccl.so.2"];
/// Where the dynamic linker looks first.
const SEARCH_PATH: &str = "LD_LIBRARY_PATH";
/// The kinds of faults.
const FAULTS: [&str; 6] = ["kill", "hang", "fail", "cut", "delay", "slow"];
/// How long a call is delayed, or a rank is slow.
const DELAY_MILLISECONDS: u64 = 500;

/// Something that is made to go wrong: `kill:1@20` kills rank 1 in step 20.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens, as the simulator calls it.
    action: String,
    /// On which rank.
    pub rank: usize,
    /// In which step, from 1.
    pub step: u64,
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "--fault {text}: a fault is kill:RANK@STEP, or hang, fail, cut, delay or slow in the place of kill"
            ))
        };
        let (kind, place) = text.split_once(':').ok_or_else(wrong)?;
        let (rank, step) = place.split_once('@').ok_or_else(wrong)?;
        let kind = FAULTS.into_iter().find(|known| *known == kind).ok_or_else(wrong)?;
        let (rank, step) = (rank.parse().map_err(|_| wrong())?, step.parse().map_err(|_| wrong())?);
        if step == 0 {
            return Err(Error::usage(format!("--fault {text}: steps count from 1")));
        }
        let action = match kind {
            "delay" | "slow" => format!("{kind}:{DELAY_MILLISECONDS}"),
            _ => kind.to_owned(),
        };
        Ok(Self { action, rank, step })
    }
}

/// In the folder: whoever needs it, and is still there, holds a lock of this file.
const LOCK: &str = "lock";
/// Where ranks find the folder.
const FOLDER_VARIABLE: &str = "MPT_SIMULATOR_FOLDER";
/// Where such a rank finds its own lock again when it has begun anew with the simulator: the number of the open file.
const LOCK_VARIABLE: &str = "MPT_SIMULATOR_LOCK";

/// A folder with the simulator's links and sockets, which goes when this is dropped: where a launcher started the ranks,
/// when the last of them drops it. One whose owners were killed goes when the next one is made.
pub struct Simulator {
    folder: PathBuf,
    lock: File,
}

impl Simulator {
    /// Makes the folder, with the library that lies beside a program of mpt's.
    ///
    /// # Errors
    /// The simulator's library is not there, or the folder cannot be made.
    pub fn beside(program: &Path) -> Result<Self> {
        let library = library_beside(program)?;
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self::in_folder(&format!("{}-{number}", process::id()), &library)
    }

    /// Makes the folder of this name, or comes to it, after those that nobody holds any more have been swept away.
    fn in_folder(name: &str, library: &Path) -> Result<Self> {
        let parent = env::temp_dir();
        sweep(&parent);
        let folder = parent.join(format!("{FOLDER}{name}"));
        let prepared = lock(&folder).and_then(|lock| link(library, &folder).map(|()| lock));
        let lock = prepared.map_err(|error| Error::failed(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder, lock })
    }

    /// The folder of ranks that a launcher started on this machine, each of which calls this: `run` is what they have in
    /// common, and no other run has at the same time.
    ///
    /// # Errors
    /// The simulator's library is not there, or the folder cannot be made.
    pub fn of_run(program: &Path, run: &str) -> Result<Self> {
        let library = library_beside(program)?;
        // Short, for the paths of sockets may not be long.
        Self::in_folder(&format!("{:08x}", crc32fast::hash(run.as_bytes())), &library)
    }

    /// The folder of this rank, which began anew in the environment of [`Simulator::begin_anew`]; `None` before that.
    pub fn of_environment() -> Option<Self> {
        let folder = PathBuf::from(env::var_os(FOLDER_VARIABLE)?);
        let lock = env::var(LOCK_VARIABLE).ok()?.parse().ok()?;
        // SAFETY: the number was left open for this process by itself, before it began anew, and is taken here only.
        let lock = unsafe { File::from_raw_fd(lock) };
        Some(Self { folder, lock })
    }

    /// Begins this program anew with the same arguments and more environment: the dynamic linker looks for libraries where
    /// its environment said at the start.
    ///
    /// # Errors
    /// It cannot be begun.
    pub fn begin_anew(self, environment: Vec<(String, OsString)>) -> Result<u8> {
        let failed = |error: io::Error| Error::failed(format!("mpt cannot be started again: {error}"));
        let program = env::current_exe().map_err(failed)?;
        let lock = self.lock.as_raw_fd();
        // SAFETY: changes a flag of a file that this process holds open.
        unsafe { libc::fcntl(lock, libc::F_SETFD, 0) };
        let mut command = Command::new(program);
        command.args(env::args_os().skip(1)).envs(environment).env(LOCK_VARIABLE, lock.to_string());
        Err(failed(command.exec()))
    }

    /// What a rank of a rehearsal on a machine of `devices` GPUs finds in its environment.
    pub fn environment(&self, devices: usize, rank: usize, fault: Option<&Fault>) -> Vec<(String, OsString)> {
        let mut search = self.folder.clone().into_os_string();
        if let Some(before) = env::var_os(SEARCH_PATH).filter(|path| !path.is_empty()) {
            search.push(":");
            search.push(before);
        }
        let mut environment = vec![
            (SEARCH_PATH.to_owned(), search),
            (FOLDER_VARIABLE.to_owned(), self.folder.clone().into_os_string()),
            ("MPT_SIMULATOR_DEVICES".to_owned(), devices.to_string().into()),
        ];
        if let Some(Fault { action, step, .. }) = fault.filter(|fault| fault.rank == rank) {
            environment.push(("MPT_SIMULATOR_FAULT".to_owned(), format!("{action}@step:{step}").into()));
        }
        environment
    }

    /// The rules that were broken on any rank, one a line.
    pub fn broken_rules(&self) -> Vec<String> {
        let found = fs::read_to_string(self.folder.join("broken-rules")).unwrap_or_default();
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Whoever gets the lock for itself alone is the last of a run.
        if self.lock.try_lock().is_ok() {
            // What is left over lies in the folder for temporary files.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn library_beside(program: &Path) -> Result<PathBuf> {
    let beside = |folder: &Path| folder.join(LIBRARY);
    program.parent().map(beside).filter(|library| library.exists()).ok_or_else(|| {
        let program = program.display();
        Error::usage(format!("{LIBRARY} is not beside {program}: build both with `cargo build --release`"))
    })
}

/// Gives the library the names under which it is looked up, unless another rank has.
fn link(library: &Path, folder: &Path) -> io::Result<()> {
    NAMES.iter().try_for_each(|name| match symlink(library, folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    })
}

/// Removes this user's folders that nobody holds any more, as those do that were killed. Who is about to take one makes it
/// anew: see [`lock`].
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(FOLDER)) {
        let folder = entry.path();
        let opened = own(&folder).and_then(|()| file::open_in_place(&folder.join(LOCK), File::options().read(true)));
        let Ok(lock) = opened else { continue };
        if file::check(&lock).is_ok() && lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Makes a folder into which nobody else may put anything.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Sees that only this user may put anything into a folder: ranks load what has the name of a driver there. Its own name may
/// be foreseen, and in a folder for temporary files anyone may have made it.
fn own(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(
        "libraries are loaded from there, but it is no folder that only this user may write to: remove it, or let TMPDIR name \
         a folder of your own",
    ))
}

/// Makes a folder that ranks share, or comes to it, and holds it. The first to come removes what a run left there that was
/// killed.
fn lock(folder: &Path) -> io::Result<File> {
    loop {
        make(folder)?;
        let path = folder.join(LOCK);
        let open = || file::open_in_place(&path, File::options().create(true).truncate(false).write(true));
        let lock = match own(folder).and_then(|()| open()) {
            // The last rank of an earlier run is removing it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if lock.try_lock().is_ok() && is_at(&lock, &path)? {
            for left in fs::read_dir(folder)?.filter_map(|entry| entry.ok()).filter(|entry| entry.file_name() != LOCK) {
                fs::remove_file(left.path())?;
            }
        }
        lock.lock_shared()?;
        if is_at(&lock, &path)? {
            // What was removed meanwhile another may have made anew. From now on it is held.
            return own(folder).map(|()| lock);
        }
    }
}

/// Whether an open file is still the one at a path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    Ok(path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_swept_away_when_nobody_holds_it_any_more() {
        let parent = tempfile::tempdir().unwrap();
        let [held, left, other] =
            ["mpt-rehearsal-1-0", "mpt-rehearsal-2-0", "other"].map(|name| parent.path().join(name));
        let holder = lock(&held).unwrap();
        drop([lock(&left).unwrap(), lock(&other).unwrap()]);
        sweep(parent.path());
        assert_eq!([&held, &left, &other].map(|folder| folder.exists()), [true, false, true]);
        drop(holder);
        sweep(parent.path());
        assert!(!held.exists());
    }

    #[test]
    fn the_last_of_the_ranks_that_share_a_folder_removes_it_and_the_first_what_was_left() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("shared");
        make(&folder).unwrap();
        fs::write(folder.join("broken-rules"), "of a run that was killed").unwrap();
        let come = || Simulator { folder: folder.clone(), lock: lock(&folder).unwrap() };
        let (first, second) = (come(), come());
        assert_eq!(first.broken_rules(), Vec::<String>::new());
        fs::write(folder.join("broken-rules"), "a rule").unwrap();
        drop(second);
        let third = come();
        assert_eq!(third.broken_rules(), ["a rule"]);
        drop(first);
        assert!(folder.exists());
        drop(third);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_others_could_put_a_library_into_is_refused() {
        let here = tempfile::tempdir().unwrap();
        let [open, real, link] = ["open", "real", "link"].map(|name| here.path().join(name));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        make(&real).unwrap();
        assert_eq!(real.metadata().unwrap().mode() & 0o077, 0, "others have no business there");
        symlink(&real, &link).unwrap();
        for folder in [open, link] {
            let refused = lock(&folder).unwrap_err().to_string();
            assert!(refused.contains("it is no folder that only this user may write to: remove it"), "{refused}");
            assert!(!folder.join(LOCK).exists());
        }
        lock(&real).unwrap();
    }

    #[test]
    fn nothing_that_is_called_lock_holds_up_who_sweeps() {
        let parent = tempfile::tempdir().unwrap();
        let [pipe, link, left] = ["pipe", "link", "left"].map(|name| parent.path().join(format!("{FOLDER}{name}")));
        make(&pipe).unwrap();
        make(&link).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, pipe.join(LOCK), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        fs::write(parent.path().join("elsewhere"), "").unwrap();
        symlink(parent.path().join("elsewhere"), link.join(LOCK)).unwrap();
        drop(lock(&left).unwrap());
        sweep(parent.path());
        assert_eq!([&pipe, &link, &left].map(|folder| folder.exists()), [true, true, false]);
        assert!(lock(&pipe).is_err());
    }

    #[test]
    fn a_fault_is_a_kind_a_rank_and_a_step() {
        let fault: Fault = "kill:1@20".parse().unwrap();
        assert_eq!(fault, Fault { action: "kill".into(), rank: 1, step: 20 });
        let fault: Fault = "delay:0@3".parse().unwrap();
        assert_eq!(fault.action, "delay:500");
        let fault: Fault = "slow:0@3".parse().unwrap();
        assert_eq!(fault.action, "slow:500");
        for wrong in ["kill", "kill:1", "kill:1@", "maim:1@20", "kill:x@2", "kill:1@0"] {
            let message = wrong.parse::<Fault>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("--fault {wrong}: ")), "{message}");
        }
    }
}
