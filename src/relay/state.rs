//! What is known of one request so far.
//!
//! Filled as the request proceeds; at the end the receipt is made of it. It holds nothing that must be returned but
//! through its [`guard`](super::guard), and decides nothing.

use super::ActiveConfig;
use super::fault_registry::FaultRegistry;
use super::health::{GatewayPlace, PauseHandle, ProviderLabels};
use super::spend::{RequestCost, RequestSpend};
use crate::config::OnAbandon;
use crate::domain::budget::Charge;
use crate::domain::call::{Call, Endpoint};
use crate::domain::estimate::UsageBasis;
use crate::domain::fault::FaultEffect;
use crate::domain::id::{DeploymentId, KeyId, RequestId, TierId};
use crate::domain::limit::LimitKind;
use crate::domain::memory::InFlightAllowance;
use crate::domain::policy::KeyRecord;
use crate::domain::pricing::{Price, PriceVersion};
use crate::domain::provider_state::{OwnedStateId, ProviderAccount, StateId};
use crate::domain::random::RandomValue;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Outcome, PassedOverDeployment, PlannedModel, Receipt, ServingDeployment};
use crate::domain::routing::builder::CandidateModel;
use crate::domain::routing::table::RoutingTable;
use crate::domain::usage::Usage;
use crate::store::{Admission, RemainingRateLimits};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The account that an answer is from, and whether what it made is kept there.
pub(super) struct AnswerAccount {
    pub(super) account: Arc<ProviderAccount>,
    /// It is stored there, so that it may be referred to by its id.
    is_stored: bool,
    /// It was made by an earlier request: what is known of it need not be kept again.
    pub(super) is_known: bool,
}

impl AnswerAccount {
    /// Of an answer to `call` from `account`.
    pub(super) fn new(call: &Call, account: Arc<ProviderAccount>) -> Self {
        Self { account, is_stored: call.metadata().is_stored, is_known: call.stored().is_some() }
    }

    /// Whether a later request may refer to `id`.
    pub(super) fn keeps(&self, id: StateId) -> bool {
        self.is_stored || matches!(id, StateId::Encrypted(_))
    }
}

/// How a request is billed for a response that is made in the background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BackgroundCharge {
    /// Its answer begins one, whose id did not come yet.
    OfAnswer,
    /// It is billed for this one, if it shows its end before any other request does.
    Of(OwnedStateId),
    /// It did, and is.
    Billed,
}

/// What is known of a request so far.
pub(super) struct RequestState {
    pub(super) id: RequestId,
    pub(super) received: Instant,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) key: Option<Arc<KeyRecord>>,
    pub(super) key_id: KeyId,
    /// What the key may hold in memory; of a request with a key.
    pub(super) allowance: Option<InFlightAllowance>,
    /// The model as the client wrote it, where it named one.
    pub(super) asked_model: Option<Box<str>>,
    pub(super) stream: bool,
    /// Input tokens as estimated, for when the provider counts none.
    pub(super) estimated_input: u64,
    /// The model that the plan put first.
    pub(super) meant: Option<PlannedModel>,
    /// The deployment that answered, or that was tried last.
    pub(super) served: Option<ServingDeployment>,
    /// How the provider that answered is named to operators.
    pub(super) provider: Option<Arc<ProviderLabels>>,
    /// For whom its answer makes something that later requests may refer to, and where.
    pub(super) made_by: Option<AnswerAccount>,
    /// The response in the background that it asks for, or reads.
    pub(super) background: Option<BackgroundCharge>,
    /// What its price is looked up in; of a request that reads a response in the background.
    pub(super) config: Option<Arc<ActiveConfig>>,
    /// What its answer costs where its client does not wait for it.
    pub(super) on_abandon: OnAbandon,
    /// Where it is reported that the answer cost more than was held; `None` where nothing is held.
    pub(super) pause: Option<PauseHandle>,
    /// Its place in the gateway, where there are only so many; kept until its end.
    pub(super) gateway_place: Option<GatewayPlace>,
    /// Every attempt sent so far, by number from 1. Reason and duration are final once it is not in flight.
    pub(super) attempts: Vec<AttemptRecord>,
    /// Deployments that the plan did not ask, where the receipt is to say so:
    /// [`passed_over`](crate::domain::receipt::passed_over) makes the list.
    pub(super) passed_over: Vec<PassedOverDeployment>,
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
    /// From the first attempt sent to the commit point of another one.
    pub(super) failover: Option<Duration>,
    /// Time spent waiting for the client, a provider or a pause, up to the answer's first byte.
    pub(super) waited: Duration,
    /// Time spent in the gateway up to the answer's first byte, once there is one.
    pub(super) overhead: Option<Duration>,
    /// What was taken from the key's limits.
    pub(super) admission: Option<Admission>,
    pub(super) limits_left: RemainingRateLimits,
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
            allowance: None,
            asked_model: None,
            stream: false,
            estimated_input: 0,
            meant: None,
            served: None,
            provider: None,
            made_by: None,
            background: None,
            config: None,
            on_abandon: OnAbandon::default(),
            pause: None,
            gateway_place: None,
            attempts: Vec::with_capacity(1),
            passed_over: Vec::new(),
            price: None,
            usage: None,
            basis: UsageBasis::default(),
            impossible_usage: false,
            limit: None,
            first_token: None,
            failover: None,
            waited: Duration::ZERO,
            overhead: None,
            admission: None,
            limits_left: RemainingRateLimits::default(),
            spend: RequestSpend::default(),
        }
    }

    /// Records which model the plan put first.
    pub(super) fn meant(&mut self, table: &RoutingTable, first: Option<&CandidateModel>) {
        self.meant = first.map(|first| PlannedModel {
            model: table.model(first.model).name.clone(),
            tier: first.tier.map(|tier| table.tier(tier).name.clone()),
        });
    }

    /// Records that attempt `number` answered at `now`: its commit point. That of a replay is none of the request's.
    pub(super) fn answered(&mut self, number: u32, now: Instant) {
        if self.first_token.is_some() {
            return;
        }
        let first_token = now.saturating_duration_since(self.received);
        self.first_token = Some(first_token);
        if number > 1 {
            let first_sent = self.attempts.first().and_then(|first| first.started);
            self.failover = first_sent.map(|sent| first_token.saturating_sub(sent));
        }
    }

    /// The number of the attempt that answered, unless its answer broke.
    pub(super) fn answering_attempt(&self) -> Option<u32> {
        let at = self.attempts.iter().position(|attempt| attempt.reason == Reason::Served)?;
        Some(at as u32 + 1)
    }

    /// Records that the answer broke: the attempt that gave it did not serve the request after all.
    pub(super) fn answer_broke(&mut self, reason: Reason) {
        if let Some(answered) = self.attempts.iter_mut().find(|attempt| attempt.reason == Reason::Served) {
            answered.reason = reason;
        }
    }

    /// Records that the provider was left before the end of its answer: where it goes on, it is paid for what nobody sees.
    pub(super) fn left_provider(&mut self) {
        if self.on_abandon != OnAbandon::Estimate {
            self.spend.charge_whole_hold();
        }
    }

    /// The fault that attempt `number`, which was recorded as sent, meets by `draw`; noted on its record.
    pub(super) fn injected_fault(
        &mut self,
        number: u32,
        draw: RandomValue,
        faults: &FaultRegistry,
    ) -> Option<FaultEffect> {
        let record = self.attempts.get_mut((number as usize).checked_sub(1)?)?;
        let fault = faults.drawn(&record.deployment, record.region.as_deref().unwrap_or_default(), draw);
        record.injected = fault.is_some();
        fault
    }

    /// Records how the provider of attempt `number` names the request, where it does.
    pub(super) fn provider_named(&mut self, number: u32, provider_request_id: Option<Box<str>>) {
        if let Some(attempt) = (number as usize).checked_sub(1).and_then(|at| self.attempts.get_mut(at)) {
            attempt.provider_request_id = provider_request_id;
        }
    }

    /// The price of the answer's tokens, which depends on how many its input has.
    fn price(&self) -> Option<Price> {
        let input = self.usage.map_or(0, |usage| usage.input);
        self.price.as_ref().map(|version| *version.for_input(input))
    }

    /// Records that the answer of `deployment` says it is of the model that its provider calls `name`, and returns
    /// whether `table` has that model there. From here on it counts as the one that serves, at its own price.
    pub(super) fn answered_by(
        &mut self,
        name: &str,
        table: &RoutingTable,
        deployment: DeploymentId,
        call: &Call,
        priced_at_ms: i64,
    ) -> bool {
        let (request_id, asked) = (self.id, self.deployment());
        let Some(other) = table.other_deployment(deployment, name) else {
            // It may be its own name for the same model, with every answer.
            tracing::info!(%request_id, deployment = asked, name, "a provider calls the model that answered by another name");
            return false;
        };
        tracing::error!(%request_id, deployment = asked, name, "a provider answered with another model than it was asked for");
        if let Some(served) = &mut self.served {
            served.model = table.model(table.deployment(other).model).name.clone();
        }
        if let Some(price) = table.price_of(other, call, priced_at_ms) {
            self.price = Some(price.clone());
        }
        true
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
            meant: self.meant.take(),
            served: self.served.take(),
            attempts: std::mem::take(&mut self.attempts),
            passed_over: std::mem::take(&mut self.passed_over),
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
            failover: self.failover,
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

/// `deployment` as receipts name it, reached through `tier`.
pub(super) fn deployment_of(table: &RoutingTable, deployment: DeploymentId, tier: Option<TierId>) -> ServingDeployment {
    let target = table.deployment(deployment);
    ServingDeployment {
        model: table.model(target.model).name.clone(),
        deployment: target.name.clone(),
        tier: tier.map(|tier| table.tier(tier).name.clone()),
        region: table.region(target.region).clone(),
    }
}
