//! `tierway drill`: an outage rehearsed on the user's own configuration, and what clients saw of it.
//!
//! Every provider is replaced by a simulated one in the same region, with the same prices and capacities; the gateway
//! itself is the real one, and is asked over HTTP on loopback. Its stores are in memory, and whatever ends the process
//! leaves nothing behind; the report of a drill that was run to its end is kept in the configured store, if there is one. What breaks when, and what is judged, is in
//! [`domain::drill`](crate::domain::drill).
//!
//! Start reading at [`drill`]; one scenario is run in `run.rs`.

mod client;
mod keep;
mod load;
mod report;
mod run;
mod simulated;
mod text;

use super::check::EXIT_CONFIGURATION;
use super::store::StoreArgs;
use super::{EXIT_USAGE, find_config, print};
use crate::config::Snapshot;
use crate::domain::drill::scenario::Scenario;
use crate::domain::random::RandomValue;
use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use run::{DrillContext, ScenarioRecord};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `drill`.
#[derive(Args, Debug)]
pub(super) struct DrillArgs {
    /// What to rehearse [default: each of them in turn]
    #[arg(value_name = "SCENARIO", value_parser = scenario_parser())]
    scenario: Option<Scenario>,
    /// The region that breaks [default: the first one that serves]
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page with plots for people, which needs nothing beside itself
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What is drawn at random is drawn from this: the same number breaks the same things
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    store: StoreArgs,
}

fn scenario_parser() -> impl TypedValueParser<Value = Scenario> {
    let named = |name: String| Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
    let values = Scenario::ALL.map(|scenario| PossibleValue::new(scenario.name()).help(scenario.about()));
    PossibleValuesParser::new(values).try_map(move |name| named(name).ok_or("no scenario"))
}

/// Everything that was rehearsed.
struct DrillResult {
    /// The configuration, as messages name it.
    source: String,
    snapshot: Arc<Snapshot>,
    seed: u64,
    scenarios: Vec<ScenarioRecord>,
}

impl DrillResult {
    fn passed(&self) -> bool {
        self.scenarios.iter().all(ScenarioRecord::passed)
    }
}

/// Rehearses, and exits with 0 if every objective was met, with 1 if not.
///
/// # Errors
/// The configuration cannot be simulated, or the report cannot be written.
pub(super) fn drill(args: &DrillArgs) -> anyhow::Result<ExitCode> {
    let loaded =
        find_config(args.store.config()).and_then(|source| Ok((source.name().to_owned(), simulated::load(&source)?)));
    let (source, snapshot) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            // The stream strips colours where there is no terminal or NO_COLOR is set.
            write!(anstream::stderr(), "{}", problems.render(true))?;
            return Ok(ExitCode::from(EXIT_CONFIGURATION));
        }
    };
    let snapshot = Arc::new(snapshot);
    if let Some(region) = &args.region
        && !snapshot.table.regions.iter().any(|known| **known == **region)
    {
        let known: Vec<&str> = snapshot.table.regions.iter().map(|region| &**region).collect();
        eprintln!("error: there is no region {region} in {source}; there are: {}", known.join(", "));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    // Before anything runs for minutes.
    if let Some(file) = &args.report {
        std::fs::write(file, "").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    // For clients; the gateway has its own threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = args.scenario.map_or(Scenario::ALL.to_vec(), |scenario| vec![scenario]);
    let mut result = DrillResult { source, snapshot, seed: args.seed, scenarios: Vec::new() };
    if !args.json {
        print(&text::head(&result))?;
    }
    for scenario in all {
        let context = DrillContext {
            snapshot: result.snapshot.clone(),
            scenario,
            region: args.region.clone(),
            draw: RandomValue(args.seed),
        };
        let done = runtime.block_on(run::run(context))?;
        if !args.json {
            print(&text::scenario(&done))?;
        }
        result.scenarios.push(done);
    }
    if args.json {
        print(&format!("{}\n", text::json(&result)))?;
    } else {
        print(&text::verdict(&result))?;
    }
    if let Some(file) = &args.report {
        std::fs::write(file, report::page(&result)).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    runtime.block_on(keep::keep(args, &result));
    Ok(if result.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
