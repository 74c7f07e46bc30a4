//! Free room where mpt writes, and the shared memory that NCCL needs.

use super::machine::Room;
use super::{Machine, Problem};
use crate::recipe::duration::show_bytes;
use serde::Serialize;
use std::path::{Path, PathBuf};

const TOPIC: &str = "disk";
/// Shared memory of the system: a file system in memory.
const SHARED: &str = "/dev/shm";
/// What NCCL wants of it to be safe; containers have 64 MiB by default.
const NEEDED_SHARED: u64 = 512 << 20;
/// A checkpoint of AlexNet is 0.4 GB, and a run keeps several.
const NEEDED_RUNS: u64 = 2 << 30;
/// Data, and what set-up downloads.
const NEEDED_CACHE: u64 = 1 << 30;
const NEEDED_TEMPORARY: u64 = 64 << 20;
/// File systems that other hosts may see too.
const OVER_THE_NETWORK: [&str; 11] =
    ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs", "9p"];

/// What room there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// The cache of `scripts/mpt`: libtorch and data sets.
    pub cache: Place,
    /// The record of runs begun in this folder.
    pub runs: Place,
    /// Temporary files.
    pub temporary: Place,
    /// Shared memory.
    pub shared_memory: Place,
}

/// A folder and the room in it.
#[derive(Debug, Serialize)]
pub struct Place {
    /// The folder.
    pub path: PathBuf,
    /// The kind of file system that it lies on.
    pub file_system: Option<String>,
    /// Whether other hosts may see it too.
    pub over_the_network: bool,
    /// The room; `None` where the system does not tell.
    #[serde(flatten)]
    pub room: Option<Room>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let mounts = machine.text("/proc/self/mounts").unwrap_or_default();
    let place = |path: &Path| {
        let file_system = file_system(&mounts, path);
        Place {
            path: path.to_owned(),
            over_the_network: file_system.is_some_and(|kind| OVER_THE_NETWORK.contains(&kind)),
            file_system: file_system.map(str::to_owned),
            room: (machine.room)(path),
        }
    };
    let folders = &machine.folders;
    Facts {
        cache: place(&folders.cache),
        runs: place(&folders.runs),
        temporary: place(&folders.temporary),
        shared_memory: place(Path::new(SHARED)),
    }
}

/// The kind of the file system that a path lies on: the last one that is mounted nearest above it.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounted.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| Path::new(point).components().count()).map(|(_, kind)| kind)
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let Facts { cache, runs, temporary, shared_memory } = &facts.disk;
    let more = "make room, or set XDG_CACHE_HOME to a folder elsewhere";
    let checks = [
        little(cache, NEEDED_CACHE, "libtorch and data", more),
        little(runs, NEEDED_RUNS, "a run's checkpoints", "make room, or name a folder elsewhere with --run-dir"),
        little(temporary, NEEDED_TEMPORARY, "temporary files", "make room, or set TMPDIR to a folder elsewhere"),
        little(
            shared_memory,
            NEEDED_SHARED,
            "NCCL, which fails with `unhandled system error` when it runs out",
            "give the container more: docker run --shm-size=1g (or --ipc=host), in Kubernetes a volume emptyDir of medium \
             Memory at /dev/shm",
        ),
    ];
    checks.into_iter().flatten().collect()
}

fn little(place: &Place, needed: u64, what_for: &str, advice: &str) -> Option<Problem> {
    let (path, room) = (place.path.display(), place.room?);
    if !room.writable {
        return Some(Problem::new(TOPIC, format!("{path} cannot be written, which is for {what_for}"), advice));
    }
    let free = show_bytes(room.free_bytes);
    let what = format!("{path} has {free} of free room, little for {what_for}");
    (room.free_bytes < needed).then(|| Problem::new(TOPIC, what, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_what_is_mounted_nearest_above_it() {
        let mounts = "/dev/a / ext4 rw 0 0\nhost:/export /export nfs4 rw 0 0\ntmpfs /export/a/scratch tmpfs rw 0 0\n";
        let kind = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(kind("/exports/x"), Some("ext4"));
        assert_eq!(kind("/export/a/runs"), Some("nfs4"));
        assert_eq!(kind("/export/a/scratch/x"), Some("tmpfs"));
        assert_eq!(file_system("", Path::new("/")), None);
    }
}
