//! What frames and whole answers have in common: what their members and those of their choices are called.

use crate::protocol::chat::usage::NestedUsage;
use crate::protocol::json::lenient::{FinishReasonValue, PartsReader, PartsValue, TextSize, TokenCount};
use serde::de::{IgnoredAny, MapAccess};

/// What the members of answers and frames are called.
#[derive(Clone, Copy, Default)]
pub(super) enum TopName {
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
    pub(super) fn of(text: &str) -> Self {
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

/// What the members of a choice are called.
#[derive(Clone, Copy, Default)]
pub(super) enum ChoiceName {
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
pub(super) struct ChatChoice<T> {
    pub(super) index: TokenCount,
    pub(super) said: T,
    pub(super) has_delta: bool,
    pub(super) text: Option<TextSize>,
    pub(super) finish_reason: FinishReasonValue,
    pub(super) usage: NestedUsage,
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

/// What the members of a delta are called: text by its best known names, and everything else.
#[derive(Clone, Copy, Default)]
pub(super) enum DeltaName {
    Role,
    Content,
    Reasoning,
    ReasoningContent,
    Refusal,
    #[default]
    Other,
}
