//! Reads what passes by: usage, which choices are finished, whether a frame carries a token or an
//! error. It borrows from the bytes and builds no tree; a frame costs no allocation.
//!
//! It never changes a byte and forgives what it does not need to understand: a field of an
//! unexpected type is as good as absent.
//!
//! Start reading in [`Meter::read`].

use crate::domain::estimate::Tally;
use crate::domain::usage::Usage;
use crate::protocol::json::lenient::{NestedText, NonEmpty, ObjectName, ObjectOrDefault, TextPresence, TokenCount};
use crate::protocol::json::text::text_bytes;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt;

/// What was seen of one stream so far.
#[derive(Default, Debug)]
pub struct Meter {
    counted: UsageReport,
    /// How many frames had carried a token when it was counted.
    counted_at: u64,
    finished: FinishedChoices,
    token_frames: u64,
    text_bytes: u64,
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
        match object(payload) {
            Ok(chunk) => Ok(self.take_in(chunk)),
            Err(error) => {
                let mended = without_surrogates(payload).ok_or(error)?;
                let seen = self.take_in(object(&mended)?);
                // Each replacement is as long as what it replaces: it stands at the same place here.
                let usage = seen.usage.map(|usage| usage.as_ptr().addr() - mended.as_ptr().addr()..).zip(seen.usage);
                let usage = usage.and_then(|(from, usage)| payload.get(from)?.get(..usage.len()));
                Ok(Seen { usage: usage.and_then(|usage| std::str::from_utf8(usage).ok()), ..seen })
            }
        }
    }

    fn take_in<'a>(&mut self, chunk: ChatFrame<'a>) -> Seen<'a> {
        let error = chunk.error.0 || chunk.object.is_error;
        if error {
            return Seen { error, ..Seen::default() };
        }
        let usage = chunk.usage.map(RawValue::get);
        let counted = usage.is_some_and(|text| text != "null");
        let choices = chunk.choices.unwrap_or_default();
        self.finished.add(&choices.finished);
        self.token_frames += u64::from(choices.token);
        self.text_bytes += choices.text_bytes;
        if let Some(usage) = usage.filter(|_| counted) {
            self.count(UsageReport::of(usage));
        }
        Seen {
            good: choices.token || choices.finished.count() > 0,
            error: false,
            usage,
            usage_only: counted && choices.given && choices.empty,
        }
    }

    /// The last usage that can be is the whole of it, also where there was one before: providers that count more
    /// than once begin at the beginning each time.
    fn count(&mut self, said: UsageReport) {
        if said.usage.is_some() {
            (self.counted, self.counted_at) = (said, self.token_frames);
        } else {
            self.counted.is_impossible |= said.is_impossible && self.counted.usage.is_none();
        }
    }

    /// The last usage seen.
    pub fn usage(&self) -> Option<Usage> {
        self.counted.usage
    }

    /// What is known of the tokens of an answer. A count is final when no token came after it and the answer was
    /// complete: until then another count may follow, also after the finish.
    pub fn tally(&self, is_complete: bool) -> Tally {
        let over = is_complete && self.counted_at == self.token_frames;
        Tally {
            is_final: over && self.counted.has_output,
            frames: self.token_frames,
            ..self.counted.tally(self.text_bytes)
        }
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

/// What a whole answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// It is an error.
    pub error: bool,
    /// What is known of its tokens.
    pub tally: Tally,
}

/// Reads a whole answer.
///
/// # Errors
/// It is not one JSON object.
pub fn read_whole(body: &[u8]) -> Result<Whole, serde_json::Error> {
    let answer: ChatAnswer<'_> = object(body)?;
    let counted = answer.usage.map_or(UsageReport::default(), |raw| UsageReport::of(raw.get()));
    // Nobody asks for the text of what was counted; where its shape is unknown, all of it may be text.
    let text = if counted.has_output { 0 } else { text_bytes(body) };
    let text = if text == 0 && counted.usage.is_none() { body.len() as u64 } else { text };
    let tally = Tally { is_final: counted.has_output, ..counted.tally(text) };
    Ok(Whole { error: answer.error.0 || answer.object.is_error, tally })
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
    error: NonEmpty,
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
    error: NonEmpty,
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
    text: TextPresence,
    #[serde(default)]
    finish_reason: NonEmpty,
}

/// Everything that counts as a token, by any host's name for it.
#[derive(Deserialize)]
struct ChatDelta {
    #[serde(default)]
    content: TextPresence,
    #[serde(default)]
    reasoning: TextPresence,
    #[serde(default)]
    reasoning_content: TextPresence,
    #[serde(default)]
    refusal: TextPresence,
    #[serde(default)]
    tool_calls: NestedText,
    #[serde(default)]
    function_call: NestedText,
    #[serde(default)]
    audio: NonEmpty,
}

impl ChatChoice {
    /// Whether it carries a token, and the bytes of its text.
    fn text(&self) -> TextPresence {
        let delta = self.delta.as_ref().map_or(TextPresence::default(), ChatDelta::text);
        TextPresence { present: self.text.present || delta.present, bytes: self.text.bytes + delta.bytes }
    }
}

impl ChatDelta {
    fn text(&self) -> TextPresence {
        let Self { content, reasoning, reasoning_content, refusal, tool_calls, function_call, audio } = self;
        let parts = [content, reasoning, reasoning_content, refusal, &tool_calls.0, &function_call.0];
        TextPresence {
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
struct ChatUsage {
    #[serde(default)]
    prompt_tokens: Option<TokenCount>,
    #[serde(default)]
    completion_tokens: Option<TokenCount>,
    #[serde(default)]
    total_tokens: TokenCount,
    #[serde(default)]
    prompt_tokens_details: ObjectOrDefault<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: ObjectOrDefault<CompletionDetails>,
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

/// What a provider said of its tokens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct UsageReport {
    /// `None` where a count that costs money is missing or cannot be.
    usage: Option<Usage>,
    /// It says how much was output.
    has_output: bool,
    /// It says what cannot be.
    is_impossible: bool,
}

impl UsageReport {
    /// The counts of a `usage` object.
    fn of(json: &str) -> Self {
        let impossible = Self { is_impossible: true, ..Self::default() };
        let Ok(raw) = object::<ChatUsage>(json.as_bytes()) else { return impossible };
        let sane = |number: TokenCount| number.0.filter(|count| *count <= ABSURD);
        let Some(input) = raw.prompt_tokens else { return Self::default() };
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
        Self { usage: Some(usage), has_output, is_impossible: false }
    }

    fn tally(self, text_bytes: u64) -> Tally {
        Tally { counted: self.usage, is_impossible: self.is_impossible, text_bytes, ..Tally::default() }
    }
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
    fn an_error_is_reported_from_an_answer() {
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
            let counted = UsageReport::of(json);
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
    fn what_cannot_be_a_count_is_reported_from_no_count() {
        let check = |json: &str, impossible: bool| {
            let counted = UsageReport::of(json);
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
    fn a_count_is_final_when_nothing_came_after_it() {
        let token = r#"{"choices":[{"index":0,"delta":{"content":"abc"}}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
        let running =
            r#"{"choices":[{"index":0,"delta":{"content":"abc"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;
        let input_only = r#"{"choices":[],"usage":{"prompt_tokens":5}}"#;
        let check = |frames: &[&str], is_complete: bool, output: Option<u64>, is_final: bool| {
            let mut meter = Meter::default();
            for frame in frames {
                meter.read(frame.as_bytes()).unwrap_or_else(|error| panic!("{frame}: {error}"));
            }
            let tally = meter.tally(is_complete);
            let said = (tally.counted.map(|usage| usage.output), tally.is_final, tally.is_impossible);
            assert_eq!(said, (output, is_final, false), "{frames:?}");
            assert_eq!(tally.text_bytes, 3 * tally.frames, "{frames:?}");
        };
        check(&[token, stop, usage], true, Some(2), true);
        check(&[token, usage, stop], true, Some(2), true);
        // Its client left, or it broke, before `[DONE]`: the provider may have had another count to give.
        check(&[token, stop, usage], false, Some(2), false);
        check(&[token, usage, stop], false, Some(2), false);
        check(&[token, stop], true, None, false);
        // With every frame, each time from the beginning: the last is the whole, twice is not the sum.
        check(&[running, running, stop, usage, usage], true, Some(2), true);
        check(&[running, running], false, Some(1), false);
        check(&[running, token, stop], true, Some(1), false);
        check(&[usage, token, stop], true, Some(2), false);
        check(&[token, stop, input_only], true, Some(0), false);
        check(&[token, stop, usage, r#"{"choices":[],"usage":{}}"#], true, Some(2), true);
    }

    #[test]
    fn the_text_of_an_answer_is_measured() {
        let check = |frame: &str, text_bytes: u64| {
            let mut meter = Meter::default();
            let seen = meter.read(frame.as_bytes()).unwrap_or_else(|error| panic!("{frame}: {error}"));
            assert!(seen.good, "{frame}");
            assert_eq!(meter.tally(false).text_bytes, text_bytes, "{frame}");
        };
        let delta = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
        check(&delta(r#"{"content":"h\u00e9\n"}"#), 4);
        check(&delta(r#"{"reasoning_content":"ab","content":"c"}"#), 3);
        check(&delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}"#), 2);
        check(r#"{"choices":[{"index":0,"text":"x"},{"index":1,"text":"yz"}]}"#, 3);
        // Half a surrogate pair, of a provider that cuts between the two.
        check(&delta(r#"{"content":"\ud83d"}"#), 3);
        check(&delta(r#"{"content":"\\uDE00\ude00"}"#), 9);
        let frame = r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}],"usage":{"prompt_tokens":5}}"#;
        let seen = Meter::default().read(frame.as_bytes()).map(|seen| seen.usage.map(|usage| usage.as_ptr()));
        let there = frame.find(r#"{"prompt"#).map(|at| frame[at..].as_ptr());
        assert_eq!(seen.ok(), Some(there), "it lies in the frame itself");
        let whole = |body: &str, text_bytes: u64| {
            let tally = read_whole(body.as_bytes()).map(|whole| whole.tally.text_bytes);
            assert_eq!(tally.ok(), Some(text_bytes), "{body}");
        };
        whole(r#"{"choices":[{"message":{"role":"assistant","content":"Hello"}}]}"#, 5);
        whole(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1}}"#, 5);
        whole(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, 0);
        // Half a surrogate pair, where a ceiling cut an answer short.
        whole(r#"{"choices":[{"message":{"content":"\ud83d"}}]}"#, 3);
        whole(r#"{"output":"Hello"}"#, 18);
        whole(r#"{"choices":{"content":"abc"}}"#, 3);
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
