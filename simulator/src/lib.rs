//! A simulator of the documented rules of the CUDA driver and of NCCL.

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
