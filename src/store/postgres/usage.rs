//! Queries over the ledger: sums by dimensions, and lists of receipts.
//!
//! The server groups while it reads. Values are bound and never part of the SQL text. Sums have no bound, so that no receipt,
//! however large, can overflow them.
//!
//! Start reading in [`usage`].

use super::error::PostgresError;
use super::receipts::{self, COLUMNS};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{Condition, Dimension, ReceiptsQuery, UsageQuery, UsageSum};
use crate::store::column::unknown;
use crate::store::receipt_row::{CLOCKS_DIFFER_MS, lowest_id_at};
use crate::store::reports::sort_sums;
use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

/// The columns that are summed, in the order in which [`sum`] reads them.
const SUMMED: [&str; 5] = ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_nanousd"];

fn expression(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Price => "price_version",
        Dimension::Day => "to_char(to_timestamp(received_unix_ms / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        column => column.name(),
    }
}

/// The receipts of `query`, summed by its dimensions: at most `most` sums; if there are more, which ones is not specified.
pub(super) async fn usage(
    client: &impl GenericClient,
    query: &UsageQuery,
    most: usize,
) -> Result<Vec<UsageSum>, PostgresError> {
    let conditions = Conditions::of(query.since_unix_ms, query.until_unix_ms, &query.only);
    let mut columns: Vec<String> = query.by.iter().map(|dimension| expression(*dimension).to_owned()).collect();
    columns.push("count(*)".to_owned());
    columns.push("count(*) FILTER (WHERE outcome IN ('failed', 'broken'))".to_owned());
    columns.push("count(input_tokens)".to_owned());
    columns.push("count(*) FILTER (WHERE estimated AND input_tokens IS NOT NULL)".to_owned());
    columns.extend(SUMMED.map(|column| format!("coalesce(sum({column}), 0)::text")));
    let mut sql = format!("SELECT {} FROM tierway.receipts WHERE {}", columns.join(", "), conditions.text());
    if query.by.is_empty() {
        sql.push_str(" HAVING count(*) > 0");
    } else {
        let numbers = (1..=query.by.len()).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
        sql.push_str(&format!(" GROUP BY {numbers}"));
    }
    sql.push_str(&format!(" LIMIT {}", i64::try_from(most).unwrap_or(i64::MAX)));
    let rows = client.query_typed(&sql, &conditions.values()).await?;
    let mut sums = rows.iter().map(|row| sum(row, query.by.len())).collect::<Result<Vec<_>, _>>()?;
    sort_sums(query, &mut sums);
    Ok(sums)
}

fn sum(row: &Row, after: usize) -> Result<UsageSum, PostgresError> {
    let by = (0..after).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
    let count = |at: usize| row.try_get::<_, i64>(after + at).map(|count| count.max(0).unsigned_abs());
    let whole = |nth: usize| -> Result<i128, PostgresError> {
        let text = row.try_get::<_, &str>(after + 4 + nth)?;
        Ok(text.parse().map_err(|_| unknown(text))?)
    };
    let tokens = |nth: usize| whole(nth).map(|sum| sum.max(0).unsigned_abs());
    Ok(UsageSum {
        by,
        requests: count(0)?,
        failed: count(1)?,
        metered: count(2)?,
        estimated: count(3)?,
        input: tokens(0)?,
        cached_input: tokens(1)?,
        output: tokens(2)?,
        reasoning: tokens(3)?,
        cost_nanousd: whole(4)?,
    })
}

/// The receipt of request `id`.
pub(super) async fn receipt(client: &impl GenericClient, id: RequestId) -> Result<Option<Receipt>, PostgresError> {
    let one = format!("SELECT {COLUMNS} FROM tierway.receipts WHERE id = $1::text::uuid");
    let row = client.query_typed_opt(&one, &[(&receipts::uuid(id), Type::TEXT)]).await?;
    row.as_ref().map(receipts::read).transpose()
}

/// The receipts of `query`, the newest first. One that cannot be read is not listed.
pub(super) async fn receipts(client: &mut Client, query: &ReceiptsQuery) -> Result<Vec<Receipt>, PostgresError> {
    let mut found = Vec::new();
    let mut pages = ReceiptPages::begin(client, query).await?;
    while found.len() < query.most
        && let Some(page) = pages.next(query.most.min(PAGE)).await?
    {
        found.extend(page.into_iter().flatten());
    }
    found.truncate(query.most);
    Ok(found)
}

/// Sends each receipt of `query` to `taker`, the newest first, `None` for one that cannot be read. They are as one moment saw
/// them, and not all in memory at once.
pub(super) async fn each(
    client: &mut Client,
    query: &ReceiptsQuery,
    taker: mpsc::Sender<Option<Receipt>>,
) -> Result<(), PostgresError> {
    let mut pages = ReceiptPages::begin(client, query).await?;
    while let Some(page) = pages.next(PAGE).await? {
        for receipt in page {
            if taker.send(receipt).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Receipts that are read by one statement.
const PAGE: usize = 1_000;

/// The receipts of a query as one transaction sees them, some at a time.
struct ReceiptPages<'c> {
    transaction: Transaction<'c>,
    conditions: Conditions,
    /// The last one that was read.
    before: Option<RequestId>,
    at_end: bool,
}

impl<'c> ReceiptPages<'c> {
    async fn begin(client: &'c mut Client, query: &ReceiptsQuery) -> Result<Self, PostgresError> {
        let conditions = Conditions::of(query.since_unix_ms, query.until_unix_ms, &query.only);
        let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        Ok(Self { transaction: snapshot.start().await?, conditions, before: query.after, at_end: false })
    }

    /// The next `most`, fewer at the end; `None` if there are no more.
    async fn next(&mut self, most: usize) -> Result<Option<Vec<Option<Receipt>>>, PostgresError> {
        if self.at_end {
            return Ok(None);
        }
        let mut conditions = self.conditions.clone();
        if let Some(before) = self.before {
            conditions.add_id("id <", before);
        }
        let text = conditions.text();
        let sql = format!("SELECT {COLUMNS} FROM tierway.receipts WHERE {text} ORDER BY id DESC LIMIT {most}");
        let rows = self.transaction.query_typed(&sql, &conditions.values()).await?;
        self.at_end = rows.len() < most;
        let mut receipts = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = receipts::id(row, 0)?;
            self.before = Some(id);
            receipts.push(match receipts::read(row) {
                Ok(receipt) => Some(receipt),
                Err(PostgresError::Unreadable(error)) => {
                    tracing::error!(%id, %error, "a receipt cannot be read and is not listed");
                    None
                }
                Err(error) => return Err(error),
            });
        }
        Ok(Some(receipts))
    }
}

/// A value to bind.
#[derive(Clone)]
enum BoundValue {
    Number(i64),
    Text(Option<String>),
}

impl BoundValue {
    fn bound(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Text(text) => (text, Type::TEXT),
        }
    }
}

/// A `WHERE` clause, and the values to bind.
#[derive(Clone)]
struct Conditions {
    texts: Vec<String>,
    values: Vec<BoundValue>,
}

impl Conditions {
    fn of(since: Option<i64>, until: Option<i64>, only: &[Condition]) -> Self {
        let mut conditions = Self { texts: vec!["TRUE".to_owned()], values: Vec::new() };
        // The id is indexed and finds candidate rows; the time decides.
        if let Some(since) = since {
            conditions.add_id("id >=", lowest_id_at(since.saturating_sub(CLOCKS_DIFFER_MS)));
            conditions.add("received_unix_ms >=", "", BoundValue::Number(since));
        }
        if let Some(until) = until {
            conditions.add_id("id <", lowest_id_at(until.saturating_add(CLOCKS_DIFFER_MS)));
            conditions.add("received_unix_ms <", "", BoundValue::Number(until));
        }
        for Condition { dimension, value } in only {
            let is = format!("{} IS NOT DISTINCT FROM", expression(*dimension));
            conditions.add(&is, "", BoundValue::Text(value.clone()));
        }
        conditions
    }

    fn add_id(&mut self, text: &str, id: RequestId) {
        self.add(text, "::text::uuid", BoundValue::Text(Some(receipts::uuid(id))));
    }

    fn add(&mut self, text: &str, cast: &str, value: BoundValue) {
        self.values.push(value);
        self.texts.push(format!("{text} ${}{cast}", self.values.len()));
    }

    fn text(&self) -> String {
        self.texts.join(" AND ")
    }

    fn values(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(BoundValue::bound).collect()
    }
}
