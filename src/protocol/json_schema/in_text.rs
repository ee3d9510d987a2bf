//! A schema that is written in a prompt, for programs that ask for JSON without saying which.

use serde_json::{Deserializer, Value};

/// How many braces may begin something else than a JSON value.
const MOST_OTHERS: u32 = 64;

/// The last schema of an object in `text`: examples come before what is meant.
pub fn schema_in_text(text: &str) -> Option<Value> {
    let (mut found, mut rest, mut others) = (None, text, 0);
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                rest = &rest[values.byte_offset()..];
                found = Some(value).filter(is_schema).or(found);
            }
            _ if others == MOST_OTHERS => break,
            _ => {
                rest = &rest[1..];
                others += 1;
            }
        }
    }
    found
}

fn is_schema(value: &Value) -> bool {
    let is_object = |keyword: &str| value.get(keyword).is_some_and(Value::is_object);
    is_object("properties") || (is_object("$defs") && value.get("$ref").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_schema_of_a_text_is_found() {
        let check = |text: &str, expected: Option<Value>| assert_eq!(schema_in_text(text), expected, "{text}");
        check("", None);
        check("{", None);
        check("Answer {name} in JSON like {\"answer\": 1}.", None);
        let schema = json!({"properties": {"a": {"type": "integer"}}});
        check(&format!("Use {{this}}:\n```json\n{schema}\n```\nand {{\"a\": 1}}"), Some(schema.clone()));
        check(&format!("For {{\"properties\": {{}}}} so, now {schema}"), Some(schema.clone()));
        check(
            "{\"$defs\": {\"a\": {}}, \"$ref\": \"#/$defs/a\"}",
            Some(json!({"$defs": {"a": {}}, "$ref": "#/$defs/a"})),
        );
        check(&format!("{}{schema}", "{".repeat(50)), Some(schema.clone()));
        check(&format!("{}{schema}", "{ ".repeat(1_000_000)), None);
    }
}
