//! The binary: parse, dispatch, exit code; nothing else.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use target_service::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may read it any more, which is no failure of its own.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
