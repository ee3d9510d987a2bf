//! Restarts that refuse nothing: the real binary is restarted under load, and every request must be answered.
//!
//! In three ways: a successor takes over (`serve --take-over`), or the sockets are a service manager's, which this test
//! is (`LISTEN_FDS`), or several gateways behind HAProxy are restarted one after the other (`rolling.rs`). Clients keep connections or open new ones, read whole answers, streams and slow streams that are open while
//! the process changes. They are stricter than real ones: nothing is ever sent twice. Afterwards the database must
//! hold one receipt for each request, and every budget what they cost, with nothing leased.
//!
//! `make restarts` runs it in the size of `TIERWAY_RESTART_REQUESTS` requests and `TIERWAY_RESTARTS` restarts. Start
//! reading in [`under_load`].

// Tests wait for real processes, and use the system clock for their timeouts.
#![allow(clippy::disallowed_methods)]

mod client;
mod gateway;
mod load;
#[path = "../store_contract/postgres_server.rs"]
mod postgres_server;
mod rolling;

use gateway::{Gateway, Place};
use load::{Load, Summary};
use std::net::TcpListener;
use std::time::Instant;

/// What `cargo test` asks for.
const REQUESTS: u64 = 600;
const RESTARTS: u64 = 1;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Restarts the gateway that `first` is by `restart` while requests are sent to it. Ends the last one by SIGTERM.
/// `probed` is a path of the operators' address that must always be answered with 200.
fn under_load(
    name: &str,
    place: &Place,
    probed: &'static str,
    first: Gateway,
    mut restart: impl FnMut(Gateway) -> Gateway,
) {
    let (requests, restarts) = (number("TIERWAY_RESTART_REQUESTS", REQUESTS), number("TIERWAY_RESTARTS", RESTARTS));
    let started = Instant::now();
    let load = Load::start(place.load(requests, probed));
    let mut gateway = first;
    for count in 1..=restarts {
        load.until_answered(requests * count / (restarts + 1));
        gateway = load.across(|| restart(gateway));
    }
    let Summary { answered, probes, streams_across, failed, longest } = load.end();
    gateway.terminate();
    eprintln!(
        "{name}: {} of {answered} requests and {probes} probes failed over {restarts} restarts; {streams_across} streams \
         were open during one; the longest wait for a first byte was {longest:?}; {:?} in all",
        failed.len(),
        started.elapsed()
    );
    assert!(failed.is_empty(), "{:#?}\n{}", &failed[..failed.len().min(9)], place.log());
    assert!(streams_across >= restarts, "a slow stream was open at each restart, not {streams_across}");
    place.check_books(answered);
}

#[test]
fn a_successor_refuses_nothing() {
    let (place, sockets) = Place::new();
    let first = place.activate(&sockets);
    // From here on the gateways alone keep them open.
    drop(sockets);
    let mut draining: Vec<Gateway> = Vec::new();
    under_load("take-over", &place, "/readyz", first, |before| {
        draining.push(before);
        place.start(&["serve", "--take-over"])
    });
    draining.into_iter().for_each(Gateway::until_ended);
    place.check_nothing_is_left();
}

#[test]
fn sockets_of_a_service_manager_refuse_nothing() {
    let (place, sockets) = Place::new();
    let first = place.activate(&sockets);
    // A gateway that is stopped is not ready, and says so to those still connected.
    under_load("socket activation", &place, "/livez", first, |before| {
        before.terminate();
        place.activate(&sockets)
    });
    drop(sockets);
    place.check_nothing_is_left();
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let (place, sockets) = Place::new();
    drop(sockets);
    let running = place.start(&["serve", "--take-over"]);
    assert!(place.log().contains("No running gateway answers at tierway.db.take-over"), "{}", place.log());
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let refused = place.refused(&["serve", "--take-over"], &[("TIERWAY__SERVER__ADMIN_LISTEN", &address)]);
    assert!(refused.contains("Another process listens there"), "{refused}");
    let refused = place.refused(&["serve"], &[]);
    assert!(refused.contains("another tierway holds") && refused.contains("--take-over"), "{refused}");
    let summary = Load::start(place.load(50, "/readyz")).end();
    assert!(summary.failed.is_empty(), "{:#?}", summary.failed);
    // It can be taken over from all the same.
    let next = place.start(&["serve", "--take-over"]);
    running.until_ended();
    next.terminate();
    place.check_books(summary.answered);
}

#[test]
fn there_is_a_worker_for_each_cpu_or_as_many_as_configured() {
    let (place, sockets) = Place::new();
    drop(sockets);
    let configured = place.start(&["serve"]);
    assert_eq!(configured.workers(), 4);
    configured.terminate();
    let one = place.start_on_one_cpu();
    assert_eq!(one.workers(), 1);
    let summary = Load::start(place.load(50, "/readyz")).end();
    assert!(summary.failed.is_empty(), "{:#?}", summary.failed);
    one.terminate();
}

#[test]
fn a_socket_that_cannot_be_served_is_named() {
    let (place, sockets) = Place::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    drop(sockets.ops);
    let refused = place.refused_sockets(&sockets.public, &other);
    let address = other.local_addr().expect("it is bound").to_string();
    assert!(refused.contains(&format!("LISTEN_FDS passes a socket for {address}")), "{refused}");
    let file = std::fs::File::open("/dev/null").expect("it is there");
    let refused = place.refused_sockets(&sockets.public, &file);
    let wanted = "socket 2 of LISTEN_FDS (tierway-admin) is neither a TCP nor a Unix socket that listens";
    assert!(refused.contains(wanted), "{refused}");
}
