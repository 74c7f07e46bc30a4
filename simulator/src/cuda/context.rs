//! Which device a thread works with: its current context. Only primary contexts are simulated.

use super::device::{self, Device};
use super::result::CuResult;
use crate::handles::Kind;
use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The handle of a device's primary context.
pub fn handle(device: &Device) -> u64 {
    Kind::Context as u64 | (device.ordinal as u64 + 1)
}

/// The device of a context handle.
pub fn device_of(handle: u64) -> Result<&'static Device, CuResult> {
    device::all()?
        .iter()
        .find(|device| self::handle(device) == handle)
        .filter(|device| device.is_active())
        .ok_or(CuResult::INVALID_CONTEXT)
}

/// Makes a device, or none, the calling thread's.
pub fn set_current(device: Option<&Device>) {
    CURRENT.set(device.map(|device| device.ordinal));
}

/// The calling thread's device, if it has one.
pub fn current_or_none() -> Result<Option<&'static Device>, CuResult> {
    let devices = device::all()?;
    Ok(CURRENT.get().and_then(|ordinal| devices.get(ordinal)))
}

/// The calling thread's device; an error where it has none, or where a stream of that device broke a rule before.
pub fn current() -> Result<&'static Device, CuResult> {
    let device = current_or_none()?.filter(|device| device.is_active()).ok_or(CuResult::INVALID_CONTEXT)?;
    device.check()?;
    Ok(device)
}
