//! `/admin/v1/keys`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, PresenceKind};
use super::value_types::{AFTER_NAME, BUDGET, COUNT, EXPIRY, FLAG, HASH, LIMIT, NAME, OVERLAP, SMALL_COUNT};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{IssuedKeyObject, KeyObject, ListObject};
use crate::admin::{IssuedKey, KeyEdit, KeyFilter, KeyView, NewKey};
use crate::domain::budget::BudgetSpec;
use crate::domain::limit::Limits;
use crate::domain::register::KeyOverrides;
use crate::domain::secret::KeyHash;
use std::time::Duration;

/// Default number of items on a page.
pub(super) const PAGE: usize = 100;
/// Default overlap of the old secrets and the new one.
const OVERLAP_USUAL: Duration = Duration::from_secs(86_400);

/// The number of items on a page.
pub(super) static PAGE_LIMIT: Field<usize> =
    Field { name: "limit", is: &LIMIT, need: PresenceKind::Optional, about: "How many to a page." };
/// The cursor of a page of a list by name.
pub(super) static PAGE_AFTER: Field<String> =
    Field { name: "after", is: &AFTER_NAME, need: PresenceKind::Optional, about: "The `next` of the page before." };
static OF_POLICY: Field<String> =
    Field { name: "policy", is: &AFTER_NAME, need: PresenceKind::Optional, about: "Only keys of this policy." };
static OF_TEAM: Field<String> =
    Field { name: "team", is: &AFTER_NAME, need: PresenceKind::Optional, about: "Only keys of this team." };
pub(super) static LISTED_BY: [&dyn DescribedField; 4] = [&PAGE_LIMIT, &PAGE_AFTER, &OF_POLICY, &OF_TEAM];

static NEW_NAME: Field<String> = Field {
    name: "name",
    is: &NAME,
    need: PresenceKind::Required,
    about: "For people, reports and budgets; unique for ever.",
};
static POLICY: Field<String> =
    Field { name: "policy", is: &NAME, need: PresenceKind::Required, about: "One of the configuration's." };
static NEW_POLICY: Field<String> =
    Field { name: "policy", is: &NAME, need: PresenceKind::Optional, about: "Another of the configuration's." };
static TEAM: Field<String> =
    Field { name: "team", is: &NAME, need: PresenceKind::Nullable, about: "Who shares a budget and a report with it." };
static REQUESTS: Field<u64> = Field {
    name: "requests_per_minute",
    is: &COUNT,
    need: PresenceKind::Nullable,
    about: "Requests in any sliding minute; at or below the policy's.",
};
static TOKENS: Field<u64> = Field {
    name: "tokens_per_minute",
    is: &COUNT,
    need: PresenceKind::Nullable,
    about: "Tokens in any sliding minute; at or below the policy's.",
};
static CONCURRENT: Field<u32> = Field {
    name: "max_concurrent",
    is: &SMALL_COUNT,
    need: PresenceKind::Nullable,
    about: "Requests at once; at or below the policy's.",
};
static OWN_BUDGET: Field<BudgetSpec> = Field {
    name: "budget",
    is: &BUDGET,
    need: PresenceKind::Nullable,
    about: "What it may spend; at or below the policy's.",
};
static EXPIRES: Field<i64> = Field {
    name: "expires",
    is: &EXPIRY,
    need: PresenceKind::Nullable,
    about: "Its last day, in UTC, or the instant it ends.",
};
static IMPORTED: Field<KeyHash> = Field {
    name: "hash",
    is: &HASH,
    need: PresenceKind::Optional,
    about: "The SHA-256 of a secret that exists and is kept; without it a secret is made.",
};
static DISABLED: Field<bool> = Field {
    name: "disabled",
    is: &FLAG,
    need: PresenceKind::Optional,
    about: "Whether it is refused until this is false again.",
};
static KEPT_FOR: Field<Duration> = Field {
    name: "overlap",
    is: &OVERLAP,
    need: PresenceKind::Optional,
    about: "How long the secrets it has go on working; 24h unless given, 0s ends them at once.",
};
pub(super) static NEW: [&dyn DescribedField; 9] =
    [&NEW_NAME, &POLICY, &TEAM, &REQUESTS, &TOKENS, &CONCURRENT, &OWN_BUDGET, &EXPIRES, &IMPORTED];
pub(super) static CHANGED: [&dyn DescribedField; 8] =
    [&NEW_POLICY, &TEAM, &REQUESTS, &TOKENS, &CONCURRENT, &OWN_BUDGET, &EXPIRES, &DISABLED];
pub(super) static ROTATED: [&dyn DescribedField; 1] = [&KEPT_FOR];

pub(super) async fn list(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, snapshot, query, .. } = request;
    let filter = KeyFilter { policy: query.optional(&OF_POLICY)?, team: query.optional(&OF_TEAM)? };
    let (after, most) = (query.optional(&PAGE_AFTER)?, query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let page = app.admin.keys_of(&snapshot, &filter, after.as_deref(), most);
    Ok(AdminResponse::ok(&ListObject::<KeyObject>::of(&page)))
}

pub(super) async fn create(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, body, .. } = request;
    let limits = Limits {
        requests_per_minute: body.optional(&REQUESTS)?,
        tokens_per_minute: body.optional(&TOKENS)?,
        max_concurrent: body.optional(&CONCURRENT)?,
    };
    let new = NewKey {
        name: body.required(&NEW_NAME)?,
        policy: body.required(&POLICY)?,
        team: body.optional(&TEAM)?,
        own: KeyOverrides { limits, budget: body.optional(&OWN_BUDGET)? },
        expires: body.optional(&EXPIRES)?,
        hash: body.optional(&IMPORTED)?,
    };
    Ok(issued(&admin.create_key(&snapshot, new).await?).created())
}

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let key = request.app.admin.key(&request.snapshot, &request.name)?;
    Ok(shown(&key))
}

pub(super) async fn change(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, name, body, if_match, .. } = request;
    let edit = KeyEdit {
        policy: body.optional(&NEW_POLICY)?,
        team: body.change(&TEAM)?,
        requests_per_minute: body.change(&REQUESTS)?,
        tokens_per_minute: body.change(&TOKENS)?,
        max_concurrent: body.change(&CONCURRENT)?,
        budget: body.change(&OWN_BUDGET)?,
        expires: body.change(&EXPIRES)?,
        disabled: body.optional(&DISABLED)?,
    };
    let expected = if_match.expected(version(&admin.key(&snapshot, &name)?))?;
    Ok(shown(&admin.edit_key(&snapshot, &name, expected, &edit).await?))
}

pub(super) async fn rotate(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, name, body, if_match, .. } = request;
    let overlap = body.optional(&KEPT_FOR)?.unwrap_or(OVERLAP_USUAL);
    let expected = if_match.expected(version(&admin.key(&snapshot, &name)?))?;
    Ok(issued(&admin.rotate_key(&snapshot, &name, expected, overlap).await?))
}

pub(super) async fn delete(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { admin, snapshot, name, if_match, .. } = request;
    let expected = if_match.expected(version(&admin.key(&snapshot, &name)?))?;
    Ok(shown(&admin.delete_key(&snapshot, &name, expected).await?))
}

fn version(key: &KeyView) -> Option<i64> {
    key.stored.as_ref().map(|stored| stored.version)
}

fn shown(key: &KeyView) -> AdminResponse {
    AdminResponse::ok(&KeyObject::from(key)).of_version(version(key))
}

/// The key, with its new secret.
fn issued(issued: &IssuedKey) -> AdminResponse {
    AdminResponse::ok(&IssuedKeyObject::from(issued)).of_version(version(&issued.key))
}
