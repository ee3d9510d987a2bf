//! Whole answers of chat completions, completions and embeddings.

use super::members::{ChatChoice, DeltaName, TopName};
use crate::protocol::chat::usage::{usage_elsewhere, usage_report};
use crate::protocol::json::lenient::{NonEmptyValue, ObjectName, PartsReader, PartsValue, object};
use crate::protocol::json::mend::mended;
use crate::protocol::json::text::text_bytes;
use crate::protocol::{AnswerError, Moment, UsageReport};
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

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
