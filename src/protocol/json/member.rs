//! Reads a few members of a JSON object as they are written in its text, without building the rest.
//!
//! It never copies a value that nobody asks for, and never lets one of two members of the same name
//! win.
//!
//! Start reading in [`members`].

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::name_fold::{folds_to, is_plain};
use super::scan::{JsonError, MAX_DEPTH, Scanner, list_len, object};
use crate::domain::call::BodyProblem;

/// Names of members that are read of one object, in lower-case ASCII letters, and where they are below the body.
#[derive(Clone, Copy)]
pub struct MemberNames<const N: usize> {
    names: [&'static str; N],
    paths: [&'static str; N],
}

/// What was found of [`MemberNames`] in one object so far.
#[derive(Clone, Copy, Default)]
pub struct FoundNames(u32);

impl<const N: usize> MemberNames<N> {
    /// `names` of the body itself.
    pub const fn at_the_top(names: [&'static str; N]) -> Self {
        Self { names, paths: names }
    }

    /// `names`, which are `paths` below the body.
    pub const fn below(names: [&'static str; N], paths: [&'static str; N]) -> Self {
        Self { names, paths }
    }

    /// Where they are below the body.
    #[cfg(test)]
    pub fn paths(&self) -> &[&'static str] {
        &self.paths
    }

    /// The index of the member that is called `name`. One that was found already, and one that some provider takes
    /// for one of these although it is none, are a `problem`.
    #[inline]
    pub fn find(&self, name: &str, found: &mut FoundNames, problem: &mut Option<BodyProblem>) -> Option<usize> {
        let Some(index) = self.names.iter().position(|known| *known == name) else {
            if !is_plain(name) {
                self.note_fold(name, problem);
            }
            return None;
        };
        let bit = 1 << index;
        if found.0 & bit != 0 {
            problem.get_or_insert_with(|| bad(self.paths[index], "is given twice"));
        }
        found.0 |= bit;
        Some(index)
    }

    #[cold]
    fn note_fold(&self, name: &str, problem: &mut Option<BodyProblem>) {
        if let Some(index) = self.names.iter().position(|known| folds_to(name, known)) {
            problem.get_or_insert_with(|| bad(self.paths[index], FOLDED));
        }
    }
}

/// What is wrong with a name that folds to one of ours.
const FOLDED: &str = "is given in another spelling (capitals, or characters like its letters), which some providers \
                      read and some do not: write it in lower case";

/// Reads the members of `body`, one object, that `names` name. `visit` is called at the value of each member, with its
/// index among `names` if it is one of them, and its name; it must read the value, and may look into it.
///
/// # Errors
/// [`BodyProblem::NotJson`] when `body` is not one object and nothing else, or is one that
/// [`scan`](super::scan) does not pass; [`BodyProblem::BadField`] for a member of `names` given twice,
/// in any escaping, and for one whose name folds to one of them.
pub fn members<'a, const N: usize>(
    body: &'a str,
    names: [&'static str; N],
    visit: impl FnMut(Option<usize>, &str, &mut Scanner<'a>) -> Result<(), JsonError>,
) -> Result<[BodyField<'a>; N], BodyProblem> {
    read(body, 0, MemberNames::at_the_top(names), visit)
}

/// Reads the member of `object`, a value of `body`, that `path` names behind its last dot.
///
/// # Errors
/// As [`members`].
pub fn member_of<'a>(body: &'a str, object: BodyValue<'a>, path: &'static str) -> Result<BodyField<'a>, BodyProblem> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let names = MemberNames::below([name], [path]);
    let [member] = read(&body[..object.span().end], object.start, names, |_, _, scanner| scanner.value())?;
    Ok(member)
}

/// A value as it is written in the body.
#[derive(Clone, Copy)]
pub struct BodyValue<'a> {
    /// Its text, never empty.
    pub text: &'a str,
    start: usize,
}

impl<'a> BodyValue<'a> {
    /// Its place in the body.
    pub fn span(self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// Whether it is an object or a list without anything in it.
    pub fn is_empty(self) -> bool {
        self.inside().starts_with(['}', ']'])
    }

    /// The inside of it, an object or a list, from the first byte that is not white space.
    pub fn inside(self) -> &'a str {
        self.text[1..].trim_start_matches(is_space)
    }
}

/// A member of an object, there or not: its path below the body, and its value if it is there.
pub struct BodyField<'a> {
    path: &'static str,
    /// The value, `null` included.
    pub value: Option<BodyValue<'a>>,
}

/// Reading the value: absent and `null` are the same, `None`; any other type than the one asked for is
/// [`BodyProblem::BadField`].
impl<'a> BodyField<'a> {
    /// It, whatever its type.
    pub fn given(&self) -> Option<BodyValue<'a>> {
        self.value.filter(|value| value.text != "null")
    }

    /// It, a string, unescaped.
    pub fn string(&self) -> Result<Option<Cow<'a, str>>, BodyProblem> {
        self.read(unquoted, "must be a string")
    }

    /// It, a truth value; `false` when absent.
    pub fn boolean(&self) -> Result<bool, BodyProblem> {
        Ok(self.read(|text| text.parse().ok(), "must be true or false")?.unwrap_or(false))
    }

    /// It, a whole number: also `100.0` and `1e2`, as clients write whose language has no other numbers.
    pub fn whole_number(&self) -> Result<Option<u64>, BodyProblem> {
        self.read(whole_number, "must be a whole number, zero or more")
    }

    /// It, an object.
    pub fn object(&self) -> Result<Option<BodyValue<'a>>, BodyProblem> {
        self.beginning_with('{', "must be an object")
    }

    /// It, a list.
    pub fn list(&self) -> Result<Option<BodyValue<'a>>, BodyProblem> {
        self.beginning_with('[', "must be a list")
    }

    /// How many elements it, a list, has.
    pub fn list_len(&self) -> Result<Option<usize>, BodyProblem> {
        self.read(|text| list_len(text).ok(), "must be a list")
    }

    fn read<T>(&self, read: impl FnOnce(&'a str) -> Option<T>, otherwise: &str) -> Result<Option<T>, BodyProblem> {
        self.given().map(|value| read(value.text).ok_or_else(|| self.bad(otherwise))).transpose()
    }

    fn beginning_with(&self, first: char, otherwise: &str) -> Result<Option<BodyValue<'a>>, BodyProblem> {
        match self.given() {
            Some(value) if !value.text.starts_with(first) => Err(self.bad(otherwise)),
            given => Ok(given),
        }
    }

    /// The problem that it `what` ("is required", "must be a list").
    pub fn bad(&self, what: &str) -> BodyProblem {
        bad(self.path, what)
    }
}

fn bad(path: &'static str, what: &str) -> BodyProblem {
    BodyProblem::BadField { param: path, message: format!("'{path}' {what}.") }
}

fn read<'a, const N: usize>(
    body: &'a str,
    start: usize,
    names: MemberNames<N>,
    mut visit: impl FnMut(Option<usize>, &str, &mut Scanner<'a>) -> Result<(), JsonError>,
) -> Result<[BodyField<'a>; N], BodyProblem> {
    let mut members = names.paths.map(|path| BodyField { path, value: None });
    let (mut found, mut wrong) = (FoundNames::default(), None);
    let passed = object(body, start, |scanner, name| {
        let Some(name) = unquoted(&body[name]) else { return scanner.value() };
        let index = names.find(&name, &mut found, &mut wrong);
        let start = scanner.at();
        visit(index, &name, scanner)?;
        if let Some(index) = index {
            members[index].value = Some(BodyValue { start, text: &body[start..scanner.at()] });
        }
        Ok(())
    });
    passed.map_err(|error| problem(body, error))?;
    wrong.map_or(Ok(members), Err)
}

/// The whole number, zero or more, that is written in JSON as `text`, whatever its notation; `None` for any other value,
/// and from 2^53 on for one with a fraction or an exponent, which cannot be told from its neighbours.
pub fn whole_number(text: &str) -> Option<u64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..EXACT).contains(number);
    let by_notation = || text.parse::<f64>().ok().filter(whole).map(|number| number as u64);
    // Of JSON values, none but numbers begin so; Rust's floats may also be words.
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    text.parse().ok().or_else(|| by_notation().filter(|_| is_number))
}

/// The string that is written in JSON as `quoted`; `None` for what is no string.
#[inline]
pub fn unquoted(quoted: &str) -> Option<Cow<'_, str>> {
    let content = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if content.contains('\\') { serde_json::from_str(quoted).ok().map(Cow::Owned) } else { Some(content.into()) }
}

/// What to say of a `body` with `error`. A reader that explains itself reads it again: only a body to
/// be refused pays for that.
#[cold]
fn problem(body: &str, error: JsonError) -> BodyProblem {
    BodyProblem::NotJson(match error {
        JsonError::TooDeep(at) => format!("The body nests deeper than {MAX_DEPTH} levels at byte {at}."),
        JsonError::HalfSurrogate(at) => format!("A string holds half a surrogate pair at byte {at}."),
        JsonError::Grammar(at) => match explain(body) {
            Err(error) => format!("The body is not JSON: {error}."),
            Ok(()) => {
                debug_assert!(false, "the scanner refused JSON at byte {at}");
                format!("The body is not JSON at byte {at}.")
            }
        },
    })
}

/// Why `body` is not one object and nothing else.
fn explain(body: &str) -> serde_json::Result<()> {
    struct ObjectCheck;

    impl<'de> Visitor<'de> for ObjectCheck {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(body);
    json.deserialize_map(ObjectCheck)?;
    json.end()
}

/// White space as JSON has it.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<[Option<&str>; 2], BodyProblem>) {
        let names = MemberNames::below(["a", "b"], ["a", "outer.b"]);
        let found = read(text, 0, names, |_, _, scanner| scanner.value());
        let found = found.map(|members| members.map(|member| member.value.map(|value| value.text)));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn members_are_found_as_they_are_written() {
        check("{}", Ok([None, None]));
        check(r#" { "b" : [1, {"a": 2}] , "c": {"a": 3}, "a" :null } "#, Ok([Some("null"), Some(r#"[1, {"a": 2}]"#)]));
        check(r#"{"\u0061": 1e999, "outer.b": 4}"#, Ok([Some("1e999"), None]));
    }

    #[test]
    fn a_member_of_a_member_has_its_place_in_the_body() {
        let body = r#" {"\u00e9": "é", "outer": { "inner" : 7 }, "inner": 8} "#;
        let [outer] = members(body, ["outer"], |_, _, scanner| scanner.value()).expect("an object");
        let object = outer.object().expect("an object").expect("given");
        let inner = member_of(body, object, "outer.inner").expect("an object").value.expect("given");
        assert_eq!((inner.text, &body[inner.span()]), ("7", "7"));
        assert_eq!(&body[object.span()], r#"{ "inner" : 7 }"#);
    }

    #[test]
    fn a_whole_number_is_one_in_any_notation() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(whole_number(text), expected, "{text}");
        check("0", Some(0));
        check("100", Some(100));
        check("100.0", Some(100));
        check("1.000", Some(1));
        check("1e2", Some(100));
        check("1.5E1", Some(15));
        check("-0.0", Some(0));
        check("18446744073709551615", Some(u64::MAX));
        check("9007199254740991.0", Some((1 << 53) - 1));
        for none in ["0.5", "-1", "-1.0", "1e-2", "1e400", "9007199254740992.0", "18446744073709551616", "inf", "NaN"] {
            check(none, None);
        }
        for none in ["true", "\"5\"", "[1]", "{}", "null"] {
            check(none, None);
        }
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
    fn a_name_that_folds_to_one_of_ours_is_refused() {
        let folded =
            |param: &'static str| Err(BodyProblem::BadField { param, message: format!("'{param}' {FOLDED}.") });
        check(r#"{"A":1}"#, folded("a"));
        check(r#"{"a":1,"\u0041":1}"#, folded("a"));
        check(r#"{"B":1,"a":1,"a":1}"#, folded("outer.b"));
        check(r#"{"a\u0000":1}"#, folded("a"));
        check(r#"{"C":1,"c":{"A":1},"AB":2,"å":3}"#, Ok([None, None]));
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for text in ["", "{", "[]", "1", "\"a\"", "{} {}", "{}x", "{\"a\"}", "{a:1}", "{\"a\":01}", "{\"a\":1,}"] {
            assert!(
                matches!(members(text, ["a"], |_, _, scanner| scanner.value()), Err(BodyProblem::NotJson(_))),
                "{text}"
            );
        }
    }
}
