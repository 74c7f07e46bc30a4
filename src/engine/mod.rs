//! One rank's share of the work: forward, exchange, backward, adjoint exchange, reduce, update; and the loop around
//! it. The engine knows plan, layers and collectives, and has no branch for a mode or for a number of devices.
//!
//! * [`rank`] a rank and its training step: start here
//! * [`exchange`] the plan's exchanges on a collective
//! * [`agreement`] what the ranks tell each other after every batch
//! * [`gradients`] gradients of activations on their way back
//! * [`layout`] where each parameter lies in a rank's flat buffers
//! * [`parameters`] the flat buffers of weights and gradients
//! * [`nonfinite`] where a step's numbers first were not finite
//! * [`norms`] the norms of gradients
//! * [`table`] from layer kinds to layers
//! * [`input`] a batch on its way to the device
//! * [`phases`] where the time goes
//! * [`memory`] how much memory a device holds
//! * [`waiting`] who waited for whom
//! * [`profile`] the time of each layer, for benchmarks
//! * [`recording`] what a rank saw, for comparing runs
//! * [`traffic`] what a step sends and receives, from the plan alone
//! * [`worker`] a rank from start to end
//! * [`session`] the loop
//! * [`evaluation`] weights on a test set: top-1, top-5, loss, confusion by class
//! * [`saving`] when a checkpoint is due, and what it says of the run
//! * [`slices`] which bytes of its files the ranks of a process hold
//! * [`writer`] how it is written, alone or with other processes
//! * [`background`] checkpoints that are written while training goes on
//! * [`resuming`] where a run goes on
//! * [`data_sets`] the data sets of a recipe, and how their images are prepared
//! * [`job`] from a recipe to all that a run needs: whatever can fail before the first step fails there

pub mod agreement;
pub mod background;
pub mod data_sets;
pub mod evaluation;
pub mod exchange;
pub mod gradients;
pub mod input;
pub mod job;
pub mod layout;
pub mod memory;
pub mod nonfinite;
pub mod norms;
pub mod parameters;
pub mod phases;
pub mod profile;
pub mod rank;
pub mod recording;
pub mod resuming;
pub mod saving;
mod segments;
pub mod session;
pub mod slices;
pub mod table;
pub mod traffic;
pub mod waiting;
pub mod worker;
pub mod writer;
