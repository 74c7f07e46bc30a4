//! GPUs: what the driver tells of each, and its place on the PCI bus.

use super::{Machine, Problem, listed, pci};
use crate::comm::nccl::facts::Gpu;
use serde::Serialize;

const TOPIC: &str = "gpus";
/// The oldest generation that CUDA 13 has compilers for, and so libtorch kernels.
const OLDEST: (i32, i32) = (7, 5);
/// The first generation that multiplies bf16 natively.
const FIRST_WITH_BF16: i32 = 8;

/// What GPU there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// What the driver tells of it.
    #[serde(flatten)]
    pub gpu: Gpu,
    /// Whether it multiplies bf16 natively.
    pub native_bf16: bool,
    /// Its link to the PCI bus; `None` where the kernel does not tell, and for simulated GPUs.
    pub pcie: Option<pci::Link>,
    /// The memory node that it is near to, on machines that have several.
    pub numa_node: Option<u64>,
}

/// Whether a GPU multiplies bf16 natively.
pub fn computes_bf16(gpu: &Gpu) -> bool {
    gpu.compute_capability.0 >= FIRST_WITH_BF16
}

/// Finds them, by number.
pub fn find(machine: &Machine) -> Vec<Facts> {
    let Some(driver) = &machine.cuda.driver else { return Vec::new() };
    let facts = |gpu: &Gpu| {
        let bus = Some(gpu.pci_address.as_str()).filter(|_| !driver.simulated);
        Facts {
            gpu: gpu.clone(),
            native_bf16: computes_bf16(gpu),
            pcie: bus.and_then(|address| pci::link(machine, address)),
            // -1 where there is but one node, which is no number here.
            numa_node: bus.and_then(|address| machine.number(pci::folder(address).join("numa_node"))),
        }
    };
    driver.gpus.iter().map(facts).collect()
}

/// What is wrong with them.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let gpus = &facts.gpus;
    [too_old(gpus), hidden(facts), unlike(gpus), narrow(gpus)].into_iter().flatten().collect()
}

/// The numbers of the GPUs that something is true of.
fn those(gpus: &[Facts], wanted: impl Fn(&Facts) -> bool) -> Vec<usize> {
    (0..gpus.len()).filter(|&number| wanted(&gpus[number])).collect()
}

/// `GPU 1 has`, `GPUs 0 and 1 have`.
fn subject(numbers: &[usize], verb: [&str; 2]) -> String {
    match numbers {
        [one] => format!("GPU {one} {}", verb[0]),
        several => format!("GPUs {} {}", listed(several), verb[1]),
    }
}

fn too_old(gpus: &[Facts]) -> Option<Problem> {
    let old = those(gpus, |found| found.gpu.compute_capability < OLDEST);
    let first = gpus.get(*old.first()?)?;
    let (major, minor) = first.gpu.compute_capability;
    let what = format!(
        "{} of compute capability {major}.{minor} ({}), for which this libtorch has no kernels",
        subject(&old, ["is", "are"]),
        first.gpu.name
    );
    Some(Problem::new(TOPIC, what, "use GPUs of 7.5 (Turing) or newer, or --device cpu"))
}

/// The bus has more GPUs than the driver offers.
fn hidden(facts: &super::Facts) -> Option<Problem> {
    let (bus, offered) = (facts.driver.on_the_bus.len(), facts.gpus.len());
    if facts.driver.simulated || !facts.driver.works || bus <= offered {
        return None;
    }
    let what = format!("the PCI bus has {bus} NVIDIA GPUs, but the driver offers {offered}");
    let advice = match facts.environment.get("CUDA_VISIBLE_DEVICES") {
        Some(set) => format!("CUDA_VISIBLE_DEVICES={set} hides the others: unset it if that is not meant"),
        None => {
            "see nvidia-smi and the lines of dmesg that begin with NVRM; a container is given GPUs one by one".into()
        }
    };
    Some(Problem::new(TOPIC, what, advice))
}

fn unlike(gpus: &[Facts]) -> Option<Problem> {
    let first = gpus.first()?;
    let other = gpus.iter().find(|found| found.gpu.name != first.gpu.name)?;
    let what =
        format!("the GPUs differ ({} and {}), and the slowest sets the pace of all", first.gpu.name, other.gpu.name);
    let advice = "choose equal ones with --devices, and set CUDA_DEVICE_ORDER=PCI_BUS_ID so that they are \
                  numbered as nvidia-smi does";
    Some(Problem::new(TOPIC, what, advice))
}

/// Fewer PCIe lanes than a GPU could use. The speed of a lane is no problem: it falls while nothing is to be done.
fn narrow(gpus: &[Facts]) -> Option<Problem> {
    let narrow = those(gpus, |found| found.pcie.as_ref().is_some_and(|link| link.width < link.most_width));
    let link = gpus.get(*narrow.first()?)?.pcie.as_ref()?;
    let what = format!(
        "{} {} of the {} PCIe lanes that would be used, which makes exchanges slower",
        subject(&narrow, ["has", "have"]),
        link.width,
        link.most_width
    );
    Some(Problem::new(TOPIC, what, "use the board's widest slots; where it shares lanes between two, nothing is amiss"))
}
