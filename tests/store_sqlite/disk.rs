//! The writer, with working and failing disks.

use crate::receipts::{Doing, Held, Place, append, charged, ids, receipt, still, until, until_written};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tierway::store::sqlite::SqliteLedger;
use tierway::store::{Ledger, LedgerStatus};

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
    let held = Held::writer(ledger.writer());
    append(&ledger, 100..1_100);
    let before: Vec<_> = (0..10).map(charged).collect();
    before.iter().for_each(|receipt| ledger.append(receipt, ledger.reserve()));
    let seen = Arc::new(AtomicI64::new(-1));
    let shared = seen.clone();
    let done = Doing::submit(ledger.writer(), move |transaction| {
        let count = transaction.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0))?;
        shared.store(count, Ordering::Relaxed);
        transaction.execute_batch("CREATE TABLE IF NOT EXISTS beside (a INTEGER); INSERT INTO beside VALUES (1)")
    });
    drop(held);
    done.recv().expect("it is committed");
    let seen = seen.load(Ordering::Relaxed);
    assert_eq!(seen, 10, "it comes after what was charged before it, and before a thousand that charge nothing");
    until_written(&ledger);
    assert_eq!(place.ids().len(), 1_010);
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
    let appended: Vec<_> = (0..10).map(charged).collect();
    // Before the operation, because they charge a budget.
    appended.iter().for_each(|receipt| ledger.append(receipt, ledger.reserve()));
    let appended: Vec<_> = appended.iter().map(|receipt| receipt.id.0).collect();
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

/// What is put in its place has other balances: only another start may take it for the truth.
#[test]
fn a_file_that_is_removed_is_not_written_any_further_nor_is_another_one() {
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
    let third = append(&ledger, 20..30);
    until(&ledger, "more to wait", |status| status.waiting == 20);
    assert!(!ledger.status().healthy);
    assert_eq!(place.ids(), first, "{second:?} and {third:?} are not for this file");
}

/// The database by itself, as it is found after the process was killed.
fn ids_without_log(place: &Place) -> Vec<u128> {
    let other = Place::new();
    std::fs::copy(place.database(), other.database()).expect("it is copied");
    other.ids()
}

/// What is written into a log without a name is seen by nobody else, and lost with the process.
#[test]
fn a_log_that_is_removed_is_noticed_while_nothing_is_written_and_loses_nothing() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    let first = append(&ledger, 0..10);
    until_written(&ledger);
    assert!(ids_without_log(&place).is_empty(), "they are in the log");
    std::fs::remove_file(place.folder().join("tierway.db-wal")).expect("it was there");
    until(&ledger, "the log to be missed", |status| !status.healthy);
    assert_eq!(ids_without_log(&place), first, "what was in it is in the database");
    // Nothing more is taken for durable.
    append(&ledger, 10..20);
    until(&ledger, "more to wait", |status| status.waiting == 10);
    drop((ledger, writing));
    let (again, _writing) = place.open();
    let third = append(&again, 20..30);
    until_written(&again);
    assert_eq!(place.ids(), [first, third].concat());
}

#[test]
fn a_log_that_is_replaced_is_not_written_any_further() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    append(&ledger, 0..10);
    until_written(&ledger);
    let log = place.folder().join("tierway.db-wal");
    let (aside, copy) = (place.folder().join("aside"), place.folder().join("copy"));
    std::fs::copy(&log, &copy).expect("it is copied");
    std::fs::rename(&log, &aside).expect("it is moved");
    std::fs::rename(&copy, &log).expect("it is replaced");
    append(&ledger, 10..20);
    until(&ledger, "another log to be noticed", |status| !status.healthy);
    // With the log that it has opened, it goes on.
    std::fs::rename(&aside, &log).expect("it is put back");
    until_written(&ledger);
    assert_eq!(place.ids().len(), 20);
}

/// Half a minute of what one core serves.
const QUEUE_CAPACITY: u64 = 465_000;

#[test]
fn a_full_queue_drops_and_counts_what_charges_nothing_and_delays_no_request() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let free = Arc::new(receipt(0));
    (0..QUEUE_CAPACITY + 100).for_each(|_| ledger.append(&free, None));
    assert_eq!(ledger.status().dropped, 101, "what holds the writer takes a place too");
    assert_eq!(ledger.status().waiting, QUEUE_CAPACITY);
    // Until a place is free, nothing more waits, whoever sent it.
    ledger.append(&Arc::new(receipt(1)), None);
    assert_eq!(ledger.status().dropped, 102);
    drop(held);
    until(&ledger, "places to be free", |status| status.waiting < QUEUE_CAPACITY);
    ledger.append(&free, None);
    assert_eq!(ledger.status().dropped, 102);
}

/// What clients and providers may write into a receipt counts by its size.
#[test]
fn large_receipts_take_more_places_and_the_queue_is_bounded_in_bytes() {
    const PLACE: u64 = 1 << 10;
    assert!(receipt(0).size() as u64 <= PLACE && charged(0).size() as u64 <= PLACE, "{}", charged(0).size());
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let mut large = receipt(0);
    large.asked_model = Some("m".repeat(256).into());
    large.attempts[0].provider_request_id = Some("r".repeat(128).into());
    large.attempts = vec![large.attempts[0].clone(); 20];
    let large = Arc::new(large);
    let size = large.size() as u64;
    assert!(size > 4 * PLACE, "{size}");
    (0..QUEUE_CAPACITY).for_each(|_| ledger.append(&large, None));
    let LedgerStatus { waiting, dropped, .. } = ledger.status();
    assert!(waiting * size <= QUEUE_CAPACITY * PLACE, "{waiting} of {size} bytes");
    assert!((waiting + 1) * (size + PLACE) > QUEUE_CAPACITY * PLACE, "{waiting} of {size} bytes");
    assert_eq!(waiting + dropped, QUEUE_CAPACITY + 1, "what holds the writer waits too");
    // One that gives way is enough for several that are small.
    let before = ledger.status().dropped;
    let rooms: Vec<_> = (0..4).map(|_| ledger.reserve().expect("others give way")).collect();
    assert!(ledger.status().dropped - before <= 1);
    // What is written gives all of its places back.
    let before = ledger.status();
    drop((rooms, held));
    until(&ledger, "places to be free", |status| status.waiting < before.waiting);
    (0..4).for_each(|_| ledger.append(&Arc::new(receipt(1)), None));
    assert_eq!(ledger.status().dropped, before.dropped);
}

#[test]
fn a_full_queue_has_room_for_money_until_only_money_waits_and_loses_none_of_it() {
    const CHARGED: u64 = 1_000;
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let held = Held::writer(ledger.writer());
    let free = Arc::new(receipt(0));
    (0..QUEUE_CAPACITY).for_each(|_| ledger.append(&free, None));
    let dropped = || ledger.status().dropped;
    // What charges nothing gives way.
    let before = dropped();
    let rooms: Vec<_> = (0..CHARGED).map(|_| ledger.reserve().expect("others give way")).collect();
    let done = Doing::submit(ledger.writer(), |_| Ok(()));
    assert_eq!(dropped() - before, CHARGED + 1);
    let charged: Vec<_> = (1..=CHARGED).map(charged).collect();
    charged.iter().zip(rooms).for_each(|(receipt, room)| ledger.append(receipt, Some(room)));
    // Room that is not used is given back, also by a receipt that turned out to charge nothing.
    let before = dropped();
    drop(ledger.reserve());
    ledger.append(&free, ledger.reserve());
    assert_eq!(dropped() - before, 1, "the first place was still free");
    // Once only money waits there is no room, and nothing that was promised is lost.
    let rooms: Vec<_> = std::iter::from_fn(|| ledger.reserve()).collect();
    assert_eq!(ledger.status().waiting + rooms.len() as u64, QUEUE_CAPACITY);
    let before = dropped();
    ledger.append(&free, None);
    ledger.append(&crate::receipts::charged(CHARGED + 1), None);
    assert_eq!(dropped() - before, 2, "neither has room");
    drop(rooms);
    assert!(ledger.reserve().is_some());
    drop(held);
    done.recv().expect("it is committed");
    until_written(&ledger);
    let ids: Vec<_> = charged.iter().map(|receipt| receipt.id.0).collect();
    assert_eq!(place.ids(), ids, "every one of them, and all that gave way is gone");
    let spent: i64 =
        place.look().query_row("SELECT sum(spent_nanousd) FROM budgets", [], |row| row.get(0)).expect("it is read");
    assert_eq!(spent, charged.iter().map(|receipt| receipt.charges[0].spent.0).sum::<i64>());
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
