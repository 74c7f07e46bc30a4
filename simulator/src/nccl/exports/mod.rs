//! NCCL's C functions. Their names and arguments are those of `nccl.h`; addresses and handles are plain numbers here,
//! because nothing in the simulator follows them.

#![allow(non_snake_case)]

mod communicators;
mod operations;
