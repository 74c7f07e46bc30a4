//! Limits of the process (`ulimit`), where NCCL cares.

use super::{Machine, Problem};
use serde::Serialize;

const TOPIC: &str = "limits";
/// Sockets, libraries and devices of one rank among many.
const NEEDED_FILES: u64 = 1024;

/// What limits there are; `None` without one.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Files and sockets that may be open.
    pub open_files: Option<u64>,
    /// Bytes of memory that may be kept from moving, which RDMA registers.
    pub locked_memory_bytes: Option<u64>,
}

/// Finds them.
pub fn find(machine: &Machine) -> Facts {
    let told = machine.text("/proc/self/limits").unwrap_or_default();
    // The name, then the soft limit, the hard one and the unit.
    let soft = |name: &str| {
        let values = told.lines().find_map(|line| line.strip_prefix(name))?;
        values.split_whitespace().next()?.parse().ok()
    };
    Facts { open_files: soft("Max open files"), locked_memory_bytes: soft("Max locked memory") }
}

/// What is wrong with them.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(files) = facts.limits.open_files.filter(|&files| files < NEEDED_FILES) {
        let what = format!("a process may open {files} files and sockets, few for NCCL");
        problems.push(Problem::new(TOPIC, what, "raise the limit: ulimit -n 65536, or nofile in limits.conf"));
    }
    if let (Some(bytes), Some(adapter)) = (facts.limits.locked_memory_bytes, facts.network.rdma.first()) {
        let what =
            format!("{bytes} bytes of memory may be locked, but NCCL registers all that {adapter} sends and receives");
        problems.push(Problem::new(TOPIC, what, "lift the limit: ulimit -l unlimited, or memlock in limits.conf"));
    }
    problems
}
