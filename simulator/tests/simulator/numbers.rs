//! NCCL's rules.

use crate::program::{Buffer, Program, group_end, group_start, ncclFloat32};
use crate::world::{World, rank, this_test};

#[test]
fn sums_are_taken_in_rank_order() {
    let Some(rank) = rank() else { return World::new(this_test!(), 3).set("DEVICES", 3).succeeds() };
    let program = Program::new(rank, 3);
    let group = program.blocking("world");
    let count = 100_003;
    let values =
        |rank: usize| (0..count).map(move |place| ((place * 7 + rank * 13) as f32).sin() * 1e3_f32.powi(rank as i32));
    let buffer = program.filled(&values(rank).collect::<Vec<_>>());
    let into = program.allocate(buffer.bytes);
    assert!(group.all_reduce(&program, buffer, into, count, ncclFloat32).unwrap());
    program.communication_before_compute();
    let sums: Vec<f32> = program.download(into);
    let expected: Vec<f32> = values(0).zip(values(1)).zip(values(2)).map(|((a, b), c)| (a + b) + c).collect();
    assert_eq!(sums, expected);
}

/// Each rank gives its numbers, `count` of them, all different.
fn numbers(rank: usize, count: usize) -> Vec<f32> {
    (0..count).map(|place| (rank * 1_000_000 + place) as f32).collect()
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
    let sums = numbers(0, COUNT).iter().zip(numbers(1, COUNT)).map(|(a, b)| a + b).collect::<Vec<_>>();
    assert_eq!(program.download::<f32>(half), sums[rank * COUNT / 2..][..COUNT / 2]);
    assert_eq!(program.download::<f32>(from_other), numbers(1 - rank, COUNT));

    assert!(!group.finalize().unwrap());
    group.polled();
    assert!(group.destroy().unwrap());
    [own, both, half, from_other].into_iter().for_each(Buffer::free);
}
