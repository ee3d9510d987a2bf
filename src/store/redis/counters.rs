//! The counters of a gateway that counts at a server, together with others.
//!
//! A request's slot is taken here before its body is read, so that no gateway holds more bodies than a key may send at once.
//! All that it needs is decided at the server once it can be sent.
//!
//! Start reading in [`RedisCounters`]'s `admit`.

use super::connection::{DEADLINE, RedisConnection};
use super::error::RedisOpenError;
use super::location::RedisLocation;
use super::slots::{SLOT_LASTS, SharedKey, SlotId, SlotSet};
use crate::domain::id::KeyId;
use crate::domain::limit::{LimitKind, Limits, OverLimit, RateLimitStatus};
use crate::store::connection_runtime::ConnectionRuntime;
use crate::store::divided::{DividedCounters, ReplicaDivision};
use crate::store::memory::SLOT_RETRY;
use crate::store::{Admission, AdmissionDenied, AdmissionRequest, Counters, RemainingRateLimits, StoreFuture};
use redis::{Script, ScriptInvocation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The largest number that a script counts exactly: 2^53. A higher limit is this one.
const MOST: u64 = 1 << 53;

/// By which clock windows slide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterClock {
    /// The server's, for all gateways alike.
    Server,
    /// The instants that callers pass in, counted from this one. For tests: gateways' clocks differ.
    Caller(Instant),
}

/// How a gateway counts at a server.
#[derive(Clone, Copy, Debug)]
pub struct RedisOptions {
    /// A random number, which tells this process from all others.
    pub replica: u64,
    /// By which clock windows slide.
    pub clock: CounterClock,
    /// How long a decision may take before the gateway decides by itself.
    pub deadline: Duration,
}

impl RedisOptions {
    /// Those of a gateway.
    pub fn of_gateway(replica: u64) -> Self {
        Self { replica, clock: CounterClock::Server, deadline: DEADLINE }
    }
}

/// Counters at a Redis or Valkey server; in memory, and of this gateway's part of each limit, while it does not answer.
pub struct RedisCounters {
    divided: DividedCounters,
    connection: Arc<RedisConnection>,
    slots: Arc<SlotSet>,
    scripts: Arc<CounterScripts>,
    clock: CounterClock,
    settling: Arc<AtomicU64>,
    runtime: ConnectionRuntime,
}

struct CounterScripts {
    decide: Script,
    settle: Script,
}

/// What a request has at the server.
#[derive(Debug)]
pub struct CountedAdmission {
    key: Arc<SharedKey>,
    slot: Option<SlotId>,
    tokens: Option<CountedTokens>,
}

/// Tokens that were taken from a window: how many, and in which of its entries.
#[derive(Clone, Copy, Debug)]
struct CountedTokens {
    taken: u64,
    entry: i64,
    at: i64,
}

impl RedisCounters {
    /// Counts at the server of `location`, together with all gateways that do so; by itself, as `division` says, while that
    /// does not answer.
    ///
    /// # Errors
    /// When the server answers, and will not let this gateway count.
    pub async fn open(
        location: RedisLocation,
        division: Arc<ReplicaDivision>,
        options: RedisOptions,
    ) -> Result<Self, RedisOpenError> {
        let runtime = ConnectionRuntime::start("tierway-redis").map_err(RedisOpenError::NoThread)?;
        let connection = Arc::new(RedisConnection::new(location, options.deadline));
        let slots = Arc::new(SlotSet::new(options.replica));
        let (of_task, running) = (connection.clone(), slots.clone());
        // A connection belongs to the runtime that makes it.
        let first = runtime.handle().spawn(async move { of_task.begin(&running).await });
        first.await.map_err(|error| RedisOpenError::NoThread(std::io::Error::other(error)))??;
        let (of_task, running) = (connection.clone(), slots.clone());
        runtime.handle().spawn(async move { of_task.keep(&running).await });
        let script = |own: &str| Script::new(&[include_str!("window.lua"), own].concat());
        let (decide, settle) = (script(include_str!("decide.lua")), script(include_str!("settle.lua")));
        Ok(Self {
            divided: DividedCounters::new(division),
            connection,
            slots,
            scripts: Arc::new(CounterScripts { decide, settle }),
            clock: options.clock,
            settling: Arc::default(),
            runtime,
        })
    }

    /// What the server decides. `None`: it did not answer in time, or is not asked at the moment.
    async fn decide(
        &self,
        admission: &mut Admission,
        request: &AdmissionRequest<'_>,
        now: Instant,
    ) -> Option<Result<(), AdmissionDenied>> {
        let limits = &request.limits;
        let key = Arc::new(SharedKey::of(request.key));
        // Known here even while the server is not: it learns of the slots in use when it is back.
        let slot = limits.max_concurrent.map(|_| self.slots.begin(&key));
        let counted = admission.shared.insert(Box::new(CountedAdmission { key, slot, tokens: None }));
        if !self.connection.is_open() {
            return None;
        }
        let CountedAdmission { key, tokens, .. } = &mut **counted;
        let wanted = request.tokens.clamp(1, MOST);
        let mut invocation = self.scripts.decide.prepare_invoke();
        invocation.key(&key.requests).key(&key.tokens).key(&key.slots).arg(self.instant(now));
        put_limit(&mut invocation, limits.requests_per_minute);
        put_limit(&mut invocation, limits.tokens_per_minute);
        put_limit(&mut invocation, limits.max_concurrent.map(u64::from));
        let name = slot.map_or_else(String::new, |slot| self.slots.name(slot));
        invocation.arg(wanted).arg(name).arg(SLOT_LASTS.as_micros() as u64);
        let answer: Vec<i64> = self.connection.run(&invocation).await?;
        let [refused_by, wait, requests_left, requests_reset, tokens_left, tokens_reset, entry, at] = answer[..] else {
            return None;
        };
        let status = |limit: Option<u64>, left: i64, reset: i64| {
            limit.map(|limit| RateLimitStatus { limit, remaining: left.unsigned_abs(), reset: micros(reset) })
        };
        let left = RemainingRateLimits {
            requests: status(limits.requests_per_minute, requests_left, requests_reset),
            tokens: status(limits.tokens_per_minute, tokens_left, tokens_reset),
            degraded: false,
        };
        if let Some(over) = refused(refused_by, wait, limits) {
            slot.into_iter().for_each(|slot| self.slots.end(slot));
            admission.shared = None;
            return Some(Err(AdmissionDenied { over, left }));
        }
        *tokens = limits.tokens_per_minute.map(|_| CountedTokens { taken: wanted, entry, at });
        admission.left = left;
        Some(Ok(()))
    }

    /// Frees what a request has at the server. Nobody waits for it.
    fn end(&self, counted: CountedAdmission, tokens_used: Option<u64>, now: Instant) {
        let CountedAdmission { key, slot, tokens } = counted;
        slot.into_iter().for_each(|slot| self.slots.end(slot));
        let corrected = tokens.zip(tokens_used).filter(|(tokens, used)| tokens.taken != *used);
        if !self.connection.is_open() || (slot.is_none() && corrected.is_none()) {
            return;
        }
        let name = slot.map_or_else(String::new, |slot| self.slots.name(slot));
        let (instant, scripts, connection) = (self.instant(now), self.scripts.clone(), self.connection.clone());
        let settling = self.settling.clone();
        settling.fetch_add(1, Ordering::Relaxed);
        self.runtime.handle().spawn(async move {
            let mut invocation = scripts.settle.prepare_invoke();
            invocation.key(&key.tokens).key(&key.slots).arg(instant).arg(name);
            if let Some((tokens, used)) = corrected {
                invocation.arg(tokens.entry).arg(tokens.at).arg(tokens.taken).arg(used.min(MOST));
            } else {
                invocation.arg("").arg("").arg("").arg("");
            }
            connection.tell(&invocation).await;
            settling.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// `now` as scripts take it.
    fn instant(&self, now: Instant) -> String {
        match self.clock {
            CounterClock::Server => String::new(),
            CounterClock::Caller(start) => now.saturating_duration_since(start).as_micros().to_string(),
        }
    }
}

impl Counters for RedisCounters {
    fn begin(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<Admission, AdmissionDenied> {
        if self.connection.is_open() {
            // What is left is known at the server alone.
            let left = RemainingRateLimits::default();
            return self.divided.begin_whole(key, limits, now).map_err(|denied| AdmissionDenied { left, ..denied });
        }
        self.divided.begin(key, limits, now).map_err(degraded)
    }

    fn admit<'a>(
        &'a self,
        admission: &'a mut Admission,
        request: AdmissionRequest<'a>,
        now: Instant,
    ) -> StoreFuture<'a, Result<(), AdmissionDenied>> {
        if request.limits == Limits::default() {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(async move {
            if let Some(decided) = self.decide(admission, &request, now).await {
                return decided;
            }
            self.divided.take(admission, &request, now).map_err(degraded)?;
            admission.left.degraded = true;
            Ok(())
        })
    }

    fn check_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        self.divided.check_refused(key, limits, now)
    }

    fn count_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        self.divided.count_refused(key, limits, now)
    }

    fn settle(&self, mut admission: Admission, tokens_used: Option<u64>, now: Instant) {
        if let Some(counted) = admission.shared.take() {
            self.end(*counted, tokens_used, now);
        }
        self.divided.settle(admission, tokens_used, now);
    }

    fn in_flight(&self) -> u64 {
        self.divided.in_flight()
    }

    fn are_degraded(&self) -> bool {
        !self.connection.is_open()
    }

    fn settling(&self) -> u64 {
        self.settling.load(Ordering::Relaxed)
    }
}

fn degraded(denied: AdmissionDenied) -> AdmissionDenied {
    AdmissionDenied { left: RemainingRateLimits { degraded: true, ..denied.left }, ..denied }
}

fn put_limit(invocation: &mut ScriptInvocation<'_>, limit: Option<u64>) {
    match limit {
        Some(limit) => invocation.arg(limit.min(MOST)),
        None => invocation.arg(""),
    };
}

/// The refusal that the script answers with; `None`: it granted.
fn refused(by: i64, wait: i64, limits: &Limits) -> Option<OverLimit> {
    let (limit, ceiling) = match by {
        0 => return None,
        1 => (LimitKind::Concurrency, limits.max_concurrent.map(u64::from)),
        2 => (LimitKind::Requests, limits.requests_per_minute),
        _ => (LimitKind::Tokens, limits.tokens_per_minute),
    };
    let ceiling = ceiling.unwrap_or_default();
    let retry_after = match limit {
        LimitKind::Concurrency => (ceiling > 0).then_some(SLOT_RETRY),
        _ => (wait >= 0).then(|| micros(wait)),
    };
    Some(OverLimit { limit, ceiling, retry_after })
}

fn micros(time: i64) -> Duration {
    Duration::from_micros(time.unsigned_abs())
}
