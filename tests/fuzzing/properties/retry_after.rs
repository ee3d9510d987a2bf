//! How long a throttling provider asks us to stay away: at most a day whatever its headers and its body say, and
//! exactly what they say where they are valid.
//!
//! The first eight bytes are the wall time (its seconds for the most part), the next eight a number
//! from which valid headers are made; every further line is a header as a provider might send it. All of those lines
//! are a body, too, as they are and as its message.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tierway::domain::failure::Failure;
use tierway::protocol::chat::answer::ChatQuirks;
use tierway::protocol::{ErrorReading, Grammar};
use tierway::upstream::classify::{error_reply, status};

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The headers that are read, by the first byte of a line.
const NAMES: [&str; 8] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
];
/// From here on a number beyond a day is a point in time, in seconds; beyond the next one in milliseconds.
const POINT_IN_TIME: u64 = 1_000_000_000;
const IN_MILLISECONDS: u64 = 100_000_000_000;
/// The end of the year 9999, after which there are no HTTP dates.
const LAST_DATE: u64 = 253_402_300_799;

/// What must hold for any headers at any time.
pub fn holds(data: &[u8]) {
    let number = |from: usize| data.get(from..from + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8")));
    let (Some(now), Some(number)) = (number(0), number(8)) else { return };
    let now = now.cast_signed();
    arbitrary(&data[16..], now, number);
    whole_numbers(number, now);
    dates(number % (LAST_DATE + 1), now);
    spans(number, now);
    bodies(&data[16..], number, now);
}

/// Any headers: within bounds, and nothing else than throttling where a time is named.
fn arbitrary(lines: &[u8], now: i64, number: u64) {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Some((first, value)) = line.split_first()
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(NAMES[usize::from(*first) % NAMES.len()], value);
        }
    }
    match status(StatusCode::TOO_MANY_REQUESTS, &headers, now) {
        Failure::Throttled { after } => assert!(after.is_none_or(|after| after <= LONGEST), "{after:?}"),
        other => panic!("429 is {other:?}"),
    }
    let code = 500 + (number % 100) as u16;
    match status(StatusCode::from_u16(code).expect("a status"), &headers, now) {
        Failure::Throttled { after: Some(after) } => assert!(after <= LONGEST, "{after:?}"),
        other => assert_eq!(other, Failure::Status(code)),
    }
    let code = 100 + (number % 900) as u16;
    if !matches!(code, 429 | 500..=599) {
        let of = |headers| status(StatusCode::from_u16(code).expect("a status"), headers, now);
        assert_eq!(of(&headers), of(&HeaderMap::new()), "{code} does not depend on headers");
    }
}

fn asked(name: &'static str, value: &str, now: i64) -> Option<Duration> {
    let value = HeaderValue::from_str(value).expect("it is plain text");
    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
    match status(StatusCode::TOO_MANY_REQUESTS, &headers, now) {
        Failure::Throttled { after } => after,
        other => panic!("429 is {other:?}"),
    }
}

fn whole_numbers(number: u64, now: i64) {
    for number in [number, number % 100_000, number % 100_000_000, number % (1000 * IN_MILLISECONDS)] {
        let until = |at: Duration| {
            let now = Duration::from_millis(u64::try_from(now).ok()?);
            Some(at.saturating_sub(now).min(LONGEST))
        };
        let expected = |wait: Duration| match number {
            POINT_IN_TIME..=IN_MILLISECONDS if wait > LONGEST => until(Duration::from_secs(number)),
            POINT_IN_TIME.. if wait > LONGEST => until(Duration::from_millis(number)),
            _ => Some(wait.min(LONGEST)),
        };
        let check = |name, wait: Duration| match (asked(name, &number.to_string(), now), expected(wait)) {
            // Numbers are read as floats, which are a little off where they are large.
            (Some(read), Some(expected)) => {
                let allowed = if number < 1000 * IN_MILLISECONDS { 1 } else { number >> 50 };
                assert!(read.abs_diff(expected) <= Duration::from_millis(allowed), "{number}: {read:?} {expected:?}");
            }
            (read, expected) => assert_eq!(read, expected, "{number}"),
        };
        check("retry-after", Duration::from_secs(number));
        check("retry-after-ms", Duration::from_millis(number));
        assert_eq!(asked("retry-after", &format!("-{number}"), now), None);
    }
}

/// A body never makes a wait longer than a day, and never changes what a header says; what is repeated of it is short
/// and one line.
fn bodies(body: &[u8], number: u64, now: i64) {
    let grammar = Grammar::Chat(ChatQuirks::default());
    let message = serde_json::json!({ "error": { "message": String::from_utf8_lossy(body) } }).to_string();
    for body in [body, message.as_bytes()] {
        let reading = grammar.read_error(body);
        if let Some(sentence) = &reading.sentence {
            assert!(sentence.chars().count() <= 300 && !sentence.contains(char::is_control), "{sentence}");
        }
        for code in [400, 403, 404, 429, 503] {
            match replied(code, &HeaderMap::new(), &reading, now) {
                Failure::Throttled { after } => assert!(after.is_none_or(|after| after <= LONGEST), "{after:?}"),
                other => assert_ne!(other, Failure::Stale),
            }
        }
        let seconds = Duration::from_secs(number % 86_400);
        let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from(seconds.as_secs()))]);
        assert_eq!(replied(503, &headers, &reading, now), Failure::Throttled { after: Some(seconds) });
    }
    let millis = number % 80_000_000;
    let delay = format!("{}.{:03}s", millis / 1000, millis % 1000);
    for body in [
        serde_json::json!([{ "error": { "details": [{ "retryDelay": delay }] } }]),
        serde_json::json!({ "error": { "message": format!("Slow down. Please try again in {delay}. Thank you.") } }),
    ] {
        let reading = grammar.read_error(body.to_string().as_bytes());
        match replied(429, &HeaderMap::new(), &reading, now) {
            Failure::Throttled { after: Some(after) } => near(after, Duration::from_millis(millis)),
            other => panic!("{body} is {other:?}"),
        }
    }
}

fn replied(code: u16, headers: &HeaderMap, reading: &ErrorReading, now: i64) -> Failure {
    error_reply(StatusCode::from_u16(code).expect("a status"), headers, reading, now)
}

/// A valid date is so far away as it is, and gone by when it is past.
fn dates(at: u64, now: i64) {
    let date = UNIX_EPOCH + Duration::from_secs(at);
    let text = httpdate::fmt_http_date(date);
    let expected = u64::try_from(now).ok().map(|now| {
        let wait = (u128::from(at) * 1000).saturating_sub(u128::from(now));
        Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX)).min(LONGEST)
    });
    assert_eq!(asked("retry-after", &text, now), expected, "{text} at {now}");
}

fn spans(number: u64, now: i64) {
    let (hours, minutes, seconds, millis) =
        (number % 30, number / 30 % 60, number / 1800 % 60, number / 108_000 % 1000);
    let whole = Duration::from_secs(hours * 3600 + minutes * 60 + seconds);
    for name in ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"] {
        let read = |text: &str| asked(name, text, now).expect("a span");
        near(read(&format!("{hours}h{minutes}m{seconds}s")), whole.min(LONGEST));
        let finer = (whole + Duration::from_millis(millis)).min(LONGEST);
        near(read(&format!("{hours}h{minutes}m{seconds}s{millis}ms")), finer);
        near(read(&format!("{hours}h{minutes}m{seconds}.{millis:03}s")), finer);
    }
}

/// Fractions are read as floats.
fn near(read: Duration, expected: Duration) {
    assert!(read.abs_diff(expected) < Duration::from_micros(1), "{read:?} instead of {expected:?}");
}
