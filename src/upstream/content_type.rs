//! What an answer is labelled: as what it is, where its provider labelled it as something else.
//!
//! It never decides what an answer is: its bytes do.
//!
//! Start reading in [`correct`].

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// What the names of other types of JSON end with.
const JSON_SUFFIX: &[u8] = b"+json";

/// Makes `headers` name a stream, or one JSON text, unless they do.
pub(super) fn correct(headers: &mut HeaderMap, stream: bool) {
    let (fits, right) = match stream {
        true => (is_event_stream(headers), "text/event-stream; charset=utf-8"),
        false => (is_json(headers), "application/json"),
    };
    if !fits {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(right));
    }
}

/// Whether `headers` name one JSON text.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = essence(headers);
    let (_, suffix) = essence.split_at(essence.len().saturating_sub(JSON_SUFFIX.len()));
    essence.eq_ignore_ascii_case(b"application/json") || suffix.eq_ignore_ascii_case(JSON_SUFFIX)
}

/// Whether `headers` name a stream of events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    essence(headers).eq_ignore_ascii_case(b"text/event-stream")
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    value[..end].trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_label_is_corrected_and_a_right_one_stays() {
        let check = |given: Option<&'static str>, stream: bool, expected: &str| {
            let value = given.map(|given| (CONTENT_TYPE, HeaderValue::from_static(given)));
            let mut headers: HeaderMap = value.into_iter().collect();
            correct(&mut headers, stream);
            assert_eq!(headers[CONTENT_TYPE], expected, "{given:?} {stream}");
        };
        for given in ["text/event-stream", "Text/Event-Stream;charset=UTF-8"] {
            check(Some(given), true, given);
            check(Some(given), false, "application/json");
        }
        for given in ["application/json", "application/problem+json; charset=utf-8"] {
            check(Some(given), false, given);
            check(Some(given), true, "text/event-stream; charset=utf-8");
        }
        for given in [None, Some(""), Some("text/plain"), Some("application/x-ndjson")] {
            check(given, false, "application/json");
            check(given, true, "text/event-stream; charset=utf-8");
        }
    }
}
