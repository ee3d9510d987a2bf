//! Keys and teams as the command line's `--json` has them: the admin API's objects, with the `version` that the API
//! sends as an ETag.

use crate::admin::views::{IssuedKeyObject, KeyObject, ListObject, TeamObject, to_json};
use crate::admin::{IssuedKey, KeyView, Page, TeamView};
use serde::Serialize;
use serde_json::Value;

/// An object, and the version of what is stored; none for what is in the configuration.
#[derive(Serialize)]
struct VersionedObject<T> {
    #[serde(flatten)]
    object: T,
    version: Option<i64>,
}

/// A key.
pub(super) fn key(key: &KeyView) -> Value {
    to_json(&VersionedObject::from(key))
}

/// A key with the secret that was made for it.
pub(super) fn issued_key(issued: &IssuedKey) -> Value {
    let version = issued.key.stored.as_ref().map(|stored| stored.version);
    to_json(&VersionedObject { object: IssuedKeyObject::from(issued), version })
}

/// A team.
pub(super) fn team(team: &TeamView) -> Value {
    to_json(&VersionedObject::from(team))
}

/// A page of keys.
pub(super) fn keys(page: &Page<KeyView>) -> Value {
    to_json(&ListObject::<VersionedObject<KeyObject>>::of(page))
}

/// A page of teams.
pub(super) fn teams(page: &Page<TeamView>) -> Value {
    to_json(&ListObject::<VersionedObject<TeamObject>>::of(page))
}

impl From<&KeyView> for VersionedObject<KeyObject> {
    fn from(key: &KeyView) -> Self {
        Self { object: key.into(), version: key.stored.as_ref().map(|stored| stored.version) }
    }
}

impl From<&TeamView> for VersionedObject<TeamObject> {
    fn from(team: &TeamView) -> Self {
        Self { object: team.into(), version: team.stored.as_ref().map(|stored| stored.version) }
    }
}
