//! The corridor: one request, from read to settled.
//!
//! It sequences what the other rooms can do and decides nothing: who may ask, where to go next and
//! what a failure means are asked of `domain`. It knows neither axum nor OpenAI's JSON. Every way
//! out, an answer, a refusal, a failure, a client that left, passes the same ticket and leaves one
//! receipt.
//!
//! Start reading at [`Relay::serve`].

mod admit;
pub mod board;
mod deliver;
pub mod dice;
mod dispatch;
pub mod error;
mod live;
mod money;
mod settle;
mod ticket;
mod yardstick;

pub use crate::upstream::Rejection;
pub use deliver::ReplyBody;
pub use error::{Broken, ServeError};
pub use live::{Front, Listed, Live, LiveError};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::authorize::authorize;
use crate::domain::budget::{CREDIT, Standing};
use crate::domain::call::{BodyProblem, Call, Endpoint};
use crate::domain::id::RequestId;
use crate::domain::limit::Left;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::{Outcome, Served};
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{RoutePlan, Terms};
use crate::domain::secret::Secret;
use crate::store::keyring::Keyring;
use crate::store::purse::Purse;
use crate::store::{Bank, Counters, Ledger};
use crate::telemetry::Telemetry;
use arc_swap::ArcSwap;
use board::Board;
use dice::Dice;
use dispatch::{Answered, Errand};
use http::{HeaderMap, StatusCode};
use money::Purchase;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ticket::Ticket;

/// A future that can be handed through a doorway.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request as the front door hands it over: nothing is known of it yet.
pub struct RawRequest {
    /// Its own name.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
    /// What it keeps for its whole life.
    pub live: Arc<Live>,
    /// The key as the client presented it.
    pub key: Option<Secret>,
    /// What is wanted.
    pub wanted: Wanted,
    /// Our own request headers.
    pub knobs: Result<Knobs, Refusal>,
    /// The client's headers that may travel on.
    pub headers: HeaderMap,
}

/// What a path and a method ask for.
pub enum Wanted {
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
pub struct Knobs {
    /// No other model than the one asked for.
    pub no_fallback: bool,
    /// Less time than `total`.
    pub deadline: Option<Duration>,
}

/// An answer whose first good frame is in hand.
pub struct Reply {
    /// As the provider gave it.
    pub status: StatusCode,
    /// The provider's headers that may travel on.
    pub headers: HeaderMap,
    /// What our own headers say.
    pub facts: Facts,
    /// Whether the body is a stream of events.
    pub stream: bool,
    /// The answer itself.
    pub body: ReplyBody,
}

/// A request that gets an error instead of an answer.
pub struct Turned {
    /// Why.
    pub error: ServeError,
    /// What our own headers say.
    pub facts: Facts,
    ticket: Ticket,
}

impl Turned {
    /// Ends the request: the client is told `status`.
    pub fn told(self, status: StatusCode) {
        let outcome = match &self.error {
            ServeError::Refused(Refusal::Body(BodyProblem::BrokenOff)) => Outcome::Abandoned,
            ServeError::Refused(_) => Outcome::Refused,
            _ => Outcome::Failed,
        };
        self.ticket.settle(outcome, self.error.reason(), status.as_u16());
    }
}

/// What a response's own headers say.
#[derive(Clone, Debug)]
pub struct Facts {
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
    pub requests: Option<Left>,
    /// Of the key's tokens a minute.
    pub tokens: Option<Left>,
}

/// What all requests share.
pub(crate) struct Desk {
    clock: Clock,
    dice: Arc<Dice>,
    ledger: Arc<dyn Ledger>,
    counters: Arc<dyn Counters>,
    bank: Arc<dyn Bank>,
    purse: Purse,
    keyring: Arc<Keyring>,
    telemetry: Arc<Telemetry>,
}

/// The corridor itself.
pub struct Relay {
    desk: Arc<Desk>,
    board: Board,
    live: ArcSwap<Live>,
    /// Whoever puts another in force holds it, so that none is lost.
    changing: Mutex<()>,
    /// Requests that entered; as many receipts must leave.
    entered: AtomicU64,
}

/// What a corridor is built from.
pub struct Parts {
    /// The one source of time.
    pub clock: Clock,
    /// The one place of chance.
    pub dice: Arc<Dice>,
    /// Where receipts go.
    pub ledger: Arc<dyn Ledger>,
    /// Where limits are counted.
    pub counters: Arc<dyn Counters>,
    /// Where budgets are kept.
    pub bank: Arc<dyn Bank>,
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
    pub fn new(snapshot: Arc<Snapshot>, parts: Parts) -> Result<Self, LiveError> {
        let Parts { clock, dice, ledger, counters, bank, keyring, telemetry } = parts;
        let purse = Purse::new(bank.clone());
        purse.set_credit(&keyring.credit(), clock.unix_ms());
        let board = Board::new(&snapshot.table.settings, telemetry.clone(), dice.clone());
        let live = Live::new(snapshot, &board, &purse, &keyring, None, clock)?;
        telemetry.metrics.deployments(&live.lineup.states(clock.now()));
        let desk = Arc::new(Desk { clock, dice, ledger, counters, bank, purse, keyring, telemetry });
        let live = ArcSwap::from_pointee(live);
        Ok(Self { desk, board, live, changing: Mutex::default(), entered: AtomicU64::new(0) })
    }

    /// Serves `snapshot` from now on. Requests in flight keep what they arrived with; breakers, limits
    /// and connections stay.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up; everything stays as it was then.
    pub fn reload(&self, snapshot: Arc<Snapshot>) -> Result<(), LiveError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_in_force(snapshot, &self.live.load_full())
    }

    /// Takes up what was changed of stored teams and credit; keys are found as they are at any time.
    pub fn take_up(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (desk, live) = (&*self.desk, self.live.load_full());
        let versions = desk.keyring.versions();
        if live.registered.credit != versions.credit {
            desk.purse.set_credit(&desk.keyring.credit(), desk.clock.unix_ms());
        }
        if live.registered != versions
            && let Err(error) = self.put_in_force(live.snapshot.clone(), &live)
        {
            tracing::error!(%error, "stored teams and credit are not taken up");
        }
    }

    fn put_in_force(&self, snapshot: Arc<Snapshot>, previous: &Live) -> Result<(), LiveError> {
        let desk = &*self.desk;
        let now = desk.clock.now();
        let live = Live::new(snapshot, &self.board, &desk.purse, &desk.keyring, Some((previous, now)), desk.clock)?;
        self.desk.telemetry.metrics.deployments(&live.lineup.states(now));
        self.live.store(Arc::new(live));
        Ok(())
    }

    /// What requests arriving now are served with.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Tells the metrics how every deployment and every budget stands: half-open and a window's end come with
    /// time, not with an event.
    pub fn tell_states(&self) {
        let live = self.live.load();
        self.desk.telemetry.metrics.deployments(&live.lineup.states(self.desk.clock.now()));
        self.desk.telemetry.metrics.budgets(&self.budgets());
    }

    /// How every budget stands that is configured now, and all credit.
    pub fn budgets(&self) -> Vec<Standing> {
        let live = self.live.load();
        let mut all = self.desk.purse.standings(self.desk.clock.unix_ms());
        let accounts = live.accounts();
        all.retain(|standing| &*standing.account.window == CREDIT || accounts.contains(&standing.account));
        all
    }

    /// Gives back what is leased of budgets and idle. Called now and then.
    pub fn tidy_purse(&self) {
        self.desk.purse.tidy(self.desk.clock.unix_ms());
    }

    /// Gives back what is leased of budgets and not held, at the end.
    pub async fn close_purse(&self) {
        self.desk.purse.close().await;
    }

    /// Attempts in flight at providers.
    pub fn attempts_in_flight(&self) -> u32 {
        self.live.load().lineup.in_flight()
    }

    /// Whether receipts can be written.
    pub fn ledger_is_healthy(&self) -> bool {
        self.desk.ledger.status().healthy
    }

    /// Requests that entered the corridor so far; as many receipts leave it.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// What a key may use, in file order. Leaves no receipt.
    ///
    /// # Errors
    /// [`Refusal::InvalidKey`].
    pub fn names(&self, key: Option<&Secret>) -> Result<Vec<Listed>, Refusal> {
        let live = self.live.load();
        let (key, _) = admit::known(&self.desk, &live, key)?;
        let now_ms = self.desk.clock.unix_ms();
        let names = key.policy.usable_names(&live.snapshot.table).into_iter();
        let listed = |(name, asked)| live.listed(name, asked, now_ms, |region| key.policy.allows_region(region));
        Ok(names.map(listed).collect())
    }

    /// Walks one request from read to answered. Dropping the future, or the reply's body, at any point
    /// cancels what runs at a provider and settles the request as abandoned.
    ///
    /// # Errors
    /// [`Turned`], to be told to the client.
    pub async fn serve(&self, raw: RawRequest) -> Result<Reply, Turned> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        let mut ticket = Ticket::open(self.desk.clone(), raw.id, raw.received);
        let live = raw.live.clone();
        match self.walk(&live, raw, &mut ticket).await {
            Ok(answered) => Ok(reply(answered, ticket)),
            Err(error) => {
                if let ServeError::Refused(refusal) = &error {
                    ticket.refused(refusal);
                }
                ticket.stop_overhead(self.desk.clock.now());
                let mut facts = facts(&ticket, None);
                // Nothing served it, unless the answer is a provider's own refusal.
                facts.served = facts.served.filter(|_| matches!(error, ServeError::Rejected(_)));
                Err(Turned { error, facts, ticket })
            }
        }
    }

    async fn walk(&self, live: &Live, raw: RawRequest, ticket: &mut Ticket) -> Result<Answered, ServeError> {
        let desk = &*self.desk;
        let table = &live.snapshot.table;
        let (key, payers) = admit::known(desk, live, raw.key.as_ref())?;
        ticket.entry.purchase = Purchase::by(payers, key.policy.money.unpriced);
        ticket.entry.key = Some(key.clone());
        let call = understand(raw.wanted, ticket).await?;
        let knobs = raw.knobs?;
        let authorized = authorize(table, &key, &call)?;
        let deadline = raw.received + knobs.deadline.map_or(table.settings.total, |d| d.min(table.settings.total));
        let terms = Terms { no_fallback: knobs.no_fallback, deadline, priced_at_ms: desk.clock.unix_ms() };
        let mut plan = RoutePlan::draft(table, &authorized, &call, terms, desk.dice.draw())?;
        admit::admit(desk, ticket, live, &authorized, &call, &plan).await?;
        let call = if ticket.entry.purchase.is_paid() {
            money::hold_first(desk, live, &key, call, &plan, &mut ticket.entry.purchase).await?
        } else {
            call
        };
        let errand = Errand { desk, live, call: &call, headers: &raw.headers, deadline };
        errand.run(&mut plan, ticket).await
    }
}

/// Reads the body, once the key is known. Time spent on it is the client's.
async fn understand(wanted: Wanted, ticket: &mut Ticket) -> Result<Call, Refusal> {
    let (endpoint, read) = match wanted {
        Wanted::Call { endpoint, read } => (endpoint, read),
        Wanted::UnknownUrl { path } => return Err(Refusal::UnknownUrl { path }),
        Wanted::WrongMethod { allow } => return Err(Refusal::MethodNotAllowed { allow }),
    };
    ticket.entry.endpoint = Some(endpoint);
    let call = ticket.wait(read).await.map_err(Refusal::Body)?;
    ticket.entry.asked_model = Some(call.facts().model.clone());
    ticket.entry.stream = call.facts().stream;
    ticket.entry.estimated_input = call.estimated_input_tokens();
    Ok(call)
}

fn reply(mut answered: Answered, mut ticket: Ticket) -> Reply {
    let stream = ticket.entry.stream;
    if !stream {
        deliver::meter(&mut ticket, &answered.answer.body, &answered.yardstick);
        deliver::learn(&ticket, &answered.answer.body, &answered.yardstick);
    }
    let entry = &ticket.entry;
    let known = !stream && entry.price.is_some();
    let cost = known.then(|| entry.purchase.bill(entry.price(), entry.usage, entry.basis).cost);
    Reply {
        status: answered.answer.status,
        headers: std::mem::take(&mut answered.answer.headers),
        facts: facts(&ticket, cost),
        stream,
        body: ReplyBody::new(answered, ticket),
    }
}

fn facts(ticket: &Ticket, cost: Option<NanoUsd>) -> Facts {
    let entry = &ticket.entry;
    Facts {
        id: entry.id,
        served: entry.served.clone(),
        attempts: entry.attempts.len() as u32,
        overhead: entry.overhead.unwrap_or_default(),
        cost,
        clamped: entry.purchase.clamped,
        requests: entry.requests_left,
        tokens: entry.tokens_left,
    }
}
