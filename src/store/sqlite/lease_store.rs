//! The lease store on SQLite: leases are durable before they are used, charges are booked with their receipt.
//!
//! Everything is an operation of the one writer, so that balances are read and written in order. While the database
//! cannot be written nothing is leased. What was leased when a process ended counts as spent from the next start.

use super::budget_row::{SPEND_OPEN_LEASES, add, charge};
use super::credit;
use super::operation::{SqliteWriter, WriteOperation};
use crate::domain::budget::{Account, CREDIT, Charge, LeaseTerm, WindowSpan, grant};
use crate::domain::money::NanoUsd;
use crate::store::{Lease, LeaseRequest, StoreUnavailable};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long to wait for a lease: much longer than a commit, much shorter than a client's timeout.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);

const LATEST_WINDOW: &str = "SELECT start_ms, end_ms, spent_nanousd, leased_nanousd FROM budgets
    WHERE scope = ?1 AND name = ?2 AND window = ?3 ORDER BY start_ms DESC LIMIT 1";
const RECORD_OPEN_LEASES: &str = "INSERT INTO unaccounted
    SELECT ?1, scope, name, window, start_ms, leased_nanousd FROM budgets WHERE leased_nanousd > 0";

/// Counts everything leased as spent: the process that leased it has ended. Returns the number of leases.
pub(super) fn close_leases(connection: &mut Connection, now_unix_ms: i64) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let left_open = transaction.execute(RECORD_OPEN_LEASES, [now_unix_ms])?;
    transaction.execute(SPEND_OPEN_LEASES, [])?;
    transaction.commit()?;
    Ok(left_open)
}

/// Requests a lease, and returns it once it is durable.
pub(super) async fn lease(writer: SqliteWriter, request: LeaseRequest) -> Result<Lease, StoreUnavailable> {
    if !writer.status().healthy {
        return Err(StoreUnavailable);
    }
    let (result, leased) = oneshot::channel();
    let operation = LeaseOperation { writer: writer.clone(), request, granted: Mutex::new(None), result };
    writer.submit(Box::new(operation)).map_err(|_| StoreUnavailable)?;
    match tokio::time::timeout(LEASE_TIMEOUT, leased).await {
        Ok(Ok(leased)) => Ok(leased),
        _ => Err(StoreUnavailable),
    }
}

/// Queues charges without a receipt, or the return of unused leases. If the queue is full the money stays leased,
/// and counts as spent from the next start.
pub(super) fn submit_charges(writer: &SqliteWriter, charges: Vec<Charge>) {
    if writer.submit(Box::new(ChargeOperation(charges))).is_err() {
        tracing::error!("money could not be given back to its budget: it counts as spent");
    }
}

/// Grants one lease.
struct LeaseOperation {
    writer: SqliteWriter,
    request: LeaseRequest,
    /// The lease as written in the transaction, which may not be committed yet.
    granted: Mutex<Option<Lease>>,
    result: oneshot::Sender<Lease>,
}

impl WriteOperation for LeaseOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let LeaseRequest { account, span, limit, need, ahead } = &self.request;
        let key = params![account.scope.label(), &*account.name, &*account.window];
        let row = |row: &rusqlite::Row<'_>| {
            let span = WindowSpan { start_ms: row.get(0)?, end_ms: row.get(1)? };
            Ok((span, row.get::<_, i64>(2)?.saturating_add(row.get(3)?)))
        };
        let latest = transaction.prepare_cached(LATEST_WINDOW)?.query_row(key, row).optional()?;
        // A clock that is set back does not reopen an earlier window.
        let (span, taken) = latest.filter(|(latest, _)| latest.start_ms >= span.start_ms).unwrap_or((*span, 0));
        let amount = grant(limit_of(transaction, account, *limit)?, NanoUsd(taken), *need, *ahead);
        add(transaction, account, span, NanoUsd::ZERO, amount)?;
        let leased = Lease { span, amount, taken: NanoUsd(taken.saturating_add(amount.0)), term: LeaseTerm::default() };
        *self.granted.lock() = Some(leased);
        Ok(())
    }

    fn describe(&self) -> String {
        format!("a lease of {}", described(&self.request.account))
    }

    fn committed(self: Box<Self>) {
        let Self { writer, request, granted, result } = *self;
        let Some(leased) = granted.into_inner() else { return };
        // The requester has timed out: nothing would ever spend this lease.
        if result.send(leased).is_err() {
            submit_charges(&writer, vec![Charge::returned(&request.account, leased.span, leased.amount, leased.term)]);
        }
    }
}

/// The current limit of `account`: for a budget as configured; for credit the sum of grants by all processes.
fn limit_of(transaction: &Transaction<'_>, account: &Account, configured: NanoUsd) -> rusqlite::Result<NanoUsd> {
    if &*account.window == CREDIT { credit::granted(transaction, account.scope, &account.name) } else { Ok(configured) }
}

/// An account as the log names it.
fn described(account: &Account) -> String {
    format!("the {} '{}' ({})", account.scope.label(), account.name, account.window)
}

/// Books charges without a receipt.
struct ChargeOperation(Vec<Charge>);

impl WriteOperation for ChargeOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        charge(transaction, &self.0)
    }

    fn describe(&self) -> String {
        let accounts: Vec<String> = self.0.iter().map(|charge| described(&charge.account)).collect();
        format!("charges without a receipt of {}", accounts.join(", "))
    }

    fn committed(self: Box<Self>) {}
}
