//! Checkpoints: what a run needs to go on later as if it had never stopped.
//!
//! A checkpoint holds whole parameters in full precision, whatever the split was, so that a run can go on over another
//! mesh and in another mode. Nothing here knows ranks or shards: the engine cuts and joins (`engine/saving.rs`).
//!
//! * [`tensors`] a file of whole tensors, in the format safetensors
//! * [`slices`] such a file being written, by many at once
//! * [`weights`] a file of weights that fits a model, whoever wrote it
//! * [`export`] such a file for others to read
//! * [`state`] where a run stands, and what belongs to a checkpoint
//! * [`folder`] a run's checkpoints: written so that a crash at any moment leaves the one before

pub mod export;
pub mod folder;
pub mod slices;
pub mod state;
pub mod tensors;
pub mod weights;

pub use folder::{Checkpoint, Checkpoints, Content};
pub use state::{Best, Position, State};
pub use tensors::{Described, TensorFile};
pub use weights::WeightFile;
