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

/// Warnings about what is valid and may not be meant: what will not be valid for long, what cannot be reached.
fn write_warnings(out: &mut impl Write, snapshot: &Snapshot, now_unix_s: i64) -> io::Result<()> {
    if let Some(warning) = snapshot.server.tls.as_ref().and_then(|tls| tls.warning(now_unix_s)) {
        writeln!(out, "warning: server.tls.cert: {warning}")?;
    }
    let table = &snapshot.table;
    for (tier, models) in table.chains_out_of_reach() {
        writeln!(
            out,
            "warning: tiers.{}: it has {models} models with its chain, and one request makes {} attempts: the last ones are \
             reached only when others are left alone. Raise routing.max_attempts, or shorten the chain",
            table.tier(tier).name,
            table.settings.max_attempts,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_no_request_reaches_the_end_of_is_warned_about() {
        let warned = |attempts: u32| {
            let text = format!(
                "providers.p.protocol = \"sim\"\nmodels.a.deployments = [{{ provider = \"p\" }}]\n\
                 models.b.deployments = [{{ provider = \"p\" }}]\nmodels.c.deployments = [{{ provider = \"p\" }}]\n\
                 tiers.one = {{ models = [\"a\", \"b\"], then = [\"two\"] }}\ntiers.two.models = [\"c\", \"a\"]\n\
                 routing.max_attempts = {attempts}\n"
            );
            let source = ConfigSource::File { path: "tierway.toml".into(), text };
            let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
            let mut out = Vec::new();
            write_warnings(&mut out, &snapshot, 0).expect("a Vec takes everything");
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!(warned(3), "");
        let expected = "warning: tiers.one: it has 3 models with its chain, and one request makes 2 attempts: the last ones \
                        are reached only when others are left alone. Raise routing.max_attempts, or shorten the chain\n";
        assert_eq!(warned(2), expected);
    }

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
