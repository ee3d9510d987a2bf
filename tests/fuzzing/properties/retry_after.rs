//! How long a throttling provider asks us to stay away: at most a day whatever its headers say, and
//! exactly what they say where they are valid.
//!
//! The first eight bytes are the wall time (its seconds for the most part), the next eight a number
//! from which valid headers are made; every further line is a header as a provider might send it.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tierway::domain::failure::Failure;
use tierway::upstream::classify::status;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The headers that are read, by the first byte of a line.
const NAMES: [&str; 6] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
];
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
    match status(StatusCode::SERVICE_UNAVAILABLE, &headers, now) {
        Failure::Throttled { after: Some(after) } => assert!(after <= LONGEST, "{after:?}"),
        Failure::Status(503) => {}
        other => panic!("503 is {other:?}"),
    }
    let code = 100 + (number % 900) as u16;
    if !matches!(code, 429 | 503) {
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
    for number in [number, number % 100_000, number % 100_000_000] {
        let seconds = Duration::from_secs(number).min(LONGEST);
        assert_eq!(asked("retry-after", &number.to_string(), now), Some(seconds));
        let read = asked("retry-after-ms", &number.to_string(), now).expect("a number");
        near(read, Duration::from_millis(number).min(LONGEST));
        assert_eq!(asked("retry-after", &format!("-{number}"), now), None);
    }
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
