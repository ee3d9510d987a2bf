//! What operators are shown of the deployments' health, and what is kept of an attempt's failure for that.
//!
//! Only failures allocate, and what is kept of one is bounded. Nothing here changes what requests meet, but that a
//! deployment whose silence is due is found silent, as the next request would find it.
//!
//! Start reading in [`DeploymentSet::status`].

use super::credential::CredentialRest;
use super::{DeploymentHealth, DeploymentSet};
use crate::domain::breaker::rest::Rest;
use crate::domain::breaker::{StateName, TransitionCause};
use crate::domain::failure::{Failure, HealthSignal};
use crate::domain::id::DeploymentId;
use crate::domain::pause::PauseReport;
use crate::domain::reason::Reason;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::gauge::Gauge;
use crate::domain::routing::table::{RoutingTable, Tier};
use crate::domain::status::{
    AvailabilityCause, CredentialState, CredentialStatus, DeploymentStatus, FailureStatus, LatencyStatus, PauseStatus,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest detail that is kept of a failure, in characters.
const DETAIL_MOST: usize = 300;

/// The names by which an attempt is reported to operators.
#[derive(Clone, Copy, Default, Debug)]
pub struct AttemptLabels<'a> {
    /// The provider.
    pub provider: &'a str,
    /// The model.
    pub model: &'a str,
    /// The provider's base URL without user and query.
    pub url: &'a str,
    /// The variable of the credential that is presented.
    pub credential: Option<&'a str>,
}

/// How an attempt failed, for its permit.
#[derive(Clone, Copy, Debug)]
pub struct FailureReport<'a> {
    /// What went wrong.
    pub failure: Failure,
    /// The provider's HTTP status, if it replied.
    pub status: Option<u16>,
    /// One line: no bodies, no secrets.
    pub detail: &'a str,
    /// Whose attempt it was.
    pub labels: AttemptLabels<'a>,
}

/// What is kept of a failure.
pub(super) struct FailureNote {
    at: Instant,
    reason: Reason,
    status: Option<u16>,
    detail: Box<str>,
    credential: Option<Box<str>>,
}

impl FailureNote {
    /// What is kept of `report`; nothing where the request itself was refused, or the gateway had another answer.
    pub(super) fn of(report: &FailureReport<'_>, now: Instant) -> Option<Self> {
        let FailureReport { failure, status, detail, labels } = *report;
        if failure.health_signal() == HealthSignal::Good || failure == Failure::Overtaken {
            return None;
        }
        let detail = detail.char_indices().nth(DETAIL_MOST).map_or(detail, |(end, _)| &detail[..end]);
        let credential = labels.credential.map(Into::into);
        Some(Self { at: now, reason: failure.reason(), status, detail: detail.into(), credential })
    }

    /// Of an attempt at a silent deployment that its client gave up.
    pub(super) fn silent(now: Instant) -> Self {
        Self::unreported("nothing came before its client left", now)
    }

    /// Of an answer of which nothing more came for long.
    pub(super) fn stalled(now: Instant) -> Self {
        Self::unreported("nothing more came of an answer that had begun", now)
    }

    fn unreported(detail: &str, now: Instant) -> Self {
        let detail = detail.into();
        Self { at: now, reason: Failure::Silent.reason(), status: None, detail, credential: None }
    }
}

/// How a provider is named to operators.
pub(in crate::relay) struct ProviderLabels {
    /// The provider's name.
    pub(in crate::relay) name: Arc<str>,
    /// Its base URL without user and query, or `sim`.
    pub(in crate::relay) url: Arc<str>,
    /// By index of the credential: the variable that it is read from.
    pub(in crate::relay) credentials: Vec<Arc<str>>,
}

impl ProviderLabels {
    /// The labels of an attempt at `model` that presents this credential.
    pub(in crate::relay) fn attempt<'a>(&'a self, model: &'a str, credential: usize) -> AttemptLabels<'a> {
        let credential = self.credentials.get(credential).map(|name| &**name);
        AttemptLabels { provider: &self.name, model, url: &self.url, credential }
    }
}

/// One instant, on the clock of health and on that of people.
#[derive(Clone, Copy)]
pub(in crate::relay) struct StatusClock {
    pub(in crate::relay) now: Instant,
    pub(in crate::relay) unix_ms: i64,
}

impl StatusClock {
    fn unix_ms_of(self, at: Instant) -> i64 {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match at.checked_duration_since(self.now) {
            Some(ahead) => self.unix_ms.saturating_add(ms(ahead)),
            None => self.unix_ms.saturating_sub(ms(self.now.saturating_duration_since(at))),
        }
    }
}

/// Why a deployment does not get its traffic.
struct Unavailability {
    state: StateName,
    cause: AvailabilityCause,
    since: Option<Instant>,
    until: Option<Instant>,
}

impl DeploymentSet {
    /// The status of `deployment`; `labels` are those of its provider.
    pub(in crate::relay) fn status(
        &self,
        table: &RoutingTable,
        deployment: DeploymentId,
        labels: &ProviderLabels,
        clock: StatusClock,
    ) -> DeploymentStatus {
        let member = &self.members[deployment.index()];
        let target = table.deployment(deployment);
        let rests = member.credentials.rests(clock.now);
        let mut health = member.state.health.lock();
        let silent = health.gauge.is_silent(member.silence, clock.now);
        let unavailability = health.unavailability(&rests, clock.now);
        let holds_model = |tier: &&Tier| tier.models.iter().any(|(model, _)| *model == target.model);
        DeploymentStatus {
            deployment: target.name.clone(),
            model: table.model(target.model).name.clone(),
            provider: labels.name.clone(),
            region: table.region(target.region).clone(),
            tiers: table.tiers.iter().filter(holds_model).map(|tier| tier.name.clone()).collect(),
            url: labels.url.clone(),
            state: unavailability.as_ref().map_or(StateName::Closed, |one| one.state),
            silent,
            cause: unavailability.as_ref().map(|one| one.cause),
            since_unix_ms: unavailability.as_ref().and_then(|one| one.since).map(|at| clock.unix_ms_of(at)),
            next_probe_unix_ms: unavailability.as_ref().and_then(|one| one.until).map(|at| clock.unix_ms_of(at)),
            open_for_teams: health.breakers.open_for_teams(clock.now),
            missing_endpoints: health.endpoints.resting(clock.now).collect(),
            in_flight: health.gauge.in_flight(),
            streams: latency(&health.gauge, AnswerMode::Stream),
            whole_answers: latency(&health.gauge, AnswerMode::Whole),
            last_success_unix_ms: health.breakers.last_good().map(|at| clock.unix_ms_of(at)),
            last_failure: health.last_failure.as_ref().map(|note| note.status(clock)),
            credentials: credential_statuses(&rests, labels, clock),
            budget_pause: pause_status(member.state.pauses.report(clock.now), clock),
        }
    }
}

impl DeploymentHealth {
    /// What keeps traffic away, the breaker before rests and rests before silence.
    fn unavailability(&self, credentials: &[CredentialRest], now: Instant) -> Option<Unavailability> {
        if let Some((cause, since, until)) = self.breakers.outage(now) {
            let (state, cause) = (self.breakers.name(now), AvailabilityCause::Transition(cause));
            return Some(Unavailability { state, cause, since: Some(since), until: Some(until) });
        }
        if self.not_found.is_resting() {
            return Some(Unavailability::rest(TransitionCause::NotFound, &self.not_found, now));
        }
        let silence = || {
            let (cause, since) = (AvailabilityCause::Silent, self.gauge.silent_since()?);
            Some(Unavailability {
                state: StateName::Closed,
                cause,
                since: Some(since),
                until: self.gauge.asked_next_at(),
            })
        };
        Unavailability::of_credentials(credentials).or_else(silence)
    }
}

impl Unavailability {
    fn rest(cause: TransitionCause, rest: &Rest, now: Instant) -> Self {
        let until = Some(rest.resting_until(now).unwrap_or(now));
        let cause = AvailabilityCause::Transition(cause);
        Self { state: StateName::Resting, cause, since: rest.resting_since(), until }
    }

    /// `None` while one of them may be presented.
    fn of_credentials(credentials: &[CredentialRest]) -> Option<Self> {
        if credentials.iter().any(|credential| credential.state == CredentialState::Accepted) {
            return None;
        }
        let throttled = credentials.iter().any(|credential| credential.state == CredentialState::Throttled);
        let cause = if throttled {
            AvailabilityCause::Transition(TransitionCause::Throttled)
        } else {
            AvailabilityCause::CredentialRefused
        };
        let since = credentials.iter().filter_map(|credential| credential.since).max();
        let until = credentials.iter().filter_map(|credential| credential.until).min();
        Some(Self { state: StateName::Resting, cause, since, until })
    }
}

impl FailureNote {
    fn status(&self, clock: StatusClock) -> FailureStatus {
        FailureStatus {
            at_unix_ms: clock.unix_ms_of(self.at),
            reason: self.reason,
            status: self.status,
            detail: self.detail.clone(),
            credential: self.credential.clone(),
        }
    }
}

/// What is paused, if anything is.
fn pause_status(report: PauseReport, clock: StatusClock) -> Option<PauseStatus> {
    let until_unix_ms = clock.unix_ms_of(report.until?);
    Some(PauseStatus { scope: report.scope, keys: report.keys, until_unix_ms })
}

fn credential_statuses(rests: &[CredentialRest], labels: &ProviderLabels, clock: StatusClock) -> Vec<CredentialStatus> {
    let status = |(index, rest): (usize, &CredentialRest)| CredentialStatus {
        name: labels.credentials.get(index).cloned(),
        state: rest.state,
        since_unix_ms: rest.since.map(|at| clock.unix_ms_of(at)),
        until_unix_ms: rest.until.map(|at| clock.unix_ms_of(at)),
    };
    rests.iter().enumerate().map(status).collect()
}

fn latency(gauge: &Gauge, mode: AnswerMode) -> LatencyStatus {
    LatencyStatus { p50: gauge.percentile(mode, 50), p99: gauge.percentile(mode, 99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: AttemptLabels<'_> =
        AttemptLabels { provider: "p", model: "m", url: "https://api.example/v1", credential: Some("API_KEY") };

    fn note(failure: Failure, detail: &str) -> Option<FailureNote> {
        FailureNote::of(&FailureReport { failure, status: None, detail, labels: LABELS }, Instant::now())
    }

    #[test]
    fn what_is_kept_of_a_failure_is_bounded_and_never_the_requests_own() {
        let kept = note(Failure::Reset, &"é".repeat(1_000)).expect("it is the deployment's");
        assert_eq!((kept.detail.chars().count(), kept.credential.as_deref()), (DETAIL_MOST, Some("API_KEY")));
        assert_eq!(note(Failure::Status(503), "HTTP 503: busy").map(|kept| kept.detail), Some("HTTP 503: busy".into()));
        for failure in [Failure::Rejected, Failure::ContextTooLong, Failure::Overtaken] {
            assert!(note(failure, "HTTP 400").is_none(), "{failure:?}");
        }
    }

    #[test]
    fn an_instant_is_shown_on_the_clock_of_people() {
        let clock = StatusClock { now: Instant::now(), unix_ms: 1_000_000 };
        let second = Duration::from_secs(1);
        assert_eq!(clock.unix_ms_of(clock.now + second), 1_001_000);
        assert_eq!(clock.unix_ms_of(clock.now), 1_000_000);
        assert_eq!(clock.now.checked_sub(second).map(|at| clock.unix_ms_of(at)), Some(999_000));
    }

    #[test]
    fn a_deployment_rests_only_once_none_of_its_credentials_is_let_in() {
        let now = Instant::now();
        let rest = |state, until: u64| CredentialRest {
            state,
            since: Some(now),
            until: Some(now + Duration::from_secs(until)),
        };
        let check = |rests: &[CredentialRest], expected: Option<(AvailabilityCause, u64)>| {
            let found = Unavailability::of_credentials(rests);
            let found = found.map(|one| (one.cause, one.until.map_or(0, |until| (until - now).as_secs())));
            assert_eq!(found, expected);
        };
        let throttled = AvailabilityCause::Transition(TransitionCause::Throttled);
        let accepted = CredentialRest { state: CredentialState::Accepted, since: None, until: None };
        check(&[rest(CredentialState::Refused, 30), accepted], None);
        check(&[rest(CredentialState::Refused, 30)], Some((AvailabilityCause::CredentialRefused, 30)));
        check(&[rest(CredentialState::Refused, 30), rest(CredentialState::Throttled, 5)], Some((throttled, 5)));
    }
}
