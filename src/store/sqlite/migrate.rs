//! Bringing a database to the form this program writes.
//!
//! Migrations are numbered files inside the program; they only go forward, each in one transaction
//! that also records it, so a crash in the middle leaves the form before. A database that this
//! program did not make, or cannot know, is refused before anything is changed.
//!
//! Start reading in [`migrate`]; the files are in `migrations/`.

use super::OpenError;
use super::open::{readable, writable};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use std::path::Path;

/// One step forward.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its file's name: four digits and what it brings.
    pub name: &'static str,
    /// What it does.
    pub sql: &'static str,
}

/// All of them, in order.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_ledger", sql: include_str!("migrations/0001_ledger.sql") },
    Migration { name: "0002_budgets", sql: include_str!("migrations/0002_budgets.sql") },
    Migration { name: "0003_price_versions", sql: include_str!("migrations/0003_price_versions.sql") },
    Migration { name: "0004_register", sql: include_str!("migrations/0004_register.sql") },
];

/// Where they are recorded.
const RECORD: &str = "CREATE TABLE IF NOT EXISTS migrations (
    number          INTEGER NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    checksum        TEXT    NOT NULL,
    applied_unix_ms INTEGER NOT NULL
) STRICT";

impl Migration {
    fn checksum(&self) -> String {
        Sha256::digest(self.sql).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What [`migrate`] did.
#[derive(Debug, Default)]
pub struct Migrated {
    /// The names of the migrations applied now; none when there was nothing to do.
    pub applied: Vec<&'static str>,
}

/// One migration and whether it was applied.
#[derive(Debug)]
pub struct MigrationStatus {
    /// Its name.
    pub name: &'static str,
    /// When it was applied, in Unix milliseconds.
    pub applied_unix_ms: Option<i64>,
}

/// Brings the database at `path` up to date, and makes it where there is none. Whoever calls this
/// holds its [`lock`](super::lock).
///
/// # Errors
/// When it cannot be opened or written, or was made by something else.
pub fn migrate(path: &Path, now_unix_ms: i64) -> Result<Migrated, OpenError> {
    let mut connection = writable(path)?;
    apply(&mut connection, path, MIGRATIONS, now_unix_ms)
}

/// Which migrations the database at `path` has. It is only read.
///
/// # Errors
/// When there is none, it cannot be read, or was made by something else.
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
) -> Result<Migrated, OpenError> {
    let done = applied(connection, path, migrations)?.len();
    let mut migrated = Migrated::default();
    for (at, migration) in migrations.iter().enumerate().skip(done) {
        step(connection, at + 1, migration, now_unix_ms).map_err(OpenError::sqlite(path))?;
        migrated.applied.push(migration.name);
    }
    Ok(migrated)
}

fn step(connection: &mut Connection, number: usize, migration: &Migration, now_unix_ms: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(RECORD)?;
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

/// What was applied, which is a beginning of `migrations` or a reason to refuse.
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

/// `None` where there is no record at all.
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
        let statement = statement.as_mut().expect("it is SQL");
        let names = statement.query_map([], |row| row.get(0)).expect("it is read");
        names.collect::<Result<_, _>>().expect("it is text")
    }

    fn with(migrations: &[Migration]) -> Connection {
        let mut connection = Connection::open_in_memory().expect("memory is there");
        apply(&mut connection, path(), migrations, 7).expect("it is applied");
        connection
    }

    #[test]
    fn each_is_applied_once_and_in_order() {
        let mut connection = with(&[FIRST]);
        let again = apply(&mut connection, path(), &[FIRST, SECOND], 8).expect("it is applied");
        assert_eq!(again.applied, ["0002_two"]);
        assert_eq!(tables(&connection), ["migrations", "one", "two"]);
        let records = applied(&connection, path(), &[FIRST, SECOND]).expect("it is ours");
        assert_eq!(records.iter().map(|record| record.applied_unix_ms).collect::<Vec<_>>(), [7, 8]);
        assert!(apply(&mut connection, path(), &[FIRST, SECOND], 9).expect("it is ours").applied.is_empty());
    }

    #[test]
    fn what_this_program_cannot_know_is_refused_and_left_alone() {
        let changed = Migration { sql: "CREATE TABLE other (a INTEGER)", ..FIRST };
        let check = |had: &[Migration], has: &[Migration], expected: &str| {
            let mut connection = with(had);
            let before = tables(&connection);
            let said = apply(&mut connection, path(), has, 8).expect_err("it is refused").to_string();
            assert!(said.contains(expected), "{said}");
            assert_eq!(tables(&connection), before);
        };
        check(&[FIRST, SECOND], &[FIRST], "written by a newer tierway (it has migration 0002_two)");
        check(&[FIRST], &[changed, SECOND], "migration 0001_one was applied to test.db with another content");
        let mut foreign = Connection::open_in_memory().expect("memory is there");
        foreign.execute_batch("CREATE TABLE theirs (a INTEGER)").expect("it is SQL");
        let said = apply(&mut foreign, path(), &[FIRST], 8).expect_err("it is refused").to_string();
        assert!(said.contains("another program"), "{said}");
    }

    #[test]
    fn a_receipt_older_than_the_names_of_prices_is_read() {
        let mut connection = with(&MIGRATIONS[..2]);
        let row = "INSERT INTO receipts (id, received_unix_ms, stream, attempts, outcome, reason, status, estimated,
            input_pico, output_pico, request_nanousd, cost_nanousd, duration_us, overhead_us)
            VALUES (zeroblob(16), 1, 0, '[]', 'served', 'served', 200, 0, 70000, 250000, 0, 9, 1, 1)";
        connection.execute(row, []).expect("it is a row of that form");
        apply(&mut connection, path(), MIGRATIONS, 8).expect("it is applied");
        let receipt = connection.query_row("SELECT * FROM receipts", [], super::super::receipt_row::read);
        let receipt = receipt.expect("it is a receipt");
        assert_eq!((receipt.price.map(|price| price.input.0), receipt.price_version), (Some(70_000), None));
    }

    #[test]
    fn one_that_fails_in_the_middle_leaves_the_form_before() {
        let mut connection = with(&[FIRST]);
        let broken =
            Migration { name: "0002_two", sql: "CREATE TABLE two (a INTEGER); INSERT INTO nowhere VALUES (1)" };
        apply(&mut connection, path(), &[FIRST, broken], 8).expect_err("there is no such table");
        assert_eq!(tables(&connection), ["migrations", "one"]);
        let healed = apply(&mut connection, path(), &[FIRST, SECOND], 9).expect("it is applied");
        assert_eq!(healed.applied, ["0002_two"]);
    }
}
