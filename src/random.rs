//! The source of random values.
//!
//! A decision that needs chance gets a [`RandomValue`] passed in that was drawn here. One counter, one finaliser:
//! a draw costs an atomic addition, and the same seed gives the same sequence. It must never be used for secrets.

use crate::domain::random::RandomValue;
use std::sync::atomic::{AtomicU64, Ordering};

/// A seeded sequence of random values, for all threads.
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

    /// The next value of the sequence.
    pub fn draw(&self) -> RandomValue {
        self.seed.salted(self.next.fetch_add(1, Ordering::Relaxed))
    }
}
