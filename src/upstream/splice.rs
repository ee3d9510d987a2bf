//! Changes a few bytes of a JSON text and leaves every other byte as it came.
//!
//! On the way up: the model's name and the wish for usage, as slices of the client's body, which is
//! never copied. On the way down: a member we asked for and the client did not, cut out of a frame.
//! Nothing here parses or re-serialises; the places are handed in.

use crate::domain::call::{Call, Splice};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A request body made of slices, with an exact length.
#[derive(Debug)]
pub struct Pieces {
    left: VecDeque<Bytes>,
}

impl Pieces {
    /// The body of `call` with `model` (a JSON string) in the model's place, asking for usage and with a
    /// lower ceiling on its output where the call says how.
    pub fn for_model(call: &Call, model: &Bytes) -> Self {
        let metadata = call.metadata();
        let rename = (call.body()[metadata.model_span.clone()] != **model)
            .then(|| Splice { at: metadata.model_span.clone(), with: model.clone() });
        let [first, second] = &metadata.bounds.lower_ceiling;
        let mut edits = [rename.as_ref(), metadata.ask_usage.as_ref(), first.as_ref(), second.as_ref()];
        edits.sort_by_key(|edit| edit.map(|splice| splice.at.start));
        Self::of(call.body(), edits.into_iter().flatten())
    }

    /// `body` with `edits` made; they must be in order and apart.
    fn of<'a>(body: &Bytes, edits: impl Iterator<Item = &'a Splice>) -> Self {
        let mut left = VecDeque::new();
        let mut from = 0;
        for edit in edits {
            left.push_back(body.slice(from..edit.at.start));
            left.push_back(edit.with.clone());
            from = edit.at.end;
        }
        left.push_back(body.slice(from..));
        left.retain(|piece| !piece.is_empty());
        Self { left }
    }
}

impl From<Pieces> for reqwest::Body {
    fn from(mut pieces: Pieces) -> Self {
        match pieces.left.len() {
            0 => Self::from(Bytes::new()),
            1 => Self::from(pieces.left.remove(0).unwrap_or_default()),
            _ => Self::wrap(pieces),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// What to cut out of a JSON object so that the member whose value stands at `value` is gone: its
/// key, its value and one comma. `json` must be valid.
pub fn member_span(json: &[u8], value: Range<usize>) -> Range<usize> {
    // A key that reads `usage` holds no quote, however it is escaped: the next one back opens it.
    let colon = before_space(json, value.start) - 1;
    let closing = before_space(json, colon) - 1;
    let opening = json[..closing].iter().rposition(|&byte| byte == b'"').unwrap_or(0);
    let before = before_space(json, opening);
    if json[..before].last() == Some(&b',') {
        return before - 1..value.end;
    }
    let after = after_space(json, value.end);
    match json.get(after) {
        Some(b',') => opening..after_space(json, after + 1),
        _ => opening..value.end,
    }
}

/// Where the white space that ends before `end` begins.
fn before_space(json: &[u8], end: usize) -> usize {
    json[..end].trim_ascii_end().len()
}

/// Where the white space that begins at `start` ends.
fn after_space(json: &[u8], start: usize) -> usize {
    json.len() - json[start..].trim_ascii_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::{Bounds, Endpoint, FeatureSet, RequestMetadata};
    use crate::upstream::testing::{call, metadata};

    fn joined(pieces: &Pieces) -> Vec<u8> {
        pieces.left.iter().flatten().copied().collect()
    }

    #[test]
    fn the_model_is_replaced_only_where_it_differs() {
        let check = |body: &'static str, model: &'static str, expected: &str, pieces: usize| {
            let made = Pieces::for_model(&call(body), &Bytes::from(model));
            assert_eq!(String::from_utf8_lossy(&joined(&made)), expected, "{body}");
            assert_eq!(made.left.len(), pieces, "{body}");
            assert_eq!(made.size_hint().exact(), Some(expected.len() as u64), "{body}");
        };
        check(r#"{"model":"a","n":1.50}"#, r#""a""#, r#"{"model":"a","n":1.50}"#, 1);
        check(r#"{"model":"a","n":1.50}"#, r#""b/c""#, r#"{"model":"b/c","n":1.50}"#, 3);
        check(r#"{"model":"\u0061"}"#, r#""a""#, r#"{"model":"a"}"#, 3);
    }

    #[test]
    fn both_edits_land_in_either_order() {
        let check = |body: &'static str, at: Range<usize>, expected: &str| {
            let metadata =
                RequestMetadata { ask_usage: Some(Splice { at, with: Bytes::from_static(b"<U>") }), ..metadata(body) };
            let call = Call::new(Endpoint::Chat, Bytes::from_static(body.as_bytes()), metadata);
            let made = Pieces::for_model(&call, &Bytes::from_static(b"\"b\""));
            assert_eq!(String::from_utf8_lossy(&joined(&made)), expected, "{body}");
        };
        let body = r#"{"x":1,"model":"a"}"#;
        check(body, 1..1, r#"{<U>"x":1,"model":"b"}"#);
        check(body, 5..6, r#"{"x":<U>,"model":"b"}"#);
        check(body, 18..18, r#"{"x":1,"model":"b"<U>}"#);
    }

    #[test]
    fn a_large_body_is_not_copied() {
        let text = format!(r#"{{"model":"a","input":"{}"}}"#, "x".repeat(1 << 20));
        let body = Bytes::from(text);
        let metadata = RequestMetadata {
            model: "a".into(),
            model_span: 9..12,
            stream: false,
            ask_usage: None,
            max_output: None,
            choices: 1,
            inputs: 1,
            user: None,
            features: FeatureSet::default(),
            bounds: Bounds::default(),
        };
        let call = Call::new(Endpoint::Embeddings, body.clone(), metadata);
        let made = Pieces::for_model(&call, &Bytes::from_static(b"\"long-name\""));
        assert_eq!(made.left[2].as_ptr(), body[12..].as_ptr());
        assert_eq!(made.left[0].as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_member_goes_with_exactly_one_comma() {
        let check = |json: &str, expected: &str| {
            let value = json.find("VALUE").expect("the case marks its value");
            let span = member_span(json.as_bytes(), value..value + 5);
            assert_eq!(format!("{}{}", &json[..span.start], &json[span.end..]), expected, "{json}");
        };
        check(r#"{"a":1,"usage":VALUE}"#, r#"{"a":1}"#);
        check(r#"{"a":1, "usage" : VALUE, "b":2}"#, r#"{"a":1, "b":2}"#);
        check(r#"{"usage":VALUE,"b":2}"#, r#"{"b":2}"#);
        check(r#"{ "usage": VALUE , "b":2 }"#, r#"{ "b":2 }"#);
        check(r#"{"usage":VALUE}"#, "{}");
        check(r#"{"a":"x\",","\u0075sage":VALUE }"#, r#"{"a":"x\"," }"#);
    }
}
