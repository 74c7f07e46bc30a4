//! The program `mpt`: parses the command line, runs the command, maps errors to exit codes.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match mpt::cli::run(mpt::cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mpt: {error}");
            // Nothing is lost if stdout is gone: what was printed before is with whoever closed it.
            let _ = std::io::stdout().flush();
            // SAFETY: ends the process and touches nothing. Ranks that did not fail may still be computing, and an
            // ordinary exit would run libtorch's destructors under them.
            unsafe { libc::_exit(i32::from(error.exit_code())) }
        }
    }
}
