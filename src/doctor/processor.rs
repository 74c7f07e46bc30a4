//! The processor: its cores, how many of them this process may use, and whether it computes bf16 natively.

use super::{Machine, Problem, cgroup};
use crate::recipe::has_fast_bf16;
use serde::Serialize;
use std::collections::BTreeSet;

const TOPIC: &str = "processor";
/// What the kernel calls native bf16.
const BF16: &str = "avx512_bf16";
/// Cores per GPU, below which the loader is likely to hold training up: one for the rank, one for its images.
const CORES_PER_GPU: usize = 2;

/// What processor there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Its model.
    pub name: Option<String>,
    /// Cores, each of which may run several threads.
    pub cores: Option<usize>,
    /// What the system counts as processors: threads of cores.
    pub threads: Option<usize>,
    /// Those that this process is bound to.
    pub bound_to: Option<usize>,
    /// How many a container or batch system lets it keep busy.
    pub cgroup_limit: Option<f64>,
    /// How many it uses: the least of these.
    pub usable: Option<usize>,
    /// Whether it multiplies bf16 natively.
    pub native_bf16: bool,
    /// Whether it does so faster than fp32.
    pub fast_bf16: bool,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let told = machine.text("/proc/cpuinfo").unwrap_or_default();
    let threads = machine.text("/sys/devices/system/cpu/online").as_deref().and_then(count);
    let status = machine.text("/proc/self/status").unwrap_or_default();
    let bound_to = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).and_then(count);
    let cgroup_limit = cgroup::processors(machine);
    let least = bound_to.into_iter().chain(threads).min();
    Facts {
        name: value(&told, "model name").map(str::to_owned),
        cores: cores(&told),
        threads,
        bound_to,
        cgroup_limit,
        // As the standard library counts them: whole ones, and one at least.
        usable: least.map(|least| cgroup_limit.map_or(least, |limit| least.min((limit as usize).max(1)))),
        fast_bf16: has_fast_bf16(&told),
        native_bf16: value(&told, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == BF16)),
    }
}

/// The value of a line in the kernel's form, `name\t: value`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

/// The cores: pairs of a socket and a core of it.
fn cores(told: &str) -> Option<usize> {
    let each = told.split("\n\n").filter_map(|one| Some((value(one, "physical id")?, value(one, "core id")?)));
    Some(each.collect::<BTreeSet<_>>().len()).filter(|&count| count > 0)
}

/// How many numbers a list in the kernel's form has, such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    list.trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (last.parse::<usize>().ok()? + 1).checked_sub(first.parse().ok()?)
        })
        .sum()
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let gpus = if facts.driver.simulated { 0 } else { facts.gpus.len() };
    let Some(usable) = facts.processor.usable.filter(|&usable| usable < CORES_PER_GPU * gpus) else {
        return Vec::new();
    };
    let what = format!("{usable} cores are there for {gpus} GPUs, and may not load images as fast as these take them");
    let advice = match facts.processor.cgroup_limit {
        Some(_) => "give the container or batch job more cores, two a GPU at least",
        None => "see with `mpt bench loader` whether they do; two cores a GPU are a beginning",
    };
    vec![Problem::new(TOPIC, what, advice)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(count("0-3,8"), Some(5));
        assert_eq!(count("7\n"), Some(1));
        assert_eq!((count(""), count("3-1"), count("a-b")), (None, None, None));
    }

    #[test]
    fn threads_of_a_core_count_as_one_core() {
        let one =
            |socket, core| format!("processor\t: 0\nphysical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu\n");
        let told = [one(0, 0), one(0, 1), one(0, 0), one(1, 0)].join("\n");
        assert_eq!(cores(&told), Some(3));
        assert_eq!(cores("processor : 0"), None);
    }
}
