//! Answers in Messages, streamed or whole, read as [`Moment`]s: parts of the answer, its end, usage, errors. It borrows
//! from the bytes and builds no tree; a frame costs no allocation.
//!
//! An answer is complete with its `message_stop`, behind a stop reason; nothing else proves it. It never changes a byte,
//! and forgives what it does not need to understand.
//!
//! Start reading in [`MessagesStream::read`].

use super::usage::MessagesUsage;
use crate::domain::usage::Usage;
use crate::protocol::json::lenient::{FinishReasonValue, NonEmptyValue, PartsReader, PartsValue, TextSize, object};
use crate::protocol::json::mend::mended;
use crate::protocol::{AnswerError, Event, FrameEdit, FrameError, Moment, UsageReport};
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

/// One stream, as far as it was read.
#[derive(Default)]
pub struct MessagesStream {
    /// It has its stop reason.
    stopped: bool,
    /// What was said of its tokens so far.
    usage: MessagesUsage,
}

impl MessagesStream {
    /// Reads one event and passes `note` each moment in it; returns how the event is to be passed on.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`] for a `message_stop` before a stop reason; [`FrameError::Malformed`] for an object that
    /// cannot be read, and for a page.
    pub fn read(&mut self, event: Event<'_>, mut note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        let mut is_ping = false;
        let read = match object::<PartsValue<MessagesFrame<'_>>>(event.payload) {
            Ok(PartsValue(frame)) => {
                is_ping = frame.kind() == EventKind::Ping;
                self.take_in(&frame, event.name, &mut note)
            }
            // The official clients raise it for its name, whatever it holds.
            Err(_) if event.name == Some(b"error") => Some(Moment::Fault),
            Err(_) => {
                // Half a surrogate pair, of a provider that cuts between the two.
                let mended = mended(event.payload);
                match object::<PartsValue<MessagesFrame<'_>>>(&mended) {
                    Ok(PartsValue(frame)) => self.take_in(&frame, event.name, &mut note),
                    Err(_) if matches!(mended.trim_ascii_start().first(), Some(b'{' | b'<')) => {
                        return Err(FrameError::Malformed("a frame that is no event of Messages"));
                    }
                    // `[DONE]` of some hosts, and words.
                    Err(_) => return Ok(FrameEdit::Ignore),
                }
            }
        };
        match read {
            Some(Moment::End) if !self.stopped => {
                return Err(FrameError::Incomplete("message_stop came without a stop_reason"));
            }
            Some(moment) => note(moment),
            None if is_ping => return Ok(FrameEdit::Ping),
            None => {}
        }
        Ok(FrameEdit::Keep)
    }

    /// Whether all of the answer was said: never before its own end.
    pub fn is_finished(&self) -> bool {
        false
    }

    /// What to add at the end of the provider's bytes: nothing makes a stream complete that did not say so.
    ///
    /// # Errors
    /// What is missing.
    pub fn end(&self) -> Result<&'static [u8], &'static str> {
        Err("the stream ended without message_stop")
    }

    /// Takes note of `frame`; returns its last moment.
    fn take_in(
        &mut self,
        frame: &MessagesFrame<'_>,
        name: Option<&[u8]>,
        note: &mut impl FnMut(Moment),
    ) -> Option<Moment> {
        if frame.error.0 || name == Some(b"error") {
            return Some(Moment::Fault);
        }
        if let Some(later) = frame.usage.or(frame.message.usage).and_then(|usage| MessagesUsage::of(usage.get())) {
            self.usage = self.usage.then(later);
            note(Moment::Usage(self.usage.report(frame.kind() == EventKind::MessageDelta)));
        }
        match frame.kind() {
            EventKind::Error => Some(Moment::Fault),
            EventKind::BlockStart if frame.block.says_something() => Some(frame.block.content()),
            EventKind::BlockDelta if frame.delta.says_something => Some(frame.delta.content()),
            EventKind::MessageDelta if frame.delta.stop_reason.given => {
                self.stopped = true;
                Some(Moment::Finish)
            }
            EventKind::MessageStop => Some(Moment::End),
            EventKind::BlockStart
            | EventKind::BlockDelta
            | EventKind::MessageDelta
            | EventKind::Ping
            | EventKind::Other => None,
        }
    }
}

/// Reads a whole answer and passes `note` each moment in it. The text of one whose output was counted is not measured.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_whole(body: &[u8], mut note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    whole(body, |answer: &MessagesAnswer<'_>| {
        if answer.content.any || answer.stop_reason.given {
            note(Moment::Finish);
        }
        let report = answer.usage.and_then(|usage| MessagesUsage::of(usage.get())).map(|usage| usage.report(true));
        let is_counted = |report: &UsageReport| report.has_output && report.usage.is_some();
        if !report.as_ref().is_some_and(is_counted) {
            note(Moment::Content { text_bytes: answer.content.text_bytes });
        }
        report.into_iter().for_each(|report| note(Moment::Usage(report)));
        let is_error = answer.kind.is_some_and(|kind| kind.get() == "\"error\"") || answer.error.0;
        note(if is_error && !answer.content.any { Moment::Fault } else { Moment::End });
    })
}

/// Reads the answer to a call that only counts tokens, which costs none: `{"input_tokens":…}`.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_count(body: &[u8], mut note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    whole(body, |answer: &MessagesAnswer<'_>| {
        if answer.has_count {
            note(Moment::Finish);
        }
        note(Moment::Usage(UsageReport { usage: Some(Usage::default()), has_output: true, is_impossible: false }));
        note(if answer.error.0 { Moment::Fault } else { Moment::End });
    })
}

/// Bytes of text in a whole answer, thinking and the input of tools included.
pub fn text_bytes(body: &[u8]) -> u64 {
    let mut text_bytes = 0;
    // What cannot be read has no text.
    let _ = whole(body, |answer: &MessagesAnswer<'_>| text_bytes = answer.content.text_bytes);
    text_bytes
}

fn whole(body: &[u8], mut take: impl FnMut(&MessagesAnswer<'_>)) -> Result<(), AnswerError> {
    if let Ok(PartsValue(answer)) = object(body) {
        take(&answer);
        return Ok(());
    }
    let mended = mended(body);
    let PartsValue(answer) = object(&mended).map_err(|error| match error.is_eof() {
        true => AnswerError::EndsEarly,
        false => AnswerError::NotAnObject(error.classify()),
    })?;
    take(&answer);
    Ok(())
}

/// The events that mean something here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EventKind {
    BlockStart,
    BlockDelta,
    MessageDelta,
    MessageStop,
    Error,
    Ping,
    /// `message_start`, `content_block_stop`, and what is not known.
    Other,
}

/// What members of events, blocks and answers are called.
#[derive(Clone, Copy, Default)]
enum MemberKind {
    Type,
    Message,
    Block,
    Delta,
    Usage,
    Error,
    StopReason,
    /// What a model writes: its value is text.
    Text,
    Input,
    Content,
    InputTokens,
    /// Of a delta, what belongs to the end of a message.
    StopDetail,
    #[default]
    Other,
}

impl MemberKind {
    fn of(text: &str) -> Self {
        match text {
            "type" => Self::Type,
            "message" => Self::Message,
            "content_block" => Self::Block,
            "delta" => Self::Delta,
            "usage" => Self::Usage,
            "error" => Self::Error,
            "stop_reason" => Self::StopReason,
            "stop_sequence" | "stop_details" | "container" => Self::StopDetail,
            "text" | "thinking" | "partial_json" => Self::Text,
            "input" => Self::Input,
            "content" => Self::Content,
            "input_tokens" => Self::InputTokens,
            _ => Self::Other,
        }
    }
}

/// One event of a stream.
#[derive(Default)]
struct MessagesFrame<'a> {
    kind: Option<&'a RawValue>,
    message: StartedMessage<'a>,
    block: BlockObject<'a>,
    delta: BlockDeltaObject,
    usage: Option<&'a RawValue>,
    error: NonEmptyValue,
}

impl MessagesFrame<'_> {
    fn kind(&self) -> EventKind {
        match self.kind.map(RawValue::get) {
            Some("\"content_block_delta\"") => EventKind::BlockDelta,
            Some("\"content_block_start\"") => EventKind::BlockStart,
            Some("\"message_delta\"") => EventKind::MessageDelta,
            Some("\"message_stop\"") => EventKind::MessageStop,
            Some("\"error\"") => EventKind::Error,
            Some("\"ping\"") => EventKind::Ping,
            Some(_) | None => EventKind::Other,
        }
    }
}

impl<'de: 'a, 'a> PartsReader<'de> for MessagesFrame<'a> {
    type Name = MemberKind;

    fn name(text: &str) -> MemberKind {
        MemberKind::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: MemberKind, members: &mut A) -> Result<(), A::Error> {
        match name {
            MemberKind::Type => self.kind = Some(members.next_value()?),
            MemberKind::Message => self.message = members.next_value::<PartsValue<StartedMessage<'_>>>()?.0,
            MemberKind::Block => self.block = members.next_value::<PartsValue<BlockObject<'_>>>()?.0,
            MemberKind::Delta => self.delta = members.next_value::<PartsValue<BlockDeltaObject>>()?.0,
            MemberKind::Usage => self.usage = Some(members.next_value()?),
            MemberKind::Error => self.error = members.next_value()?,
            _ => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// The message that a stream begins with.
#[derive(Default)]
struct StartedMessage<'a> {
    usage: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> PartsReader<'de> for StartedMessage<'a> {
    type Name = MemberKind;

    fn name(text: &str) -> MemberKind {
        MemberKind::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: MemberKind, members: &mut A) -> Result<(), A::Error> {
        match name {
            MemberKind::Usage => self.usage = Some(members.next_value()?),
            _ => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// A block, whole or as it starts.
#[derive(Default)]
struct BlockObject<'a> {
    kind: Option<&'a RawValue>,
    text: TextSize,
    /// Bytes of the input of a tool, as it is written.
    input_bytes: u64,
}

impl BlockObject<'_> {
    /// Whether it is one that a token made. Text and thinking start empty; any other block is itself a choice.
    fn says_something(&self) -> bool {
        let starts_empty = matches!(self.kind.map(RawValue::get), Some("\"text\"" | "\"thinking\"") | None);
        self.text.present || !starts_empty
    }

    fn content(&self) -> Moment {
        Moment::Content { text_bytes: self.text.bytes }
    }
}

impl<'de: 'a, 'a> PartsReader<'de> for BlockObject<'a> {
    type Name = MemberKind;

    fn name(text: &str) -> MemberKind {
        MemberKind::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: MemberKind, members: &mut A) -> Result<(), A::Error> {
        match name {
            MemberKind::Type => self.kind = Some(members.next_value()?),
            MemberKind::Text => self.text.add(members.next_value()?),
            MemberKind::Input => self.input_bytes = members.next_value::<&RawValue>()?.get().len() as u64,
            _ => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// What an event adds to a block, or to the message at its end.
#[derive(Default)]
struct BlockDeltaObject {
    text: TextSize,
    /// Text, a signature, a citation, or what is not known.
    says_something: bool,
    stop_reason: FinishReasonValue,
}

impl BlockDeltaObject {
    fn content(&self) -> Moment {
        Moment::Content { text_bytes: self.text.bytes }
    }
}

impl<'de> PartsReader<'de> for BlockDeltaObject {
    type Name = MemberKind;

    fn name(text: &str) -> MemberKind {
        MemberKind::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: MemberKind, members: &mut A) -> Result<(), A::Error> {
        match name {
            MemberKind::Text => {
                self.text.add(members.next_value()?);
                self.says_something |= self.text.present;
            }
            MemberKind::StopReason => self.stop_reason = members.next_value()?,
            MemberKind::Type | MemberKind::StopDetail => drop(members.next_value::<IgnoredAny>()?),
            _ => self.says_something |= members.next_value::<NonEmptyValue>()?.0,
        }
        Ok(())
    }
}

/// A whole answer.
#[derive(Default)]
struct MessagesAnswer<'a> {
    kind: Option<&'a RawValue>,
    content: BlocksSummary,
    stop_reason: FinishReasonValue,
    usage: Option<&'a RawValue>,
    error: NonEmptyValue,
    /// It is a count of tokens.
    has_count: bool,
}

impl<'de: 'a, 'a> PartsReader<'de> for MessagesAnswer<'a> {
    type Name = MemberKind;

    fn name(text: &str) -> MemberKind {
        MemberKind::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: MemberKind, members: &mut A) -> Result<(), A::Error> {
        match name {
            MemberKind::Type => self.kind = Some(members.next_value()?),
            MemberKind::Content => self.content = members.next_value::<PartsValue<BlocksSummary>>()?.0,
            MemberKind::StopReason => self.stop_reason = members.next_value()?,
            MemberKind::Usage => self.usage = Some(members.next_value()?),
            MemberKind::Error => self.error = members.next_value()?,
            MemberKind::InputTokens => {
                self.has_count = members.next_value::<&RawValue>()?.get().parse::<u64>().is_ok();
            }
            _ => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// The blocks of a whole answer.
#[derive(Default)]
struct BlocksSummary {
    any: bool,
    text_bytes: u64,
}

impl<'de> PartsReader<'de> for BlocksSummary {
    type Name = MemberKind;

    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(PartsValue(block)) = list.next_element::<PartsValue<BlockObject<'_>>>()? else { return Ok(false) };
        self.any |= block.kind.is_some();
        self.text_bytes += block.text.bytes + block.input_bytes;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
