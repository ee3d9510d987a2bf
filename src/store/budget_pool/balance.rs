//! The leased money of one window: a value that any number of threads may change at once without a lock.
//!
//! It has no access to the lease store and waits for nothing: an operation returns what must go back to the lease
//! store. It must never give out more than was leased, and never keep money that may no longer be spent.
//! `tests/budget_pool_model.rs` includes this file and tries every interleaving of its operations.
//!
//! Start reading in [`WindowBalance::take`], then [`WindowBalance::deposit`]. All amounts are nano-dollars and not
//! negative.

use super::sync::{AtomicBool, AtomicI64, Ordering};

/// What this process has leased of a window, free or held, and the totals of the window.
pub struct WindowBalance {
    limit: AtomicI64,
    /// Leased, and neither spent nor held.
    free: AtomicI64,
    held: AtomicI64,
    /// Spent and leased together by all processes, as last reported by the lease store.
    taken: AtomicI64,
    /// What was spent beyond all leases since the start.
    overrun: AtomicI64,
    /// The window has ended: everything freed goes back to the lease store.
    closed: AtomicBool,
}

/// How the cost of a hold was covered.
#[must_use = "`back` must be returned to the lease store"]
pub struct SettledHold {
    /// The part of the cost that had been leased.
    pub leased: i64,
    /// What must go back to the lease store.
    pub back: i64,
}

impl WindowBalance {
    /// A balance without any lease.
    pub fn new(limit: i64) -> Self {
        Self {
            limit: AtomicI64::new(limit),
            free: AtomicI64::new(0),
            held: AtomicI64::new(0),
            taken: AtomicI64::new(0),
            overrun: AtomicI64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Moves `amount` from free to held, if that much is free.
    #[must_use]
    pub fn take(&self, amount: i64) -> bool {
        let fits = |free: i64| (free >= amount).then(|| free - amount);
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok();
        if taken {
            self.held.fetch_add(amount, Ordering::SeqCst);
        }
        taken
    }

    /// Moves as much of `amount` as is free from free to held, and returns how much.
    #[must_use]
    pub fn take_part(&self, amount: i64) -> i64 {
        let part = self.take_up_to(amount);
        self.held.fetch_add(part, Ordering::SeqCst);
        part
    }

    /// Ends a hold of `held` that cost `actual`.
    pub fn settle(&self, held: i64, actual: i64) -> SettledHold {
        let within = actual.min(held);
        let excess = actual - within;
        // A provider served more than it was asked for: free money pays for that first.
        let covered = self.take_up_to(excess);
        if excess > covered {
            grow(&self.overrun, excess - covered);
            grow(&self.taken, excess - covered);
        }
        self.held.fetch_sub(held, Ordering::SeqCst);
        let back = self.deposit(held - within);
        SettledHold { leased: within + covered, back }
    }

    /// Ends a hold of `held` that cost nothing; returns what must go back to the lease store.
    #[must_use]
    pub fn release(&self, held: i64) -> i64 {
        self.held.fetch_sub(held, Ordering::SeqCst);
        self.deposit(held)
    }

    /// What was spent beyond all leases since the start. To be read before a lease is requested: everything up to
    /// then has been reported to the lease store.
    pub fn overrun(&self) -> i64 {
        self.overrun.load(Ordering::SeqCst)
    }

    /// Adds a lease of `amount`, with which the lease store reported `taken` as spent and leased; returns what must
    /// go back to it. `overrun` is what [`overrun`](Self::overrun) was before the request: the lease store may not
    /// know of later overruns.
    #[must_use]
    pub fn lease(&self, amount: i64, taken: i64, overrun: i64) -> i64 {
        // A swap and not a store: the model checker lets a store come between the two halves of an addition.
        self.taken.swap(taken, Ordering::SeqCst);
        // An overrun that happens just now is counted twice until the next lease, but never lost.
        let since = self.overrun.fetch_add(0, Ordering::SeqCst) - overrun;
        grow(&self.taken, since);
        self.deposit(amount)
    }

    /// Changes the limit of the window; returns what must go back to the lease store.
    #[must_use]
    pub fn set_limit(&self, limit: i64) -> i64 {
        self.limit.store(limit, Ordering::SeqCst);
        self.give_back(self.excess())
    }

    /// Removes everything that is free; the returned amount must go back to the lease store.
    #[must_use]
    pub fn drain(&self) -> i64 {
        self.give_back(i64::MAX)
    }

    /// Marks the window as ended; returns what must go back to the lease store, as will everything freed later.
    #[must_use]
    pub fn close(&self) -> i64 {
        self.closed.store(true, Ordering::SeqCst);
        self.drain()
    }

    /// Whether the window has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The limit of the window.
    pub fn limit(&self) -> i64 {
        self.limit.load(Ordering::SeqCst)
    }

    /// How much requests hold.
    pub fn held(&self) -> i64 {
        self.held.load(Ordering::SeqCst)
    }

    /// How much is neither spent nor held, here or in the lease store; negative if the limit was exceeded.
    pub fn left(&self) -> i64 {
        let unleased = self.limit().saturating_sub(self.taken.load(Ordering::SeqCst));
        unleased.saturating_add(self.free.load(Ordering::SeqCst))
    }

    /// Whether the lease store may have more to lease.
    pub fn has_more(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.limit()
    }

    /// Whether less than `least` is free and the lease store may have more.
    pub fn is_low(&self, least: i64) -> bool {
        self.free.load(Ordering::Relaxed) < least && self.has_more()
    }

    /// Adds leased money to what is free. If the limit is exceeded, or the window has ended, as much as necessary
    /// is returned for the lease store instead.
    fn deposit(&self, amount: i64) -> i64 {
        let back = amount.min(self.surplus());
        self.unlease(back);
        self.free.fetch_add(amount - back, Ordering::SeqCst);
        // Checked again: meanwhile the window may have ended, the limit been lowered, or a request overrun its hold.
        back + self.give_back(self.surplus())
    }

    /// How much of the free money must go back: all of it once the window has ended.
    fn surplus(&self) -> i64 {
        if self.is_closed() { i64::MAX } else { self.excess() }
    }

    /// By how much spent and leased money exceeds the limit.
    fn excess(&self) -> i64 {
        self.taken.load(Ordering::SeqCst).saturating_sub(self.limit()).max(0)
    }

    /// Removes up to `most` of the free money, which is then no longer leased.
    fn give_back(&self, most: i64) -> i64 {
        let back = self.take_up_to(most);
        self.unlease(back);
        back
    }

    fn unlease(&self, amount: i64) {
        if amount > 0 {
            self.taken.fetch_sub(amount, Ordering::SeqCst);
        }
    }

    fn take_up_to(&self, most: i64) -> i64 {
        if most <= 0 {
            return 0;
        }
        let part = |free: i64| free.min(most).max(0);
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| Some(free - part(free)));
        taken.map_or(0, part)
    }
}

/// Adds, saturating: the usage that a provider reports has no bound.
fn grow(amount: &AtomicI64, more: i64) {
    let grown = |amount: i64| Some(amount.saturating_add(more));
    let _ = amount.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grown);
}
