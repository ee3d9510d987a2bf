//! Rows and operations that cannot be read or written, with the real binary: a start never fails for one, what it says
//! counts for nothing, it is named, and everything else goes on.

use crate::process::{Client, PRICE, Running, SIMULATED, config, tierway};
use crate::receipts::{Doing, Held, Place, append, until_written};
use rusqlite::Connection;
use serde_json::Value;
use std::path::Path;
use tierway::domain::audit::Operator;
use tierway::domain::budget::Scope;
use tierway::domain::money::NanoUsd;
use tierway::domain::register::{Grant, Holder};
use tierway::store::sqlite::SqliteRegister;
use tierway::store::{ChangeContext, Ledger, Register, RegisterChange, RegisterConflict, RegisterWriteError};

/// What an operation of this database cannot write.
#[test]
fn an_operation_that_can_never_be_written_leaves_the_queue() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let before = append(&ledger, 0..3);
    let poisons = [
        "SELECT sum(a) FROM (SELECT 9223372036854775807 AS a UNION ALL SELECT 1)",
        "SELECT version FROM register WHERE version = -1",
        "SELECT abs(-9223372036854775807 - 1)",
        "SELECT 'text'",
    ];
    let poisons = poisons.map(|sql| {
        Doing::submit(ledger.writer(), |transaction| {
            transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(drop)
        })
    });
    let after = append(&ledger, 3..6);
    drop(held);
    until_written(&ledger);
    assert_eq!(place.ids(), [before, after].concat());
    assert!(poisons.iter().all(|done| done.recv().is_err()), "none is reported as committed");
    assert_eq!(ledger.status().dropped, 0);
}

fn origin() -> ChangeContext {
    let operator = Operator { who: "test".into(), origin: "test".into(), command: "test".into(), request_id: None };
    ChangeContext { operator, unix_ms: 0 }
}

fn grant(amount: i64) -> RegisterChange {
    RegisterChange::Grant(Grant {
        id: 0,
        holder: Holder { scope: Scope::Key, name: "app".into() },
        amount: NanoUsd(amount),
        reason: "".into(),
        by: "test".into(),
        granted_unix_ms: 0,
    })
}

#[tokio::test]
async fn grants_that_cannot_be_counted_together_are_not_written() {
    const MOST: i64 = 999_999_999_000_000_000;
    let place = Place::new();
    let (ledger, writing) = place.open();
    let register = SqliteRegister::of_gateway(&place.database(), ledger.writer());
    let beside = SqliteRegister::of_command(&place.database(), 0).unwrap_or_else(|error| panic!("{error}"));
    for register in [&register as &dyn Register, &beside] {
        for _ in 0..9 {
            register.write(vec![grant(MOST)], origin()).await.expect("nine are few enough");
        }
        let refused = register.write(vec![grant(MOST)], origin()).await;
        let why = RegisterConflict::TooMuchCredit;
        assert_eq!(refused, Err(RegisterWriteError::Conflict { at: 0, why }));
        // Together with one that makes place for it, it fits; the first that does not is named.
        let refused = register.write(vec![grant(-MOST), grant(MOST), grant(MOST)], origin()).await;
        assert_eq!(refused, Err(RegisterWriteError::Conflict { at: 2, why }));
        register.write(vec![grant(-MOST), grant(MOST)], origin()).await.expect("it is counted in order");
        assert_eq!(register.balances().await.expect("it is read")[0].granted, NanoUsd(9 * MOST));
        for _ in 0..9 {
            register.write(vec![grant(-MOST)], origin()).await.expect("it is taken back");
        }
    }
    append(&ledger, 0..1);
    until_written(&ledger);
    drop((ledger, writing));
    drop(place.open());
}

const ADMIN: &str = "twa_test_admin_token_of_the_store_tests";

/// A key of the file in the team `growth`, and an operator.
fn with_operator() -> String {
    config(SIMULATED, PRICE, "").replace("[telemetry]", "admin_token = \"env:ADMIN\"\n\n[telemetry]")
}

fn serve(folder: &Path) -> Running {
    let mut command = tierway(folder, &["serve"]);
    std::fs::write(folder.join("tierway.toml"), with_operator()).expect("the folder can be written");
    command.env("ADMIN", ADMIN);
    Running::hearing(command, |line| !line.contains(r#""target":"access""#))
}

/// The secret of a new key called `name`.
fn new_key(folder: &Path, name: &str, team: &str) -> String {
    let mut command = tierway(folder, &["keys", "create", name, "--policy", "all", "--team", team]);
    std::fs::write(folder.join("tierway.toml"), with_operator()).expect("the folder can be written");
    let output = command.env("ADMIN", ADMIN).output().expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is text").trim().to_owned()
}

/// The table and the row of each quarantined row, as the admin API tells them.
fn quarantined(running: &Running) -> Vec<(String, String)> {
    let answer = Client::connect(running.addr).expect("it listens").get("/admin/v1/status", ADMIN).expect("it answers");
    let status: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}", answer.body));
    let text = |row: &Value, member: &str| row[member].as_str().expect("it is text").to_owned();
    let rows = status["quarantined"].as_array().expect("it is a list").iter();
    rows.map(|row| (text(row, "table"), text(row, "row"))).collect()
}

/// What was done to a row, what is quarantined then, and the status that each request gets: of the file's key, of the
/// stored key `good`, and of the stored key `bad`.
type Poison = (&'static str, &'static [(&'static str, &'static str)], [u16; 3]);

const POISONS: &[Poison] = &[
    ("UPDATE keys SET budget_nanousd = 1, budget_window = 'fortnight' WHERE name = 'bad'", &[("keys", "bad")], [200, 200, 401]),
    ("UPDATE keys SET max_concurrent = -1 WHERE name = 'bad'", &[("keys", "bad")], [200, 200, 401]),
    ("UPDATE keys SET policy = CAST(x'ff' AS TEXT) WHERE name = 'bad'", &[("keys", "bad")], [200, 200, 401]),
    (
        "PRAGMA foreign_keys = OFF; UPDATE secrets SET key = CAST(x'ff' AS TEXT) WHERE key = 'bad'",
        &[("secrets", "\u{fffd}")],
        [200, 200, 401],
    ),
    ("UPDATE keys SET requests_per_minute = -1, expires_unix = 9223372036854775807, created_unix_ms = -9223372036854775807 - 1", &[], [200, 200, 200]),
    ("INSERT INTO teams VALUES ('growth', 1000000000, 'fortnight', 0, 1)", &[("teams", "growth")], [429, 200, 429]),
    ("INSERT INTO teams VALUES ('growth', -5, 'none', 0, 1)", &[], [429, 200, 429]),
    ("INSERT INTO grants VALUES (90, 'nobody', 'bad', 5, '', '', 0)", &[("grants", "90")], [200, 200, 200]),
    (
        "INSERT INTO grants SELECT 90 + value, 'key', 'bad', 999999999000000000, '', '', 0 FROM
         (SELECT 0 AS value UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6
          UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)",
        &[("grants", "99")],
        [200, 200, 200],
    ),
    (
        "INSERT INTO budgets VALUES ('key', 'bad', 'none', 0, 1, 9223372036854775807, 9223372036854775807);
         INSERT INTO budgets VALUES ('key', 'bad', 'none', 2, 3, -9223372036854775807 - 1, -9223372036854775807 - 1);
         INSERT INTO budgets VALUES ('nobody', CAST(x'ff' AS TEXT), 'fortnight', 9, 8, 1, 1)",
        &[],
        [200, 200, 200],
    ),
    ("INSERT INTO unaccounted VALUES (0, 'nobody', CAST(x'ff' AS TEXT), 'fortnight', 0, 9223372036854775807)", &[], [200, 200, 200]),
    ("DELETE FROM register", &[], [200, 200, 200]),
    ("INSERT INTO receipts (id, received_unix_ms, stream, attempts, outcome, reason, status, estimated, cost_nanousd,
        duration_us, overhead_us) VALUES (zeroblob(16), 1, 0, 'nothing', 'odd', 'odd', 200, 0, 9, 1, 1)", &[], [200, 200, 200]),
];

#[test]
fn a_start_never_fails_for_a_row() {
    for (poison, expected, statuses) in POISONS {
        let place = Place::new();
        let (good, bad) = (new_key(place.folder(), "good", "search"), new_key(place.folder(), "bad", "growth"));
        Connection::open(place.database()).expect("it is there").execute_batch(poison).expect(poison);
        let running = serve(place.folder());
        let mut client = Client::connect(running.addr).expect("it listens");
        let found = [crate::process::KEY, &good, &bad].map(|key| client.chat_by(key, "m").expect("it answers").status);
        assert_eq!(found, *statuses, "{poison}");
        let rows = quarantined(&running);
        let rows: Vec<_> = rows.iter().map(|(table, row)| (table.as_str(), row.as_str())).collect();
        assert_eq!(rows, *expected, "{poison}");
        // The ledger is read beside the row, and written.
        running.until_ready_says(200);
        for path in ["/admin/v1/ledger", "/admin/v1/keys", "/admin/v1/teams", "/admin/v1/credits", "/admin/v1/usage"] {
            let listed = client.get(path, ADMIN).expect("it answers");
            assert_eq!(listed.status, 200, "{poison}: {path}: {}", listed.body);
        }
        let said = running.stop();
        assert_eq!(said.matches("counts for nothing").count(), expected.len(), "{poison}: {said}");
        assert!(expected.iter().all(|(table, row)| said.contains(table) && said.contains(row)), "{said}");
        let written: i64 = place
            .look()
            .query_row("SELECT count(*) FROM receipts WHERE status = 200 OR key = 'app'", [], |row| row.get(0))
            .expect("it is read");
        assert!(written > 0, "{poison}");
    }
}

#[test]
fn a_change_of_a_quarantined_row_counts_again() {
    let place = Place::new();
    let bad = new_key(place.folder(), "bad", "growth");
    let change = |sql: &str| place.look().execute_batch(sql).expect(sql);
    let running = serve(place.folder());
    let mut client = Client::connect(running.addr).expect("it listens");
    let mut until = |status: u16| {
        let deadline = std::time::Instant::now() + crate::process::PATIENCE;
        while client.chat_by(&bad, "m").expect("it answers").status != status {
            assert!(std::time::Instant::now() < deadline, "it never becomes {status}");
        }
    };
    until(200);
    let next = "UPDATE register SET version = version + 1; UPDATE keys SET version = (SELECT version FROM register)";
    change(&format!("{next}, max_concurrent = -1"));
    until(401);
    assert_eq!(quarantined(&running), [("keys".to_owned(), "bad".to_owned())]);
    change(&format!("{next}, max_concurrent = 5"));
    until(200);
    assert!(quarantined(&running).is_empty());
}
