//! How long a request waits before it looks again: for the same deployment, one that throttled it, a trial, or one that
//! others took.
//!
//! Start reading in [`RoutePlan::pause_for_same`]; which of the waits comes first is in `plan.rs`.

use super::RoutePlan;
use crate::domain::breaker::Availability;
use crate::domain::failure::Failure;
use crate::domain::random::RandomValue;
use crate::domain::routing::health::{ExtraBudget, HealthSource};
use crate::domain::routing::table::RoutingTable;
use std::time::{Duration, Instant};

/// The shortest and longest pause before the same deployment is tried again (full jitter).
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MOST: Duration = Duration::from_millis(250);
/// How soon a request that nothing is left for looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

impl RoutePlan {
    /// The pause before the deployment that failed just now is tried again ahead of all others.
    pub(super) fn pause_before_retry_same<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Duration> {
        let due = !self.paused && !self.needs_no_pause();
        due.then(|| self.immediate_retry(table, health, now))??;
        self.pause_for_retry(now, draw)
    }

    /// The pause before some deployment is tried again, when no other is left.
    pub(super) fn pause_for_same<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Duration> {
        let retry_same = !self.paused
            && self.larger_than.is_none()
            && self.deployments().any(|(model_index, id)| {
                self.may_try_again(id, now)
                    && !self.must_go_on(table, health, model_index, now)
                    && self.usable(health, model_index, id, now).is_some()
            });
        retry_same.then(|| self.pause_for_retry(now, draw))?
    }

    fn pause_for_retry(&mut self, now: Instant, draw: RandomValue) -> Option<Duration> {
        let pause = jittered_backoff(self.attempts(), draw);
        self.paused = now + pause < self.terms.deadline;
        self.paused.then_some(pause)
    }

    /// How long until the first deployment that throttled this request may be asked again, if that is within the
    /// allowed wait. All waits of a request together stay within `retry_after_wait_max`.
    pub(super) fn pause_for_throttled<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Duration> {
        if !health.has_extra(ExtraBudget::Retry, now) {
            return None;
        }
        let throttled = self.tried.iter().filter(|t| matches!(t.failure, Some(Failure::Throttled { .. })));
        let until = throttled.filter_map(|attempt| {
            let blocked = match health.view(attempt.deployment, self.mode, now).availability {
                Availability::Blocked { until } => Some(until),
                Availability::Flowing { .. } | Availability::ProbeDue => None,
            };
            blocked.max(attempt.asked_until)
        });
        let until = until.filter(|until| *until > now).min()?;
        let within = until <= self.wait_deadline(table, now) && until < self.terms.deadline;
        self.paused = within;
        within.then(|| until - now)
    }

    /// How long until this request looks again for a deployment that a trial found, its own or another request's.
    pub(super) fn pause_for_trial<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Duration> {
        let left = self.trial_candidates(table, health, now);
        let soonest = left.iter().map(|(_, candidate)| candidate.view.trial_at).min()?;
        let wait_deadline = self.wait_deadline(table, now);
        let until_then = soonest.saturating_duration_since(now);
        let pause = if until_then.is_zero() { LOOK_AGAIN } else { until_then.min(LOOK_AGAIN) };
        (soonest <= wait_deadline && now + pause <= wait_deadline.min(self.terms.deadline)).then_some(pause)
    }

    /// How long until this request looks again where others took everything that it had chosen, and some of that may be
    /// used by now.
    pub(super) fn pause_for_taken<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Duration> {
        let usable = |(_, id)| health.view(id, self.mode, now).is_open_to_attempts();
        let free = self.tried.is_empty() && self.deployments().any(usable);
        let wait_deadline = self.wait_deadline(table, now);
        (free && now + LOOK_AGAIN <= wait_deadline.min(self.terms.deadline)).then_some(LOOK_AGAIN)
    }

    fn wait_deadline(&mut self, table: &RoutingTable, now: Instant) -> Instant {
        *self.wait_deadline.get_or_insert(now + table.settings.retry_after_wait_max)
    }
}

/// Full jitter: a random time up to 25 ms, doubled for each attempt made, at most 250 ms.
fn jittered_backoff(attempts: u32, draw: RandomValue) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(BACKOFF_MOST);
    most.mul_f64(draw.salted(7).unit())
}
