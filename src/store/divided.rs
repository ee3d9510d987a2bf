//! The counters of one of the gateways that share a store: each counts for itself, and grants its part of every limit.
//!
//! What the parts are is decided in [`replica`](crate::domain::replica) by who is alive; the back end that knows says so to
//! a [`ReplicaDivision`]. It must never wait for anybody: a request reads one atomic.
//!
//! Start reading in [`DividedCounters`].

use super::memory::MemoryCounters;
use super::{Admission, AdmissionDenied, AdmissionRequest, Counters, StoreFuture};
use crate::domain::id::KeyId;
use crate::domain::limit::{LimitKind, Limits, OverLimit};
use crate::domain::replica::LimitDivision;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When to retry where a gateway has no part of a limit and another one has: soon, it may be that one that is asked.
const RETRY_ELSEWHERE: Duration = Duration::from_secs(1);

/// The division of limits of this process, as it is at the moment. By default it has all of each.
#[derive(Default, Debug)]
pub struct ReplicaDivision(ArcSwap<LimitDivision>);

impl ReplicaDivision {
    /// The division from now on.
    pub fn set(&self, division: LimitDivision) {
        if self.now() != division {
            self.0.store(Arc::new(division));
        }
    }

    /// The division at the moment.
    pub fn now(&self) -> LimitDivision {
        **self.0.load()
    }
}

/// Counters in memory that grant this process's part of each limit.
#[derive(Debug)]
pub struct DividedCounters {
    local: MemoryCounters,
    division: Arc<ReplicaDivision>,
}

impl DividedCounters {
    /// Without any key. Limits are divided as `division` says at each request.
    pub fn new(division: Arc<ReplicaDivision>) -> Self {
        Self { local: MemoryCounters::new(), division }
    }

    /// [`Counters::begin`] with all of each limit.
    pub(super) fn begin_whole(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<Admission, AdmissionDenied> {
        self.local.begin(key, limits, now)
    }

    /// [`Counters::admit`], which waits for nothing here.
    pub(super) fn take(
        &self,
        admission: &mut Admission,
        request: &AdmissionRequest<'_>,
        now: Instant,
    ) -> Result<(), AdmissionDenied> {
        let part = AdmissionRequest { limits: self.division.now().part_of_each(&request.limits), ..*request };
        self.local.take(admission, &part, now).map_err(|denied| of_key(denied, &request.limits))
    }

    /// The part of the limit of refused requests: at least one, since others depend on none of what it lets through.
    fn refused_part(&self, limits: &Limits) -> Limits {
        let part = self.division.now().part_of_each(limits);
        Limits { requests_per_minute: part.requests_per_minute.map(|part| part.max(1)), ..part }
    }
}

impl Counters for DividedCounters {
    fn begin(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<Admission, AdmissionDenied> {
        let part = self.division.now().part_of_each(limits);
        self.local.begin(key, &part, now).map_err(|denied| of_key(denied, limits))
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
        self.local.check_refused(key, &self.refused_part(limits), now).map_err(|over| whole(over, limits))
    }

    fn count_refused(&self, key: KeyId, limits: &Limits, now: Instant) -> Result<(), OverLimit> {
        self.local.count_refused(key, &self.refused_part(limits), now).map_err(|over| whole(over, limits))
    }

    fn settle(&self, admission: Admission, tokens_used: Option<u64>, now: Instant) {
        self.local.settle(admission, tokens_used, now);
    }

    fn in_flight(&self) -> u64 {
        self.local.in_flight()
    }
}

fn of_key(denied: AdmissionDenied, limits: &Limits) -> AdmissionDenied {
    AdmissionDenied { over: whole(denied.over, limits), ..denied }
}

/// `over` a part, as a refusal names it: the whole limit, and when to retry. A request that is larger than the part itself
/// is told the part, since that is what it must fit.
fn whole(over: OverLimit, limits: &Limits) -> OverLimit {
    let limit = match over.limit {
        LimitKind::Requests | LimitKind::Refused => limits.requests_per_minute,
        LimitKind::Tokens => limits.tokens_per_minute,
        LimitKind::Concurrency => limits.max_concurrent.map(u64::from),
    };
    let limit = limit.unwrap_or(over.ceiling);
    let elsewhere = (over.ceiling == 0 && limit > 0).then_some(RETRY_ELSEWHERE);
    match over.retry_after.or(elsewhere) {
        Some(retry_after) => OverLimit { ceiling: limit, retry_after: Some(retry_after), ..over },
        None => over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::replica::{ReplicaHistory, ReplicaView};
    use std::task::{Context, Poll, Waker};

    /// The counters of the first, second and so on of so many gateways.
    fn counters(alive: u32) -> Vec<DividedCounters> {
        let one = |before| {
            let division = Arc::new(ReplicaDivision::default());
            division
                .set(ReplicaHistory::default().observe(ReplicaView { alive, before, joined: None }, Duration::ZERO));
            DividedCounters::new(division)
        };
        (0..alive).map(one).collect()
    }

    fn admitted(counters: &DividedCounters, limits: Limits, tokens: u64, now: Instant) -> Result<Admission, OverLimit> {
        let mut admission = counters.begin(KeyId(1), &limits, now).map_err(|denied| denied.over)?;
        let ask = AdmissionRequest { key: "key", limits, tokens };
        let taken = value_of(counters.admit(&mut admission, ask, now));
        match taken {
            Ok(()) => Ok(admission),
            Err(denied) => {
                counters.settle(admission, None, now);
                Err(denied.over)
            }
        }
    }

    /// The value of a future that waits for nothing.
    fn value_of<T>(mut future: StoreFuture<'_, T>) -> T {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn gateways_together_grant_each_limit_once() {
        let now = Instant::now();
        let check = |limits: Limits, tokens: u64, limit: LimitKind, ceiling: u64, expected: usize| {
            let gateways = counters(3);
            let mut granted = Vec::new();
            for counters in &gateways {
                loop {
                    match admitted(counters, limits, tokens, now) {
                        Ok(admission) => granted.push((counters, admission)),
                        Err(over) => {
                            assert_eq!((over.limit, over.ceiling), (limit, ceiling));
                            assert!(over.retry_after.is_some(), "{over:?}");
                            break;
                        }
                    }
                }
            }
            assert_eq!(granted.len(), expected, "{limit:?}");
            for (counters, admission) in granted {
                counters.settle(admission, None, now);
            }
            assert!(gateways.iter().all(|counters| counters.in_flight() == 0));
        };
        let none = Limits::default();
        check(Limits { requests_per_minute: Some(10), ..none }, 1, LimitKind::Requests, 10, 10);
        check(Limits { requests_per_minute: Some(1), ..none }, 1, LimitKind::Requests, 1, 1);
        check(Limits { tokens_per_minute: Some(900), ..none }, 100, LimitKind::Tokens, 900, 9);
        check(Limits { max_concurrent: Some(7), ..none }, 1, LimitKind::Concurrency, 7, 7);
        check(Limits { max_concurrent: Some(2), ..none }, 1, LimitKind::Concurrency, 2, 2);
    }

    #[test]
    fn a_request_larger_than_the_part_is_refused_with_the_part() {
        let gateways = counters(3);
        let limits = Limits { tokens_per_minute: Some(900), ..Limits::default() };
        let over = admitted(&gateways[1], limits, 301, Instant::now()).expect_err("its part is 300");
        assert_eq!(over, OverLimit { limit: LimitKind::Tokens, ceiling: 300, retry_after: None });
    }

    #[test]
    fn a_gateway_without_a_part_still_answers_refused_requests() {
        let (now, gateways) = (Instant::now(), counters(3));
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let last = &gateways[2];
        assert_eq!(last.check_refused(KeyId(1), &limits, now), Ok(()));
        assert_eq!(last.count_refused(KeyId(1), &limits, now), Ok(()));
        let over = last.check_refused(KeyId(1), &limits, now).expect_err("one was refused");
        assert_eq!((over.limit, over.ceiling), (LimitKind::Refused, 1));
    }
}
