//! The `wigwag` program.

use std::process::ExitCode;

use wigwag::cli;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()).and_then(cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => end.report(),
    }
}
