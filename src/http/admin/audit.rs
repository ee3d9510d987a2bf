//! `/admin/v1/audit`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, PresenceKind};
use super::keys::{PAGE, PAGE_LIMIT};
use super::reports::{SINCE, UNTIL, span};
use super::value_types::{AFTER_NAME, AFTER_NUMBER};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{AuditRowObject, ListObject};
use crate::domain::audit::AuditQuery;

static AFTER: Field<i64> =
    Field { name: "after", is: &AFTER_NUMBER, need: PresenceKind::Optional, about: "The `next` of the page before." };
static KIND: Field<String> = Field {
    name: "kind",
    is: &AFTER_NAME,
    need: PresenceKind::Optional,
    about: "Only changes of this kind of thing: key, team, deployment, configuration, fault, sla.",
};
static NAME: Field<String> =
    Field { name: "name", is: &AFTER_NAME, need: PresenceKind::Optional, about: "Only changes of what has this name." };
pub(super) static LISTED_BY: [&dyn DescribedField; 6] = [&PAGE_LIMIT, &AFTER, &SINCE, &UNTIL, &KIND, &NAME];

pub(super) async fn list(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, query, .. } = request;
    let (since_unix_ms, until_unix_ms) = span(&query, app.clock.unix_ms())?;
    let (after, most) = (query.optional(&AFTER)?, query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let (kind, name) = (query.optional(&KIND)?, query.optional(&NAME)?);
    let rows = app.admin.audit(AuditQuery { since_unix_ms, until_unix_ms, kind, name, after, most }).await?;
    Ok(AdminResponse::ok(&ListObject::<AuditRowObject>::of(&rows)))
}
