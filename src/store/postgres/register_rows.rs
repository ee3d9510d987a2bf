//! Reads keys, teams and grants from the database.
//!
//! Start reading in [`read_since`].

use super::credit::{self, holder};
use super::error::PostgresError;
use crate::domain::budget::BudgetSpec;
use crate::domain::limit::Limits;
use crate::domain::money::NanoUsd;
use crate::domain::register::{Grant, Holder, KeyOverrides, QuarantinedRow, StoredKey, StoredSecret, StoredTeam};
use crate::domain::secret::KeyHash;
use crate::store::RegisterContents;
use crate::store::column::unreadable;
use crate::store::name_set::NameSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row};

/// The columns of a key, in the order in which they are read.
const KEYS: &str = "SELECT name, policy, team, requests_per_minute, tokens_per_minute, max_concurrent, budget_nanousd,
    budget_window, expires_unix, disabled, created_unix_ms, version FROM tierway.keys";
const SECRETS: &str =
    "SELECT s.key, s.hash, s.created_unix_ms, s.ends_unix_ms, s.last_used_unix_ms FROM tierway.secrets AS s";
const TEAMS: &str = "SELECT name, budget_nanousd, budget_window, created_unix_ms, version FROM tierway.teams";
const GRANTS: &str = "SELECT id, scope, name, amount_nanousd, reason, granted_by, granted_unix_ms FROM tierway.grants
    WHERE id > $1 AND ($2::text IS NULL OR (scope = $2 AND name = $3)) ORDER BY id LIMIT $4";
/// Where the row with the version is missing, it is that of the last change that is there.
const VERSION: &str = "SELECT coalesce((SELECT version FROM tierway.register), (SELECT max(version) FROM
    (SELECT version FROM tierway.keys UNION ALL SELECT version FROM tierway.teams
        UNION ALL SELECT id FROM tierway.grants) AS changes), 0)";

/// What was changed after `version`, read in one transaction.
pub(super) async fn read_since(client: &mut Client, version: i64) -> Result<RegisterContents, PostgresError> {
    // Most reads find nothing new, and need no transaction.
    let now: i64 = client.query_typed_one(VERSION, &[]).await?.try_get(0)?;
    if now == version {
        return Ok(RegisterContents { version, ..RegisterContents::default() });
    }
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = snapshot.start().await?;
    let now = transaction.query_typed_one(VERSION, &[]).await?.try_get(0)?;
    let after = [(&version as _, Type::INT8)];
    let mut quarantined = Vec::new();
    let all = transaction.query_typed(&format!("{KEYS} WHERE version > $1 ORDER BY name"), &after).await?;
    let mut keys = readable_keys(&all, &mut quarantined)?;
    let of_keys = format!(
        "{SECRETS} JOIN tierway.keys AS k ON k.name = s.key WHERE k.version > $1 ORDER BY s.key, s.created_unix_ms, s.hash"
    );
    add_secrets(&mut keys, &transaction.query_typed(&of_keys, &after).await?)?;
    let teams = transaction.query_typed(&format!("{TEAMS} WHERE version > $1 ORDER BY name"), &after).await?;
    let teams = readable_teams(&teams, now, &mut quarantined)?;
    let credit = credit::credits_since(&transaction, version, &mut quarantined).await?;
    transaction.rollback().await?;
    Ok(RegisterContents { version: now, keys, teams, credit, quarantined })
}

fn readable_keys(rows: &[Row], quarantined: &mut Vec<QuarantinedRow>) -> Result<Vec<StoredKey>, PostgresError> {
    let (mut names, mut keys) = (NameSet::default(), Vec::with_capacity(rows.len()));
    for row in rows {
        match key(row, &mut names) {
            Ok(key) => keys.push(key),
            Err(why) => quarantined.push(quarantined_row("keys", row, why)?),
        }
    }
    Ok(keys)
}

fn readable_teams(
    rows: &[Row],
    now: i64,
    quarantined: &mut Vec<QuarantinedRow>,
) -> Result<Vec<StoredTeam>, PostgresError> {
    let (mut teams, mut spend_nothing) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match team(row) {
            Ok(team) => teams.push(team),
            Err(why) => {
                // What its budget is cannot be known: its keys go on without any money, and not without a budget.
                let row = quarantined_row("teams", row, why)?;
                spend_nothing.push(StoredTeam::without_money(&row.row, now));
                quarantined.push(row);
            }
        }
    }
    teams.append(&mut spend_nothing);
    Ok(teams)
}

/// A row that cannot be read because of what it holds; any other error is one of the database.
fn quarantined_row(table: &'static str, row: &Row, why: PostgresError) -> Result<QuarantinedRow, PostgresError> {
    match why {
        PostgresError::Unreadable(why) => Ok(QuarantinedRow { table, row: row.try_get(0)?, why }),
        other => Err(other),
    }
}

/// Adds every secret of `rows` to its key, oldest first. Both are sorted by the names of the keys.
fn add_secrets(keys: &mut [StoredKey], rows: &[Row]) -> Result<(), PostgresError> {
    let mut keys = keys.iter_mut().peekable();
    for row in rows {
        let name = row.try_get::<_, &str>(0)?;
        while keys.next_if(|key| *key.name < *name).is_some() {}
        if let Some(key) = keys.peek_mut().filter(|key| *key.name == *name) {
            key.secrets.push(secret(row)?);
        }
    }
    Ok(())
}

fn key(row: &Row, names: &mut NameSet) -> Result<StoredKey, PostgresError> {
    let unsigned = |at: usize| row.try_get::<_, Option<i64>>(at).map(|limit| limit.map(i64::cast_unsigned));
    let most = row.try_get::<_, Option<i64>>(5)?;
    let most = most.map(|most| u32::try_from(most).map_err(|_| unreadable(&most.to_string()))).transpose()?;
    let limits = Limits { requests_per_minute: unsigned(3)?, tokens_per_minute: unsigned(4)?, max_concurrent: most };
    Ok(StoredKey {
        name: row.try_get::<_, &str>(0)?.into(),
        policy: names.intern(row.try_get(1)?),
        team: row.try_get::<_, Option<&str>>(2)?.map(|team| names.intern(team)),
        own: KeyOverrides { limits, budget: budget_spec(row, 6)? },
        expires: row.try_get(8)?,
        disabled: row.try_get(9)?,
        created_unix_ms: row.try_get(10)?,
        version: row.try_get(11)?,
        secrets: Vec::with_capacity(1),
    })
}

fn secret(row: &Row) -> Result<StoredSecret, PostgresError> {
    let hash = row.try_get::<_, &[u8]>(1)?.try_into().map_err(|_| unreadable("hash"))?;
    Ok(StoredSecret {
        hash: KeyHash(hash),
        created_unix_ms: row.try_get(2)?,
        ends_unix_ms: row.try_get(3)?,
        last_used_unix_ms: row.try_get(4)?,
    })
}

fn team(row: &Row) -> Result<StoredTeam, PostgresError> {
    Ok(StoredTeam {
        name: row.try_get::<_, &str>(0)?.into(),
        budget: budget_spec(row, 1)?,
        created_unix_ms: row.try_get(3)?,
        version: row.try_get(4)?,
    })
}

/// A limit and a window, in the columns `at` and `at + 1`.
fn budget_spec(row: &Row, at: usize) -> Result<Option<BudgetSpec>, PostgresError> {
    let Some(limit) = row.try_get(at)? else { return Ok(None) };
    let text = row.try_get::<_, Option<&str>>(at + 1)?.unwrap_or_default();
    let window = text.parse().map_err(|_| unreadable(text))?;
    Ok(Some(BudgetSpec { limit: NanoUsd(limit), window }))
}

/// The key called `name`; `None` if there is none that can be read.
pub(super) async fn stored_key(client: &impl GenericClient, name: &str) -> Result<Option<StoredKey>, PostgresError> {
    let named = [(&name as _, Type::TEXT)];
    let found = client.query_typed(&format!("{KEYS} WHERE name = $1"), &named).await?;
    let mut keys = readable_keys(&found, &mut Vec::new())?;
    let secrets = format!("{SECRETS} WHERE key = $1 ORDER BY created_unix_ms, hash");
    add_secrets(&mut keys, &client.query_typed(&secrets, &named).await?)?;
    Ok(keys.pop())
}

/// The team called `name`; `None` if there is none that can be read.
pub(super) async fn stored_team(client: &impl GenericClient, name: &str) -> Result<Option<StoredTeam>, PostgresError> {
    let found = client.query_typed(&format!("{TEAMS} WHERE name = $1"), &[(&name, Type::TEXT)]).await?;
    Ok(found.iter().find_map(|row| team(row).ok()))
}

/// Up to `most` grants with a number above `after`, only those of `of` if it is given. One to nobody counts for nothing, and
/// is named where the register is read.
pub(super) async fn grants(
    client: &impl GenericClient,
    of: Option<Holder>,
    after: i64,
    most: usize,
) -> Result<Vec<Grant>, PostgresError> {
    let (scope, name) = of.map(|holder| (holder.scope.label(), holder.name)).unzip();
    let (name, most) = (name.as_deref(), i64::try_from(most).unwrap_or(i64::MAX));
    let parameters =
        [(&after as _, Type::INT8), (&scope as _, Type::TEXT), (&name as _, Type::TEXT), (&most as _, Type::INT8)];
    let mut grants = Vec::new();
    for row in client.query_typed(GRANTS, &parameters).await? {
        let Ok(holder) = holder(&row, 1)? else { continue };
        grants.push(Grant {
            id: row.try_get(0)?,
            holder,
            amount: NanoUsd(row.try_get(3)?),
            reason: row.try_get::<_, &str>(4)?.into(),
            by: row.try_get::<_, &str>(5)?.into(),
            granted_unix_ms: row.try_get(6)?,
        });
    }
    Ok(grants)
}
