//! The health of deployments as one request's plan reads it, and the permit that each of its attempts holds.
//!
//! A permit's end is reported to breaker, gauge and credential exactly once, whatever happens to the attempt. Nothing
//! is decided here.
//!
//! Start reading in [`Permit`].

use super::{DeploymentSet, DeploymentState, SharedHealth, stricter};
use crate::domain::breaker::{BreakerPermit, Transition};
use crate::domain::failure::{Failure, HealthSignal};
use crate::domain::id::{DeploymentId, KeyId};
use crate::domain::random::RandomValue;
use crate::domain::routing::gauge::{AnswerMode, PendingAttempt};
use crate::domain::routing::health::{HealthSource, HealthView};
use crate::random::Rng;
use crate::telemetry::Telemetry;
use std::sync::Arc;
use std::time::Instant;

/// A [`DeploymentSet`] whose permits report their ends for one key.
#[derive(Clone, Copy)]
pub struct KeyHealthView<'a> {
    pub(super) deployments: &'a DeploymentSet,
    pub(super) key: KeyId,
}

impl HealthSource for KeyHealthView<'_> {
    type Permit = Permit;

    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView {
        let member = &self.deployments.members[deployment.index()];
        let credentials = member.credentials.availability(now);
        let health = member.state.health.lock();
        HealthView {
            availability: stricter(health.breaker.availability(now), credentials),
            full: member.max_concurrent.is_some_and(|most| health.gauge.in_flight() >= most),
            silent: health.gauge.is_silent(self.deployments.silent_after, now),
            load: health.gauge.load(mode, now),
            average: health.gauge.average(mode),
            last_good: health.gauge.last_good(),
        }
    }

    fn take(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> Option<Permit> {
        let member = &self.deployments.members[deployment.index()];
        let credential = member.credentials.take(now)?;
        let mut health = member.state.health.lock();
        let full = member.max_concurrent.is_some_and(|most| health.gauge.in_flight() >= most);
        let permit = if full { None } else { health.breaker.admit(now) };
        let Some(permit) = permit else {
            drop(health);
            credential.undecided(now);
            return None;
        };
        let last_was_good = health.gauge.last_good() == Some(true);
        let pending = health.gauge.sent(mode, now);
        drop(health);
        Some(Permit {
            state: member.state.clone(),
            telemetry: self.deployments.telemetry.clone(),
            rng: self.deployments.rng.clone(),
            key: self.key,
            mode,
            sent: now,
            last_was_good,
            credential,
            permit,
            pending: Some(pending),
            reported: false,
        })
    }

    fn has_retry(&self, now: Instant) -> bool {
        self.deployments.retries.lock().has_left(now)
    }

    fn spend_retry(&self, now: Instant) -> bool {
        self.deployments.retries.lock().spend(now)
    }
}

/// Permission for one attempt, which is in flight until the last byte of its answer.
///
/// Its end is reported exactly once: [`failed`](Self::failed), [`ended`](Self::ended),
/// [`broke`](Self::broke), or, when it is dropped, as neutral for the deployment.
#[must_use]
pub struct Permit {
    state: Arc<DeploymentState>,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
    key: KeyId,
    mode: AnswerMode,
    sent: Instant,
    last_was_good: bool,
    credential: CredentialPermit,
    permit: BreakerPermit,
    /// Some until its first token or its end.
    pending: Option<PendingAttempt>,
    reported: bool,
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

    /// Reports the commit point: its first good token has arrived.
    pub fn answered(&mut self, now: Instant) {
        let mut health = self.state.health.lock();
        if let Some(pending) = self.pending.take() {
            health.gauge.answered(self.mode, pending, now);
        }
        let closed = health.breaker.answered(&mut self.permit, now);
        if closed.is_some() {
            // Its first-token time measured the outage, not the deployment.
            health.gauge.forget();
        }
        drop(health);
        self.credential.accepted();
        self.report_transition(closed);
    }

    /// Reports that it failed before its commit point.
    pub fn failed(mut self, failure: Failure, now: Instant) {
        let signal = failure.health_signal();
        match signal {
            HealthSignal::CredentialRefused => self.credential.refused(now, self.rng.draw()),
            // A provider that looked at the request had accepted the credential.
            HealthSignal::Good | HealthSignal::Throttled(_) | HealthSignal::NotFound => self.credential.accepted(),
            // A failing provider may have failed before it checked the credential.
            HealthSignal::Bad | HealthSignal::Down | HealthSignal::Neutral => self.credential.undecided(now),
        }
        self.report(signal, failure.remembered(), now);
    }

    /// Reports that its answer is complete.
    pub fn ended(mut self, now: Instant) {
        self.report(HealthSignal::Good, Some(true), now);
    }

    /// Reports that its answer broke off after the commit point.
    pub fn broke(mut self, failure: Failure, now: Instant) {
        let signal = failure.health_signal();
        self.report(signal, failure.remembered().map(|_| false), now);
    }

    fn report(&mut self, signal: HealthSignal, finished: Option<bool>, now: Instant) {
        self.reported = true;
        let mut health = self.state.health.lock();
        if let Some(pending) = self.pending.take() {
            health.gauge.ended_unanswered(self.mode, pending);
        }
        health.gauge.done();
        if let Some(good) = finished {
            health.gauge.finished(good);
        }
        let transition = health.breaker.report(self.permit, self.key, signal, now, self.rng.draw());
        drop(health);
        self.report_transition(transition);
    }

    fn report_transition(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            let cause = transition.cause.map_or("recovered", |cause| cause.label());
            tracing::warn!(deployment = %self.state.name, to = transition.to.label(), cause, "a breaker changed state");
            self.telemetry.metrics.transition(&self.state.name, transition);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            let sent = self.sent;
            self.credential.undecided(sent);
            self.report(HealthSignal::Neutral, None, sent);
        }
    }
}

/// One credential, taken for one attempt.
pub(super) struct CredentialPermit {
    pub(super) index: usize,
    pub(super) health: Option<SharedHealth>,
    pub(super) trial: bool,
}

impl CredentialPermit {
    fn accepted(&mut self) {
        if let (true, Some(health)) = (self.trial, &self.health) {
            health.lock().accepted();
        }
        self.trial = false;
    }

    fn refused(&mut self, now: Instant, draw: RandomValue) {
        if let Some(health) = &self.health
            && health.lock().refused(self.trial, now, draw)
        {
            tracing::error!(credential = self.index, "a provider refused our credential; it rests");
        }
        self.trial = false;
    }

    fn undecided(&self, now: Instant) {
        if let (true, Some(health)) = (self.trial, &self.health) {
            health.lock().undecided(now);
        }
    }
}
