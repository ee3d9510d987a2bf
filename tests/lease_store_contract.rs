//! What every lease store guarantees, run against each of them, and the budget pool under concurrent load.
//!
//! An oracle counts separately what is held and spent; it does not know of leases. Deliberately faulty lease stores
//! must make it fail. A new lease store is one more line at the end of this file.

#![allow(clippy::disallowed_methods)]

use postgres_server::{TestDatabase, ticking};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tierway::clock::Clock;
use tierway::domain::budget::{Account, Budget, BudgetPeriod, Charge, LeaseTerm, Scope, WindowSpan, Zone};
use tierway::domain::money::NanoUsd;
use tierway::domain::receipt::Receipt;
use tierway::store::budget_pool::{BudgetAccount, BudgetPool, FundingSources, Hold, HoldError};
use tierway::store::memory_lease_store::MemoryLeaseStore;
use tierway::store::postgres::PostgresLedger;
use tierway::store::sqlite::{SqliteLedger, WriterGuard};
use tierway::store::{Lease, LeaseRequest, LeaseStore, StoreFuture, StoreUnavailable};
use tokio::runtime::Runtime;

const THREADS: usize = 32;
/// Holds per thread: a million in all, and as optimized three.
const HOLDS: usize = if cfg!(debug_assertions) { 31_250 } else { 100_000 };
/// Holds that one thread keeps open at once.
const OPEN: usize = 8;
/// Of each hold, at most.
const LARGEST: i64 = 1_000_000;
const DAY_MS: i64 = 86_400_000;

fn account(name: &str) -> Arc<Account> {
    Arc::new(Account { scope: Scope::Key, name: name.into(), window: "day UTC".into() })
}

fn day(number: i64) -> WindowSpan {
    WindowSpan { start_ms: number * DAY_MS, end_ms: (number + 1) * DAY_MS }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives threads")
}

struct Client {
    lease_store: Arc<dyn LeaseStore>,
    runtime: Runtime,
}

impl Client {
    fn at(lease_store: Arc<dyn LeaseStore>) -> Self {
        Self { lease_store, runtime: runtime() }
    }

    fn lease(&self, name: &str, span: WindowSpan, limit: i64, need: i64, ahead: i64) -> Lease {
        let [limit, need, ahead] = [limit, need, ahead].map(NanoUsd);
        let request = LeaseRequest { account: account(name), span, limit, need, ahead };
        self.runtime.block_on(self.lease_store.lease(request)).expect("the lease store is available")
    }

    /// Leases without any amount ahead, and checks what was leased of the window and what is taken of it.
    fn check(&self, name: &str, span: WindowSpan, limit: i64, need: i64, expected: (i64, i64)) {
        let leased = self.lease(name, span, limit, need, 0);
        assert_eq!((leased.span, leased.amount.0, leased.taken.0), (span, expected.0, expected.1), "{name} {need}");
    }

    fn term(&self) -> LeaseTerm {
        self.lease_store.term().expect("what is leased may be spent")
    }

    fn give_back(&self, name: &str, span: WindowSpan, amount: i64) {
        self.lease_store.give_back(&account(name), span, NanoUsd(amount), self.term());
    }

    fn spend(&self, name: &str, span: WindowSpan, spent: i64, leased: i64) {
        let charge =
            Charge { account: account(name), span, spent: NanoUsd(spent), leased: NanoUsd(leased), term: self.term() };
        self.lease_store.write_off(&[charge]);
    }
}

fn what_is_spent_or_leased_cannot_be_leased_again(lease_store: Arc<dyn LeaseStore>) {
    let client = Client::at(lease_store);
    let today = day(1);
    client.check("a", today, 100, 60, (60, 60));
    client.check("a", today, 100, 60, (40, 100));
    client.check("a", today, 100, 1, (0, 100));
    client.give_back("a", today, 30);
    client.check("a", today, 100, 20, (20, 90));
    client.spend("a", today, 50, 50);
    client.check("a", today, 100, 20, (10, 100));
    // More was spent than had been leased: nothing is left, however much is returned.
    client.spend("a", today, 60, 30);
    client.give_back("a", today, 20);
    client.check("a", today, 100, 20, (0, 110));
    client.check("b", today, 100, 20, (20, 20));
}

fn a_changed_limit_counts_from_the_next_lease(lease_store: Arc<dyn LeaseStore>) {
    let client = Client::at(lease_store);
    client.check("a", day(1), 100, 80, (80, 80));
    client.check("a", day(1), 50, 10, (0, 80));
    client.check("a", day(1), 200, 1000, (120, 200));
}

fn need_comes_before_what_is_ahead(lease_store: Arc<dyn LeaseStore>) {
    let client = Client::at(lease_store);
    assert_eq!(client.lease("a", day(1), 1000, 10, 100).amount.0, 110);
    assert_eq!(client.lease("a", day(1), 1000, 0, 10_000).amount.0, 222);
    assert_eq!(client.lease("a", day(1), 1000, 668, 10_000).amount.0, 668);
    assert_eq!(client.lease("a", day(1), 1000, 1, 1).amount.0, 0);
}

fn a_window_that_ended_is_not_opened_again(lease_store: Arc<dyn LeaseStore>) {
    let client = Client::at(lease_store);
    client.check("a", day(1), 100, 60, (60, 60));
    client.check("a", day(2), 100, 70, (70, 70));
    // The clock was set back.
    let leased = client.lease("a", day(1), 100, 20, 0);
    assert_eq!((leased.span, leased.amount.0, leased.taken.0), (day(2), 20, 90));
    // A hold of the first day is settled in the first day.
    client.spend("a", day(1), 60, 60);
    client.give_back("a", day(1), 0);
    client.check("a", day(2), 100, 20, (10, 100));
    client.check("a", day(3), 100, 100, (100, 100));
}

fn concurrent_leases_keep_the_limit(lease_store: Arc<dyn LeaseStore>) {
    let client = Client::at(lease_store);
    let (out, limit) = (AtomicI64::new(0), 1_000_000);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, out) = (&client, &out);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                for _ in 0..200 {
                    let amount = client.lease("a", day(1), limit, rng.i64(1..50_000), rng.i64(0..50_000)).amount.0;
                    let now_out = out.fetch_add(amount, Ordering::SeqCst) + amount;
                    assert!(now_out <= limit, "{now_out}");
                    // Some is spent, the rest is returned.
                    let spent = if rng.u8(..) < 8 { amount.min(1_000) } else { 0 };
                    out.fetch_sub(amount - spent, Ordering::SeqCst);
                    client.spend("a", day(1), spent, spent);
                    client.give_back("a", day(1), amount - spent);
                }
            });
        }
    });
    let left = limit - out.into_inner();
    client.check("a", day(1), limit, limit, (left, limit));
}

/// A lease store that fails every seventh time, before anything is leased.
struct Flaky {
    lease_store: Arc<dyn LeaseStore>,
    asked: AtomicU64,
}

/// One fault of a lease store, which the oracle must notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    /// What is returned or spent is returned twice.
    SettlesTwice,
    /// A lease contains more than was booked.
    LeasesMore,
    /// What is spent is returned instead.
    ForgetsWhatIsSpent,
}

struct Faulty {
    lease_store: Arc<dyn LeaseStore>,
    mutant: Mutant,
}

impl LeaseStore for Flaky {
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % 7 == 3 {
            return Box::pin(std::future::ready(Err(StoreUnavailable)));
        }
        let lease = self.lease_store.lease(request);
        Box::pin(async move {
            tokio::task::yield_now().await;
            lease.await
        })
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
        self.lease_store.give_back(account, span, amount, term);
    }

    fn settle(&self, receipt: &Arc<Receipt>) {
        self.lease_store.settle(receipt);
    }

    fn write_off(&self, charges: &[Charge]) {
        self.lease_store.write_off(charges);
    }
}

impl LeaseStore for Faulty {
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        let more = i64::from(self.mutant == Mutant::LeasesMore);
        let lease = self.lease_store.lease(request);
        Box::pin(async move {
            let leased = lease.await?;
            Ok(Lease { amount: NanoUsd(leased.amount.0 + more * leased.amount.0 / 4), ..leased })
        })
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
        self.lease_store.give_back(account, span, amount, term);
        if self.mutant == Mutant::SettlesTwice {
            self.lease_store.give_back(account, span, amount, term);
        }
    }

    fn settle(&self, receipt: &Arc<Receipt>) {
        self.write_off(&receipt.charges);
    }

    fn write_off(&self, charges: &[Charge]) {
        match self.mutant {
            Mutant::ForgetsWhatIsSpent => {
                for charge in charges {
                    self.lease_store.give_back(&charge.account, charge.span, charge.leased, charge.term);
                }
            }
            _ => self.lease_store.write_off(charges),
        }
        if self.mutant == Mutant::SettlesTwice {
            for charge in charges {
                self.lease_store.give_back(&charge.account, charge.span, charge.leased, charge.term);
            }
        }
    }
}

/// What is held and spent of one account, counted separately from the budget pool.
struct Oracle {
    limit: i64,
    out: AtomicI64,
    highest: AtomicI64,
}

impl Oracle {
    fn took(&self, amount: i64) {
        let out = self.out.fetch_add(amount, Ordering::SeqCst) + amount;
        self.highest.fetch_max(out, Ordering::SeqCst);
    }

    fn came_back(&self, amount: i64) {
        self.out.fetch_sub(amount, Ordering::SeqCst);
    }
}

/// Concurrent requests on two keys' budgets and the budget of their team.
struct Load {
    lease_store: Arc<dyn LeaseStore>,
    budget_pool: BudgetPool,
    budget_accounts: Vec<(Arc<BudgetAccount>, Arc<Oracle>)>,
    charged: Mutex<i64>,
    granted: AtomicU64,
    unavailable: AtomicU64,
}

impl Load {
    fn over(lease_store: Arc<dyn LeaseStore>) -> Self {
        let budget_pool = BudgetPool::new(lease_store.clone());
        // Half of what all threads would hold at once: refusals are as common as holds.
        let shared = (THREADS * OPEN) as i64 * LARGEST / 4;
        let open = |scope, name: String, limit| {
            let budget = Budget::new(scope, name.into(), NanoUsd(limit), BudgetPeriod::Ever);
            let oracle = Oracle { limit, out: AtomicI64::new(0), highest: AtomicI64::new(0) };
            (budget_pool.budget_account(&budget, 0), Arc::new(oracle))
        };
        let own = (0..2).map(|key| open(Scope::Key, format!("key-{key}"), shared * 3 / 4));
        let budget_accounts = own.chain([open(Scope::Team, "team".to_owned(), shared)]).collect();
        let (granted, unavailable) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { budget_accounts, lease_store, budget_pool, charged: Mutex::new(0), granted, unavailable }
    }

    /// The most by which any account ever exceeded its limit.
    fn beyond(&self) -> i64 {
        let beyond =
            self.budget_accounts.iter().map(|(_, oracle)| oracle.highest.load(Ordering::SeqCst) - oracle.limit);
        beyond.max().unwrap_or(0)
    }

    fn run(&self, runtime: &Runtime) {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || self.one_thread(thread, runtime));
            }
        });
    }

    fn one_thread(&self, thread: usize, runtime: &Runtime) {
        let _entered = runtime.enter();
        let mut rng = fastrand::Rng::with_seed(thread as u64 + 1);
        let mine = [&self.budget_accounts[thread % 2], &self.budget_accounts[2]];
        let budget_accounts: Vec<Arc<BudgetAccount>> =
            mine.iter().map(|(budget_account, _)| budget_account.clone()).collect();
        let oracles = mine.map(|(_, oracle)| &**oracle);
        let mut open: Vec<Hold> = Vec::new();
        for _ in 0..HOLDS {
            let amount = rng.i64(1..=LARGEST);
            match runtime.block_on(self.budget_pool.hold(
                &FundingSources::budgets(budget_accounts.clone()),
                NanoUsd(amount),
                0,
            )) {
                Ok(hold) => {
                    oracles.iter().for_each(|oracle| oracle.took(amount));
                    self.granted.fetch_add(1, Ordering::Relaxed);
                    open.push(hold);
                }
                Err(HoldError::Over(over)) => assert!(over.left.0 < amount || over.wanted.0 == amount),
                Err(HoldError::Unavailable) => drop(self.unavailable.fetch_add(1, Ordering::Relaxed)),
            }
            if open.len() >= OPEN || rng.u8(..) < 32 {
                let at = rng.usize(..open.len().max(1));
                if at < open.len() {
                    self.end(open.swap_remove(at), oracles, &mut rng);
                }
            }
        }
        for hold in open {
            self.end(hold, oracles, &mut rng);
        }
    }

    fn end(&self, mut hold: Hold, oracles: [&Oracle; 2], rng: &mut fastrand::Rng) {
        let amount = hold.amount().0;
        let actual = match rng.u8(..) {
            0..8 => rng.i64(0..=amount / 64),
            8 => amount / 64,
            _ => 0,
        };
        let back = |amount| oracles.iter().for_each(|oracle| oracle.came_back(amount));
        match rng.u8(..4) {
            // Sent and dropped: it costs all that it holds. Rare, because it uses up the limit.
            0 if rng.u16(..) < 64 => {
                *self.charged.lock().expect("no thread panics") += amount;
                hold.sent();
                drop(hold);
            }
            1 => {
                back(amount);
                hold.release();
            }
            2 => {
                back(amount);
                drop(hold);
            }
            _ => {
                back(amount - actual);
                *self.charged.lock().expect("no thread panics") += actual;
                hold.sent();
                let charges = hold.settle(NanoUsd(actual));
                self.lease_store.write_off(&charges);
            }
        }
    }

    /// Spends what is left in small amounts; returns what was spent of the team's limit, and the limit.
    fn use_up(&self, runtime: &Runtime) -> (i64, i64) {
        let _entered = runtime.enter();
        let (team, oracle) = &self.budget_accounts[2];
        let piece = oracle.limit / 1_000;
        loop {
            match runtime.block_on(self.budget_pool.hold(&FundingSources::budgets([team.clone()]), NanoUsd(piece), 0)) {
                Ok(hold) => {
                    oracle.took(piece);
                    *self.charged.lock().expect("no thread panics") += piece;
                    self.lease_store.write_off(&hold.settle(NanoUsd(piece)));
                }
                Err(HoldError::Over(_)) => return (oracle.out.load(Ordering::SeqCst), oracle.limit),
                Err(HoldError::Unavailable) => {}
            }
        }
    }
}

#[test]
fn concurrent_holds_never_exceed_the_limit_and_all_end() {
    let memory = Arc::new(MemoryLeaseStore::default());
    let flaky = Arc::new(Flaky { lease_store: memory.clone(), asked: AtomicU64::new(0) });
    let (load, runtime) = (Load::over(flaky), runtime());
    load.run(&runtime);
    assert!(load.beyond() <= 0, "{} nano-dollars over the limit", load.beyond());
    assert!(load.budget_pool.statuses(0).iter().all(|status| status.held == NanoUsd::ZERO));
    let (spent, limit) = load.use_up(&runtime);
    assert!(spent <= limit && spent >= limit / 1_000 * 995, "{spent} of {limit} could be spent");
    runtime.block_on(load.budget_pool.close());
    assert_eq!(memory.leased(), NanoUsd::ZERO);
    let team = Account { scope: Scope::Team, name: "team".into(), window: "none".into() };
    let (booked, _) = memory.balance(&Arc::new(team), WindowSpan::EVER);
    assert_eq!((booked.0, booked.0), (spent, *load.charged.lock().expect("no thread panics")));
    let (granted, unavailable) = (load.granted.into_inner(), load.unavailable.into_inner());
    println!("{granted} holds of {}, {unavailable} while the lease store failed", THREADS * HOLDS);
    println!("{:.2} % of the limit could be spent", 100.0 * spent as f64 / limit as f64);
    assert!(granted as usize > THREADS * HOLDS / 100 && unavailable > 0);
}

#[test]
fn the_oracle_notices_every_mutant() {
    for mutant in [Mutant::SettlesTwice, Mutant::LeasesMore, Mutant::ForgetsWhatIsSpent] {
        let lease_store = Arc::new(Faulty { lease_store: Arc::new(MemoryLeaseStore::default()), mutant });
        let (load, runtime) = (Load::over(lease_store), runtime());
        load.one_thread(0, &runtime);
        let _entered = runtime.enter();
        // Then the team holds as much as it can.
        let (team, oracle) = &load.budget_accounts[2];
        let mut all = Vec::new();
        while let Ok(hold) =
            runtime.block_on(load.budget_pool.hold(&FundingSources::budgets([team.clone()]), NanoUsd(LARGEST), 0))
        {
            oracle.took(LARGEST);
            all.push(hold);
            if load.beyond() > 0 {
                break;
            }
        }
        assert!(load.beyond() > 0, "{mutant:?} was not noticed");
    }
}

fn daily(limit: i64) -> Budget {
    let utc = Zone::named("UTC").expect("UTC is built in");
    Budget::new(Scope::Key, "k".into(), NanoUsd(limit), BudgetPeriod::Day(utc))
}

async fn taken(budget_pool: &BudgetPool, budget_account: &Arc<BudgetAccount>, amount: i64, now: i64) -> Option<Hold> {
    budget_pool.hold(&FundingSources::budgets([budget_account.clone()]), NanoUsd(amount), now).await.ok()
}

#[tokio::test]
async fn a_hold_belongs_to_the_window_it_was_made_in() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_account = budget_pool.budget_account(&daily(100), 0);
    let evening = taken(&budget_pool, &budget_account, 70, DAY_MS - 1).await.expect("it fits");
    let morning = taken(&budget_pool, &budget_account, 90, DAY_MS).await.expect("the new window is whole");
    // The clock jumps back: the new window goes on, the old one is not opened again.
    assert!(taken(&budget_pool, &budget_account, 20, 0).await.is_none());
    lease_store.write_off(&evening.settle(NanoUsd(60)));
    let [account, _] = [budget_account.account(), budget_account.account()];
    assert_eq!(lease_store.balance(account, day(0)), (NanoUsd(60), NanoUsd(0)));
    assert!(taken(&budget_pool, &budget_account, 20, DAY_MS + 1).await.is_none(), "yesterday's money is not today's");
    morning.release();
    assert!(taken(&budget_pool, &budget_account, 100, DAY_MS + 1).await.is_some());
    // A day passes with nobody asking; what is free of it goes back by itself.
    budget_pool.return_idle_leases(2 * DAY_MS);
    assert_eq!(lease_store.leased(), NanoUsd(0));
}

#[tokio::test]
async fn a_process_that_restarts_with_an_earlier_clock_finds_the_later_window() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let first = BudgetPool::new(lease_store.clone());
    let hold = taken(&first, &first.budget_account(&daily(100), DAY_MS), 80, DAY_MS).await.expect("it fits");
    lease_store.write_off(&hold.settle(NanoUsd(80)));
    first.close().await;
    let second = BudgetPool::new(lease_store);
    let budget_account = second.budget_account(&daily(100), 0);
    assert!(taken(&second, &budget_account, 30, 0).await.is_none());
    assert!(taken(&second, &budget_account, 20, 0).await.is_some());
}

#[tokio::test]
async fn a_lower_limit_applies_to_the_window_running() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_account = budget_pool.budget_account(&daily(1_000), 0);
    let running = taken(&budget_pool, &budget_account, 300, 0).await.expect("it fits");
    lease_store.write_off(&taken(&budget_pool, &budget_account, 100, 0).await.expect("it fits").settle(NanoUsd(100)));
    budget_pool.budget_account(&daily(350), 0);
    assert!(taken(&budget_pool, &budget_account, 1, 0).await.is_none(), "400 are spent and held");
    // 250 come back, of which 50 are over the new limit.
    lease_store.write_off(&running.settle(NanoUsd(50)));
    assert!(taken(&budget_pool, &budget_account, 201, 0).await.is_none());
    assert!(taken(&budget_pool, &budget_account, 200, 0).await.is_some());
    budget_pool.budget_account(&daily(1_000), 0);
    assert!(
        taken(&budget_pool, &budget_account, 850, 0).await.is_some(),
        "what was spent stays spent, the rest is whole"
    );
}

#[tokio::test]
async fn more_than_was_held_is_charged_in_full_and_nothing_fits_then() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_account = budget_pool.budget_account(&daily(100), 0);
    let [one, other] =
        [taken(&budget_pool, &budget_account, 40, 0).await, taken(&budget_pool, &budget_account, 40, 0).await]
            .map(|hold| hold.expect("it fits"));
    let charges = one.settle(NanoUsd(130));
    assert_eq!(charges[0].spent, NanoUsd(130));
    lease_store.write_off(&charges);
    assert_eq!(lease_store.balance(budget_account.account(), day(0)).0, NanoUsd(130));
    other.release();
    assert!(taken(&budget_pool, &budget_account, 1, 0).await.is_none());
    assert_eq!(budget_pool.statuses(0)[0].spent, NanoUsd(130));
    assert!(taken(&budget_pool, &budget_account, 100, DAY_MS).await.is_some(), "until the window ends");
}

#[tokio::test]
async fn a_cost_beyond_all_counting_ends_the_window_too() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_account = budget_pool.budget_account(&daily(100), 0);
    let [one, other] =
        [taken(&budget_pool, &budget_account, 40, 0).await, taken(&budget_pool, &budget_account, 40, 0).await]
            .map(|hold| hold.expect("it fits"));
    let charges = one.settle(NanoUsd(i64::MAX));
    other.release();
    lease_store.write_off(&charges);
    assert!(taken(&budget_pool, &budget_account, 1, 0).await.is_none());
}

#[tokio::test]
async fn all_budgets_take_a_hold_or_none_does() {
    let lease_store = Arc::new(MemoryLeaseStore::default());
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_accounts = [("a", 100), ("b", 50)].map(|(name, limit)| {
        budget_pool.budget_account(&Budget::new(Scope::Team, name.into(), NanoUsd(limit), BudgetPeriod::Ever), 0)
    });
    let refused = budget_pool.hold(&FundingSources::budgets(budget_accounts.clone()), NanoUsd(60), 0).await.err();
    let Some(HoldError::Over(over)) = refused else { panic!("{refused:?}") };
    assert_eq!((&*over.account.name, over.left, over.wanted, over.ends_unix_ms), ("b", NanoUsd(50), NanoUsd(60), None));
    assert!(budget_pool.statuses(0).iter().all(|one| one.held == NanoUsd(0) && one.spent == NanoUsd(0)));
    let hold = budget_pool
        .hold(&FundingSources::budgets(budget_accounts.clone()), NanoUsd(50), 0)
        .await
        .expect("it fits in both");
    assert!(taken(&budget_pool, &budget_accounts[0], 51, 0).await.is_none());
    drop(hold);
    assert!(taken(&budget_pool, &budget_accounts[0], 100, 0).await.is_some());
}

/// A lease store that panics in the middle of a lease.
struct Panics;

impl LeaseStore for Panics {
    fn lease(&self, _: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        Box::pin(async { panic!("on purpose") })
    }
    fn give_back(&self, _: &Arc<Account>, _: WindowSpan, _: NanoUsd, _: LeaseTerm) {}
    fn settle(&self, _: &Arc<Receipt>) {}
    fn write_off(&self, _: &[Charge]) {}
}

#[tokio::test]
async fn a_lease_store_that_panics_leaves_no_request_waiting() {
    let budget_pool = BudgetPool::new(Arc::new(Panics));
    let budget_account = budget_pool.budget_account(&daily(100), 0);
    for _ in 0..2 {
        let refused = budget_pool.hold(&FundingSources::budgets([budget_account.clone()]), NanoUsd(1), 0).await.err();
        assert_eq!(refused, Some(HoldError::Unavailable));
    }
}

#[path = "store_contract/postgres_server.rs"]
mod postgres_server;

/// A lease store on `database`, as of one more gateway.
fn postgres(database: &TestDatabase) -> (Arc<dyn LeaseStore>, WriterGuard) {
    let opened = PostgresLedger::open(database.location(), None, Arc::new(|| Clock.unix_ms()), ticking());
    let (ledger, guard) = opened.unwrap_or_else(|error| panic!("{error}"));
    (Arc::new(ledger), guard)
}

/// A lease store in a database of its own.
fn sqlite(place: &tempfile::TempDir) -> (Arc<dyn LeaseStore>, WriterGuard) {
    let (ledger, guard) = SqliteLedger::open(&place.path().join("t.db"), None, Arc::new(|| 0)).expect("it opens");
    (Arc::new(ledger), guard)
}

#[test]
fn what_a_killed_process_had_leased_counts_as_spent() {
    let place = tempfile::tempdir().expect("a folder");
    let (lease_store, guard) = sqlite(&place);
    let client = Client::at(lease_store);
    client.check("a", day(1), 100, 60, (60, 60));
    client.spend("a", day(1), 10, 10);
    drop((client, guard));
    let (lease_store, _writing) = sqlite(&place);
    // 10 were spent; of 50 nobody knows.
    Client::at(lease_store.clone()).check("a", day(1), 100, 60, (40, 100));
    lease_store.give_back(&account("a"), day(1), NanoUsd(40), LeaseTerm::default());
    Client::at(lease_store).check("a", day(1), 100, 60, (40, 100));
}

/// All that was spent and leased of the one window of the account `a`, on `database`.
fn booked(database: &TestDatabase) -> String {
    database.query("SELECT spent_nanousd, leased_nanousd FROM tierway.budgets WHERE name = 'a'")
}

/// As if so many seconds had passed for the database since it last saw the gateways other than the newest one, which it has
/// seen all along.
fn let_pass(database: &TestDatabase, seconds: u32) {
    let newest = "(SELECT max(id) FROM tierway.replicas)";
    database.query(&format!("UPDATE tierway.replicas SET seen = seen - interval '{seconds} s' WHERE id < {newest}"));
    database.query(&format!("UPDATE tierway.replicas SET steady = steady - interval '1 h' WHERE id = {newest}"));
}

/// Waits until the database answers `query` with `expected`.
#[track_caller]
fn until(database: &TestDatabase, query: &str, expected: &str) {
    let deadline = Clock.now() + Duration::from_secs(30);
    while database.query(query) != expected {
        assert!(Clock.now() < deadline, "{query} is {}, not {expected}", database.query(query));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn several_gateways_lease_from_one_window() {
    let database = TestDatabase::new();
    let opened = [(); 3].map(|()| postgres(&database));
    let clients = opened.each_ref().map(|(lease_store, _)| Client::at(lease_store.clone()));
    clients[0].check("a", day(1), 100, 60, (60, 60));
    clients[1].check("a", day(1), 100, 30, (30, 90));
    clients[2].check("a", day(1), 100, 30, (10, 100));
    clients[0].give_back("a", day(1), 15);
    until(&database, "SELECT leased_nanousd FROM tierway.budgets", "85");
    clients[2].check("a", day(1), 100, 30, (15, 100));
    let terms: Vec<LeaseTerm> = clients.iter().map(Client::term).collect();
    assert!(terms.is_sorted_by(|one, next| one < next), "each has a term of its own: {terms:?}");
}

#[test]
fn what_a_gateway_that_ends_well_had_leased_counts_as_spent_at_once() {
    let database = TestDatabase::new();
    let (lease_store, guard) = postgres(&database);
    let client = Client::at(lease_store);
    client.check("a", day(1), 100, 60, (60, 60));
    client.spend("a", day(1), 10, 10);
    drop((client, guard));
    assert_eq!(booked(&database), "60|0");
    assert_eq!(database.query("SELECT count(*), sum(amount_nanousd) FROM tierway.unaccounted"), "1|50");
    assert_eq!(database.query("SELECT count(*) FROM tierway.replicas"), "0");
}

/// The database has not seen a gateway for a minute, and it comes back: what it had leased was counted as spent once, what it
/// spent of that is taken from there, and only what is beyond it is added.
#[test]
fn a_gateway_that_was_away_settles_onto_what_was_counted_as_spent() {
    let database = TestDatabase::new();
    let (away, _away_writing) = postgres(&database);
    let client = Client::at(away);
    client.check("a", day(1), 100, 60, (60, 60));
    let before = client.term();
    // Three others look at once; it ends once.
    let _others = [(); 3].map(|()| postgres(&database));
    let ended = format!("SELECT count(*) FROM tierway.replicas WHERE id = {}", before.0);
    let deadline = Clock.now() + Duration::from_secs(30);
    while database.query(&ended) != "0" {
        // It renews its term each second: what is moved back must stay so for a look.
        let_pass(&database, 3_600);
        assert!(Clock.now() < deadline, "its term never ends");
    }
    assert_eq!(booked(&database), "60|0");
    assert_eq!(database.query("SELECT count(*), sum(amount_nanousd) FROM tierway.unaccounted"), "1|60");
    let charge = |spent: i64| Charge {
        account: account("a"),
        span: day(1),
        spent: NanoUsd(spent),
        leased: NanoUsd(spent),
        term: before,
    };
    client.lease_store.write_off(&[charge(25)]);
    until(&database, "SELECT sum(amount_nanousd) FROM tierway.unaccounted", "35");
    assert_eq!(booked(&database), "60|0", "it was counted as spent before");
    client.lease_store.give_back(&account("a"), day(1), NanoUsd(20), before);
    client.lease_store.write_off(&[charge(40)]);
    until(&database, "SELECT spent_nanousd FROM tierway.budgets", "65");
    assert_eq!(database.query("SELECT sum(amount_nanousd) FROM tierway.unaccounted"), "0");
    // It goes on in a term of its own.
    client.check("a", day(1), 100, 60, (35, 100));
    assert!(client.term() > before);
}

#[test]
fn nobody_is_ended_for_an_outage_of_the_database() {
    let database = TestDatabase::new();
    let (first, _first_writing) = postgres(&database);
    let client = Client::at(first);
    client.check("a", day(1), 100, 60, (60, 60));
    let (second, _second_writing) = postgres(&database);
    Client::at(second).check("b", day(1), 100, 10, (10, 10));
    // For whoever looks, which happens every five seconds, the database was away a moment ago.
    let end = Clock.now() + Duration::from_secs(7);
    while Clock.now() < end {
        let away = "UPDATE tierway.replicas SET seen = seen - interval '1 h', steady = clock_timestamp()";
        database.query(away);
        assert_eq!(database.query("SELECT count(*) FROM tierway.replicas"), "2");
    }
    client.spend("a", day(1), 5, 60);
    until(&database, "SELECT spent_nanousd, leased_nanousd FROM tierway.budgets WHERE name = 'a'", "5|0");
    assert_eq!(database.query("SELECT count(*) FROM tierway.unaccounted"), "0");
}

/// A process may spend what it leased only while the database has seen it lately; then it leases anew, in a new term, and
/// nothing of the old one is spent.
#[tokio::test]
async fn what_was_leased_in_a_term_that_is_over_is_not_spent() {
    #[derive(Default)]
    struct Terms {
        lease_store: MemoryLeaseStore,
        term: AtomicI64,
    }
    impl LeaseStore for Terms {
        fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
            let Some(term) = self.term() else { return Box::pin(std::future::ready(Err(StoreUnavailable))) };
            let lease = self.lease_store.lease(request);
            Box::pin(async move { Ok(Lease { term, ..lease.await? }) })
        }
        fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
            // What is left of a term that is over counts as spent.
            if self.term() == Some(term) {
                self.lease_store.give_back(account, span, amount, term);
            }
        }
        fn settle(&self, _: &Arc<Receipt>) {}
        fn write_off(&self, charges: &[Charge]) {
            self.lease_store.write_off(charges);
        }
        fn term(&self) -> Option<LeaseTerm> {
            Some(LeaseTerm(self.term.load(Ordering::SeqCst))).filter(|term| term.0 > 0)
        }
    }
    let lease_store = Arc::new(Terms::default());
    lease_store.term.store(1, Ordering::SeqCst);
    let budget_pool = BudgetPool::new(lease_store.clone());
    let budget_account = budget_pool.budget_account(&daily(100), 0);
    let running = taken(&budget_pool, &budget_account, 30, 0).await.expect("it fits");
    lease_store.term.store(0, Ordering::SeqCst);
    let refused = budget_pool.hold(&FundingSources::budgets([budget_account.clone()]), NanoUsd(1), 0).await.err();
    assert_eq!(refused, Some(HoldError::Unavailable), "nothing may be spent");
    lease_store.term.store(2, Ordering::SeqCst);
    let taken_before = lease_store.lease_store.balance(budget_account.account(), day(0)).1.0;
    assert!(taken(&budget_pool, &budget_account, 101 - taken_before, 0).await.is_none(), "that is counted as spent");
    let anew = taken(&budget_pool, &budget_account, 100 - taken_before, 0).await.expect("the rest is leased anew");
    assert_eq!(running.settle(NanoUsd(30))[0].term, LeaseTerm(1));
    assert_eq!(anew.settle(NanoUsd(1))[0].term, LeaseTerm(2));
}

macro_rules! every_lease_store_promises {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $promise() {
                super::$promise(std::sync::Arc::new(super::MemoryLeaseStore::default()));
            })*
        }
        mod sqlite {
            $(#[test]
            fn $promise() {
                let place = tempfile::tempdir().expect("a folder");
                let (lease_store, _writing) = super::sqlite(&place);
                super::$promise(lease_store);
            })*
        }
        mod postgres {
            $(#[test]
            fn $promise() {
                let database = super::TestDatabase::new();
                let (lease_store, _writing) = super::postgres(&database);
                super::$promise(lease_store);
            })*
        }
    };
}

every_lease_store_promises!(
    what_is_spent_or_leased_cannot_be_leased_again,
    a_changed_limit_counts_from_the_next_lease,
    need_comes_before_what_is_ahead,
    a_window_that_ended_is_not_opened_again,
    concurrent_leases_keep_the_limit,
);
