//! A ledger of many rows: its size, how soon a gateway on it is ready, how quickly it is summed.
//!
//! `make ledger` runs this on a million; no figure is asserted beyond ten times what is promised.

use crate::process::{Running, printed};
use crate::receipts::{NOW_UNIX_MS, Place};
use std::time::{Duration, Instant};

/// Rows unless `TIERWAY_LEDGER_ROWS` says otherwise.
const ROWS: u64 = 100_000;
/// Ready within 100 ms is promised.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Receipts over thirty days by a hundred keys, in what names and numbers usually look like.
const FILL: &str = "
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO receipts
    SELECT unhex(format('%012x%020x', ?2 - 2592000000 + i * 2592000000 / ?1, i)),
           ?2 - 2592000000 + i * 2592000000 / ?1,
           'chat', 'customer-app-' || (i % 100), 'team-' || (i % 7), 'standard', 'auto', i % 2,
           'deepseek-ai/DeepSeek-V4-Flash', 'global-eu/deepseek-ai/DeepSeek-V4-Flash',
           CASE i % 20 WHEN 0 THEN 'premium' WHEN 1 THEN 'fallback' ELSE 'default' END, 'eu-central',
           '[[null,null,\"served\",' || (200000 + i % 1000000) || ']]', 'served', 'served', NULL, 200,
           800 + i % 4000, i % 800, 100 + i % 900, i % 100, i % 50 = 0, 70000, 7000, 250000, 0,
           1000 * (81 + i % 400), 200000 + i % 1000000, 900000 + i % 5000000, 80 + i % 60, '0.07:0.007/0.25'
    FROM n";

#[test]
fn a_large_ledger_is_ready_at_once_and_quickly_summed() {
    let rows = std::env::var("TIERWAY_LEDGER_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(ROWS);
    let place = Place::new();
    drop(place.open());
    let filling = place.look();
    filling.execute(FILL, rusqlite::params![rows as i64, NOW_UNIX_MS]).expect("it is SQL");
    drop(filling);
    let bytes = std::fs::metadata(place.database()).expect("it is there").len();
    println!("{rows} receipts: {} MiB, {} bytes each", bytes >> 20, bytes / rows);
    let started = Instant::now();
    let gateway = Running::serve(place.folder());
    let ready = started.elapsed();
    println!("serves after {ready:?}");
    assert!(ready < READY_WITHIN, "{ready:?}");
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
