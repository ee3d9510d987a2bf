//! A key is rotated under load, and no request fails.

use crate::place::{Place, until};
use crate::process::{Client, PATIENCE};
use jiff::Timestamp;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const AT_LEAST: u64 = 2_000;
/// How long the old secret works: much longer than the clients need to change to the new one.
const OVERLAP: &str = "6s";
/// A use is recorded once in a second.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// Clients that send requests one after the other, each with the secret it was given.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    secrets: Vec<Arc<Mutex<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(addr: SocketAddr, secret: &str) -> Self {
        let (stop, answered, failed) = (Arc::default(), Arc::default(), Arc::default());
        let secrets: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Mutex::new(secret.to_owned()))).collect();
        let client = |secret: &Arc<Mutex<String>>| {
            let secret = secret.clone();
            let (stop, answered, failed): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<Mutex<Vec<String>>>) =
                (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
            std::thread::spawn(move || {
                let mut client = Client::connect(addr).expect("it listens");
                while !stop.load(Ordering::Relaxed) {
                    // Held during the request: whoever changes it knows that the old one is no longer in use.
                    let secret = secret.lock().expect("no thread panicked");
                    match client.chat_by(&secret, "m") {
                        Some(answer) if answer.status == 200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Some(answer) => failed.lock().expect("no thread panicked").push(answer.body),
                        None => {
                            failed.lock().expect("no thread panicked").push("the connection ended".to_owned());
                            return;
                        }
                    }
                }
            })
        };
        let clients = secrets.iter().map(client).collect();
        Self { stop, answered, failed, secrets, clients }
    }

    #[track_caller]
    fn until_answered(&self, more: u64) {
        let (wanted, deadline) = (self.answered.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
        while self.answered.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "{more} more are never answered: {:?}", self.failed.lock());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("it does not panic"));
        let failed = std::mem::take(&mut *self.failed.lock().expect("no thread panicked"));
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

#[test]
fn no_request_fails_during_a_rotation_and_each_secrets_last_use_is_shown() {
    let place = Place::new();
    let gateway = place.serve();
    let old = place.created("busy");
    until(&gateway, &old, 200);
    let load = Load::on(gateway.addr, &old);
    load.until_answered(AT_LEAST / 4);
    let new = place.printed(&["keys", "rotate", "busy", "--overlap", OVERLAP]).trim_end().to_owned();
    // The gateway knows the new secret within a second; a client that waits for it loses no request.
    until(&gateway, &new, 200);
    for secret in &load.secrets {
        load.until_answered(AT_LEAST / 50);
        new.clone_into(&mut secret.lock().expect("no thread panicked"));
    }
    let old_was_used_until = Timestamp::now();
    // No client uses it any more. Whether it still works is not tried, since that would be a use.
    let ends = time(&secrets(&place)[0]["ends"]).expect("it was given an end");
    while Timestamp::now() <= ends {
        load.until_answered(1);
    }
    assert_eq!(crate::place::asked(&gateway, &old), 401, "the old one has ended");
    load.until_answered(AT_LEAST / 4);
    let new_was_used_until = Timestamp::now();
    let (answered, failed) = load.end();
    println!("{answered} requests answered by {CLIENTS} clients, {} failed", failed.len());
    assert_eq!(failed, [""; 0]);
    assert!(answered >= AT_LEAST, "{answered}");
    gateway.stop();

    let secrets = secrets(&place);
    let [old_used, new_used] = [0, 1].map(|at| time(&secrets[at]["last_used"]).expect("it was used"));
    let within = |used: Timestamp, until: Timestamp| {
        let before = Duration::try_from(until.duration_since(used)).expect("it was used before that");
        // Not recorded: the duration of a request, and scheduling delays on a busy machine.
        assert!(before < NOTED_EVERY + Duration::from_secs(2), "{used} is shown, it was used until {until}");
    };
    within(old_used, old_was_used_until);
    within(new_used, new_was_used_until);
    assert!(old_used < ends && old_used < new_used, "{old_used}, {ends}, {new_used}");
    let of = |at: usize| secrets[at]["id"].as_str().expect("an id").to_owned();
    assert_eq!([of(0), of(1)], [id(&old), id(&new)]);
}

/// The secrets of the key, oldest first.
fn secrets(place: &Place) -> Vec<Value> {
    place.json(&["keys", "show", "busy"])["secrets"].as_array().expect("its secrets").clone()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().map(|text| text.parse().expect("an instant"))
}

/// As docs/keys.md explains: `printf %s "$KEY" | sha256sum | cut -c1-12`.
fn id(secret: &str) -> String {
    let script = "printf %s \"$KEY\" | sha256sum | cut -c1-12";
    let output = std::process::Command::new("sh").args(["-c", script]).env("KEY", secret).output();
    String::from_utf8(output.expect("a shell runs").stdout).expect("it is text").trim_end().to_owned()
}
