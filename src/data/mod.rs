//! Where examples come from and how they reach the ranks. Nothing here knows what a device is.
//!
//! * [`source`] what a data set is: examples read by index
//! * [`idx`] the files of MNIST and Fashion-MNIST ([`idx_file`]: one such file)
//! * [`images`] folders of JPEG and PNG files
//! * [`shards`] tar archives of such files
//! * [`pack`] decoded images in one file
//! * [`synthetic`] examples that need no files
//! * [`limited`] the first examples of a data set
//! * [`augment`] random changes to training images
//! * [`prepare`] from an image as it is stored to what the network sees
//! * [`batch`] a rank's share of a global batch, with its dropout masks
//! * [`loader`] the threads that make batches ahead of the ranks ([`outlet`]: where it leaves them)
//! * [`shared`] one loader for all ranks of a host
//! * [`names`] what image files are called, and how they are told of
//! * [`cores`] work on all cores at once
//!
//! Every random choice is keyed by what it is for (see [`crate::random`]), so what a batch holds depends on the seed,
//! the epoch and the step, and never on how many ranks share it.

pub mod augment;
pub mod batch;
pub mod cores;
pub mod counts;
pub mod idx;
pub mod idx_file;
pub mod images;
pub mod limited;
pub mod loader;
pub mod names;
pub mod outlet;
pub mod pack;
pub mod prepare;
pub mod shards;
pub mod shared;
pub mod source;
pub mod synthetic;

pub use augment::Augmentation;
pub use batch::{Batch, Mask, MaskSpec};
pub use counts::Counts;
pub use idx::IdxDataset;
pub use images::ImageFolder;
pub use limited::Limited;
pub use loader::{Delivery, LoaderOptions, Order, start};
pub use pack::Pack;
pub use prepare::Preparation;
pub use shards::Shards;
pub use shared::Supply;
pub use source::{Source, Subset};
pub use synthetic::{Noise, Synthetic};
