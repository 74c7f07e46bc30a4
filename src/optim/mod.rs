//! The optimizer, the learning-rate schedules, and what else changes in the course of a run.

mod plateau;
mod schedule;
mod sgd;
mod timeline;

pub use plateau::{Patience, Plateau};
pub use schedule::{Schedule, Watched};
pub use sgd::{Rule, Segment, Sgd};
pub use timeline::{Event, Timeline, Tuning};
