//! One frame of a stream, its choices folded while they are read.

use super::choice_set::ChoiceSet;
use super::members::{ChatChoice, DeltaName, TopName};
use crate::protocol::chat::usage::{NestedUsage, UsageHolderObject};
use crate::protocol::json::lenient::{
    ErrorCode, LenientObject, NestedText, NonEmptyValue, ObjectName, PartsReader, PartsValue, TextSize,
};
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

/// One frame of a stream.
#[derive(Default)]
pub(super) struct ChatFrame<'a> {
    pub(super) object: ObjectName,
    pub(super) error: NonEmptyValue,
    pub(super) choices: ChoicesSummary,
    pub(super) usage: Option<&'a RawValue>,
    pub(super) x_groq: LenientObject<UsageHolderObject>,
    /// What a host says that answers with an error of its framework's shape instead of the API's.
    pub(super) detail: NonEmptyValue,
    pub(super) message: NonEmptyValue,
    pub(super) code: ErrorCode,
    /// It has a member.
    pub(super) has_members: bool,
}

impl ChatFrame<'_> {
    pub(super) fn is_empty(&self) -> bool {
        !self.has_members
    }

    /// Whether it says nothing but a text: a token, and no end, usage or error.
    pub(super) fn is_only_text(&self) -> bool {
        let has_usage = self.usage.is_some_and(|usage| usage.get() != "null")
            || self.choices.usage.0.is_some()
            || self.x_groq.0.usage.0.is_some();
        self.choices.token && !self.choices.finished.any() && !has_usage && !self.is_fault()
    }

    /// Whether it is an error, by any of the names that hosts have for one.
    pub(super) fn is_fault(&self) -> bool {
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
pub(super) struct ChoicesSummary {
    pub(super) given: bool,
    pub(super) empty: bool,
    pub(super) token: bool,
    pub(super) text_bytes: u64,
    /// An error ended one of them.
    pub(super) broke_off: bool,
    pub(super) position: u32,
    pub(super) came: ChoiceSet,
    pub(super) finished: ChoiceSet,
    /// Usage in a choice, the last one's.
    pub(super) usage: NestedUsage,
}

impl ChoicesSummary {
    pub(super) fn is_some(&self) -> bool {
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
