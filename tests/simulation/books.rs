//! The referee's books: what is held, spent and served of every window, counted beside the purse.
//!
//! Must never ask the purse: what was granted and settled it is told, the limits it knows from the world, and
//! what is booked as spent at last it compares with the bank's own count.
//! Start reading in [`Books::held`].

use crate::laws::Invariant;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tierway::domain::budget::{Account, Budget, Charge, Span};
use tierway::domain::money::NanoUsd;

/// A law that money broke, and how.
pub type Violated = (Invariant, String);

type Key = (Arc<Account>, Span);

#[derive(Default)]
pub struct Books {
    /// The window that money is taken from: the latest that was ever seen.
    running: BTreeMap<Arc<Account>, Span>,
    rows: BTreeMap<Key, WindowTotals>,
    /// By request: how much it holds.
    holds: HashMap<usize, i64>,
    /// By request: where what it is served is paid from.
    funding: HashMap<usize, Vec<Key>>,
}

#[derive(Clone, Copy, Default)]
struct WindowTotals {
    held: i64,
    spent: i64,
    served: i64,
}

impl Books {
    /// Whether a window has ended, or none is known to run.
    pub fn has_ended(&self, clock: i64) -> bool {
        self.running.is_empty() || self.running.values().any(|span| span.end_ms <= clock)
    }

    /// The clock shows `clock`, and the bank knows a window as late as `latest`.
    pub fn window(&mut self, budget: &Budget, clock: i64, latest: Option<Span>) {
        let now = budget.window.at(clock);
        let now = latest.map_or(now, |latest| latest.max(now));
        let running = self.running.entry(budget.account.clone()).or_insert(now);
        *running = now.max(*running);
    }

    /// `request` holds `amount` of each of `budgets`: nowhere may more be spent and held than the limit.
    pub fn held(&mut self, request: usize, budgets: &[Budget], amount: NanoUsd) -> Result<(), Violated> {
        let keys = budgets.iter().map(|budget| (budget.account.clone(), self.running[&budget.account]));
        let keys: Vec<Key> = keys.collect();
        self.holds.insert(request, amount.0);
        self.funding.insert(request, keys.clone());
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

    /// An attempt of `request` is sent that costs `worst` at most.
    pub fn sent(&self, request: usize, worst: NanoUsd) -> Result<(), Violated> {
        let held = self.holds.get(&request).copied().unwrap_or_default();
        let message = || format!("request {request} is sent under {held} and can cost {}", worst.0);
        if held >= worst.0 { Ok(()) } else { Err((Invariant::HeldFirst, message())) }
    }

    /// The hold of `request` cost `actual`.
    pub fn settled(&mut self, request: usize, actual: NanoUsd, charges: &[Charge]) -> Result<(), Violated> {
        self.end(request, actual.0);
        let funding = &self.funding[&request];
        let strange = charges.iter().find(|charge| !funding.contains(&(charge.account.clone(), charge.span)));
        let message =
            |charge: &Charge| format!("request {request} was held in {funding:?} and is charged in {:?}", charge.span);
        strange.map_or(Ok(()), |charge| Err((Invariant::Window, message(charge))))
    }

    /// The hold of `request` cost nothing.
    pub fn released(&mut self, request: usize) {
        self.end(request, 0);
    }

    fn end(&mut self, request: usize, actual: i64) {
        let Some(held) = self.holds.remove(&request) else { return };
        for key in &self.funding[&request] {
            let row = self.rows.entry(key.clone()).or_default();
            row.held -= held;
            row.spent += actual;
        }
    }

    /// A provider counted `amount` for `request`.
    pub fn served(&mut self, request: usize, amount: NanoUsd) {
        for key in self.funding.get(&request).into_iter().flatten() {
            self.rows.entry(key.clone()).or_default().served += amount.0;
        }
    }

    /// The process was killed: what was held is spent, and so is all else that it had leased.
    pub fn crashed(&mut self, spent: impl Fn(&Arc<Account>, Span) -> NanoUsd) -> Result<(), Violated> {
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

    /// The day is over, and `leased` is still leased.
    pub fn close(&self, leased: NanoUsd, spent: impl Fn(&Arc<Account>, Span) -> NanoUsd) -> Result<(), Violated> {
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
