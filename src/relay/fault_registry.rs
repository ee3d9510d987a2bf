//! The injected faults of this process, as attempts ask for them.
//!
//! Without any, an attempt pays for one load of a flag. What a fault does and how long it lasts is decided in
//! [`domain::fault`](crate::domain::fault).
//!
//! Start reading in [`FaultRegistry::drawn`].

use crate::clock::Clock;
use crate::domain::fault::{FaultEffect, FaultSpec, InjectedFault, InjectedFaults};
use crate::domain::random::RandomValue;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The faults that are in force.
#[derive(Debug)]
pub struct FaultRegistry {
    clock: Clock,
    /// Whether there may be any: what is asked before the lock.
    any: AtomicBool,
    faults: Mutex<InjectedFaults>,
}

impl FaultRegistry {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, any: AtomicBool::new(false), faults: Mutex::default() }
    }

    /// What happens to an attempt at `deployment` in `region`, whose random value is `draw`.
    pub(super) fn drawn(&self, deployment: &str, region: &str, draw: RandomValue) -> Option<FaultEffect> {
        // A fault that an attempt misses by a moment is no matter.
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.faults.lock().drawn(deployment, region, self.clock.now(), draw)
    }

    /// Puts `spec` into force from now; `None`: there are as many faults as there may be.
    pub fn inject(&self, spec: FaultSpec) -> Option<InjectedFault> {
        let mut faults = self.faults.lock();
        let injected = faults.inject(spec, self.clock.now(), self.clock.unix_ms());
        self.any.store(true, Ordering::Relaxed);
        injected
    }

    /// Those in force, the oldest first.
    pub fn active(&self) -> Vec<InjectedFault> {
        let mut faults = self.faults.lock();
        let active = faults.active(self.clock.now()).to_vec();
        self.any.store(!active.is_empty(), Ordering::Relaxed);
        active
    }

    /// Ends the fault of this id before its time; `None`: there is none.
    pub fn end(&self, id: u64) -> Option<InjectedFault> {
        self.faults.lock().end(id, self.clock.now())
    }

    /// Ends all.
    pub fn end_all(&self) {
        let mut faults = self.faults.lock();
        faults.end_all(self.clock.now());
        self.any.store(false, Ordering::Relaxed);
    }

    /// Whether the state of `deployment` in `region` may follow from a fault that is in force, or was shortly before.
    pub(super) fn may_explain(&self, deployment: &str, region: &str) -> bool {
        self.faults.lock().may_explain(deployment, region, self.clock.now())
    }
}
