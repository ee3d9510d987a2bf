//! Regions that fail by turns: while any one of three is well, no request fails, whole or streamed.
//!
//! Two worlds. In the rotating one a single region is well, and after a while another one. In the flipping one a
//! single region is always well and each of the others breaks and heals at random. Faults are all those before the
//! first token. Clients never retry: every failed request counts, and names the state of the regions and its answer.
//!
//! The gateway has its default settings. The usual run sends few requests, far apart; `TIERWAY_ROTATION_REQUESTS` and
//! `TIERWAY_FLIPPING_REQUESTS` set another number, which is sent faster.
//!
//! Start reading in [`run`].

use crate::support::client::Response;
use crate::support::gateway::{ALLOW_ALL, provider_table};
use crate::support::{Fault, ScriptedProvider, TestClients, TestGateway, TestRequest};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tierway::domain::receipt::{AttemptRecord, Outcome, Receipt};

/// Regions, no more than attempts.
const REGIONS: usize = 3;
/// Connections that send requests at the same time.
const CONNECTIONS: usize = 16;
/// Requests in the usual run, and the time between two: long enough for several changes.
const REQUESTS: usize = 2_000;
const EVERY: Duration = Duration::from_millis(17);
/// The time between two requests in a run of another number.
const EVERY_OF_MANY: Duration = Duration::from_millis(5);
/// Milliseconds between two changes of the only region that is well.
const ROTATING: Range<u64> = 6_000..8_000;
/// Milliseconds between two changes of one region that is not always well.
const FLIPPING: Range<u64> = 1_000..10_000;
/// How long a request may take.
const UNANSWERED: Duration = Duration::from_secs(10);
/// How many receipts a failed run shows.
const SHOWN: usize = 12;
/// Of the random numbers.
const SEED: u64 = 11;

/// How the regions fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum World {
    /// One is well, and another one after each period.
    Rotating,
    /// The last is well; each other one breaks otherwise, or heals, after each period of its own.
    Flipping,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_only_region_that_is_well_is_another_one_every_few_seconds() {
    run(World::Rotating, load("TIERWAY_ROTATION_REQUESTS")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_all_regions_but_one_break_and_heal_at_random() {
    run(World::Flipping, load("TIERWAY_FLIPPING_REQUESTS")).await;
}

/// How many requests to send, and the time between two.
fn load(variable: &str) -> (usize, Duration) {
    match std::env::var(variable) {
        Ok(number) => (number.parse().unwrap_or_else(|_| panic!("{variable} is a number")), EVERY_OF_MANY),
        Err(_) => (REQUESTS, EVERY),
    }
}

async fn run(world: World, (requests, every): (usize, Duration)) {
    let (gateway, regions) = start().await;
    let state = Arc::new(Mutex::new(State::default()));
    let mut clients = TestClients::new(CONNECTIONS, &gateway);
    // Connections are open and every region has answered, as before any outage.
    clients.send_all(2 * CONNECTIONS, request).await;
    let mut rng = fastrand::Rng::with_seed(SEED);
    let begun = Instant::now();
    let seen = state.clone();
    let waiting: Arc<Mutex<BTreeMap<usize, Instant>>> = Arc::default();
    let (sending, answered) = (waiting.clone(), waiting.clone());
    let make = move |number| {
        sending.lock().expect("no holder panics").insert(number, Instant::now());
        request(number)
    };
    let read = move |number: usize, answer: Response| {
        let sent = answered.lock().expect("no holder panics").remove(&number);
        (sent.expect("it was sent").elapsed(), End::of(number, &answer, &seen))
    };
    let asking = async { clients.send_paced(requests, every, make, read).await };
    let breaking = async {
        match world {
            World::Rotating => rotate(&regions, &state, &mut rng).await,
            World::Flipping => flip(&regions, &state, &mut rng).await,
        }
    };
    let ends = tokio::select! {
        ends = asking => Ok(ends),
        number = unanswered(&waiting) => Err(number),
        never = breaking => match never {},
    };
    let history = state.lock().expect("no holder panics").history.join("\n");
    match ends {
        Ok(ends) => report(world, ends, &state, &gateway, begun.elapsed()),
        Err(number) => {
            // Its connection is closed: what became of it is on its receipt, soon.
            drop(clients);
            gateway.receipts(gateway.relay.entered()).await;
            show_receipts(&gateway);
            panic!("request {number} had no answer after {UNANSWERED:?}\n{history}");
        }
    }
}

/// Returns the first request that has no answer for too long.
async fn unanswered(waiting: &Mutex<BTreeMap<usize, Instant>>) -> usize {
    loop {
        tokio::time::sleep(UNANSWERED / 10).await;
        let waiting = waiting.lock().expect("no holder panics");
        if let Some((number, _)) = waiting.iter().find(|(_, sent)| sent.elapsed() > UNANSWERED) {
            return *number;
        }
    }
}

/// Prints the attempts of requests that were not served, and of those that took longest.
fn show_receipts(gateway: &TestGateway) {
    let mut receipts = gateway.ledger.recent();
    let unserved = |receipt: &Receipt| receipt.status != 200 || receipt.outcome != Outcome::Served;
    let took = |receipt: &Receipt| {
        let ends = receipt.attempts.iter().map(|attempt| attempt.started.unwrap_or_default() + attempt.duration);
        ends.max().unwrap_or_default()
    };
    receipts.sort_by_key(|receipt| (!unserved(receipt), std::cmp::Reverse(took(receipt))));
    for receipt in receipts.iter().take(SHOWN) {
        println!("{} {:?} after {:?}, streamed: {}", receipt.status, receipt.reason, took(receipt), receipt.stream);
        for AttemptRecord { deployment, reason, started, duration, .. } in &receipt.attempts {
            println!("    {deployment}: {reason:?} from {:?} for {duration:?}", started.unwrap_or_default());
        }
        receipt.passed_over.iter().for_each(|passed| println!("    {passed:?}"));
    }
}

/// Every second one is streamed.
fn request(number: usize) -> TestRequest {
    if number.is_multiple_of(2) { TestRequest::chat("small") } else { TestRequest::stream("small") }
}

async fn start() -> (TestGateway, Vec<ScriptedProvider>) {
    let (mut regions, mut config) = (Vec::new(), String::new());
    for number in 0..REGIONS {
        let provider = ScriptedProvider::start(&format!("r{number}")).await;
        config += &provider_table(&format!("r{number}"), &provider, &format!("region-{number}"));
        regions.push(provider);
    }
    let deployments: Vec<_> = (0..REGIONS).map(|number| format!("{{ provider = \"r{number}\" }}")).collect();
    config += &format!("[models.small]\ndeployments = [{}]\n{ALLOW_ALL}", deployments.join(", "));
    (TestGateway::start(&config).await, regions)
}

/// The next region is well before the last one breaks: at every instant one is. The faults that state a time are left
/// out: nothing is sent there before that time, which may be the one at which it is the only region that is well.
async fn rotate(regions: &[ScriptedProvider], state: &Mutex<State>, rng: &mut fastrand::Rng) -> Infallible {
    let faults =
        Fault::ALL.into_iter().filter(|f| !matches!(f, Fault::Status429RetryAfter | Fault::Status503RetryAfter));
    let faults: Vec<_> = faults.collect();
    let mut well = 0;
    for number in 1..REGIONS {
        change(regions, state, number, Some(faults[rng.usize(..faults.len())])).await;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(rng.u64(ROTATING))).await;
        let next = (well + rng.usize(1..REGIONS)) % REGIONS;
        change(regions, state, next, None).await;
        change(regions, state, well, Some(faults[rng.usize(..faults.len())])).await;
        well = next;
    }
}

async fn flip(regions: &[ScriptedProvider], state: &Mutex<State>, rng: &mut fastrand::Rng) -> Infallible {
    let mut due = [Instant::now(); REGIONS - 1];
    loop {
        let number = if due[0] <= due[1] { 0 } else { 1 };
        tokio::time::sleep_until(due[number].into()).await;
        // As often well as it has any one fault.
        let fault = Fault::ALL.get(rng.usize(..=Fault::ALL.len())).copied();
        change(regions, state, number, fault).await;
        due[number] = Instant::now() + Duration::from_millis(rng.u64(FLIPPING));
    }
}

async fn change(regions: &[ScriptedProvider], state: &Mutex<State>, number: usize, fault: Option<Fault>) {
    match fault {
        Some(fault) => regions[number].break_with(fault).await,
        None => regions[number].heal().await,
    }
    // What was received is of no interest here.
    regions[number].clear();
    let mut state = state.lock().expect("no holder panics");
    let before = state.describe();
    state.history.push(before);
    state.faults[number] = fault;
    state.changes += 1;
    state.changed = Some(Instant::now());
}

/// What is broken now.
#[derive(Default)]
struct State {
    /// By region; `None` is well.
    faults: [Option<Fault>; REGIONS],
    changes: usize,
    changed: Option<Instant>,
    /// Each state when it ended.
    history: Vec<String>,
}

impl State {
    fn describe(&self) -> String {
        let faults = self.faults.map(|fault| fault.map_or("well".to_owned(), |fault| format!("{fault:?}")));
        let since = self.changed.map_or(0, |at| at.elapsed().as_millis());
        format!("change {}, {since} ms ago: {}", self.changes, faults.join(", "))
    }
}

/// How a request ended.
enum End {
    Served,
    /// After its first token: its connection was in use when its region broke.
    BrokeOff(String),
    Failed(String),
}

impl End {
    fn of(number: usize, answer: &Response, state: &Mutex<State>) -> Self {
        let Err(why) = answer.chat_text() else { return Self::Served };
        let state = state.lock().expect("no holder panics").describe();
        let attempts = answer.header("x-tierway-attempts").unwrap_or("no");
        let why = format!("request {number}, {attempts} attempts; {state}; {why}");
        if answer.status == 200 { Self::BrokeOff(why) } else { Self::Failed(why) }
    }
}

fn report(world: World, ends: Vec<(Duration, End)>, state: &Mutex<State>, gateway: &TestGateway, elapsed: Duration) {
    let asked = ends.len();
    let mut took: Vec<_> = ends.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    let (mut failed, mut broke_off) = (Vec::new(), Vec::new());
    for (_, end) in ends {
        match end {
            End::Served => {}
            End::BrokeOff(why) => broke_off.push(why),
            End::Failed(why) => failed.push(why),
        }
    }
    let attempts: u64 = (0..REGIONS).map(|number| gateway.attempts_at(&format!("r{number}/small"))).sum();
    let changes = state.lock().expect("no holder panics").changes;
    failed.iter().for_each(|why| println!("failed: {why}"));
    broke_off.iter().for_each(|why| println!("broke off: {why}"));
    println!(
        "{world:?}: {} failed and {} broke off of {asked} in {elapsed:.1?} with {changes} changes and {attempts} attempts; \
         p50 {:.1?}, p99 {:.1?}, slowest {:.1?}",
        failed.len(),
        broke_off.len(),
        took[asked / 2],
        took[asked * 99 / 100],
        took[asked - 1],
    );
    if !failed.is_empty() {
        show_receipts(gateway);
    }
    assert!(failed.is_empty(), "{} of {asked} requests failed", failed.len());
}
