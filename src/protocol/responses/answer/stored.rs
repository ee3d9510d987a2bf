//! What a provider says of a response or a conversation that it keeps: it as far as it is, the items that belong to it, one of
//! them, or that it is deleted.
//!
//! Start reading in [`read_stored`].

use super::{OutputItem, OutputItems, ResponseStatus, read_response};
use crate::protocol::json::lenient::{PartsReader, PartsValue};
use crate::protocol::json::member::unquoted;
use crate::protocol::{AnswerError, Moment};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

/// Reads it and passes `note` each moment in it. It is an answer whatever the response came to: what it was billed for, and
/// what it holds, are among the moments.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_stored(body: &[u8], mut note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    let object = serde_json::from_slice::<PartsValue<StoredObject>>(body).map(|parts| parts.0).unwrap_or_default();
    match object.kind() {
        StoredObjectKind::Deleted => {}
        StoredObjectKind::List => object.items.made(&mut note),
        StoredObjectKind::Item => {
            let item = serde_json::from_slice::<PartsValue<OutputItem>>(body).map(|parts| parts.0).unwrap_or_default();
            item.made(&mut note);
        }
        StoredObjectKind::Response => {
            return read_response(body, |response| {
                if response.id.is_none() && response.error.is_some() {
                    return note(Moment::Fault);
                }
                note(Moment::Finish);
                response.made(&mut note);
                response.output.made(&mut note);
                if response.status != ResponseStatus::GoesOn {
                    response.usage(&mut note);
                }
                note(Moment::End);
            });
        }
    }
    note(Moment::Finish);
    note(Moment::End);
    Ok(())
}

/// What an object says that it is.
#[derive(Clone, Copy)]
enum StoredObjectKind {
    Deleted,
    List,
    /// It names no kind of object, and has a type and an id, as the items of a conversation do.
    Item,
    /// Or a conversation, of which an id is all there is to know.
    Response,
}

/// What the members of such an object are called.
#[derive(Clone, Copy, Default)]
enum StoredObjectName {
    Object,
    Type,
    Id,
    Data,
    #[default]
    Other,
}

/// One object, as far as it tells what it is.
#[derive(Default)]
struct StoredObject {
    object: Option<StoredObjectKind>,
    has_type: bool,
    has_id: bool,
    items: OutputItems,
}

impl StoredObject {
    fn kind(&self) -> StoredObjectKind {
        let untold = if self.has_type && self.has_id { StoredObjectKind::Item } else { StoredObjectKind::Response };
        self.object.unwrap_or(untold)
    }
}

impl<'de> PartsReader<'de> for StoredObject {
    type Name = StoredObjectName;

    fn name(text: &str) -> StoredObjectName {
        match text {
            "object" => StoredObjectName::Object,
            "type" => StoredObjectName::Type,
            "id" => StoredObjectName::Id,
            "data" => StoredObjectName::Data,
            _ => StoredObjectName::Other,
        }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: StoredObjectName, members: &mut A) -> Result<(), A::Error> {
        match name {
            StoredObjectName::Object => {
                self.object = Some(match unquoted(members.next_value::<&RawValue>()?.get()).as_deref() {
                    Some("response.deleted" | "conversation.deleted") => StoredObjectKind::Deleted,
                    Some("list") => StoredObjectKind::List,
                    _ => StoredObjectKind::Response,
                });
            }
            StoredObjectName::Type => {
                members.next_value::<IgnoredAny>()?;
                self.has_type = true;
            }
            StoredObjectName::Id => {
                members.next_value::<IgnoredAny>()?;
                self.has_id = true;
            }
            StoredObjectName::Data => self.items = members.next_value::<PartsValue<OutputItems>>()?.0,
            StoredObjectName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ResponsesStream;
    use super::*;
    use crate::domain::provider_state::StateId;
    use crate::domain::usage::Usage;
    use crate::protocol::{Event, FrameEdit, UsageReport};

    fn read(body: &str) -> Vec<Moment> {
        let mut moments = Vec::new();
        read_stored(body.as_bytes(), |moment| moments.push(moment)).expect("it is an object");
        moments
    }

    fn made(id: &str) -> Moment {
        Moment::Made(StateId::stored(id))
    }

    fn counted() -> Moment {
        let usage = Some(Usage { input: 5, output: 7, ..Usage::default() });
        Moment::Usage(UsageReport { usage, has_output: true, is_impossible: false })
    }

    const USAGE: &str = r#""usage":{"input_tokens":5,"output_tokens":7}"#;

    #[test]
    fn a_response_is_an_answer_whatever_it_came_to() {
        let of = |status: &str, more: &str| {
            read(&format!(r#"{{"id":"r","object":"response","status":"{status}","output":[{{"id":"m"}}]{more}}}"#))
        };
        for status in ["queued", "in_progress"] {
            assert_eq!(of(status, ""), [Moment::Finish, made("r"), made("m"), Moment::End], "{status}");
            // What it has used so far is not what it will have used.
            assert_eq!(of(status, &format!(",{USAGE}")), [Moment::Finish, made("r"), made("m"), Moment::End]);
        }
        for status in ["completed", "incomplete", "cancelled", "failed"] {
            let found = of(status, &format!(r#","error":{{"code":"server_error"}},{USAGE}"#));
            assert_eq!(found, [Moment::Finish, made("r"), made("m"), counted(), Moment::End], "{status}");
        }
        assert_eq!(read(r#"{"error":{"message":"x"}}"#), [Moment::Fault]);
    }

    #[test]
    fn of_a_list_its_items_may_be_referred_to_and_of_what_is_deleted_nothing() {
        let list = r#"{"object":"list","data":[{"id":"msg_1"},{"id":"msg_2"}],"first_id":"msg_1"}"#;
        assert_eq!(read(list), [made("msg_1"), made("msg_2"), Moment::Finish, Moment::End]);
        for object in ["response.deleted", "conversation.deleted"] {
            let deleted = format!(r#"{{"id":"r","object":"{object}","deleted":true}}"#);
            assert_eq!(read(&deleted), [Moment::Finish, Moment::End]);
        }
        for cut in ["", "{", r#"{"object":"list","data":["#] {
            assert_eq!(read_stored(cut.as_bytes(), |_| {}), Err(AnswerError::EndsEarly), "{cut}");
        }
    }

    #[test]
    fn a_conversation_and_an_item_of_it_may_be_referred_to() {
        let conversation = r#"{"id":"conv_1","object":"conversation","created_at":1,"metadata":{"error":"x"}}"#;
        assert_eq!(read(conversation), [Moment::Finish, made("conv_1"), Moment::End]);
        // An item may hold what an answer would fail by.
        let call = r#"{"type":"mcp_call","id":"mcp_1","status":"failed","error":"x","output":"y"}"#;
        assert_eq!(read(call), [made("mcp_1"), Moment::Finish, Moment::End]);
        let sealed = Moment::Made(StateId::encrypted("gAAA"));
        let reasoning = r#"{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"gAAA"}"#;
        assert_eq!(read(reasoning), [made("rs_1"), sealed, Moment::Finish, Moment::End]);
        assert_eq!(read(r#"{"type":"error","error":{"message":"x"}}"#), [Moment::Fault]);
    }

    #[test]
    fn a_stored_stream_begins_anywhere_and_ends_with_what_became_of_the_response() {
        for (end, is_end) in [
            (r#"{"type":"response.completed","sequence_number":9,"response":{"id":"r","status":"completed"}}"#, true),
            (
                r#"{"type":"response.failed","sequence_number":9,"response":{"id":"r","error":{"code":"server_error"}}}"#,
                true,
            ),
            (r#"{"type":"response.cancelled","sequence_number":9,"response":{"id":"r"}}"#, true),
            (r#"{"type":"error","sequence_number":9,"code":"server_error","message":"x"}"#, true),
            (r#"{"type":"response.in_progress","sequence_number":9,"response":{"id":"r"}}"#, false),
            (r#"{"type":"response.output_text.done","sequence_number":9,"text":"x"}"#, false),
        ] {
            let mut stream = ResponsesStream::of_stored();
            for payload in [r#"{"type":"response.output_text.delta","sequence_number":8,"delta":"x"}"#, end] {
                let mut is_good = false;
                let event = Event { name: None, payload: payload.as_bytes(), terminated: true };
                let edit = stream.read(event, |moment| is_good |= moment.is_good());
                assert_eq!((edit, is_good), (Ok(FrameEdit::Keep), true), "{payload}");
            }
            assert_eq!(
                (stream.is_finished(), stream.end().is_ok(), stream.next_number()),
                (is_end, is_end, 10),
                "{end}"
            );
        }
    }
}
