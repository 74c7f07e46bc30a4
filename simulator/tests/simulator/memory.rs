//! Device memory, and the host memory that copies read and write.

use crate::program::Program;
use crate::world::{World, rank, this_test, variant};
use cudarc::driver::result as cuda;
use cudarc::driver::sys::CUresult::{self, *};

/// The code of a call that must fail.
fn code<T>(result: Result<T, cuda::DriverError>) -> CUresult {
    result.map(|_| ()).unwrap_err().0
}

#[test]
fn values_survive_the_way_to_the_device_and_back() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    let values: Vec<f32> = (0..3_000_000).map(|number| number as f32).collect();
    let buffer = program.filled(&values);
    assert_eq!(program.download::<f32>(buffer), values);
    // SAFETY, here and below: what is not in order, the simulator finds.
    unsafe {
        cuda::memset_d8_async(buffer.part(4, 8).address, 0, 8, program.compute.cu_stream()).unwrap();
        let copied = program.allocate(16);
        cuda::memcpy_dtod_async(copied.address, buffer.address, 16, program.compute.cu_stream()).unwrap();
        assert_eq!(program.download::<f32>(copied), [0.0, 0.0, 0.0, 3.0]);
        let mut last = [0.0_f32];
        cuda::memcpy_dtoh_sync(&mut last, buffer.part(11_999_996, 4).address).unwrap();
        assert_eq!(last, [2_999_999.0]);
    }
}

#[test]
fn cudarc_s_own_types_work() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    use cudarc::driver::CudaContext;
    let context = CudaContext::new(1).unwrap();
    assert_eq!((context.ordinal(), CudaContext::device_count().unwrap()), (1, 2));
    assert_eq!((context.name().unwrap().as_str(), context.has_async_alloc()), ("simulated GPU", false));
    assert_ne!(context.uuid().unwrap(), CudaContext::new(0).unwrap().uuid().unwrap());
    let (one, two) = (context.default_stream(), context.new_stream().unwrap());
    let zeros = one.alloc_zeros::<u32>(5).unwrap();
    // SAFETY: written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<u32>(5) }.unwrap();
    pinned.as_mut_slice().unwrap().copy_from_slice(&[1, 2, 3, 4, 5]);
    let numbers = two.clone_htod(&pinned).unwrap();
    let copied = one.clone_dtod(&numbers).unwrap();
    // Not on the null stream: cudarc makes the source's device current just before this copy, and a null stream is that
    // of the current device.
    let elsewhere = CudaContext::new(0).unwrap().new_stream().unwrap().clone_dtod(&copied).unwrap();
    let mut back = [0; 5];
    elsewhere.stream().memcpy_dtoh(&elsewhere, &mut back).unwrap();
    elsewhere.stream().synchronize().unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5]);
    two.memcpy_dtoh(&zeros, &mut pinned).unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [0; 5]);
    let (start, end) = (context.new_event(Some(timed())).unwrap(), context.new_event(Some(timed())).unwrap());
    start.record(&one).unwrap();
    end.record(&one).unwrap();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    context.check_err().unwrap();
}

fn timed() -> cudarc::driver::sys::CUevent_flags {
    cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT
}

#[test]
fn memory_that_nobody_has_written_is_poisoned() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    let buffer = program.allocate(64);
    assert!(program.download::<f32>(buffer).iter().all(|value| value.is_nan()));
    assert_eq!(program.download::<u8>(buffer), [0xFF; 64]);
}

#[test]
fn a_device_has_as_much_memory_as_it_says() {
    if rank().is_none() {
        return World::new(this_test!(), 1).set("MEMORY", 1000).succeeds();
    }
    let program = Program::new(0, 1);
    let buffer = program.allocate(600);
    assert_eq!(program.context.mem_get_info().unwrap(), (400, 1000));
    // SAFETY: as above.
    assert_eq!(code(unsafe { cuda::malloc_sync(401) }), CUDA_ERROR_OUT_OF_MEMORY);
    buffer.free();
    program.allocate(1000);
}

#[test]
fn wrong_addresses_are_found_when_they_are_given() {
    if rank().is_none() {
        let world = World::new(this_test!(), 1);
        return world.breaks(&[
            "go beyond their allocation",
            "host memory",
            "it belongs to device 1",
            "freed",
            "overlap",
        ]);
    }
    let (program, other) = (Program::new(0, 1), Program::on_device(0, 1, 1));
    let (buffer, elsewhere) = (program.filled(&[1.0_f32; 4]), other.allocate(16));
    let host = [0.0_f32; 4];
    let copy = |from: u64, into: u64, bytes| {
        program.context.bind_to_thread().unwrap();
        // SAFETY: as above.
        code(unsafe { cuda::memcpy_dtod_async(into, from, bytes, program.compute.cu_stream()) })
    };
    let target = program.allocate(64).address;
    assert_eq!(copy(buffer.address, target, 17), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(copy(host.as_ptr() as u64, target, 16), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(copy(elsewhere.address, target, 16), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(copy(buffer.address, buffer.address + 4, 8), CUDA_ERROR_INVALID_VALUE);
    buffer.free();
    assert_eq!(copy(buffer.address, target, 16), CUDA_ERROR_INVALID_VALUE);
    // SAFETY: as above.
    assert_eq!(code(unsafe { cuda::free_sync(buffer.address) }), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(broken_rules(), 6);
    program.context.synchronize().unwrap();
}

/// What the library counted.
fn broken_rules() -> u64 {
    unsafe extern "C" {
        fn dlsym(handle: *mut std::ffi::c_void, name: *const std::ffi::c_char) -> *mut std::ffi::c_void;
        fn dlopen(name: *const std::ffi::c_char, flags: i32) -> *mut std::ffi::c_void;
    }
    // SAFETY: the function is exported with this type.
    unsafe {
        let library = dlopen(c"libcuda.so".as_ptr(), libc::RTLD_NOW);
        let count = dlsym(library, c"mpt_simulator_broken_rules".as_ptr());
        std::mem::transmute::<*mut std::ffi::c_void, extern "C" fn() -> u64>(count)()
    }
}

#[test]
fn memory_may_be_freed_when_the_stream_is_done_with_it_and_not_before() {
    if rank().is_none() {
        World::new(this_test!(), 1).set("DELAY", 5000).variant("kept").succeeds();
        let world = World::new(this_test!(), 1).variant("broken");
        world.breaks(&["the program has not waited for cuMemcpyHtoDAsync_v2 on device 0, null stream"]);
        let world = World::new(this_test!(), 1).set("DELAY", 5000).variant("broken").set("RACES", "silent");
        return world.breaks(&["freed while an operation in flight"]);
    }
    let program = Program::new(0, 1);
    let values = vec![1.0_f32; 1000];
    for _ in 0..50 {
        let buffer = program.allocate(4000);
        program.upload(&values, buffer);
        if variant() == "kept" {
            program.compute.synchronize().unwrap();
        }
        buffer.free();
        if program.compute.synchronize().is_err() {
            break;
        }
    }
    if variant() == "broken" {
        // The error stays, as on a real device.
        assert_eq!(code(program.compute.synchronize()), CUDA_ERROR_ILLEGAL_ADDRESS);
        // SAFETY: as above.
        assert_eq!(code(unsafe { cuda::malloc_sync(4) }), CUDA_ERROR_ILLEGAL_ADDRESS);
    }
}

#[test]
fn host_memory_is_read_when_the_stream_comes_to_it() {
    if rank().is_none() {
        World::new(this_test!(), 1).variant("kept").succeeds();
        World::new(this_test!(), 1).variant("changed").succeeds();
        for variant in ["dropped", "unpinned"] {
            World::new(this_test!(), 1).variant(variant).breaks(&["host memory", "given up before the copy"]);
        }
        return;
    }
    let program = Program::new(0, 1);
    let gate = Gate::close(&program);
    // More than the allocator keeps: dropping it gives it back to the system.
    let mut values = vec![1.0_f32; 1 << 20];
    let buffer = program.allocate(4 << 20);
    match variant().as_str() {
        "kept" => {
            program.upload(&values, buffer);
            gate.open();
            assert_eq!(program.download::<f32>(buffer), values);
        }
        "changed" => {
            program.upload(&values, buffer);
            values[0] = 2.0;
            gate.open();
            assert_eq!(program.download::<f32>(buffer)[0], 2.0);
        }
        "dropped" => {
            program.upload(&values, buffer);
            drop(values);
            gate.open();
            assert_eq!(code(program.try_download::<f32>(buffer)), CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        _ => {
            // SAFETY: freed too early on purpose; the simulator reads it through the kernel.
            unsafe {
                let pinned = cuda::malloc_host(4 << 20, 0).unwrap();
                program.upload(std::slice::from_raw_parts(pinned.cast::<u8>(), 4 << 20), buffer);
                cuda::free_host(pinned).unwrap();
            }
            gate.open();
            assert_eq!(code(program.try_download::<f32>(buffer)), CUDA_ERROR_ILLEGAL_ADDRESS);
        }
    }
}

/// Holds the null stream back until it is opened.
pub struct Gate(std::sync::mpsc::Sender<()>);

impl Gate {
    pub fn close(program: &Program) -> Self {
        unsafe extern "C" fn wait(opened: *mut std::ffi::c_void) {
            // SAFETY: the receiver was leaked for this call alone.
            let opened = unsafe { Box::from_raw(opened.cast::<std::sync::mpsc::Receiver<()>>()) };
            opened.recv().unwrap();
        }
        let (open, opened) = std::sync::mpsc::channel();
        let argument = Box::into_raw(Box::new(opened)).cast();
        // SAFETY: the function is called once, with the argument that it takes over.
        unsafe { cuda::stream::launch_host_function(program.compute.cu_stream(), wait, argument) }.unwrap();
        Self(open)
    }

    pub fn open(self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn an_address_of_the_device_is_nothing_that_the_host_can_follow() {
    if rank().is_none() {
        let ended = World::new(this_test!(), 1).run();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(ended[0].status.unwrap().signal(), Some(libc::SIGSEGV), "{}", ended[0].errors);
        return;
    }
    let buffer = Program::new(0, 1).filled(&[1.0_f32]);
    // SAFETY: it is not: the process must end here.
    println!("{}", unsafe { (buffer.address as *const f32).read_volatile() });
}

#[test]
fn memory_pools_are_said_not_to_be_there() {
    if rank().is_none() {
        return World::new(this_test!(), 1).succeeds();
    }
    let program = Program::new(0, 1);
    // SAFETY: as above.
    assert_eq!(code(unsafe { cuda::malloc_async(program.compute.cu_stream(), 4) }), CUDA_ERROR_NOT_SUPPORTED);
}
