//! Streams and events.

use crate::memory::Gate;
use crate::program::{Program, until};
use crate::world::{World, rank, this_test, variant};
use cudarc::driver::CudaContext;
use cudarc::driver::result as cuda;
use cudarc::driver::sys::CUevent_flags::*;
use cudarc::driver::sys::CUresult::*;

#[test]
fn two_streams_have_no_order_but_that_of_events() {
    if rank().is_none() {
        for seed in 0..4 {
            World::new(this_test!(), 1).set("SEED", seed).variant("kept").succeeds();
            World::new(this_test!(), 1).set("SEED", seed).variant("broken").set("RACES", "silent").succeeds();
        }
        World::new(this_test!(), 1).variant("told").breaks(&["an event is missing between their streams"]);
        return;
    }
    let program = Program::new(0, 1);
    let (buffer, copied) = (program.filled(&[0_u32]), program.allocate(4));
    let mut wrong = 0;
    for round in 1..=100_u32 {
        let values = [round];
        program.upload(&values, buffer);
        if variant() == "kept" {
            program.compute_before_communication();
        }
        // SAFETY: the buffers live until the end.
        let issued =
            unsafe { cuda::memcpy_dtod_async(copied.address, buffer.address, 4, program.communication.cu_stream()) };
        if variant() == "told" {
            return assert_eq!(issued.unwrap_err().0, CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        issued.unwrap();
        program.communication.synchronize().unwrap();
        wrong += u32::from(program.download::<u32>(copied) != values);
    }
    assert_eq!(wrong > 0, variant() == "broken", "{wrong} of 100 are wrong");
}

#[test]
fn a_wait_is_for_what_was_recorded_last_when_it_is_called() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    let event = program.event();
    assert!(event.is_complete(), "nothing was recorded");
    program.communication.wait(&event).unwrap();
    event.record(&program.compute).unwrap();
    program.communication.wait(&event).unwrap();
    let gate = Gate::close(&program);
    event.record(&program.compute).unwrap();
    // The wait above was for the first record: this would hang if it were for the second.
    program.communication.synchronize().unwrap();
    assert!(!event.is_complete());
    // SAFETY: a stream of its own.
    assert_eq!(unsafe { cudarc::driver::sys::cuStreamQuery(program.compute.cu_stream()) }, CUDA_ERROR_NOT_READY);
    gate.open();
    event.synchronize().unwrap();
    assert!(event.is_complete());
    program.context.synchronize().unwrap();
}

#[test]
fn events_are_of_one_device_and_measure_time_only_if_made_so() {
    if rank().is_none() {
        return World::new(this_test!(), 1).breaks(&["the event belongs to device 1", "made without time"]);
    }
    let program = Program::new(0, 1);
    let other = CudaContext::new(1).unwrap().new_event(None).unwrap();
    program.context.bind_to_thread().unwrap();
    // SAFETY: handles that are alive; the simulator refuses what does not fit.
    unsafe {
        let recorded = cuda::event::record(other.cu_event(), program.compute.cu_stream());
        assert_eq!(recorded.unwrap_err().0, CUDA_ERROR_INVALID_HANDLE);
    }
    let (start, end) = (program.compute.record_event(None).unwrap(), program.compute.record_event(None).unwrap());
    assert_eq!(start.elapsed_ms(&end).unwrap_err().0, CUDA_ERROR_INVALID_HANDLE);
    let start = program.compute.record_event(Some(CU_EVENT_DEFAULT)).unwrap();
    let gate = Gate::close(&program);
    let end = program.compute.record_event(Some(CU_EVENT_DEFAULT)).unwrap();
    // SAFETY: as above.
    let early = unsafe { cuda::event::elapsed(start.cu_event(), end.cu_event()) };
    assert_eq!(early.unwrap_err().0, CUDA_ERROR_NOT_READY);
    gate.open();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
}

#[test]
fn only_streams_that_do_not_wait_for_the_null_stream_are_made() {
    if rank().is_none() {
        return World::new(this_test!(), 1).breaks(&["only streams with CU_STREAM_NON_BLOCKING are simulated"]);
    }
    let program = Program::new(0, 1);
    let refused = cuda::stream::create(cuda::stream::StreamKind::Default);
    assert_eq!(refused.unwrap_err().0, CUDA_ERROR_NOT_SUPPORTED);
    assert!(program.context.new_stream_with_priority(-1).is_ok());
    assert!(program.context.per_thread_stream().synchronize().is_err());
}

#[test]
fn a_stream_that_is_destroyed_is_known_no_longer_but_does_its_work() {
    if rank().is_none() {
        return World::new(this_test!(), 1).breaks(&["is not a stream, or no longer"]);
    }
    let program = Program::new(0, 1);
    let buffer = program.filled(&[0_u32]);
    let stream = cuda::stream::create(cuda::stream::StreamKind::NonBlocking).unwrap();
    // SAFETY: the simulator knows what is alive.
    unsafe {
        cuda::memset_d8_async(buffer.address, 7, 4, stream).unwrap();
        cuda::stream::destroy(stream).unwrap();
        assert_eq!(cuda::stream::synchronize(stream).unwrap_err().0, CUDA_ERROR_INVALID_HANDLE);
    }
    // Its thread ends after its work; what it has done counts as waited for all the same.
    until(|| (!has_thread("stream 0.2")).then_some(()));
    program.context.synchronize().unwrap();
    assert_eq!(program.download::<u32>(buffer), [0x0707_0707]);
}

fn has_thread(name: &str) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.into_iter().any(|other| other.trim() == name)
}

#[test]
fn a_process_may_end_while_its_streams_are_busy() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    let gate = Gate::close(&program);
    program.upload(&[0_u8; 16], program.allocate(16));
    std::mem::forget(gate);
}
