//! `/admin/v1/teams`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, PresenceKind};
use super::keys::{PAGE, PAGE_AFTER, PAGE_LIMIT};
use super::value_types::{BUDGET, NAME};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{ListObject, TeamObject};
use crate::admin::{TeamEdit, TeamView};
use crate::domain::budget::BudgetSpec;

pub(super) static LISTED_BY: [&dyn DescribedField; 2] = [&PAGE_LIMIT, &PAGE_AFTER];
static NEW_NAME: Field<String> =
    Field { name: "name", is: &NAME, need: PresenceKind::Required, about: "As its keys name it; unique for ever." };
static SHARED: Field<BudgetSpec> =
    Field { name: "budget", is: &BUDGET, need: PresenceKind::Nullable, about: "What its keys may spend together." };
pub(super) static NEW: [&dyn DescribedField; 2] = [&NEW_NAME, &SHARED];
pub(super) static CHANGED: [&dyn DescribedField; 1] = [&SHARED];

pub(super) async fn list(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, snapshot, query, .. } = request;
    let (after, most) = (query.optional(&PAGE_AFTER)?, query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let page = app.admin.teams(&snapshot, after.as_deref(), most);
    Ok(AdminResponse::ok(&ListObject::<TeamObject>::of(&page)))
}

pub(super) async fn create(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, body, .. } = request;
    let (name, budget) = (body.required(&NEW_NAME)?, body.optional(&SHARED)?);
    Ok(shown(&admin.create_team(&snapshot, &name, budget).await?).created())
}

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    Ok(shown(&request.app.admin.team(&request.snapshot, &request.name)?))
}

pub(super) async fn change(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, name, body, if_match, .. } = request;
    let edit = TeamEdit { budget: body.change(&SHARED)? };
    let expected = if_match.expected(version(&admin.team(&snapshot, &name)?))?;
    Ok(shown(&admin.edit_team(&snapshot, &name, expected, &edit).await?))
}

fn version(team: &TeamView) -> Option<i64> {
    team.stored.as_ref().map(|stored| stored.version)
}

fn shown(team: &TeamView) -> AdminResponse {
    AdminResponse::ok(&TeamObject::from(team)).of_version(version(team))
}
