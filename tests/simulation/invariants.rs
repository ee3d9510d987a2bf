//! The invariants of routing and budgets, and the checker that watches a simulated day for violations.
//!
//! It must never ask the code under test whether it was right: the checker counts for itself, from the attempts
//! that were made and how they ended. From the health registry it reads only the health of a deployment just
//! before it was taken.
//! Start reading in [`Invariant`], then [`Checker::attempt`].

use crate::world::{World, WorldKind};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::failure::Failure;

/// What must hold at every step of every day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// Nothing is sent to an open breaker or a resting deployment before its instant.
    OpenBreaker,
    /// Half-open admits one probe.
    OneProbe,
    /// Attempts per request ≤ `max_attempts`.
    AttemptLimit,
    /// Extra attempts, exempt fallbacks aside, ≤ the retry budget.
    RetryBudget,
    /// Once a token was passed on, no other attempt is made.
    AfterCommit,
    /// No attempt past the request's time, and no extra one that could not answer within it.
    Deadline,
    /// A region that failed in this request is passed over while a healthy one is left.
    FailedRegion,
    /// No attempt is outside the residency.
    Residency,
    /// What the policy forbids is never tried.
    Policy,
    /// `Pro/` requests never use shared capacity, unless it spills, and nothing else on dedicated.
    Reserved,
    /// A deployment has no more requests in flight than it may.
    Capacity,
    /// A request that forbids other models gets none.
    OnlyModel,
    /// A recovered deployment gets its share back slowly, and all of it in time.
    SlowStart,
    /// In a total outage attempts ÷ requests ≤ 1.2.
    Amplification,
    /// No request fails while a region is healthy.
    Survival,
    /// Every request ends exactly once.
    OneEnd,
    /// Nothing is in flight, no probe and no credential's trial held, when all have ended.
    NothingLeft,
    /// What is spent and held of a budget is within its limit, in every window.
    Budget,
    /// A hold belongs to the window it was made in, and a window that ended is never used again.
    BudgetPeriod,
    /// Nothing is sent without a hold of the most that it can cost.
    HeldFirst,
    /// What providers served is spent, whatever happened to the request or to the process.
    Paid,
    /// Nothing is held, and nothing leased, when all have ended.
    NothingHeld,
    /// The same seed gives the same trace.
    SameTrace,
}

/// A broken invariant.
#[derive(Clone, PartialEq, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub seed: u64,
    /// Since the start of the day.
    pub at: Duration,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, seed, at, message } = self;
        writeln!(f, "seed {seed} breaks {invariant:?} at {at:?}: {message}")?;
        write!(f, "replay: TIERWAY_SIM_SEED={seed} cargo test --test simulation -- --nocapture one_seed")
    }
}

/// What must happen for the invariants to be tested at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoverageEvent {
    Request,
    Attempt,
    Extra,
    /// An extra attempt that the retry budget pays for.
    PaidExtra,
    /// An extra attempt in a region that failed before.
    FailedRegion,
    Commit,
    Opening,
    Probe,
    LostProbe,
    Closing,
    ClientGone,
    Unavailable,
    Pause,
    Newcomer,
    Hold,
    /// A hold for a further attempt.
    FurtherHold,
    OverBudget,
    /// A hold that needed a lease when the lease store was unavailable.
    LeaseStoreGone,
    Crash,
}

/// How often each was seen.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Coverage([u64; Self::ALL.len()]);

impl Coverage {
    pub const ALL: [CoverageEvent; 19] = [
        CoverageEvent::Request,
        CoverageEvent::Attempt,
        CoverageEvent::Extra,
        CoverageEvent::PaidExtra,
        CoverageEvent::FailedRegion,
        CoverageEvent::Commit,
        CoverageEvent::Opening,
        CoverageEvent::Probe,
        CoverageEvent::LostProbe,
        CoverageEvent::Closing,
        CoverageEvent::ClientGone,
        CoverageEvent::Unavailable,
        CoverageEvent::Pause,
        CoverageEvent::Newcomer,
        CoverageEvent::Hold,
        CoverageEvent::FurtherHold,
        CoverageEvent::OverBudget,
        CoverageEvent::LeaseStoreGone,
        CoverageEvent::Crash,
    ];

    pub fn see(&mut self, event: CoverageEvent) {
        self.0[event as usize] += 1;
    }

    pub fn of(&self, event: CoverageEvent) -> u64 {
        self.0[event as usize]
    }

    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Refused,
    GaveUp,
    Served,
    Broken,
    Abandoned,
}

/// What the checker knows of a deployment; one that is removed and added again is another.
struct DeploymentRecord {
    name: String,
    region: usize,
    dedicated: bool,
    model: String,
    provider: usize,
    /// How often it has opened; ends of attempts sent before the last time are ignored.
    generation: u32,
    open: bool,
    /// Connections refused in a row.
    refused: u32,
    /// Nothing may be sent before.
    away_until: Duration,
    /// The probe in flight.
    probe: Option<AttemptId>,
    away_for: Duration,
    /// When its breaker last closed, or it was added, and how long it had been open.
    returned: Option<(Duration, Duration)>,
    in_flight: u32,
    /// How the last finished attempt there ended.
    last_good: Option<bool>,
    /// Removed by a reload: only requests that arrived before can still use it.
    gone: bool,
}

/// Request and number of the attempt.
pub type AttemptId = (usize, u32);

/// What the checker knows of one request.
#[derive(Default)]
struct RequestRecord {
    tried: Vec<usize>,
    failed_regions: Vec<usize>,
    wants_larger: bool,
    committed: bool,
    ended: bool,
}

/// One attempt as it is made.
pub struct AttemptStart<'a> {
    pub id: AttemptId,
    pub place: usize,
    /// The health of the deployment just before.
    pub availability: Availability,
    pub state: StateName,
    pub average: Option<Duration>,
    pub max_attempts: u32,
    /// How many requests may be in flight at the deployment.
    pub max_concurrent: Option<u32>,
    pub spills: bool,
    pub deadline: Duration,
    /// Deployments of the plan that are healthy, not full and would answer in time.
    pub healthy: &'a [usize],
}

/// An attempt that was sent and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct SentAttempt {
    pub id: AttemptId,
    pub place: usize,
    pub at: Duration,
    generation: u32,
}

pub struct Checker<'w> {
    world: &'w World,
    pub now: Duration,
    places: Vec<DeploymentRecord>,
    request_records: Vec<RequestRecord>,
    /// By provider: since the last refusal of its only credential, and until when it rests at least.
    credentials: Vec<(Duration, Duration)>,
    requests: VecDeque<Duration>,
    paid: VecDeque<Duration>,
    /// Requests and attempts within the outage, once tripped.
    outage: (u64, u64),
    pub coverage: Coverage,
    /// Breakers that closed: of which deployment, when, and after how long.
    pub closings: Vec<(String, Duration, Duration)>,
    pub violation: Option<Violation>,
}

/// A breaker stays open for at least this part of its time: jitter.
const JITTER: f64 = 0.8;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
const NOT_FOUND: Duration = Duration::from_secs(60);
const CREDENTIAL: Duration = Duration::from_secs(30);

impl<'w> Checker<'w> {
    pub fn new(world: &'w World) -> Self {
        Self {
            world,
            now: Duration::ZERO,
            places: Vec::new(),
            request_records: world.planned_requests.iter().map(|_| RequestRecord::default()).collect(),
            credentials: vec![(Duration::ZERO, Duration::ZERO); world.providers.len()],
            requests: VecDeque::new(),
            paid: VecDeque::new(),
            outage: (0, 0),
            coverage: Coverage::default(),
            closings: Vec::new(),
            violation: None,
        }
    }

    /// A deployment is added.
    pub fn join(&mut self, name: &str, model: &str, region: usize, provider: usize, dedicated: bool) -> usize {
        if self.now > Duration::ZERO {
            self.coverage.see(CoverageEvent::Newcomer);
        }
        self.places.push(DeploymentRecord {
            name: name.to_owned(),
            region,
            dedicated,
            model: model.to_owned(),
            provider,
            generation: 0,
            open: false,
            refused: 0,
            away_until: Duration::ZERO,
            probe: None,
            away_for: Duration::ZERO,
            returned: (self.now > Duration::ZERO).then_some((self.now, Duration::ZERO)),
            in_flight: 0,
            last_good: None,
            gone: false,
        });
        self.places.len() - 1
    }

    /// A deployment is removed.
    pub fn remove(&mut self, place: usize) {
        self.places[place].gone = true;
    }

    pub fn violate(&mut self, invariant: Invariant, message: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, seed: self.world.seed, at: self.now, message });
        }
    }

    fn hold(&mut self, invariant: Invariant, kept: bool, message: impl FnOnce(&Self) -> String) {
        if !kept {
            let message = message(self);
            self.violate(invariant, message);
        }
    }

    /// A request arrives and has a plan.
    pub fn request(&mut self) {
        self.coverage.see(CoverageEvent::Request);
        self.requests.push_back(self.now);
        self.outage.0 += u64::from(self.in_tripped_outage());
    }

    /// The plan gets this availability of `place`.
    pub fn view(&mut self, place: usize, availability: Availability) {
        let (Availability::Flowing { share }, Some((since, away_for))) = (availability, self.places[place].returned)
        else {
            return;
        };
        let age = self.now - since;
        let whole = (away_for * 2).max(Duration::from_secs(2));
        let kept = (age >= Duration::from_secs(1) || share <= 0.1) && (age < whole || share >= 1.0);
        self.hold(Invariant::SlowStart, kept, |r| {
            format!("{} has {share} of its share {age:?} after {away_for:?} away", r.places[place].name)
        });
    }

    /// An attempt is made.
    pub fn attempt(&mut self, start: &AttemptStart<'_>) -> SentAttempt {
        let AttemptStart { id: (request, number), place, .. } = *start;
        self.coverage.see(CoverageEvent::Attempt);
        self.outage.1 += u64::from(self.in_tripped_outage());
        self.hold(Invariant::AfterCommit, !self.request_records[request].committed, |_| {
            format!("request {request} had its answer")
        });
        self.hold(Invariant::AttemptLimit, number <= start.max_attempts, |_| {
            format!("attempt {number} of request {request}")
        });
        self.places[place].in_flight += 1;
        let in_flight = self.places[place].in_flight;
        let fits = start.max_concurrent.is_none_or(|max_concurrent| in_flight <= max_concurrent);
        self.hold(Invariant::Capacity, fits, |r| {
            format!("{} carries {in_flight} of {:?}", r.places[place].name, start.max_concurrent)
        });
        self.check_availability(start);
        self.check_allowed(request, place, start.spills);
        self.check_deadline(start);
        if number > 1 {
            self.coverage.see(CoverageEvent::Extra);
            self.check_region(start);
            self.check_retry_budget(request, place);
        }
        self.request_records[request].tried.push(place);
        SentAttempt { id: start.id, place, at: self.now, generation: self.places[place].generation }
    }

    fn check_availability(&mut self, start: &AttemptStart<'_>) {
        let place = start.place;
        let half_open = start.state == StateName::HalfOpen;
        match start.availability {
            Availability::Flowing { .. } => {}
            Availability::Blocked { .. } if half_open => {
                self.violate(Invariant::OneProbe, format!("{} has its probe", self.places[place].name));
            }
            Availability::Blocked { .. } => {
                self.violate(Invariant::OpenBreaker, format!("{} is {:?}", self.places[place].name, start.state));
            }
            Availability::ProbeDue if half_open => {
                self.coverage.see(CoverageEvent::Probe);
                let probe = self.places[place].probe.replace(start.id);
                self.hold(Invariant::OneProbe, probe.is_none(), |r| {
                    format!("{} has {probe:?} on its way", r.places[place].name)
                });
            }
            // Its credential's trial.
            Availability::ProbeDue => {}
        }
        let DeploymentRecord { away_until, provider, .. } = self.places[place];
        let until = away_until.max(self.credentials[provider].1);
        self.hold(Invariant::OpenBreaker, self.now >= until, |r| {
            format!("{} was to be left alone until {until:?}", r.places[place].name)
        });
    }

    fn check_allowed(&mut self, request: usize, place: usize, spills: bool) {
        let (planned, world) = (&self.world.planned_requests[request], self.world);
        let client = &world.clients[planned.key];
        let DeploymentRecord { name, region, dedicated, model, .. } = &self.places[place];
        let message = format!("request {request} of {} for {} at {name}", client.key.name, planned.model);
        let reserved = planned.model.strip_prefix("Pro/");
        let region_kept = client.regions.contains(&crate::world::REGIONS[*region]);
        let policy_kept = client.models.contains(&&**model);
        let capacity_kept = if reserved.is_some() { *dedicated || spills } else { !*dedicated };
        let named = reserved
            .or_else(|| world.tables[0].1.models.iter().any(|m| &*m.name == planned.model).then_some(planned.model));
        let bound = reserved.is_some() || planned.no_fallback;
        let model_kept = !bound || named.is_none_or(|named| named == *model);
        for (invariant, kept) in [
            (Invariant::Residency, region_kept),
            (Invariant::Policy, policy_kept),
            (Invariant::Reserved, capacity_kept),
            (Invariant::OnlyModel, model_kept),
        ] {
            self.hold(invariant, kept, |_| message.clone());
        }
    }

    fn check_deadline(&mut self, start: &AttemptStart<'_>) {
        let needed = if start.id.1 > 1 { start.average.unwrap_or_default() } else { Duration::ZERO };
        let kept = self.now < start.deadline && self.now + needed <= start.deadline;
        self.hold(Invariant::Deadline, kept, |r| {
            format!("{needed:?} needed, until {:?} at {:?}", start.deadline, r.now)
        });
    }

    fn check_region(&mut self, start: &AttemptStart<'_>) {
        let record = &self.request_records[start.id.0];
        let failed = |place: usize| record.failed_regions.contains(&self.places[place].region);
        // Retries at the same deployment and for a larger context are exempt.
        let same = record.tried.last() == Some(&start.place);
        if same || record.wants_larger || !failed(start.place) {
            return;
        }
        self.coverage.see(CoverageEvent::FailedRegion);
        let better = start.healthy.iter().find(|place| {
            !failed(**place) && !record.tried.contains(place) && self.places[**place].last_good != Some(false)
        });
        let better = better.map(|place| self.places[*place].name.clone());
        self.hold(Invariant::FailedRegion, better.is_none(), |r| {
            format!("{} although {better:?} is left", r.places[start.place].name)
        });
    }

    /// 20 % of the last ten seconds' requests, at least ten a second. The budget counts in whole seconds,
    /// so the last nine seconds' extra attempts are surely among those it allowed.
    fn check_retry_budget(&mut self, request: usize, place: usize) {
        let fallback = !self.request_records[request].tried.contains(&place);
        if fallback && self.places[place].last_good != Some(false) {
            return;
        }
        self.coverage.see(CoverageEvent::PaidExtra);
        self.paid.push_back(self.now);
        forget(&mut self.paid, self.now, 9);
        forget(&mut self.requests, self.now, 10);
        let share = u64::from(self.world.tables[0].1.settings.retry_budget_bp);
        let allowed = (self.requests.len() as u64 * share / 10_000).max(100);
        let spent = self.paid.len() as u64;
        self.hold(Invariant::RetryBudget, spent <= allowed, |_| format!("{spent} extra attempts of {allowed}"));
    }

    /// The attempt's first token has arrived.
    pub fn answered(&mut self, sent: &SentAttempt) {
        self.coverage.see(CoverageEvent::Commit);
        self.request_records[sent.id.0].committed = true;
        if self.places[sent.place].probe == Some(sent.id) {
            self.close(sent.place);
        }
    }

    fn close(&mut self, place: usize) {
        self.coverage.see(CoverageEvent::Closing);
        let now = self.now;
        let place = &mut self.places[place];
        place.probe = None;
        place.open = false;
        place.refused = 0;
        place.away_until = Duration::ZERO;
        place.returned = Some((now, place.away_for));
        self.closings.push((place.name.clone(), now, place.away_for));
    }

    /// The attempt ended, with `failure` if it failed. `state` is the breaker's state now, and before `until`
    /// nothing may be sent to the deployment.
    pub fn finished(
        &mut self,
        sent: &SentAttempt,
        failure: Option<Failure>,
        state: StateName,
        until: Option<Duration>,
    ) {
        let was_probe = self.places[sent.place].probe == Some(sent.id);
        let good = matches!(failure, None | Some(Failure::Rejected | Failure::ContextTooLong));
        let says_nothing = matches!(failure, Some(Failure::Stale | Failure::Deadline));
        let is_lost = was_probe && (says_nothing || failure == Some(Failure::CredentialRefused));
        self.note_failure(sent, failure);
        if was_probe && good {
            self.close(sent.place);
        }
        self.keep_away(sent, failure, was_probe);
        let now = self.now;
        let place = &mut self.places[sent.place];
        place.in_flight -= 1;
        if was_probe {
            place.probe = None;
        }
        if is_lost {
            self.coverage.see(CoverageEvent::LostProbe);
        }
        if !says_nothing {
            place.last_good = Some(good);
        }
        let opens = state != StateName::Closed && !is_lost && (!place.open || was_probe);
        if opens {
            self.coverage.see(CoverageEvent::Opening);
            place.open = true;
            place.generation += 1;
            place.refused = 0;
            place.away_for = until.map_or(Duration::ZERO, |until| until.saturating_sub(now));
        }
    }

    fn note_failure(&mut self, sent: &SentAttempt, failure: Option<Failure>) {
        let record = &mut self.request_records[sent.id.0];
        match failure {
            Some(Failure::ContextTooLong) => record.wants_larger = true,
            None | Some(Failure::Rejected | Failure::Deadline) => {}
            Some(_) => record.failed_regions.push(self.places[sent.place].region),
        }
    }

    /// Until when, at least, nothing may be sent to the deployment now.
    fn keep_away(&mut self, sent: &SentAttempt, failure: Option<Failure>, was_probe: bool) {
        let settings = self.world.settings_at(self.now).breaker;
        let least = settings.open.mul_f64(JITTER);
        let (now, place) = (self.now, &mut self.places[sent.place]);
        let current = sent.generation == place.generation && (was_probe || !place.open);
        let mut away = |until: Duration| place.away_until = place.away_until.max(until);
        match failure {
            Some(Failure::Throttled { after: Some(after) }) if was_probe || place.probe.is_none() => {
                away(now + after.min(RETRY_AFTER_MAX));
            }
            Some(Failure::Throttled { after: None }) if current => away(now + Duration::from_secs(1).mul_f64(JITTER)),
            Some(Failure::NotFound) if current => away(now + NOT_FOUND.mul_f64(JITTER)),
            Some(Failure::CredentialRefused) if self.world.providers[place.provider].1.len() == 1 => {
                let (last, until) = &mut self.credentials[place.provider];
                // A refusal of an attempt sent before another's refusal is ignored.
                if sent.at >= *last {
                    *until = now + CREDENTIAL.mul_f64(JITTER);
                }
                *last = now;
            }
            Some(Failure::CredentialRefused | Failure::Stale | Failure::Deadline | Failure::Throttled { .. }) => {}
            None | Some(Failure::Rejected | Failure::ContextTooLong) if current => place.refused = 0,
            None | Some(Failure::Rejected | Failure::ContextTooLong | Failure::NotFound) => {}
            Some(_) if was_probe => away(now + least),
            Some(Failure::Unreachable | Failure::ConnectTimeout) if current && !place.gone => {
                place.refused += 1;
                if place.refused >= settings.failures {
                    away(now + least);
                }
            }
            Some(_) => {}
        }
    }

    /// The attempt is dropped: its client disconnected.
    pub fn dropped(&mut self, sent: &SentAttempt) {
        let place = &mut self.places[sent.place];
        place.in_flight -= 1;
        if place.probe == Some(sent.id) {
            place.probe = None;
            self.coverage.see(CoverageEvent::LostProbe);
        }
    }

    /// A request ended.
    pub fn end(&mut self, request: usize, how: End) {
        let must_serve = self.world.kind == WorldKind::Survival;
        self.hold(Invariant::Survival, !must_serve || how == End::Served, |_| format!("request {request} {how:?}"));
        let already = std::mem::replace(&mut self.request_records[request].ended, true);
        self.hold(Invariant::OneEnd, !already, |_| format!("request {request} ended twice"));
    }

    /// The day is over. `blocked` would still not be asked a day later.
    pub fn close_the_day(&mut self, in_flight: u32, blocked: &[Arc<str>]) {
        let open = self.request_records.iter().position(|record| !record.ended);
        self.hold(Invariant::OneEnd, open.is_none(), |_| format!("request {open:?} never ended"));
        self.hold(Invariant::NothingLeft, in_flight == 0, |_| format!("{in_flight} attempts in flight"));
        self.hold(Invariant::NothingLeft, blocked.is_empty(), |_| format!("{blocked:?} are never asked again"));
        let (requests, attempts) = self.outage;
        let kept = attempts * 10 <= requests * 12;
        self.hold(Invariant::Amplification, kept, |_| format!("{attempts} attempts for {requests} requests"));
    }

    /// From a second after everything went down.
    fn in_tripped_outage(&self) -> bool {
        let tripped = |(from, to)| self.now >= from + Duration::from_secs(1) && self.now < to;
        self.world.outage.is_some_and(tripped)
    }
}

fn forget(times: &mut VecDeque<Duration>, now: Duration, seconds: u64) {
    let first = now.saturating_sub(Duration::from_secs(seconds));
    while times.front().is_some_and(|at| *at < first) {
        times.pop_front();
    }
}
