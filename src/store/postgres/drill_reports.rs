//! Reports of drills in the database, one row for each scenario.

use super::error::PostgresError;
use crate::domain::drill::report::DrillReport;
use crate::store::drill_report_row::{decode, encode};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

const PUT: &str = "INSERT INTO tierway.drill_reports VALUES ($1, $2, $3, $4)
    ON CONFLICT (scenario) DO UPDATE SET finished_unix_ms = $2, passed = $3, report = $4";
const ALL: &str = "SELECT scenario, finished_unix_ms, passed, report FROM tierway.drill_reports ORDER BY scenario";

/// Keeps `report` in place of the one of its scenario.
pub(super) async fn put(client: &impl GenericClient, report: &DrillReport) -> Result<(), PostgresError> {
    let DrillReport { finished_unix_ms, passed, .. } = report;
    let (scenario, encoded) = (&*report.scenario, encode(report));
    let row = [
        (&scenario as _, Type::TEXT),
        (finished_unix_ms as _, Type::INT8),
        (passed as _, Type::BOOL),
        (&encoded as _, Type::TEXT),
    ];
    client.execute_typed(PUT, &row).await?;
    Ok(())
}

/// The report of each scenario, by its name. One that cannot be read is left out.
pub(super) async fn all(client: &impl GenericClient) -> Result<Vec<DrillReport>, PostgresError> {
    let mut reports = Vec::new();
    for row in client.query_typed(ALL, &[]).await? {
        let scenario: &str = row.try_get(0)?;
        match decode(scenario, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::error!(scenario, %error, "the report of a drill cannot be read"),
        }
    }
    Ok(reports)
}
