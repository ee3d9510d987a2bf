//! A day of traffic in a second, by seed: the deciding room and the board, over scripted deployments.
//!
//! Each seed makes a day: tables, reloads, clients, deployments that are slow, throttled, dead, silent,
//! flapping or cutting their answers. It is lived twice on a clock that jumps from event to event, and a
//! referee holds every step against the laws of the house. Each law is shown to catch something: a
//! mutant that breaks just that one.
//!
//! `TIERWAY_SIM_SEEDS=n` lives more days, `TIERWAY_SIM_SEED=n` lives one and prints its every step.

#[path = "simulation/engine.rs"]
mod engine;
#[path = "simulation/laws.rs"]
mod laws;
#[path = "simulation/mutant.rs"]
mod mutant;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/world.rs"]
mod world;

use laws::{Law, Stats, Violation};
use mutant::Mutant;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::Build;
use world::World;

/// How many days are lived unless `TIERWAY_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 1_000;
/// Within so many days every mutant is caught.
const MUTANT_SEEDS: u64 = 60;

fn telemetry() -> Arc<Telemetry> {
    Arc::new(Telemetry::new(AccessLog::off(), Build { version: "simulated", revision: None }))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

/// Lives the day of `seed` twice; the first breach, if any.
fn live(seed: u64, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>) -> (Option<Violation>, Stats) {
    let mut world = World::of(seed);
    if let Some(mutant) = mutant {
        mutant.bend_world(&mut world);
    }
    let once = engine::run(&world, telemetry, mutant, false);
    let again = engine::run(&world, telemetry, mutant, false);
    let differs = (once.trace, once.stats) != (again.trace, again.stats);
    let told = || format!("{:x} is not {:x}", once.trace, again.trace);
    let differs = differs.then(|| Violation { law: Law::SameTrace, seed, at: Duration::ZERO, told: told() });
    (once.violation.or(differs), once.stats)
}

/// Lives days side by side, each processor its share.
fn live_all(seeds: u64) -> (Vec<Violation>, Stats) {
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64).min(8);
    let share = |first: u64| {
        let telemetry = telemetry();
        let mut found = (Vec::new(), Stats::default());
        for seed in (first..seeds).step_by(threads as usize) {
            let (violation, stats) = live(seed, &telemetry, None);
            found.0.extend(violation);
            found.1.add(&stats);
        }
        found
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        let mut all = (Vec::new(), Stats::default());
        for handle in handles {
            let (violations, stats) = handle.join().expect("a day is lived without a panic");
            all.0.extend(violations);
            all.1.add(&stats);
        }
        all.0.sort_by_key(|violation| violation.seed);
        all
    })
}

#[test]
fn every_law_holds_on_every_day() {
    let seeds = setting("TIERWAY_SIM_SEEDS").unwrap_or(SEEDS);
    let (violations, stats) = live_all(seeds);
    let told: Vec<String> = violations.iter().take(5).map(Violation::to_string).collect();
    assert!(told.is_empty(), "{} of {seeds} days break a law\n{}", violations.len(), told.join("\n"));
    println!("{seeds} days: {stats:?}");
    if seeds >= 100 {
        stats.assert_eventful();
    }
}

/// Lives the day that `TIERWAY_SIM_SEED` names, aloud; without it, the first.
#[test]
fn one_seed_is_lived_aloud() {
    let named = setting("TIERWAY_SIM_SEED");
    let world = World::of(named.unwrap_or(0));
    let run = engine::run(&world, &telemetry(), None, named.is_some());
    if let Some(violation) = run.violation {
        panic!("{violation}");
    }
}

#[test]
fn each_mutant_is_caught_by_its_law_and_by_no_other() {
    let telemetry = telemetry();
    for (mutant, law) in Mutant::ALL {
        let found = (0..MUTANT_SEEDS).filter_map(|seed| live(seed, &telemetry, Some(mutant)).0);
        let found: Vec<Violation> = found.collect();
        let laws: BTreeSet<Law> = found.iter().map(|violation| violation.law).collect();
        let first = found.iter().find(|violation| violation.law != law);
        println!("{mutant:?}: {} days", found.len());
        if laws != BTreeSet::from([law]) {
            println!("!!!! {mutant:?} {laws:?}: {}", first.map_or(String::new(), Violation::to_string));
            continue;
        }
        assert_eq!(laws, BTreeSet::from([law]), "{mutant:?}: {}", first.map_or(String::new(), Violation::to_string));
    }
}
