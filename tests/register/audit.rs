//! The audit with the real binary: who changed what is listed, and whatever is done to the rows afterwards is named.

use crate::place::{CONFIG, Place, text};
use crate::process::{PATIENCE, Running};
use rusqlite::Connection;
use rusqlite::types::Value as Column;
use serde_json::Value;
use std::process::Command;
use std::time::Instant;
use tierway::domain::audit::{AuditFault, chain_faults};
use tierway::store::sqlite::LedgerReader;

/// Runs a command as this user.
fn run_as(place: &Place, user: &str, args: &[&str]) {
    let output = place.command(args).env("USER", user).output().expect("the binary starts");
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
}

/// A place with so many rows as an operator's day leaves.
fn with_changes() -> Place {
    let place = Place::new();
    run_as(&place, "alice", &["teams", "create", "growth", "--budget", "100/month"]);
    run_as(&place, "alice", &["keys", "create", "app-2", "--policy", "standard", "--team", "growth"]);
    run_as(&place, "bob", &["keys", "edit", "app-2", "--requests-per-minute", "20"]);
    run_as(&place, "bob", &["credits", "grant", "--key", "app-2", "5.00", "--reason", "a trial"]);
    run_as(&place, "bob", &["keys", "disable", "app-2"]);
    place
}

fn rows(place: &Place, more: &[&str]) -> Vec<Value> {
    let list = place.json(&[&["audit", "list"], more].concat());
    list["data"].as_array().expect("a list").clone()
}

fn changes(row: &Value) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let fields = row["changes"].as_array().expect("a list");
    fields
        .iter()
        .map(|one| (one["field"].as_str().expect("a name"), one["before"].as_str(), one["after"].as_str()))
        .collect()
}

fn open(place: &Place) -> Connection {
    Connection::open(place.path("tierway.db")).expect("the database is there")
}

#[test]
fn every_command_leaves_who_where_what_before_and_after() {
    let place = with_changes();
    let rows = rows(&place, &[]);
    let by: Vec<&str> = rows.iter().map(|row| row["command"].as_str().expect("a text")).collect();
    assert_eq!(by, ["keys disable", "credits grant", "keys edit", "keys create", "teams create"]);
    assert_eq!(changes(&rows[0]), [("disabled", Some("false"), Some("true"))]);
    assert_eq!(
        changes(&rows[1]),
        [("credit", Some("0"), Some("5")), ("reason", None, Some("a trial")), ("granted_by", None, Some("bob"))]
    );
    assert_eq!(changes(&rows[2]), [("requests_per_minute", None, Some("20"))]);
    assert_eq!(changes(&rows[4]), [("budget", None, Some("100 month UTC"))]);
    for row in &rows {
        let who = row["who"].as_str().expect("a text");
        let user = if row["number"].as_i64() > Some(2) { "bob (uid " } else { "alice (uid " };
        assert!(who.starts_with(user) && row["origin"].as_str().expect("a text").starts_with("host "), "{row}");
        assert!(row["time"].is_string() && row["request_id"].is_null());
    }
    let listed = place.printed(&["audit", "list", "--kind", "key", "--name", "app-2", "--limit", "1"]);
    assert!(listed.contains("key app-2") && listed.contains("disabled: false -> true"), "{listed}");
    assert_eq!(listed.lines().count(), 2);
    assert_eq!(place.printed(&["audit", "list", "--until", "2020-01-01"]), "no changes\n");
    // What was refused, or only looked at, is no change.
    place.refused(&["keys", "create", "app-2", "--policy", "standard"], 1);
    place.refused(&["keys", "edit", "nobody", "--no-team"], 1);
    place.printed(&["keys", "list"]);
    let verified = place.printed(&["audit", "verify"]);
    assert!(verified.starts_with("5 rows, each as it was written and in its place\nnewest row: 5:"), "{verified}");
}

#[test]
fn the_newest_row_that_was_noted_is_looked_for() {
    let place = with_changes();
    let verified = place.json(&["audit", "verify"]);
    let noted = |end: &Value| format!("{}:{}", end["number"], end["hash"].as_str().expect("a text"));
    let note = noted(&verified["newest"]);
    place.printed(&["keys", "enable", "app-2"]);
    place.printed(&["audit", "verify", "--noted", &note]);
    // With the record of them, the newest rows leave no trace but in what was noted.
    let database = open(&place);
    let cut = "DELETE FROM audit WHERE number > 3;
        UPDATE audit_end SET number = 3, hash = (SELECT hash FROM audit WHERE number = 3)";
    database.execute_batch(cut).expect("it is done");
    place.printed(&["audit", "verify"]);
    let output = place.run(&["audit", "verify", "--noted", &note]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("row 5 is not there as it was noted"), "{said}");
    place.refused(&["audit", "verify", "--noted", "5"], 2);
}

/// What `tierway audit verify` says of the database after `tampering`, a statement of SQL.
fn after(tampering: &str) -> (Option<i32>, String, Vec<i64>) {
    let place = with_changes();
    open(&place).execute_batch(tampering).expect("it is done");
    let output = place.run(&["audit", "verify"]);
    let found: Value = serde_json::from_slice(&place.run(&["audit", "verify", "--json"]).stdout).expect("it is JSON");
    let named = found["faults"].as_array().expect("a list").iter().map(|one| one["row"].as_i64().expect("a number"));
    assert_eq!(found["intact"], Value::Bool(false));
    // It is listed all the same, and what is done next is chained to it.
    place.printed(&["audit", "list"]);
    place.printed(&["keys", "enable", "app-2"]);
    (output.status.code(), text(&output.stdout), named.collect())
}

#[test]
fn a_removed_a_changed_and_a_re_ordered_row_are_named() {
    let check = |tampering: &str, said: &str, named: &[i64]| {
        let (code, output, found) = after(tampering);
        assert_eq!((code, &*found), (Some(1), named), "{tampering}: {output}");
        assert!(output.contains(said), "{tampering}: {output}");
    };
    check("DELETE FROM audit WHERE number = 3", "row 3 was removed", &[3]);
    check("DELETE FROM audit WHERE number < 3", "rows 1 to 2 were removed", &[1]);
    check("DELETE FROM audit WHERE number > 3", "rows 4 to 5 were removed", &[4]);
    check("DELETE FROM audit", "rows 1 to 5 were removed", &[1]);
    check("UPDATE audit SET who = 'nobody' WHERE number = 2", "row 2 was changed after it was written", &[2]);
    let swapped = "UPDATE audit SET number = -2 WHERE number = 2; UPDATE audit SET number = 2 WHERE number = 3;
        UPDATE audit SET number = 3 WHERE number = -2";
    check(swapped, "row 2 was written directly after what is now row 3: rows were re-ordered", &[2, 3, 4]);
    let contents = "CREATE TEMP TABLE two AS SELECT * FROM audit WHERE number IN (2, 3);
        UPDATE audit SET (who, command, changes) = (SELECT who, command, changes FROM two WHERE two.number = 5 - audit.number)
        WHERE number IN (2, 3)";
    check(contents, "row 2 was changed", &[2, 3]);
    let anew = "DELETE FROM audit WHERE number = 3; UPDATE audit SET number = number - 1 WHERE number > 3;
        UPDATE audit_end SET number = 4";
    check(anew, "row 2 is not what row 3 was written after", &[2]);
    check("UPDATE audit_end SET number = 4", "row 4 is recorded as the newest one, and is not", &[4]);
    check("DELETE FROM audit_end", "no row is recorded as the newest one, and there are rows", &[0]);
}

/// Every byte of every column of a row in the middle, each with one bit turned.
#[test]
fn a_flipped_byte_is_named_wherever_it_is() {
    const ROW: i64 = 3;
    let place = with_changes();
    let database = open(&place);
    let mut flipped = 0;
    let columns = ["unix_ms", "who", "origin", "command", "request_id", "kind", "name", "changes", "previous", "hash"];
    for column in columns {
        let read = format!("SELECT {column} FROM audit WHERE number = {ROW}");
        let stored: Column = database.query_row(&read, [], |row| row.get(0)).expect("the row is there");
        let tampered: Vec<Column> = match &stored {
            Column::Integer(number) => (0..63).map(|bit| Column::Integer(number ^ (1 << bit))).collect(),
            Column::Null => vec![Column::Text("x".to_owned()), Column::Text(String::new())],
            Column::Text(text) => flips(text.as_bytes()).map(Column::Blob).collect(),
            Column::Blob(bytes) => flips(bytes).map(Column::Blob).collect(),
            Column::Real(_) => panic!("{column} is no number of that kind"),
        };
        let is_text = matches!(stored, Column::Text(_));
        let value = if is_text { "CAST(?1 AS TEXT)" } else { "?1" };
        let write = format!("UPDATE audit SET {column} = {value} WHERE number = {ROW}");
        for tampered in tampered {
            database.execute(&write, [&tampered]).expect("it is written");
            let chain = LedgerReader::open(&place.path("tierway.db")).and_then(|reader| reader.audit_chain());
            let faults = chain_faults(&chain.unwrap_or_else(|error| panic!("{error}")), None);
            assert_eq!(faults, [AuditFault::Changed { row: ROW }], "{column} = {tampered:?}");
            flipped += 1;
        }
        database.execute(&write, [&stored]).expect("it is written");
    }
    println!("{flipped} changes of one bit, each named");
    place.printed(&["audit", "verify"]);
}

/// `bytes` with one bit turned, once for each byte.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        flipped
    })
}

/// Whoever has the file needs no SQL.
#[test]
fn a_byte_that_is_flipped_in_the_file_is_named() {
    let place = Place::new();
    run_as(&place, "nobody-else-is-called-so", &["keys", "create", "app-2", "--policy", "standard"]);
    open(&place).pragma_update(None, "wal_checkpoint", "truncate").expect("it is moved out of the log");
    let file = place.path("tierway.db");
    let mut bytes = std::fs::read(&file).expect("the database is there");
    let marker = b"nobody-else-is-called-so";
    let at = bytes.windows(marker.len()).position(|found| found == marker).expect("it is in the row");
    bytes[at + 7] ^= 0x20;
    std::fs::write(&file, &bytes).expect("it is written");
    let output = place.run(&["audit", "verify"]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), said.lines().next()), (Some(1), Some("row 1 was changed after it was written")));
}

#[test]
fn a_configuration_is_written_when_it_is_another_one() {
    let place = Place::new();
    let configurations = || rows(&place, &["--kind", "configuration"]);
    let until = |count: usize, gateway: &Running| {
        let started = Instant::now();
        while configurations().len() < count {
            assert!(started.elapsed() < PATIENCE, "no further configuration is in the audit of {}", gateway.pid());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let gateway = place.serve();
    until(1, &gateway);
    gateway.stop();
    let gateway = place.serve();
    let first = configurations();
    assert_eq!((first.len(), &first[0]["command"]), (1, &Value::from("serve")));
    let version = changes(&first[0])[0].2.expect("a version").to_owned();
    assert_eq!((changes(&first[0]).len(), version.len()), (1, 12));

    place.write("tierway.toml", &CONFIG.replace("requests_per_minute = 100000", "requests_per_minute = 7"));
    let pid = gateway.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill is there").success());
    until(2, &gateway);
    let log = gateway.stop();
    let second = &configurations()[0];
    assert_eq!((&second["command"], &second["name"]), (&Value::from("reload"), &first[0]["name"]));
    let [(_, before, after), limit] = changes(second)[..] else { panic!("{second}") };
    assert_eq!((before, after.is_some_and(|after| after != version)), (Some(&*version), true));
    assert_eq!(limit, ("policies.standard.requests_per_minute", Some("100000"), Some("7")));
    place.printed(&["audit", "verify"]);
    // The log has what is to be noted elsewhere; at this level it is not written.
    assert!(!log.contains("the newest row is"), "{log}");
}
