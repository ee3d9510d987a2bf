//! The attempts of a plan that are made while another one is in flight: beside it, or in its place.
//!
//! It exists so that rescuing, sharing time and hedging are one decision, which the simulation makes with the same
//! code as a gateway. What is known of the attempts in flight is passed in, as [`PendingAttempts`]; who watches them cancels.
//!
//! Start reading in [`RoutePlan::due`].

use super::{Attempt, ChosenCandidate, RoutePlan};
use crate::domain::failure::Failure;
use crate::domain::id::DeploymentId;
use crate::domain::random::RandomValue;
use crate::domain::routing::health::{ExtraBudget, HealthSource, PermitKind};
use crate::domain::routing::table::RoutingTable;
use std::time::{Duration, Instant};

/// Why an attempt is made beside another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BesideReason {
    /// The deployment of the first one is silent.
    Rescue,
    /// The first one has used its share of the request's time.
    ShareOfTime,
    /// The key's policy hedges, and the first token is late.
    Hedge,
}

/// What is known of the attempts in flight.
#[derive(Clone, Copy, Debug)]
pub struct PendingAttempts {
    /// There is only one.
    pub alone: bool,
    /// The deployments of all of them are silent.
    pub silent: bool,
    /// The policy hedges, and the first token is late enough for that.
    pub hedge: bool,
    /// One has used its share of the request's time, or is overdue by far.
    pub late: bool,
    /// Nothing may come of any of them: each is at a silent deployment, or overdue by far where others are answered.
    pub in_vain: bool,
}

/// No healthy deployment is left that was not tried.
struct NoneElsewhere;

impl RoutePlan {
    /// The attempt that is due while others are in flight, if any, and why it is made beside the only one; without a
    /// reason it is one more of a request that was rescued, in the place of one that failed or that nothing may come
    /// of.
    pub fn due<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        in_flight: PendingAttempts,
        now: Instant,
        draw: RandomValue,
    ) -> Option<(Attempt<B::Permit>, Option<BesideReason>)> {
        let PendingAttempts { alone, silent, hedge, late, in_vain } = in_flight;
        if !self.rescued {
            let reasons =
                [(silent, BesideReason::Rescue), (hedge, BesideReason::Hedge), (late, BesideReason::ShareOfTime)];
            let mut due = reasons.into_iter().filter(|(is_due, _)| *is_due && alone);
            return due.find_map(|(_, why)| Some((self.beside(table, health, why, now, draw)?, Some(why))));
        }
        let further = in_vain || alone && late;
        further.then(|| Some((self.further(table, health, now, draw)?, None)))?
    }

    /// An attempt to make beside the one in flight, at a healthy deployment that was not tried. A rescue may also be
    /// a trial where nothing else is left; no request is rescued twice.
    pub(super) fn beside<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        why: BesideReason,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Attempt<B::Permit>> {
        if self.rescued || !self.may_go_on(table, now) {
            return None;
        }
        let budget = match why {
            BesideReason::Rescue | BesideReason::ShareOfTime => ExtraBudget::Retry,
            BesideReason::Hedge => ExtraBudget::Hedge,
        };
        let or_trial = why == BesideReason::Rescue;
        let attempt = match self.elsewhere(table, health, budget, now, draw) {
            Err(NoneElsewhere) if or_trial => self.probe_or_trial(table, health, now),
            found => found.ok().flatten(),
        };
        self.rescued |= attempt.is_some();
        attempt
    }

    /// One more attempt of a request that was rescued: in the place of one that failed, or of one that nothing may
    /// come of. A deployment that answers again, after it lost this request, comes before a trial at one that does not.
    fn further<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Attempt<B::Permit>> {
        if !self.may_go_on(table, now) {
            return None;
        }
        match self.elsewhere(table, health, ExtraBudget::Retry, now, draw) {
            Err(NoneElsewhere) => {
                self.where_it_was_lost(table, health, now).or_else(|| self.probe_or_trial(table, health, now))
            }
            Ok(found) => found,
        }
    }

    /// The probe of an untried deployment, if one is due, else a trial: where all requests wait at silent deployments and
    /// no new one comes, nobody else would find that it is well again.
    fn probe_or_trial<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Attempt<B::Permit>> {
        self.due_probe(table, health, now).or_else(|| self.trial(table, health, now))
    }

    fn due_probe<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Attempt<B::Permit>> {
        if !health.has_extra(ExtraBudget::Retry, now) {
            return None;
        }
        let candidate = self.deployments().find_map(|(index, id)| {
            let open = !self.has_tried(id) && self.has_context(table, &self.candidate_models[index]);
            let candidate = open.then(|| self.usable(health, index, id, now))??;
            (candidate.is_probe() && !candidate.view.silent).then_some(candidate)
        })?;
        let chosen = ChosenCandidate { candidate, kind: PermitKind::Usual, budget: Some(ExtraBudget::Retry) };
        self.take(table, health, chosen, now)
    }

    /// A second attempt at a deployment that never answered the first one, and is healthy by now.
    fn where_it_was_lost<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Attempt<B::Permit>> {
        let lost_once = |id: DeploymentId| {
            let mut there = self.tried.iter().filter(|tried| tried.deployment == id);
            let first = there.next();
            let unanswered = first.is_some_and(|tried| matches!(tried.failure, None | Some(Failure::Silent)));
            unanswered && there.next().is_none()
        };
        let candidate = self.deployments().find_map(|(index, id)| {
            let candidate = lost_once(id).then(|| self.usable(health, index, id, now))??;
            let view = &candidate.view;
            (!view.silent && !candidate.is_probe() && view.last_good == Some(true)).then_some(candidate)
        })?;
        let chosen = ChosenCandidate { candidate, kind: PermitKind::Usual, budget: Some(ExtraBudget::Retry) };
        self.take(table, health, chosen, now)
    }

    /// How long the latest attempt is waited for before another one is started beside it: its share of the time
    /// that is left, at least what is usual at its deployment. `None` where that is more than `most`.
    pub fn share_of_time<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        most: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let current = self.tried.last()?;
        let left = self.terms.answer_by.saturating_duration_since(now);
        let attempts_left = self.most_attempts(table).saturating_sub(self.attempts()) as usize;
        // Not even all of them, if they were untried and healthy, leave a shorter share.
        if left / (attempts_left as u32 + 1) > most {
            return None;
        }
        let untried = self
            .deployments()
            .filter(|(_, id)| !self.has_tried(*id) && health.view(*id, self.mode, now).is_open_to_attempts());
        let others = untried.take(attempts_left).count();
        if others == 0 || self.rescued {
            return None;
        }
        let usual = health.view(current.deployment, self.mode, now).p99.unwrap_or_default();
        Some((left / (others as u32 + 1)).max(usual))
    }

    fn may_go_on(&self, table: &RoutingTable, now: Instant) -> bool {
        self.gave_up.is_none() && now < self.terms.deadline && self.attempts() < self.most_attempts(table)
    }

    /// An attempt at a healthy deployment that was not tried, paid from `budget`; `None` where the budget is used up.
    ///
    /// # Errors
    /// [`NoneElsewhere`] where there is no such deployment.
    fn elsewhere<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        budget: ExtraBudget,
        now: Instant,
        draw: RandomValue,
    ) -> Result<Option<Attempt<B::Permit>>, NoneElsewhere> {
        let mut lost = Vec::new();
        while let Some(choice) = self.healthy_elsewhere(table, health, &lost, now, draw) {
            if !health.has_extra(budget, now) {
                return Ok(None);
            }
            let chosen = ChosenCandidate { candidate: choice, kind: PermitKind::Usual, budget: Some(budget) };
            match self.take(table, health, chosen, now) {
                Some(attempt) => return Ok(Some(attempt)),
                None => lost.push(choice.deployment),
            }
        }
        Err(NoneElsewhere)
    }
}
