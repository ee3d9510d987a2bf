//! Deliberately wrong decisions, each to be caught by one invariant.
//!
//! A mutant must never differ in more than one step: it wraps the real decision and changes one answer of it.
//! Start reading in [`Mutant`].

use crate::invariants::Invariant;
use crate::world::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::id::RegionId;
use tierway::domain::policy::KeyRecord;
use tierway::domain::routing::health::{ExtraBudget, HealthView};
use tierway::domain::routing::table::RoutingTable;

/// What is deliberately wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    AdmitsWhileOpen,
    AdmitsASecondProbe,
    IgnoresTheAttemptLimit,
    GivesUpEarly,
    NeverCountsRetries,
    RetriesAfterTheCommit,
    IgnoresTheDeadline,
    ForgetsFailedRegions,
    IgnoresResidency,
    IgnoresThePolicy,
    MixesCapacity,
    ExceedsCapacity,
    IgnoresNoFallback,
    SkipsSlowStart,
    OpensForAMoment,
    SettlesTwice,
    NeverSettlesAbandoned,
    LeaksPermits,
    LeasesBeyondTheLimit,
    ChargesTheCurrentWindow,
    SendsWithoutAHold,
    SendsUnderTooSmallAHold,
    ChargesNothingWithoutUsage,
    LeaksHolds,
    DrawsOtherNumbers,
    KeepsTheSilent,
    TriesTooOften,
    TriesWithoutNeed,
    AsksSilentTogether,
    MixesTeams,
    TakesSlownessForSilence,
    NeverSharesTime,
    NeverBooksTheLoser,
}

impl Mutant {
    /// Every mutant and the invariant that it breaks.
    pub const ALL: [(Self, Invariant); 33] = [
        (Self::AdmitsWhileOpen, Invariant::OpenBreaker),
        (Self::AdmitsASecondProbe, Invariant::OneProbe),
        (Self::IgnoresTheAttemptLimit, Invariant::AttemptLimit),
        (Self::GivesUpEarly, Invariant::Survival),
        (Self::NeverCountsRetries, Invariant::RetryBudget),
        (Self::RetriesAfterTheCommit, Invariant::AfterCommit),
        (Self::IgnoresTheDeadline, Invariant::Deadline),
        (Self::ForgetsFailedRegions, Invariant::FailedRegion),
        (Self::IgnoresResidency, Invariant::Residency),
        (Self::IgnoresThePolicy, Invariant::Policy),
        (Self::MixesCapacity, Invariant::Reserved),
        (Self::ExceedsCapacity, Invariant::Capacity),
        (Self::IgnoresNoFallback, Invariant::OnlyModel),
        (Self::SkipsSlowStart, Invariant::SlowStart),
        (Self::OpensForAMoment, Invariant::Amplification),
        (Self::SettlesTwice, Invariant::OneEnd),
        (Self::NeverSettlesAbandoned, Invariant::OneEnd),
        (Self::LeaksPermits, Invariant::NothingLeft),
        (Self::LeasesBeyondTheLimit, Invariant::Budget),
        (Self::ChargesTheCurrentWindow, Invariant::BudgetPeriod),
        (Self::SendsWithoutAHold, Invariant::HeldFirst),
        (Self::SendsUnderTooSmallAHold, Invariant::HeldFirst),
        (Self::ChargesNothingWithoutUsage, Invariant::Paid),
        (Self::LeaksHolds, Invariant::NothingHeld),
        (Self::DrawsOtherNumbers, Invariant::SameTrace),
        (Self::KeepsTheSilent, Invariant::OneRescue),
        (Self::TriesTooOften, Invariant::TrialRate),
        (Self::TriesWithoutNeed, Invariant::LastResort),
        (Self::AsksSilentTogether, Invariant::OneAsker),
        (Self::MixesTeams, Invariant::Evidence),
        (Self::TakesSlownessForSilence, Invariant::Silence),
        (Self::NeverSharesTime, Invariant::SharedTime),
        (Self::NeverBooksTheLoser, Invariant::Paid),
    ];

    /// An invariant that it may break beside its own, as a consequence.
    pub fn entails(self) -> Option<Invariant> {
        match self {
            // Of two that ask together, one waits on while the other one is answered.
            Self::AsksSilentTogether => Some(Invariant::Silence),
            _ => None,
        }
    }

    /// The health that the mutant's plan gets for a deployment whose real health is `view`, before its request's
    /// `first` attempt or later.
    pub fn alter_view(self, view: HealthView, first: bool, now: Instant, state: impl Fn() -> StateName) -> HealthView {
        let availability = match (self, view.availability) {
            (Self::AdmitsWhileOpen, Availability::Blocked { .. })
                if matches!(state(), StateName::Open | StateName::Resting) =>
            {
                Availability::Flowing { share: 1.0 }
            }
            (Self::AdmitsASecondProbe, Availability::Blocked { .. }) if state() == StateName::HalfOpen => {
                Availability::ProbeDue
            }
            (Self::SkipsSlowStart, Availability::Flowing { .. }) => Availability::Flowing { share: 1.0 },
            (_, availability) => availability,
        };
        HealthView {
            availability,
            full: (view.full && self != Self::ExceedsCapacity) || self.hides(view, first),
            silent: view.silent || self == Self::TakesSlownessForSilence,
            may_ask: view.may_ask || (self == Self::AsksSilentTogether && view.silent),
            trial_at: if self == Self::TriesTooOften { now } else { view.trial_at },
            ..view
        }
    }

    fn hides(self, view: HealthView, first: bool) -> bool {
        let flows = matches!(view.availability, Availability::Flowing { .. });
        // What never answered is left, until it is open.
        // A further attempt that passes over what is hidden would go to a region that failed, against another law.
        self == Self::TriesWithoutNeed && first && flows && view.average.is_some()
    }

    /// Whether it makes attempts without a permit.
    pub fn forges_permits(self) -> bool {
        matches!(
            self,
            Self::AdmitsWhileOpen
                | Self::AdmitsASecondProbe
                | Self::ExceedsCapacity
                | Self::TriesTooOften
                | Self::AsksSilentTogether
        )
    }

    /// Whether extra attempts from this budget are not counted.
    pub fn never_counts(self, budget: ExtraBudget) -> bool {
        match budget {
            ExtraBudget::Retry => self == Self::NeverCountsRetries,
            ExtraBudget::Trial => false,
            ExtraBudget::Hedge => false,
        }
    }

    /// Changes the table that the mutant's plan chooses from.
    pub fn alter_plan_table(self, table: &mut RoutingTable) {
        match self {
            Self::IgnoresTheAttemptLimit => table.settings.max_attempts += 3,
            Self::GivesUpEarly => table.settings.max_attempts = 1,
            Self::ForgetsFailedRegions => table.deployments.iter_mut().for_each(|held| held.region = RegionId(0)),
            _ => {}
        }
    }

    /// Changes the table that the mutant's plan is built from.
    pub fn alter_build_table(self, table: &mut RoutingTable) {
        if self == Self::MixesCapacity {
            for model in &mut table.models {
                let all: Vec<_> = model.shared.iter().chain(&model.dedicated).copied().collect();
                model.shared.clone_from(&all);
                if !model.dedicated.is_empty() {
                    model.dedicated = all;
                }
            }
        }
    }

    /// Changes the day that the mutant runs.
    pub fn alter_world(self, world: &mut World) {
        if self == Self::OpensForAMoment {
            for (_, table) in &mut world.tables {
                table.settings.breaker.open = Duration::from_millis(1);
                table.settings.breaker.open_max = Duration::from_millis(1);
            }
        }
    }

    /// The key that the mutant authorizes with.
    pub fn alter_key(self, key: &Arc<KeyRecord>) -> Arc<KeyRecord> {
        let mut policy = (*key.policy).clone();
        match self {
            Self::IgnoresResidency => policy.residency = None,
            Self::IgnoresThePolicy => policy.tiers.iter_mut().for_each(|allowed| *allowed = true),
            _ => return key.clone(),
        }
        Arc::new(KeyRecord { policy: Arc::new(policy), ..(**key).clone() })
    }

    /// The seed of the mutant's random values.
    pub fn alter_seed(self, seed: u64) -> u64 {
        static TURN: AtomicU64 = AtomicU64::new(0);
        if self == Self::DrawsOtherNumbers { seed ^ TURN.fetch_add(1, Ordering::Relaxed) << 32 } else { seed }
    }
}
