//! Which model an answer says it is of, and whether that is another one than was asked for.
//!
//! Only the beginning of an answer is looked at, or its end: hosts write the name before what the model wrote, or after
//! vectors. It must never fail: an answer that names no model there names none.
//!
//! Start reading in [`other_model`].

use std::borrow::Cow;

use memchr::memchr;
use memchr::memmem;

use crate::protocol::json::member::unquoted;
use crate::protocol::json::scan::{JsonError, object};

/// How much of an answer's beginning and end is looked at, in bytes.
const MAX_LOOK: usize = 2048;
/// A longer name is none.
const MAX_NAME: usize = 256;
/// So many digits behind a model's name are a date or a revision; fewer are another model's number.
const REVISION_DIGITS: usize = 3;
/// Words behind a model's name that choose one of its revisions.
const REVISION_WORDS: [&str; 3] = ["latest", "preview", "free"];

/// The model that `answer`, or its first frames, says it is of, where that is another one than `sent`. The same model
/// under the name of a revision, or with its owner before it, is no other.
/// `inside`: the member whose object names the model, where it is not the answer's, or its first frame's, own.
pub fn other_model(answer: &[u8], sent: &str, inside: Option<&str>) -> Option<Box<str>> {
    let name = model_at_the_beginning(answer, inside).or_else(|| model_at_the_end(answer))?;
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control);
    (is_name && *name != *sent && !is_revision(&name, sent)).then(|| name.into())
}

/// The member `model` of the first object, or of the object that is `inside` of it.
fn model_at_the_beginning<'a>(answer: &'a [u8], inside: Option<&str>) -> Option<Cow<'a, str>> {
    let start = memchr(b'{', &answer[..answer.len().min(MAX_LOOK)])?;
    let text = text_of(&answer[start..answer.len().min(start + MAX_LOOK)]);
    // What it is inside of need not be whole.
    let at = inside.and_then(|inside| text.find(&format!("\"{inside}\":")));
    let text = at.and_then(|at| Some(&text[at + text[at..].find('{')?..])).unwrap_or(text);
    let mut model = None;
    // It is read up to that member alone.
    let _ = object(text, 0, |scanner, name| {
        let is_model = &text[name] == "\"model\"";
        let value = scanner.value_span()?;
        if !is_model {
            return Ok(());
        }
        model = unquoted(&text[value]);
        Err(JsonError::Grammar(scanner.at()))
    });
    model
}

/// The last member `model`, of whatever object.
fn model_at_the_end(answer: &[u8]) -> Option<Cow<'_, str>> {
    const NAME: &[u8] = b"\"model\"";
    if answer.len() <= MAX_LOOK {
        return None;
    }
    let end = &answer[answer.len() - MAX_LOOK..];
    let at = memmem::rfind(end, NAME)? + NAME.len();
    let value = end[at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let value = text_of(&value[..value.len().min(MAX_NAME + 2)]);
    let length = value.get(1..)?.find('"')? + 2;
    unquoted(&value[..length])
}

/// As much of `bytes` as is UTF-8.
fn text_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Whether two names are of one model, one of them with its owner, a date, a revision or a word for the newest.
fn is_revision(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(stem);
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let Some(rest) = long.get(short.len()..).filter(|_| long.is_char_boundary(short.len())) else { return false };
    let digits = rest.bytes().filter(u8::is_ascii_digit).count();
    let is_number = rest.bytes().all(|byte| byte.is_ascii_digit() || b"-@_.".contains(&byte));
    long[..short.len()].eq_ignore_ascii_case(short) && (rest.is_empty() || (is_number && digits >= REVISION_DIGITS))
}

/// `name` without its owner and without a word for one of its revisions.
fn stem(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let word = |word: &&str| name.strip_suffix(*word)?.strip_suffix(['-', ':']);
    REVISION_WORDS.iter().find_map(word).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_model_is_seen_at_the_beginning_or_the_end_of_an_answer() {
        let check = |answer: &str, expected: Option<&str>| {
            assert_eq!(other_model(answer.as_bytes(), "cheap", None).as_deref(), expected, "{answer:.100}");
        };
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"dear\",\"content\":[";
        assert_eq!(other_model(start.as_bytes(), "cheap", Some("message")).as_deref(), Some("dear"));
        assert_eq!(other_model(start.as_bytes(), "cheap", None), None);
        let whole = r#"{"id":"a","model":"dear","content":[]}"#;
        assert_eq!(other_model(whole.as_bytes(), "cheap", Some("message")).as_deref(), Some("dear"));
        check(r#"{"id":"a","model":"cheap","choices":[]}"#, None);
        check(r#"{"id":"a","model":"dear","choices":[]}"#, Some("dear"));
        check(r#"{"id":"a","model":"d\u0065ar"}"#, Some("dear"));
        check(r#"{"choices":[{"model":"x","message":{"content":"\"model\":\"y\""}}],"model":"dear"}"#, Some("dear"));
        check(": hi\n\ndata: {\"id\":\"a\",\"model\":\"dear\",\"choices\":[]}\n\ndata: {}\n\n", Some("dear"));
        for none in ["", "{", "{}", "[]", r#"{"model":null}"#, r#"{"model":""}"#, r#"{"model":7}"#, r#"{"model":"de"#] {
            check(none, None);
        }
        let long = "1.5,".repeat(2_000);
        check(&format!("{{\"data\":[{{\"embedding\":[{long}1]}}],\"model\" : \"dear\",\"usage\":{{}}}}"), Some("dear"));
        check(&format!("{{\"data\":[{{\"embedding\":[{long}1]}}],\"model\":\"cheap\"}}"), None);
        check(&format!("{{\"data\":[{{\"embedding\":[{long}1]}}]}}"), None);
        check(&format!("{{\"choices\":[\"{} \\\"model\\\":\\\"x\\\"\"]}}", "é".repeat(2_000)), None);
        check(&format!("{{\"model\":\"{}\"}}", "x".repeat(257)), None);
    }

    #[test]
    fn a_revision_of_a_model_is_no_other() {
        let check = |one: &str, other: &str, expected: bool| {
            assert_eq!((is_revision(one, other), is_revision(other, one)), (expected, expected), "{one} {other}");
        };
        for (one, other) in [
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("gpt-4", "gpt-4-0613"),
            ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
            ("claude-3-5-haiku", "claude-3-5-haiku@20241022"),
            ("gemini-2.0-flash", "models/gemini-2.0-flash-001"),
            ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
            ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1"),
            ("Kimi", "kimi"),
        ] {
            check(one, other, true);
        }
        for (one, other) in [
            ("gpt-4o", "gpt-4o-mini"),
            ("gpt-4", "gpt-4.1"),
            ("claude-opus-4", "claude-opus-4-1"),
            ("cheap", "dear"),
            ("llama-3.1-8b", "llama-3.1-70b"),
            ("a", ""),
            ("é", "e"),
        ] {
            check(one, other, false);
        }
    }
}
