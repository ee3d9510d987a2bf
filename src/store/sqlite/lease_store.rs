//! The bank on SQLite: leases are durable before they are used, charges move with their receipt.
//!
//! Everything is an operation of the one writer, so that balances are read and written in order. While the
//! disk fails nothing is leased; what a process left leased when it ended counts as spent from the next start.

use super::writer::{WriteOperation, Writer};
use crate::domain::budget::{Account, CREDIT, Charge, WindowSpan, grant};
use crate::domain::money::NanoUsd;
use crate::store::{BackendUnavailable, Lease, LeaseRequest};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a lease is waited for: much longer than a commit, much shorter than a client's patience.
const PATIENCE: Duration = Duration::from_secs(2);

const LATEST: &str = "SELECT start_ms, end_ms, spent_nanousd, leased_nanousd FROM budgets
    WHERE scope = ?1 AND name = ?2 AND window = ?3 ORDER BY start_ms DESC LIMIT 1";
const MOVE: &str = "INSERT INTO budgets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET spent_nanousd = spent_nanousd
        + min(?6, 9223372036854775807 - spent_nanousd), leased_nanousd = leased_nanousd + ?7";
const GRANTED: &str = "SELECT coalesce(sum(amount_nanousd), 0) FROM grants WHERE scope = ?1 AND name = ?2";
const LEFT_OPEN: &str = "INSERT INTO unaccounted
    SELECT ?1, scope, name, window, start_ms, leased_nanousd FROM budgets WHERE leased_nanousd > 0";
const COUNT_AS_SPENT: &str = "UPDATE budgets SET spent_nanousd = spent_nanousd + max(leased_nanousd, 0),
    leased_nanousd = 0 WHERE leased_nanousd <> 0";

/// Counts what is leased as spent: whoever leased it has ended. Returns how many leases that were.
pub(super) fn close_leases(connection: &mut Connection, now_unix_ms: i64) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let left_open = transaction.execute(LEFT_OPEN, [now_unix_ms])?;
    transaction.execute(COUNT_AS_SPENT, [])?;
    transaction.commit()?;
    Ok(left_open)
}

/// Turns `charges` from leased into spent.
pub(super) fn charge(transaction: &Transaction<'_>, charges: &[Charge]) -> rusqlite::Result<()> {
    charges
        .iter()
        .try_for_each(|charge| add(transaction, &charge.account, charge.span, charge.spent, NanoUsd(-charge.leased.0)))
}

fn add(
    transaction: &Transaction<'_>,
    account: &Account,
    span: WindowSpan,
    spent: NanoUsd,
    leased: NanoUsd,
) -> rusqlite::Result<()> {
    let Account { scope, name, window } = account;
    let row = params![scope.label(), &**name, &**window, span.start_ms, span.end_ms, spent.0, leased.0];
    transaction.prepare_cached(MOVE)?.execute(row).map(drop)
}

/// Leases, once it is durable.
pub(super) async fn lease(writer: Writer, ask: LeaseRequest) -> Result<Lease, BackendUnavailable> {
    if !writer.status().healthy {
        return Err(BackendUnavailable);
    }
    let (reported, answer) = oneshot::channel();
    let wish = LeaseOperation { writer: writer.clone(), ask, granted: Mutex::new(None), reported };
    writer.submit(Box::new(wish)).map_err(|_| BackendUnavailable)?;
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(leased)) => Ok(leased),
        _ => Err(BackendUnavailable),
    }
}

/// Leaves charges of which there is no receipt, or what was leased and is not used. Where there is no room
/// it stays leased, and counts as spent from the next start.
pub(super) fn permit(writer: &Writer, charges: Vec<Charge>) {
    if writer.submit(Box::new(ChargeOperation(charges))).is_err() {
        tracing::error!("money could not be given back to its budget: it counts as spent");
    }
}

/// What gives `amount` of a lease back.
pub(super) fn given_back(account: &Arc<Account>, span: WindowSpan, amount: NanoUsd) -> Charge {
    Charge { account: account.clone(), span, spent: NanoUsd::ZERO, leased: amount }
}

/// A lease on its way.
struct LeaseOperation {
    writer: Writer,
    ask: LeaseRequest,
    /// As the transaction that is not committed yet has it.
    granted: Mutex<Option<Lease>>,
    reported: oneshot::Sender<Lease>,
}

impl WriteOperation for LeaseOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let LeaseRequest { account, span, limit, need, ahead } = &self.ask;
        let key = params![account.scope.label(), &*account.name, &*account.window];
        let row = |row: &rusqlite::Row<'_>| {
            let span = WindowSpan { start_ms: row.get(0)?, end_ms: row.get(1)? };
            Ok((span, row.get::<_, i64>(2)?.saturating_add(row.get(3)?)))
        };
        let latest = transaction.prepare_cached(LATEST)?.query_row(key, row).optional()?;
        // A clock that jumped back never reopens a window.
        let (span, taken) = latest.filter(|(latest, _)| latest.start_ms >= span.start_ms).unwrap_or((*span, 0));
        let amount = grant(ceiling(transaction, account, *limit)?, NanoUsd(taken), *need, *ahead);
        add(transaction, account, span, NanoUsd::ZERO, amount)?;
        let leased = Lease { span, amount, taken: NanoUsd(taken.saturating_add(amount.0)) };
        *self.granted.lock() = Some(leased);
        Ok(())
    }

    fn committed(self: Box<Self>) {
        let Self { writer, ask, granted, reported } = *self;
        let Some(leased) = granted.into_inner() else { return };
        // Whoever asked has given up: nobody would ever spend it.
        if reported.send(leased).is_err() {
            permit(&writer, vec![given_back(&ask.account, leased.span, leased.amount)]);
        }
    }
}

/// The limit of `account` now: of a budget as configured, of credit as granted, also by another process.
fn ceiling(transaction: &Transaction<'_>, account: &Account, configured: NanoUsd) -> rusqlite::Result<NanoUsd> {
    if &*account.window != CREDIT {
        return Ok(configured);
    }
    let mut granted = transaction.prepare_cached(GRANTED)?;
    granted.query_row(params![account.scope.label(), &*account.name], |row| row.get(0)).map(NanoUsd)
}

struct ChargeOperation(Vec<Charge>);

impl WriteOperation for ChargeOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        charge(transaction, &self.0)
    }

    fn committed(self: Box<Self>) {}
}
