//! `mpt doctor` as a program: on this machine, and on simulated GPUs.

use crate::program::{mpt, output, stderr, stdout};
use mpt::launch::simulator::Simulator;
use mpt::recipe::fast_bf16;
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

fn json(command: &mut Command) -> Value {
    let told = command.output().unwrap();
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    serde_json::from_str(&stdout(&told)).unwrap()
}

/// The names of the facts, which programs rely on.
const NAMES: [(&str, &str); 12] = [
    ("mpt", "device precision version"),
    ("libtorch", "cuda cuda_library flavour folder lacks refusal version wanted_version"),
    ("driver", "cuda library on_the_bus refusal simulated version works"),
    ("nccl", "found loaded of_libtorch path refusal version"),
    ("links", "bridges iommu iommu_type nvlink p2p_disabled peer_access"),
    ("network", "interfaces nccl_socket_ifname nccl_would_use rdma"),
    ("processor", "bound_to cgroup_limit cores fast_bf16 name native_bf16 threads usable"),
    ("memory", "available_bytes cgroup_limit_bytes total_bytes"),
    ("disk", "cache runs shared_memory temporary"),
    ("data", "folder found missing"),
    ("limits", "locked_memory_bytes open_files"),
    ("environment", ""),
];

/// The names in an object, in alphabetical order.
fn sorted(object: &Map<String, Value>) -> String {
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn this_machine_is_told_as_it_is_and_under_stable_names() {
    let told = json(&mut mpt(&["doctor", "--json"]));
    let facts = &told["facts"];
    for (topic, names) in NAMES {
        let found = facts[topic].as_object().unwrap_or_else(|| panic!("{topic}"));
        if topic != "environment" {
            assert_eq!(sorted(found), names, "{topic}");
        }
    }
    assert_eq!(facts.as_object().unwrap().len(), NAMES.len() + 1);
    for problem in told["problems"].as_array().unwrap() {
        assert_eq!(sorted(problem.as_object().unwrap()), "advice topic what");
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(facts["processor"]["usable"], cores);
    assert_eq!(facts["processor"]["fast_bf16"], fast_bf16());
    assert!(facts["memory"]["total_bytes"].as_u64().unwrap() > 1 << 30);
    assert!(facts["disk"]["runs"]["free_bytes"].as_u64().is_some());
    let wanted = facts["libtorch"]["wanted_version"].as_str().unwrap();
    assert!(facts["libtorch"]["version"].as_str().unwrap().starts_with(wanted), "{}", facts["libtorch"]);
    let interfaces = facts["network"]["interfaces"].as_array().unwrap();
    assert!(interfaces.iter().any(|interface| interface["name"] == "lo" && interface["running"] == true));
}

#[test]
fn people_get_a_table_and_nothing_on_stderr() {
    let told = output(&["doctor"]);
    assert_eq!((told.status.code(), stderr(&told)), (Some(0), String::new()));
    let text = stdout(&told);
    for topic in
        ["mpt ", "libtorch ", "driver ", "gpus ", "nccl ", "links ", "network ", "processor ", "memory ", "disk "]
    {
        assert!(text.lines().any(|line| line.trim_start().starts_with(topic)), "{topic} is not in:\n{text}");
    }
    let wrong = output(&["doctor", "--jsn"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

/// `mpt doctor --json` where the simulator is found instead of the driver and NCCL.
fn simulated(devices: usize, more: &[(&str, &str)]) -> Value {
    let simulator = Simulator::beside(Path::new(env!("CARGO_BIN_EXE_mpt"))).unwrap();
    let environment = simulator.environment(devices, 0, None);
    json(mpt(&["doctor", "--json"]).envs(environment).envs(more.iter().copied()))
}

#[test]
fn simulated_gpus_are_told_as_simulated() {
    let told = simulated(3, &[]);
    let facts = &told["facts"];
    assert_eq!((&facts["driver"]["simulated"], &facts["mpt"]["device"]), (&true.into(), &"simulated".into()));
    assert_eq!(facts["driver"]["cuda"], "13.0");
    let gpus = facts["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 3);
    assert_eq!((&gpus[2]["name"], &gpus[2]["memory_bytes"]), (&"simulated GPU".into(), &(8_u64 << 30).into()));
    assert_eq!(gpus[2]["pci_address"], "0000:03:00.0");
    assert_eq!(facts["links"]["peer_access"][1], serde_json::json!([true, null, true]));
    assert!(facts["nccl"]["version"].as_str().unwrap().starts_with("2."), "{}", facts["nccl"]);
    let about_gpus = ["driver", "gpus", "nccl", "links"];
    for problem in told["problems"].as_array().unwrap() {
        assert!(!about_gpus.contains(&problem["topic"].as_str().unwrap()), "{problem}");
    }
}

/// The simulator ends its process when it is asked for something that cannot be, as a broken driver may.
#[test]
fn a_driver_that_ends_the_process_does_not_end_the_doctor() {
    let told = simulated(2, &[("MPT_SIMULATOR_DEVICES", "none")]);
    let refusal = told["facts"]["driver"]["refusal"].as_str().unwrap();
    assert!(refusal.starts_with("asking the driver ended the process that did so (exit status: 2)"), "{refusal}");
    assert_eq!(told["problems"][0]["topic"], "driver");
}
