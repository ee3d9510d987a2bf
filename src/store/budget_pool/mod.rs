//! The money that this process has leased from the lease store: requests hold and spend it in memory.
//!
//! Each account has a [`BudgetAccount`] with one [`BudgetWindow`] at a time. A request takes its hold from the
//! window with one compare-and-swap. A separate task leases ahead of need, so that a request waits for the lease
//! store only if its hold does not fit in what is leased. Who pays how much is decided in
//! [`domain::funding`](crate::domain::funding). No lock is held across an await, and nothing here waits for a disk.
//! It must never give out money that was not leased, and never lose a hold: a [`Hold`] ends exactly once, by being
//! settled, released or dropped.
//!
//! Start reading in [`BudgetPool::hold`], then `budget_window.rs`, which requests leases, and `balance.rs`, which
//! moves money.

mod balance;
mod budget_window;

/// The atomics of `balance.rs`; the model in `tests/budget_pool_model.rs` replaces them.
mod sync {
    pub use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
}

use super::LeaseStore;
use crate::domain::budget::{
    Account, AccountStatus, Budget, BudgetPeriod, Charge, CreditUse, LeaseTerm, OverBudget, Scope, WindowSpan,
};
use crate::domain::funding::{HoldSplit, credit_order};
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;
use arc_swap::ArcSwap;
use budget_window::{BudgetWindow, LeaseOutcome};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;

/// All accounts of this process. An account is never removed: what was spent stays spent over any reload.
pub struct BudgetPool {
    lease_store: Arc<dyn LeaseStore>,
    budget_accounts: RwLock<HashMap<Arc<Account>, Arc<BudgetAccount>>>,
    credit: ArcSwap<CreditAccounts>,
}

/// The credit accounts of everybody who was ever granted credit, by name.
#[derive(Clone, Default)]
struct CreditAccounts {
    keys: HashMap<Arc<str>, Arc<BudgetAccount>>,
    teams: HashMap<Arc<str>, Arc<BudgetAccount>>,
}

impl CreditAccounts {
    fn find(&self, scope: Scope, name: &Arc<str>) -> Option<Arc<BudgetAccount>> {
        match scope {
            Scope::Key => self.keys.get(name).cloned(),
            Scope::Team => self.teams.get(name).cloned(),
            // A policy has no credit.
            Scope::Policy => None,
        }
    }
}

/// The accounts that pay for a request.
#[derive(Clone, Default)]
pub struct FundingSources {
    /// In [`credit_order`].
    credit: [Option<Arc<BudgetAccount>>; 2],
    /// The key's name if only credit pays: a refusal names it where it has no credit.
    only: Option<Arc<str>>,
    /// Every one of them holds and pays the same share.
    budgets: Arc<[Arc<BudgetAccount>]>,
}

impl FundingSources {
    /// Budgets without credit.
    pub fn budgets(budgets: impl Into<Arc<[Arc<BudgetAccount>]>>) -> Self {
        Self { budgets: budgets.into(), ..Self::default() }
    }

    /// Whether nothing pays, so that no money must be held.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.only.is_none() && self.credit.iter().all(Option::is_none)
    }

    fn credit_use(&self) -> CreditUse {
        if self.only.is_some() { CreditUse::Only } else { CreditUse::First }
    }
}

/// Why there is no hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldError {
    /// A budget or credit has too little left.
    Over(OverBudget),
    /// It does not fit in what is leased, and the lease store cannot be reached.
    Unavailable,
}

impl BudgetPool {
    /// A pool without accounts that leases from `lease_store`.
    pub fn new(lease_store: Arc<dyn LeaseStore>) -> Self {
        Self { lease_store, budget_accounts: RwLock::default(), credit: ArcSwap::default() }
    }

    /// The account of `budget`, opened if it is new. Its limit becomes this budget's, in the current window too.
    pub fn budget_account(&self, budget: &Budget, now_unix_ms: i64) -> Arc<BudgetAccount> {
        let mut budget_accounts = self.budget_accounts.write();
        let open = || Arc::new(BudgetAccount::open(budget, self.lease_store.clone(), now_unix_ms));
        let budget_account = budget_accounts.entry(budget.account.clone()).or_insert_with(open).clone();
        budget_account.set_limit(budget.limit);
        budget_account
    }

    /// Sets the credit of each holder to the sum of its grants. Holders that are not listed keep theirs.
    pub fn set_credit(&self, granted: &[(Holder, NanoUsd)], now_unix_ms: i64) {
        let mut credit = CreditAccounts::clone(&self.credit.load());
        for (holder, granted) in granted {
            let budget_account = self.budget_account(&holder.credit(*granted), now_unix_ms);
            match holder.scope {
                Scope::Key => credit.keys.insert(holder.name.clone(), budget_account),
                Scope::Team => credit.teams.insert(holder.name.clone(), budget_account),
                // A policy has no credit.
                Scope::Policy => None,
            };
        }
        self.credit.store(Arc::new(credit));
    }

    /// The accounts that pay for requests of a key: its credit and its team's, used as `credit_use`, and `budgets`.
    pub fn funding(
        &self,
        key: &Arc<str>,
        team: Option<&Arc<str>>,
        credit_use: CreditUse,
        budgets: Arc<[Arc<BudgetAccount>]>,
    ) -> FundingSources {
        let credits = self.credit.load();
        let only = (credit_use == CreditUse::Only).then(|| key.clone());
        let credit = credit_order(key, team).map(|holder| holder.and_then(|(scope, name)| credits.find(scope, name)));
        FundingSources { credit, only, budgets }
    }

    /// Holds `amount`, divided over `funding` as [`HoldSplit`] says, or nothing at all.
    ///
    /// # Errors
    /// [`HoldError`]: the first account in which it does not fit, or whose lease store cannot be reached.
    pub async fn hold(&self, funding: &FundingSources, amount: NanoUsd, now_unix_ms: i64) -> Result<Hold, HoldError> {
        // On an error the hold is dropped, which returns what was taken so far.
        let mut hold = Hold::new(HoldSplit::new(amount, funding.credit_use()));
        for budget_account in funding.credit.iter().flatten() {
            let uncovered = hold.split.uncovered();
            if uncovered == NanoUsd::ZERO {
                break;
            }
            let (budget_window, part) = budget_account.take_part(uncovered, now_unix_ms).await?;
            hold.split.cover(part);
            hold.credit.push((budget_window, part));
        }
        if let Some(key) = funding.only.as_ref().filter(|_| hold.split.lacks_credit()) {
            let credits = hold.credit.iter().map(|(window, _)| (window.account().clone(), window.limit()));
            return Err(HoldError::Over(hold.split.refused_by_credit(key, credits)));
        }
        if let Some(share) = hold.split.budget_share() {
            hold.budgets.reserve_exact(funding.budgets.len());
            for budget_account in funding.budgets.iter() {
                match budget_account.take(share, now_unix_ms).await {
                    Ok(budget_window) => hold.budgets.push(budget_window),
                    Err(HoldError::Over(over)) => return Err(HoldError::Over(hold.split.refused_by_budget(over))),
                    Err(unavailable) => return Err(unavailable),
                }
            }
        }
        Ok(hold)
    }

    /// Returns leases that were not used since the last call, and everything leased of windows that ended.
    pub fn return_idle_leases(&self, now_unix_ms: i64) {
        for budget_account in self.all() {
            budget_account.window_at(now_unix_ms).return_idle();
        }
    }

    /// Returns everything that is not held, including leases still in flight. For the end of the process.
    pub async fn close(&self) {
        for budget_account in self.all() {
            let budget_window = budget_account.budget_window.load_full();
            budget_window.wait_for_leases().await;
            budget_window.drain();
        }
    }

    /// The status of every account, sorted by account.
    pub fn statuses(&self, now_unix_ms: i64) -> Vec<AccountStatus> {
        let mut all: Vec<_> =
            self.all().iter().map(|budget_account| budget_account.window_at(now_unix_ms).status()).collect();
        all.sort_by(|a, b| a.account.cmp(&b.account));
        all
    }

    fn all(&self) -> Vec<Arc<BudgetAccount>> {
        self.budget_accounts.read().values().cloned().collect()
    }
}

/// One account in this process, with its current window.
pub struct BudgetAccount {
    account: Arc<Account>,
    window: BudgetPeriod,
    lease_store: Arc<dyn LeaseStore>,
    budget_window: ArcSwap<BudgetWindow>,
    /// Held while the next window is opened or the limit is changed.
    switching: Mutex<()>,
}

impl BudgetAccount {
    fn open(budget: &Budget, lease_store: Arc<dyn LeaseStore>, now_unix_ms: i64) -> Self {
        let span = budget.window.at(now_unix_ms);
        let term = lease_store.term().unwrap_or_default();
        let budget_window = BudgetWindow::new(budget.account.clone(), (span, term), budget.limit, lease_store.clone());
        Self {
            account: budget.account.clone(),
            window: budget.window.clone(),
            lease_store,
            budget_window: ArcSwap::from_pointee(budget_window),
            switching: Mutex::new(()),
        }
    }

    /// The account it counts for.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    async fn take(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<Arc<BudgetWindow>, HoldError> {
        loop {
            let budget_window = self.window_at(now_unix_ms);
            if budget_window.take(amount) {
                budget_window.lease_ahead();
                return Ok(budget_window);
            }
            let outcome = budget_window.request_lease(amount).await;
            if budget_window.take(amount) {
                return Ok(budget_window);
            }
            match outcome {
                // Other requests took the lease, or the window ended meanwhile: try again.
                _ if budget_window.is_closed() => {}
                LeaseOutcome::Enough => {}
                LeaseOutcome::Later(span, term) => self.switch_to(span, term),
                LeaseOutcome::Short => return Err(HoldError::Over(budget_window.over(amount))),
                LeaseOutcome::Unavailable => return Err(HoldError::Unavailable),
            }
        }
    }

    /// Holds as much of `amount` as there is.
    async fn take_part(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<(Arc<BudgetWindow>, NanoUsd), HoldError> {
        loop {
            let budget_window = self.window_at(now_unix_ms);
            if budget_window.take(amount) {
                budget_window.lease_ahead();
                return Ok((budget_window, amount));
            }
            if budget_window.has_more() || !budget_window.may_spend() {
                match budget_window.request_lease(amount).await {
                    LeaseOutcome::Unavailable => return Err(HoldError::Unavailable),
                    LeaseOutcome::Later(span, term) => {
                        self.switch_to(span, term);
                        continue;
                    }
                    LeaseOutcome::Enough | LeaseOutcome::Short => {}
                }
            }
            if budget_window.may_spend() {
                let part = budget_window.take_part(amount);
                return Ok((budget_window, part));
            }
        }
    }

    /// The current window, in the current term. A clock that is set back does not reopen an earlier one.
    fn window_at(&self, now_unix_ms: i64) -> Arc<BudgetWindow> {
        let budget_window = self.budget_window.load_full();
        let (span, term) = (budget_window.span(), budget_window.term());
        let term_now = self.lease_store.term().unwrap_or(term);
        if now_unix_ms < span.end_ms && term_now == term {
            return budget_window;
        }
        let span = if now_unix_ms < span.end_ms { span } else { self.window.at(now_unix_ms) };
        self.switch_to(span, term_now);
        self.budget_window.load_full()
    }

    /// Opens the window of `span` in `term`, unless it or a later one is open.
    fn switch_to(&self, span: WindowSpan, term: LeaseTerm) {
        let _switching = self.switching.lock();
        let old = self.budget_window.load_full();
        let (was, term) = ((old.span().start_ms, old.term()), term.max(old.term()));
        if span.start_ms >= was.0 && (span.start_ms, term) != was {
            let opens = (span, term);
            let next = BudgetWindow::new(self.account.clone(), opens, old.limit(), self.lease_store.clone());
            self.budget_window.store(Arc::new(next));
            old.close();
        }
    }

    fn set_limit(&self, limit: NanoUsd) {
        let _switching = self.switching.lock();
        self.budget_window.load().set_limit(limit);
    }
}

/// Money held for one attempt, over all accounts that pay for it. If it is dropped after the attempt was sent, all
/// that it holds counts as spent; before, nothing does.
#[must_use = "a hold that is dropped after sending costs what it holds"]
pub struct Hold {
    split: HoldSplit,
    /// What is held of each credit, in the order in which it is spent.
    credit: Vec<(Arc<BudgetWindow>, NanoUsd)>,
    /// Each holds the budgets' share of `split`.
    budgets: Vec<Arc<BudgetWindow>>,
    sent: bool,
}

impl Hold {
    fn new(split: HoldSplit) -> Self {
        Self { split, credit: Vec::new(), budgets: Vec::new(), sent: false }
    }

    /// How much is held in all.
    pub fn amount(&self) -> NanoUsd {
        self.split.amount()
    }

    /// Marks the attempt as sent: from now on, dropping the hold spends all that it holds.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Marks that the attempt will not be charged; the hold may serve the next one.
    pub fn unsent(&mut self) {
        self.sent = false;
    }

    /// Ends the hold: `actual` was spent. The charges belong on the receipt, with which the lease store settles them.
    #[must_use = "a charge that is on no receipt stays leased until the next start"]
    pub fn settle(mut self, actual: NanoUsd) -> Vec<Charge> {
        self.end(actual)
    }

    /// Ends the hold: nothing was spent.
    pub fn release(mut self) {
        self.sent = false;
    }

    fn end(&mut self, actual: NanoUsd) -> Vec<Charge> {
        let (mut costs, share) = (self.split.charge(actual), self.budget_share());
        let credit = std::mem::take(&mut self.credit);
        let mut charges = Vec::with_capacity(credit.len() + self.budgets.len());
        let last = credit.len().saturating_sub(1);
        for (at, (budget_window, held)) in credit.into_iter().enumerate() {
            charges.push(budget_window.settle(held, costs.charge_credit(held, at == last)));
        }
        let budgets = std::mem::take(&mut self.budgets).into_iter();
        charges.extend(budgets.map(|budget_window| budget_window.settle(share, costs.budget_share())));
        charges.retain(|charge| charge.spent > NanoUsd::ZERO);
        charges
    }

    /// What each of `budgets` holds.
    fn budget_share(&self) -> NanoUsd {
        self.split.budget_share().unwrap_or(NanoUsd::ZERO)
    }

    fn lease_store(&self) -> Option<Arc<dyn LeaseStore>> {
        let credit = self.credit.iter().map(|(budget_window, _)| budget_window);
        credit.chain(&self.budgets).next().map(|budget_window| budget_window.lease_store().clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(lease_store) = self.lease_store() else { return };
        if self.sent {
            let charges = self.end(self.amount());
            lease_store.write_off(&charges);
        } else {
            for (budget_window, part) in std::mem::take(&mut self.credit) {
                budget_window.release(part);
            }
            let share = self.budget_share();
            for budget_window in std::mem::take(&mut self.budgets) {
                budget_window.release(share);
            }
        }
    }
}
