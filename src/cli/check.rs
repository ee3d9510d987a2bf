//! `tierway check`: prints every problem of a configuration before it is used.
//!
//! It must never start or change anything, and asks nobody unless `--live` says so. The result goes to stdout, problems
//! and warnings to stderr.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::check_live::check_live;
use super::former_place::refuse_former_place;
use super::{ConfigArgs, find_config, print, printable, provider_warnings};
use crate::clock::Clock;
use crate::config::{CatalogueFilledProvider, CatalogueUse, ConfigSource, ProcessEnvironment, Snapshot, load};
use crate::domain::call::Endpoint;
use crate::domain::routing::table::RoutingTable;
use crate::domain::secret::without_credentials;

/// `EX_CONFIG` of sysexits: the configuration is invalid.
pub const EXIT_CONFIGURATION: u8 = 78;

const EXAMPLES: &str = "\
Exit codes: 0 the configuration is valid, and with --live every provider lists the configured models; 1 with --live, if
one does not; 78 the configuration is invalid.";

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Ask each provider for its models with each of its credentials: a row says what it answered
    #[arg(long)]
    live: bool,
    /// With --live, print JSON
    #[arg(long, requires = "live")]
    json: bool,
}

/// Checks the configuration named on the command line, or the one that would be found.
///
/// # Errors
///
/// Only if the result cannot be written, or with `--live` the system refuses what it needs.
pub(super) fn check(args: &CheckArgs) -> io::Result<ExitCode> {
    let checked = find_config(args.config_args.config.as_deref()).and_then(|source| {
        let snapshot = load(&source, &ProcessEnvironment, &[])?;
        Ok((source, snapshot))
    });
    match checked {
        Ok((source, snapshot)) => {
            if !args.json {
                let mut verdict = Vec::new();
                write_verdict(&mut verdict, &source, &snapshot)?;
                print(&without_credentials(&String::from_utf8_lossy(&verdict)))?;
            }
            let mut warnings = Vec::new();
            write_warnings(&mut warnings, &snapshot, Clock.unix_ms() / 1000)?;
            write_price_warnings(&mut warnings, &snapshot.catalogue, Clock.unix_ms())?;
            write!(anstream::stderr(), "{}", printable(&without_credentials(&String::from_utf8_lossy(&warnings))))?;
            let is_good = !args.live || check_live(&snapshot, args.json)?;
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    write_catalogue(out, &snapshot.catalogue)?;
    if snapshot.unenforced.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nnot yet enforced (`serve` needs --allow-unenforced):")?;
    for unenforced in &snapshot.unenforced {
        writeln!(out, "  {}: {}", unenforced.setting, unenforced.why)?;
    }
    Ok(())
}

/// What models have of the price catalogue, because the file does not say it.
fn write_catalogue(out: &mut impl Write, used: &CatalogueUse) -> io::Result<()> {
    if !used.is_used() && used.providers.is_empty() {
        return Ok(());
    }
    let asked = used.asked.iter().map(|(day, file)| {
        let file = file.as_ref().map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
        format!("catalogue of {} ({file})", day.text)
    });
    writeln!(out, "\nwhat the file does not say: {}", asked.collect::<Vec<_>>().join(", then "))?;
    for model in used.models.iter().filter(|model| !model.filled.is_empty()) {
        let (filled, entries) = (model.filled.join(", "), model.entries.join(" and "));
        writeln!(out, "  models.{}: {filled} as {entries}", model.model)?;
        if !model.uncharged.is_empty() {
            writeln!(out, "    priced there and not charged here: {}", model.uncharged.join(", "))?;
        }
        if model.differs_by_hour {
            writeln!(out, "    the price differs by the hour: the highest is charged")?;
        }
    }
    for CatalogueFilledProvider { provider, filled, headers } in &used.providers {
        if !filled.is_empty() {
            writeln!(out, "  providers.{provider}: {}", filled.join(", "))?;
        }
        if !headers.is_empty() {
            writeln!(out, "  providers.{provider}: the host knows {}; `headers` can send them", headers.join(", "))?;
        }
    }
    Ok(())
}

/// From how many days on prices are called old.
const OLD_PRICES_DAYS: u64 = 90;

fn write_price_warnings(out: &mut impl Write, used: &CatalogueUse, now_unix_ms: i64) -> io::Result<()> {
    for model in &used.models {
        for why in &model.unpriced {
            writeln!(out, "warning: models.{}: {why}; give it a `price`", model.model)?;
        }
    }
    let age = used.age_days(now_unix_ms);
    if used.is_used() && age > OLD_PRICES_DAYS {
        writeln!(
            out,
            "warning: the price catalogue is {age} days old: take a newer one with `tierway prices import FILE`"
        )?;
    }
    Ok(())
}

/// Warnings about what is valid and may not be meant: what will not be valid for long, what cannot be reached.
fn write_warnings(out: &mut impl Write, snapshot: &Snapshot, now_unix_s: i64) -> io::Result<()> {
    if let Some(warning) = snapshot.server.tls.as_ref().and_then(|tls| tls.warning(now_unix_s)) {
        writeln!(out, "warning: server.tls.cert: {warning}")?;
    }
    if let Err(refused) = refuse_former_place(&snapshot.store) {
        writeln!(out, "warning: store.url: `serve` will refuse this: {refused}")?;
    }
    for warning in provider_warnings::of_snapshot(snapshot) {
        writeln!(out, "warning: {warning}")?;
    }
    let table = &snapshot.table;
    if table.settings.splice_streams {
        write_splice_warnings(out, table)?;
    }
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

/// Models whose streams never go on at another deployment.
fn write_splice_warnings(out: &mut impl Write, table: &RoutingTable) -> io::Result<()> {
    for model in &table.models {
        let why = match model.shared.len().max(model.dedicated.len()) {
            _ if !model.endpoints.contains(Endpoint::Chat) => "it does not serve chat",
            0 | 1 => "it has one deployment",
            _ => continue,
        };
        writeln!(out, "warning: models.{}: routing.stream = \"splice\" is strict for it: {why}", model.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_whose_streams_cannot_go_on_are_named() {
        let warned = |stream: &str| {
            let text = format!(
                "providers.p.protocol = \"sim\"\nproviders.q.protocol = \"sim\"\n\
                 models.two.deployments = [{{ provider = \"p\" }}, {{ provider = \"q\" }}]\n\
                 models.one.deployments = [{{ provider = \"p\" }}]\n\
                 models.vectors = {{ endpoints = [\"embeddings\"], deployments = [{{ provider = \"p\" }}, {{ provider = \"q\" }}] }}\n\
                 routing.stream = \"{stream}\"\n"
            );
            let source = ConfigSource::File { path: "tierway.toml".into(), text };
            let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
            let mut out = Vec::new();
            write_warnings(&mut out, &snapshot, 0).expect("a Vec takes everything");
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!(warned("strict"), "");
        let expected = "warning: models.one: routing.stream = \"splice\" is strict for it: it has one deployment\n\
                        warning: models.vectors: routing.stream = \"splice\" is strict for it: it does not serve chat\n";
        assert_eq!(warned("splice"), expected);
    }

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
    fn what_the_catalogue_gave_and_could_not_is_said() {
        let text = "providers.openai = { protocol = \"openai\", base_url = \"https://api.openai.com/v1\" }\n\
                    models.gpt-4o-mini = { context = 1000, deployments = [{ provider = \"openai\" }] }\n\
                    models.mine = { deployments = [{ provider = \"openai\" }] }\n";
        let source = ConfigSource::File { path: "tierway.toml".into(), text: text.to_owned() };
        let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let used = &snapshot.catalogue;
        let (mut said, mut warned) = (Vec::new(), Vec::new());
        write_catalogue(&mut said, used).expect("a Vec takes everything");
        let later = used.as_of.unix_ms + 91 * 86_400_000;
        write_price_warnings(&mut warned, used, later).expect("a Vec takes everything");
        let (said, warned) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&warned));
        let expected = format!(
            "\nwhat the file does not say: catalogue of {} (built in)\n  \
             models.gpt-4o-mini: price, max_output as openai gpt-4o-mini\n    \
             priced there and not charged here: per_1000_searches, per_1000_storage_searches, \
             processing=batch\n  \
             providers.openai: max_tokens_name = \"max_completion_tokens\"\n",
            used.as_of.text
        );
        assert_eq!(said, expected);
        assert!(warned.contains("models.mine: openai/mine has no price: the catalogue does not know mine"), "{warned}");
        assert!(warned.contains("the price catalogue is 91 days old"), "{warned}");
        assert_eq!(snapshot.table.models[0].context, Some(1_000));
    }

    #[test]
    fn the_verdict_counts_and_names_what_is_not_enforced() {
        let text = "providers.p.protocol = \"sim\"\nmodels.m.deployments = [{ provider = \"p\" }]\n\
                    telemetry.otlp = \"http://127.0.0.1:4318\"\n";
        let source = ConfigSource::File { path: "tierway.toml".into(), text: text.to_owned() };
        let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut out = Vec::new();
        write_verdict(&mut out, &source, &snapshot).expect("a Vec takes everything");
        let expected = "tierway.toml: OK: 1 providers, 1 models, 1 deployments, 0 tiers, 0 policies, 0 keys\n\n\
                        not yet enforced (`serve` needs --allow-unenforced):\n  \
                        telemetry.otlp: no traces would be sent\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
