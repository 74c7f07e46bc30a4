//! The program `mpt`: parses the command line, runs the command, maps errors to exit codes.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match mpt::cli::run(mpt::cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mpt: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
