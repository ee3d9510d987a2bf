//! What one request holds, what is known of it so far, and its end.
//!
//! A guard is opened when a request has been received and settled exactly once: at the end of its answer, at
//! the error that the client gets, or, when it is dropped before either, as abandoned. So a client that
//! disconnects leaks nothing and every request leaves one [`Receipt`](crate::domain::receipt::Receipt), which metrics
//! and access log read; the ledger keeps those of known keys. It must never decide: what an end costs is computed in
//! [`spend`](super::spend).
//!
//! Start reading in [`RequestGuard`]; the end is [`RequestGuard::settle`].

use super::RelayContext;
use super::active_config::ResolvedKey;
use super::faults::{report_impossible_usage, report_overrun};
use super::in_flight::{AttemptNumbered, InFlightAttempts};
use super::state::{RequestOutcome, RequestState};
use crate::domain::failure::Failure;
use crate::domain::id::RequestId;
use crate::domain::money::NanoUsd;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Outcome, ServingDeployment};
use crate::domain::refusal::Refusal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The HTTP status on a receipt when the client disconnected before it could read one.
pub(super) const CLIENT_GONE: u16 = 499;

/// Everything a request holds; settles in its drop if nothing settled it before.
pub(super) struct RequestGuard {
    context: Arc<RelayContext>,
    /// Boxed, because it is 1 KB and the guard moves with its answer up to the connection: from relay to HTTP, into the
    /// body, into the end (`make instructions`).
    pub(super) state: Box<RequestState>,
    /// Attempts in flight.
    running: InFlightAttempts<RunningAttempt>,
    /// Since when the client, a provider or a pause is waited for.
    waiting_since: Option<Instant>,
    settled: bool,
}

/// One attempt in flight.
struct RunningAttempt {
    /// Its number in the plan, from 1.
    number: u32,
    place: ServingDeployment,
    sent: Instant,
}

impl AttemptNumbered for RunningAttempt {
    fn number(&self) -> u32 {
        self.number
    }
}

impl RequestGuard {
    /// The guard of request `id`, received at `received`.
    pub(super) fn open(context: Arc<RelayContext>, id: RequestId, received: Instant) -> Self {
        let state = Box::new(RequestState::new(id, received));
        Self { context, state, running: InFlightAttempts::default(), waiting_since: None, settled: false }
    }

    /// What all requests share.
    pub(super) fn context(&self) -> &Arc<RelayContext> {
        &self.context
    }

    /// The time, from the clock that all requests share.
    pub(super) fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// Records whose request it is.
    pub(super) fn made_by(&mut self, key: &ResolvedKey) {
        (self.state.key, self.state.key_id) = (Some(key.record.clone()), key.id);
    }

    /// Waits for `other`: the client, a provider, a pause. That time does not count as the gateway's own.
    pub(super) async fn wait<T>(&mut self, other: impl Future<Output = T>) -> T {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(self.now());
        }
        let value = other.await;
        self.stop_waiting(self.now());
        value
    }

    /// Records that attempt `number` is being sent to `place`. From now on the provider is waited for.
    pub(super) fn attempt_sent(&mut self, number: u32, place: ServingDeployment) {
        let now = self.now();
        debug_assert_eq!(number as usize, self.state.attempts.len() + 1, "attempts are numbered from 1, without a gap");
        // An attempt still in flight at the request's end is given that end's reason.
        self.state.attempts.push(AttemptRecord::sent(&place, now.saturating_duration_since(self.state.received)));
        self.running.insert(RunningAttempt { number, place, sent: now });
        self.waiting_since.get_or_insert(now);
    }

    /// Records that attempt `number` failed; `replied`: with a status other than success, which nobody is paid for.
    pub(super) fn attempt_failed(&mut self, number: u32, failure: Failure, replied: bool, now: Instant) {
        self.state.spend.attempt_failed(number, failure.may_cost() && !replied);
        self.attempt_ended(number, failure.reason(), now);
    }

    /// Records that attempt `number` answered: its commit point.
    pub(super) fn attempt_answered(&mut self, number: u32, now: Instant) {
        self.state.spend.attempt_answered(number);
        self.attempt_ended(number, Reason::Served, now);
        self.state.answered(number, now);
        self.stop_overhead(now);
    }

    /// Records which limit refused the request.
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

    /// Ends the request: everything held is returned or charged, and the receipt is written. `status` is what the
    /// client read as HTTP status.
    pub(super) fn settle(mut self, outcome: Outcome, reason: Reason, status: u16) {
        self.settle_once(outcome, reason, status);
    }

    fn attempt_ended(&mut self, number: u32, reason: Reason, now: Instant) {
        let Some(RunningAttempt { place, sent, .. }) = self.running.take(number) else { return };
        let record = &mut self.state.attempts[number as usize - 1];
        record.reason = reason;
        record.duration = now.saturating_duration_since(sent);
        // The attempt that answered served the request, whatever ends after it but a replay of its answer.
        if self.state.first_token.is_none() || reason == Reason::Served {
            self.state.served = Some(place);
        }
    }

    fn stop_waiting(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.state.waited += now.saturating_duration_since(since);
        }
    }

    fn settle_once(&mut self, outcome: Outcome, reason: Reason, status: u16) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let now = self.context.clock.now();
        // A client that disconnects does so in the middle of something: an attempt, or a wait.
        for number in 1..=self.state.attempts.len() as u32 {
            self.attempt_ended(number, reason, now);
        }
        if outcome == Outcome::Broken {
            self.state.answer_broke(reason);
        }
        self.stop_waiting(now);
        self.stop_overhead(now);
        let used = self.used_tokens();
        if let Some(admission) = self.state.admission.take() {
            self.context.counters.settle(admission, used, now);
        }
        let state = &mut self.state;
        let (cost, charges) = state.spend.end(state.price.as_ref(), state.usage, state.basis);
        if cost.beyond > NanoUsd::ZERO {
            report_overrun(&self.context, &self.state, cost, now);
        }
        if self.state.impossible_usage {
            report_impossible_usage(&self.context, &self.state);
        }
        let end = RequestOutcome { outcome, reason, status, at: now, at_unix_ms: self.context.clock.unix_ms() };
        let receipt = Arc::new(self.state.receipt(end, cost, charges));
        // What strangers send leaves nothing durable: the metrics count it, and the access log has some of it.
        if receipt.key.is_some() {
            self.context.ledger.append(&receipt, self.state.spend.room.take());
        }
        if !receipt.charges.is_empty() {
            self.context.lease_store.settle(&receipt);
        }
        let sla = self.state.key.as_ref().and_then(|key| key.policy.sla.as_deref());
        self.context.telemetry.record(&receipt, sla);
    }

    /// Tokens to settle the key's limit with: all that were taken are returned where nothing was sent to any
    /// model; `None`, they stay as taken, where something was sent and its usage is unknown.
    fn used_tokens(&self) -> Option<u64> {
        if self.state.attempts.is_empty() { Some(0) } else { self.state.usage.map(|usage| usage.total()) }
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
