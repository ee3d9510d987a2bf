//! What a failed attempt makes rest: a credential, the model of a deployment, or one of its endpoints.
//!
//! What begins a rest is decided in `domain`; nothing is decided here.
//!
//! Start reading in [`Permit::rest`].

use super::permit::Permit;
use super::status::FailureReport;
use crate::domain::breaker::{StateName, Transition, TransitionCause};
use crate::domain::failure::HealthSignal;
use std::time::Instant;

impl Permit {
    /// Counts what makes a credential, a model or an endpoint rest. Returns the transition of the deployment, if any.
    pub(super) fn rest(
        &mut self,
        signal: HealthSignal,
        report: &FailureReport<'_>,
        now: Instant,
    ) -> Option<Transition> {
        let (team, draw) = (self.team, self.rng.draw());
        match signal {
            HealthSignal::Throttled(stated) => {
                let (mut throttle, trial) = self.credential.throttle();
                let began = throttle.bad(team, trial, stated, now, draw);
                began.then_some(Transition { to: StateName::Resting, cause: Some(TransitionCause::Throttled) })
            }
            HealthSignal::NotFound => {
                let trial = std::mem::take(&mut self.not_found_trial);
                let began = self.state.health.lock().not_found.bad(team, trial, None, now, draw);
                began.then_some(Transition { to: StateName::Resting, cause: Some(TransitionCause::NotFound) })
            }
            HealthSignal::NoEndpoint => {
                let trial = std::mem::take(&mut self.endpoint_trial);
                let mut health = self.state.health.lock();
                let began = health.endpoints.of_mut(self.endpoint).bad(team, trial, None, now, draw);
                drop(health);
                if began {
                    let FailureReport { labels, detail, .. } = report;
                    tracing::warn!(
                        provider = labels.provider,
                        deployment = &*self.state.name,
                        model = labels.model,
                        url = labels.url,
                        endpoint = self.endpoint.name(),
                        detail,
                        "a provider does not have an endpoint; its deployment is passed over for that"
                    );
                }
                None
            }
            HealthSignal::CredentialRefused | HealthSignal::AccountRefused => {
                let (mut health, trial) = self.credential.health();
                let began = health.bad(team, trial, None, now, draw);
                drop(health);
                if began {
                    let FailureReport { labels, detail, .. } = report;
                    tracing::error!(
                        provider = labels.provider,
                        deployment = &*self.state.name,
                        model = labels.model,
                        credential = labels.credential,
                        url = labels.url,
                        detail,
                        "a provider refused our credential; it rests"
                    );
                }
                None
            }
            _ => None,
        }
    }
}
