//! `/admin/v1/status`

use super::error::AdminFailure;
use super::{AdminRequest, AdminResponse};
use crate::admin::views::StatusObject;

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (unix_ms, deployments) = request.app.relay.deployment_statuses();
    Ok(AdminResponse::ok(&StatusObject::of(unix_ms, &deployments)))
}
