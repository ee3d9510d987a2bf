//! One run: a provider, a database, a gateway started as often as it is killed, and what happens meanwhile.
//!
//! It acts and records; what must hold is in [`checks`](crate::checks). Start reading in
//! [`Run::play`].

use crate::database::DatabaseState;
use crate::fixture::{DISABLED, GRANTED, KEYS, Version};
use crate::gateway::{CreditGrant, EIO, ENOSPC, EROFS, Gateway, Machine, OPENS, SYNCS, WRITES, until};
use crate::load::{Load, Seen, SeenEnd};
use crate::mutant::Mutant;
use crate::now_ms;
use crate::provider::{Provider, Served};
use crate::script::{Ask, SLOW};
use crate::timeline::Timeline;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::random::RandomValue;

/// What happens to the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Clocks and configurations change; nothing fails.
    Calm,
    /// The same, and it is killed so often.
    Killed(u64),
    /// Its disk fails in every way and recovers; once it is killed meanwhile.
    Faulty,
}

/// What a run left behind.
pub struct Run {
    pub scenario: Scenario,
    pub timeline: Timeline,
    pub seen: Vec<Seen>,
    pub served: Vec<Served>,
    pub database: DatabaseState,
    /// The database at moments when the gateway had just been killed.
    pub killed: Vec<(i64, DatabaseState)>,
    /// The same after it had been stopped in good order, under load.
    pub stopped: Vec<DatabaseState>,
    /// From each start to the first 200 on `/readyz`.
    pub openings: Vec<Duration>,
    /// Seen during faults: streams that went on to their end, and requests turned away.
    pub streams_finished: u64,
    pub turned_away: u64,
    /// Which of the run's gateways was the last.
    pub last_generation: u64,
    pub clock_moved: bool,
}

impl Run {
    /// Plays `scenario` with so many requests.
    pub fn play(folder: &Path, scenario: Scenario, requests: u64, seed: u64, mutant: Option<&Mutant>) -> Self {
        let mut stage = Stage::set(folder, scenario, requests, seed, mutant);
        if let Some(mutant) = mutant {
            mutant.plant(folder);
        }
        stage.load.aim(Some((stage.gateway().addr, 0)));
        match scenario {
            Scenario::Calm => stage.calm(),
            Scenario::Killed(kills) => stage.killed(kills),
            Scenario::Faulty => stage.faulty(),
        }
        stage.end()
    }
}

/// Instants that the gateway's clock is set to, one after the other. Each is a moment before something ends
/// or is put forward or back; some lie before their predecessor.
const INSTANTS: [&str; 14] = [
    "2026-03-07T22:30:00Z",
    // St John's ends its day; Paris has an hour of it left.
    "2026-03-08T02:29:59.500Z",
    // New York puts its clocks forward.
    "2026-03-08T06:59:59.500Z",
    "2026-03-09T06:59:59Z",
    // A day back.
    "2026-03-08T12:00:00Z",
    // Paris puts its clocks forward, a day of 23 hours.
    "2026-03-29T00:59:59.500Z",
    "2026-03-29T21:59:59.500Z",
    // The month ends in Paris.
    "2026-03-31T21:59:59.500Z",
    "2026-03-31T23:59:59.500Z",
    // A day of 25 hours in Paris, the hour that comes twice.
    "2026-10-25T00:59:59.500Z",
    "2026-10-25T22:59:59.500Z",
    // New York puts them back.
    "2026-11-01T05:59:59.500Z",
    "2026-10-31T06:00:00Z",
    "2026-12-31T22:59:59.500Z",
];

struct Stage<'a> {
    folder: &'a Path,
    scenario: Scenario,
    requests: u64,
    seed: u64,
    machine: Machine,
    provider: Option<Provider>,
    gateway: Option<Gateway>,
    generation: u64,
    load: Arc<Load>,
    timeline: Timeline,
    mutant: Option<&'a Mutant>,
    granting: Option<CreditGrant>,
    versions: u64,
    instants: usize,
    killed: Vec<(i64, DatabaseState)>,
    stopped: Vec<DatabaseState>,
    openings: Vec<Duration>,
    streams_finished: u64,
    turned_away: u64,
}

impl<'a> Stage<'a> {
    fn set(folder: &'a Path, scenario: Scenario, requests: u64, seed: u64, mutant: Option<&'a Mutant>) -> Self {
        let mut stage = Self {
            folder,
            scenario,
            requests,
            seed,
            machine: Machine::build(folder),
            provider: Some(Provider::start(folder, seed, mutant.and_then(Mutant::other_way))),
            gateway: None,
            generation: 0,
            load: Load::start(seed, if scenario == Scenario::Faulty { SLOW } else { requests }),
            timeline: Timeline::default(),
            mutant,
            granting: None,
            versions: 0,
            instants: 0,
            killed: Vec::new(),
            stopped: Vec::new(),
            openings: Vec::new(),
            streams_finished: 0,
            turned_away: 0,
        };
        if !stage.machine.obeys() {
            stage.timeline.shifted(0, i64::MIN);
        }
        stage.set_clock();
        stage.edit();
        stage.open();
        stage
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("one serves")
    }

    /// Sets the gateway's clock to the next instant, where clocks can be moved.
    fn set_clock(&mut self) {
        let instant = INSTANTS[self.instants % INSTANTS.len()];
        // The second time round a year has gone by.
        let years = (self.instants / INSTANTS.len()) as i64;
        self.instants += 1;
        if self.machine.obeys() {
            let instant: jiff::Timestamp = instant.parse().expect("an instant");
            let now = now_ms();
            let shift = instant.as_millisecond() + years * 365 * 86_400_000 - now;
            // Noted first: from its setting on the new one is known.
            self.timeline.shifted(shift, now);
            self.machine.shift_clock(shift);
        }
    }

    /// Writes the next configuration.
    fn edit(&mut self) {
        // Enough money, and more each time, so that only the disk can fail.
        let plenty = if self.scenario == Scenario::Faulty { 20 + 5 * self.versions } else { 1 };
        let version = Version::of(self.seed, self.requests * plenty, self.versions);
        self.versions += 1;
        let addr = self.provider.as_ref().expect("it serves").addr;
        let (new, file) = (self.folder.join("new.toml"), self.folder.join("tierway.toml"));
        let text = version.file(addr);
        let text = self.mutant.map_or(text.clone(), |mutant| mutant.write(text));
        std::fs::write(&new, text).expect("the folder can be written");
        let grant = version.grant;
        self.timeline.written(version, now_ms());
        // At once, so that no half of it is ever read.
        std::fs::rename(new, file).expect("the folder can be written");
        // Beside the gateway it takes its time, which the requests must not run away from.
        self.granted();
        self.granting = Some(CreditGrant::start(self.folder, GRANTED, grant));
        if self.gateway.is_none() {
            self.granted();
        }
    }

    /// Waits until the last credit is granted.
    fn granted(&mut self) {
        if let Some(granting) = self.granting.take() {
            granting.end();
        }
    }

    fn reload(&mut self) {
        self.gateway().reload();
        self.timeline.applied(now_ms());
    }

    /// Starts a gateway on what there is.
    fn open(&mut self) {
        self.granted();
        let gateway = Gateway::start(self.folder, &self.machine);
        self.openings.push(gateway.ready_after);
        self.timeline.applied(now_ms());
        self.timeline.idle_at(DatabaseState::balances(self.folder), now_ms());
        self.gateway = Some(gateway);
    }

    /// Nothing is under way for as long as `meanwhile` runs.
    fn at_rest(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let load = self.load.clone();
        let _still = load.idle_moment();
        until("nothing is held", || self.gateway().held() == 0);
        self.gateway().until_written();
        meanwhile(self);
        self.gateway().until_written();
        self.timeline.idle_at(DatabaseState::balances(self.folder), now_ms());
    }

    fn calm(&mut self) {
        let steps = (self.requests / 500).clamp(26, 400);
        for step in 1..steps {
            self.load.until_begun(self.requests * step / steps);
            match step % 4 {
                0 if step % 12 == 0 => self.restart(),
                0 => self.at_rest(Self::set_clock),
                1 => {
                    self.edit();
                    self.reload();
                }
                2 => self.set_clock(),
                _ => self.at_rest(|stage| {
                    stage.edit();
                    stage.reload();
                }),
            }
        }
    }

    /// Stops it gracefully while requests are running, and starts it again.
    fn restart(&mut self) {
        let gateway = self.gateway.take().expect("one serves");
        gateway.signal("-TERM");
        self.load.aim(None);
        gateway.until_ended();
        self.stopped.push(DatabaseState::balances(self.folder));
        self.generation += 1;
        self.open();
        self.load.aim(Some((self.gateway().addr, self.generation)));
    }

    fn killed(&mut self, kills: u64) {
        for kill in 0..kills {
            self.load.until_begun(self.requests * (kill + 1) / (kills + 1));
            let draw = RandomValue(self.seed).salted(1 << 51).salted(kill);
            if draw.salted(1).below(3) == 0 {
                // It may be read before the end, or not.
                self.edit();
            }
            // The moment of the kill, which is all this pause is for.
            std::thread::sleep(Duration::from_micros(draw.salted(0).below(20_000)));
            self.kill();
            if draw.salted(2).below(4) == 0 {
                self.set_clock();
            }
            if draw.salted(3).below(4) == 0 {
                self.edit();
            }
            self.open();
            self.load.aim(Some((self.gateway().addr, self.generation)));
        }
    }

    fn kill(&mut self) {
        self.load.aim(None);
        self.gateway.take().expect("one serves").kill();
        self.killed.push((now_ms(), DatabaseState::balances(self.folder)));
        self.generation += 1;
    }

    fn faulty(&mut self) {
        const FAULTS: [(i64, i64); 6] = [
            (ENOSPC, WRITES),
            (EIO, SYNCS),
            (EIO, WRITES | SYNCS),
            (EROFS, WRITES | OPENS),
            (EIO, SYNCS | OPENS),
            (EIO, SYNCS),
        ];
        let steps = if self.machine.obeys() { (self.requests / 200).clamp(FAULTS.len() as u64, 60) } else { 0 };
        for (step, (error, calls)) in (0..steps).zip(FAULTS.into_iter().cycle()) {
            self.load.until_more(self.requests / steps);
            self.edit();
            self.reload();
            let load = self.load.clone();
            let fail = || {
                self.machine.fail(error, calls);
                let before = load.count(0, |_| true);
                until("money is refused", || load.count(before, is_unavailable) > 0);
            };
            // A key whose budget has run dry is of no use here.
            let asked = self.slow(step).map(|ask| load.one(ask, fail));
            let end = { asked }.find(|end| !matches!(end, SeenEnd::Refused(429, _))).expect("some key may ask");
            assert_eq!(end, SeenEnd::Served, "a stream that runs goes on to its end");
            self.streams_finished += 1;
            self.machine.fail(0, 0);
            self.gateway().until_ready();
            let before = load.count(0, |_| true);
            until("money is taken again", || load.count(before, |seen| seen.end == SeenEnd::Served) > 0);
        }
        if self.machine.obeys() {
            self.killed_with_a_bad_disk();
        }
        self.load.until_more(self.requests / 10);
        self.load.enough();
        self.turned_away = self.load.count(0, is_unavailable) as u64;
    }

    /// Killed while nothing it writes is made durable, and started on a good disk.
    fn killed_with_a_bad_disk(&mut self) {
        let before = self.load.count(0, |_| true);
        self.machine.fail(EIO, SYNCS);
        until("money is refused", || self.load.count(before, is_unavailable) > 0);
        self.kill();
        self.machine.fail(0, 0);
        self.open();
        self.load.aim(Some((self.gateway().addr, self.generation)));
    }

    /// Slow streams that are paid from a budget.
    fn slow(&self, from: u64) -> impl Iterator<Item = Ask> {
        let first = SLOW + from * 1_000;
        let asks = (first..first + 1_000).map(|tag| Ask::of(self.seed, tag));
        let lasts = |key: usize| !KEYS[key].accounts.is_empty() && ![DISABLED, GRANTED].contains(&KEYS[key].name);
        let fits = move |ask: &Ask| ask.stream && ask.leaves_after.is_none() && lasts(ask.key);
        asks.filter(move |ask| fits(ask) && ask.max_tokens > 20)
    }

    fn end(mut self) -> Run {
        let seen = self.load.end();
        self.granted();
        let gateway = self.gateway.take().expect("one serves");
        until("nothing is held", || gateway.held() == 0);
        gateway.signal("-TERM");
        gateway.until_ended();
        let served = self.provider.take().expect("it serves").end(self.folder);
        Run {
            scenario: self.scenario,
            database: DatabaseState::read(self.folder),
            timeline: self.timeline,
            seen,
            served,
            killed: self.killed,
            stopped: self.stopped,
            openings: self.openings,
            streams_finished: self.streams_finished,
            turned_away: self.turned_away,
            last_generation: self.generation,
            clock_moved: self.machine.obeys(),
        }
    }
}

fn is_unavailable(seen: &Seen) -> bool {
    seen.end == SeenEnd::Refused(503, "ledger_unavailable".to_owned())
}
