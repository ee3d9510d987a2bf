//! The lock of the database is of the file, whatever it is called, with the real binary: no second gateway writes it, and
//! none writes another file than it has locked.

use crate::process::{Client, KEY, PATIENCE, Running, SIMULATED, config, tierway};
use crate::receipts::Place;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Two cents for each request and next to nothing for its tokens, and a budget that four requests fit.
const DEAR: &str = r#"price = { input = "0.10", output = "0.25", request = "0.02" }"#;
const BUDGET: &str = r#"budget = { limit = "0.09", window = "month" }"#;

/// What a second `serve` in `folder` says, and with which code it ends.
#[track_caller]
fn refused(folder: &Path) -> String {
    let output = tierway(folder, &["serve"]).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    said
}

#[test]
fn a_second_name_of_the_file_is_the_same_lock() {
    let (place, other) = (Place::new(), Place::new());
    let running = Running::serve(place.folder());
    std::os::unix::fs::symlink(place.database(), other.database()).expect("it is linked");
    assert!(refused(other.folder()).contains("another tierway holds"));
    std::fs::remove_file(other.database()).expect("it is there");
    std::fs::hard_link(place.database(), other.database()).expect("it is linked");
    assert!(refused(other.folder()).contains("another tierway holds"));
    std::fs::remove_file(place.folder().join("tierway.db.lock")).expect("it is there");
    assert!(refused(place.folder()).contains("another tierway holds"));
    assert_eq!(Client::connect(running.addr).expect("it listens").chat("m").expect("it answers").status, 200);
    let said = running.stop();
    assert!(!said.contains("cannot be written") && !said.contains("lost"), "{said}");
}

/// Each name would have a write-ahead log of its own, and what was committed by one is not seen by the other.
#[test]
fn a_file_with_two_names_is_not_opened() {
    let (place, other) = (Place::new(), Place::new());
    Running::serve(place.folder()).kill();
    std::fs::hard_link(place.database(), other.database()).expect("it is linked");
    for folder in [place.folder(), other.folder()] {
        assert!(refused(folder).contains("has other names"));
        let output =
            tierway(folder, &["keys", "create", "more", "--policy", "all"]).output().expect("the binary starts");
        assert!(String::from_utf8_lossy(&output.stderr).contains("has other names"), "{output:?}");
    }
    std::fs::remove_file(other.database()).expect("it is there");
    drop(Running::serve(place.folder()));
}

/// How many requests of `client` are served until one is refused, and how it is.
fn served(client: &mut Client) -> (usize, u16) {
    let mut served = 0;
    loop {
        match client.chat("m").expect("it answers").status {
            200 => served += 1,
            refused => return (served, refused),
        }
    }
}

#[test]
fn a_file_that_replaces_it_is_not_spent_from_twice() {
    let (place, other) = (Place::new(), Place::new());
    let config =
        format!("{}\n[store]\nurl = \"sqlite:{}\"\n", config(SIMULATED, DEAR, BUDGET), place.database().display());
    let first = Running::configured(place.folder(), &config);
    let mut client = Client::connect(first.addr).expect("it listens");
    for _ in 0..2 {
        assert_eq!(client.chat("m").expect("it answers").status, 200);
    }
    let deadline = Instant::now() + PATIENCE;
    while place.ids().len() < 2 {
        assert!(Instant::now() < deadline, "the receipts are never written");
    }
    let copy = place.folder().join("copy.db");
    place.look().execute("VACUUM INTO ?1", [copy.to_str().expect("it is text")]).expect("it is copied");
    for file in ["tierway.db-wal", "tierway.db-shm"] {
        std::fs::remove_file(place.folder().join(file)).expect("it was there");
    }
    std::fs::rename(&copy, place.database()).expect("it is replaced");
    std::fs::write(other.folder().join("tierway.toml"), &config).expect("the folder can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
    let output = command.arg("serve").current_dir(other.folder()).env_clear().env("APP_KEY", KEY).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(69), "the path is still locked: {output:?}");
    // Whoever removes that lock, too, gets a second gateway, and no more money.
    std::fs::remove_file(place.folder().join("tierway.db.lock")).expect("it is there");
    let second = Running::configured(other.folder(), &config);
    let (of_first, refusal) = served(&mut client);
    assert_eq!(refusal, 503, "a lease from a file that is not there any more is none");
    assert_eq!(first.ask("/readyz").0, 503);
    let (of_second, refusal) = served(&mut Client::connect(second.addr).expect("it listens"));
    assert_eq!(refusal, 429);
    assert!(2 + of_first + of_second <= 4, "2, then {of_first} and {of_second} of 0.09 USD");
    assert!(of_second > 0, "what is left is spent");
}
