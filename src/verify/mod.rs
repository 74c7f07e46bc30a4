//! The split run against the whole run: law 1, for users and for the tests.
//!
//! * [`mod@observe`] runs a plan for some steps and puts every tensor together again, whole
//! * [`compare`] measures how far two runs are apart, and finds the first layer that differs

pub mod compare;
pub mod observe;

pub use compare::{Comparison, Difference};
pub use observe::{Observed, Trial, observe};
