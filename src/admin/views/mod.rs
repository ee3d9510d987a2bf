//! Keys, teams, credit, usage, requests and the status as JSON objects: the answers of the admin API and the output of `--json`.
//!
//! Each object is described once: serde writes it, and the OpenAPI document takes its schema from the same struct.
//! Every member is always present, and there are no others. Money is a decimal string of USD, times are RFC 3339
//! in UTC. A secret appears only in [`IssuedKeyObject`]; anywhere else there is its id, the first twelve hex digits
//! of its SHA-256, and never the whole hash.
//!
//! Start reading at [`KeyObject`]; the status of deployments is in `status.rs`.

mod audit;
mod configuration;
mod fault;
mod gateway;
mod posture;
mod sla;
mod status;
mod traffic;

pub use audit::AuditRowObject;
pub use configuration::ConfigurationObject;
pub use fault::FaultObject;
pub use gateway::{GatewayObject, SessionObject};
pub use posture::PostureObject;
pub use sla::{SlaClosingObject, SlaReportObject, first_token_kept};
pub use status::{DeploymentObject, StatusObject};
pub use traffic::{HistoryObject, SecondObject, TrafficEventObject};

use super::{IssuedKey, KeyView, Page, RecordSource, TeamView};
use crate::domain::budget::{Budget, BudgetPeriod, BudgetSpec, Scope};
use crate::domain::call::Endpoint;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Outcome, PassedOverDeployment, PassedOverReason, Receipt};
use crate::domain::register::{CreditBalance, Grant, Holder, KeyState, StoredSecret};
use crate::domain::report::{Dimension, UsageQuery, UsageSum};
use crate::domain::secret::KeyHash;
use crate::telemetry::rfc3339::Rfc3339Text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// `object` as JSON, its members in alphabetical order.
pub fn to_json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("every member name is a string")
}

/// One page of a list.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "{T}List", deny_unknown_fields)]
pub struct ListObject<T> {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
    /// What to give as `after` for the next page.
    next: Option<String>,
}

impl<T> ListObject<T> {
    /// `page`, its items as objects.
    pub fn of<'p, Item>(page: &'p Page<Item>) -> Self
    where
        T: From<&'p Item>,
    {
        let data = page.items.iter().map(T::from).collect();
        Self { object: "list", data, has_more: page.next.is_some(), next: page.next.clone() }
    }
}

// --- keys and teams ---------------------------------------------------------------------------

/// A key: its own limits and budget, and those that apply to it together with its policy and team.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Key", deny_unknown_fields)]
pub struct KeyObject {
    #[schemars(extend("const" = "key"))]
    object: &'static str,
    name: String,
    #[schemars(schema_with = "record_sources")]
    source: &'static str,
    #[schemars(schema_with = "key_states")]
    state: &'static str,
    policy: String,
    team: Option<String>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    max_concurrent: Option<u32>,
    budget: Option<BudgetObject>,
    effective: EffectiveLimits,
    expires: Option<UtcTime>,
    disabled: bool,
    created: Option<UtcTime>,
    secrets: Vec<SecretObject>,
}

/// The limits and budgets that requests with a key are measured by.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct EffectiveLimits {
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    max_concurrent: Option<u32>,
    budgets: Vec<EffectiveBudget>,
}

/// A budget that applies to a key, and the key, team or policy it belongs to.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct EffectiveBudget {
    #[serde(flatten)]
    budget: BudgetObject,
    #[schemars(schema_with = "scopes")]
    of: &'static str,
    name: String,
}

/// An amount of money for each window of time.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Budget", deny_unknown_fields)]
struct BudgetObject {
    limit: Usd,
    #[schemars(schema_with = "windows")]
    window: &'static str,
    zone: Option<String>,
}

/// A secret of a key, without the secret.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Secret", deny_unknown_fields)]
struct SecretObject {
    /// The first digits of its SHA-256.
    #[schemars(regex(pattern = "^[0-9a-f]{12}$"))]
    id: String,
    created: Option<UtcTime>,
    ends: Option<UtcTime>,
    last_used: Option<UtcTime>,
}

impl From<&KeyView> for KeyObject {
    fn from(key: &KeyView) -> Self {
        let (record, stored) = (&key.record, key.stored.as_ref());
        let own = stored.map(|stored| stored.own.clone()).unwrap_or_default();
        let in_store = stored.iter().flat_map(|stored| &stored.secrets).map(SecretObject::from);
        let in_file = key.in_file.as_ref().map(SecretObject::from);
        Self {
            object: "key",
            name: key.name().to_owned(),
            source: key.source.label(),
            state: key.state.label(),
            policy: record.policy.name.to_string(),
            team: record.team.as_deref().map(str::to_owned),
            requests_per_minute: own.limits.requests_per_minute,
            tokens_per_minute: own.limits.tokens_per_minute,
            max_concurrent: own.limits.max_concurrent,
            budget: own.budget.as_ref().map(BudgetObject::from),
            effective: EffectiveLimits {
                requests_per_minute: record.limits.requests_per_minute,
                tokens_per_minute: record.limits.tokens_per_minute,
                max_concurrent: record.limits.max_concurrent,
                budgets: record.budgets.iter().map(EffectiveBudget::from).collect(),
            },
            expires: record.expires.map(|unix_s| UtcTime::of(unix_s.saturating_mul(1000))),
            disabled: stored.is_some_and(|stored| stored.disabled),
            created: stored.map(|stored| UtcTime::of(stored.created_unix_ms)),
            secrets: in_store.chain(in_file).collect(),
        }
    }
}

impl From<&Budget> for EffectiveBudget {
    fn from(budget: &Budget) -> Self {
        Self {
            budget: BudgetObject::of(budget.limit, &budget.window),
            of: budget.account.scope.label(),
            name: budget.account.name.to_string(),
        }
    }
}

impl From<&BudgetSpec> for BudgetObject {
    fn from(budget: &BudgetSpec) -> Self {
        Self::of(budget.limit, &budget.window)
    }
}

impl BudgetObject {
    fn of(limit: NanoUsd, window: &BudgetPeriod) -> Self {
        let (window, zone) = match window {
            BudgetPeriod::Day(zone) => ("day", Some(zone.name().to_owned())),
            BudgetPeriod::Month(zone) => ("month", Some(zone.name().to_owned())),
            BudgetPeriod::Ever | BudgetPeriod::Credit => ("none", None),
        };
        Self { limit: limit.into(), window, zone }
    }
}

impl From<&StoredSecret> for SecretObject {
    fn from(secret: &StoredSecret) -> Self {
        Self {
            id: secret.hash.id(),
            created: Some(UtcTime::of(secret.created_unix_ms)),
            ends: secret.ends_unix_ms.map(UtcTime::of),
            last_used: secret.last_used_unix_ms.map(UtcTime::of),
        }
    }
}

impl From<&KeyHash> for SecretObject {
    fn from(hash: &KeyHash) -> Self {
        Self { id: hash.id(), created: None, ends: None, last_used: None }
    }
}

/// A key with the secret that was just made for it.
#[derive(serde::Serialize, JsonSchema)]
#[schemars(rename = "IssuedKey", deny_unknown_fields)]
pub struct IssuedKeyObject {
    #[serde(flatten)]
    key: KeyObject,
    secret: Option<String>,
}

impl From<&IssuedKey> for IssuedKeyObject {
    fn from(issued: &IssuedKey) -> Self {
        let secret = issued.secret.as_ref().map(|secret| secret.expose().to_owned());
        Self { key: KeyObject::from(&issued.key), secret }
    }
}

/// A team.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Team", deny_unknown_fields)]
pub struct TeamObject {
    #[schemars(extend("const" = "team"))]
    object: &'static str,
    name: String,
    #[schemars(schema_with = "record_sources")]
    source: &'static str,
    budget: Option<BudgetObject>,
    created: Option<UtcTime>,
}

impl From<&TeamView> for TeamObject {
    fn from(team: &TeamView) -> Self {
        Self {
            object: "team",
            name: team.name.to_string(),
            source: team.source.label(),
            budget: team.budget.as_ref().map(BudgetObject::from),
            created: team.stored.as_ref().map(|stored| UtcTime::of(stored.created_unix_ms)),
        }
    }
}

// --- credit -----------------------------------------------------------------------------------

/// The credit of a key or a team.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Balance", deny_unknown_fields)]
pub struct BalanceObject {
    #[schemars(extend("const" = "balance"))]
    object: &'static str,
    key: Option<String>,
    team: Option<String>,
    granted: Usd,
    spent: Usd,
    leased: Usd,
    left: Usd,
}

impl From<&CreditBalance> for BalanceObject {
    fn from(balance: &CreditBalance) -> Self {
        let [key, team] = key_or_team(&balance.holder);
        Self {
            object: "balance",
            key,
            team,
            granted: balance.granted.into(),
            spent: balance.spent.into(),
            leased: balance.leased.into(),
            left: balance.left().into(),
        }
    }
}

/// Credit that was granted, or, below zero, taken back.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Grant", deny_unknown_fields)]
pub struct GrantObject {
    #[schemars(extend("const" = "grant"))]
    object: &'static str,
    #[schemars(range(min = 0))]
    id: i64,
    key: Option<String>,
    team: Option<String>,
    amount: Usd,
    reason: String,
    by: String,
    granted: UtcTime,
}

impl From<&Grant> for GrantObject {
    fn from(grant: &Grant) -> Self {
        let [key, team] = key_or_team(&grant.holder);
        Self {
            object: "grant",
            id: grant.id,
            key,
            team,
            amount: grant.amount.into(),
            reason: grant.reason.to_string(),
            by: grant.by.to_string(),
            granted: UtcTime::of(grant.granted_unix_ms),
        }
    }
}

/// The name of the key or of the team that holds credit, `None` for the other.
fn key_or_team(holder: &Holder) -> [Option<String>; 2] {
    let name = Some(holder.name.to_string());
    if holder.scope == Scope::Key { [name, None] } else { [None, name] }
}

// --- the ledger -------------------------------------------------------------------------------

/// Sums over the ledger, and their total.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Usage", deny_unknown_fields)]
pub struct UsageReportObject {
    #[schemars(extend("const" = "usage"))]
    object: &'static str,
    #[schemars(schema_with = "lists_of_dimensions")]
    by: Vec<&'static str>,
    since: Option<UtcTime>,
    until: Option<UtcTime>,
    data: Vec<UsageRow>,
    total: UsageTotals,
}

/// A sum, and the value of each dimension that was summed by.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(deny_unknown_fields)]
struct UsageRow {
    #[serde(flatten)]
    dimensions: DimensionValues,
    #[serde(flatten)]
    totals: UsageTotals,
}

/// Requests, tokens and money.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct UsageTotals {
    requests: u64,
    failed: u64,
    input_tokens: u64,
    cached_input_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    metered: u64,
    estimated: u64,
    cost_usd: Usd,
}

/// One member for each dimension that was summed by.
#[derive(Debug)]
struct DimensionValues(Vec<(Dimension, Option<String>)>);

impl Serialize for DimensionValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(self.0.len()))?;
        for (dimension, value) in &self.0 {
            members.serialize_entry(dimension.name(), value)?;
        }
        members.end()
    }
}

impl JsonSchema for DimensionValues {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DimensionValues".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let values = Dimension::ALL.map(|one| (one.name().to_owned(), json!({ "type": ["string", "null"] })));
        json_schema!({ "type": "object", "properties": serde_json::Map::from_iter(values) })
    }
}

impl UsageReportObject {
    /// `sums` as the answer to `query`.
    pub fn of(query: &UsageQuery, sums: &[UsageSum]) -> Self {
        let mut total = UsageSum::default();
        sums.iter().for_each(|sum| total.add(sum));
        let row = |sum: &UsageSum| UsageRow {
            dimensions: DimensionValues(query.by.iter().copied().zip(sum.by.iter().cloned()).collect()),
            totals: UsageTotals::from(sum),
        };
        Self {
            object: "usage",
            by: query.by.iter().copied().map(Dimension::name).collect(),
            since: query.since_unix_ms.map(UtcTime::of),
            until: query.until_unix_ms.map(UtcTime::of),
            data: sums.iter().map(row).collect(),
            total: UsageTotals::from(&total),
        }
    }
}

impl From<&UsageSum> for UsageTotals {
    fn from(sum: &UsageSum) -> Self {
        let tokens = |tokens: u128| u64::try_from(tokens).unwrap_or(u64::MAX);
        Self {
            requests: sum.requests,
            failed: sum.failed,
            input_tokens: tokens(sum.input),
            cached_input_tokens: tokens(sum.cached_input),
            output_tokens: tokens(sum.output),
            reasoning_tokens: tokens(sum.reasoning),
            metered: sum.metered,
            estimated: sum.estimated,
            cost_usd: Usd(decimal(sum.cost_nanousd)),
        }
    }
}

/// A request in the ledger.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Request", deny_unknown_fields)]
pub struct RequestObject {
    #[schemars(extend("const" = "request"))]
    object: &'static str,
    #[serde(flatten)]
    receipt: ReceiptObject,
}

/// A receipt, with the names that the access log uses.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
pub struct ReceiptObject {
    request_id: String,
    time: UtcTime,
    key: Option<String>,
    team: Option<String>,
    policy: Option<String>,
    #[schemars(schema_with = "endpoints_or_null")]
    endpoint: Option<&'static str>,
    asked_model: Option<String>,
    stream: bool,
    model: Option<String>,
    deployment: Option<String>,
    tier: Option<String>,
    region: Option<String>,
    /// How the provider of `deployment` names the request.
    provider_request_id: Option<String>,
    /// The model that the plan put first.
    meant_model: Option<String>,
    /// The tier through which it was to be reached.
    meant_tier: Option<String>,
    attempts: Vec<AttemptObject>,
    /// Deployments of the plan that were not asked, where nothing could be, or another model answered.
    passed_over: Vec<PassedOverObject>,
    #[schemars(schema_with = "outcomes")]
    outcome: &'static str,
    #[schemars(schema_with = "reasons")]
    reason: &'static str,
    #[schemars(schema_with = "limits_or_null")]
    limit: Option<&'static str>,
    #[schemars(with = "u64")]
    status: u16,
    input_tokens: Option<u64>,
    cached_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    /// Parts of the input and the output that some models price apart.
    tokens_apart: Option<BTreeMap<&'static str, u64>>,
    estimated: bool,
    price_version: Option<String>,
    price: Option<PriceObject>,
    cost_usd: Usd,
    first_token_us: Option<u64>,
    /// From the first attempt sent to the answer of another one.
    failover_us: Option<u64>,
    duration_us: u64,
    overhead_us: u64,
}

/// One attempt at one deployment.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct AttemptObject {
    deployment: String,
    tier: Option<String>,
    model: Option<String>,
    region: Option<String>,
    /// How the provider names the request.
    provider_request_id: Option<String>,
    #[schemars(schema_with = "reasons")]
    reason: &'static str,
    /// After the request was received; attempts may overlap.
    started_us: Option<u64>,
    duration_us: u64,
    /// Whether a fault was injected into it.
    injected_fault: bool,
}

/// A deployment of the plan that was not asked.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct PassedOverObject {
    deployment: String,
    tier: Option<String>,
    model: String,
    #[schemars(schema_with = "passed_over_reasons")]
    why: &'static str,
    /// When it may be asked again, after the request was received.
    until_us: Option<u64>,
    /// Whether faults were injected there then, or within a minute before: its state may follow from them.
    injected_fault: bool,
}

/// The price that a request was charged at.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct PriceObject {
    input_usd_per_mtok: Usd,
    cached_input_usd_per_mtok: Usd,
    output_usd_per_mtok: Usd,
    /// Classes of tokens that are priced apart.
    apart_usd_per_mtok: BTreeMap<&'static str, Usd>,
    request_usd: Usd,
}

impl From<&Receipt> for RequestObject {
    fn from(receipt: &Receipt) -> Self {
        Self { object: "request", receipt: ReceiptObject::from(receipt) }
    }
}

impl From<&Receipt> for ReceiptObject {
    fn from(receipt: &Receipt) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        let served = receipt.served.as_ref();
        Self {
            request_id: receipt.id.to_string(),
            time: UtcTime::of(receipt.received_unix_ms),
            key: text(&receipt.key),
            team: text(&receipt.team),
            policy: text(&receipt.policy),
            endpoint: receipt.endpoint.map(Endpoint::name),
            asked_model: receipt.asked_model.as_deref().map(str::to_owned),
            stream: receipt.stream,
            model: served.map(|served| served.model.to_string()),
            deployment: served.map(|served| served.deployment.to_string()),
            tier: served.and_then(|served| text(&served.tier)),
            region: served.map(|served| served.region.to_string()),
            provider_request_id: receipt.provider_request_id().map(str::to_owned),
            meant_model: receipt.meant.as_ref().map(|meant| meant.model.to_string()),
            meant_tier: receipt.meant.as_ref().and_then(|meant| text(&meant.tier)),
            attempts: receipt.attempts.iter().map(AttemptObject::from).collect(),
            passed_over: receipt.passed_over.iter().map(PassedOverObject::from).collect(),
            outcome: receipt.outcome.label(),
            reason: receipt.reason.label(),
            limit: receipt.limit.map(LimitKind::label),
            status: receipt.status,
            input_tokens: receipt.usage.map(|usage| usage.input),
            cached_input_tokens: receipt.usage.map(|usage| usage.cached_input),
            output_tokens: receipt.usage.map(|usage| usage.output),
            reasoning_tokens: receipt.usage.map(|usage| usage.reasoning),
            tokens_apart: receipt.usage.map(|usage| {
                usage.apart.iter().filter(|(_, count)| *count > 0).map(|(class, count)| (class.name(), count)).collect()
            }),
            estimated: receipt.estimated,
            price_version: text(&receipt.price_version),
            price: receipt.price.map(PriceObject::from),
            cost_usd: receipt.cost.into(),
            first_token_us: receipt.first_token.map(micros),
            failover_us: receipt.failover.map(micros),
            duration_us: micros(receipt.duration),
            overhead_us: micros(receipt.overhead),
        }
    }
}

impl From<&AttemptRecord> for AttemptObject {
    fn from(attempt: &AttemptRecord) -> Self {
        Self {
            deployment: attempt.deployment.to_string(),
            tier: attempt.tier.as_deref().map(str::to_owned),
            model: attempt.model.as_deref().map(str::to_owned),
            region: attempt.region.as_deref().map(str::to_owned),
            provider_request_id: attempt.provider_request_id.as_deref().map(str::to_owned),
            reason: attempt.reason.label(),
            started_us: attempt.started.map(micros),
            duration_us: micros(attempt.duration),
            injected_fault: attempt.injected,
        }
    }
}

impl From<&PassedOverDeployment> for PassedOverObject {
    fn from(passed: &PassedOverDeployment) -> Self {
        Self {
            deployment: passed.deployment.to_string(),
            tier: passed.tier.as_deref().map(str::to_owned),
            model: passed.model.to_string(),
            why: passed.why.label(),
            until_us: passed.until.map(micros),
            injected_fault: passed.injected,
        }
    }
}

impl From<Price> for PriceObject {
    fn from(price: Price) -> Self {
        Self {
            input_usd_per_mtok: Usd(price.input.usd_per_mtok()),
            cached_input_usd_per_mtok: Usd(price.cached_input.usd_per_mtok()),
            output_usd_per_mtok: Usd(price.output.usd_per_mtok()),
            apart_usd_per_mtok: price
                .apart
                .iter()
                .filter_map(|(class, price)| Some((class.name(), Usd(price?.usd_per_mtok()))))
                .collect(),
            request_usd: price.request.into(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// --- values -----------------------------------------------------------------------------------

/// US dollars as an exact decimal, with up to nine digits after the point.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, description = "USD.")]
struct Usd(#[schemars(regex(pattern = r"^-?[0-9]+(\.[0-9]{1,9})?$"))] String);

impl From<NanoUsd> for Usd {
    fn from(amount: NanoUsd) -> Self {
        Self(amount.to_string())
    }
}

/// The exact decimal of billionths of a US dollar, which may be more than [`NanoUsd`] holds.
fn decimal(nanousd: i128) -> String {
    const DOLLAR: u128 = 1_000_000_000;
    let sign = if nanousd < 0 { "-" } else { "" };
    let (whole, part) = (nanousd.unsigned_abs() / DOLLAR, nanousd.unsigned_abs() % DOLLAR);
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An instant in UTC, as RFC 3339 with milliseconds.
#[derive(serde::Serialize, Debug)]
struct UtcTime(String);

impl UtcTime {
    fn of(unix_ms: i64) -> Self {
        Self(Rfc3339Text(unix_ms).to_string())
    }
}

impl JsonSchema for UtcTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "UtcTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

// --- words with a closed set of values --------------------------------------------------------

fn one_of(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}

fn one_of_or_null(words: &[&str]) -> Schema {
    let words: Vec<_> = words.iter().copied().map(Value::from).chain([Value::Null]).collect();
    json_schema!({ "type": ["string", "null"], "enum": words })
}

fn record_sources(_: &mut SchemaGenerator) -> Schema {
    one_of(&[RecordSource::File, RecordSource::Store].map(RecordSource::label))
}

fn key_states(_: &mut SchemaGenerator) -> Schema {
    one_of(&[KeyState::Active, KeyState::Disabled, KeyState::Expired, KeyState::Deleted].map(KeyState::label))
}

fn scopes(_: &mut SchemaGenerator) -> Schema {
    one_of(&[Scope::Key, Scope::Team, Scope::Policy].map(Scope::label))
}

fn windows(_: &mut SchemaGenerator) -> Schema {
    one_of(&["day", "month", "none"])
}

fn lists_of_dimensions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": one_of(&Dimension::ALL.map(Dimension::name)) })
}

fn endpoints_or_null(_: &mut SchemaGenerator) -> Schema {
    one_of_or_null(&Endpoint::ON_RECEIPTS.map(Endpoint::name))
}

fn outcomes(_: &mut SchemaGenerator) -> Schema {
    one_of(&Outcome::ALL.map(Outcome::label))
}

fn passed_over_reasons(_: &mut SchemaGenerator) -> Schema {
    one_of(&PassedOverReason::ALL.map(PassedOverReason::label))
}

fn reasons(_: &mut SchemaGenerator) -> Schema {
    one_of(&Reason::ALL.iter().map(|reason| reason.label()).collect::<Vec<_>>())
}

fn limits_or_null(_: &mut SchemaGenerator) -> Schema {
    one_of_or_null(&LimitKind::ALL.map(LimitKind::label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_money_are_plain_decimals() {
        let check = |nanousd: i128, expected: &str| assert_eq!(decimal(nanousd), expected);
        check(0, "0");
        check(-1_500_000_000, "-1.5");
        check(21_300, "0.0000213");
        check(100_000_000_000, "100");
        check(i128::from(i64::MAX) * 10, "92233720368.54775807");
    }
}
