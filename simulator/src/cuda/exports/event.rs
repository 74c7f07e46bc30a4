//! Events.

use crate::boundary::{Out, call};
use crate::cuda::event::{EVENTS, Event};
use crate::cuda::stream;
use crate::cuda::{CuResult, context, device};
use crate::rules;
use std::sync::Arc;

fn event(handle: u64) -> Result<Arc<Event>, CuResult> {
    EVENTS.get(handle).ok_or_else(|| {
        rules::broken("an event", &format!("{handle:#x} is not an event, or no longer"));
        CuResult::INVALID_HANDLE
    })
}

/// `cuEventCreate`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: Out<u64>, flags: u32) -> CuResult {
    /// `CU_EVENT_DISABLE_TIMING`.
    const DISABLE_TIMING: u32 = 2;
    call("cuEventCreate", |line| {
        let device = context::current()?;
        let handle = EVENTS.insert(Arc::new(Event::new(device.ordinal, flags & DISABLE_TIMING == 0)));
        line.address("event", handle);
        event.set(handle)
    })
}

/// `cuEventDestroy_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: u64) -> CuResult {
    call("cuEventDestroy_v2", |line| {
        line.address("event", event);
        EVENTS.remove(event).map(|_| ()).ok_or(CuResult::INVALID_HANDLE)
    })
}

/// `cuEventRecord`: the event and the stream must be of one device.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: u64, stream: u64) -> CuResult {
    call("cuEventRecord", |line| {
        line.address("event", event);
        let stream = stream::of_current(stream)?;
        line.text("stream", &stream);
        let event = self::event(event)?;
        if event.device != stream.device {
            rules::broken(&stream, &format!("cuEventRecord: the event belongs to device {}", event.device));
            return Err(CuResult::INVALID_HANDLE);
        }
        event.record(&stream);
        Ok(())
    })
}

/// `cuEventSynchronize`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: u64) -> CuResult {
    call("cuEventSynchronize", |line| {
        line.address("event", event);
        let event = self::event(event)?;
        if let Some(mark) = event.newest() {
            mark.wait();
        }
        device::numbered(event.device as i32)?.check()
    })
}

/// `cuEventQuery`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: u64) -> CuResult {
    call("cuEventQuery", |line| {
        line.address("event", event);
        let event = self::event(event)?;
        device::numbered(event.device as i32)?.check()?;
        if event.newest().is_none_or(|mark| mark.reached().is_some()) {
            return Ok(());
        }
        line.not_yet();
        Err(CuResult::NOT_READY)
    })
}

fn elapsed(milliseconds: Out<f32>, start: u64, end: u64) -> Result<(), CuResult> {
    let (start, end) = (event(start)?, event(end)?);
    let (Some(first), Some(second), true, true) = (start.newest(), end.newest(), start.has_time, end.has_time) else {
        rules::broken(
            format_args!("device {}", start.device),
            "cuEventElapsedTime: an event was made without time, or never recorded",
        );
        return Err(CuResult::INVALID_HANDLE);
    };
    let (Some(first), Some(second)) = (first.reached(), second.reached()) else {
        return Err(CuResult::NOT_READY);
    };
    let forward = second.saturating_duration_since(first).as_secs_f32();
    let backward = first.saturating_duration_since(second).as_secs_f32();
    milliseconds.set((forward - backward) * 1e3)
}

/// `cuEventElapsedTime`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, start: u64, end: u64) -> CuResult {
    call("cuEventElapsedTime", |_| elapsed(milliseconds, start, end))
}

/// `cuEventElapsedTime_v2`
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) -> CuResult {
    call("cuEventElapsedTime_v2", |_| elapsed(milliseconds, start, end))
}
