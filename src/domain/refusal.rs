//! The reasons for refusing a request before any attempt.
//!
//! It exists so that every refusal is a value that is handled like an answer: it leaves a receipt, and
//! `http/error.rs` alone maps it to what the client reads. A refusal must never name a deployment or
//! contain a secret.
//!
//! Start reading in [`Refusal`].

use crate::domain::budget::OverBudget;
use crate::domain::call::BodyProblem;
use crate::domain::limit::OverLimit;
use crate::domain::reason::Reason;
use std::sync::Arc;
use std::time::Duration;

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
    /// No key, or one that is unknown, disabled or expired: the client does not learn which.
    InvalidKey,
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
    },
    /// Over one of the key's limits.
    OverLimit(OverLimit),
    /// A budget has less left than the request may cost.
    OverBudget(Box<OverBudget>),
    /// Costs cannot be recorded at the moment, and this request would cost something.
    LedgerUnavailable,
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
    /// The closed label of this refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Body(BodyProblem::NotJson(_) | BodyProblem::BadEncoding(_)) => Reason::InvalidJson,
            Self::Body(BodyProblem::BadField { .. }) | Self::BadHeader { .. } => Reason::InvalidValue,
            Self::Body(BodyProblem::TooLarge { .. }) => Reason::RequestTooLarge,
            Self::Body(BodyProblem::TooSlow) => Reason::RequestTimeout,
            Self::Body(BodyProblem::BrokenOff) => Reason::ClientGone,
            Self::Body(BodyProblem::UnknownEncoding(_)) => Reason::UnsupportedContentEncoding,
            Self::Body(BodyProblem::TooMuchInFlight) | Self::SlowDown { .. } => Reason::SlowDown,
            Self::InvalidKey => Reason::InvalidApiKey,
            Self::UnknownUrl { .. } => Reason::UnknownUrl,
            Self::MethodNotAllowed { .. } => Reason::MethodNotAllowed,
            Self::ModelNotFound { .. } => Reason::ModelNotFound,
            Self::ModelNotAllowed { .. } => Reason::ModelNotAllowed,
            Self::ResidencyUnavailable { .. } => Reason::ResidencyUnavailable,
            Self::NotServed { .. } => Reason::NotServed,
            Self::OverLimit(_) => Reason::RateLimitExceeded,
            Self::OverBudget(_) => Reason::InsufficientQuota,
            Self::LedgerUnavailable => Reason::LedgerUnavailable,
            Self::NoDeployment { .. } => Reason::NoDeploymentAvailable,
        }
    }
}
