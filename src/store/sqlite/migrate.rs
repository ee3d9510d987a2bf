//! Migrates a database to the schema of this program.
//!
//! Migrations are numbered files inside the program. They only go forward, each in one transaction that also
//! records it, so a crash leaves the previous schema. A database of another program or of a newer version is
//! refused before anything is changed.
//!
//! Start reading in [`migrate`]; the files are in `migrations/`.

use super::OpenError;
use super::open::{readable, writable};
use crate::store::migration::{AppliedMigrations, Migration, MigrationStatus};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::Path;

/// All migrations, in order.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_ledger", sql: include_str!("migrations/0001_ledger.sql") },
    Migration { name: "0002_budgets", sql: include_str!("migrations/0002_budgets.sql") },
    Migration { name: "0003_price_versions", sql: include_str!("migrations/0003_price_versions.sql") },
    Migration { name: "0004_register", sql: include_str!("migrations/0004_register.sql") },
    Migration { name: "0005_failover", sql: include_str!("migrations/0005_failover.sql") },
    Migration { name: "0006_provider_request_ids", sql: include_str!("migrations/0006_provider_request_ids.sql") },
    Migration { name: "0007_tokens_apart", sql: include_str!("migrations/0007_tokens_apart.sql") },
    Migration { name: "0008_idempotency", sql: include_str!("migrations/0008_idempotency.sql") },
    Migration { name: "0009_state_accounts", sql: include_str!("migrations/0009_state_accounts.sql") },
    Migration { name: "0010_audit", sql: include_str!("migrations/0010_audit.sql") },
    Migration { name: "0011_sla", sql: include_str!("migrations/0011_sla.sql") },
    Migration { name: "0012_unbilled_responses", sql: include_str!("migrations/0012_unbilled_responses.sql") },
    Migration { name: "0013_injected_faults", sql: include_str!("migrations/0013_injected_faults.sql") },
    Migration { name: "0014_drill_reports", sql: include_str!("migrations/0014_drill_reports.sql") },
];

/// The table that records applied migrations.
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    number          INTEGER NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    checksum        TEXT    NOT NULL,
    applied_unix_ms INTEGER NOT NULL
) STRICT";

/// Migrates the database at `path`, creating it if there is none. The caller must hold its [`lock`](super::lock).
///
/// # Errors
/// When it cannot be opened or written, or belongs to another program or a newer version.
pub fn migrate(path: &Path, now_unix_ms: i64) -> Result<AppliedMigrations, OpenError> {
    let mut connection = writable(path)?;
    apply(&mut connection, path, MIGRATIONS, now_unix_ms)
}

/// Which migrations the database at `path` has. The database is only read.
///
/// # Errors
/// When there is none, it cannot be read, or it belongs to another program or a newer version.
pub fn status(path: &Path) -> Result<Vec<MigrationStatus>, OpenError> {
    let connection = readable(path)?;
    let applied = applied(&connection, path, MIGRATIONS)?;
    let when = |at: usize| applied.get(at).map(|record| record.applied_unix_ms);
    let status =
        |(at, migration): (usize, &Migration)| MigrationStatus { name: migration.name, applied_unix_ms: when(at) };
    Ok(MIGRATIONS.iter().enumerate().map(status).collect())
}

/// Refuses a database that lacks a migration.
pub(super) fn is_current(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let applied = applied(connection, path, MIGRATIONS)?;
    match MIGRATIONS.get(applied.len()) {
        Some(missing) => Err(OpenError::Older { path: path.to_owned(), name: missing.name }),
        None => Ok(()),
    }
}

fn apply(
    connection: &mut Connection,
    path: &Path,
    migrations: &[Migration],
    now_unix_ms: i64,
) -> Result<AppliedMigrations, OpenError> {
    let done = applied(connection, path, migrations)?.len();
    let mut migrated = AppliedMigrations::default();
    for (at, migration) in migrations.iter().enumerate().skip(done) {
        step(connection, at + 1, migration, now_unix_ms).map_err(OpenError::sqlite(path))?;
        migrated.applied.push(migration.name);
    }
    Ok(migrated)
}

fn step(connection: &mut Connection, number: usize, migration: &Migration, now_unix_ms: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(MIGRATIONS_TABLE)?;
    transaction.execute_batch(migration.sql)?;
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO migrations VALUES (?1, ?2, ?3, ?4)",
        params![number, migration.name, migration.checksum(), now_unix_ms],
    )?;
    transaction.commit()
}

struct AppliedMigration {
    name: String,
    checksum: String,
    applied_unix_ms: i64,
}

/// The applied migrations. An error unless they are the first ones of `migrations`.
fn applied(connection: &Connection, path: &Path, migrations: &[Migration]) -> Result<Vec<AppliedMigration>, OpenError> {
    let records = records(connection).map_err(OpenError::sqlite(path))?;
    let Some(records) = records else {
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        return match tables.map_err(OpenError::sqlite(path))? {
            0 => Ok(Vec::new()),
            _ => Err(OpenError::Foreign(path.to_owned())),
        };
    };
    for (at, record) in records.iter().enumerate() {
        let Some(known) = migrations.get(at) else {
            return Err(OpenError::Newer { path: path.to_owned(), name: record.name.clone() });
        };
        if (record.name.as_str(), &record.checksum) != (known.name, &known.checksum()) {
            return Err(OpenError::Changed { path: path.to_owned(), name: record.name.clone() });
        }
    }
    Ok(records)
}

/// `None` if there is no table of migrations.
fn records(connection: &Connection) -> rusqlite::Result<Option<Vec<AppliedMigration>>> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT name, checksum, applied_unix_ms FROM migrations ORDER BY number")?;
    let records = statement.query_map([], |row| {
        Ok(AppliedMigration { name: row.get(0)?, checksum: row.get(1)?, applied_unix_ms: row.get(2)? })
    })?;
    records.collect::<rusqlite::Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration { name: "0001_one", sql: "CREATE TABLE one (a INTEGER)" };
    const SECOND: Migration = Migration { name: "0002_two", sql: "CREATE TABLE two (a INTEGER)" };

    fn path() -> &'static Path {
        Path::new("test.db")
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
        let statement = statement.as_mut().expect("the statement is valid");
        let names = statement.query_map([], |row| row.get(0)).expect("the query runs");
        names.collect::<Result<_, _>>().expect("names are text")
    }

    fn with(migrations: &[Migration]) -> Connection {
        let mut connection = Connection::open_in_memory().expect("a database in memory opens");
        apply(&mut connection, path(), migrations, 7).expect("the migration applies");
        connection
    }

    #[test]
    fn each_migration_is_applied_once_and_in_order() {
        let mut connection = with(&[FIRST]);
        let again = apply(&mut connection, path(), &[FIRST, SECOND], 8).expect("the migration applies");
        assert_eq!(again.applied, ["0002_two"]);
        assert_eq!(tables(&connection), ["migrations", "one", "two"]);
        let records = applied(&connection, path(), &[FIRST, SECOND]).expect("the database is ours");
        assert_eq!(records.iter().map(|record| record.applied_unix_ms).collect::<Vec<_>>(), [7, 8]);
        assert!(apply(&mut connection, path(), &[FIRST, SECOND], 9).expect("the database is ours").applied.is_empty());
    }

    #[test]
    fn an_unknown_database_is_refused_and_not_changed() {
        let changed = Migration { sql: "CREATE TABLE other (a INTEGER)", ..FIRST };
        let check = |had: &[Migration], has: &[Migration], expected: &str| {
            let mut connection = with(had);
            let before = tables(&connection);
            let message = apply(&mut connection, path(), has, 8).expect_err("the database is refused").to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(tables(&connection), before);
        };
        check(&[FIRST, SECOND], &[FIRST], "written by a newer tierway (it has migration 0002_two)");
        check(&[FIRST], &[changed, SECOND], "migration 0001_one was applied to test.db with another content");
        let mut foreign = Connection::open_in_memory().expect("a database in memory opens");
        foreign.execute_batch("CREATE TABLE theirs (a INTEGER)").expect("the statement is valid");
        let message = apply(&mut foreign, path(), &[FIRST], 8).expect_err("the database is refused").to_string();
        assert!(message.contains("another program"), "{message}");
    }

    #[test]
    fn a_receipt_from_before_price_versions_can_be_read() {
        let mut connection = with(&MIGRATIONS[..2]);
        let row = "INSERT INTO receipts (id, received_unix_ms, stream, attempts, outcome, reason, status, estimated,
            input_pico, output_pico, request_nanousd, cost_nanousd, duration_us, overhead_us)
            VALUES (zeroblob(16), 1, 0, '[]', 'served', 'served', 200, 0, 70000, 250000, 0, 9, 1, 1)";
        connection.execute(row, []).expect("the row fits the old schema");
        apply(&mut connection, path(), MIGRATIONS, 8).expect("the migration applies");
        let receipt = connection.query_row("SELECT * FROM receipts", [], super::super::receipt_row::read);
        let receipt = receipt.expect("the row is a receipt");
        assert_eq!((receipt.price.map(|price| price.input.0), receipt.price_version), (Some(70_000), None));
    }

    #[test]
    fn a_receipt_from_before_failover_times_can_be_read() {
        let mut connection = with(&MIGRATIONS[..4]);
        let row = r#"INSERT INTO receipts (id, received_unix_ms, stream, model, deployment, tier, region, attempts,
            outcome, reason, status, estimated, cost_nanousd, first_token_us, duration_us, overhead_us)
            VALUES (zeroblob(16), 1, 1, 'm', 'eu/m', 't', 'eu', '[["us/m","t","reset",7],[null,null,"served",9]]',
            'served', 'served', 200, 0, 9, 20, 30, 1)"#;
        connection.execute(row, []).expect("the row fits the old schema");
        apply(&mut connection, path(), MIGRATIONS, 8).expect("the migration applies");
        let receipt = connection.query_row("SELECT * FROM receipts", [], super::super::receipt_row::read);
        let receipt = receipt.expect("the row is a receipt");
        assert_eq!((receipt.failover, receipt.meant, receipt.passed_over), (None, None, Vec::new()));
        let [first, second] = &receipt.attempts[..] else { panic!("{:?}", receipt.attempts) };
        assert_eq!((&*first.deployment, &first.model, &first.region, first.started), ("us/m", &None, &None, None));
        let named = (second.model.as_deref(), second.region.as_deref(), second.started);
        assert_eq!((&*second.deployment, named), ("eu/m", (Some("m"), Some("eu"), None)));
    }

    #[test]
    fn a_receipt_from_before_providers_names_can_be_read() {
        let mut connection = with(&MIGRATIONS[..5]);
        let row = r#"INSERT INTO receipts (id, received_unix_ms, stream, model, deployment, tier, region, attempts,
            outcome, reason, status, estimated, cost_nanousd, first_token_us, duration_us, overhead_us)
            VALUES (zeroblob(16), 1, 1, 'm', 'eu/m', 't', 'eu',
            '[["us/m","t","reset",7,1,"m","us"],[null,null,"served",9,8]]',
            'served', 'served', 200, 0, 9, 20, 30, 1)"#;
        connection.execute(row, []).expect("the row fits the old schema");
        apply(&mut connection, path(), MIGRATIONS, 8).expect("the migration applies");
        let receipt = connection.query_row("SELECT * FROM receipts", [], super::super::receipt_row::read);
        let receipt = receipt.expect("the row is a receipt");
        let named: Vec<_> =
            receipt.attempts.iter().map(|attempt| (&*attempt.deployment, &attempt.provider_request_id)).collect();
        assert_eq!(named, [("us/m", &None), ("eu/m", &None)]);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_previous_schema() {
        let mut connection = with(&[FIRST]);
        let broken =
            Migration { name: "0002_two", sql: "CREATE TABLE two (a INTEGER); INSERT INTO nowhere VALUES (1)" };
        apply(&mut connection, path(), &[FIRST, broken], 8).expect_err("the table does not exist");
        assert_eq!(tables(&connection), ["migrations", "one"]);
        let repaired = apply(&mut connection, path(), &[FIRST, SECOND], 9).expect("the migration applies");
        assert_eq!(repaired.applied, ["0002_two"]);
    }
}
