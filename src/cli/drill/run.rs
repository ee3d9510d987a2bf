//! One scenario: a gateway of its own, its clients, and the script that breaks things meanwhile.
//!
//! Start reading at [`run`].

use super::drive::{AFTER, DrivenPolicy, LOOK_EVERY, LoadSpec, ScenarioProgress, SentRequest, TIMES, drive};
use super::live::{DeploymentRow, LiveContext, ScenarioView};
use super::load::{driven_policies, rate, usable_models};
use super::simulated;
use super::untrusted::UntrustedHost;
use crate::cli::gateway_client::GatewayUrl;
use crate::cli::secrets;
use crate::cli::serve::Gateway;
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::drill::burst::recovery_objective;
use crate::domain::drill::judge::{DrillCheck, DrillEvidence};
use crate::domain::drill::scenario::Scenario;
use crate::domain::drill::{DrillRequest, DrillWindow, judgement};
use crate::domain::random::RandomValue;
use crate::domain::receipt::Receipt;
use crate::domain::status::DeploymentStatus;
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
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How long the last receipts are waited for.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// What a scenario is run with.
pub(super) struct DrillContext<'a> {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) scenario: Scenario,
    /// The region that breaks, where one is named.
    pub(super) region: Option<String>,
    pub(super) draw: RandomValue,
    /// Where it is shown while it runs; `None`: a line says that it does.
    pub(super) view: Option<&'a mut ScenarioView>,
}

/// What came of a scenario.
pub(super) struct ScenarioRecord {
    pub(super) scenario: Scenario,
    /// The region that broke, if one did.
    pub(super) region: Option<Arc<str>>,
    pub(super) policies: Vec<Arc<str>>,
    /// Requests per second under each policy, while nothing was broken.
    pub(super) rate: u32,
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

    /// What happened, in a sentence without a full stop.
    pub(super) fn about(&self) -> String {
        about(self.scenario, self.region.as_ref())
    }
}

/// What happens in `scenario`, in a sentence without a full stop.
fn about(scenario: Scenario, region: Option<&Arc<str>>) -> String {
    region.map_or_else(|| scenario.about().to_owned(), |region| format!("{region} {}", scenario.about()))
}

/// The same behind its name.
pub(super) fn title(scenario: Scenario, region: Option<&Arc<str>>) -> String {
    format!("{}: {}", scenario.name(), about(scenario, region))
}

/// Runs one scenario on a gateway of its own: what one leaves behind does not change the next.
///
/// # Errors
/// The configuration cannot be simulated.
pub(super) async fn run(context: DrillContext<'_>) -> anyhow::Result<ScenarioRecord> {
    let clock = Clock;
    let DrillContext { snapshot, scenario, region, draw, view } = context;
    let ledger = Arc::new(DrillLedger::default());
    let books = Stores { ledger: ledger.clone(), ..Stores::memory().await };
    let build = BuildMetadata { version: super::super::VERSION, revision: None };
    let telemetry = Arc::new(Telemetry::new(AccessLog::off(), build));
    let rng = Rng::seeded(u64::from_le_bytes(*secrets::random_bytes()?));
    let gateway = Gateway::build(snapshot.clone(), None, telemetry, rng, clock, books)?;
    let (relay, admin) = (gateway.relay.clone(), gateway.app.admin.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url: GatewayUrl = format!("http://{}", listener.local_addr()?).parse().map_err(anyhow::Error::msg)?;
    let usable = usable_models(&snapshot)?;
    let (factor, retries) = (scenario.load_factor(), !scenario.breaks_a_region());
    let load = LoadSpec { rate: rate(scenario, usable.len()), factor, times: TIMES, retries };
    let policies = driven_policies(usable, load, &url, &snapshot, (&admin, &relay)).await?;
    let region = scenario.breaks_a_region().then(|| target(&snapshot, &policies, region)).transpose()?;
    let threads = WorkerThreads::start(snapshot.server.worker_threads)?;
    let public = Listener::from(listener).shared_by(threads.workers().runtimes())?;
    let lifecycle = gateway.lifecycle.clone();
    let serving = tokio::spawn(gateway.serve_by(threads.workers().clone(), public, None));
    let untrusted = if scenario == Scenario::BadTls { Some(UntrustedHost::start().await?) } else { None };
    let place =
        DrillPlace { snapshot: &snapshot, relay: &relay, policies: &policies, region: region.as_ref(), untrusted };
    let progress = ScenarioProgress::start(clock);
    let breaking = place.follow_script(scenario, draw, &progress);
    let showing = place.show(scenario, view, &progress);
    let (sent, done, ()) = tokio::join!(drive(&policies, load, draw, &progress), breaking, showing);
    done?;
    let requests = joined(sent, &ledger.settled(&relay, clock).await);
    lifecycle.shut_down(Duration::ZERO, Duration::ZERO).await;
    serving.await?;
    let checks = place.judged(scenario, &requests);
    let policies = policies.into_iter().map(|driven| driven.load.policy).collect();
    let finished_unix_ms = clock.unix_ms();
    Ok(ScenarioRecord { scenario, region, policies, rate: load.rate, times: TIMES, requests, checks, finished_unix_ms })
}

/// Where a scenario is run.
struct DrillPlace<'a> {
    snapshot: &'a Arc<Snapshot>,
    relay: &'a Relay,
    policies: &'a [DrivenPolicy],
    /// The region that breaks, if one does.
    region: Option<&'a Arc<str>>,
    /// What takes the place of its providers, where no fault breaks it.
    untrusted: Option<UntrustedHost>,
}

impl DrillPlace<'_> {
    /// Breaks what `scenario` breaks, and stops `progress` once the region serves again.
    ///
    /// # Errors
    /// The providers cannot be replaced.
    async fn follow_script(
        &self,
        scenario: Scenario,
        draw: RandomValue,
        progress: &ScenarioProgress,
    ) -> anyhow::Result<()> {
        let broken = self.break_region(scenario, draw, progress).await;
        if broken.is_ok() {
            self.wait_for_recovery(scenario, progress).await;
        }
        progress.stop();
        broken
    }

    /// Shows the scenario until it is stopped, or says that it runs.
    async fn show(&self, scenario: Scenario, view: Option<&mut ScenarioView>, progress: &ScenarioProgress) {
        let Some(view) = view else {
            eprintln!("{}: {} …", scenario.name(), self.region.map_or("every region", |region| &**region));
            return;
        };
        let context = LiveContext {
            title: title(scenario, self.region),
            target: self.region.cloned(),
            regions: self.snapshot.table.regions.clone(),
            ..LiveContext::default()
        };
        let row = |status: DeploymentStatus| DeploymentRow {
            deployment: status.deployment.to_string(),
            region: status.region.to_string(),
            state: status.state_label().to_owned(),
        };
        view.show(&context, progress, async || Some(self.relay.deployment_statuses().1.into_iter().map(row).collect()))
            .await;
    }

    async fn break_region(
        &self,
        scenario: Scenario,
        draw: RandomValue,
        progress: &ScenarioProgress,
    ) -> anyhow::Result<()> {
        let clock = progress.clock;
        let spared = dispensable(self.snapshot, self.policies);
        let script = self.region.map_or_else(Vec::new, |region| scenario.script(region, &spared, TIMES, draw));
        for (at, spec) in script {
            clock.sleep_until(progress.start + at).await;
            self.relay.faults().inject(spec);
        }
        if let (Some(host), Some(region)) = (&self.untrusted, self.region) {
            clock.sleep_until(progress.start + TIMES.broken_from).await;
            self.relay.reload(Arc::new(simulated::with_host(self.snapshot, region, host.address)))?;
        }
        clock.sleep_until(progress.start + TIMES.broken_until).await;
        self.relay.faults().end_all();
        if self.untrusted.is_some() {
            self.relay.reload(self.snapshot.clone())?;
        }
        Ok(())
    }

    async fn wait_for_recovery(&self, scenario: Scenario, progress: &ScenarioProgress) {
        let least = match self.region {
            Some(_) => AFTER.0,
            None => (recovery_objective(self.snapshot.table.settings.queue_wait) + AFTER.0).min(AFTER.1),
        };
        let awaited = self.region.filter(|_| scenario.recovers_soon());
        progress.wait_for_recovery(awaited, TIMES.broken_until, (least, AFTER.1)).await;
    }

    fn judged(&self, scenario: Scenario, requests: &[DrillRequest]) -> Vec<DrillCheck> {
        let settings = &self.snapshot.table.settings;
        let loads: Vec<_> = self.policies.iter().map(|driven| driven.load.clone()).collect();
        judgement(&DrillEvidence {
            scenario,
            times: TIMES,
            requests,
            target: self.region.map_or("", |region| &**region),
            confined: &self.region.map_or_else(Vec::new, |region| confined(self.policies, region)),
            loads: &loads,
            queue_wait: settings.queue_wait,
            failover_objective: self.snapshot.telemetry.failover_objective,
            silent_after: settings.silent_after,
            open: (settings.breaker.open, settings.breaker.open_max),
            holds_streams: settings.hold_streams,
            overspent: Some(&overspent(self.relay)),
            untrusted: self.untrusted.as_ref().map(UntrustedHost::reach),
        })
    }
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
    alone.map(|driven| driven.load.policy.clone()).collect()
}

fn overspent(relay: &Relay) -> Vec<String> {
    let statuses = relay.budgets();
    let over = statuses.iter().filter(|status| status.spent > status.limit);
    over.map(|status| format!("{} {}", status.account.scope.label(), status.account.name)).collect()
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
            late: sent.late,
            first_bytes: sent.answer.first_bytes,
            outcome: sent.answer.outcome,
            refusals: sent.refusals,
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
