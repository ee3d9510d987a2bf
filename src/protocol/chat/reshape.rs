//! Answers in the other form than was asked for: a whole answer where the client reads a stream, and a stream where it
//! reads a whole answer. What an official client makes of the one, it makes of the other.
//!
//! Only here are answers put together anew, from values that stay as they were written; everything else passes answers
//! on as they came. It judges nothing: whether an answer is complete was decided before.
//!
//! Start reading in [`stream_of`] and [`whole_of`].

use super::answer::DONE_FRAME;
use crate::domain::call::Call;
use crate::protocol::json::member::whole_number;
use crate::protocol::json::value::{JsonObject, JsonValue};
use crate::protocol::sse::SseReader;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Text that comes in parts, by any host's name for it: in parts of a delta that say what they are, such as calls or
/// `reasoning_details`, any other text is said again with each part.
const TEXTS: [&str; 12] = [
    "content",
    "text",
    "arguments",
    "input",
    "reasoning",
    "reasoning_content",
    "refusal",
    "thinking",
    "summary",
    "data",
    "transcript",
    "partial_json",
];
/// What a part of content may hold that is continued by the next one.
const CONTINUED: [&str; 4] = ["type", "text", "thinking", "summary"];
/// Among so many elements at the end of a list the one of the same index is looked for.
const MOST_OPEN: usize = 128;

/// A whole answer to `call` as a stream of one frame and its end. `None` where it is no object.
pub fn stream_of(whole: &[u8], call: &Call) -> Option<Vec<u8>> {
    let mut answer = JsonValue::read(whole)?.into_members()?;
    rename_object(&mut answer, "chat.completion", "chat.completion.chunk");
    for choice in answer.get_mut("choices").and_then(JsonValue::elements_mut).into_iter().flatten() {
        let Some(choice) = choice.members_mut() else { continue };
        if !choice.contains_key("delta")
            && let Some(mut message) = choice.remove("message")
        {
            number_calls(&mut message);
            choice.insert("delta".to_owned(), message);
        }
    }
    if call.metadata().ask_usage.is_some() {
        answer.remove("usage");
    }
    // Beside an answer it is none, which only clients of streams do not know.
    answer.remove("error");
    let mut stream = b"data: ".to_vec();
    JsonValue::Object(answer).write(&mut stream);
    // No data line holds a line break; between values it is a blank like any other.
    stream.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    stream.extend_from_slice(b"\n\n");
    stream.extend_from_slice(DONE_FRAME);
    Some(stream)
}

fn rename_object(answer: &mut JsonObject, from: &str, to: &str) {
    if let Some(object) = answer.get_mut("object")
        && object.is_text(from)
    {
        *object = JsonValue::plain_text(to);
    }
}

/// Calls have an index in a stream alone.
fn number_calls(message: &mut JsonValue) {
    let calls = message.members_mut().and_then(|message| message.get_mut("tool_calls"));
    for (index, call) in (0..).zip(calls.and_then(JsonValue::elements_mut).into_iter().flatten()) {
        if let Some(call) = call.members_mut() {
            call.entry("index".to_owned()).or_insert_with(|| JsonValue::from(index));
        }
    }
}

/// A complete stream as one whole answer. `None` where no frame of it is an object.
pub fn whole_of(stream: Bytes) -> Option<Vec<u8>> {
    let mut framing = SseReader::new(usize::MAX);
    framing.push(stream);
    let mut answer = JsonObject::new();
    let mut choices = BTreeMap::new();
    while let Some(frame) = framing.finish() {
        let read = frame.event().and_then(|event| JsonValue::read(event.payload));
        let Some(mut members) = read.and_then(JsonValue::into_members) else { continue };
        let parts = members.remove("choices").and_then(JsonValue::into_elements);
        for (position, part) in (0..).zip(parts.into_iter().flatten()) {
            add_choice(&mut choices, position, part);
        }
        for (name, value) in members {
            keep_last(&mut answer, name, value);
        }
    }
    if answer.is_empty() && choices.is_empty() {
        return None;
    }
    rename_object(&mut answer, "chat.completion.chunk", "chat.completion");
    choices.values_mut().for_each(complete);
    answer.insert("choices".to_owned(), JsonValue::List(choices.into_values().map(JsonValue::Object).collect()));
    let mut whole = Vec::new();
    JsonValue::Object(answer).write(&mut whole);
    Some(whole)
}

/// Adds one frame's part of a choice.
fn add_choice(choices: &mut BTreeMap<i64, JsonObject>, position: i64, part: JsonValue) {
    let Some(mut part) = part.into_members() else { return };
    let whole = |text: &str| whole_number(text).map_or_else(|| text.parse().ok(), |index| i64::try_from(index).ok());
    let index = part.remove("index").and_then(|index| whole(index.number()?)).unwrap_or(position);
    let choice = choices.entry(index).or_insert_with(|| BTreeMap::from([("index".to_owned(), JsonValue::from(index))]));
    let (delta, message) = (part.remove("delta").and_then(JsonValue::into_members), part.remove("message"));
    if let Some(delta) = delta {
        let said = choice.entry("message".to_owned()).or_insert_with(|| JsonValue::Object(JsonObject::new()));
        if let Some(said) = said.members_mut() {
            delta.into_iter().for_each(|(name, value)| add_said(said, name, value));
        }
    } else if let Some(message) = message
        && !choice.contains_key("message")
    {
        choice.insert("message".to_owned(), message);
    }
    for (name, value) in part {
        match name.as_str() {
            "text" => add_said(choice, name, value),
            "logprobs" => merge(choice, name, value),
            // It is none, and takes no one's place.
            "finish_reason" if value.is_false() => {}
            _ => keep_last(choice, name, value),
        }
    }
}

/// Adds a member of a delta: all of its text comes in parts, under whatever name. Some hosts send a token that looks
/// like a number as one.
fn add_said(said: &mut JsonObject, name: String, mut value: JsonValue) {
    value.open();
    if TEXTS.contains(&name.as_str()) {
        if let Some(token) = value.number() {
            value = JsonValue::plain_text(token);
        } else if value.is_false() {
            value = JsonValue::null();
        }
    }
    if name == "tool_calls"
        && let JsonValue::List(parts) = value
    {
        let mut calls = said.remove(&name).and_then(JsonValue::into_elements).unwrap_or_default();
        parts.into_iter().for_each(|part| add_call(&mut calls, part));
        said.insert(name, JsonValue::List(calls));
        return;
    }
    let mut known = said.get_mut(&name);
    known.iter_mut().for_each(|known| known.open());
    match (known, value) {
        (Some(JsonValue::Text(all)), JsonValue::Text(part)) if name == "role" => {
            if !part.is_empty() {
                *all = part;
            }
        }
        (Some(JsonValue::Text(all)), JsonValue::Text(part)) => all.push_str(&part),
        (_, value) => merge(said, name, value),
    }
}

/// Adds a member of some part of a choice to what there is of it.
fn merge(all: &mut JsonObject, name: String, mut value: JsonValue) {
    value.open();
    let Some(known) = all.get_mut(&name).filter(|known| !known.says_nothing()) else {
        if let JsonValue::List(parts) = value {
            let mut list = Vec::new();
            parts.into_iter().for_each(|part| add_element(&mut list, part));
            value = JsonValue::List(list);
        }
        return keep_last(all, name, value);
    };
    known.open();
    let is_text = TEXTS.contains(&name.as_str());
    match (known, value) {
        (JsonValue::Text(text), JsonValue::Text(part)) if is_text => text.push_str(&part),
        (JsonValue::Text(text), value) if is_text && value.number().is_some() => {
            text.push_str(value.number().unwrap_or_default());
        }
        // In parts at some hosts, and at some with each part.
        (JsonValue::Text(text), JsonValue::Text(part)) if name == "name" => {
            if *text != part {
                text.push_str(&part);
            }
        }
        (JsonValue::Object(object), JsonValue::Object(part)) => {
            part.into_iter().for_each(|(name, value)| merge(object, name, value));
        }
        (JsonValue::List(list), JsonValue::List(parts)) if !is_text => {
            parts.into_iter().for_each(|part| add_element(list, part));
        }
        // Text that is a string in one frame and a list of parts in another.
        (known, value) if is_text && !value.says_nothing() => {
            let mut list = content_parts(std::mem::replace(known, JsonValue::null()));
            content_parts(value).into_iter().for_each(|part| add_content_part(&mut list, part));
            *known = JsonValue::List(list);
        }
        (_, value) => keep_last(all, name, value),
    }
}

/// A text in whatever form as a list of parts, the way whole answers have it.
fn content_parts(text: JsonValue) -> Vec<JsonValue> {
    match text {
        JsonValue::List(parts) => parts,
        JsonValue::Text(_) => {
            let type_text = ("type".to_owned(), JsonValue::plain_text("text"));
            vec![JsonValue::Object(BTreeMap::from([type_text, ("text".to_owned(), text)]))]
        }
        other => vec![other],
    }
}

/// Adds a part of content: to the last one, where both are of one type and hold nothing but their text.
fn add_content_part(list: &mut Vec<JsonValue>, mut part: JsonValue) {
    let last = list.last_mut().and_then(JsonValue::members_mut);
    if let (Some(last), Some(members)) = (last, part.members_mut())
        && is_continued(last, members)
    {
        std::mem::take(members).into_iter().for_each(|(name, value)| merge(last, name, value));
        return;
    }
    add_element(list, part);
}

fn is_continued(last: &mut JsonObject, part: &mut JsonObject) -> bool {
    last.values_mut().chain(part.values_mut()).for_each(JsonValue::open);
    let same_type = match (last.get("type"), part.get("type")) {
        (Some(JsonValue::Text(last)), Some(JsonValue::Text(part))) => last == part,
        _ => false,
    };
    let only_text = |members: &JsonObject| members.keys().all(|name| CONTINUED.contains(&name.as_str()));
    same_type && only_text(last) && last.keys().eq(part.keys())
}

/// Adds an element of a list: to the one of the same index, where it has one.
fn add_element(list: &mut Vec<JsonValue>, mut part: JsonValue) {
    let index = part.members_mut().and_then(|part| index_of(part));
    let known = index.and_then(|index| element_of(list, index));
    match (known, part) {
        (Some(element), JsonValue::Object(part)) => {
            part.into_iter().for_each(|(name, value)| merge(element, name, value));
        }
        (_, part) => list.push(part),
    }
}

/// The last element of this index.
fn element_of(list: &mut [JsonValue], index: u64) -> Option<&mut JsonObject> {
    let last = list.iter_mut().rev().take(MOST_OPEN);
    last.filter_map(JsonValue::members_mut).find(|members| index_of(members) == Some(index))
}

fn index_of(members: &JsonObject) -> Option<u64> {
    members.get("index").and_then(JsonValue::number).and_then(whole_number)
}

/// Adds a part of a call: to the one of the same index, or to the last one at hosts that number none.
fn add_call(calls: &mut Vec<JsonValue>, mut part: JsonValue) {
    let Some(members) = part.members_mut() else { return calls.push(part) };
    let index = index_of(members);
    let known = match index {
        Some(index) => element_of(calls, index),
        None => calls.last_mut().and_then(JsonValue::members_mut),
    };
    if let Some(call) = known
        && !is_another(call, members, index.is_some())
    {
        std::mem::take(members).into_iter().for_each(|(name, value)| merge(call, name, value));
        return;
    }
    calls.push(part);
}

/// Whether `part` begins another call than `known`: by an id and a name of its own, for some hosts give each call the
/// same number; by one of them where calls are not `numbered`.
fn is_another(known: &mut JsonObject, part: &mut JsonObject, numbered: bool) -> bool {
    let text = |value: Option<&mut JsonValue>| {
        let value = value.filter(|value| !value.says_nothing())?;
        value.open();
        if let JsonValue::Text(text) = value { Some(text.clone()) } else { None }
    };
    let id = text(part.get_mut("id"));
    let own_id = id.is_some() && text(known.get_mut("id")) != id;
    let function = part.get_mut("function").and_then(JsonValue::members_mut);
    let named = text(function.and_then(|function| function.get_mut("name"))).is_some();
    if numbered { own_id && named } else { own_id || named }
}

/// The last value that says something.
fn keep_last(all: &mut JsonObject, name: String, value: JsonValue) {
    if !value.says_nothing() || !all.contains_key(&name) {
        all.insert(name, value);
    }
}

/// What every whole answer has, and what only streams have.
fn complete(choice: &mut JsonObject) {
    choice.entry("finish_reason".to_owned()).or_insert_with(JsonValue::null);
    if choice.contains_key("text") {
        return;
    }
    let message = choice.entry("message".to_owned()).or_insert_with(|| JsonValue::Object(JsonObject::new()));
    let Some(message) = message.members_mut() else { return };
    message.entry("role".to_owned()).or_insert_with(|| JsonValue::plain_text("assistant"));
    message.entry("content".to_owned()).or_insert_with(JsonValue::null);
    for call in message.get_mut("tool_calls").and_then(JsonValue::elements_mut).into_iter().flatten() {
        if let Some(call) = call.members_mut() {
            call.remove("index");
            call.entry("type".to_owned()).or_insert_with(|| JsonValue::plain_text("function"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::domain::call::Endpoint;
    use crate::protocol::chat::request::read_request;
    use serde_json::{Value, json};

    fn streamed(frames: &[Value]) -> Value {
        let frames: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
        let whole = whole_of(format!(": hi\n\n{frames}data: [DONE]\n\n").into()).expect("it has frames");
        serde_json::from_slice(&whole).expect("it is JSON")
    }

    fn delta(index: u32, delta: Value) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta, "finish_reason": null}]})
    }

    #[test]
    fn a_stream_becomes_one_answer() {
        let whole = streamed(&[
            delta(1, json!({"role": "assistant", "content": "B"})),
            delta(0, json!({"role": "assistant", "content": "", "reasoning_content": "th"})),
            delta(0, json!({"content": "Hel", "reasoning_content": "ink", "refusal": null})),
            json!({"choices": [{"index": 0, "delta": {"content": "lo", "mood": "go"}, "logprobs": {"content": [{"token": "lo"}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"mood": "od"}, "logprobs": {"content": [{"token": "!"}]}, "finish_reason": "stop"}]}),
            json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}], "usage": null}),
            json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}),
        ]);
        assert_eq!(
            whole,
            json!({
                "id": "c",
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant", "content": "Hello", "reasoning_content": "think", "refusal": null,
                            "mood": "good",
                        },
                        "logprobs": {"content": [{"token": "lo"}, {"token": "!"}]},
                        "finish_reason": "stop",
                    },
                    {"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "length"},
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 5},
            })
        );
    }

    #[test]
    fn calls_and_details_are_put_together_by_their_index() {
        let calls = |calls: Value| delta(0, json!({"tool_calls": calls}));
        let detail = |text: &str| delta(0, json!({"reasoning_details": [{"index": 0, "format": "f-1", "text": text}]}));
        let whole = streamed(&[
            calls(json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}])),
            calls(json!([{"index": 0, "id": "", "function": {"name": "f", "arguments": "{\"x\""}}])),
            calls(json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
                         {"index": 0, "function": {"arguments": ":1}"}}])),
            detail("a"),
            detail("b"),
        ]);
        let message = &whole["choices"][0]["message"];
        assert_eq!(
            message["tool_calls"],
            json!([
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ])
        );
        assert_eq!(message["reasoning_details"], json!([{"index": 0, "format": "f-1", "text": "ab"}]));
        assert_eq!(message["content"], Value::Null);
    }

    /// The first choice of what frames with these choices become, each as it is written.
    fn choice_of(parts: &[&[u8]]) -> Value {
        let frame = |part: &&[u8]| [b"data: {\"choices\":[", *part, b"]}\n\n"].concat();
        let stream: Vec<u8> = parts.iter().flat_map(frame).collect();
        let whole = whole_of(stream.into()).expect("it has frames");
        let whole: Value = serde_json::from_slice(&whole).expect("it is JSON");
        whole["choices"][0].clone()
    }

    #[test]
    fn no_text_is_lost_whatever_its_form() {
        let check = |parts: &[&str], expected: Value| {
            let delta = |part: &&str| format!(r#"{{"delta":{{{part}}}}}"#).into_bytes();
            let parts: Vec<Vec<u8>> = parts.iter().map(delta).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            assert_eq!(choice_of(&parts)["message"]["content"], expected, "{expected}");
        };
        check(&[r#""content":"Hi""#, r#""content":1"#, r#""content":2.0"#], json!("Hi12.0"));
        check(&[r#""content":false"#, r#""content":"Hi""#, r#""content":[]"#, r#""content":{}"#], json!("Hi"));
        check(&[r#""content":1"#, r#""content":null"#, r#""content":false"#, r#""content":"st""#], json!("1st"));
        let thinking =
            |text: &str| format!(r#""content":[{{"type":"thinking","thinking":[{{"type":"text","text":"{text}"}}]}}]"#);
        check(
            &[r#""content":"""#, &thinking("so"), &thinking(", or"), r#""content":"H""#, r#""content":"i""#],
            json!([
                {"type": "thinking", "thinking": [{"type": "text", "text": "so, or"}]},
                {"type": "text", "text": "Hi"},
            ]),
        );
        let image = r#"{"type":"image","data":"QQ=="}"#;
        check(
            &[r#""content":"H""#, &format!(r#""content":[{image},{image}]"#)],
            json!([{"type": "text", "text": "H"}, {"type": "image", "data": "QQ=="}, {"type": "image", "data": "QQ=="}]),
        );
        // Halves of one character, one after the other; half a character; and one that is cut within its bytes.
        check(&[r#""content":"\ud83d""#, r#""content":"\ude00""#], json!("😀"));
        check(&[r#""content":"a\ud83d","x":NaN"#, r#""content":"\ude00","x":-Infinity"#], json!("a😀"));
        let torn: [&[u8]; 2] = [b"{\"delta\":{\"content\":\"\xe7\x9f\"}}", b"{\"delta\":{\"content\":\"\xb3\"}}"];
        assert_eq!(choice_of(&torn)["message"]["content"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is_written() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let frame = format!(
            r#"{{"choices":[{{"delta":{{"content":"Hi","trace":{deep}}},"n":1e999}}],"big":12345678901234567890.10}}"#
        );
        let whole = whole_of(format!("data: {frame}\n\n").into()).expect("it has a frame");
        let whole = String::from_utf8(whole).expect("it is text");
        for part in
            [r#""content":"Hi""#, &format!(r#""trace":{deep}"#), r#""n":1e999"#, r#""big":12345678901234567890.10"#]
        {
            assert!(whole.contains(part), "{part} is not in {whole}");
        }
        let call = read_request(Endpoint::Chat, r#"{"model":"m","stream":true}"#.into(), &ListedMembers::default())
            .expect("it is a chat request");
        let answer = format!("{{\r\n  \"choices\": [{{\"message\": {{\"trace\": {deep}}}}}], \"n\": 1e999\n}}");
        let stream =
            String::from_utf8(stream_of(answer.as_bytes(), &call).expect("it is an object")).expect("it is text");
        assert_eq!(
            stream,
            format!("data: {{\"choices\":[{{\"delta\":{{\"trace\":{deep}}}}}],\"n\":1e999}}\n\ndata: [DONE]\n\n")
        );
    }

    #[test]
    fn calls_that_no_number_tells_apart_stay_apart() {
        let check = |calls: &[Value], expected: &[(&str, &str)]| {
            let parts: Vec<Value> = calls.iter().map(|calls| delta(0, json!({"tool_calls": calls}))).collect();
            let whole = streamed(&parts);
            let calls = whole["choices"][0]["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
            let found: Vec<(&str, &str)> = calls
                .iter()
                .map(|call| {
                    (
                        call["function"]["name"].as_str().unwrap_or("-"),
                        call["function"]["arguments"].as_str().unwrap_or("-"),
                    )
                })
                .collect();
            assert_eq!(found, expected);
        };
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "function": {"name": name, "arguments": arguments}});
        let rest = json!({"function": {"arguments": "}"}});
        check(
            &[json!([call("a", "f", "{")]), json!([rest]), json!([call("b", "g", "{}")])],
            &[("f", "{}"), ("g", "{}")],
        );
        check(&[json!([call("a", "f", "{}"), call("b", "f", "{}")])], &[("f", "{}"), ("f", "{}")]);
        let numbered = |mut call: Value| {
            call["index"] = 0.into();
            json!([call])
        };
        check(&[numbered(call("a", "f", "{}")), numbered(call("b", "g", "{}"))], &[("f", "{}"), ("g", "{}")]);
        check(&[numbered(call("a", "f", "{")), numbered(call("b", "", "}"))], &[("f", "{}")]);
    }

    #[test]
    fn completions_are_put_together_too() {
        let part = |text: &str| json!({"object": "text_completion", "choices": [{"index": 0, "text": text, "logprobs": {"tokens": [text]}}]});
        let whole = streamed(&[part("Hel"), part("lo")]);
        let choice = json!({"index": 0, "text": "Hello", "logprobs": {"tokens": ["Hel", "lo"]}, "finish_reason": null});
        assert_eq!(whole, json!({"object": "text_completion", "choices": [choice]}));
    }

    #[test]
    fn a_whole_answer_becomes_a_stream_of_one_frame() {
        let whole = json!({
            "object": "chat.completion",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "a"}, {"id": "b"}]},
                "finish_reason": "tool_calls",
            }],
            "usage": {"prompt_tokens": 3},
        });
        for (asked, usage) in [(true, true), (false, false)] {
            let body = format!(r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":{asked}}}}}"#);
            let call =
                read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("it is a chat request");
            let stream = stream_of(whole.to_string().as_bytes(), &call).expect("it is an object");
            let text = String::from_utf8(stream).expect("it is text");
            let frame = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\ndata: [DONE]\n\n"));
            let frame: Value = serde_json::from_str(frame.expect("one frame and the end")).expect("it is JSON");
            let calls = json!([{"id": "a", "index": 0}, {"id": "b", "index": 1}]);
            let delta = json!({"role": "assistant", "content": null, "tool_calls": calls});
            let choice = json!({"index": 0, "delta": delta, "finish_reason": "tool_calls"});
            assert_eq!((&frame["object"], &frame["choices"]), (&"chat.completion.chunk".into(), &json!([choice])));
            assert_eq!(frame.get("usage").is_some(), usage);
        }
        let call = read_request(Endpoint::Chat, r#"{"model":"m"}"#.into(), &ListedMembers::default())
            .expect("it is a chat request");
        assert_eq!(stream_of(b"[]", &call), None);
        assert_eq!(whole_of("data: [DONE]\n\n".into()), None);
    }
}
