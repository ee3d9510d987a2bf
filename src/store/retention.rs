//! When receipts that are older than the retention are deleted: a few at a time.
//!
//! The writer thread does it between commits, in batches so small that no commit waits long for one.

use std::time::Duration;

/// Rows deleted in one batch: some milliseconds.
pub(super) const BATCH_ROWS: i64 = 500;
/// The pause after which expired receipts are looked for again; the retention is counted in days.
const CHECK_EVERY_MS: i64 = 3_600_000;
/// The pause between two batches while nothing else is written.
const BETWEEN_BATCHES_MS: i64 = 20;

/// How long receipts are kept, and when the next batch is due.
#[derive(Debug)]
pub(super) struct Retention {
    keep_ms: i64,
    next_unix_ms: i64,
}

impl Retention {
    /// Keeps receipts for `keep`; the first batch is due at once.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep_ms: i64::try_from(keep.as_millis()).unwrap_or(i64::MAX), next_unix_ms: i64::MIN }
    }

    /// The time until the next batch is due.
    pub(super) fn pause(&self, now_unix_ms: i64) -> Duration {
        let left = self.next_unix_ms.saturating_sub(now_unix_ms);
        Duration::from_millis(left.clamp(0, CHECK_EVERY_MS).unsigned_abs())
    }

    /// If a batch is due, deletes it by `delete`, which gets the time before which receipts are expired, in Unix
    /// milliseconds, and returns how many rows it deleted; `None` if it could not.
    pub(super) fn delete_expired(&mut self, now_unix_ms: i64, delete: impl FnOnce(i64) -> Option<u64>) {
        if !self.pause(now_unix_ms).is_zero() {
            return;
        }
        let deleted = delete(now_unix_ms.saturating_sub(self.keep_ms));
        let more = deleted.is_some_and(|rows| i64::try_from(rows) == Ok(BATCH_ROWS));
        self.next_unix_ms = now_unix_ms.saturating_add(if more { BETWEEN_BATCHES_MS } else { CHECK_EVERY_MS });
    }
}
