//! Where the next attempt of a plan may go: which deployments are left, and in which order they are preferred.
//!
//! It only reads: the plan, its table and the health of deployments. What is done with the choice is in
//! [`plan`](super).
//!
//! Start reading in [`RoutePlan::choose`].

use super::{REGIONS_OF_A_MODEL, RoutePlan};
use crate::domain::breaker::Availability;
use crate::domain::failure::Failure;
use crate::domain::id::{DeploymentId, RegionId};
use crate::domain::random::RandomValue;
use crate::domain::routing::choice::{Candidate, best};
use crate::domain::routing::health::{ExtraBudget, HealthSource, HealthView};
use crate::domain::routing::table::RoutingTable;
use std::time::Instant;

impl RoutePlan {
    /// Whether a place is all that the request lacks: nothing that it may ask is free, and something of that is full.
    pub fn is_full<B: HealthSource>(&self, health: &B, now: Instant) -> bool {
        let mut full = false;
        for (_, id) in self.deployments() {
            let view = health.view(id, self.mode, now);
            if view.is_open_to_attempts() {
                return false;
            }
            full |= view.full && !matches!(view.availability, Availability::Blocked { .. });
        }
        full
    }

    pub(super) fn choose<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        lost: &[DeploymentId],
        now: Instant,
        draw: RandomValue,
    ) -> Option<Candidate> {
        let usable = |model_index: usize, deployment: DeploymentId| {
            (!lost.contains(&deployment)).then(|| self.usable(health, model_index, deployment, now))?
        };
        let pick = |allowed: &dyn Fn(&Candidate) -> bool| {
            self.first_candidate(table, health, now, draw, |model_index, id| {
                usable(model_index, id).filter(|candidate| allowed(candidate))
            })
        };
        let awake = |candidate: &Candidate| !candidate.view.silent || candidate.view.may_ask;
        if self.tried.is_empty() {
            return pick(&awake).or_else(|| pick(&|_| true));
        }
        if let Some(same) = self.immediate_retry(table, health, now)
            && (self.paused || self.needs_no_pause())
            && !lost.contains(&same.deployment)
        {
            return Some(same);
        }
        let untried = |candidate: &Candidate| !self.has_tried(candidate.deployment);
        let fresh = |candidate: &Candidate| {
            untried(candidate) && !self.region_failed(table.deployment(candidate.deployment).region)
        };
        // A request that has already failed once is not used as a probe while a healthy deployment is left.
        let flows = |candidate: &Candidate| !candidate.is_probe() && !candidate.view.silent;
        let again = |candidate: &Candidate| self.paused && self.may_try_again(candidate.deployment, now);
        let with_other_credential =
            self.other_credential(table, health, now).filter(|same| !lost.contains(&same.deployment));
        with_other_credential
            .or_else(|| pick(&|candidate| fresh(candidate) && flows(candidate)))
            .or_else(|| pick(&|candidate| fresh(candidate) && awake(candidate)))
            .or_else(|| pick(&|candidate| untried(candidate) && flows(candidate)))
            .or_else(|| pick(&|candidate| untried(candidate) && awake(candidate)))
            .or_else(|| pick(&|candidate| again(candidate) && awake(candidate)))
            .or_else(|| pick(&untried))
            .or_else(|| pick(&again))
    }

    /// The deployment that was tried last, where it refused or throttled what was presented and another credential is
    /// left that did not fail; unless all attempts left are needed for regions that were not tried.
    pub(super) fn other_credential<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Candidate> {
        let last = self.tried.last()?;
        last.failure.filter(|failure| failure.is_of_credential())?;
        let patient = now + table.settings.retry_after_wait_max;
        if !self.has_spare_attempt(table, health, now, |view| view.is_open_to_attempts() || view.trial_at <= patient) {
            return None;
        }
        let candidate = self.usable(health, last.model_index, last.deployment, now)?;
        candidate.view.fresh_credential.then_some(candidate)
    }

    /// The deployment to be tried once more before any other, unless all attempts left are needed for regions
    /// that were not tried: a healthy one must be reached.
    pub(super) fn immediate_retry<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Option<Candidate> {
        let (model_index, deployment) = self.retry_same?;
        let open = HealthView::is_open_to_attempts;
        self.has_spare_attempt(table, health, now, open).then(|| self.usable(health, model_index, deployment, now))?
    }

    /// Whether more attempts are left than there are regions that were not tried, with a deployment to be `reached`.
    pub(super) fn has_spare_attempt<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        reached: impl Fn(&HealthView) -> bool,
    ) -> bool {
        let region = |id: DeploymentId| table.deployment(id).region;
        let untried = |id: DeploymentId| !self.tried.iter().any(|t| t.region == region(id));
        let reachable = self
            .deployments()
            .filter(|(_, id)| untried(*id))
            .filter(|(_, id)| Some(health.view(*id, self.mode, now)).is_some_and(|view| !view.full && reached(&view)));
        let mut regions: Vec<RegionId> = reachable.map(|(_, id)| region(id)).collect();
        regions.sort_unstable();
        regions.dedup();
        (regions.len() as u32) < self.most_attempts(table).saturating_sub(self.attempts())
    }

    /// The best candidate of the first model, in chain order, that has any. Where fewer attempts are left than there
    /// are models to reach further on, a model that was tried already is passed over.
    pub(super) fn first_candidate<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
        offer: impl Fn(usize, DeploymentId) -> Option<Candidate>,
    ) -> Option<Candidate> {
        self.candidate_models.iter().enumerate().find_map(|(index, model)| {
            if !self.has_context(table, model) || self.must_go_on(table, health, index, now) {
                return None;
            }
            let offered: Vec<Candidate> = model.deployments.iter().filter_map(|id| offer(index, *id)).collect();
            best(table, &offered, self.terms.priced_at_ms, draw.salted(index as u64))
        })
    }

    /// Whether the attempts that are left are needed for models further on, or this one failed in enough regions.
    pub(super) fn must_go_on<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        model_index: usize,
        now: Instant,
    ) -> bool {
        let mut regions: Vec<RegionId> =
            self.tried.iter().filter(|t| t.model_index == model_index).map(|t| t.region).collect();
        if regions.is_empty() {
            return false;
        }
        regions.sort_unstable();
        regions.dedup();
        let further = self.models_to_reach(table, health, model_index, now);
        let left = self.most_attempts(table).saturating_sub(self.attempts()) as usize;
        further > 0 && (left <= further || regions.len() >= REGIONS_OF_A_MODEL)
    }

    /// How many models after this one were not tried and could be: in a region that has not failed, while there is one.
    pub(super) fn models_to_reach<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        model_index: usize,
        now: Instant,
    ) -> usize {
        let untried = |index: &usize| !self.tried.iter().any(|t| t.model_index == *index);
        let flows = |index: usize, id: DeploymentId| {
            self.usable(health, index, id, now).is_some_and(|candidate| !candidate.view.silent)
        };
        let fresh = |id: DeploymentId| {
            let region = table.deployment(id).region;
            !self.region_failed(region) && !self.waits_in(region)
        };
        let any_fresh = self.deployments().any(|(index, id)| !self.has_tried(id) && fresh(id) && flows(index, id));
        let reachable = |index: &usize| {
            let model = &self.candidate_models[*index];
            self.has_context(table, model)
                && model.deployments.iter().any(|id| (!any_fresh || fresh(*id)) && flows(*index, *id))
        };
        (model_index + 1..self.candidate_models.len()).filter(untried).filter(reachable).count()
    }

    pub(super) fn healthy_elsewhere<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        lost: &[DeploymentId],
        now: Instant,
        draw: RandomValue,
    ) -> Option<Candidate> {
        let healthy = |model_index, id: DeploymentId| {
            let free = !lost.contains(&id) && !self.has_tried(id);
            let candidate = free.then(|| self.usable(health, model_index, id, now))??;
            (!candidate.view.silent && !candidate.is_probe() && self.is_affordable(health, &candidate, now))
                .then_some(candidate)
        };
        let busy = |id: DeploymentId| {
            let region = table.deployment(id).region;
            self.region_failed(region) || self.waits_in(region)
        };
        let in_order = |elsewhere: bool| {
            self.first_candidate(table, health, now, draw, |index, id| {
                (!elsewhere || !busy(id)).then(|| healthy(index, id))?
            })
        };
        // With what is kept for models further on that cannot be reached now.
        let any = |elsewhere: bool| {
            self.deployments().filter(|(_, id)| !elsewhere || !busy(*id)).find_map(|(index, id)| {
                self.has_context(table, &self.candidate_models[index]).then(|| healthy(index, id))?
            })
        };
        in_order(true).or_else(|| any(true)).or_else(|| in_order(false)).or_else(|| any(false))
    }

    /// The deployments that a trial could be made at, now or later, with the instants until which they are blocked.
    pub(super) fn trial_candidates<B: HealthSource>(
        &self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
    ) -> Vec<(Instant, Candidate)> {
        let untried = self
            .deployments()
            .filter(|(index, id)| !self.has_tried(*id) && self.has_context(table, &self.candidate_models[*index]));
        let blocked = untried.filter_map(|(model_index, deployment)| {
            let view = health.view(deployment, self.mode, now);
            match view.availability {
                Availability::Blocked { until } if !view.full && self.answers_in_time(&view, now) => {
                    Some((until, Candidate { model_index, deployment, view }))
                }
                _ => None,
            }
        });
        blocked.collect()
    }

    /// `deployment` as a candidate, if it may be used now.
    pub(super) fn usable<B: HealthSource>(
        &self,
        health: &B,
        model_index: usize,
        deployment: DeploymentId,
        now: Instant,
    ) -> Option<Candidate> {
        let view = health.view(deployment, self.mode, now);
        let candidate = Candidate { model_index, deployment, view };
        let usable = view.is_open_to_attempts()
            && self.answers_in_time(&view, now)
            && self.is_affordable(health, &candidate, now);
        usable.then_some(candidate)
    }

    /// An extra attempt that cannot answer in the time left would only add load.
    pub(super) fn answers_in_time(&self, view: &HealthView, now: Instant) -> bool {
        self.tried.is_empty() || view.average.is_none_or(|average| now + average < self.terms.deadline)
    }

    pub(super) fn is_affordable<B: HealthSource>(&self, health: &B, candidate: &Candidate, now: Instant) -> bool {
        !self.needs_retry_budget(candidate) || health.has_extra(ExtraBudget::Retry, now)
    }

    /// The first attempt is free, and so are one with a credential that did not fail and a fallback to a deployment
    /// whose last attempt did not fail; every other attempt needs the retry budget.
    pub(super) fn needs_retry_budget(&self, candidate: &Candidate) -> bool {
        if self.tried.is_empty() {
            return false;
        }
        if self.has_tried(candidate.deployment) {
            let of_credential = self.last_failure_of(candidate.deployment).is_some_and(Failure::is_of_credential);
            return !(of_credential && candidate.view.fresh_credential);
        }
        candidate.view.last_good == Some(false)
    }
}
