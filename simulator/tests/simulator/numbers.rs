//! What collectives and messages give.

use crate::program::*;
use crate::world::{World, rank, this_test};
use half::{bf16, f16};
use std::fmt::Debug;

/// Each rank gives its numbers, `count` of them, all different.
fn numbers(rank: usize, count: usize) -> Vec<f32> {
    (0..count).map(|place| (rank * 1_000_000 + place) as f32).collect()
}

/// Sums of three ranks, of numbers that each addition has to round.
fn all_reduce_of_three<T: Copy + Default + PartialEq + Debug>(
    program: &Program,
    group: Group,
    datatype: Type,
    number: impl Fn(f64) -> T,
    add: impl Fn(T, T) -> T,
) {
    let count = 10_007;
    let values = |rank: usize| -> Vec<T> {
        let scale = [100.0, 7.0, 0.3][rank];
        (0..count).map(|place| number(((place * 7 + rank * 13) as f64).sin() * scale)).collect()
    };
    let own = program.filled(&values(program.rank));
    let sums = program.allocate(own.bytes);
    group.all_reduce(program, own, sums, count, datatype).unwrap();
    program.communication_before_compute();
    let three = values(0).into_iter().zip(values(1)).zip(values(2));
    let expected: Vec<T> = three.map(|((first, second), third)| add(add(first, second), third)).collect();
    assert_eq!(program.download::<T>(sums), expected, "{datatype:?}");
}

#[test]
fn sums_are_taken_in_rank_order_and_rounded_to_the_type() {
    let Some(rank) = rank() else { return World::new(this_test!(), 3).set("DEVICES", 3).succeeds() };
    let program = Program::new(rank, 3);
    let group = program.blocking("world");
    all_reduce_of_three(&program, group, ncclFloat32, |number| number as f32, |a, b| a + b);
    all_reduce_of_three(&program, group, ncclFloat64, |number| number, |a, b| a + b);
    all_reduce_of_three(
        &program,
        group,
        ncclFloat16,
        |n| f16::from_f64(n).to_bits(),
        |a, b| (f16::from_bits(a) + f16::from_bits(b)).to_bits(),
    );
    all_reduce_of_three(
        &program,
        group,
        ncclBfloat16,
        |n| bf16::from_f64(n).to_bits(),
        |a, b| (bf16::from_bits(a) + bf16::from_bits(b)).to_bits(),
    );
    all_reduce_of_three(&program, group, ncclUint8, |number| number as i32 as u8, u8::wrapping_add);
    all_reduce_of_three(&program, group, ncclInt32, |number| (number * 1e8) as i32, i32::wrapping_add);
    all_reduce_of_three(&program, group, ncclInt64, |number| (number * 1e15) as i64, i64::wrapping_add);
    all_reduce_of_three(&program, group, ncclUint64, |number| (number * 1e15) as i64 as u64, u64::wrapping_add);
}

#[test]
fn collectives_and_messages_of_a_communicator_that_does_not_block() {
    const COUNT: usize = 300_000;
    let Some(rank) = rank() else { return World::new(this_test!(), 2).succeeds() };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    let own = program.filled(&numbers(rank, COUNT));
    let both = program.allocate(2 * own.bytes);
    let half = program.allocate(own.bytes / 2);
    let from_other = program.allocate(own.bytes);

    assert!(!group.all_gather(&program, own, both, COUNT, ncclFloat32).unwrap());
    group.polled();
    assert!(!group.reduce_scatter(&program, own, half, COUNT / 2, ncclFloat32).unwrap());
    group.polled();
    group_start();
    assert!(group.send(&program, own, COUNT, ncclFloat32, 1 - rank).unwrap());
    assert!(group.receive(&program, from_other, COUNT, ncclFloat32, 1 - rank).unwrap());
    assert!(!group_end().unwrap());
    group.polled();
    program.communication_before_compute();

    assert_eq!(program.download::<f32>(both), [numbers(0, COUNT), numbers(1, COUNT)].concat());
    let sums: Vec<f32> = numbers(0, COUNT).iter().zip(numbers(1, COUNT)).map(|(a, b)| a + b).collect();
    assert_eq!(program.download::<f32>(half), sums[rank * COUNT / 2..][..COUNT / 2]);
    assert_eq!(program.download::<f32>(from_other), numbers(1 - rank, COUNT));

    assert!(!group.finalize().unwrap());
    group.polled();
    assert!(group.destroy().unwrap());
    [own, both, half, from_other].into_iter().for_each(Buffer::free);
}

#[test]
fn the_forms_in_place_and_those_with_a_root() {
    let Some(rank) = rank() else { return World::new(this_test!(), 2).succeeds() };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let check = |buffer: Buffer, expected: [f32; 4]| {
        program.communication_before_compute();
        assert_eq!(program.download::<f32>(buffer), expected);
    };
    let own = [1.0, 2.0, 3.0, 4.0_f32].map(|number| number + 10.0 * rank as f32);

    let buffer = program.filled(&own);
    group.all_reduce(&program, buffer, buffer, 4, ncclFloat32).unwrap();
    check(buffer, [12.0, 14.0, 16.0, 18.0]);
    let buffer = program.filled(&own);
    group.all_gather(&program, buffer.part(8 * rank, 8), buffer, 2, ncclFloat32).unwrap();
    check(buffer, [1.0, 2.0, 13.0, 14.0]);
    let buffer = program.filled(&own);
    group.reduce_scatter(&program, buffer, buffer.part(8 * rank, 8), 2, ncclFloat32).unwrap();
    check(buffer, if rank == 0 { [12.0, 14.0, 3.0, 4.0] } else { [11.0, 12.0, 16.0, 18.0] });
    let buffer = program.filled(&own);
    group.broadcast(&program, buffer, buffer, 4, ncclFloat32, 1).unwrap();
    check(buffer, [11.0, 12.0, 13.0, 14.0]);
    let (from, into) = (program.filled(&own), program.filled(&own));
    group
        .broadcast(&program, if rank == 0 { from } else { Buffer { address: 0, bytes: 0 } }, into, 4, ncclFloat32, 0)
        .unwrap();
    check(into, [1.0, 2.0, 3.0, 4.0]);
    group.reduce(&program, from, into, 4, ncclFloat32, 1).unwrap();
    check(into, if rank == 0 { [1.0, 2.0, 3.0, 4.0] } else { [12.0, 14.0, 16.0, 18.0] });
    check(from, own);
}

#[test]
fn large_messages_and_uneven_ones_in_one_group() {
    const LARGE: usize = 12_000_000;
    let Some(rank) = rank() else { return World::new(this_test!(), 3).set("DEVICES", 3).succeeds() };
    let program = Program::new(rank, 3);
    let group = program.non_blocking("world");
    // To the next rank much, to the one before little, and something to oneself.
    let count = |from: usize, to: usize| if (from + 1) % 3 == to { LARGE } else { 1 + from };
    let parts: Vec<_> = (0..3)
        .map(|peer| (program.filled(&numbers(rank, count(rank, peer))), program.allocate(4 * count(peer, rank))))
        .collect();
    group_start();
    for (peer, (from, into)) in parts.iter().enumerate() {
        group.receive(&program, *into, count(peer, rank), ncclFloat32, peer).unwrap();
        group.send(&program, *from, count(rank, peer), ncclFloat32, peer).unwrap();
    }
    assert!(!group_end().unwrap());
    group.polled();
    program.communication_before_compute();
    for (peer, (_, into)) in parts.iter().enumerate() {
        assert!(program.download::<f32>(*into) == numbers(peer, count(peer, rank)), "from {peer}");
    }
}

#[test]
fn messages_need_not_be_grouped_alike() {
    let Some(rank) = rank() else { return World::new(this_test!(), 2).succeeds() };
    let program = Program::new(rank, 2);
    let group = program.blocking("world");
    let (one, two) = (program.filled(&[1.0_f32, 2.0]), program.filled(&[3.0_f32]));
    if rank == 0 {
        group.send(&program, one, 2, ncclFloat32, 1).unwrap();
        group.send(&program, two, 1, ncclFloat32, 1).unwrap();
        group.receive(&program, one, 0, ncclFloat32, 1).unwrap();
    } else {
        let (one, two) = (program.allocate(8), program.allocate(4));
        group_start();
        group.receive(&program, one, 2, ncclFloat32, 0).unwrap();
        group.receive(&program, two, 1, ncclFloat32, 0).unwrap();
        assert!(group_end().unwrap());
        group.send(&program, one, 0, ncclFloat32, 0).unwrap();
        program.communication_before_compute();
        assert_eq!(program.download::<f32>(one), [1.0, 2.0]);
        assert_eq!(program.download::<f32>(two), [3.0]);
    }
    program.communication.synchronize().unwrap();
}

#[test]
fn a_group_may_use_several_streams() {
    let Some(rank) = rank() else { return World::new(this_test!(), 2).set("DELAY", 2000).succeeds() };
    let program = Program::new(rank, 2);
    let other = Program::new(rank, 2);
    let group = program.blocking("world");
    for round in 0..20 {
        let (from, all, sum) = (program.allocate(4), program.allocate(8), program.allocate(4));
        let values = [(10 * round + rank) as f32];
        // All of the group waits for what one of its streams waits for, and each of its streams for all of it.
        program.upload(&values, from);
        program.compute_before_communication();
        group_start();
        group.all_gather(&other, from, all, 1, ncclFloat32).unwrap();
        group.all_reduce(&program, from, sum, 1, ncclFloat32).unwrap();
        assert!(group_end().unwrap());
        program.communication_before_compute();
        assert_eq!(program.download::<f32>(all), [0, 1].map(|rank| (10 * round + rank) as f32));
        assert_eq!(program.download::<f32>(sum), [(20 * round + 1) as f32]);
    }
}

#[test]
fn ranks_may_be_threads_of_a_process() {
    if rank().is_none() {
        return World::new(this_test!(), 1).set("DEVICES", 3).succeeds();
    }
    let ranks: Vec<_> = (0..3).map(|rank| std::thread::spawn(move || one_of_three(rank))).collect();
    ranks.into_iter().for_each(|rank| rank.join().unwrap());
}

fn one_of_three(rank: usize) {
    let program = Program::new(rank, 3);
    let group = program.non_blocking("threads");
    for round in 0..20 {
        let buffer = program.filled(&[round as f32, rank as f32]);
        group.all_reduce(&program, buffer, buffer, 2, ncclFloat32).unwrap();
        group.polled();
        program.communication_before_compute();
        assert_eq!(program.download::<f32>(buffer), [3.0 * round as f32, 3.0]);
    }
}

#[test]
fn one_thread_may_have_all_ranks() {
    use cudarc::nccl::{Comm, ReduceOp, group_end, group_start};
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let programs = [Program::new(0, 2), Program::new(1, 2)];
    let streams = programs.iter().map(|program| program.compute.clone()).collect();
    let groups = Comm::from_devices(streams).unwrap();
    let mut slices: Vec<_> =
        programs.iter().map(|program| program.compute.clone_htod(&[1.0_f32; 9]).unwrap()).collect();
    programs.iter().for_each(|program| program.compute.synchronize().unwrap());
    group_start().unwrap();
    for (group, slice) in groups.iter().zip(&mut slices) {
        group.all_reduce_in_place(slice, &ReduceOp::Sum).unwrap();
    }
    group_end().unwrap();
    for (program, slice) in programs.iter().zip(&slices) {
        let mut values = [0.0; 9];
        program.compute.memcpy_dtoh(slice, &mut values).unwrap();
        program.compute.synchronize().unwrap();
        assert_eq!(values, [2.0; 9]);
    }
}
