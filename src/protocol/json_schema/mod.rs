//! JSON Schema, as far as requests describe by it what a model is to write: an example of what a schema allows.
//!
//! It is for answers that are made up and must fit all the same. A keyword that it does not know narrows nothing. A
//! schema comes from a client: whatever it refers to, the work is bounded.
//!
//! Start reading in [`example`].

mod generate;
mod in_text;
mod merge;
mod pattern;
mod validate;

use crate::domain::random::RandomValue;
use generate::SchemaGenerator;
pub use in_text::schema_in_text;
use serde_json::Value;
use validate::SchemaValidator;

/// How many examples are tried: what is drawn may break a rule that only a whole value shows, such as `not`.
const CANDIDATES: u64 = 32;
/// How deep schemas are followed into each other.
const DEEPEST: u32 = 64;

/// A value that `schema` allows, the same for the same `seed`. Of a schema that allows none, or that asks for what
/// this cannot find, it is some value.
pub fn example(schema: &Value, seed: RandomValue) -> Value {
    let candidate = |nth: u64| SchemaGenerator::new(schema, seed.salted(nth), nth).document();
    let first = candidate(0);
    if SchemaValidator::new(schema).allows_document(&first) {
        return first;
    }
    (1..CANDIDATES).map(candidate).find(|value| SchemaValidator::new(schema).allows_document(value)).unwrap_or(first)
}

/// What `reference` points at in `root`: `#`, `#/` and the names on the way, or `#` and an anchor of a definition.
fn resolved<'s>(root: &'s Value, reference: &Value) -> Option<&'s Value> {
    let pointer = reference.as_str()?.strip_prefix('#')?;
    let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
    let definitions = || root.get("$defs")?.as_object();
    let anchored =
        || definitions()?.values().find(|schema| schema.get("$anchor").is_some_and(|name| *name == *pointer));
    root.pointer(&pointer).or_else(anchored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Checks that what is made up for `schema` is allowed by it, for many seeds, and looks like `expected` for one.
    #[track_caller]
    fn check(schema: Value, expected: impl Fn(&Value) -> bool) {
        for seed in 0..50 {
            let made = example(&schema, RandomValue(seed));
            assert!(expected(&made), "{schema} makes {made}");
            assert!(SchemaValidator::new(&schema).allows_document(&made), "{schema} does not allow {made}");
        }
    }

    #[test]
    fn plain_types_and_their_bounds() {
        check(json!({}), Value::is_object);
        check(json!({"type": "string"}), |made| made.as_str().is_some_and(|text| !text.is_empty()));
        check(json!({"type": "string", "maxLength": 3, "minLength": 3}), |made| {
            made.as_str().is_some_and(|t| t.len() == 3)
        });
        check(json!({"type": "string", "minLength": 400}), |made| made.as_str().is_some_and(|text| text.len() >= 400));
        check(json!({"type": "integer", "minimum": 5, "maximum": 7}), |made| (5..=7).contains(&made.as_i64().unwrap()));
        check(json!({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7}), |made| *made == 6);
        check(json!({"type": "integer", "maximum": -3}), |made| made.as_i64().unwrap() <= -3);
        check(json!({"type": "integer", "minimum": 5, "multipleOf": 7}), |made| made.as_i64().unwrap() % 7 == 0);
        check(json!({"type": "number", "minimum": 0, "maximum": 1}), |made| {
            (0.0..=1.0).contains(&made.as_f64().unwrap())
        });
        check(json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}), |made| {
            made.as_f64().unwrap() < 1.0
        });
        check(json!({"type": "integer", "minimum": i64::MAX - 1}), |made| made.as_i64().unwrap() >= i64::MAX - 1);
        check(json!({"type": "boolean"}), Value::is_boolean);
        check(json!({"type": "null"}), Value::is_null);
        check(json!({"type": ["null", "integer"]}), Value::is_i64);
        check(json!({"const": {"a": 1}}), |made| *made == json!({"a": 1}));
        check(json!({"enum": ["a", 2, null]}), |made| [json!("a"), json!(2), json!(null)].contains(made));
        check(json!({"type": "integer", "enum": ["a", 2]}), |made| *made == 2);
    }

    #[test]
    fn texts_of_a_format_or_a_pattern() {
        for format in ["date-time", "date", "time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration"] {
            check(json!({"type": "string", "format": format}), |made| !made.as_str().unwrap().contains(' '));
        }
        for pattern in [
            "^[A-Z]{3}-\\d{4}$",
            "^(red|green)$",
            "[^a-z ]+",
            "^\\w+@\\w+\\.com$",
            "a{100}",
            "^.{5,}$",
            "x*",
            "^\\p{L}+$",
        ] {
            let expected = regex::Regex::new(pattern).expect("a pattern");
            check(json!({"type": "string", "pattern": pattern}), |made| expected.is_match(made.as_str().unwrap()));
        }
        let both = json!({"type": "string", "format": "email", "pattern": "^(?!x)[a-z]+@"});
        check(both, |made| *made == "river@example.com");
        let pattern_only = json!({"type": "string", "format": "date", "pattern": "^[A-Z]+$"});
        check(pattern_only, |made| made.as_str().unwrap().chars().all(char::is_uppercase));
        check(json!({"type": "string", "pattern": "^[a-z]+$", "minLength": 20}), |made| {
            made.as_str().unwrap().len() >= 20
        });
        check(json!({"type": "string", "pattern": "^(?=a)b$"}), Value::is_string);
    }

    #[test]
    fn lists_and_objects() {
        check(json!({"type": "array", "items": {"type": "integer"}}), |made| made[0].is_i64());
        check(json!({"type": "array", "items": {"type": "integer"}, "minItems": 4}), |made| {
            made.as_array().unwrap().len() >= 4
        });
        check(
            json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": true}),
            |made| made.as_array().unwrap().len() == 3,
        );
        check(json!({"type": "array", "maxItems": 0}), |made| *made == json!([]));
        check(json!({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}), |made| {
            made[1].is_string()
        });
        check(json!({"type": "array", "contains": {"const": 5}}), |made| made.as_array().unwrap().contains(&json!(5)));
        let named = json!({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"],
            "additionalProperties": false});
        check(named, |made| made["a"].is_i64() && made["b"].is_string());
        let patterns = json!({"type": "object", "patternProperties": {"^x-[0-9]+$": {"type": "integer"}},
            "additionalProperties": false, "minProperties": 2});
        check(patterns, |made| made.as_object().unwrap().iter().all(|(name, n)| name.starts_with("x-") && n.is_i64()));
        let names = json!({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "minProperties": 2});
        check(names, |made| made.get("a").is_some() && made.get("b").is_some());
        let few = json!({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "maxProperties": 2});
        check(few, |made| made.get("c").is_some() && made.as_object().unwrap().len() == 2);
        check(json!({"type": "number", "multipleOf": 0.1}), |made| (made.as_f64().unwrap() / 0.1).fract() == 0.0);
        check(json!({"type": "array", "contains": {"const": 5}, "minContains": 3}), |made| made[2] == 5);
        check(json!({"type": "object", "required": ["x"]}), |made| made.get("x").is_some());
        check(json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}), |made| {
            made.as_object().unwrap().len() >= 2 && made.as_object().unwrap().values().all(Value::is_i64)
        });
    }

    #[test]
    fn schemas_that_refer_to_and_combine_others() {
        let defs = json!({"$defs": {"color": {"enum": ["red"]}, "point~/": {"type": "integer"}}, "type": "object",
            "properties": {"c": {"$ref": "#/$defs/color", "description": "x"}, "p": {"$ref": "#/$defs/point~0~1"}},
            "required": ["c", "p"]});
        check(defs, |made| made["c"] == "red" && made["p"].is_i64());
        check(json!({"anyOf": [{"type": "null"}, {"type": "integer"}]}), |made| made.is_i64() || made.is_null());
        let anchored =
            json!({"$defs": {"x": {"$anchor": "n", "type": "integer"}}, "properties": {"a": {"$ref": "#n"}}});
        check(anchored, |made| made["a"].is_i64());
        let tagged = json!({"oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]}]});
        check(tagged, |made| ["a", "b"].contains(&made["kind"].as_str().unwrap()));
        check(json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), Value::is_number);
        let all = json!({"allOf": [{"type": "object", "properties": {"a": {"minimum": 3}}, "required": ["a"]},
            {"properties": {"a": {"type": "integer", "maximum": 3}, "b": {"type": "boolean"}}, "required": ["b"]}]});
        check(all, |made| made["a"] == 3 && made["b"].is_boolean());
        check(json!({"type": "integer", "minimum": 0, "maximum": 1, "not": {"const": 0}}), |made| *made == 1);
        check(json!({"properties": {"a": {"not": {"type": "string"}}}, "required": ["a"]}), |made| {
            !made["a"].is_string()
        });
        let needed = json!({"properties": {"a": {"type": "integer"}}, "dependentRequired": {"a": ["c"]}});
        check(needed, |made| made.get("c").is_some());
        let conditional = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
            "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "else": {"required": ["c"]}});
        check(conditional, |made| made.get(if made["a"] == 1 { "b" } else { "c" }).is_some());
    }

    #[test]
    fn schemas_without_end_are_bounded() {
        let tree = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"value": {"type": "string"}, "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["value", "left", "children"], "additionalProperties": false}}});
        check(tree, |made| made["children"].is_array() && made.to_string().len() < 200_000);
        let wide: serde_json::Map<String, Value> =
            (0..40).map(|nth| (format!("p{nth}"), json!({"$ref": "#"}))).collect();
        check(json!({"type": "object", "properties": wide}), |made| made.to_string().len() < 200_000);
        let some = |schema: Value| drop(example(&schema, RandomValue(1)));
        some(json!({"$ref": "#"}));
        some(json!({"$ref": "#/nowhere"}));
        some(json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}));
        some(json!({"required": ["a"], "properties": {"a": {"$ref": "#"}}}));
        some(json!({"type": "array", "minItems": 4_000_000_000_u64, "items": {"minItems": 1e300, "type": "array"}}));
        some(json!({"type": "string", "minLength": 4_000_000_000_u64, "pattern": "(a{1000}){1000}"}));
        some(json!({"type": "object", "minProperties": u64::MAX}));
        some(json!(false));
        let doubled: serde_json::Map<String, Value> = (0..60)
            .map(|nth| {
                let next = json!({"$ref": format!("#/$defs/d{}", nth + 1)});
                (format!("d{nth}"), json!({"allOf": [next.clone(), next]}))
            })
            .collect();
        some(json!({"$ref": "#/$defs/d0", "$defs": doubled}));
    }
}
