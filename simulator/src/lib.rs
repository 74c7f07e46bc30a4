//! A simulator of the CUDA driver and of NCCL: one shared library, found at run time under both libraries' names, for
//! programs that use them through cudarc 0.19. Put links `libcuda.so`, `libcuda.so.1`, `libnccl.so` and `libnccl.so.2`
//! to it into a folder, and the folder into `LD_LIBRARY_PATH`.
//!
//! It is a simulator of *documented rules*, and stricter than the real thing: a program that breaks one of them gets
//! wrong numbers or a sentence here at once, not once a month on real hardware. It is not a proof that a program works
//! on GPUs: it knows nothing of kernels, of speed, of a real library's mistakes, or of rules that its authors did not
//! know.
//!
//! # What it is made of
//!
//! * Device memory is host memory of its own, behind addresses that the program cannot follow. Every access is checked
//!   against the allocations that are alive. Fresh and freed memory is poisoned.
//! * A stream is a queue run by a thread, which waits before each operation for a time drawn from a seed. Orders that
//!   the program did not ask for vary. Copies read and write host memory when the stream comes to them.
//! * A communicator's ranks are threads or processes of one machine. They compare what they issue before a byte moves;
//!   sums are taken in rank order, each addition rounded to the type.
//! * An operation on a communicator that does not block is put on its stream only when the program has polled.
//!
//! # Where it is stricter
//!
//! * Operations on different streams that touch the same memory, one of them writing, need an event between them, and
//!   memory is freed only after the program has waited for all that uses it. Both are found when the call is made,
//!   whatever the delays ([`cuda::clock`]); with `MPT_SIMULATOR_RACES=silent` they only give wrong numbers now and then.
//! * Memory that is freed is gone at once, where a real driver would wait for the device.
//! * Asynchronous copies from pageable memory are asynchronous indeed.
//! * Over all communicators, two devices must issue what they have in common in one order, and collectives and messages
//!   of one communicator too.
//! * `ncclCommDestroy` with work in flight is a broken rule; NCCL would finalize first, and wait.
//! * A message meets its receiver before a byte moves; small ones are not buffered.
//!
//! # What it does not see
//!
//! What the program's own threads do with host memory while a copy is under way, unless the memory is gone: a copy into
//! memory that was freed too early, and is used again by then, overwrites what is there, and the program dies of that
//! (SIGSEGV, or SIGABRT with malloc's word), as a program dies that does not wait for a device. Deadlocks
//! that run over several communicators and more than two ranks. Races between ranks' devices, which are never shared.
//!
//! # What is not simulated
//!
//! Kernels, graphs, memory pools, managed memory, contexts other than the devices' primary ones, streams that wait for
//! the null stream; averages and a program's own reductions, fp8, splitting communicators, windows and signals. What a
//! program may well try says that it is not simulated.
//!
//! # Settings and results
//!
//! The variables are in [`environment`], the faults that can be asked for in [`fault`]. A broken rule is one line on
//! standard error and in `broken-rules` in the simulator's folder, is in the trace, and is counted:
//! [`rules::mpt_simulator_broken_rules`]. A program that works in steps may say so: [`fault::mpt_simulator_step`].
//!
//! # Reading order
//!
//! [`cuda::memory`], [`cuda::stream`], [`cuda::event`]; then [`nccl`], whose page follows an operation on its way.

#![deny(missing_docs)]

pub mod boundary;
pub mod cuda;
pub mod environment;
pub mod fault;
pub mod handles;
pub mod nccl;
pub mod random;
pub mod rules;
pub mod sync;
pub mod trace;
