//! The process's own purse: budgets are spent from it in memory, and what it holds is leased from a bank.
//!
//! Each account has a till with one drawer per window. A request takes its hold from the drawer with one
//! compare-and-swap; the bank is asked ahead of time by a task of its own, so that a request waits for it
//! only when its hold does not fit in what is leased. No lock is held across an await, and nothing here
//! waits for a disk. It must never hand out money that was not leased, and never lose a hold: a [`Hold`]
//! settles exactly once, by whom it is given to or by being dropped.
//!
//! Start reading in [`Purse::hold`], then [`Drawer::put`], where money comes back.

use super::{Bank, LeaseAsk};
use crate::domain::budget::{Account, Budget, Charge, OverBudget, Span, Standing, Window, lease_ahead};
use crate::domain::money::NanoUsd;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

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
            let drawer = till.drawer_at(now_unix_ms);
            if !drawer.used.swap(false, Ordering::Relaxed) {
                drawer.drain(i64::MAX);
            }
        }
    }

    /// Gives everything back that is not held, at the end of the process.
    pub fn close(&self) {
        for till in self.all() {
            till.drawer.load().drain(i64::MAX);
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
            if drawer.take(amount.0) {
                drawer.look_ahead();
                return Ok(drawer);
            }
            let told = drawer.ask(amount.0).await;
            if drawer.take(amount.0) {
                return Ok(drawer);
            }
            match told {
                // Others were quicker, or the window ended meanwhile: once more.
                _ if drawer.closed.load(Ordering::SeqCst) => {}
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
        if now_unix_ms < drawer.span.end_ms {
            return drawer;
        }
        self.move_to(self.window.at(now_unix_ms));
        self.drawer.load_full()
    }

    /// Opens the drawer of `span`, unless it, or a later one, is open.
    fn move_to(&self, span: Span) {
        let _moving = lock(&self.moving);
        let old = self.drawer.load_full();
        if span.start_ms > old.span.start_ms {
            let next = Drawer::new(self.account.clone(), span, old.limit(), self.bank.clone());
            self.drawer.store(Arc::new(next));
            old.close();
        }
    }

    fn set_limit(&self, limit: NanoUsd) {
        let _moving = lock(&self.moving);
        let drawer = self.drawer.load();
        drawer.limit.store(limit.0, Ordering::SeqCst);
        drawer.drain(drawer.excess());
    }
}

/// One window of an account: what is leased and neither spent nor held, and what is held.
struct Drawer {
    account: Arc<Account>,
    span: Span,
    bank: Arc<dyn Bank>,
    limit: AtomicI64,
    free: AtomicI64,
    held: AtomicI64,
    /// Spent and leased together, as the bank last said.
    taken: AtomicI64,
    /// Its window has ended: what comes back goes to the bank.
    closed: AtomicBool,
    used: AtomicBool,
    asking: AtomicBool,
    wishes: Mutex<Wishes>,
    rounds: watch::Sender<Round>,
}

/// What the bank is to be asked for next.
#[derive(Default)]
struct Wishes {
    need: i64,
    ahead: bool,
    /// Rounds begun so far.
    begun: u64,
}

/// What the bank said, and when.
#[derive(Clone, Copy)]
struct Round {
    number: u64,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// All that was asked for.
    Enough,
    /// All there is.
    Short,
    /// A later window is running than this one.
    Later(Span),
    Unavailable,
}

impl Drawer {
    fn new(account: Arc<Account>, span: Span, limit: NanoUsd, bank: Arc<dyn Bank>) -> Self {
        Self {
            account,
            span,
            bank,
            limit: AtomicI64::new(limit.0),
            free: AtomicI64::new(0),
            held: AtomicI64::new(0),
            taken: AtomicI64::new(0),
            closed: AtomicBool::new(false),
            used: AtomicBool::new(true),
            asking: AtomicBool::new(false),
            wishes: Mutex::default(),
            rounds: watch::Sender::new(Round { number: 0, told: Told::Enough }),
        }
    }

    fn limit(&self) -> NanoUsd {
        NanoUsd(self.limit.load(Ordering::SeqCst))
    }

    /// Takes `amount` if it is free.
    fn take(&self, amount: i64) -> bool {
        let fits = |free: i64| (free >= amount).then(|| free - amount);
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok();
        if taken {
            self.held.fetch_add(amount, Ordering::SeqCst);
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
        }
        taken
    }

    /// Money that was leased comes back from a hold or from the bank. Under a limit that was lowered since,
    /// and after the window's end, it goes on to the bank.
    fn put(&self, amount: i64) {
        let back = if self.closed.load(Ordering::SeqCst) { amount } else { amount.min(self.excess()) };
        self.give_back(back);
        self.free.fetch_add(amount - back, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            // It ended between the two looks.
            self.drain(i64::MAX);
        }
    }

    /// Ends a hold of `held` that cost `actual`.
    fn settle(&self, held: i64, actual: i64) -> Charge {
        let within = actual.min(held);
        let excess = actual - within;
        // A provider served more than it was asked for: what is free pays for it first.
        let covered = self.take_up_to(excess);
        self.taken.fetch_add(excess - covered, Ordering::SeqCst);
        self.held.fetch_sub(held, Ordering::SeqCst);
        self.put(held - within);
        if excess > covered {
            self.drain(self.excess());
        }
        Charge {
            account: self.account.clone(),
            span: self.span,
            spent: NanoUsd(actual),
            leased: NanoUsd(within + covered),
        }
    }

    /// By how much more is spent and leased than the limit allows.
    fn excess(&self) -> i64 {
        self.taken.load(Ordering::SeqCst).saturating_sub(self.limit().0).max(0)
    }

    /// Gives back up to `most` of what is free.
    fn drain(&self, most: i64) {
        self.give_back(self.take_up_to(most));
    }

    fn take_up_to(&self, most: i64) -> i64 {
        let part = |free: i64| free.min(most).max(0);
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| Some(free - part(free)));
        taken.map_or(0, part)
    }

    fn give_back(&self, amount: i64) {
        if amount > 0 {
            self.taken.fetch_sub(amount, Ordering::SeqCst);
            self.bank.give_back(&self.account, self.span, NanoUsd(amount));
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.drain(i64::MAX);
    }

    /// Leases again before it is needed, once under half of a lease is left and the bank may have more.
    fn look_ahead(self: &Arc<Self>) {
        let limit = self.limit();
        let low = self.free.load(Ordering::Relaxed) < lease_ahead(limit).0 / 2;
        if low && self.taken.load(Ordering::Relaxed) < limit.0 && !self.asking.load(Ordering::SeqCst) {
            lock(&self.wishes).ahead = true;
            self.begin();
        }
    }

    /// Has the bank asked for `need` more, and waits until it has been.
    async fn ask(self: &Arc<Self>, need: i64) -> Told {
        let (mut rounds, mine) = {
            let mut wishes = lock(&self.wishes);
            wishes.need = wishes.need.saturating_add(need);
            (self.rounds.subscribe(), wishes.begun + 1)
        };
        self.begin();
        let round = rounds.wait_for(|round| round.number >= mine).await;
        round.map_or(Told::Unavailable, |round| round.told)
    }

    /// Asks in a task of its own: a client that leaves must not take a lease with it that is on its way.
    fn begin(self: &Arc<Self>) {
        if !self.asking.swap(true, Ordering::SeqCst) {
            tokio::spawn(Asking(self.clone()).run());
        }
    }

    /// One round: asks the bank for what is wished. `None`: nothing is.
    async fn round(&self) -> Option<Round> {
        let (number, need) = {
            let mut wishes = lock(&self.wishes);
            if wishes.need == 0 && !wishes.ahead {
                return None;
            }
            wishes.begun += 1;
            wishes.ahead = false;
            (wishes.begun, std::mem::take(&mut wishes.need))
        };
        let limit = self.limit();
        let ask = LeaseAsk {
            account: self.account.clone(),
            span: self.span,
            limit,
            need: NanoUsd(need),
            ahead: lease_ahead(limit),
        };
        let told = match self.bank.lease(ask).await {
            Err(_) => Told::Unavailable,
            Ok(leased) if leased.span != self.span => {
                self.bank.give_back(&self.account, leased.span, leased.amount);
                Told::Later(leased.span)
            }
            Ok(leased) => {
                self.taken.store(leased.taken.0, Ordering::SeqCst);
                self.put(leased.amount.0);
                if leased.amount.0 < need { Told::Short } else { Told::Enough }
            }
        };
        Some(Round { number, told })
    }

    fn over(&self, wanted: NanoUsd) -> OverBudget {
        OverBudget {
            account: self.account.clone(),
            limit: self.limit(),
            left: NanoUsd(self.left()),
            wanted,
            ends_unix_ms: self.span.ends(),
        }
    }

    fn left(&self) -> i64 {
        let bank = self.limit().0.saturating_sub(self.taken.load(Ordering::SeqCst));
        bank.saturating_add(self.free.load(Ordering::SeqCst))
    }

    fn standing(&self) -> Standing {
        let (limit, held) = (self.limit(), self.held.load(Ordering::SeqCst));
        let spent = limit.0.saturating_sub(self.left()).saturating_sub(held).max(0);
        Standing { account: self.account.clone(), limit, spent: NanoUsd(spent), held: NanoUsd(held) }
    }
}

/// The one task that asks the bank for a drawer. Whatever ends it, whoever waits is told.
struct Asking(Arc<Drawer>);

impl Asking {
    async fn run(self) {
        let drawer = &self.0;
        loop {
            while let Some(round) = drawer.round().await {
                drawer.rounds.send_replace(round);
            }
            drawer.asking.store(false, Ordering::SeqCst);
            // Whoever wished after the last look found somebody asking.
            let wished = { lock(&drawer.wishes).need > 0 };
            if !wished || drawer.asking.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let begun = lock(&self.0.wishes).begun;
            self.0.rounds.send_replace(Round { number: begun, told: Told::Unavailable });
            self.0.asking.store(false, Ordering::SeqCst);
        }
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
        self.end(actual.0.max(0))
    }

    /// Ends it: nothing was spent.
    pub fn release(mut self) {
        self.sent = false;
    }

    fn end(&mut self, actual: i64) -> Vec<Charge> {
        let held = self.amount.0;
        let charges = std::mem::take(&mut self.parts).into_iter().map(|drawer| drawer.settle(held, actual));
        charges.filter(|charge| charge.spent > NanoUsd::ZERO).collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(bank) = self.parts.first().map(|drawer| drawer.bank.clone()) else { return };
        if self.sent {
            let charges = self.end(self.amount.0);
            bank.write_off(&charges);
        } else {
            for drawer in std::mem::take(&mut self.parts) {
                drawer.held.fetch_sub(self.amount.0, Ordering::SeqCst);
                drawer.put(self.amount.0);
            }
        }
    }
}

/// A panic elsewhere must not close an account.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
