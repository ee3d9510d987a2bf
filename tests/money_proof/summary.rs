//! What a run is reported as.

use crate::checks::{Findings, name};
use crate::fixture::ACCOUNTS;
use crate::load::SeenEnd;
use crate::run::Run;
use std::collections::BTreeMap;
use std::time::Duration;

/// Breaches shown of one check.
const SHOWN: usize = 3;

/// Prints what `run` was and what was found in it.
pub fn print(run: &Run, found: &Findings, took: Duration) {
    println!("  took              {:.1} s", took.as_secs_f64());
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seen in &run.seen {
        let kind = if seen.ask.stream { "streamed" } else { "whole" };
        let end = match &seen.end {
            SeenEnd::Refused(status, code) => format!("{status} {code}"),
            other => format!("{other:?}").to_lowercase(),
        };
        *kinds.entry(format!("{} {kind}, {end}", seen.ask.dialect.name())).or_default() += 1;
    }
    println!("  requests          {}", run.seen.len());
    kinds.iter().for_each(|(kind, count)| println!("    {kind:<44} {count:>8}"));
    println!("  attempts billed   {}, {} nano-dollars at least", found.attempts, found.billed);
    println!("  second attempts   {} hedges, {} rescues from a silent provider", found.hedges, found.rescues);
    let unaccounted: i64 = run.database.unaccounted.values().sum();
    println!(
        "  lines             {} exact, {} estimated and paid from a budget, {} estimated of a key without one",
        found.exact, found.estimated, found.free
    );
    println!("  unaccounted       {} lines, {unaccounted} nano-dollars", run.database.unaccounted_lines);
    let slowest = run.openings.iter().max().copied().unwrap_or_default();
    println!(
        "  kills             {}; {} stops under load; {} starts, ready after {slowest:?} at most",
        run.killed.len(),
        run.stopped.len(),
        run.openings.len()
    );
    println!("  edits             {} of prices and limits, while it ran", run.timeline.edits());
    if run.streams_finished > 0 {
        println!("  faults            {}; {} requests turned away", run.streams_finished, run.turned_away);
    }
    if !run.clock_moved {
        println!("  SKIPPED           clocks and disks: only where glibc lets a library stand before it");
    }
    let margin = found.uses.iter().map(|used| used.bound - used.spent).min().unwrap_or(0);
    println!(
        "  windows           {} of {} accounts, {} requests astride two; smallest margin {margin} nano-dollars",
        found.uses.len(),
        ACCOUNTS.len(),
        found.astride
    );
    for account in 0..ACCOUNTS.len() {
        let uses = found.uses.iter().filter(|used| used.budget_window.0 == account && used.bound > 0);
        let most = uses.max_by_key(|used| used.spent as i128 * 1_000_000 / used.bound as i128);
        if let Some(most) = most {
            let ppm = most.spent as i128 * 1_000_000 / most.bound as i128;
            let percent = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
            println!("    {:<36} {percent:>8} % of {} spent", name(account), most.bound);
        }
    }
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for breach in &found.breaches {
        let count = shown.entry(breach.check).or_default();
        *count += 1;
        if *count <= SHOWN {
            println!("  BREACH {}: {}", breach.check, breach.what);
        }
    }
    shown.iter().for_each(|(check, count)| println!("  {count} breaches of {check}"));
}
