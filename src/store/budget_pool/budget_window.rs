//! One window of an account in this process: its balance, and how more is leased from the lease store.
//!
//! Leases are requested in rounds, by one task at a time, for all requests that wait and for those to come. It must
//! never lose a lease that is in flight, even if the waiting request is cancelled, and never leave a request waiting.
//!
//! Start reading in [`BudgetWindow::request_lease`], then [`BudgetWindow::round`].

use super::balance::WindowBalance;
use crate::domain::budget::{Account, AccountStatus, Charge, LeaseTerm, OverBudget, WindowSpan, lease_ahead};
use crate::domain::money::NanoUsd;
use crate::store::{LeaseRequest, LeaseStore};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// One window of an account, in one term.
pub struct BudgetWindow {
    account: Arc<Account>,
    span: WindowSpan,
    /// In which everything that it holds was leased.
    term: LeaseTerm,
    lease_store: Arc<dyn LeaseStore>,
    balance: WindowBalance,
    /// Whether anything was taken since the last [`return_idle`](Self::return_idle).
    used: AtomicBool,
    /// Whether a [`LeaseTask`] is running.
    leasing: AtomicBool,
    needs: Mutex<LeaseNeeds>,
    rounds: watch::Sender<LeaseRound>,
}

/// What the next round requests.
#[derive(Default)]
struct LeaseNeeds {
    need: i64,
    ahead: bool,
    /// The number of rounds begun so far.
    begun: u64,
}

/// The last completed round.
#[derive(Clone, Copy)]
struct LeaseRound {
    number: u64,
    outcome: LeaseOutcome,
}

/// The outcome of a lease request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseOutcome {
    /// The need was leased.
    Enough,
    /// Less than the need was left, and all of it was leased.
    Short,
    /// The account has already moved on to this later window, or the process to this later term.
    Later(WindowSpan, LeaseTerm),
    /// The lease store could not be reached.
    Unavailable,
}

impl BudgetWindow {
    /// A window without any lease.
    pub fn new(
        account: Arc<Account>,
        (span, term): (WindowSpan, LeaseTerm),
        limit: NanoUsd,
        lease_store: Arc<dyn LeaseStore>,
    ) -> Self {
        Self {
            account,
            span,
            term,
            lease_store,
            balance: WindowBalance::new(limit.0),
            used: AtomicBool::new(true),
            leasing: AtomicBool::new(false),
            needs: Mutex::default(),
            rounds: watch::Sender::new(LeaseRound { number: 0, outcome: LeaseOutcome::Enough }),
        }
    }

    /// The account it belongs to.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// When it starts and ends.
    pub fn span(&self) -> WindowSpan {
        self.span
    }

    /// The term it leases in.
    pub fn term(&self) -> LeaseTerm {
        self.term
    }

    /// Whether what is leased may be spent now.
    pub fn may_spend(&self) -> bool {
        self.lease_store.term() == Some(self.term)
    }

    /// The lease store it leases from.
    pub fn lease_store(&self) -> &Arc<dyn LeaseStore> {
        &self.lease_store
    }

    /// The limit of the window.
    pub fn limit(&self) -> NanoUsd {
        NanoUsd(self.balance.limit())
    }

    /// Whether the window has ended.
    pub fn is_closed(&self) -> bool {
        self.balance.is_closed()
    }

    /// Holds `amount` if that much is free, and may be spent now.
    pub fn take(&self, amount: NanoUsd) -> bool {
        let taken = self.may_spend() && self.balance.take(amount.0);
        if taken && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Holds as much of `amount` as is free, and returns how much.
    pub fn take_part(&self, amount: NanoUsd) -> NanoUsd {
        self.used.store(true, Ordering::Relaxed);
        NanoUsd(self.balance.take_part(amount.0))
    }

    /// Whether the lease store may have more to lease.
    pub fn has_more(&self) -> bool {
        self.balance.has_more()
    }

    /// Ends a hold of `held` that cost `actual`.
    pub fn settle(&self, held: NanoUsd, actual: NanoUsd) -> Charge {
        let settled = self.balance.settle(held.0, actual.0);
        self.give_back(settled.back);
        let (account, span, term) = (self.account.clone(), self.span, self.term);
        Charge { account, span, spent: actual, leased: NanoUsd(settled.leased), term }
    }

    /// Ends a hold of `held` that cost nothing.
    pub fn release(&self, held: NanoUsd) {
        self.give_back(self.balance.release(held.0));
    }

    /// Changes the limit of the window.
    pub fn set_limit(&self, limit: NanoUsd) {
        self.give_back(self.balance.set_limit(limit.0));
    }

    /// Returns what is free if nothing was taken since the last call.
    pub fn return_idle(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.drain();
        }
    }

    /// Waits until no lease is in flight.
    pub async fn wait_for_leases(&self) {
        let mut rounds = self.rounds.subscribe();
        while self.leasing.load(Ordering::SeqCst) {
            if rounds.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns all that is free.
    pub fn drain(&self) {
        self.give_back(self.balance.drain());
    }

    /// Marks the window as ended: what is free is returned now, and what is freed later as well.
    pub fn close(&self) {
        self.give_back(self.balance.close());
    }

    fn give_back(&self, amount: i64) {
        if amount > 0 {
            self.lease_store.give_back(&self.account, self.span, NanoUsd(amount), self.term);
        }
    }

    /// Requests the next lease ahead of need, once less than half of a lease is free and there may be more.
    pub fn lease_ahead(self: &Arc<Self>) {
        let least = lease_ahead(self.limit()).0 / 2;
        if self.balance.is_low(least) && !self.leasing.load(Ordering::SeqCst) {
            self.needs.lock().ahead = true;
            self.start_task();
        }
    }

    /// Requests a lease of `need` more, and waits for the outcome.
    pub async fn request_lease(self: &Arc<Self>, need: NanoUsd) -> LeaseOutcome {
        let (mut rounds, mine) = {
            let mut needs = self.needs.lock();
            needs.need = needs.need.saturating_add(need.0);
            (self.rounds.subscribe(), needs.begun + 1)
        };
        self.start_task();
        let round = rounds.wait_for(|round| round.number >= mine).await;
        round.map_or(LeaseOutcome::Unavailable, |round| round.outcome)
    }

    /// Starts the task, unless it runs: a cancelled request must not cancel a lease that is in flight.
    fn start_task(self: &Arc<Self>) {
        if !self.leasing.swap(true, Ordering::SeqCst) {
            tokio::spawn(LeaseTask(self.clone()).run());
        }
    }

    /// One round: requests what is needed from the lease store. `None`: nothing is.
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
        let request = LeaseRequest {
            account: self.account.clone(),
            span: self.span,
            limit,
            need: NanoUsd(need),
            ahead: lease_ahead(limit),
        };
        let outcome = match self.lease_store.lease(request).await {
            Err(_) => LeaseOutcome::Unavailable,
            Ok(leased) if (leased.span, leased.term) != (self.span, self.term) => {
                self.lease_store.give_back(&self.account, leased.span, leased.amount, leased.term);
                LeaseOutcome::Later(leased.span, leased.term)
            }
            Ok(leased) => {
                self.give_back(self.balance.lease(leased.amount.0, leased.taken.0, overrun));
                if leased.amount.0 < need { LeaseOutcome::Short } else { LeaseOutcome::Enough }
            }
        };
        Some(LeaseRound { number, outcome })
    }

    /// The refusal of `wanted`.
    pub fn over(&self, wanted: NanoUsd) -> OverBudget {
        OverBudget {
            account: self.account.clone(),
            limit: self.limit(),
            left: NanoUsd(self.balance.left()),
            wanted,
            ends_unix_ms: self.span.ends(),
        }
    }

    /// The status of the window, as this process sees it.
    pub fn status(&self) -> AccountStatus {
        let (limit, held) = (self.limit(), self.balance.held());
        let spent = limit.0.saturating_sub(self.balance.left()).saturating_sub(held).max(0);
        AccountStatus { account: self.account.clone(), limit, spent: NanoUsd(spent), held: NanoUsd(held) }
    }
}

/// The one task that requests leases for a window. Even if it panics, requests that wait are woken.
struct LeaseTask(Arc<BudgetWindow>);

impl LeaseTask {
    async fn run(self) {
        let budget_window = &self.0;
        loop {
            while let Some(round) = budget_window.round().await {
                budget_window.rounds.send_replace(round);
            }
            budget_window.leasing.store(false, Ordering::SeqCst);
            budget_window.rounds.send_modify(|_| {});
            // A request that came after the last round found the task still marked as running.
            let waiting = { budget_window.needs.lock().need > 0 };
            if !waiting || budget_window.leasing.swap(true, Ordering::SeqCst) {
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
            self.0.leasing.store(false, Ordering::SeqCst);
        }
    }
}
