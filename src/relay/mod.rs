//! The corridor: one request, from read to settled.
//!
//! It sequences what the other rooms can do and decides nothing: who may ask, where to go next and
//! what a failure means are asked of `domain`. It knows neither axum nor OpenAI's JSON. Every way
//! out, an answer, a refusal, a failure, a client that left, passes the same ticket and leaves one
//! receipt.
//!
//! Start reading at [`Relay::serve`].

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
use crate::domain::receipt::{Outcome, Served};
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

/// A future that can be handed through a doorway.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request as the front door hands it over: nothing is known of it yet.
pub struct RawRequest {
    /// Its own name.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
    /// What it keeps for its whole life.
    pub active: Arc<ActiveConfig>,
    /// The key as the client presented it.
    pub key: Option<Secret>,
    /// What is wanted.
    pub target: RequestTarget,
    /// Our own request headers.
    pub options: Result<RequestOptions, Refusal>,
    /// The client's headers that may travel on.
    pub headers: HeaderMap,
}

/// What a path and a method ask for.
pub enum RequestTarget {
    /// A routed call. Reading it waits until the key is known, so that nobody without one can make us
    /// read a body.
    Call {
        /// Which one.
        endpoint: Endpoint,
        /// Reads and understands the body.
        read: BoxFuture<'static, Result<Call, BodyProblem>>,
    },
    /// Nothing we serve.
    UnknownUrl {
        /// As the client wrote it.
        path: Box<str>,
    },
    /// A path we serve, by another method.
    WrongMethod {
        /// The methods that would be right.
        allow: &'static str,
    },
}

/// What a client may set by header.
#[derive(Clone, Copy, Default, Debug)]
pub struct RequestOptions {
    /// No other model than the one asked for.
    pub no_fallback: bool,
    /// Less time than `total`.
    pub deadline: Option<Duration>,
}

/// An answer whose first good frame is in hand.
pub struct SuccessReply {
    /// As the provider gave it.
    pub status: StatusCode,
    /// The provider's headers that may travel on.
    pub headers: HeaderMap,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    /// Whether the body is a stream of events.
    pub stream: bool,
    /// The answer itself.
    pub body: ReplyBody,
}

/// A request that gets an error instead of an answer.
pub struct ErrorReply {
    /// Why.
    pub error: ServeError,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    guard: RequestGuard,
}

impl ErrorReply {
    /// Ends the request: the client is told `status`.
    pub fn send(self, status: StatusCode) {
        let outcome = match &self.error {
            ServeError::Refused(Refusal::Body(BodyProblem::BrokenOff)) => Outcome::Abandoned,
            ServeError::Refused(_) => Outcome::Refused,
            _ => Outcome::Failed,
        };
        self.guard.settle(outcome, self.error.reason(), status.as_u16());
    }
}

/// What a response's own headers say.
#[derive(Clone, Debug)]
pub struct ResponseMetadata {
    /// The request's name.
    pub id: RequestId,
    /// What served it.
    pub served: Option<Served>,
    /// Attempts made.
    pub attempts: u32,
    /// Time spent in the gateway.
    pub overhead: Duration,
    /// What it cost, where known by now: whole answers.
    pub cost: Option<NanoUsd>,
    /// The output ceiling written into the request, so that it fits its budget.
    pub clamped: Option<u64>,
    /// Of the key's requests a minute.
    pub requests: Option<RateLimitStatus>,
    /// Of the key's tokens a minute.
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

/// The corridor itself.
pub struct Relay {
    context: Arc<RelayContext>,
    health: HealthRegistry,
    active: ArcSwap<ActiveConfig>,
    /// Whoever puts another in force holds it, so that none is lost.
    activation: Mutex<()>,
    /// Requests that entered; as many receipts must leave.
    entered: AtomicU64,
}

/// What a corridor is built from.
pub struct RelayParts {
    /// The one source of time.
    pub clock: Clock,
    /// The one place of chance.
    pub rng: Arc<Rng>,
    /// Where receipts go.
    pub ledger: Arc<dyn Ledger>,
    /// Where limits are counted.
    pub counters: Arc<dyn Counters>,
    /// Where budgets are kept.
    pub lease_store: Arc<dyn LeaseStore>,
    /// Keys, teams and credit that are not the file's.
    pub keyring: Arc<Keyring>,
    /// Where everything is seen.
    pub telemetry: Arc<Telemetry>,
}

impl Relay {
    /// A corridor serving `snapshot`.
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

    /// Serves `snapshot` from now on. Requests in flight keep what they arrived with; breakers, limits
    /// and connections stay.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up; everything stays as it was then.
    pub fn reload(&self, snapshot: Arc<Snapshot>) -> Result<(), ActivateError> {
        let _activation = self.activation.lock();
        self.activate(snapshot, &self.active.load_full())
    }

    /// Takes up what was changed of stored teams and credit; keys are found as they are at any time.
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
            tracing::error!(%error, "stored teams and credit are not taken up");
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

    /// What requests arriving now are served with.
    pub fn active_config(&self) -> Arc<ActiveConfig> {
        self.active.load_full()
    }

    /// Tells the metrics how every deployment and every budget stands: half-open and a window's end come with
    /// time, not with an event.
    pub fn publish_states(&self) {
        let active = self.active.load();
        self.context.telemetry.metrics.deployments(&active.deployments.states(self.context.clock.now()));
        self.context.telemetry.metrics.budgets(&self.budgets());
    }

    /// How every budget stands that is configured now, and all credit.
    pub fn budgets(&self) -> Vec<AccountStatus> {
        let active = self.active.load();
        let mut all = self.context.budget_pool.statuses(self.context.clock.unix_ms());
        let accounts = active.accounts();
        all.retain(|status| &*status.account.window == CREDIT || accounts.contains(&status.account));
        all
    }

    /// Gives back what is leased of budgets and idle. Called now and then.
    pub fn tidy_budget_pool(&self) {
        self.context.budget_pool.tidy(self.context.clock.unix_ms());
    }

    /// Gives back what is leased of budgets and not held, at the end.
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

    /// Requests that entered the corridor so far; as many receipts leave it.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// What a key may use, in file order. Leaves no receipt.
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

    /// Walks one request from read to answered. Dropping the future, or the reply's body, at any point
    /// cancels what runs at a provider and settles the request as abandoned.
    ///
    /// # Errors
    /// [`ErrorReply`], to be told to the client.
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

/// Reads the body, once the key is known. Time spent on it is the client's.
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
