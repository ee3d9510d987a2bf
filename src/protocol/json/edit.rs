//! Changes a few bytes of a JSON text and leaves every other byte as it came.
//!
//! A request's body goes out as slices of what the client sent, which is never copied, with the edits between
//! them; of a frame that comes back, one member is cut out. The places are arguments: nothing here parses or
//! serialises.
//!
//! Start reading in [`EditedBody::of`].

use crate::domain::call::Splice;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A request body made of slices, with an exact length.
#[derive(Debug)]
pub struct EditedBody {
    pieces: VecDeque<Bytes>,
}

impl EditedBody {
    /// `body` with `edits` made; they must be in order and apart.
    pub fn of<'a>(body: &Bytes, edits: impl Iterator<Item = &'a Splice>) -> Self {
        let mut pieces = VecDeque::new();
        let mut from = 0;
        for edit in edits {
            pieces.push_back(body.slice(from..edit.at.start));
            pieces.push_back(edit.with.clone());
            from = edit.at.end;
        }
        pieces.push_back(body.slice(from..));
        pieces.retain(|piece| !piece.is_empty());
        Self { pieces }
    }

    /// The whole body where it is in one piece: nothing was changed.
    ///
    /// # Errors
    /// The body again, where it is in several pieces.
    pub fn into_single(mut self) -> Result<Bytes, Self> {
        match self.pieces.len() {
            0 | 1 => Ok(self.pieces.pop_front().unwrap_or_default()),
            _ => Err(self),
        }
    }
}

impl Body for EditedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// What to cut out of a JSON object so that the member whose value is at `value` is gone: its
/// key, its value and one comma. `json` must be valid, and the key must hold no quote.
pub fn member_span(json: &[u8], value: Range<usize>) -> Range<usize> {
    // The key holds no quote, however it is escaped: the next one back opens it.
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

    #[test]
    fn a_body_is_made_of_slices_with_the_edits_between() {
        let body = Bytes::from_static(b"0123456789");
        let check = |edits: &[(Range<usize>, &'static str)], expected: &str, pieces: usize| {
            let splice = |(at, with): &(Range<usize>, &'static str)| Splice { at: at.clone(), with: (*with).into() };
            let splices: Vec<Splice> = edits.iter().map(splice).collect();
            let edited = EditedBody::of(&body, splices.iter());
            assert_eq!(edited.pieces.iter().flatten().copied().collect::<Vec<_>>(), expected.as_bytes(), "{edits:?}");
            assert_eq!(edited.size_hint().exact(), Some(expected.len() as u64), "{edits:?}");
            let whole = edited.into_single().map_err(|edited| edited.pieces.len());
            assert_eq!(whole.as_ref().err().copied().unwrap_or(1), pieces, "{edits:?}");
            assert!(whole.is_err() || edits.len() == 1 || whole == Ok(body.clone()), "{edits:?}");
        };
        check(&[], "0123456789", 1);
        check(&[(0..10, "whole")], "whole", 1);
        check(&[(1..2, "a"), (2..2, "b"), (9..10, "")], "0ab2345678", 4);
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
