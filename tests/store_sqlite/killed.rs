//! The real binary under load: killed, and on a full disk.

use crate::process::{Client, PATIENCE, Running};
use crate::receipts::{Place, ids};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tierway::domain::random::RandomValue;

const CLIENTS: usize = 4;
const KILLS: u64 = 12;
const SEED: u64 = 20_261_122;
/// The promise is one second; the assertion allows ten times that.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

/// Clients that send requests as fast as they are answered, until they are stopped or the gateway is gone.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<u128>>>,
}

impl Load {
    fn on(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |stop: Arc<AtomicBool>| {
            std::thread::spawn(move || {
                let mut answered = Vec::new();
                let Ok(mut client) = Client::connect(addr) else { return answered };
                while !stop.load(Ordering::Relaxed) {
                    let Some(answer) = client.chat("m") else { break };
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    answered.extend(answer.id);
                }
                answered
            })
        };
        Self { clients: (0..CLIENTS).map(|_| client(stop.clone())).collect(), stop }
    }

    /// The requests that were answered.
    fn end(self) -> Vec<u128> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("every answer is good")).collect()
    }
}

/// Reads the ledger repeatedly with a connection of its own: what it has seen was committed.
struct Witness {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<u128>>>,
    reader: JoinHandle<()>,
}

impl Witness {
    fn of(place: &Place) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (look, ended, latest) = (place.look(), stop.clone(), seen.clone());
        let reader = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let committed = ids(&look);
                *latest.lock().expect("no thread panicked") = committed;
            }
        });
        Self { stop, seen, reader }
    }

    fn end(self) -> Vec<u128> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().expect("it reads");
        let seen = self.seen.lock().expect("no thread panicked");
        seen.clone()
    }
}

#[test]
fn what_was_committed_survives_kill_9() {
    let place = Place::new();
    let mut answered = HashSet::new();
    let (mut slowest, mut lost) = (Duration::ZERO, 0);
    println!("seed {SEED}");
    for round in 0..KILLS {
        let started = Instant::now();
        let gateway = Running::serve(place.folder());
        slowest = slowest.max(started.elapsed());
        let witness = Witness::of(&place);
        let load = Load::on(gateway.addr);
        std::thread::sleep(Duration::from_millis(50 + RandomValue(SEED).salted(round).below(400)));
        // Its last read may be after the kill: nothing is committed any more by then.
        gateway.kill();
        let committed = witness.end();
        let these = load.end();
        let kept: HashSet<u128> = place.ids().into_iter().collect();
        assert!(committed.iter().all(|id| kept.contains(id)), "a committed receipt is gone after kill {round}");
        lost += these.iter().filter(|id| !kept.contains(id)).count();
        answered.extend(these);
    }
    let started = Instant::now();
    let gateway = Running::serve(place.folder());
    slowest = slowest.max(started.elapsed());
    let look = place.look();
    let sound: String = look.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it is read");
    assert_eq!(sound, "ok");
    let kept = place.ids();
    assert_eq!(kept.iter().collect::<HashSet<_>>().len(), kept.len(), "no id is there twice");
    assert!(slowest < OPENS_WITHIN, "{slowest:?}");
    gateway.stop();
    println!(
        "{KILLS} kills: {} requests answered, {} receipts kept, {lost} answered in the last moment before a kill and \
         not yet written; ready after {slowest:?} at most",
        answered.len(),
        kept.len(),
    );
    assert!(answered.len() as u64 > KILLS, "there was load");
}

#[test]
fn a_graceful_shutdown_loses_nothing() {
    let place = Place::new();
    let gateway = Running::serve(place.folder());
    let load = Load::on(gateway.addr);
    std::thread::sleep(Duration::from_millis(100));
    let mut answered = load.end();
    gateway.stop();
    answered.sort_unstable();
    assert_eq!(place.ids(), answered);
}

/// Files of the process cannot grow beyond a limit, so that the system itself refuses the write.
#[test]
fn a_failing_disk_is_reported_and_requests_are_served_meanwhile() {
    let place = Place::new();
    drop(place.open());
    let gateway = Running::confined(place.folder(), 256);
    assert_eq!(gateway.ask("/readyz").0, 200);
    let load = Load::on(gateway.addr);
    // A first refusal may still be helped by a checkpoint; more than a commit's worth waits only when several tries
    // have failed, or on a machine that is slow.
    gateway.until_waiting(300);
    gateway.until_ready_says(503);
    assert!(gateway.ask("/readyz").1.contains("the ledger cannot be written"));
    assert!(gateway.ask("/metrics").1.contains("\ntierway_ledger_healthy 0\n"));
    let mut client = Client::connect(gateway.addr).expect("it listens");
    let meanwhile = client.chat("m").expect("it answers");
    assert_eq!(meanwhile.status, 200, "requests are served meanwhile");
    let mut answered = load.end();
    answered.extend(meanwhile.id);
    gateway.grow();
    gateway.until_ready_says(200);
    let deadline = Instant::now() + PATIENCE;
    while place.ids().len() < answered.len() {
        assert!(Instant::now() < deadline, "{} of {}", place.ids().len(), answered.len());
        std::thread::sleep(Duration::from_millis(5));
    }
    answered.sort_unstable();
    assert_eq!(place.ids(), answered, "none is lost, none is doubled");
    let said = gateway.stop();
    assert!(said.contains("the store cannot be written; it is tried again until it can"), "{said}");
}
