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
    /// A status that reports trouble at the provider: 408, 409, 500, 502, 503, 504, 529 or another 5xx.
    Status(u16),
    /// An answer that is not what it claims to be: no JSON, no HTTP, the wrong type, a redirect, a page of what
    /// stands before the provider.
    Garbage,
    /// An answer beyond what the gateway reads: larger than its limits, encoded, or whole where a stream was asked
    /// for. The provider may be in the right.
    Unreadable,
    /// Ended by the gateway: it holds as many bytes of answers as it may, or as the request's key may.
    NotHeld,
    /// A 2xx, complete and without an answer: no choice, no vector.
    NoAnswer,
    /// The answer ended before it was complete.
    Truncated,
    /// An error in the body of a 200.
    ErrorInside,
    /// 429, a 5xx that names a time, or a refusal that speaks of tokens per minute.
    Throttled {
        /// How long the provider asks us to stay away.
        after: Option<Duration>,
    },
    /// 401 to our credential, or another status that says so.
    CredentialRefused,
    /// Our account is refused, with this status: 402, 403, or another one that speaks of money, a quota that
    /// waiting does not renew, or a suspension.
    AccountRefused(u16),
    /// 404 on a path we route, or another status that says that the model is unknown or withdrawn: our configuration
    /// is wrong, not the client.
    NotFound,
    /// 405, or a 404 or 501 that says that the path is unknown: the host does not have this endpoint, whatever the model.
    NoEndpoint,
    /// 400, 413, 415, 422, 451 or a content filter: the provider refuses the request itself.
    Rejected,
    /// The request is longer than the model's context.
    ContextTooLong,
    /// Ended by the gateway: its deployment was silent, and another one was asked.
    Silent,
    /// Ended by the gateway: another attempt of the request was answered first.
    Overtaken,
}

/// What a provider replied instead of an answer. The client gets it as it came where it is about the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderError {
    /// The provider's HTTP status, never a 2xx.
    pub status: u16,
    /// The value of `content-type`, where the provider sent one.
    pub content_type: Option<Bytes>,
    /// The beginning of the provider's body, at most 8 MiB of it; empty where it broke off or did not come in time.
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
    /// It has not answered: bad while the deployment is silent, and otherwise slow, which is no fault.
    Unanswered,
    /// The deployment must rest: for this long, where its provider said so.
    Throttled(Option<Duration>),
    /// The provider does not know the configured model or path.
    NotFound,
    /// The provider does not have the request's endpoint: nothing about any other one.
    NoEndpoint,
    /// Our credential was refused: the credential rests, not the deployment.
    CredentialRefused,
    /// Our account was refused: as for the credential, counted apart.
    AccountRefused,
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
            Self::Reset | Self::Status(_) | Self::Garbage | Self::NoAnswer | Self::Truncated | Self::ErrorInside => {
                HealthSignal::Bad
            }
            Self::FirstTokenTimeout
            | Self::WholeTimeout
            | Self::IdleTimeout
            | Self::Deadline
            | Self::Silent
            | Self::Overtaken => HealthSignal::Unanswered,
            // How strictly the gateway reads, and how much it holds, is no evidence against anybody.
            Self::Stale | Self::Unreadable | Self::NotHeld => HealthSignal::Neutral,
            Self::Throttled { after } => HealthSignal::Throttled(after),
            Self::CredentialRefused => HealthSignal::CredentialRefused,
            Self::AccountRefused(_) => HealthSignal::AccountRefused,
            Self::NotFound => HealthSignal::NotFound,
            Self::NoEndpoint => HealthSignal::NoEndpoint,
            Self::Rejected | Self::ContextTooLong => HealthSignal::Good,
        }
    }

    /// What it says about the health of the deployment when it ends an answer after its commit point.
    pub fn signal_after_commit(self) -> HealthSignal {
        match self {
            // A stream that has begun owes its frames, however busy the deployment is.
            Self::IdleTimeout => HealthSignal::Bad,
            other => other.health_signal(),
        }
    }

    /// Whether two failures of one request, at two deployments, point at the request itself. What a request cannot
    /// cause, and what says nothing of an answer, is never alike.
    pub fn is_alike(self, other: Self) -> bool {
        let may_be_the_requests = match self {
            Self::Status(_) | Self::Garbage | Self::Truncated | Self::ErrorInside | Self::NoAnswer => true,
            Self::CredentialRefused | Self::AccountRefused(_) | Self::NotFound => true,
            Self::Unreachable
            | Self::ConnectTimeout
            | Self::Reset
            | Self::Stale
            | Self::FirstTokenTimeout
            | Self::WholeTimeout
            | Self::IdleTimeout
            | Self::Deadline
            | Self::Unreadable
            | Self::NotHeld
            | Self::Throttled { .. }
            // No request chooses its path.
            | Self::NoEndpoint
            | Self::Rejected
            | Self::ContextTooLong
            | Self::Silent
            | Self::Overtaken => false,
        };
        may_be_the_requests && self.reason() == other.reason()
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
            | Self::Unreadable
            | Self::NotHeld
            | Self::NoAnswer
            | Self::Truncated
            | Self::ErrorInside
            | Self::Silent
            | Self::Overtaken => true,
            Self::Unreachable
            | Self::ConnectTimeout
            | Self::Stale
            | Self::Status(_)
            | Self::Throttled { .. }
            | Self::CredentialRefused
            | Self::AccountRefused(_)
            | Self::NotFound
            | Self::NoEndpoint
            | Self::Rejected
            | Self::ContextTooLong => false,
        }
    }

    /// Whether a second one of the same request at the same deployment adds nothing: all but what was presented,
    /// which was another credential.
    pub fn counts_once(self) -> bool {
        !self.is_of_credential()
    }

    /// Whether the provider replied: its deployment is not silent.
    pub fn is_reply(self) -> bool {
        match self {
            Self::Status(_)
            | Self::Garbage
            | Self::Unreadable
            | Self::NotHeld
            | Self::NoAnswer
            | Self::ErrorInside
            | Self::Throttled { .. }
            | Self::CredentialRefused
            | Self::AccountRefused(_)
            | Self::NotFound
            | Self::NoEndpoint
            | Self::Rejected
            | Self::ContextTooLong => true,
            Self::Unreachable
            | Self::ConnectTimeout
            | Self::Reset
            | Self::Stale
            | Self::FirstTokenTimeout
            | Self::WholeTimeout
            | Self::IdleTimeout
            | Self::Deadline
            | Self::Truncated
            | Self::Silent
            | Self::Overtaken => false,
        }
    }

    /// Whether it is about what we presented: another credential may be let in.
    pub fn is_of_credential(self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::CredentialRefused | Self::AccountRefused(_))
    }

    /// Whether it may just as well be about the request: a model, a right or a payment that it alone needs.
    pub fn speaks_of_the_request(self) -> bool {
        matches!(self, Self::AccountRefused(402 | 403) | Self::NotFound)
    }

    /// What the request does next.
    pub fn next_action(self) -> FailureAction {
        match self {
            Self::Stale => FailureAction::Same,
            // Another provider's answer would not be held either, and would be paid for.
            Self::Deadline | Self::NotHeld => FailureAction::Stop,
            Self::Rejected => FailureAction::Reject,
            Self::ContextTooLong => FailureAction::LargerContext,
            _ => FailureAction::Other,
        }
    }

    /// Whether the next attempt at this deployment counts the last one as good; `None`: this end changes nothing, as
    /// long as a deployment that has not answered is not silent. A stale connection is no fault, but is recorded as one until an attempt ends well: the next reset then
    /// counts as a real one, or a dead deployment would stay unnoticed.
    pub fn remembered(self) -> Option<bool> {
        match self {
            Self::Stale => Some(false),
            other => match other.health_signal() {
                HealthSignal::Neutral | HealthSignal::Unanswered | HealthSignal::NoEndpoint => None,
                signal => Some(signal == HealthSignal::Good),
            },
        }
    }

    /// Whether the same deployment could answer another attempt: not while our configuration is wrong or the
    /// provider asked us to stay away.
    pub fn may_pass(self) -> bool {
        match self.health_signal() {
            HealthSignal::Bad | HealthSignal::Down | HealthSignal::Neutral | HealthSignal::Unanswered => true,
            HealthSignal::Good
            | HealthSignal::Throttled(_)
            | HealthSignal::NotFound
            | HealthSignal::NoEndpoint
            | HealthSignal::CredentialRefused
            | HealthSignal::AccountRefused => false,
        }
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
            Self::Unreadable => Reason::Unreadable,
            Self::NotHeld => Reason::NotHeld,
            Self::NoAnswer => Reason::NoAnswer,
            Self::Truncated => Reason::Truncated,
            Self::ErrorInside => Reason::ErrorInside,
            Self::Throttled { .. } => Reason::Throttled,
            Self::CredentialRefused => Reason::CredentialRefused,
            Self::AccountRefused(_) => Reason::AccountRefused,
            Self::NotFound => Reason::UpstreamNotFound,
            Self::NoEndpoint => Reason::UpstreamNoEndpoint,
            Self::Rejected => Reason::Rejected,
            Self::ContextTooLong => Reason::ContextTooLong,
            Self::Silent => Reason::Silent,
            Self::Overtaken => Reason::Overtaken,
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
        let unanswered = [FirstTokenTimeout, IdleTimeout, WholeTimeout, Silent, Overtaken];
        check(&unanswered, HealthSignal::Unanswered, FailureAction::Other);
        check(&[Deadline], HealthSignal::Unanswered, FailureAction::Stop);
        check(&[408, 500, 502, 503, 504, 529].map(Status), HealthSignal::Bad, FailureAction::Other);
        check(&[Reset, Garbage, NoAnswer, Truncated, ErrorInside], HealthSignal::Bad, FailureAction::Other);
        check(&[Unreadable], HealthSignal::Neutral, FailureAction::Other);
        check(&[NotHeld], HealthSignal::Neutral, FailureAction::Stop);
        check(&[Throttled { after: None }], HealthSignal::Throttled(None), FailureAction::Other);
        let after = Some(Duration::from_secs(7));
        check(&[Throttled { after }], HealthSignal::Throttled(after), FailureAction::Other);
        check(&[CredentialRefused], HealthSignal::CredentialRefused, FailureAction::Other);
        check(&[402, 403, 429].map(AccountRefused), HealthSignal::AccountRefused, FailureAction::Other);
        check(&[NotFound], HealthSignal::NotFound, FailureAction::Other);
        check(&[NoEndpoint], HealthSignal::NoEndpoint, FailureAction::Other);
        assert_eq!(NoEndpoint.remembered(), None, "it says nothing of other endpoints");
        check(&[Rejected], HealthSignal::Good, FailureAction::Reject);
        check(&[ContextTooLong], HealthSignal::Good, FailureAction::LargerContext);
    }

    #[test]
    fn after_the_commit_point_a_silence_is_a_fault() {
        let check = |failures: &[Failure], signal| {
            for failure in failures {
                assert_eq!(failure.signal_after_commit(), signal, "{failure:?}");
            }
        };
        use Failure::*;
        check(&[IdleTimeout, Reset, Truncated, Garbage, ErrorInside, Status(500)], HealthSignal::Bad);
        check(&[Deadline], HealthSignal::Unanswered);
        check(&[Unreadable], HealthSignal::Neutral);
    }

    #[test]
    fn only_what_a_request_can_cause_is_alike() {
        use Failure::*;
        let causes =
            [Status(500), Garbage, Truncated, ErrorInside, NoAnswer, CredentialRefused, AccountRefused(402), NotFound];
        for (at, one) in causes.into_iter().enumerate() {
            for (other_at, other) in causes.into_iter().enumerate() {
                assert_eq!(one.is_alike(other), at == other_at, "{one:?} {other:?}");
            }
        }
        assert!(Status(500).is_alike(Status(503)) && AccountRefused(402).is_alike(AccountRefused(403)));
        let never = [
            Unreachable,
            ConnectTimeout,
            Reset,
            Stale,
            FirstTokenTimeout,
            WholeTimeout,
            IdleTimeout,
            Deadline,
            Unreadable,
            NotHeld,
            Throttled { after: None },
            NoEndpoint,
            Silent,
            Overtaken,
        ];
        for failure in never {
            assert!(!failure.is_alike(failure), "{failure:?}");
        }
    }

    #[test]
    fn only_temporary_failures_are_retried_at_the_same_deployment() {
        let check = |failure: Failure, expected| assert_eq!(failure.may_pass(), expected, "{failure:?}");
        check(Failure::Unreachable, true);
        check(Failure::Status(503), true);
        check(Failure::Stale, true);
        check(Failure::Throttled { after: None }, false);
        check(Failure::WholeTimeout, true);
        check(Failure::Unreadable, true);
        check(Failure::CredentialRefused, false);
        check(Failure::AccountRefused(402), false);
        check(Failure::NotFound, false);
        check(Failure::NoEndpoint, false);
        check(Failure::Rejected, false);
        check(Failure::ContextTooLong, false);
    }
}
