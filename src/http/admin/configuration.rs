//! `/admin/v1/configuration`

use super::error::AdminFailure;
use super::{AdminRequest, AdminResponse};
use crate::admin::views::ConfigurationObject;

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, snapshot, .. } = request;
    Ok(AdminResponse::ok(&ConfigurationObject::of(&snapshot, app.refused_config.load().as_deref())))
}
