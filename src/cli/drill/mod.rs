//! `tierway drill`: an outage rehearsed on the user's own configuration, and what clients saw of it.
//!
//! Every provider is replaced by a simulated one in the same region, with the same prices and capacities; the gateway
//! itself is the real one, and is asked over HTTP on loopback. Its stores are in memory, and whatever ends the process
//! leaves nothing behind; the report of a drill that was run to its end is kept in the configured store, if there is one.
//! With `--against` a running gateway is rehearsed at instead, through its fault API. What breaks when, and what is judged,
//! is in [`domain::drill`](crate::domain::drill).
//!
//! Start reading at [`drill`]; one scenario is run in `run.rs`, or in `against.rs`.

mod against;
mod client;
mod drive;
mod fault_api;
mod figures;
mod keep;
mod latencies;
mod live;
mod load;
mod report;
mod retry;
mod run;
mod simulated;
mod text;
mod untrusted;

use super::serve::raise_open_files;
use super::store::{CommandError, StoreArgs};
use super::{find_config, print, terminal_screen};
use crate::clock::Clock;
use crate::config::{Environment, ProcessEnvironment};
use crate::domain::drill::scenario::Scenario;
use crate::domain::random::RandomValue;
use against::{AgainstArgs, RunningGateway};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use live::ScenarioView;
use run::{DrillContext, ScenarioRecord};
use simulated::SimulatedConfig;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

const EXAMPLES: &str = "\
Exit codes: 0 every objective was met; 1 one was not, or the drill could not be made; 2 wrong usage; 78 the
configuration is invalid.

Examples:
  tierway drill                                    # every scenario, on this configuration
  tierway drill region-down --region us-east
  tierway drill --json | --report drill.html       # for CI | for people
  TIERWAY_ADMIN_TOKEN=twa_... TIERWAY_API_KEY=tw_... \\
  tierway drill black-hole --against https://staging.example:8081 --client-url https://staging.example --model default";

/// Arguments of `drill`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
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
    /// Print lines also where a terminal could show the drill as it runs
    #[arg(long)]
    plain: bool,
    /// Write a page with plots for people, which needs nothing beside itself
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What is drawn at random is drawn from this: the same number breaks the same things
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    against: AgainstArgs,
    #[command(flatten)]
    store: StoreArgs,
}

fn scenario_parser() -> impl TypedValueParser<Value = Scenario> {
    let named = |name: String| Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
    let values = Scenario::ALL.map(|scenario| PossibleValue::new(scenario.name()).help(scenario.about()));
    PossibleValuesParser::new(values).try_map(move |name| named(name).ok_or("no scenario"))
}

/// Where a drill is made.
enum DrillTarget {
    /// A configuration with simulated providers.
    Simulated(Box<SimulatedConfig>),
    /// A gateway that runs somewhere, at this address.
    Running(String, Box<RunningGateway>),
}

/// Everything that was rehearsed.
struct DrillResult {
    target: DrillTarget,
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
/// Only what the system refuses.
pub(super) fn drill(args: &DrillArgs) -> anyhow::Result<ExitCode> {
    // A burst has many connections, and both of their ends are here.
    raise_open_files();
    // For clients; the gateway has its own threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(rehearse(args)) {
        Ok(result) if result.passed() => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(error) => error.print(),
    }
}

async fn rehearse(args: &DrillArgs) -> Result<DrillResult, CommandError> {
    let scenarios = scenarios(args)?;
    let mut result = DrillResult { target: target(args).await?, seed: args.seed, scenarios: Vec::new() };
    // Before anything runs for minutes.
    if let Some(file) = &args.report {
        write_report(file, "")?;
    }
    let say = |text: &str| if args.json { Ok(()) } else { print(text).map_err(CommandError::failed) };
    say(&text::head(&result))?;
    let is_shown =
        !args.json && !args.plain && terminal_screen::is_possible(ProcessEnvironment.variable("TERM").as_deref());
    if is_shown {
        terminal_screen::restore_on_panic();
    }
    for scenario in scenarios {
        // Dropped before anything is printed.
        let mut view = is_shown.then(ScenarioView::open).transpose().map_err(CommandError::failed)?;
        let (region, draw) = (args.region.as_deref(), RandomValue(args.seed));
        let done = match &result.target {
            DrillTarget::Running(_, gateway) => gateway.run(scenario, region, draw, view.as_mut()).await,
            DrillTarget::Simulated(config) => {
                let (snapshot, region, view) = (config.snapshot.clone(), region.map(str::to_owned), view.as_mut());
                let running = run::run(DrillContext { snapshot, scenario, region, draw, view });
                until_stopped(async { running.await.map_err(|error| CommandError::failed(format!("{error:#}"))) }).await
            }
        };
        drop(view);
        let done = done?;
        say(&text::scenario(&done))?;
        result.scenarios.push(done);
    }
    if args.json {
        print(&format!("{}\n", text::json(&result))).map_err(CommandError::failed)?;
    }
    say(&text::verdict(&result))?;
    if let Some(file) = &args.report {
        write_report(file, &report::page(&result))?;
    }
    keep::keep(args, &result).await;
    Ok(result)
}

/// What comes of `work`, unless the process is to stop: then a terminal is to be left as it was, and faults are to end.
///
/// # Errors
/// Those of `work`; it was stopped.
async fn until_stopped<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(CommandError::failed)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(CommandError::failed)?;
    tokio::select! {
        done = work => done,
        _ = interrupted.recv() => Err(CommandError::failed("the drill was interrupted, and left nothing behind")),
        _ = terminated.recv() => Err(CommandError::failed("the drill was stopped, and left nothing behind")),
    }
}

/// What is rehearsed, in order.
fn scenarios(args: &DrillArgs) -> Result<Vec<Scenario>, CommandError> {
    let against = args.against.against.is_some();
    let Some(scenario) = args.scenario else {
        return Ok(Scenario::ALL.into_iter().filter(|scenario| !against || scenario.is_injected()).collect());
    };
    if against && !scenario.is_injected() {
        return Err(CommandError::usage(format!(
            "{} cannot be rehearsed at a running gateway: its fault API does not make it\n  help: leave --against out to \
             rehearse it on a configuration",
            scenario.name()
        )));
    }
    if !scenario.breaks_a_region() && args.region.is_some() {
        return Err(CommandError::usage(format!("{} breaks no region: leave --region out", scenario.name())));
    }
    Ok(vec![scenario])
}

async fn target(args: &DrillArgs) -> Result<DrillTarget, CommandError> {
    if let Some(url) = &args.against.against {
        let gateway = RunningGateway::find(&args.against, url, Clock).await?;
        return Ok(DrillTarget::Running(url.to_string(), Box::new(gateway)));
    }
    let path = args.store.config().map(Path::to_path_buf);
    let loading = spawn_blocking(move || find_config(path.as_deref()).and_then(|source| simulated::load(&source)));
    let config = loading.await.map_err(CommandError::failed)?;
    let config = config.map_err(|problems| CommandError::configuration(problems.render(true)))?;
    let (source, regions) = (&config.source, &config.snapshot.table.regions);
    if let Some(region) = &args.region
        && !regions.iter().any(|known| **known == **region)
    {
        let known = regions.join(", ");
        return Err(CommandError::usage(format!("there is no region {region} in {source}; there are: {known}")));
    }
    Ok(DrillTarget::Simulated(Box::new(config)))
}

fn write_report(file: &Path, page: &str) -> Result<(), CommandError> {
    std::fs::write(file, page)
        .map_err(|error| CommandError::failed(format!("{} cannot be written: {error}", file.display())))
}
