//! `mpt doctor`: on machines put together from files; on this one and on simulated GPUs in `program`.

mod machines;
mod program;

use self::machines::{ACS_ON, Built, address, limits};
use mpt::comm::nccl::facts::Peer;
use mpt::doctor::machine::Room;
use mpt::doctor::pci::Services;
use mpt::doctor::{Report, examine};
use mpt::report::doctor_table::render;
use std::path::Path;

/// The topics of the problems, in their order.
fn topics(report: &Report) -> Vec<&str> {
    report.problems.iter().map(|problem| problem.topic).collect()
}

/// Expects one problem, whose sentence and advice hold these words.
fn expect_one(built: &Built, topic: &str, what: &str, advice: &str) {
    let report = examine(&built.machine);
    assert_eq!(topics(&report), [topic], "{:?}", report.problems);
    let problem = &report.problems[0];
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.advice.contains(advice), "{problem:?}");
}

#[test]
fn a_machine_without_anything_lacks_only_its_data() {
    let built = machines::nothing();
    expect_one(&built, "data", "Fashion-MNIST is not in ", "run scripts/setup");
    let text = render(&examine(&built.machine));
    assert!(text.contains("unknown (unknown threads), unknown usable"), "{text}");
    assert!(text.contains("1 problem(s), and what to do:\n  data: Fashion-MNIST is not in "), "{text}");
}

#[test]
fn a_workstation_in_order_has_no_problem() {
    let (report, with_gpus) = (examine(&machines::workstation().machine), machines::desktop("NVIDIA RTX A5000"));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.facts.mpt.device, report.facts.mpt.precision), ("cpu", "bf16"));
    assert!(render(&report).ends_with("\nno problems were found\n"));
    let report = examine(&with_gpus.machine);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.facts.mpt.device, report.facts.libtorch.flavour), ("cuda", "cuda"));
    let text = render(&report);
    assert!(text.contains("580.95.05, serves CUDA 13.0"), "{text}");
    assert!(text.contains("at 0000:61:00.0, 16 of 16 PCIe lanes, 2.5 GT/s PCIe of 16.0 GT/s PCIe"), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("GPU 0 reaches 0, 1, ... - yes GPU 1 reaches 0, 1, ... yes - NVLink no"), "{text}");
}

#[test]
fn a_desktop_with_access_control_services_on_is_told_how_to_go_on() {
    let built = machines::desktop("NVIDIA RTX 5880 Ada Generation");
    built.bridge_again("pci0000:60/0000:60:03.1", ACS_ON);
    expect_one(&built, "links", "are on in the PCI bridges 0000:60:03.1, and send", "NCCL_P2P_DISABLE=1");
    let report = examine(&built.machine);
    let expected = [("0000:40:03.1".to_owned(), Services::Off), ("0000:60:03.1".to_owned(), Services::On)];
    assert_eq!(report.facts.links.bridges, expected.into());
    // What is switched off in NCCL is no problem any more.
    let mut built = built;
    built.set("NCCL_P2P_DISABLE", "1");
    assert!(examine(&built.machine).problems.is_empty());
}

#[test]
fn bridges_that_only_root_may_look_at_are_named() {
    let built = machines::desktop("NVIDIA RTX A5000");
    built.hide_configuration("pci0000:40/0000:40:03.1");
    expect_one(&built, "links", "PCI bridges 0000:40:03.1 is shown to root only", "sudo mpt doctor");
}

#[test]
fn a_switch_above_all_gpus_does_not_matter_and_its_ports_do() {
    let mut built = machines::workstation();
    let root = "pci0000:00/0000:00:01.0";
    built.bridge(root, ACS_ON);
    for (port, place) in [("0000:02:00.0", "0000:03:00.0"), ("0000:02:01.0", "0000:04:00.0")] {
        built.bridge(&format!("{root}/{port}"), 0);
        built.gpu(&format!("{root}/{port}"), place, 16);
    }
    built.drive("NVIDIA A100", &["0000:03:00.0", "0000:04:00.0"], Some(Peer { access: true, native_atomics: true }));
    let report = examine(&built.machine);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.facts.links.bridges.keys().collect::<Vec<_>>(), ["0000:02:00.0", "0000:02:01.0"]);
    assert_eq!(report.facts.links.nvlink, Some(true));
}

#[test]
fn a_memory_management_unit_that_translates_is_told() {
    let built = machines::desktop("NVIDIA RTX A5000");
    let group = "sys/devices/pci0000:40/0000:40:03.1/0000:41:00.0/iommu_group/type";
    built.file("sys/class/iommu/ivhd0/devices", "");
    built.file(group, "DMA-FQ\n");
    expect_one(&built, "links", "IOMMU translates what GPUs read and write (DMA-FQ)", "iommu=pt");
    built.file(group, "identity\n");
    let report = examine(&built.machine);
    assert!(report.problems.is_empty() && report.facts.links.iommu, "{:?}", report.problems);
}

#[test]
fn the_claim_of_p2p_between_geforce_cards_is_doubted() {
    let mut built = machines::desktop("NVIDIA GeForce RTX 4090");
    expect_one(&built, "links", "P2P works between NVIDIA GeForce RTX 4090s", "NCCL_P2P_DISABLE=1");
    for peer in built.driver().peers.iter_mut().flatten().flatten() {
        peer.access = false;
    }
    expect_one(&built, "links", "no GPU reaches another directly (P2P)", "");
}

#[test]
fn p2p_that_is_switched_off_without_need_is_told() {
    let mut built = machines::desktop("NVIDIA RTX A5000");
    built.set("NCCL_P2P_DISABLE", "1");
    expect_one(&built, "links", "NCCL_P2P_DISABLE is set", "unset NCCL_P2P_DISABLE");
    built.set("NCCL_P2P_DISABLE", "0");
    assert!(examine(&built.machine).problems.is_empty());
}

#[test]
fn a_cloud_machine_without_p2p_is_told_what_to_expect() {
    let built = machines::cloud();
    expect_one(&built, "links", "what they exchange goes through the machine's memory", "leave /dev/shm room");
    let facts = examine(&built.machine).facts;
    assert_eq!((facts.gpus.len(), facts.links.nvlink), (4, Some(false)));
    assert_eq!(facts.links.peer_access[1], [Some(false), None, Some(false), Some(false)]);
}

#[test]
fn pairs_of_gpus_without_p2p_among_others_are_named() {
    let mut built = machines::cloud();
    let peers = &mut built.driver().peers;
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        peers[from][to] = Some(Peer { access: true, native_atomics: true });
    }
    expect_one(&built, "links", "the GPUs 0-2, 0-3, 1-2 and 1-3 do not reach each other", "model axis");
}

#[test]
fn a_containers_limits_are_found_and_told() {
    let report = examine(&machines::container().machine);
    assert_eq!(topics(&report), ["memory", "disk"], "{:?}", report.problems);
    assert!(report.problems[0].what.starts_with("this process's control group may hold 1.5 GiB"));
    assert!(report.problems[1].what.starts_with("/dev/shm has 64.0 MiB of free room"), "{:?}", report.problems);
    assert!(report.problems[1].advice.contains("--shm-size=1g"));
    let processor = &report.facts.processor;
    assert_eq!((processor.threads, processor.cgroup_limit, processor.usable), (Some(8), Some(2.0), Some(2)));
}

#[test]
fn the_least_limit_of_all_groups_holds_in_both_versions() {
    let built = machines::workstation();
    built.file("proc/self/cgroup", "0::/kubepods/pod7/c1\n");
    built.file("sys/fs/cgroup/kubepods/pod7/cpu.max", "350000 100000\n");
    built.file("sys/fs/cgroup/kubepods/pod7/c1/cpu.max", "max 100000\n");
    built.file("sys/fs/cgroup/kubepods/memory.max", "8589934592\n");
    built.file("sys/fs/cgroup/kubepods/pod7/memory.max", "max\n");
    let facts = examine(&built.machine).facts;
    assert_eq!((facts.processor.cgroup_limit, facts.processor.usable), (Some(3.5), Some(3)));
    assert_eq!(facts.memory.cgroup_limit_bytes, Some(8 << 30));

    let built = machines::workstation();
    built.file("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n");
    std::fs::remove_file(built.root.path().join("sys/fs/cgroup/cgroup.controllers")).unwrap();
    // The host's name of the group is not shown in the container, only the group itself, as the root.
    built.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "4294967296\n");
    built.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    built.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    let facts = examine(&built.machine).facts;
    assert_eq!((facts.processor.cgroup_limit, facts.processor.usable), (None, Some(8)));
    assert_eq!(facts.memory.cgroup_limit_bytes, Some(4 << 30));
    built.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    built.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    let facts = examine(&built.machine).facts;
    assert_eq!((facts.processor.cgroup_limit, facts.processor.usable), (Some(0.5), Some(1)));
    assert_eq!(facts.memory.cgroup_limit_bytes, None);
}

#[test]
fn few_lanes_old_generations_and_unlike_gpus_are_told() {
    let mut built = machines::desktop("NVIDIA RTX A5000");
    built.file("sys/devices/pci0000:60/0000:60:03.1/0000:61:00.0/current_link_width", "4\n");
    expect_one(&built, "gpus", "GPU 1 has 4 of the 16 PCIe lanes", "widest slots");
    built.file("sys/devices/pci0000:60/0000:60:03.1/0000:61:00.0/current_link_width", "16\n");
    built.driver().gpus[1].name = "NVIDIA T4".to_owned();
    expect_one(&built, "gpus", "the GPUs differ (NVIDIA RTX A5000 and NVIDIA T4)", "--devices");
    for gpu in &mut built.driver().gpus {
        gpu.name = "Tesla V100".to_owned();
        gpu.compute_capability = (7, 0);
    }
    expect_one(&built, "gpus", "GPUs 0 and 1 are of compute capability 7.0 (Tesla V100)", "7.5 (Turing)");
    assert_eq!(examine(&built.machine).facts.mpt.precision, "fp32");
}

#[test]
fn gpus_that_the_driver_does_not_offer_are_told() {
    let mut built = machines::desktop("NVIDIA RTX A5000");
    built.drive("NVIDIA RTX A5000", &["0000:41:00.0"], None);
    expect_one(&built, "gpus", "the PCI bus has 2 NVIDIA GPUs, but the driver offers 1", "dmesg");
    built.set("CUDA_VISIBLE_DEVICES", "0");
    expect_one(&built, "gpus", "the driver offers 1", "CUDA_VISIBLE_DEVICES=0 hides the others");
}

#[test]
fn a_driver_that_is_missing_old_or_refuses_is_told_with_the_remedy() {
    let mut built = machines::workstation();
    built.gpu("pci0000:00", "0000:01:00.0", 16);
    built.module("pci0000:00", "0000:01:00.0", "nouveau");
    expect_one(&built, "driver", "0000:01:00.0 is in the hands of nouveau", "install NVIDIA's driver");
    built.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun\n");
    expect_one(&built, "driver", "NVIDIA's module 580.65.06, but its library", "docker run --gpus all");
    built.machine.cuda.driver_refusal = Some(
        "the driver refuses to work: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver".into(),
    );
    expect_one(&built, "driver", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart the machine");
    let mut built = machines::desktop("NVIDIA RTX A5000");
    built.driver().cuda = "12.4".to_owned();
    expect_one(&built, "driver", "serves CUDA 12.4, but libtorch was built for CUDA 13.0", "580 or newer");
}

#[test]
fn what_libtorch_lacks_for_gpus_is_told_where_there_are_some() {
    let built = machines::desktop("NVIDIA RTX A5000");
    std::fs::remove_file(built.root.path().join("opt/libtorch/nvidia/cudnn/lib/libcudnn.so.9")).unwrap();
    expect_one(&built, "libtorch", "libtorch lacks NVIDIA's cudnn/lib/libcudnn.so.9", "run scripts/setup");
    let built = machines::workstation();
    std::fs::remove_file(built.root.path().join("opt/libtorch/nvidia/cudnn/lib/libcudnn.so.9")).unwrap();
    let report = examine(&built.machine);
    assert!(report.problems.is_empty() && report.facts.libtorch.flavour == "cpu", "{:?}", report.problems);
    built.file("opt/libtorch/torch/version.py", "__version__ = '2.12.1+cu130'\n");
    expect_one(&built, "libtorch", "written for libtorch 2.13.0, but the one it loads is 2.12.1", "scripts/setup");
}

#[test]
fn a_second_nccl_is_told() {
    let mut built = machines::desktop("NVIDIA RTX A5000");
    let own = built.machine.cuda.nccl_files[0].clone();
    built.file("opt/other/libnccl.so", "");
    let other = built.root.path().join("opt/other").canonicalize().unwrap();
    built.set("LD_LIBRARY_PATH", &format!("/nowhere:{}", other.display()));
    let report = examine(&built.machine);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.facts.nccl.found, [own.clone(), other.join("libnccl.so")]);
    built.machine.cuda.nccl_files = vec![other.join("libnccl.so")];
    expect_one(&built, "nccl", "/opt/other/libnccl.so, not from ", "LD_LIBRARY_PATH");
    built.machine.cuda.nccl_files.push(own);
    expect_one(&built, "nccl", "2 copies of NCCL are loaded", "LD_LIBRARY_PATH");
}

#[test]
fn interfaces_that_nccl_would_pick_wrongly_are_told() {
    let mut built = machines::workstation();
    built.interface("br-12ab", "down");
    built.machine.addresses.insert(0, address("br-12ab", "172.18.0.1"));
    assert!(examine(&built.machine).problems.is_empty());
    built.interface("br-12ab", "up");
    expect_one(&built, "network", "NCCL would meet over br-12ab", "NCCL_SOCKET_IFNAME=eno1");
    built.set("NCCL_SOCKET_IFNAME", "eno");
    let report = examine(&built.machine);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.facts.network.nccl_would_use, ["eno1"]);
    built.set("NCCL_SOCKET_IFNAME", "eth0");
    expect_one(&built, "network", "NCCL_SOCKET_IFNAME=eth0 matches no interface", "name one of br-12ab and eno1");
}

#[test]
fn limits_matter_where_something_needs_more() {
    let built = machines::workstation();
    built.file("proc/self/limits", limits("256", "8388608"));
    expect_one(&built, "limits", "may open 256 files", "ulimit -n");
    built.file("proc/self/limits", limits("1024", "8388608"));
    assert!(examine(&built.machine).problems.is_empty());
    built.file("sys/class/infiniband/mlx5_0/node_type", "1: CA\n");
    expect_one(
        &built,
        "limits",
        "8388608 bytes of memory may be locked, but NCCL registers all that mlx5_0",
        "ulimit -l",
    );
}

#[test]
fn a_place_without_room_or_rights_is_told() {
    let mut built = machines::workstation();
    built.machine.room = Box::new(|path: &Path| {
        let runs = path == Path::new("/home/me/runs");
        Some(Room { total_bytes: 1 << 40, free_bytes: if runs { 1 << 20 } else { 1 << 39 }, writable: true })
    });
    expect_one(&built, "disk", "/home/me/runs has 1.0 MiB of free room", "--run-dir");
    built.machine.room = Box::new(|path: &Path| {
        let writable = path != Path::new("/tmp");
        Some(Room { total_bytes: 1 << 40, free_bytes: 1 << 39, writable })
    });
    expect_one(&built, "disk", "/tmp cannot be written", "TMPDIR");
    built.file("proc/self/mounts", "/dev/a / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n");
    let disk = examine(&built.machine).facts.disk;
    assert_eq!((disk.runs.file_system.as_deref(), disk.runs.over_the_network), (Some("nfs4"), true));
    assert!(!disk.temporary.over_the_network);
}

#[test]
fn variables_that_slow_gpus_down_are_told() {
    let mut built = machines::workstation();
    built.set("CUDA_LAUNCH_BLOCKING", "1");
    built.set("EDITOR", "vi");
    expect_one(&built, "environment", "CUDA_LAUNCH_BLOCKING is set", "unset");
    let told = examine(&built.machine).facts;
    assert_eq!(told.environment.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["CUDA_LAUNCH_BLOCKING"]);
}
