//! How our errors are written in the dialect of chat completions, as an answer or as the last frame of a stream.
//!
//! It never chooses words: those come from the error table of `http`.
//!
//! Start reading in [`body`].

use crate::protocol::ErrorDetails;
use crate::protocol::json::text::put_string;
use bytes::Bytes;

/// `{"error":{…}}`, all four keys.
pub fn body(error: &ErrorDetails<'_>) -> Vec<u8> {
    let ErrorDetails { kind, code, param, message, .. } = *error;
    let mut body = Vec::with_capacity(message.len() + USUAL_REST);
    body.extend_from_slice(b"{\"error\":{\"message\":");
    put_string(&mut body, message);
    for (name, text) in [(",\"type\":", Some(kind)), (",\"param\":", param), (",\"code\":", code)] {
        body.extend_from_slice(name.as_bytes());
        match text {
            Some(text) => put_string(&mut body, text),
            None => body.extend_from_slice(b"null"),
        }
    }
    body.extend_from_slice(b"}}");
    body
}

/// How many bytes an error usually has besides its message.
const USUAL_REST: usize = 128;

/// The frame that ends a stream whose answer broke after its first part: clients raise what it holds.
pub fn break_frame(error: &ErrorDetails<'_>) -> Bytes {
    [b"data: ", &body(error)[..], b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_all_four_keys_and_its_frame_holds_it() {
        let (kind, message) = ("server_error", "A \"word\".");
        let error = ErrorDetails { status: 500, kind, code: None, param: Some("n"), message, request_id: None };
        let json = r#"{"error":{"message":"A \"word\".","type":"server_error","param":"n","code":null}}"#;
        assert_eq!(String::from_utf8_lossy(&body(&error)), json);
        assert_eq!(break_frame(&error), format!("data: {json}\n\n"));
    }
}
