//! How ranks find each other, and what they must agree on before they are a communicator.

use crate::program::*;
use crate::world::{World, rank, this_test, variant};
use cudarc::nccl::sys;

#[test]
fn a_device_is_in_a_communicator_only_once() {
    let Some(rank) = rank() else {
        return World::new(this_test!(), 2).breaks(&["rank 0: ", "rank 1: ", "ranks 0 and 1 are both on device 1"]);
    };
    let program = Program::on_device(rank, 2, 1);
    let group = program.begin("world", &mut config(0)).unwrap();
    assert_eq!(group.settled(), ncclInvalidUsage);
    assert!(last_error().contains("only once"), "{}", last_error());
}

#[test]
fn ranks_agree_how_many_they_are() {
    let Some(rank) = rank() else {
        let world = World::new(this_test!(), 2).set("DEVICES", 3);
        return world.breaks(&["2 here, 3 on rank 1", "3 here, 2 on rank 0"]);
    };
    let program = Program::new(rank, 2 + rank);
    let group = program.begin("world", &mut config(0)).unwrap();
    assert_eq!(group.settled(), ncclInvalidUsage);
}

#[test]
fn no_rank_comes_twice_and_no_id_is_used_twice() {
    let Some(process) = rank() else {
        World::new(this_test!(), 2).variant("twice").breaks(&["rank 0: ", "another rank of this number has come"]);
        let world = World::new(this_test!(), 2).variant("again");
        return world.breaks(&["rank 0: ", "rank 1: ", "the unique id was used for another communicator already"]);
    };
    let id = unique_id(process, "world");
    if variant() == "again" {
        let program = Program::new(process, 2);
        program.begin_with(id, &mut config(0)).unwrap().polled();
        return assert_eq!(program.begin_with(id, &mut config(0)).unwrap().settled(), ncclInvalidUsage);
    }
    // Both come as rank 0: the second one is told, and the first waits for rank 1 until it knows that.
    let program = Program::new(0, 2);
    let group = program.begin_with(id, &mut config(0)).unwrap();
    let told = crate::world::folder().join("told");
    let code = until(|| match group.poll() {
        ncclInProgress if !told.exists() => None,
        code => Some(code),
    });
    if code == ncclInvalidUsage {
        std::fs::write(told, "").unwrap();
    } else {
        assert!(group.abort().unwrap());
    }
}

#[test]
fn a_unique_id_is_the_simulator_s_and_of_the_same_folder() {
    if rank().is_none() {
        let world = World::new(this_test!(), 2).variant("invented");
        world.breaks(&["was not made by ncclGetUniqueId"]);
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(this_test!(), 2).variant("elsewhere");
        let id = world.folder().join("id-world");
        let ended = world.set_for(1, "FOLDER", folder.path().display()).set_for(1, "TEST_ID", id.display()).run();
        // Rank 0 counts on rank 1 for ever, as it would with NCCL.
        assert!(ended[1].succeeded(), "{}", ended[1].errors);
        assert!(ended[1].errors.contains("comes from a process with another MPT_SIMULATOR_FOLDER"));
        return;
    }
    let rank = rank().unwrap();
    let program = Program::new(rank, 2);
    let id = if variant() == "invented" {
        sys::ncclUniqueId { internal: [7; 128] }
    } else if rank == 0 {
        unique_id(0, "world");
        return;
    } else {
        unique_id_in(std::env::var_os("MPT_SIMULATOR_TEST_ID").unwrap().as_ref())
    };
    let refused = program.begin_with(id, &mut config(0));
    assert_eq!(refused.map(|_| ()), Err(ncclInvalidArgument));
}

#[test]
fn the_configuration_is_filled_as_nccl_asks() {
    if rank().is_none() {
        let world = World::new(this_test!(), 1);
        return world.breaks(&[
            "its size is 8",
            "its magic is 0x0",
            "its version is 22800",
            "blocking is 2",
            "minCTAs is 4",
        ]);
    }
    let program = Program::new(0, 1);
    let good = config(0);
    let wrong = [
        sys::ncclConfig_t { size: 8, ..good },
        sys::ncclConfig_t { magic: 0, ..good },
        sys::ncclConfig_t { version: 22_800, ..good },
        sys::ncclConfig_t { blocking: 2, ..good },
        sys::ncclConfig_t { minCTAs: 4, maxCTAs: 2, ..good },
        // Zero where "undefined" is meant.
        sys::ncclConfig_t { maxCTAs: 0, ..good },
    ];
    for mut config in wrong {
        assert_eq!(program.begin("alone", &mut config).map(|_| ()), Err(ncclInvalidArgument), "{config:?}");
    }
    for mut config in [good, config(1), config(i32::MIN), sys::ncclConfig_t { cgaClusterSize: 4, ..good }] {
        program.begin("alone", &mut config).unwrap().polled();
    }
}

#[test]
fn a_communicator_knows_its_ranks_once_it_is_made() {
    let Some(rank) = rank() else { return World::new(this_test!(), 2).breaks(&["still being made"]) };
    let program = Program::on_device(rank, 2, 1 - rank);
    let group = program.begin("world", &mut config(0)).unwrap();
    // SAFETY: the place is writable, and the handle is checked.
    let ask = |question: unsafe fn(sys::ncclComm_t, *mut i32) -> Code| unsafe {
        let mut answer = -1;
        let code = question(group.0, &mut answer);
        (code, answer)
    };
    assert_eq!(ask(sys::ncclCommCount), (ncclInvalidUsage, -1));
    group.polled();
    assert_eq!(ask(sys::ncclCommCount), (ncclSuccess, 2));
    assert_eq!(ask(sys::ncclCommUserRank), (ncclSuccess, rank as i32));
    assert_eq!(ask(sys::ncclCommCuDevice), (ncclSuccess, 1 - rank as i32));
    let mut version = 0;
    // SAFETY: as above.
    assert_eq!(unsafe { sys::ncclGetVersion(&mut version) }, ncclSuccess);
    assert_eq!(version, 22_907);
}
