//! The tokens of an answer: as its provider counted them, or as we estimate them where it did not.
//!
//! It exists so that an answer without usage is never free and never charged by a rule of thumb alone: how many
//! bytes of text a model makes of a token is learned from the answers that were counted. Where it errs, an
//! estimate is too high. It keeps nothing; whoever shares a [`BytesPerToken`] among requests keeps it.

use super::usage::Usage;

/// One byte, in the unit of [`BytesPerToken`].
const ONE: u32 = 256;
/// Visible text has a byte or more to a token. Less is thought that was not shown: three tokens to one that was
/// are believed, so that one long thought does not measure every answer after it.
const LEAST: u32 = ONE / 4;
/// More text than any tokenizer puts into one token, on average.
const MOST: u32 = 16 * ONE;
/// In tokens: a shorter answer is mostly what surrounds its text, a role and an end.
const MIN_OUTPUT: u64 = 32;
/// What is learned upwards is this part of the difference; downwards it is all of it.
const CAUTION: u32 = 16;

/// What is known of the tokens of one answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UsageTally {
    /// As the provider counted them, the last time that it did. A provider that counts more than once counts
    /// from the beginning each time, so that counts are never added up.
    pub counted: Option<Usage>,
    /// Whether nothing of the answer can have come after that count, and the output was part of it.
    pub is_final: bool,
    /// The provider counted, and only what cannot be: less than nothing, parts of tokens, more than any answer
    /// has, words.
    pub is_impossible: bool,
    /// Frames that carried a token; at most one of a whole answer.
    pub frames: u64,
    /// Bytes of text: content, reasoning, arguments of calls. None of a whole answer that was counted.
    pub text_bytes: u64,
}

/// How the tokens of an answer are known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Basis {
    /// By the provider's last count.
    #[default]
    Counted,
    /// By us, or in part: nobody counted, the answer broke, or its count left the output out.
    Estimated,
}

impl Basis {
    /// Whether a part was counted by us.
    pub fn is_estimate(self) -> bool {
        self != Self::Counted
    }
}

impl UsageTally {
    /// The tokens, and how they are known. `input` is a guess, for where nobody counted it.
    pub fn tokens(self, input: u64, measure: BytesPerToken) -> (Usage, Basis) {
        let seen = || measure.tokens(self.text_bytes).max(self.frames).max(1);
        match self.counted {
            Some(usage) if self.is_final => (usage, Basis::Counted),
            Some(usage) => (Usage { output: usage.output.max(seen()), ..usage }, Basis::Estimated),
            None => (Usage { input, output: seen(), ..Usage::default() }, Basis::Estimated),
        }
    }

    /// The same of an answer that is no text: embeddings.
    pub fn without_output(self, input: u64) -> (Usage, Basis) {
        match self.counted {
            Some(usage) => (usage, Basis::Counted),
            None => (Usage { input, ..Usage::default() }, Basis::Estimated),
        }
    }
}

/// How many bytes of text one model makes of a token, cautiously, in 256ths of a byte.
///
/// It starts at a byte, which no text falls below, comes up slowly with what answers show, and goes down with one
/// at once. So it is near the least that a model was seen to do, and an estimate near the most.
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

    /// As it is after an answer with so much text that was counted as `output` tokens. What its provider thought
    /// and did not show counts too.
    pub fn learn(self, text_bytes: u64, output: u64) -> Self {
        if output < MIN_OUTPUT || text_bytes == 0 {
            return self;
        }
        let shown = text_bytes.saturating_mul(ONE.into()) / output;
        let shown = u32::try_from(shown).unwrap_or(MOST).clamp(LEAST, MOST);
        Self(if shown < self.0 { shown } else { self.0 + (shown - self.0) / CAUTION })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUESS: u64 = 9;

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn the_providers_last_word_counts_and_else_what_was_seen() {
        let check = |tally: UsageTally, expected: (Usage, Basis)| {
            assert_eq!(tally.tokens(GUESS, BytesPerToken(2 * ONE)), expected, "{tally:?}");
        };
        let seen = UsageTally { frames: 3, text_bytes: 11, ..UsageTally::default() };
        let counted = |output| UsageTally { counted: Some(usage(5, output)), ..seen };
        check(UsageTally { is_final: true, ..counted(1) }, (usage(5, 1), Basis::Counted));
        check(UsageTally { is_final: true, ..counted(0) }, (usage(5, 0), Basis::Counted));
        // A count that came before the end is a floor.
        check(counted(2), (usage(5, 6), Basis::Estimated));
        check(counted(8), (usage(5, 8), Basis::Estimated));
        check(seen, (usage(GUESS, 6), Basis::Estimated));
        check(UsageTally { frames: 7, ..seen }, (usage(GUESS, 7), Basis::Estimated));
        check(UsageTally { is_impossible: true, ..seen }, (usage(GUESS, 6), Basis::Estimated));
        check(UsageTally::default(), (usage(GUESS, 1), Basis::Estimated));
        assert_eq!(seen.without_output(GUESS), (usage(GUESS, 0), Basis::Estimated));
        assert_eq!(counted(0).without_output(GUESS), (usage(5, 0), Basis::Counted));
    }

    #[test]
    fn a_model_is_learned_slowly_upwards_and_at_once_downwards() {
        let mut measure = BytesPerToken::default();
        let mut after = |answers: u32, text_bytes: u64, output: u64| {
            for _ in 0..answers {
                measure = measure.learn(text_bytes, output);
            }
            measure.tokens(4_000)
        };
        assert_eq!(after(0, 0, 0), 4_000);
        assert_eq!(after(1, 400, 100), 3_369);
        assert_eq!(after(20, 400, 100), 1_248);
        assert_eq!(after(200, 400, 100), 1_015);
        // What says nothing changes nothing.
        assert_eq!(after(50, 31, 31), 1_015);
        assert_eq!(after(50, 0, 100), 1_015);
        // One answer of denser text, then one that was mostly thought.
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
            let mut measure = BytesPerToken::default();
            for (bytes, output) in &answers {
                measure = measure.learn(*bytes, *output);
                prop_assert!((LEAST..=MOST).contains(&measure.0));
                prop_assert!(measure.tokens(*bytes) >= (*output).min(4 * bytes), "{measure:?}");
            }
            prop_assert!(measure.tokens(text_bytes) >= 1 || text_bytes == 0);
            prop_assert!(measure.tokens(text_bytes) <= text_bytes.saturating_mul(4));
        }
    }
}
