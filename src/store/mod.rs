//! What is kept: the ledger of receipts, the bank behind every budget, the register of keys, teams and credit,
//! and the counters behind every key's limits.
//!
//! A store keeps and never decides: which limits a key has, what a refusal says and what a request
//! cost arrive as values. It is called once or twice per request, never per frame, and never makes
//! one wait for a disk.
//!
//! Start reading in [`Counters::admit`], [`Ledger::append`], for money in [`budget_pool`] and for keys in [`keyring`];
//! [`memory`] is the back
//! end that keeps nothing, [`sqlite`] the one that does, and `tests/store_contract.rs` and
//! `tests/lease_store_contract.rs` what every back end promises.

pub mod budget_pool;
pub mod keyring;
pub mod memory;
pub mod memory_lease_store;
pub mod memory_register;
pub mod reports;
pub mod sqlite;

use crate::domain::authorize::Limits;
use crate::domain::budget::{Account, Charge, Span};
use crate::domain::id::KeyId;
use crate::domain::limit::{RateLimitStatus, RateReservation};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use crate::domain::refusal::OverLimit;
use crate::domain::register::{Balance, Grant, Holder, StoredKey, StoredTeam};
use crate::domain::secret::KeyHash;
use keyring::Keyring;
use memory::MemoryLedger;
use memory_lease_store::MemoryLeaseStore;
use memory_register::MemoryRegister;
use reports::Reports;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A future of a trait that can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The append-only book of receipts.
pub trait Ledger: Send + Sync {
    /// Takes one receipt. It never blocks: writing is the back end's own affair.
    fn append(&self, receipt: &Arc<Receipt>);

    /// How it stands.
    fn status(&self) -> LedgerStatus;
}

/// Whether a ledger keeps what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerStatus {
    /// Whether what was last written could be.
    pub healthy: bool,
    /// Operations taken and not yet durable.
    pub waiting: u64,
    /// Receipts for which there was no room, since the start.
    pub dropped: u64,
}

/// The durable side of every budget: it leases money to processes, which spend it without asking again.
///
/// For each window of an account it keeps what is spent and what is leased, and their sum never passes the
/// limit by leasing. A lease is granted durably before it is used; what a crash leaves of it is spent.
pub trait LeaseStore: Send + Sync {
    /// Leases what [`grant`](crate::domain::budget::grant) says. Once asked it is carried to its end: whoever
    /// asks takes care that nobody drops the future.
    ///
    /// # Errors
    /// [`Unavailable`]: nothing was leased.
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'static, Result<Leased, Unavailable>>;

    /// Takes back what was leased and is neither spent nor held. It never blocks.
    fn give_back(&self, account: &Arc<Account>, span: Span, amount: NanoUsd);

    /// Turns what `receipt` charges from leased into spent; called once, after the ledger took the receipt.
    /// A back end that is both does it there, in one transaction, and nothing here. It never blocks.
    fn settle(&self, receipt: &Arc<Receipt>);

    /// The same for charges of which there is no receipt: a hold that was dropped. It never blocks.
    fn write_off(&self, charges: &[Charge]);
}

/// What a gateway writes into.
#[derive(Clone)]
pub struct Books {
    /// Where receipts go.
    pub ledger: Arc<dyn Ledger>,
    /// Where budgets are kept.
    pub lease_store: Arc<dyn LeaseStore>,
    /// Keys, teams and credit.
    pub keyring: Arc<Keyring>,
    /// How the ledger is read; `None`: it keeps nothing.
    pub reports: Option<Arc<dyn Reports>>,
}

impl Books {
    /// Those of a process that remembers nothing.
    pub async fn memory() -> Self {
        let lease_store = Arc::new(MemoryLeaseStore::default());
        let register = Arc::new(MemoryRegister::new(lease_store.clone()));
        let keyring = Keyring::open(register).await.expect("memory can always be read");
        Self { ledger: Arc::new(MemoryLedger::default()), lease_store, keyring: Arc::new(keyring), reports: None }
    }
}

/// Keys, teams and credit that are changed while the gateway runs: durable, and the same for every process.
///
/// Every change is given a version, higher than all before it, so that whoever reads knows what is new.
pub trait Register: Send + Sync {
    /// What was changed after `version`, keys in the order of their names; everything for 0.
    fn since(&self, version: i64) -> BoxFuture<'static, Result<Contents, Unavailable>>;

    /// Writes all of `changes`, or nothing, and says which version each was given. Once asked it is carried
    /// to its end, whoever drops the future.
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<Vec<i64>, NotWritten>>;

    /// Takes note of when secrets were last used, in Unix milliseconds. It never blocks, and is no change.
    fn used(&self, uses: Vec<(KeyHash, i64)>);

    /// Lets go of what it reads by: the last to hold a file tidies it. Nothing is read afterwards.
    fn close(&self) {}

    /// How all credit stands, by holder.
    fn balances(&self) -> BoxFuture<'static, Result<Vec<Balance>, Unavailable>>;

    /// Up to `most` grants after the one numbered `after`, in their order; of `holder` only where one is named.
    fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> BoxFuture<'static, Result<Vec<Grant>, Unavailable>>;
}

/// A part of what is registered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    /// The version of the last change to anything.
    pub version: i64,
    /// In the order of their names.
    pub keys: Vec<StoredKey>,
    /// In the order of their names.
    pub teams: Vec<StoredTeam>,
    /// What was granted to whom, in all.
    pub credit: Vec<(Holder, NanoUsd)>,
}

/// One change to what is registered. The version of what is written, and a grant's number, are the register's
/// to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key as it is to be from now on.
    Key {
        /// All of it.
        key: StoredKey,
        /// The version it must have now; 0: it must not exist.
        expected: i64,
    },
    /// A team as it is to be from now on.
    Team {
        /// All of it.
        team: StoredTeam,
        /// The version it must have now; 0: it must not exist.
        expected: i64,
    },
    /// A further grant.
    Grant(Grant),
}

/// Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotWritten {
    /// Something is not as the change expects it.
    Conflict {
        /// Which of the changes, from 0.
        at: usize,
        /// How.
        why: Conflict,
    },
    /// The register cannot be written now.
    Unavailable,
}

/// How a change does not fit what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// It has another version.
    Changed,
    /// Another key has this secret.
    SecretTaken,
}

/// What a process wants of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseAsk {
    /// Whose money.
    pub account: Arc<Account>,
    /// Of which window.
    pub span: Span,
    /// The window's limit, as configured now.
    pub limit: NanoUsd,
    /// For requests that wait.
    pub need: NanoUsd,
    /// For those that may come.
    pub ahead: NanoUsd,
}

/// What a process got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased {
    /// The window it is of: the one asked for, or a later one of which the account has already leased.
    pub span: Span,
    /// How much; less than the need where there is no more.
    pub amount: NanoUsd,
    /// What is now spent and leased of the window, by everybody.
    pub taken: NanoUsd,
}

/// The bank cannot be asked now: money fails closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unavailable;

/// What every key has taken of its limits.
pub trait Counters: Send + Sync {
    /// Takes one request, its tokens and a slot, or nothing at all.
    ///
    /// The checks come in this order, and the first that fails is the one named: concurrency, which
    /// frees itself soonest; requests; tokens. The limits are those of `ask`: what was taken under
    /// others before a reload stays taken.
    ///
    /// # Errors
    /// [`Denied`]: over one of the limits.
    fn admit<'a>(&'a self, ask: &'a Ask, now: Instant) -> BoxFuture<'a, Result<Admission, Denied>>;

    /// Ends an admission: frees its slot and corrects its tokens to those used (`None`: as taken).
    /// More than was taken becomes debt, which later requests wait for.
    fn settle(&self, admission: Admission, tokens_used: Option<u64>, now: Instant);

    /// Slots held, over all keys.
    fn in_flight(&self) -> u64;
}

/// What a request wants of its key's limits.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Whose request it is.
    pub key: KeyId,
    /// The key's limits as the request's snapshot has them.
    pub limits: Limits,
    /// Tokens it may use, estimated. A request takes at least one, so that debt holds it back.
    pub tokens: u64,
}

/// What is left of a key's rates; `None` where there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RatesLeft {
    /// Of the requests a minute.
    pub requests: Option<RateLimitStatus>,
    /// Of the tokens a minute.
    pub tokens: Option<RateLimitStatus>,
}

/// A request refused, and what its client is told all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// Which limit, and when to come back.
    pub over: OverLimit,
    /// What is left of the rates: the refused request took nothing.
    pub left: RatesLeft,
}

/// Proof that a request was let in; it holds a slot until [`Counters::settle`] takes it back.
#[must_use = "an admission that is not settled holds its slot for ever"]
#[derive(Debug)]
pub struct Admission {
    key: KeyId,
    tokens: Option<RateReservation>,
    left: RatesLeft,
}

impl Admission {
    /// Requests left right after this one was let in; `None` without such a limit.
    pub fn requests(&self) -> Option<RateLimitStatus> {
        self.left.requests
    }

    /// Tokens left right after this request was let in; `None` without such a limit.
    pub fn tokens(&self) -> Option<RateLimitStatus> {
        self.left.tokens
    }
}
