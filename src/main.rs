//! The program `mpt`: parses the command line, runs the command, maps errors to exit codes.

use clap::Parser;
use mpt::cli::{Cli, run};
use mpt::error::Error;
use mpt::launch::last_word;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|wrong| {
        if wrong.use_stderr() {
            last_word::record(&Error::usage(wrong.to_string()));
        }
        wrong.exit()
    });
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => last_word::end(&error),
    }
}
