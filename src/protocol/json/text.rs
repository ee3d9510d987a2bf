//! Text in JSON: how much of it a document holds, without reading it twice, and how one string is written.
//!
//! Measuring is one pass over the strings, no allocation, no depth: it separates names from values by the colon
//! after a name and counts the values whose name says that they are text. It must never fail: what it does not
//! understand it does not count.
//!
//! Start reading in [`text_bytes`].

use bytes::Bytes;
use memchr::memchr2;

/// Names of text that a model wrote, in messages and in calls.
const NAMES: [&[u8]; 7] =
    [b"content", b"text", b"reasoning", b"reasoning_content", b"refusal", b"arguments", b"thinking"];

/// Bytes of text in `json`, as they are once unescaped; at most two too many for each `\u`.
pub fn text_bytes(json: &[u8]) -> u64 {
    let mut left = json;
    let mut is_text = false;
    let mut total = 0;
    while let Some(start) = memchr::memchr(b'"', left) {
        let Some((string, len, rest)) = string(&left[start + 1..]) else { break };
        left = rest;
        if rest.trim_ascii_start().first() == Some(&b':') {
            is_text = NAMES.contains(&string);
        } else if is_text {
            total += len;
        }
    }
    total
}

/// Bytes of the string that `json` is, its quotes included, as they are once unescaped; 0 for anything else.
pub fn string_bytes(json: &[u8]) -> u64 {
    json.strip_prefix(b"\"").and_then(string).map_or(0, |(_, len, _)| len)
}

/// `text` as a JSON string, quotes included.
pub fn quoted(text: &str) -> Bytes {
    serde_json::Value::from(text).to_string().into()
}

/// Appends `text` as a JSON string, quotes included. Most texts need no escapes and are copied in one piece, which costs
/// a fifth of what serde_json takes to look at each byte (`make instructions`: 1,400 of a refusal).
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    // Without a branch for each byte, so that many are looked at at once.
    if text.bytes().fold(false, |odd, byte| odd | (byte < b' ') | (byte == b'"') | (byte == b'\\')) {
        return serde_json::to_writer(out, text).expect("writing to a Vec cannot fail");
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// The string that begins here, as written; its bytes once unescaped; and what follows its closing quote.
fn string(json: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let (mut at, mut less) = (0, 0);
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        match (json[at], json.get(at + 1)) {
            (b'"', _) => return Some((&json[..at], (at - less) as u64, &json[at + 1..])),
            // Six bytes spell one to three.
            (_, Some(b'u')) => (at, less) = (at + 6, less + 3),
            (_, _) => (at, less) = (at + 2, less + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_written_as_serde_json_writes_it() {
        let every: String = (0..=300_u32).filter_map(char::from_u32).collect();
        for text in ["", "plain", "it's", "a\"b", "a\\b", "\n", "\u{7f}", "\u{2028}é日本", &every] {
            let mut put = Vec::new();
            put_string(&mut put, text);
            assert_eq!(put, serde_json::to_vec(text).expect("a text is JSON"), "{text:?}");
        }
    }

    #[test]
    fn text_is_what_a_name_says_is_text() {
        let check = |json: &str, expected: u64| assert_eq!(text_bytes(json.as_bytes()), expected, "{json}");
        check(r#"[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]"#, 5);
        check(r#"[{"text" : "Hi", "logprobs":{"tokens":["H","i"]}}]"#, 2);
        check(r#"{"content":"a\"b\\c\n"}"#, 6);
        check(r#"{"content":"\u00e9\ud83d"}"#, 6);
        check(r#"{"content":[{"type":"text","text":"abc"},{"type":"text","text":"de"}]}"#, 5);
        check(r#"[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]"#, 7);
        check(r#"{"reasoning_content":"ab","refusal":"c","content":null}"#, 3);
        check("{\"content\":\"é\"}", 2);
        assert_eq!((string_bytes(br#""a\n\"b""#), string_bytes(b"[\"a\"]"), string_bytes(b"")), (4, 0, 0));
        for odd in ["", "\"", "\"content\":", "\"content\":\"x", "\"content\":\"\\", "\"content\":\"\\u\"", "null"] {
            check(odd, 0);
        }
    }
}
