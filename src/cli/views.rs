//! Keys, teams and credit as JSON: the admin API's own objects, and the `version` that it has as an ETag.

use crate::admin::{KeyView, TeamView};
use crate::http::admin::shapes;
use serde_json::Value;

pub(super) use crate::http::admin::shapes::{balance, grant, list};

/// A key: what it has of its own, and what holds together with its policy.
pub(super) fn key(key: &KeyView) -> Value {
    versioned(shapes::key(key), key.stored.as_ref().map(|stored| stored.version))
}

/// A team.
pub(super) fn team(team: &TeamView) -> Value {
    versioned(shapes::team(team), team.stored.as_ref().map(|stored| stored.version))
}

fn versioned(mut shape: Value, version: Option<i64>) -> Value {
    shape["version"] = version.into();
    shape
}
