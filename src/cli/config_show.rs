//! `tierway config show`: the effective configuration, and the origin of each value.
//!
//! It must never print a secret: the effective configuration holds none.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::check::EXIT_CONFIGURATION;
use super::{find_config, print};
use crate::config::{ProcessEnvironment, load};

/// Prints the effective configuration as TOML with each value's origin, or as JSON.
///
/// # Errors
///
/// Only if it cannot be written.
pub fn config_show(named: Option<&Path>, as_json: bool) -> io::Result<ExitCode> {
    let loaded = find_config(named).and_then(|source| load(&source, &ProcessEnvironment, &[]));
    let snapshot = match loaded {
        Ok(snapshot) => snapshot,
        Err(problems) => {
            write!(anstream::stderr(), "{}", problems.render(true))?;
            return Ok(ExitCode::from(EXIT_CONFIGURATION));
        }
    };
    let text = if as_json { format!("{:#}\n", snapshot.effective.to_json()) } else { snapshot.effective.to_toml() };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
