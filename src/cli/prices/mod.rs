//! `tierway prices`: what the price catalogue knows, and taking a newer one.
//!
//! The catalogue is what gives models a price, a context and a longest output where the configuration says nothing.
//! Nothing here changes the configuration itself, and nothing goes over the network.
//!
//! Start reading at [`prices`].

mod import;
mod show;

use super::{ConfigArgs, EXIT_USAGE};
use crate::config::{CatalogueError, PriceCatalogue, ProcessEnvironment, find};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Subcommands of `prices`.
#[derive(Subcommand, Debug)]
pub(super) enum PricesCommand {
    /// Show what the catalogue knows: of all hosts, or of one model at each of them
    Show(PricesShowArgs),
    /// Take a newer catalogue, made by config/prices.py: it is checked, then written beside the configuration
    Import(PricesImportArgs),
}

/// Arguments of `prices show`.
#[derive(Args, Debug)]
pub(super) struct PricesShowArgs {
    /// A model's name at a host, such as gpt-4o-mini
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config_args: ConfigArgs,
}

/// Arguments of `prices import`.
#[derive(Args, Debug)]
pub(super) struct PricesImportArgs {
    /// The catalogue to take
    file: PathBuf,
    #[command(flatten)]
    config_args: ConfigArgs,
}

/// Runs a subcommand.
///
/// # Errors
/// If a catalogue cannot be read or written.
pub(super) fn prices(command: &PricesCommand) -> anyhow::Result<ExitCode> {
    match command {
        PricesCommand::Show(args) => show::show(args),
        PricesCommand::Import(args) => import::import(args),
    }
}

/// Where the operator's catalogue for the named or found configuration is; `None` for the demo.
fn path_beside(args: &ConfigArgs) -> anyhow::Result<Option<PathBuf>> {
    let source = find(args.config.as_deref(), &ProcessEnvironment).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(source.path().map(PriceCatalogue::path_beside))
}

/// The catalogue that the configuration is read with.
fn current(args: &ConfigArgs) -> anyhow::Result<PriceCatalogue> {
    let Some(file) = path_beside(args)? else { return Ok(PriceCatalogue::built_in()) };
    let named = |error: CatalogueError| anyhow::anyhow!("{}: {error}", file.display());
    PriceCatalogue::open(&file, &ProcessEnvironment).map_err(named)
}

/// Prints a message for a command line that names something that does not exist.
fn usage(message: &str) -> ExitCode {
    super::context::note(&format!("error: {message}"));
    ExitCode::from(EXIT_USAGE)
}
