//! `/admin/v1/status`, and what an operator ends of it.

use super::error::AdminFailure;
use super::{AdminRequest, AdminResponse};
use crate::admin::views::StatusObject;
use crate::admin::{AdminError, RecordKind};

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (unix_ms, deployments) = request.app.relay.deployment_statuses();
    Ok(AdminResponse::ok(&StatusObject::of(unix_ms, &deployments, request.app.admin.quarantined())))
}

pub(super) async fn resume(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    if !request.app.relay.resume(&request.name) {
        return Err(AdminError::NotFound { kind: RecordKind::Deployment, name: request.name }.into());
    }
    read(request).await
}
