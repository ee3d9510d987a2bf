//! The settings as a JSON Schema for editors, and row by row for documentation.
//!
//! Both are made from the catalogue that the reading itself fills; no setting may be named here.
//!
//! Start reading at [`schema`].

use serde_json::{Map, Value, json};

use super::effective::toml;
use super::reader::{ANY_NAME, SettingCatalogue, SettingDescription, SettingKind, SettingShape, SettingType};
use super::sections::describe;

/// The dialect that the schema is written in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A reference to a variable or a file, allowed in place of any text.
const REFERENCE: &str = "env:.+|file:/.+";

/// One setting, for documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingRow {
    /// Without positions: `models.NAME.deployments.weight`.
    pub path: String,
    /// Whether it is a table of settings, or an array of such tables.
    pub is_table: bool,
    /// Whether it is an array of tables.
    pub is_array: bool,
    /// What to write: `a duration such as "250ms"`; empty for a table.
    pub expected: String,
    /// As TOML.
    pub default: Option<String>,
    /// Whether it may not be absent where its table is there.
    pub is_required: bool,
    /// The environment variable that overrides it.
    pub variable: Option<String>,
    /// What it is for, and what would not happen where its feature is not built.
    pub sentence: String,
}

/// Every setting and table, in the order of the reading.
pub fn setting_rows() -> Vec<SettingRow> {
    let catalogue = describe();
    let row = |setting: &SettingDescription| SettingRow {
        path: setting.path.clone(),
        is_table: !matches!(setting.kind, SettingKind::Value(_) | SettingKind::List(_)),
        is_array: matches!(setting.kind, SettingKind::Tables(_)),
        expected: match &setting.kind {
            SettingKind::Value(kind) => kind.expected.to_owned(),
            SettingKind::List(kind) => format!("an array; each {}", kind.expected),
            SettingKind::Tables(Some(short)) => format!("an array of tables, or of {} each", short.expected),
            SettingKind::ShortOrTable(short) => format!("a table, or {}", short.expected),
            SettingKind::OneOrMore => "a table, or an array of tables".to_owned(),
            SettingKind::Table | SettingKind::Tables(None) => String::new(),
        },
        default: setting.default.as_ref().map(toml),
        is_required: catalogue.requires(&setting.path),
        variable: setting.variable.clone(),
        sentence: described_as(setting),
    };
    catalogue.settings.iter().map(row).collect()
}

/// The JSON Schema of the configuration.
///
/// What can only be known from the whole file, such as whether a name exists, is checked by
/// `tierway check`. In one respect the schema is stricter: arrays of tables are written as arrays.
pub fn schema() -> Value {
    let catalogue = describe();
    let mut schema = table(&catalogue, "");
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), json!(DIALECT));
    whole.insert("title".to_owned(), json!("Configuration of Tierway"));
    whole.append(&mut schema);
    Value::Object(whole)
}

/// The schema of the table at `path`; the document itself is at the empty path.
fn table(catalogue: &SettingCatalogue, path: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut others = json!(false);
    let mut required = Vec::new();
    for setting in &catalogue.settings {
        let Some(name) = child(path, &setting.path) else { continue };
        if name == ANY_NAME {
            others = described(catalogue, setting);
            continue;
        }
        properties.insert(name.to_owned(), described(catalogue, setting));
        if catalogue.requires(&setting.path) {
            required.push(name);
        }
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    schema.insert("additionalProperties".to_owned(), others);
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    for (_, names) in catalogue.either.iter().filter(|(table, _)| table == path) {
        let any: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
        schema.insert("anyOf".to_owned(), json!(any));
    }
    schema
}

/// The name of what lies at `path`, if that is directly in `table`.
fn child<'p>(table: &str, path: &'p str) -> Option<&'p str> {
    let name = if table.is_empty() { path } else { path.strip_prefix(table)?.strip_prefix('.')? };
    (!name.contains('.')).then_some(name)
}

fn described(catalogue: &SettingCatalogue, setting: &SettingDescription) -> Value {
    let mut schema = match &setting.kind {
        SettingKind::Value(kind) => value(kind),
        SettingKind::List(kind) => {
            let one = value(kind);
            object(json!({ "anyOf": [{ "type": "array", "items": one }, one] }))
        }
        SettingKind::Table => table(catalogue, &setting.path),
        SettingKind::ShortOrTable(short) => object(json!({ "anyOf": [value(short), table(catalogue, &setting.path)] })),
        SettingKind::OneOrMore => {
            let one = Value::Object(table(catalogue, &setting.path));
            object(json!({ "anyOf": [one, { "type": "array", "items": one }] }))
        }
        SettingKind::Tables(short) => {
            let one = Value::Object(table(catalogue, &setting.path));
            let items = match short {
                Some(short) => json!({ "anyOf": [value(short), one] }),
                None => one,
            };
            object(json!({ "type": "array", "items": items }))
        }
    };
    schema.insert("description".to_owned(), json!(described_as(setting)));
    if let Some(default) = &setting.default {
        schema.insert("default".to_owned(), super::effective::json(default));
    }
    Value::Object(schema)
}

fn described_as(setting: &SettingDescription) -> String {
    let sentence = setting.sentence;
    match (&setting.unbuilt, &setting.default) {
        (None, _) => sentence.to_owned(),
        (Some(why), None) => format!("{sentence} Not built yet: {why}."),
        (Some(why), Some(_)) => format!("{sentence} Not built yet beyond its default: {why}."),
    }
}

fn value(kind: &SettingType) -> Map<String, Value> {
    object(match &kind.shape {
        SettingShape::Text => json!({ "type": "string", "minLength": 1 }),
        SettingShape::Pattern(form) => json!({ "type": "string", "pattern": format!("^({REFERENCE}|{form})$") }),
        SettingShape::Reference => json!({ "type": "string", "pattern": format!("^({REFERENCE})$") }),
        SettingShape::Words(keywords) => {
            json!({ "anyOf": [{ "enum": keywords }, { "type": "string", "pattern": format!("^({REFERENCE})$") }] })
        }
        SettingShape::Flag => json!({ "type": "boolean" }),
        SettingShape::Integer { least, most } if *most == u64::MAX => json!({ "type": "integer", "minimum": least }),
        SettingShape::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        SettingShape::IntegerOrWord { least, most, word } => json!({ "anyOf": [
            { "type": "integer", "minimum": least, "maximum": most },
            { "type": "string", "pattern": format!("^({REFERENCE}|{word})$") },
        ] }),
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema of what is called `name` in the table, or the tables, that `schema` is of.
    fn inside<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
        let own = match name {
            ANY_NAME => schema.get("additionalProperties"),
            _ => schema.get("properties").and_then(|properties| properties.get(name)),
        };
        let items = || schema.get("items").and_then(|items| inside(items, name));
        let any = || schema.get("anyOf")?.as_array()?.iter().find_map(|one| inside(one, name));
        own.filter(|own| own.is_object()).or_else(items).or_else(any)
    }

    #[test]
    fn every_setting_that_is_read_has_a_sentence_in_schema_and_documentation() {
        let (catalogue, schema, rows) = (describe(), schema(), setting_rows());
        assert!(catalogue.settings.len() > 100, "found only {}", catalogue.settings.len());
        for setting in &catalogue.settings {
            let path = &setting.path;
            assert!(setting.sentence.ends_with(['.', '…']), "{path}: {}", setting.sentence);
            let found = path.split('.').try_fold(&schema, inside).unwrap_or_else(|| panic!("{path} has no schema"));
            assert_eq!(found["description"], described_as(setting), "{path}");
            assert!(rows.iter().any(|row| row.path == *path && row.sentence == described_as(setting)), "{path}");
        }
    }
}
