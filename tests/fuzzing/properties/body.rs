//! A request's body: what is read of it is what a whole JSON reader reads, what that one refuses is
//! refused, and the edits on its way to a provider change the model's name, the wish for usage, and
//! no other byte.
//!
//! Where the two differ on purpose: a member that is read may not be given twice or in a spelling that some reader takes
//! for it, nothing may nest deeper than 128 levels, and half a surrogate pair is refused anywhere; a number that no `f64`
//! holds passes, as nobody here computes with it.
//!
//! Start reading in [`holds`]; [`expected`] is the slow reading.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tierway::domain::body_member::ListedMembers;
use tierway::domain::call::{BodyProblem, Call, CeilingName, Dialect, Endpoint, Feature, Splice};
use tierway::protocol::edit::provider_body;
use tierway::protocol::json::edit::EditedBody;
use tierway::protocol::json::member::whole_number;
use tierway::protocol::json::name_fold::folds_to;
use tierway::protocol::read_request;

use super::json::{Members, depth};

const MAX_DEPTH: usize = 128;

/// What must hold for any body, at every endpoint.
pub fn holds(body: &[u8]) {
    let members = Members::of(body);
    for endpoint in Endpoint::ALL {
        match (read_request(endpoint, Bytes::copy_from_slice(body), &ListedMembers::default()), &members) {
            // It names no model, and may be missing.
            (Ok(call), members) if endpoint == Endpoint::Conversations => {
                assert!(body.is_empty() || (members.is_ok() && depth(body) <= MAX_DEPTH));
                assert_eq!(joined(&call, &Bytes::from_static(b"\"m\"")), body);
            }
            (Ok(call), Ok(members)) => {
                assert!(depth(body) <= MAX_DEPTH);
                if endpoint.dialect() != Dialect::Responses {
                    assert_eq!(Ok(Read::of(&call)), expected(endpoint, members), "{endpoint:?}");
                }
                let vision = call.metadata().features.contains(Feature::Vision);
                assert!(endpoint != Endpoint::Chat || shows_images(members).is_none_or(|shows| shows == vision));
                edits(&call, members);
            }
            (Ok(_), Err(error)) => panic!("{endpoint:?}: accepted, and it is no object: {error}"),
            // What is refused of Responses, and why, is its own reader's test.
            (Err(BodyProblem::BadField { .. }), Ok(_)) if endpoint.dialect() == Dialect::Responses => {}
            // What is read within messages and tools has no other reading here.
            (Err(BodyProblem::BadField { param, message }), Ok(_)) if param.contains("[]") => {
                let repeats = message.contains("twice") || message.contains("spelling");
                let is_nested = endpoint == Endpoint::Chat || endpoint.dialect() == Dialect::Messages;
                assert!(repeats && is_nested, "{message}");
            }
            (Err(BodyProblem::BadField { param, message }), Ok(members)) => {
                assert_eq!(expected(endpoint, members), Err(param), "{endpoint:?}: {message}");
            }
            (Err(BodyProblem::NotJson(what)), Ok(_)) => {
                assert!(depth(body) > MAX_DEPTH || holds_half_a_pair(body), "{what}");
            }
            (Err(BodyProblem::NotJson(what)), Err(_)) => assert!(!what.contains('\n'), "{what}"),
            (Err(problem), _) => panic!("{endpoint:?}: {problem:?} is not for this reader to say"),
        }
    }
}

/// What was read, in comparable form.
#[derive(PartialEq, Debug)]
struct Read {
    model: String,
    stream: bool,
    asks_usage: bool,
    max_output: Option<u64>,
    choices: u32,
    candidates: u32,
    inputs: u32,
    user: Option<String>,
    tools: bool,
    json_schema: bool,
}

impl Read {
    fn of(call: &Call) -> Self {
        let metadata = call.metadata();
        Self {
            model: metadata.model.to_string(),
            stream: metadata.stream,
            asks_usage: metadata.ask_usage.is_some(),
            max_output: metadata.max_output,
            choices: metadata.choices,
            candidates: metadata.cost_facts.candidates,
            inputs: metadata.inputs,
            user: metadata.user.as_deref().map(str::to_owned),
            tools: metadata.features.contains(Feature::Tools),
            json_schema: metadata.features.contains(Feature::JsonSchema),
        }
    }
}

/// The same, read member by member; `Err` names the member at fault, the first in the order asked.
fn expected(endpoint: Endpoint, body: &Members) -> Result<Read, &'static str> {
    if endpoint.dialect() == Dialect::Messages {
        return expected_of_messages(endpoint, body);
    }
    let chat = endpoint == Endpoint::Chat;
    let generates = endpoint != Endpoint::Embeddings;
    let inputs = if generates { "prompt" } else { "input" };
    once(body, names(endpoint))?;
    let stream = generates && flag(body, "stream")?;
    let asks_usage = if generates { !asks_usage(body)? && stream } else { false };
    // Zero is no ceiling.
    let none_or_more = |tokens: Option<u64>| tokens.filter(|tokens| *tokens > 0);
    let mut max_output = none_or_more(if generates { number(body, "max_tokens")? } else { None });
    if chat {
        max_output = max_output.max(none_or_more(number(body, "max_completion_tokens")?));
    }
    let choices = match if generates { number(body, "n")? } else { None } {
        None => 1,
        Some(n @ 1..=128) => n as u32,
        Some(_) => return Err("n"),
    };
    let (mut tools, mut json_schema) = (false, false);
    if chat {
        tools = list(body, "tools")?.max(list(body, "functions")?) > Some(0);
        json_schema = asks_for_json_schema(body)?;
        if body.given("messages").is_some_and(|raw| !raw.starts_with('[')) {
            return Err("messages");
        }
    }
    let inputs = if chat { 1 } else { count(body, inputs)? };
    let candidates = if generates { number(body, "best_of")? } else { None };
    let candidates = candidates.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
    let model = text(body, "model")?.filter(|name| (1..=256).contains(&name.len())).ok_or("model")?;
    let user = text(body, "user")?.filter(|user| !user.is_empty());
    Ok(Read { model, stream, asks_usage, max_output, choices, candidates, inputs, user, tools, json_schema })
}

/// The same in Messages, whose members are asked in another order.
fn expected_of_messages(endpoint: Endpoint, body: &Members) -> Result<Read, &'static str> {
    let is_count = endpoint == Endpoint::CountTokens;
    once(body, names(endpoint))?;
    list(body, "messages")?;
    if !is_count && body.given("max_tokens").is_none() {
        return Err("max_tokens");
    }
    let user = match object(body, "metadata")? {
        Some(metadata) => {
            once(&metadata, &["metadata.user_id"])?;
            text(&metadata, "user_id").map_err(|_| "metadata.user_id")?.filter(|user| !user.is_empty())
        }
        None => None,
    };
    let tools = list(body, "tools")? > Some(0);
    let json_schema = match object(body, "output_config")? {
        Some(output) => {
            once(&output, &["output_config.format"])?;
            match object(&output, "format").map_err(|_| "output_config.format")? {
                Some(format) => {
                    once(&format, &["output_config.format.type"])?;
                    let kind = text(&format, "type").map_err(|_| "output_config.format.type")?;
                    kind.as_deref() == Some("json_schema")
                }
                None => false,
            }
        }
        None => false,
    };
    let stream = flag(body, "stream")? && !is_count;
    let max_output = number(body, "max_tokens")?.filter(|tokens| *tokens > 0);
    let model = text(body, "model")?.filter(|name| (1..=256).contains(&name.len())).ok_or("model")?;
    Ok(Read {
        model,
        stream,
        asks_usage: false,
        max_output,
        choices: 1,
        candidates: 0,
        inputs: 1,
        user,
        tools,
        json_schema,
    })
}

/// The members read at `endpoint`.
fn names(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Chat => &[
            "model",
            "user",
            "stream",
            "stream_options",
            "n",
            "best_of",
            "max_tokens",
            "max_completion_tokens",
            "tools",
            "functions",
            "response_format",
            "messages",
        ],
        Endpoint::Completions => &["model", "user", "stream", "stream_options", "n", "best_of", "max_tokens", "prompt"],
        Endpoint::Embeddings => &["model", "user", "input"],
        Endpoint::Messages | Endpoint::CountTokens => &[
            "model",
            "messages",
            "system",
            "tools",
            "stream",
            "max_tokens",
            "metadata",
            "output_config",
            "context_management",
            "mcp_servers",
            "container",
            "thread",
        ],
        Endpoint::Responses | Endpoint::InputTokens | Endpoint::Conversations | Endpoint::StoredResponses => &[],
    }
}

/// None of `names` is given twice; `Err` is the one whose second comes first.
fn once(object: &Members, names: &'static [&'static str]) -> Result<(), &'static str> {
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let mut seen = Vec::new();
    for (given, _) in &object.0 {
        match names.iter().find(|path| last(path) == given) {
            Some(path) if seen.contains(path) => return Err(path),
            Some(path) => seen.push(path),
            None if names.iter().any(|path| folds_to(given, last(path))) => {
                return Err(names.iter().find(|path| folds_to(given, last(path))).expect("one does"));
            }
            None => {}
        }
    }
    Ok(())
}

fn read<'a, T: Deserialize<'a>>(object: &'a Members, name: &'static str) -> Result<Option<T>, &'static str> {
    object.given(name).map(|raw| serde_json::from_str(raw).map_err(|_| name)).transpose()
}

fn flag(object: &Members, name: &'static str) -> Result<bool, &'static str> {
    Ok(read(object, name)?.unwrap_or(false))
}

fn number(object: &Members, name: &'static str) -> Result<Option<u64>, &'static str> {
    let value: Option<Value> = read(object, name)?;
    // Whole numbers may be written as `100.0` or `1e2`.
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(number);
    let read = |value: Value| value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64));
    value.map(|value| read(value).ok_or(name)).transpose()
}

fn object(object: &Members, name: &'static str) -> Result<Option<Members>, &'static str> {
    match object.given(name) {
        None => Ok(None),
        Some(raw) => Members::of(raw.as_bytes()).map(Some).map_err(|_| name),
    }
}

fn text(object: &Members, name: &'static str) -> Result<Option<String>, &'static str> {
    read(object, name)
}

/// How many elements a list has.
fn list(object: &Members, name: &'static str) -> Result<Option<usize>, &'static str> {
    Ok(read::<Vec<&RawValue>>(object, name)?.map(|list| list.len()))
}

/// Prompts or inputs: one, but for a list of anything other than token numbers.
fn count(body: &Members, name: &'static str) -> Result<u32, &'static str> {
    match body.given(name) {
        None => Ok(1),
        Some(raw) if raw.starts_with('"') => Ok(1),
        Some(_) => {
            let elements: Vec<&RawValue> = read(body, name)?.unwrap_or_default();
            let is_token = |raw: &&RawValue| raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
            Ok(if elements.first().is_some_and(is_token) { 1 } else { elements.len().max(1) as u32 })
        }
    }
}

fn asks_usage(body: &Members) -> Result<bool, &'static str> {
    let Some(raw) = body.given("stream_options") else { return Ok(false) };
    let options = Members::of(raw.as_bytes()).map_err(|_| "stream_options")?;
    once(&options, &["stream_options.include_usage"])?;
    flag(&options, "include_usage").map_err(|_| "stream_options.include_usage")
}

fn asks_for_json_schema(body: &Members) -> Result<bool, &'static str> {
    let Some(raw) = body.given("response_format") else { return Ok(false) };
    let format = Members::of(raw.as_bytes()).map_err(|_| "response_format")?;
    once(&format, &["response_format.type"])?;
    Ok(text(&format, "type").map_err(|_| "response_format.type")?.as_deref() == Some("json_schema"))
}

/// Whether a message holds an image; `None` where escapes, repetitions or other types leave it open.
fn shows_images(body: &Members) -> Option<bool> {
    let Some(raw) = body.given("messages") else { return Some(false) };
    let messages: Vec<Members> = serde_json::from_str(raw).ok().filter(|_| !raw.contains('\\'))?;
    let mut shows = false;
    for message in &messages {
        let content = message.given("content").unwrap_or("[]");
        if message.repeats() {
            return None;
        }
        if content.starts_with('"') {
            continue;
        }
        let parts: Vec<Members> = serde_json::from_str(content).ok()?;
        for part in &parts {
            let kind =
                text(part, "type").ok().filter(|_| !part.repeats() && part.all("type").all(|raw| raw != "null"))?;
            shows |= matches!(kind.as_deref(), Some("image_url" | "input_image"));
        }
    }
    Some(shows)
}

/// The body as providers get it.
fn edits(call: &Call, before: &Members) {
    let metadata = call.metadata();
    assert_eq!(before.all("model").next().map(str::as_bytes), Some(&call.body()[metadata.model_span.clone()]));
    for name in ["a", "a longer/name \u{e9}\"\\"] {
        let json = Bytes::from(json!(name).to_string());
        let sent = joined(call, &json);
        assert_eq!(sent, by_hand(call, &json), "every other byte stays");
        let after = Members::of(&sent).expect("it is still an object");
        renamed(before, &after, name, metadata.ask_usage.is_some());
        let again = read_request(call.endpoint(), sent.clone().into(), &ListedMembers::default())
            .expect("it is still a good body");
        let read = Read { model: name.to_owned(), asks_usage: false, ..Read::of(call) };
        assert_eq!(Read::of(&again), read, "read back");
        assert_eq!(joined(&again, &json), sent, "once is as good as twice");
    }
    if call.endpoint().writes_text() {
        ceilings(call, before);
    }
}

/// Whatever a body says of its ceiling, a provider reads one, by the name that it knows, and no more than is held.
fn ceilings(call: &Call, before: &Members) {
    const HELD: u64 = 7;
    let model = Bytes::copy_from_slice(&call.body()[call.metadata().model_span.clone()]);
    let names: &[CeilingName] = match call.endpoint() {
        Endpoint::Responses => &[CeilingName::MaxOutputTokens],
        _ => &[CeilingName::MaxTokens, CeilingName::MaxCompletionTokens],
    };
    for &name in names {
        if call.endpoint() != Endpoint::Chat && name == CeilingName::MaxCompletionTokens {
            continue;
        }
        let sent = gathered(provider_body(call, &model, false, Some((name, HELD))));
        let after = Members::of(&sent).expect("it is still an object");
        let read: Vec<u64> = after.all(name.word()).filter_map(whole_number).collect();
        assert!(matches!(read[..], [1..=HELD]), "one ceiling, within what is held: {read:?}");
        if call.endpoint() == Endpoint::Chat {
            assert_eq!(after.all(name.other().word()).count(), 0, "and no other");
        }
        for kept in ["model", "messages", "prompt", "stream", "n"] {
            assert!(before.all(kept).eq(after.all(kept)), "{kept} stays as it was");
        }
    }
}

/// What goes out.
fn joined(call: &Call, model: &Bytes) -> Vec<u8> {
    gathered(provider_body(call, model, true, None))
}

fn gathered(mut pieces: EditedBody) -> Vec<u8> {
    let length = pieces.size_hint().exact();
    let mut all = Vec::new();
    let cx = &mut Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut pieces).poll_frame(cx) {
        all.extend_from_slice(&frame.into_data().expect("a piece is data"));
    }
    assert_eq!(length, Some(all.len() as u64));
    all
}

/// The body with its edits made from the last to the first, so that none moves another.
fn by_hand(call: &Call, model: &Bytes) -> Vec<u8> {
    let metadata = call.metadata();
    let mut edits: Vec<Splice> = metadata.ask_usage.iter().cloned().collect();
    edits.push(Splice { at: metadata.model_span.clone(), with: model.clone() });
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.at.start));
    let mut body = call.body().to_vec();
    for edit in edits {
        body.splice(edit.at, edit.with);
    }
    body
}

/// `after` is `before` with another model and, where we ask, the wish for usage: as it is written and as
/// one JSON value.
fn renamed(before: &Members, after: &Members, model: &str, asked: bool) {
    let others = |members: &Members| -> Vec<(String, String)> {
        let changed = |name: &str| name == "model" || (asked && name == "stream_options");
        let kept = members.0.iter().filter(|(name, _)| !changed(name));
        kept.map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect()
    };
    assert_eq!(others(before), others(after));
    assert_eq!(text(after, "model"), Ok(Some(model.to_owned())));
    if asked {
        let value = |members: &Members| read::<Value>(members, "stream_options").unwrap_or_default();
        // Another member of it may hold a number that no value does.
        if let (Some(mut wanted), Some(found)) = (value(before).or(Some(json!({}))), value(after)) {
            wanted["include_usage"] = json!(true);
            assert!(wanted == found || value(before).is_none());
            assert_eq!(found["include_usage"], json!(true));
        }
        assert_eq!(asks_usage(after), Ok(true));
    }
}

/// Whether a string of the JSON `text` cannot be unescaped.
fn holds_half_a_pair(text: &[u8]) -> bool {
    let mut at = 0;
    let mut start = None;
    while at < text.len() {
        match (text[at], start) {
            (b'\\', Some(_)) => at += 1,
            (b'"', None) => start = Some(at),
            (b'"', Some(from)) => {
                if serde_json::from_slice::<String>(&text[from..=at]).is_err() {
                    return true;
                }
                start = None;
            }
            _ => {}
        }
        at += 1;
    }
    false
}
