//! What a machine has and lacks, as people read it.

use super::table::{table, text};
use crate::doctor::disk::Place;
use crate::doctor::network::Interface;
use crate::doctor::{Facts, Report, libtorch, links};
use crate::recipe::duration::show_bytes;
use std::path::Path;

/// A fact: what it is about, its name and its value.
type Line = (&'static str, String, String);

/// The facts, then the problems with what to do.
pub fn render(report: &Report) -> String {
    let mut rows = table(&["topic", "fact", "value"], &[]);
    let mut before = "";
    for (topic, fact, value) in lines(&report.facts) {
        rows.add_row([if topic == before { "" } else { topic }, &fact, &value]);
        before = topic;
    }
    let mut output = text(&rows);
    output += &match report.problems.len() {
        0 => "\nno problems were found\n".to_owned(),
        count => format!("\n{count} problem(s), and what to do:\n"),
    };
    for problem in &report.problems {
        output += &format!("  {}: {}\n    -> {}\n", problem.topic, problem.what, problem.advice);
    }
    output
}

fn lines(facts: &Facts) -> Vec<Line> {
    let parts = [program(facts), of_gpus(facts), of_links(facts), of_network(facts), of_host(facts), of_disk(facts)];
    let environment = facts.environment.iter().map(|(name, value)| line("environment", name, value));
    parts.into_iter().flatten().chain(environment).collect()
}

fn line(topic: &'static str, fact: impl ToString, value: impl ToString) -> Line {
    (topic, fact.to_string(), value.to_string())
}

fn or_unknown(value: &Option<impl ToString>) -> String {
    value.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn program(facts: &Facts) -> Vec<Line> {
    let mpt = &facts.mpt;
    let libtorch::Facts { version, folder, flavour, cuda, cuda_library, lacks, .. } = &facts.libtorch;
    let cuda_library = match (cuda_library, lacks.len()) {
        (false, _) => "libtorch_cuda is not beside it".to_owned(),
        (true, 0) => format!("libtorch_cuda is beside it, for CUDA {}", or_unknown(cuda)),
        (true, _) => "libtorch_cuda is beside it, NVIDIA's libraries are not".to_owned(),
    };
    vec![
        line("mpt", "version", mpt.version),
        line("mpt", "device, precision", format!("{}, {}", mpt.device, mpt.precision)),
        line("libtorch", "version", or_unknown(version)),
        line("libtorch", "flavour", format!("{flavour}: {cuda_library}")),
        line("libtorch", "folder", folder.as_deref().map_or_else(|| "unknown".to_owned(), shown)),
    ]
}

fn of_gpus(facts: &Facts) -> Vec<Line> {
    let driver = &facts.driver;
    let state = match (driver.works, driver.simulated) {
        (true, true) => format!("mpt's simulator, which serves CUDA {}; no proof on GPUs", or_unknown(&driver.cuda)),
        (true, false) => format!("{}, serves CUDA {}", or_unknown(&driver.version), or_unknown(&driver.cuda)),
        (false, _) if driver.refusal.is_some() => "refuses to work".to_owned(),
        (false, _) => "none".to_owned(),
    };
    let mut lines = vec![line("driver", "version", state)];
    if let Some(library) = &driver.library {
        lines.push(line("driver", "library", shown(library)));
    }
    if facts.gpus.is_empty() {
        lines.push(line("gpus", "", "none"));
    }
    for (number, found) in facts.gpus.iter().enumerate() {
        let (major, minor) = found.gpu.compute_capability;
        let mut value = format!(
            "{}, {}, compute capability {major}.{minor}, at {}",
            found.gpu.name,
            show_bytes(found.gpu.memory_bytes),
            found.gpu.pci_address
        );
        if let Some(link) = &found.pcie {
            let (width, most) = (link.width, link.most_width);
            value += &format!(", {width} of {most} PCIe lanes, {} of {}", link.speed, link.most_speed);
        }
        lines.push(line("gpus", number, value));
    }
    let nccl = &facts.nccl;
    lines.push(line("nccl", "version", nccl.version.as_deref().unwrap_or("none")));
    lines.extend(nccl.loaded.iter().map(|file| line("nccl", "loaded", shown(file))));
    let others = nccl.found.iter().filter(|file| !nccl.loaded.contains(file));
    lines.extend(others.map(|file| line("nccl", "also there", shown(file))));
    lines
}

fn of_links(facts: &Facts) -> Vec<Line> {
    let links::Facts { peer_access, nvlink, iommu, iommu_type, bridges, .. } = &facts.links;
    let cell = |access: &Option<bool>| access.map_or("-", yes);
    let row = |(number, row): (usize, &Vec<Option<bool>>)| {
        let cells: Vec<&str> = row.iter().map(cell).collect();
        line("links", format!("GPU {number} reaches 0, 1, ..."), cells.join(" "))
    };
    let mut lines: Vec<Line> = peer_access.iter().enumerate().filter(|(_, row)| row.len() > 1).map(row).collect();
    if let Some(nvlink) = nvlink {
        lines.push(line("links", "NVLink", yes(*nvlink)));
    }
    let kind = iommu_type.as_ref().map(|kind| format!(", {kind} for the GPUs")).unwrap_or_default();
    lines.push(line("links", "IOMMU", format!("{}{kind}", if *iommu { "on" } else { "none, or off" })));
    for (bridge, services) in bridges {
        lines.push(line("links", format!("ACS of bridge {bridge}"), format!("{services:?}").to_lowercase()));
    }
    lines
}

fn of_network(facts: &Facts) -> Vec<Line> {
    let network = &facts.network;
    let interface = |interface: &Interface| {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        let speed = interface.bits_per_second.map(|bits| format!(", {} Gbit/s", bits as f64 / 1e9)).unwrap_or_default();
        let state = if interface.running { "up" } else { "not up" };
        line("network", &interface.name, format!("{state}{speed} {}", addresses.join(" ")).trim_end())
    };
    let mut lines: Vec<Line> = network.interfaces.iter().map(interface).collect();
    lines.push(line("network", "NCCL would use", network.nccl_would_use.join(" ")));
    if !network.rdma.is_empty() {
        lines.push(line("network", "RDMA", network.rdma.join(" ")));
    }
    lines
}

fn of_host(facts: &Facts) -> Vec<Line> {
    let (processor, memory, limits) = (&facts.processor, &facts.memory, &facts.limits);
    let bytes = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), show_bytes);
    let limited = |limit: Option<String>| limit.map(|limit| format!(", limited to {limit}")).unwrap_or_default();
    vec![
        line("processor", "model", or_unknown(&processor.name)),
        line(
            "processor",
            "cores",
            format!(
                "{} ({} threads), {} usable{}",
                or_unknown(&processor.cores),
                or_unknown(&processor.threads),
                or_unknown(&processor.usable),
                limited(processor.cgroup_limit.map(|limit| format!("{limit} by a control group")))
            ),
        ),
        line(
            "processor",
            "native bf16",
            match (processor.native_bf16, processor.fast_bf16) {
                (true, false) => "yes, but no faster than fp32",
                (native, _) => yes(native),
            },
        ),
        line(
            "memory",
            "free",
            format!(
                "{} of {}{}",
                bytes(memory.available_bytes),
                bytes(memory.total_bytes),
                limited(memory.cgroup_limit_bytes.map(|limit| format!("{} by a control group", show_bytes(limit))))
            ),
        ),
        line(
            "data",
            "Fashion-MNIST",
            format!("{}, {}", if facts.data.found { "found" } else { "missing" }, shown(&facts.data.folder)),
        ),
        line("limits", "open files", limits.open_files.map_or_else(|| "none".to_owned(), |files| files.to_string())),
        line("limits", "locked memory", limits.locked_memory_bytes.map_or_else(|| "none".to_owned(), show_bytes)),
    ]
}

fn of_disk(facts: &Facts) -> Vec<Line> {
    let disk = &facts.disk;
    let place = |name: &'static str, place: &Place| {
        let room = place.room.map_or_else(
            || "unknown".to_owned(),
            |room| format!("{} free of {}", show_bytes(room.free_bytes), show_bytes(room.total_bytes)),
        );
        let kind = place.file_system.as_ref().map(|kind| format!(" on {kind}")).unwrap_or_default();
        line("disk", name, format!("{room}{kind}, {}", shown(&place.path)))
    };
    vec![
        place("cache", &disk.cache),
        place("runs", &disk.runs),
        place("temporary", &disk.temporary),
        place("shared memory", &disk.shared_memory),
    ]
}
