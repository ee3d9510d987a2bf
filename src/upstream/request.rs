//! What an attempt is made of, and how it fails.
//!
//! Values only; how long an attempt may take is the one rule here. It never sends anything. What a successful
//! attempt returns is in [`answer`](super::answer).
//!
//! Start reading in [`UpstreamRequest`].

use crate::domain::call::Call;
use crate::domain::failure::{Failure, ProviderError};
use crate::domain::fault::FaultEffect;
use crate::domain::id::ProviderId;
use crate::domain::memory::InFlightAllowance;
use crate::domain::random::RandomValue;
use crate::domain::routing::AnswerMode;
use crate::protocol::json::text::quoted;
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The name a provider knows a model by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamModel {
    name: Arc<str>,
    json: Bytes,
}

impl UpstreamModel {
    /// The model its provider calls `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), json: quoted(name) }
    }

    /// Its name as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its name as a JSON string, quotes included.
    pub(super) fn json(&self) -> &Bytes {
        &self.json
    }
}

/// One attempt to make.
#[derive(Clone, Copy)]
pub struct UpstreamRequest<'a> {
    /// The provider it is sent to.
    pub provider: ProviderId,
    /// Which of the provider's credentials to use.
    pub credential: usize,
    /// What the provider calls the model.
    pub model: &'a UpstreamModel,
    /// The request.
    pub call: &'a Call,
    /// Whether the commit point of a stream is its first good frame, or its end.
    pub mode: AnswerMode,
    /// The client's headers that every provider gets; `http` holds the list.
    pub headers: &'a HeaderMap,
    /// What a provider gets where its configuration lists it.
    pub fields: ForwardedFields<'a>,
    /// The ceiling of the output that the provider must read, per choice, whatever the client wrote; `None`: what the
    /// client wrote is sent as it came.
    pub ceiling: Option<u64>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What happens to it on purpose.
    pub fault: Option<FaultEffect>,
    /// The random value of this attempt.
    pub draw: RandomValue,
    /// What its answer may hold in memory.
    pub allowance: &'a InFlightAllowance,
}

/// What of a client's request a provider gets whose configuration lists it.
#[derive(Clone, Copy, Default, Debug)]
pub struct ForwardedFields<'a> {
    /// Headers that some provider's configuration lists.
    pub headers: Option<&'a HeaderMap>,
    /// The whole query, as the client wrote it.
    pub query: Option<&'a str>,
}

/// How long an attempt may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From sending to the first good frame of a stream.
    pub first_token: Duration,
    /// From sending to the last byte of a whole answer, or of a stream that is held.
    pub whole: Duration,
    /// Between two data frames of a stream, after its first good one.
    pub idle: Duration,
    /// When the request's own time is over, whatever it is doing.
    pub deadline: Instant,
}

impl Timeouts {
    /// What ends the wait for the commit point of an attempt sent at `now`.
    pub(super) fn until_commit(&self, now: Instant, mode: AnswerMode) -> TimeLimit {
        let (span, failure) = match mode {
            AnswerMode::Stream => (self.first_token, Failure::FirstTokenTimeout),
            AnswerMode::Whole => (self.whole, Failure::WholeTimeout),
        };
        TimeLimit::earlier(now, span, failure, self.deadline)
    }
}

/// When a wait ends, and which failure that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimeLimit {
    /// The end of the wait.
    pub(super) at: Instant,
    /// The failure of an attempt that waited until then.
    pub(super) failure: Failure,
}

impl TimeLimit {
    /// `span` after `from`, or the deadline where that is not later: it says nothing about the provider.
    pub(super) fn earlier(from: Instant, span: Duration, failure: Failure, deadline: Instant) -> Self {
        match from.checked_add(span) {
            Some(at) if at < deadline => Self { at, failure },
            _ => Self { at: deadline, failure: Failure::Deadline },
        }
    }
}

/// An attempt that failed before the commit point.
#[derive(Debug)]
pub struct AttemptError {
    /// What went wrong.
    pub failure: Failure,
    /// What the provider replied, with every status but a 2xx.
    pub provider_error: Option<Box<ProviderError>>,
    /// The provider's message from it, masked; none where it is about the content of the request.
    pub said: Option<Box<str>>,
    /// One line for the log, with what was [`said`](Self::said): no bodies, no secrets.
    pub detail: Box<str>,
    /// The provider's own name for the request, where it replied with one.
    pub provider_request_id: Option<Box<str>>,
}

impl AttemptError {
    /// Of an attempt that the gateway ended: nothing came of it.
    pub fn cancelled(failure: Failure) -> Self {
        Self::new(failure, "cancelled")
    }

    /// Without a reply of the provider.
    pub(super) fn new(failure: Failure, detail: impl Into<Box<str>>) -> Self {
        Self { failure, provider_error: None, said: None, detail: detail.into(), provider_request_id: None }
    }
}
