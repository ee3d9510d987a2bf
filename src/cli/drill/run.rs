//! One scenario: a gateway of its own, its clients, and the script that breaks things meanwhile.
//!
//! Start reading at [`run`].

use super::load::{DrivenPolicy, SentRequest, drive, driven_policies};
use crate::cli::secrets;
use crate::cli::serve::Gateway;
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::drill::judge::{DrillCheck, DrillEvidence, judge};
use crate::domain::drill::scenario::Scenario;
use crate::domain::drill::{DrillRequest, DrillWindow};
use crate::domain::random::RandomValue;
use crate::domain::receipt::{Outcome, Receipt};
use crate::http::conn::listener::Listener;
use crate::http::conn::workers::WorkerThreads;
use crate::random::Rng;
use crate::relay::Relay;
use crate::store::{Ledger, LedgerStatus, ReceiptRoom, Stores};
use crate::telemetry::Telemetry;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::BuildMetadata;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How long nothing is broken at first, and how long something is then. A gateway that has served for a while knows what
/// is usual at each deployment, and one that has just begun does not.
const TIMES: DrillWindow = DrillWindow { broken_from: Duration::from_secs(8), broken_until: Duration::from_secs(14) };
/// How long it goes on afterwards: at least, and at most where the region does not serve again.
const AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How often it is asked whether the region serves again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the last receipts are waited for.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// What a scenario is run with.
pub(super) struct DrillContext {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) scenario: Scenario,
    /// The region that breaks, where one is named.
    pub(super) region: Option<String>,
    pub(super) draw: RandomValue,
}

/// What came of a scenario.
pub(super) struct ScenarioRecord {
    pub(super) scenario: Scenario,
    /// The region that broke.
    pub(super) region: Arc<str>,
    pub(super) policies: Vec<Arc<str>>,
    pub(super) times: DrillWindow,
    pub(super) requests: Vec<DrillRequest>,
    pub(super) checks: Vec<DrillCheck>,
    /// When it ended, in Unix milliseconds.
    pub(super) finished_unix_ms: i64,
}

impl ScenarioRecord {
    pub(super) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Runs one scenario on a gateway of its own: what one leaves behind does not change the next.
///
/// # Errors
/// The configuration cannot be simulated.
pub(super) async fn run(context: DrillContext) -> anyhow::Result<ScenarioRecord> {
    let clock = Clock;
    let DrillContext { snapshot, scenario, region, draw } = context;
    let ledger = Arc::new(DrillLedger::default());
    let books = Stores { ledger: ledger.clone(), ..Stores::memory().await };
    let build = BuildMetadata { version: super::super::VERSION, revision: None };
    let telemetry = Arc::new(Telemetry::new(AccessLog::off(), build));
    let rng = Rng::seeded(u64::from_le_bytes(*secrets::random_bytes()?));
    let gateway = Gateway::build(snapshot.clone(), None, telemetry, rng, clock, books)?;
    let (relay, admin) = (gateway.relay.clone(), gateway.app.admin.clone());
    let policies = driven_policies(&snapshot, &admin, &relay).await?;
    let region = target(&snapshot, &policies, region)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let threads = WorkerThreads::start(snapshot.server.worker_threads)?;
    let public = Listener::from(listener).shared_by(threads.workers().runtimes())?;
    let lifecycle = gateway.lifecycle.clone();
    let serving = tokio::spawn(gateway.serve_by(threads.workers().clone(), public, None));
    eprintln!("{}: {region} …", scenario.name());
    let start = clock.now();
    let stop = AtomicBool::new(false);
    let script = scenario.script(&region, &dispensable(&snapshot, &policies), TIMES, draw);
    let breaking = async {
        for (at, spec) in script {
            clock.sleep_until(start + at).await;
            relay.faults().inject(spec);
        }
        clock.sleep_until(start + TIMES.broken_until).await;
        relay.faults().end_all();
        wait_for_recovery(&ledger, &region, scenario, clock).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(drive(address, &policies, start, &stop, clock), breaking);
    let requests = joined(sent, &ledger.settled(&relay, clock).await);
    lifecycle.shut_down(Duration::ZERO, Duration::ZERO).await;
    serving.await?;
    let evidence = DrillEvidence {
        scenario,
        times: TIMES,
        requests: &requests,
        target: &region,
        confined: &confined(&policies, &region),
        failover_objective: snapshot.telemetry.failover_objective,
        silent_after: snapshot.table.settings.silent_after,
        open: (snapshot.table.settings.breaker.open, snapshot.table.settings.breaker.open_max),
        holds_streams: snapshot.table.settings.hold_streams,
        overspent: &overspent(&relay),
    };
    let checks = judge(&evidence);
    let policies = policies.iter().map(|driven| driven.policy.name.clone()).collect();
    let finished_unix_ms = clock.unix_ms();
    Ok(ScenarioRecord { scenario, region, policies, times: TIMES, requests, checks, finished_unix_ms })
}

/// The region that breaks: the one that is named, or the first in the file that serves some policy.
fn target(snapshot: &Snapshot, policies: &[DrivenPolicy], named: Option<String>) -> anyhow::Result<Arc<str>> {
    let serves = |region: &&Arc<str>| policies.iter().any(|driven| driven.regions.contains(*region));
    let mut serving = snapshot.table.regions.iter().filter(serves);
    let found = match &named {
        Some(named) => serving.find(|region| ***region == **named),
        None => serving.next(),
    };
    let what = named.map_or_else(|| "no region serves".to_owned(), |named| format!("region {named} does not serve"));
    found.cloned().ok_or_else(|| anyhow::anyhow!("{what} any policy that is driven: there is nothing to rehearse"))
}

/// The regions that every policy has another one for; all of them where there is none.
fn dispensable(snapshot: &Snapshot, policies: &[DrivenPolicy]) -> Vec<Arc<str>> {
    let regions = &snapshot.table.regions;
    let found: Vec<_> = regions.iter().filter(|region| confined(policies, region).is_empty()).cloned().collect();
    if found.is_empty() { regions.clone() } else { found }
}

/// The policies that reach nothing but `region`.
fn confined(policies: &[DrivenPolicy], region: &Arc<str>) -> Vec<Arc<str>> {
    let alone = policies.iter().filter(|driven| driven.regions.iter().eq([region]));
    alone.map(|driven| driven.policy.name.clone()).collect()
}

fn overspent(relay: &Relay) -> Vec<String> {
    let statuses = relay.budgets();
    let over = statuses.iter().filter(|status| status.spent > status.limit);
    over.map(|status| format!("{} {}", status.account.scope.label(), status.account.name)).collect()
}

/// Waits until `region` serves again, where that is judged.
async fn wait_for_recovery(ledger: &DrillLedger, region: &str, scenario: Scenario, clock: Clock) {
    let (ended, ended_unix_ms) = (clock.now(), clock.unix_ms());
    let recovers = scenario.recovers_soon();
    loop {
        clock.sleep(LOOK_EVERY).await;
        let waited = clock.now().saturating_duration_since(ended);
        let is_back = !recovers || ledger.has_served(region, ended_unix_ms);
        if waited >= AFTER.1 || (waited >= AFTER.0 && is_back) {
            return;
        }
    }
}

/// What clients saw, with what the gateway wrote on its receipts.
fn joined(sent: Vec<SentRequest>, receipts: &[Arc<Receipt>]) -> Vec<DrillRequest> {
    let by_id: HashMap<String, &Arc<Receipt>> =
        receipts.iter().map(|receipt| (receipt.id.to_string(), receipt)).collect();
    let one = |sent: SentRequest| {
        let receipt = sent.answer.id.as_ref().and_then(|id| by_id.get(id));
        let served =
            receipt.filter(|receipt| receipt.first_token.is_some()).and_then(|receipt| receipt.served.as_ref());
        DrillRequest {
            policy: sent.policy,
            stream: sent.stream,
            sent: sent.sent,
            first_bytes: sent.answer.first_bytes,
            outcome: sent.answer.outcome,
            attempts: receipt.map_or(0, |receipt| u32::try_from(receipt.attempts.len()).unwrap_or(u32::MAX)),
            failover: receipt.and_then(|receipt| receipt.failover),
            region: served.map(|served| served.region.clone()),
        }
    };
    sent.into_iter().map(one).collect()
}

/// The receipts of one scenario, in memory.
#[derive(Default)]
struct DrillLedger {
    receipts: Mutex<Vec<Arc<Receipt>>>,
}

impl DrillLedger {
    /// Whether `region` has served a request that came at `since` (Unix milliseconds) or later.
    fn has_served(&self, region: &str, since: i64) -> bool {
        self.receipts.lock().iter().rev().any(|receipt| {
            let served = receipt.served.as_ref().filter(|_| receipt.outcome == Outcome::Served);
            receipt.received_unix_ms >= since && served.is_some_and(|served| *served.region == *region)
        })
    }

    /// Every receipt, once all requests have theirs.
    async fn settled(&self, relay: &Relay, clock: Clock) -> Vec<Arc<Receipt>> {
        let patience: Instant = clock.now() + SETTLES_WITHIN;
        while (self.receipts.lock().len() as u64) < relay.entered() && clock.now() < patience {
            clock.sleep(LOOK_EVERY).await;
        }
        self.receipts.lock().clone()
    }
}

impl Ledger for DrillLedger {
    fn reserve(&self) -> Option<ReceiptRoom> {
        Some(ReceiptRoom::unlimited())
    }

    fn append(&self, receipt: &Arc<Receipt>, _: Option<ReceiptRoom>) {
        self.receipts.lock().push(receipt.clone());
    }

    fn status(&self) -> LedgerStatus {
        LedgerStatus { healthy: true, waiting: 0, dropped: 0 }
    }
}
