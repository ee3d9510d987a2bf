//! What must hold of a run: the provider's journal against the database, line by line and account by account.
//!
//! It reads what a run left behind and never changes it. Every check has a name; a breach says which check it
//! is of, and what was found. Start reading in [`check`].

use crate::database::{BudgetWindow, Line};
use crate::fixture::{ACCOUNTS, Account, DISABLED, KEYS, Version, cost, place_of};
use crate::gateway::PATIENCE;
use crate::load::{Seen, SeenEnd};
use crate::provider::Served;
use crate::run::{Run, Scenario};
use crate::script::{SLOW, Tokens};
use crate::timeline::Windows;
use std::collections::{BTreeMap, HashMap, HashSet};

/// One thing that does not hold.
#[derive(Debug)]
pub struct Breach {
    pub check: &'static str,
    pub what: String,
}

/// The final state of a window of an account.
pub struct Use {
    pub budget_window: BudgetWindow,
    pub bound: i64,
    pub spent: i64,
}

/// What was found.
#[derive(Default)]
pub struct Findings {
    pub breaches: Vec<Breach>,
    pub exact: u64,
    pub estimated: u64,
    pub free: u64,
    /// Requests of which an attempt was overtaken by a hedge, and others that a second attempt rescued from silence.
    pub hedges: u64,
    pub rescues: u64,
    pub uses: Vec<Use>,
    /// Nano-dollars that the provider may ask for, at least.
    pub billed: i64,
    pub attempts: u64,
    /// Requests whose window is not certain: they count in the sum of all windows alone.
    pub astride: u64,
}

impl Findings {
    fn must(&mut self, check: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.breaches.push(Breach { check, what: what() });
        }
    }
}

/// A request as client, provider and database saw it.
struct Case<'a> {
    seen: &'a Seen,
    served: &'a [Served],
    line: Option<&'a Line>,
}

/// Checks `run`.
pub fn check(run: &Run) -> Findings {
    let mut found = Findings::default();
    let mut served: HashMap<u64, Vec<Served>> = HashMap::new();
    run.served.iter().for_each(|attempt| served.entry(attempt.tag).or_default().push(*attempt));
    // Attempts of one request overlap: the journal has them in the order in which they ended.
    served.values_mut().for_each(|attempts| attempts.sort_by_key(|attempt| attempt.at_ms));
    found.attempts = run.served.len() as u64;
    let lines = linked(run, &mut found);
    let cases: Vec<Case<'_>> = run
        .seen
        .iter()
        .map(|seen| {
            let served = served.get(&seen.ask.tag).map_or(&[][..], Vec::as_slice);
            Case { seen, served, line: lines.get(&seen.ask.tag).copied() }
        })
        .collect();
    cases.iter().for_each(|case| found.line(run, case));
    found.accounts(run, &cases);
    found.end(run);
    found
}

/// The line of each request, by the id that its client read, or else by its name and time.
fn linked<'a>(run: &'a Run, found: &mut Findings) -> HashMap<u64, &'a Line> {
    let ids: HashMap<u128, u64> = run.seen.iter().filter_map(|seen| Some((seen.id?, seen.ask.tag))).collect();
    let mut unread: HashMap<&str, Vec<&Seen>> = HashMap::new();
    for seen in run.seen.iter().filter(|seen| seen.id.is_none()) {
        unread.entry(&seen.name).or_default().push(seen);
    }
    let mut lines: HashMap<u64, &Line> = HashMap::new();
    for line in &run.database.lines {
        if line.key.is_none() {
            // Of a key that was disabled: its request is known by what its client read.
            found.must("one_line_each", line.cost == 0, || format!("a stranger's line is not free: {line:?}"));
            continue;
        }
        let tag = ids.get(&line.id).copied().or_else(|| {
            let named = unread.get(line.name.as_deref()?)?.iter();
            let own = named.filter(|seen| line.key.as_deref() == Some(KEYS[seen.ask.key].name));
            let open = own.filter(|seen| !lines.contains_key(&seen.ask.tag));
            let near = open.filter_map(|seen| Some((apart_ms(run, seen, line)?, seen.ask.tag)));
            near.min().map(|(_, tag)| tag)
        });
        let free = tag.is_some_and(|tag| lines.insert(tag, line).is_none());
        found.must("one_line_each", free, || format!("a line of no request: {line:?}"));
    }
    lines
}

/// How long a request may have waited to be read after its client had left.
const UNREAD_MS: i64 = 5_000;

/// By how much the time in an id misses that of a request; `None`: by too much.
fn apart_ms(run: &Run, seen: &Seen, line: &Line) -> Option<i64> {
    let shifts = run.timeline.shifts(seen.start_ms, seen.end_ms + UNREAD_MS);
    let given = shifts.map(|shift| line.given_ms() - shift).filter(|given| *given >= seen.start_ms - 1);
    given.map(|given| (given - seen.end_ms).max(0)).min().filter(|apart| *apart < UNREAD_MS)
}

/// How an attempt ends that was cancelled for another one in flight.
const SECOND_ATTEMPT: [&str; 2] = ["overtaken", "silent"];

/// Attempts that ended so are not billed and must not be charged for.
const FREE_OF_CHARGE: [&str; 5] = ["upstream_status", "unreachable", "connect_timeout", "throttled", "rejected"];

impl Case<'_> {
    /// Configurations that may have applied to it.
    fn versions<'r>(&self, run: &'r Run) -> Vec<&'r Version> {
        let until = self.served.first().map_or(self.seen.end_ms + UNREAD_MS, |attempt| attempt.at_ms);
        run.timeline.met(self.seen.start_ms, until).collect()
    }

    /// What the provider bills for it at least, whichever configuration applied.
    fn billed(&self, run: &Run) -> i64 {
        let versions = self.versions(run);
        let of = |version: &&Version| self.served.iter().map(|one| version.cost(one.deployment, one.tokens)).sum();
        let all: i64 = versions.iter().map(of).min().expect("one was in force");
        match self.line.and_then(|line| Some((line.price?, self.served.last()?, self.served.len()))) {
            // The line says which price it was.
            Some((price, last, 1)) if self.line.is_some_and(|line| !line.estimated) => cost(price, last.tokens),
            _ => all,
        }
    }

    fn is_free(&self) -> bool {
        KEYS[self.seen.ask.key].accounts.is_empty()
    }

    fn describe(&self) -> String {
        format!("{:?}\n    provider: {:?}\n    line: {:?}", self.seen, self.served, self.line)
    }
}

impl Findings {
    fn line(&mut self, run: &Run, case: &Case<'_>) {
        if self.disabled(run, case) {
            return;
        }
        // However a client spells its ceiling: whoever answers was asked for no more than is held.
        let ceiling = case.seen.ask.ceiling();
        let most = case.served.iter().map(|one| one.tokens.output).max().unwrap_or(0);
        self.must("as_held", case.is_free() || most <= ceiling, || {
            format!("{most} tokens served and {ceiling} held: {}", case.describe())
        });
        let Some(line) = case.line else {
            let report = case.seen.id.is_some() || !case.served.is_empty();
            let killed = !run.killed.is_empty() && case.seen.generation < run.last_generation;
            let lost = report && !killed;
            return self.must("one_line_each", !lost, || format!("no line: {}", case.describe()));
        };
        let key = KEYS[case.seen.ask.key].name;
        self.must("one_line_each", line.key.as_deref() == Some(key), || format!("another's line: {}", case.describe()));
        if line.attempts.iter().any(|reason| SECOND_ATTEMPT.contains(&reason.as_str())) {
            let hedged = KEYS[case.seen.ask.key].hedges();
            *(if hedged { &mut self.hedges } else { &mut self.rescues }) += 1;
        }
        let versions = case.versions(run);
        let deployment = line.deployment.as_deref().and_then(place_of);
        if let (Some(price), Some(deployment)) = (line.price, deployment) {
            let known = versions.iter().any(|version| version.prices[deployment] == price);
            self.must("price_in_force", known, || format!("{:?}: {}", versions, case.describe()));
        }
        match (line.estimated, case.is_free()) {
            (false, free) => {
                self.exact += 1;
                self.exact_line(case, line, free);
            }
            // Without a hold there is no bound: the line is a report, and no money is charged.
            (true, true) => self.free += 1,
            (true, false) => {
                self.estimated += 1;
                self.estimated_line(run, case, line, &versions);
            }
        }
    }

    /// Whether its key was refused; it is served by no configuration that has it not, and refused by none that has it.
    fn disabled(&mut self, run: &Run, case: &Case<'_>) -> bool {
        let refused = matches!(&case.seen.end, SeenEnd::Refused(401, _));
        if KEYS[case.seen.ask.key].name != DISABLED {
            self.must("disabled", !refused, || case.describe());
            return refused;
        }
        let until = case.served.iter().map(|one| one.at_ms).min().unwrap_or(case.seen.end_ms);
        let mut versions = run.timeline.met(case.seen.start_ms, until);
        let may = if refused { versions.any(|one| !one.has_all_keys) } else { versions.any(|one| one.has_all_keys) };
        // A client that left may have been refused.
        let unknown = matches!(case.seen.end, SeenEnd::Gone | SeenEnd::Left) && case.served.is_empty();
        self.must("disabled", may || unknown, || case.describe());
        refused || unknown
    }

    /// A line that is not estimated says what the provider served and costs that.
    fn exact_line(&mut self, case: &Case<'_>, line: &Line, free: bool) {
        let (Some([input, cached, output]), Some(price)) = (line.tokens, line.price) else {
            // Without a hold, attempts that were not answered are not charged.
            let nothing = line.cost == 0 && (case.served.is_empty() || free);
            return self.must("lines_exact", nothing, || format!("not free of cost: {}", case.describe()));
        };
        let of_line = |one: &&Served| line.deployment.as_deref().and_then(place_of) == Some(one.deployment);
        let last = case.served.iter().rfind(of_line).map(|last| last.tokens);
        let same = last == Some(Tokens { input, cached, output }) && (free || case.served.len() == 1);
        let exact = last.is_some_and(|tokens| line.cost == cost(price, tokens));
        self.must("lines_exact", same && exact, || case.describe());
    }

    /// An estimated line costs no less than what was served and no more than what was held.
    fn estimated_line(&mut self, run: &Run, case: &Case<'_>, line: &Line, versions: &[&Version]) {
        let billed = case.billed(run);
        let charged = line.attempts.iter().filter(|reason| !FREE_OF_CHARGE.contains(&reason.as_str())).count() as i64;
        let output = case.seen.ask.ceiling();
        let places = if case.seen.ask.large { [2, 3] } else { [0, 1] };
        let worst = |version: &&Version| places.map(|place| version.worst(place, case.seen.body_bytes, output));
        let held = versions.iter().flat_map(worst).max().expect("one was in force") * charged;
        self.must("estimated_between", (billed..=held).contains(&line.cost), || {
            format!("{} is not in {billed}..={held}: {}", line.cost, case.describe())
        });
    }

    fn accounts(&mut self, run: &Run, cases: &[Case<'_>]) {
        let windows = Windows::of(&run.timeline);
        let mut certain: BTreeMap<BudgetWindow, i64> = BTreeMap::new();
        let mut billed = [0; ACCOUNTS.len()];
        let mut unlined = [0; ACCOUNTS.len()];
        let mut charged = [0; ACCOUNTS.len()];
        for case in cases {
            let cost = if case.served.is_empty() { 0 } else { case.billed(run) };
            if cost == 0 {
                continue;
            }
            self.billed += cost;
            let mut astride = false;
            for &account in KEYS[case.seen.ask.key].accounts {
                billed[account] += cost;
                unlined[account] += if case.line.is_none() { cost } else { 0 };
                let until = case.served.last().map_or(case.seen.end_ms, |last| last.at_ms);
                match windows.taken_from(account, case.seen.start_ms, until) {
                    Some(start) => *certain.entry((account, start)).or_default() += cost,
                    None => astride = true,
                }
            }
            self.astride += u64::from(astride);
        }
        for line in &run.database.lines {
            let key = KEYS.iter().find(|key| line.key.as_deref() == Some(key.name));
            key.iter().flat_map(|key| key.accounts).for_each(|account| charged[*account] += line.cost);
        }
        for account in 0..ACCOUNTS.len() {
            self.account(run, account, billed[account], charged[account]);
            // Each line covers its own request, so that the others must be covered by what is unaccounted.
            let unaccounted = sum(&run.database.unaccounted, account);
            self.must("covered", unlined[account] <= unaccounted, || {
                format!("{}: {} billed of no line, {unaccounted} unaccounted", name(account), unlined[account])
            });
        }
        self.windows(run, &certain);
    }

    /// One account over all of its windows.
    fn account(&mut self, run: &Run, account: usize, billed: i64, charged: i64) {
        let (spent, leased) = (sum(&run.database.spent, account), sum(&run.database.leased, account));
        let unaccounted = sum(&run.database.unaccounted, account);
        let name = name(account);
        self.must("ledger_balances", spent == charged + unaccounted, || {
            format!("{name}: {spent} spent, {charged} on lines and {unaccounted} unaccounted")
        });
        self.must("covered", billed <= charged + unaccounted, || {
            format!("{name}: {billed} billed, {charged} on lines and {unaccounted} unaccounted")
        });
        self.must("nothing_left", leased == 0, || format!("{name}: {leased} leased after the end"));
        let bounds: i64 = run
            .database
            .spent
            .keys()
            .filter(|budget_window| budget_window.0 == account)
            .map(|d| run.timeline.bound(*d))
            .sum();
        self.must("within_limit", billed <= bounds, || format!("{name}: {billed} billed of {bounds} in all windows"));
    }

    fn windows(&mut self, run: &Run, certain: &BTreeMap<BudgetWindow, i64>) {
        for (&budget_window, &spent) in &run.database.spent {
            let bound = run.timeline.bound(budget_window);
            let billed = certain.get(&budget_window).copied().unwrap_or(0);
            let (name, start) = (name(budget_window.0), budget_window.1);
            self.must("within_limit", spent <= bound, || format!("{name} from {start}: {spent} spent of {bound}"));
            self.must("within_limit", billed <= bound, || format!("{name} from {start}: {billed} billed of {bound}"));
            self.must("covered", billed <= spent, || format!("{name} from {start}: {billed} billed, {spent} spent"));
            self.uses.push(Use { budget_window, bound, spent });
        }
        for (budget_window, billed) in certain.iter().filter(|(_, billed)| **billed > 0) {
            let known = run.database.spent.contains_key(budget_window);
            self.must("covered", known, || {
                format!("{}: {billed} in no window {}", name(budget_window.0), budget_window.1)
            });
        }
        for (at_ms, database) in &run.killed {
            for (budget_window, spent) in &database.spent {
                let taken = spent + database.leased.get(budget_window).copied().unwrap_or(0);
                let bound = run.timeline.bound_at(*budget_window, *at_ms);
                self.must("within_limit", taken <= bound, || {
                    format!("{} at a kill: {taken} spent and leased of {bound}", name(budget_window.0))
                });
            }
        }
    }

    fn end(&mut self, run: &Run) {
        self.must("opens_clean", run.database.integrity == "ok", || run.database.integrity.clone());
        let slowest = run.openings.iter().max().expect("it was started");
        self.must("opens_clean", *slowest <= PATIENCE, || format!("served after {slowest:?}"));
        let ids: HashSet<u128> = run.database.lines.iter().map(|line| line.id).collect();
        self.must("one_line_each", ids.len() == run.database.lines.len(), || "an id is there twice".to_owned());
        for database in &run.stopped {
            let leased: i64 = database.leased.values().sum();
            self.must("nothing_left", leased == 0, || format!("{leased} leased after a stop in good order"));
        }
        let crashed = !run.killed.is_empty();
        let unaccounted = run.database.unaccounted_lines;
        self.must("nothing_left", crashed || unaccounted == 0, || format!("{unaccounted} unaccounted without a crash"));
        let faulty = run.scenario == Scenario::Faulty;
        let unavailable = |seen: &&Seen| matches!(&seen.end, SeenEnd::Refused(503, _));
        let refused = run.seen.iter().filter(unavailable).count();
        self.must("serves", faulty || refused == 0, || format!("{refused} were turned away from a good disk"));
        let odd = |seen: &&Seen| match &seen.end {
            SeenEnd::Refused(401, _) => false,
            SeenEnd::Refused(429, code) => code != "insufficient_quota",
            SeenEnd::Refused(503, code) => code != "ledger_unavailable",
            SeenEnd::Refused(status, _) => *status < 500,
            SeenEnd::Gone => seen.generation == run.last_generation && seen.ask.tag < SLOW,
            SeenEnd::Served | SeenEnd::Broken | SeenEnd::Left => false,
        };
        let odd: Vec<_> = run.seen.iter().filter(odd).collect();
        self.must("serves", odd.is_empty(), || format!("{} ended as nothing should: {:?}", odd.len(), odd[0]));
    }
}

/// What an account has in all of its windows.
fn sum(of: &BTreeMap<BudgetWindow, i64>, account: usize) -> i64 {
    of.iter().filter(|(budget_window, _)| budget_window.0 == account).map(|(_, amount)| amount).sum()
}

/// An account by its name.
pub fn name(account: usize) -> String {
    let Account { scope, name, .. } = &ACCOUNTS[account];
    format!("{scope} {name} ({})", ACCOUNTS[account].window())
}
