//! The limit of one key, asked for by three gateways' clients, 32 connections each, as fast as they are answered.
//!
//! In no minute more may be granted than the limit, or than twice as much where the server that counts was late meanwhile, as
//! on a busy machine; and nearly all of it must be had, wherever the requests go.
//! `make limits` runs it for minutes.

use crate::limits::limit;
use crate::place::Place;
use crate::postgres_server::TestDatabase;
use crate::process::{Client, PATIENCE, Running};
use crate::redis_server::RedisServer;
use crate::together;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GATEWAYS: usize = 3;
const CONNECTIONS: usize = 32;
/// Requests a minute of the key.
const LIMIT: usize = 600;
const MINUTE: Duration = Duration::from_secs(60);
/// How long in `make test`: within the first minute. `TIERWAY_LIMITS_MINUTES` is how many minutes begin.
const SHORT: Duration = Duration::from_secs(2);
/// What a client waits that was refused.
const PAUSE: Duration = Duration::from_millis(200);

/// When a granted request was sent and when it was answered: it was granted in between.
type Granted = (Instant, Instant);

/// Three gateways that have been there for minutes, and the secret of a key that they all know.
fn gateways(place: &Place, database: &TestDatabase, config: &str) -> (Vec<Running>, String) {
    place.write("tierway.toml", config);
    let [probe, secret] = ["probe", "hammered"].map(|name| place.created(name));
    let gateways: Vec<_> = (0..GATEWAYS).map(|_| Running::configured(place.folder(), config)).collect();
    database.query("UPDATE tierway.replicas SET started = started - interval '1 hour'");
    let started = Instant::now();
    let whole = if config.contains("shared") { LIMIT } else { LIMIT / GATEWAYS };
    while !gateways.iter().all(|gateway| limit(gateway, &probe) == whole as u64) {
        assert!(started.elapsed() < PATIENCE, "they never see one another");
        std::thread::sleep(Duration::from_millis(20));
    }
    (gateways, secret)
}

/// What was granted within `time`, in order, and how many answers were given without the server that counts.
fn hammer(gateways: &[Running], secret: &str, time: Duration) -> (Vec<Granted>, u64) {
    let (end, degraded) = (Instant::now() + time, AtomicU64::new(0));
    let client = |gateway: &Running| {
        let mut client = Client::connect(gateway.addr).expect("it listens");
        let mut granted = Vec::new();
        while Instant::now() < end {
            let sent = Instant::now();
            let answer = client.chat_by(secret, "m").expect("it answers");
            degraded.fetch_add(answer.degraded.into(), Ordering::SeqCst);
            match answer.status {
                200 => granted.push((sent, Instant::now())),
                429 => std::thread::sleep(PAUSE),
                status => panic!("{status}"),
            }
        }
        granted
    };
    let mut all: Vec<Granted> = std::thread::scope(|scope| {
        let clients: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| (0..CONNECTIONS).map(move |_| gateway))
            .map(|gateway| scope.spawn(move || client(gateway)))
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect()
    });
    all.sort();
    (all, degraded.into_inner())
}

/// The most that were certainly granted within one minute: sent after it began, and answered before it ended.
fn most_in_a_minute(granted: &[Granted]) -> usize {
    let within = |&(begin, _): &Granted| {
        granted.iter().filter(|(sent, answered)| *sent >= begin && answered.duration_since(begin) < MINUTE).count()
    };
    granted.iter().map(within).max().unwrap_or(0)
}

fn check(name: &str, config: impl Fn(&TestDatabase) -> String, usable: f64) {
    let (database, place) = (TestDatabase::new(), Place::new());
    let config = config(&database).replace("requests_per_minute = 100000", &format!("requests_per_minute = {LIMIT}"));
    let (gateways, secret) = gateways(&place, &database, &config);
    let minutes = std::env::var("TIERWAY_LIMITS_MINUTES").ok().map(|text| text.parse::<u32>().expect("a number"));
    // The last minute begins and does not end, so that as many limits can be had as minutes begin.
    let time = minutes.map_or(SHORT, |minutes| MINUTE * minutes - Duration::from_secs(20));
    let (granted, degraded) = hammer(&gateways, &secret, time);
    let (most, could_be) = (most_in_a_minute(&granted), LIMIT * minutes.unwrap_or(1) as usize);
    let share = granted.len() as f64 / could_be as f64;
    println!(
        "{name}: of {LIMIT} a minute, {GATEWAYS} gateways with {CONNECTIONS} connections each granted {} in {time:?}: {:.1} % of \
         what could be had, at most {most} in any minute; {degraded} answers degraded",
        granted.len(),
        100.0 * share
    );
    let whole = if degraded == 0 { 1 } else { 2 };
    assert!(most <= whole * LIMIT, "{most} in one minute, {degraded} answers degraded");
    assert!((usable..=whole as f64).contains(&share), "{share}");
}

#[test]
fn a_limit_counted_together_is_had_nearly_whole_and_never_passed() {
    let redis = RedisServer::start();
    let shared = |database: &TestDatabase| {
        together::config(database).replace("[store]\n", &format!("[store]\nshared = \"{}\"\n", redis.url()))
    };
    check("with a Redis", shared, 0.99);
}

#[test]
fn a_limit_in_parts_is_had_for_the_most_and_never_passed() {
    check("without", together::config, 0.80);
}
