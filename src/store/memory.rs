//! The back end of a single process: everything in memory, gone with it.
//!
//! A key's state is made on its first request and guarded by its own small lock, so keys never
//! wait for each other; no lock is held across an await. It must never grow with the number of
//! requests: the ledger is a ring, and keys that have nothing taken are forgotten.
//!
//! Start reading in [`KeyState::admit`].

use super::{Admission, Ask, BoxFuture, Counters, Denied, Ledger, LedgerStatus, RatesLeft};
use crate::domain::id::KeyId;
use crate::domain::limit::{RateExceeded, RateLimitStatus, RateReservation, SlidingWindow};
use crate::domain::receipt::Receipt;
use crate::domain::refusal::{LimitKind, OverLimit};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Receipts remembered: some minutes of a busy gateway, a few megabytes.
pub const RECEIPTS: usize = 10_000;
/// Key maps beside each other, so that a key's first request holds up few others.
const SHARDS: usize = 16;
/// A shard smaller than this is never swept.
const SWEEP_FROM: usize = 64;
/// When a slot frees depends on answers still being written, which nobody knows; a second is long
/// enough not to be asked in a loop and short beside most answers.
const SLOT_RETRY: Duration = Duration::from_secs(1);

/// The last receipts, and how many there ever were.
#[derive(Debug)]
pub struct MemoryLedger {
    capacity: usize,
    book: Mutex<Book>,
}

#[derive(Default, Debug)]
struct Book {
    count: u64,
    recent: VecDeque<Arc<Receipt>>,
}

impl MemoryLedger {
    /// Remembers the last `capacity` receipts.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, book: Mutex::default() }
    }

    /// How many receipts were ever appended.
    pub fn count(&self) -> u64 {
        lock(&self.book).count
    }

    /// The receipts remembered, the oldest first.
    pub fn recent(&self) -> Vec<Arc<Receipt>> {
        lock(&self.book).recent.iter().cloned().collect()
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new(RECEIPTS)
    }
}

impl Ledger for MemoryLedger {
    fn append(&self, receipt: &Arc<Receipt>) {
        let mut book = lock(&self.book);
        book.count += 1;
        book.recent.push_back(receipt.clone());
        // Dropped after the lock: freeing a receipt is not the next one's business.
        let oldest = if book.recent.len() > self.capacity { book.recent.pop_front() } else { None };
        drop(book);
        drop(oldest);
    }

    fn status(&self) -> LedgerStatus {
        LedgerStatus { healthy: true, waiting: 0, dropped: 0 }
    }
}

/// What the keys of this process have taken.
#[derive(Debug)]
pub struct MemoryCounters {
    shards: [RwLock<Shard>; SHARDS],
    in_flight: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    keys: HashMap<KeyId, Arc<Mutex<KeyState>>>,
    /// With this many keys, idle ones are forgotten before another is added.
    sweep_at: usize,
}

impl MemoryCounters {
    /// Nothing taken.
    pub fn new() -> Self {
        let shards = std::array::from_fn(|_| RwLock::new(Shard { keys: HashMap::new(), sweep_at: SWEEP_FROM }));
        Self { shards, in_flight: AtomicU64::new(0) }
    }

    fn take(&self, ask: &Ask, now: Instant) -> Result<Admission, Denied> {
        let state = self.state(ask.key, now);
        let admission = lock(&state).admit(ask, now)?;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(admission)
    }

    /// The key's state, made if this is its first request.
    fn state(&self, key: KeyId, now: Instant) -> Arc<Mutex<KeyState>> {
        if let Some(state) = self.known(key) {
            return state;
        }
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        if shard.keys.len() >= shard.sweep_at {
            shard.sweep(now);
        }
        shard.keys.entry(key).or_insert_with(|| Arc::new(Mutex::new(KeyState::new(now)))).clone()
    }

    fn known(&self, key: KeyId) -> Option<Arc<Mutex<KeyState>>> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner).keys.get(&key).cloned()
    }

    fn shard(&self, key: KeyId) -> &RwLock<Shard> {
        &self.shards[key.0 as usize % SHARDS]
    }
}

impl Default for MemoryCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters for MemoryCounters {
    fn admit<'a>(&'a self, ask: &'a Ask, now: Instant) -> BoxFuture<'a, Result<Admission, Denied>> {
        Box::pin(std::future::ready(self.take(ask, now)))
    }

    fn settle(&self, admission: Admission, tokens_used: Option<u64>, now: Instant) {
        // A key with a slot held is never forgotten, so an admission always finds its state.
        if let Some(state) = self.known(admission.key) {
            lock(&state).settle(admission, tokens_used, now);
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Shard {
    /// Forgets the keys that have nothing taken. The threshold doubles with what stays, so that
    /// sweeping costs a constant per key added.
    fn sweep(&mut self, now: Instant) {
        // A state somebody else holds may be about to change; under this lock nobody new gets one.
        self.keys.retain(|_, state| Arc::strong_count(state) > 1 || !lock(state).is_idle(now));
        self.sweep_at = (self.keys.len() * 2).max(SWEEP_FROM);
    }
}

/// What one key has taken.
#[derive(Debug)]
struct KeyState {
    running: u32,
    requests: Rate,
    tokens: Rate,
    /// The latest instant seen here. Threads read the clock before they get the lock; one that read
    /// it early but comes late must not be let in at an instant before units it found returned.
    latest: Instant,
}

impl KeyState {
    fn new(now: Instant) -> Self {
        Self { running: 0, requests: Rate::new(LimitKind::Requests), tokens: Rate::new(LimitKind::Tokens), latest: now }
    }

    /// Looks at all limits before it takes of any: even what is given back leaves a mark.
    fn admit(&mut self, ask: &Ask, now: Instant) -> Result<Admission, Denied> {
        let now = self.advance(now);
        let tokens = ask.tokens.max(1);
        self.requests.set_limit(ask.limits.requests_per_minute);
        self.tokens.set_limit(ask.limits.tokens_per_minute);
        slot(self.running, ask.limits.max_concurrent)
            .and_then(|()| self.requests.check(1, now))
            .and_then(|()| self.tokens.check(tokens, now))
            .map_err(|over| Denied { over, left: self.left(now) })?;
        self.running += 1;
        self.requests.take(1, now);
        let tokens = self.tokens.take(tokens, now);
        Ok(Admission { key: ask.key, tokens, left: self.left(now) })
    }

    fn settle(&mut self, admission: Admission, tokens_used: Option<u64>, now: Instant) {
        let now = self.advance(now);
        self.running -= 1;
        if let (Some(taken), Some(used)) = (admission.tokens, tokens_used) {
            self.tokens.window.settle(taken, used, now);
        }
    }

    fn left(&mut self, now: Instant) -> RatesLeft {
        RatesLeft { requests: self.requests.left(now), tokens: self.tokens.left(now) }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.running == 0 && self.requests.window.is_idle(now) && self.tokens.window.is_idle(now)
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }
}

/// Whether another request may run beside `running` others.
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

/// A rate as the latest request's snapshot has it. The window outlives the limit: one that is
/// taken away and comes back finds what was taken before.
#[derive(Debug)]
struct Rate {
    kind: LimitKind,
    limit: Option<u64>,
    window: SlidingWindow,
}

impl Rate {
    fn new(kind: LimitKind) -> Self {
        Self { kind, limit: None, window: SlidingWindow::new(0) }
    }

    fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
        if let Some(limit) = limit {
            self.window.set_limit(limit);
        }
    }

    /// Whether `amount` would be given; takes nothing.
    fn check(&mut self, amount: u64, now: Instant) -> Result<(), OverLimit> {
        let Some(ceiling) = self.limit else { return Ok(()) };
        if amount <= self.window.left(now).remaining {
            return Ok(());
        }
        // More than remains cannot be taken; being refused it tells the exact wait.
        let reported = self.window.take(amount, now);
        reported.map(drop).map_err(|RateExceeded { retry_after }| OverLimit { limit: self.kind, ceiling, retry_after })
    }

    fn take(&mut self, amount: u64, now: Instant) -> Option<RateReservation> {
        self.limit?;
        self.window.take(amount, now).ok()
    }

    fn left(&mut self, now: Instant) -> Option<RateLimitStatus> {
        self.limit.map(|_| self.window.left(now))
    }
}

/// A panic elsewhere must not end every later request of the key.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorize::Limits;
    use crate::domain::id::RequestId;
    use crate::domain::limit::WINDOW;
    use crate::domain::money::NanoUsd;
    use crate::domain::receipt::{Outcome, Reason};

    fn ask(key: u32, limits: Limits) -> Ask {
        Ask { key: KeyId(key), limits, tokens: 1 }
    }

    fn keys(counters: &MemoryCounters) -> usize {
        counters.shards.iter().map(|shard| shard.read().expect("no thread panicked").keys.len()).sum()
    }

    #[test]
    fn idle_keys_are_forgotten_and_busy_ones_are_not() {
        let counters = MemoryCounters::new();
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let start = Instant::now();
        let busy = counters.take(&ask(0, limits), start).expect("an unused key is let in");
        for key in 1..100_000 {
            // A minute passes every thousand keys, so at most the last thousand or so have anything taken.
            let now = start + WINDOW * (key as u32 / 1_000);
            let admission = counters.take(&ask(key, limits), now).expect("an unused key is let in");
            counters.settle(admission, None, now);
        }
        assert!(keys(&counters) < 5_000, "{}", keys(&counters));
        assert!(counters.known(busy.key).is_some());
        counters.settle(busy, None, start);
        assert_eq!(counters.in_flight(), 0);
    }

    #[test]
    fn a_clock_read_early_and_used_late_counts_from_when_it_is_used() {
        let counters = MemoryCounters::new();
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let start = Instant::now();
        let take = |now: Duration| {
            let taken = counters.take(&ask(1, limits), start + now);
            taken
                .map(|admission| counters.settle(admission, None, start + now))
                .map_err(|denied| denied.over.retry_after)
        };
        let (minute, moment) = (WINDOW, Duration::from_millis(100));
        assert_eq!(take(Duration::ZERO), Ok(()));
        assert_eq!(take(minute - moment), Err(Some(moment)));
        // Another thread is seen at the full minute, and asks for more than it can have.
        let large = Ask { tokens: 2, limits: Limits { tokens_per_minute: Some(1), ..limits }, ..ask(1, limits) };
        assert!(counters.take(&large, start + minute).is_err());
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
            served: None,
            attempts: Vec::new(),
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
            duration: Duration::ZERO,
            overhead: Duration::ZERO,
        }
    }

    #[test]
    fn the_ledger_remembers_the_last_and_counts_all() {
        let ledger = MemoryLedger::new(3);
        for id in 0..5 {
            ledger.append(&Arc::new(receipt(id)));
        }
        assert_eq!(ledger.count(), 5);
        assert_eq!(ledger.recent().iter().map(|receipt| receipt.id.0).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
