//! Errors of chat completions: what a provider says in one, and how ours are written, as an answer or as the last
//! frame of a stream.
//!
//! It never chooses words: those of ours come from the error table of `http`.
//!
//! Start reading in [`body`].

use crate::protocol::ErrorDetails;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

/// `{"error":{…}}`, all four keys.
pub fn body(error: &ErrorDetails<'_>) -> Vec<u8> {
    serde_json::to_vec(&ErrorEnvelope::of(error)).expect("texts always serialise")
}

/// The frame that ends a stream whose answer broke after its first part: clients raise what it holds.
pub fn break_frame(error: &ErrorDetails<'_>) -> Bytes {
    [b"data: ", &body(error)[..], b"\n\n"].concat().into()
}

#[derive(Serialize)]
struct ErrorEnvelope<'a> {
    error: ErrorMembers<'a>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> ErrorEnvelope<'a> {
    fn of(error: &ErrorDetails<'a>) -> Self {
        let ErrorDetails { kind, code, param, message } = *error;
        Self { error: ErrorMembers { message, kind, param, code } }
    }
}

/// How hosts word it where they give no code.
const CONTEXT_TEXTS: [&str; 6] = [
    "maximum context length",
    "context length exceeded",
    "context_length_exceeded",
    "exceeds the context window",
    "exceed context limit",
    "prompt is too long",
];

/// Whether a refusal says that the request is longer than the model's context.
pub fn says_context_too_long(body: &[u8]) -> bool {
    let Ok(error) = serde_json::from_slice::<Value>(body) else { return false };
    // OpenAI nests the error; some hosts do not.
    let inner = error.get("error").filter(|inner| inner.is_object()).unwrap_or(&error);
    let is = |field: &str| inner.get(field).and_then(Value::as_str) == Some("context_length_exceeded");
    let texts = [inner.get("message"), error.get("error"), error.get("detail")];
    is("code")
        || is("type")
        || texts.into_iter().flatten().filter_map(Value::as_str).any(|text| {
            let text = text.to_ascii_lowercase();
            CONTEXT_TEXTS.iter().any(|known| text.contains(known))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_too_long_differs_from_a_bad_one() {
        let check = |body: &str, expected: bool| {
            assert_eq!(says_context_too_long(body.as_bytes()), expected, "{body}");
        };
        check(r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#, true);
        check(r#"{"error":{"message":"x","type":"context_length_exceeded","code":400}}"#, true);
        check(r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#, true);
        check(r#"{"object":"error","message":"The prompt is too long","code":422}"#, true);
        check(r#"{"error":"input exceeds the context window"}"#, true);
        check(r#"{"error":{"message":"bad","code":"invalid_value"}}"#, false);
        check("context_length_exceeded", false);
        check("", false);
    }

    #[test]
    fn an_error_has_all_four_keys_and_its_frame_holds_it() {
        let error = ErrorDetails { kind: "server_error", code: None, param: Some("n"), message: "A \"word\"." };
        let json = r#"{"error":{"message":"A \"word\".","type":"server_error","param":"n","code":null}}"#;
        assert_eq!(String::from_utf8_lossy(&body(&error)), json);
        assert_eq!(break_frame(&error), format!("data: {json}\n\n"));
    }
}
