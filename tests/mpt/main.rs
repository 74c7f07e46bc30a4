//! The integration tests of mpt, one program.

mod checkpoint;
mod collectives;
mod command_line;
mod evaluation;
mod gradients;
mod laws;
mod networks;
mod plans;
mod resume;
mod shipped;
