//! `tierway completions` and `tierway man`: the command line, for shells and for `man`.
//!
//! Both are generated from the definition of the command line, so that they cannot be out of date.

use super::{Cli, print};
use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The directory to write to; made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints a script that completes the command line.
///
/// # Errors
/// When it cannot be written.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tierway", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

/// Writes a manual page for each command, and prints where they are.
///
/// # Errors
/// When the directory cannot be written to.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let out = &args.out;
    let written = std::fs::create_dir_all(out).and_then(|()| clap_mangen::generate_to(Cli::command(), out));
    written.with_context(|| format!("cannot write manual pages to {}", out.display()))?;
    print(&format!("{}\n", out.join("tierway.1").display()))?;
    Ok(())
}
