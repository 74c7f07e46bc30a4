//! Copies and fills, on streams and at once.

use crate::boundary::call;
use crate::cuda::context;
use crate::cuda::copy::{Copy, checked};
use crate::cuda::device::{self, Device};
use crate::cuda::stream::{self, Stream};
use crate::cuda::{CuResult, memory::Range};
use crate::rules;
use crate::trace::Line;
use std::sync::Arc;

/// Carries out a copy on a stream; `wait`: and waits for it, as the functions without a stream do.
fn copy(
    name: &'static str,
    bytes: usize,
    handle: u64,
    wait: bool,
    make: impl FnOnce(&'static Device) -> Result<Copy, CuResult>,
) -> CuResult {
    call(name, |line: &mut Line| {
        let stream: Arc<Stream> = stream::of_current(handle)?;
        let device = device::numbered(stream.device as i32)?;
        line.number("bytes", bytes).text("stream", &stream);
        if bytes > 0 {
            make(device)?.push(name, device, &stream);
        }
        if wait {
            stream.synchronize();
        }
        device.check()
    })
}

/// Both ends of a copy on one device.
fn both(name: &str, device: &Device, target: u64, source: u64, bytes: usize) -> Result<Copy, CuResult> {
    between(name, (device, target), (device, source), bytes)
}

fn between(name: &str, target: (&Device, u64), source: (&Device, u64), bytes: usize) -> Result<Copy, CuResult> {
    let to: Range = checked(name, target.0, target.1, bytes)?;
    let from: Range = checked(name, source.0, source.1, bytes)?;
    if to.overlaps(&from) {
        rules::broken(target.0, &format!("{name}: the two ends of a copy overlap"));
        return Err(CuResult::INVALID_VALUE);
    }
    Ok(Copy::OnDevice(from, to))
}

/// A copy whose ends are told from their addresses.
fn unified(name: &str, device: &Device, target: u64, source: u64, bytes: usize) -> Result<Copy, CuResult> {
    match (device::of_address(target), device::of_address(source)) {
        (Some(_), Some(_)) => both(name, device, target, source, bytes),
        (Some(_), None) => Ok(Copy::FromHost(source, checked(name, device, target, bytes)?)),
        (None, Some(_)) => Ok(Copy::ToHost(checked(name, device, source, bytes)?, target)),
        (None, None) => {
            rules::broken(device, &format!("{name}: a copy from host memory to host memory is not simulated"));
            Err(CuResult::NOT_SUPPORTED)
        }
    }
}

/// `cuMemcpyHtoDAsync_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(target: u64, source: u64, bytes: usize, stream: u64) -> CuResult {
    const NAME: &str = "cuMemcpyHtoDAsync_v2";
    copy(NAME, bytes, stream, false, |device| Ok(Copy::FromHost(source, checked(NAME, device, target, bytes)?)))
}

/// `cuMemcpyHtoD_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoD_v2(target: u64, source: u64, bytes: usize) -> CuResult {
    const NAME: &str = "cuMemcpyHtoD_v2";
    copy(NAME, bytes, 0, true, |device| Ok(Copy::FromHost(source, checked(NAME, device, target, bytes)?)))
}

/// `cuMemcpyDtoHAsync_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(target: u64, source: u64, bytes: usize, stream: u64) -> CuResult {
    const NAME: &str = "cuMemcpyDtoHAsync_v2";
    copy(NAME, bytes, stream, false, |device| Ok(Copy::ToHost(checked(NAME, device, source, bytes)?, target)))
}

/// `cuMemcpyDtoH_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoH_v2(target: u64, source: u64, bytes: usize) -> CuResult {
    const NAME: &str = "cuMemcpyDtoH_v2";
    copy(NAME, bytes, 0, true, |device| Ok(Copy::ToHost(checked(NAME, device, source, bytes)?, target)))
}

/// `cuMemcpyDtoDAsync_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(target: u64, source: u64, bytes: usize, stream: u64) -> CuResult {
    const NAME: &str = "cuMemcpyDtoDAsync_v2";
    copy(NAME, bytes, stream, false, |device| both(NAME, device, target, source, bytes))
}

/// `cuMemcpyDtoD_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(target: u64, source: u64, bytes: usize) -> CuResult {
    const NAME: &str = "cuMemcpyDtoD_v2";
    copy(NAME, bytes, 0, true, |device| both(NAME, device, target, source, bytes))
}

/// `cuMemcpyAsync`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyAsync(target: u64, source: u64, bytes: usize, stream: u64) -> CuResult {
    const NAME: &str = "cuMemcpyAsync";
    copy(NAME, bytes, stream, false, |device| unified(NAME, device, target, source, bytes))
}

/// `cuMemcpy`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpy(target: u64, source: u64, bytes: usize) -> CuResult {
    const NAME: &str = "cuMemcpy";
    copy(NAME, bytes, 0, true, |device| unified(NAME, device, target, source, bytes))
}

/// `cuMemcpyPeerAsync`: the one copy that may go from one device to another.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyPeerAsync(
    target: u64,
    target_context: u64,
    source: u64,
    source_context: u64,
    bytes: usize,
    stream: u64,
) -> CuResult {
    const NAME: &str = "cuMemcpyPeerAsync";
    copy(NAME, bytes, stream, false, |_| {
        let (to, from) = (context::device_of(target_context)?, context::device_of(source_context)?);
        between(NAME, (to, target), (from, source), bytes)
    })
}

/// `cuMemsetD8Async`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(target: u64, value: u8, bytes: usize, stream: u64) -> CuResult {
    const NAME: &str = "cuMemsetD8Async";
    copy(NAME, bytes, stream, false, |device| Ok(Copy::Fill(checked(NAME, device, target, bytes)?, value)))
}

/// `cuMemsetD8_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(target: u64, value: u8, bytes: usize) -> CuResult {
    const NAME: &str = "cuMemsetD8_v2";
    copy(NAME, bytes, 0, true, |device| Ok(Copy::Fill(checked(NAME, device, target, bytes)?, value)))
}
