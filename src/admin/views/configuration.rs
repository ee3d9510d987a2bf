//! The active configuration as a JSON object of the admin API.
//!
//! It holds no secret: neither the effective configuration nor the problems of a refused one does.

use super::UtcTime;
use crate::admin::configuration_version;
use crate::config::{RefusedConfig, Snapshot};
use schemars::JsonSchema;

/// The configuration that is active, and the changed one that was refused.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Configuration", deny_unknown_fields)]
pub struct ConfigurationObject {
    #[schemars(extend("const" = "configuration"))]
    object: &'static str,
    /// The file it was read from, or what stands for one.
    source: String,
    /// What tells it from others; rows of the audit have the same.
    version: String,
    /// Every setting, those that are not written too.
    settings: Vec<SettingObject>,
    /// The changed file that is not applied, since it has problems; null where there is none.
    refused: Option<RefusedObject>,
}

/// A setting with its value.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Setting", deny_unknown_fields)]
struct SettingObject {
    setting: String,
    /// As TOML; a secret is masked.
    value: String,
    /// `default`, `file, line 3` or `env TIERWAY__SERVER__LISTEN`.
    origin: String,
}

/// A changed configuration that was refused.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "RefusedConfiguration", deny_unknown_fields)]
struct RefusedObject {
    time: UtcTime,
    /// What is wrong and what to do, in lines, as the log has it.
    problems: String,
}

impl ConfigurationObject {
    /// What `snapshot` has, and `refused`.
    pub fn of(snapshot: &Snapshot, refused: Option<&RefusedConfig>) -> Self {
        let one = |(setting, value, origin)| SettingObject { setting, value, origin };
        let refused =
            refused.map(|one| RefusedObject { time: UtcTime::of(one.at_unix_ms), problems: one.problems.clone() });
        Self {
            object: "configuration",
            source: snapshot.effective.source().to_owned(),
            version: configuration_version(snapshot),
            settings: snapshot.effective.settings().map(one).collect(),
            refused,
        }
    }
}
