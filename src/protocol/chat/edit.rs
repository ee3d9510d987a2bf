//! What is changed of a chat request on its way to a provider, and of an answer's frame on its way back: the
//! model's name, the wish for usage, a lower ceiling on the output; the usage nobody asked for.
//!
//! Every other byte stays as it came. Where to change what was read with the request; nothing is parsed again.
//!
//! Start reading in [`provider_body`].

use crate::domain::call::{Call, Splice};
use crate::protocol::FrameEdit;
use crate::protocol::json::edit::{EditedBody, member_span};
use crate::protocol::json::member::whole_number;
use bytes::Bytes;
use std::ops::Range;

/// The body of `call` with `model` (a JSON string) in the model's place, asking for usage if `ask_usage`, and with a
/// lower ceiling on its output, where the call says so. Where the client set no ceiling,
/// ours is called `ceiling_name`.
pub fn provider_body(call: &Call, model: &Bytes, ask_usage: bool, ceiling_name: &str) -> EditedBody {
    let metadata = call.metadata();
    let wish = metadata.ask_usage.as_ref().filter(|_| ask_usage);
    let rename = (call.body()[metadata.model_span.clone()] != **model)
        .then(|| Splice { at: metadata.model_span.clone(), with: model.clone() });
    let [first, second] = lower_ceilings(call, ceiling_name);
    let mut edits = [rename.as_ref(), wish, first.as_ref(), second.as_ref()];
    edits.sort_by_key(|edit| edit.map(|splice| splice.at.start));
    EditedBody::of(call.body(), edits.into_iter().flatten())
}

/// How to write the call's lower ceiling: over each ceiling of the client's that is higher, or as a member of its
/// own where the client set none.
fn lower_ceilings(call: &Call, name: &str) -> [Option<Splice>; 2] {
    let facts = &call.metadata().cost_facts;
    let Some(tokens) = facts.lower_ceiling else { return [None, None] };
    if let ([None, None], Some(at)) = (&facts.ceilings_at, facts.ceiling_insert_at) {
        // The object around it holds `model`, so the comma is right.
        let with = Bytes::from(format!("\"{name}\":{tokens},"));
        return [Some(Splice { at: at..at, with }), None];
    }
    let is_lower = |at: &Range<usize>| {
        let text = std::str::from_utf8(&call.body()[at.clone()]).ok();
        text.and_then(whole_number).is_some_and(|given| given <= tokens)
    };
    let digits = Bytes::from(tokens.to_string());
    let places = facts.ceilings_at.clone();
    places.map(|at| at.filter(|at| !is_lower(at)).map(|at| Splice { at, with: digits.clone() }))
}

/// Cuts out of `json`, an object, the member whose value is `value`, a slice of it.
pub fn without_member(json: &[u8], value: &str) -> FrameEdit {
    let start = value.as_ptr().addr() - json.as_ptr().addr();
    FrameEdit::Cut(member_span(json, start..start + value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Endpoint;
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::protocol::chat::request::read_request;
    use http_body::Body;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn call(endpoint: Endpoint, body: &Bytes) -> Call {
        read_request(endpoint, body.clone()).unwrap_or_else(|problem| panic!("{body:?}: {problem:?}"))
    }

    fn pieces(call: &Call, model: &'static str) -> Vec<Bytes> {
        read(provider_body(call, &Bytes::from_static(model.as_bytes()), true, "max_tokens"))
    }

    fn read(mut body: EditedBody) -> Vec<Bytes> {
        let mut all = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(cx) {
            all.push(frame.into_data().expect("a piece is data"));
        }
        all
    }

    fn text(call: &Call, model: &'static str) -> String {
        String::from_utf8(pieces(call, model).concat()).expect("tests send text")
    }

    #[test]
    fn the_model_is_replaced_only_where_it_differs() {
        let check = |body: &'static str, model: &'static str, expected: &str, count: usize| {
            let call = call(Endpoint::Chat, &body.into());
            assert_eq!(text(&call, model), expected, "{body}");
            assert_eq!(pieces(&call, model).len(), count, "{body}");
        };
        check(r#"{"model":"a","n":1}"#, r#""a""#, r#"{"model":"a","n":1}"#, 1);
        check(r#"{"model":"a","x":1.50}"#, r#""b/c""#, r#"{"model":"b/c","x":1.50}"#, 3);
        check(r#"{"model":"\u0061"}"#, r#""a""#, r#"{"model":"a"}"#, 3);
    }

    #[test]
    fn all_edits_are_made_in_any_order() {
        let check = |body: &'static str, ceiling: Option<u64>, expected: &str| {
            let call = call(Endpoint::Chat, &body.into());
            let call = ceiling.map_or(call.clone(), |tokens| call.with_ceiling(tokens));
            assert_eq!(text(&call, "\"b\""), expected, "{body}");
        };
        check(
            r#"{"x":1,"model":"a","stream":true}"#,
            None,
            r#"{"stream_options":{"include_usage":true},"x":1,"model":"b","stream":true}"#,
        );
        check(
            r#"{"stream_options":null,"model":"a","stream":true}"#,
            None,
            r#"{"stream_options":{"include_usage":true},"model":"b","stream":true}"#,
        );
        check(
            r#"{"max_tokens":90,"model":"a","stream":true,"stream_options":{},"max_completion_tokens":null}"#,
            Some(5),
            r#"{"max_tokens":5,"model":"b","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":5}"#,
        );
    }

    #[test]
    fn a_lower_ceiling_is_written_where_the_client_has_a_higher_one_or_none() {
        let check = |endpoint: Endpoint, body: &'static str, expected: &str| {
            let lower = call(endpoint, &body.into()).with_ceiling(7);
            assert_eq!(lower.metadata().max_output, Some(7));
            assert_eq!(text(&lower, "\"m\""), expected, "{body}");
        };
        for endpoint in [Endpoint::Chat, Endpoint::Completions] {
            check(endpoint, r#" {"model":"m"}"#, r#" {"max_tokens":7,"model":"m"}"#);
            check(endpoint, r#"{"model":"m","max_tokens":8}"#, r#"{"model":"m","max_tokens":7}"#);
            check(endpoint, r#"{"model":"m","max_tokens":8.0}"#, r#"{"model":"m","max_tokens":7}"#);
            check(endpoint, r#"{"model":"m","max_tokens":null}"#, r#"{"model":"m","max_tokens":7}"#);
        }
        check(
            Endpoint::Chat,
            r#"{"model":"m","max_tokens":8,"max_completion_tokens":3}"#,
            r#"{"model":"m","max_tokens":7,"max_completion_tokens":3}"#,
        );
        check(
            Endpoint::Chat,
            r#"{"model":"m","max_completion_tokens":8}"#,
            r#"{"model":"m","max_completion_tokens":7}"#,
        );
    }

    #[test]
    fn a_ceiling_of_ours_has_the_hosts_name_for_it() {
        let check = |endpoint: Endpoint, body: &'static str, expected: &str| {
            let quirks = ChatQuirks { max_completion_tokens: true, ..ChatQuirks::default() };
            let lower = call(endpoint, &body.into()).with_ceiling(7);
            let sent = Grammar::Chat(quirks).write_request(&lower, &Bytes::from_static(b"\"m\""), false);
            assert_eq!(String::from_utf8_lossy(&read(sent).concat()), expected, "{body}");
        };
        check(Endpoint::Chat, r#"{"model":"m"}"#, r#"{"max_completion_tokens":7,"model":"m"}"#);
        // The client's own name stays: the host answers as it would have.
        check(Endpoint::Chat, r#"{"model":"m","max_tokens":9}"#, r#"{"model":"m","max_tokens":7}"#);
        check(Endpoint::Completions, r#"{"model":"m"}"#, r#"{"max_tokens":7,"model":"m"}"#);
    }

    #[test]
    fn usage_is_not_asked_for_where_it_was_refused() {
        let check = |body: &'static str| {
            let call = call(Endpoint::Chat, &body.into());
            let mut sent = provider_body(&call, &Bytes::from_static(b"\"a\""), false, "max_tokens");
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut sent).poll_frame(cx) else { panic!("{body} is empty") };
            assert_eq!(piece.into_data().ok().as_deref(), Some(body.as_bytes()));
        };
        check(r#"{"model":"a","stream":true}"#);
        check(r#"{"model":"a","stream":true,"stream_options":{"include_usage":false}}"#);
    }

    #[test]
    fn a_large_body_is_not_copied() {
        let body = Bytes::from(format!(r#"{{"model":"a","input":"{}"}}"#, "x".repeat(1 << 20)));
        let made = pieces(&call(Endpoint::Embeddings, &body), "\"long-name\"");
        assert_eq!(made[2].as_ptr(), body[12..].as_ptr());
        assert_eq!(made[0].as_ptr(), body.as_ptr());
    }
}
