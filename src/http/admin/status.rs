//! `/admin/v1/status`, and what an operator ends of it.

use super::error::AdminFailure;
use super::{AdminRequest, AdminResponse};
use crate::admin::views::StatusObject;
use crate::admin::{AdminError, RecordKind};
use crate::domain::audit::ChangedField;

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (unix_ms, deployments) = request.app.relay.deployment_statuses();
    Ok(AdminResponse::ok(&StatusObject::of(unix_ms, &deployments, request.app.admin.quarantined())))
}

pub(super) async fn resume(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (_, deployments) = request.app.relay.deployment_statuses();
    let not_found = || AdminError::NotFound { kind: RecordKind::Deployment, name: request.name.clone() };
    let found = deployments.iter().find(|status| *status.deployment == *request.name).ok_or_else(not_found)?;
    let paused = found.budget_pause.as_ref().map(|pause| pause.scope.label().to_owned());
    let change = ChangedField::of("budget_pause", paused, None);
    // Before it is done: what cannot be written to the audit is not done.
    request.admin.note("deployment", &request.name, change.into_iter().collect()).await?;
    request.app.relay.resume(&request.name);
    read(request).await
}
