//! Whether one of our credentials is welcome at its provider.
//!
//! It exists so that a revoked credential rests by itself while the provider's deployments, reached
//! with another one, go on: being refused says nothing about a deployment's health. After its rest
//! exactly one attempt tries it again.

use super::Availability;
use super::backoff::Backoff;
use crate::domain::random::RandomValue;
use std::time::{Duration, Instant};

/// While an attempt tries a rested credential, others are told to come back after this.
const TRIAL_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Welcome,
    Resting { until: Instant },
    OnTrial,
}

/// One credential's standing at one provider.
#[derive(Clone, Debug)]
pub struct CredentialHealth {
    state: State,
    rests: Backoff,
}

impl Default for CredentialHealth {
    fn default() -> Self {
        Self { state: State::Welcome, rests: Backoff::credential() }
    }
}

impl CredentialHealth {
    /// Whether it may be used at `now`.
    pub fn availability(&self, now: Instant) -> Availability {
        match self.state {
            State::Welcome => Availability::Flowing { share: 1.0 },
            State::Resting { until } if now < until => Availability::Blocked { until },
            State::Resting { .. } => Availability::ProbeDue,
            State::OnTrial => Availability::Blocked { until: now + TRIAL_PATIENCE },
        }
    }

    /// Takes it for one attempt: `Some(true)` when this attempt is its trial.
    pub fn take(&mut self, now: Instant) -> Option<bool> {
        match self.availability(now) {
            Availability::Flowing { .. } => Some(false),
            Availability::Blocked { .. } => None,
            Availability::ProbeDue => {
                self.state = State::OnTrial;
                Some(true)
            }
        }
    }

    /// The provider accepted it.
    pub fn accepted(&mut self) {
        self.state = State::Welcome;
        self.rests.reset();
    }

    /// The provider refused it. Says whether it begins to rest by this.
    pub fn refused(&mut self, trial: bool, now: Instant, draw: RandomValue) -> bool {
        let begins = trial || self.state == State::Welcome;
        if begins {
            self.state = State::Resting { until: now + self.rests.next(now, draw) };
        }
        begins
    }

    /// A trial that ended without showing anything: the next attempt is the trial.
    pub fn undecided(&mut self, now: Instant) {
        if self.state == State::OnTrial {
            self.state = State::Resting { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_credential_rests_and_is_tried_once() {
        let now = Instant::now();
        let mut health = CredentialHealth::default();
        assert_eq!(health.take(now), Some(false));
        assert!(health.refused(false, now, RandomValue(0)));
        assert!(!health.refused(false, now, RandomValue(0)), "a second refusal of the same moment is old news");
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
