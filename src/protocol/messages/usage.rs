//! What Anthropic says of tokens. Its input counts neither what was read from the cache nor what was written to it; ours
//! is all of them together.
//!
//! In a stream the first report has the input and the last one the output; what a later one does not say stays as it was.
//!
//! Start reading in [`MessagesUsage::report`].

use crate::domain::usage::{ByTokenClass, TokenClass, Usage};
use crate::protocol::UsageReport;
use crate::protocol::json::lenient::{LenientObject, TokenCount};
use serde::Deserialize;

/// More tokens than any answer has; a count beyond it is a fault, not a number.
const ABSURD: u64 = 1_000_000_000;

/// A `usage`, as it is written. Of a member that is `null` nothing is said.
#[derive(Clone, Copy, Default, Deserialize, Debug)]
#[serde(default)]
pub(super) struct MessagesUsage {
    /// Neither read from the cache nor written to it.
    #[serde(rename = "input_tokens")]
    uncached: Option<TokenCount>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<TokenCount>,
    /// For whatever time.
    #[serde(rename = "cache_creation_input_tokens")]
    cache_written: Option<TokenCount>,
    cache_creation: Option<LenientObject<WrittenByTime>>,
    /// Thinking included.
    #[serde(rename = "output_tokens")]
    output: Option<TokenCount>,
    output_tokens_details: Option<LenientObject<OutputParts>>,
}

/// What was written to the cache, by how long it stays there.
#[derive(Clone, Copy, Default, Deserialize, Debug)]
#[serde(default)]
struct WrittenByTime {
    ephemeral_5m_input_tokens: Option<TokenCount>,
    ephemeral_1h_input_tokens: Option<TokenCount>,
}

#[derive(Clone, Copy, Default, Deserialize, Debug)]
#[serde(default)]
struct OutputParts {
    thinking_tokens: Option<TokenCount>,
}

impl MessagesUsage {
    /// What `json`, the value of a `usage`, says; `None` where it says nothing.
    pub(super) fn of(json: &str) -> Option<Self> {
        (json != "null").then(|| {
            let impossible = Self { uncached: Some(TokenCount(None)), ..Self::default() };
            if json.starts_with('{') { serde_json::from_str(json).unwrap_or(impossible) } else { impossible }
        })
    }

    /// This, and of what `later` does not say, what was said before.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            uncached: later.uncached.or(self.uncached),
            cache_read: later.cache_read.or(self.cache_read),
            cache_written: later.cache_written.or(self.cache_written),
            cache_creation: later.cache_creation.or(self.cache_creation),
            output: later.output.or(self.output),
            output_tokens_details: later.output_tokens_details.or(self.output_tokens_details),
        }
    }

    /// The counts as the domain has them. `is_last`: the output is counted to its end.
    pub(super) fn report(self, is_last: bool) -> UsageReport {
        let is_impossible = |count: Option<TokenCount>| count.is_some_and(|count| sane(count).is_none());
        if is_impossible(self.uncached) || is_impossible(self.output) {
            return UsageReport { usage: None, has_output: false, is_impossible: true };
        }
        let Some(uncached) = self.uncached.and_then(sane) else { return UsageReport::default() };
        let part = |count: Option<TokenCount>| count.and_then(sane).unwrap_or(0);
        let by_time = self.cache_creation.unwrap_or_default().0;
        let (for_5m, for_1h) = (part(by_time.ephemeral_5m_input_tokens), part(by_time.ephemeral_1h_input_tokens));
        let (read, written) = (part(self.cache_read), part(self.cache_written).max(for_5m + for_1h));
        let output = part(self.output);
        let thinking = part(self.output_tokens_details.unwrap_or_default().0.thinking_tokens);
        let mut apart = ByTokenClass::NONE;
        // What is not said to stay longer does not.
        apart.set(TokenClass::CacheWrite, written - for_1h);
        apart.set(TokenClass::CacheWrite1h, for_1h);
        let usage = Usage {
            input: uncached + read + written,
            cached_input: read,
            output,
            reasoning: thinking.min(output),
            apart,
        };
        UsageReport { usage: Some(usage), has_output: is_last && self.output.is_some(), is_impossible: false }
    }
}

fn sane(count: TokenCount) -> Option<u64> {
    count.0.filter(|count| *count <= ABSURD)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input, of it read and written for 5 minutes and an hour, output, of it thinking.
    fn counts(report: UsageReport) -> Option<[u64; 6]> {
        let usage = report.usage?;
        let written = |class| usage.apart.get(class);
        let (short, long) = (written(TokenClass::CacheWrite), written(TokenClass::CacheWrite1h));
        Some([usage.input, usage.cached_input, short, long, usage.output, usage.reasoning])
    }

    #[test]
    fn input_beside_the_cache_is_added_to_it() {
        let check = |json: &str, expected: [u64; 6]| {
            let report = MessagesUsage::of(json).expect("it says something").report(true);
            assert_eq!((counts(report), report.has_output), (Some(expected), true), "{json}");
        };
        check(r#"{"input_tokens":10,"output_tokens":5}"#, [10, 0, 0, 0, 5, 0]);
        check(
            r#"{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":100,"output_tokens":7}"#,
            [103, 100, 0, 0, 7, 0],
        );
        // 20 + 300 read + 1,000 written, 400 of them for an hour.
        check(
            r#"{"input_tokens":20,"cache_read_input_tokens":300,"cache_creation_input_tokens":1000,
                "cache_creation":{"ephemeral_5m_input_tokens":600,"ephemeral_1h_input_tokens":400},
                "output_tokens":50,"output_tokens_details":{"thinking_tokens":30},"service_tier":"standard"}"#,
            [1320, 300, 600, 400, 50, 30],
        );
        // The split without its sum, and a sum of which the split says less.
        check(
            r#"{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":9},"output_tokens":1}"#,
            [10, 0, 0, 9, 1, 0],
        );
        check(
            r#"{"input_tokens":1,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":4},"output_tokens":1}"#,
            [10, 0, 5, 4, 1, 0],
        );
        // Zero read, something written: no detector can take it for the other convention.
        check(
            r#"{"input_tokens":5,"cache_read_input_tokens":0,"cache_creation_input_tokens":7,"output_tokens":1}"#,
            [12, 0, 7, 0, 1, 0],
        );
        check(
            r#"{"input_tokens":1,"output_tokens":2,"output_tokens_details":{"thinking_tokens":9}}"#,
            [1, 0, 0, 0, 2, 2],
        );
    }

    #[test]
    fn a_later_report_replaces_what_it_says_and_nothing_else() {
        let start = r#"{"input_tokens":20,"cache_read_input_tokens":300,"cache_creation_input_tokens":10,
            "cache_creation":{"ephemeral_1h_input_tokens":10},"output_tokens":2}"#;
        let start = MessagesUsage::of(start).expect("it says something");
        assert!(!start.report(false).has_output);
        let check = |later: &str, expected: [u64; 6]| {
            let all = start.then(MessagesUsage::of(later).expect("it says something"));
            assert_eq!(counts(all.report(true)), Some(expected), "{later}");
        };
        check(r#"{"output_tokens":40}"#, [330, 300, 0, 10, 40, 0]);
        check(r#"{"output_tokens":40,"input_tokens":null,"cache_read_input_tokens":null}"#, [330, 300, 0, 10, 40, 0]);
        check(r#"{"output_tokens":40,"input_tokens":25,"cache_read_input_tokens":0}"#, [35, 0, 0, 10, 40, 0]);
    }

    #[test]
    fn what_cannot_be_a_count_is_none() {
        for impossible in [
            "[]",
            "7",
            r#"{"input_tokens":-1}"#,
            r#"{"input_tokens":"5"}"#,
            r#"{"input_tokens":1,"output_tokens":1.5}"#,
        ] {
            let report = MessagesUsage::of(impossible).map(|usage| usage.report(true));
            assert!(report.is_some_and(|report| report.is_impossible && report.usage.is_none()), "{impossible}");
        }
        assert!(MessagesUsage::of("null").is_none());
        assert_eq!(MessagesUsage::of("{}").map(|usage| usage.report(true)), Some(UsageReport::default()));
    }
}
