//! The simulated CUDA driver: devices, their memory, streams and events.
//!
//! * [`device`] what there is, and a device's lasting error
//! * [`context`] which device a thread works with
//! * [`memory`] device memory: addresses that nobody can follow, bytes that are poisoned when they are nobody's
//! * [`host`] reading and writing the program's memory, which may be gone
//! * [`stream`] queues, each run by a thread of its own, each operation after a delay
//! * [`event`] marks in a stream
//! * [`clock`] and [`access`] what comes before what, and operations that race
//! * [`copy`] what streams do: copies and fills
//! * [`exports`] the C functions

pub mod access;
pub mod clock;
pub mod context;
pub mod copy;
pub mod device;
pub mod event;
pub mod exports;
pub mod host;
pub mod memory;
pub mod result;
pub mod stream;

pub use result::CuResult;
