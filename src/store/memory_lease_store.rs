//! The lease store of a single process: balances in memory, lost when the process ends.
//!
//! It is the reference implementation: `tests/lease_store_contract.rs` states what every lease store guarantees. A
//! window that ended is removed once nothing of it is leased.

use super::{Lease, LeaseRequest, LeaseStore, StoreFuture, StoreUnavailable};
use crate::domain::budget::{Account, Charge, LeaseTerm, WindowSpan, grant};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Balances by account and window.
#[derive(Default, Debug)]
pub struct MemoryLeaseStore {
    windows: Mutex<BTreeMap<(Arc<Account>, WindowSpan), WindowTotals>>,
}

#[derive(Clone, Copy, Default, Debug)]
struct WindowTotals {
    spent: i64,
    leased: i64,
}

impl MemoryLeaseStore {
    /// What is spent and what is leased of one window.
    pub fn balance(&self, account: &Arc<Account>, span: WindowSpan) -> (NanoUsd, NanoUsd) {
        let totals = self.windows().get(&(account.clone(), span)).copied().unwrap_or_default();
        (NanoUsd(totals.spent), NanoUsd(totals.leased))
    }

    /// What is leased, over all windows.
    pub fn leased(&self) -> NanoUsd {
        NanoUsd(self.windows().values().fold(0, |sum: i64, totals| sum.saturating_add(totals.leased)))
    }

    fn lease_now(&self, request: &LeaseRequest) -> Lease {
        let mut windows = self.windows();
        let of_account = (request.account.clone(), WindowSpan { start_ms: i64::MIN, end_ms: i64::MIN })
            ..=(request.account.clone(), WindowSpan { start_ms: i64::MAX, end_ms: i64::MAX });
        let latest = windows.range(of_account).next_back().map(|((_, span), _)| *span);
        // A clock that is set back does not reopen an earlier window.
        let span = latest
            .map_or(request.span, |latest| if latest.start_ms > request.span.start_ms { latest } else { request.span });
        windows.retain(|(account, of), totals| *account != request.account || *of == span || totals.leased != 0);
        let totals = windows.entry((request.account.clone(), span)).or_default();
        let taken = NanoUsd(totals.spent.saturating_add(totals.leased));
        let amount = grant(request.limit, taken, request.need, request.ahead);
        totals.leased = totals.leased.saturating_add(amount.0);
        Lease { span, amount, taken: NanoUsd(taken.0.saturating_add(amount.0)), term: LeaseTerm::default() }
    }

    fn windows(&self) -> MutexGuard<'_, BTreeMap<(Arc<Account>, WindowSpan), WindowTotals>> {
        self.windows.lock()
    }
}

impl LeaseStore for MemoryLeaseStore {
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        Box::pin(std::future::ready(Ok(self.lease_now(&request))))
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, _: LeaseTerm) {
        if let Some(totals) = self.windows().get_mut(&(account.clone(), span)) {
            totals.leased = totals.leased.saturating_sub(amount.0);
        }
    }

    fn settle(&self, receipt: &Arc<Receipt>) {
        self.write_off(&receipt.charges);
    }

    fn write_off(&self, charges: &[Charge]) {
        let mut windows = self.windows();
        for charge in charges {
            let totals = windows.entry((charge.account.clone(), charge.span)).or_default();
            totals.leased = totals.leased.saturating_sub(charge.leased.0);
            totals.spent = totals.spent.saturating_add(charge.spent.0);
        }
    }
}
