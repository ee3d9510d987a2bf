//! A day generated from a seed: the routing tables, the behaviour of each deployment, and all requests.
//!
//! It must never depend on what the gateway does: a world is complete before its first request.
//! Start reading in [`World::of`].

use crate::provider::{Behaviour, Script};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::body_member::ListedMembers;
use tierway::domain::breaker::BreakerSettings;
use tierway::domain::budget::{Budget, BudgetPeriod, Scope, Zone};
use tierway::domain::call::{Endpoint, EndpointSet, FeatureSet};
use tierway::domain::glob::Glob;
use tierway::domain::id::{DeploymentId, KeyIds, ModelId, ProviderId, RegionId, TeamId, TeamIds, TierId};
use tierway::domain::limit::Limits;
use tierway::domain::money::NanoUsd;
use tierway::domain::policy::{KeyRecord, Policy, PolicyMoney, Residency};
use tierway::domain::random::RandomValue;
use tierway::domain::routing::table::{
    Alias, BalanceStrategy, Capacity, Deployment, Model, RoutingSettings, RoutingTable, Sticky, Target, Tier,
};

/// As a provider's credential is known to the health registry.
type CredentialHash = [u8; 32];

/// Random values that are the same for the same seed.
pub struct SimRng {
    seed: RandomValue,
    next: u64,
}

impl SimRng {
    pub fn seeded(seed: u64) -> Self {
        Self { seed: RandomValue(seed).salted(0x71e4), next: 0 }
    }

    pub fn draw(&mut self) -> RandomValue {
        self.next += 1;
        self.seed.salted(self.next)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().below(bound)
    }

    pub fn random(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize].clone()
    }

    /// A time between `least` and `most`, each order of magnitude with the same probability.
    pub fn spread(&mut self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_secs_f64().ln(), most.as_secs_f64().ln());
        Duration::from_secs_f64((least + (most - least) * self.draw().unit()).exp())
    }
}

/// The kind of a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorldKind {
    /// Bursts of traffic over a day, every kind of fault, reloads; every other seed with budgets.
    Day,
    /// Everything fails at once, and no breaker ever trips: only the retry budget holds.
    Storm,
    /// Everything is down for some seconds, under steady load.
    Outage,
    /// One region stays healthy, all others fail again and again.
    Survival,
    /// One region is live at a time, and another one every six to eight seconds.
    RotatingLive,
    /// The requests of one key fail at every deployment, those of the others at none.
    OneKey,
    /// Two regions, one of which behaves as a test says.
    TwoRegions,
}

/// One request to come.
#[derive(Clone, Debug)]
pub struct PlannedRequest {
    pub at: Duration,
    pub key: usize,
    pub model: &'static str,
    pub stream: bool,
    pub no_fallback: bool,
    /// Counted from `at`.
    pub deadline: Duration,
    /// When its client gives up, if it says so, counted from `at`.
    pub answer_by: Option<Duration>,
    /// The client disconnects this long after `at`.
    pub leaves_after: Option<Duration>,
    /// Every provider rejects it.
    pub always_rejected: bool,
    /// The input in tokens.
    pub size: u64,
}

/// A key, and the models and regions it may use, written here by hand and not computed from its policy.
pub struct Client {
    /// None of the keys has a team: each is its own.
    pub id: TeamId,
    pub key: Arc<KeyRecord>,
    pub models: &'static [&'static str],
    pub regions: &'static [&'static str],
}

/// Everything about one day.
pub struct World {
    pub seed: u64,
    pub kind: WorldKind,
    /// Tables and the times at which they are activated; the first at the start.
    pub tables: Vec<(Duration, RoutingTable)>,
    /// Provider names with the hashes of our credentials.
    pub providers: Vec<(Arc<str>, Vec<CredentialHash>)>,
    pub clients: Vec<Client>,
    pub planned_requests: Vec<PlannedRequest>,
    /// By the deployment's name, over all reloads.
    pub scripts: HashMap<Arc<str>, Script>,
    /// When everything is down.
    pub outage: Option<(Duration, Duration)>,
    pub money: Money,
}

/// The budgets, and the faults of clock, process and lease store.
#[derive(Default)]
pub struct Money {
    /// By client; the limits are those of the first table.
    pub budgets: Vec<Vec<Budget>>,
    /// By table: the factor of all limits, in percent.
    percent: Vec<i64>,
    /// The wall clock at the start of the day.
    start_unix_ms: i64,
    /// Jumps of the wall clock: from when on, and the offset in milliseconds.
    jumps: Vec<(Duration, i64)>,
    /// When the process is killed.
    pub crashes: Vec<Duration>,
    /// How often the lease store is unavailable, in percent.
    pub lease_store_fails: u64,
}

impl Money {
    /// The wall clock at `now`, in Unix milliseconds.
    pub fn clock(&self, now: Duration) -> i64 {
        let jump = self.jumps.iter().rev().find(|(from, _)| *from <= now);
        self.start_unix_ms + now.as_millis() as i64 + jump.map_or(0, |(_, by)| *by)
    }

    /// The limit of `budget` under the table at `index`.
    pub fn limit(&self, budget: &Budget, index: usize) -> NanoUsd {
        NanoUsd(budget.limit.0 / 100 * self.percent[index])
    }

    /// Budgets for a day with these bursts; a year ends during one of them.
    fn of_day(seed: u64, bursts: &[Burst], tables: usize) -> Self {
        let rng = &mut SimRng::seeded(seed ^ 0x6d6f_6e65);
        let moment = |rng: &mut SimRng| {
            let burst = rng.pick(bursts);
            burst.at + burst.lasts.mul_f64(rng.draw().unit())
        };
        let new_year = moment(rng).as_millis() as i64;
        let jump =
            |rng: &mut SimRng| (moment(rng), rng.pick(&[-1, 1]) * rng.pick(&[900, 40_000, 7_000_000, 90_000_000]));
        let mut jumps: Vec<_> = (0..rng.below(4)).map(|_| jump(rng)).collect();
        jumps.sort_by_key(|(from, _)| *from);
        Self {
            budgets: budgets(rng),
            percent: (0..tables).map(|table| if table == 0 { 100 } else { rng.pick(&[100, 50, 150]) }).collect(),
            start_unix_ms: NEW_YEAR_MS - new_year,
            jumps,
            crashes: (0..rng.below(3)).map(|_| moment(rng)).collect(),
            lease_store_fails: rng.pick(&[0, 0, 5, 30]),
        }
    }
}

/// The first millisecond of 2027 in UTC.
const NEW_YEAR_MS: i64 = 1_798_761_600_000;

/// Two keys share a team, the other two a policy; one key has no budget of its own.
fn budgets(rng: &mut SimRng) -> Vec<Vec<Budget>> {
    let mut budget = |scope, name: &str, dollars: &[i64], windows: &[&str]| {
        let zone = Zone::named(rng.pick(&["UTC", "Europe/Paris", "Asia/Kathmandu"])).expect("it is built in");
        let window = match rng.pick(windows) {
            "day" => BudgetPeriod::Day(zone),
            "month" => BudgetPeriod::Month(zone),
            _ => BudgetPeriod::Ever,
        };
        Budget::new(scope, name.into(), NanoUsd(rng.pick(dollars) * 1_000_000), window)
    };
    let key = [10, 40, 200, 2_000];
    let ann = budget(Scope::Key, "ann", &key, &["day"]);
    let bob = budget(Scope::Key, "bob", &key, &["day", "month"]);
    let pro = budget(Scope::Key, "pro", &key, &["ever", "month"]);
    let team = budget(Scope::Team, "few", &[40, 200, 4_000], &["day", "month"]);
    let policy = budget(Scope::Policy, "all", &[100, 1_000, 10_000], &["day", "ever"]);
    vec![vec![ann, team.clone()], vec![bob, team], vec![pro, policy.clone()], vec![policy]]
}

/// Provider, region, and how many credentials we have there.
const PROVIDERS: [(&str, &str, u8); 4] =
    [("acme-us", "us-east", 1), ("acme-eu", "eu-central", 2), ("bolt-eu", "eu-west", 1), ("bolt-asia", "asia", 0)];
pub const REGIONS: [&str; 4] = ["us-east", "eu-central", "eu-west", "asia"];
const EUROPE: &[&str] = &["eu-central", "eu-west"];

/// Model, context, and where: by provider, `!` dedicated.
const MODELS: [(&str, u64, &[&str]); 4] = [
    ("flash", 8_000, &["acme-us", "acme-eu", "bolt-eu"]),
    ("qwen", 32_000, &["acme-us", "bolt-asia", "acme-eu"]),
    ("kimi", 128_000, &["acme-us", "bolt-eu", "acme-eu!", "acme-us!"]),
    ("tiny", 4_000, &["bolt-asia"]),
];
const EVERY: &[&str] = &["flash", "qwen", "kimi", "tiny"];

impl World {
    /// The day of `seed`.
    pub fn of(seed: u64) -> Self {
        match seed % 20 {
            0 => Self::storm(seed),
            1 => Self::outage(seed),
            2 => Self::survival(seed),
            3 => Self::rotating_live(seed),
            4 => Self::one_key(seed),
            _ => Self::day(seed),
        }
    }

    pub fn day(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let table = table(settings(&mut rng), &mut rng);
        let bursts = bursts(&mut rng);
        let planned_requests = planned_requests(&mut rng, &bursts);
        let mut world = Self::quiet(seed, WorldKind::Day, table, planned_requests);
        world.scripts = world.script(|rng, _| Behaviour::any_day(rng, &bursts), &mut rng);
        world.reloads(&bursts, &mut rng);
        if seed.is_multiple_of(2) {
            world.money = Money::of_day(seed, &bursts, world.tables.len());
        }
        world
    }

    pub fn storm(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let mut settings = settings(&mut rng);
        settings.max_attempts = 3;
        settings.same_region_retry_on_500 = false;
        settings.breaker = BreakerSettings { failures: u32::MAX, ratio_bp: 0, ..BREAKER };
        let table = table(settings, &mut rng);
        let planned_requests = steady(&mut rng, 220, Duration::from_millis(25));
        let mut world = Self::quiet(seed, WorldKind::Storm, table, planned_requests);
        world.scripts = world.script(|_, _| Script::always(Behaviour::Failing(503)), &mut rng);
        world
    }

    pub fn outage(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let settings = RoutingSettings { max_attempts: 3, breaker: BREAKER, ..settings(&mut rng) };
        let table = table(settings, &mut rng);
        let planned_requests = steady(&mut rng, 400, Duration::from_millis(50));
        let (from, to) = (Duration::from_secs(3), Duration::from_secs(19));
        let mut world = Self::quiet(seed, WorldKind::Outage, table, planned_requests);
        let down = rng.pick(&[Behaviour::Refusing, Behaviour::Unroutable, Behaviour::Failing(503)]);
        world.scripts = world.script(|_, _| Script::between(from, to, down), &mut rng);
        world.outage = Some((from, to));
        world
    }

    /// The settings that are active at `now`.
    pub fn settings_at(&self, now: Duration) -> &RoutingSettings {
        let held = self.tables.iter().rev().find(|(from, _)| *from <= now);
        &held.unwrap_or(&self.tables[0]).1.settings
    }

    fn quiet(seed: u64, kind: WorldKind, table: RoutingTable, planned_requests: Vec<PlannedRequest>) -> Self {
        Self {
            seed,
            kind,
            clients: clients(&table),
            tables: vec![(Duration::ZERO, table)],
            providers: PROVIDERS
                .iter()
                .map(|(name, _, count)| ((*name).into(), (0..*count).map(|c| [c; 32]).collect()))
                .collect(),
            planned_requests,
            scripts: HashMap::new(),
            outage: None,
            money: Money::default(),
        }
    }

    /// One region stays healthy, there are as many attempts as regions, faults change every one to ten seconds.
    pub fn survival(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let regions = rng.pick(&[3, 4]);
        let settings = RoutingSettings { max_attempts: regions, ..settings(&mut rng) };
        let mut table = table(settings, &mut rng);
        table.deployments.iter_mut().for_each(|deployment| deployment.max_concurrent = None);
        // `flash` runs in three regions, its chain in a fourth.
        let planned = |planned| PlannedRequest {
            model: "flash",
            no_fallback: regions == 3,
            deadline: Duration::from_secs(600),
            ..planned
        };
        let gap = rng.spread(Duration::from_millis(10), Duration::from_secs(2));
        let planned_requests = steady(&mut rng, 150, gap).into_iter().map(planned).collect();
        let mut world = Self::quiet(seed, WorldKind::Survival, table, planned_requests);
        let healthy_region = RegionId(rng.below(u64::from(regions)) as u32);
        let lasts = gap * 150;
        world.scripts = world.script(
            |rng, deployment| match deployment.region == healthy_region {
                true => Script::always(Behaviour::Healthy),
                false => Behaviour::flipping(rng, lasts),
            },
            &mut rng,
        );
        world
    }

    /// Only one region is live at a time. There is one attempt more than regions: for a connection that turns out to be
    /// stale, which is indistinguishable from the region that has just gone.
    pub fn rotating_live(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let settings = RoutingSettings {
            max_attempts: 4,
            retry_after_wait_max: Duration::from_secs(2),
            breaker: BREAKER,
            ..settings(&mut rng)
        };
        let mut table = table(settings, &mut rng);
        table.deployments.iter_mut().for_each(|deployment| deployment.max_concurrent = None);
        let gap = rng.spread(Duration::from_millis(20), Duration::from_millis(700));
        let planned = |planned| PlannedRequest {
            model: "flash",
            no_fallback: true,
            deadline: Duration::from_secs(600),
            answer_by: Some(Duration::from_secs(30)),
            ..planned
        };
        let planned_requests = steady(&mut rng, 150, gap).into_iter().map(planned).collect();
        let mut world = Self::quiet(seed, WorldKind::RotatingLive, table, planned_requests);
        let (mut turns, mut at, mut live) = (Vec::new(), Duration::ZERO, 0);
        while at <= gap * 150 + Duration::from_secs(700) {
            turns.push((at, live));
            at += TURN + Duration::from_millis(rng.below(2_000));
            live = (live + 1 + rng.below(2) as usize) % 3;
        }
        world.scripts =
            world.script(|rng, deployment| Behaviour::rotating(rng, deployment.region.index(), &turns), &mut rng);
        world
    }

    /// One key's requests fail at every deployment alike; all others are served.
    pub fn one_key(seed: u64) -> Self {
        let mut rng = SimRng::seeded(seed);
        let mut table = table(settings(&mut rng), &mut rng);
        table.deployments.iter_mut().for_each(|deployment| deployment.max_concurrent = None);
        let gap = rng.spread(Duration::from_millis(20), Duration::from_millis(700));
        let (shares, no_fallback) = (rng.pick(&[30, 60, 90]), rng.random(50));
        let mut planned_requests = steady(&mut rng, 200, gap);
        for planned in &mut planned_requests {
            planned.key = if rng.random(shares) { 0 } else { rng.pick(&[1, 3]) };
            planned.no_fallback = no_fallback;
            planned.model = if rng.random(50) { "flash" } else { "tiny" };
        }
        let mut world = Self::quiet(seed, WorldKind::OneKey, table, planned_requests);
        world.scripts = world.script(|_, _| Script::always(Behaviour::RefusesContent(0)), &mut rng);
        world
    }

    /// Whether `request` must be served.
    pub fn must_serve(&self, request: usize) -> bool {
        match self.kind {
            WorldKind::Survival | WorldKind::RotatingLive => true,
            WorldKind::OneKey => self.planned_requests[request].key != 0,
            WorldKind::Day | WorldKind::Storm | WorldKind::Outage | WorldKind::TwoRegions => false,
        }
    }

    /// `flash` in two regions of equal weight under `per_second` requests; the first behaves as `script` says.
    pub fn two_regions(seed: u64, balance: BalanceStrategy, per_second: u32, seconds: u32, script: Script) -> Self {
        let mut rng = SimRng::seeded(seed);
        let settings = RoutingSettings { balance, home: None, max_attempts: 3, breaker: BREAKER, ..settings(&mut rng) };
        let mut table = table(settings, &mut rng);
        table.deployments.iter_mut().for_each(|deployment| deployment.max_concurrent = None);
        table.models[0].shared.truncate(2);
        let gap = Duration::from_secs(1) / per_second;
        let planned = |planned| PlannedRequest { model: "flash", stream: true, ..planned };
        let planned_requests = steady(&mut rng, per_second * seconds, gap).into_iter().map(planned).collect();
        let mut world = Self::quiet(seed, WorldKind::TwoRegions, table, planned_requests);
        let first = world.tables[0].1.deployments[0].name.clone();
        world.scripts = world.script(|_, _| Script::always(Behaviour::Healthy), &mut rng);
        world.scripts.insert(first, script);
        world
    }

    fn script(
        &self,
        script: impl Fn(&mut SimRng, &Deployment) -> Script,
        rng: &mut SimRng,
    ) -> HashMap<Arc<str>, Script> {
        let deployments = self.tables[0].1.deployments.iter();
        deployments.map(|deployment| (deployment.name.clone(), script(rng, deployment))).collect()
    }

    /// Up to three reloads during traffic: a deployment is removed or added again, settings change.
    fn reloads(&mut self, bursts: &[Burst], rng: &mut SimRng) {
        for _ in 0..rng.below(4) {
            let burst = rng.pick(bursts);
            let mut settings = settings(rng);
            // The share of extra attempts stays, because it is counted over reloads.
            settings.retry_budget_bp = self.tables[0].1.settings.retry_budget_bp;
            let mut table = table(settings, rng);
            if rng.random(60) {
                let gone = rng.below(table.deployments.len() as u64) as usize;
                remove(&mut table, gone);
            }
            self.tables.push((burst.at + burst.lasts.mul_f64(rng.draw().unit()), table));
        }
        self.tables.sort_by_key(|(at, _)| *at);
    }
}

/// A period of traffic.
#[derive(Clone, Debug)]
pub struct Burst {
    pub at: Duration,
    pub lasts: Duration,
    requests: u64,
}

fn bursts(rng: &mut SimRng) -> Vec<Burst> {
    let mut at = Duration::ZERO;
    let burst = |rng: &mut SimRng, at: &mut Duration| {
        let requests = 8 + rng.below(24);
        let lasts = rng.spread(Duration::from_millis(200), Duration::from_secs(40));
        let burst = Burst { at: *at, lasts, requests };
        *at += lasts + rng.spread(Duration::from_millis(300), Duration::from_secs(4 * 3600));
        burst
    };
    (0..6).map(|_| burst(rng, &mut at)).collect()
}

fn planned_requests(rng: &mut SimRng, bursts: &[Burst]) -> Vec<PlannedRequest> {
    let mut planned_requests = Vec::new();
    for burst in bursts {
        for _ in 0..burst.requests {
            let at = burst.at + burst.lasts.mul_f64(rng.draw().unit());
            planned_requests.push(planned(rng, at));
        }
    }
    planned_requests.sort_by_key(|planned| planned.at);
    planned_requests
}

fn steady(rng: &mut SimRng, count: u32, gap: Duration) -> Vec<PlannedRequest> {
    let plain = |rng: &mut SimRng, at| PlannedRequest {
        key: 0,
        model: rng.pick(&["auto", "flash", "qwen"]),
        no_fallback: false,
        deadline: Duration::from_secs(60),
        answer_by: None,
        leaves_after: None,
        always_rejected: false,
        size: 1_000,
        ..planned(rng, at)
    };
    (0..count).map(|n| plain(rng, gap * n)).collect()
}

fn planned(rng: &mut SimRng, at: Duration) -> PlannedRequest {
    let names = ["auto", "auto", "default", "premium", "flash", "qwen", "kimi", "tiny", "Pro/kimi", "Pro/kimi", "gpt"];
    PlannedRequest {
        at,
        key: rng.below(4) as usize,
        model: rng.pick(&names),
        stream: rng.random(70),
        no_fallback: rng.random(8),
        deadline: rng.spread(Duration::from_millis(200), Duration::from_secs(600)),
        answer_by: rng.random(50).then(|| rng.spread(Duration::from_secs(2), Duration::from_secs(90))),
        leaves_after: rng.random(12).then(|| rng.spread(Duration::from_millis(1), Duration::from_secs(20))),
        always_rejected: rng.random(4),
        size: rng.pick(&[500, 1_000, 2_000, 6_000, 20_000]),
    }
}

/// How long a region is live at least, where they take turns.
pub const TURN: Duration = Duration::from_secs(6);

pub const BREAKER: BreakerSettings = BreakerSettings {
    failures: 5,
    ratio_bp: 5_000,
    window: Duration::from_secs(30),
    min_requests: 20,
    open: Duration::from_secs(1),
    open_max: Duration::from_secs(20),
};

fn settings(rng: &mut SimRng) -> RoutingSettings {
    let balances =
        [BalanceStrategy::Latency, BalanceStrategy::Weighted, BalanceStrategy::Ordered, BalanceStrategy::Cost];
    RoutingSettings {
        balance: rng.pick(&balances),
        home: rng.random(30).then_some(RegionId(1)),
        max_attempts: 1 + rng.below(5) as u32,
        retry_budget_bp: 2_000,
        connect_timeout: Duration::from_millis(750),
        idle: Duration::from_secs(20),
        total: Duration::from_secs(600),
        retry_after_wait_max: rng.pick(&[Duration::ZERO, Duration::from_secs(2)]),
        same_region_retry_on_500: rng.random(30),
        silent_after: Duration::from_secs(1),
        queue_wait: Duration::from_secs(1),
        max_in_flight: None,
        beyond_hold_pause: Duration::from_secs(3600),
        hold_streams: false,
        splice_streams: false,
        breaker: BreakerSettings { failures: rng.pick(&[3, 5, 5, 8]), ..BREAKER },
    }
}

/// The routing table; two of them may differ in settings, spilling and capacity.
fn table(settings: RoutingSettings, rng: &mut SimRng) -> RoutingTable {
    let (spill, max_concurrent) = (rng.random(40), rng.pick(&[None, None, Some(2), Some(6)]));
    let mut table = RoutingTable {
        models: Vec::new(),
        deployments: Vec::new(),
        tiers: Vec::new(),
        aliases: Vec::new(),
        regions: REGIONS.map(Into::into).to_vec(),
        names: HashMap::new(),
        listed_members: ListedMembers::default(),
        settings,
    };
    for (index, (name, context, places)) in MODELS.into_iter().enumerate() {
        let id = ModelId(index as u32);
        let first = table.deployments.len();
        table.deployments.extend(places.iter().map(|place| deployment(id, name, place, spill, max_concurrent)));
        table.models.push(model(name, context, &table.deployments, first));
        table.names.insert(name.into(), Target::Model(id));
    }
    let tiers: [(&str, &[u32], &[u32]); 3] =
        [("default", &[0], &[1]), ("fallback", &[1, 3], &[0]), ("premium", &[2, 0], &[1, 0])];
    for (index, (name, models, then)) in tiers.into_iter().enumerate() {
        let models = models.iter().map(|id| (ModelId(*id), 1)).collect();
        let then = then.iter().map(|id| TierId(*id)).collect();
        table.tiers.push(Tier { name: name.into(), models, drawn: name == "fallback", then });
        table.names.insert(name.into(), Target::Tier(TierId(index as u32)));
    }
    let split = [(0, 80), (1, 15), (2, 5)].map(|(tier, share)| (Target::Tier(TierId(tier)), share)).to_vec();
    table.aliases.push(Alias { name: "auto".into(), split, sticky: rng.pick(&[Sticky::None, Sticky::Key]) });
    table.names.insert("auto".into(), Target::Alias(0));
    table
}

fn model(name: &str, context: u64, deployments: &[Deployment], first: usize) -> Model {
    let of = |capacity| {
        let ids = (first..deployments.len()).filter(|id| deployments[*id].capacity == capacity);
        ids.map(|id| DeploymentId(id as u32)).collect()
    };
    Model {
        name: name.into(),
        price: None,
        context: Some(context),
        max_output: None,
        typical_output: 1_024,
        image_tokens: None,
        endpoints: EndpointSet::of([Endpoint::Chat]),
        features: FeatureSet::all(),
        shared: of(Capacity::Shared),
        dedicated: of(Capacity::Dedicated),
        first_token: Duration::from_secs(10),
        whole: Duration::from_secs(120),
    }
}

fn deployment(model: ModelId, name: &str, place: &str, spill: bool, max_concurrent: Option<u32>) -> Deployment {
    let dedicated = place.ends_with('!');
    let at = place.trim_end_matches('!');
    let provider = PROVIDERS.iter().position(|(name, ..)| *name == at).expect("every provider is listed");
    let region = REGIONS.iter().position(|region| *region == PROVIDERS[provider].1).expect("and their regions");
    Deployment {
        name: if dedicated { format!("{at}/Pro/{name}") } else { format!("{at}/{name}") }.into(),
        model,
        provider: ProviderId(provider as u32),
        upstream_model: name.into(),
        endpoints: EndpointSet::of(Endpoint::ALL),
        region: RegionId(region as u32),
        capacity: if dedicated { Capacity::Dedicated } else { Capacity::Shared },
        weight: 1,
        max_concurrent: if dedicated { Some(3) } else { max_concurrent },
        max_output: None,
        price: None,
        member_prices: Vec::new(),
        body_rules: Arc::default(),
        spill: dedicated && spill,
        lend: false,
    }
}

/// `table` without the deployment at `gone`; the numbers after it move.
fn remove(table: &mut RoutingTable, gone: usize) {
    table.deployments.remove(gone);
    for model in &mut table.models {
        for ids in [&mut model.shared, &mut model.dedicated] {
            ids.retain(|id| id.index() != gone);
            ids.iter_mut().filter(|id| id.index() > gone).for_each(|id| id.0 -= 1);
        }
    }
}

fn clients(table: &RoutingTable) -> Vec<Client> {
    let (ids, keys) = (RefCell::new(TeamIds::default()), RefCell::new(KeyIds::default()));
    let client = |name: &str, tiers: &[&str], reserved, models, regions: &'static [&'static str]| {
        let residency = Residency::new(regions.iter().map(|region| Glob::new(region)).collect(), &table.regions);
        let policy = Policy {
            name: name.into(),
            tiers: table.tiers.iter().map(|tier| tiers.contains(&&*tier.name)).collect(),
            models: Vec::new(),
            reserved,
            residency: (regions.len() < REGIONS.len()).then_some(residency),
            limits: Limits::default(),
            priority: 1,
            clamp: false,
            money: PolicyMoney::default(),
            hedge: None,
            sla: None,
        };
        let key = KeyRecord {
            name: name.into(),
            team: None,
            policy: Arc::new(policy),
            limits: Limits::default(),
            budgets: Arc::default(),
            expires: None,
        };
        let id = ids.borrow_mut().id_of(None, keys.borrow_mut().id_of(&key.name));
        Client { id, key: Arc::new(key), models, regions }
    };
    let (few, all): (&[&str], &[&str]) = (&["default", "fallback"], &["default", "fallback", "premium"]);
    vec![
        client("ann", few, false, &["flash", "qwen", "tiny"], &REGIONS),
        client("bob", few, false, &["flash", "qwen", "tiny"], &REGIONS),
        client("pro", all, true, EVERY, EUROPE),
        client("max", all, true, EVERY, &REGIONS),
    ]
}
