//! The PostgreSQL end of a copy between stores: the store of a database, read, or a new one in a schema of another name.
//!
//! Start reading in [`PostgresCopyEnd::of_store`] and [`PostgresCopyEnd::of_copy`].

use super::connections::Connections;
use super::error::{PostgresError, PostgresOpenError};
use super::location::PostgresLocation;
use super::migrate;
use crate::store::copy::{BATCH, ColumnKind, CopiedRow, CopiedTable, CopyError, CopySource, CopyTarget, RECEIPTS};
use serde_json::Value;
use std::sync::Arc;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// The schema of a store.
const STORE: &str = "tierway";
/// The schema of one that is being copied.
const UNFINISHED: &str = "tierway_unfinished";
/// What a store on PostgreSQL has besides: which migrations it has, and what its running gateways hold.
const OF_POSTGRES_ALONE: &str = "'migrations', 'replicas', 'leases'";

/// Where a store is read from, or a new one is made.
pub(in crate::store) struct PostgresCopyEnd {
    connections: Arc<Connections>,
    client: Client,
    schema: &'static str,
    /// Numbers the rows of a table whose key SQLite does not have.
    numbered: i64,
}

impl PostgresCopyEnd {
    /// The store of the database, which is only read: all of it as it is now.
    pub(in crate::store) fn of_store(
        location: PostgresLocation,
        receipts_ahead: bool,
    ) -> Result<(Self, Vec<CopiedTable>), CopyError> {
        let connections = Connections::open(location)?;
        migrate::require_current(&connections)?;
        let end = Self::connected(connections, STORE)?;
        end.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        if !receipts_ahead {
            let place = end.connections.location().to_string();
            let seen =
                "SELECT EXISTS (SELECT FROM tierway.replicas WHERE seen > clock_timestamp() - interval '60 seconds')";
            if end.holds(seen)? {
                return Err(CopyError::Served(place));
            }
            if end.holds("SELECT EXISTS (SELECT FROM tierway.budgets WHERE leased_nanousd <> 0)")? {
                return Err(CopyError::Leased(place));
            }
        }
        let tables = end.tables()?;
        Ok((end, tables))
    }

    /// A new store for the database, which may have none; with what an interrupted copy left.
    pub(in crate::store) fn of_copy(
        location: PostgresLocation,
        now_unix_ms: i64,
    ) -> Result<(Self, Vec<CopiedTable>), CopyError> {
        let connections = Connections::open(location)?;
        migrate::require_supported(&connections)?;
        let mut end = Self::connected(connections, UNFINISHED)?;
        end.refuse_store()?;
        let made = end.connections.handle().block_on(migrate::make_apart(&mut end.client, UNFINISHED, now_unix_ms));
        let place = end.connections.location().to_string();
        made.map_err(|why| migrate::not_made(place, why))?;
        let tables = end.tables()?;
        Ok((end, tables))
    }

    fn connected(connections: Arc<Connections>, schema: &'static str) -> Result<Self, CopyError> {
        let client = connections.handle().block_on(connections.connect());
        let place = connections.location().to_string();
        let client = client.map_err(|why| PostgresOpenError::Unreachable { place, why: why.to_string() })?;
        Ok(Self { connections, client, schema, numbered: 0 })
    }

    fn refuse_store(&self) -> Result<(), CopyError> {
        if self.holds("SELECT to_regnamespace('tierway') IS NOT NULL")? {
            let what_to_do = "name another database; or, if it is of no use, `DROP SCHEMA tierway CASCADE`";
            return Err(CopyError::Exists(self.connections.location().to_string(), what_to_do));
        }
        Ok(())
    }

    /// The tables of this schema with the columns that SQLite has too.
    fn tables(&self) -> Result<Vec<CopiedTable>, CopyError> {
        let columns = format!(
            "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
             WHERE table_schema = $1 AND table_name NOT IN ({OF_POSTGRES_ALONE}) ORDER BY table_name, ordinal_position"
        );
        let rows = self.connections.handle().block_on(self.client.query_typed(&columns, &[(&self.schema, Type::TEXT)]));
        let mut tables: Vec<CopiedTable> = Vec::new();
        for row in rows.map_err(|error| self.failed(error))? {
            let text = |at: usize| row.try_get::<_, String>(at).map_err(|error| self.failed(error));
            let (table, column, data_type) = (text(0)?, text(1)?, text(2)?);
            if tables.last().is_none_or(|last| last.name != table) {
                tables.push(CopiedTable { name: table.clone(), columns: Vec::new() });
            }
            let kind = match data_type.as_str() {
                "boolean" => ColumnKind::Boolean,
                "bytea" => ColumnKind::Bytes,
                "uuid" => ColumnKind::Uuid,
                _ => ColumnKind::Plain,
            };
            if let Some(last) = tables.last_mut().filter(|_| own_key(&table, &column).is_none()) {
                last.columns.push((column, kind));
            }
        }
        Ok(tables)
    }

    fn execute(&self, statements: &str) -> Result<(), CopyError> {
        self.connections.handle().block_on(self.client.batch_execute(statements)).map_err(|error| self.failed(error))
    }

    fn holds(&self, query: &str) -> Result<bool, CopyError> {
        let row = self.connections.handle().block_on(self.client.query_typed_one(query, &[]));
        row.and_then(|row| row.try_get(0)).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: tokio_postgres::Error) -> CopyError {
        CopyError::Postgres(self.connections.location().to_string(), PostgresError::from(error))
    }

    /// The rows of `table` after the receipt `after`, for a query.
    fn rows(&self, table: &CopiedTable, after: Option<&str>) -> String {
        let beyond = after.map(|id| format!(" WHERE id > '{id}'")).unwrap_or_default();
        format!("{}.{} AS r{beyond}", self.schema, table.name)
    }

    /// Passes all rows of the open cursor to `each`.
    fn fetch(
        &mut self,
        table: &CopiedTable,
        each: &mut dyn FnMut(Vec<CopiedRow>) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        loop {
            let fetch = format!("FETCH {BATCH} FROM copied");
            let rows = self.connections.handle().block_on(self.client.query_typed(&fetch, &[]));
            let rows = rows.map_err(|error| self.failed(error))?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut batch = Vec::with_capacity(rows.len());
            for row in &rows {
                let text: &str = row.try_get(0).map_err(|error| self.failed(error))?;
                let unreadable = |error: serde_json::Error| CopyError::Row(table.name.clone(), error.to_string());
                let mut copied: CopiedRow = serde_json::from_str(text).map_err(unreadable)?;
                copied.retain(|column, _| own_key(&table.name, column).is_none());
                batch.push(copied);
            }
            each(batch)?;
        }
    }
}

/// What stands in a column that SQLite does not have, in the row with this number.
fn own_key(table: &str, column: &str) -> Option<fn(i64) -> i64> {
    match (table, column) {
        ("register", "id") => Some(|_| 1),
        // The terms of gateways begin at 1: these are of none.
        ("unaccounted", "replica") => Some(|number| -number),
        ("unbilled_responses", "replica") => Some(|_| 0),
        _ => None,
    }
}

impl CopySource for PostgresCopyEnd {
    fn count(&mut self, table: &CopiedTable, after: Option<&str>) -> Result<u64, CopyError> {
        let count = format!("SELECT count(*) FROM {}", self.rows(table, after));
        let row = self.connections.handle().block_on(self.client.query_typed_one(&count, &[]));
        let count: i64 = row.and_then(|row| row.try_get(0)).map_err(|error| self.failed(error))?;
        Ok(count.unsigned_abs())
    }

    fn read(
        &mut self,
        table: &CopiedTable,
        after: Option<&str>,
        each: &mut dyn FnMut(Vec<CopiedRow>) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let order = if table.name == RECEIPTS { " ORDER BY id" } else { "" };
        let rows = self.rows(table, after);
        // What is copied from is read in the transaction that was begun with it.
        let of_a_copy = self.schema == UNFINISHED;
        if of_a_copy {
            self.execute("BEGIN READ ONLY")?;
        }
        self.execute(&format!("DECLARE copied NO SCROLL CURSOR FOR SELECT row_to_json(r)::text FROM {rows}{order}"))?;
        self.fetch(table, each)?;
        self.execute(if of_a_copy { "COMMIT" } else { "CLOSE copied" })
    }
}

impl CopyTarget for PostgresCopyEnd {
    fn last_receipt(&mut self) -> Result<Option<String>, CopyError> {
        let last = format!("SELECT id::text FROM {UNFINISHED}.{RECEIPTS} ORDER BY id DESC LIMIT 1");
        let row = self.connections.handle().block_on(self.client.query_typed_opt(&last, &[]));
        let row = row.map_err(|error| self.failed(error))?;
        row.map(|row| row.try_get(0)).transpose().map_err(|error| self.failed(error))
    }

    fn clear(&mut self, tables: &[CopiedTable]) -> Result<(), CopyError> {
        let names: Vec<String> = tables.iter().map(|table| format!("{UNFINISHED}.{}", table.name)).collect();
        self.execute(&format!("TRUNCATE {}", names.join(", ")))
    }

    fn write(&mut self, table: &CopiedTable, rows: &[CopiedRow]) -> Result<(), CopyError> {
        let mut rows = rows.to_vec();
        let keys = ["id", "replica"].map(|column| own_key(&table.name, column).map(|value| (column, value)));
        for row in &mut rows {
            self.numbered += 1;
            for (column, value) in keys.iter().flatten() {
                row.insert((*column).to_owned(), Value::from(value(self.numbered)));
            }
        }
        let rows =
            serde_json::to_string(&rows).map_err(|error| CopyError::Row(table.name.clone(), error.to_string()))?;
        let name = format!("{UNFINISHED}.{}", table.name);
        let insert = format!("INSERT INTO {name} SELECT * FROM json_populate_recordset(NULL::{name}, $1::text::json)");
        let (client, handle) = (&mut self.client, self.connections.handle());
        let written = handle.block_on(async {
            let transaction = client.transaction().await?;
            // The commit that makes it a store waits for all of it.
            transaction.batch_execute("SET LOCAL synchronous_commit TO off").await?;
            transaction.execute_typed(&insert, &[(&rows, Type::TEXT)]).await?;
            transaction.commit().await
        });
        written.map_err(|error| self.failed(error))
    }

    fn finish(&mut self) -> Result<(), CopyError> {
        // A gateway may have made a store meanwhile.
        self.refuse_store()?;
        self.execute(&format!("ALTER SCHEMA {UNFINISHED} RENAME TO {STORE}"))
    }

    fn discard(&mut self) -> Result<(), CopyError> {
        self.execute(&format!("DROP SCHEMA {UNFINISHED} CASCADE"))
    }
}
