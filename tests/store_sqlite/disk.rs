//! The writer, with working and failing disks.

use crate::receipts::{Doing, Held, Place, append, ids, still, until, until_written};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tierway::store::Ledger;
use tierway::store::sqlite::SqliteLedger;

/// Frames that end a commit in the write-ahead log: an independent count of the commits.
fn commits(log: &[u8]) -> usize {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"));
    let page = word(8) as usize;
    let frames = (HEADER..log.len()).step_by(FRAME_HEADER + page);
    frames.filter(|at| at + 8 <= log.len() && word(at + 4) != 0).count()
}

#[test]
fn many_receipts_become_few_commits() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let first = append(&ledger, 0..1);
    until_written(&ledger);
    let log = || commits(&std::fs::read(place.folder().join("tierway.db-wal")).expect("the log is there"));
    let held = Held::writer(ledger.writer());
    let appended = append(&ledger, 1..1_001);
    assert_eq!(ledger.status().waiting, 1_001);
    let before = log();
    drop(held);
    until_written(&ledger);
    // At most 256 per commit, and one commit of the operation that blocked the writer.
    assert_eq!(log() - before, 5);
    assert_eq!(place.ids(), [first, appended].concat());
}

#[test]
fn an_operation_is_reported_once_it_is_durable_and_keeps_its_place() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let appended = append(&ledger, 0..10);
    let seen = Arc::new(AtomicI64::new(-1));
    let shared = seen.clone();
    let done = Doing::submit(ledger.writer(), move |transaction| {
        let count = transaction.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0))?;
        shared.store(count, Ordering::Relaxed);
        transaction.execute_batch("CREATE TABLE IF NOT EXISTS beside (a INTEGER); INSERT INTO beside VALUES (1)")
    });
    done.recv().expect("it is committed");
    assert_eq!(seen.load(Ordering::Relaxed), 10, "it comes after what was left before it");
    assert_eq!(place.ids(), appended);
    let beside: i64 = place.look().query_row("SELECT count(*) FROM beside", [], |row| row.get(0)).expect("it is there");
    assert_eq!(beside, 1);
}

#[test]
fn an_operation_that_fails_is_skipped_and_delays_no_other() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let before = append(&ledger, 0..3);
    let wrong = Doing::submit(ledger.writer(), |transaction| {
        transaction.execute_batch("CREATE TABLE half (a INTEGER); INSERT INTO receipts (id) VALUES (x'00')")
    });
    let bug = Doing::submit(ledger.writer(), |_| panic!("a deliberate bug"));
    let after = append(&ledger, 3..6);
    drop(held);
    until_written(&ledger);
    assert_eq!(place.ids(), [before, after].concat());
    assert!(wrong.recv().is_err() && bug.recv().is_err(), "neither is reported as committed");
    let half = place.look().query_row("SELECT 1 FROM sqlite_schema WHERE name = 'half'", [], |_| Ok(()));
    assert!(half.is_err(), "nothing of it is left");
}

#[test]
fn a_full_disk_loses_nothing_and_needs_no_restart() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let first = append(&ledger, 0..100);
    until_written(&ledger);
    let pages = Arc::new(AtomicI64::new(1));
    let held = Held::writer(ledger.writer());
    let page_limit = pages.clone();
    // The first of its commit: each try runs it again, with the limit of that moment.
    drop(Doing::submit(ledger.writer(), move |transaction| {
        transaction.pragma_update_and_check(None, "max_page_count", page_limit.load(Ordering::Relaxed), |_| Ok(()))
    }));
    let second = append(&ledger, 100..400);
    drop(held);
    until(&ledger, "the disk to be full", |status| !status.healthy);
    let third = append(&ledger, 400..1_000);
    assert_eq!(place.ids(), first);
    assert_eq!(ledger.status().waiting, 901);
    pages.store(1_000_000, Ordering::Relaxed);
    until_written(&ledger);
    assert_eq!(place.ids(), [first, second, third].concat());
    assert_eq!(ledger.status().dropped, 0);
}

#[test]
fn a_broken_connection_is_replaced() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let once = AtomicBool::new(true);
    drop(Doing::submit(ledger.writer(), move |transaction| {
        // From here on this connection is refused every write, as on a file system mounted read-only.
        if once.swap(false, Ordering::Relaxed) { transaction.pragma_update(None, "query_only", true) } else { Ok(()) }
    }));
    let appended = append(&ledger, 0..300);
    drop(held);
    until_written(&ledger);
    assert_eq!(place.ids(), appended);
}

/// A sync that fails may leave a commit in the write-ahead log, where the next connection finds it.
#[test]
fn a_commit_that_failed_and_is_found_is_not_repeated() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let appended = append(&ledger, 0..10);
    let once = AtomicBool::new(true);
    let done = Doing::submit(ledger.writer(), move |transaction| {
        transaction.execute_batch("CREATE TABLE IF NOT EXISTS beside (a INTEGER); INSERT INTO beside VALUES (1)")?;
        if !once.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        transaction.execute_batch("COMMIT")?;
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None))
    });
    drop(held);
    done.recv().expect("it is committed");
    let beside: i64 = place.look().query_row("SELECT count(*) FROM beside", [], |row| row.get(0)).expect("it is there");
    assert_eq!(beside, 1);
    assert_eq!(place.ids(), appended);
    let after = append(&ledger, 10..20);
    until_written(&ledger);
    assert_eq!(place.ids(), [appended, after].concat());
}

#[test]
fn a_missing_file_is_waited_for_and_never_created_again() {
    let place = Place::new();
    let (mount, away) = (place.folder().join("mount"), place.folder().join("away"));
    std::fs::create_dir(&mount).expect("it is made");
    let database = mount.join("tierway.db");
    let (ledger, _writing) = SqliteLedger::open(&database, None, still()).expect("it is opened");
    let first = append(&ledger, 0..10);
    until_written(&ledger);
    std::fs::rename(&mount, &away).expect("it is moved");
    std::fs::create_dir(&mount).expect("it is made");
    let second = append(&ledger, 10..20);
    until(&ledger, "the file to be missed", |status| !status.healthy);
    assert!(!database.exists(), "an empty directory is not given a new database");
    std::fs::remove_dir(&mount).expect("it is empty");
    std::fs::rename(&away, &mount).expect("it is moved back");
    until_written(&ledger);
    assert_eq!(ids(&Connection::open(database).expect("it is there")), [first, second].concat());
}

#[test]
fn a_file_that_is_removed_is_not_written_any_further() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let backup = place.folder().join("backup.db");
    let first = append(&ledger, 0..10);
    until_written(&ledger);
    place.look().execute("VACUUM INTO ?1", [backup.to_str().expect("it is text")]).expect("it is copied");
    for file in ["tierway.db", "tierway.db-wal", "tierway.db-shm"] {
        std::fs::remove_file(place.folder().join(file)).expect("it was there");
    }
    let second = append(&ledger, 10..20);
    until(&ledger, "the file to be missed", |status| !status.healthy);
    std::fs::rename(&backup, place.database()).expect("it is put back");
    until_written(&ledger);
    assert_eq!(place.ids(), [first, second].concat());
}

#[test]
fn a_full_queue_drops_and_counts_and_delays_no_request() {
    const QUEUE_CAPACITY: u64 = 65_536;
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let appended = append(&ledger, 0..QUEUE_CAPACITY + 100);
    assert_eq!(ledger.status().dropped, 101, "what holds the writer takes a place too");
    drop(held);
    until_written(&ledger);
    assert_eq!(place.ids(), appended[..appended.len() - 101]);
}

#[test]
fn shutdown_waits_for_queued_operations() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    let appended = append(&ledger, 0..1_000);
    drop(writing);
    assert_eq!(place.ids(), appended);
    assert!(!ledger.status().healthy, "nothing is written any more");
}

#[test]
fn the_same_receipt_twice_is_one_row() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let appended = append(&ledger, 0..10);
    append(&ledger, 0..10);
    until_written(&ledger);
    assert_eq!(place.ids(), appended);
}
