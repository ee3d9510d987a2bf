//! One quick pass over a body for what a JSON reader overlooks in the values it skips: nesting too
//! deep, and half a surrogate pair, which is no character and which stricter readers refuse.
//!
//! It never judges anything else: text that is not JSON passes here and is refused by the reader.

use std::ops::RangeInclusive;

use memchr::memchr2;

use crate::domain::call::BodyProblem;

/// How deep objects and lists may nest, the outermost counted.
pub const MAX_DEPTH: usize = 128;

const LEADING: RangeInclusive<u16> = 0xD800..=0xDBFF;
const TRAILING: RangeInclusive<u16> = 0xDC00..=0xDFFF;

/// Looks over `body`.
///
/// # Errors
/// [`BodyProblem::NotJson`] where it nests deeper than [`MAX_DEPTH`] or a string holds half a
/// surrogate pair.
pub fn scan(body: &[u8]) -> Result<(), BodyProblem> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_string(body, at)?,
            b'{' | b'[' if depth == MAX_DEPTH => {
                let message = format!("The body nests deeper than {MAX_DEPTH} levels at byte {}.", at - 1);
                return Err(BodyProblem::NotJson(message));
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Where the text after a string goes on, given where the string's content begins.
fn after_string(body: &[u8], start: usize) -> Result<usize, BodyProblem> {
    let mut at = start;
    while let Some(offset) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += offset;
        if body[at] == b'"' {
            return Ok(at + 1);
        }
        at = after_escape(body, at)?;
    }
    Ok(body.len())
}

/// Where a string goes on after the escape whose backslash is at `at`.
fn after_escape(body: &[u8], at: usize) -> Result<usize, BodyProblem> {
    match code_unit(body, at) {
        None => Ok(at + 2),
        Some(unit)
            if LEADING.contains(&unit) && code_unit(body, at + 6).is_some_and(|next| TRAILING.contains(&next)) =>
        {
            Ok(at + 12)
        }
        Some(unit) if LEADING.contains(&unit) || TRAILING.contains(&unit) => {
            Err(BodyProblem::NotJson(format!("A string holds half a surrogate pair at byte {at}.")))
        }
        Some(_) => Ok(at + 6),
    }
}

/// The UTF-16 code unit that a `\uXXXX` escape at `at` spells, if one stands there.
fn code_unit(body: &[u8], at: usize) -> Option<u16> {
    let hex = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: impl AsRef<[u8]>, expected: Result<(), &str>) {
        let found = scan(body.as_ref()).map_err(|problem| match problem {
            BodyProblem::NotJson(text) => text,
            other => panic!("{other:?} is not for this pass to say"),
        });
        assert_eq!(found, expected.map_err(str::to_owned), "{}", body.as_ref().escape_ascii());
    }

    #[test]
    fn nesting_is_counted_outside_strings_only() {
        let nested = |open: &str, close: &str, depth| open.repeat(depth) + &close.repeat(depth);
        let too_deep = Err("The body nests deeper than 128 levels at byte 128.");
        check(nested("[", "]", 128), Ok(()));
        check(nested("[", "]", 129), too_deep);
        check(nested("{", "}", 129), too_deep);
        check(nested("{\"a\":", "}", 128), Ok(()));
        check(nested("{\"a\":[", "]}", 65), Err("The body nests deeper than 128 levels at byte 384."));
        check("[]".repeat(500), Ok(()));
        check(format!("[\"{}\"]", "[".repeat(500)), Ok(()));
        check(format!("[\"\\\"{}\"]", "[".repeat(500)), Ok(()));
        check(format!("[\"\\\\\",{}", "[".repeat(128)), Err("The body nests deeper than 128 levels at byte 133."));
        check(format!("\"{}", "[".repeat(500)), Ok(()));
    }

    #[test]
    fn surrogates_come_in_pairs() {
        let half = |at: usize| format!("A string holds half a surrogate pair at byte {at}.");
        check(r#""\ud83d\ude00 \uD83D\uDE00 \u00e9 \uE000""#, Ok(()));
        check(r#""\ud83d""#, Err(&half(1)));
        check(r#""ab\ude00""#, Err(&half(3)));
        check(r#""\ud83d\ud83d\ude00""#, Err(&half(1)));
        check(r#""\ud83d\u0041""#, Err(&half(1)));
        check(r#""\\ud83d""#, Ok(()));
        check(r#"{"\udc00":1}"#, Err(&half(2)));
    }

    #[test]
    fn broken_text_is_left_to_the_reader() {
        for text in ["", "\"", "\"\\", "\"\\u", "\"\\ud8", "\"\\uzzzz\"", "]]}}", "\"\\u00"] {
            check(text, Ok(()));
        }
    }

    proptest! {
        #[test]
        fn never_panics(body in prop::collection::vec(prop::sample::select(&b"\"\\u[]{}d80Dc \xff"[..]), 0..60)) {
            let _ = scan(&body);
        }

        /// What the whole-tree reader, which checks surrogates, says of any string.
        #[test]
        fn agrees_with_a_whole_reader(pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "\\\\", "\\\"", "\\u0041", "\\ud83d", "\\ude00", "\\uDBFF", "\\uDC00", "\\n", "é",
        ]), 0..12)) {
            let text = format!("\"{}\"", pieces.concat());
            prop_assert_eq!(scan(text.as_bytes()).is_ok(), serde_json::from_str::<String>(&text).is_ok());
        }
    }
}
