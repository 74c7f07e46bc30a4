//! The integration tests of mpt, one program.

mod benchmarks;
mod checkpoint;
mod cluster;
mod collectives;
mod command_line;
mod curves;
mod doctor;
mod evaluation;
mod gpu;
mod gradients;
mod launchers;
mod laws;
mod metrics;
mod metrics_page;
mod metrics_server;
mod nccl_library;
mod networks;
mod parity;
mod plans;
mod record;
mod rehearsal;
mod resume;
mod shipped;
mod speech;
mod terminal;
mod transport;
