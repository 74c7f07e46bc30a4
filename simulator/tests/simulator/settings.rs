//! The variables, and the trace.

use crate::program::*;
use crate::world::{World, folder, rank, this_test};

#[test]
fn a_variable_that_cannot_be_understood_ends_the_process() {
    if rank().is_some() {
        Program::new(0, 1);
        return;
    }
    for (name, value, sentence) in [
        ("DEVICES", "none", "simulator: MPT_SIMULATOR_DEVICES=none: give a whole number\n"),
        (
            "FAULT",
            "kill@never",
            "simulator: MPT_SIMULATOR_FAULT=kill@never: give kill, hang, fail, cut, delay:MILLISECONDS or slow:MILLISECONDS",
        ),
        ("PEER_DEATH", "loud", "simulator: MPT_SIMULATOR_PEER_DEATH=loud: give silent or reported\n"),
    ] {
        let ended = &World::new(this_test!(), 1).set(name, value).run()[0];
        assert_eq!(ended.status.unwrap().code(), Some(2));
        assert!(ended.errors.contains(sentence), "{}", ended.errors);
        assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
    }
}

#[test]
fn there_are_as_many_devices_as_were_asked_for() {
    if rank().is_some() {
        return assert_eq!(cudarc::driver::CudaContext::device_count().unwrap(), 5);
    }
    World::new(this_test!(), 1).set("DEVICES", 5).succeeds();
}

#[test]
fn a_process_sees_the_devices_that_it_is_shown_in_that_order() {
    if rank().is_some() {
        let bus = |ordinal| {
            let context = cudarc::driver::CudaContext::new(ordinal).unwrap();
            context.attribute(cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID).unwrap()
        };
        assert_eq!(cudarc::driver::CudaContext::device_count().unwrap(), 2);
        return assert_eq!([bus(0), bus(1)], [4, 2]);
    }
    World::new(this_test!(), 1).set("DEVICES", 4).set_plain("CUDA_VISIBLE_DEVICES", "3,1").succeeds();
}

#[test]
fn devices_reach_each_other_over_a_link_without_atomic_operations() {
    use cudarc::driver::sys::CUdevice_P2PAttribute::*;
    use cudarc::driver::sys::{CUresult, cuDeviceCanAccessPeer, cuDeviceGetP2PAttribute};
    if rank().is_some() {
        cudarc::driver::result::init().unwrap();
        let told = |attribute, peer| {
            let mut value = -1;
            // SAFETY: the driver writes one number to the place given.
            (unsafe { cuDeviceGetP2PAttribute(&mut value, attribute, 0, peer) }, value)
        };
        assert_eq!(told(CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 1), (CUresult::CUDA_SUCCESS, 1));
        assert_eq!(told(CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED, 1), (CUresult::CUDA_SUCCESS, 0));
        assert_eq!(told(CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0).0, CUresult::CUDA_ERROR_INVALID_DEVICE);
        assert_eq!(told(CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 2).0, CUresult::CUDA_ERROR_INVALID_DEVICE);
        let mut can = -1;
        // SAFETY: as above.
        assert_eq!((unsafe { cuDeviceCanAccessPeer(&mut can, 1, 0) }, can), (CUresult::CUDA_SUCCESS, 1));
        return;
    }
    World::new(this_test!(), 1).succeeds();
}

#[test]
fn the_trace_has_a_line_for_each_call() {
    if let Some(rank) = rank() {
        let program = Program::new(rank, 2);
        let group = program.non_blocking("world");
        let buffer = program.filled(&[1.0_f32; 8]);
        group.all_reduce(&program, buffer, buffer, 8, ncclFloat32).unwrap();
        group.polled();
        program.communication.synchronize().unwrap();
        assert_eq!(group.all_reduce(&program, buffer, buffer, 9, ncclFloat32), Err(ncclInvalidArgument));
        std::fs::write(folder().join(format!("process-{rank}")), std::process::id().to_string()).unwrap();
        return;
    }
    let world = World::new(this_test!(), 2);
    let prefix = world.folder().join("trace-");
    let world = world.set("TRACE", prefix.display());
    world.breaks(&["go beyond their allocation"]);
    for rank in 0..2 {
        let process = std::fs::read_to_string(world.folder().join(format!("process-{rank}"))).unwrap();
        let text = std::fs::read_to_string(format!("{}{process}.jsonl", prefix.display())).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |key: &str, value: &str| lines.iter().filter(|line| line[key] == value).collect::<Vec<_>>();
        let reduced = of("call", "ncclAllReduce");
        assert_eq!((reduced[0]["count"].as_u64(), reduced[1]["count"].as_u64()), (Some(8), Some(9)));
        assert_eq!(reduced[1]["result"], "ncclInvalidArgument");
        assert_eq!(of("done", "all-reduce")[0]["outcome"], "done");
        assert!(of("call", "cuInit")[0]["time"].as_f64().unwrap() > 1e9);
        assert!(lines.iter().any(|line| line["broken_rule"].as_str().is_some_and(|rule| rule.contains("go beyond"))));
        assert!(of("call", "ncclCommGetAsyncError").iter().all(|line| line["state"] == "ncclSuccess"));
    }
}

#[test]
fn one_process_needs_no_folder() {
    if rank().is_some() {
        let program = Program::new(0, 1);
        let id = cudarc::nccl::result::get_uniqueid().map_err(|_| last_error()).unwrap();
        let group = program.begin_with(id, &mut config(1)).unwrap();
        assert!(group.destroy().unwrap());
        return;
    }
    let world = World::new(this_test!(), 1).set("FOLDER", "");
    let temporary = world.folder().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let world = world.set_plain("TMPDIR", temporary.display());
    world.succeeds();
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "nothing is left behind");
}
