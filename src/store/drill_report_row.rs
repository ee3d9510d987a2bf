//! The report of a drill as it is stored: what is searched by in columns, the rest in one column as JSON.
//!
//! Start reading at [`encode`].

use super::column::{UnreadableValue, unknown};
use crate::domain::drill::report::{DrillReport, ReportedCheck};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Name, measured, objective, detail, and whether the objective was met.
type EncodedCheck<'a> = (Cow<'a, str>, Cow<'a, str>, Option<Cow<'a, str>>, Cow<'a, str>, bool);

/// What the column `report` holds.
#[derive(Serialize, Deserialize)]
struct EncodedReport<'a> {
    configuration: Cow<'a, str>,
    region: Cow<'a, str>,
    policies: Vec<Cow<'a, str>>,
    checks: Vec<EncodedCheck<'a>>,
}

/// The column `report`.
pub(super) fn encode(report: &DrillReport) -> String {
    let encoded = EncodedReport {
        configuration: Cow::Borrowed(&*report.configuration),
        region: Cow::Borrowed(&*report.region),
        policies: report.policies.iter().map(|policy| Cow::Borrowed(&**policy)).collect(),
        checks: report.checks.iter().map(encoded_check).collect(),
    };
    serde_json::to_string(&encoded).expect("texts are JSON")
}

fn encoded_check(check: &ReportedCheck) -> EncodedCheck<'_> {
    let ReportedCheck { name, measured, objective, detail, passed } = check;
    let objective = objective.as_deref().map(Cow::Borrowed);
    (Cow::Borrowed(&**name), Cow::Borrowed(&**measured), objective, Cow::Borrowed(&**detail), *passed)
}

/// The report with this column, of `scenario`, which ended at `finished_unix_ms`.
pub(super) fn decode(
    scenario: &str,
    finished_unix_ms: i64,
    passed: bool,
    report: &str,
) -> Result<DrillReport, UnreadableValue> {
    let EncodedReport { configuration, region, policies, checks } =
        serde_json::from_str(report).map_err(|_| unknown("report"))?;
    let check = |(name, measured, objective, detail, passed): EncodedCheck<'_>| ReportedCheck {
        name: name.into(),
        measured: measured.into(),
        objective: objective.map(Into::into),
        detail: detail.into(),
        passed,
    };
    Ok(DrillReport {
        scenario: scenario.into(),
        finished_unix_ms,
        configuration: configuration.into(),
        region: region.into(),
        policies: policies.into_iter().map(Arc::from).collect(),
        passed,
        checks: checks.into_iter().map(check).collect(),
    })
}
