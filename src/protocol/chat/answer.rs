//! Answers of chat completions, completions and embeddings, streamed or whole, read as [`Moment`]s: parts of the
//! answer, finished choices, usage, errors. It borrows from the bytes and builds no tree; a frame costs no
//! allocation.
//!
//! It never changes a byte and forgives what it does not need to understand: a member of an unexpected type is
//! as good as absent.
//!
//! Start reading in [`ChatStream::read`].

use super::usage::{NestedUsage, UsageHolderObject, is_only_usage, usage_elsewhere, usage_report};
use crate::domain::call::{Call, CeilingName, Endpoint};
use crate::protocol::json::lenient::{
    ErrorCode, FinishReasonValue, LenientObject, NestedText, NonEmptyValue, ObjectName, PartsReader, PartsValue,
    TextSize, TokenCount, object,
};
use crate::protocol::json::mend::mended;
use crate::protocol::json::text::text_bytes;
use crate::protocol::{AnswerError, BYTE_ORDER_MARK, Event, FrameEdit, FrameError, Moment, UsageReport, edit};
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;
use std::collections::BTreeSet;

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
    /// The ceiling of the output is called `max_completion_tokens` where we write it.
    pub max_completion_tokens: bool,
}

impl ChatQuirks {
    /// What the ceiling of the output is called where we write it. Completions never knew the second name.
    pub fn ceiling_name(self, endpoint: Endpoint) -> CeilingName {
        match endpoint {
            Endpoint::Chat if self.max_completion_tokens => CeilingName::MaxCompletionTokens,
            _ => CeilingName::MaxTokens,
        }
    }
}

/// One stream, as far as it was read.
pub struct ChatStream {
    /// The choices that were asked for, by their number, and came.
    came: ChoiceSet,
    finished: ChoiceSet,
    expected_choices: u32,
    /// As many choices as were asked for have their finish reason, and so has every one that came.
    all_finished: bool,
    /// A token came after that: a finish reason of this host is no end.
    went_on: bool,
    /// We asked for usage and the client did not.
    hide_usage: bool,
    quirks: ChatQuirks,
}

impl ChatStream {
    /// The stream that answers `call`, of which nothing was read.
    pub fn new(call: &Call, quirks: ChatQuirks) -> Self {
        Self {
            came: ChoiceSet::default(),
            finished: ChoiceSet::default(),
            expected_choices: call.expected_choices(),
            all_finished: false,
            went_on: false,
            hide_usage: call.metadata().ask_usage.is_some(),
            quirks,
        }
    }

    /// Reads one event and passes `note` each moment in it; returns how the event is to be passed on.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`] for a `[DONE]` before every choice is finished; [`FrameError::Malformed`] for an
    /// object that cannot be read, and for a page. Neither once the answer [is finished](Self::is_finished).
    #[inline]
    pub fn read(&mut self, event: Event<'_>, mut note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        let payload = event.payload;
        if payload.trim_ascii_start().starts_with(DONE) {
            if !self.quirks.finish_reason_optional && !self.may_end() {
                return Err(FrameError::Incomplete("[DONE] came without every finish_reason"));
            }
            note(Moment::End);
            return Ok(FrameEdit::Keep);
        }
        match object::<PartsValue<ChatFrame<'_>>>(payload) {
            // The official clients look for an error in it, and not at its name.
            Ok(frame) if event.name == Some(b"error") => {
                let is_part = frame.0.choices.is_some() || frame.0.is_fault();
                Ok(match self.take_in(frame, payload, note) {
                    FrameEdit::Keep if is_part => FrameEdit::Unname(0..0),
                    FrameEdit::Cut(span) if is_part => FrameEdit::Unname(span),
                    FrameEdit::Keep | FrameEdit::Ping | FrameEdit::Cut(_) => FrameEdit::Ignore,
                    edit => edit,
                })
            }
            Ok(frame) => Ok(self.take_in(frame, payload, note)),
            Err(_) if event.name == Some(b"error") => Ok(self.fault(note)),
            Err(_) => self.read_odd(event, note),
        }
    }

    /// Reads an event that is no object, or one in a spelling of its own.
    #[cold]
    fn read_odd(&mut self, event: Event<'_>, note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        // What is cut has the same place in both texts.
        let mended = mended(event.payload);
        if let Ok(frame) = object(&mended) {
            let edit = self.take_in(frame, &mended, note);
            let marked = edit == FrameEdit::Keep && event.payload.starts_with(BYTE_ORDER_MARK);
            return Ok(if marked { FrameEdit::Cut(0..BYTE_ORDER_MARK.len()) } else { edit });
        }
        if self.quirks.skip_malformed_frames && event.terminated {
            return Ok(FrameEdit::Keep);
        }
        // Part of an answer that cannot be read, or a page of what stands before the provider.
        let is_broken = matches!(mended.trim_ascii_start().first(), Some(b'{' | b'<'));
        match is_broken && !self.is_finished() {
            true => Err(FrameError::Malformed("a frame that is no completion")),
            false => Ok(FrameEdit::Ignore),
        }
    }

    /// What to add at the end of the provider's bytes where `[DONE]` was not among them.
    ///
    /// # Errors
    /// What is missing, where a choice is not finished.
    pub fn end(&self) -> Result<&'static [u8], &'static str> {
        match self.may_end() {
            true => Ok(DONE_FRAME),
            false => Err("the stream ended without every finish_reason"),
        }
    }

    /// Whether every choice is finished, and nothing that follows can make the answer incomplete.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.all_finished && !self.went_on
    }

    /// Whether so many choices have their finish reason.
    pub fn has_finished(&self, expected: u32) -> bool {
        self.finished.len() >= expected as usize
    }

    /// Whether nothing is missing where the provider says that it is done. One that ignores how many choices it was
    /// asked for, or numbers them otherwise, is done with those that came.
    fn may_end(&self) -> bool {
        self.finished.any() && self.finished.holds(&self.came)
    }

    /// An error: behind the answer it is of no use to anybody.
    fn fault(&self, mut note: impl FnMut(Moment)) -> FrameEdit {
        if self.is_finished() {
            return FrameEdit::Ignore;
        }
        note(Moment::Fault);
        FrameEdit::Keep
    }

    /// Takes note of `frame`, which was read from `json`.
    #[inline]
    fn take_in(&mut self, frame: PartsValue<ChatFrame<'_>>, json: &[u8], mut note: impl FnMut(Moment)) -> FrameEdit {
        let PartsValue(frame) = frame;
        if frame.is_empty() {
            return FrameEdit::Ignore;
        }
        if frame.is_fault() {
            return self.fault(note);
        }
        let choices = frame.choices;
        self.came.add_below(&choices.came, self.expected_choices);
        if choices.token {
            self.went_on |= self.all_finished;
            note(Moment::Content { text_bytes: choices.text_bytes });
        }
        if choices.finished.any() {
            self.finished.add_few(&choices.finished, self.expected_choices);
            self.all_finished = self.has_finished(self.expected_choices) && self.may_end();
            note(Moment::Finish);
        }
        let usage = frame.usage.map(RawValue::get);
        let counted = usage.filter(|usage| *usage != "null").map(usage_report);
        // The frame's own usage last: of several counts the last one stands.
        let reports = [choices.usage.0, frame.x_groq.0.usage.0, counted];
        reports.into_iter().flatten().for_each(|report| note(Moment::Usage(report)));
        match self.hide_usage {
            true => without_usage(json, &choices, usage),
            false => FrameEdit::Keep,
        }
    }
}

/// How `json`, a frame with these `choices` and this `usage`, is passed on to a client that did not ask for usage. A
/// frame that tells nothing else is dropped in any shape: many clients read the first choice of every frame.
fn without_usage(json: &[u8], choices: &ChoicesSummary, usage: Option<&str>) -> FrameEdit {
    let is_empty = choices.given && choices.empty;
    let says_nothing = !choices.token && !choices.finished.any() && (usage.is_some() || is_empty);
    match usage {
        Some(usage) if usage != "null" && is_empty => FrameEdit::Drop,
        _ if says_nothing && is_only_usage(json) => FrameEdit::Drop,
        Some(usage) => edit::without_member(json, usage),
        None => FrameEdit::Keep,
    }
}

/// Reads a whole answer and passes `note` each moment in it; one that has a choice or a vector is finished. The text
/// of one whose output was counted is not measured: nobody asks for it.
///
/// # Errors
/// [`AnswerError`]: it is not one JSON object.
pub fn read_whole(body: &[u8], note: impl FnMut(Moment)) -> Result<(), AnswerError> {
    match object(body) {
        Ok(answer) => take_whole(answer, body, note),
        Err(_) => {
            let mended = mended(body);
            let answer = object(&mended).map_err(|error| match error.is_eof() {
                true => AnswerError::EndsEarly,
                false => AnswerError::NotAnObject(error.classify()),
            })?;
            take_whole(answer, &mended, note);
        }
    }
    Ok(())
}

fn take_whole(answer: PartsValue<ChatAnswer<'_>>, body: &[u8], mut note: impl FnMut(Moment)) {
    let PartsValue(answer) = answer;
    // An official client reads `choices`, or `data` of embeddings; what is in them is its own matter.
    if answer.choices.any || answer.data.any {
        note(Moment::Finish);
    }
    let own = answer.usage.map(RawValue::get).filter(|usage| *usage != "null").map(usage_report);
    let is_vectors = answer.data.any && !answer.choices.any;
    // Zeros are a count only where there is no text beside them. Vectors have none, and no output to be counted: what
    // else they hold is not searched for it, which would be two passes over every number.
    let has_count = |report: &UsageReport| match report.usage {
        Some(_) if is_vectors => true,
        usage => report.has_output && (!answer.choices.any || usage.is_some_and(|usage| usage.output > 0)),
    };
    let elsewhere = if own.as_ref().is_some_and(has_count) { None } else { usage_elsewhere(body) };
    let reports = [elsewhere, own];
    if !reports.iter().flatten().any(has_count) {
        // Where its shape is unknown, all of it may be text.
        let text_bytes = match text_bytes(body) {
            0 if reports.iter().flatten().all(|report| report.usage.is_none()) => body.len() as u64,
            text_bytes => text_bytes,
        };
        note(Moment::Content { text_bytes });
    }
    reports.into_iter().flatten().for_each(|report| note(Moment::Usage(report)));
    // No official client looks for an error beside a complete answer.
    let is_error = || answer.error.0 || answer.object.is_error;
    let is_answer = || answer.data.any || (answer.choices.finished && text_bytes(body) > 0);
    let is_fault = answer.choices.broke_off || (is_error() && !is_answer());
    note(if is_fault { Moment::Fault } else { Moment::End });
}

/// What the members of answers and frames are called.
#[derive(Clone, Copy, Default)]
enum TopName {
    Object,
    Error,
    Choices,
    Usage,
    XGroq,
    Data,
    Detail,
    Message,
    Code,
    #[default]
    Other,
}

impl TopName {
    fn of(text: &str) -> Self {
        match text {
            "object" => Self::Object,
            "error" => Self::Error,
            "choices" => Self::Choices,
            "usage" => Self::Usage,
            "x_groq" => Self::XGroq,
            "data" => Self::Data,
            "detail" => Self::Detail,
            "message" => Self::Message,
            "code" => Self::Code,
            _ => Self::Other,
        }
    }
}

/// One frame of a stream.
#[derive(Default)]
struct ChatFrame<'a> {
    object: ObjectName,
    error: NonEmptyValue,
    choices: ChoicesSummary,
    usage: Option<&'a RawValue>,
    x_groq: LenientObject<UsageHolderObject>,
    /// What a host says that answers with an error of its framework's shape instead of the API's.
    detail: NonEmptyValue,
    message: NonEmptyValue,
    code: ErrorCode,
    /// It has a member.
    has_members: bool,
}

impl ChatFrame<'_> {
    fn is_empty(&self) -> bool {
        !self.has_members
    }

    /// Whether it is an error, by any of the names that hosts have for one.
    fn is_fault(&self) -> bool {
        let other_shape = self.detail.0 || (self.message.0 && self.code.0);
        self.error.0
            || self.choices.broke_off
            || (self.object.is_error && !self.choices.is_some())
            || (other_shape && !self.choices.given && self.usage.is_none())
    }
}

impl<'de: 'a, 'a> PartsReader<'de> for ChatFrame<'a> {
    type Name = TopName;

    fn name(text: &str) -> TopName {
        TopName::of(text)
    }

    #[inline]
    fn member<A: MapAccess<'de>>(&mut self, name: TopName, members: &mut A) -> Result<(), A::Error> {
        self.has_members = true;
        match name {
            TopName::Object => self.object = members.next_value()?,
            TopName::Error => self.error = members.next_value()?,
            TopName::Choices => self.choices = members.next_value::<PartsValue<ChoicesSummary>>()?.0,
            TopName::Usage => self.usage = Some(members.next_value()?),
            TopName::XGroq => self.x_groq = members.next_value()?,
            TopName::Detail => self.detail = members.next_value()?,
            TopName::Message => self.message = members.next_value()?,
            TopName::Code => self.code = members.next_value()?,
            TopName::Data | TopName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// A whole answer.
#[derive(Default)]
struct ChatAnswer<'a> {
    object: ObjectName,
    error: NonEmptyValue,
    choices: WholeChoices,
    data: WholeVectors,
    usage: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> PartsReader<'de> for ChatAnswer<'a> {
    type Name = TopName;

    fn name(text: &str) -> TopName {
        TopName::of(text)
    }

    fn member<A: MapAccess<'de>>(&mut self, name: TopName, members: &mut A) -> Result<(), A::Error> {
        match name {
            TopName::Object => self.object = members.next_value()?,
            TopName::Error => self.error = members.next_value()?,
            TopName::Choices => self.choices = members.next_value::<PartsValue<WholeChoices>>()?.0,
            TopName::Usage => self.usage = Some(members.next_value()?),
            TopName::Data => self.data = members.next_value::<PartsValue<WholeVectors>>()?.0,
            TopName::XGroq | TopName::Detail | TopName::Message | TopName::Code | TopName::Other => {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The choices of a whole answer.
#[derive(Clone, Copy, Default)]
struct WholeChoices {
    /// One of them says something.
    any: bool,
    /// One of them says why it ended.
    finished: bool,
    /// An error ended one of them.
    broke_off: bool,
}

impl<'de> PartsReader<'de> for WholeChoices {
    type Name = ();

    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(PartsValue(choice)) = list.next_element::<PartsValue<ChatChoice<WholeMessage>>>()? else {
            return Ok(false);
        };
        self.any |= choice.says_anything();
        self.finished |= choice.finish_reason.given;
        self.broke_off |= choice.finish_reason.is_error;
        Ok(true)
    }
}

/// The vectors of a whole answer.
#[derive(Clone, Copy, Default)]
struct WholeVectors {
    /// There is one.
    any: bool,
}

impl<'de> PartsReader<'de> for WholeVectors {
    type Name = ();

    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let Some(PartsValue(vector)) = list.next_element::<PartsValue<WholeVector>>()? else { return Ok(false) };
        self.any |= vector.is_object && !vector.is_null;
        Ok(true)
    }
}

/// What the members of a vector are called.
#[derive(Clone, Copy, Default)]
enum VectorName {
    Embedding,
    #[default]
    Other,
}

#[derive(Default)]
struct WholeVector {
    is_object: bool,
    /// It says that it is none.
    is_null: bool,
}

impl<'de> PartsReader<'de> for WholeVector {
    type Name = VectorName;

    fn name(text: &str) -> VectorName {
        if text == "embedding" { VectorName::Embedding } else { VectorName::Other }
    }

    fn begin_object(&mut self) {
        self.is_object = true;
    }

    fn member<A: MapAccess<'de>>(&mut self, name: VectorName, members: &mut A) -> Result<(), A::Error> {
        match name {
            VectorName::Embedding => self.is_null = matches!(members.next_value::<&RawValue>()?.get(), "null" | "[]"),
            VectorName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// What the members of a choice are called.
#[derive(Clone, Copy, Default)]
enum ChoiceName {
    Index,
    Delta,
    Message,
    Text,
    FinishReason,
    Usage,
    #[default]
    Other,
}

/// One choice; what it says is read as a `T`.
#[derive(Default)]
struct ChatChoice<T> {
    index: TokenCount,
    said: T,
    has_delta: bool,
    text: Option<TextSize>,
    finish_reason: FinishReasonValue,
    usage: NestedUsage,
}

impl<'de, T: PartsReader<'de>> PartsReader<'de> for ChatChoice<T> {
    type Name = ChoiceName;

    fn name(text: &str) -> ChoiceName {
        match text {
            "index" => ChoiceName::Index,
            "delta" => ChoiceName::Delta,
            "message" => ChoiceName::Message,
            "text" => ChoiceName::Text,
            "finish_reason" => ChoiceName::FinishReason,
            "usage" => ChoiceName::Usage,
            _ => ChoiceName::Other,
        }
    }

    #[inline]
    fn member<A: MapAccess<'de>>(&mut self, name: ChoiceName, members: &mut A) -> Result<(), A::Error> {
        match name {
            ChoiceName::Index => self.index = members.next_value()?,
            ChoiceName::Delta => {
                self.said = members.next_value::<PartsValue<T>>()?.0;
                self.has_delta = true;
            }
            // Some hosts stream a whole message, some one beside each delta.
            ChoiceName::Message if !self.has_delta => {
                self.said = members.next_value::<PartsValue<T>>()?.0;
            }
            ChoiceName::Text => self.text = members.next_value()?,
            ChoiceName::FinishReason => self.finish_reason = members.next_value()?,
            ChoiceName::Usage => self.usage = members.next_value()?,
            ChoiceName::Message | ChoiceName::Other => drop(members.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// What a choice of a whole answer says, of which it is only asked whether there is any.
#[derive(Default)]
struct WholeMessage {
    /// It has a member beside its role: a text, which may be empty, a refusal, calls, audio, whatever its name.
    says_anything: bool,
}

impl<'de> PartsReader<'de> for WholeMessage {
    type Name = DeltaName;

    fn name(text: &str) -> DeltaName {
        if text == "role" { DeltaName::Role } else { DeltaName::Other }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: DeltaName, members: &mut A) -> Result<(), A::Error> {
        let value = members.next_value::<&RawValue>()?.get();
        self.says_anything |= !matches!(name, DeltaName::Role) && !matches!(value, "null" | "[]" | "{}");
        Ok(())
    }
}

impl ChatChoice<WholeMessage> {
    /// Whether a client finds anything in it: a message, a text, or why there is none.
    fn says_anything(&self) -> bool {
        self.said.says_anything || self.text.is_some() || self.finish_reason.given
    }
}

/// What the members of a delta are called: text by its best known names, and everything else.
#[derive(Clone, Copy, Default)]
enum DeltaName {
    Role,
    Content,
    Reasoning,
    ReasoningContent,
    Refusal,
    #[default]
    Other,
}

/// A delta. Whatever it holds is a token, by any host's name for it; only a role is none.
#[derive(Default)]
struct ChatDelta {
    content: TextSize,
    reasoning: TextSize,
    reasoning_content: TextSize,
    refusal: TextSize,
    /// Calls, audio, pictures, reasoning in other shapes, and what nobody has thought of yet.
    others: TextSize,
}

impl<'de> PartsReader<'de> for ChatDelta {
    type Name = DeltaName;

    fn name(text: &str) -> DeltaName {
        match text {
            "role" => DeltaName::Role,
            "content" => DeltaName::Content,
            "reasoning" => DeltaName::Reasoning,
            "reasoning_content" => DeltaName::ReasoningContent,
            "refusal" => DeltaName::Refusal,
            _ => DeltaName::Other,
        }
    }

    #[inline]
    fn member<A: MapAccess<'de>>(&mut self, name: DeltaName, members: &mut A) -> Result<(), A::Error> {
        match name {
            DeltaName::Role => drop(members.next_value::<IgnoredAny>()?),
            DeltaName::Content => self.content = members.next_value()?,
            DeltaName::Reasoning => self.reasoning = members.next_value()?,
            DeltaName::ReasoningContent => self.reasoning_content = members.next_value()?,
            DeltaName::Refusal => self.refusal = members.next_value()?,
            DeltaName::Other => {
                let NestedText(other) = members.next_value()?;
                self.others.present |= other.present;
                self.others.bytes += other.bytes;
            }
        }
        Ok(())
    }
}

impl ChatChoice<ChatDelta> {
    /// Whether it carries a token, and the bytes of its text.
    fn all_text(&self) -> TextSize {
        let ChatDelta { content, reasoning, reasoning_content, refusal, others } = &self.said;
        let text = self.text.unwrap_or_default();
        let parts = [content, reasoning, reasoning_content, refusal, others, &text];
        TextSize { present: parts.iter().any(|part| part.present), bytes: parts.iter().map(|part| part.bytes).sum() }
    }
}

/// All choices of a frame, folded while they are read.
#[derive(Default)]
struct ChoicesSummary {
    given: bool,
    empty: bool,
    token: bool,
    text_bytes: u64,
    /// An error ended one of them.
    broke_off: bool,
    position: u32,
    came: ChoiceSet,
    finished: ChoiceSet,
    /// Usage in a choice, the last one's.
    usage: NestedUsage,
}

impl ChoicesSummary {
    fn is_some(&self) -> bool {
        self.given && !self.empty
    }
}

impl<'de> PartsReader<'de> for ChoicesSummary {
    type Name = ();

    #[inline]
    fn element<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        self.given = true;
        let Some(PartsValue(choice)) = list.next_element::<PartsValue<ChatChoice<ChatDelta>>>()? else {
            self.empty = self.position == 0;
            return Ok(false);
        };
        let text = choice.all_text();
        self.token |= text.present;
        self.text_bytes += text.bytes;
        self.broke_off |= choice.finish_reason.is_error;
        self.usage = NestedUsage(choice.usage.0.or(self.usage.0));
        // An index that no choice has must not pass for one that some choice has.
        let index = choice.index.0.map_or(self.position, |index| u32::try_from(index).unwrap_or(u32::MAX));
        self.came.insert(index);
        if choice.finish_reason.given {
            self.finished.insert(index);
        }
        self.position += 1;
        Ok(true)
    }
}

/// The most indexes from 64 on that are kept of one stream: many more than any host gives choices.
const MOST_INDEXES: usize = 64 * 1024;

/// A set of choice indexes, without allocation up to 64.
#[derive(Clone, Default, Debug)]
struct ChoiceSet {
    first: u64,
    rest: BTreeSet<u32>,
}

impl ChoiceSet {
    fn insert(&mut self, index: u32) {
        match index {
            0..64 => self.first |= 1 << index,
            _ if self.rest.len() < MOST_INDEXES => drop(self.rest.insert(index)),
            _ => {}
        }
    }

    /// Adds `other`: of those with a number from 64 on only as many as there are below `expected`, or that are. Whoever
    /// numbers choices otherwise has no more of them, and numbers without end are not kept.
    fn add_few(&mut self, other: &Self, expected: u32) {
        self.first |= other.first;
        for index in &other.rest {
            if *index < expected || self.rest.len() < expected as usize {
                self.insert(*index);
            }
        }
    }

    /// Adds those of `other` that are below `end`.
    fn add_below(&mut self, other: &Self, end: u32) {
        let wanted = u64::MAX.checked_shr(64_u32.saturating_sub(end)).unwrap_or(0);
        self.first |= other.first & wanted;
        other.rest.range(..end).for_each(|index| self.insert(*index));
    }

    fn any(&self) -> bool {
        self.first != 0 || !self.rest.is_empty()
    }

    /// Whether all of `other` are in it.
    fn holds(&self, other: &Self) -> bool {
        other.first & !self.first == 0 && other.rest.is_subset(&self.rest)
    }

    fn len(&self) -> usize {
        self.first.count_ones() as usize + self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::domain::call::Endpoint;
    use crate::domain::usage::Usage;
    use crate::protocol::chat::request::read_request;

    /// A stream of so many choices; `hiding`: usage we asked for and the client did not.
    fn stream(choices: u32, hiding: bool) -> ChatStream {
        let body =
            format!(r#"{{"model":"m","n":{choices},"stream":true,"stream_options":{{"include_usage":{}}}}}"#, !hiding);
        let call =
            read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("the body is a chat request");
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
        for part in [
            r#""audio":{"id":"a"}"#,
            r#""reasoning_details":[{"type":"reasoning.text","text":"x"}]"#,
            r#""thinking":"x""#,
            r#""images":[{"type":"image_url"}]"#,
            r#""executed_tools":[{}]"#,
            r#""never_heard_of":7"#,
        ] {
            check(&delta(&format!("{{{part}}}")), true);
        }
        check(&delta(r#"{"role":"assistant","images":[],"thinking":"","annotations":null,"audio":{}}"#), false);
        check(&delta(r#""text""#), false);
        check(r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"x"}}]}"#, true);
        check(r#"{"choices":[{"index":0,"delta":{},"message":{"content":"x"}}]}"#, false);
        check(r#"{"choices":[null,7,"x",[]]}"#, false);
        check(r#"{"choices":{}}"#, false);
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
        check(r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"error"}]}"#, true);
        check(r#"{"choices":[{"index":0,"message":{},"finish_reason":"network_error"}]}"#, true);
        check(r#"{"choices":[{"finish_reason":"stop"}],"message":"ok","code":"x"}"#, false);
        check(r#"{"error":null,"object":"chat.completion"}"#, false);
        check(r#"{"choices":[{"error":{"message":"x"}}]}"#, false);
        let named = Event { name: Some(b"error"), ..event("x") };
        let mut moments = Vec::new();
        assert_eq!(stream(1, false).read(named, |moment| moments.push(moment)), Ok(FrameEdit::Keep));
        assert_eq!(moments, [Moment::Fault]);
    }

    #[test]
    fn an_error_in_another_shape_is_one_where_there_is_no_choice() {
        let check = |frame: &str, error: bool| assert_eq!(moments(frame) == [Moment::Fault], error, "{frame}");
        check(r#"{"detail":"Not Found"}"#, true);
        check(r#"{"detail":[{"msg":"field required"}]}"#, true);
        check(r#"{"code":1302,"message":"too many","data":null}"#, true);
        check(r#"{"code":"Throttling","message":"x","request_id":"r"}"#, true);
        check(r#"{"code":0,"message":"ok"}"#, false);
        check(r#"{"code":"200","message":"ok"}"#, false);
        check(r#"{"message":"x"}"#, false);
        check(r#"{"detail":"","choices":[]}"#, false);
        check(r#"{"detail":"x","usage":{"prompt_tokens":1}}"#, false);
    }

    #[test]
    fn a_whole_answer_is_one_where_a_choice_says_something() {
        let check = |choices: &str, expected: bool| {
            let moments = whole(&format!(r#"{{"choices":[{choices}]}}"#)).expect("it is an object");
            assert_eq!(moments.contains(&Moment::Finish), expected, "{choices}");
        };
        let message = |members: &str| format!(r#"{{"index":0,"message":{{"role":"assistant"{members}}}}}"#);
        for says_nothing in [
            "{}",
            "null",
            "7",
            "[]",
            r#"{"index":0}"#,
            r#"{"index":0,"logprobs":{"content":[]},"usage":{"prompt_tokens":1}}"#,
            r#"{"finish_reason":null}"#,
            r#"{"finish_reason":""}"#,
            r#"{"text":null}"#,
            r#"{"message":null}"#,
            r#"{"message":"x"}"#,
            r#"{"message":{}}"#,
            r#"{"delta":{}}"#,
            r#"{"delta":{"role":"assistant"}}"#,
            r#"{"message":{"content":"x"},"message":{}}"#,
        ] {
            check(says_nothing, false);
            check(&format!("{says_nothing},{{}}"), false);
            check(&format!("{says_nothing},{}", message(r#","content":"x""#)), true);
        }
        check(&message(""), false);
        check(&message(r#","content":null"#), false);
        check(&message(r#","content":null,"tool_calls":[],"annotations":[],"audio":null,"function_call":{}"#), false);
        for says_something in [
            r#""content":"x""#,
            r#""content":"""#,
            r#""content":[{"type":"text","text":"x"}]"#,
            r#""content":null,"refusal":"No.""#,
            r#""content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]"#,
            r#""content":null,"function_call":{"name":"f","arguments":"{}"}"#,
            r#""content":null,"audio":{"id":"a","data":"UklGRg=="}"#,
            r#""content":null,"reasoning_content":"Hm""#,
            r#""reasoning":"Hm""#,
            r#""images":[{"image_url":{"url":"data:,"}}]"#,
        ] {
            check(&message(&format!(",{says_something}")), true);
            check(&format!(r#"{{"delta":{{{says_something}}}}}"#), true);
        }
        check(r#"{"text":"x"}"#, true);
        check(r#"{"text":""}"#, true);
        check(r#"{"finish_reason":"content_filter"}"#, true);
        check(r#"{"message":{"content":null},"finish_reason":"stop"}"#, true);
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        let check = |frame: &str, expected: &[Moment]| {
            assert_eq!(moments(frame), expected, "{frame}");
        };
        let text = |text_bytes| Moment::Content { text_bytes };
        check(r#"{"error":"x","error":null}"#, &[]);
        check(r#"{"choices":[{"finish_reason":"stop"}],"choices":[]}"#, &[]);
        check(r#"{"choices":[{"delta":{"content":"a","content":"bcd"}}]}"#, &[text(3)]);
        check(r#"{"choices":[{"delta":{"content":"a"},"delta":{}}]}"#, &[]);
        check(r#"{"choices":[{"finish_reason":"stop","finish_reason":null}]}"#, &[]);
        check(r#"{"choices":[{"index":1,"index":0,"finish_reason":null,"finish_reason":"stop"}]}"#, &[Moment::Finish]);
        check(r#"{"id":"a","id":"b","model":1,"model":2,"choices":[{"index":0,"text":"x"}]}"#, &[text(1)]);
        assert_eq!(
            whole(r#"{"choices":[],"choices":[{"text":""}],"id":1,"id":2}"#).map(|moments| moments[0]),
            Ok(Moment::Finish)
        );
    }

    #[test]
    fn what_the_official_clients_read_is_read() {
        let check = |frame: &str| {
            assert_eq!(moments(frame), [Moment::Content { text_bytes: 1 }], "{frame}");
        };
        check(r#"{"choices":[{"delta":{"content":"x"},"logprobs":{"a":NaN,"b":-Infinity,"c":[Infinity]}}]}"#);
        check("\u{feff}{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}");
        let not_utf8 = Event { payload: b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}", ..event("") };
        let mut moments = Vec::new();
        assert_eq!(stream(1, false).read(not_utf8, |moment| moments.push(moment)), Ok(FrameEdit::Keep));
        assert_eq!(moments, [Moment::Content { text_bytes: 1 }]);
        assert_eq!(
            whole("\u{feff}{\"choices\":[{\"text\":\"\",\"x\":NaN}]}").map(|moments| moments[0]),
            Ok(Moment::Finish)
        );
    }

    #[test]
    fn what_is_no_object_is_no_part_of_an_answer() {
        for text in ["", "[]", "null", "\"x\"", "ping", ": keepalive", "7", "{}", " { } "] {
            assert_eq!(read(&mut stream(1, false), text), Ok((vec![], FrameEdit::Ignore)), "{text}");
        }
        for text in ["{\"a\":1", "{} x", "{oops", "{\"a\":1}\n{\"a\":2}", "<html>"] {
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
        assert_eq!(read(&mut one, "[DONE] and more"), done);
        let optional = ChatQuirks { finish_reason_optional: true, ..ChatQuirks::default() };
        let mut lenient = ChatStream { quirks: optional, ..stream(2, false) };
        assert_eq!(read(&mut lenient, "[DONE]"), done);
        assert!(lenient.end().is_err());
    }

    fn part(index: u32, content: &str, finish_reason: &str) -> String {
        format!(
            r#"{{"choices":[{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#
        )
    }

    #[test]
    fn nothing_that_follows_makes_a_finished_answer_incomplete() {
        let mut finished = stream(1, false);
        assert!(read(&mut finished, &part(0, "x", "null")).is_ok() && !finished.is_finished());
        assert!(read(&mut finished, &part(0, "", r#""stop""#)).is_ok() && finished.is_finished());
        for odd in [r#"{"error":{"message":"x"}}"#, "{oops", "ping", r#"{"detail":"x"}"#] {
            assert_eq!(read(&mut finished, odd), Ok((vec![], FrameEdit::Ignore)), "{odd}");
        }
        let counted = read(&mut finished, r#"{"choices":[],"usage":{"prompt_tokens":1}}"#);
        assert!(counted.is_ok_and(|(moments, edit)| moments.len() == 1 && edit == FrameEdit::Keep));
        assert!(finished.is_finished());
    }

    #[test]
    fn a_finish_reason_with_every_token_is_no_end() {
        let mut going_on = stream(1, false);
        for _ in 0..2 {
            assert!(read(&mut going_on, &part(0, "x", r#""STOP""#)).is_ok());
        }
        assert!(!going_on.is_finished());
        assert_eq!(going_on.end(), Ok(DONE_FRAME), "its own end is one");
        assert!(read(&mut going_on, "{oops").is_err());
    }

    #[test]
    fn a_host_that_ignores_how_many_choices_it_is_asked_for_ends_with_those_that_came() {
        let mut one_of_two = stream(2, false);
        assert!(read(&mut one_of_two, &part(0, "x", r#""stop""#)).is_ok());
        assert!(!one_of_two.is_finished() && one_of_two.end().is_ok());
        assert!(read(&mut one_of_two, "[DONE]").is_ok());
        let mut second_is_cut = stream(2, false);
        assert!(read(&mut second_is_cut, &part(1, "x", "null")).is_ok());
        assert!(read(&mut second_is_cut, &part(0, "x", r#""stop""#)).is_ok());
        assert!(second_is_cut.end().is_err() && read(&mut second_is_cut, "[DONE]").is_err());
    }

    #[test]
    fn usage_the_client_did_not_ask_for_is_cut_out() {
        let check = |frame: &str, expected: Option<&str>| {
            assert_eq!(read(&mut stream(1, false), frame).map(|(_, edit)| edit), Ok(FrameEdit::Keep), "{frame}");
            let left = match read(&mut stream(1, true), frame).map(|(_, edit)| edit) {
                Ok(FrameEdit::Keep | FrameEdit::Ping) => Some(frame.to_owned()),
                Ok(FrameEdit::Cut(span) | FrameEdit::Unname(span)) => {
                    Some([&frame[..span.start], &frame[span.end..]].concat())
                }
                Ok(FrameEdit::Drop | FrameEdit::Ignore) => None,
                Err(error) => panic!("{frame}: {error:?}"),
            };
            assert_eq!(left.as_deref(), expected, "{frame}");
        };
        check(r#"{"choices":[{"usage":null}]}"#, Some(r#"{"choices":[{"usage":null}]}"#));
        check(r#"{"a": 1.0 , "usage" : null }"#, Some(r#"{"a": 1.0  }"#));
        check(
            r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}],"usage":{"prompt_tokens":1}}"#,
            Some(r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#),
        );
        check(
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
            Some(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
        );
        // Frames that tell nothing else, in any shape.
        for usage in ["null", "{}", r#"{"prompt_tokens":1}"#] {
            for choices in
                ["[]", "null", "[{}]", r#"[{"index":0}]"#, r#"[{"index":0,"delta":{},"finish_reason":null}]"#]
            {
                check(&format!(r#"{{"id":"x","choices":{choices},"usage":{usage}}}"#), None);
            }
            check(&format!(r#"{{"id":"x","usage":{usage}}}"#), None);
        }
        check(r#"{"id":"x","choices":[]}"#, None);
        check(r#"{"choices":[],"timings":{"n":1},"usage":{"prompt_tokens":1}}"#, None);
        // What a host says beside it stays.
        let filter = r#"{"choices":[],"prompt_filter_results":[{}],"usage":null}"#;
        check(filter, Some(r#"{"choices":[],"prompt_filter_results":[{}]}"#));
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
    fn usage_is_read_wherever_a_frame_has_it() {
        let check = |frame: &str, expected: &[u64]| {
            let outputs = moments(frame).into_iter().filter_map(|moment| match moment {
                Moment::Usage(report) => report.usage.map(|usage| usage.output),
                _ => None,
            });
            assert_eq!(outputs.collect::<Vec<_>>(), expected, "{frame}");
        };
        let usage = |output: u64| format!(r#"{{"prompt_tokens":5,"completion_tokens":{output}}}"#);
        let stop = |usage: &str| format!(r#"{{"index":0,"delta":{{}},"finish_reason":"stop","usage":{usage}}}"#);
        check(&format!(r#"{{"choices":[{}]}}"#, stop(&usage(7))), &[7]);
        check(&format!(r#"{{"choices":[{}]}}"#, stop("null")), &[]);
        check(&format!(r#"{{"choices":[],"x_groq":{{"id":"r","usage":{}}}}}"#, usage(7)), &[7]);
        check(r#"{"choices":[],"x_groq":{"id":"r"}}"#, &[]);
        check(r#"{"choices":[],"x_groq":"r"}"#, &[]);
        check(&format!(r#"{{"choices":[{}],"usage":{}}}"#, stop(&usage(7)), usage(8)), &[7, 8]);
        let token = r#"{"index":0,"delta":{"content":"x"}}"#;
        check(&format!(r#"{{"choices":[{token}],"usage":{}}}"#, usage(9)), &[9]);
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
        // Zeros beside text are no count; without text they are.
        whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#, 5);
        whole_text(r#"{"choices":[{"text":""}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#, 0);
        // Half a surrogate pair, where a ceiling cut an answer short.
        whole_text(r#"{"choices":[{"message":{"content":"\ud83d"}}]}"#, 3);
        whole_text(r#"{"output":"Hello"}"#, 18);
        whole_text(r#"{"choices":{"content":"abc"}}"#, 3);
    }

    #[test]
    fn an_error_beside_a_complete_answer_is_none() {
        let check = |body: &str, last: Moment| {
            assert_eq!(whole(body).map(|moments| moments.last().copied()), Ok(Some(last)), "{body}");
        };
        for error in [r#""error":{"message":"x"}"#, r#""error":"x""#, r#""object":"error""#] {
            check(&format!(r#"{{{error}}}"#), Moment::Fault);
            check(&format!(r#"{{{error},"choices":[]}}"#), Moment::Fault);
            check(
                &format!(r#"{{{error},"choices":[{{"message":{{"content":""}},"finish_reason":"stop"}}]}}"#),
                Moment::Fault,
            );
            check(&format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}}}}]}}"#), Moment::Fault);
            check(
                &format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}},"finish_reason":"error"}}]}}"#),
                Moment::Fault,
            );
            check(
                &format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}}]}}"#),
                Moment::End,
            );
            check(&format!(r#"{{{error},"data":[{{"embedding":[1]}}]}}"#), Moment::End);
        }
        for none in ["null", "false", "0", "\"\"", "{}", "[]"] {
            check(&format!(r#"{{"error":{none},"choices":[{{}}]}}"#), Moment::End);
        }
    }

    #[test]
    fn indexes_that_nobody_asked_for_are_not_kept() {
        let mut stream = stream(2, false);
        for index in 64..5_000 {
            let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
            assert!(read(&mut stream, &frame).is_ok());
        }
        assert_eq!((stream.finished.len(), stream.came.len()), (2, 0));
        assert!(stream.has_finished(2), "a host may number its choices otherwise");
        let mut of_one_frame = ChoiceSet::default();
        (0..2 * MOST_INDEXES as u32).for_each(|index| of_one_frame.insert(index));
        assert_eq!(of_one_frame.len(), 64 + MOST_INDEXES);
    }

    #[test]
    fn as_many_choices_must_finish_as_were_asked_for() {
        let check = |indexes: &[u64], expected: u32, all: bool| {
            let mut stream = stream(expected, false);
            for index in indexes {
                let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
                assert!(read(&mut stream, &frame).is_ok());
            }
            assert_eq!(stream.has_finished(expected), all, "{indexes:?} of {expected}");
        };
        check(&[], 1, false);
        check(&[0], 1, true);
        check(&[1], 1, true);
        check(&[0, 2, 2], 3, false);
        check(&[2, 0, 1], 3, true);
        check(&[1 << 32], 1, true);
        let many: Vec<u64> = (0..128).collect();
        check(&many, 128, true);
        check(&many[..64], 64, true);
        check(&many[..127], 128, false);
    }
}
