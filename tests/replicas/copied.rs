//! A store moves from SQLite to PostgreSQL and back, exactly, also when the copy is killed in the middle; what cannot be
//! copied is refused, and nothing is half there.

use crate::place::{Place, asked};
use crate::postgres_server::TestDatabase;
use crate::process::{PATIENCE, Running};
use crate::together::config;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A gateway serves from the store, or no server answers.
const UNAVAILABLE: i32 = 69;
const USAGE: i32 = 2;
const FAILED: i32 = 1;

/// A place whose SQLite store has a row in every table: keys, teams, credit and receipts by a gateway and commands, what
/// those do not write in a short test by hand.
fn filled(receipts: u32) -> (Place, String) {
    let place = Place::new();
    let secret = place.created("mover");
    place.printed(&["teams", "create", "crew", "--budget", "10.00/month"]);
    place.printed(&["credits", "grant", "--team", "crew", "5.00", "--reason", "\"quoted\" \\ é"]);
    let gateway = place.serve();
    assert_eq!(asked(&gateway, &secret), 200);
    gateway.stop();
    let store = open(&place.path("tierway.db"));
    store
        .execute_batch(
            "INSERT INTO unaccounted VALUES (1, 'key', 'mover', 'month', 0, 7), (1, 'key', 'mover', 'month', 0, 8);
             INSERT INTO budgets VALUES ('key', 'gone', 'month', 0, 9, 9223372036854775807, 0);
             INSERT INTO state_accounts VALUES (x'00112233445566778899aabbccddeeff', 'sim', x'0000000000000001', 1);
             INSERT INTO sla_closings VALUES ('standard', '2026-10', 1, 5, 10, 9, 1, 888888, NULL, NULL);
             INSERT INTO sla_credits VALUES ('standard', '2026-10', 1, 'key', 'mover', 5, 1, 1);
             INSERT INTO sla_promised VALUES ('standard', '2026-10');
             INSERT INTO unbilled_responses VALUES (x'ffeeddccbbaa99887766554433221100', 'sim', 3);
             INSERT INTO drill_reports VALUES ('burst-10x', 5, 1, '{}');
             INSERT INTO alive_intervals VALUES (1)",
        )
        .expect("every table takes a row");
    let mut columns =
        store.prepare("SELECT name FROM pragma_table_info('receipts') WHERE name <> 'id'").expect("a query");
    let columns: Vec<String> = columns.query_map([], |row| row.get(0)).expect("columns").map(Result::unwrap).collect();
    let columns = columns.join(", ");
    let more = format!(
        "WITH RECURSIVE n (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM n LIMIT {receipts})
         INSERT INTO receipts (id, {columns}) SELECT unhex(printf('%032x', number)), {}
         FROM n, (SELECT * FROM receipts LIMIT 1)",
        columns.replace("cost_nanousd", "number")
    );
    store.execute(&more, []).expect("the ids are new");
    (place, secret)
}

pub fn open(path: &Path) -> Connection {
    Connection::open(path).expect("SQLite opens it")
}

/// Every row of every table but those of migrations, as sorted text.
fn rows(path: &Path) -> Vec<String> {
    let store = open(path);
    let mut tables =
        store.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").expect("a query");
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).expect("tables").map(Result::unwrap).collect();
    let mut all = Vec::new();
    for table in tables.iter().filter(|table| *table != "migrations") {
        let mut statement = store.prepare(&format!("SELECT * FROM {table}")).expect("a query");
        let count = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        let before = all.len();
        while let Some(row) = rows.next().expect("a row") {
            let values: Vec<Value> = (0..count).map(|at| row.get(at).expect("a value")).collect();
            all.push(format!("{table} {values:?}"));
        }
        assert!(all.len() > before, "no row of {table} is tried");
    }
    all.sort();
    all
}

pub fn from_file(database: &TestDatabase) -> [String; 4] {
    ["--from".into(), "sqlite:tierway.db".into(), "--to".into(), database.url()]
}

pub fn copy<'a>(way: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    ["store", "copy"].into_iter().chain(way.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

fn schemas(database: &TestDatabase) -> String {
    database.query("SELECT string_agg(nspname, ',' ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'tierway%'")
}

#[test]
fn a_store_is_the_same_after_both_ways() {
    let ((place, secret), database) = (filled(12_345), TestDatabase::new());
    let said = place.json(&copy(&from_file(&database), &[]));
    assert_eq!((&said["complete"], &said["rows"]["receipts"]), (&true.into(), &12_346.into()), "{said}");
    assert_eq!(said["rows"]["keys"], 1, "{said}");
    assert_eq!(schemas(&database), "tierway");
    let sum = database.query("SELECT sum(cost_nanousd) FROM tierway.receipts");
    assert_eq!(said["receipts_nanousd"].as_str(), Some(&*sum), "{said}");

    let back = ["--from".into(), database.url(), "--to".into(), "sqlite:back.db".to_owned()];
    let printed = place.printed(&copy(&back, &[]));
    assert!(printed.contains("receipts                    12346") && printed.contains("alike"), "{printed}");
    assert_eq!(rows(&place.path("back.db")), rows(&place.path("tierway.db")));
    let left: Vec<_> =
        place.folder().read_dir().expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("unfinished")), "{left:?}");

    // Both are stores that gateways and commands work on.
    let usage = |store: &str| place.json(&["usage", "--by", "key", "--store", store, "--since", "3650d"]);
    assert_eq!(usage(&database.url())["rows"], usage("sqlite:back.db")["rows"]);
    let verified = |store: &str| place.json(&["audit", "verify", "--store", store]);
    assert_eq!(verified(&database.url()), verified("sqlite:back.db"));
    let gateway = Running::configured(place.folder(), &config(&database));
    assert_eq!(asked(&gateway, &secret), 200);
    gateway.stop();
}

#[test]
fn a_copy_that_is_killed_is_no_store_and_goes_on() {
    let ((place, _), database) = (filled(30_000), TestDatabase::new());
    let way = from_file(&database);
    let arrived = || {
        database.query("SELECT to_regclass('tierway_unfinished.receipts') IS NOT NULL") == "t"
            && database.query("SELECT count(*) > 0 FROM tierway_unfinished.receipts") == "t"
    };
    let mut running = place.command(&copy(&way, &[])).stderr(Stdio::null()).spawn().expect("the binary starts");
    let started = Instant::now();
    while !arrived() {
        assert!(started.elapsed() < PATIENCE, "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().expect("it runs");
    running.wait().expect("it was killed");
    // Whether it was quicker than the signal: then it is whole, and there is nothing to go on with.
    let before: u32 =
        database.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'tierway'").parse().expect("a number");
    assert_eq!(before, 0, "30,000 receipts were copied within a moment: copy more");
    let message = place.refused(&["keys", "list", "--store", &database.url()], UNAVAILABLE);
    assert!(message.contains("there is no store"), "{message}");

    let said = place.json(&copy(&way, &[]));
    assert_eq!((&said["complete"], &said["rows"]["receipts"]), (&true.into(), &30_001.into()), "{said}");
    let message = place.refused(&copy(&way, &[]), USAGE);
    assert!(message.contains("there is a store in") && message.contains("name another database"), "{message}");
}

#[test]
fn what_another_copy_left_is_noticed() {
    let ((place, _), database) = (filled(10), TestDatabase::new());
    let way = from_file(&database);
    assert_eq!(place.json(&copy(&way, &["--online"]))["complete"], false);
    assert_eq!(schemas(&database), "tierway_unfinished");
    database.query("UPDATE tierway_unfinished.receipts SET cost_nanousd = cost_nanousd + 1 WHERE status = 200");
    let message = place.refused(&copy(&way, &[]), FAILED);
    assert!(message.contains("receipts is not alike") && message.contains("run the command again"), "{message}");
    assert_eq!(place.json(&copy(&way, &[]))["complete"], true);
}

#[test]
fn a_store_in_use_gives_its_receipts_alone() {
    let ((place, secret), database) = (filled(10), TestDatabase::new());
    let way = from_file(&database);
    let gateway = place.serve();
    let message = place.refused(&copy(&way, &[]), UNAVAILABLE);
    assert!(message.contains("a gateway serves from") && message.contains("--online"), "{message}");
    let said = place.json(&copy(&way, &["--online"]));
    assert_eq!((&said["complete"], &said["rows"]["keys"]), (&false.into(), &serde_json::Value::Null), "{said}");
    assert_eq!(asked(&gateway, &secret), 200);
    gateway.stop();
    let said = place.json(&copy(&way, &[]));
    assert_eq!((&said["complete"], &said["rows"]["receipts"]), (&true.into(), &12.into()), "{said}");

    let gateway = Running::configured(place.folder(), &config(&database));
    let back = ["--from".into(), database.url(), "--to".into(), "sqlite:back.db".to_owned()];
    let message = place.refused(&copy(&back, &[]), UNAVAILABLE);
    assert!(message.contains("a gateway serves from"), "{message}");
    gateway.stop();
    assert_eq!(place.json(&copy(&back, &[]))["complete"], true);
    let message = place.refused(&copy(&back, &[]), USAGE);
    assert!(message.contains("there is a store in back.db already") && message.contains("another file"), "{message}");
}

#[test]
fn what_cannot_be_copied_is_refused_in_a_sentence() {
    let ((place, _), database) = (filled(1), TestDatabase::new());
    let way = from_file(&database);
    let both = |from: &str, to: &str| place.refused(&["store", "copy", "--from", from, "--to", to], USAGE);
    assert!(both("sqlite:a.db", "sqlite:b.db").contains("`tierway backup --to FILE`"));
    assert!(both("postgres://x@y/z", "postgres://x@y/w").contains("pg_dump"));
    assert!(both("mysql://x", "sqlite:b.db").contains("write sqlite:PATH"));
    let missing = ["--from".into(), "sqlite:none.db".into(), "--to".into(), database.url()];
    assert!(place.refused(&copy(&missing, &[]), UNAVAILABLE).contains("there is no database at none.db"));
    open(&place.path("tierway.db")).execute("UPDATE budgets SET leased_nanousd = 1", []).expect("there are budgets");
    let message = place.refused(&copy(&way, &[]), FAILED);
    assert!(message.contains("had leased money") && message.contains("start a gateway on it once"), "{message}");
    assert_eq!(schemas(&database), "");
}
