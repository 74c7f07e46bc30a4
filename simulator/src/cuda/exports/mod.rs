//! The driver's C functions, by subject. Their names and arguments are those of `cuda.h`; addresses and handles are
//! plain numbers here, because nothing in the simulator follows them.

#![allow(non_snake_case)]

mod context;
mod copy;
mod device;
mod event;
mod memory;
mod refused;
mod stream;
