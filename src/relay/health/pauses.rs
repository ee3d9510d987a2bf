//! The budget pauses of deployments, as all requests share them.
//!
//! They are found by the deployment's name and stay over reloads. Who is paused is decided in `domain`; while nobody is,
//! a request looks at a flag alone.
//!
//! Start reading in [`DeploymentSet::exclude_paused`].

use super::{DeploymentSet, DeploymentState, Permit};
use crate::domain::id::{DeploymentId, KeyId, TeamId};
use crate::domain::pause::{BudgetPauses, PauseReport, PauseScope};
use crate::domain::routing::plan::RoutePlan;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The pauses at one deployment.
#[derive(Default)]
pub(super) struct DeploymentPauses {
    pauses: Mutex<BudgetPauses>,
    /// Whether there may be any.
    any: AtomicBool,
}

/// Where an answer is reported that cost more than was held for it.
pub struct PauseHandle {
    state: Arc<DeploymentState>,
    team: TeamId,
    lasts: Duration,
}

impl PauseHandle {
    /// Pauses `key`, called `name`, at the deployment that answered. Returns whose requests are paused there now.
    pub fn begin(&self, key: KeyId, name: &Arc<str>, now: Instant) -> PauseScope {
        let pauses = &self.state.pauses;
        let scope = pauses.pauses.lock().begin(key, self.team, name.clone(), now, self.lasts);
        pauses.any.store(true, Ordering::Release);
        scope
    }
}

impl Permit {
    /// Where this attempt's answer is reported if it costs more than was held; a pause lasts so long.
    pub fn pause_handle(&self, lasts: Duration) -> PauseHandle {
        PauseHandle { state: self.state.clone(), team: self.team, lasts }
    }
}

impl DeploymentSet {
    /// Leaves out of `plan` the deployments that requests of `key` of `team` are kept from, while others are left; else
    /// returns how long until the first of them may be asked, and nothing may be sent before.
    pub fn exclude_paused(&self, plan: &mut RoutePlan, key: KeyId, team: TeamId) -> Option<Duration> {
        let pauses = |id: DeploymentId| &self.members[id.index()].state.pauses;
        let mut deployments = plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        if !deployments.any(|id| pauses(*id).any.load(Ordering::Acquire)) {
            return None;
        }
        let now = self.clock.now();
        let until = plan.exclude(|id| pauses(id).pauses.lock().blocked_until(key, team, now));
        until.map(|until| until.saturating_duration_since(now))
    }

    /// Every deployment's name and whose requests are paused there at `now`.
    pub fn pauses(&self, now: Instant) -> Vec<(Arc<str>, PauseScope)> {
        let states = self.members.iter().map(|member| &member.state);
        states.map(|state| (state.name.clone(), state.pauses.report(now).scope)).collect()
    }

    /// Ends the pauses at the deployment of this name; `false` where there is none of it.
    pub fn end_pauses(&self, deployment: &str) -> bool {
        let named = self.members.iter().find(|member| &*member.state.name == deployment);
        named.map(|member| member.state.pauses.pauses.lock().end()).is_some()
    }
}

impl DeploymentPauses {
    /// What operators are told.
    pub(super) fn report(&self, now: Instant) -> PauseReport {
        self.pauses.lock().report(now)
    }
}
