//! The status of deployments as a JSON object: the answer of the admin API, and what `tierway status --json` prints.
//!
//! As in [`views`](super), every member is always present. A credential is named by its variable, never shown.
//!
//! Start reading at [`StatusObject`].

use super::{UtcTime, micros, one_of, one_of_or_null, reasons};
use crate::domain::pause::PauseScope;
use crate::domain::register::QuarantinedRow;
use crate::domain::status::{
    AvailabilityCause, CredentialState, CredentialStatus, DeploymentStatus, FailureStatus, LatencyStatus, PauseStatus,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// The status of every deployment.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Status", deny_unknown_fields)]
pub struct StatusObject {
    #[schemars(extend("const" = "status"))]
    object: &'static str,
    /// When it was so.
    time: UtcTime,
    /// Whether every deployment gets its traffic.
    flows: bool,
    /// In the order of the file.
    deployments: Vec<DeploymentObject>,
    /// Rows of the store that cannot be read: they count for nothing, and a team among them may spend nothing.
    quarantined: Vec<QuarantinedRowObject>,
}

/// A row of the store that cannot be read.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "QuarantinedRow", deny_unknown_fields)]
struct QuarantinedRowObject {
    table: &'static str,
    /// The name of the key or team, or the number of the grant.
    row: String,
    /// What is wrong with it.
    why: String,
}

/// One deployment.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Deployment", deny_unknown_fields)]
pub struct DeploymentObject {
    deployment: String,
    model: String,
    provider: String,
    region: String,
    /// Those that hold its model.
    tiers: Vec<String>,
    /// Of the provider, without user and query; `sim` where it is simulated.
    url: String,
    #[schemars(schema_with = "states")]
    state: &'static str,
    /// Nothing at all has come from it for longer than is usual.
    silent: bool,
    /// Why it does not get its traffic.
    #[schemars(schema_with = "causes_or_null")]
    cause: Option<&'static str>,
    since: Option<UtcTime>,
    /// When one attempt may try it again; past where the next one may.
    next_probe: Option<UtcTime>,
    /// How many teams it is open for while it is not for all.
    open_for_teams: u64,
    /// The endpoints that its host does not have, as was met lately: its deployment is passed over for those.
    missing_endpoints: Vec<&'static str>,
    attempts_in_flight: u32,
    /// From an attempt to the first token of a stream.
    stream_first_token: LatencyObject,
    /// From an attempt to the whole answer, where it is not streamed.
    whole_answer: LatencyObject,
    last_success: Option<UtcTime>,
    /// The latest failure that was not a request's own.
    last_failure: Option<FailureObject>,
    /// In the order of the file; of a provider without any, one without a name.
    credentials: Vec<CredentialObject>,
    /// Requests with a budget or credit are kept from it: an answer cost more than was held.
    budget_pause: Option<PauseObject>,
}

/// Whose requests are kept from a deployment.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "BudgetPause", deny_unknown_fields)]
struct PauseObject {
    /// `keys`: those of the keys below, and of a team of which there are two; `all`: of every key with a budget or credit.
    #[schemars(schema_with = "pause_scopes")]
    scope: &'static str,
    /// Those whose answers were the cause.
    keys: Vec<String>,
    /// When the last of them ends by itself.
    until: UtcTime,
}

/// Percentiles of the latest answers, in microseconds.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Latency", deny_unknown_fields)]
struct LatencyObject {
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// A failed attempt.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Failure", deny_unknown_fields)]
struct FailureObject {
    time: UtcTime,
    #[schemars(schema_with = "reasons")]
    reason: &'static str,
    /// The provider's HTTP status.
    #[schemars(with = "Option<u64>")]
    status: Option<u16>,
    /// One line, with the provider's own sentence where there is one.
    detail: String,
    /// The variable of the credential that was presented.
    credential: Option<String>,
}

/// A credential at one deployment.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Credential", deny_unknown_fields)]
struct CredentialObject {
    /// The variable that it is read from, or `file:` and a path.
    name: Option<String>,
    #[schemars(schema_with = "credential_states")]
    state: &'static str,
    since: Option<UtcTime>,
    /// When one attempt may present it again; past where the next one may.
    until: Option<UtcTime>,
}

impl StatusObject {
    /// `deployments` as they were at a Unix millisecond, and the `quarantined` rows of the store.
    pub fn of(unix_ms: i64, deployments: &[DeploymentStatus], quarantined: Vec<QuarantinedRow>) -> Self {
        Self {
            object: "status",
            time: UtcTime::of(unix_ms),
            flows: deployments.iter().all(DeploymentStatus::flows),
            deployments: deployments.iter().map(DeploymentObject::from).collect(),
            quarantined: quarantined.into_iter().map(QuarantinedRowObject::from).collect(),
        }
    }
}

impl From<QuarantinedRow> for QuarantinedRowObject {
    fn from(QuarantinedRow { table, row, why }: QuarantinedRow) -> Self {
        Self { table, row, why }
    }
}

impl From<&DeploymentStatus> for DeploymentObject {
    fn from(status: &DeploymentStatus) -> Self {
        Self {
            deployment: status.deployment.to_string(),
            model: status.model.to_string(),
            provider: status.provider.to_string(),
            region: status.region.to_string(),
            tiers: status.tiers.iter().map(ToString::to_string).collect(),
            url: status.url.to_string(),
            state: status.state_label(),
            silent: status.silent,
            cause: status.cause.map(AvailabilityCause::label),
            since: status.since_unix_ms.map(UtcTime::of),
            next_probe: status.next_probe_unix_ms.map(UtcTime::of),
            open_for_teams: status.open_for_teams as u64,
            missing_endpoints: status.missing_endpoints.iter().map(|endpoint| endpoint.name()).collect(),
            attempts_in_flight: status.in_flight,
            stream_first_token: status.streams.into(),
            whole_answer: status.whole_answers.into(),
            last_success: status.last_success_unix_ms.map(UtcTime::of),
            last_failure: status.last_failure.as_ref().map(FailureObject::from),
            credentials: status.credentials.iter().map(CredentialObject::from).collect(),
            budget_pause: status.budget_pause.as_ref().map(PauseObject::from),
        }
    }
}

impl From<&PauseStatus> for PauseObject {
    fn from(pause: &PauseStatus) -> Self {
        Self {
            scope: pause.scope.label(),
            keys: pause.keys.iter().map(ToString::to_string).collect(),
            until: UtcTime::of(pause.until_unix_ms),
        }
    }
}

impl From<LatencyStatus> for LatencyObject {
    fn from(status: LatencyStatus) -> Self {
        Self { p50_us: status.p50.map(micros), p99_us: status.p99.map(micros) }
    }
}

impl From<&FailureStatus> for FailureObject {
    fn from(failure: &FailureStatus) -> Self {
        Self {
            time: UtcTime::of(failure.at_unix_ms),
            reason: failure.reason.label(),
            status: failure.status,
            detail: failure.detail.to_string(),
            credential: failure.credential.as_deref().map(str::to_owned),
        }
    }
}

impl From<&CredentialStatus> for CredentialObject {
    fn from(credential: &CredentialStatus) -> Self {
        Self {
            name: credential.name.as_deref().map(str::to_owned),
            state: credential.state.label(),
            since: credential.since_unix_ms.map(UtcTime::of),
            until: credential.until_unix_ms.map(UtcTime::of),
        }
    }
}

fn states(_: &mut SchemaGenerator) -> Schema {
    one_of(&DeploymentStatus::state_labels())
}

fn causes_or_null(_: &mut SchemaGenerator) -> Schema {
    one_of_or_null(&AvailabilityCause::ALL.map(AvailabilityCause::label))
}

fn pause_scopes(_: &mut SchemaGenerator) -> Schema {
    one_of(&[PauseScope::Keys, PauseScope::All].map(PauseScope::label))
}

fn credential_states(_: &mut SchemaGenerator) -> Schema {
    one_of(&CredentialState::ALL.map(CredentialState::label))
}
