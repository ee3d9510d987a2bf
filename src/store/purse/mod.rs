//! The process's own purse: budgets are spent from it in memory, and what it holds is leased from a bank.
//!
//! Each account has a till with one drawer per window. A request takes its hold from the drawer with one
//! compare-and-swap; the bank is asked ahead of time by a task of its own, so that a request waits for it
//! only when its hold does not fit in what is leased. No lock is held across an await, and nothing here
//! waits for a disk. It must never hand out money that was not leased, and never lose a hold: a [`Hold`]
//! settles exactly once, by whom it is given to or by being dropped.
//!
//! Start reading in [`Purse::hold`], then `drawer.rs`, where the bank is asked, and `coins.rs`, where money
//! moves.

mod coins;
mod drawer;

/// Where `coins.rs` has its atomics from; its model has others.
mod sync {
    pub use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
}

use super::Bank;
use crate::domain::budget::{Account, Budget, Charge, CreditUse, OverBudget, Scope, Span, Standing, Window};
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;
use arc_swap::ArcSwap;
use drawer::{Drawer, Told};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Every account's till. Accounts are never forgotten: what was spent stays spent, over any reload.
pub struct Purse {
    bank: Arc<dyn Bank>,
    tills: RwLock<HashMap<Arc<Account>, Arc<Till>>>,
    credit: ArcSwap<Credit>,
}

/// The tills of everybody who was ever granted credit.
#[derive(Clone, Default)]
struct Credit {
    keys: HashMap<Arc<str>, Arc<Till>>,
    teams: HashMap<Arc<str>, Arc<Till>>,
}

/// Who pays for a request.
#[derive(Clone, Default)]
pub struct Payers {
    /// The key's credit, then its team's.
    credit: [Option<Arc<Till>>; 2],
    /// The key, where nothing but credit pays.
    only: Option<Arc<str>>,
    /// Ceilings, each on all that credit does not pay; on everything where only credit pays.
    budgets: Arc<[Arc<Till>]>,
}

impl Payers {
    /// Budgets alone.
    pub fn budgets(budgets: impl Into<Arc<[Arc<Till>]>>) -> Self {
        Self { budgets: budgets.into(), ..Self::default() }
    }

    /// Whether nobody has to.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.only.is_none() && self.credit.iter().all(Option::is_none)
    }
}

/// Why there is no hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoHold {
    /// A budget has no room for it.
    Over(OverBudget),
    /// The bank cannot be asked, and it does not fit in what is leased.
    Unavailable,
}

impl Purse {
    /// An empty purse that leases from `bank`.
    pub fn new(bank: Arc<dyn Bank>) -> Self {
        Self { bank, tills: RwLock::default(), credit: ArcSwap::default() }
    }

    /// The till of `budget`'s account. From now on its limit is this budget's, in the window running too.
    pub fn till(&self, budget: &Budget, now_unix_ms: i64) -> Arc<Till> {
        let mut tills = self.tills.write().unwrap_or_else(PoisonError::into_inner);
        let open = || Arc::new(Till::open(budget, self.bank.clone(), now_unix_ms));
        let till = tills.entry(budget.account.clone()).or_insert_with(open).clone();
        till.set_limit(budget.limit);
        till
    }

    /// From now on credit is what was granted to each holder in all. Whoever is not named keeps theirs.
    pub fn set_credit(&self, granted: &[(Holder, NanoUsd)], now_unix_ms: i64) {
        let mut credit = Credit::clone(&self.credit.load());
        for (holder, granted) in granted {
            let till = self.till(&holder.credit(*granted), now_unix_ms);
            match holder.scope {
                Scope::Key => credit.keys.insert(holder.name.clone(), till),
                Scope::Team => credit.teams.insert(holder.name.clone(), till),
                // Nobody holds any for a policy.
                Scope::Policy => None,
            };
        }
        self.credit.store(Arc::new(credit));
    }

    /// Who pays for requests of a key: credit as `credit` says, and `budgets`.
    pub fn payers(
        &self,
        key: &Arc<str>,
        team: Option<&Arc<str>>,
        credit: CreditUse,
        budgets: Arc<[Arc<Till>]>,
    ) -> Payers {
        let known = self.credit.load();
        let of_key = known.keys.get(key).cloned();
        let of_team = team.and_then(|team| known.teams.get(team)).cloned();
        let only = (credit == CreditUse::Only).then(|| key.clone());
        Payers { credit: [of_key, of_team], only, budgets }
    }

    /// Holds `amount`: from credit as far as it reaches, and the rest in each budget; where credit alone pays,
    /// all of it from credit and all of it in each budget. Or nothing at all.
    ///
    /// # Errors
    /// [`NoHold`]: the first till it does not fit in, or whose bank cannot be asked.
    pub async fn hold(&self, payers: &Payers, amount: NanoUsd, now_unix_ms: i64) -> Result<Hold, NoHold> {
        let amount = NanoUsd(amount.0.max(0));
        let only = payers.only.is_some();
        // A refusal drops what was taken so far, which goes back.
        let mut hold = Hold::nothing_of(amount, only);
        let mut rest = amount;
        for till in payers.credit.iter().flatten() {
            if rest == NanoUsd::ZERO {
                break;
            }
            let (drawer, part) = till.take_part(rest, now_unix_ms).await?;
            rest.0 -= part.0;
            hold.credit.push((drawer, part));
        }
        if let Some(key) = payers.only.as_ref().filter(|_| rest > NanoUsd::ZERO) {
            return Err(NoHold::Over(hold.over_credit(key)));
        }
        hold.in_budgets = if only { amount } else { rest };
        if hold.in_budgets > NanoUsd::ZERO || hold.credit.is_empty() {
            hold.budgets.reserve_exact(payers.budgets.len());
            for till in payers.budgets.iter() {
                match till.take(hold.in_budgets, now_unix_ms).await {
                    Ok(drawer) => hold.budgets.push(drawer),
                    Err(NoHold::Over(over)) => return Err(NoHold::Over(hold.beside_credit(over))),
                    Err(unavailable) => return Err(unavailable),
                }
            }
        }
        Ok(hold)
    }

    /// Gives back to the bank what nobody has used since it was last called, and all of windows that ended.
    pub fn tidy(&self, now_unix_ms: i64) {
        for till in self.all() {
            till.drawer_at(now_unix_ms).tidy();
        }
    }

    /// Gives everything back that is not held, also what is on its way, at the end of the process.
    pub async fn close(&self) {
        for till in self.all() {
            let drawer = till.drawer.load_full();
            drawer.at_rest().await;
            drawer.drain();
        }
    }

    /// How every account stands, by name.
    pub fn standings(&self, now_unix_ms: i64) -> Vec<Standing> {
        let mut all: Vec<_> = self.all().iter().map(|till| till.drawer_at(now_unix_ms).standing()).collect();
        all.sort_by(|a, b| a.account.cmp(&b.account));
        all
    }

    fn all(&self) -> Vec<Arc<Till>> {
        self.tills.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// One account's money in this process.
pub struct Till {
    account: Arc<Account>,
    window: Window,
    bank: Arc<dyn Bank>,
    drawer: ArcSwap<Drawer>,
    /// Whoever opens the next drawer, or changes the limit, holds it.
    moving: Mutex<()>,
}

impl Till {
    fn open(budget: &Budget, bank: Arc<dyn Bank>, now_unix_ms: i64) -> Self {
        let span = budget.window.at(now_unix_ms);
        let drawer = Drawer::new(budget.account.clone(), span, budget.limit, bank.clone());
        Self {
            account: budget.account.clone(),
            window: budget.window.clone(),
            bank,
            drawer: ArcSwap::from_pointee(drawer),
            moving: Mutex::new(()),
        }
    }

    /// Whose money it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    async fn take(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<Arc<Drawer>, NoHold> {
        loop {
            let drawer = self.drawer_at(now_unix_ms);
            if drawer.take(amount) {
                drawer.look_ahead();
                return Ok(drawer);
            }
            let told = drawer.ask(amount).await;
            if drawer.take(amount) {
                return Ok(drawer);
            }
            match told {
                // Others were quicker, or the window ended meanwhile: once more.
                _ if drawer.is_closed() => {}
                Told::Enough => {}
                Told::Later(span) => self.move_to(span),
                Told::Short => return Err(NoHold::Over(drawer.over(amount))),
                Told::Unavailable => return Err(NoHold::Unavailable),
            }
        }
    }

    /// Takes as much of `amount` as there is.
    async fn take_part(&self, amount: NanoUsd, now_unix_ms: i64) -> Result<(Arc<Drawer>, NanoUsd), NoHold> {
        let drawer = self.drawer_at(now_unix_ms);
        if drawer.take(amount) {
            drawer.look_ahead();
            return Ok((drawer, amount));
        }
        if drawer.has_more() && drawer.ask(amount).await == Told::Unavailable {
            return Err(NoHold::Unavailable);
        }
        let part = drawer.take_part(amount);
        Ok((drawer, part))
    }

    /// The drawer of the window that is running. A clock that jumps back finds the window it left.
    fn drawer_at(&self, now_unix_ms: i64) -> Arc<Drawer> {
        let drawer = self.drawer.load_full();
        if now_unix_ms < drawer.span().end_ms {
            return drawer;
        }
        self.move_to(self.window.at(now_unix_ms));
        self.drawer.load_full()
    }

    /// Opens the drawer of `span`, unless it, or a later one, is open.
    fn move_to(&self, span: Span) {
        let _moving = lock(&self.moving);
        let old = self.drawer.load_full();
        if span.start_ms > old.span().start_ms {
            let next = Drawer::new(self.account.clone(), span, old.limit(), self.bank.clone());
            self.drawer.store(Arc::new(next));
            old.close();
        }
    }

    fn set_limit(&self, limit: NanoUsd) {
        let _moving = lock(&self.moving);
        self.drawer.load().set_limit(limit);
    }
}

/// Money held for one attempt, wherever it is paid from. Dropped, it costs all that it holds if something was
/// sent, and nothing otherwise.
#[must_use = "a hold that is dropped after sending costs what it holds"]
pub struct Hold {
    amount: NanoUsd,
    /// What is held of each credit, in the order in which it is spent.
    credit: Vec<(Arc<Drawer>, NanoUsd)>,
    budgets: Vec<Arc<Drawer>>,
    /// What is held in each budget.
    in_budgets: NanoUsd,
    /// Whether only credit pays.
    only: bool,
    sent: bool,
}

impl Hold {
    fn nothing_of(amount: NanoUsd, only: bool) -> Self {
        let (credit, budgets) = (Vec::new(), Vec::new());
        Self { amount, credit, budgets, in_budgets: NanoUsd::ZERO, only, sent: false }
    }

    /// How much is held in all.
    pub fn amount(&self) -> NanoUsd {
        self.amount
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
        self.end(NanoUsd(actual.0.max(0)))
    }

    /// Ends it: nothing was spent.
    pub fn release(mut self) {
        self.sent = false;
    }

    fn end(&mut self, actual: NanoUsd) -> Vec<Charge> {
        let credit = std::mem::take(&mut self.credit);
        let mut charges = Vec::with_capacity(credit.len() + self.budgets.len());
        let (mut rest, last) = (actual, credit.len().saturating_sub(1));
        for (at, (drawer, held)) in credit.into_iter().enumerate() {
            // What a provider served beyond the hold is the last one's, where nobody else pays.
            let spent = if self.only && at == last { rest } else { rest.min(held) };
            rest.0 -= spent.0;
            charges.push(drawer.settle(held, spent));
        }
        let spent = if self.only { actual } else { rest };
        let budgets = std::mem::take(&mut self.budgets).into_iter();
        charges.extend(budgets.map(|drawer| drawer.settle(self.in_budgets, spent)));
        charges.retain(|charge| charge.spent > NanoUsd::ZERO);
        charges
    }

    /// A refusal of a key that only credit pays for; all that is left is in hand.
    fn over_credit(&self, key: &Arc<str>) -> OverBudget {
        let nobody = || Arc::new(Holder { scope: Scope::Key, name: key.clone() }.account());
        let first = self.credit.first().map(|(drawer, _)| drawer);
        OverBudget {
            account: first.map_or_else(nobody, |drawer| drawer.account().clone()),
            limit: NanoUsd(self.credit.iter().map(|(drawer, _)| drawer.limit().0).sum()),
            left: self.of_credit(),
            wanted: self.amount,
            ends_unix_ms: None,
        }
    }

    /// A budget's refusal of what credit left over: what may be spent is what both have.
    fn beside_credit(&self, over: OverBudget) -> OverBudget {
        let credit = if self.only { NanoUsd::ZERO } else { self.of_credit() };
        OverBudget { left: NanoUsd(over.left.0.saturating_add(credit.0)), wanted: self.amount, ..over }
    }

    fn of_credit(&self) -> NanoUsd {
        NanoUsd(self.credit.iter().map(|(_, part)| part.0).sum())
    }

    fn bank(&self) -> Option<Arc<dyn Bank>> {
        let credit = self.credit.iter().map(|(drawer, _)| drawer);
        credit.chain(&self.budgets).next().map(|drawer| drawer.bank().clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(bank) = self.bank() else { return };
        if self.sent {
            let charges = self.end(self.amount);
            bank.write_off(&charges);
        } else {
            for (drawer, part) in std::mem::take(&mut self.credit) {
                drawer.release(part);
            }
            for drawer in std::mem::take(&mut self.budgets) {
                drawer.release(self.in_budgets);
            }
        }
    }
}

/// A panic elsewhere must not close an account.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
