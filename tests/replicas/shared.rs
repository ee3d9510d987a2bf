//! Limits that gateways count together at a Redis, and what becomes of them while it is away.

use crate::encrypted::certificates;
use crate::limits::{answer, granted, limit};
use crate::place::{Place, asked};
use crate::postgres_server::TestDatabase;
use crate::process::{Client, PATIENCE, Running};
use crate::redis_server::{RedisServer, free_port};
use crate::together;
use std::time::{Duration, Instant};

/// Requests a minute of each key.
const LIMIT: usize = 12;
/// Nothing is asserted of speed: what must be back within two seconds must be within this, on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// A hundred times the deadline of a decision.
const FAR_BEYOND_THE_DEADLINE: Duration = Duration::from_millis(2_500);

/// Two gateways on one database and one Redis.
struct Pair {
    _database: TestDatabase,
    place: Place,
    gateways: [Running; 2],
    redis: RedisServer,
}

impl Pair {
    fn start() -> Self {
        let (database, place, redis) = (TestDatabase::new(), Place::new(), RedisServer::start());
        let config = config(&database, &redis.url());
        place.write("tierway.toml", &config);
        let gateways = [(); 2].map(|()| Running::configured(place.folder(), &config));
        let pair = Self { _database: database, place, gateways, redis };
        // Each knows of the other, so that their parts are known once the Redis is away.
        let probe = pair.key("probe");
        pair.redis.kill();
        pair.until_degraded(true);
        pair.until(|gateway| limit(gateway, &probe) == LIMIT as u64 / 2);
        pair.redis.start_again();
        pair.until_degraded(false);
        pair
    }

    /// The secret of a new key, which both gateways know.
    fn key(&self, name: &str) -> String {
        let secret = self.place.created(name);
        // What is listed costs nothing of its limits.
        let listed = |gateway: &Running| Client::connect(gateway.addr).ok()?.get("/v1/models", &secret);
        self.until(|gateway| listed(gateway).is_some_and(|answer| answer.status == 200));
        secret
    }

    #[track_caller]
    fn until(&self, holds: impl Fn(&Running) -> bool) -> Duration {
        let started = Instant::now();
        while !self.gateways.iter().all(&holds) {
            assert!(started.elapsed() < PATIENCE, "it never holds");
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed()
    }

    /// Waits until both say so; how long that took.
    #[track_caller]
    fn until_degraded(&self, degraded: bool) -> Duration {
        self.until(|gateway| is_degraded(gateway) == degraded)
    }

    /// Requests that both grant in turn, each until it refuses.
    fn granted(&self, secret: &str) -> usize {
        self.gateways.iter().map(|gateway| granted(gateway, secret)).sum()
    }
}

fn config(database: &TestDatabase, redis: &str) -> String {
    together::config(database)
        .replace("requests_per_minute = 100000", &format!("requests_per_minute = {LIMIT}"))
        .replace("[store]\n", &format!("[store]\nshared = \"{redis}\"\n"))
}

/// What `/readyz` and the metric say, which must be the same.
fn is_degraded(gateway: &Running) -> bool {
    let (status, ready) = gateway.ask("/readyz");
    assert_eq!(status, 200, "{ready}");
    ready.contains(r#""limits":"degraded""#)
}

fn metric(gateway: &Running) -> String {
    let metrics = gateway.ask("/metrics").1;
    metrics.lines().find(|line| line.starts_with("tierway_limits_degraded ")).unwrap_or_default().to_owned()
}

#[test]
fn gateways_count_together_and_fall_back_to_their_parts_while_redis_is_away() {
    let pair = Pair::start();
    let once = pair.key("together");
    let of_first = (0..5).filter(|_| asked(&pair.gateways[0], &once) == 200).count();
    assert_eq!((of_first, granted(&pair.gateways[1], &once)), (5, LIMIT - 5), "wherever they come");
    assert_eq!(metric(&pair.gateways[0]), "tierway_limits_degraded 0");
    assert!(!answer(&pair.gateways[0], &once).contains("x-ratelimit-mode"));

    pair.redis.kill();
    // The first requests find out; each is answered, and none waits for longer than the deadline and its own time.
    let slowest = (0..5).map(|_| {
        let started = Instant::now();
        assert!([200, 429].contains(&asked(&pair.gateways[0], &once)));
        started.elapsed()
    });
    println!("the slowest of the first requests after the Redis was killed took {:?}", slowest.max());
    pair.until_degraded(true);
    assert_eq!(metric(&pair.gateways[0]), "tierway_limits_degraded 1");
    let divided = pair.key("divided");
    assert_eq!(pair.gateways.each_ref().map(|gateway| granted(gateway, &divided)), [LIMIT / 2; 2]);
    assert!(answer(&pair.gateways[1], &divided).contains("x-ratelimit-mode: degraded"));

    pair.redis.start_again();
    let back = pair.until_degraded(false);
    println!("counted together again {back:?} after the Redis answered");
    assert!(back < BACK_WITHIN, "{back:?}");
    // What it granted is forgotten there, and what was granted without it was not counted there: once more at most.
    assert_eq!(pair.granted(&divided), LIMIT);
    assert_eq!(pair.redis.command("FLUSHALL"), "+OK");
    let flushed = pair.key("flushed");
    assert_eq!(pair.granted(&flushed), LIMIT);
    assert_eq!(pair.redis.command("FLUSHALL"), "+OK");
    assert_eq!(pair.granted(&flushed), LIMIT, "at most twice in the minute");
}

#[test]
fn nobody_waits_for_a_redis_that_is_frozen() {
    let pair = Pair::start();
    let secret = pair.key("frozen");
    pair.redis.freeze();
    let (mut slowest, started, mut served) = (Duration::ZERO, Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(500) || !pair.gateways.iter().all(is_degraded) {
        for gateway in &pair.gateways {
            let one = Instant::now();
            served += usize::from(asked(gateway, &secret) == 200);
            slowest = slowest.max(one.elapsed());
        }
        assert!(started.elapsed() < PATIENCE, "they never give it up");
    }
    println!("the slowest request took {slowest:?}, from when the Redis was frozen");
    assert!(slowest < FAR_BEYOND_THE_DEADLINE, "{slowest:?}");
    assert!(served <= LIMIT, "each grants its part: {served}");
    pair.redis.thaw();
    let back = pair.until_degraded(false);
    println!("counted together again {back:?} after it went on");
    assert!(back < BACK_WITHIN, "{back:?}");
}

#[test]
fn a_server_that_does_not_let_a_gateway_in_is_one_sentence() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let redis = RedisServer::with_password("hush");
    place.write("tierway.toml", &config(&database, &format!("redis://:wrong-hush@{}", redis.place())));
    let message = place.refused(&["serve"], 69);
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(message.contains(&format!("the server at {} refuses this gateway", redis.place())), "{message}");
    assert!(message.contains("correct user and password in store.shared") && !message.contains("hush"), "{message}");
    place.write("tierway.toml", &config(&database, &format!("redis://{}", redis.place())));
    assert!(place.refused(&["serve"], 69).contains("NOAUTH"));
    // With the password it serves.
    place.write("tierway.toml", &config(&database, &redis.url()));
    let secret = place.created("let-in");
    let gateway = Running::configured(place.folder(), &config(&database, &redis.url()));
    assert_eq!(asked(&gateway, &secret), 200);
    assert!(!is_degraded(&gateway));
}

#[test]
fn a_redis_that_is_not_there_at_first_is_found_later() {
    let (database, place, redis) = (TestDatabase::new(), Place::new(), RedisServer::start());
    redis.kill();
    let config = config(&database, &redis.url());
    place.write("tierway.toml", &config);
    let secret = place.created("early");
    let gateway = Running::configured(place.folder(), &config);
    assert_eq!((asked(&gateway, &secret), is_degraded(&gateway)), (200, true));
    redis.start_again();
    let started = Instant::now();
    while is_degraded(&gateway) {
        assert!(started.elapsed() < PATIENCE, "it is never found");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(asked(&gateway, &secret), 200);
}

#[test]
fn a_redis_with_tls_is_verified_by_its_name_and_its_authority() {
    let (database, place, port) = (TestDatabase::new(), Place::new(), free_port());
    let (authority, certificate, key) = certificates();
    for (name, text) in [("ca.pem", authority), ("redis.pem", certificate), ("redis.key", key)] {
        place.write(name, &text);
    }
    let _redis = RedisServer::encrypted(port, &place.path("redis.pem"), &place.path("redis.key"));
    let check = |host: &str, trusted: bool, degraded: bool| {
        place.write("tierway.toml", &config(&database, &format!("rediss://{host}:{port}")));
        let mut command = place.command(&["serve"]);
        if trusted {
            command.env("SSL_CERT_FILE", place.path("ca.pem"));
        }
        let gateway = Running::hearing(command, |_| true);
        assert_eq!(is_degraded(&gateway), degraded, "{host}, trusted: {trusted}");
        let said = gateway.stop();
        assert_eq!(said.contains("limits cannot be counted for all gateways together"), degraded, "{said}");
    };
    check("localhost", true, false);
    check("localhost", false, true);
    check("127.0.0.1", true, true);
}
