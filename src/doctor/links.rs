//! How GPUs reach each other: directly (P2P) or through the machine's memory, and what is known to hold P2P up.

use super::pci::{self, Services};
use super::{Machine, Problem, listed};
use crate::comm::nccl::facts::Peer;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

const TOPIC: &str = "links";
/// GeForce cards without P2P, of which some drivers said that they have it: transfers then hang or bring wrong data
/// (nccl-tests' issue 117).
const CLAIMING: &str = "RTX 40";
/// The variable that keeps NCCL from using P2P.
const WITHOUT_P2P: &str = "NCCL_P2P_DISABLE";

/// How GPUs reach each other.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// `peer_access[a][b]`: whether GPU `a` reads and writes the memory of GPU `b`; null for a GPU and itself.
    pub peer_access: Vec<Vec<Option<bool>>>,
    /// Whether the driver's word on a pair is that of NVLink: that the link carries atomic operations, which PCIe does
    /// not. `None` with fewer than two GPUs, and for simulated ones.
    pub nvlink: Option<bool>,
    /// Whether the machine has an input-output memory management unit that is on.
    pub iommu: bool,
    /// How it treats the GPUs: `identity` lets them pass, others translate.
    pub iommu_type: Option<String>,
    /// The bridges that traffic between GPUs goes over, with their access control services.
    pub bridges: BTreeMap<String, Services>,
    /// Whether NCCL is told not to use P2P.
    pub p2p_disabled: bool,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let driver = machine.cuda.driver.clone().unwrap_or_default();
    let real: Vec<&str> = match driver.simulated {
        true => Vec::new(),
        false => driver.gpus.iter().map(|gpu| gpu.pci_address.as_str()).collect(),
    };
    let peers = || driver.peers.iter().flatten().flatten();
    let has_unit =
        ["/sys/class/iommu", "/sys/kernel/iommu_groups"].iter().any(|folder| !machine.names(folder).is_empty());
    let between = between(machine, &real).into_iter();
    Facts {
        peer_access: driver
            .peers
            .iter()
            .map(|row| row.iter().map(|peer| peer.map(|Peer { access, .. }| access)).collect())
            .collect(),
        nvlink: (real.len() > 1).then(|| peers().any(|peer| peer.native_atomics)),
        iommu: has_unit,
        iommu_type: real.iter().find_map(|address| pci::iommu(machine, address)),
        bridges: between.map(|bridge| (bridge.clone(), pci::services(machine, &bridge))).collect(),
        p2p_disabled: machine.variable(WITHOUT_P2P).is_some_and(|value| value != "0"),
    }
}

/// The bridges that are above some of the GPUs and not above all of them: traffic between two of them goes over these.
fn between(machine: &Machine, gpus: &[&str]) -> Vec<String> {
    let above: Vec<BTreeSet<String>> =
        gpus.iter().map(|address| pci::bridges(machine, address).into_iter().collect()).collect();
    let all: BTreeSet<&String> = above.iter().flatten().collect();
    all.into_iter().filter(|bridge| !above.iter().all(|above| above.contains(*bridge))).cloned().collect()
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let found = &facts.links;
    if facts.driver.simulated || facts.gpus.len() < 2 {
        return Vec::new();
    }
    let allowed = found.peer_access.iter().flatten().flatten().any(|&access| access);
    match (found.p2p_disabled, allowed) {
        (true, true) => needless(facts).into_iter().collect(),
        (false, true) => [redirected(found), unseen(found), translated(found), claimed(facts), partial(found)]
            .into_iter()
            .flatten()
            .collect(),
        (_, false) => vec![none()],
    }
}

/// Whether anything is known that may hold P2P up.
fn held_up(facts: &super::Facts) -> bool {
    let found = &facts.links;
    redirected(found).is_some() || translated(found).is_some() || claimed(facts).is_some()
}

fn needless(facts: &super::Facts) -> Option<Problem> {
    let what = format!(
        "{WITHOUT_P2P} is set, so that exchanges go through the machine's memory, though the GPUs reach each other"
    );
    let advice = format!("unset {WITHOUT_P2P}, unless runs hang without it");
    (!held_up(facts)).then(|| Problem::new(TOPIC, what, advice))
}

/// The bridges with services in a state.
fn bridges_that_are(found: &Facts, state: Services) -> Option<String> {
    let those = found.bridges.iter().filter(|(_, services)| **services == state).map(|(bridge, _)| bridge);
    Some(listed(those)).filter(|those| !those.is_empty())
}

fn unseen(found: &Facts) -> Option<Problem> {
    let bridges = bridges_that_are(found, Services::Unknown)?;
    let what =
        format!("whether access control services (ACS) are on in the PCI bridges {bridges} is shown to root only");
    Some(Problem::new(TOPIC, what, "run `sudo mpt doctor` once, if exchanges are slow or hang"))
}

fn redirected(found: &Facts) -> Option<Problem> {
    let bridges = bridges_that_are(found, Services::On)?;
    let what = format!(
        "access control services (ACS) are on in the PCI bridges {bridges}, and send traffic between GPUs over the root \
         of the bus, where it is slow or hangs"
    );
    let advice = format!(
        "switch ACS off in the BIOS, or until the next start by `sudo setpci -s BRIDGE ECAP_ACS+6.w=0000` for each; or \
         set {WITHOUT_P2P}=1, which is slower and safe"
    );
    Some(Problem::new(TOPIC, what, advice))
}

fn translated(found: &Facts) -> Option<Problem> {
    let kind = found.iommu_type.as_deref().filter(|kind| kind.starts_with("DMA"))?;
    let what =
        format!("the machine's IOMMU translates what GPUs read and write ({kind}), which slows P2P down or hangs it");
    let advice = format!(
        "start the kernel with iommu=pt, or switch the IOMMU (VT-d, AMD-Vi) off in the BIOS; or set {WITHOUT_P2P}=1"
    );
    Some(Problem::new(TOPIC, what, advice))
}

fn claimed(facts: &super::Facts) -> Option<Problem> {
    let name = &facts.gpus.iter().find(|found| found.gpu.name.contains(CLAIMING))?.gpu.name;
    let what = format!(
        "the driver says that P2P works between {name}s, which have none by their maker's word: on such drivers exchanges hung or brought wrong data"
    );
    let advice = format!("set {WITHOUT_P2P}=1, or install a newer driver; `mpt verify` shows wrong data");
    Some(Problem::new(TOPIC, what, advice))
}

/// Some pairs reach each other, others do not.
fn partial(found: &Facts) -> Option<Problem> {
    let pairs = found.peer_access.iter().enumerate().flat_map(|(from, row)| {
        row.iter()
            .enumerate()
            .filter(move |(to, access)| from < *to && **access == Some(false))
            .map(move |(to, _)| format!("{from}-{to}"))
    });
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() {
        return None;
    }
    let what = format!(
        "the GPUs {} do not reach each other directly: what they exchange goes through the machine's memory",
        listed(pairs)
    );
    Some(Problem::new(TOPIC, what, "put the GPUs that exchange most (the model axis of --mesh) on pairs that do"))
}

fn none() -> Problem {
    let what = "no GPU reaches another directly (P2P): what they exchange goes through the machine's memory";
    let advice = "nothing is to be mended where card, cloud or virtual machine offers no P2P; it is slower: compare \
                  --mode model-parallel and data-parallel, and leave /dev/shm room";
    Problem::new(TOPIC, what, advice)
}
