//! Tokens as a provider counts them.
//!
//! It exists because providers disagree on what "input" includes. Here cached input is part of input and reasoning
//! is part of output, as OpenAI reports them. It must never contain estimates without saying so: see
//! [`estimate`](super::estimate).

/// Tokens of one answer. All counts are LLM tokens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// All input tokens, the cached ones included.
    pub input: u64,
    /// The part of `input` the provider served from its cache.
    pub cached_input: u64,
    /// All output tokens, reasoning included.
    pub output: u64,
    /// The part of `output` spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// The sum of input and output tokens.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
