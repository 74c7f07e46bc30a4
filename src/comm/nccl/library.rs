//! Finds the driver and NCCL when they are asked for, and every function of theirs that is used, before the first call:
//! cudarc would panic at the first call of one that is missing.

use crate::error::{Error, Result};
use cudarc::{driver, nccl};
use std::ffi::c_int;
use std::fmt;

/// The functions of the driver that this folder and cudarc's wrappers call.
pub const DRIVER: [&str; 28] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetAttribute",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// The functions of NCCL that this folder calls.
pub const NCCL: [&str; 17] = [
    "ncclGetVersion",
    "ncclGetUniqueId",
    "ncclCommInitRankConfig",
    "ncclCommFinalize",
    "ncclCommDestroy",
    "ncclCommAbort",
    "ncclCommGetAsyncError",
    "ncclGetErrorString",
    "ncclGetLastError",
    "ncclGroupStart",
    "ncclGroupEnd",
    "ncclAllGather",
    "ncclReduceScatter",
    "ncclAllReduce",
    "ncclBroadcast",
    "ncclSend",
    "ncclRecv",
];

/// The oldest NCCL with the configuration that this binding fills in: 2.18, where it got its present beginning.
const OLDEST_NCCL: c_int = 21_800;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The newest CUDA that the driver serves, as 1000 * major + 10 * minor.
    pub cuda: c_int,
    /// NCCL, as 10000 * major + 100 * minor + patch.
    pub nccl: c_int,
}

/// Loads both libraries and resolves every function that is used.
///
/// # Errors
/// Says in one sentence which library or function is missing, or which is too old.
pub fn load() -> Result<Versions> {
    load_driver()?;
    load_nccl()?;
    let nccl = nccl_version()?;
    if nccl < OLDEST_NCCL {
        let (found, oldest) = (Version(nccl), Version(OLDEST_NCCL));
        return Err(Error::usage(format!("NCCL {found} is too old: mpt needs {oldest} or newer")));
    }
    Ok(Versions { cuda: driver_version()?, nccl })
}

/// The number of GPUs that the driver offers; 0 where there is no driver.
pub fn gpus() -> usize {
    if load_driver().is_err() {
        return 0;
    }
    driver::CudaContext::device_count().map_or(0, |count| usize::try_from(count).unwrap_or(0))
}

/// What a rank calls at the start of each step, where the driver is mpt's simulator: it puts faults where they were
/// asked for. `None` with a real driver, or none.
pub fn step_marker() -> Option<extern "C" fn(u64)> {
    load_driver().ok()?;
    // SAFETY: the library stays loaded for good, and only the simulator has a function of this name, of this type.
    unsafe { driver::sys::culib().get::<extern "C" fn(u64)>(b"mpt_simulator_step").ok().map(|found| *found) }
}

/// Whether the driver is mpt's simulator.
pub fn is_simulated() -> bool {
    step_marker().is_some()
}

/// Whether there is a driver.
pub fn has_driver() -> bool {
    // SAFETY: asking runs the library's initialisers, which the driver's own makers wrote for that.
    unsafe { driver::sys::is_culib_present() }
}

/// Whether there is an NCCL.
pub fn has_nccl() -> bool {
    // SAFETY: as above, by NCCL's own makers.
    unsafe { nccl::sys::is_culib_present() }
}

/// Loads the driver alone.
///
/// # Errors
/// It, or a function of it, is missing.
pub fn load_driver() -> Result<()> {
    if !has_driver() {
        return Err(Error::usage(
            "the NVIDIA driver's library libcuda.so.1 was not found: install the driver, or use --device cpu",
        ));
    }
    resolve_driver(&DRIVER)
}

/// Resolves functions of the driver, which must be there.
///
/// # Errors
/// Names those that are missing.
pub fn resolve_driver(names: &[&str]) -> Result<()> {
    // SAFETY: the library was found, and stays loaded for good.
    let library = unsafe { driver::sys::culib() };
    resolve("libcuda.so.1", names, |name| {
        // SAFETY: the address is looked up and not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name).is_ok() }
    })
}

/// Loads NCCL alone, which answers some questions without a driver.
///
/// # Errors
/// It, or a function of it, is missing.
pub fn load_nccl() -> Result<()> {
    if !has_nccl() {
        return Err(Error::usage(
            "NCCL's library libnccl.so was not found: run scripts/setup on this machine, or use --device cpu",
        ));
    }
    // SAFETY: the library was found, and stays loaded for good.
    let library = unsafe { nccl::sys::culib() };
    resolve("libnccl.so", &NCCL, |name| {
        // SAFETY: the address is looked up and not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name).is_ok() }
    })
}

fn resolve(library: &str, names: &[&str], found: impl Fn(&[u8]) -> bool) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !found(name.as_bytes())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::usage(format!("{library} lacks {missing}: it is too old, or not the library it is named after")))
}

/// The version of NCCL, as 10000 * major + 100 * minor + patch. [`load_nccl`] must have found it.
///
/// # Errors
/// NCCL does not tell.
pub fn nccl_version() -> Result<c_int> {
    nccl::result::get_nccl_version()
        .map_err(|error| Error::failed(format!("NCCL does not tell its version: {:?}", error.0)))
}

/// The newest CUDA that the driver serves, as 1000 * major + 10 * minor. [`load_driver`] must have found it.
///
/// # Errors
/// The driver does not tell.
pub fn driver_version() -> Result<c_int> {
    let mut version = 0;
    // SAFETY: the driver writes one number to the place given.
    let told = unsafe { driver::sys::cuDriverGetVersion(&mut version) };
    told.result().map_err(|error| super::gpu::failed("the driver does not tell its version", error))?;
    Ok(version)
}

/// A version of NCCL, shown as its makers write it.
pub struct Version(
    /// 10000 * major + 100 * minor + patch.
    pub c_int,
);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(version) = self;
        write!(formatter, "{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }
}
