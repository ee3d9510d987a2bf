//! One commit of the writer thread: many receipts and operations in few statements.
//!
//! Receipts that follow each other are one statement, their charges another one. What cannot be written because of what it
//! is would fail the whole transaction; then the same is written once more, one operation at a time, so that only that is
//! left out.
//!
//! Start reading in [`write()`].

use super::balances::{self, LockedWindow, json};
use super::error::PostgresError;
use super::operation::{PostgresOperation, QueuedPostgresOperation};
use super::{receipts, sla};
use crate::domain::budget::LeaseTerm;
use crate::domain::provider_state::OwnedStateId;
use crate::domain::receipt::Receipt;
use crate::domain::secret::KeyHash;
use crate::store::state_accounts::MadeState;
use crate::store::unbilled_responses::UnbilledResponse;
use serde::Serialize;
use std::sync::Arc;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

/// Rows that one commit deletes at most, of those that providers no longer keep.
const DELETED_AT_ONCE: i64 = 64;

const USE: &str = "WITH used AS (SELECT decode(hash, 'hex') AS hash, max(unix_ms) AS unix_ms
        FROM json_to_recordset($1::text::json) AS u (hash text, unix_ms bigint) GROUP BY hash),
    locked AS (SELECT s.hash FROM tierway.secrets AS s JOIN used ON used.hash = s.hash ORDER BY s.hash FOR UPDATE OF s)
    UPDATE tierway.secrets AS s SET last_used_unix_ms = greatest(coalesce(s.last_used_unix_ms, used.unix_ms), used.unix_ms)
    FROM used, locked WHERE s.hash = used.hash AND s.hash = locked.hash";
const KEEP: &str = "INSERT INTO tierway.state_accounts SELECT DISTINCT decode(id, 'hex'), $2, decode($3, 'hex'), $4
        FROM json_array_elements_text($1::text::json) AS made (id) ORDER BY 1
    ON CONFLICT (id) DO UPDATE SET provider = excluded.provider, credential = excluded.credential,
        made_unix_s = excluded.made_unix_s";
/// More than are written, so that the table shrinks again; another gateway may delete the others.
const FORGET: &str = "DELETE FROM tierway.state_accounts WHERE id IN (SELECT id FROM tierway.state_accounts
    WHERE made_unix_s <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";

const FORGET_ONE: &str = "DELETE FROM tierway.state_accounts WHERE id = $1";
const BILLED: &str = "DELETE FROM tierway.unbilled_responses WHERE id = $1";
const UNBILLED: &str = "INSERT INTO tierway.unbilled_responses VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO UPDATE SET deployment = $2, made_unix_ms = $3, replica = $4";

/// Writes `batch` in `transaction`, all of it.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    batch: &[QueuedPostgresOperation],
    term: LeaseTerm,
) -> Result<(), PostgresError> {
    balances::lock(transaction, &windows(batch)).await?;
    let mut rest = batch;
    while let Some(first) = rest.first() {
        let receipts: Vec<&Arc<Receipt>> = rest
            .iter()
            .map_while(|work| match work {
                QueuedPostgresOperation::Receipt(receipt) => Some(receipt),
                QueuedPostgresOperation::Operation(_) => None,
            })
            .collect();
        if !receipts.is_empty() {
            write_receipts(transaction, &receipts).await?;
            rest = &rest[receipts.len()..];
        } else if let QueuedPostgresOperation::Operation(operation) = first {
            write_operation(transaction, operation, term).await?;
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// Writes `batch` in `transaction`, but for what can never be written; adds the indexes of that to `left_out`.
pub(super) async fn write_one_by_one(
    transaction: &Transaction<'_>,
    batch: &[QueuedPostgresOperation],
    term: LeaseTerm,
    left_out: &mut Vec<usize>,
) -> Result<(), PostgresError> {
    balances::lock(transaction, &windows(batch)).await?;
    for (at, work) in batch.iter().enumerate() {
        transaction.batch_execute("SAVEPOINT operation").await?;
        match write(transaction, std::slice::from_ref(work), term).await {
            Ok(()) => transaction.batch_execute("RELEASE operation").await?,
            Err(error) if error.is_of_the_operation() => {
                transaction.batch_execute("ROLLBACK TO operation; RELEASE operation").await?;
                let operation = work.describe();
                tracing::error!(operation, %error, "this can never be written and is left out of the store");
                left_out.push(at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The windows that `batch` changes.
fn windows(batch: &[QueuedPostgresOperation]) -> Vec<LockedWindow<'_>> {
    let mut windows = Vec::new();
    for work in batch {
        let charges = match work {
            QueuedPostgresOperation::Receipt(receipt) => &receipt.charges[..],
            QueuedPostgresOperation::Operation(PostgresOperation::Charges(charges)) => charges,
            QueuedPostgresOperation::Operation(PostgresOperation::Lease(lease)) => {
                windows.push(LockedWindow::from(&lease.request.account, lease.request.span));
                &[]
            }
            QueuedPostgresOperation::Operation(_) => &[],
        };
        windows.extend(charges.iter().map(|charge| LockedWindow::from(&charge.account, charge.span)));
    }
    windows
}

async fn write_receipts(transaction: &Transaction<'_>, all: &[&Arc<Receipt>]) -> Result<(), PostgresError> {
    let inserted = receipts::insert(transaction, all).await?;
    // The charges of a receipt that exists were booked with it.
    let new = all.iter().filter(|receipt| inserted.contains(&receipt.id));
    balances::charge(transaction, new.flat_map(|receipt| &receipt.charges)).await
}

async fn write_operation(
    transaction: &Transaction<'_>,
    operation: &PostgresOperation,
    term: LeaseTerm,
) -> Result<(), PostgresError> {
    match operation {
        PostgresOperation::Lease(lease) => {
            let leased = balances::lease(transaction, &lease.request, term).await?;
            *lease.granted.lock() = Some(leased);
            Ok(())
        }
        PostgresOperation::Charges(charges) => balances::charge(transaction, charges.iter()).await,
        PostgresOperation::Uses(uses) => record_uses(transaction, uses).await,
        PostgresOperation::Forget(id) => delete_by_id(transaction, FORGET_ONE, id).await,
        PostgresOperation::Billed(id) => delete_by_id(transaction, BILLED, id).await,
        PostgresOperation::Unbilled(response) => keep_unbilled(transaction, response, term).await,
        PostgresOperation::Presence(presence) => sla::record_presence(transaction, presence).await,
        PostgresOperation::State(made, forget_before) => keep_state(transaction, made, *forget_before).await,
    }
}

#[derive(Serialize)]
struct UsedSecret {
    hash: String,
    unix_ms: i64,
}

async fn record_uses(transaction: &Transaction<'_>, uses: &[(KeyHash, i64)]) -> Result<(), PostgresError> {
    let used = |(hash, unix_ms): &(KeyHash, i64)| UsedSecret { hash: hex(&hash.0), unix_ms: *unix_ms };
    let uses = json(&uses.iter().map(used).collect::<Vec<_>>());
    transaction.execute_typed(USE, &[(&uses, Type::TEXT)]).await?;
    Ok(())
}

async fn keep_state(transaction: &Transaction<'_>, made: &MadeState, forget_before: i64) -> Result<(), PostgresError> {
    let MadeState { ids, account, made_unix_s } = made;
    let ids = json(&ids.iter().map(|id| hex(&id.0)).collect::<Vec<_>>());
    let (provider, credential) = (&*account.provider, hex(&account.credential));
    let row = [
        (&ids as _, Type::TEXT),
        (&provider as _, Type::TEXT),
        (&credential as _, Type::TEXT),
        (made_unix_s as _, Type::INT8),
    ];
    transaction.execute_typed(KEEP, &row).await?;
    transaction.execute_typed(FORGET, &[(&forget_before, Type::INT8), (&DELETED_AT_ONCE, Type::INT8)]).await?;
    Ok(())
}

async fn delete_by_id(transaction: &Transaction<'_>, sql: &str, id: &OwnedStateId) -> Result<(), PostgresError> {
    let id = &id.0[..];
    transaction.execute_typed(sql, &[(&id, Type::BYTEA)]).await?;
    Ok(())
}

async fn keep_unbilled(
    transaction: &Transaction<'_>,
    UnbilledResponse { id, deployment, made_unix_ms }: &UnbilledResponse,
    term: LeaseTerm,
) -> Result<(), PostgresError> {
    let (id, deployment) = (&id.0[..], &**deployment);
    let row = [
        (&id as _, Type::BYTEA),
        (&deployment as _, Type::TEXT),
        (made_unix_ms as _, Type::INT8),
        (&term.0 as _, Type::INT8),
    ];
    transaction.execute_typed(UNBILLED, &row).await?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
