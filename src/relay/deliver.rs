//! Delivery: passes the answer's frames to the client and settles the request when they end.
//!
//! A body ends exactly once: at its last frame, at an error, or when it is dropped because the client
//! disconnected. It must never parse a frame; `upstream` read the usage from the frames.
//!
//! Start reading in [`ReplyBody::poll_frames`].

// circle: read_on.rs: an answer that its client left is read on there, and ends here.

use super::dispatch::CommittedAnswer;
use super::error::StreamFailure;
use super::estimator::TokenEstimator;
use super::guard::{CLIENT_GONE, RequestGuard};
use super::health::{AttemptLabels, FailureReport, Permit};
use super::splice::{BodyFuture, SplicedStream};
use super::{background, pinned, read_on, splice};
use crate::domain::estimate::UsageBasis;
use crate::domain::failure::Failure;
use crate::domain::reason::Reason;
use crate::domain::receipt::Outcome;
use crate::domain::usage::Usage;
use crate::upstream::AnswerBody;
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The body of an answer. Dropping it before its end means that the client disconnected.
pub struct ReplyBody {
    reply: Option<ReplyInFlight>,
    /// What makes it, where its client got a head or a part of the answer before.
    making: Option<BodyFuture>,
    exact_len: Option<u64>,
    /// The number of the event that would follow what broke off.
    next_number: u64,
}

pub(super) struct ReplyInFlight {
    pub(super) body: AnswerBody,
    pub(super) permit: Permit,
    pub(super) guard: RequestGuard,
    pub(super) status: u16,
    pub(super) estimator: Arc<TokenEstimator>,
    /// What it takes to go on with it where it breaks, if that may be.
    pub(super) splice: Option<Box<SplicedStream>>,
}

/// The detail of an answer that broke off.
const BROKE_OFF: &str = "the answer broke off after its first token";

/// How the delivery of an answer ends.
pub(super) enum ReplyEnd {
    Complete,
    Broken(Failure),
    /// We ended it, whatever its provider would have sent.
    Stopped(Reason),
    ClientLeft,
    /// The client left long before.
    ReadOn,
}

impl ReplyBody {
    pub(super) fn new(answered: CommittedAnswer, guard: RequestGuard) -> Self {
        let CommittedAnswer { answer, permit, estimator, splice } = answered;
        let exact_len = answer.body.exact_len();
        let status = answer.status.as_u16();
        let mut reply = ReplyInFlight { body: answer.body, permit, guard, status, estimator, splice };
        reply.keep_made();
        Self { reply: Some(reply), making: None, exact_len, next_number: 0 }
    }

    /// The body that is still being made; until then nothing comes.
    pub(super) fn made_later(making: BodyFuture) -> Self {
        Self { reply: None, making: Some(making), exact_len: None, next_number: 0 }
    }

    /// The next frames, in one piece; `None` at the end; an error when the answer broke.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamFailure>>> {
        loop {
            if let Some(making) = &mut self.making {
                let made = ready!(making.as_mut().poll(cx));
                self.making = None;
                match made {
                    Ok(body) => *self = body,
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                }
            }
            let Some(reply) = &mut self.reply else { return Poll::Ready(None) };
            let polled = reply.body.poll_frames(cx);
            if reply.body.is_stalled() != reply.permit.is_stalled() {
                reply.permit.stalls(reply.body.is_stalled(), reply.guard.now());
            }
            let frames = ready!(polled);
            // The reader of a body of known length need not poll again: the body ends with its last byte.
            let over = self.exact_len.is_some() && reply.body.is_complete();
            match frames {
                Some(Ok(frames)) => {
                    reply.keep_made();
                    if let Some(now) = reply.body.heard_at() {
                        reply.permit.heard(now);
                    }
                    let passed = reply.pass(frames);
                    match &passed {
                        Err(_) => self.end(ReplyEnd::Stopped(Reason::Diverged)),
                        Ok(_) if over => self.end(ReplyEnd::Complete),
                        // The client has what came.
                        Ok(frames) if frames.is_empty() => continue,
                        Ok(_) => {}
                    }
                    return Poll::Ready(Some(passed));
                }
                None => {
                    self.end(ReplyEnd::Complete);
                    return Poll::Ready(None);
                }
                Some(Err(failure)) if reply.may_go_on(failure) => {
                    let broken = self.reply.take().expect("it is being read");
                    *self = Self::made_later(Box::pin(splice::go_on(broken, failure)));
                }
                Some(Err(failure)) => {
                    let is_said = reply.body.failure_said();
                    self.next_number = reply.body.next_number();
                    self.end(ReplyEnd::Broken(failure));
                    return Poll::Ready((!is_said).then_some(Err(broken_by(failure))));
                }
            }
        }
    }

    /// Ends it, because the gateway is shutting down.
    pub fn cut(&mut self) -> StreamFailure {
        self.making = None;
        self.next_number = self.reply.as_ref().map_or(0, |reply| reply.body.next_number());
        self.end(ReplyEnd::Stopped(Reason::Shutdown));
        StreamFailure::ShuttingDown
    }

    /// The number of the event that would follow one that broke off, where events are numbered.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Its length in bytes, where it is known before the end: whole answers.
    pub fn exact_len(&self) -> Option<u64> {
        self.exact_len
    }

    fn end(&mut self, end: ReplyEnd) {
        if let Some(reply) = self.reply.take() {
            reply.end(end);
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            read_on::client_left(reply);
        }
    }
}

impl ReplyInFlight {
    /// Keeps what the answer made, before its client can refer to it.
    fn keep_made(&mut self) {
        background::begin(&mut self.guard, &self.body);
        let made = self.body.take_made();
        if !made.is_empty() {
            pinned::keep(&self.guard, made);
        }
    }

    pub(super) fn end(self, end: ReplyEnd) {
        let Self { body, permit, mut guard, status, estimator, .. } = self;
        if end.is_ours() && body.exact_len().is_none() && !body.is_complete() {
            guard.state.left_provider();
        }
        meter(&mut guard, &body, &estimator);
        learn(&guard, &body, &estimator);
        let now = guard.now();
        match end {
            ReplyEnd::Complete => {
                permit.ended(now);
                guard.settle(Outcome::Served, Reason::Served, status);
            }
            // A client that disconnects after `[DONE]` has received everything.
            ReplyEnd::ClientLeft if body.is_complete() => {
                permit.ended(now);
                guard.settle(Outcome::Served, Reason::Served, status);
            }
            ReplyEnd::ReadOn if body.is_complete() => {
                permit.ended(now);
                guard.settle(Outcome::Abandoned, Reason::ClientGone, CLIENT_GONE);
            }
            ReplyEnd::ClientLeft | ReplyEnd::ReadOn => {
                permit.abandoned(body.waited_since(), now);
                guard.settle(Outcome::Abandoned, Reason::ClientGone, CLIENT_GONE);
            }
            ReplyEnd::Stopped(reason) => {
                drop(permit);
                guard.settle(Outcome::Broken, reason, status);
            }
            ReplyEnd::Broken(failure) => {
                broke(permit, &guard, failure, now);
                guard.settle(Outcome::Broken, failure.reason(), status);
            }
        }
    }
}

/// Logs that an answer broke off, and reports it to `permit`.
pub(super) fn broke(permit: Permit, guard: &RequestGuard, failure: Failure, now: Instant) {
    let model = guard.state.served.as_ref().map_or("", |served| &served.model);
    let provider = guard.state.provider.as_ref();
    let labels = provider.map_or_else(AttemptLabels::default, |labels| labels.attempt(model, permit.credential()));
    tracing::warn!(
        request_id = %guard.state.id,
        provider = labels.provider,
        deployment = guard.state.deployment(),
        model,
        credential = labels.credential,
        url = labels.url,
        reason = failure.reason().label(),
        "a stream broke after its commit point"
    );
    permit.broke(&FailureReport { failure, status: None, detail: BROKE_OFF, labels }, now);
}

/// Records the usage of the answer, as far as it is known by now.
pub(super) fn meter(guard: &mut RequestGuard, body: &AnswerBody, estimator: &TokenEstimator) {
    if background::bill(guard, body) {
        return;
    }
    let state = &mut guard.state;
    let tally = body.tally();
    let (usage, basis) = match state.endpoint {
        Some(endpoint) if endpoint.is_free() => (Usage::default(), UsageBasis::Counted),
        Some(endpoint) if !endpoint.writes_text() => tally.without_output(state.estimated_input),
        _ => tally.tokens(state.estimated_input, estimator.measure()),
    };
    (state.usage, state.basis) = (Some(usage), basis);
    state.impossible_usage = tally.is_impossible;
}

/// Improves the estimator with usage that the provider counted: with every stream at its end, and with a sample of
/// whole answers while they are in memory.
pub(super) fn learn(guard: &RequestGuard, body: &AnswerBody, estimator: &TokenEstimator) {
    // Of a response in the background a part may have come.
    if let (UsageBasis::Counted, Some(usage), None) = (guard.state.basis, guard.state.usage, guard.state.background) {
        let text_bytes = match body.exact_len() {
            Some(_) if estimator.should_sample() => body.whole_text_bytes().unwrap_or(0),
            Some(_) => 0,
            None => body.tally().text_bytes,
        };
        estimator.learn(text_bytes, usage.output);
    }
}

pub(super) fn broken_by(failure: Failure) -> StreamFailure {
    match failure {
        Failure::Deadline => StreamFailure::OutOfTime,
        _ => StreamFailure::Interrupted,
    }
}
