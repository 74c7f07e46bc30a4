//! What to train: every setting of a run, where each came from, and the recipes that come with mpt.
//!
//! Precedence, later wins: the defaults, the recipe (and the one it is based on), `MPT_*` environment variables, flags.
//!
//! * [`settings`] the settings
//! * [`precision`] the type of the numbers
//! * [`read`] how settings are read, and what each may be
//! * [`layers`] laying one source of settings over another
//! * [`environment`] the layer that `MPT_*` variables make
//! * [`duration`] spans of time as people write them
//! * [`address`] addresses to listen on, as people write them

pub mod address;
pub mod duration;
pub mod environment;
pub mod layers;
pub mod precision;
pub mod read;
pub mod settings;

pub use layers::{Layered, SHIPPED, reported};
pub use precision::{Precision, fast_bf16, has_fast_bf16};
pub use settings::Recipe;
