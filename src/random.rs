//! The one place of chance.
//!
//! Every decision that needs dice is handed a [`RandomValue`] from here. One counter, one finaliser: draws
//! cost an atomic addition, and the same seed gives the same sequence.

use crate::domain::random::RandomValue;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of draws.
#[derive(Debug)]
pub struct Rng {
    seed: RandomValue,
    next: AtomicU64,
}

impl Rng {
    /// The sequence of `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self { seed: RandomValue(seed), next: AtomicU64::new(0) }
    }

    /// The next draw.
    pub fn draw(&self) -> RandomValue {
        self.seed.salted(self.next.fetch_add(1, Ordering::Relaxed))
    }
}
