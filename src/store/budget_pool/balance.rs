//! The money of one window, as a value that any number of threads may move at once without a lock.
//!
//! It knows no bank and waits for nothing: what must go back to the bank is returned by whatever freed it.
//! It must never hand out more than was put in, and never keep what nobody may spend any more.
//! `tests/budget_pool_model.rs` includes this file and tries every interleaving of its operations.
//!
//! Start reading in [`WindowBalance::take`], then [`WindowBalance::put`]. All amounts are nano-dollars, none is negative.

use super::sync::{AtomicBool, AtomicI64, Ordering};

/// What is leased of a window: free or held, and how all of the window stands.
pub struct WindowBalance {
    limit: AtomicI64,
    /// Leased, and neither spent nor held.
    free: AtomicI64,
    held: AtomicI64,
    /// Spent and leased together, by everybody, as the bank last said.
    taken: AtomicI64,
    /// What was spent beyond all that was leased, since the start.
    overrun: AtomicI64,
    /// The window has ended: what comes back goes to the bank.
    closed: AtomicBool,
}

/// How a hold ended.
#[must_use = "what goes back is owed to the bank"]
pub struct SettledHold {
    /// How much of what was spent had been leased.
    pub leased: i64,
    /// What goes back to the bank.
    pub back: i64,
}

impl WindowBalance {
    /// Nothing is leased yet.
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

    /// Takes `amount` to hold it, if it is free.
    #[must_use]
    pub fn take(&self, amount: i64) -> bool {
        let fits = |free: i64| (free >= amount).then(|| free - amount);
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok();
        if taken {
            self.held.fetch_add(amount, Ordering::SeqCst);
        }
        taken
    }

    /// Takes as much of `amount` as is free, to hold it.
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
        // A provider served more than it was asked for: what is free pays for it first.
        let covered = self.take_up_to(excess);
        if excess > covered {
            grow(&self.overrun, excess - covered);
            grow(&self.taken, excess - covered);
        }
        self.held.fetch_sub(held, Ordering::SeqCst);
        let back = self.put(held - within);
        SettledHold { leased: within + covered, back }
    }

    /// Ends a hold of `held` that cost nothing; what goes back to the bank.
    #[must_use]
    pub fn release(&self, held: i64) -> i64 {
        self.held.fetch_sub(held, Ordering::SeqCst);
        self.put(held)
    }

    /// What was spent beyond all that was leased, since the start: to be read before the bank is asked, which
    /// has been told of it by then.
    pub fn overrun(&self) -> i64 {
        self.overrun.load(Ordering::SeqCst)
    }

    /// The bank has leased `amount`, and says that `taken` is spent and leased now; what goes back to it.
    /// It may not know what was overrun since it was asked, when that was `overrun`.
    #[must_use]
    pub fn lease(&self, amount: i64, taken: i64, overrun: i64) -> i64 {
        // A swap, for the model lets a mere store come between the halves of an addition.
        self.taken.swap(taken, Ordering::SeqCst);
        // Counted twice until the next lease if it comes just now; never forgotten.
        let since = self.overrun.fetch_add(0, Ordering::SeqCst) - overrun;
        grow(&self.taken, since);
        self.put(amount)
    }

    /// From now on this much may be spent in the window; what goes back to the bank.
    #[must_use]
    pub fn set_limit(&self, limit: i64) -> i64 {
        self.limit.store(limit, Ordering::SeqCst);
        self.give_back(self.excess())
    }

    /// Takes out all that is free; it goes back to the bank.
    #[must_use]
    pub fn drain(&self) -> i64 {
        self.give_back(i64::MAX)
    }

    /// The window has ended; what goes back to the bank, as will all that comes later.
    #[must_use]
    pub fn close(&self) -> i64 {
        self.closed.store(true, Ordering::SeqCst);
        self.drain()
    }

    /// Whether the window has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How much may be spent in the window.
    pub fn limit(&self) -> i64 {
        self.limit.load(Ordering::SeqCst)
    }

    /// How much is held.
    pub fn held(&self) -> i64 {
        self.held.load(Ordering::SeqCst)
    }

    /// How much is neither spent nor held, here or at the bank; negative where the limit was passed.
    pub fn left(&self) -> i64 {
        let lease_store = self.limit().saturating_sub(self.taken.load(Ordering::SeqCst));
        lease_store.saturating_add(self.free.load(Ordering::SeqCst))
    }

    /// Whether the bank may have more than what is leased.
    pub fn has_more(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.limit()
    }

    /// Whether less than `least` is free and the bank may have more.
    pub fn is_low(&self, least: i64) -> bool {
        self.free.load(Ordering::Relaxed) < least && self.has_more()
    }

    /// Money that was leased comes back from a hold or from the bank. Under a limit that was lowered or passed
    /// since, and after the window's end, it goes on to the bank.
    fn put(&self, amount: i64) -> i64 {
        let back = amount.min(self.surplus());
        self.unlease(back);
        self.free.fetch_add(amount - back, Ordering::SeqCst);
        // Between the two looks the window may have ended, the limit been lowered, or an answer cost too much.
        back + self.give_back(self.surplus())
    }

    /// How much of what is free must go back: all of it once the window has ended.
    fn surplus(&self) -> i64 {
        if self.is_closed() { i64::MAX } else { self.excess() }
    }

    /// By how much more is spent and leased than the limit allows.
    fn excess(&self) -> i64 {
        self.taken.load(Ordering::SeqCst).saturating_sub(self.limit()).max(0)
    }

    /// Takes out up to `most` of what is free, which is no longer leased then.
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

/// Adds, and stays at the most there is: what providers count has no bound.
fn grow(amount: &AtomicI64, more: i64) {
    let grown = |amount: i64| Some(amount.saturating_add(more));
    let _ = amount.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grown);
}
