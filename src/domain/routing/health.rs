//! How a plan reads the health and load of deployments, and takes permits.
//!
//! It exists so that the plan runs on any source of health: the relay's locks, a simulation, a test's table. Nothing
//! here decides.
//!
//! Start reading at [`HealthSource`].

use crate::domain::breaker::Availability;
use crate::domain::id::DeploymentId;
use crate::domain::routing::AnswerMode;
use std::time::{Duration, Instant};

/// Where the plan reads the health and load of deployments, and takes permits, for one team.
pub trait HealthSource {
    /// Proof that an attempt may be made; it is returned when it is dropped.
    type Permit;

    /// The health of `deployment` at `now`, for an answer of this mode.
    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView;
    /// A permit of this kind for one attempt, unless the deployment's health refuses it by now.
    fn take(&self, deployment: DeploymentId, mode: AnswerMode, kind: PermitKind, now: Instant) -> Option<Self::Permit>;
    /// Whether a budget allows an extra attempt.
    fn has_extra(&self, budget: ExtraBudget, now: Instant) -> bool;
    /// Takes one extra attempt from a budget, if one is left; returns whether it was.
    fn spend_extra(&self, budget: ExtraBudget, now: Instant) -> bool;
    /// Gives one back that was taken and not made.
    fn give_back_extra(&self, budget: ExtraBudget, now: Instant);
}

/// The budgets that extra attempts are paid from, each a share of the traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtraBudget {
    /// Retries, fallbacks, rescues and further trials of one request: `retry_budget`.
    Retry,
    /// Besides, further trials of one request: a share without the floor, or a quiet gateway would multiply an outage.
    Trial,
    /// Hedges: the `extra` of the key's policy.
    Hedge,
}

/// What a permit is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PermitKind {
    /// An attempt at a deployment that is not silent, or its probe.
    Usual,
    /// The one attempt at a time that asks a silent deployment.
    AskSilent,
    /// An attempt at a silent deployment, because no other is left.
    DespiteSilence,
    /// An attempt at a deployment whose breaker is open or that rests, because nothing else is left: one at a time
    /// and deployment, and none before a time that its provider named.
    Trial,
}

/// The health of one deployment at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HealthView {
    /// Of breakers, rests and credentials together: the strictest.
    pub availability: Availability,
    /// As many requests are in flight as it may have.
    pub full: bool,
    /// Nothing has come from it for longer than is usual.
    pub silent: bool,
    /// It is silent, and one attempt may ask it now.
    pub may_ask: bool,
    /// Its provider throttles or refuses what we present: deployments of the same model go first.
    pub asked_last: bool,
    /// A credential is left that did not fail when it was used last.
    pub fresh_credential: bool,
    /// When a trial may be made there.
    pub trial_at: Instant,
    /// When the last trial was made there.
    pub last_trial: Option<Instant>,
    /// What `latency` compares: smaller is better.
    pub load: f64,
    /// The average first-token time, once known.
    pub average: Option<Duration>,
    /// The 99th percentile of first-token times, once known.
    pub p99: Option<Duration>,
    /// Whether the last finished attempt there was good, once there was one.
    pub last_good: Option<bool>,
}

impl HealthView {
    /// Whether a usual attempt may be made there, or a probe.
    pub fn is_open_to_attempts(&self) -> bool {
        !matches!(self.availability, Availability::Blocked { .. }) && !self.full
    }
}
