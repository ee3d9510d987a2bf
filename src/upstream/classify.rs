//! What a provider's refusal or a broken connection means, as one [`Failure`].
//!
//! Pure functions over statuses, headers and error chains; what an error body says is asked of the provider's
//! grammar. It never reads a socket and never decides what comes next.
//!
//! Start reading in [`status`].

use crate::domain::failure::Failure;
use crate::protocol::Grammar;
use http::{HeaderMap, HeaderName, StatusCode};
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

/// The longest wait that is believed: a longer one is a fault of the provider.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a status other than 2xx means. [`Failure::Rejected`] asks for a look at the body with
/// [`rejection`]. `now_unix_ms` is wall time, for a `Retry-After` given as a date.
pub fn status(status: StatusCode, headers: &HeaderMap, now_unix_ms: i64) -> Failure {
    match status.as_u16() {
        429 => Failure::Throttled { after: retry_after(headers, now_unix_ms).or_else(|| limits_reset(headers)) },
        503 => match retry_after(headers, now_unix_ms) {
            Some(after) => Failure::Throttled { after: Some(after) },
            None => Failure::Status(503),
        },
        // 402: it is our account that is empty, not the client's.
        401..=403 => Failure::CredentialRefused,
        404 => Failure::NotFound,
        code @ (408 | 500..=599) => Failure::Status(code),
        400..=499 => Failure::Rejected,
        _ => Failure::Garbage,
    }
}

/// What a rejected request's body adds, read in the provider's `grammar`: whether it was merely too long.
pub(super) fn rejection(status: StatusCode, grammar: Grammar, body: &[u8]) -> Failure {
    let may_be_length = matches!(status.as_u16(), 400 | 413 | 422);
    match may_be_length && grammar.says_context_too_long(body) {
        true => Failure::ContextTooLong,
        false => Failure::Rejected,
    }
}

/// How long `Retry-After`, in either form, asks us to wait.
fn retry_after(headers: &HeaderMap, now_unix_ms: i64) -> Option<Duration> {
    let millis = text(headers, "retry-after-ms").and_then(|text| seconds(text, 1e-3));
    millis.or_else(|| {
        let text = text(headers, "retry-after")?;
        seconds(text, 1.0).or_else(|| until_date(text, now_unix_ms))
    })
}

fn until_date(text: &str, now_unix_ms: i64) -> Option<Duration> {
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(now_unix_ms).ok()?);
    Some(at.saturating_sub(now).min(LONGEST_WAIT))
}

/// When the spent ones of the provider's limits are full again: the latest, for all must be.
fn limits_reset(headers: &HeaderMap) -> Option<Duration> {
    let spent = |remaining| text(headers, remaining).is_none_or(|left| left == "0");
    let reset = |remaining, reset| text(headers, reset).filter(|_| spent(remaining)).and_then(span);
    let requests = reset("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
    let tokens = reset("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
    requests.max(tokens)
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(HeaderName::from_static(name))?.to_str().ok().map(str::trim)
}

/// A plain number of units of `unit` seconds.
fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|_| plain)?;
    Some(Duration::try_from_secs_f64(number * unit).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
}

/// A span as limits are written: `6m0s`, `1.5s`, `20ms`, `1h2m3s`, or plain seconds.
fn span(text: &str) -> Option<Duration> {
    if let Some(plain) = seconds(text, 1.0) {
        return Some(plain);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let unit = match &tail[..unit_end] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.saturating_add(seconds(number, unit)?);
        rest = &tail[unit_end..];
    }
    (!text.is_empty()).then_some(total.min(LONGEST_WAIT))
}

/// What it means when a request brought no head at all.
pub(super) fn unanswered(error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        return if error.is_timeout() { Failure::ConnectTimeout } else { Failure::Unreachable };
    }
    if is_invalid(error) { Failure::Garbage } else { Failure::Reset }
}

/// What it means when a body broke off before the commit point.
pub(super) fn broken_body(error: &reqwest::Error) -> Failure {
    if is_invalid(error) { Failure::Garbage } else { Failure::Truncated }
}

/// Whether bytes came that are not HTTP, as opposed to none.
fn is_invalid(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let hyper = cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        hyper || matches!(io, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
    })
}

/// An error with its causes, in one line and without its URL, which may hold a secret.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut line = String::new();
    for cause in causes(error).skip(1) {
        let text = cause.to_string();
        // A cause often repeats the one it wraps.
        if !line.ends_with(&text) {
            let _ = write!(line, "{}{text}", if line.is_empty() { "" } else { ": " });
        }
    }
    if line.is_empty() { "the request could not be sent".to_owned() } else { line }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::chat::answer::ChatQuirks;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_MS: i64 = 784_111_777_000;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        given
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    fn of(code: u16, given: &[(&'static str, &'static str)]) -> Failure {
        status(StatusCode::from_u16(code).expect("the case is a status"), &headers(given), NOW_MS)
    }

    #[test]
    fn every_status_has_a_meaning() {
        let check = |code: u16, expected: Failure| assert_eq!(of(code, &[]), expected, "{code}");
        for code in [100, 101, 300, 301, 302, 304, 307, 308, 399, 600, 999] {
            check(code, Failure::Garbage);
        }
        for code in [408, 500, 502, 503, 504, 520, 529, 599] {
            check(code, Failure::Status(code));
        }
        for code in [400, 405, 409, 413, 415, 422, 451] {
            check(code, Failure::Rejected);
        }
        for code in [401, 402, 403] {
            check(code, Failure::CredentialRefused);
        }
        check(404, Failure::NotFound);
        check(429, Failure::Throttled { after: None });
    }

    #[test]
    fn a_throttle_says_for_how_long() {
        let check = |given: &[(&'static str, &'static str)], millis: Option<u64>| {
            let expected = Failure::Throttled { after: millis.map(Duration::from_millis) };
            assert_eq!(of(429, given), expected, "{given:?}");
        };
        check(&[("retry-after", "7")], Some(7_000));
        check(&[("retry-after", " 1.5 ")], Some(1_500));
        check(&[("retry-after", "0")], Some(0));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "99999999999999999999999")], Some(86_400_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:27 GMT")], Some(0));
        check(&[("retry-after-ms", "250"), ("retry-after", "1")], Some(250));
        check(&[("x-ratelimit-reset-requests", "20ms")], Some(20));
        check(&[("x-ratelimit-reset-tokens", "6m0s"), ("x-ratelimit-reset-requests", "1s")], Some(360_000));
        check(
            &[
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-remaining-tokens", "12"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-remaining-requests", "0"),
            ],
            Some(1_000),
        );
        check(&[("x-ratelimit-reset-tokens", "1s"), ("x-ratelimit-remaining-tokens", "9")], None);
        check(&[("x-ratelimit-reset-tokens", "1h2m3.5s"), ("retry-after", "2")], Some(2_000));
    }

    #[test]
    fn an_unavailable_provider_that_names_a_time_is_throttling() {
        assert_eq!(of(503, &[("retry-after", "3")]), Failure::Throttled { after: Some(Duration::from_secs(3)) });
        assert_eq!(of(503, &[("x-ratelimit-reset-tokens", "3s")]), Failure::Status(503));
        assert_eq!(of(500, &[("retry-after", "3")]), Failure::Status(500));
    }

    #[test]
    fn spans_are_read_in_every_unit() {
        let check =
            |text: &str, millis: Option<u64>| assert_eq!(span(text), millis.map(Duration::from_millis), "{text}");
        check("6m0s", Some(360_000));
        check("1h2m3.5s", Some(3_723_500));
        check("20ms", Some(20));
        check("1m20ms", Some(60_020));
        check("12", Some(12_000));
        check("2d", Some(86_400_000));
        for text in ["", "m", "5", "1x", "1s2", "-1s", "1.2.3s", "é"].into_iter().filter(|text| *text != "5") {
            check(text, None);
        }
    }

    #[test]
    fn a_request_that_was_too_long_differs_from_a_bad_one() {
        let grammar = Grammar::Chat(ChatQuirks::default());
        let check = |code: u16, body: &str, expected: Failure| {
            let status = StatusCode::from_u16(code).expect("the case is a status");
            assert_eq!(rejection(status, grammar, body.as_bytes()), expected, "{code}: {body}");
        };
        for code in [400, 413, 422] {
            check(code, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::ContextTooLong);
        }
        check(415, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::Rejected);
        check(400, r#"{"error":{"message":"bad","code":"invalid_value"}}"#, Failure::Rejected);
        check(400, "context_length_exceeded", Failure::Rejected);
        check(400, "", Failure::Rejected);
    }
}
