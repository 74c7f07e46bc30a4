//! How ranks are started and stopped.
//!
//! * [`supervisor`] ranks as processes of this machine: GPUs
//! * [`world`] the run that a process is a rank of
//! * [`board`] what the ranks of a run tell each other beside their work
//! * [`meeting`] how ranks that are processes become groups
//! * [`simulator`] simulated GPUs, for rehearsals
//! * [`threads`] ranks as threads of this process: CPU devices
//! * [`control`] what ends a run early
//! * [`environment`] what libtorch's run-time libraries are told before they are loaded

pub mod board;
pub mod control;
pub mod environment;
pub mod meeting;
pub mod simulator;
pub mod supervisor;
pub mod threads;
pub mod world;
