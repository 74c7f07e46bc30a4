//! What to train: every setting of a run, where each came from, and the recipes that come with mpt.
//!
//! Precedence, later wins: the defaults, the recipe (and the one it is based on), `MPT_*` environment variables, flags.
//!
//! * [`settings`] the settings and their checks
//! * [`layers`] laying one source of settings over another
//! * [`duration`] spans of time as people write them

pub mod duration;
pub mod layers;
pub mod settings;

pub use layers::{Layered, SHIPPED};
pub use settings::{Precision, Recipe, native_bf16};
