//! What one request holds and what is known of it so far.
//!
//! A ticket is opened when a request has been read and settled exactly once: by an answer's end, by
//! an error told to the client, or, when it is dropped on the way, as abandoned. So a client that
//! vanishes leaks nothing and every request leaves one receipt.

use super::RelayContext;
use super::settle;
use super::spend::RequestSpend;
use crate::domain::authorize::KeyRecord;
use crate::domain::call::Endpoint;
use crate::domain::estimate::UsageBasis;
use crate::domain::failure::Failure;
use crate::domain::id::RequestId;
use crate::domain::limit::Left;
use crate::domain::pricing::{Price, PriceVersion};
use crate::domain::receipt::{AttemptRecord, Outcome, Reason, Served};
use crate::domain::refusal::{LimitKind, Refusal};
use crate::domain::usage::Usage;
use crate::store::Admission;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a receipt says as status when the client had gone before it could read one.
pub(super) const CLIENT_GONE: u16 = 499;

/// One request's holdings; settles in its drop if nothing settled it before.
pub(super) struct RequestGuard {
    context: Arc<RelayContext>,
    pub(super) state: RequestState,
    /// The attempt under way: its place, and when it was sent.
    running: Option<(Served, Instant)>,
    /// Since when somebody else is waited for.
    waiting: Option<Instant>,
    settled: bool,
}

/// What is known of a request so far.
pub(super) struct RequestState {
    pub(super) id: RequestId,
    pub(super) received: Instant,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) key: Option<Arc<KeyRecord>>,
    pub(super) asked_model: Option<Box<str>>,
    pub(super) stream: bool,
    /// Input tokens as guessed, for when the provider counts none.
    pub(super) estimated_input: u64,
    pub(super) served: Option<Served>,
    pub(super) attempts: Vec<AttemptRecord>,
    /// What the answer is charged at.
    pub(super) price: Option<PriceVersion>,
    pub(super) usage: Option<Usage>,
    /// How `usage` is known.
    pub(super) basis: UsageBasis,
    /// The provider counted what cannot be.
    pub(super) impossible_usage: bool,
    pub(super) limit: Option<LimitKind>,
    pub(super) first_token: Option<Duration>,
    /// Time spent waiting for the client, a provider or a pause, up to the answer's first byte.
    pub(super) waited: Duration,
    /// Time spent in the gateway up to the answer's first byte, once there is one.
    pub(super) overhead: Option<Duration>,
    pub(super) admission: Option<Admission>,
    pub(super) requests_left: Option<Left>,
    pub(super) tokens_left: Option<Left>,
    pub(super) spend: RequestSpend,
}

impl RequestState {
    /// What a token of the answer costs.
    pub(super) fn price(&self) -> Option<Price> {
        self.price.as_ref().map(|version| version.price)
    }
}

impl RequestGuard {
    /// Opens the ticket of request `id`, received at `received`.
    pub(super) fn open(context: Arc<RelayContext>, id: RequestId, received: Instant) -> Self {
        let state = RequestState {
            id,
            received,
            endpoint: None,
            key: None,
            asked_model: None,
            stream: false,
            estimated_input: 0,
            served: None,
            attempts: Vec::with_capacity(1),
            price: None,
            usage: None,
            basis: UsageBasis::default(),
            impossible_usage: false,
            limit: None,
            first_token: None,
            waited: Duration::ZERO,
            overhead: None,
            admission: None,
            requests_left: None,
            tokens_left: None,
            spend: RequestSpend::default(),
        };
        Self { context, state, running: None, waiting: None, settled: false }
    }

    /// The time, as the corridor's clock has it.
    pub(super) fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// Waits for `other`: the client, a provider, a pause. That time is not the gateway's own.
    pub(super) async fn wait<T>(&mut self, other: impl Future<Output = T>) -> T {
        let now = self.now();
        self.waiting.get_or_insert(now);
        let value = other.await;
        self.waited(self.now());
        value
    }

    /// Notes an attempt that begins. From now on it is the provider that is waited for.
    pub(super) fn attempt_sent(&mut self, place: Served) {
        let now = self.now();
        self.running = Some((place, now));
        self.waiting = Some(now);
    }

    /// Notes that the attempt under way failed.
    pub(super) fn attempt_failed(&mut self, failure: Failure, now: Instant) {
        self.state.spend.attempt_failed(failure);
        self.attempt_ended(failure.reason(), now);
    }

    /// Notes that the attempt under way answered: its commit point.
    pub(super) fn attempt_answered(&mut self, now: Instant) {
        self.attempt_ended(Reason::Served, now);
        self.state.first_token = Some(now.saturating_duration_since(self.state.received));
        self.stop_overhead(now);
    }

    /// Notes a refusal's limit.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        if let Refusal::OverLimit(over) = refusal {
            self.state.limit = Some(over.limit);
        }
    }

    /// Fixes the overhead: from here on time belongs to the answer. Returns it.
    pub(super) fn stop_overhead(&mut self, now: Instant) -> Duration {
        let spent = now.saturating_duration_since(self.state.received).saturating_sub(self.state.waited);
        *self.state.overhead.get_or_insert(spent)
    }

    /// Ends the request: everything held goes back, the receipt is written.
    pub(super) fn settle(mut self, outcome: Outcome, reason: Reason, status: u16) {
        self.settle_once(outcome, reason, status);
    }

    fn attempt_ended(&mut self, reason: Reason, now: Instant) {
        if let Some((place, sent)) = self.running.take() {
            self.state.attempts.push(AttemptRecord {
                deployment: place.deployment.clone(),
                tier: place.tier.clone(),
                reason,
                duration: now.saturating_duration_since(sent),
            });
            self.state.served = Some(place);
        }
    }

    fn waited(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.state.waited += now.saturating_duration_since(since);
        }
    }

    fn settle_once(&mut self, outcome: Outcome, reason: Reason, status: u16) {
        if !std::mem::replace(&mut self.settled, true) {
            let now = self.context.clock.now();
            // Whoever left did so in the middle of something: it was sent, it was waited for.
            self.attempt_ended(reason, now);
            self.waited(now);
            self.stop_overhead(now);
            settle::settle(&self.context, &mut self.state, settle::End { outcome, reason, status }, now);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.settle_once(Outcome::Failed, Reason::Internal, 500);
        } else {
            self.settle_once(Outcome::Abandoned, Reason::ClientGone, CLIENT_GONE);
        }
    }
}
