//! What ends a stream of Responses that broke. Errors by themselves are written as everywhere in OpenAI's API.
//!
//! Start reading in [`break_frame`].

use crate::protocol::ErrorDetails;
use bytes::Bytes;
use serde_json::json;

/// The event that ends a stream whose answer broke after its first part, with `number` as its place in the stream. The
/// official clients raise its `error`; those that go by the type of an event, Codex among them, read the `response`'s.
pub fn break_frame(error: &ErrorDetails<'_>, number: u64) -> Bytes {
    let ErrorDetails { kind, code, param, message, .. } = *error;
    let event = json!({
        "type": "response.failed",
        "sequence_number": number,
        "error": {"message": message, "type": kind, "param": param, "code": code},
        "response": {"object": "response", "status": "failed", "error": {"code": code.unwrap_or(kind), "message": message}},
    });
    format!("event: response.failed\ndata: {event}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_broken_stream_is_one_event_that_every_client_notices() {
        let error = ErrorDetails {
            status: 502,
            kind: "server_error",
            code: Some("upstream_x"),
            param: None,
            message: "It\n\"broke\".",
            request_id: None,
        };
        let frame = break_frame(&error, 7);
        let text = std::str::from_utf8(&frame).expect("it is text");
        let payload = text.strip_prefix("event: response.failed\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let payload = payload.expect("one event");
        assert!(!payload.contains('\n'));
        let event: serde_json::Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!((&event["type"], &event["sequence_number"]), (&"response.failed".into(), &7.into()));
        let said = json!({"message": "It\n\"broke\".", "type": "server_error", "param": null, "code": "upstream_x"});
        assert_eq!(event["error"], said);
        assert_eq!(event["response"]["status"], "failed");
        assert_eq!(event["response"]["error"], json!({"code": "upstream_x", "message": "It\n\"broke\"."}));
    }
}
