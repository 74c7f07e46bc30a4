//! The integration tests of mpt, one program.

mod benchmarks;
mod collectives;
mod command_line;
mod evaluation;
mod gradients;
mod laws;
mod networks;
mod parity;
mod plans;
mod shipped;
