//! Clients that send requests, and what became of them.

use crate::client::{Client, Kind};
use crate::gateway::PATIENCE;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What became of all requests.
pub struct Summary {
    /// Requests of clients, failed ones included.
    pub answered: u64,
    /// Requests to the operators' address, failed ones included.
    pub probes: u64,
    /// Streams that began before a restart and ended after it had begun.
    pub streams_across: u64,
    /// What went wrong.
    pub failed: Vec<String>,
    /// The longest time until an answer's first byte.
    pub longest: Duration,
}

/// What a [`Load`] is sent to, and how.
#[derive(Clone, Copy)]
pub struct LoadPlan {
    /// Where clients send.
    pub clients: SocketAddr,
    /// Where operators ask, and the path that must always be answered with 200.
    pub probed: Option<(SocketAddr, &'static str)>,
    /// What is open while the others come and go.
    pub long: Kind,
    /// Requests that are sent at least.
    pub requests: u64,
    /// Whether it goes on after those until [`Load::release`].
    pub held: bool,
    /// The least time between two requests of one client.
    pub pause: Duration,
}

#[derive(Default)]
struct Shared {
    held: AtomicBool,
    begun: AtomicU64,
    answered: AtomicU64,
    probes: AtomicU64,
    ending: AtomicBool,
    restarts: AtomicU64,
    streams_across: AtomicU64,
    longest_us: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// Clients that run until so many requests are answered.
pub struct Load {
    shared: Arc<Shared>,
    requests: u64,
    counted: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends as `plan` says, and besides that slow streams and probes.
    pub fn start(plan: LoadPlan) -> Self {
        let LoadPlan { clients, requests, pause, .. } = plan;
        let shared = Arc::new(Shared { held: plan.held.into(), ..Shared::default() });
        let mut counted = Vec::new();
        for (kind, keeps, pause_ms) in [
            (Kind::Whole, true, 0),
            (Kind::Whole, true, 3),
            (Kind::Whole, true, 40),
            (Kind::Whole, false, 0),
            (Kind::Stream, true, 0),
            (Kind::Stream, true, 15),
            (Kind::Stream, false, 0),
        ] {
            let (shared, mut client) = (shared.clone(), Client::new(clients, keeps));
            counted.push(std::thread::spawn(move || {
                while shared.begun.fetch_add(1, Ordering::SeqCst) < requests || shared.held.load(Ordering::SeqCst) {
                    shared.request(&mut client, kind);
                    std::thread::sleep(pause.max(Duration::from_millis(pause_ms)));
                }
            }));
        }
        let mut beside = vec![(plan.long, clients, true), (plan.long, clients, true), (plan.long, clients, false)];
        if let Some((operators, path)) = plan.probed {
            beside.extend([true, false].map(|keeps| (Kind::Probe(path), operators, keeps)));
        }
        let others = beside.into_iter().map(|(kind, addr, keeps)| {
            let (shared, mut client) = (shared.clone(), Client::new(addr, keeps));
            std::thread::spawn(move || {
                while !shared.ending.load(Ordering::SeqCst) {
                    shared.request(&mut client, kind);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        });
        let others = others.collect();
        Self { shared, requests, counted, others }
    }

    /// Lets a load that is held end once all its requests are sent.
    pub fn release(&self) {
        self.shared.held.store(false, Ordering::SeqCst);
    }

    /// Waits until so many requests are answered, or have failed.
    pub fn until_answered(&self, count: u64) {
        let (mut seen, mut changed) = (0, Instant::now());
        while seen < count {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.shared.answered.load(Ordering::SeqCst);
            if now != seen {
                (seen, changed) = (now, Instant::now());
            }
            assert!(changed.elapsed() < PATIENCE, "{seen} of {} are answered, and no more", self.requests);
        }
    }

    /// Does `restart` as something that streams may be open across.
    pub fn across<T>(&self, restart: impl FnOnce() -> T) -> T {
        self.shared.restarts.fetch_add(1, Ordering::SeqCst);
        restart()
    }

    /// Waits for the last requests.
    pub fn end(self) -> Summary {
        let joined = |threads: Vec<JoinHandle<()>>| {
            threads.into_iter().for_each(|thread| thread.join().expect("a client does not panic"));
        };
        joined(self.counted);
        self.shared.ending.store(true, Ordering::SeqCst);
        joined(self.others);
        let shared = self.shared;
        Summary {
            answered: shared.answered.load(Ordering::SeqCst),
            probes: shared.probes.load(Ordering::SeqCst),
            streams_across: shared.streams_across.load(Ordering::SeqCst),
            longest: Duration::from_micros(shared.longest_us.load(Ordering::SeqCst)),
            failed: std::mem::take(&mut *shared.failed.lock().expect("no client panics")),
        }
    }
}

impl Shared {
    fn request(&self, client: &mut Client, kind: Kind) {
        let before = self.restarts.load(Ordering::SeqCst);
        match client.request(kind) {
            Ok(first) => {
                let first_us = u64::try_from(first.as_micros()).unwrap_or(u64::MAX);
                self.longest_us.fetch_max(first_us, Ordering::SeqCst);
            }
            Err(error) => self.failed.lock().expect("no client panics").push(error),
        }
        if matches!(kind, Kind::SlowStream | Kind::LongStream) && self.restarts.load(Ordering::SeqCst) != before {
            self.streams_across.fetch_add(1, Ordering::SeqCst);
        }
        let count = if matches!(kind, Kind::Probe(_)) { &self.probes } else { &self.answered };
        count.fetch_add(1, Ordering::SeqCst);
    }
}
