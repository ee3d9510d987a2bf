//! Of the gateways on one store, one sends the probes of SLAs.

use crate::place::Place;
use crate::postgres_server::TestDatabase;
use crate::process::{PATIENCE, Running};
use crate::together::config;
use std::time::{Duration, Instant};

/// What gateways may take longer or shorter than the five seconds between two probes.
const JITTER_MS: i64 = 1_500;

#[test]
fn two_gateways_probe_once() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let probed = config(&database).replace("[policies.paying]", "sla = { uptime = \"99.9%\" }\n[policies.paying]")
        + "\n[sla]\nprobe = \"5s\"\n";
    let gateways = [(); 2].map(|()| Running::configured(place.folder(), &probed));
    let probes = "SELECT coalesce(string_agg(received_unix_ms::text, ' ' ORDER BY received_unix_ms), '')
        FROM tierway.receipts WHERE key = 'sla probe' AND policy = 'standard'";
    let patience = Instant::now() + PATIENCE;
    let times: Vec<i64> = loop {
        let times = database.query(probes);
        let times: Vec<i64> = times.split_whitespace().map(|time| time.parse().expect("a number")).collect();
        if times.len() >= 2 {
            break times;
        }
        assert!(Instant::now() < patience, "{times:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    // A second one would have sent its first probe when it began, within a second or so.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 5_000 - JITTER_MS), "{times:?}");
    for gateway in gateways {
        gateway.stop();
    }
    assert_eq!(database.query("SELECT count(*) FROM tierway.receipts WHERE key IS DISTINCT FROM 'sla probe'"), "0");
}
