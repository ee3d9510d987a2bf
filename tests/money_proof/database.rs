//! Reads the database while or after a gateway runs; columns by name, so that new columns do not matter.

use crate::fixture::ACCOUNTS;
use rusqlite::{Connection, OpenFlags, Row};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// One receipt.
#[derive(Clone, Debug)]
pub struct Line {
    pub id: u128,
    pub key: Option<String>,
    pub name: Option<String>,
    pub deployment: Option<String>,
    /// Why each attempt ended.
    pub attempts: Vec<String>,
    pub estimated: bool,
    /// Input, cached input and output.
    pub tokens: Option<[u64; 3]>,
    /// The same, in pico-dollars per token.
    pub price: Option<[u64; 3]>,
    pub cost: i64,
}

impl Line {
    /// The time in its id, by the gateway's clock, in Unix milliseconds.
    pub fn given_ms(&self) -> i64 {
        i64::try_from(self.id >> 80).expect("48 bits")
    }
}

/// An account's window: its place in [`ACCOUNTS`], and its start.
pub type BudgetWindow = (usize, i64);

/// The contents of the database at one moment.
#[derive(Clone, Default, Debug)]
pub struct DatabaseState {
    pub lines: Vec<Line>,
    pub spent: BTreeMap<BudgetWindow, i64>,
    pub leased: BTreeMap<BudgetWindow, i64>,
    pub unaccounted: BTreeMap<BudgetWindow, i64>,
    pub unaccounted_lines: u64,
    /// The result of SQLite's integrity check.
    pub integrity: String,
}

impl DatabaseState {
    /// Reads everything.
    pub fn read(folder: &Path) -> Self {
        let database = open(folder);
        let mut state = Self::balances_of(&database);
        let mut lines = database.prepare("SELECT * FROM receipts ORDER BY id").expect("the table exists");
        let lines = lines.query_map([], line).expect("it is read");
        state.lines = lines.collect::<Result<_, _>>().expect("a line can be read");
        state.integrity = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("the check runs");
        state
    }

    /// Reads the balances alone.
    pub fn balances(folder: &Path) -> Self {
        Self::balances_of(&open(folder))
    }

    fn balances_of(database: &Connection) -> Self {
        let mut state = Self::default();
        let mut rows = database.prepare("SELECT * FROM budgets").expect("the table exists");
        let mut rows = rows.query([]).expect("it is read");
        while let Some(row) = rows.next().expect("it is read") {
            let budget_window = budget_window(row);
            state.spent.insert(budget_window, number(row, "spent_nanousd"));
            state.leased.insert(budget_window, number(row, "leased_nanousd"));
        }
        let mut rows = database.prepare("SELECT * FROM unaccounted").expect("the table exists");
        let mut rows = rows.query([]).expect("it is read");
        while let Some(row) = rows.next().expect("it is read") {
            *state.unaccounted.entry(budget_window(row)).or_default() += number(row, "amount_nanousd");
            state.unaccounted_lines += 1;
        }
        state
    }
}

fn open(folder: &Path) -> Connection {
    let path = folder.join("tierway.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database exists");
    database.busy_timeout(Duration::from_secs(5)).expect("it is set");
    database
}

fn budget_window(row: &Row<'_>) -> BudgetWindow {
    let text = |column: &str| row.get::<_, String>(column).expect("a name");
    let (scope, name) = (text("scope"), text("name"));
    let place = ACCOUNTS.iter().position(|account| account.scope == scope && account.name == name);
    (place.unwrap_or_else(|| panic!("nobody's account: {scope} {name}")), number(row, "start_ms"))
}

fn number(row: &Row<'_>, column: &str) -> i64 {
    row.get(column).expect("a number")
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let count = |column: &str| row.get::<_, Option<i64>>(column).map(|count| count.map(i64::unsigned_abs));
    let all = |columns: [&str; 3]| {
        let [first, second, third] = columns.map(count);
        Ok::<_, rusqlite::Error>(match (first?, second?, third?) {
            (Some(first), Some(second), Some(third)) => Some([first, second, third]),
            _ => None,
        })
    };
    let attempts: serde_json::Value = serde_json::from_str(&row.get::<_, String>("attempts")?).expect("JSON");
    let reason = |attempt: &serde_json::Value| attempt[2].as_str().expect("a reason").to_owned();
    Ok(Line {
        id: u128::from_be_bytes(row.get("id")?),
        key: row.get("key")?,
        name: row.get("asked_model")?,
        deployment: row.get("deployment")?,
        attempts: attempts.as_array().expect("a list").iter().map(reason).collect(),
        estimated: row.get("estimated")?,
        tokens: all(["input_tokens", "cached_input_tokens", "output_tokens"])?,
        price: all(["input_pico", "cached_input_pico", "output_pico"])?,
        cost: row.get("cost_nanousd")?,
    })
}
