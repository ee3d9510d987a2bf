//! The audit: every change is written with who made it, and can be listed.
//!
//! Changes to what is registered have their row from the store; here are those of anything else.

use super::{AdminError, AdminOperations, Page};
use crate::config::Snapshot;
use crate::domain::audit::{AuditEntry, AuditQuery, AuditRow, ChangedField};
use crate::store::{ChangeContext, RegisterChange, RegisterWriteError};

/// The kind of a configuration in the audit.
const CONFIGURATION: &str = "configuration";
/// The field that says which configuration it is.
const VERSION: &str = "version";
/// So many settings of a changed configuration are listed; its version tells all of them.
const MOST_SETTINGS: usize = 100;

impl AdminOperations {
    /// Writes `changes` as those of the operator.
    pub(super) async fn write(&self, changes: Vec<RegisterChange>) -> Result<Vec<i64>, RegisterWriteError> {
        let versions = self.keyring.write(changes, self.context()).await?;
        self.log_newest().await;
        Ok(versions)
    }

    /// Writes that the operator changed `field` of something that is not in the store.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`]: it may not have been written.
    pub async fn note(&self, kind: &'static str, name: &str, changes: Vec<ChangedField>) -> Result<(), AdminError> {
        let entry = AuditEntry { kind, name: name.into(), changes };
        self.keyring.note(entry, self.context()).await?;
        self.log_newest().await;
        Ok(())
    }

    /// Writes number and hash of the newest row to the log, which others keep: rows up to it cannot be removed unseen.
    async fn log_newest(&self) {
        let newest = AuditQuery { most: 1, ..AuditQuery::default() };
        if let Some(AuditRow { number, hash, .. }) = self.keyring.audit(newest).await.iter().flatten().next() {
            tracing::info!("audit: the newest row is {number}:{hash}");
        }
    }

    /// Writes that the configuration is `after` from now on, unless it is the one that was written last. `before` is the
    /// one that this process had.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`]: it may not have been written.
    pub async fn note_configuration(&self, before: Option<&Snapshot>, after: &Snapshot) -> Result<(), AdminError> {
        let newest = AuditQuery { kind: Some(CONFIGURATION.to_owned()), most: 1, ..AuditQuery::default() };
        let known = self.keyring.audit(newest).await?.first().and_then(version_of);
        let version = configuration_version(after);
        let Some(version) = ChangedField::of(VERSION, known, Some(version)) else { return Ok(()) };
        let mut changes = vec![version];
        if let Some(before) = before {
            let [was, is] = [before, after].map(|snapshot| Some(catalogue_days(snapshot)));
            changes.extend(ChangedField::of("price_catalogue", was, is));
            let settings = before.effective.differences(&after.effective).into_iter().take(MOST_SETTINGS);
            changes.extend(settings.map(|(setting, before, after)| ChangedField {
                field: setting.into(),
                before,
                after,
            }));
        }
        self.note(CONFIGURATION, after.effective.source(), changes).await
    }

    /// A page of the rows of `query`.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn audit(&self, query: AuditQuery) -> Result<Page<AuditRow>, AdminError> {
        let most = query.most;
        let rows = self.keyring.audit(AuditQuery { most: most.saturating_add(1), ..query }).await?;
        Ok(Page::of(rows, most, |row| row.number.to_string()))
    }

    fn context(&self) -> ChangeContext {
        ChangeContext { operator: self.operator.clone(), unix_ms: self.now_unix_ms() }
    }
}

/// What tells the configuration `snapshot` from others, as the audit names it.
pub fn configuration_version(snapshot: &Snapshot) -> String {
    snapshot.effective.version(&catalogue_days(snapshot))
}

/// The days of the price catalogues that `snapshot` takes prices from.
fn catalogue_days(snapshot: &Snapshot) -> String {
    snapshot.catalogue.asked.iter().map(|(day, _)| &*day.text).collect::<Vec<_>>().join(", ")
}

/// The fields that a row says were changed. Where that was tampered with and cannot be read, it is shown as it is.
pub fn changed_fields(changes: &str) -> Vec<ChangedField> {
    let fields = serde_json::from_str::<Vec<(String, Option<String>, Option<String>)>>(changes);
    let one = |(field, before, after): (String, _, _)| ChangedField { field: field.into(), before, after };
    let unreadable = || vec![("unreadable".to_owned(), None, Some(changes.to_owned()))];
    fields.unwrap_or_else(|_| unreadable()).into_iter().map(one).collect()
}

/// The version of the configuration that `row` is about.
fn version_of(row: &AuditRow) -> Option<String> {
    changed_fields(&row.changes).into_iter().find(|change| *change.field == *VERSION)?.after
}
