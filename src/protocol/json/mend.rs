//! JSON that the official clients read and strict readers refuse, respelled so that it can be read here as well: not a
//! number and infinity, half a surrogate pair, bytes that are not UTF-8, a byte order mark.
//!
//! Only for reading: what is passed on stays as it came. Each replacement is as long as what it replaces, so that a
//! place in one text is the same place in the other.
//!
//! Start reading in [`mended`].

use crate::protocol::body_kind::BYTE_ORDER_MARK;
use memchr::memchr2;

/// What Python writes for numbers that JSON has no spelling for, and what is read in their place: numbers that no count
/// can be, and the one that OpenAI itself writes for the logarithm of nothing.
const NUMBERS: [(&[u8], &[u8]); 3] = [(b"NaN", b"-1 "), (b"Infinity", b"9e99    "), (b"-Infinity", b"-9999.0  ")];

/// `json` so that it can be read; the same bytes where nothing of these is in it.
pub fn mended(json: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(json.len());
    for part in json.utf8_chunks() {
        text.extend_from_slice(part.valid().as_bytes());
        text.resize(text.len() + part.invalid().len(), b'?');
    }
    respell(&mut text, true);
    text
}

/// `json` so that its numbers can be read. Halves of surrogate pairs stay, so that they can be put together.
pub fn with_numbers(json: &str) -> Vec<u8> {
    let mut text = json.as_bytes().to_vec();
    respell(&mut text, false);
    text
}

/// Respells numbers and, with `halves`, each half of a surrogate pair; takes out a byte order mark.
fn respell(text: &mut [u8], halves: bool) {
    if text.starts_with(BYTE_ORDER_MARK) {
        text[..BYTE_ORDER_MARK.len()].fill(b' ');
    }
    let mut at = 0;
    while let Some(quote) = text.get(at..).and_then(|left| memchr::memchr(b'"', left)) {
        mend_numbers(&mut text[at..at + quote]);
        at = mend_string(text, at + quote + 1, halves);
    }
    if let Some(rest) = text.get_mut(at..) {
        mend_numbers(rest);
    }
}

/// Respells numbers in `between`, which lies outside strings.
fn mend_numbers(between: &mut [u8]) {
    let mut at = 0;
    while let Some(next) = between.get(at..).and_then(|left| left.iter().position(|byte| b"NI-".contains(byte))) {
        at += next;
        match NUMBERS.iter().find(|(word, _)| between[at..].starts_with(word)) {
            Some((word, number)) => {
                between[at..at + word.len()].copy_from_slice(number);
                at += word.len();
            }
            None => at += 1,
        }
    }
}

/// Puts another character for each half of a surrogate pair, with `halves`, in the string that begins at `at`, behind
/// its quote; where the text goes on behind its closing one. A provider that cuts between the two halves sends what is
/// no string for Rust, and a token all the same.
fn mend_string(text: &mut [u8], mut at: usize, halves: bool) -> usize {
    while let Some(next) = text.get(at..).and_then(|left| memchr2(b'"', b'\\', left)) {
        at += next;
        if text[at] == b'"' {
            return at + 1;
        }
        match text.get_mut(at + 1..at + 6) {
            Some([b'u', digits @ ..]) => {
                if halves && matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]) {
                    digits.copy_from_slice(b"fffd");
                }
                at += 6;
            }
            _ => at += 2,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &[u8], expected: &str) {
        let text = mended(json);
        assert_eq!(text, expected.as_bytes(), "{}", json.escape_ascii());
        assert_eq!(text.len(), json.len());
    }

    #[test]
    fn what_strict_readers_refuse_is_respelled_in_place() {
        check(br#"{"a":NaN,"b":[-Infinity,Infinity]}"#, r#"{"a":-1 ,"b":[-9999.0  ,9e99    ]}"#);
        check(br#"{"NaN":"Infinity -1","a":-1}"#, r#"{"NaN":"Infinity -1","a":-1}"#);
        check(br#"{"a":"\"NaN","b":NaN}"#, r#"{"a":"\"NaN","b":-1 }"#);
        check(br#"{"a":"\ud83d","b":"\\ud83d"}"#, r#"{"a":"\ufffd","b":"\\ud83d"}"#);
        check(b"{\"a\":\"\xff\xc3\"}", r#"{"a":"??"}"#);
        check("\u{feff}{\"a\":\"é\"}".as_bytes(), "   {\"a\":\"é\"}");
    }

    #[test]
    fn halves_of_pairs_stay_where_they_can_still_be_put_together() {
        let text = with_numbers("\u{feff}{\"a\":\"\\ud83d NaN\",\"b\":NaN}");
        assert_eq!(text, b"   {\"a\":\"\\ud83d NaN\",\"b\":-1 }");
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for odd in ["", "\"", "\"\\", "\"\\u", "N", "-", "{\"a\":Na", "Infinit"] {
            check(odd.as_bytes(), odd);
        }
    }
}
