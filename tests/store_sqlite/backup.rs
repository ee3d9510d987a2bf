//! A copy of the database, made while a gateway writes it.

use crate::receipts::{Place, append, ids, until_written};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tierway::store::sqlite::{BackupError, backup, unfinished};

const COPIES: usize = 8;

fn ids_of(path: &Path) -> Vec<u128> {
    ids(&Connection::open(path).expect("the copy is a database"))
}

#[test]
fn a_copy_holds_what_was_committed_when_it_began_and_opens_as_a_store() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ledger, stopped) = (&ledger, &stop);
        scope.spawn(move || {
            let mut at = 0;
            while !stopped.load(Ordering::Relaxed) {
                append(ledger, at..at + 50);
                until_written(ledger);
                at += 50;
            }
        });
        for number in 0..COPIES {
            let to = place.database().with_file_name(format!("copy-{number}.db"));
            let before = place.ids();
            let bytes = backup(&place.database(), &to).expect("it is copied");
            let (copied, after) = (ids_of(&to), place.ids());
            assert!(copied.starts_with(&before) && after.starts_with(&copied), "copy {number}");
            let file = to.metadata().expect("it is there");
            assert_eq!((file.permissions().mode() & 0o777, file.len()), (0o600, bytes));
            assert!(!unfinished(&to).exists());
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop((ledger, writing));
    // Put in the place of a lost one, it is served from.
    let restored = Place::new();
    let copy = place.database().with_file_name("copy-0.db");
    std::fs::copy(&copy, restored.database()).expect("it is put in place");
    let expected = ids_of(&copy);
    let (_ledger, _writing) = restored.open();
    assert_eq!(restored.ids(), expected);
}

#[test]
fn nothing_is_overwritten_and_nothing_half_made_is_left() {
    let place = Place::new();
    drop(place.open());
    let folder = place.database().parent().expect("it is in a folder").to_owned();
    let [taken, link, lost] = ["taken.db", "link.db", "lost/copy.db"].map(|name| folder.join(name));
    std::fs::write(&taken, "mine").expect("it is written");
    std::os::unix::fs::symlink("nowhere", &link).expect("it is linked");
    for there in [&taken, &link, &place.database()] {
        assert!(matches!(backup(&place.database(), there), Err(BackupError::Exists(_))), "{there:?}");
    }
    assert_eq!(std::fs::read_to_string(&taken).expect("it is there"), "mine");
    assert!(matches!(backup(&place.database(), &lost), Err(BackupError::Unwritable { .. })));
    let none = backup(&folder.join("none.db"), &folder.join("copy.db"));
    assert!(matches!(none, Err(BackupError::Open(_))));
    // What an interrupted one left is in nobody's way.
    let to = folder.join("copy.db");
    std::fs::write(unfinished(&to), "half of it").expect("it is written");
    assert!(backup(&place.database(), &to).is_ok() && !unfinished(&to).exists());
}

#[test]
fn a_damaged_database_is_not_copied_as_if_it_were_whole() {
    let place = Place::new();
    let (ledger, writing) = place.open();
    append(&ledger, 0..2_000);
    until_written(&ledger);
    drop((ledger, writing));
    let mut bytes = std::fs::read(place.database()).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(place.database(), bytes).expect("it can be written");
    let to = place.database().with_file_name("copy.db");
    assert!(backup(&place.database(), &to).is_err());
    assert!(!to.exists() && !unfinished(&to).exists());
}
