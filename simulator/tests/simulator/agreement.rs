//! What ranks must do alike: the same operations in the same order, over all communicators, and never wait for one
//! another. Who does not is told on every rank, and nobody hangs.

use crate::program::*;
use crate::world::{World, rank, this_test, variant};

/// Programs in which rank 1 issues something else than rank 0; both find it.
fn disagree(test: &str, reason: &str) {
    let world = World::new(test, 2);
    world.breaks(&["rank 0: rank 0 issued ", "rank 1: rank 1 issued ", reason]);
}

/// Waits until the communicator has failed, and the stream has gone on, with poison in the result.
fn told(program: &Program, group: Group, result: Buffer) {
    assert_eq!(group.failed(), ncclInvalidUsage, "{}", last_error());
    program.communication_before_compute();
    assert!(program.download::<f32>(result)[0].is_nan());
}

#[test]
fn counts_are_equal() {
    let Some(rank) = rank() else { return disagree(this_test!(), "different counts") };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 4]));
    group.all_reduce(&program, from, into, 3 + rank, ncclFloat32).unwrap();
    told(&program, group, into);
    assert_eq!(group.all_reduce(&program, from, into, 4, ncclFloat32), Err(ncclInvalidUsage), "it stays failed");
}

#[test]
fn types_are_equal() {
    let Some(rank) = rank() else { return disagree(this_test!(), "different types") };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 8]));
    group.all_gather(&program, from, into, 4, [ncclFloat32, ncclInt32][rank]).unwrap();
    told(&program, group, into);
}

#[test]
fn roots_are_equal() {
    let Some(rank) = rank() else { return disagree(this_test!(), "different roots") };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 4]));
    group.broadcast(&program, from, into, 4, ncclFloat32, rank as i32).unwrap();
    told(&program, group, into);
}

#[test]
fn messages_have_the_length_that_their_receiver_expects() {
    let Some(rank) = rank() else { return disagree(this_test!(), "different counts") };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let buffer = program.filled(&[1.0_f32; 4]);
    match rank {
        0 => group.send(&program, buffer, 4, ncclFloat32, 1).unwrap(),
        _ => group.receive(&program, buffer, 3, ncclFloat32, 0).unwrap(),
    };
    assert_eq!(group.failed(), ncclInvalidUsage);
}

#[test]
fn operations_come_in_the_same_order() {
    let Some(rank) = rank() else { return disagree(this_test!(), "different operations") };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 8]));
    let mut issue: [&dyn Fn() -> Issued; 2] = [&|| group.all_reduce(&program, from, into, 4, ncclFloat32), &|| {
        group.all_gather(&program, from, into, 4, ncclFloat32)
    }];
    if rank == 1 {
        issue.swap(0, 1);
    }
    // Either may find that the other rank was here before, with something else.
    let _ = issue[0]();
    let _ = issue[1]();
    told(&program, group, into);
}

#[test]
fn a_third_rank_is_told_too() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 3).set("DEVICES", 3).breaks(&["rank 0: ", "rank 1: ", "different counts"]);
    };
    let program = Program::new(rank, 3);
    let group = program.blocking("world");
    let buffer = program.filled(&[1.0_f32; 4]);
    // Ranks 0 and 1 disagree. Rank 2 does nothing wrong, but what it waits for does not come.
    match rank {
        0 => {
            let _ = group.send(&program, buffer, 4, ncclFloat32, 1);
            let _ = group.send(&program, buffer, 4, ncclFloat32, 2);
        }
        _ => {
            let _ = group.receive(&program, buffer, if rank == 1 { 3 } else { 4 }, ncclFloat32, 0);
        }
    }
    assert_eq!(group.failed(), if rank == 2 { ncclRemoteError } else { ncclInvalidUsage }, "{}", last_error());
    assert!(last_error().contains("different counts"), "{}", last_error());
    program.communication.synchronize().unwrap();
}

#[test]
fn communicators_are_used_in_the_same_order() {
    let Some(rank) = rank() else {
        for variant in ["one stream", "two streams", "polled late"] {
            World::new(this_test!(), 2).variant(&format!("kept, {variant}")).succeeds();
            World::new(this_test!(), 2).variant(variant).breaks(&["the two issue in different orders"]);
        }
        return;
    };
    let program = Program::new(rank, 2);
    let other = Program::new(rank, 2);
    let streams = if variant().ends_with("one stream") { [&program, &program] } else { [&program, &other] };
    let groups = [program.non_blocking("first"), program.non_blocking("second")];
    let buffers = [program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 4])];
    let keeps = variant().starts_with("kept");
    let order = if rank == 0 || keeps { [0, 1] } else { [1, 0] };
    let issue = |place: usize| {
        let issued = groups[place].all_reduce(streams[place], buffers[place], buffers[place], 4, ncclFloat32);
        // Who breaks the rule may find that the other rank was here before, with something else.
        assert!(issued.is_ok() || !keeps);
    };
    if variant().ends_with("polled late") {
        // Both are issued in the same order, but it is the poll that puts them on their streams.
        (0..2).for_each(issue);
        for place in order {
            groups[place].settled();
        }
    } else {
        order.iter().for_each(|&place| {
            issue(place);
            groups[place].settled();
        });
    }
    if keeps {
        program.context.synchronize().unwrap();
        assert!(buffers.iter().all(|buffer| program.download::<f32>(*buffer) == [2.0; 4]));
        return;
    }
    until(|| groups.iter().any(|group| group.poll() != ncclSuccess).then_some(()));
    program.context.synchronize().unwrap();
}

#[test]
fn messages_that_wait_for_one_another_are_a_deadlock() {
    let Some(rank) = rank() else {
        World::new(this_test!(), 3).set("DEVICES", 3).variant("kept").succeeds();
        World::new(this_test!(), 2).variant("two").breaks(&["deadlock: these ranks wait for one another: rank "]);
        let world = World::new(this_test!(), 3).set("DEVICES", 3).variant("three");
        return world.breaks(&["deadlock: these ranks wait for one another: rank ", "waits in send 1 of 4 x float32"]);
    };
    let size = if variant() == "two" { 2 } else { 3 };
    let program = Program::new(rank, size);
    let group = program.blocking("world");
    let (from, into) = (program.filled(&[rank as f32; 4]), program.filled(&[9.0_f32; 4]));
    let (next, before) = ((rank + 1) % size, (rank + size - 1) % size);
    if variant() == "kept" {
        group_start();
    }
    // Each sends first: outside a group nobody comes to the receive.
    group.send(&program, from, 4, ncclFloat32, next).unwrap();
    let received = group.receive(&program, into, 4, ncclFloat32, before);
    if variant() == "kept" {
        received.unwrap();
        assert!(group_end().unwrap());
        program.communication_before_compute();
        return assert_eq!(program.download::<f32>(into), [before as f32; 4]);
    }
    assert_ne!(group.failed(), ncclSuccess);
    program.communication.synchronize().unwrap();
    assert!(program.download::<f32>(into)[0].is_nan() || received.is_err());
}

#[test]
fn a_collective_and_a_message_may_wait_for_one_another_too() {
    let Some(rank) = rank() else { return World::new(this_test!(), 2).breaks(&["issue in different orders"]) };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let (sum, message) = (program.filled(&[1.0_f32; 4]), program.filled(&[1.0_f32; 4]));
    if rank == 0 {
        // Either may find that the other rank was here before, with something else.
        let _ = group.all_reduce(&program, sum, sum, 4, ncclFloat32);
        let _ = group.send(&program, message, 4, ncclFloat32, 1);
    } else {
        let _ = group.receive(&program, message, 4, ncclFloat32, 0);
        let _ = group.all_reduce(&program, sum, sum, 4, ncclFloat32);
    }
    assert_ne!(group.failed(), ncclSuccess);
    program.communication.synchronize().unwrap();
}

#[test]
fn a_group_s_calls_come_from_one_thread() {
    let Some(rank) = rank() else {
        World::new(this_test!(), 2).variant("kept").succeeds();
        let world = World::new(this_test!(), 2).variant("broken");
        return world.breaks(&["another thread has an open group", "the calling thread has no open group"]);
    };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let (from, into) = (program.filled(&[1.0_f32; 4]), program.filled(&[2.0_f32; 4]));
    group_start();
    group.send(&program, from, 4, ncclFloat32, 1 - rank).unwrap();
    if variant() == "kept" {
        group.receive(&program, into, 4, ncclFloat32, 1 - rank).unwrap();
        assert!(group_end().unwrap());
        return program.communication.synchronize().unwrap();
    }
    std::thread::scope(|scope| {
        let program = &program;
        let other = scope.spawn(move || {
            program.context.bind_to_thread().unwrap();
            assert_eq!(group_end(), Err(ncclInvalidUsage));
            group_start();
            assert_eq!(group.receive(program, into, 4, ncclFloat32, 1 - rank), Err(ncclInvalidUsage));
            assert_eq!(group_end(), Err(ncclInvalidUsage));
        });
        other.join().unwrap();
    });
    group.abort().unwrap();
}

#[test]
fn operations_of_a_group_are_independent() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 2).breaks(&["receive of one group touch the same memory"]);
    };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let buffer = program.filled(&[1.0_f32; 4]);
    group_start();
    group.send(&program, buffer, 4, ncclFloat32, 1 - rank).unwrap();
    group.receive(&program, buffer, 4, ncclFloat32, 1 - rank).unwrap();
    assert_eq!(group_end(), Err(ncclInvalidUsage));
}
