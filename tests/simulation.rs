//! A simulated day of traffic for each seed: the real rules and health registry, over scripted deployments.
//!
//! Each seed defines a day: tables, reloads, clients, deployments that are slow, throttled, dead, silent,
//! flapping or breaking off their answers; keys with budgets, a lease store that fails, a process that is killed,
//! and a wall clock that jumps. Each day runs twice on a clock that advances from event to event, and a checker
//! compares every step with the invariants. Each invariant is shown to catch a mutant that breaks only that one.
//!
//! `TIERWAY_SIM_SEEDS=n` runs more days, `TIERWAY_SIM_SEED=n` runs one and prints its every step.
//! Start reading in `engine.rs`, then `invariants.rs`.

#[path = "simulation/adaptive.rs"]
mod adaptive;
#[path = "simulation/engine.rs"]
mod engine;
#[path = "simulation/expected_balances.rs"]
mod expected_balances;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/money.rs"]
mod money;
#[path = "simulation/mutant.rs"]
mod mutant;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/sharing.rs"]
mod sharing;
#[path = "simulation/world.rs"]
mod world;

use engine::Run;
use invariants::{Coverage, CoverageEvent, Invariant, Violation};
use mutant::Mutant;
use provider::{Behaviour, Script};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tierway::domain::routing::table::BalanceStrategy;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use world::{World, WorldKind};

/// How many days are simulated unless `TIERWAY_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 400;
/// The number of days within which every mutant is caught.
const MUTANT_SEEDS: u64 = 100;
/// The number of days that must catch a mutant by the right invariant at most.
const MUTANT_CAUGHT: usize = 6;

fn telemetry() -> Arc<Telemetry> {
    Arc::new(Telemetry::new(AccessLog::off(), BuildMetadata { version: "simulated", revision: None }))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

/// Runs the day of `seed` twice; returns the first violation, if any.
fn run_seed(seed: u64, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>) -> (Option<Violation>, Coverage) {
    let mut world = World::of(seed);
    if let Some(mutant) = mutant {
        mutant.alter_world(&mut world);
    }
    let once = engine::run(&world, telemetry, mutant, false);
    // The traces of a mutant matter only where it is the one that changes them.
    if mutant.is_some_and(|mutant| mutant != Mutant::DrawsOtherNumbers) {
        return (once.violation, once.coverage);
    }
    let again = engine::run(&world, telemetry, mutant, false);
    let differs = (once.trace, once.coverage) != (again.trace, again.coverage);
    let message = || format!("{:x} is not {:x}", once.trace, again.trace);
    let differs =
        differs.then(|| Violation { invariant: Invariant::SameTrace, seed, at: Duration::ZERO, message: message() });
    (once.violation.or(differs), once.coverage)
}

/// Runs days in parallel, on all processors.
fn run_all(seeds: u64) -> (Vec<Violation>, Coverage) {
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64).min(8);
    let share = |first: u64| {
        let telemetry = telemetry();
        let mut found = (Vec::new(), Coverage::default());
        for seed in (first..seeds).step_by(threads as usize) {
            let (violation, coverage) = run_seed(seed, &telemetry, None);
            found.0.extend(violation);
            found.1.add(&coverage);
        }
        found
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        let mut all = (Vec::new(), Coverage::default());
        for handle in handles {
            let (violations, stats) = handle.join().expect("a day runs without a panic");
            all.0.extend(violations);
            all.1.add(&stats);
        }
        all.0.sort_by_key(|violation| violation.seed);
        all
    })
}

#[test]
fn every_invariant_holds_on_every_day() {
    let seeds = setting("TIERWAY_SIM_SEEDS").unwrap_or(SEEDS);
    let (violations, coverage) = run_all(seeds);
    let mut by_invariant: BTreeMap<Invariant, Vec<&Violation>> = BTreeMap::new();
    violations.iter().for_each(|violation| by_invariant.entry(violation.invariant).or_default().push(violation));
    for (invariant, violations) in &by_invariant {
        println!("{:>6} days break {invariant:?}", violations.len());
    }
    let first = by_invariant.values().flat_map(|violations| violations.iter().take(2));
    let message: Vec<String> = first.map(|violation| violation.to_string()).collect();
    assert!(message.is_empty(), "{} of {seeds} days break an invariant\n{}", violations.len(), message.join("\n"));
    println!("{seeds} days");
    let excused = coverage.of(CoverageEvent::Excused);
    assert!(excused * 5_000 <= coverage.of(CoverageEvent::Request), "{excused} requests lost more than a turn");
    for event in Coverage::ALL {
        println!("{:>10} × {event:?}", coverage.of(event));
        let least = match event {
            // They need two silent deployments in one request and a healthy third, or none.
            CoverageEvent::Replaced | CoverageEvent::DespiteSilence => 10,
            CoverageEvent::Excused => 0,
            _ => 20,
        };
        assert!(
            seeds < SEEDS || coverage.of(event) >= least,
            "{event:?} is hardly ever covered: these days prove little"
        );
    }
}

/// Runs the day that `TIERWAY_SIM_SEED` names and prints its steps; without it, the first, without printing.
#[test]
fn one_seed_runs_with_all_steps_printed() {
    let named = setting("TIERWAY_SIM_SEED");
    let world = World::of(named.unwrap_or(0));
    let run = engine::run(&world, &telemetry(), None, named.is_some());
    if let Some(violation) = run.violation {
        panic!("{violation}");
    }
}

#[test]
fn each_mutant_is_caught_by_its_invariant_and_by_what_that_entails_alone() {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = AtomicUsize::new(0);
    let work = || {
        let (telemetry, mut wrong) = (telemetry(), Vec::new());
        while let Some((mutant, invariant)) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(is_caught(*mutant, *invariant, &telemetry).err());
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a day runs without a panic")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// # Errors
/// Which other invariants break, or that none does.
fn is_caught(mutant: Mutant, invariant: Invariant, telemetry: &Arc<Telemetry>) -> Result<(), String> {
    // Where requests must be served, everything that makes requests fail breaks that invariant too.
    let days = (0..MUTANT_SEEDS).filter(|seed| match World::of(*seed).kind {
        WorldKind::Survival | WorldKind::RotatingLive => invariant == Invariant::Survival,
        WorldKind::OneKey => invariant == Invariant::Evidence,
        _ => !matches!(invariant, Invariant::Survival | Invariant::Evidence),
    });
    let found = days.filter_map(|seed| run_seed(seed, telemetry, Some(mutant)).0).take(MUTANT_CAUGHT);
    let found: Vec<Violation> = found.collect();
    let broken: BTreeSet<Invariant> = found.iter().map(|violation| violation.invariant).collect();
    let first = found.iter().find(|violation| violation.invariant != invariant);
    println!("{:>4} days catch {mutant:?} by {invariant:?}", found.len());
    if broken.contains(&invariant)
        && broken.iter().all(|broken| *broken == invariant || Some(*broken) == mutant.entails())
    {
        return Ok(());
    }
    let first = first.map_or(String::new(), Violation::to_string);
    Err(format!("{mutant:?} breaks {broken:?} and not {invariant:?} only: {first}"))
}

/// How many attempts in `from..to` went to the first deployment, and how many there were.
fn share_of_first(world: &World, run: &Run, from: Duration, to: Duration) -> (u64, u64) {
    let first = &world.tables[0].1.deployments[0].name;
    let within: Vec<_> = run.attempts.iter().filter(|(_, at)| (from..to).contains(at)).collect();
    (within.iter().filter(|(name, _)| name == first).count() as u64, within.len() as u64)
}

#[test]
fn a_recovered_deployment_gets_a_tenth_at_first_and_its_full_share_after_twice_the_pause() {
    let telemetry = telemetry();
    let second = Duration::from_secs(1);
    let (fails, recovers) = (5 * second, 12 * second);
    let (mut first_second, mut whole) = ((0, 0), (0, 0));
    for seed in 0..20 {
        let script = Script::between(fails, recovers, Behaviour::Refusing);
        let world = World::two_regions(seed, BalanceStrategy::Weighted, 100, 40, script);
        let run = engine::run(&world, &telemetry, None, false);
        assert_eq!(run.violation, None);
        let [(_, at, away_for)] = &run.closings[..] else { panic!("seed {seed}: it recovered {:?}", run.closings) };
        let asked = recovers + *away_for + second / 5; // and answers within a fifth of a second
        assert!(*at >= recovers && *at <= asked, "seed {seed}: back at {at:?}, asked after {away_for:?}");
        let by = *at + (*away_for * 2).max(2 * second);
        for (sum, (from, to)) in [(&mut first_second, (*at, *at + second)), (&mut whole, (by, by + 5 * second))] {
            let (there, all) = share_of_first(&world, &run, from, to);
            *sum = (sum.0 + there, sum.1 + all);
        }
    }
    let share = |(there, all): (u64, u64)| 2.0 * there as f64 / all as f64;
    assert!(share(first_second) <= 0.11, "{} of its share in the first second", share(first_second));
    assert!(share(whole) >= 0.95, "{} of its share afterwards", share(whole));
}

#[test]
fn a_region_that_accepts_and_stays_silent_is_avoided_although_older_streams_go_on() {
    let telemetry = telemetry();
    let second = Duration::from_secs(1);
    for balance in [BalanceStrategy::Ordered, BalanceStrategy::Weighted, BalanceStrategy::Latency] {
        for seed in 0..5 {
            let script = Script::between(10 * second, 60 * second, Behaviour::BlackHole);
            let world = World::two_regions(seed, balance, 50, 20, script);
            let run = engine::run(&world, &telemetry, None, false);
            assert_eq!(run.violation, None);
            let (before, _) = share_of_first(&world, &run, 5 * second, 10 * second);
            // Streams that began before go on for five seconds.
            let (after, all) = share_of_first(&world, &run, 12 * second, 15 * second);
            assert!(before > 20, "{balance:?}, seed {seed}: it had its share");
            // One attempt at a time asks it again.
            assert!(after <= 5, "{balance:?}, seed {seed}: {after} of {all} after it fell silent");
        }
    }
}
