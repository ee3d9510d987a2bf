//! Every metric, declared once.
//!
//! Values come from receipts, and from a few events without one. Nothing here may decide anything, and
//! no label may hold text from a client ([`Label`] cannot).
//!
//! Start reading at the table of metrics; [`Metrics::record`] is what one receipt changes.

use super::labelled::{LabelledMetric, MetricSpec, spec};
use super::labels::{self, Label, ModeLabel, ReplayOutcome, TokenKind};
use super::registry::MetricRegistry;
use crate::domain::breaker::{StateName, Transition};
use crate::domain::budget::AccountStatus;
use crate::domain::pause::PauseScope;
use crate::domain::receipt::{PlannedModel, Receipt};
use crate::domain::refusal::{KeyRefusal, SecretTarget};
use crate::domain::sla::{SlaClass, SlaTerms, WHOLE_BP};
use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

// The table: every metric's name, help text and label names.
const REQUESTS: MetricSpec<4> = spec(
    "tierway_requests_total",
    "Requests that ended, by what served them or was tried last, and by the reason of the end.",
    ["tier", "model", "deployment", "reason"],
);
const REQUEST_DURATION: MetricSpec<1> = spec(
    "tierway_request_duration_seconds",
    "Seconds from the receipt of a request to its end, however it ended.",
    ["mode"],
);
const FIRST_TOKEN: MetricSpec<2> = spec(
    "tierway_first_token_seconds",
    "Seconds from the receipt of a request to its first token: of a whole answer, to all of it.",
    ["tier", "mode"],
);
const UPSTREAM_DURATION: MetricSpec<2> = spec(
    "tierway_upstream_duration_seconds",
    "Seconds from sending an attempt to its failure, or to its first token: of a whole answer, to all of it.",
    ["deployment", "mode"],
);
const OVERHEAD: MetricSpec<0> =
    spec("tierway_overhead_seconds", "Seconds spent in the gateway itself up to the first byte of the answer.", []);
const TOKENS: MetricSpec<1> =
    spec("tierway_tokens_total", "Tokens; cached_input is part of input, reasoning of output.", ["kind"]);
const COST: MetricSpec<0> =
    spec("tierway_cost_nanousd_total", "Cost of all requests in billionths of a US dollar.", []);
const ATTEMPTS: MetricSpec<2> =
    spec("tierway_attempts_total", "Attempts at deployments, by the reason of their end.", ["deployment", "reason"]);
const FALLBACKS: MetricSpec<3> = spec(
    "tierway_fallbacks_total",
    "Answers by another model, or through another tier, than the plan put first: TIER:MODEL to TIER:MODEL, by the reason of the first attempt at it, or passed_over without one. And attempts at another deployment of one model: deployment to deployment, by the reason the one before failed.",
    ["from", "to", "reason"],
);
const FAILOVER: MetricSpec<3> = spec(
    "tierway_failover_seconds",
    "Seconds from sending the first attempt to the commit point of another one that answered in its place, by the region and the reason of the first.",
    ["from_region", "reason", "mode"],
);
const FAILOVERS: MetricSpec<1> =
    spec("tierway_failovers_total", "Requests that another attempt than the first answered.", ["mode"]);
const FAILOVERS_WITHIN: MetricSpec<1> = spec(
    "tierway_failovers_within_objective_total",
    "Requests that another attempt than the first answered, within the objective in force at their end.",
    ["mode"],
);
const FAILOVER_OBJECTIVE: MetricSpec<0> =
    spec("tierway_failover_objective_seconds", "The longest that a failover should take, as configured.", []);
const SPLICES: MetricSpec<1> = spec(
    "tierway_splices_total",
    "Streams that broke and were to go on at another deployment, by what became of that.",
    ["outcome"],
);
const BREAKER_STATE: MetricSpec<2> = spec(
    "tierway_breaker_state",
    "1 for the state a deployment's breaker is in, 0 for the others.",
    ["deployment", "state"],
);
const BREAKER_TRANSITIONS: MetricSpec<3> = spec(
    "tierway_breaker_transitions_total",
    "Changes of a deployment's breaker, by the state entered.",
    ["deployment", "to", "reason"],
);
const IN_FLIGHT: MetricSpec<0> = spec("tierway_in_flight", "Requests being served now.", []);
const LIMIT_REFUSALS: MetricSpec<2> =
    spec("tierway_limit_refusals_total", "Requests refused by a limit of their key.", ["policy", "limit"]);
const SECRETS_REFUSED: MetricSpec<2> = spec(
    "tierway_secrets_refused_total",
    "Keys and operators' tokens that were refused, by what they were presented for and why.",
    ["target", "why"],
);
const CONFIG_RELOADS: MetricSpec<1> = spec("tierway_config_reloads_total", "Reloads of the configuration.", ["result"]);
const CONFIG_LAST_RELOAD: MetricSpec<0> = spec(
    "tierway_config_last_reload_successful",
    "1 when the configuration found last is active, 0 when it was refused and an older one is active.",
    [],
);
const CONFIG_LAST_SUCCESS: MetricSpec<0> = spec(
    "tierway_config_last_reload_success_timestamp_seconds",
    "When the active configuration was activated, in Unix seconds.",
    [],
);
const PRICE_AGE: MetricSpec<0> = spec(
    "tierway_price_age_days",
    "Whole days since the prices of the price catalogue in use were known to be right.",
    [],
);
const TLS_EXPIRES: MetricSpec<0> = spec(
    "tierway_tls_certificate_expires_timestamp_seconds",
    "When the certificate served to clients expires, in Unix seconds; 0 without TLS.",
    [],
);
const TLS_FAILURES: MetricSpec<0> = spec(
    "tierway_tls_handshake_failures_total",
    "TLS handshakes that failed: clients that do not trust the certificate, or speak another protocol.",
    [],
);
const FAULTS_ACTIVE: MetricSpec<0> =
    spec("tierway_faults_active", "Faults that operators injected into attempts and that are in force.", []);
const BUDGET_LIMIT: MetricSpec<3> = spec(
    "tierway_budget_limit_nanousd",
    "The limit of a budget in each window, in billionths of a US dollar.",
    ["scope", "name", "window"],
);
const BUDGET_SPENT: MetricSpec<3> = spec(
    "tierway_budget_spent_nanousd",
    "What is spent of a budget in the current window, in billionths of a US dollar; what other processes have leased counts as spent.",
    ["scope", "name", "window"],
);
const BUDGET_HELD: MetricSpec<3> = spec(
    "tierway_budget_held_nanousd",
    "What open requests hold of a budget, in billionths of a US dollar: the most that they can cost.",
    ["scope", "name", "window"],
);
const SLA_ELIGIBLE: MetricSpec<1> = spec(
    "tierway_sla_eligible_total",
    "Requests that count for the SLA of their policy, whether or not they failed.",
    ["policy"],
);
const SLA_FAILED: MetricSpec<1> = spec(
    "tierway_sla_failed_total",
    "Requests that count for the SLA of their policy and failed through the gateway or its providers.",
    ["policy"],
);
const SLA_PROBES: MetricSpec<1> = spec(
    "tierway_sla_probes_total",
    "Probes of the SLA of a policy, whether or not they failed; they count in none of its other series.",
    ["policy"],
);
const SLA_PROBES_FAILED: MetricSpec<1> = spec(
    "tierway_sla_probes_failed_total",
    "Probes of the SLA of a policy that failed through the gateway or its providers.",
    ["policy"],
);
const SLA_BUDGET: MetricSpec<1> = spec(
    "tierway_sla_error_budget_ratio",
    "The share of requests that may fail under a policy with an SLA, as promised.",
    ["policy"],
);
const BEYOND_HOLD: MetricSpec<0> = spec(
    "tierway_answers_beyond_hold_total",
    "Answers that cost more than the worst case computed for the request: their budgets may be overspent.",
    [],
);
const BUDGET_PAUSE: MetricSpec<1> = spec(
    "tierway_deployment_budget_pause",
    "Whether requests with a budget or credit are kept from a deployment whose answers cost more than was held: 0 no, 1 those of some keys, 2 all.",
    ["deployment"],
);
const IMPOSSIBLE_USAGE: MetricSpec<0> = spec(
    "tierway_answers_with_impossible_usage_total",
    "Answers whose provider reported impossible token counts: negative, fractional, not a number, or far too large.",
    [],
);
const OTHER_MODEL: MetricSpec<1> = spec(
    "tierway_answers_by_another_model_total",
    "Answers that say they are of another model than was asked for, by whether that is a model of the configuration.",
    ["configured"],
);
const BUILD_INFO: MetricSpec<2> =
    spec("tierway_build_info", "1, labelled with the running version.", ["version", "revision"]);
const LOG_LINES_DROPPED: MetricSpec<0> = spec(
    "tierway_log_lines_dropped_total",
    "Lines of the logs and the access log dropped because they were not read fast enough, or could not be written.",
    [],
);
const LEDGER_DROPPED: MetricSpec<0> = spec(
    "tierway_ledger_receipts_dropped_total",
    "Receipts that charge no budget, dropped because the store was not written fast enough for too long.",
    [],
);
const LEDGER_WAITING: MetricSpec<0> = spec("tierway_ledger_waiting", "Operations queued for the store.", []);
const LIMITS_DEGRADED: MetricSpec<0> = spec(
    "tierway_limits_degraded",
    "1 while limits that gateways count together are divided among them, because the server of [store] shared does not answer.",
    [],
);
const REPLICAS_ALIVE: MetricSpec<0> = spec(
    "tierway_replicas_alive",
    "Gateways alive on the store, as this one sees it, itself among them; 1 where it has a store alone.",
    [],
);
const REPLICAS_GONE: MetricSpec<0> = spec(
    "tierway_replicas_gone_total",
    "Other gateways that this one ended because the database had not seen them for a minute: killed, frozen or cut off.",
    [],
);
const LEASES_REAPED: MetricSpec<0> = spec(
    "tierway_leases_reaped_total",
    "Leases of gateways that are gone, which this one counted as spent: money of which nobody knows how much was spent.",
    [],
);
const STORE_LAG: MetricSpec<0> = spec(
    "tierway_store_lag_seconds",
    "Whole seconds since the database last answered the thread that writes to it, which asks once a second; 0 with another store.",
    [],
);
const LEDGER_HEALTHY: MetricSpec<0> = spec("tierway_ledger_healthy", "1 while the store can be written, else 0.", []);

const QUEUE_DEPTH: MetricSpec<1> = spec(
    "tierway_queue_depth",
    "Requests that wait for a place because the gateway is full, or every deployment that could serve them.",
    ["policy"],
);
const QUEUE_WAIT: MetricSpec<1> = spec(
    "tierway_queue_wait_seconds",
    "Seconds that requests waited for a place, served or not; requests that found one at once are not counted.",
    ["policy"],
);
const SHED: MetricSpec<1> = spec(
    "tierway_shed_total",
    "Requests refused because the gateway was full, or every deployment that could serve them, at once or after a wait.",
    ["policy"],
);
const MAX_IN_FLIGHT: MetricSpec<0> = spec(
    "tierway_max_in_flight",
    "How many requests by plain names may be in flight at once now; 0 without such a limit.",
    [],
);
const RESERVED_HONOURED: MetricSpec<0> = spec(
    "tierway_reserved_honoured_total",
    "Requests by Pro/ names that got a place of dedicated capacity that is lent, at once or after a wait.",
    [],
);
const RESERVED_MISSED: MetricSpec<0> = spec(
    "tierway_reserved_missed_total",
    "Requests by Pro/ names that were refused while others held places of their dedicated capacity.",
    [],
);

/// 1 ms to 60 s: from a cached prefix on a near machine to longer than clients wait.
const FIRST_TOKEN_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];
/// 10 ms to 655 s, each twice the last: from an embedding to a long answer with reasoning.
const DURATION_BUCKETS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36];
/// 25 µs to 250 ms: the gateway's own time, usually in the first buckets.
const OVERHEAD_BUCKETS: &[f64] =
    &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// The labels of `tierway_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct BuildMetadata {
    /// The version of the package.
    pub version: &'static str,
    /// The commit it was built from, where the build knew it.
    pub revision: Option<&'static str>,
}

/// All metrics of one gateway.
pub struct Metrics {
    registry: MetricRegistry,
    requests: LabelledMetric<IntCounter, 4>,
    request_duration: LabelledMetric<Histogram, 1>,
    first_token: LabelledMetric<Histogram, 2>,
    upstream_duration: LabelledMetric<Histogram, 2>,
    overhead: Histogram,
    tokens: [(TokenKind, IntCounter); 4],
    cost: IntCounter,
    attempts: LabelledMetric<IntCounter, 2>,
    fallbacks: LabelledMetric<IntCounter, 3>,
    failover: LabelledMetric<Histogram, 3>,
    failovers: LabelledMetric<IntCounter, 1>,
    failovers_within: LabelledMetric<IntCounter, 1>,
    failover_objective: Gauge,
    splices: LabelledMetric<IntCounter, 1>,
    breaker_state: LabelledMetric<IntGauge, 2>,
    breaker_transitions: LabelledMetric<IntCounter, 3>,
    in_flight: IntGauge,
    limit_refusals: LabelledMetric<IntCounter, 2>,
    secrets_refused: LabelledMetric<IntCounter, 2>,
    config_reloads: LabelledMetric<IntCounter, 1>,
    config_last_reload: IntGauge,
    config_last_success: IntGauge,
    price_age: IntGauge,
    faults_active: IntGauge,
    tls_expires: IntGauge,
    tls_failures: IntCounter,
    budget_limit: LabelledMetric<IntGauge, 3>,
    budget_spent: LabelledMetric<IntGauge, 3>,
    budget_held: LabelledMetric<IntGauge, 3>,
    /// Eligible requests, and failed ones.
    sla_requests: [LabelledMetric<IntCounter, 1>; 2],
    /// The same of probes.
    sla_probes: [LabelledMetric<IntCounter, 1>; 2],
    sla_budget: LabelledMetric<Gauge, 1>,
    beyond_hold: IntCounter,
    budget_pause: LabelledMetric<IntGauge, 1>,
    impossible_usage: IntCounter,
    other_model: LabelledMetric<IntCounter, 1>,
    queue_depth: LabelledMetric<IntGauge, 1>,
    queue_wait: LabelledMetric<Histogram, 1>,
    shed: LabelledMetric<IntCounter, 1>,
    max_in_flight: IntGauge,
    reserved_honoured: IntCounter,
    reserved_missed: IntCounter,
    configured: Mutex<ConfiguredNames>,
}

/// Names that labels may have, deployments aside.
#[derive(Default)]
struct ConfiguredNames {
    /// As in `tierway_fallbacks_total`.
    models: HashSet<Label>,
    regions: HashSet<Label>,
}

impl Metrics {
    /// With nothing counted. `lines_dropped` returns how many log lines were dropped so far.
    pub fn new(build: BuildMetadata, lines_dropped: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self::declare(build, lines_dropped).expect("the names in the table are valid and distinct")
    }

    fn declare(build: BuildMetadata, lines_dropped: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Self> {
        let registry = MetricRegistry::new()?;
        let tokens = registry.counters(TOKENS)?;
        let metrics = Self {
            requests: registry.counters(REQUESTS)?,
            request_duration: registry.histograms(REQUEST_DURATION, DURATION_BUCKETS)?,
            first_token: registry.histograms(FIRST_TOKEN, FIRST_TOKEN_BUCKETS)?,
            upstream_duration: registry.histograms(UPSTREAM_DURATION, DURATION_BUCKETS)?,
            overhead: registry.histogram(OVERHEAD, OVERHEAD_BUCKETS)?,
            tokens: TokenKind::ALL.map(|kind| (kind, tokens.with([kind.into()]))),
            cost: registry.counter(COST)?,
            attempts: registry.counters(ATTEMPTS)?,
            fallbacks: registry.counters(FALLBACKS)?,
            failover: registry.histograms(FAILOVER, FIRST_TOKEN_BUCKETS)?,
            failovers: registry.counters(FAILOVERS)?,
            failovers_within: registry.counters(FAILOVERS_WITHIN)?,
            failover_objective: registry.float_gauge(FAILOVER_OBJECTIVE)?,
            splices: registry.counters(SPLICES)?,
            breaker_state: registry.gauges(BREAKER_STATE)?,
            breaker_transitions: registry.counters(BREAKER_TRANSITIONS)?,
            in_flight: registry.gauge(IN_FLIGHT)?,
            limit_refusals: registry.counters(LIMIT_REFUSALS)?,
            secrets_refused: registry.counters(SECRETS_REFUSED)?,
            config_reloads: registry.counters(CONFIG_RELOADS)?,
            config_last_reload: registry.gauge(CONFIG_LAST_RELOAD)?,
            config_last_success: registry.gauge(CONFIG_LAST_SUCCESS)?,
            price_age: registry.gauge(PRICE_AGE)?,
            faults_active: registry.gauge(FAULTS_ACTIVE)?,
            tls_expires: registry.gauge(TLS_EXPIRES)?,
            tls_failures: registry.counter(TLS_FAILURES)?,
            budget_limit: registry.gauges(BUDGET_LIMIT)?,
            budget_spent: registry.gauges(BUDGET_SPENT)?,
            budget_held: registry.gauges(BUDGET_HELD)?,
            sla_requests: [registry.counters(SLA_ELIGIBLE)?, registry.counters(SLA_FAILED)?],
            sla_probes: [registry.counters(SLA_PROBES)?, registry.counters(SLA_PROBES_FAILED)?],
            sla_budget: registry.float_gauges(SLA_BUDGET)?,
            beyond_hold: registry.counter(BEYOND_HOLD)?,
            budget_pause: registry.gauges(BUDGET_PAUSE)?,
            impossible_usage: registry.counter(IMPOSSIBLE_USAGE)?,
            other_model: registry.counters(OTHER_MODEL)?,
            queue_depth: registry.gauges(QUEUE_DEPTH)?,
            queue_wait: registry.histograms(QUEUE_WAIT, FIRST_TOKEN_BUCKETS)?,
            shed: registry.counters(SHED)?,
            max_in_flight: registry.gauge(MAX_IN_FLIGHT)?,
            reserved_honoured: registry.counter(RESERVED_HONOURED)?,
            reserved_missed: registry.counter(RESERVED_MISSED)?,
            configured: Mutex::default(),
            registry,
        };
        let revision = Label::Word(build.revision.unwrap_or("unknown"));
        metrics.registry.gauges(BUILD_INFO)?.with([Label::Word(build.version), revision]).set(1);
        metrics.registry.callback_counter(LOG_LINES_DROPPED, lines_dropped)?;
        // Present from the start, so that the first failure is an increase and not a new series.
        for ok in [true, false] {
            metrics.config_reloads.with([labels::reload(ok)]);
            metrics.other_model.with([labels::configured(ok)]);
        }
        for outcome in ReplayOutcome::ALL {
            metrics.splices.with([outcome.into()]);
        }
        for target in SecretTarget::ALL {
            for why in KeyRefusal::LABELS {
                metrics.secrets_refused.with([Label::Word(target.label()), Label::Word(why)]);
            }
        }
        for mode in ModeLabel::READ {
            metrics.failovers.with([mode.into()]);
            metrics.failovers_within.with([mode.into()]);
        }
        Ok(metrics)
    }

    /// Sets the age of the price catalogue in use, in whole days.
    pub fn price_age(&self, days: u64) {
        self.price_age.set(i64::try_from(days).unwrap_or(i64::MAX));
    }

    /// Sets how many injected faults are in force.
    pub fn faults_active(&self, count: usize) {
        self.faults_active.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Adds the ledger's metrics: operations waiting, receipts dropped, and whether it can be written.
    /// Called once.
    pub fn watch_ledger(
        &self,
        waiting: impl Fn() -> u64 + Send + Sync + 'static,
        dropped: impl Fn() -> u64 + Send + Sync + 'static,
        healthy: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        let registered = [
            self.registry.callback_gauge(LEDGER_WAITING, waiting),
            self.registry.callback_counter(LEDGER_DROPPED, dropped),
            self.registry.callback_gauge(LEDGER_HEALTHY, move || healthy().into()),
        ];
        registered.into_iter().collect::<Result<()>>().expect("the names are valid, and a gateway has one ledger");
    }

    /// Adds the metrics of gateways that share a store: how many are alive, how many are gone and how many of their leases
    /// were counted as spent, and for how many seconds the store has not answered. Called once.
    pub fn watch_replicas(
        &self,
        alive: impl Fn() -> u64 + Send + Sync + 'static,
        gone: impl Fn() -> u64 + Send + Sync + 'static,
        leases_reaped: impl Fn() -> u64 + Send + Sync + 'static,
        lag: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let registered = [
            self.registry.callback_gauge(REPLICAS_ALIVE, alive),
            self.registry.callback_counter(REPLICAS_GONE, gone),
            self.registry.callback_counter(LEASES_REAPED, leases_reaped),
            self.registry.callback_gauge(STORE_LAG, lag),
        ];
        registered.into_iter().collect::<Result<()>>().expect("the names are valid, and a gateway has one store");
    }

    /// Adds the metric of limits that several gateways count together: whether they cannot be. Called once.
    pub fn watch_limits(&self, degraded: impl Fn() -> bool + Send + Sync + 'static) {
        let registered = self.registry.callback_gauge(LIMITS_DEGRADED, move || degraded().into());
        registered.expect("the name is valid, and a gateway counts limits in one place");
    }

    /// Counts a finished request.
    pub fn record(&self, receipt: &Receipt) {
        self.requests.with(request_labels(receipt)).inc();
        let mode = Label::from(ModeLabel::of(receipt));
        self.request_duration.with([mode.clone()]).observe(receipt.duration.as_secs_f64());
        self.overhead.observe(receipt.overhead.as_secs_f64());
        if let Some(first_token) = receipt.first_token {
            self.first_token.with([tier_label(receipt), mode.clone()]).observe(first_token.as_secs_f64());
        }
        if let Some(usage) = receipt.usage {
            for (kind, tokens) in &self.tokens {
                tokens.inc_by(kind.of(usage));
            }
        }
        // A negative cost (a correction) cannot be counted: counters only rise.
        self.cost.inc_by(receipt.cost.0.try_into().unwrap_or(0));
        if let Some(limit) = receipt.limit {
            self.limit_refusals.with([receipt.policy.as_ref().into(), limit.into()]).inc();
        }
        self.record_attempts(receipt, &mode);
        self.record_failover(receipt, mode);
        self.record_fallbacks(receipt);
    }

    fn record_attempts(&self, receipt: &Receipt, mode: &Label) {
        for attempt in &receipt.attempts {
            self.attempts.with([Label::from(&attempt.deployment), attempt.reason.into()]).inc();
            let labels = [Label::from(&attempt.deployment), mode.clone()];
            self.upstream_duration.with(labels).observe(attempt.duration.as_secs_f64());
        }
    }

    fn record_failover(&self, receipt: &Receipt, mode: Label) {
        let (Some(took), Some(first)) = (receipt.failover, receipt.failed_over_from()) else { return };
        let labels = [first.region.as_ref().into(), first.reason.into(), mode.clone()];
        self.failover.with(labels).observe(took.as_secs_f64());
        self.failovers.with([mode.clone()]).inc();
        if took.as_secs_f64() <= self.failover_objective.get() {
            self.failovers_within.with([mode]).inc();
        }
    }

    /// Each change of model or tier once, however many attempts it took; each change of deployment inside one.
    fn record_fallbacks(&self, receipt: &Receipt) {
        if let Some((meant, served)) = receipt.meant_elsewhere() {
            let from = labels::model_in_tier(meant.tier.as_ref(), &meant.model);
            let to = labels::model_in_tier(served.tier.as_ref(), &served.model);
            let reason = receipt.reason_at_meant().map_or(PASSED_OVER, Label::from);
            self.fallbacks.with([from, to, reason]).inc();
        }
        for pair in receipt.attempts_until_answer().windows(2) {
            let same_model = pair[0].model == pair[1].model && pair[0].tier == pair[1].tier;
            // Another attempt at the same deployment is a retry, not a fallback.
            if same_model && pair[0].deployment != pair[1].deployment {
                let (from, to) = (&pair[0].deployment, &pair[1].deployment);
                self.fallbacks.with([from.into(), to.into(), pair[0].reason.into()]).inc();
            }
        }
    }

    /// Counts a key, or a token of operators, that was refused.
    pub fn secret_refused(&self, target: SecretTarget, why: &KeyRefusal) {
        self.secrets_refused.with([Label::Word(target.label()), Label::Word(why.label())]).inc();
    }

    /// Counts an answer that cost more than was held for it.
    pub fn beyond_hold(&self) {
        self.beyond_hold.inc();
    }

    /// Sets whose requests are paused at which deployment; series of others are dropped.
    pub fn budget_pauses(&self, deployments: &[(Arc<str>, PauseScope)]) {
        let named: HashSet<&str> = deployments.iter().map(|(name, _)| &**name).collect();
        self.budget_pause.retain(|[deployment]| named.contains(deployment.as_str()));
        for (name, scope) in deployments {
            self.budget_pause.with([Label::from(name)]).set(*scope as i64);
        }
    }

    /// Counts an answer with an impossible usage.
    pub fn impossible_usage(&self) {
        self.impossible_usage.inc();
    }

    /// Counts an answer by another model than was asked for; `configured`: one that the configuration has.
    pub fn other_model(&self, configured: bool) {
        self.other_model.with([labels::configured(configured)]).inc();
    }

    /// Shows what waits and is refused under each of `policies` from the start, as 0: an alert needs what was before.
    pub fn policies<'a>(&self, policies: impl Iterator<Item = &'a Arc<str>>) {
        for policy in policies {
            let label = || [Label::from(policy)];
            self.queue_depth.with(label());
            self.queue_wait.with(label());
            self.shed.with(label());
        }
    }

    /// Shows each policy with an SLA from the start, with 0 requests and what it promises; series of others are dropped.
    pub fn slas<'a>(&self, promised: impl Iterator<Item = (&'a Arc<str>, &'a SlaTerms)>) {
        let promised: Vec<(Label, u32)> =
            promised.map(|(policy, terms)| (policy.into(), WHOLE_BP.saturating_sub(terms.uptime_bp))).collect();
        let keep = |[policy]: &[Label; 1]| promised.iter().any(|(promised, _)| promised == policy);
        for counters in self.sla_requests.iter().chain(&self.sla_probes) {
            counters.retain(keep);
        }
        self.sla_budget.retain(keep);
        for (policy, may_fail_bp) in &promised {
            for counters in self.sla_requests.iter().chain(&self.sla_probes) {
                counters.with([policy.clone()]);
            }
            self.sla_budget.with([policy.clone()]).set(f64::from(*may_fail_bp) / f64::from(WHOLE_BP));
        }
    }

    /// Counts a request of `policy` as its SLA does, if [`Metrics::slas`] named the policy.
    pub fn sla(&self, policy: &Arc<str>, class: SlaClass) {
        count_class(&self.sla_requests, policy, class);
    }

    /// Counts a probe of `policy`, if [`Metrics::slas`] named the policy.
    pub fn sla_probe(&self, policy: &Arc<str>, class: SlaClass) {
        count_class(&self.sla_probes, policy, class);
    }

    /// Counts one request of `policy` more or less that waits for a place.
    pub fn queue_depth(&self, policy: &Arc<str>, change: i64) {
        self.queue_depth.with([policy.into()]).add(change);
    }

    /// Counts a request of `policy` that waited for a place, served or not.
    pub fn queue_wait(&self, policy: &Arc<str>, waited: Duration) {
        self.queue_wait.with([policy.into()]).observe(waited.as_secs_f64());
    }

    /// Counts a request of `policy` that was refused because everything was full.
    pub fn shed(&self, policy: &Arc<str>) {
        self.shed.with([policy.into()]).inc();
    }

    /// Sets how many requests by plain names may be in flight; 0: any number.
    pub fn max_in_flight(&self, most: u32) {
        self.max_in_flight.set(i64::from(most));
    }

    /// Counts a request by a `Pro/` name whose reservation was honoured, or not because its places were lent.
    pub fn reservation(&self, honoured: bool) {
        let counter = if honoured { &self.reserved_honoured } else { &self.reserved_missed };
        counter.inc();
    }

    /// Sets the metrics of all budgets; series of budgets that are not in `statuses` are dropped.
    pub fn budgets(&self, statuses: &[AccountStatus]) {
        let labels = |status: &AccountStatus| {
            let account = &status.account;
            [Label::Word(account.scope.label()), Label::from(&account.name), Label::from(&account.window)]
        };
        let named: HashSet<_> = statuses.iter().map(labels).collect();
        for family in [&self.budget_limit, &self.budget_spent, &self.budget_held] {
            family.retain(|values| named.contains(values));
        }
        for status in statuses {
            self.budget_limit.with(labels(status)).set(status.limit.0);
            self.budget_spent.with(labels(status)).set(status.spent.0);
            self.budget_held.with(labels(status)).set(status.held.0);
        }
    }

    /// Counts a change of a breaker and sets its new state, if [`Metrics::deployments`] named it: a late
    /// change of a deployment that was removed must not add its series again.
    pub fn transition(&self, deployment: &str, transition: Transition) {
        let name: Arc<str> = deployment.into();
        self.breaker_transitions.with([Label::from(&name), transition.to.into(), transition.cause.into()]).inc();
        if self.breaker_state.known(&[Label::from(&name), transition.to.into()]).is_some() {
            self.set_breaker_state(&name, transition.to);
        }
    }

    /// Sets what is configured, when a configuration is activated: how long a failover should take, every model in
    /// every tier, and the regions. Series with other names are dropped at the next [`Metrics::deployments`].
    pub fn configured(&self, failover_objective: Duration, models: &[PlannedModel], regions: &[Arc<str>]) {
        self.failover_objective.set(failover_objective.as_secs_f64());
        *self.configured.lock() = ConfiguredNames {
            models: models.iter().map(|planned| labels::model_in_tier(planned.tier.as_ref(), &planned.model)).collect(),
            regions: regions.iter().map(Label::from).collect(),
        };
    }

    /// Sets the breaker states of all deployments: at the start, after each reload, and before metrics
    /// are rendered (half-open is reached by time, without a transition). Series of deployments that are
    /// not in `names` are dropped; a request still open at one may add a counter of it again until the
    /// next call.
    pub fn deployments(&self, names: &[(Arc<str>, StateName)]) {
        let named: HashSet<&str> = names.iter().map(|(name, _)| &**name).chain([Label::NONE.as_str()]).collect();
        let keep = |label: &Label| named.contains(label.as_str());
        self.requests.retain(|[_, _, deployment, _]| keep(deployment));
        self.upstream_duration.retain(|[deployment, _]| keep(deployment));
        self.attempts.retain(|[deployment, _]| keep(deployment));
        let configured = self.configured.lock();
        let either = |label: &Label| keep(label) || configured.models.contains(label);
        self.fallbacks.retain(|[from, to, _]| either(from) && either(to));
        self.failover.retain(|[region, _, _]| configured.regions.contains(region));
        drop(configured);
        self.breaker_state.retain(|[deployment, _]| keep(deployment));
        self.breaker_transitions.retain(|[deployment, _, _]| keep(deployment));
        for (name, state) in names {
            self.set_breaker_state(name, *state);
        }
    }

    fn set_breaker_state(&self, deployment: &Arc<str>, state: StateName) {
        for each in StateName::ALL {
            self.breaker_state.with([Label::from(deployment), each.into()]).set(i64::from(each == state));
        }
    }

    /// Counts a stream that broke and was to go on at another deployment.
    pub fn replayed(&self, outcome: ReplayOutcome) {
        self.splices.with([outcome.into()]).inc();
    }

    /// Counts a request in flight until the value is dropped.
    pub fn request_started(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Records that a configuration is active since this Unix second, and when the certificate it serves
    /// expires.
    pub fn config_activated(&self, now_unix_s: i64, certificate_expires_unix_s: Option<i64>) {
        self.config_last_reload.set(1);
        self.config_last_success.set(now_unix_s);
        self.tls_expires.set(certificate_expires_unix_s.unwrap_or(0));
    }

    /// Counts a reload that activated a configuration.
    pub fn config_reloaded(&self, now_unix_s: i64, certificate_expires_unix_s: Option<i64>) {
        self.config_reloads.with([labels::reload(true)]).inc();
        self.config_activated(now_unix_s, certificate_expires_unix_s);
    }

    /// Counts a reload that was refused: the active configuration stays.
    pub fn config_refused(&self) {
        self.config_reloads.with([labels::reload(false)]).inc();
        self.config_last_reload.set(0);
    }

    /// Counts a TLS handshake that failed.
    pub fn tls_handshake_failed(&self) {
        self.tls_failures.inc();
    }

    /// Everything in Prometheus' text format, sorted by name and labels.
    pub fn render(&self) -> String {
        self.registry.render()
    }
}

/// Counts a request in `tierway_in_flight` until it is dropped.
#[must_use = "dropped at once, the request would not be counted"]
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The reason of a fallback without an attempt.
const PASSED_OVER: Label = Label::Word("passed_over");

/// The tier that served the request, or was tried last.
fn tier_label(receipt: &Receipt) -> Label {
    receipt.served.as_ref().and_then(|served| served.tier.as_ref()).into()
}

/// The model is named as in the configuration, never as the client wrote it.
fn request_labels(receipt: &Receipt) -> [Label; 4] {
    let served = receipt.served.as_ref();
    [
        tier_label(receipt),
        served.map(|served| &served.model).into(),
        served.map(|served| &served.deployment).into(),
        receipt.reason.into(),
    ]
}

/// Counts a request that is eligible in the first of the counters, and in the second if it failed.
fn count_class([eligible, failed]: &[LabelledMetric<IntCounter, 1>; 2], policy: &Arc<str>, class: SlaClass) {
    let label = [Label::from(policy)];
    if class != SlaClass::NotEligible
        && let Some(eligible) = eligible.known(&label)
    {
        eligible.inc();
        if class == SlaClass::Failed {
            failed.with(label).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::breaker::TransitionCause;
    use crate::domain::budget::{Account, Scope};
    use crate::domain::money::NanoUsd;
    use crate::domain::sla::tests::terms;
    use crate::telemetry::samples;
    use std::collections::BTreeMap;

    fn metrics() -> Metrics {
        Metrics::new(BuildMetadata { version: "1.2.3", revision: None }, || 7)
    }

    /// The samples of `tierway_*`, without the buckets of histograms.
    fn samples_of(metrics: &Metrics) -> String {
        let ours = |line: &&str| line.starts_with("tierway_") && !line.contains("_bucket{");
        metrics.render().lines().filter(ours).collect::<Vec<_>>().join("\n")
    }

    /// Metric name → its type.
    fn types(rendered: &str) -> BTreeMap<&str, &str> {
        let types = rendered.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split_once(' ')).collect()
    }

    /// Metrics in which every family has a series.
    fn everything() -> Metrics {
        let metrics = metrics();
        metrics.watch_ledger(|| 3, || 5, || true);
        metrics.watch_limits(|| false);
        metrics.watch_replicas(|| 3, || 1, || 2, || 0);
        let planned = |model: &str| PlannedModel { model: model.into(), tier: Some("default".into()) };
        let models = [planned("org/model-0"), planned("org/model-1")];
        metrics.configured(Duration::from_millis(750), &models, &["eu".into(), "us".into()]);
        metrics.deployments(&[("eu-1".into(), StateName::Closed), ("us-1".into(), StateName::Resting)]);
        metrics.transition("eu-1", Transition { to: StateName::Open, cause: Some(TransitionCause::Consecutive) });
        for receipt in samples::receipts() {
            metrics.record(&receipt);
        }
        metrics.config_reloaded(1_790_000_000, Some(1_800_000_000));
        metrics.config_refused();
        metrics.tls_handshake_failed();
        metrics.beyond_hold();
        metrics.budget_pauses(&[("us-0".into(), PauseScope::All), ("us-1".into(), PauseScope::None)]);
        metrics.impossible_usage();
        metrics.other_model(true);
        let account = Account { scope: Scope::Team, name: "growth".into(), window: "month UTC".into() };
        let (limit, spent, held) = (NanoUsd(2_000_000_000_000), NanoUsd(1_250_000_000), NanoUsd(3_000_000));
        metrics.budgets(&[AccountStatus { account: account.into(), limit, spent, held }]);
        let terms = terms();
        metrics.slas([(&"pro".into(), &terms)].into_iter());
        for class in [SlaClass::Good, SlaClass::Failed, SlaClass::NotEligible] {
            metrics.sla(&"pro".into(), class);
        }
        metrics.sla_probe(&"pro".into(), SlaClass::Failed);
        metrics
    }

    #[test]
    fn receipts_and_events_are_counted() {
        let metrics = everything();
        let _in_flight = metrics.request_started();
        drop(metrics.request_started());
        let rendered = metrics.render();
        let ours = rendered.lines().filter(|line| !line.contains("process_"));
        insta::assert_snapshot!(ours.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_model_name_from_a_client_adds_no_series() {
        let metrics = everything();
        let series = |metrics: &Metrics| samples_of(metrics).lines().count();
        let before = series(&metrics);
        for i in 0..10_000 {
            for mut receipt in samples::receipts() {
                receipt.asked_model = Some(format!("evil-{i}\"}} 1\ntierway_requests_total 5").into());
                metrics.record(&receipt);
            }
        }
        assert_eq!(series(&metrics), before);
        assert!(!metrics.render().contains("evil"));
    }

    #[test]
    fn names_follow_the_conventions() {
        let rendered = everything().render();
        for (name, kind) in types(&rendered) {
            if name.starts_with("process_") {
                continue;
            }
            let unit = name.rsplit('_').next().unwrap_or_default();
            let valid = match kind {
                "counter" => unit == "total",
                "histogram" => unit == "seconds",
                "gauge" if unit == "nanousd" => name.starts_with("tierway_budget_"),
                "gauge" if unit == "seconds" => {
                    let spans = ["tierway_failover_objective_seconds", "tierway_store_lag_seconds"];
                    name.ends_with("_timestamp_seconds") || spans.contains(&name)
                }
                "gauge" => {
                    let states = [
                        "tierway_breaker_state",
                        "tierway_deployment_budget_pause",
                        "tierway_config_last_reload_successful",
                        "tierway_ledger_healthy",
                        "tierway_limits_degraded",
                    ];
                    let others = [
                        "tierway_in_flight",
                        "tierway_build_info",
                        "tierway_ledger_waiting",
                        "tierway_price_age_days",
                        "tierway_faults_active",
                        "tierway_sla_error_budget_ratio",
                        "tierway_max_in_flight",
                        "tierway_replicas_alive",
                    ];
                    states.contains(&name) || others.contains(&name)
                }
                _ => false,
            };
            assert!(valid && name.starts_with("tierway_"), "{name} is a {kind}");
            assert!(rendered.contains(&format!("# HELP {name} ")), "{name} has no help text");
        }
    }

    #[test]
    fn histograms_have_the_declared_buckets() {
        let rendered = everything().render();
        let check = |name: &str, first: &str, last: &str, count: usize| {
            let prefix = format!("{name}_bucket{{");
            let bounds: Vec<&str> = rendered
                .lines()
                .filter(|line| line.starts_with(&prefix) && !line.contains("us-1"))
                .filter(|line| !line.contains("mode=") || line.contains(r#"mode="stream""#))
                .filter_map(|line| line.split_once("le=\"")?.1.split_once('"').map(|(bound, _)| bound))
                .collect();
            assert_eq!((bounds.first(), bounds.last()), (Some(&first), Some(&"+Inf")), "{name}");
            assert_eq!(bounds[bounds.len() - 2], last, "{name}");
            assert_eq!(bounds.len(), count + 1, "{name}");
        };
        check("tierway_first_token_seconds", "0.001", "60", 16);
        check("tierway_request_duration_seconds", "0.01", "655.36", 17);
        check("tierway_upstream_duration_seconds", "0.01", "655.36", 17);
        check("tierway_failover_seconds", "0.001", "60", 16);
        check("tierway_overhead_seconds", "0.000025", "0.25", 13);
    }

    #[test]
    fn a_failover_is_within_the_objective_or_not() {
        let metrics = metrics();
        metrics.configured(Duration::from_millis(750), &[], &[]);
        let count = |ms: Option<u64>, stream: bool| {
            let failover = ms.map(Duration::from_millis);
            metrics.record(&Receipt { failover, stream, ..samples::served() });
        };
        [Some(1), Some(750), Some(751), None].into_iter().for_each(|ms| count(ms, true));
        [Some(751), Some(20_000)].into_iter().for_each(|ms| count(ms, false));
        let samples = samples_of(&metrics);
        for line in [
            r#"tierway_failovers_total{mode="stream"} 3"#,
            r#"tierway_failovers_within_objective_total{mode="stream"} 2"#,
            r#"tierway_failovers_total{mode="whole"} 2"#,
            r#"tierway_failovers_within_objective_total{mode="whole"} 0"#,
            "tierway_failover_objective_seconds 0.75",
        ] {
            assert!(samples.contains(line), "{line} in\n{samples}");
        }
    }

    #[test]
    fn only_a_policy_with_an_sla_has_its_series() {
        let metrics = everything();
        metrics.sla(&"free".into(), SlaClass::Failed);
        let samples = samples_of(&metrics);
        for line in [
            r#"tierway_sla_eligible_total{policy="pro"} 2"#,
            r#"tierway_sla_failed_total{policy="pro"} 1"#,
            r#"tierway_sla_probes_total{policy="pro"} 1"#,
            r#"tierway_sla_probes_failed_total{policy="pro"} 1"#,
            r#"tierway_sla_error_budget_ratio{policy="pro"} 0.001"#,
        ] {
            assert!(samples.contains(line), "{line} in\n{samples}");
        }
        assert!(!samples.contains("free"), "{samples}");
        metrics.slas(std::iter::empty());
        metrics.sla(&"pro".into(), SlaClass::Good);
        assert!(!samples_of(&metrics).contains("tierway_sla_"));
    }

    #[test]
    fn a_removed_deployment_has_no_series() {
        let metrics = everything();
        assert!(samples_of(&metrics).contains("eu-1"));
        metrics.configured(Duration::from_secs(1), &[], &["us".into()]);
        metrics.deployments(&[("us-1".into(), StateName::Closed)]);
        metrics.transition("gone", Transition { to: StateName::Closed, cause: None });
        let left = samples_of(&metrics);
        assert!(!left.contains("eu-1") && !left.contains(r#"from_region="eu""#), "{left}");
        assert!(!left.contains("default:org/model-0"), "nor does a removed model: {left}");
        assert!(left.contains(r#"tierway_breaker_state{deployment="us-1",state="closed"} 1"#), "{left}");
        assert!(left.contains(r#"tierway_breaker_state{deployment="us-1",state="resting"} 0"#), "{left}");
        assert!(!left.contains(r#"tierway_breaker_state{deployment="gone""#), "{left}");
        metrics.budgets(&[]);
        assert!(!samples_of(&metrics).contains("growth"), "nor does a removed budget");
        // Requests that reached no deployment are kept.
        assert!(left.contains(r#"deployment="none""#), "{left}");
    }
}
