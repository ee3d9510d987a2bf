//! As much of JSON Schema as our own schemas use, so that the tests need no more than they prove.
//!
//! It must never skip a keyword: one that it does not know is a failure of the test.

use regex::Regex;
use serde_json::Value;

/// Everything about `value` that `schema` does not allow, each with its path.
pub(crate) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let rules = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in rules {
        let fault = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" => false,
            "type" => !is_a(rule, value),
            "enum" => !list(rule).contains(value),
            "const" => rule != value,
            "not" => faults(rule, value).is_empty(),
            "format" => rule != "date-time" || value.as_str().is_some_and(|text| !fits(&MOMENT.into(), text)),
            "maxLength" => value.as_str().is_some_and(|text| (text.chars().count() as u64) > number(rule)),
            "minItems" => value.as_array().is_some_and(|items| (items.len() as u64) < number(rule)),
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                items.iter().enumerate().any(|(at, item)| items[..at].contains(item))
            }
            "minLength" => value.as_str().is_some_and(|text| (text.chars().count() as u64) < number(rule)),
            "pattern" => value.as_str().is_some_and(|text| !fits(rule, text)),
            "minimum" => value.as_u64().is_none_or(|found| found < number(rule)) && value.is_number(),
            "maximum" => value.as_u64().is_some_and(|found| found > number(rule)),
            "required" => {
                let missing = |name: &Value| value.get(name.as_str().expect("a name")).is_none();
                value.is_object() && list(rule).iter().any(missing)
            }
            "anyOf" => !list(rule).iter().any(|one| faults(one, value).is_empty()),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items.for_each(|(index, item)| check(rule, item, &format!("{path}[{index}]"), found));
                false
            }
            "properties" | "additionalProperties" => false,
            unknown => panic!("the schema uses {unknown}, which this test does not know"),
        };
        if fault {
            found.push(format!("{path}: {keyword} {rule}"));
        }
    }
    for (name, item) in value.as_object().into_iter().flatten() {
        let at = format!("{path}.{name}");
        match (rules.get("properties").and_then(|all| all.get(name)), rules.get("additionalProperties")) {
            (Some(rule), _) => check(rule, item, &at, found),
            (None, Some(Value::Bool(false))) => found.push(format!("{at}: no such setting")),
            (None, Some(rule)) => check(rule, item, &at, found),
            (None, None) => {}
        }
    }
}

/// A time as RFC 3339 has it, in UTC.
const MOMENT: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$";

fn is_a(kind: &Value, value: &Value) -> bool {
    if let Some(kinds) = kind.as_array() {
        return kinds.iter().any(|kind| is_a(kind, value));
    }
    match kind.as_str().expect("one type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        unknown => panic!("the schema uses the type {unknown}"),
    }
}

fn fits(pattern: &Value, text: &str) -> bool {
    Regex::new(pattern.as_str().expect("a pattern")).expect("a regular expression").is_match(text)
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().expect("an array")
}

fn number(rule: &Value) -> u64 {
    rule.as_u64().expect("a whole number")
}
