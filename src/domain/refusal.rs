//! The reasons for refusing a request before any attempt.
//!
//! It exists so that every refusal is a value that is handled like an answer: it leaves a receipt, and
//! `http/error.rs` alone maps it to what the client reads. A refusal must never name a deployment or
//! contain a secret.
//!
//! Start reading in [`Refusal`].

use crate::domain::body_member::{GivenMember, MemberObjection};
use crate::domain::budget::OverBudget;
use crate::domain::call::BodyProblem;
use crate::domain::limit::OverLimit;
use crate::domain::provider_state::NamedState;
use crate::domain::reason::Reason;
use crate::domain::secret::KeyHash;
use std::sync::Arc;
use std::time::Duration;

/// Why a key, or a token of operators, was refused: for operators alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyRefusal {
    /// None was presented.
    Missing,
    /// It is nobody's.
    Unknown(KeyHash),
    /// It is that of a key which is disabled or expired, or a secret of it that is.
    NotValid(KeyHash),
}

impl KeyRefusal {
    /// Every word for it.
    pub const LABELS: [&str; 3] = ["missing", "unknown", "not_valid"];

    /// The word for it in logs and metrics.
    pub fn label(&self) -> &'static str {
        let [missing, unknown, not_valid] = Self::LABELS;
        match self {
            Self::Missing => missing,
            Self::Unknown(_) => unknown,
            Self::NotValid(_) => not_valid,
        }
    }

    /// The hash of what was presented.
    pub fn presented(&self) -> Option<&KeyHash> {
        match self {
            Self::Missing => None,
            Self::Unknown(hash) | Self::NotValid(hash) => Some(hash),
        }
    }
}

/// What a key or a token was presented for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretTarget {
    /// `/v1`
    Clients,
    /// `/admin`
    Admin,
    /// `/metrics`
    Metrics,
}

impl SecretTarget {
    /// Every target.
    pub const ALL: [Self; 3] = [Self::Clients, Self::Admin, Self::Metrics];

    /// The word for it in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// Why a request was refused.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// The body is invalid.
    Body(BodyProblem),
    /// A request header of the gateway's own has an invalid value.
    BadHeader {
        /// The header's name.
        name: &'static str,
    },
    /// The headers present two different keys: which one counts may be read differently elsewhere.
    SeveralKeys,
    /// No key, or one that is unknown, disabled or expired: the client does not learn which.
    InvalidKey(KeyRefusal),
    /// No such path below `/v1`.
    UnknownUrl {
        /// As the client wrote it.
        path: Box<str>,
    },
    /// The path exists, the method does not.
    MethodNotAllowed {
        /// The methods that are allowed, for the `Allow` header.
        allow: &'static str,
    },
    /// No model, alias or tier of this name.
    ModelNotFound {
        /// As the client wrote it.
        model: Box<str>,
        /// Similar names that this key may use, the most similar first.
        nearest: Vec<Arc<str>>,
    },
    /// The policy forbids the model or tier.
    ModelNotAllowed {
        /// As the client wrote it.
        model: Box<str>,
    },
    /// No deployment is within the residency.
    ResidencyUnavailable {
        /// As the client wrote it.
        model: Box<str>,
    },
    /// No model here serves this endpoint or feature.
    NotServed {
        /// As the client wrote it.
        model: Box<str>,
        /// `the embeddings endpoint`, `tools`: what is missing.
        what: &'static str,
        /// Some models that the key may use instead.
        instead: Vec<Arc<str>>,
    },
    /// No deployment that could serve it has the endpoint: their providers said so, to this request or a moment ago.
    NoEndpoint {
        /// As the client wrote it.
        model: Box<str>,
        /// `OpenAI's Responses`: what is missing.
        what: &'static str,
        /// Some models that the key may use instead.
        instead: Vec<Arc<str>>,
    },
    /// No provider that could serve it may be sent a member of its body.
    MemberNotAllowed {
        /// The member.
        member: GivenMember,
        /// Whether it may choose a host, or change the price.
        why: MemberObjection,
    },
    /// It refers to something that no account made for its key, or not the account that made the rest.
    StateNotFound {
        /// What it refers to.
        state: Box<NamedState>,
    },
    /// The account that made what it refers to is not configured any more.
    AccountGone {
        /// What it refers to.
        state: Box<NamedState>,
    },
    /// Over one of the key's limits.
    OverLimit(OverLimit),
    /// A budget has less left than the request may cost.
    OverBudget(Box<OverBudget>),
    /// Costs cannot be recorded at the moment, and this request would cost something.
    LedgerUnavailable,
    /// Every deployment that could serve it answered with more than was held for it: requests that money is held for are
    /// kept from them.
    BudgetPaused {
        /// How long until the first of them may be asked again.
        retry_after: Duration,
    },
    /// Every deployment that could serve it has as many requests in flight as it may.
    SlowDown {
        /// How long the client should wait.
        retry_after: Duration,
    },
    /// The breaker of every deployment in the plan is open or resting.
    NoDeployment {
        /// How long until the first of them may be asked again.
        retry_after: Duration,
    },
}

impl Refusal {
    /// Whether it counts against its key's limit of refused requests: the same request would always be refused. What
    /// waiting may help against never counts, or a client that tries again would be locked out by that.
    pub fn counts(&self) -> bool {
        match self {
            Self::Body(
                BodyProblem::NotJson(_)
                | BodyProblem::BadEncoding(_)
                | BodyProblem::BadField { .. }
                | BodyProblem::TooLarge { .. }
                | BodyProblem::ExpandsTooMuch { .. }
                | BodyProblem::UnknownEncoding(_),
            )
            | Self::BadHeader { .. }
            | Self::UnknownUrl { .. }
            | Self::MethodNotAllowed { .. }
            | Self::ModelNotFound { .. }
            | Self::ModelNotAllowed { .. }
            | Self::ResidencyUnavailable { .. }
            | Self::NotServed { .. }
            | Self::StateNotFound { .. }
            | Self::AccountGone { .. }
            | Self::MemberNotAllowed { .. } => true,
            Self::Body(BodyProblem::TooSlow | BodyProblem::BrokenOff | BodyProblem::TooMuchInFlight)
            | Self::InvalidKey(_)
            | Self::SeveralKeys
            | Self::OverLimit(_)
            | Self::OverBudget(_)
            | Self::LedgerUnavailable
            // Its host may have it tomorrow.
            | Self::NoEndpoint { .. }
            | Self::BudgetPaused { .. }
            | Self::SlowDown { .. }
            | Self::NoDeployment { .. } => false,
        }
    }

    /// The closed label of this refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Body(BodyProblem::NotJson(_) | BodyProblem::BadEncoding(_)) => Reason::InvalidJson,
            Self::Body(BodyProblem::BadField { .. })
            | Self::BadHeader { .. }
            | Self::SeveralKeys
            | Self::MemberNotAllowed { .. } => Reason::InvalidValue,
            Self::Body(BodyProblem::TooLarge { .. } | BodyProblem::ExpandsTooMuch { .. }) => Reason::RequestTooLarge,
            Self::Body(BodyProblem::TooSlow) => Reason::RequestTimeout,
            Self::Body(BodyProblem::BrokenOff) => Reason::ClientGone,
            Self::Body(BodyProblem::UnknownEncoding(_)) => Reason::UnsupportedContentEncoding,
            Self::Body(BodyProblem::TooMuchInFlight) | Self::SlowDown { .. } => Reason::SlowDown,
            Self::InvalidKey(_) => Reason::InvalidApiKey,
            Self::UnknownUrl { .. } => Reason::UnknownUrl,
            Self::MethodNotAllowed { .. } => Reason::MethodNotAllowed,
            Self::ModelNotFound { .. } => Reason::ModelNotFound,
            Self::ModelNotAllowed { .. } => Reason::ModelNotAllowed,
            Self::ResidencyUnavailable { .. } => Reason::ResidencyUnavailable,
            Self::NotServed { .. } | Self::NoEndpoint { .. } => Reason::NotServed,
            Self::StateNotFound { .. } | Self::AccountGone { .. } => Reason::StateNotFound,
            Self::OverLimit(_) => Reason::RateLimitExceeded,
            Self::OverBudget(_) => Reason::InsufficientQuota,
            Self::LedgerUnavailable => Reason::LedgerUnavailable,
            Self::BudgetPaused { .. } => Reason::BudgetPaused,
            Self::NoDeployment { .. } => Reason::NoDeploymentAvailable,
        }
    }
}
