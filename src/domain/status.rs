//! The status of deployments and their credentials, for operators: what does not flow, why, since when, until when.
//!
//! Values only, filled from the health of a running gateway; the admin API and `tierway status` show them. They name
//! a credential by the variable that it is read from, and must never hold its text, nor anything of a request.
//!
//! Start reading at [`DeploymentStatus`].

use crate::domain::breaker::{StateName, TransitionCause};
use crate::domain::call::Endpoint;
use crate::domain::pause::PauseScope;
use crate::domain::reason::Reason;
use std::sync::Arc;
use std::time::Duration;

/// What is known of one deployment at an instant. Times are Unix milliseconds.
#[derive(Clone, Debug)]
pub struct DeploymentStatus {
    /// Its name.
    pub deployment: Arc<str>,
    /// The model that it serves.
    pub model: Arc<str>,
    /// Its provider.
    pub provider: Arc<str>,
    /// Its region.
    pub region: Arc<str>,
    /// The tiers that hold its model, in the order of the file.
    pub tiers: Vec<Arc<str>>,
    /// The provider's base URL without user and query; `sim` where it is simulated.
    pub url: Arc<str>,
    /// The state of its breaker, or resting.
    pub state: StateName,
    /// Whether nothing at all has come from it for longer than is usual.
    pub silent: bool,
    /// Why it does not get its traffic; `None` where it does.
    pub cause: Option<AvailabilityCause>,
    /// Since when.
    pub since_unix_ms: Option<i64>,
    /// When one attempt may try it again; past where the next one may.
    pub next_probe_unix_ms: Option<i64>,
    /// The number of teams for which alone it is open.
    pub open_for_teams: usize,
    /// The endpoints that its host does not have, as some team at least met it lately.
    pub missing_endpoints: Vec<Endpoint>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// First-token times of streams.
    pub streams: LatencyStatus,
    /// Times of whole answers.
    pub whole_answers: LatencyStatus,
    /// When an attempt last ended well.
    pub last_success_unix_ms: Option<i64>,
    /// The latest failure that was not a request's own.
    pub last_failure: Option<FailureStatus>,
    /// The provider's credentials, in the order of the file; of a provider without, one that has no name.
    pub credentials: Vec<CredentialStatus>,
    /// Requests that money is held for are kept from it: an answer cost more than was held. `None`: they are not.
    pub budget_pause: Option<PauseStatus>,
}

/// Whose requests are kept from a deployment, because answers of it cost more than was held for them.
#[derive(Clone, Debug)]
pub struct PauseStatus {
    /// Those of some keys, or all.
    pub scope: PauseScope,
    /// The keys whose answers were the cause.
    pub keys: Vec<Arc<str>>,
    /// When the last pause ends, in Unix milliseconds.
    pub until_unix_ms: i64,
}

impl DeploymentStatus {
    /// Whether it gets its traffic: closed, not silent, and not paused for all that have a budget.
    pub fn flows(&self) -> bool {
        let paused = self.budget_pause.as_ref().is_some_and(|pause| pause.scope == PauseScope::All);
        self.state == StateName::Closed && !self.silent && !paused
    }

    /// The state in one word: the breaker's, or `silent` where that alone keeps traffic away.
    pub fn state_label(&self) -> &'static str {
        if self.state == StateName::Closed && self.silent { SILENT } else { self.state.label() }
    }

    /// Every value of [`state_label`](Self::state_label).
    pub fn state_labels() -> Vec<&'static str> {
        StateName::ALL.iter().map(|state| state.label()).chain([SILENT]).collect()
    }
}

const SILENT: &str = "silent";

/// Why a deployment does not get its traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AvailabilityCause {
    /// As the breaker's transition, or the rest, was caused.
    Transition(TransitionCause),
    /// The provider refuses every credential.
    CredentialRefused,
    /// Nothing comes from it.
    Silent,
}

impl AvailabilityCause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Transition(TransitionCause::Consecutive),
        Self::Transition(TransitionCause::Ratio),
        Self::Transition(TransitionCause::Probe),
        Self::Transition(TransitionCause::BrokenOff),
        Self::Transition(TransitionCause::Throttled),
        Self::Transition(TransitionCause::NotFound),
        Self::CredentialRefused,
        Self::Silent,
    ];

    /// Its label; those of transitions are the ones of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Transition(cause) => cause.label(),
            Self::CredentialRefused => "credential_refused",
            Self::Silent => SILENT,
        }
    }
}

/// Percentiles of the latest answers' times, where any were measured.
#[derive(Clone, Copy, Debug)]
pub struct LatencyStatus {
    /// The median.
    pub p50: Option<Duration>,
    /// The 99th percentile.
    pub p99: Option<Duration>,
}

/// How one attempt failed.
#[derive(Clone, Debug)]
pub struct FailureStatus {
    /// When, in Unix milliseconds.
    pub at_unix_ms: i64,
    /// The label of the failure.
    pub reason: Reason,
    /// The provider's HTTP status, if it replied.
    pub status: Option<u16>,
    /// One line, with the provider's own sentence where there is one: masked, and never of the content of a request.
    pub detail: Box<str>,
    /// The name of the credential that was presented.
    pub credential: Option<Box<str>>,
}

/// Whether a credential may be presented at one deployment.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The variable that it is read from, or `file:` and a path; `None`: nothing is presented.
    pub name: Option<Arc<str>>,
    /// Whether the provider lets it in.
    pub state: CredentialState,
    /// Since when it rests, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// When one attempt may try it again, in Unix milliseconds; past where the next one may.
    pub until_unix_ms: Option<i64>,
}

/// Whether a provider lets a credential in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialState {
    /// It may be presented.
    Accepted,
    /// The provider refuses it, or its account: it rests.
    Refused,
    /// The provider throttles it at this deployment: it rests.
    Throttled,
}

impl CredentialState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Throttled];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_flows_while_it_is_closed_and_not_silent() {
        let none = LatencyStatus { p50: None, p99: None };
        let status = |state, silent| DeploymentStatus {
            deployment: "p/m".into(),
            model: "m".into(),
            provider: "p".into(),
            region: "r".into(),
            tiers: Vec::new(),
            url: "sim".into(),
            state,
            silent,
            cause: None,
            since_unix_ms: None,
            next_probe_unix_ms: None,
            open_for_teams: 0,
            missing_endpoints: Vec::new(),
            in_flight: 0,
            streams: none,
            whole_answers: none,
            last_success_unix_ms: None,
            last_failure: None,
            credentials: Vec::new(),
            budget_pause: None,
        };
        let check = |state, silent, expected: (&str, bool)| {
            let status = status(state, silent);
            assert_eq!((status.state_label(), status.flows()), expected);
            assert!(DeploymentStatus::state_labels().contains(&status.state_label()));
        };
        check(StateName::Closed, false, ("closed", true));
        check(StateName::Closed, true, ("silent", false));
        check(StateName::Open, true, ("open", false));
        check(StateName::HalfOpen, false, ("half_open", false));
        check(StateName::Resting, false, ("resting", false));
        for (scope, flows) in [(PauseScope::Keys, true), (PauseScope::All, false)] {
            let pause = PauseStatus { scope, keys: Vec::new(), until_unix_ms: 0 };
            let paused = DeploymentStatus { budget_pause: Some(pause), ..status(StateName::Closed, false) };
            assert_eq!((paused.state_label(), paused.flows()), ("closed", flows));
        }
    }
}
