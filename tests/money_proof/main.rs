//! The proof that no budget is overspent: the real binary under load, with kills, wrong usage and disk failures,
//! against the journal of a provider in a process of its own.
//!
//! `make prove-money N=… KILLS=… SEED=… MUTANT=…` runs it in any size; without those, as `cargo test` runs it,
//! it is small and looks for its mutants too. It is its own program, because it starts itself again as the
//! provider. Start reading in [`prove`], then `run.rs`, what happens, and `checks.rs`, what must hold of it.

// Tests wait for real processes, and use the system clock for their timeouts.
#![allow(clippy::disallowed_methods)]
// Modules of a program that is not a library.
#![allow(missing_docs)]

mod checks;
mod database;
mod dialect;
mod fixture;
mod gateway;
mod load;
mod mutant;
mod provider;
mod run;
mod script;
mod summary;
mod timeline;
mod wire;

use checks::Findings;
use mutant::{MUTANTS, Mutant};
use run::{Run, Scenario};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tierway::domain::random::RandomValue;

/// What `cargo test` asks for.
const REQUESTS: u64 = 10_000;
const KILLS: u64 = 50;
const SEED: u64 = 20_261_122;
/// Enough for a mutant to show.
const MUTANT_REQUESTS: u64 = 700;
/// From so many on, hedges and rescues must have been seen.
const MIXED: u64 = 1_000;
/// More are another run, with a seed and a database of its own.
const RUN_REQUESTS: u64 = 100_000;

fn main() -> ExitCode {
    if let Ok(journal) = std::env::var(provider::JOURNAL) {
        provider::serve(Path::new(&journal), number(provider::SEED).expect("it is given with the journal"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if std::env::args().any(|argument| argument == "--list")
        || wanted.iter().any(|name| !"money_proof".contains(&**name))
    {
        return ExitCode::SUCCESS;
    }
    let seed = number("TIERWAY_PROOF_SEED").unwrap_or(SEED);
    let requests = number("TIERWAY_PROOF_REQUESTS");
    match std::env::var("TIERWAY_PROOF_MUTANT").ok().filter(|name| !name.is_empty()) {
        Some(name) => {
            let Some(mutant) = Mutant::named(&name) else {
                let known: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
                eprintln!("no mutant is called {name}; there are {}", known.join(", "));
                return ExitCode::FAILURE;
            };
            let caught = catch(mutant, requests.unwrap_or(MUTANT_REQUESTS), seed);
            if caught.is_empty() {
                println!("mutant {name}: not found");
                return ExitCode::SUCCESS;
            }
            // It is a fault, and the proof must fail for it.
            println!("mutant {name}: caught by {}", caught.join(", "));
            ExitCode::FAILURE
        }
        None => prove(requests.unwrap_or(REQUESTS), number("TIERWAY_PROOF_KILLS").unwrap_or(KILLS), seed),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Three scenarios, of which the killed one has most of the requests; then every mutant.
fn prove(requests: u64, kills: u64, seed: u64) -> ExitCode {
    let started = Instant::now();
    let mut sound = true;
    let (mut asked, mut killed, mut slowest) = (0, 0, Duration::ZERO);
    let (mut hedges, mut rescues) = (0, 0);
    println!("{requests} requests, {kills} kills, seed {seed}");
    let runs = requests.div_ceil(RUN_REQUESTS).max(1);
    for number in 0..runs {
        let seed = if number == 0 { seed } else { RandomValue(seed).salted(number).0 >> 16 };
        let share = |of: u64| of * (number + 1) / runs - of * number / runs;
        let (each, kills) = (share(requests), share(kills));
        let parts =
            [(Scenario::Killed(kills), each * 6 / 10), (Scenario::Calm, each * 3 / 10), (Scenario::Faulty, each / 10)];
        for (scenario, requests) in parts {
            let played = play(scenario, requests, seed, None);
            sound &= played.caught.is_empty();
            asked += played.asked;
            killed += played.killed;
            hedges += played.hedges;
            rescues += played.rescues;
            slowest = slowest.max(played.slowest);
        }
    }
    if requests >= MIXED && (hedges == 0 || rescues == 0) {
        println!("  BREACH: a second attempt beside the first is part of the mix");
        sound = false;
    }
    for mutant in MUTANTS {
        let caught = catch(mutant, MUTANT_REQUESTS, seed);
        let as_meant = caught.contains(&mutant.caught_by);
        println!("mutant {}: caught by {}", mutant.name, caught.join(", "));
        if !as_meant {
            println!("  BREACH: {} must catch it", mutant.caught_by);
        }
        sound &= as_meant;
    }
    println!(
        "{} runs, {asked} requests, {hedges} hedges, {rescues} rescues, {killed} kills, ready again after {slowest:?} \
         at most, {} mutants, seed {seed}: {} after {:.1} s",
        3 * runs,
        MUTANTS.len(),
        if sound { "0 nano-dollars over any limit" } else { "BROKEN" },
        started.elapsed().as_secs_f64()
    );
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn catch(mutant: &Mutant, requests: u64, seed: u64) -> Vec<&'static str> {
    play(mutant.scenario(), requests, seed, Some(mutant)).caught
}

/// What came of a run.
struct Played {
    /// The checks that failed.
    caught: Vec<&'static str>,
    asked: usize,
    killed: usize,
    hedges: u64,
    rescues: u64,
    slowest: Duration,
}

/// Plays, checks and reports.
fn play(scenario: Scenario, requests: u64, seed: u64, mutant: Option<&Mutant>) -> Played {
    let mut folder = tempfile::tempdir().expect("a temporary directory");
    // What a failed run left is looked at; what a mutant left is not.
    folder.disable_cleanup(mutant.is_none());
    if mutant.is_none() {
        println!("{scenario:?}, seed {seed}, in {}", folder.path().display());
    }
    let started = Instant::now();
    let run = Run::play(folder.path(), scenario, requests, seed, mutant);
    let found = checks::check(&run);
    let mut caught: Vec<_> = found.breaches.iter().map(|breach| breach.check).collect();
    caught.sort_unstable();
    caught.dedup();
    if mutant.is_none() {
        summary::print(&run, &found, started.elapsed());
        folder.disable_cleanup(!caught.is_empty());
    }
    let slowest = run.openings.iter().max().copied().unwrap_or_default();
    let Findings { hedges, rescues, .. } = found;
    Played { caught, asked: run.seen.len(), killed: run.killed.len(), hedges, rescues, slowest }
}

/// The time that driver and provider share, in Unix milliseconds.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    i64::try_from(since.as_millis()).expect("it is not that late")
}
