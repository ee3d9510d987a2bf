//! The ways in which one attempt fails, and what each means for breakers and for the request.
//!
//! It exists so that "what does a 529 mean" has one answer: [`Failure::health_signal`] is what the
//! breaker counts, [`Failure::next_action`] is what the request does, both from the same enum. It must never
//! see a socket: `upstream` classifies the end of an attempt as one of these values.
//!
//! Start reading in [`Failure`].

use crate::domain::reason::Reason;
use bytes::Bytes;
use std::time::Duration;

/// How one attempt ended badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No connection: refused, reset or TLS failed before anything was sent.
    Unreachable,
    /// No connection was established within `connect_timeout`.
    ConnectTimeout,
    /// The connection broke before any byte of the answer came.
    Reset,
    /// As [`Reset`](Self::Reset), but on a connection that may have gone stale in the pool: young
    /// attempt, last attempt there good.
    Stale,
    /// No first token in time.
    FirstTokenTimeout,
    /// The whole answer did not come in time.
    WholeTimeout,
    /// Too long without a frame, before the commit point.
    IdleTimeout,
    /// The request's own time is over: `total`, or a deadline the client set.
    Deadline,
    /// A status that reports trouble at the provider: 408, 500, 502, 503, 504, 529 or another 5xx.
    Status(u16),
    /// An answer that is not what it claims to be: no JSON, no HTTP, the wrong type, a redirect.
    Garbage,
    /// The answer ended before it was complete.
    Truncated,
    /// An error in the body of a 200.
    ErrorInside,
    /// 429, or 503 with a Retry-After.
    Throttled {
        /// How long the provider asks us to stay away.
        after: Option<Duration>,
    },
    /// 401 or 403 to our credential.
    CredentialRefused,
    /// 404 on a path we route: our configuration is wrong, not the client.
    NotFound,
    /// 400, 413, 415, 422 or a content filter: the provider refuses the request itself.
    Rejected,
    /// The request is longer than the model's context.
    ContextTooLong,
}

/// A provider's refusal of the request itself, passed to the client as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The provider's HTTP status, a 4xx.
    pub status: u16,
    /// The value of `content-type`, where the provider sent one.
    pub content_type: Option<Bytes>,
    /// The provider's body, at most 1 MiB.
    pub body: Bytes,
}

/// What the end of an attempt says about the health of its deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthSignal {
    /// The deployment works.
    Good,
    /// The deployment failed.
    Bad,
    /// The deployment could not be reached: bad, and not caused by any key, because nothing was sent.
    Down,
    /// Nothing about the deployment.
    Neutral,
    /// The deployment must rest: for this long, where its provider said so.
    Throttled(Option<Duration>),
    /// The provider does not know the configured model or path.
    NotFound,
    /// Our credential was refused: the credential rests, not the deployment.
    CredentialRefused,
}

/// What the request does after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureAction {
    /// Tries another deployment.
    Other,
    /// Tries the same deployment once more; the failure does not count against it.
    Same,
    /// Returns the provider's answer to the client unchanged, unless an earlier model was tried.
    Reject,
    /// Makes one more attempt, at a model with a larger context.
    LargerContext,
    /// Makes no further attempt: the request fails.
    Stop,
}

impl Failure {
    /// What it says about the health of the deployment.
    pub fn health_signal(self) -> HealthSignal {
        match self {
            Self::Unreachable | Self::ConnectTimeout => HealthSignal::Down,
            Self::Reset
            | Self::FirstTokenTimeout
            | Self::WholeTimeout
            | Self::IdleTimeout
            | Self::Status(_)
            | Self::Garbage
            | Self::Truncated
            | Self::ErrorInside => HealthSignal::Bad,
            Self::Stale | Self::Deadline => HealthSignal::Neutral,
            Self::Throttled { after } => HealthSignal::Throttled(after),
            Self::CredentialRefused => HealthSignal::CredentialRefused,
            Self::NotFound => HealthSignal::NotFound,
            Self::Rejected | Self::ContextTooLong => HealthSignal::Good,
        }
    }

    /// Whether the provider may charge for an attempt that ended like this: it accepted the request and did not
    /// report a failure.
    pub fn may_cost(self) -> bool {
        match self {
            Self::Reset
            | Self::FirstTokenTimeout
            | Self::WholeTimeout
            | Self::IdleTimeout
            | Self::Deadline
            | Self::Garbage
            | Self::Truncated
            | Self::ErrorInside => true,
            Self::Unreachable
            | Self::ConnectTimeout
            | Self::Stale
            | Self::Status(_)
            | Self::Throttled { .. }
            | Self::CredentialRefused
            | Self::NotFound
            | Self::Rejected
            | Self::ContextTooLong => false,
        }
    }

    /// What the request does next.
    pub fn next_action(self) -> FailureAction {
        match self {
            Self::Stale => FailureAction::Same,
            Self::Deadline => FailureAction::Stop,
            Self::Rejected => FailureAction::Reject,
            Self::ContextTooLong => FailureAction::LargerContext,
            _ => FailureAction::Other,
        }
    }

    /// Whether the next attempt at this deployment counts the last one as good; `None`: this end changes nothing.
    /// A stale connection is no fault, but is recorded as one until an attempt ends well: the next reset then
    /// counts as a real one, or a dead deployment would stay unnoticed.
    pub fn remembered(self) -> Option<bool> {
        match self {
            Self::Stale => Some(false),
            other if other.health_signal() == HealthSignal::Neutral => None,
            other => Some(other.health_signal() == HealthSignal::Good),
        }
    }

    /// Whether the same deployment could answer another attempt: not while our configuration is wrong or the
    /// provider asked us to stay away.
    pub fn may_pass(self) -> bool {
        matches!(self.health_signal(), HealthSignal::Bad | HealthSignal::Down | HealthSignal::Neutral)
    }

    /// The closed label of this failure.
    pub fn reason(self) -> Reason {
        match self {
            Self::Unreachable => Reason::Unreachable,
            Self::ConnectTimeout => Reason::ConnectTimeout,
            Self::Reset | Self::Stale => Reason::Reset,
            Self::FirstTokenTimeout => Reason::FirstTokenTimeout,
            Self::WholeTimeout => Reason::WholeTimeout,
            Self::IdleTimeout => Reason::IdleTimeout,
            Self::Deadline => Reason::Deadline,
            Self::Status(_) => Reason::UpstreamStatus,
            Self::Garbage => Reason::Garbage,
            Self::Truncated => Reason::Truncated,
            Self::ErrorInside => Reason::ErrorInside,
            Self::Throttled { .. } => Reason::Throttled,
            Self::CredentialRefused => Reason::CredentialRefused,
            Self::NotFound => Reason::UpstreamNotFound,
            Self::Rejected => Reason::Rejected,
            Self::ContextTooLong => Reason::ContextTooLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_health_signal_and_its_next_action() {
        let check = |failures: &[Failure], signal, next| {
            for failure in failures {
                assert_eq!((failure.health_signal(), failure.next_action()), (signal, next), "{failure:?}");
            }
        };
        use Failure::*;
        check(&[Unreachable, ConnectTimeout], HealthSignal::Down, FailureAction::Other);
        check(&[Stale], HealthSignal::Neutral, FailureAction::Same);
        check(&[Reset, FirstTokenTimeout, IdleTimeout, WholeTimeout], HealthSignal::Bad, FailureAction::Other);
        check(&[Deadline], HealthSignal::Neutral, FailureAction::Stop);
        check(&[408, 500, 502, 503, 504, 529].map(Status), HealthSignal::Bad, FailureAction::Other);
        check(&[Garbage, Truncated, ErrorInside], HealthSignal::Bad, FailureAction::Other);
        check(&[Throttled { after: None }], HealthSignal::Throttled(None), FailureAction::Other);
        let after = Some(Duration::from_secs(7));
        check(&[Throttled { after }], HealthSignal::Throttled(after), FailureAction::Other);
        check(&[CredentialRefused], HealthSignal::CredentialRefused, FailureAction::Other);
        check(&[NotFound], HealthSignal::NotFound, FailureAction::Other);
        check(&[Rejected], HealthSignal::Good, FailureAction::Reject);
        check(&[ContextTooLong], HealthSignal::Good, FailureAction::LargerContext);
    }

    #[test]
    fn only_temporary_failures_are_retried_at_the_same_deployment() {
        let check = |failure: Failure, expected| assert_eq!(failure.may_pass(), expected, "{failure:?}");
        check(Failure::Unreachable, true);
        check(Failure::Status(503), true);
        check(Failure::Stale, true);
        check(Failure::Throttled { after: None }, false);
        check(Failure::CredentialRefused, false);
        check(Failure::NotFound, false);
        check(Failure::Rejected, false);
        check(Failure::ContextTooLong, false);
    }
}
