//! The database goes away under requests and comes back.

use crate::place::{CONFIG, Place, asked};
use crate::postgres_server::{PostgresServer, TestDatabase};
use crate::process::{KEY, Running};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What comes back by itself must be back by then, on a machine that does much else.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Asks for the status of `/readyz` until it is `status`; how long that took.
#[track_caller]
fn until_ready_says(gateway: &Running, status: u16) -> Duration {
    let started = Instant::now();
    while gateway.ask("/readyz").0 != status {
        assert!(started.elapsed() < BACK_WITHIN, "/readyz does not say {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

#[test]
fn requests_are_served_without_the_database_and_their_receipts_are_written_once_it_is_back() {
    let server = Arc::new(PostgresServer::start());
    let (database, place) = (TestDatabase::on(server.clone()), Place::new());
    let config = format!("{CONFIG}\n[store]\nurl = \"{}\"\n", database.url());
    place.write("tierway.toml", &config);
    let without_budget = place.created("free");
    let gateways = [(); 2].map(|()| Running::configured(place.folder(), &config));
    let mut served = 0;
    let mut ask_all = || {
        for gateway in &gateways {
            // The key of the file is paid from its team's budget, of which a dollar is leased.
            for secret in [&*without_budget, KEY] {
                assert_eq!(asked(gateway, secret), 200);
                served += 1;
            }
        }
    };
    ask_all();
    server.crash();
    for _ in 0..10 {
        ask_all();
    }
    for gateway in &gateways {
        until_ready_says(gateway, 503);
    }
    ask_all();
    server.start_again();
    let back = gateways.each_ref().map(|gateway| until_ready_says(gateway, 200));
    println!("ready {back:?} after PostgreSQL answered again");
    ask_all();
    for gateway in gateways {
        gateway.stop();
    }
    assert_eq!(
        database.query("SELECT count(*), count(DISTINCT id) FROM tierway.receipts"),
        format!("{served}|{served}")
    );
    let charged = "SELECT sum(cost_nanousd) FROM tierway.receipts WHERE team = 'filed'";
    let spent = "SELECT sum(spent_nanousd) FROM tierway.budgets WHERE scope = 'team' AND name = 'filed'";
    assert_eq!(database.query(charged), database.query(spent), "each receipt was charged once");
    assert_eq!(database.query("SELECT count(*) FROM tierway.unaccounted"), "0");
}
