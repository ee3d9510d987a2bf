//! Headers of clients and providers: whatever they hold, what is passed on is on the list and as it
//! came, nothing belongs to one hop, and the key a client presents is shown nowhere.
//!
//! Each line of the input is `name: value`; `$KEY` in a value is replaced by the key, where a client may
//! put one.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tierway::domain::refusal::{KeyRefusal, Refusal};
use tierway::domain::secret::Secret;
use tierway::http::error::ApiError;
use tierway::http::ingress::{forwarded_headers, key, options};
use tierway::protocol::Dialect;
use tierway::upstream::answer::passed_back;

const KEY: &str = "sk-canary-0123456789";
/// Where model APIs take a key.
const KEYS: [&str; 4] = ["authorization", "api-key", "x-api-key", "x-goog-api-key"];
const NO_FALLBACK: &str = "x-tierway-no-fallback";
const DEADLINE: &str = "x-tierway-deadline-ms";
const TO_PROVIDERS: [&str; 6] =
    ["accept", "content-type", "traceparent", "tracestate", "idempotency-key", "openai-beta"];
const TO_CLIENTS: [&str; 3] = ["content-type", "openai-processing-ms", "openai-version"];
/// Of one hop, or of one client.
const NEVER: [&str; 14] = [
    "api-key",
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What must hold for any headers.
pub fn holds(data: &[u8]) {
    if data.windows(KEY.len()).any(|window| window == KEY.as_bytes()) {
        return;
    }
    let headers = read(data);
    let to_provider = forwarded_headers(&headers, Dialect::Chat);
    let listed = |name: &str| TO_PROVIDERS.contains(&name) || name.starts_with("x-stainless-");
    kept(&headers, &to_provider, |name| listed(name) && !named_by_connection(&headers, name));
    let to_client = passed_back(&headers);
    let first_of = |name: &HeaderName| TO_CLIENTS.contains(&name.as_str()).then(|| headers.get(name)).flatten();
    for (name, value) in &to_client {
        assert_eq!((first_of(name), to_client.get_all(name).iter().count()), (Some(value), 1), "{name}");
    }
    for headers in [&to_provider, &to_client] {
        wholesome(headers);
    }
    presented(&headers);
    tuned(&headers);
}

fn read(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let Ok(name) = HeaderName::from_bytes(&line[..colon]) else { continue };
        let mut value = line[colon + 1..].trim_ascii().to_vec();
        if matches!(name.as_str(), "authorization" | "api-key" | NO_FALLBACK | DEADLINE)
            && let Some(at) = value.windows(4).position(|window| window == b"$KEY")
        {
            value.splice(at..at + 4, KEY.bytes());
        }
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Exactly the `wanted` ones are left, each with all its values in their order.
fn kept(before: &HeaderMap, after: &HeaderMap, wanted: impl Fn(&str) -> bool) {
    for name in before.keys() {
        let values = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        let expected = if wanted(name.as_str()) { values(before) } else { Vec::new() };
        assert_eq!(values(after), expected, "{name}");
    }
    assert!(after.keys().all(|name| before.contains_key(name)));
}

/// Whether `Connection` keeps `name` to this hop.
fn named_by_connection(headers: &HeaderMap, name: &str) -> bool {
    let lists = headers.get_all(CONNECTION).iter().map(|value| value.as_bytes().to_ascii_lowercase());
    lists.into_iter().any(|list| list.split(|byte| *byte == b',').any(|item| item.trim_ascii() == name.as_bytes()))
}

/// Nothing of one hop, nothing that would end a line, no key.
fn wholesome(headers: &HeaderMap) {
    for (name, value) in headers {
        assert!(!NEVER.contains(&name.as_str()), "{name}");
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name}");
        let reported = value.as_bytes().windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!reported, "{name} holds the key");
    }
}

/// The key: the same in every place, and never shown.
fn presented(headers: &HeaderMap) {
    let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
    let (bearer, plain) = (all("authorization"), all("api-key"));
    let found = match key(headers) {
        Ok(found) => found,
        Err(refusal) => {
            let given = KEYS.iter().flat_map(|name| all(name)).count();
            assert!(refusal == Refusal::SeveralKeys && given > 1, "{refusal:?}");
            return shows_no_key(&refusal);
        }
    };
    let Some(found) = found else { return };
    for value in KEYS.iter().flat_map(|name| all(name)) {
        let of_other_scheme = value.as_bytes().contains(&b' ');
        let same = value.as_bytes().trim_ascii().ends_with(found.expose().as_bytes());
        assert!(same || of_other_scheme || value.is_empty() || is_scheme(value), "another hop may look at {value:?}");
    }
    assert!(!found.expose().is_empty() && found.expose().trim() == found.expose());
    let given = |value: &&HeaderValue| value.to_str().is_ok_and(|text| text.contains(found.expose()));
    assert!(bearer.iter().chain(&plain).any(given));
    assert!(!format!("{found:?}").contains(found.expose()) || "********".contains(found.expose()));
    shows_no_key(&Refusal::InvalidKey(KeyRefusal::Missing));
    let _: &Secret = &found;
}

/// `Bearer`, with nothing after it.
fn is_scheme(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"bearer")
}

/// Our own headers: read exactly or refused by name.
fn tuned(headers: &HeaderMap) {
    let one = |name: &str| -> Result<Option<String>, ()> {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        match values.as_slice() {
            [] => Ok(None),
            [value] => Ok(Some(value.to_str().map_err(drop)?.trim().to_owned())),
            _ => Err(()),
        }
    };
    let no_fallback = one(NO_FALLBACK).and_then(|text| match text.as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(()),
    });
    let deadline = one(DEADLINE).and_then(|text| {
        let Some(text) = text else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.trim_start_matches('0').parse::<u64>().map_err(drop);
        if digits { number.map(Some) } else { Err(()) }
    });
    match options(headers) {
        Ok(read) => {
            assert_eq!(Ok(read.no_fallback), no_fallback);
            let ms = read.deadline.map(|deadline| u64::try_from(deadline.as_millis()).expect("milliseconds were read"));
            assert_eq!(Ok(ms), deadline);
        }
        Err(refusal) => {
            assert!(no_fallback.is_err() || deadline.is_err(), "{refusal:?}");
            shows_no_key(&refusal);
        }
    }
}

/// A refusal, in its body, its headers and its log line.
fn shows_no_key(refusal: &Refusal) {
    let row = ApiError::refused(refusal);
    let response = format!(
        "{row:?} {} {:?}",
        String::from_utf8_lossy(&row.details().body(Dialect::Chat)),
        row.response().headers()
    );
    assert!(!response.contains(KEY), "{response}");
}
