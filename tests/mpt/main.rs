//! The integration tests of mpt, one program.

mod collectives;
mod command_line;
mod evaluation;
mod gradients;
mod laws;
mod networks;
mod plans;
mod shipped;
