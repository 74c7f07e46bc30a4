//! The machine's memory, and what of it this process may have.

use super::{Machine, Problem, cgroup};
use crate::recipe::duration::show_bytes;
use serde::Serialize;

const TOPIC: &str = "memory";
/// What the default recipe needs, on the CPU or in a rank beside its GPU, with room for the system.
const NEEDED: u64 = 2 << 30;

/// What memory there is, in bytes.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// In all.
    pub total_bytes: Option<u64>,
    /// What can be had now.
    pub available_bytes: Option<u64>,
    /// What a container or batch system lets this process hold.
    pub cgroup_limit_bytes: Option<u64>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let told = machine.text("/proc/meminfo").unwrap_or_default();
    let kibibytes = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Facts {
        total_bytes: kibibytes("MemTotal").map(|number| number << 10),
        available_bytes: kibibytes("MemAvailable").map(|number| number << 10),
        cgroup_limit_bytes: cgroup::memory(machine),
    }
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let found = &facts.memory;
    let ranks = facts.gpus.len().max(1) as u64;
    let needed = NEEDED * ranks;
    let little = |bytes: &u64| *bytes < needed;
    let (what, advice) = if let Some(limit) = found.cgroup_limit_bytes.filter(little) {
        (
            format!("this process's control group may hold {}", show_bytes(limit)),
            "raise the limit of the container or batch job",
        )
    } else if let Some(free) = found.available_bytes.filter(little) {
        (format!("{} of memory are free", show_bytes(free)), "end what else holds memory")
    } else {
        return Vec::new();
    };
    let what = format!("{what}, less than the {} that AlexNet may need with {ranks} process(es)", show_bytes(needed));
    vec![Problem::new(TOPIC, what, format!("{advice}, or use a smaller --batch-size (`mpt plan` says what is needed)"))]
}
