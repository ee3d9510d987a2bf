//! How a request ends that was not answered.
//!
//! The corridor's only error type. It says what happened in the house's own words; what the client
//! reads is the front door's affair, from its one table.

use crate::domain::failure::Failure;
use crate::domain::receipt::Reason;
use crate::domain::refusal::Refusal;
use crate::upstream::Rejection;

/// Why there is no answer.
#[derive(Debug)]
pub enum ServeError {
    /// We said no before trying.
    Refused(Refusal),
    /// The first model's provider refused the request itself: its answer goes to the client as it came.
    Rejected(Rejection),
    /// Attempts were made and none answered. The failure is the first model's.
    Failed(Failure),
    /// A bug of ours.
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

/// How a stream broke after its commit point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamInterruption {
    /// The provider broke off, fell silent or sent an error.
    Interrupted,
    /// The request's total time, or the client's deadline, passed.
    OutOfTime,
    /// The gateway is being stopped.
    ShuttingDown,
}
