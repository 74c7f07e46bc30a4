//! The PCI bus as the kernel shows it: links, bridges, and their access control services (ACS).
//!
//! A bridge with ACS on sends what one GPU writes to another up to the root of the bus instead of across, where an
//! input-output memory management unit may hold it up or lose it. The registers are those of the PCI Express Base
//! Specification: the list of extended capabilities begins at byte 0x100 of the configuration space, each with its
//! number in the lower 16 bits of its first word and the place of the next in the upper 12; ACS is number 0x000d, and its
//! control register lies at byte 6.

use super::Machine;
use serde::Serialize;
use std::path::{Path, PathBuf};

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: &str = "0x10de";
/// What the class of every display controller begins with.
const DISPLAY: &str = "0x03";
/// How much of the configuration space the kernel shows to everybody.
const SHOWN_TO_ALL: usize = 64;
const FIRST_EXTENDED: usize = 0x100;
const ACS: u32 = 0x000d;
/// Source validation, request redirect, completion redirect and upstream forwarding: what keeps GPUs from reaching each
/// other directly. The other bits do not.
const REDIRECTING: u16 = 0b1_1101;

/// A link to the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Lanes in use.
    pub width: u64,
    /// Lanes that the device has.
    pub most_width: u64,
    /// The speed of each now, in the kernel's words; it falls while nothing is to be done.
    pub speed: String,
    /// The highest speed of each that the device has.
    pub most_speed: String,
}

/// The access control services of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Services {
    /// It has none, or they are off.
    Off,
    /// They send traffic between devices below up to the root.
    On,
    /// The kernel shows that part of the configuration space to root only.
    Unknown,
}

/// The folder of a device.
pub fn folder(address: &str) -> PathBuf {
    Path::new(DEVICES).join(address)
}

/// The GPUs of NVIDIA's on the bus, whoever drives them.
pub fn nvidia_gpus(machine: &Machine) -> Vec<String> {
    let is_gpu = |address: &String| {
        let told = |file: &str| machine.text(folder(address).join(file)).unwrap_or_default();
        told("vendor") == NVIDIA && told("class").starts_with(DISPLAY)
    };
    machine.names(DEVICES).into_iter().filter(is_gpu).collect()
}

/// The kernel module that has a device.
pub fn module(machine: &Machine, address: &str) -> Option<String> {
    let driver = machine.path(folder(address).join("driver")).canonicalize().ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// A device's link to the bus.
pub fn link(machine: &Machine, address: &str) -> Option<Link> {
    let told = |file: &str| machine.text(folder(address).join(file));
    Some(Link {
        width: told("current_link_width")?.parse().ok()?,
        most_width: told("max_link_width")?.parse().ok()?,
        speed: told("current_link_speed")?,
        most_speed: told("max_link_speed")?,
    })
}

/// The bridges above a device, from the root of the bus down: the folders that its own lies in.
pub fn bridges(machine: &Machine, address: &str) -> Vec<String> {
    let Ok(place) = machine.path(folder(address)).canonicalize() else { return Vec::new() };
    let names = place.iter().map(|part| part.to_string_lossy().into_owned());
    let mut bridges: Vec<String> = names.filter(|name| is_address(name)).collect();
    bridges.pop();
    bridges
}

/// Whether a name is that of a device: `0000:41:00.0`.
fn is_address(name: &str) -> bool {
    let lengths: Vec<usize> = name.split([':', '.']).map(str::len).collect();
    lengths == [4, 2, 2, 1] && name.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c))
}

/// The access control services of a bridge.
pub fn services(machine: &Machine, address: &str) -> Services {
    match std::fs::read(machine.path(folder(address).join("config"))) {
        Ok(space) => services_in(&space),
        Err(_) => Services::Unknown,
    }
}

fn services_in(space: &[u8]) -> Services {
    let word = |at: usize| Some(u32::from_le_bytes(space.get(at..at + 4)?.try_into().ok()?));
    if space.len() <= SHOWN_TO_ALL {
        return Services::Unknown;
    }
    let mut at = FIRST_EXTENDED;
    // There is room for so many capabilities; a list that goes round in circles ends too.
    for _ in 0..1024 {
        // A conventional device's space ends before.
        let Some(head) = word(at) else { return Services::Off };
        if head & 0xffff == ACS {
            let Some(second) = word(at + 4) else { return Services::Unknown };
            return if (second >> 16) as u16 & REDIRECTING == 0 { Services::Off } else { Services::On };
        }
        at = (head >> 20) as usize;
        if at < FIRST_EXTENDED {
            return Services::Off;
        }
    }
    Services::Unknown
}

/// How the input-output memory management unit treats what a device reads and writes: `identity` lets it pass, others
/// translate it; `None` without such a unit.
pub fn iommu(machine: &Machine, address: &str) -> Option<String> {
    machine.text(folder(address).join("iommu_group/type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with these extended capabilities: place, number, place of the next, the word after.
    fn space(capabilities: &[(usize, u32, u32, u32)]) -> Vec<u8> {
        let mut space = vec![0; 4096];
        for &(at, number, next, second) in capabilities {
            space[at..at + 4].copy_from_slice(&(next << 20 | 1 << 16 | number).to_le_bytes());
            space[at + 4..at + 8].copy_from_slice(&second.to_le_bytes());
        }
        space
    }

    #[test]
    fn services_are_found_behind_other_capabilities() {
        let at = |control: u32| services_in(&space(&[(0x100, 1, 0x2a0, 0), (0x2a0, ACS, 0, control << 16 | 0x5f)]));
        assert_eq!(at(0), Services::Off);
        // What nccl's issue 2079 shows.
        assert_eq!(at(0x1d), Services::On);
        // Direct translated is no redirection.
        assert_eq!(at(0x40), Services::Off);
    }

    #[test]
    fn without_the_capability_they_are_off_and_without_the_rights_unknown() {
        assert_eq!(services_in(&space(&[(0x100, 1, 0, 0)])), Services::Off);
        assert_eq!(services_in(&space(&[])), Services::Off);
        assert_eq!(services_in(&[0; 256]), Services::Off);
        assert_eq!(services_in(&[0; 64]), Services::Unknown);
        assert_eq!(services_in(&space(&[(0x100, 1, 0x100, 0)])), Services::Unknown);
    }

    #[test]
    fn addresses_are_told_from_other_folders() {
        assert!(is_address("0000:41:00.0") && is_address("10de:fe:1f.7"));
        assert!(!is_address("pci0000:40") && !is_address("devices") && !is_address("0000:41:00"));
    }
}
