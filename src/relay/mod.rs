//! The request path: one request, from received to settled.
//!
//! It calls the other modules in order and must never decide: who may ask, where to send a request and what a
//! failure means are decided in `domain`. It knows neither axum nor the JSON of model APIs. Every end of a request
//! (an answer, a refusal, a failure, a client that disconnects) goes through the same guard and leaves one receipt.
//!
//! Start reading in [`Relay::serve`]; what happens beside requests is in [`operate`].

mod active_config;
mod attempts;
mod deliver;
mod dispatch;
pub mod error;
mod estimator;
mod guard;
pub mod health;
mod in_flight;
mod operate;
mod request;
mod spend;
mod state;

pub use active_config::{ActivateError, ActiveConfig, BodyLimits, ForwardedNames, ListedModel, provider_setup};
pub use deliver::ReplyBody;
pub use error::{ServeError, StreamFailure};
pub use operate::RelayParts;
pub use request::{BoxFuture, ErrorReply, RawRequest, RequestOptions, RequestTarget, ResponseMetadata, SuccessReply};

use crate::clock::Clock;
use crate::config::KeyHash;
use crate::domain::authorize::{AuthorizedRequest, authorize};
use crate::domain::call::Call;
use crate::domain::id::{KeyIds, TeamIds};
use crate::domain::policy::is_valid;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{PlanTerms, RoutePlan};
use crate::domain::secret::Secret;
use crate::random::Rng;
use crate::store::budget_pool::BudgetPool;
use crate::store::keyring::Keyring;
use crate::store::{AdmissionRequest, Counters, LeaseStore, Ledger};
use crate::telemetry::Telemetry;
use crate::upstream::ForwardedFields;
use active_config::ResolvedKey;
use arc_swap::ArcSwap;
use dispatch::{CommittedAnswer, Dispatch};
use guard::RequestGuard;
use health::HealthRegistry;
use parking_lot::Mutex;
use spend::RequestSpend;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Serves requests, and activates configurations.
pub struct Relay {
    context: Arc<RelayContext>,
    health: HealthRegistry,
    active: ArcSwap<ActiveConfig>,
    /// Held while a configuration is activated, so that concurrent activations do not overwrite each other.
    activation: Mutex<()>,
    /// Requests received; there must be as many receipts in the end.
    entered: AtomicU64,
}

/// What all requests share.
pub(crate) struct RelayContext {
    clock: Clock,
    rng: Arc<Rng>,
    ledger: Arc<dyn Ledger>,
    counters: Arc<dyn Counters>,
    lease_store: Arc<dyn LeaseStore>,
    budget_pool: BudgetPool,
    keyring: Arc<Keyring>,
    key_ids: Mutex<KeyIds>,
    team_ids: Mutex<TeamIds>,
    telemetry: Arc<Telemetry>,
}

impl Relay {
    /// Serves one request, up to its answer. Dropping the future, or the reply's body, at any point cancels the
    /// attempts at providers and settles the request as abandoned.
    ///
    /// # Errors
    /// [`ErrorReply`], which must be sent to the client.
    pub async fn serve(&self, raw: RawRequest) -> Result<SuccessReply, ErrorReply> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        let mut guard = RequestGuard::open(self.context.clone(), raw.id, raw.received);
        let active = raw.active.clone();
        match self.handle(&active, raw, &mut guard).await {
            Ok(answered) => Ok(reply(answered, guard)),
            Err(error) => {
                if let ServeError::Refused(refusal) = &error {
                    guard.refused(refusal);
                }
                guard.stop_overhead(self.context.clock.now());
                let mut metadata = ResponseMetadata::of(&guard.state, None);
                // Nothing served it, unless the answer is a provider's own refusal.
                metadata.served = metadata.served.filter(|_| matches!(error, ServeError::Rejected(_)));
                Err(ErrorReply { error, metadata, guard })
            }
        }
    }

    async fn handle(
        &self,
        active: &ActiveConfig,
        raw: RawRequest,
        guard: &mut RequestGuard,
    ) -> Result<CommittedAnswer, ServeError> {
        let context = &*self.context;
        let table = &active.snapshot.table;
        let ResolvedKey { id, team, record: key, budgets } = identify(context, active, raw.key.as_ref())?;
        let funding = context.budget_pool.funding(&key.name, key.team.as_ref(), key.policy.money.credit, budgets);
        guard.state.spend = RequestSpend::funded_by(funding, key.policy.money.unpriced);
        (guard.state.key, guard.state.key_id) = (Some(key.clone()), id);
        let call = read_call(raw.target, guard).await?;
        let options = raw.options?;
        let authorized = authorize(table, &key, &call)?;
        let deadline = raw.received + options.deadline.map_or(table.settings.total, |d| d.min(table.settings.total));
        let answer_by = options.client_timeout.map_or(deadline, |timeout| deadline.min(raw.received + timeout));
        let priced_at_ms = context.clock.unix_ms();
        let terms = PlanTerms { no_fallback: options.no_fallback, deadline, answer_by, priced_at_ms };
        let mut plan = RoutePlan::build(table, &authorized, &call, terms, context.rng.draw())?;
        guard.state.meant(table, plan.candidate_models().first());
        admit(context, guard, active, &authorized, &call, &plan).await?;
        let call = if guard.state.spend.is_paid() {
            spend::hold_first(context, active, &key, call, &plan, &mut guard.state.spend).await?
        } else {
            call
        };
        let policy = &*key.policy;
        let fields = ForwardedFields { headers: Some(&raw.listed_headers), query: raw.query.as_deref() };
        let dispatch = Dispatch { context, active, call: &call, headers: &raw.headers, fields, deadline, team, policy };
        dispatch.run(&mut plan, guard).await
    }
}

/// The key that a client presented.
///
/// # Errors
/// [`Refusal::InvalidKey`], whatever is wrong with it.
fn identify(context: &RelayContext, active: &ActiveConfig, presented: Option<&Secret>) -> Result<ResolvedKey, Refusal> {
    // Hashing even when no key was presented gives all refusals the same timing. The table is searched
    // by hash: a caller who can choose hashes byte by byte has broken SHA-256 first.
    let hash = KeyHash::of(presented.map_or("", |secret| secret.expose()));
    let now_unix_ms = context.clock.unix_ms();
    let found = active.resolve(&hash, context, now_unix_ms);
    let valid = found.filter(|key| is_valid(&key.record, now_unix_ms / 1000));
    presented.and(valid).ok_or(Refusal::InvalidKey)
}

/// Reads and parses the body, once the key is known. Time spent on it counts as waiting for the client.
async fn read_call(target: RequestTarget, guard: &mut RequestGuard) -> Result<Call, Refusal> {
    let (endpoint, read) = match target {
        RequestTarget::Call { endpoint, read } => (endpoint, read),
        RequestTarget::UnknownUrl { path } => return Err(Refusal::UnknownUrl { path }),
        RequestTarget::WrongMethod { allow } => return Err(Refusal::MethodNotAllowed { allow }),
    };
    guard.state.endpoint = Some(endpoint);
    let call = guard.wait(read).await.map_err(Refusal::Body)?;
    guard.state.asked_model = Some(call.metadata().model.clone());
    guard.state.stream = call.metadata().stream;
    guard.state.estimated_input = call.estimated_input_tokens(None);
    Ok(call)
}

/// Takes the request, its tokens and one concurrent request from the key's limits; the guard returns them.
async fn admit(
    context: &RelayContext,
    guard: &mut RequestGuard,
    active: &ActiveConfig,
    authorized: &AuthorizedRequest,
    call: &Call,
    plan: &RoutePlan,
) -> Result<(), ServeError> {
    let key = authorized.key();
    let first = plan.candidate_models().first().map(|first| active.snapshot.table.model(first.model));
    let typical_image = first.and_then(|model| Some(model.image_tokens?.typical));
    guard.state.estimated_input = call.estimated_input_tokens(typical_image);
    let tokens = call.tokens_to_admit(first.map_or(0, |model| model.typical_output), typical_image);
    let ask = AdmissionRequest { key: guard.state.key_id, limits: key.limits, tokens };
    match context.counters.admit(&ask, context.clock.now()).await {
        Ok(admission) => {
            guard.state.requests_left = admission.requests();
            guard.state.tokens_left = admission.tokens();
            guard.state.admission = Some(admission);
            Ok(())
        }
        Err(denied) => {
            guard.state.requests_left = denied.left.requests;
            guard.state.tokens_left = denied.left.tokens;
            Err(Refusal::OverLimit(denied.over).into())
        }
    }
}

fn reply(mut answered: CommittedAnswer, mut guard: RequestGuard) -> SuccessReply {
    let stream = guard.state.stream;
    if !stream {
        deliver::meter(&mut guard, &answered.answer.body, &answered.estimator);
        deliver::learn(&guard, &answered.answer.body, &answered.estimator);
    }
    let state = &guard.state;
    let known = !stream && state.price.is_some();
    let cost = known.then(|| state.spend.bill(state.price.as_ref(), state.usage, state.basis).cost);
    SuccessReply {
        status: answered.answer.status,
        headers: std::mem::take(&mut answered.answer.headers),
        metadata: ResponseMetadata::of(&guard.state, cost),
        stream,
        body: ReplyBody::new(answered, guard),
    }
}
