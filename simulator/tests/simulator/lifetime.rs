//! Memory and communicators that end too early, and buffers that are none.

use crate::program::*;
use crate::world::{World, rank, this_test, variant};

#[test]
fn a_buffer_lives_until_its_operation_is_over() {
    let Some(rank) = rank() else {
        World::new(this_test!(), 2).variant("kept").succeeds();
        World::new(this_test!(), 2).variant("broken").breaks(&["the program has not waited for rank 0's all-gather"]);
        let world = World::new(this_test!(), 2).variant("broken").set("RACES", "silent").set_for(0, "DELAY", 0);
        // Rank 1 comes late, and until then rank 0's operation is in flight.
        let world = world.set_for(1, "FAULT", "delay:300@call:1");
        return world.breaks(&["rank 0: ", "were freed while an operation in flight still needed them"]);
    };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 100]), program.allocate(800));
    group.all_gather(&program, from, into, 100, ncclFloat32).unwrap();
    group.polled();
    if variant() == "kept" {
        program.communication.synchronize().unwrap();
        return [from, into].into_iter().for_each(Buffer::free);
    }
    if rank == 0 {
        from.free();
    }
    if std::env::var_os("MPT_SIMULATOR_RACES").is_some() {
        assert_eq!(group.failed(), if rank == 0 { ncclUnhandledCudaError } else { ncclRemoteError });
        assert_eq!(program.communication.synchronize().is_ok(), rank == 1, "the device keeps the error");
    }
}

#[test]
fn buffers_are_live_memory_of_the_device_and_as_large_as_the_operation() {
    if rank().is_none() {
        return World::new(this_test!(), 1).breaks(&[
            "the receive buffer: 16 bytes at ",
            "it looks like host memory",
            "it belongs to device 1",
            "it was freed",
            "is not aligned to float32",
            "the send and the receive buffer overlap",
            "not one of the communicator's device 0",
            "rank 3 is not one of 1",
            "data type 10 is not simulated",
            "reduction 4 is not simulated",
        ]);
    }
    let (program, other) = (Program::new(0, 1), Program::on_device(0, 1, 1));
    program.context.bind_to_thread().unwrap();
    let group = program.blocking("alone");
    let good = program.filled(&[1.0_f32; 8]);
    let host = [1.0_f32; 4];
    let freed = program.allocate(16);
    freed.free();
    let refused =
        |from, into| assert_eq!(group.all_reduce(&program, from, into, 4, ncclFloat32), Err(ncclInvalidArgument));
    refused(good, good.part(20, 12));
    refused(good, Buffer { address: host.as_ptr() as u64, bytes: 16 });
    refused(other.allocate(16), good);
    refused(freed, good);
    refused(good.part(2, 16), good);
    refused(good, good.part(4, 16));
    program.context.bind_to_thread().unwrap();
    assert_eq!(group.all_reduce(&other, good, good, 4, ncclFloat32), Err(ncclInvalidArgument));
    assert_eq!(group.broadcast(&program, good, good, 4, ncclFloat32, 3), Err(ncclInvalidArgument));
    assert_eq!(group.all_reduce(&program, good, good, 4, ncclFloat8e4m3), Err(ncclInvalidArgument));
    // SAFETY: as in the other calls.
    let average = unsafe {
        cudarc::nccl::sys::ncclAllReduce(good.get(), good.get(), 4, ncclFloat32, ncclAvg, group.0, program.stream())
    };
    assert_eq!(average, ncclInvalidArgument);
    // Nothing of all this has happened.
    group.all_reduce(&program, good, good, 8, ncclFloat32).unwrap();
    program.communication_before_compute();
    assert_eq!(program.download::<f32>(good), [1.0; 8]);
}

#[test]
fn a_communicator_is_destroyed_when_its_work_is_over() {
    let Some(rank) = rank() else {
        for variant in ["finalized", "waited for"] {
            World::new(this_test!(), 2).variant(variant).succeeds();
        }
        World::new(this_test!(), 2).variant("finalizing").breaks(&["still being finalized"]);
        World::new(this_test!(), 2).variant("in progress").breaks(&["an operation is still in progress"]);
        let world = World::new(this_test!(), 2).set("FAULT", "delay:200@call:1").variant("in flight");
        return world.breaks(&["operations are still in flight: finalize the communicator first"]);
    };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let buffer = program.filled(&[1.0_f32; 8]);
    group.all_reduce(&program, buffer, buffer, 8, ncclFloat32).unwrap();
    if variant() != "in progress" {
        group.polled();
    }
    match variant().as_str() {
        "finalized" => {
            assert!(!group.finalize().unwrap());
            group.polled();
        }
        "waited for" => program.communication.synchronize().unwrap(),
        "finalizing" => assert!(!group.finalize().unwrap()),
        _ => {}
    }
    let keeps = variant() == "finalized" || variant() == "waited for";
    assert_eq!(group.destroy(), if keeps { Ok(true) } else { Err(ncclInvalidUsage) });
    program.context.synchronize().unwrap();
}

#[test]
fn a_communicator_that_was_finalized_destroyed_or_aborted_is_not_used() {
    let Some(rank) = rank() else {
        let world = World::new(this_test!(), 2);
        return world.breaks(&["the communicator is finalized", "it was destroyed or aborted"]);
    };
    let program = Program::new(rank, 2);
    let (finalized, aborted) = (program.blocking("first"), program.blocking("second"));
    let buffer = program.filled(&[1.0_f32; 8]);
    assert!(finalized.finalize().unwrap());
    assert_eq!(finalized.all_reduce(&program, buffer, buffer, 8, ncclFloat32), Err(ncclInvalidUsage));
    assert!(finalized.destroy().unwrap());
    assert!(aborted.abort().unwrap());
    for group in [finalized, aborted] {
        assert_eq!(group.all_reduce(&program, buffer, buffer, 8, ncclFloat32), Err(ncclInvalidArgument));
        assert_eq!(group.destroy(), Err(ncclInvalidArgument));
    }
}

#[test]
fn a_rank_whose_peer_has_destroyed_its_communicator_is_told() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 2).breaks(&["rank 1 has destroyed its communicator"]);
    };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    if rank == 1 {
        assert!(group.destroy().unwrap());
        return;
    }
    let buffer = program.filled(&[1.0_f32; 8]);
    group.all_reduce(&program, buffer, buffer, 8, ncclFloat32).unwrap();
    assert_eq!(group.failed(), ncclInvalidUsage);
    program.communication_before_compute();
    assert!(program.download::<f32>(buffer)[0].is_nan());
}

#[test]
fn a_stream_lives_until_the_operation_is_put_on_it() {
    if rank().is_none() {
        return World::new(this_test!(), 1).breaks(&["the stream was destroyed before the operation was put on it"]);
    }
    let program = Program::new(0, 1);
    let group = program.non_blocking("alone");
    let buffer = program.filled(&[1.0_f32; 8]);
    group.all_reduce(&program, buffer, buffer, 8, ncclFloat32).unwrap();
    let Program { communication, context, .. } = program;
    drop(communication);
    assert_eq!(group.failed(), ncclInvalidUsage);
    context.synchronize().unwrap();
}
