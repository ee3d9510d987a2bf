//! Deliberately wrong decisions, each to be caught by one invariant.
//!
//! A mutant must never differ in more than one step: it wraps the real decision and changes one answer of it.
//! Start reading in [`Mutant`].

use crate::invariants::Invariant;
use crate::world::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::id::RegionId;
use tierway::domain::policy::KeyRecord;
use tierway::domain::routing::health::HealthView;
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
}

impl Mutant {
    /// Every mutant and the invariant that it breaks.
    pub const ALL: [(Self, Invariant); 25] = [
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
    ];

    /// The health that the mutant's plan gets for a deployment whose real health is `view`.
    pub fn alter_view(self, view: HealthView, state: impl Fn() -> StateName) -> HealthView {
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
        HealthView { availability, full: view.full && self != Self::ExceedsCapacity, ..view }
    }

    /// Whether it makes attempts without a permit.
    pub fn forges_permits(self) -> bool {
        matches!(self, Self::AdmitsWhileOpen | Self::AdmitsASecondProbe | Self::ExceedsCapacity)
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
