//! The request path: one request, from received to settled.
//!
//! It calls the other modules in order and must never decide: who may ask, where to send a request and what a
//! failure means are decided in `domain`. It knows neither axum nor the JSON of model APIs. Every end of a request
//! (an answer, a refusal, a failure, a client that disconnects) goes through the same guard and leaves one receipt.
//!
//! Start reading in [`Relay::serve`]; what happens beside requests is in [`operate`].

mod active_config;
mod attempts;
mod background;
mod deliver;
mod dispatch;
mod early_head;
pub mod error;
mod estimator;
mod fault_registry;
mod faults;
mod guard;
pub mod health;
mod idempotency;
mod in_flight;
mod listed_model;
mod missing_endpoint;
mod operate;
mod pinned;
mod place;
mod read_on;
mod receive;
mod request;
mod sla_probe;
mod spend;
mod splice;
mod state;
mod stored_response;

pub use active_config::{ActivateError, ActiveConfig, ForwardedNames, provider_setup};
pub use deliver::ReplyBody;
pub use error::{ServeError, StreamFailure};
pub use fault_registry::FaultRegistry;
pub use listed_model::{ListedModel, listed_model};
pub use operate::RelayParts;
pub use request::{CallReader, ErrorReply, RawRequest, RequestOptions, RequestTarget, ResponseMetadata, SuccessReply};

use crate::clock::Clock;
use crate::config::KeyHash;
use crate::domain::authorize::{AuthorizedRequest, authorize};
use crate::domain::call::Call;
use crate::domain::id::{KeyId, KeyIds, PolicyIds, TeamIds};
use crate::domain::memory::InFlightBytes;
use crate::domain::policy::{KeyRecord, is_valid};
use crate::domain::refusal::{KeyRefusal, Refusal};
use crate::domain::routing::plan::{PlanTerms, RoutePlan};
use crate::domain::secret::{IdempotencySecret, Secret};
use crate::random::Rng;
use crate::store::budget_pool::BudgetPool;
use crate::store::keyring::Keyring;
use crate::store::state_accounts::StateAccounts;
use crate::store::{Counters, LeaseStore, Ledger};
use crate::telemetry::Telemetry;
use crate::upstream::ForwardedFields;
use active_config::ResolvedKey;
use arc_swap::ArcSwap;
use background::DeferredCharges;
use dispatch::{CommittedAnswer, Dispatch};
use early_head::EarlyHead;
use guard::RequestGuard;
use health::HealthRegistry;
use parking_lot::Mutex;
use read_on::{ClientState, StopEvent};
use receive::ReceivingRequest;
use spend::RequestSpend;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A request being served, up to its answer.
pub type ServeFuture<'a> = Pin<Box<dyn Future<Output = Result<SuccessReply, ErrorReply>> + Send + 'a>>;

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
    idempotency: Option<IdempotencySecret>,
    state_accounts: Arc<StateAccounts>,
    deferred_charges: DeferredCharges,
    key_ids: Mutex<KeyIds>,
    team_ids: Mutex<TeamIds>,
    policy_ids: Mutex<PolicyIds>,
    /// What requests and answers hold in memory, of all keys and of each.
    in_flight_bytes: Arc<InFlightBytes>,
    key_in_flight_bytes: Mutex<HashMap<KeyId, Arc<InFlightBytes>>>,
    telemetry: Arc<Telemetry>,
    faults: FaultRegistry,
    /// What the secrets of SLA probes are made of.
    probe_secret: Option<Secret>,
    /// Ends what is read to its end without a client, when the gateway stops.
    stop: StopEvent,
}

/// The client of a request, as long as it waits.
#[derive(Clone, Copy, Default)]
struct WaitingClient<'a> {
    /// Whether it still waits, where an answer may be read to its end without it.
    state: Option<&'a ClientState>,
    /// What it gets before an answer that is held.
    head: Option<&'a EarlyHead>,
}

impl RelayContext {
    /// # Errors
    /// [`Refusal::OverLimit`] for a key that was refused too often lately.
    fn check_refused(&self, id: KeyId, key: &KeyRecord) -> Result<(), Refusal> {
        self.counters.check_refused(id, &key.limits, self.clock.now()).map_err(Refusal::OverLimit)
    }

    /// Counts `refusal` against the key's limit of refused requests, if it is one of those; where that limit is
    /// reached, it is the refusal.
    fn count_refused(&self, refusal: Refusal, id: KeyId, key: &KeyRecord) -> Refusal {
        if !refusal.counts() {
            return refusal;
        }
        self.counters.count_refused(id, &key.limits, self.clock.now()).map_or_else(Refusal::OverLimit, |()| refusal)
    }
}

impl Relay {
    /// Serves one request, up to its answer. Dropping the future, or the reply's body, at any point cancels the
    /// attempts at providers and settles the request as abandoned.
    ///
    /// # Errors
    /// [`ErrorReply`], which must be sent to the client.
    // Boxed, as the dispatch below: as a part of the route's future all of it would be copied once more, in one piece
    // (`make instructions`: 10 KB of a refusal).
    pub fn serve<R: CallReader + 'static>(self: &Arc<Self>, raw: RawRequest<R>) -> ServeFuture<'_> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        if raw.active.snapshot.table.settings.hold_streams {
            return Box::pin(self.clone().serve_held(raw));
        }
        match raw.active.may_read_on() {
            true => Box::pin(self.clone().serve_to_end(raw, None)),
            false => Box::pin(self.serve_for(raw, WaitingClient::default())),
        }
    }

    /// Serves it for `client`.
    async fn serve_for<R: CallReader>(
        &self,
        raw: RawRequest<R>,
        client: WaitingClient<'_>,
    ) -> Result<SuccessReply, ErrorReply> {
        let mut guard = RequestGuard::open(self.context.clone(), raw.id, raw.received);
        match self.handle(raw, client, &mut guard).await {
            Ok(answered) => Ok(reply(answered, guard)),
            Err(error) => {
                let error = match (error, &guard.state.key) {
                    (ServeError::Refused(refusal), Some(key)) => {
                        let refusal = self.context.count_refused(refusal, guard.state.key_id, key);
                        guard.refused(&refusal);
                        refusal.into()
                    }
                    (error, _) => error,
                };
                guard.stop_overhead(self.context.clock.now());
                let mut metadata = ResponseMetadata::of(&guard.state, None);
                // Nothing served it, unless the answer is a provider's own refusal.
                metadata.served = metadata.served.filter(|_| matches!(error, ServeError::Rejected(_)));
                Err(ErrorReply { error, metadata, guard })
            }
        }
    }

    async fn handle<R: CallReader>(
        &self,
        mut raw: RawRequest<R>,
        client: WaitingClient<'_>,
        guard: &mut RequestGuard,
    ) -> Result<CommittedAnswer, ServeError> {
        let context = &*self.context;
        let hash = hash_of(raw.key?.as_ref());
        let (call, before) = {
            let (active, until) = (&*raw.active, raw.received + raw.active.snapshot.table.settings.total);
            let key = identify(context, active, hash)?;
            guard.made_by(&key);
            // Before its body is read: a request that is read and then refused costs as much as one that is served.
            context.check_refused(key.id, &key.record)?;
            (self.receive(ReceivingRequest { active, key: &key, hash, until }, raw.target, guard).await?, key)
        };
        // Again, with the configuration and the store of now: a body may take as long as its client likes.
        let active = self.active.load_full();
        let same = Some(before).filter(|key| Arc::ptr_eq(&active, &raw.active) && key.holds(context.clock.unix_ms()));
        let (active, table) = (&active, &active.snapshot.table);
        let resolved = same.map_or_else(|| identify(context, active, hash), Ok)?;
        guard.made_by(&resolved);
        let key = resolved.record.clone();
        guard.state.spend = spend_of(context, &resolved);
        context.bind_idempotency_key(&key.name, &mut raw.headers);
        let options = raw.options?;
        let deadline = raw.received + options.deadline.map_or(table.settings.total, |d| d.min(table.settings.total));
        let answer_by = options.client_timeout.map_or(deadline, |timeout| deadline.min(raw.received + timeout));
        let fields = ForwardedFields { headers: Some(&raw.listed_headers), query: raw.query.as_deref() };
        if let Some(stored) = call.stored() {
            let sent = (&call, stored, &raw.headers, fields);
            return Box::pin(stored_response::serve(self, active, &resolved, sent, deadline, guard)).await;
        }
        let authorized = authorize(table, &key, &call)?.paid(guard.state.spend.is_paid());
        let priced_at_ms = context.clock.unix_ms();
        let terms = PlanTerms { no_fallback: options.no_fallback, deadline, answer_by, priced_at_ms };
        let mut plan = RoutePlan::build(table, &authorized, &call, terms, context.rng.draw())?;
        let pinned = pinned::pin_if_bound(context, active, &authorized, &call, &mut plan).await?;
        guard.state.meant(table, plan.candidate_models().first());
        let paid = guard.state.spend.is_paid();
        let paused = paid.then(|| active.deployments.exclude_paused(&mut plan, resolved.id, resolved.team)).flatten();
        let seen = place::health_of(active, &resolved, &authorized, &call, pinned);
        let health = place::wait_for_place(context, guard, &plan, answer_by, seen).await?;
        admit(context, guard, active, &authorized, &call, &plan).await?;
        let call = match paid {
            true => spend::hold_first(context, active, &key, call, &plan, &mut guard.state.spend).await?,
            false => call,
        };
        paused.map_or(Ok(()), |retry_after| Err(Refusal::BudgetPaused { retry_after }))?;
        health.request(context.clock.now());
        let allowance = &self.allowance(active, &resolved);
        guard.state.allowance = Some(allowance.clone());
        client.may_get_head(&guard.state, allowance);
        let dispatch = Dispatch {
            context,
            active,
            call: &call,
            paid,
            headers: &raw.headers,
            fields,
            deadline,
            health,
            authorized: &authorized,
            allowance,
            client: client.state,
        };
        let mut answered = Box::pin(dispatch.run(&mut plan, guard)).await?;
        answered.splice = splice::SplicedStream::of(&dispatch, plan);
        Ok(answered)
    }
}

/// What pays for a request of `resolved`.
fn spend_of(context: &RelayContext, resolved: &ResolvedKey) -> RequestSpend {
    let key = &resolved.record;
    let (credit, unpriced) = (key.policy.money.credit, key.policy.money.unpriced);
    let funding = context.budget_pool.funding(&key.name, key.team.as_ref(), credit, resolved.budgets.clone());
    RequestSpend::funded_by(funding, unpriced)
}

/// The hash of a presented key. The empty text is hashed when there was none, which gives all refusals the same timing.
fn hash_of(presented: Option<&Secret>) -> Option<KeyHash> {
    let hash = KeyHash::of(presented.map_or("", |secret| secret.expose()));
    presented.map(|_| hash)
}

/// The key whose secret has this hash, as it is now.
///
/// # Errors
/// [`Refusal::InvalidKey`], whatever is wrong with it.
fn identify(context: &RelayContext, active: &ActiveConfig, hash: Option<KeyHash>) -> Result<ResolvedKey, Refusal> {
    let now_unix_ms = context.clock.unix_ms();
    let searched = hash.unwrap_or(KeyHash::NONE);
    // The table is searched by hash: a caller who can choose hashes byte by byte has broken SHA-256 first.
    let found = active.resolve(&searched, context, now_unix_ms);
    let known = found.is_some();
    let valid = found.filter(|key| is_valid(&key.record, now_unix_ms / 1000));
    hash.and(valid).ok_or_else(|| {
        // Looked up whatever is wrong with it, for the same timing.
        let stored = context.keyring.holder_of(&searched).is_some();
        Refusal::InvalidKey(match hash {
            None => KeyRefusal::Missing,
            Some(hash) if known | stored => KeyRefusal::NotValid(hash),
            Some(hash) => KeyRefusal::Unknown(hash),
        })
    })
}

/// Takes the request and its tokens from the key's limits; the guard returns what was not used.
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
    receive::take_from_limits(context, guard, &key.limits, tokens).await
}

fn reply(mut answered: CommittedAnswer, mut guard: RequestGuard) -> SuccessReply {
    let stream = guard.state.stream;
    if !stream {
        deliver::meter(&mut guard, &answered.answer.body, &answered.estimator);
        deliver::learn(&guard, &answered.answer.body, &answered.estimator);
    }
    let allowance = guard.state.allowance.take().unwrap_or_default();
    let state = &guard.state;
    let known = !stream && state.price.is_some();
    let cost = known.then(|| state.spend.bill(state.price.as_ref(), state.usage, state.basis).cost);
    SuccessReply {
        status: answered.answer.status,
        headers: std::mem::take(&mut answered.answer.headers),
        metadata: ResponseMetadata::of(&guard.state, cost),
        stream,
        allowance,
        body: ReplyBody::new(answered, guard),
    }
}
