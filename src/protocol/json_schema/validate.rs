//! Whether a schema allows a value.

use super::merge::types;
use super::{DEEPEST, resolved};
use serde_json::{Map, Value};
use std::cell::Cell;

/// How many schemas are applied to one value; what is beyond allows everything.
const MOST_STEPS: u32 = 100_000;

/// Validates values by the schemas of one document.
pub(super) struct SchemaValidator<'s> {
    root: &'s Value,
    steps: Cell<u32>,
}

impl<'s> SchemaValidator<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, steps: Cell::new(0) }
    }

    /// Whether the whole document allows `value`.
    pub(super) fn allows_document(&self, value: &Value) -> bool {
        self.allows(self.root, value, 0)
    }

    fn allows(&self, schema: &Value, value: &Value, depth: u32) -> bool {
        self.steps.set(self.steps.get().saturating_add(1));
        if depth > 2 * DEEPEST || self.steps.get() > MOST_STEPS {
            return true;
        }
        match schema {
            Value::Bool(allowed) => *allowed,
            Value::Object(rules) => rules.iter().all(|(keyword, rule)| {
                self.keeps_combination(keyword, rule, rules, value, depth)
                    && keeps_plain(keyword, rule, value)
                    && match value {
                        Value::Array(items) => self.keeps_list(keyword, rule, rules, items, depth),
                        Value::Object(members) => self.keeps_object(keyword, rule, rules, members, depth),
                        _ => true,
                    }
            }),
            _ => true,
        }
    }

    fn keeps_combination(
        &self,
        keyword: &str,
        rule: &Value,
        rules: &Map<String, Value>,
        value: &Value,
        depth: u32,
    ) -> bool {
        let allows = |schema: &Value| self.allows(schema, value, depth + 1);
        let schemas = rule.as_array().map_or(&[][..], Vec::as_slice);
        match keyword {
            "$ref" => resolved(self.root, rule).is_none_or(allows),
            "allOf" => schemas.iter().all(allows),
            "anyOf" => schemas.iter().any(allows),
            "oneOf" => schemas.iter().filter(|schema| allows(schema)).count() == 1,
            "not" => !allows(rule),
            "if" => rules.get(if allows(rule) { "then" } else { "else" }).is_none_or(allows),
            _ => true,
        }
    }

    fn keeps_list(&self, keyword: &str, rule: &Value, rules: &Map<String, Value>, items: &[Value], depth: u32) -> bool {
        let allows = |schema: &Value, item: &Value| self.allows(schema, item, depth + 1);
        let firsts = ["prefixItems", "items"].iter().find_map(|keyword| rules.get(*keyword)?.as_array());
        let firsts = firsts.map_or(&[][..], Vec::as_slice);
        match (keyword, rule) {
            ("minItems", _) => rule.as_f64().is_none_or(|least| items.len() as f64 >= least),
            ("maxItems", _) => rule.as_f64().is_none_or(|most| items.len() as f64 <= most),
            ("uniqueItems", Value::Bool(true)) => !(1..items.len()).any(|at| items[..at].contains(&items[at])),
            ("contains", _) => {
                let least = rules.get("minContains").and_then(Value::as_f64).unwrap_or(1.0);
                items.iter().filter(|item| allows(rule, item)).count() as f64 >= least
            }
            ("prefixItems" | "items", Value::Array(schemas)) => {
                schemas.iter().zip(items).all(|(schema, item)| allows(schema, item))
            }
            ("items" | "additionalItems", _) => items.iter().skip(firsts.len()).all(|item| allows(rule, item)),
            _ => true,
        }
    }

    fn keeps_object(
        &self,
        keyword: &str,
        rule: &Value,
        rules: &Map<String, Value>,
        members: &Map<String, Value>,
        depth: u32,
    ) -> bool {
        let allows = |schema: &Value, member: &Value| self.allows(schema, member, depth + 1);
        let of_pattern = |name: &str| {
            let patterns = rules.get("patternProperties").and_then(Value::as_object);
            patterns.is_some_and(|patterns| patterns.keys().any(|pattern| matches(pattern, name)))
        };
        let is_named = |name: &str| rules.get("properties").is_some_and(|named| named.get(name).is_some());
        match (keyword, rule) {
            ("required", Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).all(|name| members.contains_key(name))
            }
            ("properties", Value::Object(named)) => {
                named.iter().all(|(name, schema)| members.get(name).is_none_or(|member| allows(schema, member)))
            }
            ("patternProperties", Value::Object(patterns)) => patterns.iter().all(|(pattern, schema)| {
                members.iter().all(|(name, member)| !matches(pattern, name) || allows(schema, member))
            }),
            ("additionalProperties", _) => {
                let mut others = members.iter().filter(|(name, _)| !is_named(name) && !of_pattern(name));
                others.all(|(_, member)| allows(rule, member))
            }
            ("propertyNames", _) => members.keys().all(|name| allows(rule, &Value::from(name.as_str()))),
            ("minProperties", _) => rule.as_f64().is_none_or(|least| members.len() as f64 >= least),
            ("maxProperties", _) => rule.as_f64().is_none_or(|most| members.len() as f64 <= most),
            ("dependentRequired", Value::Object(needed)) => needed.iter().all(|(name, needs)| {
                let all_there = |needs: &Vec<Value>| {
                    needs.iter().filter_map(Value::as_str).all(|needed| members.contains_key(needed))
                };
                !members.contains_key(name) || needs.as_array().is_none_or(all_there)
            }),
            _ => true,
        }
    }
}

/// Rules that need no other schema.
fn keeps_plain(keyword: &str, rule: &Value, value: &Value) -> bool {
    let number = |keeps: fn(f64, f64) -> bool| match (value.as_f64(), rule.as_f64()) {
        (Some(found), Some(bound)) => keeps(found, bound),
        _ => true,
    };
    let length = |keeps: fn(f64, f64) -> bool| match (value.as_str(), rule.as_f64()) {
        (Some(text), Some(bound)) => keeps(text.chars().count() as f64, bound),
        _ => true,
    };
    match keyword {
        "type" => types(rule).into_iter().any(|name| is_a(name, value)),
        "const" => rule == value,
        "enum" => rule.as_array().is_none_or(|values| values.contains(value)),
        "minimum" => number(|found, bound| found >= bound),
        "maximum" => number(|found, bound| found <= bound),
        // A flag beside `minimum` in older drafts.
        "exclusiveMinimum" => number(|found, bound| found > bound),
        "exclusiveMaximum" => number(|found, bound| found < bound),
        "multipleOf" => number(|found, bound| bound == 0.0 || (found / bound - (found / bound).round()).abs() < 1e-9),
        "minLength" => length(|found, bound| found >= bound),
        "maxLength" => length(|found, bound| found <= bound),
        "pattern" => match (value, rule) {
            (Value::String(text), Value::String(pattern)) => matches(pattern, text),
            _ => true,
        },
        _ => true,
    }
}

pub(super) fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

/// A pattern of another dialect matches everything.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).map_or(true, |pattern| pattern.is_match(text))
}
