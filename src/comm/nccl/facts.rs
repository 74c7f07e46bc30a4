//! What the driver and NCCL tell of themselves and of the GPUs, without making use of any: for `mpt doctor`.

use super::gpu::failed;
use super::library::{self, Version};
use crate::error::Result;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice, CUdevice_P2PAttribute, CUdevice_attribute};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, c_char, c_int};

/// The functions of the driver that are called here and nowhere else.
const DRIVER: [&str; 4] =
    ["cuDeviceTotalMem_v2", "cuDeviceGetPCIBusId", "cuDeviceCanAccessPeer", "cuDeviceGetP2PAttribute"];

/// What the driver tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Whether it is mpt's simulator.
    pub simulated: bool,
    /// The newest CUDA that it serves, like `13.0`.
    pub cuda: String,
    /// The GPUs, by number.
    pub gpus: Vec<Gpu>,
    /// `peers[a][b]`: what GPU `a` can do with the memory of GPU `b`; nothing is told of a GPU and itself.
    pub peers: Vec<Vec<Option<Peer>>>,
}

/// What the driver tells of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its generation, major and minor.
    pub compute_capability: (i32, i32),
    /// Its place on the PCI bus as the kernel writes it, like `0000:41:00.0`.
    pub pci_address: String,
}

/// What one GPU can do with the memory of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Whether it can read and write it.
    pub access: bool,
    /// Whether the link carries atomic operations, which NVLink does and PCIe does not.
    pub native_atomics: bool,
}

/// What NCCL tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nccl {
    /// Its version, like `2.29.7`.
    pub version: String,
}

impl Driver {
    /// Asks the driver; `None` where there is none.
    ///
    /// # Errors
    /// It is not complete, or refuses to work: with its own name of the reason.
    pub fn ask() -> Result<Option<Self>> {
        if !library::has_driver() {
            return Ok(None);
        }
        library::load_driver()?;
        library::resolve_driver(&DRIVER)?;
        result::init().map_err(|error| failed("the driver refuses to work", error))?;
        let count = result::device::get_count().map_err(|error| failed("the driver does not count the GPUs", error))?;
        let devices = (0..count)
            .map(|ordinal| result::device::get(ordinal).map_err(|error| failed(&format!("GPU {ordinal}"), error)))
            .collect::<Result<Vec<CUdevice>>>()?;
        Ok(Some(Self {
            simulated: library::is_simulated(),
            cuda: cuda_version(library::driver_version()?),
            gpus: devices.iter().map(|&device| Gpu::ask(device)).collect::<Result<_>>()?,
            peers: devices.iter().map(|&from| devices.iter().map(|&to| Peer::ask(from, to)).collect()).collect(),
        }))
    }
}

impl Gpu {
    fn ask(device: CUdevice) -> Result<Self> {
        let told = || {
            let number = |attribute| {
                // SAFETY: the driver gave the device.
                unsafe { result::device::get_attribute(device, attribute) }
            };
            Ok(Self {
                name: result::device::get_name(device)?,
                // SAFETY: as above.
                memory_bytes: unsafe { result::device::total_mem(device) }? as u64,
                compute_capability: (
                    number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                pci_address: pci_address(device)?,
            })
        };
        told().map_err(|error: DriverError| failed(&format!("GPU {device} does not tell what it is"), error))
    }
}

impl Peer {
    /// `None` for a GPU and itself. What the driver does not tell is not there.
    fn ask(from: CUdevice, to: CUdevice) -> Option<Self> {
        if from == to {
            return None;
        }
        let (mut access, mut atomics): (c_int, c_int) = (0, 0);
        let attribute = CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED;
        // SAFETY: the driver gave both devices, and writes one number to each of the places.
        let told = unsafe {
            (
                sys::cuDeviceCanAccessPeer(&mut access, from, to).result(),
                sys::cuDeviceGetP2PAttribute(&mut atomics, attribute, from, to).result(),
            )
        };
        Some(Self { access: told.0.is_ok() && access != 0, native_atomics: told.1.is_ok() && atomics != 0 })
    }
}

impl Nccl {
    /// Asks NCCL, which needs no driver for this; `None` where there is none.
    ///
    /// # Errors
    /// It lacks a function that mpt calls.
    pub fn ask() -> Result<Option<Self>> {
        if !library::has_nccl() {
            return Ok(None);
        }
        library::load_nccl()?;
        Ok(Some(Self { version: Version(library::nccl_version()?).to_string() }))
    }
}

fn pci_address(device: CUdevice) -> Result<String, DriverError> {
    let mut text = [0 as c_char; 32];
    // SAFETY: the driver writes at most as many bytes as it is told there are, the last of them a zero.
    unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr(), text.len() as c_int, device) }.result()?;
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    // The driver writes capitals, the kernel does not.
    Ok(text.to_string_lossy().to_lowercase())
}

fn cuda_version(number: c_int) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}
