//! Copies a store from a SQLite file to a PostgreSQL server, or back.
//!
//! Which tables and columns there are is read from the PostgreSQL schema of this version, so that no list has to follow the
//! migrations. Rows travel as JSON objects by the names of that schema; each end reads and writes them in its own types.
//! What is copied is out of sight under another name until every table of both ends was read and compared; then it gets its
//! name at once. A copy that was interrupted goes on after the last receipt that arrived. It must never change what it
//! copies from, and never write where a store is.
//!
//! Start reading in [`copy_store`]; the ends are `sqlite/copy_end.rs` and `postgres/copy_end.rs`.

// circle: copy_end.rs: a copy opens its two ends, and each end says what it does in the terms of a copy.

use super::postgres::{PostgresCopyEnd, PostgresError, PostgresLocation, PostgresOpenError};
use super::sqlite::{BackupError, OpenError, SqliteCopyEnd};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// How many rows are read and written at once.
pub(super) const BATCH: usize = 5000;
/// The one table that is much longer than all others. Its rows are never changed, so that an interrupted copy goes on in it.
pub(super) const RECEIPTS: &str = "receipts";

/// What is copied where.
pub enum StoreCopy {
    /// From a SQLite file to a database on a PostgreSQL server.
    ToPostgres(PathBuf, PostgresLocation),
    /// From a database on a PostgreSQL server to a new SQLite file.
    ToSqlite(PostgresLocation, PathBuf),
}

/// How far a copy is.
pub struct CopyProgress<'a> {
    /// The table that is being copied.
    pub table: &'a str,
    /// How many of its rows are done, and of how many.
    pub done: u64,
    /// The rows of the table.
    pub of: u64,
    /// Whether they are being compared, after all were copied.
    pub comparing: bool,
}

/// What was copied.
#[derive(Debug, PartialEq, Eq)]
pub struct CopiedStore {
    /// Each table with its rows.
    pub tables: Vec<(String, u64)>,
    /// What the receipts cost together, in nano-dollars.
    pub receipts_nanousd: i128,
}

/// Why a store was not copied; what it would have been copied to is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The SQLite file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database on the server cannot be opened.
    #[error(transparent)]
    OpenPostgres(#[from] PostgresOpenError),
    /// The new file cannot be put in its place.
    #[error(transparent)]
    Place(#[from] BackupError),
    /// A gateway uses the store.
    #[error(
        "a gateway serves from {0}; stop it and try again. --online copies its receipts meanwhile, so that the rest is quick"
    )]
    Served(String),
    /// A gateway that was killed had money in its hands.
    #[error(
        "a gateway that was killed had leased money in {0}, and what it spent is not settled; start a gateway on it once, stop it \
         with SIGTERM, and copy then"
    )]
    Leased(String),
    /// There is a store already.
    #[error("there is a store in {0} already, and nothing is written over it; {1}")]
    Exists(String, &'static str),
    /// The two ends do not have the same tables.
    #[error("{0} does not have the table or column {1}; this is a fault of this version")]
    Unlike(&'static str, String),
    /// A value is not what its column holds.
    #[error("a row of {0} cannot be copied: {1}; correct it with `sqlite3` or `psql`, and try again")]
    Row(String, String),
    /// SQLite failed.
    #[error("{0}: {1}; nothing was lost, run the command again")]
    Sqlite(String, rusqlite::Error),
    /// PostgreSQL failed.
    #[error("{0}: {1}; nothing was lost, run the command again")]
    Postgres(String, PostgresError),
    /// The comparison found a difference.
    #[error(
        "{table} is not alike in both places after copying ({from} rows, {to} rows): the place had the beginning of a copy of \
         another store. It was removed; run the command again"
    )]
    Differs {
        /// The table.
        table: String,
        /// Its rows where it was copied from.
        from: u64,
        /// Its rows where it was copied to.
        to: u64,
    },
}

/// A row by the names of the PostgreSQL schema: numbers, texts, booleans, bytes as `\x` and hexadecimal digits.
pub(super) type CopiedRow = Map<String, Value>;

/// What SQLite holds in a column that PostgreSQL has a type of its own for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ColumnKind {
    /// The same in both.
    Plain,
    /// 0 or 1.
    Boolean,
    /// A blob.
    Bytes,
    /// A blob of 16 bytes.
    Uuid,
}

/// A table that both ends have, without the columns that only PostgreSQL has.
#[derive(Clone, Debug)]
pub(super) struct CopiedTable {
    pub(super) name: String,
    pub(super) columns: Vec<(String, ColumnKind)>,
}

/// A store that can be read table by table, as it was when it was opened.
pub(super) trait CopySource {
    /// How many rows of `table` there are, after the receipt `after` if it is given.
    fn count(&mut self, table: &CopiedTable, after: Option<&str>) -> Result<u64, CopyError>;

    /// Passes all rows of `table` to `each`, some at a time; of receipts, in their order, those after `after`.
    fn read(
        &mut self,
        table: &CopiedTable,
        after: Option<&str>,
        each: &mut dyn FnMut(Vec<CopiedRow>) -> Result<(), CopyError>,
    ) -> Result<(), CopyError>;
}

/// A place for a store, out of sight until it is whole.
pub(super) trait CopyTarget: CopySource {
    /// The last receipt that an interrupted copy left here.
    fn last_receipt(&mut self) -> Result<Option<String>, CopyError>;

    /// Empties all of `tables`.
    fn clear(&mut self, tables: &[CopiedTable]) -> Result<(), CopyError>;

    /// Adds `rows`, all or none.
    fn write(&mut self, table: &CopiedTable, rows: &[CopiedRow]) -> Result<(), CopyError>;

    /// Makes it a store: durable, and under its name.
    fn finish(&mut self) -> Result<(), CopyError>;

    /// Removes everything.
    fn discard(&mut self) -> Result<(), CopyError>;
}

/// Copies a store that no gateway uses. Blocks; `progress` is called often. With `receipts_ahead` a gateway may use it, and its
/// receipts alone are copied: they are most of it, and the rest of the copy is short afterwards.
///
/// # Errors
/// [`CopyError`]. What was copied until then is kept out of sight, and the next call goes on with it.
pub fn copy_store(
    copy: StoreCopy,
    receipts_ahead: bool,
    now_unix_ms: i64,
    progress: &mut dyn FnMut(&CopyProgress<'_>),
) -> Result<CopiedStore, CopyError> {
    match copy {
        StoreCopy::ToPostgres(path, location) => {
            let mut from = SqliteCopyEnd::of_store(&path, receipts_ahead)?;
            let (mut to, tables) = PostgresCopyEnd::of_copy(location, now_unix_ms)?;
            from.require_tables(&tables)?;
            copy_tables(&mut from, &mut to, &tables, receipts_ahead, progress)
        }
        StoreCopy::ToSqlite(location, path) => {
            let (mut from, tables) = PostgresCopyEnd::of_store(location, receipts_ahead)?;
            let mut to = SqliteCopyEnd::of_copy(&path, now_unix_ms)?;
            to.require_tables(&tables)?;
            copy_tables(&mut from, &mut to, &tables, receipts_ahead, progress)
        }
    }
}

fn copy_tables(
    from: &mut dyn CopySource,
    to: &mut dyn CopyTarget,
    tables: &[CopiedTable],
    receipts_ahead: bool,
    progress: &mut dyn FnMut(&CopyProgress<'_>),
) -> Result<CopiedStore, CopyError> {
    let (receipts, others): (Vec<_>, Vec<_>) = tables.iter().cloned().partition(|table| table.name == RECEIPTS);
    for table in &receipts {
        let after = to.last_receipt()?;
        transfer(from, to, table, after.as_deref(), progress)?;
    }
    if receipts_ahead {
        return compared(from, to, &receipts, progress);
    }
    to.clear(&others)?;
    for table in &others {
        transfer(from, to, table, None, progress)?;
    }
    let copied = compared(from, to, tables, progress)?;
    to.finish()?;
    Ok(copied)
}

fn transfer(
    from: &mut dyn CopySource,
    to: &mut dyn CopyTarget,
    table: &CopiedTable,
    after: Option<&str>,
    progress: &mut dyn FnMut(&CopyProgress<'_>),
) -> Result<(), CopyError> {
    let of = from.count(table, after)?;
    let mut done = 0;
    from.read(table, after, &mut |rows| {
        to.write(table, &rows)?;
        done += rows.len() as u64;
        progress(&CopyProgress { table: &table.name, done, of, comparing: false });
        Ok(())
    })
}

/// Compares `tables` row by row, and says what they hold. Removes what was copied where it differs.
fn compared(
    from: &mut dyn CopySource,
    to: &mut dyn CopyTarget,
    tables: &[CopiedTable],
    progress: &mut dyn FnMut(&CopyProgress<'_>),
) -> Result<CopiedStore, CopyError> {
    let mut copied = CopiedStore { tables: Vec::new(), receipts_nanousd: 0 };
    for table in tables {
        let of = from.count(table, None)?;
        let mut done = 0;
        let mut seen = |tally: &TableTally| {
            done += tally.rows;
            progress(&CopyProgress { table: &table.name, done: done / 2, of, comparing: true });
        };
        let source = tally(from, table, &mut seen)?;
        let target = tally(to, table, &mut seen)?;
        if source != target {
            to.discard()?;
            return Err(CopyError::Differs { table: table.name.clone(), from: source.rows, to: target.rows });
        }
        copied.tables.push((table.name.clone(), target.rows));
        copied.receipts_nanousd += target.cost_nanousd;
    }
    Ok(copied)
}

/// What all rows of a table are together, in whatever order they are read: how many, what they cost, and the sum of their
/// hashes.
#[derive(Default, PartialEq, Eq)]
struct TableTally {
    rows: u64,
    cost_nanousd: i128,
    hashes: u128,
}

impl TableTally {
    fn add(&mut self, row: &CopiedRow) {
        self.rows += 1;
        self.cost_nanousd += row.get("cost_nanousd").and_then(Value::as_i64).map_or(0, i128::from);
        let hash = Sha256::digest(Value::Object(row.clone()).to_string());
        let (half, _) = hash.split_at(16);
        self.hashes = self.hashes.wrapping_add(half.iter().fold(0, |sum, byte| (sum << 8) | u128::from(*byte)));
    }

    fn join(&mut self, other: &Self) {
        self.rows += other.rows;
        self.cost_nanousd += other.cost_nanousd;
        self.hashes = self.hashes.wrapping_add(other.hashes);
    }
}

fn tally(
    end: &mut (impl CopySource + ?Sized),
    table: &CopiedTable,
    seen: &mut dyn FnMut(&TableTally),
) -> Result<TableTally, CopyError> {
    let mut all = TableTally::default();
    end.read(table, None, &mut |rows| {
        let mut some = TableTally::default();
        rows.iter().for_each(|row| some.add(row));
        seen(&some);
        all.join(&some);
        Ok(())
    })?;
    Ok(all)
}
