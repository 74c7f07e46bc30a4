//! Device memory and pinned host memory.

use crate::boundary::{Out, call};
use crate::cuda::{CuResult, context, device, host};
use crate::environment::settings;
use crate::rules;

/// `cuMemAlloc_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) -> CuResult {
    call("cuMemAlloc_v2", |line| {
        line.number("bytes", bytes);
        let allocated = context::current()?.memory.allocate(bytes)?;
        line.address("address", allocated);
        address.set(allocated)
    })
}

/// `cuMemFree_v2`. A real driver waits for the device first; here the memory is gone at once, so that a program that
/// counts on the wait is found out.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> CuResult {
    call("cuMemFree_v2", |line| {
        line.address("address", address);
        if address == 0 {
            return Ok(());
        }
        let device = match device::of_address(address) {
            Some(device) => device,
            None => context::current()?,
        };
        let in_flight = device.memory.free(address).map_err(|sentence| {
            rules::broken(device, &format!("cuMemFree_v2: {sentence}"));
            CuResult::INVALID_VALUE
        })?;
        if let (Some(other), true) = (in_flight, settings().races_are_reported) {
            let sentence = format!(
                "cuMemFree_v2: {address:#x} is freed, and the program has not waited for {other}, which uses it"
            );
            device.broken(device, &sentence);
        }
        Ok(())
    })
}

/// `cuMemGetInfo_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> CuResult {
    call("cuMemGetInfo_v2", |_| {
        let (in_all, left) = context::current()?.memory.capacity_and_free();
        free.set(left as usize)?;
        total.set(in_all as usize)
    })
}

/// `cuMemGetAddressRange_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) -> CuResult {
    call("cuMemGetAddressRange_v2", |_| {
        let device = device::of_address(address).ok_or(CuResult::INVALID_VALUE)?;
        let range = device.memory.range(address, 0).map_err(|_| CuResult::INVALID_VALUE)?;
        let (start, length) = range.allocation();
        base.set(start)?;
        bytes.set(length)
    })
}

/// `cuMemHostAlloc`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(address: Out<u64>, bytes: usize, _flags: u32) -> CuResult {
    call("cuMemHostAlloc", |line| {
        line.number("bytes", bytes);
        context::current()?;
        address.set(host::allocate_pinned(bytes)?)
    })
}

/// `cuMemAllocHost_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocHost_v2(address: Out<u64>, bytes: usize) -> CuResult {
    call("cuMemAllocHost_v2", |line| {
        line.number("bytes", bytes);
        context::current()?;
        address.set(host::allocate_pinned(bytes)?)
    })
}

/// `cuMemFreeHost`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(address: u64) -> CuResult {
    call("cuMemFreeHost", |line| {
        line.address("address", address);
        host::free_pinned(address)
    })
}
