//! The program `mpt`: parses the command line, runs the command, maps errors to exit codes.

use clap::Parser;
use mpt::report::console;
use mpt::report::line::Line;
use std::process::ExitCode;

fn main() -> ExitCode {
    match mpt::cli::run(mpt::cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            console::say(Line::error(&error));
            // SAFETY: ends the process and touches nothing. Ranks that did not fail may still be computing, and an
            // ordinary exit would run libtorch's destructors under them.
            unsafe { libc::_exit(i32::from(error.exit_code())) }
        }
    }
}
