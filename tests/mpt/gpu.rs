//! One GPU, which may be a simulated one: copies, streams and events, and a group of one that goes through NCCL all the
//! same. That is what can be tried of the way to other GPUs on a machine that has no other. `scripts/gpu-check` runs
//! these tests on the GPU there is, and `scripts/gpu-check --rehearse` on the simulator.

use mpt::comm::nccl::Nccl;
use mpt::comm::nccl::buffers::Pool;
use mpt::comm::nccl::communicator::{Communicator, Move, UniqueId, kind};
use mpt::comm::nccl::gpu::{self, Gpu, size_of};
use mpt::comm::nccl::library;
use mpt::comm::{Call, Collective, Stage, Traffic};
use std::ffi::c_void;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Longer than any of this takes.
const LIMIT: Duration = Duration::from_secs(60);

fn first_gpu() -> Arc<Gpu> {
    library::load().unwrap();
    Gpu::new(0).unwrap()
}

/// Waits until the GPU has done all it was asked for on libtorch's stream.
fn settle(gpu: &Gpu) {
    let (done, begin) = (gpu.computed().unwrap(), Instant::now());
    while !gpu::is_complete(&done).unwrap() {
        assert!(begin.elapsed() < LIMIT, "the GPU has not done in {LIMIT:?} what it was asked for");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A tensor in memory that the GPU reads and writes by itself, while the processor goes on.
struct Pinned {
    memory: *mut c_void,
    tensor: Tensor,
}

impl Pinned {
    /// The GPU must be bound to this thread.
    fn filled(values: &[f32]) -> Self {
        // SAFETY: the memory is as large as the tensor, belongs to it alone, and is freed after it.
        let (memory, tensor) = unsafe {
            let memory = cudarc::driver::result::malloc_host(size_of_val(values), 0).unwrap();
            (memory, Tensor::from_blob(memory.cast(), &[values.len() as i64], &[1], Kind::Float, Device::Cpu))
        };
        tensor.shallow_clone().copy_(&Tensor::from_slice(values));
        Self { memory, tensor }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it was allocated so, and the GPU is done with it.
        unsafe { cudarc::driver::result::free_host(self.memory) }.unwrap();
    }
}

/// Numbers that no other round has.
fn numbers(round: usize, count: usize) -> Vec<f32> {
    (0..count).map(|place| (round * 1_000 + place % 1_000) as f32).collect()
}

#[test]
#[ignore = "needs a GPU, or a simulated one: scripts/gpu-check"]
fn copies_bring_back_what_was_put_in_from_pinned_memory_and_from_other() {
    let gpu = first_gpu();
    let mut pool = Pool::new(Arc::clone(&gpu));
    let values = numbers(1, 3_000_001);
    gpu.bind().unwrap();
    let (pinned, back) = (Pinned::filled(&values), Pinned::filled(&vec![0.0; values.len()]));
    let (paged, paged_back) = (Tensor::from_slice(&values), Tensor::zeros_like(&pinned.tensor));
    for (from, to) in [(&pinned.tensor, &back.tensor), (&paged, &paged_back)] {
        let buffer = pool.take(256 + size_of(from)).unwrap();
        gpu.copy_in(from, &buffer, 256).unwrap();
        gpu.copy_out(&buffer, 256, to).unwrap();
        settle(&gpu);
        assert_eq!(from, to);
        pool.give_back(buffer);
    }
}

/// Many rounds are on their way before the first is waited for, through the same two buffers: without the event in either
/// direction, a round would send or bring the numbers of another.
#[test]
#[ignore = "needs a GPU, or a simulated one: scripts/gpu-check"]
fn the_streams_wait_for_each_other_by_events_alone() {
    const ROUNDS: usize = 24;
    const COUNT: usize = 1 << 20;
    let gpu = first_gpu();
    let mut communicator = Communicator::join(Arc::clone(&gpu), &UniqueId::new().unwrap(), 0, 1, LIMIT).unwrap();
    let mut pool = Pool::new(Arc::clone(&gpu));
    gpu.bind().unwrap();
    let puts: Vec<Pinned> = (0..ROUNDS).map(|round| Pinned::filled(&numbers(round, COUNT))).collect();
    let gets: Vec<Pinned> = (0..ROUNDS).map(|_| Pinned::filled(&[0.0; COUNT])).collect();
    let bytes = size_of(&puts[0].tensor);
    let (from, to) = (pool.take(bytes).unwrap(), pool.take(bytes).unwrap());
    let places = (from.place(0, bytes).unwrap(), to.place(0, bytes).unwrap());
    let moved = Move { from: places.0, to: places.1, count: COUNT, kind: kind(Kind::Float).unwrap() };
    for (put, get) in puts.iter().zip(&gets) {
        gpu.copy_in(&put.tensor, &from, 0).unwrap();
        gpu.travel_after_compute().unwrap();
        communicator.all_reduce(moved).unwrap();
        gpu.compute_after(&gpu.travelled().unwrap()).unwrap();
        gpu.copy_out(&to, 0, &get.tensor).unwrap();
    }
    settle(&gpu);
    for (round, (put, get)) in puts.iter().zip(&gets).enumerate() {
        assert!(put.tensor == get.tensor, "round {round}");
    }
    [from, to].into_iter().for_each(|buffer| pool.give_back(buffer));
}

#[test]
#[ignore = "needs a GPU, or a simulated one: scripts/gpu-check"]
fn a_group_of_one_gets_what_it_puts_in_through_nccl_too() {
    let gpu = first_gpu();
    let mut comm = Nccl::join(gpu, Some(&UniqueId::new().unwrap()), 0, &[0], LIMIT).unwrap();
    let call = Call::new("alone", Stage::Forward);
    for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
        let own = (Tensor::arange(12_000, (Kind::Float, Device::Cpu)) / 7.0).to_kind(kind).view([4, 3, 20, 50]);
        assert_eq!(comm.all_gather(&call, &own).unwrap(), [own.shallow_clone()]);
        assert_eq!(comm.all_reduce(&call, &own).unwrap(), own);
        assert_eq!(comm.broadcast(&call, &own, 0).unwrap(), own);
        assert_eq!(comm.reduce_scatter(&call, &[own.shallow_clone()]).unwrap(), own);
        assert_eq!(comm.all_to_all(&call, &[own.shallow_clone()]).unwrap(), [own]);
    }
    assert_eq!(comm.take_traffic(), Traffic::default());
}
