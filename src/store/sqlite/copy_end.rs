//! The SQLite end of a copy between stores: a file that is read, or a new one that is not yet under its name.
//!
//! Start reading in [`SqliteCopyEnd::of_store`] and [`SqliteCopyEnd::of_copy`].

use super::BackupError;
use super::backup::{put_in_place, unfinished};
use super::migrate::{is_current, migrate};
use super::open::{OpenError, StoreLock, lock, readable, writable};
use crate::store::copy::{BATCH, ColumnKind, CopiedRow, CopiedTable, CopyError, CopySource, CopyTarget, RECEIPTS};
use rusqlite::types::{Value as Column, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a store is read from, or a new one is made.
pub(in crate::store) struct SqliteCopyEnd {
    /// The name of the store.
    path: PathBuf,
    /// `None` once it is closed.
    connection: Option<Connection>,
    /// Keeps gateways away from what is copied.
    _lock: Option<StoreLock>,
}

impl SqliteCopyEnd {
    /// The store at `path`, which is only read: all of it as it is now.
    pub(in crate::store) fn of_store(path: &Path, receipts_ahead: bool) -> Result<Self, CopyError> {
        let connection = readable(path)?;
        is_current(&connection, path)?;
        let held = match receipts_ahead {
            true => None,
            false => Some(lock(path).map_err(|error| match error {
                OpenError::Held(_) => CopyError::Served(path.display().to_string()),
                error => error.into(),
            })?),
        };
        let end = Self { path: path.to_owned(), connection: Some(connection), _lock: held };
        end.connection()?.execute_batch("BEGIN").map_err(|error| end.failed(error))?;
        let leased = "SELECT EXISTS (SELECT 1 FROM budgets WHERE leased_nanousd <> 0)";
        let leased = end.connection()?.query_row(leased, [], |row| row.get(0)).map_err(|error| end.failed(error))?;
        if leased && !receipts_ahead {
            return Err(CopyError::Leased(path.display().to_string()));
        }
        Ok(end)
    }

    /// A new store for `path`, where nothing may be; with what an interrupted copy left.
    pub(in crate::store) fn of_copy(path: &Path, now_unix_ms: i64) -> Result<Self, CopyError> {
        if path.symlink_metadata().is_ok() {
            let what_to_do = "name another file, or move that one away";
            return Err(CopyError::Exists(path.display().to_string(), what_to_do));
        }
        let new = unfinished(path);
        let held = lock(&new)?;
        match migrate(&new, now_unix_ms) {
            Ok(_) => {}
            // Left by another version. What else is in the way, such as a full disk, is no reason to throw a copy away.
            Err(OpenError::Newer { .. } | OpenError::Changed { .. }) => {
                remove(&new).map_err(|error| BackupError::Unwritable { path: new.clone(), error })?;
                migrate(&new, now_unix_ms)?;
            }
            Err(error) => return Err(error.into()),
        }
        let connection = writable(&new)?;
        let end = Self { path: path.to_owned(), connection: Some(connection), _lock: Some(held) };
        // The tables come in any order. What a crash takes is copied again, and the end is on disk before it gets its name.
        let settings = "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF";
        end.connection()?.execute_batch(settings).map_err(|error| end.failed(error))?;
        Ok(end)
    }

    /// Refuses to copy where this end has another schema.
    pub(in crate::store) fn require_tables(&self, tables: &[CopiedTable]) -> Result<(), CopyError> {
        let all =
            "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'";
        let mut statement = self.connection()?.prepare(all).map_err(|error| self.failed(error))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(|error| self.failed(error))?;
        let mut mine: Vec<(String, String)> =
            rows.collect::<rusqlite::Result<_>>().map_err(|error| self.failed(error))?;
        for table in tables {
            for (name, _) in &table.columns {
                let column = (table.name.clone(), own_name(&table.name, name).to_owned());
                let Some(at) = mine.iter().position(|each| *each == column) else {
                    return Err(CopyError::Unlike("SQLite", format!("{}.{name}", table.name)));
                };
                mine.swap_remove(at);
            }
        }
        // Each store has its own.
        mine.retain(|(table, _)| table != "migrations" && !table.starts_with("sqlite_"));
        match mine.first() {
            Some((table, column)) => Err(CopyError::Unlike("PostgreSQL", format!("{table}.{column}"))),
            None => Ok(()),
        }
    }

    fn connection(&self) -> Result<&Connection, CopyError> {
        self.connection.as_ref().ok_or_else(|| self.failed(rusqlite::Error::InvalidQuery))
    }

    fn failed(&self, error: rusqlite::Error) -> CopyError {
        CopyError::Sqlite(self.path.display().to_string(), error)
    }
}

/// What a column is called here: `window` is a reserved word of PostgreSQL.
fn own_name<'a>(table: &str, column: &'a str) -> &'a str {
    match (table, column) {
        ("budgets" | "unaccounted", "period") => "window",
        _ => column,
    }
}

fn own_names(table: &CopiedTable) -> String {
    let names: Vec<String> =
        table.columns.iter().map(|(name, _)| format!("\"{}\"", own_name(&table.name, name))).collect();
    names.join(", ")
}

/// The end of a query for the rows of `table` after the receipt `after`.
fn rest(table: &CopiedTable, after: Option<&str>) -> String {
    let beyond = after.map(|id| format!(" WHERE id > x'{}'", id.replace('-', ""))).unwrap_or_default();
    let order = if table.name == RECEIPTS { " ORDER BY id" } else { "" };
    format!("FROM \"{}\"{beyond}{order}", table.name)
}

impl CopySource for SqliteCopyEnd {
    fn count(&mut self, table: &CopiedTable, after: Option<&str>) -> Result<u64, CopyError> {
        let count = format!("SELECT count(*) {}", rest(table, after));
        let count: i64 =
            self.connection()?.query_row(&count, [], |row| row.get(0)).map_err(|error| self.failed(error))?;
        Ok(count.unsigned_abs())
    }

    fn read(
        &mut self,
        table: &CopiedTable,
        after: Option<&str>,
        each: &mut dyn FnMut(Vec<CopiedRow>) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let query = format!("SELECT {} {}", own_names(table), rest(table, after));
        let mut statement = self.connection()?.prepare(&query).map_err(|error| self.failed(error))?;
        let mut rows = statement.query([]).map_err(|error| self.failed(error))?;
        let mut batch = Vec::new();
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            let mut copied = CopiedRow::new();
            for (at, (name, kind)) in table.columns.iter().enumerate() {
                let value = row.get_ref(at).map_err(|error| self.failed(error))?;
                let value = read_value(value, *kind).map_err(|why| CopyError::Row(table.name.clone(), why))?;
                copied.insert(name.clone(), value);
            }
            batch.push(copied);
            if batch.len() == BATCH {
                each(std::mem::take(&mut batch))?;
            }
        }
        if batch.is_empty() { Ok(()) } else { each(batch) }
    }
}

impl CopyTarget for SqliteCopyEnd {
    fn last_receipt(&mut self) -> Result<Option<String>, CopyError> {
        let last = "SELECT max(id) FROM receipts";
        let last: Option<Vec<u8>> =
            self.connection()?.query_row(last, [], |row| row.get(0)).map_err(|error| self.failed(error))?;
        Ok(last.map(|id| uuid(&id)))
    }

    fn clear(&mut self, tables: &[CopiedTable]) -> Result<(), CopyError> {
        for table in tables {
            let delete = format!("DELETE FROM \"{}\"", table.name);
            self.connection()?.execute(&delete, []).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn write(&mut self, table: &CopiedTable, rows: &[CopiedRow]) -> Result<(), CopyError> {
        let places = vec!["?"; table.columns.len()].join(", ");
        let insert = format!("INSERT INTO \"{}\" ({}) VALUES ({places})", table.name, own_names(table));
        let transaction = self.connection()?.unchecked_transaction().map_err(|error| self.failed(error))?;
        let mut statement = transaction.prepare_cached(&insert).map_err(|error| self.failed(error))?;
        for row in rows {
            let values = table.columns.iter().map(|(name, kind)| written_value(row.get(name), *kind));
            let values: Vec<Column> =
                values.collect::<Result<_, _>>().map_err(|why| CopyError::Row(table.name.clone(), why))?;
            statement.execute(params_from_iter(values)).map_err(|error| self.failed(error))?;
        }
        drop(statement);
        transaction.commit().map_err(|error| self.failed(error))
    }

    fn finish(&mut self) -> Result<(), CopyError> {
        let ended = "PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection()?.execute_batch(ended).map_err(|error| self.failed(error))?;
        // Closed, it has no log any more, which would keep the name it has now.
        self.connection = None;
        let new = unfinished(&self.path);
        let unwritable = |error| BackupError::Unwritable { path: self.path.clone(), error };
        let file = fs::File::open(&new).map_err(unwritable)?;
        put_in_place(&file, &new, &self.path).map_err(unwritable)?;
        self._lock = None;
        // Nothing is missing where it stays.
        let _ = fs::remove_file(beside(&new, ".lock"));
        Ok(())
    }

    fn discard(&mut self) -> Result<(), CopyError> {
        self.connection = None;
        let new = unfinished(&self.path);
        remove(&new).map_err(|error| BackupError::Unwritable { path: new, error }.into())
    }
}

/// Removes the file of an unfinished copy and those that belong to it.
fn remove(new: &Path) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm", ".lock", ""] {
        match fs::remove_file(beside(new, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn read_value(value: ValueRef<'_>, kind: ColumnKind) -> Result<Value, String> {
    Ok(match (value, kind) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(number), ColumnKind::Boolean) => Value::Bool(number != 0),
        (ValueRef::Integer(number), ColumnKind::Plain) => Value::from(number),
        (ValueRef::Text(text), ColumnKind::Plain) => {
            Value::from(std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")?)
        }
        (ValueRef::Blob(bytes), ColumnKind::Bytes) => Value::from(format!("\\x{}", hex(bytes))),
        (ValueRef::Blob(bytes), ColumnKind::Uuid) if bytes.len() == 16 => Value::from(uuid(bytes)),
        (value, kind) => return Err(format!("{} in a column of kind {kind:?}", value.data_type())),
    })
}

fn written_value(value: Option<&Value>, kind: ColumnKind) -> Result<Column, String> {
    Ok(match (value, kind) {
        (None | Some(Value::Null), _) => Column::Null,
        (Some(Value::Bool(set)), ColumnKind::Boolean) => Column::Integer(i64::from(*set)),
        (Some(Value::Number(number)), ColumnKind::Plain) => {
            Column::Integer(number.as_i64().ok_or("a number is out of range")?)
        }
        (Some(Value::String(text)), ColumnKind::Plain) => Column::Text(text.clone()),
        (Some(Value::String(text)), ColumnKind::Bytes | ColumnKind::Uuid) => {
            Column::Blob(bytes(text).ok_or("bytes are not hexadecimal")?)
        }
        (Some(value), kind) => return Err(format!("{value} in a column of kind {kind:?}")),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As PostgreSQL writes it.
fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    parts.join("-")
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x").unwrap_or(text).replace('-', "");
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let check = |column: Column, kind: ColumnKind, copied: &str| {
            let value = read_value(ValueRef::from(&column), kind).expect("a value of its kind");
            assert_eq!(value.to_string(), copied);
            assert_eq!(written_value(Some(&value), kind), Ok(column));
        };
        check(Column::Null, ColumnKind::Plain, "null");
        check(Column::Integer(i64::MIN), ColumnKind::Plain, "-9223372036854775808");
        check(Column::Integer(1), ColumnKind::Boolean, "true");
        check(Column::Text("a\"é\u{7}".to_owned()), ColumnKind::Plain, r#""a\"é\u0007""#);
        check(Column::Blob(vec![0, 255, 16]), ColumnKind::Bytes, r#""\\x00ff10""#);
        check(Column::Blob(Vec::new()), ColumnKind::Bytes, r#""\\x""#);
        let id = (0..16).map(|byte| byte * 17).collect();
        check(Column::Blob(id), ColumnKind::Uuid, r#""00112233-4455-6677-8899-aabbccddeeff""#);
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        assert!(read_value(ValueRef::Real(0.5), ColumnKind::Plain).is_err());
        assert!(read_value(ValueRef::Text(b"\xff"), ColumnKind::Plain).is_err());
        assert!(read_value(ValueRef::Blob(b"short"), ColumnKind::Uuid).is_err());
        assert!(written_value(Some(&Value::from("\\xzz")), ColumnKind::Bytes).is_err());
        assert!(written_value(Some(&Value::from(u64::MAX)), ColumnKind::Plain).is_err());
    }
}
