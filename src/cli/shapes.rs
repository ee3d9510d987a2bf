//! Keys and teams as JSON: the objects of the admin API, with the `version` that it has as an ETag.

use crate::admin::{KeyView, TeamView};
use crate::http::admin::shapes;
use serde_json::{Value, json};

pub(super) use crate::http::admin::shapes::{balance, grant, list};

/// A key.
pub(super) fn key(key: &KeyView) -> Value {
    with_version(shapes::key(key), key.stored.as_ref().map(|stored| stored.version))
}

/// A team.
pub(super) fn team(team: &TeamView) -> Value {
    with_version(shapes::team(team), team.stored.as_ref().map(|stored| stored.version))
}

fn with_version(mut shape: Value, version: Option<i64>) -> Value {
    shape["version"] = json!(version);
    shape
}
