//! What is known of one request so far.
//!
//! Filled as the request proceeds; at the end the receipt is made of it. It holds nothing that must be returned but
//! through its [`guard`](super::guard), and decides nothing.

use super::spend::{RequestCost, RequestSpend};
use crate::domain::budget::Charge;
use crate::domain::call::Endpoint;
use crate::domain::estimate::UsageBasis;
use crate::domain::id::{KeyId, RequestId};
use crate::domain::limit::{LimitKind, RateLimitStatus};
use crate::domain::policy::KeyRecord;
use crate::domain::pricing::{Price, PriceVersion};
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Outcome, Receipt, ServingDeployment};
use crate::domain::usage::Usage;
use crate::store::Admission;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of a request so far.
pub(super) struct RequestState {
    pub(super) id: RequestId,
    pub(super) received: Instant,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) key: Option<Arc<KeyRecord>>,
    pub(super) key_id: KeyId,
    /// The model as the client wrote it.
    pub(super) asked_model: Option<Box<str>>,
    pub(super) stream: bool,
    /// Input tokens as estimated, for when the provider counts none.
    pub(super) estimated_input: u64,
    /// The deployment that answered, or that was tried last.
    pub(super) served: Option<ServingDeployment>,
    /// Every attempt sent so far, by number from 1. Reason and duration are final once it is not in flight.
    pub(super) attempts: Vec<AttemptRecord>,
    /// The price that the answer is charged at.
    pub(super) price: Option<PriceVersion>,
    pub(super) usage: Option<Usage>,
    /// Whether `usage` was counted by the provider or estimated here.
    pub(super) basis: UsageBasis,
    /// The provider reported token counts that no answer can have.
    pub(super) impossible_usage: bool,
    /// The limit that refused the request.
    pub(super) limit: Option<LimitKind>,
    /// From received to the first token.
    pub(super) first_token: Option<Duration>,
    /// Time spent waiting for the client, a provider or a pause, up to the answer's first byte.
    pub(super) waited: Duration,
    /// Time spent in the gateway up to the answer's first byte, once there is one.
    pub(super) overhead: Option<Duration>,
    /// What was taken from the key's limits.
    pub(super) admission: Option<Admission>,
    pub(super) requests_left: Option<RateLimitStatus>,
    pub(super) tokens_left: Option<RateLimitStatus>,
    pub(super) spend: RequestSpend,
}

impl RequestState {
    pub(super) fn new(id: RequestId, received: Instant) -> Self {
        Self {
            id,
            received,
            endpoint: None,
            key: None,
            key_id: KeyId::NONE,
            asked_model: None,
            stream: false,
            estimated_input: 0,
            served: None,
            attempts: Vec::with_capacity(1),
            price: None,
            usage: None,
            basis: UsageBasis::default(),
            impossible_usage: false,
            limit: None,
            first_token: None,
            waited: Duration::ZERO,
            overhead: None,
            admission: None,
            requests_left: None,
            tokens_left: None,
            spend: RequestSpend::default(),
        }
    }

    /// The price of a token of the answer.
    pub(super) fn price(&self) -> Option<Price> {
        self.price.as_ref().map(|version| version.price)
    }

    /// The name of the deployment that answered, or that was tried last; empty before any was.
    pub(super) fn deployment(&self) -> &str {
        self.served.as_ref().map_or("", |served| &served.deployment)
    }

    /// The receipt of the request, which has ended. What it takes of the state is not needed any more.
    pub(super) fn receipt(&mut self, end: RequestOutcome, cost: RequestCost, charges: Vec<Charge>) -> Receipt {
        let duration = end.at.saturating_duration_since(self.received);
        Receipt {
            id: self.id,
            received_unix_ms: end.at_unix_ms - i64::try_from(duration.as_millis()).unwrap_or(0),
            endpoint: self.endpoint,
            key: self.key.as_ref().map(|key| key.name.clone()),
            team: self.key.as_ref().and_then(|key| key.team.clone()),
            policy: self.key.as_ref().map(|key| key.policy.name.clone()),
            asked_model: self.asked_model.take(),
            stream: self.stream,
            served: self.served.take(),
            attempts: std::mem::take(&mut self.attempts),
            outcome: end.outcome,
            reason: end.reason,
            limit: self.limit,
            status: end.status,
            usage: self.usage,
            estimated: cost.estimated,
            price: self.price(),
            price_version: self.price.take().map(|version| version.version),
            cost: cost.cost,
            charges,
            first_token: self.first_token,
            duration,
            overhead: self.overhead.unwrap_or_default(),
        }
    }
}

/// How and when a request ended.
pub(super) struct RequestOutcome {
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    /// What the client read as HTTP status.
    pub(super) status: u16,
    pub(super) at: Instant,
    /// The same instant in Unix milliseconds.
    pub(super) at_unix_ms: i64,
}
