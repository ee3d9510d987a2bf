//! Reports of drills in the database, one row for each scenario.

use crate::domain::drill::report::DrillReport;
use crate::store::drill_report_row::{decode, encode};
use rusqlite::{Connection, Transaction, params};

/// Keeps `report` in place of the one of its scenario.
pub(super) fn put(transaction: &Transaction<'_>, report: &DrillReport) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO drill_reports VALUES (?1, ?2, ?3, ?4)";
    let row = params![report.scenario, report.finished_unix_ms, report.passed, encode(report)];
    transaction.prepare_cached(insert)?.execute(row).map(drop)
}

/// The report of each scenario, by its name. One that cannot be read is left out.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<DrillReport>> {
    let select = "SELECT scenario, finished_unix_ms, passed, report FROM drill_reports ORDER BY scenario";
    let mut statement = connection.prepare_cached(select)?;
    let mut rows = statement.query([])?;
    let mut reports = Vec::new();
    while let Some(row) = rows.next()? {
        let (scenario, report) = (row.get_ref(0)?.as_str()?, row.get_ref(3)?.as_str()?);
        match decode(scenario, row.get(1)?, row.get(2)?, report) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::error!(scenario, %error, "the report of a drill cannot be read"),
        }
    }
    Ok(reports)
}
