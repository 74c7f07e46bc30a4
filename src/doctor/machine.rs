//! What is looked at: files of the kernel under a root folder, and what only system calls, the driver and NCCL tell.

use super::cuda::Cuda;
use super::mapped;
use crate::engine::data_sets::data_cache;
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

/// A machine as it is looked at.
pub struct Machine {
    /// The folder that stands for `/`: everything that the kernel tells in files is read below it.
    pub root: PathBuf,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// What the driver and NCCL tell.
    pub cuda: Cuda,
    /// The addresses of the network interfaces, in the system's order.
    pub addresses: Vec<Address>,
    /// The room where a path lies, or would; `None` where the system does not tell.
    pub room: Box<RoomOf>,
    /// The folder of the libtorch in this process.
    pub libtorch: Option<PathBuf>,
    /// Where mpt reads and writes.
    pub folders: Folders,
}

/// Tells the room where a path lies.
pub type RoomOf = dyn Fn(&Path) -> Option<Room>;

/// Where mpt reads and writes.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// The cache of `scripts/mpt`.
    pub cache: PathBuf,
    /// The data set, if the default recipe is trained.
    pub data: PathBuf,
    /// The record of runs.
    pub runs: PathBuf,
    /// Temporary files.
    pub temporary: PathBuf,
}

/// An address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
}

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// In all.
    pub total_bytes: u64,
    /// What this user can still write.
    pub free_bytes: u64,
    /// Whether this user may write there.
    pub writable: bool,
}

impl Machine {
    /// This machine, with what the driver and NCCL told.
    pub fn this(cuda: Cuda) -> Self {
        let data = data_cache();
        Self {
            root: PathBuf::from("/"),
            environment: env::vars_os()
                .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
                .collect(),
            cuda,
            addresses: addresses(),
            room: Box::new(room),
            libtorch: mapped::files("libtorch_cpu.so").first().and_then(|file| file.parent().map(Path::to_owned)),
            folders: Folders {
                cache: data.parent().map(Path::to_owned).unwrap_or_default(),
                data: data.join("fashion-mnist"),
                runs: env::current_dir().unwrap_or_default().join("runs"),
                temporary: env::temp_dir(),
            },
        }
    }

    /// A path of the machine as a path under the root folder.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let below = path.as_ref().components().filter(|part| !matches!(part, Component::RootDir));
        self.root.join(below.collect::<PathBuf>())
    }

    /// The text of a file of the kernel's without blanks around it; `None` where it is not there, or may not be read.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The number in a file.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a folder, in order; none where it is not there.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Whether a path is there.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// A variable of the environment that is set to something.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn addresses() -> Vec<Address> {
    let told = if_addrs::get_if_addrs().into_iter().flatten();
    told.map(|found| Address { address: found.ip(), interface: found.name }).collect()
}

/// The room where a path lies, or the nearest folder above it that there is.
fn room(path: &Path) -> Option<Room> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let told = statvfs(there).ok()?;
    Some(Room {
        total_bytes: told.f_blocks * told.f_frsize,
        free_bytes: told.f_bavail * told.f_frsize,
        writable: access(there, Access::WRITE_OK).is_ok(),
    })
}
