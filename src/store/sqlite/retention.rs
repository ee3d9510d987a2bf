//! Forgetting what is too old, a little at a time.
//!
//! It is done between commits by the thread that writes, in pieces so small that no commit waits
//! long for one. Space that becomes free is used again; the file does not shrink.

use super::receipt_row;
use rusqlite::{Connection, params};
use std::time::Duration;

/// Rows deleted at once: some milliseconds.
const PIECE: i64 = 500;
/// How long to rest once nothing is too old. Receipts age by the day.
const REST_MS: i64 = 3_600_000;
/// The pause between two pieces while nothing else is written.
const BETWEEN_MS: i64 = 20;

/// How long receipts are kept, and when to look again.
#[derive(Debug)]
pub(super) struct Retention {
    keep_ms: i64,
    next_unix_ms: i64,
}

impl Retention {
    /// Keeps receipts for `keep`, beginning to look at once.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep_ms: i64::try_from(keep.as_millis()).unwrap_or(i64::MAX), next_unix_ms: i64::MIN }
    }

    /// How long until there is something to do.
    pub(super) fn pause(&self, now_unix_ms: i64) -> Duration {
        let left = self.next_unix_ms.saturating_sub(now_unix_ms);
        Duration::from_millis(left.clamp(0, REST_MS).unsigned_abs())
    }

    /// Deletes one piece if it is time.
    pub(super) fn tidy(&mut self, connection: &mut Connection, now_unix_ms: i64) {
        if !self.pause(now_unix_ms).is_zero() {
            return;
        }
        let before = now_unix_ms.saturating_sub(self.keep_ms);
        // By id and by time: where the two differ, by a clock that was set, a row is kept a little longer.
        let deleted = connection.execute(
            "DELETE FROM receipts WHERE id IN
             (SELECT id FROM receipts WHERE id < ?1 AND received_unix_ms < ?2 ORDER BY id LIMIT ?3)",
            params![receipt_row::id_at(before), before, PIECE],
        );
        let more = deleted.is_ok_and(|rows| i64::try_from(rows) == Ok(PIECE));
        self.next_unix_ms = now_unix_ms.saturating_add(if more { BETWEEN_MS } else { REST_MS });
    }
}
