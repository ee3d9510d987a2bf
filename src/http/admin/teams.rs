//! `/admin/v1/teams`

use super::form::{Described, Field, Need};
use super::keys::{PAGE, PAGE_AFTER, PAGE_LIMIT};
use super::types::{BUDGET, NAME};
use super::{AdminFailure, Answer, Asking, shapes};
use crate::admin::{TeamEdit, TeamView};
use crate::domain::budget::BudgetSpec;

pub(super) static LISTED_BY: [&dyn Described; 2] = [&PAGE_LIMIT, &PAGE_AFTER];
static NEW_NAME: Field<String> =
    Field { name: "name", is: &NAME, need: Need::Required, about: "As its keys name it; unique for ever." };
static SHARED: Field<BudgetSpec> =
    Field { name: "budget", is: &BUDGET, need: Need::Nullable, about: "What its keys may spend together." };
pub(super) static NEW: [&dyn Described; 2] = [&NEW_NAME, &SHARED];
pub(super) static CHANGED: [&dyn Described; 1] = [&SHARED];

pub(super) async fn list(asking: Asking) -> Result<Answer, AdminFailure> {
    let Asking { app, snapshot, query, .. } = asking;
    let (after, most) = (query.optional(&PAGE_AFTER)?, query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let page = app.admin.teams(&snapshot, after.as_deref(), most);
    Ok(Answer::ok(shapes::list(&page, shapes::team)))
}

pub(super) async fn create(asking: Asking) -> Result<Answer, AdminFailure> {
    let Asking { app, snapshot, body, .. } = asking;
    let (name, budget) = (body.required(&NEW_NAME)?, body.optional(&SHARED)?);
    Ok(shown(&app.admin.create_team(&snapshot, &name, budget).await?).created())
}

pub(super) async fn read(asking: Asking) -> Result<Answer, AdminFailure> {
    Ok(shown(&asking.app.admin.team(&asking.snapshot, &asking.name)?))
}

pub(super) async fn change(asking: Asking) -> Result<Answer, AdminFailure> {
    let Asking { app, snapshot, name, body, if_match, .. } = asking;
    let edit = TeamEdit { budget: body.change(&SHARED)? };
    let expected = if_match.expected(version(&app.admin.team(&snapshot, &name)?))?;
    Ok(shown(&app.admin.edit_team(&snapshot, &name, expected, &edit).await?))
}

fn version(team: &TeamView) -> Option<i64> {
    team.stored.as_ref().map(|stored| stored.version)
}

fn shown(team: &TeamView) -> Answer {
    Answer::ok(shapes::team(team)).of_version(version(team))
}
