//! The program `mpt`: parses the command line, runs the command, maps errors to exit codes.

use clap::Parser;
use mpt::report::console;
use std::process::ExitCode;

fn main() -> ExitCode {
    match mpt::cli::run(mpt::cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            console::say(&format!("mpt: {}", error.to_string().replace('\n', " ")));
            // SAFETY: ends the process and touches nothing. Ranks that did not fail may still be computing, and an
            // ordinary exit would run libtorch's destructors under them.
            unsafe { libc::_exit(i32::from(error.exit_code())) }
        }
    }
}
