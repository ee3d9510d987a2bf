//! `/admin/v1/sla`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, PresenceKind};
use super::value_types::{AFTER_NAME, MONTH};
use super::{AdminRequest, AdminResponse};
use crate::admin::Page;
use crate::admin::views::{ListObject, SlaReportObject};
use crate::domain::sla::month::SlaMonth;

static THE_MONTH: Field<SlaMonth> = Field {
    name: "month",
    is: &MONTH,
    need: PresenceKind::Optional,
    about: "The calendar month in the policy's zone; absent, the one that is running.",
};
static POLICY: Field<String> =
    Field { name: "policy", is: &AFTER_NAME, need: PresenceKind::Optional, about: "Only this policy." };
pub(super) static REPORTED_BY: [&dyn DescribedField; 2] = [&THE_MONTH, &POLICY];

pub(super) async fn report(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, snapshot, query, .. } = request;
    let (month, policy) = (query.optional(&THE_MONTH)?, query.optional(&POLICY)?);
    let items = app.admin.sla_reports(&snapshot, policy.as_deref(), month, app.clock.unix_ms()).await?;
    Ok(AdminResponse::ok(&ListObject::<SlaReportObject>::of(&Page { items, next: None })))
}
