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
    /// The parts of `input` and `output` that some models price apart. None of them overlaps with another one or with
    /// `cached_input`.
    pub apart: ByTokenClass<u64>,
}

/// A kind of token that some models price apart from other input or output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenClass {
    /// Input that the provider wrote to its cache, for some minutes or for a time that it does not say.
    CacheWrite,
    /// Input that it wrote to its cache for an hour.
    CacheWrite1h,
    /// Input that was sound.
    AudioInput,
    /// Input that was pictures.
    ImageInput,
    /// Output that is sound.
    AudioOutput,
    /// Output that is pictures.
    ImageOutput,
}

impl TokenClass {
    /// All, in the order in which tokens are assigned to them.
    pub const ALL: [Self; 6] = [
        Self::CacheWrite,
        Self::CacheWrite1h,
        Self::AudioInput,
        Self::ImageInput,
        Self::AudioOutput,
        Self::ImageOutput,
    ];

    /// Its name in configuration, the price catalogue and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheWrite => "cache_write",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioInput => "audio_input",
            Self::ImageInput => "image_input",
            Self::AudioOutput => "audio_output",
            Self::ImageOutput => "image_output",
        }
    }

    /// The class of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Whether it is a part of the output, and not of the input.
    pub fn is_output(self) -> bool {
        matches!(self, Self::AudioOutput | Self::ImageOutput)
    }
}

/// One value for each [`TokenClass`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ByTokenClass<T>([T; TokenClass::ALL.len()]);

impl ByTokenClass<u64> {
    /// No token of any class.
    pub const NONE: Self = Self([0; TokenClass::ALL.len()]);
}

impl<T: Copy> ByTokenClass<T> {
    /// The value of `class`.
    pub fn get(&self, class: TokenClass) -> T {
        self.0[class as usize]
    }

    /// Replaces the value of `class`.
    pub fn set(&mut self, class: TokenClass, value: T) {
        self.0[class as usize] = value;
    }

    /// Every class with its value.
    pub fn iter(&self) -> impl Iterator<Item = (TokenClass, T)> + '_ {
        TokenClass::ALL.into_iter().map(|class| (class, self.get(class)))
    }
}

impl Usage {
    /// The sum of input and output tokens.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
