//! How our errors are written in the dialect of Messages, as an answer or as the last frame of a stream.
//!
//! The official clients choose the class of an exception by the status and show the type; in a stream they raise only
//! an event that is named `error`. It never chooses words: those come from the error table of `http`.
//!
//! Start reading in [`body`].

use crate::protocol::ErrorDetails;
use bytes::Bytes;
use serde::Serialize;

/// `{"type":"error","error":{"type":…,"message":…},"request_id":…}`
pub fn body(error: &ErrorDetails<'_>) -> Vec<u8> {
    let (_, kind) = status_and_type(error);
    let request_id = error.request_id.map(|id| id.to_string());
    let error = ErrorObject { kind, message: error.message };
    serde_json::to_vec(&ErrorAnswer { kind: "error", error, request_id }).expect("texts always serialise")
}

/// The frame that ends a stream whose answer broke after its first part: clients raise what it holds.
pub fn break_frame(error: &ErrorDetails<'_>) -> Bytes {
    [b"event: error\ndata: ", &body(error)[..], b"\n\n"].concat().into()
}

/// The status by which the official clients know the error.
pub fn status(error: &ErrorDetails<'_>) -> u16 {
    status_and_type(error).0
}

fn status_and_type(error: &ErrorDetails<'_>) -> (u16, &'static str) {
    match (error.code, error.status) {
        (Some("insufficient_quota"), _) => (402, "billing_error"),
        (Some("no_deployment_available"), _) => (529, "overloaded_error"),
        (Some("upstream_timeout"), status) => (status, "timeout_error"),
        (_, status) => (status, type_of(status)),
    }
}

fn type_of(status: u16) -> &'static str {
    match status {
        400 | 405 | 415 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        _ => "api_error",
    }
}

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::RequestId;

    fn error(status: u16, code: &'static str) -> ErrorDetails<'static> {
        let (kind, message) = ("server_error", "A \"word\".");
        ErrorDetails { status, kind, code: Some(code), param: Some("n"), message, request_id: Some(RequestId(5)) }
    }

    #[test]
    fn an_error_names_the_type_of_its_status_and_the_request() {
        let error = error(404, "model_not_found");
        let json = "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"A \\\"word\\\".\"},\
                    \"request_id\":\"req_00000000000000000000000000000005\"}";
        assert_eq!(String::from_utf8_lossy(&body(&error)), json);
        assert_eq!(break_frame(&error), format!("event: error\ndata: {json}\n\n"));
        let nameless = ErrorDetails { request_id: None, ..error };
        assert!(!String::from_utf8_lossy(&body(&nameless)).contains("request_id"));
    }

    #[test]
    fn every_status_has_the_type_that_anthropic_gives_it() {
        for (status, code, expected) in [
            (400, "invalid_value", (400, "invalid_request_error")),
            (401, "invalid_api_key", (401, "authentication_error")),
            (403, "model_not_allowed", (403, "permission_error")),
            (404, "unknown_url", (404, "not_found_error")),
            (405, "method_not_allowed", (405, "invalid_request_error")),
            (408, "request_timeout", (408, "timeout_error")),
            (413, "request_too_large", (413, "request_too_large")),
            (415, "unsupported_content_encoding", (415, "invalid_request_error")),
            (429, "rate_limit_exceeded", (429, "rate_limit_error")),
            (429, "insufficient_quota", (402, "billing_error")),
            (500, "internal_error", (500, "api_error")),
            (502, "upstream_error", (502, "api_error")),
            (503, "no_deployment_available", (529, "overloaded_error")),
            (503, "ledger_unavailable", (503, "api_error")),
            (504, "upstream_timeout", (504, "timeout_error")),
            // The last frame of a stream, whose status was sent before.
            (200, "upstream_stream_interrupted", (200, "api_error")),
            (200, "upstream_timeout", (200, "timeout_error")),
        ] {
            assert_eq!(status_and_type(&error(status, code)), expected, "{code}");
        }
    }
}
