//! The binary: arguments in, exit code out. Everything else is in the library.

use entroscope::pages::HugePages;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    // Rust ignores SIGPIPE, so a closed pipe is an error to handle (see `cli`), never a sudden death half-way through
    // a file.
    ExitCode::from(entroscope::cli::start(std::env::args_os()))
}
