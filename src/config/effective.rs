//! The effective configuration, as `config show` prints it.
//!
//! It holds no secret: a secret, or what a reference was resolved to, is already masked here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::reader::{DisplayValue, EffectiveSetting, SettingOrigin};
use crate::domain::secret::{MASK, without_credentials};

/// Where the trailing comments begin, unless a line is longer.
const COMMENT_COLUMN: usize = 48;

/// Every setting with its value and where that came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectiveConfig {
    source: String,
    entries: Vec<EffectiveSetting>,
}

impl EffectiveConfig {
    pub(super) fn new(source: String, entries: Vec<EffectiveSetting>) -> Self {
        let masked = |text: &str| without_credentials(text).into_owned();
        let entries = entries.into_iter().map(|entry| EffectiveSetting {
            header: masked(&entry.header),
            table: masked(&entry.table),
            name: masked(&entry.name),
            value: without_credentials_in(entry.value),
            origin: entry.origin,
        });
        Self { source, entries: entries.collect() }
    }

    /// Each setting, in the order of the schema and, within it, of the file.
    pub fn entries(&self) -> &[EffectiveSetting] {
        &self.entries
    }

    /// The file it was read from, or what stands for one.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What tells it from others: the first twelve hex digits of the SHA-256 of every setting with its value, secrets
    /// masked, and of `besides`. It is the same wherever a value comes from.
    pub fn version(&self, besides: &str) -> String {
        let values = self.values();
        let settings = values.iter().map(|(setting, value)| format!("{setting} = {value}\n"));
        let text: String = settings.chain([besides.to_owned()]).collect();
        Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every setting by its name, with its value as TOML and where that came from: `default`, `file, line 3` or
    /// `env TIERWAY__SERVER__LISTEN`.
    pub fn settings(&self) -> impl Iterator<Item = (String, String, String)> {
        self.entries.iter().map(|entry| (setting(entry), toml(&entry.value), self.origin(&entry.origin)))
    }

    /// The settings that are different in `other`, by name, each with its value here and there: at most 500 characters
    /// of it; `None` where it is not set.
    pub fn differences(&self, other: &Self) -> Vec<(String, Option<String>, Option<String>)> {
        let (here, there) = (self.values(), other.values());
        let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let short = |value: &String| value.chars().take(500).collect::<String>();
        let differ = names.into_iter().filter(|name| here.get(*name) != there.get(*name));
        differ.map(|name| (name.clone(), here.get(name).map(short), there.get(name).map(short))).collect()
    }

    /// Every setting by its name, with its value as TOML.
    fn values(&self) -> BTreeMap<String, String> {
        self.settings().map(|(setting, value, _)| (setting, value)).collect()
    }

    /// As TOML, each value's origin in a trailing comment.
    pub fn to_toml(&self) -> String {
        let mut out = format!("# {}\n", self.source);
        for (header, entries) in self.by_table() {
            let _ = writeln!(out, "\n{header}");
            for entry in entries {
                let line = format!("{} = {}", key(&entry.name), toml(&entry.value));
                let _ = writeln!(out, "{line:<COMMENT_COLUMN$} # {}", self.origin(&entry.origin));
            }
        }
        out
    }

    /// As a JSON array of `{ setting, value, origin }`.
    pub fn to_json(&self) -> Value {
        let one = |entry: &EffectiveSetting| {
            json!({
                "setting": setting(entry),
                "value": json(&entry.value),
                "origin": self.origin(&entry.origin),
            })
        };
        self.entries.iter().map(one).collect()
    }

    /// Entries grouped by table, tables in order of first appearance.
    fn by_table(&self) -> Vec<(&str, Vec<&EffectiveSetting>)> {
        let mut tables: Vec<(&str, &str, Vec<&EffectiveSetting>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for entry in &self.entries {
            let at = *places.entry(entry.table.as_str()).or_insert_with(|| {
                tables.push((&entry.table, &entry.header, Vec::new()));
                tables.len() - 1
            });
            tables[at].2.push(entry);
        }
        tables.into_iter().map(|(_, header, entries)| (header, entries)).collect()
    }

    fn origin(&self, origin: &SettingOrigin) -> String {
        match origin {
            SettingOrigin::Default => "default".to_owned(),
            SettingOrigin::File(line) => format!("file, line {line}"),
            SettingOrigin::Env(name) => format!("env {name}"),
        }
    }
}

/// `value` without secrets in the wrong place.
fn without_credentials_in(value: DisplayValue) -> DisplayValue {
    match value {
        DisplayValue::Text(text) => DisplayValue::Text(without_credentials(&text).into_owned()),
        DisplayValue::List(items) => DisplayValue::List(items.into_iter().map(without_credentials_in).collect()),
        other => other,
    }
}

/// The name of a setting with its table's.
fn setting(entry: &EffectiveSetting) -> String {
    format!("{}.{}", entry.table, key(&entry.name))
}

fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.bytes().all(bare) {
        return name.to_owned();
    }
    format!("{name:?}")
}

pub(super) fn toml(value: &DisplayValue) -> String {
    match value {
        DisplayValue::Text(text) => format!("{text:?}"),
        DisplayValue::Number(number) => number.to_string(),
        DisplayValue::Flag(flag) => flag.to_string(),
        DisplayValue::List(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        DisplayValue::Masked => format!("{MASK:?}"),
    }
}

pub(super) fn json(value: &DisplayValue) -> Value {
    match value {
        DisplayValue::Text(text) => json!(text),
        DisplayValue::Number(number) => json!(number),
        DisplayValue::Flag(flag) => json!(flag),
        DisplayValue::List(items) => items.iter().map(json).collect(),
        DisplayValue::Masked => json!(MASK),
    }
}
