//! What is kept of a drill: of each scenario, the last time that it was run to its end.
//!
//! Figures are kept as they were shown, so that a later version reads them as they were judged.

use super::judge::{DrillCheck, MeasuredValue};
use std::sync::Arc;

/// One scenario that was run to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrillReport {
    /// The scenario's name on the command line.
    pub scenario: Arc<str>,
    /// When it ended, in Unix milliseconds.
    pub finished_unix_ms: i64,
    /// The configuration that it was run on, as messages name it.
    pub configuration: Arc<str>,
    /// The region that broke; empty where none did.
    pub region: Arc<str>,
    /// The policies that requests were made under.
    pub policies: Vec<Arc<str>>,
    /// Whether every objective was met.
    pub passed: bool,
    /// Each figure, in the order in which they were shown.
    pub checks: Vec<ReportedCheck>,
}

/// A figure of a scenario beside its objective.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportedCheck {
    /// What was measured.
    pub name: Box<str>,
    /// As it was shown, with its unit.
    pub measured: Box<str>,
    /// The most that it might be, the same way; `None`: it was shown and not judged.
    pub objective: Option<Box<str>>,
    /// What else was known.
    pub detail: Box<str>,
    /// Whether the objective was met.
    pub passed: bool,
}

impl From<&DrillCheck> for ReportedCheck {
    fn from(check: &DrillCheck) -> Self {
        Self {
            name: check.name.as_ref().into(),
            measured: check.measured.to_string().into(),
            objective: check.objective.map(|objective| match objective {
                MeasuredValue::Count(most, _) => most.to_string().into(),
                other => other.to_string().into(),
            }),
            detail: check.detail.as_str().into(),
            passed: check.passed,
        }
    }
}
