//! This process and its surroundings. What libtorch's run-time libraries read from the environment once, when they are
//! loaded: how OpenMP's threads wait, and how malloc deals with memory that is freed. And the memory that was held, and threads that stand back.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// By default OpenMP's threads spin while they wait, and on a machine that has anything else to do each of them burns
/// the time that the one it waits for would need: a hundredfold slowdown was seen.
const WAITING: (&str, &str) = ("OMP_WAIT_POLICY", "passive");

/// Who sets this has chosen how threads wait in another way.
const SPINNING: &str = "GOMP_SPINCOUNT";

/// By default every large tensor is mapped afresh, and its pages are cleared by the kernel, in each step. Kept on one
/// heap, freed memory is used again as it is; large pages need fewer look-ups. (glibc reads this; others ignore it.)
const MEMORY: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776:\
     glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1",
);

/// Makes this process suit training; it comes before libtorch is first used. Where something of the environment is missing
/// that the user has not chosen otherwise, the program is started again with it, and this does not return; if it cannot be
/// started again, it runs on as it is.
pub fn suit_training() {
    with_what_is_missing();
    // SAFETY: commands begin with this, before they make a tensor.
    unsafe { crate::torch::memory::reuse() };
}

fn with_what_is_missing() {
    let unset = |name: &str| env::var_os(name).is_none();
    let mut missing: Vec<(&str, &OsStr)> = Vec::new();
    if unset(WAITING.0) && unset(SPINNING) {
        missing.push((WAITING.0, WAITING.1.as_ref()));
    }
    if unset(MEMORY.0) {
        missing.push((MEMORY.0, MEMORY.1.as_ref()));
    }
    if missing.is_empty() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // `exec` comes back only if it failed.
        let _ = Command::new(program).args(env::args_os().skip(1)).envs(missing).exec();
    }
}

/// How much less urgent than training a thread is that works beside it, as `nice` counts.
const NICE: i32 = 10;

/// Makes the calling thread less urgent than those that train.
pub fn yield_to_training() {
    // SAFETY: sets a number of the calling thread's, which Linux means by process 0; on failure nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// The most memory that this process has held since it began, in bytes; `None` where the system does not tell.
pub fn most_memory() -> Option<u64> {
    memory_by("VmHWM:")
}

/// The memory that this process holds, in bytes; `None` where the system does not tell.
pub fn memory() -> Option<u64> {
    memory_by("VmRSS:")
}

fn memory_by(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}
