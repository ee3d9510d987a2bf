//! Reads a few members of a JSON object as they stand in its text, without building the rest.
//!
//! It never copies a value that nobody asks for, and never lets one of two members of the same name
//! win.
//!
//! Start reading in [`members`].

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::call::BodyProblem;

/// Reads the members of the object `text` that `paths` name, each path ending in the member's name
/// behind the dots that lead to it.
///
/// # Errors
/// [`BodyProblem::NotJson`] when `text` is not one object and nothing else;
/// [`BodyProblem::BadField`] for a member of `paths` given twice, in any escaping.
pub fn members<'a, const N: usize>(text: &'a str, paths: [&'static str; N]) -> Result<[Member<'a>; N], BodyProblem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Paths(paths).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    found.map_err(|error| BodyProblem::NotJson(format!("The body is not JSON: {error}.")))?
}

/// A member of an object, there or not: its path below the body, and its value if it is there.
pub struct Member<'a> {
    path: &'static str,
    /// The value as it stands in the text, `null` included.
    pub raw: Option<&'a RawValue>,
}

/// Reading the value: absent and `null` are the same, `None`; any other type than the one asked for is
/// [`BodyProblem::BadField`].
impl<'a> Member<'a> {
    /// It, whatever its type.
    pub fn given(&self) -> Option<&'a RawValue> {
        self.raw.filter(|raw| raw.get() != "null")
    }

    /// It, a string, unescaped.
    pub fn string(&self) -> Result<Option<Box<str>>, BodyProblem> {
        self.read("must be a string")
    }

    /// It, a truth value; `false` when absent.
    pub fn boolean(&self) -> Result<bool, BodyProblem> {
        Ok(self.read("must be true or false")?.unwrap_or(false))
    }

    /// It, a number without sign, fraction or exponent.
    pub fn whole_number(&self) -> Result<Option<u64>, BodyProblem> {
        self.read("must be a whole number, zero or more")
    }

    /// It, an object.
    pub fn object(&self) -> Result<Option<&'a RawValue>, BodyProblem> {
        self.beginning_with('{', "must be an object")
    }

    /// It, a list.
    pub fn list(&self) -> Result<Option<&'a RawValue>, BodyProblem> {
        self.beginning_with('[', "must be a list")
    }

    /// How many elements it, a list, has.
    pub fn list_len(&self) -> Result<Option<usize>, BodyProblem> {
        // Elements without size: nothing is stored but their number.
        Ok(self.read::<Vec<IgnoredAny>>("must be a list")?.map(|list| list.len()))
    }

    fn read<T: Deserialize<'a>>(&self, otherwise: &str) -> Result<Option<T>, BodyProblem> {
        let read = |raw: &'a RawValue| serde_json::from_str(raw.get()).map_err(|_| self.bad(otherwise));
        self.given().map(read).transpose()
    }

    fn beginning_with(&self, first: char, otherwise: &str) -> Result<Option<&'a RawValue>, BodyProblem> {
        match self.given() {
            Some(raw) if !raw.get().starts_with(first) => Err(self.bad(otherwise)),
            given => Ok(given),
        }
    }

    /// The problem that it `what` ("is required", "must be a list").
    pub fn bad(&self, what: &str) -> BodyProblem {
        BodyProblem::BadField { param: self.path, message: format!("'{}' {what}.", self.path) }
    }
}

struct Paths<const N: usize>([&'static str; N]);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, const N: usize> DeserializeSeed<'de> for Paths<N> {
    type Value = Result<[Member<'de>; N], BodyProblem>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Paths<N> {
    type Value = Result<[Member<'de>; N], BodyProblem>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = self.0.map(|path| Member { path, raw: None });
        let mut twice = None;
        while let Some(Key(key)) = map.next_key()? {
            let Some(member) = members.iter_mut().find(|member| name(member.path) == key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if member.raw.replace(map.next_value()?).is_some() {
                twice.get_or_insert(member.bad("is given twice"));
            }
        }
        Ok(twice.map_or(Ok(members), Err))
    }
}

/// White space as JSON has it.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn name(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<[Option<&str>; 2], BodyProblem>) {
        let found = members(text, ["a", "outer.b"]);
        let found = found.map(|members| members.map(|member| member.raw.map(RawValue::get)));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn members_are_found_as_they_stand() {
        check("{}", Ok([None, None]));
        check(r#" { "b" : [1, {"a": 2}] , "c": {"a": 3}, "a" :null } "#, Ok([Some("null"), Some(r#"[1, {"a": 2}]"#)]));
        check(r#"{"\u0061": 1e999, "outer.b": 4}"#, Ok([Some("1e999"), None]));
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        let twice =
            |param: &'static str| Err(BodyProblem::BadField { param, message: format!("'{param}' is given twice.") });
        check(r#"{"a":1,"a":1}"#, twice("a"));
        check(r#"{"a":null,"\u0061":null}"#, twice("a"));
        check(r#"{"b":1,"a":2,"b":3,"a":4}"#, twice("outer.b"));
        check(r#"{"c":1,"c":2}"#, Ok([None, None]));
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for text in ["", "{", "[]", "1", "\"a\"", "{} {}", "{}x", "{\"a\"}", "{a:1}", "{\"a\":01}", "{\"a\":1,}"] {
            assert!(matches!(members(text, ["a"]), Err(BodyProblem::NotJson(_))), "{text}");
        }
    }
}
