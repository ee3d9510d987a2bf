//! The machine that walks one request through its legs: asked what to do next, told how it went.
//!
//! It exists so that retrying, falling back, waiting and giving up are decided in one place that
//! can be read in one sitting and simulated without a network. It never sends, sleeps or looks at a
//! clock: [`RoutePlan::next`] answers `Try`, `Wait` or `GiveUp`, [`RoutePlan::record`] hears how an
//! attempt failed. Health and load it learns through [`Board`].
//!
//! The order of preference, first to last: a deployment in a region that has not failed in this
//! request, in chain order; any untried deployment, in chain order; the same one again, after a
//! pause; one that rests, if waiting is allowed.

use crate::domain::authorize::AuthorizedRequest;
use crate::domain::breaker::Standing;
use crate::domain::call::Call;
use crate::domain::chance::Draw;
use crate::domain::failure::{Failure, Next};
use crate::domain::id::{DeploymentId, RegionId, TierId};
use crate::domain::refusal::Refusal;
use crate::domain::routing::draft::{self, Leg};
use crate::domain::routing::gauge::Form;
use crate::domain::routing::split;
use crate::domain::routing::table::{Balance, RoutingTable};
use std::time::{Duration, Instant};

/// What the plan must know of the deployments' health and load.
pub trait Board {
    /// Proof that an attempt may be made; giving it back is its own affair.
    type Permit;

    /// How `deployment` stands at `now`, for an answer of this form.
    fn glance(&self, deployment: DeploymentId, form: Form, now: Instant) -> Glance;
    /// Leave for one attempt, unless breaker, capacity or credentials refuse it by now.
    fn take(&self, deployment: DeploymentId, form: Form, now: Instant) -> Option<Self::Permit>;
    /// Whether the retry budget has something left.
    fn has_retry(&self, now: Instant) -> bool;
    /// Spends one unit of the retry budget, if there is one.
    fn spend_retry(&self, now: Instant) -> bool;
}

/// One deployment at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Glance {
    /// Breaker and rests, the credentials' included.
    pub standing: Standing,
    /// It carries as many requests as it may.
    pub full: bool,
    /// An attempt there has been silent for too long.
    pub silent: bool,
    /// What `latency` compares: smaller is better.
    pub load: f64,
    /// The average first-token time, once known.
    pub average: Option<Duration>,
    /// How the last finished attempt there ended.
    pub last_good: Option<bool>,
}

/// What to do next.
#[derive(Debug)]
pub enum Step<P> {
    /// Make this attempt.
    Try(Attempt<P>),
    /// Ask again after this long.
    Wait(Duration),
    /// Stop.
    GiveUp(GiveUp),
}

/// One attempt to make.
#[derive(Debug)]
pub struct Attempt<P> {
    /// Counted from 1.
    pub number: u32,
    /// Where.
    pub deployment: DeploymentId,
    /// Reached through.
    pub tier: Option<TierId>,
    /// Leave to make it.
    pub permit: P,
}

/// Why there is nothing more to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GiveUp {
    /// Nothing was tried: every deployment is open or resting, the soonest until then.
    Unavailable {
        /// When the soonest may be asked again.
        until: Instant,
    },
    /// Nothing was tried: every deployment that could serve is full.
    Full,
    /// The provider refused the request itself, at the first model tried.
    Rejected,
    /// Attempts were made; this is the first model's failure.
    Exhausted(Failure),
    /// The request's time is over.
    OutOfTime,
}

/// The shortest and longest pause before the same deployment is tried again (full jitter).
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MOST: Duration = Duration::from_millis(250);
/// A stale pooled connection shows within this time of the attempt being sent.
const STALE_WITHIN: Duration = Duration::from_millis(100);

/// The way of one request.
#[derive(Debug)]
pub struct RoutePlan {
    legs: Vec<Leg>,
    form: Form,
    deadline: Instant,
    tried: Vec<Tried>,
    /// The same deployment is to be tried once more, at once.
    again: Option<(usize, DeploymentId)>,
    /// A pause for the same deployment has been taken; the next step may retry.
    paused: bool,
    /// Only models with more context than this may be tried, once.
    larger_than: Option<u64>,
    over: Option<GiveUp>,
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    leg: usize,
    deployment: DeploymentId,
    region: RegionId,
    /// `None` while it runs.
    failure: Option<Failure>,
}

/// A way on that could be taken now.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    leg: usize,
    deployment: DeploymentId,
    glance: Glance,
}

impl RoutePlan {
    /// The plan of one request: nothing outside policy, residency, capacity and ability is in it.
    ///
    /// # Errors
    /// A [`Refusal`] when that leaves nothing.
    pub fn draft(
        table: &RoutingTable,
        authorized: &AuthorizedRequest,
        call: &Call,
        no_fallback: bool,
        deadline: Instant,
        draw: Draw,
    ) -> Result<Self, Refusal> {
        let legs = draft::legs(table, authorized, call, no_fallback, draw)?;
        Ok(Self {
            legs,
            form: Form::of(call.facts().stream),
            deadline,
            tried: Vec::with_capacity(1),
            again: None,
            paused: false,
            larger_than: None,
            over: None,
        })
    }

    /// The legs, in the order they are stepped down.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// Attempts made so far.
    pub fn attempts(&self) -> u32 {
        self.tried.len() as u32
    }

    /// What to do next.
    pub fn next<B: Board>(&mut self, table: &RoutingTable, board: &B, now: Instant, draw: Draw) -> Step<B::Permit> {
        if let Some(over) = self.over {
            return Step::GiveUp(over);
        }
        if now >= self.deadline {
            return Step::GiveUp(GiveUp::OutOfTime);
        }
        if self.attempts() >= table.settings.max_attempts {
            return Step::GiveUp(self.exhausted());
        }
        // A choice can be lost to another request between glance and take; each loss removes a
        // candidate, so this ends.
        let mut lost = Vec::new();
        while let Some(choice) = self.choose(table, board, &lost, now, draw) {
            match board.take(choice.deployment, self.form, now) {
                Some(permit) if !self.needs_budget(&choice) || board.spend_retry(now) => {
                    return Step::Try(self.attempt(table, choice, permit));
                }
                _ => lost.push(choice.deployment),
            }
        }
        self.wait_or_give_up(table, board, now, draw)
    }

    /// Hears how the running attempt failed, and answers what the failure really was: a reset may
    /// have been nothing but a stale pooled connection. `age` is counted from the attempt being sent.
    pub fn record(&mut self, table: &RoutingTable, failure: Failure, age: Duration, last_was_good: bool) -> Failure {
        let index = self.tried.len() - 1;
        let current = self.tried[index];
        let same_before = self.tried[..index].iter().filter(|t| t.deployment == current.deployment);
        let stale_before = same_before.clone().any(|t| t.failure == Some(Failure::Stale));
        let failure = match failure {
            Failure::Reset if age < STALE_WITHIN && last_was_good && !stale_before => Failure::Stale,
            other => other,
        };
        let again_on_500 =
            table.settings.same_region_retry_on_500 && failure == Failure::Status(500) && same_before.count() == 0;
        self.tried[index].failure = Some(failure);
        self.paused = false;
        self.again = None;
        match failure.next() {
            Next::Same => self.again = Some((current.leg, current.deployment)),
            Next::Other if again_on_500 => self.again = Some((current.leg, current.deployment)),
            Next::Other => {}
            Next::Stop => self.over = Some(GiveUp::OutOfTime),
            Next::Reject if self.on_first_model(current.leg) => self.over = Some(GiveUp::Rejected),
            Next::Reject => {}
            Next::LargerContext => self.want_larger_context(table, current.leg),
        }
        failure
    }

    fn attempt<P>(&mut self, table: &RoutingTable, choice: Candidate, permit: P) -> Attempt<P> {
        let region = table.deployment(choice.deployment).region;
        self.tried.push(Tried { leg: choice.leg, deployment: choice.deployment, region, failure: None });
        self.again = None;
        Attempt { number: self.attempts(), deployment: choice.deployment, tier: self.legs[choice.leg].tier, permit }
    }

    fn choose<B: Board>(
        &self,
        table: &RoutingTable,
        board: &B,
        lost: &[DeploymentId],
        now: Instant,
        draw: Draw,
    ) -> Option<Candidate> {
        let budget = self.tried.is_empty() || board.has_retry(now);
        let usable = |leg: usize, deployment: DeploymentId| {
            let candidate = Candidate { leg, deployment, glance: board.glance(deployment, self.form, now) };
            let fits = !lost.contains(&deployment) && self.is_usable(&candidate, now);
            (fits && (budget || !self.needs_budget(&candidate))).then_some(candidate)
        };
        if let Some((leg, deployment)) = self.again {
            return usable(leg, deployment);
        }
        let untried = |id| !self.tried.iter().any(|t| t.deployment == id);
        let fresh = |id| untried(id) && !self.region_failed(table.deployment(id).region);
        let pick = |allowed: &dyn Fn(DeploymentId) -> bool, probes: bool| {
            self.first_leg(table, draw, |leg, id| {
                let candidate = allowed(id).then(|| usable(leg, id))??;
                (probes || candidate.glance.standing != Standing::ProbeDue).then_some(candidate)
            })
        };
        if self.tried.is_empty() {
            return pick(&fresh, true);
        }
        // A request that has failed once already is not made a probe while something healthy is left.
        pick(&fresh, false)
            .or_else(|| pick(&fresh, true))
            .or_else(|| pick(&untried, true))
            .or_else(|| pick(&|id| self.paused && self.may_try_again(table, id), true))
    }

    /// The first leg, in chain order, that offers anything, and the best it offers.
    fn first_leg(
        &self,
        table: &RoutingTable,
        draw: Draw,
        offer: impl Fn(usize, DeploymentId) -> Option<Candidate>,
    ) -> Option<Candidate> {
        self.legs.iter().enumerate().find_map(|(index, leg)| {
            if !self.has_context(table, leg) {
                return None;
            }
            let offered: Vec<Candidate> = leg.deployments.iter().filter_map(|id| offer(index, *id)).collect();
            best(table, &offered, draw.salted(index as u64))
        })
    }

    fn is_usable(&self, candidate: &Candidate, now: Instant) -> bool {
        let Glance { standing, full, average, .. } = candidate.glance;
        let blocked = matches!(standing, Standing::Blocked { .. });
        // An extra attempt that could not answer in the time left would only be load.
        let in_time = self.tried.is_empty() || average.is_none_or(|average| now + average < self.deadline);
        !blocked && !full && in_time
    }

    /// A first attempt is free, and so is a fallback to a deployment that looks well; every other spends.
    fn needs_budget(&self, candidate: &Candidate) -> bool {
        let Some(last) = self.tried.last() else { return false };
        let fallback = last.deployment != candidate.deployment;
        !(fallback && candidate.glance.last_good != Some(false))
    }

    fn region_failed(&self, region: RegionId) -> bool {
        self.tried.iter().any(|t| t.region == region && t.failure.is_some_and(|f| f.next() == Next::Other))
    }

    /// Whether the same deployment could answer now, after a pause or, where waiting is allowed, a rest.
    fn may_try_again(&self, table: &RoutingTable, deployment: DeploymentId) -> bool {
        let last = self.tried.iter().rev().find(|t| t.deployment == deployment);
        let waits = table.settings.retry_after_wait_max > Duration::ZERO;
        last.and_then(|t| t.failure).is_some_and(|f| f.may_pass() || (waits && matches!(f, Failure::Throttled { .. })))
    }

    fn on_first_model(&self, leg: usize) -> bool {
        self.tried.first().is_some_and(|first| self.legs[first.leg].model == self.legs[leg].model)
    }

    fn want_larger_context(&mut self, table: &RoutingTable, leg: usize) {
        let context = table.model(self.legs[leg].model).context;
        match context {
            Some(context) if self.larger_than.is_none() => self.larger_than = Some(context),
            _ => self.over = Some(self.exhausted()),
        }
    }

    fn has_context(&self, table: &RoutingTable, leg: &Leg) -> bool {
        self.larger_than.is_none_or(|least| table.model(leg.model).context.is_some_and(|context| context > least))
    }

    fn wait_or_give_up<B: Board>(
        &mut self,
        table: &RoutingTable,
        board: &B,
        now: Instant,
        draw: Draw,
    ) -> Step<B::Permit> {
        let again = self.legs.iter().flat_map(|leg| &leg.deployments).any(|id| {
            self.may_try_again(table, *id)
                && !matches!(board.glance(*id, self.form, now).standing, Standing::Blocked { .. })
        });
        if again && !self.paused && self.larger_than.is_none() && board.has_retry(now) {
            let pause = backoff(self.attempts(), draw);
            if now + pause < self.deadline {
                self.paused = true;
                return Step::Wait(pause);
            }
        }
        let glances = self.legs.iter().flat_map(|leg| &leg.deployments).map(|id| board.glance(*id, self.form, now));
        let (mut soonest, mut full) = (None::<Instant>, false);
        for glance in glances {
            match glance.standing {
                Standing::Blocked { until } => soonest = Some(soonest.map_or(until, |s| s.min(until))),
                Standing::Flowing { .. } | Standing::ProbeDue => full |= glance.full,
            }
        }
        if let Some(until) = soonest
            && !full
            && until.saturating_duration_since(now) <= table.settings.retry_after_wait_max
            && until < self.deadline
            && until > now
        {
            self.paused = true;
            return Step::Wait(until - now);
        }
        Step::GiveUp(match (self.tried.is_empty(), full, soonest) {
            (false, ..) => self.exhausted(),
            (true, true, _) => GiveUp::Full,
            (true, false, until) => GiveUp::Unavailable { until: until.unwrap_or(now) },
        })
    }

    /// The first model's failure: what the client asked for is what it is told about.
    fn exhausted(&self) -> GiveUp {
        let first = self.tried.first();
        let of_first_model = self.tried.iter().filter(|t| self.on_first_model(t.leg));
        let failure = of_first_model.filter_map(|t| t.failure).next_back();
        match failure.or(first.and_then(|t| t.failure)) {
            Some(Failure::Rejected | Failure::ContextTooLong) => GiveUp::Rejected,
            Some(failure) => GiveUp::Exhausted(failure),
            None => GiveUp::OutOfTime,
        }
    }
}

/// The best of one leg's candidates. A probe that is due goes first, or recovery would wait for luck;
/// then those that are neither silent nor still being eased in; then, better than nothing, those.
fn best(table: &RoutingTable, offered: &[Candidate], draw: Draw) -> Option<Candidate> {
    if let Some(probe) = offered.iter().find(|c| c.glance.standing == Standing::ProbeDue && !c.glance.silent) {
        return Some(*probe);
    }
    let eased_in = |candidate: &Candidate| match candidate.glance.standing {
        Standing::Flowing { share } => draw.salted(100 + u64::from(candidate.deployment.0)).unit() < share,
        Standing::ProbeDue | Standing::Blocked { .. } => true,
    };
    let mut pool: Vec<Candidate> = offered.iter().copied().filter(|c| !c.glance.silent && eased_in(c)).collect();
    if pool.is_empty() {
        pool = offered.iter().copied().filter(|c| !c.glance.silent).collect();
    }
    if pool.is_empty() {
        pool = offered.to_vec();
    }
    let at_home = |c: &&Candidate| table.settings.home == Some(table.deployment(c.deployment).region);
    if pool.iter().any(|c| at_home(&c)) {
        pool.retain(|c| at_home(&c));
    }
    balance(table, &pool, draw)
}

fn balance(table: &RoutingTable, pool: &[Candidate], draw: Draw) -> Option<Candidate> {
    let weight = |c: &Candidate| u64::from(table.deployment(c.deployment).weight);
    match table.settings.balance {
        Balance::Ordered => pool.first().copied(),
        Balance::Weighted => {
            let index = draw.weighted(pool.iter().map(weight));
            index.map_or(pool.first(), |index| pool.get(index)).copied()
        }
        Balance::Latency => split::power_of_two(pool, draw, |c| c.glance.load),
        Balance::Cost => pool.iter().copied().min_by_key(|c| cost_of(table, c.deployment)),
    }
}

/// What `cost` compares: the price of as many input as output tokens; unknown prices come last.
fn cost_of(table: &RoutingTable, deployment: DeploymentId) -> u64 {
    let deployment = table.deployment(deployment);
    let price = deployment.price.or(table.model(deployment.model).price);
    price.map_or(u64::MAX, |price| price.input.0.saturating_add(price.output.0))
}

/// Full jitter: anything up to 25 ms doubled for each attempt made, at most 250 ms.
fn backoff(attempts: u32, draw: Draw) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(BACKOFF_MOST);
    most.mul_f64(draw.salted(7).unit())
}
