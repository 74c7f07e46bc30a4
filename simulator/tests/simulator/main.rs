//! Programs against the simulator, through cudarc as real ones. Each rule has a program that keeps it and gets the right
//! numbers, and one that breaks it and is told.
//!
//! * [`world`] runs a test again in processes of their own, with the simulator in their library path
//! * [`program`] what the programs have in common
//! * [`memory`], [`streams`] the driver's rules
//! * [`numbers`] what collectives and messages give
//! * [`order`] events between streams, and polls
//! * [`meeting`] how ranks find each other
//! * [`agreement`] what ranks must do alike, and deadlocks
//! * [`lifetime`] memory and communicators that end too early
//! * [`faults`] faults that are asked for, dead peers, aborts
//! * [`settings`] variables, the trace, the process's end

mod agreement;
mod faults;
mod lifetime;
mod meeting;
mod memory;
mod numbers;
mod order;
mod program;
mod settings;
mod streams;
mod world;
