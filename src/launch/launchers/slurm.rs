//! Slurm: each task of `srun` is a rank.

use super::variables::{Reader, Variables};
use super::{Described, Launcher};
use crate::error::Result;

/// Numbers of steps from here on are not of srun's tasks: the batch script, an interactive shell, and the like
/// (SLURM_MAX_NORMAL_STEP_ID of slurm.h).
const FIRST_SPECIAL_STEP: u64 = 0xffff_fff0;

/// A task of `srun`.
///
/// In a batch script, or a shell that salloc opened, the variables of the job are set too, and `SLURM_PROCID` may be; but
/// only tasks of srun belong to a numbered step. A step of one task is how shells are opened (`srun --pty bash`): who
/// calls mpt there has started no rank.
pub fn described(variables: &Variables) -> Result<Option<Described>> {
    let step = variables.get("SLURM_STEP_ID").or_else(|| variables.get("SLURM_STEPID"));
    let Some(step) = step.filter(|step| step.parse().is_ok_and(|number: u64| number < FIRST_SPECIAL_STEP)) else {
        return Ok(None);
    };
    if !variables.has("SLURM_PROCID") {
        return Ok(None);
    }
    let reader = variables.of(Launcher::Slurm);
    // Those of the step come first: those of the job tell how many tasks were asked for in all.
    let size = reader.size(variables.first_of(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]).unwrap_or("SLURM_NTASKS"))?;
    if size == 1 {
        return Ok(None);
    }
    let rank = reader.number("SLURM_PROCID", size)?;
    let local_size = local_size(variables, &reader, size)?;
    let local_rank = reader.number("SLURM_LOCALID", local_size)?;
    let run = format!("{}.{step}", reader.needed("SLURM_JOB_ID")?);
    let host = match variables.get("MASTER_ADDR") {
        Some(host) => host,
        None => {
            let name = variables.first_of(&["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]).unwrap_or("SLURM_NODELIST");
            first_host(&reader.needed(name)?)
        }
    };
    let port = reader.port(Some(&run))?;
    let described = reader.described([rank, size, local_rank, local_size], host, port);
    let restart = variables.get("SLURM_RESTART_COUNT").unwrap_or(described.restart);
    Ok(Some(Described { run, restart, ..described }))
}

/// The tasks of this node, of whichever variable tells it.
fn local_size(variables: &Variables, reader: &Reader, size: usize) -> Result<usize> {
    let Some(name) = variables.first_of(&["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"]) else {
        return reader.positive("SLURM_NTASKS_PER_NODE", size);
    };
    let text = reader.needed(name)?;
    let node = reader.number_or("SLURM_NODEID", usize::MAX, 0)?;
    let local = tasks_of(&text, node).filter(|tasks| (1..=size).contains(tasks));
    local.ok_or_else(|| reader.wrong(&format!("{name} is {text:?}, which tells no number of tasks for node {node}")))
}

/// The tasks of a node in a list like `2(x3),1`: two on each of three nodes, then one.
fn tasks_of(list: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for part in list.split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        before += nodes;
        if node < before {
            return tasks.parse().ok();
        }
    }
    None
}

/// The first host of a list like `rack[1-2]node[03-05,9],login`, where srun puts rank 0: `rack1node03`.
fn first_host(list: &str) -> String {
    let (mut host, mut bracketed, mut passed) = (String::new(), false, false);
    for letter in list.chars() {
        match letter {
            '[' => (bracketed, passed) = (true, false),
            ']' => bracketed = false,
            ',' if !bracketed => break,
            ',' | '-' if bracketed => passed = true,
            _ if bracketed && passed => {}
            _ => host.push(letter),
        }
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, first) in [
            ("node7", "node7"),
            ("node7,node9", "node7"),
            ("node[01-03,07],gpu5", "node01"),
            ("rack[1-2]-node[003,5]", "rack1-node003"),
            ("a[2]b.example", "a2b.example"),
            ("gpu-a,gpu-b", "gpu-a"),
        ] {
            assert_eq!(first_host(list), first, "{list}");
        }
    }

    #[test]
    fn the_tasks_of_a_node_are_found() {
        assert_eq!([0, 1, 2, 3, 4].map(|node| tasks_of("2(x3),1", node)), [Some(2), Some(2), Some(2), Some(1), None]);
        assert_eq!(tasks_of("4", 0), Some(4));
        for wrong in ["", "two", "2(x", "2(xy)"] {
            assert_eq!(tasks_of(wrong, 0), None, "{wrong}");
        }
    }
}
