//! Answers of Responses, streamed or whole, read as [`Moment`]s: parts of the answer, its end, usage, errors, and what
//! the provider made that later requests may refer to.
//!
//! It never changes a byte. An event whose type is not known is a part of the answer: newer models have more of them.
//!
//! Start reading in [`ResponsesStream::read`].

mod stored;

pub use stored::read_stored;

use crate::domain::provider_state::StateId;
use crate::protocol::chat::usage::usage_report;
use crate::protocol::json::lenient::{NestedText, NonEmptyValue, PartsReader, PartsValue, TokenCount};
use crate::protocol::json::member::unquoted;
use crate::protocol::json::mend::mended;
use crate::protocol::json::text::text_bytes;
use crate::protocol::provider_error::read_error;
use crate::protocol::{AnswerError, ErrorTopic, Event, FrameEdit, FrameError, Moment, UsageReport};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What some hosts write at the end of a stream, as of chat completions.
const DONE: &[u8] = b"[DONE]";

/// One stream, as far as it was read.
#[derive(Default)]
pub struct ResponsesStream {
    /// A part of the answer came: the client has it.
    is_begun: bool,
    is_over: bool,
    /// An error about the request came.
    is_refused: bool,
    /// Bytes of text in the deltas so far, and in whole items: each text comes in both, or in one of them.
    delta_bytes: u64,
    item_bytes: u64,
    /// The larger of the two, as far as it was noted.
    counted_bytes: u64,
    /// The number of the next event.
    next_number: u64,
    /// It is of a stored response: what became of that is for its client, whatever it is.
    is_stored: bool,
}

impl ResponsesStream {
    /// A reader of a stored response's events, which may begin anywhere among them: each of them is good.
    pub fn of_stored() -> Self {
        Self { is_stored: true, ..Self::default() }
    }

    /// Reads one event and passes `note` each moment in it; returns how the event is to be passed on.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`] for a `[DONE]` before the answer is over; [`FrameError::Malformed`] for an object that
    /// cannot be read, and for a page.
    pub fn read(&mut self, event: Event<'_>, note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        let payload = event.payload;
        match serde_json::from_slice::<PartsValue<ResponsesEvent<'_>>>(payload) {
            Ok(PartsValue(read)) if read.has_members => Ok(self.take_in(&event, &read, note)),
            Ok(_) => Ok(FrameEdit::Ignore),
            Err(_) if payload.trim_ascii_start().starts_with(DONE) => {
                Err(FrameError::Incomplete("[DONE] came before the end of the response"))
            }
            Err(_) => self.read_odd(event, note),
        }
    }

    /// Whether all of the answer was said. Its last event is its end, so nothing may follow.
    pub fn is_finished(&self) -> bool {
        self.is_over || self.is_refused
    }

    /// What to add at the end of the provider's bytes: nothing, as a complete stream has its own last event.
    ///
    /// # Errors
    /// That it did not come.
    pub fn end(&self) -> Result<&'static [u8], &'static str> {
        match self.is_finished() {
            true => Ok(b""),
            false => Err("the stream ended without response.completed"),
        }
    }

    /// The number that the next event would have.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Reads an event that is no object, or one in a spelling of its own.
    #[cold]
    fn read_odd(&mut self, event: Event<'_>, note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        let mended = mended(event.payload);
        if let Ok(PartsValue(read)) = serde_json::from_slice::<PartsValue<ResponsesEvent<'_>>>(&mended)
            && read.has_members
        {
            return Ok(self.take_in(&event, &read, note));
        }
        if event.name == Some(b"error") {
            return Ok(self.error(&mended, note));
        }
        match matches!(mended.trim_ascii_start().first(), Some(b'{' | b'<')) {
            true => Err(FrameError::Malformed("a frame that is no event of a response")),
            false => Ok(FrameEdit::Ignore),
        }
    }

    fn take_in(&mut self, event: &Event<'_>, read: &ResponsesEvent<'_>, mut note: impl FnMut(Moment)) -> FrameEdit {
        self.next_number = read.number.0.unwrap_or(self.next_number).saturating_add(1);
        if self.is_stored {
            note(Moment::Content { text_bytes: 0 });
        }
        let by_name = || event.name.and_then(|name| str::from_utf8(name).ok()).map(ResponsesEventKind::of);
        match read.kind.or_else(by_name) {
            Some(ResponsesEventKind::Failed) => return self.failed(read, note),
            Some(ResponsesEventKind::Error) => return self.error(event.payload, note),
            // An error of a host's framework has no type.
            None if read.error.0 => return self.error(event.payload, note),
            None => return FrameEdit::Ignore,
            Some(ResponsesEventKind::Opening) => read.response().made(&mut note),
            Some(ResponsesEventKind::Delta) if read.delta.0.present => {
                self.delta_bytes += read.delta.0.bytes;
                self.content(note);
            }
            Some(ResponsesEventKind::Delta) => {}
            Some(ResponsesEventKind::ItemAdded) if read.item().begins_empty => {}
            Some(ResponsesEventKind::ItemDone) => {
                read.item().made(&mut note);
                self.item_bytes += read.item.map_or(0, |item| text_bytes(item.get().as_bytes()));
                self.content(note);
            }
            Some(ResponsesEventKind::ItemAdded | ResponsesEventKind::Part) => self.content(note),
            Some(ResponsesEventKind::Ended) => return self.ended(&read.response(), note),
        }
        FrameEdit::Keep
    }

    /// The response is over.
    fn ended(&mut self, response: &ResponseObject<'_>, mut note: impl FnMut(Moment)) -> FrameEdit {
        response.made(&mut note);
        // Again, where they came by themselves: some hosts leave that out.
        response.output.made(&mut note);
        self.is_over = true;
        note(Moment::Finish);
        response.usage(&mut note);
        note(Moment::End);
        FrameEdit::Keep
    }

    /// A part of the answer came: its text as far as it was not counted.
    fn content(&mut self, mut note: impl FnMut(Moment)) {
        let before = std::mem::replace(&mut self.counted_bytes, self.delta_bytes.max(self.item_bytes));
        self.is_begun = true;
        note(Moment::Content { text_bytes: self.counted_bytes.saturating_sub(before) });
    }

    /// The response failed, and says so itself: before its first part another provider may be asked, unless it is the
    /// request that is at fault.
    fn failed(&mut self, read: &ResponsesEvent<'_>, mut note: impl FnMut(Moment)) -> FrameEdit {
        let response = read.response();
        if self.is_stored {
            return self.ended(&response, note);
        }
        let is_about_request =
            self.is_refused || response.error.is_some_and(|error| is_about_request(error.get().as_bytes()));
        if !is_about_request && !self.is_begun {
            note(Moment::Fault);
            return FrameEdit::Keep;
        }
        response.usage(&mut note);
        if self.is_begun {
            note(Moment::Failed);
            return FrameEdit::Keep;
        }
        self.is_over = true;
        note(Moment::Finish);
        note(Moment::End);
        FrameEdit::Keep
    }

    /// An error by itself. One about the request is the client's to read; `response.failed` may follow it. Any other one
    /// says to clients no more than the end of the stream does, which is still to come.
    fn error(&mut self, error: &[u8], mut note: impl FnMut(Moment)) -> FrameEdit {
        if self.is_begun && !self.is_stored {
            return FrameEdit::Ignore;
        }
        if self.is_stored || is_about_request(error) {
            self.is_refused = true;
            note(Moment::Finish);
            return FrameEdit::Keep;
        }
        note(Moment::Fault);
        FrameEdit::Keep
    }
}

/// Whether an error is about what the client sent, so that no other provider would answer otherwise.
fn is_about_request(error: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    struct ResponsesErrorObject<'a> {
        #[serde(borrow, default)]
        code: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        error: Option<ErrorCodeObject<'a>>,
    }
    #[derive(Default, Deserialize)]
    struct ErrorCodeObject<'a> {
        #[serde(borrow, default)]
        code: Option<Cow<'a, str>>,
    }

    let read: ResponsesErrorObject<'_> = serde_json::from_slice(error).unwrap_or_default();
    let code = read.error.and_then(|inner| inner.code).or(read.code).unwrap_or_default();
    matches!(read_error(error).topic, ErrorTopic::ContextTooLong | ErrorTopic::Content)
        || code.starts_with("invalid_")
        || code.contains("image")
        || code.contains("policy")
}

/// Reads a whole answer and passes `note` each moment in it. One that is queued or goes on is not finished.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_whole(body: &[u8], note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    read_response(body, |response| take_whole(response, body, note))
}

/// Reads `body` as one response.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
fn read_response(body: &[u8], take: impl FnOnce(&ResponseObject<'_>)) -> Result<(), AnswerError> {
    let mended_body;
    let response = match serde_json::from_slice::<PartsValue<ResponseObject<'_>>>(body) {
        Ok(response) => response.0,
        Err(_) => {
            mended_body = mended(body);
            let read = serde_json::from_slice::<PartsValue<ResponseObject<'_>>>(&mended_body);
            read.map_err(|error| match error.is_eof() {
                true => AnswerError::EndsEarly,
                false => AnswerError::NotAnObject(error.classify()),
            })?
            .0
        }
    };
    if !response.is_object {
        return Err(AnswerError::NotAnObject(serde_json::error::Category::Data));
    }
    take(&response);
    Ok(())
}

fn take_whole(response: &ResponseObject<'_>, body: &[u8], mut note: impl FnMut(Moment)) {
    let error = response.error.map(|error| error.get().as_bytes());
    let is_failed = response.status == ResponseStatus::Failed || (response.output.is_empty() && error.is_some());
    let is_fault = is_failed && !error.is_some_and(is_about_request);
    let is_answer = match response.status {
        ResponseStatus::Ended => response.output.is_list,
        // Some hosts leave the status out.
        ResponseStatus::Untold => !response.output.is_empty(),
        ResponseStatus::Failed => true,
        ResponseStatus::GoesOn => false,
    };
    if is_answer {
        note(Moment::Finish);
    }
    response.made(&mut note);
    response.output.made(&mut note);
    let counts = response.counts();
    if !counts.is_some_and(|report| report.has_output && report.usage.is_some_and(|usage| usage.output > 0)) {
        note(Moment::Content { text_bytes: text_bytes(body) });
    }
    response.usage(&mut note);
    note(if is_fault { Moment::Fault } else { Moment::End });
}

/// The whole answer in `stream`, which is complete: what its last event holds.
pub fn whole_of(stream: &[u8]) -> Option<Vec<u8>> {
    let payloads = stream.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| line.strip_prefix(b"data:"));
    let events = payloads.filter_map(|payload| serde_json::from_slice::<PartsValue<ResponsesEvent<'_>>>(payload).ok());
    let mut ends =
        events.filter(|event| matches!(event.0.kind, Some(ResponsesEventKind::Ended | ResponsesEventKind::Failed)));
    ends.next_back()?.0.response.map(|response| response.get().into())
}

/// What the types of events mean to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ResponsesEventKind {
    /// The response exists, and nothing of its answer does.
    Opening,
    /// An output item begins.
    ItemAdded,
    /// An output item is whole.
    ItemDone,
    /// A part of a text.
    Delta,
    /// Any other part of the answer.
    Part,
    /// The answer is complete, or as complete as it was asked for.
    Ended,
    Failed,
    Error,
}

impl ResponsesEventKind {
    fn of(name: &str) -> Self {
        match name {
            "response.created"
            | "response.in_progress"
            | "response.queued"
            | "response.content_part.added"
            | "response.reasoning_summary_part.added"
            | "keepalive"
            | "ping" => Self::Opening,
            "response.output_item.added" => Self::ItemAdded,
            "response.output_item.done" => Self::ItemDone,
            "response.completed" | "response.incomplete" | "response.cancelled" => Self::Ended,
            "response.failed" => Self::Failed,
            "error" | "response.error" => Self::Error,
            _ if name.ends_with(".delta") => Self::Delta,
            _ => Self::Part,
        }
    }
}

impl<'de> Deserialize<'de> for ResponsesEventKind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self::of(&unquoted(<&RawValue>::deserialize(from)?.get()).unwrap_or_default()))
    }
}

/// The id that `raw` is; `None` for any other value.
fn state_id(raw: &RawValue) -> Option<StateId> {
    unquoted(raw.get()).filter(|id| !id.is_empty()).map(|id| StateId::stored(&id))
}

/// What the members of events are called.
#[derive(Clone, Copy, Default)]
enum EventName {
    Type,
    Number,
    Delta,
    Item,
    Response,
    Error,
    #[default]
    Other,
}

/// One event of a stream.
#[derive(Default)]
struct ResponsesEvent<'a> {
    has_members: bool,
    kind: Option<ResponsesEventKind>,
    number: TokenCount,
    delta: NestedText,
    item: Option<&'a RawValue>,
    response: Option<&'a RawValue>,
    error: NonEmptyValue,
}

impl<'a> ResponsesEvent<'a> {
    fn response(&self) -> ResponseObject<'a> {
        self.response.map(read_parts).unwrap_or_default()
    }

    fn item(&self) -> OutputItem {
        self.item.map(read_parts).unwrap_or_default()
    }
}

/// The parts of a value that was read once; it is JSON, so nothing can be wrong with it.
fn read_parts<'a, T: PartsReader<'a>>(raw: &'a RawValue) -> T {
    serde_json::from_str::<PartsValue<T>>(raw.get()).map(|parts| parts.0).unwrap_or_default()
}

impl<'de: 'a, 'a> PartsReader<'de> for ResponsesEvent<'a> {
    type Name = EventName;

    fn name(text: &str) -> EventName {
        match text {
            "type" => EventName::Type,
            "sequence_number" => EventName::Number,
            "delta" => EventName::Delta,
            "item" => EventName::Item,
            "response" => EventName::Response,
            "error" => EventName::Error,
            _ => EventName::Other,
        }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: EventName, members: &mut A) -> Result<(), A::Error> {
        self.has_members = true;
        match name {
            EventName::Type => self.kind = Some(members.next_value()?),
            EventName::Number => self.number = members.next_value()?,
            EventName::Delta => self.delta = members.next_value()?,
            EventName::Item => self.item = Some(members.next_value()?),
            EventName::Response => self.response = Some(members.next_value()?),
            EventName::Error => self.error = members.next_value()?,
            EventName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// How far a response is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum ResponseStatus {
    #[default]
    Untold,
    /// `completed`, or `incomplete`: it ended early, for a reason that the client asked for or can read.
    Ended,
    Failed,
    /// `in_progress`, `queued`.
    GoesOn,
}

/// What the members of a response are called.
#[derive(Clone, Copy, Default)]
enum ResponseName {
    Id,
    Status,
    Error,
    Output,
    Usage,
    #[default]
    Other,
}

/// A response, whole or as far as it is.
#[derive(Default)]
struct ResponseObject<'a> {
    is_object: bool,
    id: Option<StateId>,
    status: ResponseStatus,
    error: Option<&'a RawValue>,
    output: OutputItems,
    usage: Option<&'a RawValue>,
}

impl ResponseObject<'_> {
    fn counts(&self) -> Option<UsageReport> {
        self.usage.map(RawValue::get).filter(|usage| *usage != "null").map(usage_report)
    }

    fn made(&self, note: &mut impl FnMut(Moment)) {
        if let Some(id) = self.id {
            note(Moment::Made(id));
        }
    }

    fn usage(&self, note: &mut impl FnMut(Moment)) {
        if let Some(report) = self.counts() {
            note(Moment::Usage(report));
        }
    }
}

impl<'de: 'a, 'a> PartsReader<'de> for ResponseObject<'a> {
    type Name = ResponseName;

    fn name(text: &str) -> ResponseName {
        match text {
            "id" => ResponseName::Id,
            "status" => ResponseName::Status,
            "error" => ResponseName::Error,
            "output" => ResponseName::Output,
            "usage" => ResponseName::Usage,
            _ => ResponseName::Other,
        }
    }

    fn begin_object(&mut self) {
        self.is_object = true;
    }

    fn member<A: MapAccess<'de>>(&mut self, name: ResponseName, members: &mut A) -> Result<(), A::Error> {
        match name {
            ResponseName::Id => self.id = state_id(members.next_value()?),
            ResponseName::Status => {
                self.status = match unquoted(members.next_value::<&RawValue>()?.get()).as_deref() {
                    Some("completed" | "incomplete" | "cancelled") => ResponseStatus::Ended,
                    Some("failed") => ResponseStatus::Failed,
                    Some("in_progress" | "queued") => ResponseStatus::GoesOn,
                    Some(_) | None => ResponseStatus::Untold,
                };
            }
            ResponseName::Error => {
                self.error = Some(members.next_value::<&RawValue>()?)
                    .filter(|error| !matches!(error.get(), "null" | "{}" | "\"\""));
            }
            ResponseName::Output => self.output = members.next_value::<PartsValue<OutputItems>>()?.0,
            ResponseName::Usage => self.usage = Some(members.next_value()?),
            ResponseName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// The items of a whole response.
#[derive(Default)]
struct OutputItems {
    is_list: bool,
    items: Vec<OutputItem>,
}

impl OutputItems {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn made(&self, note: &mut impl FnMut(Moment)) {
        self.items.iter().for_each(|item| item.made(note));
    }
}

impl<'de> PartsReader<'de> for OutputItems {
    type Name = ();

    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        self.is_list = true;
        let Some(PartsValue(item)) = list.next_element()? else { return Ok(false) };
        self.items.push(item);
        Ok(true)
    }
}

/// What the members of an output item are called.
#[derive(Clone, Copy, Default)]
enum ItemName {
    Type,
    Id,
    Encrypted,
    #[default]
    Other,
}

/// One output item.
#[derive(Clone, Copy, Default)]
struct OutputItem {
    /// Its type is one whose items say nothing when they begin: their parts follow.
    begins_empty: bool,
    id: Option<StateId>,
    encrypted: Option<StateId>,
}

impl OutputItem {
    /// What later requests may refer to: it by its id, and what is encrypted by what it is.
    fn made(self, note: &mut impl FnMut(Moment)) {
        [self.id, self.encrypted].into_iter().flatten().for_each(|id| note(Moment::Made(id)));
    }
}

impl<'de> PartsReader<'de> for OutputItem {
    type Name = ItemName;

    fn name(text: &str) -> ItemName {
        match text {
            "type" => ItemName::Type,
            "id" => ItemName::Id,
            "encrypted_content" => ItemName::Encrypted,
            _ => ItemName::Other,
        }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: ItemName, members: &mut A) -> Result<(), A::Error> {
        match name {
            ItemName::Type => {
                let kind = unquoted(members.next_value::<&RawValue>()?.get());
                self.begins_empty = matches!(kind.as_deref(), Some("message" | "reasoning"));
            }
            ItemName::Id => self.id = state_id(members.next_value()?),
            ItemName::Encrypted => {
                let encrypted = unquoted(members.next_value::<&RawValue>()?.get());
                self.encrypted = encrypted.filter(|text| !text.is_empty()).map(|text| StateId::encrypted(&text));
            }
            ItemName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::Usage;

    const CREATED: &str = r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","output":[]}}"#;
    const MESSAGE: &str = r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"message","id":"msg_1","content":[]}}"#;
    const DELTA: &str =
        r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","delta":"Hi\n!"}"#;
    const ITEM: &str = r#"{"type":"response.output_item.done","sequence_number":6,"item":{"type":"message","id":"msg_1","content":[{"type":"output_text","text":"Hi\n!"}]}}"#;
    const USAGE: &str = r#"{"input_tokens":36,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":4},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}"#;

    fn completed(status: &str) -> String {
        format!(
            r#"{{"type":"response.{status}","sequence_number":7,"response":{{"id":"resp_1","status":"{status}","error":null,"output":[{{"type":"message","id":"msg_1","content":[{{"type":"output_text","text":"Hi\n!"}}]}}],"usage":{USAGE}}}}}"#
        )
    }

    fn failed(code: &str) -> String {
        format!(
            r#"{{"type":"response.failed","sequence_number":9,"response":{{"id":"resp_1","status":"failed","error":{{"code":"{code}","message":"x"}},"output":[]}}}}"#
        )
    }

    fn usage() -> Usage {
        let mut usage = Usage { input: 36, cached_input: 10, output: 87, reasoning: 64, ..Usage::default() };
        usage.apart.set(crate::domain::usage::TokenClass::CacheWrite, 4);
        usage
    }

    fn counted() -> Moment {
        Moment::Usage(UsageReport { usage: Some(usage()), has_output: true, is_impossible: false })
    }

    fn stored(id: &str) -> Moment {
        Moment::Made(StateId::stored(id))
    }

    fn text(text_bytes: u64) -> Moment {
        Moment::Content { text_bytes }
    }

    type Read = (Vec<Moment>, Result<FrameEdit, FrameError>);

    fn read(stream: &mut ResponsesStream, name: Option<&str>, payload: &str) -> Read {
        let mut moments = Vec::new();
        let event = Event { name: name.map(str::as_bytes), payload: payload.as_bytes(), terminated: true };
        let edit = stream.read(event, |moment| moments.push(moment));
        (moments, edit)
    }

    /// Reads `events` one after the other; what the last one brought.
    fn last(events: &[&str]) -> Read {
        let mut stream = ResponsesStream::default();
        events.iter().map(|event| read(&mut stream, None, event)).last().expect("there is one")
    }

    #[test]
    fn an_answer_is_read_event_by_event() {
        let mut stream = ResponsesStream::default();
        let mut check = |event: &str, expected: &[Moment]| {
            assert_eq!(read(&mut stream, None, event), (expected.to_vec(), Ok(FrameEdit::Keep)), "{event}");
        };
        check(CREATED, &[stored("resp_1")]);
        check(r#"{"type":"response.in_progress","sequence_number":1,"response":{"status":"in_progress"}}"#, &[]);
        check(MESSAGE, &[]);
        check(
            r#"{"type":"response.content_part.added","sequence_number":3,"part":{"type":"output_text","text":""}}"#,
            &[],
        );
        check(r#"{"type":"response.output_text.delta","sequence_number":4,"delta":""}"#, &[]);
        check(DELTA, &[text(4)]);
        check(r#"{"type":"response.output_text.done","sequence_number":5,"text":"Hi\n!"}"#, &[text(0)]);
        check(ITEM, &[stored("msg_1"), text(0)]);
        assert!(stream.end().is_err());
        let end = completed("completed");
        assert_eq!(
            read(&mut stream, None, &end),
            (vec![stored("resp_1"), stored("msg_1"), Moment::Finish, counted(), Moment::End], Ok(FrameEdit::Keep))
        );
        assert_eq!((stream.end(), stream.next_number()), (Ok(&b""[..]), 8));
    }

    #[test]
    fn what_commits_us_is_the_first_part_of_the_answer() {
        let check = |event: &str, is_good: bool| {
            let (moments, edit) = last(&[CREATED, event]);
            assert_eq!(
                (moments.iter().any(|moment| moment.is_good()), edit),
                (is_good, Ok(FrameEdit::Keep)),
                "{event}"
            );
        };
        check(r#"{"type":"response.queued","response":{}}"#, false);
        check(r#"{"type":"response.output_item.added","item":{"type":"reasoning","id":"rs_1","summary":[]}}"#, false);
        check(r#"{"type":"response.reasoning_summary_part.added","part":{"text":""}}"#, false);
        check(r#"{"type":"response.reasoning_summary_text.delta","delta":"So"}"#, true);
        check(
            r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}"#,
            true,
        );
        check(r#"{"type":"response.output_item.done","item":{"type":"reasoning","encrypted_content":"gA"}}"#, true);
        check(r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#, true);
        check(r#"{"type":"response.refusal.delta","delta":"No"}"#, true);
        check(r#"{"type":"response.web_search_call.searching"}"#, true);
        check(r#"{"type":"response.something_new","data":1}"#, true);
        check(&completed("incomplete"), true);
    }

    #[test]
    fn text_counts_once_whether_in_deltas_or_in_items() {
        let counted = |events: &[&str]| -> u64 {
            let mut stream = ResponsesStream::default();
            let moments = events.iter().flat_map(|event| read(&mut stream, None, event).0);
            moments.map(|moment| if let Moment::Content { text_bytes } = moment { text_bytes } else { 0 }).sum()
        };
        assert_eq!(counted(&[DELTA, DELTA]), 8);
        assert_eq!(counted(&[DELTA, ITEM]), 4);
        assert_eq!(counted(&[ITEM]), 4);
        assert_eq!(counted(&[ITEM, ITEM, DELTA]), 8);
        let call = r#"{"type":"response.output_item.done","item":{"type":"function_call","arguments":"{\"a\":1}"}}"#;
        assert_eq!(counted(&[DELTA, call]), 7);
    }

    #[test]
    fn an_error_before_the_answer_lets_others_be_asked_unless_the_request_is_at_fault() {
        let fault = (vec![Moment::Fault], Ok(FrameEdit::Keep));
        for code in ["server_error", "rate_limit_exceeded", "server_is_overloaded", "anything"] {
            assert_eq!(last(&[CREATED, &failed(code)]), fault, "{code}");
            let error = format!(r#"{{"type":"error","code":"{code}","message":"x","sequence_number":1}}"#);
            assert_eq!(last(&[CREATED, &error]), fault, "{code}");
        }
        assert_eq!(last(&[r#"{"error":{"message":"overloaded"}}"#]), fault);
        for code in ["context_length_exceeded", "invalid_prompt", "invalid_image", "image_too_large", "bio_policy"] {
            let ended = (vec![Moment::Finish, Moment::End], Ok(FrameEdit::Keep));
            assert_eq!(last(&[CREATED, &failed(code)]), ended, "{code}");
            // Both, as OpenAI sends them.
            let error = format!(r#"{{"type":"error","error":{{"code":"{code}","message":"x"}},"sequence_number":1}}"#);
            assert_eq!(last(&[CREATED, &error]), (vec![Moment::Finish], Ok(FrameEdit::Keep)), "{code}");
            assert_eq!(last(&[CREATED, &error, &failed(code)]), ended, "{code}");
        }
    }

    #[test]
    fn a_failure_within_the_answer_is_passed_on_as_the_provider_says_it() {
        let said = (vec![Moment::Failed], Ok(FrameEdit::Keep));
        assert_eq!(last(&[CREATED, DELTA, &failed("server_error")]), said);
        // What follows it tells more, or the end of the stream does.
        let error = r#"{"type":"error","code":"server_error","message":"x"}"#;
        assert_eq!(last(&[DELTA, error]), (vec![], Ok(FrameEdit::Ignore)));
        assert_eq!(last(&[DELTA, error, &failed("server_error")]), said);
        let mut stream = ResponsesStream::default();
        [DELTA, error].iter().for_each(|event| drop(read(&mut stream, None, event)));
        assert!(stream.end().is_err());
    }

    #[test]
    fn what_is_no_event_is_ignored_or_ends_the_stream() {
        for ignored in ["ping", "{}", "[1]", r#"{"id":1}"#] {
            assert_eq!(last(&[CREATED, ignored]), (vec![], Ok(FrameEdit::Ignore)), "{ignored}");
        }
        for broken in ["{oops", "<html>"] {
            assert!(matches!(last(&[CREATED, broken]).1, Err(FrameError::Malformed(_))), "{broken}");
        }
        assert!(matches!(last(&[DELTA, "[DONE]"]).1, Err(FrameError::Incomplete(_))));
        // Some hosts name the type in the event alone.
        let mut stream = ResponsesStream::default();
        let named = read(&mut stream, Some("response.output_text.delta"), r#"{"delta":"ab"}"#);
        assert_eq!(named, (vec![text(2)], Ok(FrameEdit::Keep)));
        let odd = "{\"type\":\"response.output_text.delta\",\"delta\":\"\\ud83d\"}";
        assert_eq!(last(&[odd]).0.len(), 1);
    }

    fn whole(body: &str) -> Result<Vec<Moment>, AnswerError> {
        let mut moments = Vec::new();
        read_whole(body.as_bytes(), |moment| moments.push(moment)).map(|()| moments)
    }

    #[test]
    fn a_whole_answer_is_a_stream_of_one() {
        let body =
            |status: &str, rest: &str| format!(r#"{{"id":"resp_1","object":"response","status":{status}{rest}}}"#);
        let usage = format!(r#","usage":{USAGE}"#);
        let item = r#","output":[{"type":"reasoning","id":"rs_1","encrypted_content":"gAAA"},{"type":"message","id":"msg_1"}]"#;
        let made = [stored("resp_1"), stored("rs_1"), Moment::Made(StateId::encrypted("gAAA")), stored("msg_1")];
        let complete = [&[Moment::Finish][..], &made, &[counted(), Moment::End]].concat();
        for status in [r#""completed""#, r#""incomplete""#, "null"] {
            assert_eq!(whole(&body(status, &format!("{item}{usage}"))), Ok(complete.clone()), "{status}");
        }
        let answered = |body: &str| whole(body).map(|moments| moments.contains(&Moment::Finish));
        let fault = |body: &str| whole(body).map(|moments| moments.contains(&Moment::Fault));
        assert_eq!(answered(&body(r#""completed""#, r#","output":[]"#)), Ok(true));
        for none in [body(r#""in_progress""#, item), body(r#""queued""#, ""), body("null", ""), "{}".to_owned()] {
            assert_eq!(answered(&none), Ok(false), "{none}");
        }
        let error = |code: &str| format!(r#","error":{{"code":"{code}","message":"x"}},"output":[]"#);
        assert_eq!(fault(&body(r#""failed""#, &error("server_error"))), Ok(true));
        assert_eq!(fault(&body(r#""failed""#, &error("invalid_prompt"))), Ok(false));
        assert_eq!(fault(r#"{"error":{"message":"x"}}"#), Ok(true));
        assert_eq!(whole("{\"id\":"), Err(AnswerError::EndsEarly));
        assert!(matches!(whole("[]"), Err(AnswerError::NotAnObject(_))));
        // Its text is measured where its output was not counted.
        let uncounted = whole(&body("null", r#","output":[{"content":[{"text":"abc"}]}]"#)).expect("an answer");
        assert!(uncounted.contains(&text(3)));
    }

    #[test]
    fn the_last_event_of_a_stream_holds_the_whole_answer() {
        let end = completed("completed");
        let stream = format!("event: response.created\ndata: {CREATED}\n\ndata: {DELTA}\n\ndata: {end}\n\n");
        let whole = whole_of(stream.as_bytes()).expect("it is complete");
        let response: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
        assert_eq!((&response["id"], &response["usage"]["total_tokens"]), (&"resp_1".into(), &123.into()));
        assert_eq!(whole_of(format!("data: {CREATED}\n\n").as_bytes()), None);
    }
}
