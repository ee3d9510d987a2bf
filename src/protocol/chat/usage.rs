//! What hosts say of tokens: by whatever names, wherever in a frame or an answer, and what is hidden of it from a
//! client that did not ask.
//!
//! It never adds reports up and never estimates; what a zero beside text means is for whoever saw the text. A member
//! of an unexpected type is as good as absent, except a count that costs money.
//!
//! Start reading in [`usage_report`].

use crate::domain::usage::{ByTokenClass, TokenClass, Usage};
use crate::protocol::UsageReport;
use crate::protocol::json::lenient::{LenientObject, NonEmptyValue, TokenCount};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// More tokens than any answer has; a count beyond it is a fault, not a number.
const ABSURD: u64 = 1_000_000_000;

/// The counts of `json`, the value of a `usage`.
pub(in crate::protocol) fn usage_report(json: &str) -> UsageReport {
    match serde_json::from_str::<UsageCounts>(json) {
        Ok(counts) if json.starts_with('{') => counts.report(),
        Ok(_) | Err(_) => IMPOSSIBLE,
    }
}

const IMPOSSIBLE: UsageReport = UsageReport { usage: None, has_output: false, is_impossible: true };

/// The usage that an object other than the frame itself may hold; none where it is absent or `null`.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct NestedUsage(pub(super) Option<UsageReport>);

impl<'de> Deserialize<'de> for NestedUsage {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        Ok(Self((raw != "null").then(|| usage_report(raw))))
    }
}

/// An object that may hold usage: a choice of Moonshot's, the `x_groq` of Groq's.
#[derive(Default, Deserialize)]
pub(super) struct UsageHolderObject {
    #[serde(default)]
    pub(super) usage: NestedUsage,
}

/// The usage of a whole answer that has none where it should be: in a choice, or in `x_groq`.
pub(super) fn usage_elsewhere(answer: &[u8]) -> Option<UsageReport> {
    #[derive(Deserialize)]
    struct AnswerObject {
        #[serde(default)]
        choices: Vec<LenientObject<UsageHolderObject>>,
        #[serde(default)]
        x_groq: LenientObject<UsageHolderObject>,
    }

    let answer: AnswerObject = serde_json::from_slice(answer).ok()?;
    let in_choices = answer.choices.iter().filter_map(|choice| choice.0.usage.0).next_back();
    answer.x_groq.0.usage.0.or(in_choices)
}

/// The members of a usage object, by what they count.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier)]
enum UsageMember {
    #[serde(rename = "prompt_tokens")]
    Input,
    #[serde(rename = "completion_tokens")]
    Output,
    /// Names of other APIs, which some hosts write beside those of this one, at times as zeros.
    #[serde(rename = "input_tokens")]
    OtherInput,
    #[serde(rename = "output_tokens")]
    OtherOutput,
    #[serde(rename = "total_tokens")]
    Total,
    #[serde(
        rename = "cached_tokens",
        alias = "prompt_cache_hit_tokens",
        alias = "num_cached_tokens",
        alias = "cached_prompt_tokens",
        alias = "prompt_cached_tokens",
        alias = "prompt_tokens_cached",
        alias = "cached_input_tokens",
        alias = "input_cached_tokens",
        alias = "cache_hit_tokens",
        alias = "cache_read_tokens",
        alias = "cached_prompt_text_tokens",
        alias = "cache_read",
        alias = "tokens_cached",
        alias = "cachedTokens",
        alias = "cachedInputTokens",
        alias = "cached_content_token_count",
        alias = "cachedContentTokenCount"
    )]
    Cached,
    /// Under Anthropic's names, which count beside the input at some hosts and within it at others.
    #[serde(rename = "cache_read_input_tokens", alias = "cacheReadInputTokens", alias = "cacheReadInputTokenCount")]
    CacheRead,
    #[serde(
        rename = "cache_creation_input_tokens",
        alias = "cache_creation_tokens",
        alias = "cache_write_input_tokens",
        alias = "cache_write_tokens",
        alias = "cacheWriteInputTokens",
        alias = "cacheWriteInputTokenCount"
    )]
    CacheWritten,
    #[serde(rename = "audio_tokens")]
    Audio,
    #[serde(rename = "image_tokens")]
    Image,
    #[serde(
        rename = "reasoning_tokens",
        alias = "thinking_tokens",
        alias = "thoughts_token_count",
        alias = "thoughtsTokenCount"
    )]
    Reasoning,
    #[serde(
        rename = "prompt_tokens_details",
        alias = "input_tokens_details",
        alias = "prompt_token_details",
        alias = "input_token_details"
    )]
    InputDetails,
    #[serde(
        rename = "completion_tokens_details",
        alias = "output_tokens_details",
        alias = "completion_token_details",
        alias = "output_token_details"
    )]
    OutputDetails,
    #[serde(other)]
    Other,
}

/// What a usage object says, before anything is made of it. Of two members of one name the last one counts.
#[derive(Clone, Copy, Default, Debug)]
struct UsageCounts {
    input: Option<TokenCount>,
    output: Option<TokenCount>,
    other_input: Option<TokenCount>,
    other_output: Option<TokenCount>,
    total: Option<u64>,
    /// The largest of what may be said under several names.
    cached: u64,
    cache_read: u64,
    cache_written: u64,
    reasoning: u64,
    /// In details only: sound and pictures among what they are the details of.
    audio: u64,
    image: u64,
    apart: ByTokenClass<u64>,
}

impl<'de> Deserialize<'de> for UsageCounts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct CountsVisitor;

        impl<'de> Visitor<'de> for CountsVisitor {
            type Value = UsageCounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UsageCounts, A::Error> {
                let mut counts = UsageCounts::default();
                while let Some(member) = map.next_key::<UsageMember>()? {
                    counts.take(member, &mut map)?;
                }
                Ok(counts)
            }
        }

        from.deserialize_map(CountsVisitor)
    }
}

impl UsageCounts {
    fn take<'de, A: MapAccess<'de>>(&mut self, member: UsageMember, map: &mut A) -> Result<(), A::Error> {
        match member {
            UsageMember::Input => self.input = map.next_value()?,
            UsageMember::Output => self.output = map.next_value()?,
            UsageMember::OtherInput => self.other_input = map.next_value()?,
            UsageMember::OtherOutput => self.other_output = map.next_value()?,
            UsageMember::Total => self.total = sane(map.next_value()?),
            UsageMember::Cached => self.cached = self.cached.max(part(map.next_value()?)),
            UsageMember::CacheRead => self.cache_read = part(map.next_value()?),
            UsageMember::CacheWritten => self.cache_written = part(map.next_value()?),
            UsageMember::Reasoning => self.reasoning = self.reasoning.max(part(map.next_value()?)),
            UsageMember::Audio => self.audio = part(map.next_value()?),
            UsageMember::Image => self.image = part(map.next_value()?),
            UsageMember::InputDetails => {
                let LenientObject(details) = map.next_value::<LenientObject<Self>>()?;
                self.cached = self.cached.max(details.cached).max(details.cache_read);
                self.apart.set(TokenClass::CacheWrite, details.cache_written);
                self.apart.set(TokenClass::AudioInput, details.audio);
                self.apart.set(TokenClass::ImageInput, details.image);
            }
            UsageMember::OutputDetails => {
                let LenientObject(details) = map.next_value::<LenientObject<Self>>()?;
                self.reasoning = self.reasoning.max(details.reasoning);
                self.apart.set(TokenClass::AudioOutput, details.audio);
                self.apart.set(TokenClass::ImageOutput, details.image);
            }
            UsageMember::Other => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn report(self) -> UsageReport {
        let input = first_said(self.input, self.other_input);
        let output = first_said(self.output, self.other_output);
        let is_impossible = |count: Option<TokenCount>| count.is_some_and(|count| sane(count).is_none());
        if is_impossible(input) || is_impossible(output) {
            return IMPOSSIBLE;
        }
        let (input, output) = (input.and_then(sane), output.and_then(sane));
        // What is missing of the two, the total says.
        let missing =
            |other: Option<u64>| self.total.and_then(|total| total.checked_sub(other?)).filter(|left| *left > 0);
        let Some(input) = input.or_else(|| missing(output)) else { return UsageReport::default() };
        let output = output.filter(|output| *output > 0).or_else(|| missing(Some(input))).or(output);
        let usage = self.usage(input, output.unwrap_or(0));
        UsageReport { usage: Some(usage), has_output: output.is_some(), is_impossible: false }
    }

    /// The counts as the domain has them: what hosts count beside input and output is added to them.
    fn usage(self, mut input: u64, mut output: u64) -> Usage {
        let beyond = self.total.map_or(0, |total| total.saturating_sub(input + output));
        let cached = self.cached.max(self.cache_read);
        let beside = cached + self.cache_written;
        let other_name = self.cache_read + self.cache_written > 0;
        // Where a part is larger than the whole, or only the total has it, it was counted beside it.
        let added = match beyond {
            _ if self.cache_read > input => beside,
            _ if other_name && beyond == beside && beyond != self.reasoning => beside,
            _ if cached > input && beyond >= cached => beside.min(beyond),
            _ => 0,
        };
        input += added;
        let thoughts = beyond.saturating_sub(added);
        output += thoughts;
        let reasoning = self.reasoning.max(thoughts);
        let mut apart = self.apart;
        apart.set(TokenClass::CacheWrite, apart.get(TokenClass::CacheWrite).max(self.cache_written));
        Usage { input, cached_input: cached.min(input), output, reasoning: reasoning.min(output), apart }
    }
}

/// A count under the name of this API, unless it is missing or zero and another API's name says more.
fn first_said(own: Option<TokenCount>, other: Option<TokenCount>) -> Option<TokenCount> {
    match own {
        Some(count) if count.0 != Some(0) => own,
        _ => other.filter(|other| other.0.is_some_and(|count| count > 0)).or(own).or(other),
    }
}

fn sane(count: TokenCount) -> Option<u64> {
    count.0.filter(|count| *count <= ABSURD)
}

/// A count of a part, which costs little: one that cannot be is none.
fn part(count: TokenCount) -> u64 {
    sane(count).unwrap_or(0)
}

/// Whether `frame`, an object without a token and without an end, tells nothing but usage: its choices are missing or
/// say nothing, and what is beside them belongs to every frame.
pub(super) fn is_only_usage(frame: &[u8]) -> bool {
    serde_json::from_slice::<UsageOnlyFrame>(frame).is_ok_and(|frame| frame.0)
}

/// Whether a frame tells nothing but usage.
struct UsageOnlyFrame(bool);

/// Whether a choice says nothing.
struct EmptyChoice(bool);

/// The members of a frame and of a choice, by whether they say something.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum EnvelopeMember {
    #[serde(rename = "choices")]
    Choices,
    #[serde(
        rename = "usage",
        alias = "id",
        alias = "object",
        alias = "created",
        alias = "model",
        alias = "index",
        alias = "system_fingerprint",
        alias = "service_tier",
        alias = "provider",
        alias = "obfuscation",
        alias = "x_groq"
    )]
    Envelope,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for UsageOnlyFrame {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(EmptyVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for EmptyChoice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EmptyVisitor).map(Self)
    }
}

/// Whether an object, or each object of a list, says nothing.
struct EmptyVisitor;

impl<'de> Visitor<'de> for EmptyVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut empty = true;
        while let Some(EmptyChoice(one)) = list.next_element()? {
            empty &= one;
        }
        Ok(empty)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut empty = true;
        while let Some(member) = map.next_key::<EnvelopeMember>()? {
            empty &= match member {
                EnvelopeMember::Choices => map.next_value::<EmptyChoice>()?.0,
                EnvelopeMember::Envelope => map.next_value::<IgnoredAny>().map(|_| true)?,
                EnvelopeMember::Other => !map.next_value::<NonEmptyValue>()?.0,
            };
        }
        Ok(empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_as_domain_tokens() {
        let check = |json: &str, expected: Option<[u64; 4]>| {
            let counted = usage_report(json);
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
        check(r#"{"prompt_tokens":5.0,"completion_tokens":null}"#, Some([5, 0, 0, 0]));
        // Details of another shape say nothing, and the counts around them still count.
        for odd in [r#""none""#, "[1]", "7", "true", r#"{"cached_tokens":"4"}"#, r#"{"cached_tokens":[1]}"#] {
            let usage = r#"{"prompt_tokens":5,"prompt_tokens_details":ODD,"completion_tokens":7,"completion_tokens_details":ODD}"#;
            check(&usage.replace("ODD", odd), Some([5, 0, 7, 0]));
        }
        // The last of two members, as for every client.
        check(r#"{"prompt_tokens":1,"prompt_tokens":5,"completion_tokens":7}"#, Some([5, 0, 7, 0]));
        check(r#"{"prompt_tokens":-5,"completion_tokens":7}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":7.5}"#, None);
        check(r#"{"prompt_tokens":5,"completion_tokens":99999999999}"#, None);
        check(r#"{"prompt_tokens":"5","completion_tokens":7}"#, None);
        check(r#"{"completion_tokens":7}"#, None);
        check("[5,7,12]", None);
        check("null", None);
    }

    #[test]
    fn cached_input_is_read_under_every_known_name() {
        let check = |members: &str, expected: [u64; 3]| {
            let json = format!(r#"{{"prompt_tokens":50,"completion_tokens":7,{members}}}"#);
            let usage = usage_report(&json).usage.map(|u| [u.input, u.cached_input, u.output]);
            assert_eq!(usage, Some(expected), "{json}");
        };
        for name in [
            "cached_tokens",
            "prompt_cache_hit_tokens",
            "num_cached_tokens",
            "cache_read_input_tokens",
            "cached_prompt_tokens",
            "cached_input_tokens",
            "cache_read_tokens",
            "cachedContentTokenCount",
            "cacheReadInputTokenCount",
            "cached_prompt_text_tokens",
        ] {
            check(&format!(r#""{name}":40"#), [50, 40, 7]);
            check(&format!(r#""prompt_tokens_details":{{"{name}":40}}"#), [50, 40, 7]);
            check(&format!(r#""input_tokens_details":{{"audio_tokens":1,"{name}":40}}"#), [50, 40, 7]);
            check(&format!(r#""prompt_token_details":{{"{name}":40}}"#), [50, 40, 7]);
            check(&format!(r#""prompt_tokens_details":{{"cached_tokens":0}},"{name}":40"#), [50, 40, 7]);
            check(&format!(r#""{name}":null"#), [50, 0, 7]);
            check(&format!(r#""{name}":-1"#), [50, 0, 7]);
        }
        check(r#""prompt_cache_hit_tokens":40,"prompt_cache_miss_tokens":10"#, [50, 40, 7]);
        // Counted beside the input: a part cannot be larger than the whole, and the total shows it.
        check(r#""cache_read_input_tokens":400,"cache_creation_input_tokens":3"#, [453, 400, 7]);
        check(r#""cache_read_input_tokens":40,"total_tokens":97"#, [90, 40, 7]);
        check(r#""cache_read_input_tokens":40,"total_tokens":57"#, [50, 40, 7]);
        check(r#""cached_tokens":400,"total_tokens":457"#, [450, 400, 7]);
        check(r#""cached_tokens":40,"total_tokens":97"#, [50, 40, 47]);
    }

    #[test]
    fn tokens_that_may_be_priced_apart_are_read() {
        let check = |input: &str, output: &str, more: &str, expected: [u64; 6]| {
            let json = format!(
                r#"{{"prompt_tokens":90,"prompt_tokens_details":{input},"completion_tokens":9,"completion_tokens_details":{output}{more}}}"#
            );
            let usage = usage_report(&json).usage.expect("the counts are possible");
            assert_eq!(TokenClass::ALL.map(|class| usage.apart.get(class)), expected, "{json}");
        };
        check("{}", "null", "", [0; 6]);
        let input = r#"{"cached_tokens":5,"cache_write_tokens":11,"audio_tokens":12,"image_tokens":13}"#;
        check(input, r#"{"audio_tokens":14,"image_tokens":15}"#, "", [11, 0, 12, 13, 14, 15]);
        check(r#"{"cache_creation_tokens":7,"audio_tokens":-1}"#, r#"{"image_tokens":"x"}"#, "", [7, 0, 0, 0, 0, 0]);
        check("{}", "{}", r#","cache_creation_input_tokens":6"#, [6, 0, 0, 0, 0, 0]);
        check(r#"{"cache_creation_tokens":7}"#, "{}", r#","cache_creation_input_tokens":0"#, [7, 0, 0, 0, 0, 0]);
        // Of the whole they say nothing about input or output.
        check("{}", "{}", r#","audio_tokens":3,"image_tokens":4"#, [0; 6]);
    }

    #[test]
    fn what_only_the_total_knows_is_added() {
        let check = |json: &str, expected: [u64; 3], has_output: bool| {
            let report = usage_report(json);
            let usage = report.usage.map(|u| [u.input, u.output, u.reasoning]);
            assert_eq!((usage, report.has_output), (Some(expected), has_output), "{json}");
        };
        let details = r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":42,"completion_tokens_details":{"reasoning_tokens":30}}"#;
        check(details, [5, 37, 30], true);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":62}"#, [5, 57, 50], true);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"reasoning_tokens":3}"#, [5, 7, 3], true);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":3}"#, [5, 7, 0], true);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":99999999999}"#, [5, 7, 0], true);
        // A count that is missing, or a zero, beside a total that has it.
        check(r#"{"prompt_tokens":5,"total_tokens":12}"#, [5, 7, 0], true);
        check(r#"{"prompt_tokens":5,"completion_tokens":0,"total_tokens":12}"#, [5, 7, 0], true);
        check(r#"{"completion_tokens":7,"total_tokens":12}"#, [5, 7, 0], true);
        check(r#"{"prompt_tokens":5,"total_tokens":5}"#, [5, 0, 0], false);
    }

    #[test]
    fn names_of_other_apis_count_where_ours_say_nothing() {
        let check = |json: &str, expected: [u64; 2]| {
            assert_eq!(usage_report(json).usage.map(|u| [u.input, u.output]), Some(expected), "{json}");
        };
        check(r#"{"input_tokens":5,"output_tokens":7}"#, [5, 7]);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"input_tokens":0,"output_tokens":0}"#, [5, 7]);
        check(r#"{"prompt_tokens":0,"completion_tokens":0,"input_tokens":5,"output_tokens":7}"#, [5, 7]);
        check(r#"{"prompt_tokens":5,"completion_tokens":7,"input_tokens":"x","output_tokens":-1}"#, [5, 7]);
    }

    #[test]
    fn what_cannot_be_a_count_differs_from_no_count() {
        let check = |json: &str, impossible: bool| {
            let counted = usage_report(json);
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
    fn usage_elsewhere_in_an_answer_is_found() {
        let check = |json: &str, expected: Option<u64>| {
            let found = usage_elsewhere(json.as_bytes()).and_then(|report| report.usage);
            assert_eq!(found.map(|usage| usage.output), expected, "{json}");
        };
        check(r#"{"choices":[{"usage":{"prompt_tokens":5,"completion_tokens":7}}]}"#, Some(7));
        check(r#"{"x_groq":{"id":"r","usage":{"prompt_tokens":5,"completion_tokens":7}},"choices":[{}]}"#, Some(7));
        check(r#"{"choices":[{"usage":null}]}"#, None);
        check(r#"{"choices":["x"],"x_groq":"y"}"#, None);
        check(r#"{"data":[{}]}"#, None);
    }

    #[test]
    fn a_frame_that_tells_nothing_but_usage_is_known() {
        let check = |json: &str, expected: bool| assert_eq!(is_only_usage(json.as_bytes()), expected, "{json}");
        let usage = r#""id":"x","object":"chat.completion.chunk","created":1,"model":"m","usage":{"prompt_tokens":1}"#;
        for silent in [
            "",
            r#","choices":[]"#,
            r#","choices":null"#,
            r#","choices":[{"index":0}]"#,
            r#","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]"#,
            r#","choices":[{"index":0,"delta":null,"usage":{"prompt_tokens":1}},{"index":1}]"#,
            r#","choices":[],"citations":[],"x":null"#,
            r#","choices":[],"x_groq":{"id":"r","usage":{"prompt_tokens":1}}"#,
        ] {
            check(&format!("{{{usage}{silent}}}"), true);
        }
        for says in [
            r#","choices":[{"index":0,"delta":{"role":"assistant"}}]"#,
            r#","choices":[{"index":0,"delta":{"content":""}}]"#,
            r#","choices":[{"index":0,"content_filter_results":{"hate":{}}}]"#,
            r#","choices":[],"prompt_filter_results":[{"prompt_index":0}]"#,
            r#","choices":["x"]"#,
        ] {
            check(&format!("{{{usage}{says}}}"), false);
        }
    }
}
