//! NCCL: which one is used, and whether there are two. Two copies in one process do not know of each other's groups
//! (PyTorch's issue 42517).

use super::{Machine, Problem, listed};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TOPIC: &str = "nccl";
/// Where the copy of PyTorch's wheel lies, seen from libtorch's libraries.
const OF_THE_WHEEL: &str = "../../nvidia/nccl/lib";
/// Where distributions and NVIDIA's packages put one.
const OF_THE_SYSTEM: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/local/cuda/lib64"];
/// What its files are called; the second is the name under which mpt asks for it.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// What NCCL there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// The version of the one that mpt uses, like `2.29.7`.
    pub version: Option<String>,
    /// Its file.
    pub path: Option<PathBuf>,
    /// All that were loaded, by mpt and by libtorch.
    pub loaded: Vec<PathBuf>,
    /// All that the machine has where one is looked for, each file once.
    pub found: Vec<PathBuf>,
    /// The one that libtorch was built for.
    pub of_libtorch: Option<PathBuf>,
    /// Why it cannot be used.
    pub refusal: Option<String>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let cuda = &machine.cuda;
    let of_libtorch = machine.libtorch.as_deref().and_then(|folder| real(&folder.join(OF_THE_WHEEL).join(NAMES[0])));
    let searched = machine.variable("LD_LIBRARY_PATH").unwrap_or_default();
    let searched = searched.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let of_system = OF_THE_SYSTEM.iter().map(|folder| machine.path(folder));
    let files = searched.chain(of_system).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let found: BTreeSet<PathBuf> = files.filter_map(|file| real(&file)).chain(of_libtorch.clone()).collect();
    Facts {
        version: cuda.nccl.as_ref().map(|nccl| nccl.version.clone()),
        path: cuda.nccl_files.first().cloned(),
        loaded: cuda.nccl_files.clone(),
        found: found.into_iter().collect(),
        of_libtorch,
        refusal: cuda.nccl_refusal.clone(),
    }
}

/// The file behind links, if there is one.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let found = &facts.nccl;
    let several = facts.gpus.len() > 1;
    if facts.driver.simulated {
        return Vec::new();
    }
    if let Some(refusal) = &found.refusal {
        return vec![Problem::new(TOPIC, refusal.clone(), "let libtorch bring its own: run scripts/setup")];
    }
    if found.path.is_none() && several {
        let advice = "run scripts/setup on this machine, which brings it with NVIDIA's other libraries";
        return vec![Problem::new(TOPIC, "there are several GPUs, but NCCL was not found", advice)];
    }
    [two(found), another(found)].into_iter().flatten().take(1).collect()
}

fn two(found: &Facts) -> Option<Problem> {
    if found.loaded.len() < 2 {
        return None;
    }
    let files = listed(found.loaded.iter().map(|file| file.display()));
    let what = format!("{} copies of NCCL are loaded ({files}), which do not know of each other", found.loaded.len());
    Some(Problem::new(TOPIC, what, "take the folders of all but libtorch's out of LD_LIBRARY_PATH"))
}

/// The copy that is used is not the one that libtorch was built for.
fn another(found: &Facts) -> Option<Problem> {
    let (used, wanted) = (found.path.as_deref()?, found.of_libtorch.as_deref()?);
    if used == wanted {
        return None;
    }
    let what =
        format!("NCCL is loaded from {}, not from {}, which libtorch was built for", used.display(), wanted.display());
    Some(Problem::new(TOPIC, what, "take the folder of the first out of LD_LIBRARY_PATH"))
}
