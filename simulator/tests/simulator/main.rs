//! Programs against the simulator, through cudarc as real ones. Each rule has a program that keeps it and gets the right
//! numbers, and one that breaks it and is told.

mod driver;
mod nccl;
mod program;
mod world;
