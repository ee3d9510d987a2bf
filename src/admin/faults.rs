//! Faults that are injected into attempts: what an operator may ask for, and the audit of it.
//!
//! The faults themselves are in force where attempts are sent; they are handed in.

use super::{AdminError, AdminOperations};
use crate::config::Snapshot;
use crate::domain::audit::ChangedField;
use crate::domain::fault::{FaultScope, FaultSpec, InjectedFault, LONGEST_FAULT};
use std::time::Duration;

/// The kind of a fault in the audit.
const FAULT: &str = "fault";

impl AdminOperations {
    /// Writes to the audit that the operator injects `spec`: what cannot be written there is not to be done.
    ///
    /// # Errors
    /// The fault API is off in `snapshot`; the fault lasts too long, or names what `snapshot` does not have; the audit
    /// cannot be written.
    pub async fn note_injected(&self, snapshot: &Snapshot, spec: &FaultSpec) -> Result<(), AdminError> {
        check_enabled(snapshot)?;
        check(snapshot, spec)?;
        self.note(FAULT, &spec.scope.to_string(), fields(spec, |value| (None, Some(value)))).await
    }

    /// Writes to the audit that the operator ends `fault`.
    ///
    /// # Errors
    /// The audit cannot be written.
    pub async fn note_ended(&self, fault: &InjectedFault) -> Result<(), AdminError> {
        self.note(FAULT, &fault.spec.scope.to_string(), fields(&fault.spec, |value| (Some(value), None))).await
    }
}

/// Refuses everything about faults where `snapshot` does not allow them.
///
/// # Errors
/// [`AdminError::FaultsDisabled`]
pub fn check_enabled(snapshot: &Snapshot) -> Result<(), AdminError> {
    if snapshot.fault_api { Ok(()) } else { Err(AdminError::FaultsDisabled) }
}

fn check(snapshot: &Snapshot, spec: &FaultSpec) -> Result<(), AdminError> {
    if spec.lasts.is_zero() || spec.lasts > LONGEST_FAULT {
        return Err(AdminError::invalid(
            "expires_in",
            "a fault lasts from 1s to 10m; give it again when it has expired",
        ));
    }
    let table = &snapshot.table;
    let known: Vec<&str> = match &spec.scope {
        FaultScope::Deployment(_) => table.deployments.iter().map(|deployment| &*deployment.name).collect(),
        FaultScope::Region(_) => table.regions.iter().map(|region| &**region).collect(),
    };
    let (field, name) = match &spec.scope {
        FaultScope::Deployment(name) => ("deployment", name),
        FaultScope::Region(name) => ("region", name),
    };
    if known.contains(&&**name) {
        return Ok(());
    }
    Err(AdminError::invalid(field, format!("there is no {field} '{name}'; there are: {}", known.join(", "))))
}

/// The fields of a fault in the audit, each with what was before and is after.
fn fields(spec: &FaultSpec, change: fn(String) -> (Option<String>, Option<String>)) -> Vec<ChangedField> {
    let fields = [
        ("effect", spec.effect.to_string()),
        ("share", format!("{} %", spec.share_percent)),
        ("expires_in", seconds(spec.lasts)),
    ];
    let changed = |(field, value): (&str, String)| {
        let (before, after) = change(value);
        ChangedField::of(field, before, after)
    };
    fields.into_iter().filter_map(changed).collect()
}

fn seconds(lasts: Duration) -> String {
    format!("{}s", lasts.as_secs())
}
