//! Faults that are asked for, dead peers, aborts.

use crate::program::*;
use crate::world::{Ended, Running, World, folder, rank, this_test, variant};
use std::time::Duration;

/// How long ranks may go on that are expected to hang.
const A_WHILE: Duration = Duration::from_millis(300);

/// Two ranks that sum numbers in three steps, one after the other; each tells when a step is done.
fn three_steps(rank: usize) {
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let buffer = program.filled(&[1.0_f32; 8]);
    for step in 1..=3 {
        begin_step(step);
        if let Err(code) = sum(&program, group, buffer) {
            eprintln!("failed: {code:?}: {}", last_error());
            return;
        }
        std::fs::write(folder().join(format!("done-{rank}-{step}")), "").unwrap();
    }
}

/// One step, waited for.
fn sum(program: &Program, group: Group, buffer: Buffer) -> Result<(), Code> {
    let settled = || match group.settled() {
        ncclSuccess => Ok(()),
        code => Err(code),
    };
    group.all_reduce(program, buffer, buffer, 8, ncclFloat32)?;
    settled()?;
    program.communication_before_compute();
    program.compute.synchronize().unwrap();
    settled()
}

/// Tells the simulator of a step, as mpt does.
fn begin_step(step: u64) {
    // SAFETY: the function is exported with this type by the library that is loaded already.
    unsafe {
        let library = libc::dlopen(c"libnccl.so".as_ptr(), libc::RTLD_NOW);
        let function = libc::dlsym(library, c"mpt_simulator_step".as_ptr());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(u64)>(function)(step);
    }
}

fn has_done(world: &World, rank: usize, step: u64) -> bool {
    world.folder().join(format!("done-{rank}-{step}")).exists()
}

/// Runs the three steps with a fault on rank 1 after so many; ends them when `has_come` says so, and some time later.
fn with_fault(test: &str, fault: &str, steps: u64, has_come: impl Fn(&mut Running) -> bool) -> Vec<Ended> {
    let world = World::new(test, 2).set_for(1, "FAULT", fault);
    let ended = world
        .start()
        .until(|running| (0..2).all(|rank| has_done(&world, rank, steps)) && has_come(running))
        .end_within(A_WHILE);
    assert!((0..2).all(|rank| !has_done(&world, rank, steps + 1)), "{ended:?}");
    assert_eq!(world.broken_rules(), "", "a fault breaks no rule");
    ended
}

#[test]
fn kill_ends_the_process_at_the_call_that_was_asked_for() {
    if let Some(rank) = rank() {
        return three_steps(rank);
    }
    for fault in ["kill@call:2", "kill@step:2"] {
        let ended = with_fault(this_test!(), fault, 1, |running| running.has_ended(1));
        assert!(ended[1].was_killed());
        assert!(ended[0].status.is_none(), "by default nobody tells the other rank: {ended:?}");
    }
}

#[test]
fn hang_keeps_both_ranks_waiting() {
    if let Some(rank) = rank() {
        return three_steps(rank);
    }
    let ended = with_fault(this_test!(), "hang@step:3", 2, |_| true);
    assert!(ended.iter().all(|ended| ended.status.is_none()), "{ended:?}");
}

#[test]
fn fail_gives_an_error_on_its_rank() {
    if let Some(rank) = rank() {
        return three_steps(rank);
    }
    let ended = with_fault(this_test!(), "fail@call:3", 2, |running| running.has_ended(1));
    let sentence = "failed: ncclSystemError: rank 1: ncclAllReduce: failed, as MPT_SIMULATOR_FAULT asks";
    assert!(ended[1].succeeded() && ended[1].errors.contains(sentence), "{ended:?}");
    assert!(ended[0].status.is_none(), "{ended:?}");
}

#[test]
fn cut_shows_at_the_next_call_of_its_rank() {
    if let Some(rank) = rank() {
        return three_steps(rank);
    }
    let ended = with_fault(this_test!(), "cut@call:2", 1, |running| running.has_ended(1));
    let sentence = "failed: ncclRemoteError: rank 1: a link is cut, as MPT_SIMULATOR_FAULT asks";
    assert!(ended[1].succeeded() && ended[1].errors.contains(sentence), "{ended:?}");
    assert!(ended[0].status.is_none(), "{ended:?}");
}

#[test]
fn delay_is_only_late() {
    if let Some(rank) = rank() {
        let program = Program::new(rank, 2);
        let group = program.non_blocking("world");
        let buffer = program.filled(&[1.0_f32; 8]);
        let timed =
            || program.communication.record_event(Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        let start = timed();
        group.all_reduce(&program, buffer, buffer, 8, ncclFloat32).unwrap();
        group.polled();
        let end = timed();
        let elapsed = start.elapsed_ms(&end).unwrap();
        // On the rank that is late the two marks lie around the delay, whatever else happens.
        assert!(rank == 0 || elapsed >= 50.0, "{elapsed} ms");
        program.communication_before_compute();
        return assert_eq!(program.download::<f32>(buffer), [2.0; 8]);
    }
    let world = World::new(this_test!(), 2);
    world.set_for(1, "FAULT", "delay:50@call:1").succeeds();
}

#[test]
fn a_dead_peer_may_be_reported() {
    if let Some(rank) = rank() {
        return three_steps(rank);
    }
    let world = World::new(this_test!(), 2).set("PEER_DEATH", "reported").set_for(1, "FAULT", "kill@call:2");
    let ended = world.run();
    assert!(ended[0].succeeded() && ended[0].errors.contains("failed: ncclRemoteError: rank 1 is gone"), "{ended:?}");
    assert!(!has_done(&world, 0, 2));
}

#[test]
fn an_abort_ends_what_hangs_unless_it_hangs_itself() {
    let Some(rank) = rank() else {
        let world = World::new(this_test!(), 2).set("FAULT", "hang@call:2").variant("works");
        world.succeeds();
        let world = World::new(this_test!(), 2).set("FAULT", "hang@call:2").set("ABORT", "hangs").variant("hangs");
        let ended = world
            .start()
            .until(|running| (0..2).all(|rank| running.errors(rank).contains("aborting")))
            .end_within(A_WHILE);
        return assert!(ended.iter().all(|ended| ended.status.is_none()), "{ended:?}");
    };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let (first, second) = (program.filled(&[1.0_f32; 8]), program.filled(&[1.0_f32; 8]));
    group.all_reduce(&program, first, first, 8, ncclFloat32).unwrap();
    group.polled();
    program.communication.synchronize().unwrap();
    group.all_reduce(&program, second, second, 8, ncclFloat32).unwrap();
    group.polled();
    program.communication_before_compute();
    eprintln!("aborting");
    assert!(group.abort().unwrap());
    assert_eq!(variant(), "works");
    program.context.synchronize().unwrap();
    assert!(program.download::<f32>(second)[0].is_nan());
    // And life goes on with another communicator.
    let again = program.non_blocking("again");
    again.all_reduce(&program, first, first, 8, ncclFloat32).unwrap();
    again.polled();
    program.communication_before_compute();
    assert_eq!(program.download::<f32>(first), [4.0; 8]);
}

#[test]
fn a_communicator_that_waits_for_its_ranks_may_be_aborted() {
    let Some(_) = rank() else { return World::new(this_test!(), 1).succeeds() };
    let program = Program::new(0, 2);
    let group = program.begin("world", &mut config(0)).unwrap();
    assert_eq!(group.poll(), ncclInProgress);
    let waits = || std::fs::read_dir(folder()).unwrap().any(|entry| is_socket(&entry.unwrap()));
    until(|| waits().then_some(()));
    assert!(group.abort().unwrap());
    until(|| (!waits()).then_some(()));
}

fn is_socket(entry: &std::fs::DirEntry) -> bool {
    use std::os::unix::fs::FileTypeExt;
    entry.file_type().unwrap().is_socket()
}
