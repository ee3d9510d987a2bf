//! The invariants of routing and budgets, and the checker that watches a simulated day for violations.
//!
//! It must never ask the code under test whether it was right: the checker counts for itself, from the attempts
//! that were made and how they ended. From the health registry it reads only the health of a deployment just
//! before it was taken.
//! Start reading in [`Invariant`], then [`Checker::attempt`].

use crate::world::{World, WorldKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::failure::Failure;
use tierway::domain::routing::health::{HealthView, PermitKind};

/// What must hold at every step of every day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// Nothing but a trial is sent to an open breaker or a resting deployment before its instant.
    OpenBreaker,
    /// Half-open admits one probe.
    OneProbe,
    /// Attempts per request ≤ `max_attempts`, and one more after a stale connection.
    AttemptLimit,
    /// Extra attempts, exempt fallbacks aside, ≤ the retry budget, and ≤ each team's share of it while others ask.
    RetryBudget,
    /// A trial, or an attempt at a silent deployment, is made only where nothing else is left.
    LastResort,
    /// At most one trial for each deployment and 100 ms, none before the provider's own time, and further ones of a
    /// request within their budget.
    TrialRate,
    /// One attempt at a time asks a silent deployment, and beside one of the team that alone waits, one of another team.
    OneAsker,
    /// No request gets more than one attempt beside another, and never has more than two in flight.
    OneRescue,
    /// No deployment is opened for all by the requests of one team while others are active.
    Evidence,
    /// A deployment is silent only after an attempt waited there for a second, in which no answer came on: none had its
    /// first token, a whole reply, or more than its head and first frame; or after two did, and no other one opened.
    Silence,
    /// No request waits beyond its share for one attempt while it could be answered elsewhere.
    SharedTime,
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
    /// In a total outage attempts ÷ requests ≤ 1.2, from five seconds on.
    Amplification,
    /// No request fails while a region is healthy, or for what the requests of another team met.
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
    /// A rescue, a second attempt because a share of the time was over, and attempts instead of silent ones.
    Rescue,
    SharedTime,
    Replaced,
    /// An attempt that was cancelled because another one answered.
    Overtaken,
    Trial,
    FurtherTrial,
    AskedSilent,
    DespiteSilence,
    FoundSilent,
    /// A request that has used its share and could be answered elsewhere, or not.
    ShareChecked,
    TakenBack,
    /// An extra attempt in a region that failed before.
    FailedRegion,
    Commit,
    Opening,
    Probe,
    LostProbe,
    Closing,
    ClientGone,
    Unavailable,
    /// A request that regions taking turns need not serve.
    Excused,
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
    pub const ALL: [CoverageEvent; 31] = [
        CoverageEvent::Request,
        CoverageEvent::Attempt,
        CoverageEvent::Extra,
        CoverageEvent::PaidExtra,
        CoverageEvent::Rescue,
        CoverageEvent::SharedTime,
        CoverageEvent::Replaced,
        CoverageEvent::Overtaken,
        CoverageEvent::Trial,
        CoverageEvent::FurtherTrial,
        CoverageEvent::AskedSilent,
        CoverageEvent::DespiteSilence,
        CoverageEvent::FoundSilent,
        CoverageEvent::ShareChecked,
        CoverageEvent::TakenBack,
        CoverageEvent::FailedRegion,
        CoverageEvent::Commit,
        CoverageEvent::Opening,
        CoverageEvent::Probe,
        CoverageEvent::LostProbe,
        CoverageEvent::Closing,
        CoverageEvent::ClientGone,
        CoverageEvent::Unavailable,
        CoverageEvent::Excused,
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
    /// How the last finished attempt there ended, and whether that is in doubt: it depends on silence.
    last_good: Option<bool>,
    in_doubt: bool,
    last_good_at: Option<Duration>,
    /// When an answer there last came on: with a first token, a whole reply, or more than its head and first frame.
    last_came_on: Option<Duration>,
    /// When an attempt there last gave its first sign.
    last_opening: Option<Duration>,
    /// When each attempt in flight there was sent, in this order.
    waiting: Vec<(AttemptId, Duration)>,
    /// Since an answer last came on there, one waited long enough for it to be found silent.
    may_be_silent: bool,
    /// The same since one that had no token yet came on.
    may_be_silent_to_new: bool,
    silent: bool,
    last_trial: Option<Duration>,
    /// Until when its provider asked to be left alone.
    stated_until: Duration,
    /// The attempt that asks it while it is silent, since when, and whether it does so beside another team's.
    asker: Option<(AttemptId, Duration, bool)>,
    /// Failures that count against it, with the client; those since the last good end, and of the last 30 s.
    bad: Vec<(Duration, usize, AttemptId)>,
    /// Connections refused since its last good end, or within 30 s.
    down_at: Option<Duration>,
    /// By client: when an attempt of it last ended with evidence.
    active: BTreeMap<usize, Duration>,
    /// Removed by a reload: only requests that arrived before can still use it.
    gone: bool,
}

/// Request and number of the attempt.
pub type AttemptId = (usize, u32);

/// What the checker knows of one request.
#[derive(Default)]
struct RequestRecord {
    tried: Vec<usize>,
    last_failure: BTreeMap<usize, Failure>,
    /// Where an attempt failed last.
    failed_last: Option<usize>,
    /// How many signs came, by number of the attempt.
    signs: BTreeMap<u32, u32>,
    /// One of its connections was stale.
    met_stale: bool,
    in_flight: u32,
    beside: u32,
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
    pub silent: bool,
    pub fresh_credential: bool,
    pub kind: PermitKind,
    pub state: StateName,
    /// It is made beside another one.
    pub beside: bool,
    /// Whether the retry budget had anything left.
    pub retry_left: bool,
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
    /// By time, with the client.
    requests: VecDeque<(Duration, usize)>,
    paid: VecDeque<(Duration, usize)>,
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
/// A breaker opens no sooner after a success, and nothing is silent sooner after a sign.
const SECOND: Duration = Duration::from_secs(1);
/// Signs of life of one attempt are recorded no more often.
const HEARD_EVERY: Duration = Duration::from_millis(50);
/// The signs of an attempt that show that an answer opens, not that it comes on.
const OPENING_SIGNS: u32 = 2;
const TRIAL_EVERY: Duration = Duration::from_millis(100);
/// Other teams count as active for so long, and ends for a ratio, which counts in slices of a tenth of it.
const WINDOW: Duration = Duration::from_secs(30);

impl<'w> Checker<'w> {
    pub fn new(world: &'w World) -> Self {
        Self {
            world,
            now: Duration::ZERO,
            places: Vec::new(),
            request_records: world.planned_requests.iter().map(|_| RequestRecord::default()).collect(),
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
            in_doubt: false,
            last_good_at: None,
            last_came_on: None,
            last_opening: None,
            waiting: Vec::new(),
            may_be_silent: false,
            may_be_silent_to_new: false,
            silent: false,
            last_trial: None,
            stated_until: Duration::ZERO,
            asker: None,
            bad: Vec::new(),
            down_at: None,
            active: BTreeMap::new(),
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

    fn client(&self, request: usize) -> usize {
        self.world.planned_requests[request].key
    }

    /// A request arrives and has a plan.
    pub fn request(&mut self, request: usize) {
        self.coverage.see(CoverageEvent::Request);
        self.requests.push_back((self.now, self.client(request)));
        self.outage.0 += u64::from(self.in_tripped_outage());
    }

    /// The plan gets this view of `place`.
    pub fn view(&mut self, place: usize, view: &HealthView) {
        let now = self.now;
        let record = &mut self.places[place];
        let turned_silent = view.silent && !std::mem::replace(&mut record.silent, view.silent);
        if turned_silent {
            self.coverage.see(CoverageEvent::FoundSilent);
        }
        self.judge_silence(place);
        let record = &self.places[place];
        let may_be_silent = record.may_be_silent || record.may_be_silent_to_new;
        let (kept, quiet) = (!view.silent || may_be_silent, record.last_came_on.map(|at| now - at));
        self.hold(Invariant::Silence, kept, |r| {
            format!("{} is silent {quiet:?} after an answer came on", r.places[place].name)
        });
        let (Availability::Flowing { share }, Some((since, away_for))) =
            (view.availability, self.places[place].returned)
        else {
            return;
        };
        let kept = now - since >= SECOND || share <= 0.1;
        self.hold(Invariant::SlowStart, kept, |r| {
            format!("{} has {share} of its share {:?} after {away_for:?} away", r.places[place].name, now - since)
        });
    }

    /// Something came for this attempt. A head and a first frame alone prove little.
    pub fn sign(&mut self, sent: &SentAttempt) {
        let signs = self.request_records[sent.id.0].signs.entry(sent.id.1).or_default();
        *signs += 1;
        if *signs == 1 {
            self.places[sent.place].last_opening = Some(self.now);
        }
        if *signs > OPENING_SIGNS {
            self.came_on(sent);
        }
    }

    /// Looks whether an attempt has waited at the deployment for so long that it may be silent: each limit of
    /// `domain/routing/silence.rs` is at least a second.
    fn judge_silence(&mut self, place: usize) {
        let now = self.now;
        let records = &self.request_records;
        let place = &mut self.places[place];
        let long_after =
            |last: Option<Duration>, sent: Duration| now - last.map_or(sent, |at| at.max(sent)) + HEARD_EVERY >= SECOND;
        let to_all = place.waiting.first().is_some_and(|(_, sent)| long_after(place.last_came_on, *sent));
        // Streams that go on do not speak for what waits for its first sign; nor does a single attempt.
        let unheard = |(request, number): &AttemptId| !records[*request].signs.contains_key(number);
        let second = place.waiting.iter().filter(|(id, _)| unheard(id)).nth(1);
        let to_new = second.is_some_and(|(_, sent)| long_after(place.last_opening, *sent));
        place.may_be_silent |= to_all;
        place.may_be_silent_to_new |= to_new;
    }

    /// The attempt is not in flight any more.
    fn left(&mut self, sent: &SentAttempt) {
        self.judge_silence(sent.place);
        let place = &mut self.places[sent.place];
        place.in_flight -= 1;
        place.waiting.retain(|(id, _)| *id != sent.id);
        if place.asker.is_some_and(|(asker, _, _)| asker == sent.id) {
            place.asker = None;
        }
    }

    /// This attempt's first token came, or a whole reply, or a third sign.
    pub fn came_on(&mut self, sent: &SentAttempt) {
        let signs = self.request_records[sent.id.0].signs.entry(sent.id.1).or_default();
        let place = &mut self.places[sent.place];
        if *signs == 0 {
            *signs = 1;
            place.last_opening = Some(self.now);
        }
        place.last_came_on = Some(self.now);
        (place.silent, place.may_be_silent) = (false, false);
        place.may_be_silent_to_new &= self.request_records[sent.id.0].committed;
        place.asker = None;
    }

    /// A request has surely used its share for attempt `number`, which is the only one in flight.
    pub fn share_is_over(&mut self, request: usize, number: u32, retry_left: bool, healthy: &[usize]) {
        self.coverage.see(CoverageEvent::ShareChecked);
        let record = &self.request_records[request];
        if !retry_left || record.wants_larger {
            return;
        }
        let other = healthy.iter().find(|place| !record.tried.contains(place));
        let other = other.map(|place| self.places[*place].name.clone());
        self.hold(Invariant::SharedTime, other.is_none(), |_| {
            format!("attempt {request}.{number} is waited for although {other:?} could answer")
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
        let most = start.max_attempts + u32::from(self.request_records[request].met_stale);
        self.hold(Invariant::AttemptLimit, number <= most, |_| format!("attempt {number} of request {request}"));
        self.places[place].in_flight += 1;
        self.places[place].waiting.push((start.id, self.now));
        let in_flight = self.places[place].in_flight;
        let fits = start.max_concurrent.is_none_or(|max_concurrent| in_flight <= max_concurrent);
        self.hold(Invariant::Capacity, fits, |r| {
            format!("{} carries {in_flight} of {:?}", r.places[place].name, start.max_concurrent)
        });
        self.request_records[request].in_flight += 1;
        self.request_records[request].beside += u32::from(start.beside);
        let RequestRecord { in_flight, beside, .. } = self.request_records[request];
        self.hold(Invariant::OneRescue, beside <= 1 && in_flight <= 2, |_| {
            format!("request {request} has {in_flight} attempts in flight, {beside} made beside another")
        });
        self.check_last_resort(start);
        self.check_availability(start);
        self.check_allowed(request, place, start.spills);
        self.check_deadline(start);
        if number > 1 {
            self.coverage.see(CoverageEvent::Extra);
            self.check_region(start);
            self.check_retry_budget(start);
        }
        self.request_records[request].tried.push(place);
        SentAttempt { id: start.id, place, at: self.now, generation: self.places[place].generation }
    }

    fn check_last_resort(&mut self, start: &AttemptStart<'_>) {
        let AttemptStart { id: (request, number), place, kind, .. } = *start;
        match kind {
            PermitKind::Usual => return,
            PermitKind::AskSilent if !start.silent => return,
            PermitKind::AskSilent => {
                self.coverage.see(CoverageEvent::AskedSilent);
                let key = |id: AttemptId| self.world.planned_requests[id.0].key;
                let asker = self.places[place].asker.filter(|(_, since, _)| self.now - *since < SECOND);
                let kept = asker.is_none_or(|(asker, _, beside)| !beside && key(asker) != key(start.id));
                self.places[place].asker = Some((start.id, self.now, asker.is_some()));
                self.hold(Invariant::OneAsker, kept, |r| format!("{} is asked by {asker:?}", r.places[place].name));
                return;
            }
            PermitKind::DespiteSilence => self.coverage.see(CoverageEvent::DespiteSilence),
            PermitKind::Trial => {
                self.coverage.see(CoverageEvent::Trial);
                self.check_trial(start);
            }
        }
        let record = &self.request_records[request];
        if record.wants_larger {
            return;
        }
        // A deployment that failed last costs a unit of the retry budget, where it is not the first attempt.
        let affordable = |place: usize| {
            let DeploymentRecord { last_good, in_doubt, .. } = self.places[place];
            number == 1 || start.retry_left || !(in_doubt || last_good == Some(false))
        };
        let better = start.healthy.iter().find(|place| !record.tried.contains(place) && affordable(**place));
        let better = better.map(|place| self.places[*place].name.clone());
        self.hold(Invariant::LastResort, better.is_none(), |r| {
            format!("{kind:?} {request}.{number} at {} although {better:?} is left", r.places[place].name)
        });
    }

    fn check_trial(&mut self, start: &AttemptStart<'_>) {
        let (now, place) = (self.now, start.place);
        let last = self.places[place].last_trial.replace(now);
        self.hold(Invariant::TrialRate, last.is_none_or(|last| now - last >= TRIAL_EVERY), |r| {
            format!("{} is tried, and was {:?} before", r.places[place].name, last.map(|last| now - last))
        });
        let stated = self.places[place].stated_until;
        let kept = now >= stated || self.world.providers[self.places[place].provider].1.len() > 1;
        self.hold(Invariant::TrialRate, kept, |r| format!("{} said {stated:?}", r.places[place].name));
        if start.id.1 > 1 {
            self.coverage.see(CoverageEvent::FurtherTrial);
        }
    }

    fn check_availability(&mut self, start: &AttemptStart<'_>) {
        let place = start.place;
        let open = matches!(start.state, StateName::HalfOpen | StateName::Open);
        match start.availability {
            _ if start.kind == PermitKind::Trial => return,
            Availability::Flowing { .. } => {}
            Availability::Blocked { .. } if start.state == StateName::HalfOpen => {
                self.violate(Invariant::OneProbe, format!("{} has its probe", self.places[place].name));
            }
            Availability::Blocked { .. } => {
                self.violate(Invariant::OpenBreaker, format!("{} is {:?}", self.places[place].name, start.state));
            }
            Availability::ProbeDue if open => {
                self.coverage.see(CoverageEvent::Probe);
                let probe = self.places[place].probe.replace(start.id);
                self.hold(Invariant::OneProbe, probe.is_none(), |r| {
                    format!("{} has {probe:?} on its way", r.places[place].name)
                });
            }
            // Its credential's trial, or the probe of one team.
            Availability::ProbeDue => {}
        }
        let until = self.places[place].away_until;
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
        // An attempt beside another avoids the region of that one too.
        let runs = |place: &&usize| !record.last_failure.contains_key(place);
        let busy = |region| record.tried.iter().filter(runs).any(|place| self.places[*place].region == region);
        let failed = |place: usize| {
            let region = self.places[place].region;
            record.failed_regions.contains(&region) || busy(region)
        };
        // Retries at the same deployment and for a larger context are exempt.
        let same = record.failed_last == Some(start.place) || record.tried.last() == Some(&start.place);
        if same || record.wants_larger || !failed(start.place) || start.kind == PermitKind::Trial {
            return;
        }
        self.coverage.see(CoverageEvent::FailedRegion);
        let better = start.healthy.iter().find(|place| {
            let DeploymentRecord { last_good, in_doubt, .. } = self.places[**place];
            !failed(**place) && !record.tried.contains(place) && !in_doubt && last_good != Some(false)
        });
        let better = better.map(|place| self.places[*place].name.clone());
        self.hold(Invariant::FailedRegion, better.is_none(), |r| {
            format!("{} although {better:?} is left", r.places[start.place].name)
        });
    }

    /// 20 % of the last ten seconds' requests, at least ten a second; half of that for a team that is not alone. The
    /// budget counts in whole seconds, so the last nine seconds' extra attempts are surely among those it allowed.
    fn check_retry_budget(&mut self, start: &AttemptStart<'_>) {
        let AttemptStart { id: (request, _), place, .. } = *start;
        let record = &self.request_records[request];
        let by_credential = matches!(
            record.last_failure.get(&place),
            Some(Failure::Throttled { .. } | Failure::CredentialRefused | Failure::AccountRefused(_))
        );
        let exempt = match record.tried.contains(&place) {
            true => by_credential && start.fresh_credential,
            false => self.places[place].in_doubt || self.places[place].last_good != Some(false),
        };
        if exempt && !start.beside && start.kind != PermitKind::Trial {
            return;
        }
        self.coverage.see(CoverageEvent::PaidExtra);
        let client = self.client(request);
        self.paid.push_back((self.now, client));
        forget(&mut self.paid, self.now, 9);
        forget(&mut self.requests, self.now, 10);
        let share = self.world.tables[0].1.settings.retry_budget_bp as usize;
        let (spent, allowed) = (self.paid.len(), (self.requests.len() * share / 10_000).max(100));
        self.hold(Invariant::RetryBudget, spent <= allowed, |_| format!("{spent} extra attempts of {allowed}"));
        let recently = self.now.saturating_sub(Duration::from_secs(9));
        if self.requests.iter().any(|(at, other)| *other != client && *at >= recently) {
            let own = |times: &VecDeque<(Duration, usize)>| times.iter().filter(|(_, of)| *of == client).count();
            let (spent, allowed) = (own(&self.paid), (own(&self.requests) * share / 10_000).max(50));
            self.hold(Invariant::RetryBudget, spent <= allowed, |_| {
                format!("{spent} extra attempts of {allowed} for one team")
            });
        }
    }

    /// The attempt's first token has arrived.
    pub fn answered(&mut self, sent: &SentAttempt) {
        self.coverage.see(CoverageEvent::Commit);
        self.came_on(sent);
        self.request_records[sent.id.0].committed = true;
        let place = &mut self.places[sent.place];
        place.stated_until = Duration::ZERO;
        if place.probe == Some(sent.id) {
            place.probe = None;
        }
    }

    /// The state of the breaker of a deployment after something happened to an attempt there; nothing may be sent
    /// there before `until`.
    pub fn observe(&mut self, sent: &SentAttempt, state: StateName, until: Option<Duration>) {
        let (now, open) = (self.now, matches!(state, StateName::Open | StateName::HalfOpen));
        let place = &mut self.places[sent.place];
        match (place.open, open) {
            (false, true) => {
                place.open = true;
                place.generation += 1;
                place.refused = 0;
                place.away_for = until.map_or(Duration::ZERO, |until| until.saturating_sub(now));
                self.coverage.see(CoverageEvent::Opening);
                self.check_evidence(sent.place);
            }
            (true, true) if state == StateName::Open && until.is_some_and(|until| until > now) => {
                place.away_for = until.map_or(place.away_for, |until| place.away_for.max(until - now));
            }
            (true, false) => {
                place.open = false;
                place.refused = 0;
                place.bad.clear();
                place.down_at = None;
                place.away_until = Duration::ZERO;
                place.last_good_at = Some(now);
                place.probe = None;
                place.returned = Some((now, place.away_for));
                let closing = (place.name.clone(), now, place.away_for);
                self.coverage.see(CoverageEvent::Closing);
                self.closings.push(closing);
            }
            _ => {}
        }
    }

    fn check_evidence(&mut self, place: usize) {
        let DeploymentRecord { bad, down_at, active, .. } = &self.places[place];
        let clients: BTreeSet<usize> = bad.iter().map(|(_, client, _)| *client).collect();
        let mut clients_in = clients.iter();
        let (Some(one), None, None) = (clients_in.next(), clients_in.next(), down_at) else { return };
        let others = active.iter().find(|(other, at)| *other != one && **at + WINDOW * 9 / 10 > self.now);
        let message = format!("{} opened by {one} alone, while {others:?} was active", self.places[place].name);
        self.hold(Invariant::Evidence, others.is_none(), |_| message);
    }

    /// A failure that was counted is taken back: the request is to blame.
    pub fn taken_back(&mut self, id: AttemptId) {
        self.coverage.see(CoverageEvent::TakenBack);
        for place in &mut self.places {
            place.bad.retain(|(_, _, of)| *of != id);
        }
    }

    /// The attempt ended, with `failure` if it failed; `counts`: whether the plan said that this is evidence.
    pub fn finished(&mut self, sent: &SentAttempt, failure: Option<Failure>, counts: bool) {
        let was_probe = self.places[sent.place].probe == Some(sent.id);
        let good = matches!(failure, None | Some(Failure::Rejected | Failure::ContextTooLong));
        let unanswered = failure.is_some_and(is_unanswered);
        self.note_failure(sent, failure);
        self.note_evidence(sent, failure, counts);
        self.keep_away(sent, failure, was_probe, counts);
        self.request_records[sent.id.0].in_flight -= 1;
        self.left(sent);
        let now = self.now;
        let place = &mut self.places[sent.place];
        if was_probe {
            place.probe = None;
            if unanswered || (failure.is_some() && !counts) {
                self.coverage.see(CoverageEvent::LostProbe);
            }
        }
        let place = &mut self.places[sent.place];
        match unanswered || matches!(failure, Some(Failure::Unreadable | Failure::NotHeld)) {
            true => place.in_doubt = true,
            false => (place.last_good, place.in_doubt) = (Some(good), false),
        }
        if good {
            place.last_good_at = Some(now);
            place.bad.retain(|(at, ..)| *at + WINDOW > now);
            place.down_at = place.down_at.filter(|at| *at + WINDOW > now);
        }
    }

    fn note_evidence(&mut self, sent: &SentAttempt, failure: Option<Failure>, counts: bool) {
        let (now, client) = (self.now, self.client(sent.id.0));
        let place = &mut self.places[sent.place];
        let attributed = match failure {
            Some(Failure::Unreachable | Failure::ConnectTimeout) => {
                place.down_at = Some(now);
                false
            }
            Some(Failure::Status(_) | Failure::Reset | Failure::Garbage | Failure::NoAnswer) => counts,
            Some(Failure::Truncated | Failure::ErrorInside) => counts,
            Some(failure) if is_unanswered(failure) => counts,
            _ => false,
        };
        if attributed {
            place.bad.push((now, client, sent.id));
        }
        // Whether a slow end was evidence is not known here: it does not make a team active.
        let active = match failure {
            None | Some(Failure::Rejected | Failure::ContextTooLong) => true,
            Some(failure) => attributed && !is_unanswered(failure),
        };
        if active && sent.generation == place.generation && !place.open {
            place.active.insert(client, now);
        }
    }

    fn note_failure(&mut self, sent: &SentAttempt, failure: Option<Failure>) {
        let record = &mut self.request_records[sent.id.0];
        if let Some(failure) = failure {
            record.last_failure.insert(sent.place, failure);
            record.failed_last = Some(sent.place);
            record.met_stale |= failure == Failure::Stale;
        }
        match failure {
            Some(Failure::ContextTooLong) => record.wants_larger = true,
            None | Some(Failure::Rejected | Failure::Deadline) => {}
            Some(_) => record.failed_regions.push(self.places[sent.place].region),
        }
    }

    /// Until when, at least, nothing may be sent to the deployment now. Only what no team can have caused keeps all
    /// teams away.
    fn keep_away(&mut self, sent: &SentAttempt, failure: Option<Failure>, was_probe: bool, counts: bool) {
        let settings = self.world.settings_at(self.now).breaker;
        let least = settings.open.mul_f64(JITTER);
        let (now, place) = (self.now, &mut self.places[sent.place]);
        let current = sent.generation == place.generation && !place.open;
        match failure {
            Some(Failure::Throttled { after: Some(after) }) if counts => {
                place.stated_until = place.stated_until.max(now + after.min(RETRY_AFTER_MAX));
            }
            None | Some(Failure::Rejected | Failure::ContextTooLong) => {
                place.stated_until = Duration::ZERO;
                place.refused = 0;
            }
            Some(Failure::Unreachable | Failure::ConnectTimeout) if was_probe => place.away_until = now + least,
            Some(Failure::Unreachable | Failure::ConnectTimeout) if current && !place.gone => {
                place.refused += 1;
                let quiet = place.last_good_at.is_none_or(|at| now - at >= SECOND);
                if quiet && place.refused >= settings.failures {
                    place.away_until = place.away_until.max(now + least);
                }
            }
            Some(_) => {}
        }
    }

    /// The attempt is dropped: its client disconnected.
    pub fn dropped(&mut self, sent: &SentAttempt) {
        let (now, client) = (self.now, self.client(sent.id.0));
        self.request_records[sent.id.0].in_flight -= 1;
        self.left(sent);
        let place = &mut self.places[sent.place];
        // Evidence where the deployment was silent, which is not known here.
        place.bad.push((now, client, sent.id));
        place.in_doubt = true;
        if place.probe == Some(sent.id) {
            place.probe = None;
            self.coverage.see(CoverageEvent::LostProbe);
        }
    }

    /// A request ended.
    pub fn end(&mut self, request: usize, how: End) {
        // Where regions take turns, a request that lost more than a turn to an attempt that was never answered can have
        // met each of them at the wrong time.
        let age = self.now - self.world.planned_requests[request].at;
        let excused = self.world.kind == WorldKind::RotatingLive && age > crate::world::TURN;
        let kept = !self.world.must_serve(request) || how == End::Served || excused;
        if excused && how != End::Served {
            self.coverage.see(CoverageEvent::Excused);
        }
        self.hold(Invariant::Survival, kept, |_| format!("request {request} {how:?}"));
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

    /// From five seconds after everything went down: by then every breaker has opened, and the floor of the retry
    /// budget is used up.
    fn in_tripped_outage(&self) -> bool {
        let tripped = |(from, to)| self.now >= from + 5 * SECOND && self.now < to;
        self.world.outage.is_some_and(tripped)
    }
}

/// Whether the deployment has not answered, which is evidence only while it is silent.
fn is_unanswered(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::FirstTokenTimeout
            | Failure::WholeTimeout
            | Failure::IdleTimeout
            | Failure::Deadline
            | Failure::Silent
            | Failure::Overtaken
    )
}

fn forget(times: &mut VecDeque<(Duration, usize)>, now: Duration, seconds: u64) {
    let first = now.saturating_sub(Duration::from_secs(seconds));
    while times.front().is_some_and(|(at, _)| *at < first) {
        times.pop_front();
    }
}
