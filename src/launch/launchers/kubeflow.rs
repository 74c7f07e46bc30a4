//! Kubeflow's training operator: a pod is a machine, and its process a rank.

use super::variables::{Reader, Variables};
use super::{Described, Launcher};
use crate::error::Result;

/// What both kinds of job name the processes of a pod.
const PROCESSES: &str = "PET_NPROC_PER_NODE";

/// PyTorchJob: `RANK` counts the pods. In a pod, Kubernetes always tells where its own service is; older operators set
/// no `PET_` names.
pub fn pytorch_job(variables: &Variables) -> Result<Option<Described>> {
    let in_pod = variables.first_of(&["PET_NODE_RANK", "PET_NNODES", "KUBERNETES_SERVICE_HOST"]).is_some();
    if !in_pod || !variables.has("RANK") || !variables.has("WORLD_SIZE") {
        return Ok(None);
    }
    let reader = variables.of(Launcher::PyTorchJob);
    one_rank_a_pod(variables, &reader)?;
    rank_of_pod(variables, &reader, ["RANK", "WORLD_SIZE"], ["MASTER_ADDR", "MASTER_PORT"]).map(Some)
}

/// TrainJob, and PyTorchJob where only the names for torchrun are set.
pub fn train_job(variables: &Variables) -> Result<Option<Described>> {
    if !variables.has("PET_NNODES") || !variables.has("PET_NODE_RANK") {
        return Ok(None);
    }
    let reader = variables.of(Launcher::TrainJob);
    one_rank_a_pod(variables, &reader)?;
    rank_of_pod(variables, &reader, ["PET_NODE_RANK", "PET_NNODES"], ["PET_MASTER_ADDR", "PET_MASTER_PORT"]).map(Some)
}

/// torchrun starts several processes in a pod, or as many as the pod has GPUs, which is what the operators ask of it unless
/// they are told; without it there is one.
fn one_rank_a_pod(variables: &Variables, reader: &Reader) -> Result<()> {
    match variables.get(PROCESSES) {
        Some(processes) if !["1", "auto", "gpu"].contains(&processes.as_str()) => {
            let problem = format!("{PROCESSES} is {processes:?}, and mpt alone is one rank a pod");
            Err(reader.wrong_with(&problem, Launcher::TrainJob.remedy()))
        }
        _ => Ok(()),
    }
}

fn rank_of_pod(
    variables: &Variables,
    reader: &Reader,
    [rank, size]: [&str; 2],
    [host, port]: [&str; 2],
) -> Result<Described> {
    let size = reader.size(size)?;
    let rank = reader.number(rank, size)?;
    let (host, port) = (reader.needed(host)?, reader.number(port, 1 << 16)?);
    let described = reader.described([rank, size, 0, 1], host, port as u16);
    // The name of a job's pods ends in what kind and number they are; the job's own name is nowhere.
    let run = variables.get("PET_RDZV_ID").unwrap_or(described.run);
    Ok(Described { run, ..described })
}
