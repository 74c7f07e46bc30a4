//! Contexts: only the devices' primary ones.

use crate::boundary::{Out, call};
use crate::cuda::{CuResult, context, device};

/// `cuDevicePrimaryCtxRetain`
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) -> CuResult {
    call("cuDevicePrimaryCtxRetain", |line| {
        line.number("device", device);
        let device = device::numbered(device)?;
        device.check()?;
        device.retain();
        context.set(context::handle(device))
    })
}

/// `cuDevicePrimaryCtxRelease_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> CuResult {
    call("cuDevicePrimaryCtxRelease_v2", |line| {
        line.number("device", device);
        device::numbered(device)?.release()
    })
}

/// `cuDevicePrimaryCtxGetState`
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) -> CuResult {
    call("cuDevicePrimaryCtxGetState", |_| {
        flags.set(0)?;
        active.set(i32::from(device::numbered(device)?.is_active()))
    })
}

/// `cuCtxGetCurrent`
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: Out<u64>) -> CuResult {
    call("cuCtxGetCurrent", |_| context.set(context::current_or_none()?.map_or(0, context::handle)))
}

/// `cuCtxSetCurrent`
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: u64) -> CuResult {
    call("cuCtxSetCurrent", |line| {
        line.address("context", context);
        let device = if context == 0 { None } else { Some(context::device_of(context)?) };
        context::set_current(device);
        Ok(())
    })
}

/// `cuCtxGetDevice`
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(device: Out<i32>) -> CuResult {
    call("cuCtxGetDevice", |_| device.set(context::current()?.ordinal as i32))
}

/// `cuCtxSynchronize`
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> CuResult {
    call("cuCtxSynchronize", |_| {
        let device = context::current()?;
        device.synchronize();
        device.check()
    })
}

/// `cuCtxSetFlags`: how a thread waits makes no difference here.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetFlags(_flags: u32) -> CuResult {
    call("cuCtxSetFlags", |_| context::current().map(|_| ()))
}

/// `cuCtxGetStreamPriorityRange`: priorities are taken and make no difference.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) -> CuResult {
    call("cuCtxGetStreamPriorityRange", |_| {
        context::current()?;
        least.set(0)?;
        greatest.set(-5)
    })
}
