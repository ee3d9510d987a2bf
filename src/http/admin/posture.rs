//! `/admin/v1/posture`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, PresenceKind};
use super::value_types::AFTER_NAME;
use super::{AdminRequest, AdminResponse};
use crate::admin::views::PostureObject;

static POLICY: Field<String> =
    Field { name: "policy", is: &AFTER_NAME, need: PresenceKind::Optional, about: "Only about this policy." };
pub(super) static ASKED_BY: [&dyn DescribedField; 1] = [&POLICY];

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, snapshot, query, .. } = request;
    let policy = query.optional(&POLICY)?;
    let posture = app.admin.posture(&snapshot, policy.as_deref(), app.clock.unix_ms()).await?;
    Ok(AdminResponse::ok(&PostureObject::from(&posture)))
}
