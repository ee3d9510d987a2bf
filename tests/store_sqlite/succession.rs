//! A database that a gateway and its successor write at the same time.

use crate::receipts::{Place, append, still, until_written};
use std::sync::Arc;
use tierway::domain::budget::{Account, Charge, LeaseTerm, WindowSpan};
use tierway::domain::money::NanoUsd;
use tierway::store::sqlite::{SqliteLedger, StoreLock, WriterGuard};
use tierway::store::{LeaseRequest, LeaseStore};

const LIMIT: NanoUsd = NanoUsd(1_000_000_000);
const SPAN: WindowSpan = WindowSpan { start_ms: 0, end_ms: i64::MAX };

fn succeed(place: &Place, predecessor: &SqliteLedger) -> (SqliteLedger, WriterGuard) {
    SqliteLedger::succeed(&place.database(), None, still(), shared(predecessor))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The lock of `predecessor`, as it comes to another process.
fn shared(predecessor: &SqliteLedger) -> StoreLock {
    let lock = predecessor.lock().upgrade().expect("it writes");
    let (files, writer) = lock.for_successor();
    StoreLock::of_predecessor(files.map(|file| file.try_clone_to_owned().expect("a descriptor")), writer)
}

fn account() -> Arc<Account> {
    Arc::new(Account { scope: tierway::domain::budget::Scope::Key, name: "app".into(), window: "none".into() })
}

async fn lease(ledger: &SqliteLedger, need: i64) -> NanoUsd {
    let request =
        LeaseRequest { account: account(), span: SPAN, limit: LIMIT, need: NanoUsd(need), ahead: NanoUsd::ZERO };
    ledger.lease(request).await.expect("the store works").amount
}

#[tokio::test]
async fn both_write_and_neither_takes_the_others_money() {
    let place = Place::new();
    let (first, first_writes) = place.open();
    assert_eq!(lease(&first, 600_000_000).await, NanoUsd(600_000_000));
    let (second, second_writes) = succeed(&place, &first);
    assert_eq!(lease(&second, 600_000_000).await, NanoUsd(400_000_000), "the rest, while the first has its lease");
    append(&first, 0..300);
    append(&second, 300..600);
    until_written(&first);
    until_written(&second);
    assert_eq!(place.ids().len(), 600);
    // The first settles what it has leased, and ends; the second still has the lock.
    let spent = NanoUsd(500_000_000);
    first.write_off(&[Charge {
        account: account(),
        span: SPAN,
        spent,
        leased: NanoUsd(600_000_000),
        term: LeaseTerm::default(),
    }]);
    drop((first, first_writes));
    assert!(SqliteLedger::open(&place.database(), None, still()).is_err(), "nobody else gets the file meanwhile");
    assert_eq!(lease(&second, 600_000_000).await, NanoUsd(100_000_000));
    drop((second, second_writes));
    // A usual start counts what is still leased as spent.
    let (third, _writes) = place.open();
    assert_eq!(lease(&third, 1).await, NanoUsd::ZERO);
}

#[test]
fn a_succession_may_be_longer_than_two() {
    let place = Place::new();
    let mut all = vec![place.open()];
    for _ in 0..4 {
        let next = succeed(&place, &all.last().expect("there is one").0);
        all.push(next);
    }
    for (number, (ledger, _)) in (0..).zip(&all) {
        append(ledger, number * 10..number * 10 + 10);
    }
    all.iter().for_each(|(ledger, _)| until_written(ledger));
    assert_eq!(place.ids().len(), 50);
}

#[test]
fn a_successor_does_not_migrate_what_its_predecessor_writes() {
    let place = Place::new();
    let (first, _writes) = place.open();
    place
        .look()
        .execute_batch("DELETE FROM migrations WHERE number = (SELECT max(number) FROM migrations)")
        .expect("it is SQL");
    let refused = SqliteLedger::succeed(&place.database(), None, still(), shared(&first)).err().expect("it is refused");
    assert!(refused.to_string().contains("without --take-over"), "{refused}");
}
