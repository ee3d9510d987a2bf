//! A provider's credentials as one deployment presents them: used in turn, those that did not fail before those
//! that did.
//!
//! Whether a credential is refused is known for its whole provider; whether it is throttled, for each deployment by
//! itself, because providers limit each model by itself. Nothing is decided here beyond the order.
//!
//! Start reading in [`Credentials::take`].

use crate::domain::breaker::Availability;
use crate::domain::breaker::rest::Rest;
use crate::domain::id::TeamId;
use crate::domain::status::CredentialState;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A credential's SHA-256.
pub type CredentialHash = [u8; 32];

/// One deployment's credentials; one that presents nothing where its provider has none.
pub(super) struct Credentials {
    turn: AtomicUsize,
    slots: Vec<CredentialSlot>,
}

/// One credential.
#[derive(Clone)]
pub(super) struct CredentialSlot {
    /// Whether the provider accepts it.
    pub(super) health: Arc<Mutex<Rest>>,
    /// Whether it is throttled for this deployment.
    pub(super) throttle: Arc<Mutex<Rest>>,
}

/// What the credentials let a team do.
pub(super) struct CredentialsView {
    /// Of the best of them.
    pub(super) availability: Availability,
    /// Every one that may be used failed when it was used last.
    pub(super) asked_last: bool,
    /// Until when the provider asked us to leave all of them alone.
    pub(super) stated_until: Option<Instant>,
}

/// Whether one credential rests, and why.
pub(super) struct CredentialRest {
    pub(super) state: CredentialState,
    /// Of the rest.
    pub(super) since: Option<Instant>,
    /// When one attempt may try it again; past where that may be now.
    pub(super) until: Option<Instant>,
}

/// One credential, taken for one attempt.
pub(super) struct CredentialPermit {
    /// Its index among the provider's credentials.
    pub(super) index: usize,
    slot: CredentialSlot,
    trial_of_health: bool,
    trial_of_throttle: bool,
}

impl Credentials {
    pub(super) fn new(slots: Vec<CredentialSlot>) -> Self {
        Self { turn: AtomicUsize::new(0), slots }
    }

    /// What those let a team do that `only` names: the one at that index, or all.
    pub(super) fn view(&self, only: Option<usize>, team: TeamId, now: Instant) -> CredentialsView {
        let mut view = CredentialsView {
            availability: Availability::Blocked { until: now + FAR },
            asked_last: true,
            stated_until: Some(now + FAR),
        };
        for slot in self.named(only) {
            let (availability, fresh, stated) = slot.view(team, now);
            view.availability = view.availability.less_strict(availability);
            view.asked_last &= !fresh;
            view.stated_until = view.stated_until.min(stated);
        }
        view
    }

    /// Whether all of them rest because they are throttled.
    pub(super) fn are_throttled(&self, only: Option<usize>, now: Instant) -> bool {
        self.named(only).iter().all(|slot| slot.throttle.lock().resting_until(now).is_some())
    }

    /// Whether none of them may be used: all rest, refused or throttled.
    pub(super) fn all_rest(&self, now: Instant) -> bool {
        let rests = |rest: &Mutex<Rest>| rest.lock().resting_until(now).is_some();
        self.slots.iter().all(|slot| rests(&slot.throttle) || rests(&slot.health))
    }

    /// Takes the next one in rotation that may be used, one that did not fail before one that did.
    pub(super) fn take(&self, only: Option<usize>, team: TeamId, now: Instant) -> Option<CredentialPermit> {
        let slots = self.in_turn(only);
        let fresh = slots.clone().filter(|(_, slot)| slot.view(team, now).1);
        fresh.chain(slots).find_map(|(index, slot)| slot.take(index, team, now))
    }

    /// Takes one whatever its state, for a trial: the one whose provider named the soonest time, or none.
    pub(super) fn take_for_trial(&self, only: Option<usize>, team: TeamId, now: Instant) -> Option<CredentialPermit> {
        let (index, slot) = self.in_turn(only).min_by_key(|(_, slot)| {
            let (_, fresh, stated) = slot.view(team, now);
            (stated, !fresh)
        })?;
        Some(CredentialPermit { index, slot: slot.clone(), trial_of_health: false, trial_of_throttle: false })
    }

    /// By index: what is known of each of them.
    pub(super) fn rests(&self, now: Instant) -> Vec<CredentialRest> {
        self.slots.iter().map(|slot| slot.rest(now)).collect()
    }

    fn in_turn(&self, only: Option<usize>) -> impl Iterator<Item = (usize, &CredentialSlot)> + Clone {
        let slots = self.named(only);
        let (start, count) = (self.turn.fetch_add(1, Ordering::Relaxed), slots.len());
        let indexes = (0..count).map(move |step| start.wrapping_add(step) % count);
        indexes.map(move |index| (only.unwrap_or(index), &slots[index]))
    }

    /// The one at the index `only`, or all.
    fn named(&self, only: Option<usize>) -> &[CredentialSlot] {
        match only {
            None => &self.slots,
            Some(index) => self.slots.get(index..=index).unwrap_or_default(),
        }
    }
}

/// Later than any rest.
const FAR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

impl CredentialSlot {
    /// Whether it may be used, whether it may and did not fail when it was used last, and the provider's own time.
    fn view(&self, team: TeamId, now: Instant) -> (Availability, bool, Option<Instant>) {
        let (health, throttle) = (self.health.lock(), self.throttle.lock());
        let availability = health.availability(team, now).stricter(throttle.availability(team, now));
        let flows = matches!(availability, Availability::Flowing { .. });
        let fresh = flows && !health.is_asked_last(team, now) && !throttle.is_asked_last(team, now);
        (availability, fresh, throttle.stated_until(now))
    }

    /// A refusal counts for more than throttling, which ends by itself.
    fn rest(&self, now: Instant) -> CredentialRest {
        let of = |state, rest: &Rest| {
            let until = Some(rest.resting_until(now).unwrap_or(now));
            CredentialRest { state, since: rest.resting_since(), until }
        };
        let (health, throttle) = (self.health.lock(), self.throttle.lock());
        if health.is_resting() {
            of(CredentialState::Refused, &health)
        } else if throttle.is_resting() {
            of(CredentialState::Throttled, &throttle)
        } else {
            CredentialRest { state: CredentialState::Accepted, since: None, until: None }
        }
    }

    fn take(&self, index: usize, team: TeamId, now: Instant) -> Option<CredentialPermit> {
        let (mut health, mut throttle) = (self.health.lock(), self.throttle.lock());
        if let Availability::Blocked { .. } = health.availability(team, now).stricter(throttle.availability(team, now))
        {
            return None;
        }
        let (trial_of_health, trial_of_throttle) = (health.take(team, now)?, throttle.take(team, now)?);
        Some(CredentialPermit { index, slot: self.clone(), trial_of_health, trial_of_throttle })
    }
}

impl CredentialPermit {
    /// What is known of its being refused, and whether this attempt is the trial of that.
    pub(super) fn health(&mut self) -> (parking_lot::MutexGuard<'_, Rest>, bool) {
        (self.slot.health.lock(), std::mem::take(&mut self.trial_of_health))
    }

    /// The same, for later.
    pub(super) fn shared_health(&self) -> Arc<Mutex<Rest>> {
        self.slot.health.clone()
    }

    /// What is known of its being throttled, and whether this attempt is the trial of that.
    pub(super) fn throttle(&mut self) -> (parking_lot::MutexGuard<'_, Rest>, bool) {
        (self.slot.throttle.lock(), std::mem::take(&mut self.trial_of_throttle))
    }

    /// The provider accepted it, and answered. Returns whether it rested because it was throttled.
    pub(super) fn accepted(&mut self, team: TeamId, now: Instant) -> bool {
        self.health().0.good(team, now);
        let mut throttle = self.throttle().0;
        let rested = throttle.is_resting();
        throttle.good(team, now);
        rested
    }

    /// The attempt ended without a result for it: another one is the trial, where this one was.
    pub(super) fn undecided(&mut self, now: Instant) {
        if let (mut health, true) = self.health() {
            health.undecided(now);
        }
        if let (mut throttle, true) = self.throttle() {
            throttle.undecided(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::breaker::rest::RestRule;
    use crate::domain::random::RandomValue;
    use std::time::Duration;

    fn slot() -> CredentialSlot {
        let rest = |rule| Arc::new(Mutex::new(Rest::new(rule)));
        CredentialSlot { health: rest(RestRule::credential()), throttle: rest(RestRule::throttled()) }
    }

    /// Of a provider with a few credentials, with each of them failing now and then: 10,000 requests that are bound to one.
    #[test]
    fn a_request_that_is_bound_to_a_credential_never_gets_another_one() {
        let credentials = Credentials::new((0..3).map(|_| slot()).collect());
        let mut now = Instant::now();
        let mut taken = [0_u32; 3];
        let mut none = 0_u32;
        for turn in 0..10_000_u64 {
            let draw = |salt| RandomValue(turn).salted(salt).0;
            let (only, team) = ((draw(1) % 3) as usize, TeamId((draw(2) % 4) as u32));
            now += Duration::from_millis(draw(3) % 400);
            let permit = match draw(4) % 8 {
                0 => credentials.take_for_trial(Some(only), team, now),
                _ => credentials.take(Some(only), team, now),
            };
            let Some(mut permit) = permit else {
                none += 1;
                continue;
            };
            assert_eq!(permit.index, only);
            taken[only] += 1;
            match draw(5) % 3 {
                0 => drop(permit.accepted(team, now)),
                1 => drop(permit.health().0.bad(team, false, None, now, RandomValue(turn))),
                _ => drop(permit.throttle().0.bad(team, false, None, now, RandomValue(turn))),
            }
        }
        assert!(taken.iter().all(|count| *count > 100) && none > 100, "{taken:?}, {none} without");
        assert!(credentials.take(Some(3), TeamId(0), now).is_none());
    }
}
