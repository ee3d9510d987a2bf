//! Reports on PostgreSQL leave connections to what may not wait.

use super::postgres_server::{TestDatabase, ticking};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::domain::report::{Dimension, UsageQuery};
use tierway::store::Register;
use tierway::store::postgres::{PostgresLedger, PostgresRegister, PostgresReports};
use tierway::store::reports::Reports;

const PATIENCE: Duration = Duration::from_secs(20);
/// Statements of this database that wait for the table.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
const HELD: &str = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation = 'tierway.receipts'::regclass AND database = (SELECT oid FROM pg_database WHERE \
                    datname = current_database())";
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND \
                   pid <> pg_backend_pid() AND datname = current_database()";

fn until(database: &TestDatabase, sql: &str, wanted: &str) {
    let began = Instant::now();
    while database.query(sql).trim() != wanted {
        assert!(began.elapsed() < PATIENCE, "{sql} does not answer {wanted}");
    }
}

#[test]
fn however_many_reports_are_slow_a_disabled_key_is_known() {
    let database = Arc::new(TestDatabase::new());
    let opened = PostgresLedger::open(database.location(), None, Arc::new(|| 0), ticking());
    let (ledger, _guard) = opened.unwrap_or_else(|error| panic!("{error}"));
    let (register, reports) = (PostgresRegister::of_gateway(&ledger), PostgresReports::of_gateway(&ledger));
    let holder = {
        let database = database.clone();
        let sql = "BEGIN; LOCK TABLE tierway.receipts; SELECT pg_sleep(600)";
        // It ends with an error, because its session is ended.
        std::thread::spawn(move || std::panic::catch_unwind(|| database.query(sql)).is_err())
    };
    until(&database, HELD, "1");
    let query = || UsageQuery { by: vec![Dimension::Key], since_unix_ms: None, until_unix_ms: None, only: Vec::new() };
    let asked: Vec<_> = (0..8).map(|_| reports.usage(query(), 10)).collect();
    until(&database, WAITING, "2");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    assert!(runtime.block_on(register.since(0)).is_ok(), "it waits for no report");
    assert_eq!(database.query(WAITING).trim(), "2", "the other six wait for their turn");
    database.query(END);
    assert!(holder.join().expect("it was caught"), "its session was ended");
    for report in asked {
        assert!(runtime.block_on(report).is_ok());
    }
}
