//! Answers of chat completions, completions and embeddings, streamed or whole, read as [`Moment`]s: parts of the
//! answer, finished choices, usage, errors. It borrows from the bytes and builds no tree; a frame costs no
//! allocation.
//!
//! It never changes a byte and forgives what it does not need to understand: a member of an unexpected type is
//! as good as absent.
//!
//! Start reading in [`ChatStream::read`], then [`read_whole`].

mod alike;
mod choice_set;
mod frame;
mod members;
mod whole;

use super::usage::{is_only_usage, usage_report};
use crate::domain::call::{Call, CeilingName, Endpoint};
use crate::protocol::json::lenient::{PartsValue, object};
use crate::protocol::json::mend::mended;
use crate::protocol::{BYTE_ORDER_MARK, Event, FrameEdit, FrameError, Moment, edit};
use alike::AlikeFrames;
use choice_set::ChoiceSet;
use frame::{ChatFrame, ChoicesSummary};
use serde_json::value::RawValue;

pub use whole::read_whole;

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
    alike: AlikeFrames,
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
            alike: AlikeFrames::NONE,
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
        let may_be_alike = event.name.is_none() && !self.all_finished;
        if may_be_alike && let Some((text_bytes, edit)) = self.alike.read(payload) {
            note(Moment::Content { text_bytes });
            return Ok(edit);
        }
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
            Ok(frame) => {
                let only_text = (may_be_alike && frame.0.is_only_text()).then_some(frame.0.choices.text_bytes);
                let edit = self.take_in(frame, payload, note);
                if let Some(text_bytes) = only_text {
                    self.alike.keep(payload, text_bytes, &edit);
                }
                Ok(edit)
            }
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

#[cfg(test)]
mod tests;
