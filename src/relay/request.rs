//! What the HTTP layer passes in for a request, and what it gets back.
//!
//! Values only. They know neither axum nor the JSON of model APIs.
//!
//! Start reading at [`RawRequest`].

use super::active_config::ActiveConfig;
use super::deliver::ReplyBody;
use super::error::ServeError;
use super::guard::RequestGuard;
use super::state::RequestState;
use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, Endpoint};
use crate::domain::id::RequestId;
use crate::domain::limit::RateLimitStatus;
use crate::domain::memory::InFlightAllowance;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::{Outcome, ServingDeployment};
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request's body that has not been read. What reads it knows the wire; its key is known only here.
pub trait CallReader: Send {
    /// Reads and parses it, taking note of its `listed` members. Its bytes count in `allowance` for as long as they are in
    /// memory.
    fn read(
        self,
        allowance: InFlightAllowance,
        listed: &ListedMembers,
    ) -> impl Future<Output = Result<Call, BodyProblem>> + Send;
}

/// A request as the HTTP layer passes it in: neither key nor body has been read.
pub struct RawRequest<R> {
    /// Its identifier.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
    /// The configuration that its head and its body are read with. Once they are read, it is served with the one that is
    /// active then.
    pub active: Arc<ActiveConfig>,
    /// The key as the client presented it.
    pub key: Result<Option<Secret>, Refusal>,
    /// What its path and method ask for.
    pub target: RequestTarget<R>,
    /// What the gateway's own request headers say.
    pub options: Result<RequestOptions, Refusal>,
    /// The client's headers that may be sent to every provider.
    pub headers: HeaderMap,
    /// Those that are sent to providers whose configuration lists them.
    pub listed_headers: HeaderMap,
    /// The client's query, where some provider gets a part of it.
    pub query: Option<Box<str>>,
}

/// What a path and a method ask for.
pub enum RequestTarget<R> {
    /// A call to a served endpoint. Its body is read only once the key is known, so that no client without a key
    /// can make the gateway read one.
    Call {
        /// The endpoint of its path.
        endpoint: Endpoint,
        /// Its body.
        body: R,
    },
    /// A path that is not served.
    UnknownUrl {
        /// As the client wrote it.
        path: Box<str>,
    },
    /// A path that is served with another method.
    WrongMethod {
        /// The methods that are allowed.
        allow: &'static str,
    },
}

/// What a client may set by request header.
#[derive(Clone, Copy, Default, Debug)]
pub struct RequestOptions {
    /// No other model than the requested one may answer.
    pub no_fallback: bool,
    /// A shorter time limit than `total`, counted from the request received.
    pub deadline: Option<Duration>,
    /// How long the client's library waits, where it tells: a hint, counted from the request received.
    pub client_timeout: Option<Duration>,
}

/// An answer whose first good frame has arrived.
pub struct SuccessReply {
    /// The provider's status.
    pub status: StatusCode,
    /// The provider's headers that may be sent to the client.
    pub headers: HeaderMap,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    /// Whether the body is a stream of events.
    pub stream: bool,
    /// What the request's key may hold in memory.
    pub allowance: InFlightAllowance,
    /// The answer itself.
    pub body: ReplyBody,
}

/// An error instead of an answer.
pub struct ErrorReply {
    /// The reason.
    pub error: ServeError,
    /// What our own headers say.
    pub metadata: ResponseMetadata,
    pub(super) guard: RequestGuard,
}

impl ErrorReply {
    /// Whether the client presented a valid key.
    pub fn has_key(&self) -> bool {
        self.guard.state.key.is_some()
    }

    /// Ends the request, whose client got a head with success before; returns what its stream ends with.
    pub(super) fn sent_in_stream(self) -> Box<ServeError> {
        let Self { error, guard, .. } = self;
        guard.settle(outcome_of(&error), error.reason(), StatusCode::OK.as_u16());
        Box::new(error)
    }

    /// Ends the request with the HTTP status that the client gets.
    pub fn send(self, status: StatusCode) {
        self.guard.settle(outcome_of(&self.error), self.error.reason(), status.as_u16());
    }
}

fn outcome_of(error: &ServeError) -> Outcome {
    match error {
        ServeError::Refused(Refusal::Body(BodyProblem::BrokenOff)) => Outcome::Abandoned,
        ServeError::Refused(_) => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// The content of the gateway's own response headers.
#[derive(Clone, Debug)]
pub struct ResponseMetadata {
    /// The request's identifier.
    pub id: RequestId,
    /// The deployment that served it.
    pub served: Option<ServingDeployment>,
    /// Attempts made.
    pub attempts: u32,
    /// Time spent in the gateway up to the answer's first byte.
    pub overhead: Duration,
    /// Its cost, where it is known before the body: for whole answers.
    pub cost: Option<NanoUsd>,
    /// The output ceiling written into the request, so that it fits its budget.
    pub clamped: Option<u64>,
    /// The key's limit of requests a minute, if it has one.
    pub requests: Option<RateLimitStatus>,
    /// The key's limit of tokens a minute, if it has one.
    pub tokens: Option<RateLimitStatus>,
    /// Whether they are this gateway's part of limits that are counted together, while they cannot be.
    pub limits_degraded: bool,
}

impl ResponseMetadata {
    /// What is known of the request; `cost` where it is known before the body.
    pub(super) fn of(state: &RequestState, cost: Option<NanoUsd>) -> Self {
        Self {
            id: state.id,
            served: state.served.clone(),
            attempts: state.attempts.len() as u32,
            overhead: state.overhead.unwrap_or_default(),
            cost,
            clamped: state.spend.clamped,
            requests: state.limits_left.requests,
            tokens: state.limits_left.tokens,
            limits_degraded: state.limits_left.degraded,
        }
    }
}
