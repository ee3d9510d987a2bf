//! `/admin/v1/credits`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, InputError, InputFields, PresenceKind};
use super::keys::{PAGE, PAGE_LIMIT};
use super::value_types::{AFTER_HOLDER, AFTER_NUMBER, AMOUNT, LINE, NAME};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{BalanceObject, GrantObject, ListObject};
use crate::admin::{AdminError, NewGrant};
use crate::domain::budget::Scope;
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;

static AFTER: Field<Holder> =
    Field { name: "after", is: &AFTER_HOLDER, need: PresenceKind::Optional, about: "The `next` of the page before." };
pub(super) static LISTED_BY: [&dyn DescribedField; 2] = [&PAGE_LIMIT, &AFTER];
static AFTER_GRANT: Field<i64> =
    Field { name: "after", is: &AFTER_NUMBER, need: PresenceKind::Optional, about: "The `next` of the page before." };
static OF_KEY: Field<String> = Field {
    name: "key",
    is: &NAME,
    need: PresenceKind::Optional,
    about: "The key that holds it. One of key and team.",
};
static OF_TEAM: Field<String> = Field {
    name: "team",
    is: &NAME,
    need: PresenceKind::Optional,
    about: "The team that holds it. One of key and team.",
};
pub(super) static GRANTS_LISTED_BY: [&dyn DescribedField; 4] = [&PAGE_LIMIT, &AFTER_GRANT, &OF_KEY, &OF_TEAM];
static GIVEN: Field<NanoUsd> =
    Field { name: "amount", is: &AMOUNT, need: PresenceKind::Required, about: "USD; with a sign it is taken back." };
static REASON: Field<String> =
    Field { name: "reason", is: &LINE, need: PresenceKind::Nullable, about: "Why, in one line for people." };
pub(super) static GRANTED: [&dyn DescribedField; 4] = [&OF_KEY, &OF_TEAM, &GIVEN, &REASON];

pub(super) async fn balances(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (after, most) = (request.query.optional(&AFTER)?, request.query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let page = request.app.admin.balances_after(after.as_ref(), most).await?;
    Ok(AdminResponse::ok(&ListObject::<BalanceObject>::of(&page)))
}

pub(super) async fn grants(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, query, .. } = request;
    let (after, most) = (query.optional(&AFTER_GRANT)?.unwrap_or(0), query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let page = app.admin.grants(holder(&query)?, after, most).await?;
    Ok(AdminResponse::ok(&ListObject::<GrantObject>::of(&page)))
}

pub(super) async fn grant(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, body, .. } = request;
    let holder =
        holder(&body)?.ok_or_else(|| InputError::field("key", "is missing, and so is 'team'; name one of them"))?;
    let field = holder.scope.label();
    let reason = body.optional(&REASON)?.unwrap_or_default();
    let new = NewGrant { holder, amount: body.required(&GIVEN)?, reason, by: "admin API".to_owned() };
    let grant = admin.grant(&snapshot, new).await.map_err(|error| match error {
        // A 404 would be about the path; here a field of the body names what does not exist.
        AdminError::NotFound { kind, name } => {
            InputError::field(field, format!("names no {kind}: there is no '{name}'")).into()
        }
        other => AdminFailure::from(other),
    })?;
    Ok(AdminResponse::ok(&GrantObject::from(&grant)).created())
}

fn holder(input: &InputFields) -> Result<Option<Holder>, InputError> {
    let holder = |scope, name: String| Some(Holder { scope, name: name.into() });
    match (input.optional(&OF_KEY)?, input.optional(&OF_TEAM)?) {
        (Some(_), Some(_)) => Err(InputError::field("team", "cannot be given with 'key'; name one of them")),
        (Some(key), None) => Ok(holder(Scope::Key, key)),
        (None, Some(team)) => Ok(holder(Scope::Team, team)),
        (None, None) => Ok(None),
    }
}
