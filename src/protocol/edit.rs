//! What is changed of a request on its way to a provider, and of an answer's frame on its way back, whatever the
//! dialect: the model's name, the wish for usage, the ceiling of the output where money is held for it; the usage nobody asked for.
//!
//! Every other byte stays as it came. Where to change what was read with the request; nothing is parsed again.
//!
//! Start reading in [`provider_body`].

use crate::domain::call::{Call, CeilingName, GivenCeiling, Splice};
use crate::protocol::FrameEdit;
use crate::protocol::json::edit::{EditedBody, member_span};
use bytes::Bytes;

/// The body of `call` with `model` (a JSON string) in the model's place, asking for usage if `ask_usage`, and with
/// `ceiling` as the one ceiling of its output, by the name that its provider knows; `None`: those of the client stay.
pub fn provider_body(call: &Call, model: &Bytes, ask_usage: bool, ceiling: Option<(CeilingName, u64)>) -> EditedBody {
    let metadata = call.metadata();
    let wish = metadata.ask_usage.as_ref().filter(|_| ask_usage);
    // The body of a conversation names none.
    let names_one = !metadata.model_span.is_empty();
    let rename = (names_one && call.body()[metadata.model_span.clone()] != **model)
        .then(|| Splice { at: metadata.model_span.clone(), with: model.clone() });
    let [written, cut] = ceiling.map_or([None, None], |(name, most)| write_ceiling(call, name, most));
    // What is inserted comes before what is cut there: the order stays where two begin alike.
    let mut edits = [rename.as_ref(), wish, written.as_ref(), cut.as_ref()];
    edits.sort_by_key(|edit| edit.map(|splice| splice.at.start));
    EditedBody::of(call.body(), edits.into_iter().flatten())
}

/// How to make the member `name` the one ceiling of `call`: what the client gave it, or else the other, and never more
/// than `most`. A second one is cut out: a provider may read either, and some refuse both together.
fn write_ceiling(call: &Call, name: CeilingName, most: u64) -> [Option<Splice>; 2] {
    let facts = &call.metadata().cost_facts;
    let own = facts.ceilings[name.slot()].as_ref();
    let other =
        Some(name.other()).filter(|other| *other != name).and_then(|other| facts.ceilings[other.slot()].as_ref());
    let given = |ceiling: Option<&GivenCeiling>| ceiling.and_then(|ceiling| ceiling.tokens);
    let tokens = given(own).or(given(other)).map_or(most, |asked| asked.min(most));
    let written = match (own, facts.ceiling_insert_at) {
        (Some(own), _) if own.tokens == Some(tokens) => None,
        (Some(own), _) => Some(Splice { at: own.at.clone(), with: Bytes::from(tokens.to_string()) }),
        // The object around it holds `model`, so the comma is right.
        (None, Some(at)) => Some(Splice { at: at..at, with: Bytes::from(format!("\"{}\":{tokens},", name.word())) }),
        (None, None) => None,
    };
    let cut = other.map(|other| Splice { at: member_span(call.body(), other.at.clone()), with: Bytes::new() });
    [written, cut]
}

/// Cuts out of `json`, an object, the member whose value is `value`, a slice of it.
pub fn without_member(json: &[u8], value: &str) -> FrameEdit {
    let start = value.as_ptr().addr() - json.as_ptr().addr();
    FrameEdit::Cut(member_span(json, start..start + value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::domain::call::Endpoint;
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::protocol::chat::request::read_request;
    use http_body::Body;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn call(endpoint: Endpoint, body: &Bytes) -> Call {
        read_request(endpoint, body.clone(), &ListedMembers::default())
            .unwrap_or_else(|problem| panic!("{body:?}: {problem:?}"))
    }

    fn pieces(call: &Call, model: &'static str) -> Vec<Bytes> {
        read(provider_body(call, &Bytes::from_static(model.as_bytes()), true, None))
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
            let ceiling = ceiling.map(|tokens| (CeilingName::MaxTokens, tokens));
            let sent = read(provider_body(&call, &Bytes::from_static(b"\"b\""), true, ceiling)).concat();
            assert_eq!(String::from_utf8_lossy(&sent), expected, "{body}");
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
            r#"{"max_tokens":5,"model":"b","stream":true,"stream_options":{"include_usage":true}}"#,
        );
        check(
            r#"{"max_completion_tokens":9,"model":"a","stream":true}"#,
            Some(5),
            r#"{"stream_options":{"include_usage":true},"max_tokens":5,"model":"b","stream":true}"#,
        );
    }

    /// Every spelling of a ceiling, and what is sent of it where at most 7 may be asked for: by name of the host.
    #[test]
    fn the_provider_reads_one_ceiling_by_the_name_it_knows_and_at_most_what_is_held() {
        let check = |given: &str, old: &str, new: &str| {
            for (max_completion_tokens, expected) in [(false, old), (true, new)] {
                let quirks = ChatQuirks { max_completion_tokens, ..ChatQuirks::default() };
                for (before, after) in
                    [("{", ",\"model\":\"m\"}"), ("{\"model\":\"m\",", "}"), (" { ", " , \"model\":\"m\" }")]
                {
                    let body = Bytes::from(format!("{before}{given}{after}"));
                    let call = call(Endpoint::Chat, &body);
                    let name = quirks.ceiling_name(Endpoint::Chat);
                    let model = Bytes::from_static(b"\"m\"");
                    let sent = Grammar::Chat(quirks).write_request(&call, &model, true, Some((name, 7)));
                    let sent = read(sent).concat();
                    let sent: Vec<(String, serde_json::Value)> = members_of(&sent);
                    let expected = members_of(format!("{{{expected}}}").as_bytes());
                    let others = |(name, _): &(String, serde_json::Value)| name != "model";
                    assert_eq!(sent.into_iter().filter(others).collect::<Vec<_>>(), expected, "{body:?} {quirks:?}");
                }
            }
        };
        let both = |given: &str, tokens: u64| {
            check(given, &format!("\"max_tokens\":{tokens}"), &format!("\"max_completion_tokens\":{tokens}"));
        };
        both(r#""max_tokens":8"#, 7);
        both(r#""max_tokens":3"#, 3);
        both(r#""max_completion_tokens":8"#, 7);
        both(r#""max_completion_tokens":3"#, 3);
        both(r#""max\u005ftokens": 3.0"#, 3);
        both(r#""max_completion_token\u0073":9e1"#, 7);
        for none in ["null", "0", "0.0", "0e3"] {
            both(&format!("\"max_tokens\":{none}"), 7);
            both(&format!("\"max_completion_tokens\":{none}"), 7);
            both(&format!("\"max_tokens\":{none},\"max_completion_tokens\":{none}"), 7);
            both(&format!("\"max_tokens\":{none},\"max_completion_tokens\":5"), 5);
            both(&format!("\"max_completion_tokens\":{none} , \"max_tokens\":9"), 7);
        }
        // Both: the host's own counts, as it would have at the host.
        check(r#""max_tokens":8,"max_completion_tokens":3"#, r#""max_tokens":7"#, r#""max_completion_tokens":3"#);
        check(r#""max_completion_tokens":8,"max_tokens":3"#, r#""max_tokens":3"#, r#""max_completion_tokens":7"#);
    }

    fn members_of(body: &[u8]) -> Vec<(String, serde_json::Value)> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).expect("an object");
        // As numbers, whatever their notation.
        let number = |value: serde_json::Value| value.as_f64().map_or(value, |number| number.into());
        object.into_iter().map(|(name, value)| (name, number(value))).collect()
    }

    #[test]
    fn a_ceiling_that_holds_costs_no_edit() {
        let check = |endpoint: Endpoint, body: &'static str, expected: &str| {
            let sent = Grammar::Chat(ChatQuirks::default()).write_request(
                &call(endpoint, &body.into()),
                &Bytes::from_static(b"\"m\""),
                false,
                Some((CeilingName::MaxTokens, 7)),
            );
            assert_eq!(read(sent).concat(), expected.as_bytes(), "{body}");
        };
        check(Endpoint::Chat, r#"{"model":"m","max_tokens":3.0}"#, r#"{"model":"m","max_tokens":3.0}"#);
        check(Endpoint::Chat, r#" {"model":"m"}"#, r#" {"max_tokens":7,"model":"m"}"#);
        check(Endpoint::Completions, r#"{"model":"m","max_tokens":8}"#, r#"{"model":"m","max_tokens":7}"#);
    }

    #[test]
    fn usage_is_not_asked_for_where_it_was_refused() {
        let check = |body: &'static str| {
            let call = call(Endpoint::Chat, &body.into());
            let mut sent = provider_body(&call, &Bytes::from_static(b"\"a\""), false, None);
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
