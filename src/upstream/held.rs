//! What of answers is held in memory, counted for their key until the last byte of it was passed on.
//!
//! An answer that is read whole waits a little where there is no room: others of its key are being read by their
//! clients meanwhile. A stream's frame cannot wait, because what follows it would.
//!
//! Start reading in [`HeldAnswer::hold`].

use super::AttemptError;
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::memory::{InFlightAllowance, InFlightReservation};
use bytes::Bytes;
use std::time::Duration;

/// The largest frame, and the largest whole answer, in bytes. Embeddings of a full batch are the largest known, at some
/// 40 MiB.
pub(super) const MAX_HELD_ANSWER: usize = 64 * 1024 * 1024;
/// Up to so many bytes are not counted: the requests in flight bound their sum.
const UNCOUNTED: usize = 64 * 1024;
/// How long an answer waits for room, and how soon it looks again.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The part of an answer that is in memory.
pub(super) struct HeldAnswer(InFlightReservation);

impl HeldAnswer {
    /// Nothing yet, of an answer that counts in `allowance`.
    pub(super) fn none(allowance: &InFlightAllowance) -> Self {
        Self(allowance.reservation())
    }

    /// It has `bytes` now; `false` where there is no room for them.
    #[inline]
    pub(super) fn try_hold(&mut self, bytes: usize) -> bool {
        match bytes {
            0..=UNCOUNTED => self.0.bytes() == 0 || self.0.set(0),
            _ => self.0.set(bytes as u64),
        }
    }

    /// The same, once there is room. Calls `heard` meanwhile: it is not the provider that is waited for.
    ///
    /// # Errors
    /// There was none for too long.
    pub(super) async fn hold(
        &mut self,
        bytes: usize,
        clock: Clock,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<(), AttemptError> {
        if self.try_hold(bytes) {
            return Ok(());
        }
        let until = clock.now() + PATIENCE;
        while clock.now() < until {
            clock.sleep(LOOK_AGAIN).await;
            heard();
            if self.try_hold(bytes) {
                return Ok(());
            }
        }
        Err(AttemptError::new(Failure::NotHeld, "there was no room for the answer beside those that wait to be read"))
    }

    /// `bytes` of the same answer that are passed on, counted until the last clone of them is dropped; `None` where there
    /// is no room for them.
    #[inline]
    pub(super) fn passed_on(&self, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() <= UNCOUNTED {
            return Some(bytes);
        }
        let mut held = Self::none(self.0.allowance());
        held.try_hold(bytes.len()).then(|| held.attached_to(bytes))
    }

    /// `bytes`, which it has, counted until the last clone of them is dropped.
    pub(super) fn attached_to(self, bytes: Bytes) -> Bytes {
        if self.0.bytes() == 0 { bytes } else { Bytes::from_owner(CountedBytes { bytes, _reservation: self.0 }) }
    }
}

/// Bytes and their reservation, dropped together.
struct CountedBytes {
    bytes: Bytes,
    _reservation: InFlightReservation,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn allowance(max: usize) -> InFlightAllowance {
        InFlightAllowance { max: max as u64, ..InFlightAllowance::default() }
    }

    #[test]
    fn only_what_is_large_is_counted_and_until_its_last_byte_is_dropped() {
        let allowance = allowance(1 << 20);
        let mut held = HeldAnswer::none(&allowance);
        assert!(held.try_hold(UNCOUNTED));
        assert_eq!(held.attached_to(Bytes::from_static(b"small")), "small");
        assert_eq!(allowance.all.bytes(), 0);
        let mut held = HeldAnswer::none(&allowance);
        assert!(held.try_hold(UNCOUNTED + 1));
        let bytes = held.attached_to(Bytes::from_static(b"large"));
        let last = bytes.slice(4..);
        drop(bytes);
        assert_eq!((last.as_ref(), allowance.all.bytes()), (&b"e"[..], UNCOUNTED as u64 + 1));
        drop(last);
        assert_eq!(allowance.all.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_those_that_are_being_read() {
        let allowance = allowance(1 << 20);
        let (mut first, mut second) = (HeldAnswer::none(&allowance), HeldAnswer::none(&allowance));
        let mut heard = 0;
        first.hold(400_000, Clock, &mut || heard += 1).await.expect("nothing else is held");
        assert_eq!(heard, 0);
        let reading = async {
            Clock.sleep(PATIENCE / 2).await;
            drop(first);
        };
        let mut note = || heard += 1;
        let (held, ()) = tokio::join!(second.hold(400_000, Clock, &mut note), reading);
        assert!(held.is_ok());
        assert!(heard > 100, "the provider is not silent meanwhile");
        let other = InFlightAllowance { own: Arc::default(), ..allowance.clone() };
        assert!(HeldAnswer::none(&other).try_hold(300_000), "another key's are not in its way");
        let error =
            HeldAnswer::none(&allowance).hold(400_000, Clock, &mut || {}).await.expect_err("nobody reads the second");
        assert_eq!(error.failure, Failure::NotHeld);
    }
}
