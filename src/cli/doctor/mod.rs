//! `tierway doctor`: what a gateway with this configuration would meet on this machine, a verdict a line, with what to do.
//!
//! It looks at everything that `serve` needs, and changes nothing. Of providers it asks what `check --live` asks, goes the
//! way to their hosts step by step, and has one model of each write a few tokens. It must never show a secret.
//!
//! Start reading at [`doctor`]; `provider` and `machine` have the verdicts.

mod completion;
mod machine;
mod provider;
mod row;

use super::provider_probe::{ProbeRow, probe};
use super::store::{CommandError, StoreArgs};
use super::{find_config, print, provider_warnings, value_parsers};
use crate::config::{ConfigSource, ProcessEnvironment, Snapshot, load};
use crate::domain::secret::without_credentials;
use clap::Args;
use futures_util::future::join_all;
use provider::{ProviderFindings, ProviderSubject};
use row::{DoctorRow, DoctorState};
use std::process::ExitCode;

const EXAMPLES: &str = "\
One model of each provider, the cheapest, is asked to write at most 16 tokens: that costs far less than a cent, and
--no-completion leaves it out.

Exit codes: 0 nothing is broken; 1 something is; 78 the configuration is invalid.

Examples:
  tierway doctor                     # where the gateway runs, with its environment
  tierway doctor --no-completion     # costs nothing
  tierway doctor --json | jq '.checks[] | select(.verdict == \"broken\")'";

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Have no model write anything
    #[arg(long)]
    no_completion: bool,
    /// How much free space the database's disk must have
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = value_parsers::size)]
    min_free: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every verdict; exits with 1 if something is broken.
///
/// # Errors
/// Only what the system refuses.
pub(super) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let loaded = find_config(args.store.config()).and_then(|source| {
        let snapshot = load(&source, &ProcessEnvironment, &[])?;
        Ok((source, snapshot))
    });
    let (source, snapshot) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return CommandError::configuration(problems.render(true)).print(),
    };
    let rows = all_rows(args, &source, &snapshot)?;
    let shown = if args.json { format!("{:#}\n", row::object(&rows)) } else { row::text(&rows) };
    print(&without_credentials(&shown))?;
    Ok(if row::is_good(&rows) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all_rows(args: &DoctorArgs, source: &ConfigSource, snapshot: &Snapshot) -> anyhow::Result<Vec<DoctorRow>> {
    let mut rows = vec![configuration_row(source, snapshot)];
    for warning in provider_warnings::of_snapshot(snapshot) {
        let (setting, odd) = warning.split_once(": ").unwrap_or(("", warning.as_str()));
        // The sentence says what to write.
        rows.push(DoctorRow { state: DoctorState::Warning, ..DoctorRow::ok(setting, "setting", odd) });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (of_machine, of_providers) = {
        // An address can be tried inside a runtime alone.
        let _inside = runtime.enter();
        let of_machine = machine::rows(source, snapshot, &args.store, args.min_free);
        (of_machine, runtime.block_on(of_providers(snapshot, !args.no_completion)))
    };
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let clocks = of_providers.iter().filter_map(|found| found.clock_ahead_s).collect();
    rows.extend(of_providers.into_iter().flat_map(|found| found.rows));
    rows.extend(of_machine);
    rows.extend(machine::clock_row(clocks));
    Ok(rows)
}

fn configuration_row(source: &ConfigSource, snapshot: &Snapshot) -> DoctorRow {
    let said =
        format!("{}: {} providers, {} models", source.name(), snapshot.providers.len(), snapshot.table.models.len());
    match snapshot.unenforced.first() {
        None => DoctorRow::ok("gateway", "configuration", said),
        Some(unbuilt) => {
            let said = format!("{said}; {} is not yet enforced: {}", unbuilt.setting, unbuilt.why);
            DoctorRow::broken("gateway", "configuration", said, "remove it, or `serve --allow-unenforced`")
        }
    }
}

/// Every provider at once, so that it takes as long as the slowest one.
async fn of_providers(snapshot: &Snapshot, asks_model: bool) -> Vec<ProviderFindings> {
    let probes = probe(snapshot).await;
    let of = |at: usize| {
        let name = &snapshot.providers[at].name;
        let of_this: Vec<&ProbeRow> = probes.iter().filter(|probe| probe.provider == *name).collect();
        let subject = ProviderSubject { snapshot, at, asks_model };
        async move { subject.rows(&of_this).await }
    };
    join_all((0..snapshot.providers.len()).map(of)).await
}
