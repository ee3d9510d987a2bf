//! The checker's own count of what is held, spent and served of every budget window.
//!
//! It must never ask the budget pool: holds and settlements are reported to it, limits come from the world, and
//! at the end it compares what is charged with the count of the lease store.
//! Start reading in [`ExpectedBalances::held`].

use crate::invariants::Invariant;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tierway::domain::budget::{Account, Budget, Charge, WindowSpan};
use tierway::domain::money::NanoUsd;

/// An invariant about money that was broken, and how.
pub type Violated = (Invariant, String);

type Key = (Arc<Account>, WindowSpan);

#[derive(Default)]
pub struct ExpectedBalances {
    /// The current window of each account: the latest that was ever seen.
    running: BTreeMap<Arc<Account>, WindowSpan>,
    rows: BTreeMap<Key, WindowTotals>,
    /// By number of the hold: its amount.
    holds: HashMap<u64, i64>,
    /// By number of the hold: the windows that pay for it.
    funding: HashMap<u64, Vec<Key>>,
}

#[derive(Clone, Copy, Default)]
struct WindowTotals {
    held: i64,
    spent: i64,
    served: i64,
}

impl ExpectedBalances {
    /// Whether a window has ended, or no window is known.
    pub fn has_ended(&self, clock: i64) -> bool {
        self.running.is_empty() || self.running.values().any(|span| span.end_ms <= clock)
    }

    /// Updates the current window: the wall clock is at `clock`, and the lease store's latest window is `latest`.
    pub fn window(&mut self, budget: &Budget, clock: i64, latest: Option<WindowSpan>) {
        let now = budget.window.at(clock);
        let now = latest.map_or(now, |latest| latest.max(now));
        let running = self.running.entry(budget.account.clone()).or_insert(now);
        *running = now.max(*running);
    }

    /// Hold number `hold` takes `amount` of each of `budgets`: in none may more be spent and held than the limit.
    pub fn held(&mut self, hold: u64, budgets: &[Budget], amount: NanoUsd) -> Result<(), Violated> {
        let keys = budgets.iter().map(|budget| (budget.account.clone(), self.running[&budget.account]));
        let keys: Vec<Key> = keys.collect();
        self.holds.insert(hold, amount.0);
        self.funding.insert(hold, keys.clone());
        for (key, budget) in keys.into_iter().zip(budgets) {
            let row = self.rows.entry(key).or_default();
            row.held += amount.0;
            let (out, limit, name) = (row.held + row.spent, budget.limit.0, &budget.account.name);
            if out > limit {
                return Err((Invariant::Budget, format!("{out} of {limit} are spent and held of {name}")));
            }
        }
        Ok(())
    }

    /// An attempt of `request` that can cost `worst` is sent under the hold of this number, if under any.
    pub fn sent(&self, request: usize, hold: Option<u64>, worst: NanoUsd) -> Result<(), Violated> {
        let held = hold.and_then(|hold| self.holds.get(&hold)).copied().unwrap_or_default();
        let message = || format!("request {request} is sent under {held} and can cost {}", worst.0);
        if held >= worst.0 { Ok(()) } else { Err((Invariant::HeldFirst, message())) }
    }

    /// A hold is settled with `actual`.
    pub fn settled(&mut self, hold: u64, actual: NanoUsd, charges: &[Charge]) -> Result<(), Violated> {
        self.end(hold, actual.0);
        let funding = &self.funding[&hold];
        let strange = charges.iter().find(|charge| !funding.contains(&(charge.account.clone(), charge.span)));
        let message =
            |charge: &Charge| format!("hold {hold} was made in {funding:?} and is charged in {:?}", charge.span);
        strange.map_or(Ok(()), |charge| Err((Invariant::BudgetPeriod, message(charge))))
    }

    /// A hold is released.
    pub fn released(&mut self, hold: u64) {
        self.end(hold, 0);
    }

    fn end(&mut self, hold: u64, actual: i64) {
        let Some(held) = self.holds.remove(&hold) else { return };
        for key in &self.funding[&hold] {
            let row = self.rows.entry(key.clone()).or_default();
            row.held -= held;
            row.spent += actual;
        }
    }

    /// A provider charges `amount` for an attempt that was sent under the hold of this number.
    pub fn served(&mut self, hold: u64, amount: NanoUsd) {
        for key in self.funding.get(&hold).into_iter().flatten() {
            self.rows.entry(key.clone()).or_default().served += amount.0;
        }
    }

    /// The process was killed: what was held counts as spent, and so does everything else that it had leased.
    pub fn crashed(&mut self, spent: impl Fn(&Arc<Account>, WindowSpan) -> NanoUsd) -> Result<(), Violated> {
        self.holds.clear();
        self.running.clear();
        for ((account, span), row) in &mut self.rows {
            let (least, booked) = (row.spent + row.held, spent(account, *span).0);
            if booked < least {
                return Err((
                    Invariant::Paid,
                    format!("{booked} of {least} are booked of {} after a crash", account.name),
                ));
            }
            *row = WindowTotals { held: 0, spent: booked, ..*row };
        }
        Ok(())
    }

    /// Checks the end of the day, at which `leased` is still leased.
    pub fn close(&self, leased: NanoUsd, spent: impl Fn(&Arc<Account>, WindowSpan) -> NanoUsd) -> Result<(), Violated> {
        for ((account, span), row) in &self.rows {
            let booked = spent(account, *span).0;
            if row.held != 0 {
                return Err((Invariant::NothingHeld, format!("{} is held of {}", row.held, account.name)));
            }
            if booked < row.served {
                return Err((
                    Invariant::Paid,
                    format!("{booked} of {} that were served of {}", row.served, account.name),
                ));
            }
        }
        let message = || format!("{} is leased after the end", leased.0);
        if leased == NanoUsd::ZERO { Ok(()) } else { Err((Invariant::NothingHeld, message())) }
    }
}
