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
use crate::domain::budget::{Account, Budget, Charge, OverBudget, Span, Standing, Window};
use crate::domain::money::NanoUsd;
use arc_swap::ArcSwap;
use drawer::{Drawer, Told};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Every account's till. Accounts are never forgotten: what was spent stays spent, over any reload.
pub struct Purse {
    bank: Arc<dyn Bank>,
    tills: RwLock<HashMap<Arc<Account>, Arc<Till>>>,
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
        Self { bank, tills: RwLock::default() }
    }

    /// The till of `budget`'s account. From now on its limit is this budget's, in the window running too.
    pub fn till(&self, budget: &Budget, now_unix_ms: i64) -> Arc<Till> {
        let mut tills = self.tills.write().unwrap_or_else(PoisonError::into_inner);
        let open = || Arc::new(Till::open(budget, self.bank.clone(), now_unix_ms));
        let till = tills.entry(budget.account.clone()).or_insert_with(open).clone();
        till.set_limit(budget.limit);
        till
    }

    /// Takes `amount` from each of `tills`, or from none.
    ///
    /// # Errors
    /// [`NoHold`]: the first till it does not fit in, or whose bank cannot be asked.
    pub async fn hold(&self, tills: &[Arc<Till>], amount: NanoUsd, now_unix_ms: i64) -> Result<Hold, NoHold> {
        let amount = NanoUsd(amount.0.max(0));
        let mut hold = Hold { parts: Vec::with_capacity(tills.len()), amount, sent: false };
        for till in tills {
            // A refusal drops what was taken so far, which goes back.
            hold.parts.push(till.take(amount, now_unix_ms).await?);
        }
        Ok(hold)
    }

    /// Gives back to the bank what nobody has used since it was last called, and all of windows that ended.
    pub fn tidy(&self, now_unix_ms: i64) {
        for till in self.all() {
            till.drawer_at(now_unix_ms).tidy();
        }
    }

    /// Gives everything back that is not held, at the end of the process.
    pub fn close(&self) {
        for till in self.all() {
            till.drawer.load().drain();
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

/// Money held for one attempt, in every budget it is paid from. Dropped, it costs all that it holds if
/// something was sent, and nothing otherwise.
#[must_use = "a hold that is dropped after sending costs what it holds"]
pub struct Hold {
    parts: Vec<Arc<Drawer>>,
    amount: NanoUsd,
    sent: bool,
}

impl Hold {
    /// How much is held in each budget.
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
        let held = self.amount;
        let charges = std::mem::take(&mut self.parts).into_iter().map(|drawer| drawer.settle(held, actual));
        charges.filter(|charge| charge.spent > NanoUsd::ZERO).collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(bank) = self.parts.first().map(|drawer| drawer.bank().clone()) else { return };
        if self.sent {
            let charges = self.end(self.amount);
            bank.write_off(&charges);
        } else {
            for drawer in std::mem::take(&mut self.parts) {
                drawer.release(self.amount);
            }
        }
    }
}

/// A panic elsewhere must not close an account.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
