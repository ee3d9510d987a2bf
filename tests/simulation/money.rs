//! The budgets of a day: the real budget pool over a lease store that fails at times, and crashes that lose leases.
//!
//! It must never check an invariant: it reports what is held, settled and served to [`ExpectedBalances`], which counts for
//! itself. The rules of payment are those of `relay/spend.rs`. The futures of the budget pool run on a runtime
//! with one thread and no clock, so that a day stays repeatable.
//! Start reading in [`BudgetSimulation::hold`].

use crate::expected_balances::{ExpectedBalances, Violated};
use crate::mutant::Mutant;
use crate::world::{Money, SimRng, World};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tierway::domain::budget::{Account, Budget, Charge, LeaseTerm, WindowSpan};
use tierway::domain::money::{NanoUsd, PicoUsdPerToken};
use tierway::domain::pricing::Price;
use tierway::domain::receipt::Receipt;
use tierway::domain::usage::Usage;
use tierway::store::budget_pool::{BudgetAccount, BudgetPool, FundingSources, Hold, HoldError};
use tierway::store::memory_lease_store::MemoryLeaseStore;
use tierway::store::{Lease, LeaseRequest, LeaseStore, StoreFuture, StoreUnavailable};
use tokio::runtime::Runtime;

/// The longest answer, in tokens.
const CEILING: u64 = 1_000;

/// The cost of `input` and `output` tokens of `model`.
pub fn cost(model: &str, input: u64, output: u64) -> NanoUsd {
    let times = match model {
        "tiny" => 1,
        "flash" => 2,
        "qwen" => 5,
        _ => 11,
    };
    let [input_price, output_price] = [125_333, 500_777].map(|pico| PicoUsdPerToken(pico * times));
    let price = Price { input: input_price, cached_input: input_price, output: output_price, ..Price::default() };
    price.cost(Usage { input, output, ..Usage::default() })
}

/// More than a provider counts in a request of `size` tokens.
pub fn input_bound(size: u64) -> u64 {
    size + size / 4
}

/// The most that a request of `size` tokens costs at `model`.
pub fn worst(model: &str, size: u64) -> NanoUsd {
    cost(model, input_bound(size), CEILING)
}

/// The result of asking for a hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Held,
    Over,
    Unavailable,
}

/// One process's budget pool, and the lease store that outlives the process.
pub struct BudgetSimulation<'w> {
    world: &'w World,
    mutant: Option<Mutant>,
    runtime: Runtime,
    lease_store: Arc<FlakyLeaseStore>,
    budget_pool: BudgetPool,
    /// What is configured now: by client, its budgets and their accounts.
    budgets: Vec<Vec<Budget>>,
    budget_accounts: Vec<Vec<Arc<BudgetAccount>>>,
    /// By request.
    holds: Vec<RequestHolds>,
    /// The number of holds made.
    made: u64,
    expected_balances: ExpectedBalances,
    /// For random usage.
    rng: SimRng,
}

/// What one request holds: for each attempt that runs, and one that is not used yet.
#[derive(Default)]
struct RequestHolds {
    spare: Option<NumberedHold>,
    /// With the number of the attempt.
    running: Vec<(u32, NumberedHold)>,
}

struct NumberedHold {
    number: u64,
    hold: Hold,
}

impl RequestHolds {
    fn take(&mut self, attempt: u32) -> Option<NumberedHold> {
        let index = self.running.iter().position(|(number, _)| *number == attempt)?;
        Some(self.running.remove(index).1)
    }

    fn number_of(&self, attempt: u32) -> Option<u64> {
        self.running.iter().find(|(number, _)| *number == attempt).map(|(_, held)| held.number)
    }
}

impl<'w> BudgetSimulation<'w> {
    /// The budgets of the day of `world`, unless none of its keys has one.
    pub fn of(world: &'w World, mutant: Option<Mutant>) -> Option<Self> {
        let lease_store = Arc::new(FlakyLeaseStore::new(&world.money, world.seed, mutant));
        (!world.money.budgets.is_empty()).then(|| Self {
            world,
            mutant,
            runtime: runtime(),
            budget_pool: BudgetPool::new(lease_store.clone()),
            lease_store,
            budgets: Vec::new(),
            budget_accounts: Vec::new(),
            holds: world.planned_requests.iter().map(|_| RequestHolds::default()).collect(),
            made: 0,
            expected_balances: ExpectedBalances::default(),
            rng: SimRng::seeded(world.seed ^ 0x6c75_636b),
        })
    }

    /// Applies the limits of the table at `index`.
    pub fn reload(&mut self, index: usize, now: Duration) {
        let budgets = self.world.money.budgets.iter();
        let scaled = |budget: &Budget| Budget { limit: self.world.money.limit(budget, index), ..budget.clone() };
        self.budgets = budgets.map(|of_client| of_client.iter().map(scaled).collect()).collect();
        self.open_budget_accounts(now);
    }

    fn open_budget_accounts(&mut self, now: Duration) {
        let clock = self.world.money.clock(now);
        let open = |budget: &Budget| self.budget_pool.budget_account(budget, clock);
        self.budget_accounts = self.budgets.iter().map(|of_client| of_client.iter().map(open).collect()).collect();
        self.open_current_windows(clock);
    }

    /// Opens the current windows, where one has ended: reading the account statuses does that.
    fn open_current_windows(&mut self, clock: i64) {
        if self.expected_balances.has_ended(clock) {
            self.budget_pool.statuses(clock);
            for budget in self.budgets.iter().flatten() {
                self.expected_balances.window(budget, clock, self.lease_store.latest(&budget.account));
            }
        }
    }

    /// Holds `amount` for `request` in every budget of its client, for an attempt to come.
    pub fn hold(&mut self, request: usize, amount: NanoUsd, now: Duration) -> Result<Answer, Violated> {
        let (client, clock) = (self.world.planned_requests[request].key, self.world.money.clock(now));
        self.open_current_windows(clock);
        let held = self.runtime.block_on(self.budget_pool.hold(
            &FundingSources::budgets(self.budget_accounts[client].clone()),
            amount,
            clock,
        ));
        match held {
            Ok(hold) => {
                self.made += 1;
                self.holds[request].spare = Some(NumberedHold { number: self.made, hold });
                self.expected_balances.held(self.made, &self.budgets[client], amount)?;
                Ok(Answer::Held)
            }
            Err(HoldError::Over(_)) => Ok(Answer::Over),
            Err(HoldError::Unavailable) => Ok(Answer::Unavailable),
        }
    }

    /// How much `request` holds for an attempt to come.
    pub fn spare(&self, request: usize) -> Option<NanoUsd> {
        self.holds[request].spare.as_ref().map(|held| held.hold.amount())
    }

    /// Attempt `attempt`, which can cost `worst`, is sent under what `request` holds for it.
    pub fn sent(&mut self, request: usize, attempt: u32, worst: NanoUsd) -> Result<(), Violated> {
        let holds = &mut self.holds[request];
        let mut number = None;
        if let Some(mut held) = holds.spare.take() {
            held.hold.sent();
            number = Some(held.number);
            holds.running.push((attempt, held));
        }
        self.expected_balances.sent(request, number, worst)
    }

    /// That attempt will not be charged for: the larger of what is held now is kept for another one.
    pub fn unsent(&mut self, request: usize, attempt: u32) {
        let Some(mut held) = self.holds[request].take(attempt) else { return };
        held.hold.unsent();
        match &self.holds[request].spare {
            Some(spare) if spare.hold.amount() >= held.hold.amount() => self.give_back(held),
            _ => {
                if let Some(smaller) = self.holds[request].spare.replace(held) {
                    self.give_back(smaller);
                }
            }
        }
    }

    /// How many tokens a provider answers with, and whether it reports them.
    pub fn writes(&mut self) -> (u64, bool) {
        (self.rng.below(CEILING + 1), self.rng.random(85))
    }

    /// A provider charges `amount` for an attempt of `request`.
    pub fn served(&mut self, request: usize, attempt: u32, amount: NanoUsd) {
        if let Some(number) = self.holds[request].number_of(attempt) {
            self.expected_balances.served(number, amount);
        }
    }

    /// Settles the hold of an attempt of `request` with `actual`.
    pub fn settle(&mut self, request: usize, attempt: u32, actual: NanoUsd, now: Duration) -> Result<(), Violated> {
        let Some(NumberedHold { number, hold }) = self.holds[request].take(attempt) else { return Ok(()) };
        let mut charges = hold.settle(actual);
        if self.mutant == Some(Mutant::ChargesTheCurrentWindow) {
            let windows = self.budgets[self.world.planned_requests[request].key].iter().map(|budget| &budget.window);
            let clock = self.world.money.clock(now);
            charges.iter_mut().zip(windows).for_each(|(charge, window)| charge.span = window.at(clock));
        }
        self.lease_store.write_off(&charges);
        self.expected_balances.settled(number, actual, &charges)
    }

    /// Releases what `request` holds for an attempt to come, if anything.
    pub fn release(&mut self, request: usize) {
        if let Some(spare) = self.holds[request].spare.take() {
            self.give_back(spare);
        }
    }

    fn give_back(&mut self, held: NumberedHold) {
        held.hold.release();
        self.expected_balances.released(held.number);
    }

    /// The client of `request` disconnected.
    pub fn forget(&mut self, request: usize) {
        if self.mutant == Some(Mutant::LeaksHolds) {
            std::mem::forget(std::mem::take(&mut self.holds[request]));
        }
    }

    /// Returns idle leases.
    pub fn tidy(&mut self, now: Duration) {
        let clock = self.world.money.clock(now);
        self.open_current_windows(clock);
        self.budget_pool.return_idle_leases(clock);
    }

    /// The process is killed and started again: its holds and leases are lost.
    pub fn crash(&mut self, now: Duration) -> Result<(), Violated> {
        self.holds.iter_mut().for_each(|holds| std::mem::forget(std::mem::take(holds)));
        self.runtime = runtime();
        self.lease_store.book_leases_as_spent();
        self.budget_pool = BudgetPool::new(self.lease_store.clone());
        let kept = self.expected_balances.crashed(|account, span| self.lease_store.spent(account, span));
        self.open_budget_accounts(now);
        kept
    }

    /// The process stops normally.
    pub fn close(self) -> Result<(), Violated> {
        self.runtime.block_on(self.budget_pool.close());
        self.expected_balances
            .close(self.lease_store.inner.leased(), |account, span| self.lease_store.spent(account, span))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing of the system")
}

/// A memory lease store that fails at times, and knows what a crash leaves.
struct FlakyLeaseStore {
    inner: MemoryLeaseStore,
    mutant: Option<Mutant>,
    /// How often it fails, in percent.
    fails: u64,
    records: Mutex<LeaseRecords>,
}

/// What the lease store was asked for.
struct LeaseRecords {
    rng: SimRng,
    rows: BTreeMap<(Arc<Account>, WindowSpan), WindowTotals>,
}

#[derive(Clone, Copy, Default)]
struct WindowTotals {
    spent: i64,
    leased: i64,
}

impl FlakyLeaseStore {
    fn new(money: &Money, seed: u64, mutant: Option<Mutant>) -> Self {
        let records = LeaseRecords { rng: SimRng::seeded(seed ^ 0x6261_6e6b), rows: BTreeMap::new() };
        Self {
            inner: MemoryLeaseStore::default(),
            mutant,
            fails: money.lease_store_fails,
            records: Mutex::new(records),
        }
    }

    fn records(&self) -> MutexGuard<'_, LeaseRecords> {
        self.records.lock().expect("no thread panics with it")
    }

    /// The latest window that a lease was asked for.
    fn latest(&self, account: &Arc<Account>) -> Option<WindowSpan> {
        self.records().rows.keys().rev().find(|(of, _)| of == account).map(|(_, span)| *span)
    }

    fn spent(&self, account: &Arc<Account>, span: WindowSpan) -> NanoUsd {
        NanoUsd(self.records().rows.get(&(account.clone(), span)).map_or(0, |row| row.spent))
    }

    fn book_leases_as_spent(&self) {
        let rows: Vec<_> = self.records().rows.iter().map(|(key, row)| (key.clone(), row.leased)).collect();
        let left = rows.into_iter().filter(|(_, leased)| *leased > 0);
        let charge = |((account, span), leased)| Charge {
            account,
            span,
            spent: NanoUsd(leased),
            leased: NanoUsd(leased),
            term: LeaseTerm::default(),
        };
        let charges: Vec<Charge> = left.map(charge).collect();
        self.write_off(&charges);
    }

    fn book(&self, account: &Arc<Account>, span: WindowSpan, leased: i64, spent: i64) {
        let mut records = self.records();
        let row = records.rows.entry((account.clone(), span)).or_default();
        row.leased += leased;
        row.spent += spent;
    }
}

impl LeaseStore for FlakyLeaseStore {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        if self.records().rng.random(self.fails) {
            return Box::pin(std::future::ready(Err(StoreUnavailable)));
        }
        // Granted before the answer arrives: a crash in between leaves a lease that no process knows.
        let (account, limit) = (ask.account.clone(), ask.limit);
        let forgets = self.mutant == Some(Mutant::LeasesBeyondTheLimit);
        let ask = if forgets { LeaseRequest { limit: NanoUsd(limit.0 * 2), ..ask } } else { ask };
        let Poll::Ready(Ok(leased)) = self.inner.lease(ask).as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            unreachable!("the memory lease store answers at once");
        };
        self.book(&account, leased.span, leased.amount.0, 0);
        let taken = if forgets { leased.taken.min(limit) } else { leased.taken };
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Lease { taken, ..leased })
        })
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
        self.book(account, span, -amount.0, 0);
        self.inner.give_back(account, span, amount, term);
    }

    fn settle(&self, receipt: &Arc<Receipt>) {
        self.write_off(&receipt.charges);
    }

    fn write_off(&self, charges: &[Charge]) {
        for charge in charges {
            self.book(&charge.account, charge.span, -charge.leased.0, charge.spent.0);
        }
        self.inner.write_off(charges);
    }
}
