//! Reads the bodies of requests about conversations: what they hold is noted or refused as in the input of a response.
//!
//! Nothing is changed in them, and they name no model.
//!
//! Start reading in [`read_conversation`].

use super::input::InputReader;
use super::tools;
use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, Endpoint, RequestMetadata};
use crate::domain::stored_response::StoredRequest;
use crate::protocol::given::GivenReader;
use crate::protocol::json::member::members;
use crate::protocol::request_basics::{BodyText, model_name_problem};
use bytes::Bytes;

/// What is read of such a body.
const OF_CONVERSATIONS: [&str; 1] = ["items"];
const ITEMS: usize = 0;

/// Understands `body` as a request to make a conversation, and takes note of members that are `listed`. Clients may send none.
///
/// # Errors
/// [`BodyProblem`], as for the input of a response.
pub fn read_conversation(body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    let metadata = RequestMetadata { is_stored: true, ..read_metadata(&body, listed)? };
    Ok(Call::new(Endpoint::Conversations, body, metadata))
}

/// Understands `body` as that of `request`, about what is stored; the same, where `request` has one.
///
/// # Errors
/// As [`read_conversation`].
pub fn read_stored(request: StoredRequest, body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    let metadata = read_metadata(&body, listed)?;
    Ok(Call::of_stored(request, body, metadata))
}

/// `call`, meant for `model`, which the query names.
///
/// # Errors
/// [`BodyProblem::BadField`]: no model has such a name.
pub fn meant_for(call: Call, model: &str) -> Result<Call, BodyProblem> {
    match model_name_problem(model) {
        None => Ok(call.meant_for(model)),
        Some(what) => Err(BodyProblem::BadField { param: "model", message: format!("'model' {what}.") }),
    }
}

fn read_metadata(body: &[u8], listed: &ListedMembers) -> Result<RequestMetadata, BodyProblem> {
    if body.is_empty() {
        return Ok(RequestMetadata::without_model());
    }
    let place = BodyText::of(body)?;
    let mut given = GivenReader::new(place.text, listed, |_| true);
    let mut reader = InputReader::of_conversation(place.text);
    let [items] = members(place.text, OF_CONVERSATIONS, |index, name, scanner| match index {
        Some(ITEMS) => reader.input(scanner),
        _ => given.member(name, scanner),
    })?;
    items.list()?;
    tools::check(place.text, "items", &items)?;
    let refers_to = reader.end()?.refers_to;
    Ok(RequestMetadata { given: given.end()?, refers_to, ..RequestMetadata::without_model() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stored_response::StoredRequestKind;

    fn metadata(body: &str) -> Result<RequestMetadata, BodyProblem> {
        read_conversation(Bytes::copy_from_slice(body.as_bytes()), &ListedMembers::default())
            .map(|call| call.metadata().clone())
    }

    fn refuse(body: &str, at: &str, what: &str) {
        match metadata(body) {
            Err(BodyProblem::BadField { param, message }) => {
                assert_eq!(param, at, "{body}: {message}");
                assert!(message.contains(what), "{body}: {message}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn what_items_refer_to_is_noted() {
        let check = |body: &str, expected: &[&str]| {
            let metadata = metadata(body).unwrap_or_else(|problem| panic!("{body}: {problem:?}"));
            let found: Vec<_> = metadata.refers_to.iter().map(|s| format!("{:?}={}", s.kind, s.text)).collect();
            assert_eq!(
                (found, &*metadata.model, metadata.model_span.is_empty()),
                (expected.iter().map(|text| (*text).to_owned()).collect(), "", true)
            );
            assert!(metadata.is_stored && !metadata.stream);
        };
        check("", &[]);
        check("{}", &[]);
        check(r#"{"metadata":{"id":"x","file_id":"y"},"items":null,"model":7}"#, &[]);
        check(r#"{"items":[{"role":"user","content":"Hi","id":"msg_1"}]}"#, &[]);
        check(r#"{"items":[{"type":"item_reference","id":"msg_1"},{"id":"msg_2"}]}"#, &["Item=msg_1", "Item=msg_2"]);
        check(r#"{"items":[{"type":"reasoning","id":"rs_1","encrypted_content":"gAAA"}]}"#, &["Encrypted="]);
    }

    #[test]
    fn what_belongs_to_an_account_and_what_is_read_in_two_ways_is_refused() {
        let file = r#"{"items":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}"#;
        refuse(file, "items", "'file_id'");
        refuse(r#"{"items":[],"items":[]}"#, "items", "twice");
        refuse(r#"{"ITEMS":[]}"#, "items", "lower case");
        refuse(r#"{"items":[{"id":"a","id":"b"}]}"#, "items[].id", "twice");
        refuse(r#"{"items":[{"content":[{"type":"a","type":"b"}]}]}"#, "items[].content[].type", "twice");
        for odd in [r#"{"items":{}}"#, r#"{"items":"x"}"#, r#"{"items":1}"#] {
            refuse(odd, "items", "must be a list");
        }
        for odd in ["[]", "x", "{\"items\":", " "] {
            assert!(matches!(metadata(odd), Err(BodyProblem::NotJson(_))), "{odd:?}");
        }
    }

    #[test]
    fn what_a_path_names_comes_before_what_a_body_does() {
        let request = StoredRequest {
            action: StoredRequestKind::AddItems,
            id: "conv_1".into(),
            item: None,
            query: None,
            stream: false,
        };
        let body = Bytes::from_static(br#"{"items":[{"type":"item_reference","id":"msg_1"}]}"#);
        let call = read_stored(request, body.clone(), &ListedMembers::default()).expect("it is an object");
        let kinds: Vec<_> = call.metadata().refers_to.iter().map(|state| (state.kind.param(), &*state.text)).collect();
        assert_eq!(kinds, [("conversation_id", "conv_1"), ("input", "msg_1")]);
        assert_eq!((call.endpoint(), call.body()), (Endpoint::Conversations, &body));
    }

    #[test]
    fn a_conversation_may_be_meant_for_a_model() {
        let call = || read_conversation(Bytes::new(), &ListedMembers::default()).expect("none is one");
        assert!(call().may_change_model());
        let meant = meant_for(call(), "gpt-5").expect("it is a name");
        assert_eq!((&*meant.metadata().model, meant.may_change_model()), ("gpt-5", false));
        for odd in ["".to_owned(), "x".repeat(257)] {
            assert!(matches!(meant_for(call(), &odd), Err(BodyProblem::BadField { param: "model", .. })), "{odd}");
        }
    }
}
