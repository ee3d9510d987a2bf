//! Two schemas that both apply, as one.

use serde_json::{Map, Value, json};

/// Adds the rule `keyword` to `rules`, so that both it and what is there are kept.
pub(super) fn add_rule(rules: &mut Map<String, Value>, keyword: &str, rule: &Value) {
    let Some(known) = rules.get_mut(keyword) else {
        rules.insert(keyword.to_owned(), rule.clone());
        return;
    };
    match keyword {
        "properties" | "patternProperties" => {
            let (Some(known), Some(more)) = (known.as_object_mut(), rule.as_object()) else { return };
            for (name, schema) in more {
                let both = known.get(name).map_or_else(|| schema.clone(), |known| both(known, schema));
                known.insert(name.clone(), both);
            }
        }
        "items" | "additionalProperties" | "contains" => *known = both(known, rule),
        "required" => {
            let more = list(rule).iter().filter(|name| !list(known).contains(name)).cloned().collect::<Vec<_>>();
            known.as_array_mut().into_iter().for_each(|known| known.extend(more.iter().cloned()));
        }
        "enum" => *known = list(known).iter().filter(|value| list(rule).contains(value)).cloned().collect(),
        "type" => *known = shared_types(known, rule),
        "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" | "multipleOf" => {
            if rule.as_f64() > known.as_f64() {
                *known = rule.clone();
            }
        }
        "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
            if rule.as_f64() < known.as_f64() {
                *known = rule.clone();
            }
        }
        _ => *known = rule.clone(),
    }
}

fn both(one: &Value, other: &Value) -> Value {
    json!({ "allOf": [one, other] })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The types of a `type`, which is one or a list of them.
pub(super) fn types(rule: &Value) -> Vec<&str> {
    match rule {
        Value::String(one) => vec![one],
        several => list(several).iter().filter_map(Value::as_str).collect(),
    }
}

fn shared_types(one: &Value, other: &Value) -> Value {
    let (one, other) = (types(one), types(other));
    let narrower = |name: &&str| -> Option<String> {
        match *name {
            name if other.contains(&name) => Some(name.to_owned()),
            "integer" if other.contains(&"number") => Some("integer".to_owned()),
            "number" if other.contains(&"integer") => Some("integer".to_owned()),
            _ => None,
        }
    };
    one.iter().filter_map(narrower).collect()
}
