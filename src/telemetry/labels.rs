//! The values that a metric's label may have.
//!
//! A label is a configured name or a value of a closed enum. Neither a `String` nor a `Box<str>`
//! converts to a [`Label`], so text from a client cannot become one: the number of series is bounded by
//! the configuration.
//!
//! Start reading in [`Label`].

use crate::domain::breaker::{StateName, TransitionCause};
use crate::domain::limit::LimitKind;
use crate::domain::reason::Reason;
use crate::domain::receipt::Receipt;
use crate::domain::usage::Usage;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The value of a label.
#[derive(Clone, Debug)]
pub(super) enum Label {
    /// A name from the configuration.
    Name(Arc<str>),
    /// A value from the source code.
    Word(&'static str),
}

impl Label {
    /// In place of a missing name, for instance the tier of a refused request.
    pub(super) const NONE: Self = Self::Word("none");

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Word(word) => word,
        }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&Arc<str>> for Label {
    fn from(name: &Arc<str>) -> Self {
        Self::Name(name.clone())
    }
}

impl From<Option<&Arc<str>>> for Label {
    fn from(name: Option<&Arc<str>>) -> Self {
        name.map_or(Self::NONE, Self::from)
    }
}

impl From<Reason> for Label {
    fn from(reason: Reason) -> Self {
        Self::Word(reason.label())
    }
}

impl From<LimitKind> for Label {
    fn from(limit: LimitKind) -> Self {
        Self::Word(limit.label())
    }
}

impl From<StateName> for Label {
    fn from(state: StateName) -> Self {
        Self::Word(state.label())
    }
}

/// What became of a stream that broke and was to go on at another deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayOutcome {
    /// It goes on there.
    Continued,
    /// The other answer is not the same.
    Diverged,
    /// Nothing else answered or could be asked, or what the client has is more than text.
    Failed,
}

impl ReplayOutcome {
    /// Every outcome.
    pub(super) const ALL: [Self; 3] = [Self::Continued, Self::Diverged, Self::Failed];
}

impl From<ReplayOutcome> for Label {
    fn from(outcome: ReplayOutcome) -> Self {
        Self::Word(match outcome {
            ReplayOutcome::Continued => "continued",
            ReplayOutcome::Diverged => "diverged",
            ReplayOutcome::Failed => "failed",
        })
    }
}

impl From<Option<TransitionCause>> for Label {
    /// A breaker opens for a cause; without one it has recovered.
    fn from(cause: Option<TransitionCause>) -> Self {
        Self::Word(cause.map_or("recovered", TransitionCause::label))
    }
}

/// The `mode` label: what was asked for. A whole answer's first token arrives with its last, so that figures of the two
/// mean different things and are never added up.
#[derive(Clone, Copy, Debug)]
pub(super) enum ModeLabel {
    /// A stream.
    Stream,
    /// A whole answer.
    Whole,
    /// Refused before the body said which.
    Unknown,
}

impl ModeLabel {
    /// The modes of requests that were read.
    pub(super) const READ: [Self; 2] = [Self::Stream, Self::Whole];

    pub(super) fn of(receipt: &Receipt) -> Self {
        match (receipt.stream, &receipt.asked_model) {
            (true, _) => Self::Stream,
            (false, Some(_)) => Self::Whole,
            (false, None) => Self::Unknown,
        }
    }
}

impl From<ModeLabel> for Label {
    fn from(mode: ModeLabel) -> Self {
        match mode {
            ModeLabel::Stream => Self::Word("stream"),
            ModeLabel::Whole => Self::Word("whole"),
            ModeLabel::Unknown => Self::NONE,
        }
    }
}

/// A model as reached through a tier, `TIER:MODEL`, for `tierway_fallbacks_total`.
pub(super) fn model_in_tier(tier: Option<&Arc<str>>, model: &Arc<str>) -> Label {
    let tier = Label::from(tier);
    Label::Name(format!("{}:{model}", tier.as_str()).into())
}

/// The `kind` label of `tierway_tokens_total`.
#[derive(Clone, Copy, Debug)]
pub(super) enum TokenKind {
    /// All input.
    Input,
    /// The part of the input that a provider had cached.
    CachedInput,
    /// All output.
    Output,
    /// The part of the output spent on reasoning.
    Reasoning,
}

impl TokenKind {
    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Input, Self::CachedInput, Self::Output, Self::Reasoning];

    /// How many tokens of this kind were used.
    pub(super) fn of(self, usage: Usage) -> u64 {
        match self {
            Self::Input => usage.input,
            Self::CachedInput => usage.cached_input,
            Self::Output => usage.output,
            Self::Reasoning => usage.reasoning,
        }
    }
}

impl From<TokenKind> for Label {
    fn from(kind: TokenKind) -> Self {
        Self::Word(match kind {
            TokenKind::Input => "input",
            TokenKind::CachedInput => "cached_input",
            TokenKind::Output => "output",
            TokenKind::Reasoning => "reasoning",
        })
    }
}

/// Whether something is in the configuration.
pub(super) fn configured(is_configured: bool) -> Label {
    Label::Word(if is_configured { "yes" } else { "no" })
}

/// The `result` label of `tierway_config_reloads_total`.
pub(super) fn reload(ok: bool) -> Label {
    Label::Word(if ok { "ok" } else { "failed" })
}
