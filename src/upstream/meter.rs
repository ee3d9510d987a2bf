//! Reads what passes by: usage, which choices are finished, whether a frame carries a token or an
//! error. It borrows from the bytes and builds no tree; a frame costs no allocation.
//!
//! It never changes a byte and forgives what it does not need to understand: a field of an
//! unexpected type is as good as absent.
//!
//! Start reading in [`Meter::read`].

use super::loose::{Number, Object, Present};
use crate::domain::usage::Usage;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt;

/// What was seen of one stream so far.
#[derive(Default, Debug)]
pub struct Meter {
    usage: Option<Usage>,
    finished: Finished,
    token_frames: u64,
}

/// What one frame says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Seen<'a> {
    /// It carries a token or a finish reason.
    pub good: bool,
    /// It is an error.
    pub error: bool,
    /// The value of its `usage` member, a slice of the frame, `null` included.
    pub usage: Option<&'a str>,
    /// It exists for its usage alone: no choices, and a usage that is not `null`.
    pub usage_only: bool,
}

impl Meter {
    /// Reads the payload of one frame.
    ///
    /// # Errors
    /// It is not a JSON object in the shape of a completion.
    pub fn read<'a>(&mut self, payload: &'a [u8]) -> Result<Seen<'a>, serde_json::Error> {
        let chunk: Chunk<'a> = object(payload)?;
        let error = chunk.error.0 || chunk.object.is_error;
        if error {
            return Ok(Seen { error, ..Seen::default() });
        }
        let usage = chunk.usage.map(RawValue::get);
        let counted = usage.is_some_and(|text| text != "null");
        if let Some(usage) = usage.filter(|_| counted).and_then(usage_of) {
            self.usage = Some(usage);
        }
        let choices = chunk.choices.unwrap_or_default();
        self.finished.add(&choices.finished);
        self.token_frames += u64::from(choices.token);
        Ok(Seen {
            good: choices.token || choices.finished.count() > 0,
            error: false,
            usage,
            usage_only: counted && choices.given && choices.empty,
        })
    }

    /// The last usage seen.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Frames that carried a token.
    pub fn token_frames(&self) -> u64 {
        self.token_frames
    }

    /// Whether each of the choices 0 … `expected`−1 has its finish reason.
    pub fn all_finished(&self, expected: u32) -> bool {
        self.finished.all_below(expected)
    }
}

/// What a whole answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// It is an error.
    pub error: bool,
    /// Its usage, where given.
    pub usage: Option<Usage>,
}

/// Reads a whole answer.
///
/// # Errors
/// It is not one JSON object.
pub fn read_whole(body: &[u8]) -> Result<Whole, serde_json::Error> {
    let answer: WholeAnswer<'_> = object(body)?;
    let usage = answer.usage.and_then(|raw| usage_of(raw.get()));
    Ok(Whole { error: answer.error.0 || answer.object.is_error, usage })
}

/// Reads a JSON object; serde would take an array for a struct as well.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start().first() {
        None | Some(b'{') => serde_json::from_slice(json),
        Some(_) => Err(serde::de::Error::custom("not an object")),
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    object: Object,
    #[serde(default)]
    error: Present,
    #[serde(default)]
    choices: Option<Choices>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WholeAnswer<'a> {
    #[serde(default)]
    object: Object,
    #[serde(default)]
    error: Present,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// `Option` alone would take `null` for absent; here it must be seen, to be hidden.
fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: Number,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    text: Present,
    #[serde(default)]
    finish_reason: Present,
}

/// Everything that counts as a token, by any host's name for it.
#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Present,
    #[serde(default)]
    reasoning: Present,
    #[serde(default)]
    reasoning_content: Present,
    #[serde(default)]
    refusal: Present,
    #[serde(default)]
    tool_calls: Present,
    #[serde(default)]
    function_call: Present,
    #[serde(default)]
    audio: Present,
}

impl Choice {
    fn has_token(&self) -> bool {
        self.text.0 || self.delta.as_ref().is_some_and(Delta::has_token)
    }
}

impl Delta {
    fn has_token(&self) -> bool {
        [
            &self.content,
            &self.reasoning,
            &self.reasoning_content,
            &self.refusal,
            &self.tool_calls,
            &self.function_call,
            &self.audio,
        ]
        .into_iter()
        .any(|part| part.0)
    }
}

/// All choices of a frame, folded while they are read.
#[derive(Default)]
struct Choices {
    given: bool,
    empty: bool,
    token: bool,
    finished: Finished,
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fold;

        impl<'de> Visitor<'de> for Fold {
            type Value = Choices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
                let mut all = Choices { given: true, empty: true, ..Choices::default() };
                let mut position = 0;
                while let Some(choice) = list.next_element::<Choice>()? {
                    all.empty = false;
                    all.token |= choice.has_token();
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

        from.deserialize_seq(Fold)
    }
}

/// A set of choice indexes, without allocation up to 64.
#[derive(Clone, Default, Debug)]
struct Finished {
    first: u64,
    rest: BTreeSet<u32>,
}

impl Finished {
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

    fn count(&self) -> usize {
        self.first.count_ones() as usize + self.rest.len()
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
struct RawUsage {
    prompt_tokens: Number,
    #[serde(default = "none_counted")]
    completion_tokens: Number,
    #[serde(default = "none_counted")]
    total_tokens: Number,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for cached input.
    #[serde(default)]
    prompt_cache_hit_tokens: Number,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Number,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Number,
}

fn none_counted() -> Number {
    Number(Some(0))
}

/// The counts of a `usage` object; `None` when one of those that cost money is missing or cannot be.
fn usage_of(json: &str) -> Option<Usage> {
    let raw: RawUsage = object(json.as_bytes()).ok()?;
    let sane = |number: Number| number.0.filter(|count| *count <= ABSURD);
    let input = sane(raw.prompt_tokens)?;
    let mut output = sane(raw.completion_tokens)?;
    let cached = raw.prompt_tokens_details.and_then(|details| sane(details.cached_tokens));
    let cached = cached.or(sane(raw.prompt_cache_hit_tokens)).unwrap_or(0);
    let reasoning = raw.completion_tokens_details.and_then(|details| sane(details.reasoning_tokens)).unwrap_or(0);
    // Some hosts count reasoning beside the output instead of within it; only their total shows it.
    if reasoning > 0 && sane(raw.total_tokens) == Some(input + output + reasoning) {
        output += reasoning;
    }
    Some(Usage { input, cached_input: cached.min(input), output, reasoning: reasoning.min(output) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_frame_carries_a_token_or_an_end() {
        let check = |frame: &str, good: bool| {
            let seen = Meter::default().read(frame.as_bytes()).unwrap_or_else(|error| panic!("{frame}: {error}"));
            assert_eq!((seen.good, seen.error), (good, false), "{frame}");
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
    fn an_error_is_told_from_an_answer() {
        let check = |frame: &str, error: bool| {
            assert_eq!(Meter::default().read(frame.as_bytes()).map(|seen| seen.error).ok(), Some(error), "{frame}");
            assert_eq!(read_whole(frame.as_bytes()).map(|whole| whole.error).ok(), Some(error), "{frame}");
        };
        check(r#"{"error":{"message":"x"}}"#, true);
        check(r#"{"error":"x","choices":[]}"#, true);
        check(r#"{"object":"error","message":"x"}"#, true);
        check(r#"{"error":null,"object":"chat.completion"}"#, false);
        check(r#"{"choices":[{"error":{"message":"x"}}]}"#, false);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in ["", "[]", "null", "\"x\"", "{\"a\":1", "{} x", "ping", "{\"choices\":{}}"] {
            assert!(Meter::default().read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_whole(b"{\"a\":[1,2").is_err_and(|error| error.is_eof()));
        assert!(read_whole(b"").is_err_and(|error| error.is_eof()));
        assert!(read_whole(b"<html>").is_err_and(|error| !error.is_eof()));
    }

    #[test]
    fn usage_is_read_as_domain_tokens() {
        let check = |json: &str, expected: Option<[u64; 4]>| {
            let usage = usage_of(json).map(|u| [u.input, u.cached_input, u.output, u.reasoning]);
            assert_eq!(usage, expected, "{json}");
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
        check(r#"{"prompt_tokens":-5,"completion_tokens":7}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":7.5}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":99999999999}"#, None);
        check(r#"{"prompt_tokens":"5","completion_tokens":7}"#, None);
        check(r#"{"completion_tokens":7}"#, None);
        check("[5,7,12]", None);
        check("null", None);
    }

    #[test]
    fn the_last_usage_wins_and_a_bad_one_changes_nothing() {
        let mut meter = Meter::default();
        for (usage, expected) in
            [("null", None), (r#"{"prompt_tokens":1}"#, Some(1)), (r#"{"prompt_tokens":2}"#, Some(2)), ("{}", Some(2))]
        {
            let frame = format!(r#"{{"choices":[],"usage":{usage}}}"#);
            let seen = meter.read(frame.as_bytes()).map(|seen| (seen.usage, seen.usage_only)).ok();
            assert_eq!(seen, Some((Some(usage), usage != "null")));
            assert_eq!(meter.usage().map(|usage| usage.input), expected);
        }
    }

    #[test]
    fn every_index_must_finish() {
        let check = |indexes: &[u64], expected: u32, all: bool| {
            let mut meter = Meter::default();
            for index in indexes {
                let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
                meter.read(frame.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            }
            assert_eq!(meter.all_finished(expected), all, "{indexes:?} of {expected}");
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
