//! The process's own purse: budgets are spent from it in memory, and what it holds is leased from a bank.
//!
//! Each account has a till with one drawer per window. A request takes its hold from the drawer with one
//! compare-and-swap; the bank is asked ahead of time by a task of its own, so that a request waits for it
//! only when its hold does not fit in what is leased. No lock is held across an await, and nothing here
//! waits for a disk. It must never hand out money that was not leased, and never lose a hold: a [`Hold`]
//! settles exactly once, by whom it is given to or by being dropped.
//!
//! Start reading in [`BudgetPool::hold`], then `budget_window.rs`, where the bank is asked, and `balance.rs`, where money
//! moves.

mod balance;
mod budget_window;

/// Where `balance.rs` has its atomics from; its model has others.
mod sync {
    pub use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
}

use super::LeaseStore;
use crate::domain::budget::{
    Account, AccountStatus, Budget, BudgetPeriod, Charge, CreditUse, OverBudget, Scope, WindowSpan,
};
use crate::domain::funding::{HoldSplit, credit_order};
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;
use arc_swap::ArcSwap;
use budget_window::{BudgetWindow, LeaseOutcome};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;

/// Every account's till. Accounts are never forgotten: what was spent stays spent, over any reload.
pub struct BudgetPool {
    lease_store: Arc<dyn LeaseStore>,
    budget_accounts: RwLock<HashMap<Arc<Account>, Arc<BudgetAccount>>>,
    credit: ArcSwap<CreditAccounts>,
}

/// The tills of everybody who was ever granted credit.
#[derive(Clone, Default)]
struct CreditAccounts {
    keys: HashMap<Arc<str>, Arc<BudgetAccount>>,
    teams: HashMap<Arc<str>, Arc<BudgetAccount>>,
}

impl CreditAccounts {
    fn of(&self, scope: Scope, name: &Arc<str>) -> Option<Arc<BudgetAccount>> {
        match scope {
            Scope::Key => self.keys.get(name).cloned(),
            Scope::Team => self.teams.get(name).cloned(),
            // Nobody holds any for a policy.
            Scope::Policy => None,
        }
    }
}

/// Who pays for a request.
#[derive(Clone, Default)]
pub struct FundingSources {
    /// In [`credit_order`].
    credit: [Option<Arc<BudgetAccount>>; 2],
    /// The key's name where only credit pays.
    only: Option<Arc<str>>,
    /// Each of them holds the same share.
    budgets: Arc<[Arc<BudgetAccount>]>,
}

impl FundingSources {
    /// Budgets alone.
    pub fn budgets(budgets: impl Into<Arc<[Arc<BudgetAccount>]>>) -> Self {
        Self { budgets: budgets.into(), ..Self::default() }
    }

    /// Whether nobody has to.
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
    /// A budget has no room for it.
    Over(OverBudget),
    /// The bank cannot be asked, and it does not fit in what is leased.
    Unavailable,
}

impl BudgetPool {
    /// An empty purse that leases from `lease_store`.
    pub fn new(lease_store: Arc<dyn LeaseStore>) -> Self {
        Self { lease_store, budget_accounts: RwLock::default(), credit: ArcSwap::default() }
    }

    /// The till of `budget`'s account. From now on its limit is this budget's, in the window running too.
    pub fn budget_account(&self, budget: &Budget, now_unix_ms: i64) -> Arc<BudgetAccount> {
        let mut budget_accounts = self.budget_accounts.write();
        let open = || Arc::new(BudgetAccount::open(budget, self.lease_store.clone(), now_unix_ms));
        let budget_account = budget_accounts.entry(budget.account.clone()).or_insert_with(open).clone();
        budget_account.set_limit(budget.limit);
        budget_account
    }

    /// From now on credit is what was granted to each holder in all. Whoever is not named keeps theirs.
    pub fn set_credit(&self, granted: &[(Holder, NanoUsd)], now_unix_ms: i64) {
        let mut credit = CreditAccounts::clone(&self.credit.load());
        for (holder, granted) in granted {
            let budget_account = self.budget_account(&holder.credit(*granted), now_unix_ms);
            match holder.scope {
                Scope::Key => credit.keys.insert(holder.name.clone(), budget_account),
                Scope::Team => credit.teams.insert(holder.name.clone(), budget_account),
                // Nobody holds any for a policy.
                Scope::Policy => None,
            };
        }
        self.credit.store(Arc::new(credit));
    }

    /// Who pays for requests of a key: credit as `credit` says, and `budgets`.
    pub fn funding(
        &self,
        key: &Arc<str>,
        team: Option<&Arc<str>>,
        credit: CreditUse,
        budgets: Arc<[Arc<BudgetAccount>]>,
    ) -> FundingSources {
        let known = self.credit.load();
        let only = (credit == CreditUse::Only).then(|| key.clone());
        let credit = credit_order(key, team).map(|holder| holder.and_then(|(scope, name)| known.of(scope, name)));
        FundingSources { credit, only, budgets }
    }

    /// Holds `amount`: from credit as far as it reaches, and the rest in each budget; where credit alone pays,
    /// all of it from credit and all of it in each budget. Or nothing at all.
    ///
    /// # Errors
    /// [`HoldError`]: the first till it does not fit in, or whose bank cannot be asked.
    pub async fn hold(&self, funding: &FundingSources, amount: NanoUsd, now_unix_ms: i64) -> Result<Hold, HoldError> {
        // A refusal drops what was taken so far, which goes back.
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

    /// Gives back to the bank what nobody has used since it was last called, and all of windows that ended.
    pub fn tidy(&self, now_unix_ms: i64) {
        for budget_account in self.all() {
            budget_account.window_at(now_unix_ms).tidy();
        }
    }

    /// Gives everything back that is not held, also what is on its way, at the end of the process.
    pub async fn close(&self) {
        for budget_account in self.all() {
            let budget_window = budget_account.budget_window.load_full();
            budget_window.at_rest().await;
            budget_window.drain();
        }
    }

    /// How every account stands, by name.
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

/// One account's money in this process.
pub struct BudgetAccount {
    account: Arc<Account>,
    window: BudgetPeriod,
    lease_store: Arc<dyn LeaseStore>,
    budget_window: ArcSwap<BudgetWindow>,
    /// Whoever opens the next drawer, or changes the limit, holds it.
    moving: Mutex<()>,
}

impl BudgetAccount {
    fn open(budget: &Budget, lease_store: Arc<dyn LeaseStore>, now_unix_ms: i64) -> Self {
        let span = budget.window.at(now_unix_ms);
        let budget_window = BudgetWindow::new(budget.account.clone(), span, budget.limit, lease_store.clone());
        Self {
            account: budget.account.clone(),
            window: budget.window.clone(),
            lease_store,
            budget_window: ArcSwap::from_pointee(budget_window),
            moving: Mutex::new(()),
        }
    }

    /// Whose money it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    async fn take(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<Arc<BudgetWindow>, HoldError> {
        loop {
            let budget_window = self.window_at(now_unix_ms);
            if budget_window.take(amount) {
                budget_window.look_ahead();
                return Ok(budget_window);
            }
            let outcome = budget_window.ask(amount).await;
            if budget_window.take(amount) {
                return Ok(budget_window);
            }
            match outcome {
                // Others were quicker, or the window ended meanwhile: once more.
                _ if budget_window.is_closed() => {}
                LeaseOutcome::Enough => {}
                LeaseOutcome::Later(span) => self.move_to(span),
                LeaseOutcome::Short => return Err(HoldError::Over(budget_window.over(amount))),
                LeaseOutcome::Unavailable => return Err(HoldError::Unavailable),
            }
        }
    }

    /// Takes as much of `amount` as there is.
    async fn take_part(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<(Arc<BudgetWindow>, NanoUsd), HoldError> {
        let budget_window = self.window_at(now_unix_ms);
        if budget_window.take(amount) {
            budget_window.look_ahead();
            return Ok((budget_window, amount));
        }
        if budget_window.has_more() && budget_window.ask(amount).await == LeaseOutcome::Unavailable {
            return Err(HoldError::Unavailable);
        }
        let part = budget_window.take_part(amount);
        Ok((budget_window, part))
    }

    /// The drawer of the window that is running. A clock that jumps back finds the window it left.
    fn window_at(&self, now_unix_ms: i64) -> Arc<BudgetWindow> {
        let budget_window = self.budget_window.load_full();
        if now_unix_ms < budget_window.span().end_ms {
            return budget_window;
        }
        self.move_to(self.window.at(now_unix_ms));
        self.budget_window.load_full()
    }

    /// Opens the drawer of `span`, unless it, or a later one, is open.
    fn move_to(&self, span: WindowSpan) {
        let _moving = self.moving.lock();
        let old = self.budget_window.load_full();
        if span.start_ms > old.span().start_ms {
            let next = BudgetWindow::new(self.account.clone(), span, old.limit(), self.lease_store.clone());
            self.budget_window.store(Arc::new(next));
            old.close();
        }
    }

    fn set_limit(&self, limit: NanoUsd) {
        let _moving = self.moving.lock();
        self.budget_window.load().set_limit(limit);
    }
}

/// Money held for one attempt, wherever it is paid from. Dropped, it costs all that it holds if something was
/// sent, and nothing otherwise.
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

    /// Whether something was sent for it.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    /// Notes that something is being sent: from now on dropping it costs all that it holds.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Notes that what was sent will not be charged for; it may serve the next attempt.
    pub fn unsent(&mut self) {
        self.sent = false;
    }

    /// Ends it: `actual` was spent. The charges belong on the receipt, with which the bank settles them.
    #[must_use = "what no receipt says stays leased for ever"]
    pub fn settle(mut self, actual: NanoUsd) -> Vec<Charge> {
        self.end(actual)
    }

    /// Ends it: nothing was spent.
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
