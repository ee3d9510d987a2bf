//! The request path: one request, from received to settled.
//!
//! It calls the other modules in order and must never decide: who may ask, where to send a request and what a
//! failure means are decided in `domain`. It knows neither axum nor OpenAI's JSON. Every end of a request (an
//! answer, a refusal, a failure, a client that disconnects) goes through the same guard and leaves one receipt.
//!
//! Start reading in [`Relay::serve`].

mod admit;
mod deliver;
pub mod health;

mod active_config;
mod dispatch;
pub mod error;
mod estimator;
mod guard;
mod spend;

pub use crate::upstream::Rejection;
pub use active_config::{ActivateError, ActiveConfig, BodyLimits, ListedModel};
pub use deliver::ReplyBody;
pub use error::{ServeError, StreamInterruption};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::authorize::authorize;
use crate::domain::budget::{AccountStatus, CREDIT};
use crate::domain::call::{BodyProblem, Call, Endpoint};
use crate::domain::id::{KeyIds, RequestId};
use crate::domain::limit::RateLimitStatus;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::{Outcome, ServingDeployment};
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{PlanTerms, RoutePlan};
use crate::domain::secret::Secret;
use crate::random::Rng;
use crate::store::budget_pool::BudgetPool;
use crate::store::keyring::Keyring;
use crate::store::{Counters, LeaseStore, Ledger};
use crate::telemetry::Telemetry;
use active_config::ResolvedKey;
use arc_swap::ArcSwap;
use dispatch::{CommittedAnswer, Dispatch};
use guard::RequestGuard;
use health::HealthRegistry;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use spend::RequestSpend;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A future behind a pointer, whatever its type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request as the HTTP layer passes it in: neither key nor body has been read.
pub struct RawRequest {
    /// Its identifier.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
    /// The configuration that it is served with until its end.
    pub active: Arc<ActiveConfig>,
    /// The key as the client presented it.
    pub key: Option<Secret>,
    /// What its path and method ask for.
    pub target: RequestTarget,
    /// What the gateway's own request headers say.
    pub options: Result<RequestOptions, Refusal>,
    /// The client's headers that may be sent to providers.
    pub headers: HeaderMap,
}

/// What a path and a method ask for.
pub enum RequestTarget {
    /// A call to a served endpoint. Its body is read only once the key is known, so that no client without a key
    /// can make the gateway read one.
    Call {
        /// The endpoint of its path.
        endpoint: Endpoint,
        /// Reads and parses the body.
        read: BoxFuture<'static, Result<Call, BodyProblem>>,
    },
    /// A path that is not served.
    UnknownUrl {
        /// As the client wrote it.
        path: Box<str>,
    },
    /// A path that is served with another method.
    WrongMethod {
        /// The methods that are allowed.
        allow: &'static str,
    },
}

/// What a client may set by request header.
#[derive(Clone, Copy, Default, Debug)]
pub struct RequestOptions {
    /// No other model than the requested one may answer.
    pub no_fallback: bool,
    /// A shorter time limit than `total`, counted from the request received.
    pub deadline: Option<Duration>,
}

/// An answer whose first good frame has arrived.
pub struct SuccessReply {
    /// The provider's status.
    pub status: StatusCode,
    /// The provider's headers that may be sent to the client.
    pub headers: HeaderMap,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    /// Whether the body is a stream of events.
    pub stream: bool,
    /// The answer itself.
    pub body: ReplyBody,
}

/// An error instead of an answer.
pub struct ErrorReply {
    /// The reason.
    pub error: ServeError,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    guard: RequestGuard,
}

impl ErrorReply {
    /// Ends the request with the HTTP status that the client gets.
    pub fn send(self, status: StatusCode) {
        let outcome = match &self.error {
            ServeError::Refused(Refusal::Body(BodyProblem::BrokenOff)) => Outcome::Abandoned,
            ServeError::Refused(_) => Outcome::Refused,
            _ => Outcome::Failed,
        };
        self.guard.settle(outcome, self.error.reason(), status.as_u16());
    }
}

/// The content of the gateway's own response headers.
#[derive(Clone, Debug)]
pub struct ResponseMetadata {
    /// The request's identifier.
    pub id: RequestId,
    /// The deployment that served it.
    pub served: Option<ServingDeployment>,
    /// Attempts made.
    pub attempts: u32,
    /// Time spent in the gateway up to the answer's first byte.
    pub overhead: Duration,
    /// Its cost, where it is known before the body: for whole answers.
    pub cost: Option<NanoUsd>,
    /// The output ceiling written into the request, so that it fits its budget.
    pub clamped: Option<u64>,
    /// The key's limit of requests a minute, if it has one.
    pub requests: Option<RateLimitStatus>,
    /// The key's limit of tokens a minute, if it has one.
    pub tokens: Option<RateLimitStatus>,
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
    telemetry: Arc<Telemetry>,
}

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

/// What a [`Relay`] is built from.
pub struct RelayParts {
    /// The source of time.
    pub clock: Clock,
    /// The source of random values.
    pub rng: Arc<Rng>,
    /// Where receipts are written.
    pub ledger: Arc<dyn Ledger>,
    /// Where limits are counted.
    pub counters: Arc<dyn Counters>,
    /// Where budgets are stored.
    pub lease_store: Arc<dyn LeaseStore>,
    /// Stored keys, teams and credit.
    pub keyring: Arc<Keyring>,
    /// Metrics and the access log.
    pub telemetry: Arc<Telemetry>,
}

impl Relay {
    /// A relay that serves `snapshot`.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up.
    pub fn new(snapshot: Arc<Snapshot>, parts: RelayParts) -> Result<Self, ActivateError> {
        let RelayParts { clock, rng, ledger, counters, lease_store, keyring, telemetry } = parts;
        let budget_pool = BudgetPool::new(lease_store.clone());
        budget_pool.set_credit(&keyring.credit(), clock.unix_ms());
        let health = HealthRegistry::new(&snapshot.table.settings, telemetry.clone(), rng.clone());
        let key_ids = Mutex::default();
        let context =
            RelayContext { clock, rng, ledger, counters, lease_store, budget_pool, keyring, key_ids, telemetry };
        let active = ActiveConfig::new(snapshot, &health, &context, None)?;
        context.telemetry.metrics.deployments(&active.deployments.states(clock.now()));
        let (context, active) = (Arc::new(context), ArcSwap::from_pointee(active));
        Ok(Self { context, health, active, activation: Mutex::default(), entered: AtomicU64::new(0) })
    }

    /// Activates `snapshot`. Requests in flight keep the configuration they arrived with; breakers, limits and
    /// connections stay.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up; then nothing changes.
    pub fn reload(&self, snapshot: Arc<Snapshot>) -> Result<(), ActivateError> {
        let _activation = self.activation.lock();
        self.activate(snapshot, &self.active.load_full())
    }

    /// Applies changes of stored teams and credit; stored keys are always looked up in their current version.
    pub fn apply_store_changes(&self) {
        let _activation = self.activation.lock();
        let (context, active) = (&*self.context, self.active.load_full());
        let versions = context.keyring.versions();
        if active.applied.credit != versions.credit {
            context.budget_pool.set_credit(&context.keyring.credit(), context.clock.unix_ms());
        }
        if active.applied != versions
            && let Err(error) = self.activate(active.snapshot.clone(), &active)
        {
            tracing::error!(%error, "changes of stored teams and credit are not applied");
        }
    }

    fn activate(&self, snapshot: Arc<Snapshot>, previous: &ActiveConfig) -> Result<(), ActivateError> {
        let context = &*self.context;
        let now = context.clock.now();
        let active = ActiveConfig::new(snapshot, &self.health, context, Some((previous, now)))?;
        self.context.telemetry.metrics.deployments(&active.deployments.states(now));
        self.active.store(Arc::new(active));
        Ok(())
    }

    /// The configuration that requests arriving now are served with.
    pub fn active_config(&self) -> Arc<ActiveConfig> {
        self.active.load_full()
    }

    /// Publishes the state of every deployment and every budget as metrics: a breaker becomes half-open, and a
    /// budget window ends, by time and not by an event.
    pub fn publish_states(&self) {
        let active = self.active.load();
        self.context.telemetry.metrics.deployments(&active.deployments.states(self.context.clock.now()));
        self.context.telemetry.metrics.budgets(&self.budgets());
    }

    /// The status of every budget that is configured now, and of all credit.
    pub fn budgets(&self) -> Vec<AccountStatus> {
        let active = self.active.load();
        let mut all = self.context.budget_pool.statuses(self.context.clock.unix_ms());
        let accounts = active.accounts();
        all.retain(|status| &*status.account.window == CREDIT || accounts.contains(&status.account));
        all
    }

    /// Returns idle leases to their budgets. To be called from time to time.
    pub fn return_idle_leases(&self) {
        self.context.budget_pool.return_idle_leases(self.context.clock.unix_ms());
    }

    /// Returns all leases that are not held to their budgets, when the gateway stops.
    pub async fn close_budget_pool(&self) {
        self.context.budget_pool.close().await;
    }

    /// Attempts in flight at providers.
    pub fn attempts_in_flight(&self) -> u32 {
        self.active.load().deployments.in_flight()
    }

    /// Whether receipts can be written.
    pub fn ledger_is_healthy(&self) -> bool {
        self.context.ledger.status().healthy
    }

    /// Requests received so far; there are as many receipts once all have ended.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// The models, aliases and tiers that a key may use, in file order. Writes no receipt.
    ///
    /// # Errors
    /// [`Refusal::InvalidKey`].
    pub fn names(&self, key: Option<&Secret>) -> Result<Vec<ListedModel>, Refusal> {
        let active = self.active.load();
        let key = admit::identify(&self.context, &active, key)?.record;
        let now_ms = self.context.clock.unix_ms();
        let names = key.policy.usable_names(&active.snapshot.table).into_iter();
        let listed = |(name, asked)| active.listed(name, asked, now_ms, |region| key.policy.allows_region(region));
        Ok(names.map(listed).collect())
    }

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
                let mut metadata = metadata(&guard, None);
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
        let ResolvedKey { id, record: key, budgets } = admit::identify(context, active, raw.key.as_ref())?;
        let funding = context.budget_pool.funding(&key.name, key.team.as_ref(), key.policy.money.credit, budgets);
        guard.state.spend = RequestSpend::funded_by(funding, key.policy.money.unpriced);
        (guard.state.key, guard.state.key_id) = (Some(key.clone()), id);
        let call = read_call(raw.target, guard).await?;
        let options = raw.options?;
        let authorized = authorize(table, &key, &call)?;
        let deadline = raw.received + options.deadline.map_or(table.settings.total, |d| d.min(table.settings.total));
        let terms = PlanTerms { no_fallback: options.no_fallback, deadline, priced_at_ms: context.clock.unix_ms() };
        let mut plan = RoutePlan::build(table, &authorized, &call, terms, context.rng.draw())?;
        admit::admit(context, guard, active, &authorized, &call, &plan).await?;
        let call = if guard.state.spend.is_paid() {
            spend::hold_first(context, active, &key, call, &plan, &mut guard.state.spend).await?
        } else {
            call
        };
        let dispatch = Dispatch { context, active, call: &call, headers: &raw.headers, deadline };
        dispatch.run(&mut plan, guard).await
    }
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
    guard.state.estimated_input = call.estimated_input_tokens();
    Ok(call)
}

fn reply(mut answered: CommittedAnswer, mut guard: RequestGuard) -> SuccessReply {
    let stream = guard.state.stream;
    if !stream {
        deliver::meter(&mut guard, &answered.answer.body, &answered.estimator);
        deliver::learn(&guard, &answered.answer.body, &answered.estimator);
    }
    let state = &guard.state;
    let known = !stream && state.price.is_some();
    let cost = known.then(|| state.spend.bill(state.price(), state.usage, state.basis).cost);
    SuccessReply {
        status: answered.answer.status,
        headers: std::mem::take(&mut answered.answer.headers),
        metadata: metadata(&guard, cost),
        stream,
        body: ReplyBody::new(answered, guard),
    }
}

fn metadata(guard: &RequestGuard, cost: Option<NanoUsd>) -> ResponseMetadata {
    let state = &guard.state;
    ResponseMetadata {
        id: state.id,
        served: state.served.clone(),
        attempts: state.attempts.len() as u32,
        overhead: state.overhead.unwrap_or_default(),
        cost,
        clamped: state.spend.clamped,
        requests: state.requests_left,
        tokens: state.tokens_left,
    }
}
