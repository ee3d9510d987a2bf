//! Migrates the store to the schema of this program.
//!
//! Migrations are numbered files inside the program, applied forward in one transaction under an advisory lock, so that of
//! several gateways that start at once one does it. Each says from which migration on a program must know the schema: a
//! gateway and the one of the version before run side by side for the time of an upgrade.
//!
//! Start reading in [`migrate`]; the files are in `migrations/`.

use super::connections::Connections;
use super::error::{OLDEST, PostgresError, PostgresOpenError};
use crate::store::migration::{AppliedMigrations, Migration, MigrationStatus};
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

/// All migrations, in order, each with the number of the migration that a program must know to work with it.
const MIGRATIONS: &[(Migration, i64)] = &[
    (Migration { name: "0001_store", sql: include_str!("migrations/0001_store.sql") }, 1),
    (Migration { name: "0002_injected_faults", sql: include_str!("migrations/0002_injected_faults.sql") }, 1),
    (Migration { name: "0003_drill_reports", sql: include_str!("migrations/0003_drill_reports.sql") }, 1),
];

/// Any number that no other program takes: the letters of `tierway`.
const ADVISORY_LOCK: i64 = 0x0074_6965_7277_6179;

/// The schema of a store.
const STORE: &str = "tierway";
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS tierway.migrations (
        number          bigint NOT NULL PRIMARY KEY,
        name            text   NOT NULL,
        checksum        text   NOT NULL,
        applied_unix_ms bigint NOT NULL,
        -- The number of the last migration that a program must know to work with the schema after this one.
        needs           bigint NOT NULL
    )";

/// Migrates the store, making it if there is none.
///
/// # Errors
/// When it cannot be reached or made, or a newer version wrote it.
pub(super) fn migrate(
    connections: &Arc<Connections>,
    now_unix_ms: i64,
) -> Result<AppliedMigrations, PostgresOpenError> {
    let known = applied(connections)?;
    let place = connections.location().to_string();
    if known.len() >= MIGRATIONS.len() {
        return Ok(AppliedMigrations::default());
    }
    let done = connections.wait(move |client| Box::pin(apply(client, STORE, now_unix_ms)));
    done.map_err(|why| not_made(place, why))
}

/// Why no store could be made at `place`.
pub(super) fn not_made(place: String, why: PostgresError) -> PostgresOpenError {
    match &why {
        PostgresError::Server(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            PostgresOpenError::NotAllowed { place, why: why.to_string() }
        }
        _ => PostgresOpenError::Failed { place, why },
    }
}

/// Makes the tables of a store in another `schema`, unless an earlier call of this version did.
pub(super) async fn make_apart(client: &mut Client, schema: &str, now_unix_ms: i64) -> Result<(), PostgresError> {
    let found = records(client, schema).await?;
    let is_known = |(record, (migration, _)): (&RecordedMigration, &(Migration, i64))| {
        (record.name.as_str(), &record.checksum) == (migration.name, &migration.checksum())
    };
    if found.len() == MIGRATIONS.len() && found.iter().zip(MIGRATIONS).all(is_known) {
        return Ok(());
    }
    client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
    apply(client, schema, now_unix_ms).await.map(drop)
}

/// Refuses a server that is too old, and a store that this program cannot work with; there need be none.
pub(super) fn require_supported(connections: &Arc<Connections>) -> Result<(), PostgresOpenError> {
    applied(connections).map(drop)
}

/// Which migrations the store has. It is only read.
///
/// # Errors
/// When there is none, it cannot be read, or a newer version wrote it.
pub(super) fn status(connections: &Arc<Connections>) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
    let applied = applied(connections)?;
    if applied.is_empty() {
        return Err(PostgresOpenError::Missing { place: connections.location().to_string() });
    }
    let when = |at: usize| applied.get(at).map(|record| record.applied_unix_ms);
    let status = |(at, (migration, _)): (usize, &(Migration, i64))| MigrationStatus {
        name: migration.name,
        applied_unix_ms: when(at),
    };
    Ok(MIGRATIONS.iter().enumerate().map(status).collect())
}

/// Refuses a store that does not exist or lacks a migration.
pub(super) fn require_current(connections: &Arc<Connections>) -> Result<(), PostgresOpenError> {
    let missing = status(connections)?.into_iter().find(|one| one.applied_unix_ms.is_none());
    match missing {
        Some(MigrationStatus { name, .. }) => {
            Err(PostgresOpenError::Older { place: connections.location().to_string(), name })
        }
        None => Ok(()),
    }
}

/// The statements `sql`, which are written for the schema of a store, for another one.
fn within(schema: &str, sql: &str) -> String {
    sql.replace("tierway.", &format!("{schema}."))
}

async fn apply(client: &mut Client, schema: &str, now_unix_ms: i64) -> Result<AppliedMigrations, PostgresError> {
    let transaction = client.transaction().await?;
    transaction.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&ADVISORY_LOCK, Type::INT8)]).await?;
    transaction.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
    transaction.batch_execute(&within(schema, MIGRATIONS_TABLE)).await?;
    // Another gateway may have applied them while this one waited for the lock.
    let done = records(&transaction, schema).await?.len();
    let mut migrated = AppliedMigrations::default();
    for (at, (migration, needs)) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.batch_execute(&within(schema, migration.sql)).await?;
        let number = i64::try_from(at + 1).unwrap_or(i64::MAX);
        let row = within(schema, "INSERT INTO tierway.migrations VALUES ($1, $2, $3, $4, $5)");
        transaction
            .execute_typed(
                &row,
                &[
                    (&number, Type::INT8),
                    (&migration.name, Type::TEXT),
                    (&migration.checksum(), Type::TEXT),
                    (&now_unix_ms, Type::INT8),
                    (needs, Type::INT8),
                ],
            )
            .await?;
        migrated.applied.push(migration.name);
    }
    transaction.commit().await?;
    Ok(migrated)
}

struct RecordedMigration {
    name: String,
    checksum: String,
    applied_unix_ms: i64,
    needs: i64,
}

/// The applied migrations, none where there is no store. An error if this program cannot work with them, or the server is too
/// old.
fn applied(connections: &Arc<Connections>) -> Result<Vec<RecordedMigration>, PostgresOpenError> {
    let place = connections.location().to_string();
    let read = connections.wait(|client| {
        Box::pin(async {
            let version = client.query_typed_one("SELECT current_setting('server_version_num')::int", &[]).await?;
            Ok((version.try_get::<_, i32>(0)? / 10_000, records(client, STORE).await?))
        })
    });
    let (version, records) =
        read.map_err(|why| PostgresOpenError::Unreachable { place: place.clone(), why: why.to_string() })?;
    if version < OLDEST {
        return Err(PostgresOpenError::TooOld { place, found: version });
    }
    let known_count = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    for (at, record) in records.iter().enumerate() {
        match MIGRATIONS.get(at) {
            Some((known, _)) if (record.name.as_str(), &record.checksum) != (known.name, &known.checksum()) => {
                return Err(PostgresOpenError::Changed { place, name: record.name.clone() });
            }
            None if record.needs > known_count => {
                return Err(PostgresOpenError::Newer { place, name: record.name.clone() });
            }
            _ => {}
        }
    }
    Ok(records)
}

async fn records(client: &impl GenericClient, schema: &str) -> Result<Vec<RecordedMigration>, PostgresError> {
    let there = within(schema, "SELECT to_regclass('tierway.migrations') IS NOT NULL");
    let there = client.query_typed_one(&there, &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let all = "SELECT name, checksum, applied_unix_ms, needs FROM tierway.migrations ORDER BY number";
    let record = |row: &tokio_postgres::Row| -> Result<_, tokio_postgres::Error> {
        Ok(RecordedMigration {
            name: row.try_get(0)?,
            checksum: row.try_get(1)?,
            applied_unix_ms: row.try_get(2)?,
            needs: row.try_get(3)?,
        })
    };
    let rows = client.query_typed(&within(schema, all), &[]).await?;
    Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
}
