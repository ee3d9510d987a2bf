//! Deleting receipts beyond the retention.

use crate::receipts::{Place, append, ids, still, until_written};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tierway::store::sqlite::SqliteLedger;

const DAY_MS: i64 = 86_400_000;

#[test]
fn receipts_are_kept_for_the_configured_retention() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    // One each millisecond: the limit falls between two of them.
    let appended = append(&ledger, 0..3_000);
    until_written(&ledger);
    drop((ledger, writing));
    let now = Arc::new(AtomicI64::new(still()() + 400 * DAY_MS + 2_000));
    let clock = now.clone();
    let clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let keep = Duration::from_secs(400 * 86_400);
    let (_ledger, _writing) = SqliteLedger::open(&place.database(), Some(keep), clock).expect("it is opened");
    let look = place.look();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The batches are apart by the clock, which moves only when the test moves it.
        now.fetch_add(20, Ordering::Relaxed);
        let left = ids(&look);
        assert!(Instant::now() < deadline, "{} are left", left.len());
        if left.first() >= Some(&appended[2_000]) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ids(&look).last(), appended.last());
}

#[test]
fn without_retention_everything_is_kept() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    let appended = append(&ledger, 0..10);
    until_written(&ledger);
    drop((ledger, writing));
    let later = Arc::new(|| still()() + 40_000 * DAY_MS);
    let (ledger, _writing) = SqliteLedger::open(&place.database(), None, later).expect("it is opened");
    append(&ledger, 10..11);
    until_written(&ledger);
    assert_eq!(place.ids()[..10], appended);
}
