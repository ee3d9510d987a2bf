//! The error types of the relay: why a request was not answered, and why a stream broke off.
//!
//! They say what happened in terms of the domain and must never contain what the client reads: the HTTP layer
//! maps them to responses, in `http/error.rs`.

use crate::domain::failure::{Failure, Rejection};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;

/// Why there is no answer.
#[derive(Debug)]
pub enum ServeError {
    /// Refused before any attempt.
    Refused(Refusal),
    /// The first model's provider refused the request itself: the client gets its answer unchanged.
    Rejected(Rejection),
    /// No attempt was answered. The failure is the first model's.
    Failed(Failure),
    /// A bug of the gateway.
    Internal,
}

impl ServeError {
    /// The closed label of this end.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Rejected(_) => Reason::Rejected,
            Self::Failed(failure) => failure.reason(),
            Self::Internal => Reason::Internal,
        }
    }
}

impl From<Refusal> for ServeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a stream broke off after its commit point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamFailure {
    /// The provider closed the connection, sent nothing for too long, or sent an error.
    Interrupted,
    /// The request's total time, or the client's deadline, passed.
    OutOfTime,
    /// The gateway is shutting down.
    ShuttingDown,
}
