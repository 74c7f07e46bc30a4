//! The optimizer and the learning-rate schedules.

mod schedule;
mod sgd;

pub use schedule::Schedule;
pub use sgd::{Rule, Segment, Sgd};
