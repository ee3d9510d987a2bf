//! The bank of a single process: balances in memory, gone with it.
//!
//! It is the reference for every other bank: `tests/store_contract.rs` says what all promise. A row is a
//! window of an account; rows of windows that ended go once nothing of them is leased.

use super::{BackendUnavailable, Lease, LeaseRequest, LeaseStore, StoreFuture};
use crate::domain::budget::{Account, Charge, WindowSpan, grant};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Balances by account and window.
#[derive(Default, Debug)]
pub struct MemoryLeaseStore {
    rows: Mutex<BTreeMap<(Arc<Account>, WindowSpan), WindowTotals>>,
}

#[derive(Clone, Copy, Default, Debug)]
struct WindowTotals {
    spent: i64,
    leased: i64,
}

impl MemoryLeaseStore {
    /// What is spent and what is leased of a window.
    pub fn balance(&self, account: &Arc<Account>, span: WindowSpan) -> (NanoUsd, NanoUsd) {
        let row = self.rows().get(&(account.clone(), span)).copied().unwrap_or_default();
        (NanoUsd(row.spent), NanoUsd(row.leased))
    }

    /// What is leased, over all windows.
    pub fn leased(&self) -> NanoUsd {
        NanoUsd(self.rows().values().map(|row| row.leased).sum())
    }

    fn lease_now(&self, ask: &LeaseRequest) -> Lease {
        let mut rows = self.rows();
        let of_account = (ask.account.clone(), WindowSpan { start_ms: i64::MIN, end_ms: i64::MIN })
            ..=(ask.account.clone(), WindowSpan { start_ms: i64::MAX, end_ms: i64::MAX });
        let latest = rows.range(of_account).next_back().map(|((_, span), _)| *span);
        // A clock that jumped back never reopens a window.
        let span =
            latest.map_or(ask.span, |latest| if latest.start_ms > ask.span.start_ms { latest } else { ask.span });
        rows.retain(|(account, of), row| *account != ask.account || *of == span || row.leased != 0);
        let row = rows.entry((ask.account.clone(), span)).or_default();
        let taken = NanoUsd(row.spent.saturating_add(row.leased));
        let amount = grant(ask.limit, taken, ask.need, ask.ahead);
        row.leased += amount.0;
        Lease { span, amount, taken: NanoUsd(taken.0.saturating_add(amount.0)) }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<(Arc<Account>, WindowSpan), WindowTotals>> {
        self.rows.lock()
    }
}

impl LeaseStore for MemoryLeaseStore {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'static, Result<Lease, BackendUnavailable>> {
        Box::pin(std::future::ready(Ok(self.lease_now(&ask))))
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd) {
        if let Some(row) = self.rows().get_mut(&(account.clone(), span)) {
            row.leased -= amount.0;
        }
    }

    fn settle(&self, receipt: &Arc<Receipt>) {
        self.write_off(&receipt.charges);
    }

    fn write_off(&self, charges: &[Charge]) {
        let mut rows = self.rows();
        for charge in charges {
            let row = rows.entry((charge.account.clone(), charge.span)).or_default();
            row.leased -= charge.leased.0;
            row.spent = row.spent.saturating_add(charge.spent.0);
        }
    }
}
