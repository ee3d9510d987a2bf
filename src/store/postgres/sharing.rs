//! What this gateway knows of the others on its database, for operators alone: nothing is decided by it.

use super::term::LeaseTermState;
use crate::store::StoreSharing;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts kept by the writer and by what looks for other gateways.
#[derive(Default)]
pub(super) struct SharingState {
    alive: AtomicU64,
    gone: AtomicU64,
    leases_reaped: AtomicU64,
}

impl SharingState {
    /// So many gateways were seen, this one among them.
    pub(super) fn seen(&self, alive: u32) {
        self.alive.store(alive.into(), Ordering::Relaxed);
    }

    /// So many others were ended that had not been seen for a minute, with so many leases counted as spent.
    pub(super) fn ended(&self, gone: u64, leases: u64) {
        self.gone.fetch_add(gone, Ordering::Relaxed);
        self.leases_reaped.fetch_add(leases, Ordering::Relaxed);
    }

    /// All of it, and how long ago the database renewed `term`.
    pub(super) fn now(&self, term: &LeaseTermState) -> StoreSharing {
        StoreSharing {
            gateways: self.alive.load(Ordering::Relaxed).max(1),
            gone: self.gone.load(Ordering::Relaxed),
            leases_reaped: self.leases_reaped.load(Ordering::Relaxed),
            lag: term.renewed_ago(),
        }
    }
}
