//! What every back end of the counters guarantees, run against each of them; what every ledger guarantees is in
//! `store_contract/ledgers.rs`, and what every register guarantees in `store_contract/registers.rs`.
//!
//! Time is passed in, so a day of traffic takes a second. A new back end is one more line at the end of this file.

#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::id::{KeyId, KeyIds};
use tierway::domain::limit::Limits;
use tierway::domain::limit::WINDOW;
use tierway::domain::limit::{LimitKind, OverLimit};
use tierway::store::{Admission, AdmissionDenied, AdmissionRequest, Counters};

const THREADS: usize = 32;
/// Rounds that share an instant: a tenth of a second apart, less than a slot of the window, they make
/// a little over ten minutes.
const ROUNDS: usize = 6_250;
const STEP: Duration = Duration::from_millis(100);
const ROUNDS_PER_WINDOW: usize = 600;
/// The least that counts: a server counts in microseconds.
const FINEST: Duration = Duration::from_micros(1);

const NO_LIMITS: Limits = Limits { requests_per_minute: None, tokens_per_minute: None, max_concurrent: None };

/// A request with its key.
type KeyRequest<'a> = (KeyId, AdmissionRequest<'a>);

// Back ends over a network need a runtime; each thread of a test brings its own.
thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
}

/// How much is asked of a back end.
#[derive(Clone, Copy)]
struct Load {
    threads: usize,
    /// Of each thread, in each round.
    decisions: usize,
    /// A limit above which instants are rounded, and of which that many decisions want far more.
    many: u64,
}

/// A million decisions.
const IN_MEMORY: Load = Load { threads: THREADS, decisions: 5, many: 60_000 };
/// Each decision asks a server.
const AT_A_SERVER: Load = Load { threads: 2, decisions: 1, many: 600 };

/// Ends what was admitted, and waits until that is known wherever limits are counted.
fn settle(counters: &dyn Counters, admission: Admission, tokens_used: Option<u64>, now: Instant) {
    counters.settle(admission, tokens_used, now);
    while counters.settling() > 0 {
        std::thread::yield_now();
    }
}

/// Takes everything, or nothing at all.
fn admit(counters: &dyn Counters, (key, request): KeyRequest<'_>, now: Instant) -> Result<Admission, AdmissionDenied> {
    let mut admission = counters.begin(key, &request.limits, now)?;
    match RUNTIME.with(|runtime| runtime.block_on(counters.admit(&mut admission, request, now))) {
        Ok(()) => Ok(admission),
        Err(denied) => {
            settle(counters, admission, None, now);
            Err(denied)
        }
    }
}

fn requests(limit: u64) -> Limits {
    Limits { requests_per_minute: Some(limit), ..NO_LIMITS }
}

fn tokens(limit: u64) -> Limits {
    Limits { tokens_per_minute: Some(limit), ..NO_LIMITS }
}

/// The number of the key called `name`, one numbering for all tests.
fn id_of(name: &str) -> KeyId {
    static IDS: LazyLock<Mutex<KeyIds>> = LazyLock::new(Mutex::default);
    IDS.lock().expect("no test panics while it holds the lock").id_of(&name.into())
}

fn request(key: &str, limits: Limits, tokens: u64) -> KeyRequest<'_> {
    (id_of(key), AdmissionRequest { key, limits, tokens })
}

/// Admits and settles at once.
fn pass(counters: &dyn Counters, request: KeyRequest<'_>, now: Instant) -> Result<(), OverLimit> {
    let admission = admit(counters, request, now).map_err(|denied| denied.over)?;
    settle(counters, admission, None, now);
    Ok(())
}

/// Passes until the limit is reached; a back end that never refuses fails here instead of hanging.
fn use_up(counters: &dyn Counters, request: KeyRequest<'_>, now: Instant) {
    let refused = (0..10_000).any(|_| pass(counters, request, now).is_err());
    assert!(refused, "{request:?} is never refused");
}

/// Many threads want far more than the limits, in rounds that share an instant. Whatever they take,
/// in no sliding minute is it above a limit, and at least 99.5 % of the tighter one is taken.
fn never_above_in_any_minute(counters: &dyn Counters, load: Load, limits: Limits, most_tokens: u64) {
    let start = Clock.now();
    let taken: Vec<[AtomicU64; 2]> = (0..ROUNDS).map(|_| Default::default()).collect();
    let barrier = Barrier::new(load.threads);
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            let (taken, barrier) = (&taken, &barrier);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                for (round, taken) in taken.iter().enumerate() {
                    barrier.wait();
                    let now = start + STEP * round as u32;
                    for _ in 0..load.decisions {
                        let tokens = rng.u64(1..=most_tokens);
                        if pass(counters, request("hot", limits, tokens), now).is_ok() {
                            taken[0].fetch_add(1, Ordering::Relaxed);
                            taken[1].fetch_add(tokens, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut fullest = 0.0_f64;
    for (kind, limit) in [limits.requests_per_minute, limits.tokens_per_minute].into_iter().enumerate() {
        let Some(limit) = limit else { continue };
        let taken: Vec<u64> = taken.iter().map(|round| round[kind].load(Ordering::Relaxed)).collect();
        for minute in taken.windows(ROUNDS_PER_WINDOW) {
            assert!(minute.iter().sum::<u64>() <= limit, "more than {limit} in a minute");
        }
        let ten_minutes = &taken[..10 * ROUNDS_PER_WINDOW];
        fullest = fullest.max(ten_minutes.iter().sum::<u64>() as f64 / (10 * limit) as f64);
    }
    assert!(fullest >= 0.995, "only {fullest} of the limit was usable");
    assert_eq!(counters.in_flight(), 0);
}

/// However many threads try, no more than the limit run at once, and all slots come back.
fn concurrency_is_never_above(counters: &dyn Counters, load: Load) {
    const MOST: u64 = 7;
    let (running, highest, admitted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (now, limits) = (Clock.now(), Limits { max_concurrent: Some(MOST as u32), ..NO_LIMITS });
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..400 * load.decisions {
                    let Ok(admission) = admit(counters, request("busy", limits, 1), now) else { continue };
                    admitted.fetch_add(1, Ordering::Relaxed);
                    highest.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    settle(counters, admission, None, now);
                }
            });
        }
    });
    let highest = highest.into_inner();
    assert!((1..=MOST).contains(&highest), "{highest} ran at once");
    assert!(admitted.into_inner() >= MOST);
    assert_eq!(counters.in_flight(), 0);
}

/// A request refused by one limit takes nothing of the others.
fn refused_takes_nothing(counters: &dyn Counters) {
    let now = Clock.now();
    let limits = Limits { requests_per_minute: Some(3), tokens_per_minute: Some(100), max_concurrent: Some(1) };
    let large = request("key", limits, 101);
    let reported = |denied: AdmissionDenied| {
        (denied.over.limit, denied.left.requests.map(|l| l.remaining), denied.left.tokens.map(|l| l.remaining))
    };
    // A server need not be asked for what is refused here.
    let known_or_not = |(limit, requests, tokens)| {
        assert!([(Some(2), Some(40)), (None, None)].contains(&(requests, tokens)), "{requests:?} {tokens:?}");
        limit
    };
    for _ in 0..1_000 {
        let denied = admit(counters, large, now).expect_err("more tokens than the limit");
        assert_eq!(reported(denied), (LimitKind::Tokens, Some(3), Some(100)));
    }
    let running = admit(counters, request("key", limits, 60), now).expect("everything is left");
    let denied = admit(counters, request("key", limits, 1), now).expect_err("one is running");
    assert_eq!(known_or_not(reported(denied)), LimitKind::Concurrency);
    assert_eq!(counters.in_flight(), 1);
    settle(counters, running, None, now);
    for _ in 0..2 {
        pass(counters, request("key", limits, 20), now).expect("refusals took nothing");
    }
    let denied = admit(counters, request("key", limits, 1), now).expect_err("all is taken");
    assert_eq!(reported(denied), (LimitKind::Requests, Some(0), Some(0)));
    assert_eq!(counters.in_flight(), 0);
}

/// A refusal names the limit, its ceiling and the exact wait; whoever waits so long is let in.
fn the_wait_reported_is_the_wait_needed(counters: &dyn Counters) {
    let start = Clock.now();
    let check = |name: &str, limits: Limits, tokens: u64, limit: LimitKind, ceiling: u64| {
        let request = request(name, limits, tokens);
        use_up(counters, request, start);
        let now = start + Duration::from_millis(12_345);
        let over = pass(counters, request, now).expect_err("the limit is used up");
        assert_eq!((over.limit, over.ceiling), (limit, ceiling), "{name}");
        let wait = over.retry_after.expect("the request fits the limit");
        assert_eq!(wait, WINDOW - Duration::from_millis(12_345), "{name}");
        assert!(pass(counters, request, now + wait - FINEST).is_err(), "{name}");
        pass(counters, request, now + wait).expect("that was the reported wait");
    };
    check("few requests", requests(10), 1, LimitKind::Requests, 10);
    check("many requests", requests(1_000), 1, LimitKind::Requests, 1_000);
    check("few tokens", tokens(200), 50, LimitKind::Tokens, 200);
    check("many tokens", tokens(100_000), 30_000, LimitKind::Tokens, 100_000);

    let never =
        |limits: Limits, tokens: u64| pass(counters, request("never", limits, tokens), start).expect_err("too much");
    assert_eq!(never(tokens(10), 11), OverLimit { limit: LimitKind::Tokens, ceiling: 10, retry_after: None });
    let slot = admit(counters, request("slot", Limits { max_concurrent: Some(1), ..NO_LIMITS }, 1), start);
    let slot = slot.expect("nothing runs");
    let over = pass(counters, request("slot", Limits { max_concurrent: Some(1), ..NO_LIMITS }, 1), start);
    assert_eq!(over.expect_err("one runs").retry_after, Some(Duration::from_secs(1)));
    settle(counters, slot, None, start);
}

/// As many refused requests count as requests, in a window of their own; whoever waits as told may ask again.
fn refused_requests_have_a_limit_of_their_own(counters: &dyn Counters) {
    let (start, key, limits) = (Clock.now(), id_of("refused"), requests(3));
    for _ in 0..3 {
        assert_eq!(counters.check_refused(key, &limits, start), Ok(()));
        assert_eq!(counters.count_refused(key, &limits, start), Ok(()));
    }
    let now = start + Duration::from_millis(12_345);
    let over = counters.check_refused(key, &limits, now).expect_err("three were refused");
    let wait = WINDOW - Duration::from_millis(12_345);
    assert_eq!(over, OverLimit { limit: LimitKind::Refused, ceiling: 3, retry_after: Some(wait) });
    assert_eq!(counters.count_refused(key, &limits, now), Err(over), "a fourth is not counted");
    use_up(counters, request("refused", limits, 1), now);
    assert_eq!(counters.check_refused(key, &limits, now + wait), Ok(()), "admitted requests do not count");
    for other in [id_of("not refused"), id_of("free")] {
        assert_eq!(counters.check_refused(other, &limits, now), Ok(()));
    }
    for _ in 0..100 {
        assert_eq!(counters.count_refused(id_of("free"), &NO_LIMITS, now), Ok(()), "there is no limit");
    }
}

/// One key at its limit takes nothing of another's, nor of one without limits.
fn another_key_is_untouched(counters: &dyn Counters) {
    let now = Clock.now();
    use_up(counters, request("greedy", requests(50), 1), now);
    let calm = admit(counters, request("calm", requests(50), 1), now).expect("its own limit is unused");
    assert_eq!(calm.requests().map(|left| left.remaining), Some(49));
    settle(counters, calm, None, now);
    for _ in 0..10_000 {
        let free = admit(counters, request("free", NO_LIMITS, 1 << 40), now).expect("it has no limits");
        assert_eq!((free.requests(), free.tokens()), (None, None));
        settle(counters, free, Some(1 << 40), now);
    }
}

/// Tokens not used come back; tokens used beyond the estimate are a debt that must pass first.
fn estimates_are_corrected(counters: &dyn Counters) {
    let start = Clock.now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let first = admit(counters, request("key", tokens(1_000), 800), at(0)).expect("nothing is taken");
    assert_eq!(first.tokens().map(|left| left.remaining), Some(200));
    settle(counters, first, Some(100), at(1));
    let second = admit(counters, request("key", tokens(1_000), 900), at(1)).expect("700 came back");
    assert_eq!(second.tokens().map(|left| left.remaining), Some(0));
    settle(counters, second, Some(2_400), at(2));
    // The debt of 1,500 was made at 2 s and is more than a whole window.
    assert!(pass(counters, request("key", tokens(1_000), 1), at(61)).is_err());
    assert!(pass(counters, request("key", tokens(1_000), 1), at(63)).is_ok());
    let kept = admit(counters, request("unknown", tokens(1_000), 800), at(0)).expect("nothing is taken");
    settle(counters, kept, None, at(1));
    assert!(pass(counters, request("unknown", tokens(1_000), 201), at(1)).is_err());
}

/// After a reload the new limits hold at once and what was taken stays taken.
fn a_reload_changes_limits(counters: &dyn Counters) {
    let now = Clock.now();
    let left = |limits: Limits| match admit(counters, request("key", limits, 1), now) {
        Ok(admission) => {
            let left = admission.requests().map(|left| (left.limit, left.remaining));
            settle(counters, admission, None, now);
            Ok(left)
        }
        Err(denied) => Err(denied.left.requests.map(|left| (left.limit, left.remaining))),
    };
    assert_eq!(left(requests(10)), Ok(Some((10, 9))));
    assert_eq!(left(requests(3)), Ok(Some((3, 1))));
    assert_eq!(left(requests(1)), Err(Some((1, 0))));
    assert_eq!(left(requests(1_000)), Ok(Some((1_000, 997))));
    assert_eq!(left(NO_LIMITS), Ok(None));
    assert_eq!(left(requests(3)), Err(Some((3, 0))));

    // Slots taken without a limit count once there is one.
    let running = admit(counters, request("slots", NO_LIMITS, 1), now).expect("it has no limits");
    let limits = Limits { max_concurrent: Some(1), ..NO_LIMITS };
    assert!(admit(counters, request("slots", limits, 1), now).is_err());
    settle(counters, running, None, now);
    assert!(pass(counters, request("slots", limits, 1), now).is_ok());
}

/// Each settlement frees one slot, no more.
fn settling_frees_one_slot(counters: &dyn Counters) {
    let (now, limits) = (Clock.now(), Limits { max_concurrent: Some(3), ..NO_LIMITS });
    let held = Mutex::new(Vec::new());
    for _ in 0..3 {
        held.lock()
            .expect("no thread panicked")
            .push(admit(counters, request("key", limits, 1), now).expect("a slot is free"));
    }
    for round in 0..100 {
        assert!(admit(counters, request("key", limits, 1), now).is_err(), "round {round}: all slots are held");
        let admission = held.lock().expect("no thread panicked").remove(0);
        settle(counters, admission, Some(round), now);
        assert_eq!(counters.in_flight(), 2);
        held.lock()
            .expect("no thread panicked")
            .push(admit(counters, request("key", limits, 1), now).expect("one was freed"));
    }
    for admission in held.into_inner().expect("no thread panicked") {
        settle(counters, admission, None, now);
    }
    assert_eq!(counters.in_flight(), 0);
}

/// The suite, against the back end that `$new` makes.
macro_rules! contract {
    ($back_end:ident, $load:expr, $new:expr) => {
        mod $back_end {
            use super::*;

            #[test]
            fn never_above_few_requests_a_minute() {
                super::never_above_in_any_minute(&*$new, $load, requests(200), 1);
            }

            #[test]
            fn never_above_many_requests_a_minute() {
                super::never_above_in_any_minute(&*$new, $load, requests($load.many), 1);
            }

            #[test]
            fn never_above_tokens_and_requests_a_minute() {
                let (few, most) = ($load.many / 20, $load.many * 20 / 3);
                let limits = Limits { requests_per_minute: Some(few), tokens_per_minute: Some(most), ..NO_LIMITS };
                super::never_above_in_any_minute(&*$new, $load, limits, 1_000);
            }

            #[test]
            fn concurrency_is_never_above() {
                super::concurrency_is_never_above(&*$new, $load);
            }

            contract!(@each $new => refused_takes_nothing the_wait_reported_is_the_wait_needed
                another_key_is_untouched refused_requests_have_a_limit_of_their_own estimates_are_corrected
                a_reload_changes_limits settling_frees_one_slot);
        }
    };
    (@each $new:expr => $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(&*$new);
        })*
    };
}

contract!(memory, IN_MEMORY, Box::new(tierway::store::memory::MemoryCounters::new()));
contract!(redis, AT_A_SERVER, shared::Served::redis());

#[path = "store_contract/ledgers.rs"]
mod ledgers;
#[path = "store_contract/postgres_reports.rs"]
mod postgres_reports;
#[path = "store_contract/postgres_server.rs"]
mod postgres_server;
#[path = "store_contract/redis_server.rs"]
mod redis_server;
#[path = "store_contract/registers.rs"]
mod registers;
#[path = "store_contract/shared.rs"]
mod shared;
