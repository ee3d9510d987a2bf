//! The back end of a single process: ledger and counters in memory, lost when the process ends.
//!
//! A key's counters are created on its first request and guarded by a lock of their own, so keys never wait for
//! each other; no lock is held across an await. Memory must never grow with the number of requests: the ledger is
//! a ring, and counters of idle keys are removed.
//!
//! Start reading in [`KeyCounters::begin`] and [`KeyCounters::admit`].

use super::{
    Admission, AdmissionDenied, AdmissionRequest, Counters, Ledger, LedgerStatus, ReceiptRoom, RemainingRateLimits,
    StoreFuture,
};
use crate::domain::id::KeyId;
use crate::domain::limit::{
    LimitKind, Limits, OverLimit, RateLimitExceeded, RateLimitReservation, RateLimitStatus, SlidingWindow,
};
use crate::domain::receipt::Receipt;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Receipts kept: some minutes of a busy gateway, a few megabytes.
pub const RECEIPTS: usize = 10_000;
/// Number of maps that keys are spread over, so that a key's first request blocks few others.
const SHARDS: usize = 16;
/// A shard with fewer keys than this is never swept.
const SWEEP_FROM: usize = 64;
/// The retry delay of a refused concurrency slot. When a slot is freed cannot be known; a second is long enough to
/// prevent a busy loop and short compared to most answers.
pub(super) const SLOT_RETRY: Duration = Duration::from_secs(1);

/// The last receipts, and the number of all.
#[derive(Debug)]
pub struct MemoryLedger {
    capacity: usize,
    receipts: Mutex<RecentReceipts>,
}

#[derive(Default, Debug)]
struct RecentReceipts {
    count: u64,
    recent: VecDeque<Arc<Receipt>>,
}

impl MemoryLedger {
    /// Keeps the last `capacity` receipts.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, receipts: Mutex::default() }
    }

    /// The number of receipts appended since the start.
    pub fn count(&self) -> u64 {
        self.receipts.lock().count
    }

    /// The receipts kept, oldest first.
    pub fn recent(&self) -> Vec<Arc<Receipt>> {
        self.receipts.lock().recent.iter().cloned().collect()
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new(RECEIPTS)
    }
}

impl Ledger for MemoryLedger {
    fn reserve(&self) -> Option<ReceiptRoom> {
        Some(ReceiptRoom::unlimited())
    }

    fn append(&self, receipt: &Arc<Receipt>, _: Option<ReceiptRoom>) {
        let mut receipts = self.receipts.lock();
        receipts.count += 1;
        receipts.recent.push_back(receipt.clone());
        // Dropped after unlocking: freeing a receipt must not delay the next append.
        let oldest = if receipts.recent.len() > self.capacity { receipts.recent.pop_front() } else { None };
        drop(receipts);
        drop(oldest);
    }

    fn status(&self) -> LedgerStatus {
        LedgerStatus { healthy: true, waiting: 0, dropped: 0 }
    }
}

/// The counters of all keys of this process.
#[derive(Debug)]
pub struct MemoryCounters {
    shards: [RwLock<CounterShard>; SHARDS],
    in_flight: AtomicU64,
}

#[derive(Debug)]
struct CounterShard {
    /// Hashed without a secret: the numbers are ours, and each request looks here four times.
    keys: HashMap<KeyId, Arc<Mutex<KeyCounters>>, FixedState>,
    /// At this many keys, idle ones are removed before another is added.
    sweep_at: usize,
}

impl MemoryCounters {
    /// Without any key.
    pub fn new() -> Self {
        let shards =
            std::array::from_fn(|_| RwLock::new(CounterShard { keys: HashMap::default(), sweep_at: SWEEP_FROM }));
        Self { shards, in_flight: AtomicU64::new(0) }
    }

    /// [`Counters::admit`], which waits for nothing here.
    pub(super) fn take(
        &self,
        admission: &mut Admission,
        request: &AdmissionRequest<'_>,
        now: Instant,
    ) -> Result<(), AdmissionDenied> {
        self.counters(admission.key, now).lock().admit(admission, request, now)
    }

    /// The key's counters, created if this is its first request.
    fn counters(&self, key: KeyId, now: Instant) -> Arc<Mutex<KeyCounters>> {
        if let Some(counters) = self.existing(key) {
            return counters;
        }
        let mut shard = self.shard(key).write();
        if shard.keys.len() >= shard.sweep_at {
            shard.sweep(now);
        }
        shard.keys.entry(key).or_insert_with(|| Arc::new(Mutex::new(KeyCounters::new(now)))).clone()
    }

    fn existing(&self, key: KeyId) -> Option<Arc<Mutex<KeyCounters>>> {
        self.shard(key).read().keys.get(&key).cloned()
    }

    fn shard(&self, key: KeyId) -> &RwLock<CounterShard> {
        &self.shards[key.0 as usize % SHARDS]
    }
}

impl Default for MemoryCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters for MemoryCounters {
    fn begin(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<Admission, AdmissionDenied> {
        self.counters(key, now).lock().begin(limits, now)?;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Admission { key, tokens: None, left: RemainingRateLimits::default(), shared: None })
    }

    fn admit<'a>(
        &'a self,
        admission: &'a mut Admission,
        request: AdmissionRequest<'a>,
        now: Instant,
    ) -> StoreFuture<'a, Result<(), AdmissionDenied>> {
        Box::pin(std::future::ready(self.take(admission, &request, now)))
    }

    fn check_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        match limits.requests_per_minute.and_then(|_| self.existing(key)) {
            Some(counters) => counters.lock().check_refused(limits, now),
            None => Ok(()),
        }
    }

    fn count_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        if limits.requests_per_minute.is_none() {
            return Ok(());
        }
        let counters = self.counters(key, now);
        let mut counters = counters.lock();
        counters.check_refused(limits, now)?;
        let now = counters.latest;
        counters.refused.take(1, now);
        Ok(())
    }

    fn settle(&self, admission: Admission, tokens_used: Option<u64>, now: Instant) {
        // A key with a slot in use is never removed, so an admission always finds its counters.
        if let Some(counters) = self.existing(admission.key) {
            counters.lock().settle(admission, tokens_used, now);
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl CounterShard {
    /// Removes idle keys. The next threshold is twice the number that stays, so that sweeping has a constant
    /// amortized cost per key added.
    fn sweep(&mut self, now: Instant) {
        // Counters that are referenced elsewhere may be about to change; under this lock nobody else gets a reference.
        self.keys.retain(|_, counters| Arc::strong_count(counters) > 1 || !counters.lock().is_idle(now));
        self.sweep_at = (self.keys.len() * 2).max(SWEEP_FROM);
    }
}

/// How much of its limits one key has used.
#[derive(Debug)]
struct KeyCounters {
    running: u32,
    requests: RateCounter,
    tokens: RateCounter,
    /// Requests that were refused for what they are, as many a minute as requests.
    refused: RateCounter,
    /// The latest instant seen so far. Threads read the clock before they get the lock; a thread that read it early
    /// and gets the lock late must not be admitted at an instant before units were returned.
    latest: Instant,
}

impl KeyCounters {
    fn new(now: Instant) -> Self {
        Self {
            running: 0,
            requests: RateCounter::new(LimitKind::Requests),
            tokens: RateCounter::new(LimitKind::Tokens),
            refused: RateCounter::new(LimitKind::Refused),
            latest: now,
        }
    }

    /// Takes a slot.
    fn begin(&mut self, limits: &Limits, now: Instant) -> Result<(), AdmissionDenied> {
        let now = self.advance(now);
        slot(self.running, limits.max_concurrent).map_err(|over| {
            self.set_limits(limits);
            AdmissionDenied { over, left: self.left(now) }
        })?;
        self.running += 1;
        Ok(())
    }

    /// Checks both rates before it takes of either: units that are returned still count in a sliding window.
    fn admit(
        &mut self,
        admission: &mut Admission,
        request: &AdmissionRequest<'_>,
        now: Instant,
    ) -> Result<(), AdmissionDenied> {
        let now = self.advance(now);
        let tokens = request.tokens.max(1);
        self.set_limits(&request.limits);
        self.requests
            .check(1, now)
            .and_then(|()| self.tokens.check(tokens, now))
            .map_err(|over| AdmissionDenied { over, left: self.left(now) })?;
        self.requests.take(1, now);
        admission.tokens = self.tokens.take(tokens, now);
        admission.left = self.left(now);
        Ok(())
    }

    fn set_limits(&mut self, limits: &Limits) {
        self.requests.set_limit(limits.requests_per_minute);
        self.tokens.set_limit(limits.tokens_per_minute);
    }

    fn check_refused(&mut self, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        let now = self.advance(now);
        self.refused.set_limit(limits.requests_per_minute);
        self.refused.check(1, now)
    }

    fn settle(&mut self, admission: Admission, tokens_used: Option<u64>, now: Instant) {
        let now = self.advance(now);
        self.running -= 1;
        if let (Some(taken), Some(used)) = (admission.tokens, tokens_used) {
            self.tokens.window.settle(taken, used, now);
        }
    }

    fn left(&mut self, now: Instant) -> RemainingRateLimits {
        RemainingRateLimits { requests: self.requests.left(now), tokens: self.tokens.left(now), degraded: false }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        let windows = [&mut self.requests, &mut self.tokens, &mut self.refused];
        self.running == 0 && windows.into_iter().all(|counter| counter.window.is_idle(now))
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }
}

/// Checks whether another request may run in addition to `running` others.
fn slot(running: u32, max: Option<u32>) -> Result<(), OverLimit> {
    match max {
        Some(max) if running >= max => Err(OverLimit {
            limit: LimitKind::Concurrency,
            ceiling: u64::from(max),
            retry_after: (max > 0).then_some(SLOT_RETRY),
        }),
        _ => Ok(()),
    }
}

/// A rate limit as in the latest request's configuration snapshot. The window outlives the limit: a limit that is
/// removed and comes back finds what was taken before.
#[derive(Debug)]
struct RateCounter {
    kind: LimitKind,
    limit: Option<u64>,
    window: SlidingWindow,
}

impl RateCounter {
    fn new(kind: LimitKind) -> Self {
        Self { kind, limit: None, window: SlidingWindow::new(0) }
    }

    fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
        if let Some(limit) = limit {
            self.window.set_limit(limit);
        }
    }

    /// Checks whether `amount` is available; takes nothing.
    fn check(&mut self, amount: u64, now: Instant) -> Result<(), OverLimit> {
        let Some(ceiling) = self.limit else { return Ok(()) };
        if amount <= self.window.left(now).remaining {
            return Ok(());
        }
        // More than remains cannot be taken: the refusal contains the exact wait.
        self.window.take(amount, now).map(drop).map_err(|RateLimitExceeded { retry_after }| OverLimit {
            limit: self.kind,
            ceiling,
            retry_after,
        })
    }

    fn take(&mut self, amount: u64, now: Instant) -> Option<RateLimitReservation> {
        self.limit?;
        self.window.take(amount, now).ok()
    }

    fn left(&mut self, now: Instant) -> Option<RateLimitStatus> {
        self.limit.map(|_| self.window.left(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::RequestId;
    use crate::domain::limit::WINDOW;
    use crate::domain::money::NanoUsd;
    use crate::domain::reason::Reason;
    use crate::domain::receipt::Outcome;

    fn admit(
        counters: &MemoryCounters,
        key: u32,
        request: AdmissionRequest<'_>,
        now: Instant,
    ) -> Result<Admission, AdmissionDenied> {
        let mut admission = counters.begin(KeyId(key), &request.limits, now)?;
        match counters.take(&mut admission, &request, now) {
            Ok(()) => Ok(admission),
            Err(denied) => {
                counters.settle(admission, None, now);
                Err(denied)
            }
        }
    }

    fn ask(limits: Limits) -> AdmissionRequest<'static> {
        AdmissionRequest { key: "key", limits, tokens: 1 }
    }

    fn keys(counters: &MemoryCounters) -> usize {
        counters.shards.iter().map(|shard| shard.read().keys.len()).sum()
    }

    #[test]
    fn idle_keys_are_removed_and_busy_ones_are_not() {
        let counters = MemoryCounters::new();
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let start = Instant::now();
        let busy = admit(&counters, 0, ask(limits), start).expect("an unused key is admitted");
        for key in 1..100_000 {
            // A minute passes every thousand keys, so at most about the last thousand have used anything.
            let now = start + WINDOW * (key / 1_000);
            let admission = admit(&counters, key, ask(limits), now).expect("an unused key is admitted");
            counters.settle(admission, None, now);
        }
        assert!(keys(&counters) < 5_000, "{}", keys(&counters));
        assert!(counters.existing(busy.key).is_some());
        counters.settle(busy, None, start);
        assert_eq!(counters.in_flight(), 0);
    }

    #[test]
    fn a_clock_read_early_and_used_late_counts_from_when_it_is_used() {
        let counters = MemoryCounters::new();
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let start = Instant::now();
        let take = |now: Duration| {
            let taken = admit(&counters, 1, ask(limits), start + now);
            taken
                .map(|admission| counters.settle(admission, None, start + now))
                .map_err(|denied| denied.over.retry_after)
        };
        let (minute, moment) = (WINDOW, Duration::from_millis(100));
        assert_eq!(take(Duration::ZERO), Ok(()));
        assert_eq!(take(minute - moment), Err(Some(moment)));
        // Another thread arrives at the full minute, and requests more than it can have.
        let large = AdmissionRequest { key: "key", tokens: 2, limits: Limits { tokens_per_minute: Some(1), ..limits } };
        assert!(admit(&counters, 1, large, start + minute).is_err());
        assert_eq!(take(minute - moment), Ok(()));
        assert_eq!(take(2 * minute - moment), Err(Some(moment)));
    }

    fn receipt(id: u128) -> Receipt {
        Receipt {
            id: RequestId(id),
            received_unix_ms: 0,
            endpoint: None,
            key: None,
            team: None,
            policy: None,
            asked_model: None,
            stream: false,
            meant: None,
            served: None,
            attempts: Vec::new(),
            passed_over: Vec::new(),
            outcome: Outcome::Refused,
            reason: Reason::UnknownUrl,
            limit: None,
            status: 404,
            usage: None,
            estimated: false,
            price: None,
            price_version: None,
            cost: NanoUsd::ZERO,
            charges: Vec::new(),
            first_token: None,
            failover: None,
            duration: Duration::ZERO,
            overhead: Duration::ZERO,
        }
    }

    #[test]
    fn the_ledger_keeps_the_last_receipts_and_counts_all() {
        let ledger = MemoryLedger::new(3);
        for id in 0..5 {
            ledger.append(&Arc::new(receipt(id)), None);
        }
        assert_eq!(ledger.count(), 5);
        assert_eq!(ledger.recent().iter().map(|receipt| receipt.id.0).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
