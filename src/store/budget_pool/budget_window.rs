//! One window of an account in this process: its coins, and how the bank is asked for more of them.
//!
//! The bank is asked in rounds, by one task at a time, for all who wait and for those who may come. It must
//! never lose a lease that is on its way, whoever leaves meanwhile, and never leave anybody waiting.
//!
//! Start reading in [`BudgetWindow::ask`], then [`BudgetWindow::round`].

use super::balance::WindowBalance;
use crate::domain::budget::{Account, AccountStatus, Charge, OverBudget, WindowSpan, lease_ahead};
use crate::domain::money::NanoUsd;
use crate::store::{LeaseRequest, LeaseStore};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// One window of an account.
pub struct BudgetWindow {
    account: Arc<Account>,
    span: WindowSpan,
    lease_store: Arc<dyn LeaseStore>,
    balance: WindowBalance,
    used: AtomicBool,
    asking: AtomicBool,
    needs: Mutex<LeaseNeeds>,
    rounds: watch::Sender<LeaseRound>,
}

/// What the bank is to be asked for next.
#[derive(Default)]
struct LeaseNeeds {
    need: i64,
    ahead: bool,
    /// Rounds begun so far.
    begun: u64,
}

/// What the bank said, and when.
#[derive(Clone, Copy)]
struct LeaseRound {
    number: u64,
    outcome: LeaseOutcome,
}

/// What came of asking the bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseOutcome {
    /// All that was asked for.
    Enough,
    /// All there is.
    Short,
    /// A later window is running than this one.
    Later(WindowSpan),
    /// The bank could not be asked.
    Unavailable,
}

impl BudgetWindow {
    /// A drawer with nothing in it.
    pub fn new(account: Arc<Account>, span: WindowSpan, limit: NanoUsd, lease_store: Arc<dyn LeaseStore>) -> Self {
        Self {
            account,
            span,
            lease_store,
            balance: WindowBalance::new(limit.0),
            used: AtomicBool::new(true),
            asking: AtomicBool::new(false),
            needs: Mutex::default(),
            rounds: watch::Sender::new(LeaseRound { number: 0, outcome: LeaseOutcome::Enough }),
        }
    }

    /// Whose money it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The window whose money it is.
    pub fn span(&self) -> WindowSpan {
        self.span
    }

    /// The bank it leases from.
    pub fn lease_store(&self) -> &Arc<dyn LeaseStore> {
        &self.lease_store
    }

    /// How much may be spent in the window.
    pub fn limit(&self) -> NanoUsd {
        NanoUsd(self.balance.limit())
    }

    /// Whether the window has ended.
    pub fn is_closed(&self) -> bool {
        self.balance.is_closed()
    }

    /// Takes `amount` if it is free.
    pub fn take(&self, amount: NanoUsd) -> bool {
        let taken = self.balance.take(amount.0);
        if taken && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Takes as much of `amount` as is free.
    pub fn take_part(&self, amount: NanoUsd) -> NanoUsd {
        self.used.store(true, Ordering::Relaxed);
        NanoUsd(self.balance.take_part(amount.0))
    }

    /// Whether the bank may have more than what is leased.
    pub fn has_more(&self) -> bool {
        self.balance.has_more()
    }

    /// Ends a hold of `held` that cost `actual`.
    pub fn settle(&self, held: NanoUsd, actual: NanoUsd) -> Charge {
        let settled = self.balance.settle(held.0, actual.0);
        self.give_back(settled.back);
        Charge { account: self.account.clone(), span: self.span, spent: actual, leased: NanoUsd(settled.leased) }
    }

    /// Ends a hold of `held` that cost nothing.
    pub fn release(&self, held: NanoUsd) {
        self.give_back(self.balance.release(held.0));
    }

    /// From now on this much may be spent in the window.
    pub fn set_limit(&self, limit: NanoUsd) {
        self.give_back(self.balance.set_limit(limit.0));
    }

    /// Gives back what nobody has used since this was last called.
    pub fn tidy(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.drain();
        }
    }

    /// Waits until nothing is on its way from the bank.
    pub async fn at_rest(&self) {
        let mut rounds = self.rounds.subscribe();
        while self.asking.load(Ordering::SeqCst) {
            if rounds.changed().await.is_err() {
                return;
            }
        }
    }

    /// Gives back all that is free.
    pub fn drain(&self) {
        self.give_back(self.balance.drain());
    }

    /// The window has ended: what is free goes back, and later what comes back.
    pub fn close(&self) {
        self.give_back(self.balance.close());
    }

    fn give_back(&self, amount: i64) {
        if amount > 0 {
            self.lease_store.give_back(&self.account, self.span, NanoUsd(amount));
        }
    }

    /// Leases again before it is needed, once under half of a lease is left and the bank may have more.
    pub fn look_ahead(self: &Arc<Self>) {
        let least = lease_ahead(self.limit()).0 / 2;
        if self.balance.is_low(least) && !self.asking.load(Ordering::SeqCst) {
            self.needs.lock().ahead = true;
            self.begin();
        }
    }

    /// Has the bank asked for `need` more, and waits until it has been.
    pub async fn ask(self: &Arc<Self>, need: NanoUsd) -> LeaseOutcome {
        let (mut rounds, mine) = {
            let mut needs = self.needs.lock();
            needs.need = needs.need.saturating_add(need.0);
            (self.rounds.subscribe(), needs.begun + 1)
        };
        self.begin();
        let round = rounds.wait_for(|round| round.number >= mine).await;
        round.map_or(LeaseOutcome::Unavailable, |round| round.outcome)
    }

    /// Asks in a task of its own: a client that leaves must not take a lease with it that is on its way.
    fn begin(self: &Arc<Self>) {
        if !self.asking.swap(true, Ordering::SeqCst) {
            tokio::spawn(LeaseTask(self.clone()).run());
        }
    }

    /// One round: asks the bank for what is wished. `None`: nothing is.
    async fn round(&self) -> Option<LeaseRound> {
        let (number, need) = {
            let mut needs = self.needs.lock();
            if needs.need == 0 && !needs.ahead {
                return None;
            }
            needs.begun += 1;
            needs.ahead = false;
            (needs.begun, std::mem::take(&mut needs.need))
        };
        let (limit, overrun) = (self.limit(), self.balance.overrun());
        let ask = LeaseRequest {
            account: self.account.clone(),
            span: self.span,
            limit,
            need: NanoUsd(need),
            ahead: lease_ahead(limit),
        };
        let outcome = match self.lease_store.lease(ask).await {
            Err(_) => LeaseOutcome::Unavailable,
            Ok(leased) if leased.span != self.span => {
                self.lease_store.give_back(&self.account, leased.span, leased.amount);
                LeaseOutcome::Later(leased.span)
            }
            Ok(leased) => {
                self.give_back(self.balance.lease(leased.amount.0, leased.taken.0, overrun));
                if leased.amount.0 < need { LeaseOutcome::Short } else { LeaseOutcome::Enough }
            }
        };
        Some(LeaseRound { number, outcome })
    }

    /// Why `wanted` is refused.
    pub fn over(&self, wanted: NanoUsd) -> OverBudget {
        OverBudget {
            account: self.account.clone(),
            limit: self.limit(),
            left: NanoUsd(self.balance.left()),
            wanted,
            ends_unix_ms: self.span.ends(),
        }
    }

    /// How the window stands, as this process sees it.
    pub fn status(&self) -> AccountStatus {
        let (limit, held) = (self.limit(), self.balance.held());
        let spent = limit.0.saturating_sub(self.balance.left()).saturating_sub(held).max(0);
        AccountStatus { account: self.account.clone(), limit, spent: NanoUsd(spent), held: NanoUsd(held) }
    }
}

/// The one task that asks the bank for a drawer. Whatever ends it, whoever waits is told.
struct LeaseTask(Arc<BudgetWindow>);

impl LeaseTask {
    async fn run(self) {
        let budget_window = &self.0;
        loop {
            while let Some(round) = budget_window.round().await {
                budget_window.rounds.send_replace(round);
            }
            budget_window.asking.store(false, Ordering::SeqCst);
            budget_window.rounds.send_modify(|_| {});
            // Whoever wished after the last look found somebody asking.
            let wished = { budget_window.needs.lock().need > 0 };
            if !wished || budget_window.asking.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

impl Drop for LeaseTask {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let begun = self.0.needs.lock().begun;
            self.0.rounds.send_replace(LeaseRound { number: begun, outcome: LeaseOutcome::Unavailable });
            self.0.asking.store(false, Ordering::SeqCst);
        }
    }
}
