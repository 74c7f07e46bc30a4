//! NVIDIA's driver: the kernel's module and the library that speaks to it.

use super::{Machine, Problem, pci};
use serde::Serialize;
use std::path::PathBuf;

const TOPIC: &str = "driver";

/// What the driver's own words mean, and what to do: the words, and the remedy.
const REMEDIES: [(&str, &str); 6] = [
    ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the library is newer than the loaded kernel module: restart the machine"),
    ("CUDA_ERROR_SYSTEM_NOT_READY", "start NVIDIA's fabric manager (systemctl start nvidia-fabricmanager)"),
    (
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED",
        "remove NVIDIA's forward-compatibility package, which this GPU does not support",
    ),
    ("CUDA_ERROR_UNKNOWN", "load the module nvidia_uvm (sudo modprobe nvidia_uvm), or restart the machine"),
    ("CUDA_ERROR_NO_DEVICE", "see whether CUDA_VISIBLE_DEVICES hides the GPUs, and what nvidia-smi says"),
    ("does not answer", "see the end of dmesg for lines that begin with NVRM, and restart the machine"),
];

/// What driver there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Whether there is one that works.
    pub works: bool,
    /// Whether it is mpt's simulator.
    pub simulated: bool,
    /// The version of its kernel module.
    pub version: Option<String>,
    /// The newest CUDA that it serves, like `13.0`.
    pub cuda: Option<String>,
    /// The file of its library.
    pub library: Option<PathBuf>,
    /// Why it refuses to work.
    pub refusal: Option<String>,
    /// NVIDIA's GPUs on the PCI bus, and which kernel module has each.
    pub on_the_bus: Vec<OnTheBus>,
}

/// A GPU on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnTheBus {
    /// Its place.
    pub pci_address: String,
    /// The kernel module that has it.
    pub module: Option<String>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let driver = machine.cuda.driver.as_ref();
    let on_the_bus = pci::nvidia_gpus(machine)
        .into_iter()
        .map(|pci_address| OnTheBus { module: pci::module(machine, &pci_address), pci_address });
    Facts {
        works: driver.is_some(),
        simulated: driver.is_some_and(|driver| driver.simulated),
        version: machine.text("/proc/driver/nvidia/version").as_deref().and_then(version),
        cuda: driver.map(|driver| driver.cuda.clone()),
        library: machine.cuda.driver_files.first().cloned(),
        refusal: machine.cuda.driver_refusal.clone(),
        on_the_bus: on_the_bus.collect(),
    }
}

/// The first word of digits and points in the first line of what the kernel's module says of itself.
fn version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let found = &facts.driver;
    if found.simulated {
        return Vec::new();
    }
    [refused(found), absent(found), outdated(found, facts.libtorch.cuda.as_deref())].into_iter().flatten().collect()
}

fn refused(found: &Facts) -> Option<Problem> {
    let refusal = found.refusal.as_deref()?;
    let known = REMEDIES.iter().find(|(words, _)| refusal.contains(words));
    let remedy = known.map_or("see what nvidia-smi says of it", |(_, remedy)| remedy);
    Some(Problem::new(TOPIC, refusal, format!("{remedy}; until then use --device cpu")))
}

/// There is a GPU, or at least the kernel's module, but no library to use it with.
fn absent(found: &Facts) -> Option<Problem> {
    if found.works || found.refusal.is_some() {
        return None;
    }
    if let Some(version) = &found.version {
        let what = format!("the kernel has NVIDIA's module {version}, but its library libcuda.so.1 was not found");
        let advice = "in a container, start it with access to the GPUs (docker run --gpus all, NVIDIA's container \
                      toolkit); else install the rest of the driver";
        return Some(Problem::new(TOPIC, what, advice));
    }
    let first = found.on_the_bus.first()?;
    let what = match &first.module {
        Some(module) => format!("the GPU at {} is in the hands of {module}, not of NVIDIA's driver", first.pci_address),
        None => format!("the GPU at {} has no driver", first.pci_address),
    };
    Some(Problem::new(TOPIC, what, "install NVIDIA's driver (580 or newer), then run scripts/setup"))
}

/// libtorch asks for a newer CUDA than the driver serves.
fn outdated(found: &Facts, wanted: Option<&str>) -> Option<Problem> {
    let (serves, wanted) = (found.cuda.as_deref()?, wanted?);
    // Within a major version, older drivers serve newer libraries.
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major(serves)? >= major(wanted)? {
        return None;
    }
    let what = format!("the driver serves CUDA {serves}, but libtorch was built for CUDA {wanted}");
    Some(Problem::new(TOPIC, what, "install a newer driver (580 or newer serves CUDA 13)"))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn both_kinds_of_module_tell_their_version() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3.0";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build";
        assert_eq!(version(closed).as_deref(), Some("535.183.01"));
        assert_eq!(version(open).as_deref(), Some("580.95.05"));
        assert_eq!(version("what else"), None);
    }
}
