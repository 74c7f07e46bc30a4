//! The order between the null stream and the communication stream, and polls. Whoever forgets an event or a poll gets
//! wrong numbers.

use crate::program::*;
use crate::world::{World, rank, this_test, variant};

/// How often a program tries: a missing order shows in some of the rounds.
const ROUNDS: usize = 40;

/// Runs a variant that keeps the rule with many seeds; and those that break it, which are told at once. Where they are
/// not told, their numbers are wrong.
fn keep_and_break(test: &str, broken: &[&str]) {
    for seed in 0..6 {
        World::new(test, 2).set("SEED", seed).set("DELAY", 300).variant("kept").succeeds();
    }
    for variant in broken {
        let world = World::new(test, 2).variant(variant);
        world.breaks(&["nothing puts one before the other: an event is missing"]);
        for seed in 0..2 {
            let world = World::new(test, 2).set("SEED", seed).set("DELAY", 3000);
            world.set("RACES", "silent").variant(variant).succeeds();
        }
    }
}

/// Whether this program breaks a rule and expects to be told.
fn is_told() -> bool {
    variant() != "kept" && std::env::var_os("MPT_SIMULATOR_RACES").is_none()
}

/// Sums two ranks' numbers for some rounds, and asserts that a program is told, or that the result is wrong in some
/// rounds, exactly where it breaks a rule. `all_reduce` gives `Err` when it was told.
fn rounds(program: &Program, mut all_reduce: impl FnMut(Buffer, Buffer) -> Result<(), Code>) {
    let (from, into) = (program.filled(&[0.0_f32; 1000]), program.filled(&[0.0_f32; 1000]));
    let mut wrong = 0;
    for round in 1..=ROUNDS {
        let values = vec![(round * 2 + program.rank) as f32; 1000];
        program.upload(&values, from);
        let issued = all_reduce(from, into);
        let sums = program.try_download::<f32>(into);
        if is_told() {
            assert!(issued.is_err() || sums.is_err(), "not told");
            return;
        }
        issued.unwrap();
        wrong += usize::from(sums.unwrap() != vec![(round * 4 + 1) as f32; 1000]);
        // The next round begins when this one is over on both streams, so that only what is tested goes wrong.
        program.context.synchronize().unwrap();
    }
    if variant() == "kept" {
        assert_eq!(wrong, 0);
    } else {
        assert!(wrong + of_other(program.rank, wrong) > 0, "nobody was wrong");
    }
}

/// Gives the other rank a number, and gets its own.
fn of_other(rank: usize, number: usize) -> usize {
    let path = |rank: usize| crate::world::folder().join(format!("wrong-{rank}"));
    std::fs::write(path(rank).with_extension("new"), number.to_string()).unwrap();
    std::fs::rename(path(rank).with_extension("new"), path(rank)).unwrap();
    until(|| std::fs::read_to_string(path(1 - rank)).ok()).parse().unwrap()
}

/// Polls until the communicator has settled.
fn settled(group: Group) -> Result<(), Code> {
    match group.settled() {
        ncclSuccess => Ok(()),
        code => Err(code),
    }
}

#[test]
fn events_are_needed_both_ways() {
    let Some(rank) = rank() else { return keep_and_break(this_test!(), &["no event before", "no event after"]) };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    rounds(&program, |from, into| {
        if variant() != "no event before" {
            program.compute_before_communication();
        }
        group.all_reduce(&program, from, into, 1000, ncclFloat32)?;
        settled(group)?;
        if variant() != "no event after" {
            program.communication_before_compute();
        }
        Ok(())
    });
}

#[test]
fn an_event_is_recorded_too_early_where_nobody_polled() {
    let Some(rank) = rank() else { return keep_and_break(this_test!(), &["no poll"]) };
    let program = Program::new(rank, 2);
    let group = program.non_blocking("world");
    rounds(&program, |from, into| {
        program.compute_before_communication();
        group_start();
        group.all_reduce(&program, from, into, 1000, ncclFloat32)?;
        assert!(!group_end()?);
        if variant() == "no poll" {
            program.communication_before_compute();
            // Later, so that the next call is allowed.
            return settled(group);
        }
        settled(group)?;
        program.communication_before_compute();
        Ok(())
    });
}

#[test]
fn a_call_while_another_is_in_progress_is_refused() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 2).breaks(&["the operation before is still in progress", "still being made"]);
    };
    let program = Program::new(rank, 2);
    let group = program.begin("world", &mut config(0)).unwrap();
    let buffer = program.filled(&[1.0_f32]);
    assert_eq!(group.all_reduce(&program, buffer, buffer, 1, ncclFloat32), Err(ncclInvalidUsage));
    group.polled();
    assert_eq!(group.all_reduce(&program, buffer, buffer, 1, ncclFloat32), Ok(false));
    assert_eq!(group.all_reduce(&program, buffer, buffer, 1, ncclFloat32), Err(ncclInvalidUsage));
    assert!(last_error().contains("poll ncclCommGetAsyncError"), "{}", last_error());
    group.polled();
    program.communication_before_compute();
    assert_eq!(program.download::<f32>(buffer), [2.0]);
}

#[test]
fn one_to_four_polls_are_needed() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 1).set("SEED", 3).succeeds();
    };
    let program = Program::new(rank, 1);
    let group = program.non_blocking("alone");
    let buffer = program.filled(&[1.0_f32]);
    let mut seen = [0; 5];
    for _ in 0..100 {
        assert!(!group.all_reduce(&program, buffer, buffer, 1, ncclFloat32).unwrap());
        let polls = 1 + (0..).take_while(|_| group.poll() == ncclInProgress).count();
        seen[polls] += 1;
    }
    program.context.synchronize().unwrap();
    assert!(seen[0] == 0 && seen[1..].iter().all(|&count| count > 5), "{seen:?}");
}
