//! Reads the few members of a body for `POST /v1/responses` that routing, limits, the meter and the pinning of state must
//! know: what comes out is a [`Call`].
//!
//! It never changes the body. What refers to something that only one account of a provider has is either noted, so that
//! it can be pinned, or refused: it never passes unseen. A member that is read and given twice, or in another spelling, is
//! refused as for chat.
//!
//! Start reading in [`read_request`].

mod conversation;
mod input;
mod tools;

pub use conversation::{meant_for, read_conversation, read_stored};

use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, CostFacts, Endpoint, Feature, FeatureSet, RequestMetadata};
use crate::domain::provider_state::{NamedState, StateId, StateKind};
use crate::protocol::given::GivenReader;
use crate::protocol::json::member::{BodyField, member_of, members};
use crate::protocol::request_basics::{BodyText, basics, ceiling, cost_facts, lists_some};
use bytes::Bytes;
use input::InputReader;
use std::borrow::Cow;

/// The members that are read of a body.
const OF_RESPONSES: [&str; 13] = [
    "model",
    "input",
    "tools",
    "user",
    "stream",
    "max_output_tokens",
    "text",
    "previous_response_id",
    "conversation",
    "store",
    "background",
    "prompt",
    "stream_options",
];
const INPUT: usize = 1;
const TOOLS: usize = 2;
/// The ceiling; a host of chat that takes it writes more than it was asked for.
const MAX_OUTPUT: usize = 5;
const PREVIOUS_RESPONSE: usize = 7;
const CONVERSATION: usize = 8;

/// Tools that the client runs itself, or that cost no more than their tokens.
const OWN_TOOLS: [&str; 8] = [
    "function",
    "custom",
    "namespace",
    "tool_search",
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use_preview",
];

const NEEDS_STORE: &str = "needs 'store' to be true: the answer is fetched later";
const NOT_SERVED_PROMPT: &str = "is not served here: a stored prompt belongs to the provider's account, not to this key. Write it as 'instructions' \
     and 'input'";

/// Understands `body` as a request to `endpoint`, for a response or for what its input counts, and takes note of members that are `listed`.
///
/// # Errors
/// [`BodyProblem`], as for chat; also for what is stored at a provider and cannot be pinned: files, stored prompts.
pub fn read_request(endpoint: Endpoint, body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    let metadata = {
        let place = BodyText::of(&body)?;
        let mut given = GivenReader::new(place.text, listed, |tool| OWN_TOOLS.contains(&tool));
        let metadata = read_metadata(place, &mut given)?;
        // A count is never a stream.
        let stream = metadata.stream && endpoint == Endpoint::Responses;
        RequestMetadata { stream, given: given.end()?, ..metadata }
    };
    Ok(Call::new(endpoint, body, metadata))
}

fn read_metadata(place: BodyText<'_>, given: &mut GivenReader<'_>) -> Result<RequestMetadata, BodyProblem> {
    let mut items = InputReader::new(place.text);
    let found = members(place.text, OF_RESPONSES, |index, name, scanner| match index {
        Some(INPUT) => items.input(scanner),
        Some(TOOLS) => given.tools(scanner),
        // Their tokens are bounded by the model's context, and their price is known.
        Some(PREVIOUS_RESPONSE | CONVERSATION | MAX_OUTPUT) => scanner.value(),
        _ => given.member(name, scanner),
    })?;
    let [model, input, tools, user, stream, max_output, text, previous, conversation, store, background, prompt, _] =
        found;
    let is_stored = store.given().is_none() || store.boolean()?;
    let billed_later = background.boolean()?;
    if billed_later && !is_stored {
        return Err(background.bad(NEEDS_STORE));
    }
    if prompt.given().is_some() {
        return Err(prompt.bad(NOT_SERVED_PROMPT));
    }
    if input.given().is_some_and(|value| !value.text.starts_with(['"', '['])) {
        return Err(input.bad("must be a string or a list"));
    }
    tools::check(place.text, "input", &input)?;
    tools::check(place.text, "tools", &tools)?;
    let items = items.end()?;
    let mut refers_to = items.refers_to;
    refers_to.extend(reference(&previous, StateKind::Response, previous.string()?)?);
    refers_to.extend(reference(&conversation, StateKind::Conversation, conversation_id(place, &conversation)?)?);
    let is_elsewhere = items.contents.elsewhere || given.provider_runs_tools();
    // What a conversation is told stays in it, whatever becomes of the response.
    let is_stored = is_stored || conversation.given().is_some();
    let is_remembered = refers_to.iter().any(|state| state.kind != StateKind::Encrypted);
    Ok(RequestMetadata {
        stream: stream.boolean()?,
        max_output: ceiling(&max_output)?,
        features: features(place, &tools, &text, items.contents.images)?,
        cost_facts: CostFacts {
            media: items.contents.media,
            billed_later,
            ..cost_facts(place, [Some(&max_output), None], is_elsewhere || is_remembered)?
        },
        refers_to,
        is_stored,
        ..basics(&model, Some(&user))?
    })
}

/// What `member` refers to by `id`.
fn reference(
    member: &BodyField<'_>,
    kind: StateKind,
    id: Option<Cow<'_, str>>,
) -> Result<Option<NamedState>, BodyProblem> {
    let Some(id) = id else { return Ok(None) };
    if id.is_empty() {
        return Err(member.bad("must not be empty"));
    }
    Ok(Some(NamedState { id: StateId::stored(&id), kind, text: (&*id).into() }))
}

/// The id of a conversation: a text, or an object that has it.
fn conversation_id<'a>(place: BodyText<'a>, conversation: &BodyField<'a>) -> Result<Option<Cow<'a, str>>, BodyProblem> {
    match conversation.given() {
        Some(value) if value.text.starts_with('{') => {
            let id = member_of(place.text, value, "conversation.id")?;
            id.string()?.map_or_else(|| Err(id.bad("is required")), |id| Ok(Some(id)))
        }
        _ => conversation.string(),
    }
}

fn features(
    place: BodyText<'_>,
    tools: &BodyField<'_>,
    text: &BodyField<'_>,
    images: bool,
) -> Result<FeatureSet, BodyProblem> {
    let needed = [
        (Feature::Tools, lists_some(tools)?),
        (Feature::JsonSchema, asks_for_json_schema(place, text)?),
        (Feature::Vision, images),
    ];
    Ok(FeatureSet::of(needed.into_iter().filter_map(|(feature, needed)| needed.then_some(feature))))
}

fn asks_for_json_schema(place: BodyText<'_>, text: &BodyField<'_>) -> Result<bool, BodyProblem> {
    let Some(object) = text.object()? else { return Ok(false) };
    let format = member_of(place.text, object, "text.format")?;
    let Some(object) = format.object()? else { return Ok(false) };
    let kind = member_of(place.text, object, "text.format.type")?;
    Ok(kind.string()?.as_deref() == Some("json_schema"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Grammar;
    use crate::protocol::json::edit::EditedBody;
    use http_body::Body;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn metadata(body: &str) -> Result<RequestMetadata, BodyProblem> {
        read_request(Endpoint::Responses, Bytes::copy_from_slice(body.as_bytes()), &ListedMembers::default())
            .map(|call| call.metadata().clone())
    }

    /// What a body says beyond the model, as one line.
    fn check(members: &str, expected: &str) {
        let found = metadata(&format!("{{\"model\":\"m\",{members}}}"));
        let metadata = found.unwrap_or_else(|problem| panic!("{members}: {problem:?}"));
        let mut words = Vec::new();
        words.extend(metadata.stream.then(|| "stream".to_owned()));
        words.extend(metadata.max_output.map(|tokens| format!("max={tokens}")));
        words.extend((!metadata.is_stored).then(|| "unstored".to_owned()));
        words.extend(metadata.user.map(|user| format!("user={user}")));
        words.extend(Feature::ALL.iter().filter(|f| metadata.features.contains(**f)).map(|f| f.name().to_owned()));
        words.extend(metadata.refers_to.iter().map(|state| format!("{:?}={}", state.kind, state.text)));
        words.extend(metadata.cost_facts.billed_later.then(|| "later".to_owned()));
        words.extend(metadata.cost_facts.input_elsewhere.then(|| "elsewhere".to_owned()));
        assert_eq!(words.join(" "), expected, "{members}");
    }

    fn refuse(members: &str, at: &str, what: &str) {
        match metadata(&format!("{{\"model\":\"m\",{members}}}")) {
            Err(BodyProblem::BadField { param, message }) => {
                assert_eq!(param, at, "{members}: {message}");
                assert!(message.contains(what), "{members}: {message}");
            }
            other => panic!("{members}: {other:?}"),
        }
    }

    #[test]
    fn bodies_are_understood() {
        check(r#""input":"Hi""#, "");
        check(r#""input":null,"stream":null,"store":null,"background":null,"prompt":null,"conversation":null"#, "");
        check(r#""input":"Hi","stream":true,"max_output_tokens":1e2,"user":"u""#, "stream max=100 user=u");
        check(r#""max_output_tokens":0,"store":false,"background":false"#, "unstored");
        check(r#""tools":[{"type":"function","name":"f"}]"#, "tools");
        check(r#""text":{"format":{"type":"json_schema","schema":{}}}"#, "json_schema");
        check(r#""text":{"format":{"type":"text"},"verbosity":"low"}"#, "");
        check(r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"data:x"}]}]"#, "vision");
        check(r#""input":[{"role":"user","content":[{"type":"input_file","file_url":"https://x"}]}]"#, "elsewhere");
        check(r#""input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image"}]}]"#, "vision");
    }

    #[test]
    fn what_is_kept_elsewhere_is_noted() {
        check(r#""previous_response_id":"resp_1""#, "Response=resp_1 elsewhere");
        check(r#""conversation":"conv_1""#, "Conversation=conv_1 elsewhere");
        check(r#""conversation":{"id":"conv_1"}"#, "Conversation=conv_1 elsewhere");
        // Its items are kept, whatever becomes of the response.
        check(r#""conversation":"conv_1","store":false"#, "Conversation=conv_1 elsewhere");
        for item in [
            r#"{"type":"item_reference","id":"x_1"}"#,
            r#"{"id":"x_1"}"#,
            r#"{"type":null,"id":"x_1"}"#,
            r#"{"type":"reasoning","id":"x_1","summary":[{"type":"summary_text","text":"a"}]}"#,
            r#"{"type":"reasoning","id":"x_1","summary":[],"content":null,"encrypted_content":null}"#,
            r#"{"type":"image_generation_call","id":"x_1"}"#,
            r#"{"type":"something_new","id":"x_1"}"#,
        ] {
            check(&format!(r#""input":["a",{item}]"#), "Item=x_1 elsewhere");
        }
        check(r#""input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"}]"#, "Encrypted=");
        check(r#""input":[{"type":"compaction","id":"c","encrypted_content":"gAAA"}]"#, "Encrypted=");
        for whole in [
            r#"{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"a"}]}"#,
            r#"{"id":"msg_1","role":"user","content":"a"}"#,
            r#"{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"}"#,
            r#"{"type":"web_search_call","id":"ws_1","status":"completed"}"#,
            r#"{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"a"}]}"#,
            r#"{"type":"image_generation_call","id":"ig_1","result":"aaaa"}"#,
        ] {
            check(&format!(r#""input":[{whole}]"#), "");
        }
    }

    #[test]
    fn what_cannot_be_pinned_is_refused() {
        check(r#""background":true"#, "later");
        refuse(r#""background":true,"store":false"#, "background", "needs 'store' to be true");
        refuse(r#""prompt":{"id":"pmpt_1"}"#, "prompt", "not served here");
        refuse(r#""previous_response_id":"""#, "previous_response_id", "must not be empty");
        refuse(r#""conversation":{}"#, "conversation.id", "is required");
        let file = |name: &str| format!(r#""input":[{{"content":[{{"type":"input_file","{name}":"file-1"}}]}}]"#);
        for name in ["file_id", "FILE_ID", "File_Id", "file_\\u0069d", "f\\u0131le_id"] {
            refuse(&file(name), "input", "file_id");
        }
        for tool in [
            r#"{"type":"file_search","vector_store_ids":["vs_1"]}"#,
            r#"{"type":"code_interpreter","container":"cntr_1"}"#,
            r#"{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-1"]}}"#,
            r#"{"type":"shell","environment":{"type":"container_reference","container_id":"cntr_1"}}"#,
            r#"{"type":"image_generation","input_image_mask":{"file_id":"file-1"}}"#,
        ] {
            refuse(&format!("\"tools\":[{tool}]"), "tools", "belongs to the provider's account");
        }
        // What only looks like it: a schema's, an argument's, a citation's.
        check(r#""tools":[{"type":"function","parameters":{"properties":{"file_id":{"type":"string"}}}}]"#, "tools");
        check(r#""tools":[{"type":"code_interpreter","container":{"type":"auto"}}]"#, "tools elsewhere");
        check(
            r#""input":[{"role":"assistant","content":[{"type":"output_text","text":"\"file_id\":1","annotations":[{"file_id":"f"}]}]}]"#,
            "",
        );
        check(
            r#""input":[{"type":"code_interpreter_call","id":"ci_1","container_id":"c"}],"metadata":{"file_id":"x"}"#,
            "",
        );
        check(
            r#""input":[{"role":"user","content":[{"type":"input_image","file_id":null,"image_url":"x"}]}]"#,
            "vision",
        );
    }

    #[test]
    fn impossible_values_are_refused() {
        refuse(r#""stream":1"#, "stream", "must be true or false");
        refuse(r#""store":"no""#, "store", "must be true or false");
        refuse(r#""background":"yes""#, "background", "must be true or false");
        refuse(r#""max_output_tokens":-1"#, "max_output_tokens", "must be a whole number");
        refuse(r#""input":{}"#, "input", "must be a string or a list");
        refuse(r#""input":7"#, "input", "must be a string or a list");
        refuse(r#""tools":{}"#, "tools", "must be a list");
        refuse(r#""text":"json""#, "text", "must be an object");
        refuse(r#""conversation":7"#, "conversation", "must be a string");
        refuse(r#""previous_response_id":{}"#, "previous_response_id", "must be a string");
        for none in ["{}", r#"{"model":null,"input":"x"}"#] {
            assert!(matches!(metadata(none), Err(BodyProblem::BadField { param: "model", .. })), "{none}");
        }
    }

    /// Every name that is read, twice and in another spelling.
    #[test]
    fn names_are_read_in_one_spelling_and_once() {
        let places = OF_RESPONSES.iter().chain(input::ITEM.paths()).chain(input::PART.paths());
        for path in places {
            let name = path.rsplit_once('.').map_or(*path, |(_, name)| name);
            let upper = name.to_uppercase();
            for members in [format!("\"{upper}\":null"), format!("\"{name}\":null,\"{name}\":null")] {
                let object = format!("{{{members}}}");
                let body = match path.rsplit_once('.') {
                    None => format!("{{\"model\":\"m\",{members}}}"),
                    Some(("input[]", _)) => format!("{{\"model\":\"m\",\"input\":[{object}]}}"),
                    Some(_) => format!("{{\"model\":\"m\",\"input\":[{{\"content\":[{object}]}}]}}"),
                };
                let found = metadata(&body);
                assert!(
                    matches!(&found, Err(BodyProblem::BadField { param, .. }) if param == path),
                    "{body}: {found:?}"
                );
            }
        }
    }

    fn listed(members: &str) -> Vec<String> {
        let names = ["tools[].type", "previous_response_id", "conversation", "service_tier", "models"];
        let body = format!("{{\"model\":\"m\",{members}}}");
        let call = read_request(Endpoint::Responses, body.into(), &ListedMembers::of(names.map(Into::into)))
            .expect("a good body");
        call.metadata().given.iter().map(|one| one.name.to_string()).collect()
    }

    #[test]
    fn members_that_change_a_price_are_noted_but_for_those_that_are_bounded_here() {
        assert_eq!(listed(r#""previous_response_id":"r","conversation":null"#), Vec::<String>::new());
        assert_eq!(listed(r#""service_tier":"flex","models":[1]"#), ["service_tier", "models"]);
        assert_eq!(
            listed(r#""tools":[{"type":"function"},{"type":"custom"},{"type":"namespace"}]"#),
            Vec::<String>::new()
        );
        assert_eq!(listed(r#""tools":[{"type":"web_search"}]"#), ["tools[].type"]);
    }

    fn sent(body: &str, model: &'static str, ceiling: Option<u64>) -> String {
        let call =
            read_request(Endpoint::Responses, Bytes::copy_from_slice(body.as_bytes()), &ListedMembers::default())
                .unwrap_or_else(|problem| panic!("{body}: {problem:?}"));
        let ceiling = ceiling.map(|tokens| (Grammar::Responses.ceiling_name(&call), tokens));
        let model = Bytes::from_static(model.as_bytes());
        text_of(Grammar::Responses.write_request(&call, &model, true, ceiling))
    }

    fn text_of(mut body: EditedBody) -> String {
        let mut all = Vec::new();
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(cx) {
            all.extend_from_slice(&frame.into_data().expect("a piece is data"));
        }
        String::from_utf8(all).expect("it is text")
    }

    #[test]
    fn the_model_and_the_ceiling_are_all_that_is_changed() {
        let check = |body: &str, ceiling: Option<u64>, expected: &str| {
            assert_eq!(sent(body, "\"b\"", ceiling), expected, "{body} {ceiling:?}");
        };
        check(r#"{ "x":1.50, "model":"a","stream":true }"#, None, r#"{ "x":1.50, "model":"b","stream":true }"#);
        check(r#"{"model":"a"}"#, Some(7), r#"{"max_output_tokens":7,"model":"b"}"#);
        check(r#"{"max_output_tokens":9,"model":"a"}"#, Some(7), r#"{"max_output_tokens":7,"model":"b"}"#);
        check(r#"{"model":"a","max_output_tokens":null}"#, Some(7), r#"{"model":"b","max_output_tokens":7}"#);
        check(r#"{"model":"a","max_output_tokens":3.0}"#, Some(7), r#"{"model":"b","max_output_tokens":3.0}"#);
    }

    /// JSON text of any shape, with what a re-serialiser would spoil.
    fn value() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            prop::sample::select(vec![
                "null",
                "-0",
                "1.0",
                "1e+2",
                "123456789012345678901234567890",
                r#""\u00e9\/\"\\""#,
                r#""\ud83d\ude00""#,
            ])
            .prop_map(str::to_owned),
            any::<String>().prop_map(|text| json!(text).to_string()),
        ];
        scalar.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[ {} ]", all.join(" , "))),
                prop::collection::vec(("[a-z]{1,6}", inner), 0..4).prop_map(|all| {
                    let members: Vec<_> = all.into_iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_other_byte_stays(
            others in prop::collection::vec(("x[a-z]{0,5}", value()), 0..6),
            at in any::<prop::sample::Index>(),
            stream in any::<bool>(),
        ) {
            let mut members: Vec<String> = others.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            members.push(format!("\"stream\":{stream}"));
            members.insert(at.index(members.len() + 1), "\"mod\\u0065l\" : \"a\\/b\"".to_owned());
            let body = format!(" {{{}}}\n", members.join(" ,"));
            prop_assert_eq!(sent(&body, "\"other\"", None), body.replacen("\"a\\/b\"", "\"other\"", 1));
        }

        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..80), garbage in "[{}\\[\\]\":,a-e\\\\0-9 ]{0,60}") {
            let _ = read_request(Endpoint::Responses, body.into(), &ListedMembers::default());
            for member in ["input", "tools", "text", "conversation"] {
                let _ = read_request(Endpoint::Responses, format!("{{\"model\":\"m\",\"{member}\":{garbage}}}").into(), &ListedMembers::default());
            }
        }
    }

    #[test]
    fn a_body_of_codex_passes() {
        let body = json!({
            "model": "m", "store": false, "stream": true, "include": ["reasoning.encrypted_content"],
            "input": [
                {"type": "message", "role": "developer", "id": "msg_0", "content": [{"type": "input_text", "text": "Be kind."}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": null, "encrypted_content": "gAAAAAB"},
                {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"},
                {"type": "function_call_output", "call_id": "c", "output": "12 C"},
                {"type": "agent_message", "id": "am_1", "text": "x"},
            ],
            "tools": [
                {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"file_id": {}}}},
                {"type": "namespace", "name": "multi_agent_v1", "tools": [{"type": "function", "name": "spawn"}]},
                {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
                {"type": "web_search", "external_web_access": false},
            ],
            "tool_choice": "auto", "parallel_tool_calls": true, "prompt_cache_key": "s", "client_metadata": {"a": "b"},
            "reasoning": {"effort": "high"}, "text": {"verbosity": "low"},
        });
        let text = Value::to_string(&body);
        let metadata = metadata(&text).expect("it passes");
        let kinds: Vec<_> = metadata.refers_to.iter().map(|state| state.kind).collect();
        assert_eq!((kinds, metadata.is_stored), (vec![StateKind::Encrypted], false));
    }
}
