//! Writes keys, teams and grants to the database, with each change its row of the audit.
//!
//! A transaction first locks the one row of the register, so that changes come one after the other and their versions become
//! visible in order.
//!
//! Start reading in [`apply`].

use super::error::PostgresError;
use super::register_rows::{stored_key, stored_team};
use super::{audit, credit, sla};
use crate::domain::audit::AuditEntry;
use crate::domain::budget::BudgetSpec;
use crate::domain::register::{Grant, Holder, StoredKey, StoredSecret, StoredTeam};
use crate::store::{ChangeContext, RegisterChange, RegisterConflict, RegisterWriteError};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

/// Takes the next versions, and waits for whoever took the last ones to commit.
const NEXT_VERSIONS: &str = "INSERT INTO tierway.register AS r VALUES (1, $1)
    ON CONFLICT (id) DO UPDATE SET version = r.version + $1 RETURNING version";
const PUT_KEY: &str = "INSERT INTO tierway.keys VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (name) DO UPDATE SET policy = $2, team = $3, requests_per_minute = $4, tokens_per_minute = $5,
        max_concurrent = $6, budget_nanousd = $7, budget_window = $8, expires_unix = $9, disabled = $10, version = $12";
const PUT_SECRET: &str = "INSERT INTO tierway.secrets AS s VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (hash) DO UPDATE SET ends_unix_ms = $4 WHERE s.key = $2";
const DROP_SECRETS: &str = "DELETE FROM tierway.secrets WHERE key = $1 AND hash <> ALL ($2)";
const SECRET_TAKEN: &str = "SELECT EXISTS (SELECT FROM tierway.secrets WHERE hash = ANY ($1) AND key <> $2)";
const PUT_TEAM: &str = "INSERT INTO tierway.teams VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (name) DO UPDATE SET budget_nanousd = $2, budget_window = $3, version = $5";
const PUT_GRANT: &str = "INSERT INTO tierway.grants VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Writes all of `changes` in order with their rows of the audit, and returns their versions; or writes nothing if one of
/// them conflicts with the state it finds.
pub(super) async fn apply(
    client: &mut Client,
    changes: &[RegisterChange],
    context: &ChangeContext,
) -> Result<Result<Vec<i64>, RegisterWriteError>, PostgresError> {
    let transaction = client.transaction().await?;
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let last: i64 = transaction.query_typed_one(NEXT_VERSIONS, &[(&count, Type::INT8)]).await?.try_get(0)?;
    let versions = (last - count + 1..=last).collect::<Vec<_>>();
    let mut entries = Vec::with_capacity(changes.len());
    for (at, (change, version)) in changes.iter().zip(&versions).enumerate() {
        if let Some(why) = conflict(&transaction, change).await? {
            transaction.rollback().await?;
            return Ok(Err(RegisterWriteError::Conflict { at, why }));
        }
        entries.push(entry(&transaction, change).await?);
        write_change(&transaction, change, *version).await?;
    }
    audit::append(&transaction, &entries, context).await?;
    transaction.commit().await?;
    Ok(Ok(versions))
}

/// Writes a row to the audit for a change of something that is not registered here.
pub(super) async fn note(
    client: &mut Client,
    entry: &AuditEntry,
    context: &ChangeContext,
) -> Result<(), PostgresError> {
    let transaction = client.transaction().await?;
    // Locked like a change, and nothing of the register is new.
    transaction.query_typed_one(NEXT_VERSIONS, &[(&0_i64, Type::INT8)]).await?;
    audit::append(&transaction, std::slice::from_ref(entry), context).await?;
    transaction.commit().await?;
    Ok(())
}

/// What `change`, which is not written yet, changes.
async fn entry(transaction: &Transaction<'_>, change: &RegisterChange) -> Result<AuditEntry, PostgresError> {
    Ok(match change {
        RegisterChange::Key { key, expected: 0 } => AuditEntry::of_key(None, key),
        RegisterChange::Key { key, .. } => AuditEntry::of_key(stored_key(transaction, &key.name).await?.as_ref(), key),
        RegisterChange::Team { team, expected: 0 } => AuditEntry::of_team(None, team),
        RegisterChange::Team { team, .. } => {
            AuditEntry::of_team(stored_team(transaction, &team.name).await?.as_ref(), team)
        }
        RegisterChange::SlaClosing(closing) => AuditEntry::of_closing(closing),
        RegisterChange::Grant(grant) => {
            let Holder { scope, name } = &grant.holder;
            AuditEntry::of_grant(credit::granted(transaction, *scope, name).await?, grant)
        }
    })
}

async fn conflict(
    transaction: &Transaction<'_>,
    change: &RegisterChange,
) -> Result<Option<RegisterConflict>, PostgresError> {
    let (name, expected, table, secrets) = match change {
        RegisterChange::Key { key, expected } => (&*key.name, *expected, "keys", &key.secrets[..]),
        RegisterChange::Team { team, expected } => (&*team.name, *expected, "teams", &[][..]),
        RegisterChange::SlaClosing(closing) => {
            return Ok((!sla::is_next(transaction, closing).await?).then_some(RegisterConflict::Changed));
        }
        RegisterChange::Grant(Grant { holder: Holder { scope, name }, amount, .. }) => {
            let fits = credit::granted(transaction, *scope, name).await?.checked_add(*amount).is_some();
            return Ok((!fits).then_some(RegisterConflict::TooMuchCredit));
        }
    };
    let version = format!("SELECT version FROM tierway.{table} WHERE name = $1");
    let found = transaction.query_typed_opt(&version, &[(&name, Type::TEXT)]).await?;
    let found = found.map(|row| row.try_get::<_, i64>(0)).transpose()?;
    if found.unwrap_or(0) != expected {
        return Ok(Some(RegisterConflict::Changed));
    }
    if secrets.is_empty() {
        return Ok(None);
    }
    let hashes = hashes(secrets);
    let taken = transaction.query_typed_one(SECRET_TAKEN, &[(&hashes, Type::BYTEA_ARRAY), (&name, Type::TEXT)]).await?;
    Ok(taken.try_get::<_, bool>(0)?.then_some(RegisterConflict::SecretTaken))
}

fn hashes(secrets: &[StoredSecret]) -> Vec<&[u8]> {
    secrets.iter().map(|secret| &secret.hash.0[..]).collect()
}

async fn write_change(
    transaction: &Transaction<'_>,
    change: &RegisterChange,
    version: i64,
) -> Result<(), PostgresError> {
    match change {
        RegisterChange::Key { key, .. } => write_key(transaction, key, version).await,
        RegisterChange::Team { team, .. } => write_team(transaction, team, version).await,
        RegisterChange::SlaClosing(closing) => sla::insert_closing(transaction, closing).await,
        RegisterChange::Grant(grant) => write_grant(transaction, grant, version).await,
    }
}

async fn write_team(transaction: &Transaction<'_>, team: &StoredTeam, version: i64) -> Result<(), PostgresError> {
    let ((limit, window), name) = (columns(team.budget.as_ref()), &*team.name);
    let row = [
        (&name as _, Type::TEXT),
        (&limit as _, Type::INT8),
        (&window as _, Type::TEXT),
        (&team.created_unix_ms as _, Type::INT8),
        (&version as _, Type::INT8),
    ];
    transaction.execute_typed(PUT_TEAM, &row).await?;
    Ok(())
}

async fn write_grant(transaction: &Transaction<'_>, grant: &Grant, version: i64) -> Result<(), PostgresError> {
    let (scope, name) = (grant.holder.scope.label(), &*grant.holder.name);
    let (reason, by): (&str, &str) = (&grant.reason, &grant.by);
    let row = [
        (&version as _, Type::INT8),
        (&scope as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&grant.amount.0 as _, Type::INT8),
        (&reason as _, Type::TEXT),
        (&by as _, Type::TEXT),
        (&grant.granted_unix_ms as _, Type::INT8),
    ];
    transaction.execute_typed(PUT_GRANT, &row).await?;
    Ok(())
}

async fn write_key(transaction: &Transaction<'_>, key: &StoredKey, version: i64) -> Result<(), PostgresError> {
    let (limit, window) = columns(key.own.budget.as_ref());
    let limits = &key.own.limits;
    let [requests, tokens] = [limits.requests_per_minute, limits.tokens_per_minute].map(|n| n.map(u64::cast_signed));
    let (most, name, policy, team) =
        (limits.max_concurrent.map(i64::from), &*key.name, &*key.policy, key.team.as_deref());
    let row = [
        (&name as _, Type::TEXT),
        (&policy as _, Type::TEXT),
        (&team as _, Type::TEXT),
        (&requests as _, Type::INT8),
        (&tokens as _, Type::INT8),
        (&most as _, Type::INT8),
        (&limit as _, Type::INT8),
        (&window as _, Type::TEXT),
        (&key.expires as _, Type::INT8),
        (&key.disabled as _, Type::BOOL),
        (&key.created_unix_ms as _, Type::INT8),
        (&version as _, Type::INT8),
    ];
    transaction.execute_typed(PUT_KEY, &row).await?;
    for secret in &key.secrets {
        let StoredSecret { hash, created_unix_ms, ends_unix_ms, last_used_unix_ms } = secret;
        let hash = &hash.0[..];
        let row = [
            (&hash as _, Type::BYTEA),
            (&name as _, Type::TEXT),
            (created_unix_ms as _, Type::INT8),
            (ends_unix_ms as _, Type::INT8),
            (last_used_unix_ms as _, Type::INT8),
        ];
        transaction.execute_typed(PUT_SECRET, &row).await?;
    }
    let kept = hashes(&key.secrets);
    transaction.execute_typed(DROP_SECRETS, &[(&name, Type::TEXT), (&kept, Type::BYTEA_ARRAY)]).await?;
    Ok(())
}

fn columns(budget: Option<&BudgetSpec>) -> (Option<i64>, Option<String>) {
    budget.map(|budget| (budget.limit.0, budget.window.to_string())).unzip()
}
