//! mpt trains convolutional networks that are split across several devices.
//!
//! # How to read it
//!
//! 1. [`model`]: what a network is; [`model::reads`] is the relation that every split follows from.
//! 2. [`plan`]: who holds what, and from that every exchange.
//! 3. [`engine::rank`]: a rank's training step: forward, exchange, backward, adjoint exchange, reduce, update.
//! 4. [`layers`]: forward and backward of each layer kind.
//! 5. [`comm`]: how tensors travel.
//! 6. [`engine::session`]: the loop.
//!
//! # The laws
//!
//! Each is a test; together they are the reason to trust a split.
//!
//! 1. Split equals whole: the same seed and batch give the same losses, gradients and weights on any mesh.
//! 2. Every random number is counter-based, keyed by seed, purpose, layer, time and global index.
//! 3. Resumed equals uninterrupted: bitwise on the same processor, threads, precision and mode.
//! 4. Evaluation counts every example once, whatever the split.
//! 5. mpt equals PyTorch: the same random numbers on both sides give the same losses, gradients and weights.

#![deny(missing_docs)]

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod comm;
pub mod data;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod events;
pub mod file;
pub mod keys;
pub mod launch;
pub mod layers;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod plan;
pub mod random;
pub mod recipe;
pub mod report;
pub mod torch;
pub mod verify;
