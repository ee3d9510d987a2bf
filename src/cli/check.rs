//! `tierway check`: prints every problem of a configuration before it is used.
//!
//! It must never start or change anything. The result goes to stdout, problems and warnings to stderr.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{ConfigSource, ProcessEnvironment, Snapshot, find, load};

/// `EX_CONFIG` of sysexits: the configuration is invalid.
pub const EXIT_CONFIGURATION: u8 = 78;

/// Checks the configuration named on the command line, or the one that would be found.
///
/// # Errors
///
/// Only if the result cannot be written.
pub fn check(named: Option<&Path>) -> io::Result<ExitCode> {
    let checked = find(named, &ProcessEnvironment).and_then(|source| {
        let snapshot = load(&source, &ProcessEnvironment, &[])?;
        Ok((source, snapshot))
    });
    match checked {
        Ok((source, snapshot)) => {
            write_verdict(&mut anstream::stdout(), &source, &snapshot)?;
            write_warnings(&mut anstream::stderr(), &snapshot, Clock.unix_ms() / 1000)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            // The stream strips colours where there is no terminal or NO_COLOR is set.
            write!(anstream::stderr(), "{}", problems.render(true))?;
            Ok(ExitCode::from(EXIT_CONFIGURATION))
        }
    }
}

fn write_verdict(out: &mut impl Write, source: &ConfigSource, snapshot: &Snapshot) -> io::Result<()> {
    let table = &snapshot.table;
    writeln!(
        out,
        "{}: OK: {} providers, {} models, {} deployments, {} tiers, {} policies, {} keys",
        source.name(),
        snapshot.providers.len(),
        table.models.len(),
        table.deployments.len(),
        table.tiers.len(),
        snapshot.policies.len(),
        snapshot.keys.len(),
    )?;
    if snapshot.unenforced.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nnot yet enforced (`serve` needs --allow-unenforced):")?;
    for unenforced in &snapshot.unenforced {
        writeln!(out, "  {}: {}", unenforced.setting, unenforced.why)?;
    }
    Ok(())
}

/// Warnings about what is valid now and will not be soon.
fn write_warnings(out: &mut impl Write, snapshot: &Snapshot, now_unix_s: i64) -> io::Result<()> {
    if let Some(warning) = snapshot.server.tls.as_ref().and_then(|tls| tls.warning(now_unix_s)) {
        writeln!(out, "warning: server.tls.cert: {warning}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts_and_names_what_is_not_enforced() {
        let text = "providers.p.protocol = \"sim\"\nmodels.m.deployments = [{ provider = \"p\" }]\n\
                    routing.stream = \"splice\"\n";
        let source = ConfigSource::File { path: "tierway.toml".into(), text: text.to_owned() };
        let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut out = Vec::new();
        write_verdict(&mut out, &source, &snapshot).expect("a Vec takes everything");
        let expected = "tierway.toml: OK: 1 providers, 1 models, 1 deployments, 0 tiers, 0 policies, 0 keys\n\n\
                        not yet enforced (`serve` needs --allow-unenforced):\n  \
                        routing.stream: streams would be strict\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
