//! Machines that we do not have, put together from the files that their kernels would show and from what their drivers
//! would tell.

use mpt::comm::nccl::facts::{Driver, Gpu, Nccl, Peer};
use mpt::doctor::Machine;
use mpt::doctor::cuda::Cuda;
use mpt::doctor::machine::{Address, Folders, Room};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

/// A machine and the folder that stands for its `/`.
pub struct Built {
    pub root: TempDir,
    pub machine: Machine,
}

/// A bridge's register of access control services with source validation, request and completion redirect and upstream
/// forwarding: what NCCL's issue 2079 shows.
pub const ACS_ON: u16 = 0x1d;

/// A machine of which nothing at all is known.
pub fn nothing() -> Built {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine {
        root: root.path().to_owned(),
        environment: BTreeMap::new(),
        cuda: Cuda::default(),
        addresses: Vec::new(),
        room: Box::new(|_| None),
        libtorch: None,
        folders: Folders::default(),
    };
    Built { root, machine }
}

/// A machine with room for everything, its data and a libtorch for GPUs, eight cores and an Ethernet interface.
pub fn workstation() -> Built {
    let mut built = nothing();
    let (libtorch, cache) = ("opt/libtorch/torch/lib/", "home/me/.cache/mpt");
    built.file(&format!("{libtorch}libtorch_cuda.so"), "");
    built.file(&format!("{libtorch}../version.py"), "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n");
    for library in ["cudnn/lib/libcudnn.so.9", "nccl/lib/libnccl.so.2", "cu13/lib/libcublas.so.13"] {
        built.file(&format!("opt/libtorch/nvidia/{library}"), "");
    }
    for part in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        built.file(&format!("{cache}/data/fashion-mnist/{part}-ubyte.gz"), "");
    }
    built.file("proc/cpuinfo", processors(8));
    built.file("proc/meminfo", "MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   60000000 kB\n");
    built.file("proc/self/status", "Name:\tmpt\nCpus_allowed_list:\t0-7\n");
    built.file("proc/self/cgroup", "0::/user.slice/session.scope\n");
    built.file("proc/self/mounts", "/dev/nvme0n1p2 / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n");
    built.file("proc/self/limits", limits("1048576", "unlimited"));
    built.file("sys/devices/system/cpu/online", "0-7\n");
    built.file("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    built.interface("eno1", "up");
    built.file("sys/class/net/eno1/speed", "10000\n");
    built.file("sys/class/net/eno1/device/vendor", "0x8086\n");
    built.interface("lo", "unknown");
    let real = |path: &str| built.root.path().join(path).canonicalize().unwrap();
    let (libtorch, cache) = (real(libtorch), real(cache));
    let machine = &mut built.machine;
    machine.libtorch = Some(libtorch);
    machine.folders = Folders {
        data: cache.join("data/fashion-mnist"),
        cache,
        runs: "/home/me/runs".into(),
        temporary: "/tmp".into(),
    };
    machine.addresses = vec![address("lo", "127.0.0.1"), address("eno1", "192.168.1.7")];
    machine.room = Box::new(|_| Some(Room { total_bytes: 1 << 40, free_bytes: 1 << 39, writable: true }));
    built
}

/// A workstation with two GPUs behind bridges of their own, which reach each other.
pub fn desktop(name: &str) -> Built {
    let mut built = workstation();
    built.file(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n",
    );
    for (bus, bridge) in [("41", "pci0000:40/0000:40:03.1"), ("61", "pci0000:60/0000:60:03.1")] {
        built.bridge(bridge, 0);
        built.gpu(bridge, &format!("0000:{bus}:00.0"), 16);
    }
    built.drive(name, &["0000:41:00.0", "0000:61:00.0"], Some(Peer { access: true, native_atomics: false }));
    built
}

/// A virtual machine with four GPUs without bridges, without NVLink and without P2P.
pub fn cloud() -> Built {
    let mut built = workstation();
    let places = ["0000:00:1b.0", "0000:00:1c.0", "0000:00:1d.0", "0000:00:1e.0"];
    for place in places {
        built.gpu("pci0000:00", place, 16);
    }
    built.drive("NVIDIA A10G", &places, Some(Peer::default()));
    built
}

/// A container with Docker's 64 MiB of shared memory, two of eight cores, and a gigabyte and a half of memory.
pub fn container() -> Built {
    let mut built = workstation();
    built.file("proc/self/cgroup", "0::/\n");
    built.file("sys/fs/cgroup/cpu.max", "200000 100000\n");
    built.file("sys/fs/cgroup/memory.max", "1610612736\n");
    built.machine.room = Box::new(|path: &Path| {
        let total_bytes = if path == Path::new("/dev/shm") { 64 << 20 } else { 1 << 40 };
        Some(Room { total_bytes, free_bytes: total_bytes, writable: true })
    });
    built
}

impl Built {
    /// Puts a file into the machine.
    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a network interface in this state into the machine.
    pub fn interface(&self, name: &str, state: &str) {
        for (file, text) in [("flags", "0x1003\n"), ("operstate", state), ("mtu", "1500\n")] {
            self.file(&format!("sys/class/net/{name}/{file}"), text);
        }
    }

    /// Puts a device into the machine, whose folder on the bus is a link, as in reality.
    fn device(&self, parent: &str, address: &str, files: &[(&str, &[u8])]) {
        let place = format!("sys/devices/{parent}/{address}");
        for (name, content) in files {
            self.file(&format!("{place}/{name}"), content);
        }
        let devices = self.root.path().join("sys/bus/pci/devices");
        fs::create_dir_all(&devices).unwrap();
        symlink(format!("../../../devices/{parent}/{address}"), devices.join(address)).unwrap();
    }

    /// A bridge with this control register of its access control services.
    pub fn bridge(&self, path: &str, control: u16) {
        let (parent, address) = path.rsplit_once('/').unwrap();
        self.device(parent, address, &[("class", b"0x060400\n"), ("config", &configuration(control))]);
    }

    /// Another control register for a bridge that is there.
    pub fn bridge_again(&self, path: &str, control: u16) {
        self.file(&format!("sys/devices/{path}/config"), configuration(control));
    }

    /// What a bridge shows to a user who is not root.
    pub fn hide_configuration(&self, path: &str) {
        self.file(&format!("sys/devices/{path}/config"), &configuration(0)[..64]);
    }

    /// A GPU of NVIDIA's with so many of 16 lanes.
    pub fn gpu(&self, parent: &str, address: &str, lanes: u32) {
        let lanes = format!("{lanes}\n");
        let files: [(&str, &[u8]); 8] = [
            ("vendor", b"0x10de\n"),
            ("class", b"0x030000\n"),
            ("config", &[0; 64]),
            ("numa_node", b"-1\n"),
            ("current_link_width", lanes.as_bytes()),
            ("max_link_width", b"16\n"),
            ("current_link_speed", b"2.5 GT/s PCIe\n"),
            ("max_link_speed", b"16.0 GT/s PCIe\n"),
        ];
        self.device(parent, address, &files);
        self.module(parent, address, "nvidia");
    }

    /// Gives a device into the hands of a kernel module.
    pub fn module(&self, parent: &str, address: &str, name: &str) {
        let module = self.root.path().join("sys/bus/pci/drivers").join(name);
        fs::create_dir_all(&module).unwrap();
        let link = self.root.path().join(format!("sys/devices/{parent}/{address}/driver"));
        let _ = fs::remove_file(&link);
        symlink(module, link).unwrap();
    }

    /// Lets a driver offer GPUs at these places, and NCCL be the one of libtorch.
    pub fn drive(&mut self, name: &str, places: &[&str], peer: Option<Peer>) {
        let gpu = |place: &&str| Gpu {
            name: name.to_owned(),
            memory_bytes: 24 << 30,
            compute_capability: (8, 9),
            pci_address: (*place).to_owned(),
        };
        let row = |from: usize| (0..places.len()).map(|to| peer.filter(|_| from != to)).collect();
        let libtorch = self.machine.libtorch.as_ref().unwrap();
        let nccl = libtorch.join("../../nvidia/nccl/lib/libnccl.so.2").canonicalize().unwrap();
        self.machine.cuda = Cuda {
            driver: Some(Driver {
                simulated: false,
                cuda: "13.0".to_owned(),
                gpus: places.iter().map(gpu).collect(),
                peers: (0..places.len()).map(row).collect(),
            }),
            driver_files: vec!["/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05".into()],
            nccl: Some(Nccl { version: "2.29.7".to_owned() }),
            nccl_files: vec![nccl],
            ..Cuda::default()
        };
    }

    /// What the driver tells, to be changed.
    pub fn driver(&mut self) -> &mut Driver {
        self.machine.cuda.driver.as_mut().unwrap()
    }

    /// Sets a variable of the environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.machine.environment.insert(name.to_owned(), value.to_owned());
    }
}

/// An address of an interface.
pub fn address(interface: &str, address: &str) -> Address {
    Address { interface: interface.to_owned(), address: address.parse().unwrap() }
}

/// The kernel's table of the limits of a process.
pub fn limits(files: &str, locked: &str) -> String {
    format!(
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            {files:<20} 1048576              files     \n\
         Max locked memory         {locked:<20} unlimited            bytes     \n"
    )
}

/// So many processors of one thread each, with native bf16.
fn processors(count: usize) -> String {
    let one = |number| {
        format!(
            "processor\t: {number}\nmodel name\t: AMD Ryzen 9\nphysical id\t: 0\ncore id\t\t: {number}\n\
             flags\t\t: fpu avx512f avx512_bf16\n"
        )
    };
    (0..count).map(one).collect::<Vec<_>>().join("\n")
}

/// A configuration space: advanced error reporting first, then the access control services.
fn configuration(control: u16) -> Vec<u8> {
    let mut space = vec![0; 4096];
    for (place, number, next) in [(0x100, 0x0001_u32, 0x2a0_u32), (0x2a0, 0x000d, 0)] {
        space[place..place + 4].copy_from_slice(&(next << 20 | 1 << 16 | number).to_le_bytes());
    }
    space[0x2a6..0x2a8].copy_from_slice(&control.to_le_bytes());
    space
}
