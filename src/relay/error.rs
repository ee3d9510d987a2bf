//! The error types of the relay: why a request was not answered, and why a stream broke off.
//!
//! They say what happened in terms of the domain and must never contain what the client reads: the HTTP layer
//! maps them to responses, in `http/error.rs`.

use crate::domain::failure::{Failure, ProviderError};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug)]
pub enum ServeError {
    /// Refused before any attempt.
    Refused(Refusal),
    /// The first model's provider refused the request itself: the client gets its answer unchanged.
    Rejected(ProviderError),
    /// No attempt was answered.
    Failed {
        /// The first model's.
        failure: Failure,
        /// What its provider said, as [`AttemptError::said`](crate::upstream::AttemptError::said) holds it.
        said: Option<Box<str>>,
        /// The request failed alike at two deployments: the next ones would fail in the same way.
        to_blame: bool,
    },
    /// Every provider that may serve it limits its requests.
    Throttled {
        /// The soonest time that one of them named.
        retry_after: Duration,
    },
    /// The one account that may serve it failed.
    AccountDown {
        /// How its last attempt failed.
        failure: Failure,
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// A bug of the gateway.
    Internal,
}

impl ServeError {
    /// The closed label of this end.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Rejected(_) => Reason::Rejected,
            Self::Failed { failure, .. } | Self::AccountDown { failure, .. } => failure.reason(),
            Self::Throttled { .. } => Reason::Throttled,
            Self::Internal => Reason::Internal,
        }
    }
}

impl From<Failure> for ServeError {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure, said: None, to_blame: false }
    }
}

impl From<Refusal> for ServeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a stream broke off after its commit point, or after its head.
#[derive(Debug)]
pub enum StreamFailure {
    /// The provider closed the connection, sent nothing for too long, or sent an error.
    Interrupted,
    /// It broke off, and the answer that was to go on with it is another one.
    Diverged,
    /// The request's total time, or the client's deadline, passed.
    OutOfTime,
    /// The gateway is shutting down.
    ShuttingDown,
    /// Its client got a head, and there is no answer.
    Unanswered(Box<ServeError>),
}
