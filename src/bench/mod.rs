//! What `mpt bench` measures, and the Criterion benchmarks too: the code that `mpt train` runs, on random images.
//!
//! * [`workload`] training steps, timed
//! * [`scaling`] more devices: strong and weak, in both modes
//! * [`step`] one step, layer by layer, against the machine's own matrix products
//! * [`exchange`] the collectives against a copy in memory
//! * [`loader`] images a second
//! * [`statistics`] medians and spreads

pub mod exchange;
pub mod loader;
pub mod scaling;
pub mod statistics;
pub mod step;
pub mod workload;
