//! Answers of chat completions, completions and embeddings, streamed or whole, read as [`Moment`]s: parts of the
//! answer, finished choices, usage, errors. It borrows from the bytes and builds no tree; a frame costs no
//! allocation.
//!
//! It never changes a byte and forgives what it does not need to understand: a member of an unexpected type is
//! as good as absent.
//!
//! Start reading in [`ChatStream::read`].

use super::edit;
use crate::domain::call::Call;
use crate::domain::usage::Usage;
use crate::protocol::json::lenient::{LenientObject, NestedText, NonEmptyValue, ObjectName, TextSize, TokenCount};
use crate::protocol::json::text::text_bytes;
use crate::protocol::{AnswerError, Event, FrameEdit, FrameError, Moment, UsageReport};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt;

/// The payload that ends a stream.
const DONE: &[u8] = b"[DONE]";
/// The frame that ends a stream, for one whose provider forgot it.
pub(super) const DONE_FRAME: &[u8] = b"data: [DONE]\n\n";

/// What a provider is known to do otherwise than OpenAI.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ChatQuirks {
    /// `[DONE]` completes a stream although a `finish_reason` is missing.
    pub finish_reason_optional: bool,
    /// Frames that are not JSON are passed on.
    pub skip_malformed_frames: bool,
}

/// One stream, as far as it was read.
pub struct ChatStream {
    finished: FinishedChoices,
    expected_choices: u32,
    /// We asked for usage and the client did not.
    hide_usage: bool,
    quirks: ChatQuirks,
}

impl ChatStream {
    /// The stream that answers `call`, of which nothing was read.
    pub fn new(call: &Call, quirks: ChatQuirks) -> Self {
        Self {
            finished: FinishedChoices::default(),
            expected_choices: call.expected_choices(),
            hide_usage: call.metadata().ask_usage.is_some(),
            quirks,
        }
    }

    /// Reads one event and passes `note` each moment in it; returns how the event is to be passed on.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`] for a `[DONE]` before every choice is finished; [`FrameError::Malformed`] for
    /// what is not a JSON object in the shape of a completion.
    #[inline]
    pub fn read(&mut self, event: Event<'_>, mut note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        let payload = event.payload;
        if payload.trim_ascii() == DONE {
            if !self.quirks.finish_reason_optional && !self.has_finished(self.expected_choices) {
                return Err(FrameError::Incomplete("[DONE] came without every finish_reason"));
            }
            note(Moment::End);
            return Ok(FrameEdit::Keep);
        }
        if event.name == Some(b"error") {
            note(Moment::Fault);
            return Ok(FrameEdit::Keep);
        }
        match object(payload) {
            Ok(frame) => return Ok(self.take_in(frame, payload, note)),
            Err(_) => {
                // Each replacement is as long as what it replaces: what is cut has the same place in both.
                if let Some(mended) = without_surrogates(payload)
                    && let Ok(frame) = object(&mended)
                {
                    return Ok(self.take_in(frame, &mended, note));
                }
            }
        }
        match self.quirks.skip_malformed_frames && event.terminated {
            true => Ok(FrameEdit::Keep),
            false => Err(FrameError::Malformed("a frame that is no completion")),
        }
    }

    /// What to add at the end of the provider's bytes where `[DONE]` was not among them.
    ///
    /// # Errors
    /// What is missing, where a choice is not finished.
    pub fn end(&self) -> Result<&'static [u8], &'static str> {
        match self.has_finished(self.expected_choices) {
            true => Ok(DONE_FRAME),
            false => Err("the stream ended without every finish_reason"),
        }
    }

    /// Whether each of the choices 0 … `expected`−1 has its finish reason.
    pub fn has_finished(&self, expected: u32) -> bool {
        self.finished.all_below(expected)
    }

    /// Takes note of `frame`, which was read from `json`.
    #[inline]
    fn take_in(&mut self, frame: ChatFrame<'_>, json: &[u8], mut note: impl FnMut(Moment)) -> FrameEdit {
        if frame.error.0 || frame.object.is_error {
            note(Moment::Fault);
            return FrameEdit::Keep;
        }
        let choices = frame.choices.unwrap_or_default();
        if choices.token {
            note(Moment::Content { text_bytes: choices.text_bytes });
        }
        if choices.finished.any() {
            self.finished.add(&choices.finished);
            note(Moment::Finish);
        }
        let Some(usage) = frame.usage.map(RawValue::get) else { return FrameEdit::Keep };
        let is_counted = usage != "null";
        if is_counted {
            note(Moment::Usage(usage_report(usage)));
        }
        match self.hide_usage {
            false => FrameEdit::Keep,
            true if is_counted && choices.given && choices.empty => FrameEdit::Drop,
            true => edit::without_member(json, usage),
        }
    }
}

/// `json` with another character for each half of a surrogate pair, where there is any: a provider that cuts
/// between the two sends what is no string for Rust, and a token all the same.
fn without_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let (mut mended, mut at, mut any) = (json.to_vec(), 0, false);
    while let Some(next) = mended.get(at..).and_then(|left| memchr::memchr(b'\\', left)) {
        at += next;
        match mended.get_mut(at + 1..at + 6) {
            Some([b'u', digits @ ..]) => {
                if matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]) {
                    digits.copy_from_slice(b"fffd");
                    any = true;
                }
                at += 6;
            }
            _ => at += 2,
        }
    }
    any.then_some(mended)
}

/// Reads a whole answer and passes `note` each moment in it; one that has a choice or a vector is finished. The text of one whose output was counted is not
/// measured: nobody asks for it.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_whole(body: &[u8], mut note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    let answer: ChatAnswer<'_> = object(body).map_err(|error| match error.is_eof() {
        true => AnswerError::EndsEarly,
        false => AnswerError::NotAnObject(error.classify()),
    })?;
    // An official client reads `choices`, or `data` of embeddings; what is in them is its own matter.
    if answer.choices.0 || answer.data.0 {
        note(Moment::Finish);
    }
    let report = answer.usage.map(|usage| usage_report(usage.get()));
    let counted = report.unwrap_or_default();
    if !counted.has_output {
        // Where its shape is unknown, all of it may be text.
        let text_bytes = match text_bytes(body) {
            0 if counted.usage.is_none() => body.len() as u64,
            text_bytes => text_bytes,
        };
        note(Moment::Content { text_bytes });
    }
    if let Some(report) = report {
        note(Moment::Usage(report));
    }
    note(if answer.error.0 || answer.object.is_error { Moment::Fault } else { Moment::End });
    Ok(())
}

/// Reads a JSON object; serde would take an array for a struct as well.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start().first() {
        None | Some(b'{') => serde_json::from_slice(json),
        Some(_) => Err(serde::de::Error::custom("not an object")),
    }
}

#[derive(Deserialize)]
struct ChatFrame<'a> {
    #[serde(default)]
    object: ObjectName,
    #[serde(default)]
    error: NonEmptyValue,
    #[serde(default)]
    choices: Option<ChoicesSummary>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChatAnswer<'a> {
    #[serde(default)]
    object: ObjectName,
    #[serde(default)]
    error: NonEmptyValue,
    #[serde(default)]
    choices: NonEmptyValue,
    #[serde(default)]
    data: NonEmptyValue,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// `Option` alone would take `null` for absent; here it must be seen, to be hidden.
fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct ChatChoice {
    #[serde(default)]
    index: TokenCount,
    #[serde(default)]
    delta: Option<ChatDelta>,
    #[serde(default)]
    text: TextSize,
    #[serde(default)]
    finish_reason: NonEmptyValue,
}

/// Everything that counts as a token, by any host's name for it.
#[derive(Deserialize)]
struct ChatDelta {
    #[serde(default)]
    content: TextSize,
    #[serde(default)]
    reasoning: TextSize,
    #[serde(default)]
    reasoning_content: TextSize,
    #[serde(default)]
    refusal: TextSize,
    #[serde(default)]
    tool_calls: NestedText,
    #[serde(default)]
    function_call: NestedText,
    #[serde(default)]
    audio: NonEmptyValue,
}

impl ChatChoice {
    /// Whether it carries a token, and the bytes of its text.
    fn text(&self) -> TextSize {
        let delta = self.delta.as_ref().map_or(TextSize::default(), ChatDelta::text);
        TextSize { present: self.text.present || delta.present, bytes: self.text.bytes + delta.bytes }
    }
}

impl ChatDelta {
    fn text(&self) -> TextSize {
        let Self { content, reasoning, reasoning_content, refusal, tool_calls, function_call, audio } = self;
        let parts = [content, reasoning, reasoning_content, refusal, &tool_calls.0, &function_call.0];
        TextSize {
            present: audio.0 || parts.iter().any(|part| part.present),
            bytes: parts.iter().map(|part| part.bytes).sum(),
        }
    }
}

/// All choices of a frame, folded while they are read.
#[derive(Default)]
struct ChoicesSummary {
    given: bool,
    empty: bool,
    token: bool,
    text_bytes: u64,
    finished: FinishedChoices,
}

impl<'de> Deserialize<'de> for ChoicesSummary {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ChoicesVisitor;

        impl<'de> Visitor<'de> for ChoicesVisitor {
            type Value = ChoicesSummary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ChoicesSummary, A::Error> {
                let mut all = ChoicesSummary { given: true, empty: true, ..ChoicesSummary::default() };
                let mut position = 0;
                while let Some(choice) = list.next_element::<ChatChoice>()? {
                    all.empty = false;
                    let text = choice.text();
                    all.token |= text.present;
                    all.text_bytes += text.bytes;
                    if choice.finish_reason.0 {
                        // An index that no choice has must not pass for one that some choice has.
                        let index = choice.index.0.map_or(position, |index| u32::try_from(index).unwrap_or(u32::MAX));
                        all.finished.insert(index);
                    }
                    position += 1;
                }
                Ok(all)
            }
        }

        from.deserialize_seq(ChoicesVisitor)
    }
}

/// A set of choice indexes, without allocation up to 64.
#[derive(Clone, Default, Debug)]
struct FinishedChoices {
    first: u64,
    rest: BTreeSet<u32>,
}

impl FinishedChoices {
    fn insert(&mut self, index: u32) {
        match index {
            0..64 => self.first |= 1 << index,
            _ => drop(self.rest.insert(index)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.first |= other.first;
        self.rest.extend(&other.rest);
    }

    fn any(&self) -> bool {
        self.first != 0 || !self.rest.is_empty()
    }

    fn all_below(&self, end: u32) -> bool {
        let wanted = u64::MAX.checked_shr(64_u32.saturating_sub(end)).unwrap_or(0);
        let rest = end.saturating_sub(64) as usize;
        self.first & wanted == wanted && self.rest.range(..end).count() == rest
    }
}

/// More tokens than any answer has; a count beyond it is a fault, not a number.
const ABSURD: u64 = 1_000_000_000;

#[derive(Deserialize)]
struct ChatUsage {
    #[serde(default)]
    prompt_tokens: Option<TokenCount>,
    #[serde(default)]
    completion_tokens: Option<TokenCount>,
    #[serde(default)]
    total_tokens: TokenCount,
    #[serde(default)]
    prompt_tokens_details: LenientObject<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: LenientObject<CompletionDetails>,
    /// DeepSeek's name for cached input.
    #[serde(default)]
    prompt_cache_hit_tokens: TokenCount,
}

#[derive(Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: TokenCount,
}

#[derive(Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: TokenCount,
}

/// The counts of a `usage` object.
fn usage_report(json: &str) -> UsageReport {
    let impossible = UsageReport { is_impossible: true, ..UsageReport::default() };
    let Ok(raw) = object::<ChatUsage>(json.as_bytes()) else { return impossible };
    let sane = |number: TokenCount| number.0.filter(|count| *count <= ABSURD);
    let Some(input) = raw.prompt_tokens else { return UsageReport::default() };
    let has_output = raw.completion_tokens.is_some();
    let output = raw.completion_tokens.unwrap_or(TokenCount(Some(0)));
    let (Some(input), Some(mut output)) = (sane(input), sane(output)) else { return impossible };
    let cached = sane(raw.prompt_tokens_details.0.cached_tokens).or(sane(raw.prompt_cache_hit_tokens)).unwrap_or(0);
    let reasoning = sane(raw.completion_tokens_details.0.reasoning_tokens).unwrap_or(0);
    // Some hosts count reasoning beside the output instead of within it; only their total shows it.
    if reasoning > 0 && sane(raw.total_tokens) == Some(input + output + reasoning) {
        output += reasoning;
    }
    let usage = Usage { input, cached_input: cached.min(input), output, reasoning: reasoning.min(output) };
    UsageReport { usage: Some(usage), has_output, is_impossible: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Endpoint;
    use crate::protocol::chat::request::read_request;

    /// A stream of so many choices; `hiding`: usage we asked for and the client did not.
    fn stream(choices: u32, hiding: bool) -> ChatStream {
        let body =
            format!(r#"{{"model":"m","n":{choices},"stream":true,"stream_options":{{"include_usage":{}}}}}"#, !hiding);
        let call = read_request(Endpoint::Chat, body.into()).expect("the body is a chat request");
        ChatStream::new(&call, ChatQuirks::default())
    }

    fn event(payload: &str) -> Event<'_> {
        Event { name: None, payload: payload.as_bytes(), terminated: true }
    }

    fn read(stream: &mut ChatStream, payload: &str) -> Result<(Vec<Moment>, FrameEdit), FrameError> {
        let mut moments = Vec::new();
        stream.read(event(payload), |moment| moments.push(moment)).map(|edit| (moments, edit))
    }

    fn moments(payload: &str) -> Vec<Moment> {
        read(&mut stream(1, false), payload).unwrap_or_else(|error| panic!("{payload}: {error:?}")).0
    }

    fn whole(body: &str) -> Result<Vec<Moment>, AnswerError> {
        let mut moments = Vec::new();
        read_whole(body.as_bytes(), |moment| moments.push(moment)).map(|()| moments)
    }

    #[test]
    fn a_good_frame_carries_a_token_or_an_end() {
        let check = |frame: &str, good: bool| {
            let moments = moments(frame);
            assert_eq!(moments.iter().any(|moment| moment.is_good()), good, "{frame}");
            assert!(!moments.contains(&Moment::Fault), "{frame}");
        };
        let delta = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#);
        check(&delta(r#"{"role":"assistant","content":""}"#), false);
        check(&delta(r#"{"role":"assistant","content":null,"refusal":null}"#), false);
        check(&delta("{}"), false);
        check(&delta("null"), false);
        check(&delta(r#"{"tool_calls":[]}"#), false);
        check(&delta(r#"{"content":"h\u00e9\n"}"#), true);
        check(&delta(r#"{"content":[{"type":"text","text":"x"}]}"#), true);
        check(&delta(r#"{"reasoning":"x"}"#), true);
        check(&delta(r#"{"reasoning_content":"x"}"#), true);
        check(&delta(r#"{"refusal":"no"}"#), true);
        check(&delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#), true);
        check(&delta(r#"{"function_call":{"name":"f"}}"#), true);
        check(&delta(r#"{"audio":{"id":"a"}}"#), true);
        check(r#"{"choices":[{"index":0,"text":"x"}]}"#, true);
        check(r#"{"choices":[{"index":0,"text":""}]}"#, false);
        check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, true);
        check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":""}]}"#, false);
        check(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, false);
        check(r#"{"choices":null,"error":null}"#, false);
        check("{}", false);
    }

    #[test]
    fn an_error_is_a_fault_and_nothing_else() {
        let check = |frame: &str, error: bool| {
            let moments = moments(frame);
            assert_eq!(moments == [Moment::Fault], error, "{frame}");
            assert_eq!(moments.contains(&Moment::Fault), error, "{frame}");
            assert_eq!(whole(frame).map(|moments| moments.contains(&Moment::Fault)), Ok(error), "{frame}");
        };
        check(r#"{"error":{"message":"x"}}"#, true);
        check(r#"{"error":"x","choices":[]}"#, true);
        check(r#"{"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":1},"error":"x"}"#, true);
        check(r#"{"object":"error","message":"x"}"#, true);
        check(r#"{"error":null,"object":"chat.completion"}"#, false);
        check(r#"{"choices":[{"error":{"message":"x"}}]}"#, false);
        let named = Event { name: Some(b"error"), ..event("x") };
        let mut moments = Vec::new();
        assert_eq!(stream(1, false).read(named, |moment| moments.push(moment)), Ok(FrameEdit::Keep));
        assert_eq!(moments, [Moment::Fault]);
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for text in ["", "[]", "null", "\"x\"", "{\"a\":1", "{} x", "ping", "{\"choices\":{}}"] {
            let malformed = FrameError::Malformed("a frame that is no completion");
            assert_eq!(read(&mut stream(1, false), text), Err(malformed), "{text}");
            let skipping = ChatQuirks { skip_malformed_frames: true, ..ChatQuirks::default() };
            let mut skipping = ChatStream { quirks: skipping, ..stream(1, false) };
            assert_eq!(read(&mut skipping, text), Ok((vec![], FrameEdit::Keep)), "{text}");
            let cut = Event { terminated: false, ..event(text) };
            assert_eq!(skipping.read(cut, |_| ()), Err(malformed), "{text}");
        }
        assert_eq!(whole("{\"a\":[1,2"), Err(AnswerError::EndsEarly));
        assert_eq!(whole(""), Err(AnswerError::EndsEarly));
        assert!(matches!(whole("<html>"), Err(AnswerError::NotAnObject(_))));
    }

    #[test]
    fn done_ends_a_stream_whose_choices_are_finished() {
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let early = Err(FrameError::Incomplete("[DONE] came without every finish_reason"));
        let done = Ok((vec![Moment::End], FrameEdit::Keep));
        let mut one = stream(1, false);
        assert_eq!(read(&mut one, "[DONE]"), early);
        assert!(one.end().is_err());
        assert!(read(&mut one, stop).is_ok_and(|(moments, _)| moments == [Moment::Finish]));
        assert_eq!(read(&mut one, " [DONE]\n"), done);
        assert_eq!(one.end(), Ok(DONE_FRAME));
        assert_eq!(read(&mut stream(2, false), "[DONE]"), early);
        let optional = ChatQuirks { finish_reason_optional: true, ..ChatQuirks::default() };
        let mut lenient = ChatStream { quirks: optional, ..stream(2, false) };
        assert_eq!(read(&mut lenient, "[DONE]"), done);
        assert!(lenient.end().is_err());
    }

    #[test]
    fn usage_the_client_did_not_ask_for_is_cut_out() {
        let check = |frame: &str, expected: Option<&str>| {
            assert_eq!(read(&mut stream(1, false), frame).map(|(_, edit)| edit), Ok(FrameEdit::Keep), "{frame}");
            let left = match read(&mut stream(1, true), frame).map(|(_, edit)| edit) {
                Ok(FrameEdit::Keep) => Some(frame.to_owned()),
                Ok(FrameEdit::Cut(span)) => Some([&frame[..span.start], &frame[span.end..]].concat()),
                Ok(FrameEdit::Drop) => None,
                Err(error) => panic!("{frame}: {error:?}"),
            };
            assert_eq!(left.as_deref(), expected, "{frame}");
        };
        check(r#"{"choices":[{"usage":null}]}"#, Some(r#"{"choices":[{"usage":null}]}"#));
        check(r#"{"usage":null,"choices":[]}"#, Some(r#"{"choices":[]}"#));
        check(r#"{"a": 1.0 , "usage" : null }"#, Some(r#"{"a": 1.0  }"#));
        check(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, None);
        check(r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#, Some(r#"{"choices":[{}]}"#));
        check(r#"{"usage":{"prompt_tokens":1},"x":[2]}"#, Some(r#"{"x":[2]}"#));
        // Half a surrogate pair before it: the frame that is read is not the frame that is cut.
        check(
            r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}],"usage":{"prompt_tokens":5}}"#,
            Some(r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}]}"#),
        );
    }

    #[test]
    fn usage_is_read_where_it_is_not_null() {
        let check = |usage: &str, expected: Option<Option<u64>>| {
            let frame = format!(r#"{{"choices":[],"usage":{usage}}}"#);
            let report = expected.map(|input| UsageReport {
                usage: input.map(|input| Usage { input, ..Usage::default() }),
                ..UsageReport::default()
            });
            let moments = moments(&frame);
            assert_eq!(moments, report.into_iter().map(Moment::Usage).collect::<Vec<_>>(), "{usage}");
        };
        check("null", None);
        check(r#"{"prompt_tokens":1}"#, Some(Some(1)));
        check("{}", Some(None));
    }

    #[test]
    fn usage_is_read_as_domain_tokens() {
        let check = |json: &str, expected: Option<[u64; 4]>| {
            let counted = usage_report(json);
            let usage = counted.usage.map(|u| [u.input, u.cached_input, u.output, u.reasoning]);
            assert_eq!(usage, expected, "{json}");
            assert!(usage.is_none() || !counted.is_impossible, "{json}");
        };
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}"#, Some([5, 0, 7, 0]));
        check(r#"{"prompt_tokens":5,"total_tokens":5}"#, Some([5, 0, 0, 0]));
        check(
            r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}"#,
            Some([5, 4, 7, 3]),
        );
        check(
            r#"{"prompt_tokens":5,"prompt_tokens_details":null,"completion_tokens":7,"completion_tokens_details":null}"#,
            Some([5, 0, 7, 0]),
        );
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_cache_hit_tokens":9}"#, Some([5, 5, 7, 0]));
        check(
            r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":42,"completion_tokens_details":{"reasoning_tokens":30}}"#,
            Some([5, 0, 37, 30]),
        );
        check(r#"{"prompt_tokens":5.0,"completion_tokens":null}"#, Some([5, 0, 0, 0]));
        // Details of another shape say nothing, and the counts around them still count.
        for odd in
            [r#""none""#, "[1]", "7", "true", r#"{"cached_tokens":"4"}"#, r#"{"cached_tokens":1,"cached_tokens":2}"#]
        {
            let usage = r#"{"prompt_tokens":5,"prompt_tokens_details":ODD,"completion_tokens":7,"completion_tokens_details":ODD}"#;
            check(&usage.replace("ODD", odd), Some([5, 0, 7, 0]));
        }
        check(r#"{"prompt_tokens":-5,"completion_tokens":7}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":7.5}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":99999999999}"#, None);
        check(r#"{"prompt_tokens":"5","completion_tokens":7}"#, None);
        check(r#"{"completion_tokens":7}"#, None);
        check("[5,7,12]", None);
        check("null", None);
    }

    #[test]
    fn what_cannot_be_a_count_differs_from_no_count() {
        let check = |json: &str, impossible: bool| {
            let counted = usage_report(json);
            assert_eq!((counted.usage, counted.is_impossible), (None, impossible), "{json}");
        };
        check("{}", false);
        check(r#"{"prompt_tokens":null,"completion_tokens":7}"#, false);
        check(r#"{"prompt_tokens":-5,"completion_tokens":7}"#, true);
        check(r#"{"prompt_tokens":5,"completion_tokens":-7}"#, true);
        check(r#"{"prompt_tokens":5,"completion_tokens":7.5}"#, true);
        check(r#"{"prompt_tokens":5,"completion_tokens":1000000001}"#, true);
        check(r#"{"prompt_tokens":5,"completion_tokens":9223372036854775808}"#, true);
        check(r#"{"prompt_tokens":5,"completion_tokens":1e30}"#, true);
        check(r#"{"prompt_tokens":"5","completion_tokens":7}"#, true);
        check("[5,7,12]", true);
        check("12", true);
    }

    #[test]
    fn the_text_of_an_answer_is_measured() {
        let check = |frame: &str, text_bytes: u64| {
            let content = moments(frame).into_iter().find(|moment| matches!(moment, Moment::Content { .. }));
            assert_eq!(content, Some(Moment::Content { text_bytes }), "{frame}");
        };
        let delta = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
        check(&delta(r#"{"content":"h\u00e9\n"}"#), 4);
        check(&delta(r#"{"reasoning_content":"ab","content":"c"}"#), 3);
        check(&delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}"#), 2);
        check(r#"{"choices":[{"index":0,"text":"x"},{"index":1,"text":"yz"}]}"#, 3);
        // Half a surrogate pair, of a provider that cuts between the two.
        check(&delta(r#"{"content":"\ud83d"}"#), 3);
        check(&delta(r#"{"content":"\\uDE00\ude00"}"#), 9);
        let whole_text = |body: &str, text_bytes: u64| {
            let moments = whole(body).unwrap_or_else(|error| panic!("{body}: {error}"));
            let measured = moments.iter().map(|moment| match moment {
                Moment::Content { text_bytes } => *text_bytes,
                _ => 0,
            });
            assert_eq!(measured.sum::<u64>(), text_bytes, "{body}");
            assert_eq!(moments.last(), Some(&Moment::End), "{body}");
        };
        whole_text(r#"{"choices":[{"message":{"role":"assistant","content":"Hello"}}]}"#, 5);
        whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1}}"#, 5);
        whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, 0);
        // Half a surrogate pair, where a ceiling cut an answer short.
        whole_text(r#"{"choices":[{"message":{"content":"\ud83d"}}]}"#, 3);
        whole_text(r#"{"output":"Hello"}"#, 18);
        whole_text(r#"{"choices":{"content":"abc"}}"#, 3);
    }

    #[test]
    fn every_index_must_finish() {
        let check = |indexes: &[u64], expected: u32, all: bool| {
            let mut stream = stream(1, false);
            for index in indexes {
                let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
                assert!(read(&mut stream, &frame).is_ok());
            }
            assert_eq!(stream.has_finished(expected), all, "{indexes:?} of {expected}");
        };
        check(&[], 1, false);
        check(&[0], 1, true);
        check(&[1], 1, false);
        check(&[0, 2], 3, false);
        check(&[2, 0, 1], 3, true);
        check(&[1 << 32], 1, false);
        let many: Vec<u64> = (0..130).collect();
        check(&many, 130, true);
        check(&many[..64], 64, true);
        check(&many[1..], 130, false);
        check(&many[..129], 130, false);
    }
}
