//! libtorch: which one is in this process, and whether it has what GPUs need.

use super::{Machine, Problem};
use serde::Serialize;
use std::path::{Path, PathBuf};

const TOPIC: &str = "libtorch";
/// The version that tch, and so mpt, is written for.
const WANTED: &str = "2.13.0";
/// libtorch's CUDA library.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// Libraries of NVIDIA's that it needs, where its own rpath looks for them: one of each kind.
const NVIDIA: [&str; 3] = ["cudnn/lib/libcudnn.so.9", "nccl/lib/libnccl.so.2", "cu13/lib/libcublas.so.13"];

/// What libtorch is there.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// The version that mpt is written for.
    pub wanted_version: &'static str,
    /// The version that its files name.
    pub version: Option<String>,
    /// The folder of its libraries.
    pub folder: Option<PathBuf>,
    /// `cuda` if it can compute on GPUs, as far as its files tell; else `cpu`.
    pub flavour: &'static str,
    /// Whether its CUDA library lies beside the CPU's.
    pub cuda_library: bool,
    /// The CUDA that it was built for, like `13.0`.
    pub cuda: Option<String>,
    /// Libraries of NVIDIA's that it lacks.
    pub lacks: Vec<&'static str>,
    /// Why its CUDA library cannot be used, where that was tried.
    pub refusal: Option<String>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let folder = machine.libtorch.clone();
    let beside = |below: &str| folder.as_deref().is_some_and(|folder| folder.join(below).exists());
    let cuda_library = beside(CUDA_LIBRARY);
    let lacks: Vec<&'static str> =
        NVIDIA.into_iter().filter(|library| !beside(&format!("../../nvidia/{library}"))).collect();
    let told = folder.as_deref().and_then(Path::parent).map(|package| package.join("version.py"));
    let told = told.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    Facts {
        wanted_version: WANTED,
        version: quoted(&told, "__version__"),
        cuda: quoted(&told, "cuda"),
        flavour: if cuda_library && lacks.is_empty() { "cuda" } else { "cpu" },
        cuda_library,
        lacks,
        refusal: machine.cuda.libtorch_refusal.clone(),
        folder,
    }
}

/// The text that a line of a Python file assigns to a name, whose type may stand between.
fn quoted(file: &str, name: &str) -> Option<String> {
    let line = file
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with([':', '='])))?;
    line.split('\'').nth(1).map(str::to_owned)
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let Facts { wanted_version, version, lacks, refusal, .. } = &facts.libtorch;
    let mut problems = Vec::new();
    if let Some(found) = version.as_ref().filter(|found| found.split('+').next() != Some(wanted_version)) {
        problems.push(Problem::new(
            TOPIC,
            format!("mpt is written for libtorch {wanted_version}, but the one it loads is {found}"),
            "take the folder of that one out of LD_LIBRARY_PATH, or run scripts/setup, which brings the right one",
        ));
    }
    let wanted = facts.mpt.device == "cuda";
    if wanted && facts.libtorch.flavour == "cpu" {
        let lacks = if lacks.is_empty() { CUDA_LIBRARY.to_owned() } else { format!("NVIDIA's {}", lacks.join(", ")) };
        problems.push(Problem::new(
            TOPIC,
            format!("there is a GPU, but libtorch lacks {lacks}"),
            "run scripts/setup on this machine (with MPT_FLAVOUR unset, or cuda)",
        ));
    } else if let Some(refusal) = refusal {
        problems.push(Problem::new(TOPIC, refusal.clone(), "mend what it names; until then use --device cpu"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_version_is_read_with_and_without_a_type() {
        let file = "__all__ = ['__version__', 'cuda']\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n";
        assert_eq!(quoted(file, "__version__").as_deref(), Some("2.13.0+cu130"));
        assert_eq!(quoted(file, "cuda").as_deref(), Some("13.0"));
        assert_eq!((quoted(file, "hip"), quoted(file, "rocm")), (None, None));
    }
}
