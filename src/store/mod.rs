//! State that outlives a request: the ledger of receipts, the lease store behind every budget, the register of
//! keys, teams and credit, and the counters behind every key's limits.
//!
//! A store keeps state and never decides: which limits a key has, what a refusal says and what a request costs are
//! passed in. It is called once or twice per request, never per frame, and never makes a request wait for a disk.
//!
//! Start reading in [`Counters::admit`], [`Ledger::append`], for money in [`budget_pool`] and for keys in
//! [`keyring`]. [`memory`] is the back end that persists nothing, [`sqlite`] the durable one. What every back end
//! guarantees is in `tests/store_contract.rs` and `tests/lease_store_contract.rs`.

mod audit;
pub mod budget_pool;
mod column;
mod connection_runtime;
pub mod copy;
pub mod divided;
mod drill_report_row;
pub mod keyring;
pub mod memory;
pub mod memory_lease_store;
pub mod memory_register;
pub mod migration;
mod name_set;
pub mod postgres;
mod receipt_attempts;
mod receipt_row;
pub mod redis;
pub mod reports;
mod retention;
pub mod sqlite;
pub mod state_accounts;
pub mod unbilled_responses;
pub mod writer;

use self::redis::CountedAdmission;
use crate::domain::audit::{AuditChain, AuditEntry, AuditQuery, AuditRow, Operator};
use crate::domain::budget::{Account, Charge, LeaseTerm, WindowSpan};
use crate::domain::drill::report::DrillReport;
use crate::domain::id::KeyId;
use crate::domain::limit::{Limits, OverLimit, RateLimitReservation, RateLimitStatus};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use crate::domain::register::{CreditBalance, Grant, Holder, QuarantinedRow, StoredKey, StoredTeam};
use crate::domain::secret::{IdempotencySecret, KeyHash};
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::month::SlaMonth;
use crate::domain::sla::tally::INTERVAL_MS;
use divided::ReplicaDivision;
use keyring::Keyring;
use memory::{MemoryCounters, MemoryLedger};
use memory_lease_store::MemoryLeaseStore;
use memory_register::MemoryRegister;
use reports::Reports;
use state_accounts::StateAccounts;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The future returned by a method of an object-safe trait.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Returns the time in Unix milliseconds. It is passed in, because only `clock` may read the system clock.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The append-only log of receipts.
pub trait Ledger: Send + Sync {
    /// Reserves room for the receipt of a request whose cost an account pays, before anything of the request is sent.
    /// `None` if there is none: what such a request costs could be lost.
    fn reserve(&self) -> Option<ReceiptRoom>;

    /// Appends one receipt. It never blocks: the back end writes in the background. If too much waits already, the
    /// receipt is dropped and counted, unless it has `room` and charges an account.
    fn append(&self, receipt: &Arc<Receipt>, room: Option<ReceiptRoom>);

    /// Its health and its backlog.
    fn status(&self) -> LedgerStatus;

    /// What is known of other gateways on the same store; of one that has its store alone, nothing ever happens.
    fn sharing(&self) -> StoreSharing {
        StoreSharing::default()
    }
}

/// What a gateway knows of others on the same store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreSharing {
    /// Gateways alive when it was looked last, this one among them: 1 or more.
    pub gateways: u64,
    /// Others that this one ended since its start, because the store had not seen them for a minute.
    pub gone: u64,
    /// Leases of those that were counted as spent.
    pub leases_reaped: u64,
    /// How long ago the store last answered the thread that writes to it, which asks once a second.
    pub lag: Duration,
}

impl Default for StoreSharing {
    fn default() -> Self {
        Self { gateways: 1, gone: 0, leases_reaped: 0, lag: Duration::ZERO }
    }
}

/// Room for one receipt in what a ledger lets wait; given back when it is dropped.
#[must_use = "dropped at once, nothing is reserved"]
#[derive(Debug)]
pub struct ReceiptRoom {
    /// All that is reserved of one ledger; `None` where nothing has to wait.
    reserved: Option<Arc<AtomicUsize>>,
}

impl ReceiptRoom {
    /// Room in a ledger that keeps a receipt at once.
    pub fn unlimited() -> Self {
        Self { reserved: None }
    }

    /// Room that `reserved` counts for as long as it lasts.
    fn counted_in(reserved: &Arc<AtomicUsize>) -> Self {
        reserved.fetch_add(1, Ordering::Relaxed);
        Self { reserved: Some(reserved.clone()) }
    }
}

impl Drop for ReceiptRoom {
    fn drop(&mut self) {
        if let Some(reserved) = &self.reserved {
            reserved.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether a ledger persists what is appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerStatus {
    /// Whether the last write succeeded.
    pub healthy: bool,
    /// Operations accepted and not yet durable.
    pub waiting: u64,
    /// Receipts dropped since the start, because the queue was full or because they can never be written.
    pub dropped: u64,
}

/// The durable side of every budget: it leases money to processes, which spend it without asking again.
///
/// For each window of an account it stores what is spent and what is leased. A new lease never makes their sum
/// exceed the limit. A lease is durable before it is used; after a crash, what remains of it counts as spent.
pub trait LeaseStore: Send + Sync {
    /// Leases the amount that [`grant`](crate::domain::budget::grant) allows. The caller must poll the future to its
    /// end: a lease that is granted and not received cannot be spent.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: nothing was leased.
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>>;

    /// Returns money that was leased in `term` and is neither spent nor held. It never blocks.
    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm);

    /// The term whose leases may be spent now. `None`: none may, because the back end could not be reached for so long that
    /// others may count them as spent.
    fn term(&self) -> Option<LeaseTerm> {
        Some(LeaseTerm::default())
    }

    /// Moves what `receipt` charges from leased to spent; called once, after the receipt was appended to the ledger.
    /// A back end that is ledger and lease store does it in [`Ledger::append`], in one transaction, and nothing
    /// here. It never blocks.
    fn settle(&self, receipt: &Arc<Receipt>);

    /// The same for charges without a receipt: those of a hold that was dropped. It never blocks.
    fn write_off(&self, charges: &[Charge]);
}

/// The stores of one gateway.
#[derive(Clone)]
pub struct Stores {
    /// Where receipts go.
    pub ledger: Arc<dyn Ledger>,
    /// How much of its limits each key has used.
    pub counters: Arc<dyn Counters>,
    /// Where budgets are leased from.
    pub lease_store: Arc<dyn LeaseStore>,
    /// Keys, teams and credit.
    pub keyring: Arc<Keyring>,
    /// Reads the ledger; `None` where nothing is persisted.
    pub reports: Option<Arc<dyn Reports>>,
    /// What idempotency keys are bound to, the same for every process of the store; `None` where nothing is persisted.
    pub idempotency: Option<IdempotencySecret>,
    /// Which account of a provider made what for which key.
    pub state_accounts: Arc<StateAccounts>,
    /// Which of the gateways of the store this one is.
    pub division: Arc<ReplicaDivision>,
}

impl Stores {
    /// Stores in memory, lost when the process ends.
    pub async fn memory() -> Self {
        let lease_store = Arc::new(MemoryLeaseStore::default());
        let register = Arc::new(MemoryRegister::new(lease_store.clone()));
        let keyring = Keyring::open(register).await.expect("a register in memory is always available");
        Self {
            ledger: Arc::new(MemoryLedger::default()),
            counters: Arc::new(MemoryCounters::default()),
            lease_store,
            keyring: Arc::new(keyring),
            reports: None,
            idempotency: None,
            state_accounts: Arc::default(),
            division: Arc::default(),
        }
    }
}

/// Keys, teams and credit that are changed while the gateway runs: durable, and the same for every process.
///
/// Every change gets a version higher than all versions before it, so that a reader can ask for what is new, and a row in
/// the audit, written together with it: none is written without the other.
pub trait Register: Send + Sync {
    /// What was changed after `version`, keys in the order of their names; everything if `version` is 0.
    fn since(&self, version: i64) -> StoreFuture<'static, Result<RegisterContents, StoreUnavailable>>;

    /// Writes all of `changes`, or nothing, and returns the version of each. It completes even if the future is
    /// dropped.
    fn write(
        &self,
        changes: Vec<RegisterChange>,
        context: ChangeContext,
    ) -> StoreFuture<'static, Result<Vec<i64>, RegisterWriteError>>;

    /// Writes a row to the audit for a change of something that is not registered here.
    fn note(&self, entry: AuditEntry, context: ChangeContext) -> StoreFuture<'static, Result<(), StoreUnavailable>>;

    /// The rows of the audit that `query` asks for.
    fn audit(&self, query: AuditQuery) -> StoreFuture<'static, Result<Vec<AuditRow>, StoreUnavailable>>;

    /// What the audit is verified by.
    fn audit_chain(&self) -> StoreFuture<'static, Result<AuditChain, StoreUnavailable>>;

    /// The statements about `month` of `policy`, in their order.
    fn sla_closings(
        &self,
        policy: Arc<str>,
        month: SlaMonth,
    ) -> StoreFuture<'static, Result<Vec<SlaClosing>, StoreUnavailable>>;

    /// The months in which an SLA was promised, the oldest first.
    fn sla_promised(&self) -> StoreFuture<'static, Result<Vec<PromisedMonth>, StoreUnavailable>>;

    /// Records that a gateway is alive, and what it promises. It never blocks, and gets no version.
    fn present(&self, presence: SlaPresence);

    /// Keeps what came of a scenario of a drill, in place of what was kept of it before. It gets no version and no row of the
    /// audit: nothing that the gateway does depends on it.
    fn keep_drill_report(&self, report: DrillReport) -> StoreFuture<'static, Result<(), StoreUnavailable>>;

    /// What is kept of each scenario, by its name. One that cannot be read is left out.
    fn drill_reports(&self) -> StoreFuture<'static, Result<Vec<DrillReport>, StoreUnavailable>>;

    /// Records when secrets were last used, in Unix milliseconds. It never blocks, and gets no version.
    fn used(&self, uses: Vec<(KeyHash, i64)>);

    /// Closes its read connection, so that the writer, the last to close the file, can checkpoint it. Reads fail
    /// afterwards.
    fn close(&self) {}

    /// The balance of all credit, by holder.
    fn balances(&self) -> StoreFuture<'static, Result<Vec<CreditBalance>, StoreUnavailable>>;

    /// Up to `most` grants with a number above `after`, in ascending order; only those of `holder` if it is given.
    fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> StoreFuture<'static, Result<Vec<Grant>, StoreUnavailable>>;
}

/// All or some of what is registered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegisterContents {
    /// The version of the last change to the register.
    pub version: i64,
    /// In the order of their names.
    pub keys: Vec<StoredKey>,
    /// In the order of their names.
    pub teams: Vec<StoredTeam>,
    /// The sum of all grants of each holder.
    pub credit: Vec<(Holder, NanoUsd)>,
    /// What could not be read. A team among them is in `teams` with a budget of nothing.
    pub quarantined: Vec<QuarantinedRow>,
}

/// One change to what is registered. The register assigns the version of what is written, and a grant's number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterChange {
    /// Creates a key, or replaces it.
    Key {
        /// The whole key.
        key: StoredKey,
        /// The version it must have before the change; 0: it must not exist.
        expected: i64,
    },
    /// Creates a team, or replaces it.
    Team {
        /// The whole team.
        team: StoredTeam,
        /// The version it must have before the change; 0: it must not exist.
        expected: i64,
    },
    /// Adds a grant.
    Grant(Grant),
    /// Adds a statement about a month of an SLA, which must be the next one about it. Its grants are changes of their own.
    SlaClosing(SlaClosing),
}

/// A month in which a policy promised an SLA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PromisedMonth {
    /// The policy.
    pub policy: Arc<str>,
    /// The month.
    pub month: SlaMonth,
    /// How many receipts the newest statement about it counted; `None`: it is not closed.
    pub closed_requests: Option<u64>,
}

/// That a gateway is alive, and what its configuration promises.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaPresence {
    /// The interval of five minutes, as its number since 1970.
    pub interval: i64,
    /// Each policy with an SLA, and the month that is running in its zone.
    pub promised: Vec<(Arc<str>, SlaMonth)>,
}

impl SlaPresence {
    /// The interval that `unix_ms` is in.
    pub fn interval_at(unix_ms: i64) -> i64 {
        unix_ms.div_euclid(INTERVAL_MS)
    }
}

/// Who makes a change, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeContext {
    /// Who makes it, from where and by what.
    pub operator: Operator,
    /// When, in Unix milliseconds.
    pub unix_ms: i64,
}

/// Why nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterWriteError {
    /// The stored state is not what a change expects.
    Conflict {
        /// The index of that change, from 0.
        at: usize,
        /// How the stored entry differs from what that change expects.
        why: RegisterConflict,
    },
    /// The register cannot be written at the moment.
    Unavailable,
}

/// How a change conflicts with the stored state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterConflict {
    /// The entry has another version, or the statement about the month was made already.
    Changed,
    /// Another key has one of the secrets.
    SecretTaken,
    /// All grants of the holder together would be more than can be counted.
    TooMuchCredit,
}

/// A request for a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRequest {
    /// The account to lease from.
    pub account: Arc<Account>,
    /// The window that is running by the process's clock.
    pub span: WindowSpan,
    /// The window's limit, as configured at the moment.
    pub limit: NanoUsd,
    /// What waiting requests need.
    pub need: NanoUsd,
    /// What may be leased beyond that, for requests to come.
    pub ahead: NanoUsd,
}

/// Money leased to a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The window it belongs to: the requested one, or a later one from which the account has already leased.
    pub span: WindowSpan,
    /// The amount; less than the need if no more is left.
    pub amount: NanoUsd,
    /// What all processes have spent and leased of the window, this lease included.
    pub taken: NanoUsd,
    /// The term in which it may be spent.
    pub term: LeaseTerm,
}

/// The store cannot be read or written at the moment: nothing that needs money is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreUnavailable;

/// How much of its limits each key has used.
pub trait Counters: Send + Sync {
    /// Takes a concurrency slot of the key, before anything of its request is read. It never waits: requests at once
    /// are counted where they run.
    ///
    /// # Errors
    /// [`AdmissionDenied`]: as many of its requests run as may.
    fn begin(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<Admission, AdmissionDenied>;

    /// Takes one request and its tokens for what has begun as `admission`, or nothing at all.
    ///
    /// Requests are checked first, then tokens, and the first limit that is exceeded is reported. The limits are those
    /// of `request`: what was taken under other limits before a reload still counts.
    ///
    /// # Errors
    /// [`AdmissionDenied`]: one of the limits is exceeded. The slot is kept.
    fn admit<'a>(
        &'a self,
        admission: &'a mut Admission,
        request: AdmissionRequest<'a>,
        now: Instant,
    ) -> StoreFuture<'a, Result<(), AdmissionDenied>>;

    /// Whether `key` may be read further, having been refused less often in the last minute than its requests per
    /// minute. A key without that limit always may.
    ///
    /// # Errors
    /// [`OverLimit`]: when it may again.
    fn check_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit>;

    /// Counts a request of `key` that was refused for what it is.
    ///
    /// # Errors
    /// [`OverLimit`] in place of the refusal: others of the key, at the same time, had used up the limit.
    fn count_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit>;

    /// Ends an admission: frees its slot and corrects its tokens to those used (`None`: as taken).
    /// Tokens beyond those taken become debt, which delays later requests.
    fn settle(&self, admission: Admission, tokens_used: Option<u64>, now: Instant);

    /// Concurrency slots in use, over all keys.
    fn in_flight(&self) -> u64;

    /// Whether limits that several gateways count together are divided among them, because they cannot be counted.
    fn are_degraded(&self) -> bool {
        false
    }

    /// Settlements on their way to where limits are counted.
    fn settling(&self) -> u64 {
        0
    }
}

/// What a request takes of its key's limits.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionRequest<'a> {
    /// The name of the key, the same for every gateway.
    pub key: &'a str,
    /// The key's limits in the request's configuration snapshot.
    pub limits: Limits,
    /// Estimated tokens. At least one is taken, so that token debt delays the request.
    pub tokens: u64,
}

/// What remains of a key's rate limits; `None` without a limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RemainingRateLimits {
    /// Of the requests per minute.
    pub requests: Option<RateLimitStatus>,
    /// Of the tokens per minute.
    pub tokens: Option<RateLimitStatus>,
    /// Whether they are this gateway's part of limits that are counted together, while they cannot be.
    pub degraded: bool,
}

/// Why a request was refused, and what the client reads about its rate limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdmissionDenied {
    /// The exceeded limit, and when to retry.
    pub over: OverLimit,
    /// What remains of the rate limits: the refused request took nothing.
    pub left: RemainingRateLimits,
}

/// What a request has of its key's limits; it occupies a concurrency slot until [`Counters::settle`] ends it.
#[must_use = "an admission that is not settled occupies its slot for ever"]
#[derive(Debug)]
pub struct Admission {
    key: KeyId,
    tokens: Option<RateLimitReservation>,
    left: RemainingRateLimits,
    /// What it has where several gateways count together.
    shared: Option<Box<CountedAdmission>>,
}

impl Admission {
    /// Requests that remained after this one was admitted; `None` before, and without such a limit.
    pub fn requests(&self) -> Option<RateLimitStatus> {
        self.left.requests
    }

    /// What remained after this request was admitted; nothing is known before.
    pub fn left(&self) -> RemainingRateLimits {
        self.left
    }

    /// Tokens that remained after this request was admitted; `None` before, and without such a limit.
    pub fn tokens(&self) -> Option<RateLimitStatus> {
        self.left.tokens
    }
}
