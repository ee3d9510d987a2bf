//! What an answer is labelled: as what it is, where its provider labelled it as something else.
//!
//! It never decides what an answer is: its bytes do.
//!
//! Start reading in [`correct`].

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

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
    let essence = essence(headers).to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Whether `headers` name a stream of events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    essence(headers).eq_ignore_ascii_case("text/event-stream")
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
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
