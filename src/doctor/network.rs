//! Network interfaces, and which of them NCCL would pick for ranks on several hosts.

use super::machine::Address;
use super::{Machine, Problem, listed};
use serde::Serialize;
use std::net::IpAddr;
use std::path::Path;

const TOPIC: &str = "network";
/// The variable that says which interfaces NCCL may use.
const NAMES: &str = "NCCL_SOCKET_IFNAME";
/// The variable that says which kind of addresses it may use.
const FAMILY: &str = "NCCL_SOCKET_FAMILY";
/// What NCCL tries in turn where nothing is said, until something matches (`ncclFindInterfaces` in its socket.cc).
const TRIED: [&str; 5] = ["ib", "^docker,lo,virbr", "docker", "lo", "virbr"];
/// The flag of an interface that is up (IFF_UP).
const UP: u32 = 1;
/// How many interfaces NCCL uses at most.
const MOST: usize = 16;

/// What network there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// What `NCCL_SOCKET_IFNAME` says.
    pub nccl_socket_ifname: Option<String>,
    /// The interfaces that NCCL would use, as its source has it; the ranks meet over the first.
    pub nccl_would_use: Vec<String>,
    /// InfiniBand and RoCE adapters.
    pub rdma: Vec<String>,
}

/// A network interface.
#[derive(Debug, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is up and connected.
    pub running: bool,
    /// Whether there is a device behind it; if not it is a bridge, a tunnel or a container's end of one.
    pub device: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its speed in bits per second, where the kernel knows it.
    pub bits_per_second: Option<u64>,
    /// The largest packet.
    pub mtu: Option<u64>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    let class = Path::new("/sys/class/net");
    let interface = |name: String| {
        let of: Vec<&Address> = machine.addresses.iter().filter(|address| address.interface == name).collect();
        let folder = class.join(&name);
        Interface {
            running: is_running(machine, &folder),
            device: machine.exists(folder.join("device")),
            addresses: of.iter().map(|address| address.address).collect(),
            // In millions; -1 where it is not known, which is no number here.
            bits_per_second: machine.number(folder.join("speed")).map(|millions| millions * 1_000_000),
            mtu: machine.number(folder.join("mtu")),
            name,
        }
    };
    let names = machine.variable(NAMES);
    let of_running = |address: &&Address| is_running(machine, &class.join(&address.interface));
    let usable: Vec<&Address> = machine.addresses.iter().filter(of_running).collect();
    Facts {
        interfaces: machine.names(class).into_iter().map(interface).collect(),
        nccl_socket_ifname: names.map(str::to_owned),
        nccl_would_use: picked(&usable, names, machine.variable(FAMILY)),
        rdma: machine.names("/sys/class/infiniband"),
    }
}

/// Whether an interface is up and connected; of the loopback and of tunnels the kernel does not know whether they are
/// connected, and takes it that they are.
fn is_running(machine: &Machine, folder: &Path) -> bool {
    let flags =
        machine.text(folder.join("flags")).and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    let state = machine.text(folder.join("operstate"));
    flags.is_some_and(|flags| flags & UP != 0) && matches!(state.as_deref(), Some("up" | "unknown"))
}

/// The interfaces that NCCL picks among those with addresses that are running: those that `names` lets through, or the first of
/// what it tries by itself that there is.
fn picked(addresses: &[&Address], names: Option<&str>, family: Option<&str>) -> Vec<String> {
    let lists: &[&str] = match &names {
        Some(names) if names.len() > 1 => std::slice::from_ref(names),
        _ => &TRIED,
    };
    lists.iter().map(|list| matching(addresses, list, family)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The interfaces that a list in NCCL's form lets through: beginnings of names, after `^` those that are not wanted,
/// after `=` whole names.
fn matching(addresses: &[&Address], list: &str, family: Option<&str>) -> Vec<String> {
    let (unwanted, list) = list.strip_prefix('^').map_or((false, list), |rest| (true, rest));
    let (whole, list) = list.strip_prefix('=').map_or((false, list), |rest| (true, rest));
    // A port may follow a name.
    let names: Vec<&str> =
        list.split(',').filter_map(|name| name.split(':').next()).filter(|name| !name.is_empty()).collect();
    let is_named =
        |interface: &str| names.iter().any(|&name| if whole { interface == name } else { interface.starts_with(name) });
    let usable = |address: &&&Address| match address.address {
        IpAddr::V4(_) => family != Some("AF_INET6"),
        IpAddr::V6(six) => family != Some("AF_INET") && !six.is_loopback(),
    };
    let mut found: Vec<String> = Vec::new();
    for Address { interface, .. } in addresses.iter().filter(usable) {
        if is_named(interface) != unwanted && !found.contains(interface) && found.len() < MOST {
            found.push(interface.clone());
        }
    }
    found
}

/// What is wrong with it, for ranks on several hosts.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let found = &facts.network;
    let usable = |interface: &&Interface| interface.running && interface.name != "lo";
    if let (Some(names), true) = (&found.nccl_socket_ifname, found.nccl_would_use.is_empty()) {
        let there = listed(found.interfaces.iter().filter(usable).map(|interface| &interface.name));
        let what = format!("{NAMES}={names} matches no interface that is up, so that NCCL would not start");
        let advice = match there.as_str() {
            "" => format!("unset {NAMES}"),
            there => format!("unset {NAMES}, or name one of {there}"),
        };
        return vec![Problem::new(TOPIC, what, advice)];
    }
    behind_nothing(found).into_iter().collect()
}

/// The ranks would meet over a bridge or tunnel, though there is an interface with a device behind it.
fn behind_nothing(found: &Facts) -> Option<Problem> {
    let first = found.nccl_would_use.first()?;
    let picked = found.interfaces.iter().find(|interface| interface.name == *first)?;
    let usable = |interface: &&Interface| interface.running && interface.device;
    let better = found.interfaces.iter().find(usable)?;
    if picked.device || found.nccl_socket_ifname.is_some() {
        return None;
    }
    let what = format!(
        "with several hosts NCCL would meet over {first}, a bridge, tunnel or container's interface, though there is {}",
        better.name
    );
    Some(Problem::new(TOPIC, what, format!("set {NAMES}={} on every host", better.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(told: &[(&str, &str)]) -> Vec<Address> {
        let one = |&(interface, address): &(&str, &str)| Address {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
        };
        told.iter().map(one).collect()
    }

    #[test]
    fn interfaces_are_picked_as_nccl_does() {
        let told = addresses(&[
            ("lo", "127.0.0.1"),
            ("eno1", "192.168.1.7"),
            ("docker0", "172.17.0.1"),
            ("eno2", "10.0.0.7"),
            ("lo", "::1"),
            ("eno1", "fe80::1"),
            ("tun0", "fd00::7"),
        ]);
        let desktop: Vec<&Address> = told.iter().collect();
        for (names, family, expected) in [
            (None, None, &["eno1", "eno2", "tun0"][..]),
            (None, Some("AF_INET"), &["eno1", "eno2"]),
            (None, Some("AF_INET6"), &["eno1", "tun0"]),
            (Some("eno"), None, &["eno1", "eno2"]),
            (Some("=eno2"), None, &["eno2"]),
            (Some("=eno"), None, &[]),
            (Some("^eno1,tun"), None, &["lo", "docker0", "eno2"]),
            (Some("wlp"), None, &[]),
            (Some("x"), None, &["eno1", "eno2", "tun0"]),
            (Some("eno2:4000,tun0"), None, &["eno2", "tun0"]),
        ] {
            assert_eq!(picked(&desktop, names, family), expected, "{names:?} {family:?}");
        }
    }

    #[test]
    fn infiniband_comes_first_and_the_loopback_last() {
        let told = addresses(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.7"), ("ib0", "10.1.0.7")]);
        let cluster: Vec<&Address> = told.iter().collect();
        assert_eq!(picked(&cluster, None, None), ["ib0"]);
        assert_eq!(picked(&cluster[..1], None, None), ["lo"]);
        assert_eq!(picked(&[], None, None), [""; 0]);
    }
}
