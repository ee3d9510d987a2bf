//! A database that cannot be used is refused in one sentence that says what to do, and nothing is half started.

use crate::place::Place;
use crate::postgres_server::TestDatabase;
use crate::together::config;
use std::net::TcpListener;

/// Could not bind, or not reach the store.
const UNAVAILABLE: i32 = 69;

/// The one line that a command prints before it exits with `code`.
#[track_caller]
fn sentence(place: &Place, args: &[&str], code: i32) -> String {
    let message = place.refused(args, code);
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(!message.contains("hush"), "{message}");
    message
}

#[test]
fn a_server_that_is_not_there() {
    let place = Place::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let url = format!("postgres://me:hush@127.0.0.1:{port}/x");
    let message = sentence(&place, &["usage", "--store", &url], UNAVAILABLE);
    assert!(message.contains(&format!("no connection to the database at 127.0.0.1:{port}/x")), "{message}");
    assert!(message.contains("start PostgreSQL, or correct store.url"), "{message}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_reading() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let message = sentence(&place, &["usage", "--store", &database.url()], UNAVAILABLE);
    assert!(message.contains("`tierway serve` makes it"), "{message}");
    assert_eq!(database.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'tierway'"), "0");
}

#[test]
fn a_schema_of_a_newer_version() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let store = ["--store", &database.url()];
    assert!(place.printed(&[&["migrate"], &store[..]].concat()).contains("applied 0001_store"));
    assert_eq!(place.printed(&[&["migrate"], &store[..]].concat()), "up to date\n");
    // One that this version can work beside.
    database.query("INSERT INTO tierway.migrations VALUES (100, '0100_more', 'x', 0, 1)");
    place.printed(&[&["usage"], &store[..]].concat());
    database.query("INSERT INTO tierway.migrations VALUES (101, '0101_future', 'x', 0, 101)");
    place.write("tierway.toml", &config(&database));
    for args in [&["usage"][..], &["migrate"], &["keys", "list"], &["serve"]] {
        let message = place.refused(args, UNAVAILABLE);
        assert!(
            message.contains("was written by a newer tierway (it has migration 0101_future"),
            "{args:?}: {message}"
        );
    }
}

#[test]
fn urls_that_name_no_store() {
    let place = Place::new();
    let check = |url: &str, code: i32, expected: &str| {
        let message = place.refused(&["usage", "--store", url], code);
        assert!(message.contains(expected) && !message.contains("hush"), "{url}: {message}");
    };
    check("mysql://me@db/x", 2, "write sqlite:PATH or postgres://USER@HOST/DATABASE");
    check("postgres://me:hush@db/x?sslmode=prefer", UNAVAILABLE, "sslmode=verify-full");
    check("postgres://me:hush@db:port/x", UNAVAILABLE, "cannot be read");
    place.write("tierway.toml", &format!("{}\n[store]\nurl = \"redis://db\"\n", crate::place::CONFIG));
    let message = place.refused(&["usage"], 78);
    assert!(message.contains("is a Redis, which cannot keep receipts and money"), "{message}");
}

#[test]
fn a_backup_of_a_server_says_what_makes_one() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let message = sentence(&place, &["backup", "--store", &database.url()], 2);
    assert!(message.contains("`pg_dump --schema=tierway` copies it"), "{message}");
}
