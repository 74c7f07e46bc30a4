//! Streams.

use crate::boundary::{Out, call};
use crate::cuda::event::{EVENTS, Mark};
use crate::cuda::stream::{self, STREAMS};
use crate::cuda::{CuResult, context, device};
use crate::rules;
use crate::trace::Line;
use std::ffi::c_void;

/// A new stream; only streams that do not wait for the null stream are simulated.
fn create(line: &mut Line, flags: u32) -> Result<u64, CuResult> {
    /// `CU_STREAM_NON_BLOCKING`.
    const NON_BLOCKING: u32 = 1;
    let device = context::current()?;
    if flags != NON_BLOCKING {
        rules::broken(
            device,
            "a stream was asked for that waits for the null stream and the null stream for it; \
             only streams with CU_STREAM_NON_BLOCKING are simulated",
        );
        return Err(CuResult::NOT_SUPPORTED);
    }
    let stream = device.new_stream();
    line.text("stream", &stream);
    Ok(STREAMS.insert(stream))
}

/// `cuStreamCreate`
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: Out<u64>, flags: u32) -> CuResult {
    call("cuStreamCreate", |line| stream.set(create(line, flags)?))
}

/// `cuStreamCreateWithPriority`
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, _priority: i32) -> CuResult {
    call("cuStreamCreateWithPriority", |line| stream.set(create(line, flags)?))
}

/// `cuStreamDestroy_v2`: the stream still does what it was given.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: u64) -> CuResult {
    call("cuStreamDestroy_v2", |line| {
        line.address("stream", stream);
        let Some(stream) = STREAMS.remove(stream) else {
            rules::broken("cuStreamDestroy_v2", &format!("{stream:#x} is not a stream, or no longer"));
            return Err(CuResult::INVALID_HANDLE);
        };
        device::numbered(stream.device as i32)?.destroy(&stream);
        Ok(())
    })
}

/// `cuStreamSynchronize`
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: u64) -> CuResult {
    call("cuStreamSynchronize", |line| {
        let stream = stream::of_current(stream)?;
        line.text("stream", &stream);
        stream.synchronize();
        device::numbered(stream.device as i32)?.check()
    })
}

/// `cuStreamQuery`
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: u64) -> CuResult {
    call("cuStreamQuery", |line| {
        let stream = stream::of_current(stream)?;
        line.text("stream", &stream);
        if stream.is_idle() {
            return device::numbered(stream.device as i32)?.check();
        }
        line.not_yet();
        Err(CuResult::NOT_READY)
    })
}

/// `cuStreamWaitEvent`: waits for what was recorded last when this is called.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, _flags: u32) -> CuResult {
    call("cuStreamWaitEvent", |line| {
        let stream = stream::of_current(stream)?;
        line.text("stream", &stream).address("event", event);
        let event = EVENTS.get(event).ok_or(CuResult::INVALID_HANDLE)?;
        if let Some(mark) = event.newest() {
            mark.hold_back(&stream);
        }
        Ok(())
    })
}

/// `cuLaunchHostFunc`
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchHostFunc(
    stream: u64,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> CuResult {
    call("cuLaunchHostFunc", |line| {
        let stream = stream::of_current(stream)?;
        line.text("stream", &stream);
        let function = function.ok_or(CuResult::INVALID_VALUE)?;
        let argument = argument as usize;
        let mark = Mark::put(&stream);
        let run = move || {
            // The function may tell the program that all before it is done.
            mark.wait();
            // SAFETY: the caller of cuLaunchHostFunc vouches that the function may be called with its argument later,
            // from another thread.
            unsafe { function(argument as *mut c_void) }
        };
        // It touches no device memory, so that it cannot race.
        let _ = stream.push("cuLaunchHostFunc", &[], run);
        Ok(())
    })
}
