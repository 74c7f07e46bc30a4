//! Variables that change how GPUs, NCCL and libtorch behave.

use super::{Machine, Problem};
use serde::Serialize;
use std::collections::BTreeMap;

const TOPIC: &str = "environment";
/// What the names of such variables begin with.
const TELLING: [&str; 9] =
    ["NCCL_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "PYTORCH_", "TORCH", "OMP_", "LD_LIBRARY_PATH"];

/// The variables that are set, by name.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}

/// Finds them.
pub fn find(machine: &Machine) -> Facts {
    let telling = |name: &&String| TELLING.iter().any(|beginning| name.starts_with(beginning));
    let set = machine.environment.iter().filter(|(name, value)| telling(name) && !value.is_empty());
    Facts(set.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// What is wrong with them.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let on = |name: &str| facts.environment.get(name).is_some_and(|value| value != "0");
    let mut problems = Vec::new();
    if on("CUDA_LAUNCH_BLOCKING") {
        problems.push(Problem::new(
            TOPIC,
            "CUDA_LAUNCH_BLOCKING is set, so that nothing travels while a GPU computes",
            "unset it; it is for finding faults",
        ));
    }
    if on("NCCL_P2P_DISABLE") && on("NCCL_SHM_DISABLE") {
        problems.push(Problem::new(
            TOPIC,
            "NCCL_P2P_DISABLE and NCCL_SHM_DISABLE leave NCCL nothing but the network, within one machine too",
            "unset NCCL_SHM_DISABLE",
        ));
    }
    problems
}
