//! As much HTTP/1.1 as a benchmark needs: the end of a head and the length of its body.
//!
//! It must never be used for untrusted peers: it accepts only what the benchmarks send.

use memchr::memmem;

/// Every frame that carries a token has this, and nothing else does.
pub(crate) const TOKEN: &[u8] = b"\"delta\":{\"content\":";
/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Where the body begins, once the head in `bytes` is whole.
pub(crate) fn body_start(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of `name` (in lower case) in `head`.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// How long the message at the start of `bytes` is, once its head is there; bodies with a length only.
pub(crate) fn message_len(bytes: &[u8]) -> Option<usize> {
    let start = body_start(bytes)?;
    let body: usize = header(&bytes[..start], "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(start + body)
}

/// The number after `"name":` in a JSON text, or 0.
pub(crate) fn number(json: &[u8], name: &str) -> u64 {
    let key = format!("\"{name}\":");
    let Some(at) = memmem::find(json, key.as_bytes()) else { return 0 };
    let digits = json[at + key.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
