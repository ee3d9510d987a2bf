//! A ledger of many rows and many stored keys: its size, how soon a gateway on it is ready, also after a kill,
//! how quickly it is summed.
//!
//! `make ledger` runs this on a million rows and a hundred thousand keys; no figure is asserted beyond ten times what
//! is promised.

use crate::process::{Client, Running, printed};
use crate::receipts::{NOW_UNIX_MS, Place};
use std::time::{Duration, Instant};
use tierway::domain::secret::KeyHash;

/// Rows unless `TIERWAY_LEDGER_ROWS` says otherwise.
const ROWS: u64 = 100_000;
/// Stored keys unless `TIERWAY_STORED_KEYS` says otherwise.
const KEYS: u64 = 10_000;
/// Ready within 100 ms is promised.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// And within a second after a kill.
const READY_AFTER_A_KILL_WITHIN: Duration = Duration::from_secs(10);
/// The secret of the first stored key.
const SECRET: &str = "sk-of-the-first-stored-key";

/// Receipts over thirty days by a hundred keys, in what names and numbers usually look like.
const FILL: &str = "
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO receipts
    SELECT unhex(format('%012x%020x', ?2 - 2592000000 + i * 2592000000 / ?1, i)),
           ?2 - 2592000000 + i * 2592000000 / ?1,
           'chat', 'customer-app-' || (i % 100), 'team-' || (i % 7), 'standard', 'auto', i % 2,
           'deepseek-ai/DeepSeek-V4-Flash', 'global-eu/deepseek-ai/DeepSeek-V4-Flash',
           CASE i % 20 WHEN 0 THEN 'premium' WHEN 1 THEN 'fallback' ELSE 'default' END, 'eu-central',
           '[[null,null,\"served\",' || (200000 + i % 1000000) || ',' || (80 + i % 60) || ']]', 'served', 'served', NULL, 200,
           800 + i % 4000, i % 800, 100 + i % 900, i % 100, i % 50 = 0, 70000, 7000, 250000, 0,
           1000 * (81 + i % 400), 200000 + i % 1000000, 900000 + i % 5000000, 80 + i % 60, '0.07:0.007/0.25', '', NULL, NULL, NULL,
           NULL, NULL, NULL, NULL
    FROM n";

/// Keys as operators make them, a hundred a team.
const FILL_KEYS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO keys
    SELECT 'customer-app-' || i, 'all', 'team-' || (i / 100), NULL, 200000, NULL, NULL, NULL, NULL, 0, ?2, i + 1 FROM n";
const FILL_SECRETS: &str = "
    INSERT INTO secrets SELECT CASE version WHEN 1 THEN ?1 ELSE unhex(format('%064x', version)) END, name, ?2, NULL, NULL
    FROM keys";

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Starts a gateway and returns how long that took.
#[track_caller]
fn served(place: &Place, what: &str, within: Duration) -> Running {
    let started = Instant::now();
    let gateway = Running::serve(place.folder());
    let ready = started.elapsed();
    println!("serves {what} after {ready:?}");
    assert!(ready < within, "{ready:?}");
    gateway
}

#[test]
fn a_large_ledger_is_ready_at_once_and_quickly_summed() {
    let rows = from_environment("TIERWAY_LEDGER_ROWS").unwrap_or(ROWS);
    let keys = from_environment("TIERWAY_STORED_KEYS").unwrap_or(KEYS);
    let place = Place::new();
    drop(place.open());
    let filling = place.look();
    filling.execute(FILL, rusqlite::params![rows as i64, NOW_UNIX_MS]).expect("it is SQL");
    let bytes = std::fs::metadata(place.database()).expect("it is there").len();
    println!("{rows} receipts: {} MiB, {} bytes each", bytes >> 20, bytes / rows);
    drop(served(&place, "them", READY_WITHIN));
    filling.execute(FILL_KEYS, rusqlite::params![keys as i64, NOW_UNIX_MS]).expect("it is SQL");
    filling.execute(FILL_SECRETS, rusqlite::params![KeyHash::of(SECRET).0, NOW_UNIX_MS]).expect("it is SQL");
    filling.execute("UPDATE register SET version = ?1", [keys as i64]).expect("it is SQL");
    drop(filling);
    let with_keys = std::fs::metadata(place.database()).expect("it is there").len();
    println!("{keys} stored keys: {} bytes each", (with_keys - bytes) / keys);
    let gateway = served(&place, "all that", READY_WITHIN);
    let mut client = Client::connect(gateway.addr).expect("it listens");
    for _ in 0..1_000 {
        assert_eq!(client.chat_by(SECRET, "m").expect("it answers").status, 200);
    }
    gateway.kill();
    let gateway = served(&place, "all that, killed under load,", READY_AFTER_A_KILL_WITHIN);
    gateway.stop();
    let rows = place.ids().len() as u64;
    let gateway = served(&place, "all that, stopped in good order,", READY_WITHIN);
    for by in ["key", "day,tier"] {
        let started = Instant::now();
        let summed = printed(place.folder(), &["usage", "--by", by, "--csv"]);
        println!("usage --by {by}: {:?}, {} lines", started.elapsed(), summed.lines().count());
        let requests = summed.lines().skip(1).map(|line| {
            let count = line.split(',').nth(by.split(',').count()).expect("a column");
            count.parse::<u64>().expect("a count")
        });
        assert_eq!(requests.sum::<u64>(), rows);
    }
    gateway.stop();
}
