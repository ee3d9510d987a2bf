//! Decisions gone wrong on purpose, each to be caught by one law.
//!
//! Must never be more than one step away from the real thing: a mutant wraps the real decision and
//! bends one answer of it.
//! Start reading in [`Mutant`].

use crate::laws::Law;
use crate::world::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tierway::domain::authorize::KeyRecord;
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::id::RegionId;
use tierway::domain::routing::plan::HealthView;
use tierway::domain::routing::table::RoutingTable;

/// What was broken on purpose.
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
    Overfills,
    IgnoresNoFallback,
    ReturnsAtOnce,
    OpensForAMoment,
    SettlesTwice,
    NeverSettlesTheGone,
    LeaksPermits,
    LeasesBeyondTheLimit,
    BooksInTheWindowRunning,
    SendsWithoutAHold,
    SendsUnderTooSmallAHold,
    TakesSilenceForFree,
    LeaksHolds,
    DrawsOtherNumbers,
}

impl Mutant {
    /// Every mutant and the law that it breaks.
    pub const ALL: [(Self, Law); 25] = [
        (Self::AdmitsWhileOpen, Law::OpenBreaker),
        (Self::AdmitsASecondProbe, Law::OneProbe),
        (Self::IgnoresTheAttemptLimit, Law::AttemptLimit),
        (Self::GivesUpEarly, Law::Survival),
        (Self::NeverCountsRetries, Law::RetryBudget),
        (Self::RetriesAfterTheCommit, Law::AfterCommit),
        (Self::IgnoresTheDeadline, Law::Deadline),
        (Self::ForgetsFailedRegions, Law::FailedRegion),
        (Self::IgnoresResidency, Law::Residency),
        (Self::IgnoresThePolicy, Law::Policy),
        (Self::MixesCapacity, Law::Reserved),
        (Self::Overfills, Law::Capacity),
        (Self::IgnoresNoFallback, Law::OnlyModel),
        (Self::ReturnsAtOnce, Law::SlowReturn),
        (Self::OpensForAMoment, Law::Amplification),
        (Self::SettlesTwice, Law::OneEnd),
        (Self::NeverSettlesTheGone, Law::OneEnd),
        (Self::LeaksPermits, Law::NothingLeft),
        (Self::LeasesBeyondTheLimit, Law::Budget),
        (Self::BooksInTheWindowRunning, Law::Window),
        (Self::SendsWithoutAHold, Law::HeldFirst),
        (Self::SendsUnderTooSmallAHold, Law::HeldFirst),
        (Self::TakesSilenceForFree, Law::Paid),
        (Self::LeaksHolds, Law::NothingHeld),
        (Self::DrawsOtherNumbers, Law::SameTrace),
    ];

    /// How the mutant sees a deployment that truly stands like `view`.
    pub fn bend_glance(self, view: HealthView, state: impl Fn() -> StateName) -> HealthView {
        let availability = match (self, view.availability) {
            (Self::AdmitsWhileOpen, Availability::Blocked { .. })
                if matches!(state(), StateName::Open | StateName::Resting) =>
            {
                Availability::Flowing { share: 1.0 }
            }
            (Self::AdmitsASecondProbe, Availability::Blocked { .. }) if state() == StateName::HalfOpen => {
                Availability::ProbeDue
            }
            (Self::ReturnsAtOnce, Availability::Flowing { .. }) => Availability::Flowing { share: 1.0 },
            (_, availability) => availability,
        };
        HealthView { availability, full: view.full && self != Self::Overfills, ..view }
    }

    /// Whether it makes attempts without leave.
    pub fn forges_permits(self) -> bool {
        matches!(self, Self::AdmitsWhileOpen | Self::AdmitsASecondProbe | Self::Overfills)
    }

    /// The table as the mutant's plan walks it.
    pub fn bend_walked(self, table: &mut RoutingTable) {
        match self {
            Self::IgnoresTheAttemptLimit => table.settings.max_attempts += 3,
            Self::GivesUpEarly => table.settings.max_attempts = 1,
            Self::ForgetsFailedRegions => table.deployments.iter_mut().for_each(|held| held.region = RegionId(0)),
            _ => {}
        }
    }

    /// The table as the mutant's plan is drafted from.
    pub fn bend_drafted(self, table: &mut RoutingTable) {
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

    /// The day as the mutant lives it.
    pub fn bend_world(self, world: &mut World) {
        if self == Self::OpensForAMoment {
            for (_, table) in &mut world.tables {
                table.settings.breaker.open = Duration::from_millis(1);
                table.settings.breaker.open_max = Duration::from_millis(1);
            }
        }
    }

    /// The key as the mutant knows it.
    pub fn bend_key(self, key: &Arc<KeyRecord>) -> Arc<KeyRecord> {
        let mut policy = (*key.policy).clone();
        match self {
            Self::IgnoresResidency => policy.residency = None,
            Self::IgnoresThePolicy => policy.tiers.iter_mut().for_each(|allowed| *allowed = true),
            _ => return key.clone(),
        }
        Arc::new(KeyRecord { policy: Arc::new(policy), ..(**key).clone() })
    }

    /// What the mutant's dice are seeded with.
    pub fn bend_seed(self, seed: u64) -> u64 {
        static TURN: AtomicU64 = AtomicU64::new(0);
        if self == Self::DrawsOtherNumbers { seed ^ TURN.fetch_add(1, Ordering::Relaxed) << 32 } else { seed }
    }
}
