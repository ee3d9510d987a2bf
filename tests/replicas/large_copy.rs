//! A store of many receipts and keys is copied to PostgreSQL and back; each copy is killed in the middle once.
//!
//! `make copies` runs it on a million receipts and a hundred thousand keys.

use crate::copied::{copy, from_file, open};
use crate::place::Place;
use crate::postgres_server::TestDatabase;
use crate::process::PATIENCE;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Receipts and keys unless `TIERWAY_COPY_RECEIPTS` and `TIERWAY_COPY_KEYS` say otherwise.
const RECEIPTS: u64 = 10_000;
const KEYS: u64 = 500;
/// A day of traffic, by a hundred of the keys.
const FILL: &str = "
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO receipts
    SELECT unhex(format('%012x%020x', 1790000000000 + i * 86400000 / ?1, i)), 1790000000000 + i * 86400000 / ?1,
           'chat', 'customer-app-' || (i % 100), 'team-' || (i % 7), 'standard', 'auto', i % 2, 'm', 'p/m', 'default', 'eu-central',
           '[[null,null,\"served\",' || (200000 + i % 1000000) || ',' || (80 + i % 60) || ']]', 'served', 'served', NULL, 200,
           800 + i % 4000, i % 800, 100 + i % 900, i % 100, i % 50 = 0, 70000, 7000, 250000, 0,
           1000 * (81 + i % 400), 200000 + i % 1000000, 900000 + i % 5000000, 80 + i % 60, '0.07:0.007/0.25', '', NULL, NULL, NULL,
           NULL, NULL, NULL, NULL
    FROM n";
const FILL_KEYS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
    INSERT INTO keys
    SELECT 'customer-app-' || i, 'standard', NULL, NULL, 200000, NULL, NULL, NULL, NULL, 0, 1790000000000, i + 1 FROM n";
const FILL_SECRETS: &str = "
    INSERT INTO secrets SELECT unhex(format('%064x', version)), name, 1790000000000, NULL, NULL FROM keys";
/// Counts and sums that both kinds of database compute alike, over `{}` tables.
const SUMS: &str =
    "SELECT count(*) || ' ' || sum(cost_nanousd) || ' ' || sum(input_tokens) || ' ' || sum(duration_us) || ' '
    || (SELECT count(*) FROM SCHEMAkeys) || ' ' || (SELECT sum(version) FROM SCHEMAkeys) || ' '
    || (SELECT count(*) FROM SCHEMAsecrets) FROM SCHEMAreceipts";

fn count(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A store with so many receipts and keys.
fn filled(receipts: u64, keys: u64) -> Place {
    let place = Place::new();
    place.printed(&["migrate"]);
    let store = open(&place.path("tierway.db"));
    store.execute(FILL, [receipts as i64]).expect("it is SQL");
    store.execute(FILL_KEYS, [keys as i64]).expect("it is SQL");
    store.execute(FILL_SECRETS, []).expect("it is SQL");
    store.execute("UPDATE register SET version = ?1", [keys as i64]).expect("it is SQL");
    place
}

fn sums_of_file(place: &Place, name: &str) -> String {
    open(&place.path(name)).query_row(&SUMS.replace("SCHEMA", ""), [], |row| row.get(0)).expect("it is SQL")
}

/// Starts the copy, kills it once `arrived` says that something is there, and does it again to its end. How long both took.
fn copied(place: &Place, way: &[String; 4], arrived: impl Fn() -> bool) -> [Duration; 2] {
    let started = Instant::now();
    let quiet = place.command(&copy(way, &[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut running: Child = quiet.expect("the binary starts");
    while !arrived() {
        assert!(started.elapsed() < PATIENCE, "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().expect("it runs");
    assert!(!running.wait().expect("it was started here").success(), "it was quicker than the signal: copy more");
    let killed = started.elapsed();
    let started = Instant::now();
    let said = place.json(&copy(way, &[]));
    assert_eq!(said["complete"], true, "{said}");
    [killed, started.elapsed()]
}

#[test]
fn a_large_store_is_the_same_after_both_ways_though_each_copy_was_killed() {
    let (receipts, keys) = (count("TIERWAY_COPY_RECEIPTS", RECEIPTS), count("TIERWAY_COPY_KEYS", KEYS));
    let (place, database) = (filled(receipts, keys), TestDatabase::new());
    let sums = sums_of_file(&place, "tierway.db");
    // A part of them, so that it is killed in the middle.
    let part = receipts / 5;
    let to_postgres = copied(&place, &from_file(&database), || {
        database.query("SELECT to_regclass('tierway_unfinished.receipts') IS NOT NULL") == "t"
            && database.query("SELECT count(*) FROM tierway_unfinished.receipts").parse::<u64>().expect("a count")
                > part
    });
    assert_eq!(database.query(&SUMS.replace("SCHEMA", "tierway.")), sums);
    let bytes = database.query("SELECT pg_total_relation_size('tierway.receipts') / count(*) FROM tierway.receipts");
    println!("a receipt takes {bytes} bytes of PostgreSQL with its indexes");
    let back = ["--from".into(), database.url(), "--to".into(), "sqlite:back.db".to_owned()];
    let to_sqlite = copied(&place, &back, || {
        let unfinished = place.path("back.db.unfinished");
        let reader = unfinished.exists().then(|| open(&unfinished));
        let found = reader.and_then(|file| file.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0)).ok());
        found.is_some_and(|found: i64| found.unsigned_abs() > part)
    });
    assert_eq!(sums_of_file(&place, "back.db"), sums);
    println!("{receipts} receipts and {keys} keys; counts and sums: {sums}");
    for (way, [killed, rest]) in [("SQLite to PostgreSQL", to_postgres), ("PostgreSQL to SQLite", to_sqlite)] {
        println!("{way}: killed after {killed:.1?}, then the rest and the comparison in {rest:.1?}");
    }
}
