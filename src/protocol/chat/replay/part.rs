//! One frame of a stream of chat completions, as far as it must be known to go on with the stream by another answer:
//! its text and the places of what is written otherwise.
//!
//! It never guesses: a frame that says anything but text of the first choice, or says it in an unusual way, is none.
//!
//! Start reading in [`ChatFramePart::read`].

use crate::protocol::json::member::unquoted;
use crate::protocol::json::scan::{JsonError, Scanner, object};
use std::borrow::Cow;
use std::ops::Range;

/// Members of a frame by which clients know the answer that it is a part of, as they are written.
pub(super) const NAMES: [&str; 3] = [r#""id""#, r#""created""#, r#""model""#];

/// The member of a delta that holds text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextMember {
    Content,
    Reasoning,
    ReasoningContent,
}

impl TextMember {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Reasoning => "reasoning",
            Self::ReasoningContent => "reasoning_content",
        }
    }
}

/// What a frame says.
#[derive(Default)]
pub(super) struct ChatFramePart<'a> {
    /// The places of the values of [`NAMES`] in the payload.
    pub(super) names: [Option<Range<usize>>; NAMES.len()],
    /// The place of the delta.
    pub(super) delta: Option<Range<usize>>,
    pub(super) has_role: bool,
    /// Its text, never empty.
    pub(super) text: Option<(TextMember, Cow<'a, str>)>,
    /// The choice is finished.
    pub(super) is_finish: bool,
}

/// What was found of a frame while it is read.
struct PartReader<'a> {
    json: &'a str,
    part: ChatFramePart<'a>,
    /// Members that must not come twice, of which clients would read one or the other.
    seen: Vec<&'a str>,
    /// It says more than is known here.
    is_odd: bool,
}

impl<'a> ChatFramePart<'a> {
    /// The frame with this `payload`; `None` where it says more than text, or cannot be read.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let json = str::from_utf8(payload).ok()?;
        let mut reader = PartReader { json, part: Self::default(), seen: Vec::new(), is_odd: false };
        object(json, 0, |scanner, name| reader.member(&json[name], scanner)).ok()?;
        (!reader.is_odd).then_some(reader.part)
    }
}

impl<'a> PartReader<'a> {
    fn member(&mut self, name: &'a str, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        if name == r#""choices""# {
            self.once(name);
            return self.choices(scanner);
        }
        let value = scanner.value_span()?;
        match NAMES.iter().position(|known| *known == name) {
            Some(at) => self.part.names[at] = Some(value),
            None => self.is_odd |= is_escaped(name),
        }
        Ok(())
    }

    fn choices(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        if scanner.next() != Some(b'[') {
            let value = scanner.value_span()?;
            self.is_odd |= &self.json[value] != "null";
            return Ok(());
        }
        scanner.list(|scanner| {
            // A second choice comes twice too.
            self.once("choice");
            if scanner.next() != Some(b'{') {
                self.is_odd = true;
                return scanner.value();
            }
            let json = self.json;
            scanner.object(|scanner, name| self.of_choice(&json[name], scanner))
        })
    }

    fn of_choice(&mut self, name: &'a str, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        if name == r#""delta""# && scanner.next() == Some(b'{') {
            self.once(name);
            let (json, start) = (self.json, scanner.at());
            scanner.object(|scanner, name| self.of_delta(&json[name], scanner))?;
            self.part.delta = Some(start..scanner.at());
            return Ok(());
        }
        let value = self.value(scanner)?;
        match name {
            r#""delta""# => self.is_odd |= value != "null",
            r#""index""# => self.is_odd |= !matches!(value, "0" | "null"),
            r#""finish_reason""# => {
                self.once(name);
                match value {
                    "null" | "false" | r#""""# => {}
                    r#""tool_calls""# | r#""function_call""# => self.is_odd = true,
                    reason => {
                        self.is_odd |= !reason.starts_with('"');
                        self.part.is_finish = true;
                    }
                }
            }
            r#""logprobs""# | r#""text""# | r#""message""# => self.is_odd |= !is_empty(value),
            _ => self.is_odd |= is_escaped(name),
        }
        Ok(())
    }

    fn of_delta(&mut self, name: &'a str, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        let value = self.value(scanner)?;
        let member = match name {
            r#""content""# => TextMember::Content,
            r#""reasoning""# => TextMember::Reasoning,
            r#""reasoning_content""# => TextMember::ReasoningContent,
            r#""role""# => {
                self.part.has_role |= !is_empty(value);
                return Ok(());
            }
            _ => {
                self.is_odd |= !is_empty(value) || is_escaped(name);
                return Ok(());
            }
        };
        self.once(name);
        if matches!(value, "null" | r#""""#) {
            return Ok(());
        }
        match unquoted(value) {
            Some(text) if self.part.text.is_none() => self.part.text = Some((member, text)),
            _ => self.is_odd = true,
        }
        Ok(())
    }

    fn value(&self, scanner: &mut Scanner<'a>) -> Result<&'a str, JsonError> {
        let value = scanner.value_span()?;
        Ok(&self.json[value])
    }

    fn once(&mut self, name: &'a str) {
        self.is_odd |= self.seen.contains(&name);
        self.seen.push(name);
    }
}

/// Whether a value says nothing.
fn is_empty(value: &str) -> bool {
    matches!(value, "null" | "false" | r#""""# | "[]" | "{}")
}

/// Whether a name is written in a way that may hide one that is known here.
fn is_escaped(name: &str) -> bool {
    name.contains('\\')
}
