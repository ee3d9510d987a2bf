//! The source of time, and the only module that may read a system clock.
//!
//! Code that decides by time gets an `Instant` passed in. Time comes from tokio's clock, so that a test
//! that pauses it pauses the gateway.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the system's clocks.
#[derive(Clone, Copy, Default, Debug)]
pub struct Clock;

impl Clock {
    /// A monotonic instant, for measurements and deadlines.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn now(self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Milliseconds since 1970 in UTC, for receipts and displays.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn unix_ms(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Waits until `at`.
    pub async fn sleep_until(self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
    }

    /// Waits for `pause`.
    pub async fn sleep(self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}
