//! The traffic of this moment and of the last 7 days, for those who watch the gateway.
//!
//! A request pays for a lock and some additions, and for nothing else while nobody watches; it never waits for who does:
//! what a watcher does not read in time is left out. Nothing here is durable: the ledger is.
//!
//! Start reading at [`LiveTraffic::record`].

use crate::domain::receipt::Receipt;
use crate::domain::traffic::{TrafficEvent, TrafficHistory, TrafficSecond, TrafficSeries, TrafficSpan};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::broadcast::{Receiver, Sender, error::RecvError};

/// The most who watch at a time.
pub const MOST_WATCHERS: usize = 32;
/// Finished requests that a watcher may be behind by: a few seconds of them.
const MOST_BEHIND: usize = 256;

/// Traffic, and who watches it.
pub struct LiveTraffic {
    history: Mutex<TrafficHistory>,
    watchers: AtomicUsize,
    finished: Sender<Arc<Receipt>>,
}

impl Default for LiveTraffic {
    fn default() -> Self {
        let (history, watchers) = (Mutex::default(), AtomicUsize::new(0));
        Self { history, watchers, finished: Sender::new(MOST_BEHIND) }
    }
}

impl LiveTraffic {
    /// Counts a finished request.
    pub fn record(&self, receipt: &Arc<Receipt>) {
        let took_ms = i64::try_from(receipt.duration.as_millis()).unwrap_or(0);
        let ended_unix_s = receipt.received_unix_ms.saturating_add(took_ms).div_euclid(1_000);
        let watched = self.watchers.load(Ordering::Relaxed) > 0;
        let shown = self.history.lock().record(ended_unix_s, receipt, watched);
        if shown {
            // Whoever watched may have left.
            let _ = self.finished.send(receipt.clone());
        }
    }

    /// Records that something happened.
    pub fn note(&self, event: TrafficEvent) {
        self.history.lock().note(event);
    }

    /// The complete steps of `span` before `now_unix_ms`.
    pub fn series(&self, span: TrafficSpan, now_unix_ms: i64) -> TrafficSeries {
        self.history.lock().series(span, now_unix_ms.div_euclid(1_000))
    }

    /// Begins to watch; `None`: as many do as may.
    pub fn watch(self: &Arc<Self>) -> Option<LiveTrafficReader> {
        let more = |watching: usize| (watching < MOST_WATCHERS).then_some(watching + 1);
        self.watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let events_read = self.history.lock().events_recorded();
        Some(LiveTrafficReader { finished: self.finished.subscribe(), live: self.clone(), events_read })
    }
}

impl fmt::Debug for LiveTraffic {
    /// Only how many watch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTraffic").field("watchers", &self.watchers).finish_non_exhaustive()
    }
}

/// One who watches; ends when it is dropped.
pub struct LiveTrafficReader {
    live: Arc<LiveTraffic>,
    finished: Receiver<Arc<Receipt>>,
    /// Events recorded when they were last read.
    events_read: u64,
}

impl LiveTrafficReader {
    /// The next finished request that is shown. What was not read in time is left out.
    pub async fn finished(&mut self) -> Arc<Receipt> {
        loop {
            match self.finished.recv().await {
                Ok(receipt) => return receipt,
                Err(RecvError::Lagged(_)) => {}
                // It cannot be: the sender lives as long as this.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The last complete second, and what happened since this was last called.
    pub fn second(&mut self, now_unix_ms: i64) -> (TrafficSecond, Vec<TrafficEvent>) {
        let mut history = self.live.history.lock();
        let events = history.events_after(self.events_read);
        self.events_read = history.events_recorded();
        (history.last_second(now_unix_ms.div_euclid(1_000)), events)
    }
}

impl Drop for LiveTrafficReader {
    fn drop(&mut self) {
        self.live.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;
    use crate::domain::receipt::tests::{attempt, receipt};
    use crate::domain::traffic::{MOST_SHOWN_PER_SECOND, TrafficEventKind};

    fn finished(received_unix_ms: i64) -> Arc<Receipt> {
        let one = receipt(vec![attempt("eu", "big", Reason::Served)], Some(("eu", "big")), Reason::Served);
        Arc::new(Receipt { received_unix_ms, ..one })
    }

    #[test]
    fn so_many_may_watch_and_a_place_is_given_back() {
        let live = Arc::new(LiveTraffic::default());
        let all: Vec<_> = (0..MOST_WATCHERS).map(|_| live.watch().expect("there are places")).collect();
        assert!(live.watch().is_none());
        drop(all);
        assert!(live.watch().is_some());
        assert_eq!(live.watchers.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_watcher_sees_what_ended_since_it_began() {
        let live = Arc::new(LiveTraffic::default());
        live.record(&finished(1_000));
        let mut watcher = live.watch().expect("nobody watches yet");
        live.record(&finished(1_100));
        assert_eq!(watcher.finished().await.received_unix_ms, 1_100);
        let (second, events) = watcher.second(2_500);
        assert_eq!((second.unix_s, second.sums.requests(), events.len()), (1, 2, 0));
        let event =
            TrafficEvent { at_unix_ms: 2_600, kind: TrafficEventKind::Reload, subject: "".into(), detail: "".into() };
        live.note(event.clone());
        assert_eq!(watcher.second(3_500).1, [event]);
        assert!(watcher.second(4_500).1.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_read_misses_requests_and_holds_nothing_up() {
        let live = Arc::new(LiveTraffic::default());
        let mut watcher = live.watch().expect("nobody watches yet");
        let seconds = 2 * MOST_BEHIND as i64 / i64::from(MOST_SHOWN_PER_SECOND) + 1;
        for second in 0..seconds {
            for _ in 0..MOST_SHOWN_PER_SECOND {
                live.record(&finished(second * 1_000));
            }
        }
        let first = watcher.finished().await.received_unix_ms;
        assert!(first > 0 && first < seconds * 1_000, "the oldest were left out: {first}");
    }
}
