//! Counters at a server: several gateways together decide what one alone would.

use super::redis_server::RedisServer;
use super::{NO_LIMITS, RUNTIME, admit, id_of, settle};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::limit::{LimitKind, Limits, OverLimit};
use tierway::store::divided::ReplicaDivision;
use tierway::store::memory::MemoryCounters;
use tierway::store::redis::{CounterClock, RedisCounters, RedisLocation, RedisOptions};
use tierway::store::{Admission, AdmissionDenied, AdmissionRequest, Counters};

/// On a machine that does much else.
const PATIENT: Duration = Duration::from_secs(60);
/// Histories in `make test`; `make counters HISTORIES=100000` compares as many.
const HISTORIES: u64 = 150;
const STEPS: usize = 40;
/// Less than a slot lasts without being renewed.
const SLOT_LASTS: Duration = Duration::from_secs(29);

/// A request that one of the gateways granted, and the one in memory too.
struct RunningRequest {
    gateway: usize,
    begun: Instant,
    of_one: Admission,
    of_all: Admission,
}

/// Counters of a gateway at `server`, by the time that is passed in.
pub fn counters_at(server: &RedisServer, replica: u64, start: Instant) -> RedisCounters {
    let location = RedisLocation::of_url(&server.url()).expect("it is a URL");
    let options = RedisOptions { replica, clock: CounterClock::Caller(start), deadline: PATIENT };
    let opened = RUNTIME
        .with(|runtime| runtime.block_on(RedisCounters::open(location, Arc::new(ReplicaDivision::default()), options)));
    let counters = opened.unwrap_or_else(|error| panic!("{error}"));
    assert!(!counters.are_degraded(), "it answers");
    counters
}

/// Counters of one gateway with a server of their own.
pub struct Served {
    counters: RedisCounters,
    _server: RedisServer,
}

impl Served {
    /// At an empty Redis.
    pub fn redis() -> Self {
        let server = RedisServer::start();
        Self { counters: counters_at(&server, 1, Clock.now()), _server: server }
    }
}

impl std::ops::Deref for Served {
    type Target = RedisCounters;

    fn deref(&self) -> &RedisCounters {
        &self.counters
    }
}

/// Limits of which some are reached, some are not and some are missing.
fn limits(rng: &mut fastrand::Rng) -> Limits {
    let mut maybe = |few: u64, many: u64| match rng.u8(0..3) {
        0 => None,
        1 => Some(rng.u64(1..=few)),
        _ => Some(rng.u64(many..=2 * many)),
    };
    let (requests, tokens) = (maybe(12, 300), maybe(256, 1_000));
    let max_concurrent = maybe(3, 8).map(|most| most as u32);
    Limits { requests_per_minute: requests, tokens_per_minute: tokens, max_concurrent }
}

/// What a decision says; what is left is not known where a slot is refused before the server is asked.
fn said(decision: &Result<Admission, AdmissionDenied>) -> String {
    match decision {
        Ok(admission) => format!("granted, left {:?} {:?}", admission.requests(), admission.tokens()),
        Err(denied) if denied.over.limit == LimitKind::Concurrency => format!("{:?}", denied.over),
        Err(denied) => format!("{:?}, left {:?} {:?}", denied.over, denied.left.requests, denied.left.tokens),
    }
}

/// Two gateways at `server` decide what one in memory decides, whoever is asked, whatever the history.
fn histories_agree(server: &RedisServer, histories: u64) {
    let first_seed = std::env::var("TIERWAY_COUNTERS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let start = Clock.now();
    let gateways = [1, 2].map(|replica| counters_at(server, replica, start));
    let mut decisions = 0;
    for seed in first_seed..first_seed + histories {
        let (mut rng, alone) = (fastrand::Rng::with_seed(seed), MemoryCounters::new());
        let (limits, name) = (limits(&mut rng), format!("history {seed}"));
        let key = id_of(&name);
        let (mut now, mut running) = (start, Vec::new());
        let end = |one: RunningRequest, used: Option<u64>, now: Instant| {
            settle(&gateways[one.gateway], one.of_one, used, now);
            settle(&alone, one.of_all, used, now);
        };
        for step in 0..STEPS {
            let pause = Duration::from_micros(match rng.u8(0..8) {
                0 => 0,
                1 => rng.u64(0..70_000_000),
                _ => rng.u64(0..2_000_000),
            });
            // Slots are renewed by the server's time, which stands still here.
            for one in running.extract_if(.., |one: &mut RunningRequest| now + pause > one.begun + SLOT_LASTS) {
                end(one, None, now);
            }
            now += pause;
            if rng.u8(0..3) == 0 && !running.is_empty() {
                let used = [None, Some(0), Some(rng.u64(0..600))][rng.usize(0..3)];
                end(running.swap_remove(rng.usize(0..running.len())), used, now);
                continue;
            }
            let (gateway, tokens) = (rng.usize(0..2), rng.u64(0..300));
            let request = AdmissionRequest { key: &name, limits, tokens };
            let of_one = admit(&gateways[gateway], (key, request), now);
            let of_all = admit(&alone, (key, request), now);
            assert!(!gateways[gateway].are_degraded(), "the server answers in time");
            assert_eq!(said(&of_one), said(&of_all), "seed {seed}, step {step}: {limits:?}, {tokens} tokens");
            decisions += 1;
            if let (Ok(of_one), Ok(of_all)) = (of_one, of_all) {
                running.push(RunningRequest { gateway, begun: now, of_one, of_all });
            }
        }
        running.into_iter().for_each(|one| end(one, None, now));
        assert!(gateways.iter().all(|one| one.in_flight() == 0), "seed {seed}");
    }
    println!("{histories} histories from seed {first_seed} on: {decisions} decisions alike");
}

fn histories() -> u64 {
    std::env::var("TIERWAY_COUNTERS_HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(HISTORIES)
}

#[test]
fn two_gateways_at_a_redis_decide_what_one_in_memory_does() {
    histories_agree(&RedisServer::start(), histories());
}

#[test]
fn two_gateways_at_a_valkey_decide_what_one_in_memory_does() {
    match RedisServer::valkey() {
        Some(server) => histories_agree(&server, histories()),
        None => println!("this machine has no valkey-server: Debian has it from version 13 on"),
    }
}

/// Slots of all gateways count together, and those of one that is gone become free.
#[test]
fn slots_are_counted_together_and_become_free() {
    let (server, start) = (RedisServer::start(), Clock.now());
    let limits = Limits { max_concurrent: Some(2), ..NO_LIMITS };
    let ask = || (id_of("key"), AdmissionRequest { key: "key", limits, tokens: 1 });
    let [first, second] = [1, 2].map(|replica| counters_at(&server, replica, start));
    let one = admit(&first, ask(), start).expect("none runs");
    let two = admit(&second, ask(), start).expect("one runs");
    let over = admit(&first, ask(), start).expect_err("two run").over;
    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(over, OverLimit { limit: LimitKind::Concurrency, ceiling: 2, retry_after });
    settle(&second, two, None, start);
    let two = admit(&first, ask(), start).expect("one was freed");
    settle(&first, two, None, start);
    // Its process is gone, and nobody renews its slot.
    std::mem::forget(one);
    drop(first);
    let all = || {
        let taken: Vec<_> =
            (0..2).filter_map(|_| admit(&second, ask(), start + Duration::from_secs(31)).ok()).collect();
        let count = taken.len();
        taken.into_iter().for_each(|one| settle(&second, one, None, start + Duration::from_secs(31)));
        count
    };
    assert!(admit(&second, ask(), start + Duration::from_secs(29)).is_ok_and(|two| {
        let denied = admit(&second, ask(), start + Duration::from_secs(29)).is_err();
        settle(&second, two, None, start + Duration::from_secs(29));
        denied
    }));
    assert_eq!(all(), 2, "half a minute after it was taken");
}

/// Whatever scripts the server has forgotten, the next decision brings them.
#[test]
fn a_server_that_forgot_its_scripts_gets_them_again() {
    let (server, start) = (RedisServer::start(), Clock.now());
    let limits = Limits { requests_per_minute: Some(3), ..NO_LIMITS };
    let counters = counters_at(&server, 1, start);
    for left in [2, 1, 0] {
        assert_eq!(server.command("SCRIPT FLUSH"), "+OK");
        let request = AdmissionRequest { key: "key", limits, tokens: 1 };
        let admission = admit(&counters, (id_of("key"), request), start).expect("some are left");
        assert_eq!(admission.requests().map(|status| status.remaining), Some(left));
        settle(&counters, admission, None, start);
    }
    assert!(!counters.are_degraded());
}
