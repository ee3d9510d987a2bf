//! How a plan reads the health and load of deployments, and takes permits.
//!
//! It exists so that the plan runs on any source of health: the relay's locks, a simulation, a test's table. Nothing
//! here decides.
//!
//! Start reading at [`HealthSource`].

use crate::domain::breaker::Availability;
use crate::domain::id::DeploymentId;
use crate::domain::routing::gauge::AnswerMode;
use std::time::{Duration, Instant};

/// Where the plan reads the health and load of deployments, and takes permits.
pub trait HealthSource {
    /// Proof that an attempt may be made; it is returned when it is dropped.
    type Permit;

    /// The health of `deployment` at `now`, for an answer of this mode.
    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView;
    /// A permit for one attempt, unless breaker, capacity or credentials refuse it by now.
    fn take(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> Option<Self::Permit>;
    /// Whether the retry budget allows an extra attempt.
    fn has_retry(&self, now: Instant) -> bool;
    /// Takes one extra attempt from the retry budget, if one is left; returns whether it was.
    fn spend_retry(&self, now: Instant) -> bool;
}

/// The health of one deployment at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HealthView {
    /// Of breaker and credentials together: the stricter one.
    pub availability: Availability,
    /// As many requests are in flight as it may have.
    pub full: bool,
    /// An attempt there has waited too long for an answer.
    pub silent: bool,
    /// What `latency` compares: smaller is better.
    pub load: f64,
    /// The average first-token time, once known.
    pub average: Option<Duration>,
    /// Whether the last finished attempt there was good, once there was one.
    pub last_good: Option<bool>,
}
