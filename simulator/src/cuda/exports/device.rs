//! Devices and what is to be known about them; errors in words.

use crate::boundary::{Out, call};
use crate::cuda::{CuResult, device};
use std::ffi::{CStr, c_char};

/// The driver's version that is simulated.
const VERSION: i32 = 13_000;

/// `cuInit`
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: u32) -> CuResult {
    call("cuInit", |_| if flags == 0 { device::initialize() } else { Err(CuResult::INVALID_VALUE) })
}

/// `cuDriverGetVersion`
#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<i32>) -> CuResult {
    call("cuDriverGetVersion", |_| version.set(VERSION))
}

/// `cuDeviceGetCount`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<i32>) -> CuResult {
    call("cuDeviceGetCount", |_| count.set(device::all()?.len() as i32))
}

/// `cuDeviceGet`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Out<i32>, ordinal: i32) -> CuResult {
    call("cuDeviceGet", |line| {
        line.number("ordinal", ordinal);
        device.set(device::numbered(ordinal)?.ordinal as i32)
    })
}

/// `cuDeviceGetName`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetName(name: Out<c_char>, room: i32, device: i32) -> CuResult {
    call("cuDeviceGetName", |_| {
        device::numbered(device)?;
        name.set_text("simulated GPU", room)
    })
}

/// `cuDeviceGetUuid`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) -> CuResult {
    call("cuDeviceGetUuid", |_| uuid.set(uuid_of(device)?))
}

/// `cuDeviceGetUuid_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) -> CuResult {
    call("cuDeviceGetUuid_v2", |_| uuid.set(uuid_of(device)?))
}

fn uuid_of(device: i32) -> Result<[u8; 16], CuResult> {
    let mut uuid = *b"mpt-simulator-\0\0";
    uuid[15] = device::numbered(device)?.number as u8;
    Ok(uuid)
}

/// `cuDeviceTotalMem_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) -> CuResult {
    call("cuDeviceTotalMem_v2", |_| bytes.set(device::numbered(device)?.memory.capacity_and_free().0 as usize))
}

/// `cuDeviceGetPCIBusId`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetPCIBusId(name: Out<c_char>, room: i32, device: i32) -> CuResult {
    call("cuDeviceGetPCIBusId", |_| {
        let bus = device::numbered(device)?.number + 1;
        name.set_text(&format!("0000:{bus:02x}:00.0"), room)
    })
}

/// `cuDeviceCanAccessPeer`
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) -> CuResult {
    call("cuDeviceCanAccessPeer", |_| {
        let (device, peer) = (device::numbered(device)?, device::numbered(peer)?);
        can.set(i32::from(device.ordinal != peer.ordinal))
    })
}

/// `cuDeviceGetP2PAttribute`: access in both ways, and a link without atomic operations, as PCIe is.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetP2PAttribute(value: Out<i32>, attribute: u32, device: i32, peer: i32) -> CuResult {
    call("cuDeviceGetP2PAttribute", |line| {
        line.number("attribute", attribute).number("device", device);
        let (device, peer) = (device::numbered(device)?, device::numbered(peer)?);
        if device.ordinal == peer.ordinal {
            return Err(CuResult::INVALID_DEVICE);
        }
        value.set(match attribute {
            1 | 3 | 5 => 0, // PERFORMANCE_RANK, NATIVE_ATOMIC_SUPPORTED, ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED
            2 | 4 => 1,     // ACCESS_SUPPORTED, CUDA_ARRAY_ACCESS_SUPPORTED
            _ => return Err(CuResult::INVALID_VALUE),
        })
    })
}

/// `cuDeviceGetAttribute`. Memory pools are said not to be there, as they are not simulated.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, device: i32) -> CuResult {
    /// The first number that `CUdevice_attribute` does not have.
    const END: u32 = 150;
    call("cuDeviceGetAttribute", |line| {
        line.number("attribute", attribute).number("device", device);
        let bus = device::numbered(device)?.number as i32 + 1;
        value.set(match attribute {
            0 | END.. => return Err(CuResult::INVALID_VALUE),
            1 => 1024,    // MAX_THREADS_PER_BLOCK
            10 => 32,     // WARP_SIZE
            16 => 1,      // MULTIPROCESSOR_COUNT
            31 | 40 => 1, // CONCURRENT_KERNELS, ASYNC_ENGINE_COUNT
            33 => bus,    // PCI_BUS_ID
            41 => 1,      // UNIFIED_ADDRESSING
            75 => 9,      // COMPUTE_CAPABILITY_MAJOR
            _ => 0,
        })
    })
}

/// `cuGetErrorName`
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(error: CuResult, name: Out<*const c_char>) -> CuResult {
    describe(error, name, |(name, _)| name)
}

/// `cuGetErrorString`
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(error: CuResult, sentence: Out<*const c_char>) -> CuResult {
    describe(error, sentence, |(_, sentence)| sentence)
}

/// Not traced: a program asks for the words of an error that is in the trace already.
fn describe(
    error: CuResult,
    place: Out<*const c_char>,
    which: fn((&'static CStr, &'static CStr)) -> &'static CStr,
) -> CuResult {
    let described = error.described().map(which);
    let written = place.set::<CuResult>(described.map_or(std::ptr::null(), CStr::as_ptr));
    match (written, described) {
        (Ok(()), Some(_)) => CuResult::SUCCESS,
        _ => CuResult::INVALID_VALUE,
    }
}
