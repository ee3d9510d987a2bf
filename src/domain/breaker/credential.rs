//! The health of one of our credentials at its provider.
//!
//! It exists so that a revoked credential rests by itself while the provider's deployments stay in use
//! with another one: a refused credential says nothing about a deployment's health and must never count
//! against it. After the rest exactly one attempt, the trial, uses the credential again.

use super::Availability;
use super::backoff::Backoff;
use crate::domain::random::RandomValue;
use std::time::{Duration, Instant};

/// During a trial, other attempts may check again after this.
const TRIAL_RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CredentialState {
    Accepted,
    Resting { until: Instant },
    InTrial,
}

/// The state of one credential at one provider.
#[derive(Clone, Debug)]
pub struct CredentialHealth {
    state: CredentialState,
    backoff: Backoff,
}

impl Default for CredentialHealth {
    fn default() -> Self {
        Self { state: CredentialState::Accepted, backoff: Backoff::credential() }
    }
}

impl CredentialHealth {
    /// Whether it may be used at `now`.
    pub fn availability(&self, now: Instant) -> Availability {
        match self.state {
            CredentialState::Accepted => Availability::Flowing { share: 1.0 },
            CredentialState::Resting { until } if now < until => Availability::Blocked { until },
            CredentialState::Resting { .. } => Availability::ProbeDue,
            CredentialState::InTrial => Availability::Blocked { until: now + TRIAL_RETRY_AFTER },
        }
    }

    /// Takes it for one attempt: `Some(true)` when this attempt is its trial, `None` while it may not be used.
    pub fn take(&mut self, now: Instant) -> Option<bool> {
        match self.availability(now) {
            Availability::Flowing { .. } => Some(false),
            Availability::Blocked { .. } => None,
            Availability::ProbeDue => {
                self.state = CredentialState::InTrial;
                Some(true)
            }
        }
    }

    /// The provider accepted it.
    pub fn accepted(&mut self) {
        self.state = CredentialState::Accepted;
        self.backoff.reset();
    }

    /// The provider refused it. Returns whether a rest begins now.
    pub fn refused(&mut self, trial: bool, now: Instant, draw: RandomValue) -> bool {
        let begins = trial || self.state == CredentialState::Accepted;
        if begins {
            self.state = CredentialState::Resting { until: now + self.backoff.next(now, draw) };
        }
        begins
    }

    /// A trial ended without a result: the next attempt is the trial.
    pub fn undecided(&mut self, now: Instant) {
        if self.state == CredentialState::InTrial {
            self.state = CredentialState::Resting { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_credential_rests_and_then_gets_one_trial() {
        let now = Instant::now();
        let mut health = CredentialHealth::default();
        assert_eq!(health.take(now), Some(false));
        assert!(health.refused(false, now, RandomValue(0)));
        assert!(!health.refused(false, now, RandomValue(0)), "a second refusal of the same moment changes nothing");
        assert_eq!(health.take(now + Duration::from_secs(23)), None);
        let rested = now + Duration::from_secs(25);
        assert_eq!(health.take(rested), Some(true));
        assert_eq!(health.take(rested), None, "one trial at a time");
        health.undecided(rested);
        assert_eq!(health.take(rested), Some(true));
        assert!(health.refused(true, rested, RandomValue(0)));
        assert_eq!(health.take(rested + Duration::from_secs(47)), None, "the rest doubles");
        assert_eq!(health.take(rested + Duration::from_secs(49)), Some(true));
        health.accepted();
        assert_eq!(health.take(rested), Some(false));
    }
}
