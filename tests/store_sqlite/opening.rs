//! Creating, locking and refusing a database.

use crate::receipts::{NOW_UNIX_MS, Place, append, still, until_written};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tierway::store::sqlite::{LedgerReader, SqliteLedger, idempotency_secret, migrate, status};

fn refused(path: &Path) -> String {
    match SqliteLedger::open(path, None, still()) {
        Ok(_) => panic!("{} is opened", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_new_database_is_its_owners_alone_and_durable() {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    append(&ledger, 0..1);
    until_written(&ledger);
    for entry in std::fs::read_dir(place.folder()).expect("it is there") {
        let entry = entry.expect("it is read");
        let mode = entry.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
    let mode: String = place.look().pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("it is read");
    assert_eq!(mode, "wal");
}

#[test]
fn two_gateways_never_share_a_file() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    let said = refused(&place.database());
    assert!(said.contains("another tierway holds") && said.contains("store.url"), "{said}");
    drop((ledger, writing));
    drop(place.open());
}

#[test]
fn no_database_is_created_in_a_missing_directory() {
    let place = Place::new();
    let said = refused(&place.folder().join("not-mounted/tierway.db"));
    assert!(said.contains("there is no directory") && said.contains("not-mounted"), "{said}");
    assert!(!place.folder().join("not-mounted").exists());
}

#[test]
fn what_is_not_ours_is_refused() {
    let place = Place::new();
    place.look().execute_batch("CREATE TABLE theirs (a INTEGER)").expect("it is SQL");
    let said = refused(&place.database());
    assert!(said.contains("another program"), "{said}");
    let place = Place::new();
    std::fs::write(place.database(), "no database at all, and long enough to be mistaken for one".repeat(100))
        .expect("it is written");
    let said = refused(&place.database());
    assert!(said.contains("not a database"), "{said}");
}

#[test]
fn a_database_of_another_version_is_refused_with_what_to_do() {
    let check = |change: &str, expected: &str| {
        let place = Place::new();
        drop(place.open());
        place.look().execute_batch(change).expect("it is SQL");
        let said = refused(&place.database());
        assert!(said.contains(expected), "{said}");
        let said = LedgerReader::open(&place.database()).err().expect("it is refused").to_string();
        assert!(said.contains(expected), "{said}");
    };
    check("INSERT INTO migrations VALUES (9999, '9999_later', 'x', 0)", "run that version, or restore a backup");
    check("UPDATE migrations SET checksum = 'x'", "run the build that made it");
}

#[test]
fn an_old_database_is_migrated_by_the_gateway_and_never_by_a_reader() {
    let place = Place::new();
    std::fs::File::create(place.database()).expect("it is made");
    let said = LedgerReader::open(&place.database()).err().expect("it is refused").to_string();
    assert!(said.contains("lacks migration 0001_ledger; run `tierway migrate`"), "{said}");
    assert!(status(&place.database()).expect("it is read").iter().all(|one| one.applied_unix_ms.is_none()));
    assert_eq!(
        migrate(&place.database(), NOW_UNIX_MS).expect("it is ours").applied,
        [
            "0001_ledger",
            "0002_budgets",
            "0003_price_versions",
            "0004_register",
            "0005_failover",
            "0006_provider_request_ids",
            "0007_tokens_apart",
            "0008_idempotency",
            "0009_state_accounts",
            "0010_audit",
            "0011_sla",
            "0012_unbilled_responses",
            "0013_injected_faults",
            "0014_drill_reports"
        ]
    );
    assert!(migrate(&place.database(), NOW_UNIX_MS).expect("it is ours").applied.is_empty());
    let status = status(&place.database()).expect("it is read");
    assert!(status.iter().all(|one| one.applied_unix_ms == Some(NOW_UNIX_MS)));
    drop(place.open());
}

#[test]
fn a_database_has_one_secret_for_idempotency_keys() {
    let bound = |place: &Place, fresh: u8| {
        idempotency_secret(&place.database(), &[fresh; 32])
            .unwrap_or_else(|error| panic!("{error}"))
            .bound("app", b"once")
    };
    let (place, other) = (Place::new(), Place::new());
    let opened = (place.open(), other.open());
    let first = bound(&place, 1);
    assert_eq!(bound(&place, 2), first, "a successor has the same");
    drop(opened);
    let _opened = place.open();
    assert_eq!(bound(&place, 3), first, "and the next start");
    assert_ne!(bound(&other, 4), first);
}

#[test]
fn reading_does_not_create_a_missing_database() {
    let place = Place::new();
    let said = LedgerReader::open(&place.database()).err().expect("it is refused").to_string();
    assert!(said.contains("there is no database at"), "{said}");
    assert!(!place.database().exists());
}
