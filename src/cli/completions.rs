//! `entroscope completions`: a script for the shell, on standard output.

use super::Cli;
use super::output::Output;
use crate::error::Result;
use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Do it.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        env!("CARGO_PKG_NAME"),
        &mut script,
    );
    let mut output = Output::new();
    output.write(&String::from_utf8_lossy(&script))?;
    output.flush()
}
