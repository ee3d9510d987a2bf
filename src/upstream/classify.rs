//! What a provider's refusal or a broken connection means, as one [`Failure`].
//!
//! Pure functions over statuses, headers and error chains; what an error body says is asked of the provider's
//! grammar. It never reads a socket and never decides what comes next.
//!
//! Start reading in [`error_reply`].

use crate::domain::failure::Failure;
use crate::protocol::{ErrorReading, ErrorTopic};
use http::{HeaderMap, HeaderName, StatusCode};
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

/// The longest wait that is believed: a longer one is a fault of the provider.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// From here on a number of seconds is a point in time, in 2001 or later, and not a wait of 31 years.
const FIRST_UNIX_SECOND: f64 = 1e9;
/// From here on a point in time is in milliseconds.
const FIRST_UNIX_MS: f64 = 1e11;

/// What a status other than 2xx means by itself; [`error_reply`] reads the body, too. `now_unix_ms` is wall time, for
/// a `Retry-After` given as a point in time.
pub fn status(status: StatusCode, headers: &HeaderMap, now_unix_ms: i64) -> Failure {
    match status.as_u16() {
        429 => Failure::Throttled {
            after: retry_after(headers, now_unix_ms).or_else(|| limits_reset(headers, now_unix_ms)),
        },
        code @ 500..=599 => match retry_after(headers, now_unix_ms) {
            Some(after) => Failure::Throttled { after: Some(after) },
            None => Failure::Status(code),
        },
        401 => Failure::CredentialRefused,
        code @ (402 | 403) => Failure::AccountRefused(code),
        // An endpoint that answers nothing at all to its method is none.
        404 if is_empty(headers) => Failure::NoEndpoint,
        404 => Failure::NotFound,
        // Path and method are ours.
        405 => Failure::NoEndpoint,
        // 407 is a proxy on the way that wants another password than ours. 409 and 499 are a conflict or an end within
        // the provider; 424 is a model that failed behind it.
        code @ (407 | 408 | 409 | 424 | 425 | 499) => Failure::Status(code),
        400..=499 => Failure::Rejected,
        _ => Failure::Garbage,
    }
}

/// What a reply other than 2xx means, with what its body said.
pub fn error_reply(code: StatusCode, headers: &HeaderMap, reading: &ErrorReading, now_unix_ms: i64) -> Failure {
    let by_head = status(code, headers, now_unix_ms);
    let said = || reading.wait.as_deref().and_then(|text| span(text, now_unix_ms));
    match by_head {
        // Waiting fills no account.
        Failure::Throttled { .. } if code == 429 && reading.topic == ErrorTopic::Account => {
            Failure::AccountRefused(429)
        }
        Failure::Throttled { after } => Failure::Throttled { after: after.or_else(said) },
        Failure::Status(501) if reading.topic == ErrorTopic::Endpoint => Failure::NoEndpoint,
        Failure::Status(500..) => said().map_or(by_head, |after| Failure::Throttled { after: Some(after) }),
        Failure::CredentialRefused
        | Failure::AccountRefused(_)
        | Failure::NotFound
        | Failure::NoEndpoint
        | Failure::Rejected => match reading.topic {
            ErrorTopic::Endpoint if matches!(code.as_u16(), 404 | 405) => Failure::NoEndpoint,
            ErrorTopic::ContextTooLong if matches!(code.as_u16(), 400 | 413 | 422) => Failure::ContextTooLong,
            ErrorTopic::Content if code != 401 => Failure::Rejected,
            ErrorTopic::Credential => Failure::CredentialRefused,
            ErrorTopic::Account => Failure::AccountRefused(code.as_u16()),
            ErrorTopic::Model => Failure::NotFound,
            ErrorTopic::Rate => Failure::Throttled { after: retry_after(headers, now_unix_ms).or_else(said) },
            ErrorTopic::Page if code != 405 => Failure::Garbage,
            ErrorTopic::ContextTooLong
            | ErrorTopic::Content
            | ErrorTopic::Endpoint
            | ErrorTopic::Page
            | ErrorTopic::Unknown => by_head,
        },
        other => other,
    }
}

/// How long `Retry-After`, in either form, asks us to wait.
fn retry_after(headers: &HeaderMap, now_unix_ms: i64) -> Option<Duration> {
    let millis = text(headers, "retry-after-ms").and_then(|text| number(text, 1e-3, now_unix_ms));
    millis.or_else(|| {
        let text = text(headers, "retry-after")?;
        number(text, 1.0, now_unix_ms).or_else(|| until_date(text, now_unix_ms))
    })
}

fn until_date(text: &str, now_unix_ms: i64) -> Option<Duration> {
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    until(at, now_unix_ms)
}

/// From now until `at`, counted from 1970; the past is no wait.
fn until(at: Duration, now_unix_ms: i64) -> Option<Duration> {
    let now = Duration::from_millis(u64::try_from(now_unix_ms).ok()?);
    Some(at.saturating_sub(now).min(LONGEST_WAIT))
}

/// When the spent ones of the provider's limits are full again: the latest, for all must be.
fn limits_reset(headers: &HeaderMap, now_unix_ms: i64) -> Option<Duration> {
    let spent = |remaining| text(headers, remaining).is_none_or(|left| left == "0");
    let reset =
        |remaining, reset| text(headers, reset).filter(|_| spent(remaining)).and_then(|text| span(text, now_unix_ms));
    let requests = reset("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
    let tokens = reset("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
    requests.max(tokens).max(reset("x-ratelimit-remaining", "x-ratelimit-reset"))
}

fn is_empty(headers: &HeaderMap) -> bool {
    text(headers, "content-length") == Some("0")
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(HeaderName::from_static(name))?.to_str().ok().map(str::trim)
}

/// A plain number: units of `unit` seconds, or a point in time.
fn number(text: &str, unit: f64, now_unix_ms: i64) -> Option<Duration> {
    let number = plain_number(text)?;
    let is_long = number * unit > LONGEST_WAIT.as_secs_f64();
    if is_long && number >= FIRST_UNIX_SECOND {
        let unit = if number > FIRST_UNIX_MS { 1e-3 } else { 1.0 };
        return until(Duration::try_from_secs_f64(number * unit).unwrap_or(Duration::MAX), now_unix_ms);
    }
    Some(bounded(number * unit))
}

fn plain_number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse::<f64>().ok().filter(|_| plain)
}

fn bounded(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

/// A span as hosts write it: `6m0s`, `1.5s`, `20ms`, `1h2m3s`, `20 seconds`, or a plain number.
fn span(text: &str, now_unix_ms: i64) -> Option<Duration> {
    if let Some(plain) = number(text, 1.0, now_unix_ms) {
        return Some(plain);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (count, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let unit = match &tail[..unit_end] {
            "ms" | "millisecond" | "milliseconds" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        total = total.saturating_add(bounded(plain_number(count.trim())? * unit));
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

/// What it means when a body could not be decoded.
pub(super) fn broken_coding(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof { Failure::Truncated } else { Failure::Garbage }
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
    use crate::protocol::Grammar;
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
        for code in [407, 408, 409, 424, 499, 500, 502, 503, 504, 520, 529, 599] {
            check(code, Failure::Status(code));
        }
        for code in [400, 412, 413, 415, 422, 451] {
            check(code, Failure::Rejected);
        }
        check(401, Failure::CredentialRefused);
        for code in [402, 403] {
            check(code, Failure::AccountRefused(code));
        }
        check(404, Failure::NotFound);
        check(405, Failure::NoEndpoint);
        assert_eq!(of(404, &[("content-length", "0")]), Failure::NoEndpoint);
        assert_eq!(of(404, &[("content-length", "10")]), Failure::NotFound);
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
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "1e3")], None);
        check(&[("retry-after", "")], None);
        check(&[("retry-after", ".")], None);
        check(&[("retry-after", "99999999999999999999999")], Some(86_400_000));
        // A year, a date in a year, and points in time as numbers: seconds and milliseconds.
        check(&[("retry-after", "31536000")], Some(86_400_000));
        check(&[("retry-after", "Mon, 06 Nov 1995 08:49:37 GMT")], Some(86_400_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:27 GMT")], Some(0));
        check(&[("retry-after-ms", "250"), ("retry-after", "1")], Some(250));
        check(&[("retry-after-ms", "-5"), ("retry-after", "1")], Some(1_000));
        check(&[("retry-after-ms", "90000000")], Some(86_400_000));
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
    fn a_large_number_is_a_point_in_time() {
        /// Sun, 09 Sep 2001 01:46:50 GMT: numbers before are none.
        const NOW_MS: i64 = 1_000_000_010_000;
        let check = |name: &'static str, value: &'static str, millis: u64| {
            let failure = status(StatusCode::TOO_MANY_REQUESTS, &headers(&[(name, value)]), NOW_MS);
            assert_eq!(failure, Failure::Throttled { after: Some(Duration::from_millis(millis)) }, "{name}: {value}");
        };
        for name in ["retry-after", "x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"] {
            check(name, "1000000017", 7_000);
            check(name, "1000000017500", 7_500);
            check(name, "1000000009", 0);
            check(name, "1000000009999", 0);
            check(name, "1900000000", 86_400_000);
            check(name, "86400", 86_400_000);
            check(name, "999999999", 86_400_000);
        }
        check("retry-after-ms", "1000000017500", 7_500);
        check("retry-after-ms", "86400000", 86_400_000);
    }

    #[test]
    fn an_unavailable_provider_that_names_a_time_is_throttling() {
        let after = Some(Duration::from_secs(3));
        for code in [500, 502, 503, 529] {
            assert_eq!(of(code, &[("retry-after", "3")]), Failure::Throttled { after });
            assert_eq!(of(code, &[("retry-after-ms", "3000")]), Failure::Throttled { after });
            // These come with any answer.
            assert_eq!(of(code, &[("x-ratelimit-reset-tokens", "3s")]), Failure::Status(code));
        }
        assert_eq!(of(408, &[("retry-after", "3")]), Failure::Status(408));
    }

    #[test]
    fn spans_are_read_in_every_unit() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(span(text, NOW_MS), millis.map(Duration::from_millis), "{text}")
        };
        check("6m0s", Some(360_000));
        check("1h2m3.5s", Some(3_723_500));
        check("20ms", Some(20));
        check("1m20ms", Some(60_020));
        check("12", Some(12_000));
        check("2d", Some(86_400_000));
        check("20 seconds", Some(20_000));
        check("1 minute", Some(60_000));
        for text in ["", "m", "1x", "1s2", "-1s", "1.2.3s", "é", " s"] {
            check(text, None);
        }
    }

    /// What `body` makes of a reply.
    fn said(code: u16, given: &[(&'static str, &'static str)], body: &str) -> Failure {
        let status = StatusCode::from_u16(code).expect("the case is a status");
        let reading = Grammar::Chat(ChatQuirks::default()).read_error(body.as_bytes());
        error_reply(status, &headers(given), &reading, NOW_MS)
    }

    #[test]
    fn a_request_that_was_too_long_differs_from_a_bad_one() {
        let check =
            |code: u16, body: &str, expected: Failure| assert_eq!(said(code, &[], body), expected, "{code}: {body}");
        for code in [400, 413, 422] {
            check(code, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::ContextTooLong);
        }
        check(415, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::Rejected);
        check(400, r#"{"error":{"message":"bad","code":"invalid_value"}}"#, Failure::Rejected);
        check(400, "context_length_exceeded", Failure::Rejected);
        check(400, "", Failure::Rejected);
    }

    #[test]
    fn a_body_decides_what_a_refusal_is_about() {
        const CONTENT: &str = r#"{"error":{"code":"content_filter","message":"x"}}"#;
        const KEY: &str = r#"{"error":{"code":"invalid_api_key","message":"x"}}"#;
        const QUOTA: &str = r#"{"error":{"type":"insufficient_quota","message":"x"}}"#;
        const MODEL: &str = r#"{"error":{"code":"model_decommissioned","message":"x"}}"#;
        const RATE: &str =
            r#"{"error":{"code":"rate_limit_exceeded","message":"Limit of tokens per minute, try again in 2s."}}"#;
        const PAGE: &str = "<!doctype html><title>Attention</title>";
        const UNKNOWN: &str = r#"{"error":{"message":"x"}}"#;
        let after = Some(Duration::from_secs(2));
        for code in [400, 401, 402, 403, 404, 412, 413, 422] {
            let check = |body: &str, expected: Failure| assert_eq!(said(code, &[], body), expected, "{code}: {body}");
            check(CONTENT, if code == 401 { Failure::CredentialRefused } else { Failure::Rejected });
            check(KEY, Failure::CredentialRefused);
            check(QUOTA, Failure::AccountRefused(code));
            check(MODEL, Failure::NotFound);
            check(RATE, Failure::Throttled { after });
            check(PAGE, Failure::Garbage);
            check(UNKNOWN, of(code, &[]));
            check("", of(code, &[]));
        }
        let sooner = Failure::Throttled { after: Some(Duration::from_secs(1)) };
        assert_eq!(said(413, &[("retry-after", "1")], RATE), sooner, "a header is exact");
        for body in [CONTENT, KEY, QUOTA, MODEL, PAGE, UNKNOWN] {
            assert_eq!(said(500, &[], body), Failure::Status(500), "{body}");
            assert_eq!(said(302, &[], body), Failure::Garbage, "{body}");
        }
    }

    #[test]
    fn a_path_that_a_host_does_not_have_is_no_model_that_it_does_not_know() {
        let missing = r#"{"detail":"Not Found"}"#;
        assert_eq!(said(404, &[], missing), Failure::NoEndpoint);
        assert_eq!(said(501, &[], r#"{"error":{"code":501,"type":"not_supported_error"}}"#), Failure::NoEndpoint);
        assert_eq!(said(501, &[], missing.replace("Not Found", "Busy").as_str()), Failure::Status(501));
        for body in ["", "{}", missing, "<html><h1>405 Not Allowed</h1></html>", "Method Not Allowed"] {
            assert_eq!(said(405, &[], body), Failure::NoEndpoint, "{body}");
        }
        let model = r#"{"error":{"message":"x","code":"model_not_found"}}"#;
        for code in [404, 405] {
            assert_eq!(said(code, &[], model), Failure::NotFound);
        }
        // Of another status, and of something else that was not found.
        assert_eq!(said(400, &[], missing), Failure::Rejected);
        assert_eq!(said(403, &[], missing), Failure::AccountRefused(403));
        for body in [r#"{"error":{"message":"No file found with id 'x'."}}"#, "<html><title>Sorry</title></html>"] {
            assert_ne!(said(404, &[], body), Failure::NoEndpoint, "{body}");
        }
    }

    #[test]
    fn a_body_says_how_long_a_throttle_lasts() {
        let check = |code: u16, given: &[(&'static str, &'static str)], body: &str, expected: Failure| {
            assert_eq!(said(code, given, body), expected, "{code} {given:?}: {body}");
        };
        let throttled = |millis: Option<u64>| Failure::Throttled { after: millis.map(Duration::from_millis) };
        let google = r#"[{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.","details":[{"retryDelay":"12.5s"}]}}]"#;
        let azure = r#"{"error":{"code":"429","message":"Exceeded token rate limit. Please retry after 20 seconds."}}"#;
        let groq = r#"{"error":{"message":"Limit 100, Used 97. Please try again in 9m38.016s.","code":"rate_limit_exceeded"}}"#;
        check(429, &[], google, throttled(Some(12_500)));
        check(429, &[], azure, throttled(Some(20_000)));
        check(429, &[], groq, throttled(Some(578_016)));
        check(429, &[("retry-after", "1")], azure, throttled(Some(1_000)));
        check(503, &[], google, throttled(Some(12_500)));
        check(503, &[], r#"{"error":{"message":"Try again in a moment."}}"#, Failure::Status(503));
        check(503, &[], r#"{"error":{"details":[{"retryDelay":"-3s"}]}}"#, Failure::Status(503));
        check(408, &[], azure, Failure::Status(408));
        check(429, &[], "", throttled(None));
        check(429, &[], "<html>Too many</html>", throttled(None));
        let empty = r#"{"error":{"message":"You exceeded your current quota.","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        check(429, &[], empty, Failure::AccountRefused(429));
        check(429, &[("retry-after", "1")], empty, Failure::AccountRefused(429));
    }
}
