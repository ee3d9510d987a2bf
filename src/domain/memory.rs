//! The bytes of requests and answers that are held in memory: how many all keys may hold, and how many one.
//!
//! It exists so that no key takes the memory from others. A key may hold as many bytes as it leaves free: half of all
//! where it is alone, less beside others, and however many keys take what they may, something is left for the next
//! one. It must never wait or read a clock: whoever finds that there is no room decides what to do.
//!
//! Start reading in [`InFlightReservation::set`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in memory, of one key or of all.
#[derive(Default, Debug)]
pub struct InFlightBytes(AtomicU64);

impl InFlightBytes {
    /// How many there are.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one key may hold beside all others.
#[derive(Clone, Debug)]
pub struct InFlightAllowance {
    /// Of all keys.
    pub all: Arc<InFlightBytes>,
    /// Of the key.
    pub own: Arc<InFlightBytes>,
    /// The most bytes of all keys together.
    pub max: u64,
}

impl Default for InFlightAllowance {
    /// Of nobody, and without a limit.
    fn default() -> Self {
        Self { all: Arc::default(), own: Arc::default(), max: u64::MAX }
    }
}

impl InFlightAllowance {
    /// A part of it, with nothing in it yet.
    pub fn reservation(&self) -> InFlightReservation {
        InFlightReservation { allowance: self.clone(), bytes: 0 }
    }
}

/// The bytes of one body or answer, which count until it is dropped.
#[must_use = "what is not held does not count"]
#[derive(Debug)]
pub struct InFlightReservation {
    allowance: InFlightAllowance,
    bytes: u64,
}

impl InFlightReservation {
    /// What it is a part of.
    pub fn allowance(&self) -> &InFlightAllowance {
        &self.allowance
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds `more` bytes, as [`set`](Self::set) does.
    pub fn grow(&mut self, more: u64) -> bool {
        self.set(self.bytes.saturating_add(more))
    }

    /// It has `bytes` from now on. `false`, and nothing changes, where its key would hold more than it leaves free.
    /// What is held alone may take all: otherwise a body of more than half could never be received.
    pub fn set(&mut self, bytes: u64) -> bool {
        let InFlightAllowance { all, own, max } = &self.allowance;
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.give_back(self.bytes - bytes);
            self.bytes = bytes;
            return true;
        };
        let of_all = all.0.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let of_key = own.0.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if max.checked_sub(of_all).is_some_and(|free| of_key <= free || bytes == of_all) {
            self.bytes = bytes;
            return true;
        }
        self.give_back(more);
        false
    }

    fn give_back(&self, bytes: u64) {
        self.allowance.all.0.fetch_sub(bytes, Ordering::Relaxed);
        self.allowance.own.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for InFlightReservation {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1200;

    fn keys<const COUNT: usize>() -> [InFlightAllowance; COUNT] {
        let all = Arc::<InFlightBytes>::default();
        std::array::from_fn(|_| InFlightAllowance { all: all.clone(), own: Arc::default(), max: MAX })
    }

    /// Reserves `each` bytes at a time until there is no more; how many bytes that is.
    fn fill(key: &InFlightAllowance, each: u64, held: &mut Vec<InFlightReservation>) -> u64 {
        let before = key.own.bytes();
        loop {
            let mut next = key.reservation();
            if !next.grow(each) {
                return key.own.bytes() - before;
            }
            held.push(next);
        }
    }

    #[test]
    fn a_key_holds_no_more_than_it_leaves_free() {
        let [one, two, three] = &keys();
        let mut held = Vec::new();
        assert_eq!(fill(one, 1, &mut held), 600);
        assert_eq!(fill(two, 1, &mut held), 300);
        assert_eq!(fill(three, 1, &mut held), 150);
        assert_eq!((fill(one, 1, &mut held), fill(two, 1, &mut held)), (0, 0));
        drop(held);
        assert_eq!([one, two, three].map(|key| (key.own.bytes(), key.all.bytes())), [(0, 0); 3]);
    }

    #[test]
    fn however_many_take_all_they_may_something_is_left() {
        let keys = keys::<40>();
        let mut held = Vec::new();
        for key in &keys {
            fill(key, 1, &mut held);
        }
        assert!(keys[0].all.bytes() < MAX);
    }

    #[test]
    fn what_is_alone_may_take_all_and_nothing_takes_more() {
        let [one, two] = &keys();
        let mut large = one.reservation();
        assert!(large.grow(MAX) && !large.grow(1));
        assert_eq!((large.bytes(), one.all.bytes()), (MAX, MAX));
        assert!(!two.reservation().grow(1));
        assert!(large.set(400), "it may shrink");
        let mut small = two.reservation();
        assert!(small.grow(400) && !small.grow(1), "as much as it leaves free");
        assert!(!large.grow(401), "it is no longer alone");
        drop((large, small));
        assert_eq!((one.own.bytes(), two.own.bytes(), one.all.bytes()), (0, 0, 0));
    }

    #[test]
    fn what_belongs_to_no_key_is_not_limited() {
        let allowance = InFlightAllowance::default();
        let mut one = allowance.reservation();
        let mut two = allowance.reservation();
        assert!(one.grow(u64::MAX / 4) && two.grow(u64::MAX / 4));
        assert!(one.set(0));
    }
}
