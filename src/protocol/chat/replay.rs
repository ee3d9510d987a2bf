//! A stream of chat completions that is gone on with by another answer to the same request.
//!
//! While the first answer passes, its text is kept. When it broke, the frames of the other answer, a replay, are
//! compared with that: what the client has is left out, and the rest is written as a part of the stream that it reads,
//! under the same id. Nothing but text can be compared: a frame that says anything else ends what may be replayed. It
//! must never pass on a frame of a replay before all that the client has was found in it.
//!
//! Start reading in [`ChatReplay::read`]. What a frame says is read in [`part`].

mod part;

use crate::domain::call::{Call, Endpoint, Feature};
use crate::domain::sent_text::{DivergenceError, SentText};
use crate::protocol::Event;
use crate::protocol::json::member::{BodyField, members};
use crate::protocol::json::text::put_string;
use crate::protocol::request_basics::BodyText;
use part::{ChatFramePart, NAMES, TextMember};
use std::ops::Range;

/// The most text that is kept of an answer, in bytes: some 60,000 tokens of English. A longer one is not replayed.
const MOST_TEXT: usize = 256 * 1024;
/// Members by which a request asks for more than text, by whatever name hosts have for it.
const BEYOND_TEXT: [&str; 14] = [
    "response_format",
    "modalities",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "audio",
    "web_search_options",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
];

/// How a frame of an answer is passed on.
#[derive(PartialEq, Eq, Debug)]
pub enum ReplayEdit {
    /// As it came.
    Keep,
    /// Not at all: the client has what it says.
    Drop,
    /// As this frame.
    Write(Vec<u8>),
}

/// What a client has of an answer, and what of a replay was compared with it.
pub struct ChatReplay {
    text: SentText<TextMember>,
    /// The values of [`NAMES`] that the client has read first.
    names: [Option<Box<str>>; NAMES.len()],
    /// The client has read a role: many would read another one as a part of it.
    has_role: bool,
    is_replay: bool,
    /// What was sent is text alone, unfinished, and not too long to be kept.
    is_open: bool,
}

impl ChatReplay {
    /// Of an answer to `call` that is about to pass; `None` where it may be more than the text of one choice.
    pub fn of(call: &Call) -> Option<Self> {
        let metadata = call.metadata();
        let is_one_text = call.endpoint() == Endpoint::Chat
            && metadata.stream
            && metadata.choices == 1
            && metadata.cost_facts.candidates <= 1
            && metadata.refers_to.is_empty()
            && !metadata.features.contains(Feature::JsonSchema)
            && asks_for_text_alone(call.body());
        is_one_text.then(|| Self {
            text: SentText::default(),
            names: [const { None }; NAMES.len()],
            has_role: false,
            is_replay: false,
            is_open: true,
        })
    }

    /// Whether another answer may go on with what was sent so far.
    pub fn may_begin(&self) -> bool {
        self.is_open
    }

    /// From here on frames are those of another answer, from its beginning.
    pub fn begin(&mut self) {
        self.is_replay = true;
        self.text.compare_again();
    }

    /// Whether frames are those of a replay.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Whether the replay has said all that the client had.
    pub fn is_caught_up(&self) -> bool {
        self.text.is_compared()
    }

    /// How many bytes of text are kept.
    pub fn text_bytes(&self) -> usize {
        self.text.bytes()
    }

    /// What was sent is not kept any more, and no other answer can go on with it.
    pub fn close(&mut self) {
        self.is_open = false;
        self.text = SentText::default();
    }

    /// Reads the next frame of the answer; returns how it is passed on.
    ///
    /// # Errors
    /// [`DivergenceError`]: a replay is another answer than the client has a part of.
    pub fn read(&mut self, event: Event<'_>) -> Result<ReplayEdit, DivergenceError> {
        if !self.is_replay && !self.is_open {
            return Ok(ReplayEdit::Keep);
        }
        let had_all = self.is_caught_up();
        let Some(part) = ChatFramePart::read(event.payload) else {
            if !had_all {
                return Err(DivergenceError);
            }
            self.close();
            return Ok(ReplayEdit::Keep);
        };
        let new = self.take(&part)?;
        if part.is_finish && !self.is_caught_up() {
            return Err(DivergenceError);
        }
        let is_known = match &part.text {
            Some(_) => new.is_empty(),
            None => !had_all || (part.has_role && self.has_role),
        };
        let edit = match (self.is_replay, is_known && !part.is_finish) {
            (false, _) => ReplayEdit::Keep,
            (true, true) => ReplayEdit::Drop,
            (true, false) => self.written(event, &part, new),
        };
        if edit != ReplayEdit::Drop {
            self.note(&part, event.payload);
        }
        if part.is_finish || self.text.bytes() > MOST_TEXT {
            self.close();
        }
        Ok(edit)
    }

    /// The new text of `part`.
    fn take<'p>(&mut self, part: &'p ChatFramePart<'_>) -> Result<&'p str, DivergenceError> {
        match &part.text {
            Some((member, text)) if self.is_open => self.text.take(*member, text),
            Some((_, text)) => Ok(&**text),
            None => Ok(""),
        }
    }

    /// The frame of a replay with `new` as its text, under the names that the client has read.
    fn written(&self, event: Event<'_>, part: &ChatFramePart<'_>, new: &str) -> ReplayEdit {
        let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        for (first, given) in self.names.iter().zip(&part.names) {
            if let (Some(first), Some(given)) = (first, given)
                && event.payload[given.clone()] != *first.as_bytes()
            {
                edits.push((given.clone(), first.as_bytes().to_vec()));
            }
        }
        let is_cut = part.text.as_ref().is_some_and(|(_, text)| text.len() != new.len());
        if let Some(delta) = part.delta.clone().filter(|_| is_cut || (part.has_role && self.has_role)) {
            edits.push((delta, delta_of(part.text.as_ref().map(|(member, _)| *member), new)));
        }
        if edits.is_empty() {
            return ReplayEdit::Keep;
        }
        edits.sort_by_key(|(at, _)| at.start);
        ReplayEdit::Write(frame_of(event, &edits))
    }

    /// Takes note of what the client has read of `part`.
    fn note(&mut self, part: &ChatFramePart<'_>, payload: &[u8]) {
        self.has_role |= part.has_role;
        for (first, given) in self.names.iter_mut().zip(&part.names) {
            if first.is_none()
                && let Some(given) = given
            {
                *first = str::from_utf8(&payload[given.clone()]).ok().map(Into::into);
            }
        }
    }
}

/// Whether nothing but text is asked for. Where that cannot be read, it is not known.
fn asks_for_text_alone(body: &[u8]) -> bool {
    let Ok(place) = BodyText::of(body) else { return false };
    let Ok([format, modalities, others @ ..]) = members(place.text, BEYOND_TEXT, |_, _, scanner| scanner.value())
    else {
        return false;
    };
    let written = |field: &BodyField<'_>| field.given().map(|value| value.text.replace([' ', '\t', '\r', '\n'], ""));
    let is = |field: &BodyField<'_>, all: &[&str]| written(field).is_none_or(|value| all.contains(&&*value));
    is(&format, &[r#"{"type":"text"}"#])
        && is(&modalities, &[r#"["text"]"#])
        && others.iter().all(|other| is(other, &["false", "0", "[]", "{}"]))
}

/// A delta with this text alone.
fn delta_of(member: Option<TextMember>, text: &str) -> Vec<u8> {
    let mut delta = vec![b'{'];
    if let Some(member) = member.filter(|_| !text.is_empty()) {
        put_string(&mut delta, member.name());
        delta.push(b':');
        put_string(&mut delta, text);
    }
    delta.push(b'}');
    delta
}

/// The frame of `event` with `edits` of its payload, which lie in order and do not overlap.
fn frame_of(event: Event<'_>, edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(event.payload.len());
    let mut copied = 0;
    for (at, with) in edits {
        payload.extend_from_slice(&event.payload[copied..at.start]);
        payload.extend_from_slice(with);
        copied = at.end;
    }
    payload.extend_from_slice(&event.payload[copied..]);
    // No data line holds a line break; between values it is a blank like any other.
    payload.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    let mut frame = Vec::with_capacity(payload.len() + 8);
    if let Some(name) = event.name {
        frame.extend_from_slice(&[b"event: ", name, b"\n"].concat());
    }
    frame.extend_from_slice(&[b"data: ", &payload[..], b"\n\n"].concat());
    frame
}

#[cfg(test)]
mod tests;
