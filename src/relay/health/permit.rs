//! The permit that each attempt at a deployment holds.
//!
//! A permit's end is reported to breakers, gauge and credential exactly once, whatever happens to the attempt. What an
//! end means is decided in `domain`; nothing is decided here.
//!
//! Start reading in [`Permit`].

use super::DeploymentState;
use super::credential::CredentialPermit;
use super::status::{FailureNote, FailureReport};
use crate::clock::Clock;
use crate::domain::breaker::rest::Rest;
use crate::domain::breaker::team::TeamBreakerPermit;
use crate::domain::breaker::{AttemptEnd, StateName, Transition};
use crate::domain::call::Endpoint;
use crate::domain::failure::{Failure, HealthSignal};
use crate::domain::id::TeamId;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::places::PlaceHolder;
use crate::domain::routing::plan::Evidence;
use crate::domain::routing::silence::{AttemptInFlight, SilenceLimits};
use crate::domain::traffic::TrafficEvent;
use crate::random::Rng;
use crate::telemetry::Telemetry;
use crate::upstream::AttemptWatch;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Signs of life of one attempt are recorded no more often than this: every frame would take the lock.
const HEARD_EVERY: Duration = Duration::from_millis(50);

/// Permission for one attempt, which is in flight until the last byte of its answer.
///
/// Its end is reported exactly once: [`failed`](Self::failed), [`ended`](Self::ended), [`broke`](Self::broke),
/// [`abandoned`](Self::abandoned), or, when it is dropped, as abandoned then.
#[must_use]
pub struct Permit {
    pub(super) state: Arc<DeploymentState>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) rng: Arc<Rng>,
    pub(super) clock: Clock,
    pub(super) team: TeamId,
    pub(super) holder: PlaceHolder,
    pub(super) silence: SilenceLimits,
    pub(super) sent: Instant,
    /// When a sign of life was last recorded after the commit point.
    pub(super) heard: Option<Instant>,
    pub(super) last_was_good: bool,
    /// Until then it has not waited long enough itself for anything to be said of its deployment.
    pub(super) ask_until: Instant,
    pub(super) credential: CredentialPermit,
    pub(super) permit: TeamBreakerPermit,
    pub(super) not_found_trial: bool,
    pub(super) endpoint: Endpoint,
    pub(super) endpoint_trial: bool,
    pub(super) attempt: AttemptInFlight,
    pub(super) answered: bool,
    /// Its answer has stalled, which was counted as its breaking off.
    pub(super) stalled: bool,
    pub(super) reported: bool,
}

/// A failure that was counted, to be taken back if the request turns out to be to blame.
pub struct ReportedFailure {
    state: Arc<DeploymentState>,
    team: TeamId,
    counted: CountedFor,
}

/// What a failure was counted for.
enum CountedFor {
    Breaker,
    NotFound,
    Credential(Arc<Mutex<Rest>>),
}

impl ReportedFailure {
    /// Takes it back.
    pub fn take_back(self, now: Instant) {
        match self.counted {
            CountedFor::Breaker => self.state.health.lock().breakers.take_back(self.team, now),
            CountedFor::NotFound => self.state.health.lock().not_found.take_back(self.team),
            CountedFor::Credential(health) => health.lock().take_back(self.team),
        }
    }
}

impl Permit {
    /// The index of the provider's credential to present.
    pub fn credential(&self) -> usize {
        self.credential.index
    }

    /// When it was taken, which is when the attempt is sent.
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// Whether the last attempt at the deployment that had finished by then was good.
    pub fn last_was_good(&self) -> bool {
        self.last_was_good
    }

    /// Where the attempt's signs of life are recorded until its commit point.
    pub fn signs_of_life(&self) -> AttemptSigns {
        AttemptSigns {
            state: self.state.clone(),
            attempt: self.attempt,
            silence: self.silence,
            heard: Mutex::default(),
            has_head: AtomicBool::new(false),
        }
    }

    /// Something came for the attempt after its commit point.
    pub fn heard(&mut self, now: Instant) {
        if is_due(&mut self.heard, now) {
            self.state.health.lock().gauge.heard(self.attempt, now);
        }
    }

    /// Whether its answer has stalled, as far as was said.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Says whether its answer has stalled. That counts against its deployment at once, as if it had broken off, because
    /// its end may come long after; if it goes on, it is taken back.
    pub fn stalls(&mut self, stalled: bool, now: Instant) {
        if stalled == self.stalled || self.reported {
            return;
        }
        self.stalled = stalled;
        if stalled {
            self.note(Some(FailureNote::stalled(now)));
            let draw = self.rng.draw();
            let mut health = self.state.health.lock();
            let transition = health.breakers.report(self.permit, self.team, AttemptEnd::BrokenOff, now, draw);
            drop(health);
            self.report_transition(transition);
        } else {
            self.state.health.lock().breakers.take_back(self.team, now);
        }
    }

    /// When its deployment counts as silent unless it is heard of before, or when the attempt has asked a silent one
    /// for long enough; `None` where nothing is waited for.
    pub fn silent_at(&self) -> Option<Instant> {
        let health = self.state.health.lock();
        match health.gauge.silent_since() {
            Some(_) => Some(self.ask_until),
            None => health.gauge.silent_at(self.silence).map(|at| at.max(self.ask_until)),
        }
    }

    /// Whether its deployment is silent to its team at `now`, or the attempt has asked a silent one for long enough.
    pub fn is_silent(&self, now: Instant) -> bool {
        let silent = self.state.health.lock().gauge.is_silent_to(self.team, self.silence, now);
        silent && now >= self.ask_until
    }

    /// When anything last came from its deployment.
    pub fn last_heard(&self) -> Option<Instant> {
        self.state.health.lock().gauge.last_heard()
    }

    /// The 99th percentile of the deployment's first-token times in this mode, once enough are known.
    pub fn usual_p99(&self, mode: AnswerMode) -> Option<Duration> {
        self.state.health.lock().gauge.p99(mode)
    }

    /// A percentile of the deployment's first-token times in this mode, once known.
    pub fn usual_first_token(&self, mode: AnswerMode, percent: u8) -> Option<Duration> {
        self.state.health.lock().gauge.percentile(mode, percent)
    }

    /// Reports the commit point: its first good token has arrived.
    pub fn answered(&mut self, now: Instant) {
        self.answered = true;
        let mut health = self.state.health.lock();
        let slowdown = health.gauge.answered(self.attempt, now);
        let closed = health.breakers.answered(self.team, &mut self.permit, now);
        if closed.is_some() {
            // Its first-token time measured the outage, not the deployment.
            health.gauge.forget();
        }
        let found = health.not_found.is_resting();
        health.not_found.good(self.team, now);
        health.endpoints.of_mut(self.endpoint).good(self.team, now);
        (self.not_found_trial, self.endpoint_trial) = (false, false);
        drop(health);
        if let Some(slowdown) = slowdown {
            self.state.first_token(slowdown, self.sent, now);
        }
        let rested = self.credential.accepted(self.team, now);
        self.report_transition(closed.or_else(|| (found || rested).then_some(RECOVERED)));
    }

    /// Reports that it failed before its commit point, and what that is evidence of. Returns what may be taken back.
    pub fn failed(mut self, report: &FailureReport<'_>, evidence: Evidence, now: Instant) -> Option<ReportedFailure> {
        let failure = report.failure;
        let counts = evidence == Evidence::Counts;
        let signal = failure.health_signal();
        if failure.is_reply() {
            self.state.health.lock().gauge.replied(self.attempt, now);
        }
        if failure == Failure::Overtaken {
            self.state.health.lock().gauge.overtaken(self.attempt, now);
        }
        let rest = if counts { self.rest(signal, report, now) } else { None };
        self.note(FailureNote::of(report, now));
        match signal {
            // A provider that looked at the request had accepted the credential.
            HealthSignal::Good => _ = self.credential.accepted(self.team, now),
            _ => self.credential.undecided(now),
        }
        let end = match signal {
            HealthSignal::Good => AttemptEnd::Good,
            // A probe decides whatever the request did elsewhere: else every request of an outage would be the next one.
            HealthSignal::Bad if counts || self.permit.is_probe() => AttemptEnd::Bad,
            HealthSignal::Down => AttemptEnd::Down,
            HealthSignal::Unanswered if counts && self.is_silent(now) => AttemptEnd::Bad,
            _ => AttemptEnd::Neutral,
        };
        let finished = match end {
            AttemptEnd::Neutral => failure.remembered(),
            end => Some(end == AttemptEnd::Good),
        };
        self.report(end, finished, now);
        self.report_transition(rest);
        let counted = match signal {
            _ if end == AttemptEnd::Bad => CountedFor::Breaker,
            HealthSignal::NotFound if counts => CountedFor::NotFound,
            // A refused credential is never the request's fault.
            HealthSignal::AccountRefused if counts => CountedFor::Credential(self.credential.shared_health()),
            _ => return None,
        };
        Some(ReportedFailure { state: self.state.clone(), team: self.team, counted })
    }

    /// Reports that its answer is complete.
    pub fn ended(mut self, now: Instant) {
        self.report(AttemptEnd::Good, Some(true), now);
    }

    /// Reports that its answer broke off after the commit point.
    pub fn broke(mut self, report: &FailureReport<'_>, now: Instant) {
        let failure = report.failure;
        let end = match failure.signal_after_commit() {
            HealthSignal::Bad | HealthSignal::Down => AttemptEnd::BrokenOff,
            HealthSignal::Unanswered if self.is_silent(now) => AttemptEnd::BrokenOff,
            _ => AttemptEnd::Neutral,
        };
        if end == AttemptEnd::BrokenOff {
            self.note(FailureNote::of(report, now));
        }
        self.report(end, (end != AttemptEnd::Neutral).then_some(false), now);
    }

    /// Keeps what became of the attempt for operators.
    fn note(&self, note: Option<FailureNote>) {
        if note.is_some() {
            self.state.health.lock().last_failure = note;
        }
    }

    /// Reports that its client left. That is evidence only where the deployment was silent, or nothing more came of the
    /// answer since `waited_since`, for longer than an answer is usually waited for.
    pub fn abandoned(mut self, waited_since: Option<Instant>, now: Instant) {
        let in_vain = |since: Instant| now.saturating_duration_since(since) >= self.silence.late_after;
        self.stalls(self.stalled || waited_since.is_some_and(in_vain), now);
        self.abandon(now);
    }

    fn abandon(&mut self, now: Instant) {
        self.credential.undecided(now);
        let silent = !self.answered && self.is_silent(now);
        let end = if silent { AttemptEnd::Bad } else { AttemptEnd::Neutral };
        self.note(silent.then(|| FailureNote::silent(now)));
        self.report(end, silent.then_some(false), now);
    }

    pub(super) fn report(&mut self, end: AttemptEnd, finished: Option<bool>, now: Instant) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let mut health = self.state.health.lock();
        health.gauge.ended(self.attempt, now);
        self.state.give_place_back(&mut health.places, self.holder, self.sent, now);
        if let Some(good) = finished {
            health.gauge.finished(good);
        }
        let of_model = std::mem::take(&mut self.not_found_trial);
        let of_endpoint = std::mem::take(&mut self.endpoint_trial).then_some(self.endpoint);
        health.end_trials(of_model, of_endpoint, now);
        // A stall was counted when it was noticed.
        let end = if self.stalled && end != AttemptEnd::Good { AttemptEnd::Neutral } else { end };
        let transition = health.breakers.report(self.permit, self.team, end, now, self.rng.draw());
        drop(health);
        self.state.hand_places_on(now);
        self.report_transition(transition);
    }

    fn report_transition(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            let cause = transition.cause.map_or("recovered", |cause| cause.label());
            tracing::warn!(deployment = %self.state.name, to = transition.to.label(), cause, "a breaker changed state");
            self.telemetry.metrics.transition(&self.state.name, transition);
            self.telemetry.live.note(TrafficEvent {
                at_unix_ms: self.clock.unix_ms(),
                kind: transition.to.into(),
                subject: self.state.name.clone(),
                detail: cause.into(),
            });
        }
    }
}

/// A rest is over.
const RECOVERED: Transition = Transition { to: StateName::Closed, cause: None };

/// Records the signs of life of one attempt until its commit point.
pub struct AttemptSigns {
    state: Arc<DeploymentState>,
    attempt: AttemptInFlight,
    silence: SilenceLimits,
    /// When something was last recorded; the head is not.
    heard: Mutex<Option<Instant>>,
    has_head: AtomicBool,
}

impl AttemptWatch for AttemptSigns {
    fn heard(&self, now: Instant) {
        let is_head = !self.has_head.swap(true, Ordering::Relaxed);
        if is_head || is_due(&mut self.heard.lock(), now) {
            self.state.health.lock().gauge.heard(self.attempt, now);
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        let mut health = self.state.health.lock();
        !health.gauge.is_silent(self.silence, now) && health.gauge.progressed_within(self.silence.silent_after, now)
    }
}

/// Whether a sign of life is to be recorded, `last` being when one was; then it is `now`.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= HEARD_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            let now = self.clock.now();
            self.abandon(now);
        }
    }
}
