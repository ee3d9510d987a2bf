//! The tokens of an answer: as its provider counted them, or an estimate if it did not.
//!
//! It exists so that an answer without usage is never free and never charged by a fixed rule alone: the bytes of text
//! per token of a model are learned from answers that were counted. If an estimate errs, it is too high. It must
//! never store anything: the caller shares a [`BytesPerToken`] among requests.
//!
//! Start reading in [`UsageTally::tokens`].

use super::usage::Usage;

/// One byte, in the unit of [`BytesPerToken`].
const ONE: u32 = 256;
/// The lower bound of what is learned. Visible text has at least one byte per token; less means hidden reasoning, of
/// which at most three tokens per visible one count, so that one long reasoning does not raise all later estimates.
const LEAST: u32 = ONE / 4;
/// The upper bound of what is learned: more text than any tokenizer puts into one token on average.
const MOST: u32 = 16 * ONE;
/// Output tokens from which on an answer is learned from: a shorter one is mostly overhead such as its role.
const LEAST_OUTPUT: u64 = 32;
/// Upwards, this fraction of the difference is learned; downwards, all of it.
const UPWARD_FRACTION: u32 = 16;

/// Tokens of an image at a model of which it is not known: OpenAI counts 765 for 1024 × 1024 pixels in detail, Google four tiles of 258, Anthropic
/// a token for each 750 pixels, 1,398.
pub const USUAL_IMAGE: u64 = 1_000;
/// Bytes of base64 to a token of a recording: 32 tokens a second at Google, the most, of which speech as MP3 has some
/// 16 KB, and 21 of base64.
const RECORDED_BYTES_PER_TOKEN: u64 = 512;
/// Bytes of base64 to a token of a file: a page of a PDF is some 1,500 to 3,000 tokens at Anthropic and 258 at Google,
/// and some 40 KB.
const FILE_BYTES_PER_TOKEN: u64 = 24;

/// Media in the body of a request. Their bytes are not their tokens: they count at the size that is usual for them, which
/// is good enough for a rate and no bound.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MediaSize {
    /// How many images there are, in the body or by reference.
    pub images: u32,
    /// Bytes of the body that are images.
    pub image_bytes: u64,
    /// Bytes of the body that are audio or video.
    pub recorded_bytes: u64,
    /// Bytes of the body that are encoded files.
    pub file_bytes: u64,
}

impl MediaSize {
    /// These and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            images: self.images.saturating_add(other.images),
            image_bytes: self.image_bytes.saturating_add(other.image_bytes),
            recorded_bytes: self.recorded_bytes.saturating_add(other.recorded_bytes),
            file_bytes: self.file_bytes.saturating_add(other.file_bytes),
        }
    }

    /// How many bytes of the body they are.
    pub fn bytes(self) -> u64 {
        self.image_bytes.saturating_add(self.recorded_bytes).saturating_add(self.file_bytes)
    }

    /// Their tokens at the size that is usual for them, where an image takes `image` tokens.
    pub fn usual_tokens(self, image: u64) -> u64 {
        let images = u64::from(self.images).saturating_mul(image);
        let recorded = self.recorded_bytes.div_ceil(RECORDED_BYTES_PER_TOKEN);
        images.saturating_add(recorded).saturating_add(self.file_bytes.div_ceil(FILE_BYTES_PER_TOKEN))
    }
}

/// What was observed of the tokens of one answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UsageTally {
    /// The last usage that the provider reported. A provider that reports more than once counts from the beginning
    /// each time, so reports are never added up.
    pub counted: Option<Usage>,
    /// Whether that report covers the whole answer, its output included.
    pub is_final: bool,
    /// Whether the provider reported only impossible usage: negative, fractional or absurdly large numbers, or text.
    pub is_impossible: bool,
    /// The number of frames that carried a token; at most 1 for a whole answer.
    pub frames: u64,
    /// Bytes of text: content, reasoning, arguments of calls. 0 for a whole answer with reported usage.
    pub text_bytes: u64,
}

/// Where the tokens of an answer come from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum UsageBasis {
    /// The provider's final report.
    #[default]
    Counted,
    /// Our estimate, in whole or in part: there was no report, the answer broke, or the report lacked the output.
    Estimated,
}

impl UsageBasis {
    /// Whether any part is estimated.
    pub fn is_estimate(self) -> bool {
        self != Self::Counted
    }
}

impl UsageTally {
    /// The tokens, and where they come from. `input` is the estimate used if the provider did not report input; that
    /// it was none is no report.
    pub fn tokens(self, input: u64, bytes_per_token: BytesPerToken) -> (Usage, UsageBasis) {
        let seen = || bytes_per_token.tokens(self.text_bytes).max(self.frames).max(1);
        match self.counted {
            Some(usage) if self.is_final => with_input(usage, input),
            Some(usage) => {
                (with_input(Usage { output: usage.output.max(seen()), ..usage }, input).0, UsageBasis::Estimated)
            }
            None => (Usage { input, output: seen(), ..Usage::default() }, UsageBasis::Estimated),
        }
    }

    /// The same for an answer without output tokens: embeddings.
    pub fn without_output(self, input: u64) -> (Usage, UsageBasis) {
        with_input(self.counted.unwrap_or_default(), input)
    }
}

/// `usage` as counted, with `input` as its input where it has none: every request has some.
fn with_input(usage: Usage, input: u64) -> (Usage, UsageBasis) {
    match usage.input {
        0 => (Usage { input, ..usage }, UsageBasis::Estimated),
        _ => (usage, UsageBasis::Counted),
    }
}

/// A cautious estimate of the bytes of text per token of one model, in 256ths of a byte.
///
/// It starts at one byte, the least that text can have, rises slowly with answers that have more, and falls at once
/// with an answer that has less. So it is near the least that was observed, and token estimates are near the most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BytesPerToken(pub u32);

impl Default for BytesPerToken {
    fn default() -> Self {
        Self(ONE)
    }
}

impl BytesPerToken {
    /// Tokens in `text_bytes`, rounded up.
    pub fn tokens(self, text_bytes: u64) -> u64 {
        text_bytes.saturating_mul(ONE.into()).div_ceil(u64::from(self.0.max(1)))
    }

    /// The value after an answer with `text_bytes` of text that was counted as `output` tokens, hidden reasoning
    /// included.
    pub fn learn(self, text_bytes: u64, output: u64) -> Self {
        if output < LEAST_OUTPUT || text_bytes == 0 {
            return self;
        }
        let observed = text_bytes.saturating_mul(ONE.into()) / output;
        let observed = u32::try_from(observed).unwrap_or(MOST).clamp(LEAST, MOST);
        Self(if observed < self.0 { observed } else { self.0 + (observed - self.0) / UPWARD_FRACTION })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUT_ESTIMATE: u64 = 9;

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn the_providers_final_report_counts_and_otherwise_what_was_seen() {
        let check = |tally: UsageTally, expected: (Usage, UsageBasis)| {
            assert_eq!(tally.tokens(INPUT_ESTIMATE, BytesPerToken(2 * ONE)), expected, "{tally:?}");
        };
        let seen = UsageTally { frames: 3, text_bytes: 11, ..UsageTally::default() };
        let counted = |output| UsageTally { counted: Some(usage(5, output)), ..seen };
        check(UsageTally { is_final: true, ..counted(1) }, (usage(5, 1), UsageBasis::Counted));
        check(UsageTally { is_final: true, ..counted(0) }, (usage(5, 0), UsageBasis::Counted));
        // A report before the end is a lower bound.
        check(counted(2), (usage(5, 6), UsageBasis::Estimated));
        check(counted(8), (usage(5, 8), UsageBasis::Estimated));
        check(seen, (usage(INPUT_ESTIMATE, 6), UsageBasis::Estimated));
        check(UsageTally { frames: 7, ..seen }, (usage(INPUT_ESTIMATE, 7), UsageBasis::Estimated));
        check(UsageTally { is_impossible: true, ..seen }, (usage(INPUT_ESTIMATE, 6), UsageBasis::Estimated));
        check(UsageTally::default(), (usage(INPUT_ESTIMATE, 1), UsageBasis::Estimated));
        assert_eq!(seen.without_output(INPUT_ESTIMATE), (usage(INPUT_ESTIMATE, 0), UsageBasis::Estimated));
        assert_eq!(counted(0).without_output(INPUT_ESTIMATE), (usage(5, 0), UsageBasis::Counted));
        // Every request has some input: that it was none is no count of it.
        let no_input = UsageTally { counted: Some(usage(0, 7)), ..seen };
        check(UsageTally { is_final: true, ..no_input }, (usage(INPUT_ESTIMATE, 7), UsageBasis::Estimated));
        check(no_input, (usage(INPUT_ESTIMATE, 7), UsageBasis::Estimated));
        let zeros = UsageTally { counted: Some(usage(0, 0)), ..seen };
        assert_eq!(zeros.without_output(INPUT_ESTIMATE), (usage(INPUT_ESTIMATE, 0), UsageBasis::Estimated));
    }

    #[test]
    fn media_count_at_their_usual_size() {
        let media = MediaSize { images: 2, image_bytes: 9_000_000, recorded_bytes: 1_000, file_bytes: 2_400 };
        assert_eq!(MediaSize::default().and(media).bytes(), 9_003_400);
        assert_eq!(media.usual_tokens(USUAL_IMAGE), 2_000 + 2 + 100);
        assert_eq!(media.usual_tokens(765), 1_530 + 2 + 100);
        assert_eq!(MediaSize::default().usual_tokens(USUAL_IMAGE), 0);
    }

    #[test]
    fn bytes_per_token_rise_slowly_and_fall_at_once() {
        let mut bytes_per_token = BytesPerToken::default();
        let mut after = |answers: u32, text_bytes: u64, output: u64| {
            for _ in 0..answers {
                bytes_per_token = bytes_per_token.learn(text_bytes, output);
            }
            bytes_per_token.tokens(4_000)
        };
        assert_eq!(after(0, 0, 0), 4_000);
        assert_eq!(after(1, 400, 100), 3_369);
        assert_eq!(after(20, 400, 100), 1_248);
        assert_eq!(after(200, 400, 100), 1_015);
        // Answers that are too short or without text change nothing.
        assert_eq!(after(50, 31, 31), 1_015);
        assert_eq!(after(50, 0, 100), 1_015);
        // One answer of denser text, then answers of mostly hidden reasoning.
        assert_eq!(after(1, 250, 100), 1_600);
        assert_eq!(after(1, 100, 200), 8_000);
        assert_eq!(after(1, 100, 2_000), 16_000);
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_below_the_last_answer_and_never_free(
            answers in prop::collection::vec((1..100_000_u64, 32..100_000_u64), 1..200),
            text_bytes: u64,
        ) {
            let mut bytes_per_token = BytesPerToken::default();
            for (bytes, output) in &answers {
                bytes_per_token = bytes_per_token.learn(*bytes, *output);
                prop_assert!((LEAST..=MOST).contains(&bytes_per_token.0));
                prop_assert!(bytes_per_token.tokens(*bytes) >= (*output).min(4 * bytes), "{bytes_per_token:?}");
            }
            prop_assert!(bytes_per_token.tokens(text_bytes) >= 1 || text_bytes == 0);
            prop_assert!(bytes_per_token.tokens(text_bytes) <= text_bytes.saturating_mul(4));
        }
    }
}
