//! Input of operators, read field by field from a JSON body or from a query.
//!
//! Each field is described once: the reader and the OpenAPI document use the same description. A field that is unknown,
//! given twice or invalid is refused and named; no value is guessed or corrected.
//!
//! Start reading at [`Field`], then [`InputFields`].

use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;

/// One field of a body or a query.
pub struct Field<T: 'static> {
    /// Its name.
    pub name: &'static str,
    /// The values it takes.
    pub is: &'static ValueType<T>,
    /// Whether it must be present.
    pub need: PresenceKind,
    /// Its description for the document, in a sentence.
    pub about: &'static str,
}

/// A type of values.
pub struct ValueType<T> {
    /// Reads a value.
    pub read: fn(&InputValue) -> Result<T, InputError>,
    /// The JSON Schema of its values.
    pub schema: fn() -> Value,
}

/// Whether a field must be present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PresenceKind {
    /// It must be present, and not null.
    Required,
    /// It may be absent, and must not be null.
    Optional,
    /// It may be absent or null; null removes the value.
    Nullable,
}

/// A field, whatever the type of its values.
pub trait DescribedField: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Whether it must be present.
    fn need(&self) -> PresenceKind;
    /// Its description.
    fn about(&self) -> &'static str;
    /// The JSON Schema of its values, without null.
    fn schema(&self) -> Value;
}

impl<T> DescribedField for Field<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn need(&self) -> PresenceKind {
        self.need
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn schema(&self) -> Value {
        (self.is.schema)()
    }
}

/// The schema of an object of `fields`.
pub(super) fn object(fields: &[&dyn DescribedField]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name().to_owned(), property(*field))).collect();
    let required: Vec<_> =
        fields.iter().filter(|field| field.need() == PresenceKind::Required).map(|field| field.name()).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &dyn DescribedField) -> Value {
    let mut schema = field.schema();
    if field.need() == PresenceKind::Nullable {
        schema = or_null(schema);
    }
    schema["description"] = field.about().into();
    schema
}

fn or_null(mut schema: Value) -> Value {
    match schema["type"].take() {
        Value::String(plain) => {
            schema["type"] = json!([plain, "null"]);
            if let Some(known) = schema.get_mut("enum").and_then(Value::as_array_mut) {
                known.push(Value::Null);
            }
            schema
        }
        _ => {
            if let Some(members) = schema.as_object_mut() {
                members.remove("type");
            }
            json!({ "anyOf": [schema, { "type": "null" }] })
        }
    }
}

/// A field that is invalid, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputError {
    /// The path of the field, with dots between its parts; empty for the whole value.
    pub at: String,
    /// What is wrong, as the end of a sentence that begins with the field.
    pub what: String,
}

impl InputError {
    /// An error about the whole value.
    pub fn value(what: impl Into<String>) -> Self {
        Self { at: String::new(), what: what.into() }
    }

    /// An error about the field called `name`.
    pub fn field(name: &str, what: impl Into<String>) -> Self {
        Self { at: name.to_owned(), what: what.into() }
    }

    fn within(self, name: &str) -> Self {
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{name}.{}", self.at) };
        Self { at, ..self }
    }
}

/// The fields of one body or query. All of them are known, and none is present twice.
#[derive(Default, Debug)]
pub struct InputFields {
    values: Vec<(String, InputValue)>,
}

impl InputFields {
    /// The members of an object, which must all be among `fields`.
    ///
    /// # Errors
    /// The first field that is unknown or present twice.
    pub fn of(node: &InputValue, fields: &[&dyn DescribedField]) -> Result<Self, InputError> {
        let InputValue::Object(values) = node else { return Err(InputError::value("is not an object")) };
        Self::known(values.clone(), fields)
    }

    /// The parameters of a query, which must all be among `fields`.
    ///
    /// # Errors
    /// The first parameter that is unknown, present twice or not UTF-8.
    pub fn of_query(query: &str, fields: &[&dyn DescribedField]) -> Result<Self, InputError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let values = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).ok_or_else(|| InputError::field(name, "is not UTF-8"))?;
            let value = decoded(value).ok_or_else(|| InputError::field(&name, "is not UTF-8"))?;
            Ok((name, InputValue::Text(value)))
        });
        Self::known(values.collect::<Result<_, _>>()?, fields)
    }

    fn known(values: Vec<(String, InputValue)>, fields: &[&dyn DescribedField]) -> Result<Self, InputError> {
        for (at, (name, _)) in values.iter().enumerate() {
            if !fields.iter().any(|field| field.name() == name) {
                let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
                let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
                // An empty path would mean the whole value.
                let shown = if name.is_empty() { "\"\"" } else { name };
                return Err(InputError::field(shown, format!("is not known here; known are: {known}")));
            }
            if values[..at].iter().any(|(before, _)| before == name) {
                return Err(InputError::field(name, "is given twice"));
            }
        }
        Ok(Self { values })
    }

    /// The value of a required field.
    ///
    /// # Errors
    /// The field is absent or invalid.
    pub fn required<T>(&self, field: &Field<T>) -> Result<T, InputError> {
        self.optional(field)?.ok_or_else(|| InputError::field(field.name, "is missing"))
    }

    /// The value of an optional field.
    ///
    /// # Errors
    /// The field is invalid.
    pub fn optional<T>(&self, field: &Field<T>) -> Result<Option<T>, InputError> {
        Ok(self.change(field)?.flatten())
    }

    /// The value of an optional field: `None` if it is absent, `Some(None)` if it is null.
    ///
    /// # Errors
    /// The field is invalid.
    pub fn change<T>(&self, field: &Field<T>) -> Result<Option<Option<T>>, InputError> {
        match self.values.iter().find(|(name, _)| name == field.name) {
            None => Ok(None),
            Some((_, InputValue::Null)) if field.need == PresenceKind::Nullable => Ok(Some(None)),
            Some((_, InputValue::Null)) => Err(InputError::field(field.name, "is null")),
            Some((_, node)) => (field.is.read)(node).map(|value| Some(Some(value))).map_err(|w| w.within(field.name)),
        }
    }
}

/// A JSON value that keeps duplicate members, so that they can be refused.
#[derive(Clone, PartialEq, Debug)]
pub enum InputValue {
    /// `null`
    Null,
    /// `true` or `false`
    Flag(bool),
    /// A number without sign, fraction or exponent.
    Whole(u64),
    /// Any other number.
    OtherNumber,
    /// A string.
    Text(String),
    /// An array.
    List,
    /// An object, its members in the order they were sent.
    Object(Vec<(String, InputValue)>),
}

impl InputValue {
    /// The string.
    ///
    /// # Errors
    /// It is not a string.
    pub fn text(&self) -> Result<&str, InputError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(InputError::value("is not a string")),
        }
    }
}

impl<'de> Deserialize<'de> for InputValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputValueVisitor;

        impl<'de> Visitor<'de> for InputValueVisitor {
            type Value = InputValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<InputValue, E> {
                Ok(InputValue::Null)
            }

            fn visit_bool<E>(self, flag: bool) -> Result<InputValue, E> {
                Ok(InputValue::Flag(flag))
            }

            fn visit_u64<E>(self, number: u64) -> Result<InputValue, E> {
                Ok(InputValue::Whole(number))
            }

            fn visit_i64<E>(self, _: i64) -> Result<InputValue, E> {
                Ok(InputValue::OtherNumber)
            }

            fn visit_f64<E>(self, _: f64) -> Result<InputValue, E> {
                Ok(InputValue::OtherNumber)
            }

            fn visit_str<E>(self, text: &str) -> Result<InputValue, E> {
                Ok(InputValue::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<InputValue, A::Error> {
                while items.next_element::<InputValue>()?.is_some() {}
                Ok(InputValue::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<InputValue, A::Error> {
                let mut values = Vec::new();
                while let Some(member) = members.next_entry()? {
                    values.push(member);
                }
                Ok(InputValue::Object(values))
            }
        }

        deserializer.deserialize_any(InputValueVisitor)
    }
}

/// A name or value of a query, decoded; `None` where that is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let spaces = text.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static WORD: ValueType<String> = ValueType { read: |node| node.text().map(str::to_owned), schema: || json!({}) };
    static ONE: Field<String> = Field { name: "one", is: &WORD, need: PresenceKind::Required, about: "" };
    static TWO: Field<String> = Field { name: "two", is: &WORD, need: PresenceKind::Nullable, about: "" };

    fn read(input: Result<InputFields, InputError>) -> Result<(String, Option<Option<String>>), String> {
        let read = |input: InputFields| Ok((input.required(&ONE)?, input.change(&TWO)?));
        input.and_then(read).map_err(|wrong| format!("{} {}", wrong.at, wrong.what))
    }

    #[test]
    fn a_body_is_read_field_by_field() {
        let check = |body: &str, expected: Result<(&str, Option<Option<&str>>), &str>| {
            let node: InputValue = serde_json::from_str(body).unwrap();
            let expected = expected.map(|(one, two)| (one.to_owned(), two.map(|two| two.map(str::to_owned))));
            assert_eq!(read(InputFields::of(&node, &[&ONE, &TWO])), expected.map_err(str::to_owned), "{body}");
        };
        check(r#"{"one":"a"}"#, Ok(("a", None)));
        check(r#"{"two":null,"one":""}"#, Ok(("", Some(None))));
        check(r#"{"one":"a","two":"b"}"#, Ok(("a", Some(Some("b")))));
        check(r#"{"two":"b"}"#, Err("one is missing"));
        check(r#"{"one":null}"#, Err("one is null"));
        check(r#"{"one":"a","\u006fne":"a"}"#, Err("one is given twice"));
        check(r#"{"one":"a","three":1}"#, Err("three is not known here; known are: one, two"));
        check(r#"{"one":"a","":1}"#, Err("\"\" is not known here; known are: one, two"));
        for wrong in ["1", "-1", "1.5", "true", "[]", "{}"] {
            check(&format!(r#"{{"one":{wrong}}}"#), Err("one is not a string"));
        }
        check("[]", Err(" is not an object"));
    }

    #[test]
    fn a_query_is_read_like_a_body() {
        let check = |query: &str, expected: Result<(&str, Option<Option<&str>>), &str>| {
            let expected = expected.map(|(one, two)| (one.to_owned(), two.map(|two| two.map(str::to_owned))));
            assert_eq!(read(InputFields::of_query(query, &[&ONE, &TWO])), expected.map_err(str::to_owned), "{query}");
        };
        check("one=a&two=b", Ok(("a", Some(Some("b")))));
        check("&one=a%2Fb+c%&", Ok(("a/b c%", None)));
        check("%6fne=%C3%A9", Ok(("é", None)));
        check("one", Ok(("", None)));
        check("one=%ff", Err("one is not UTF-8"));
        check("one=a&one=b", Err("one is given twice"));
        check("", Err("one is missing"));
        check("One=a", Err("One is not known here; known are: one, two"));
    }
}
