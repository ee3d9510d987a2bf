//! Sends the requests of a drill: at a steady rate, or a burst of them.
//!
//! A request is sent when it is due, whether or not those before it were answered.
//!
//! Start reading at [`drive`].

use super::client::{ClientAnswer, ClientRequest, KeyClient};
use super::retry;
use crate::clock::Clock;
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
    pub(super) name: Arc<str>,
    pub(super) priority: u32,
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
        let factor = if self.times.phase(at) == DrillPhase::During { self.factor } else { 1 };
        Duration::from_secs(1) / (self.rate * factor).max(1)
    }
}

/// What was sent and what came of it.
pub(super) struct SentRequest {
    pub(super) policy: Arc<str>,
    pub(super) stream: bool,
    /// From the start of the scenario.
    pub(super) sent: Duration,
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

    fn elapsed(&self) -> Duration {
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
    for turn in 0_u64.. {
        progress.clock.sleep_until(progress.start + due).await;
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        for driven in policies {
            let (request, progress) = (driven.request(turn), progress.clone());
            let (policy, stream, draw) = (driven.name.clone(), request.stream, draw.salted(turn));
            requests.spawn(async move {
                let sent = progress.elapsed();
                let (answer, refusals) = retry::ask(&request, load.retries, draw, progress.clock).await;
                progress.ended.lock().push(SentRequest { policy, stream, sent, answer, refusals });
            });
        }
        due += load.pause(due);
    }
    while requests.join_next().await.is_some() {}
    std::mem::take(&mut *progress.ended.lock())
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
