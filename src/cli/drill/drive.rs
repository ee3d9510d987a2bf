//! Sends the requests of a drill: at a steady rate, or a burst of them.
//!
//! A request is sent when it is due, whether or not those before it were answered.
//!
//! Start reading at [`drive`].

use super::client::{ClientAnswer, ClientRequest, KeyClient};
use super::retry;
use crate::clock::Clock;
use crate::domain::drill::judge::PolicyLoad;
use crate::domain::drill::{DrillPhase, DrillRefusal, DrillWindow};
use crate::domain::random::RandomValue;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// When most scenarios break something: nothing is broken at first, since a gateway that has served for a while knows what is
/// usual at each deployment, and one that has just begun does not.
pub(super) const TIMES: DrillWindow =
    DrillWindow { broken_from: Duration::from_secs(8), broken_until: Duration::from_secs(14) };
/// How long a scenario goes on after that: at least, and at most where the region does not serve again.
pub(super) const AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How often it is asked whether the region serves again.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A policy that requests are made under.
#[derive(Clone)]
pub(super) struct DrivenPolicy {
    pub(super) load: PolicyLoad,
    /// What is asked for in turn.
    pub(super) models: Vec<Arc<str>>,
    /// One for each key.
    pub(super) clients: Vec<Arc<KeyClient>>,
    /// Where its requests may go.
    pub(super) regions: BTreeSet<Arc<str>>,
}

/// How much is sent.
#[derive(Clone, Copy)]
pub(super) struct LoadSpec {
    /// Requests per second of each policy.
    pub(super) rate: u32,
    /// How many times as many come while something is broken.
    pub(super) factor: u32,
    pub(super) times: DrillWindow,
    /// Whether clients retry.
    pub(super) retries: bool,
}

impl LoadSpec {
    /// From a request at `at` to the next one.
    fn pause(self, at: Duration) -> Duration {
        Duration::from_secs(1) / (self.rate * self.factor_at(at)).max(1)
    }

    fn factor_at(self, at: Duration) -> u32 {
        if self.times.phase(at) == DrillPhase::During { self.factor } else { 1 }
    }
}

/// What was sent and what came of it.
pub(super) struct SentRequest {
    pub(super) policy: Arc<str>,
    pub(super) stream: bool,
    /// From the start of the scenario.
    pub(super) sent: Duration,
    /// How much later than it was due.
    pub(super) late: Duration,
    pub(super) answer: ClientAnswer,
    pub(super) refusals: Vec<DrillRefusal>,
}

/// A scenario that runs: what has ended of it, and when it is to end.
pub(super) struct ScenarioProgress {
    pub(super) start: Instant,
    pub(super) clock: Clock,
    stop: AtomicBool,
    ended: Mutex<Vec<SentRequest>>,
}

impl ScenarioProgress {
    /// One that starts now.
    pub(super) fn start(clock: Clock) -> Arc<Self> {
        Arc::new(Self { start: clock.now(), clock, stop: AtomicBool::new(false), ended: Mutex::default() })
    }

    /// Nothing more is sent.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the shorter one of `times`, and up to the longer one until `region`, if one is given, answers what was sent
    /// from `since` on.
    pub(super) async fn wait_for_recovery(
        &self,
        region: Option<&Arc<str>>,
        since: Duration,
        times: (Duration, Duration),
    ) {
        let began = self.clock.now();
        loop {
            self.clock.sleep(LOOK_EVERY).await;
            let waited = self.clock.now().saturating_duration_since(began);
            let is_back = region.is_none_or(|region| self.has_served(region, since));
            if waited >= times.1 || (waited >= times.0 && is_back) {
                return;
            }
        }
    }

    /// Whether `region` has answered a request that was sent at `since` or later.
    fn has_served(&self, region: &str, since: Duration) -> bool {
        let is_from = |sent: &SentRequest| sent.answer.region.as_deref() == Some(region);
        self.ended.lock().iter().rev().any(|sent| sent.sent >= since && is_from(sent))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What `see` makes of the requests that have ended.
    pub(super) fn look<T>(&self, see: impl FnOnce(&[SentRequest]) -> T) -> T {
        see(&self.ended.lock())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }
}

/// Sends requests under every policy until `progress` is stopped, and waits for the answers.
pub(super) async fn drive(
    policies: &[DrivenPolicy],
    load: LoadSpec,
    draw: RandomValue,
    progress: &Arc<ScenarioProgress>,
) -> Vec<SentRequest> {
    let mut requests = JoinSet::new();
    let mut due = Duration::ZERO;
    let mut reserved = ReservedTurns::default();
    for turn in 0_u64.. {
        progress.clock.sleep_until(progress.start + due).await;
        if progress.is_stopped() {
            break;
        }
        let of_reserved = reserved.next(load.factor_at(due));
        for driven in policies {
            let Some(turn) = (if driven.load.reserved { of_reserved } else { Some(turn) }) else { continue };
            let (request, progress) = (driven.request(turn), progress.clone());
            let (policy, stream, draw) = (driven.load.policy.clone(), request.stream, draw.salted(turn));
            requests.spawn(async move {
                let sent = progress.elapsed();
                let (answer, refusals) = retry::ask(&request, load.retries, draw, progress.clock).await;
                let late = sent.saturating_sub(due);
                progress.ended.lock().push(SentRequest { policy, stream, sent, late, answer, refusals });
            });
        }
        due += load.pause(due);
    }
    while requests.join_next().await.is_some() {}
    std::mem::take(&mut *progress.ended.lock())
}

/// The turns of those who ask for reserved capacity: as many in a burst as without one, since it is theirs while others come
/// in numbers.
#[derive(Default)]
struct ReservedTurns {
    skipped: u32,
    turns: u64,
}

impl ReservedTurns {
    /// The number of their turn, where the one that begins is theirs too.
    fn next(&mut self, factor: u32) -> Option<u64> {
        self.skipped += 1;
        if self.skipped < factor {
            return None;
        }
        self.skipped = 0;
        self.turns += 1;
        Some(self.turns - 1)
    }
}

impl DrivenPolicy {
    /// The request of this turn: each model whole and streamed, each key as often as the others.
    fn request(&self, turn: u64) -> ClientRequest {
        let at = |turn: u64, of: usize| usize::try_from(turn % of.max(1) as u64).unwrap_or(0);
        ClientRequest {
            model: self.models[at(turn / 2, self.models.len())].clone(),
            client: self.clients[at(turn, self.clients.len())].clone(),
            stream: turn.is_multiple_of(2),
            number: turn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_asked_for_as_often_in_a_burst() {
        let mut turns = ReservedTurns::default();
        let usual: Vec<_> = (0..3).map(|_| turns.next(1)).collect();
        assert_eq!(usual, [Some(0), Some(1), Some(2)]);
        let burst: Vec<_> = (0..30).filter_map(|_| turns.next(10)).collect();
        assert_eq!(burst, [3, 4, 5]);
    }

    #[test]
    fn a_burst_is_so_many_times_as_many_requests() {
        let times = DrillWindow { broken_from: Duration::from_secs(2), broken_until: Duration::from_secs(4) };
        let sent = |factor| {
            let load = LoadSpec { rate: 20, factor, times, retries: false };
            let due = std::iter::successors(Some(Duration::ZERO), |due| Some(*due + load.pause(*due)));
            let due: Vec<_> = due.take_while(|due| *due < Duration::from_secs(6)).collect();
            let of = |phase| due.iter().filter(|due| times.phase(**due) == phase).count();
            DrillPhase::ALL.map(of)
        };
        assert_eq!(sent(1), [40, 40, 40]);
        assert_eq!(sent(10), [40, 400, 40]);
    }
}
