//! The phases of the process, from serving to closed, and what is open in it.
//!
//! A [`Lifecycle`] is shared by everything that depends on the phase: `/readyz`, the accept loops,
//! every connection, every stream. A request counts as open until its response's *body* has ended.
//! Nothing here touches a socket.
//!
//! Start reading at [`Lifecycle::shut_down`].

use crate::clock::Clock;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The longest time that streams ended by the shutdown may take to send their error event.
const ERROR_EVENT_TIMEOUT: Duration = Duration::from_secs(6);
/// The shortest time that connections without a request are given to close gracefully.
const GRACEFUL_CLOSE: Duration = Duration::from_secs(1);

/// How far the process is on its way from serving to closed. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LifecyclePhase {
    /// Connections and requests are accepted.
    Serving,
    /// Serving, with 503 on `/readyz`: load balancers have time to notice.
    Leaving,
    /// No new connections; each open one closes after the requests on it.
    Draining,
    /// Streams still open are ended with an error.
    Cutting,
    /// Whatever is still open is dropped.
    Closed,
}

/// The process's phase, and how much is open. A clone is the same one.
#[derive(Clone)]
pub struct Lifecycle(Arc<LifecycleState>);

struct LifecycleState {
    clock: Clock,
    phase: watch::Sender<LifecyclePhase>,
    requests: OpenCount,
    connections: OpenCount,
}

impl Lifecycle {
    /// Serving, with nothing open.
    pub fn new(clock: Clock) -> Self {
        let phase = watch::Sender::new(LifecyclePhase::Serving);
        let (requests, connections) = (OpenCount::default(), OpenCount::default());
        Self(Arc::new(LifecycleState { clock, phase, requests, connections }))
    }

    /// Shuts down: is not ready for `lb_grace`, then stops accepting, lets open requests finish for up
    /// to `drain`, and ends the streams still open with an error. When this returns, every accept loop
    /// is about to return.
    pub async fn shut_down(&self, lb_grace: Duration, drain: Duration) {
        let LifecycleState { clock, requests, connections, .. } = &*self.0;
        self.enter(LifecyclePhase::Leaving);
        clock.sleep(lb_grace).await;
        self.enter(LifecyclePhase::Draining);
        let end = clock.now() + drain;
        if !requests.none_within(drain, *clock).await {
            tracing::warn!(open = requests.count(), "requests still open after the drain time are ended");
            self.enter(LifecyclePhase::Cutting);
            requests.none_within(ERROR_EVENT_TIMEOUT, *clock).await;
        }
        // A body has ended when its last bytes were given to its connection, before they are sent.
        let left = end.saturating_duration_since(clock.now());
        connections.none_within(left.max(GRACEFUL_CLOSE), *clock).await;
        self.enter(LifecyclePhase::Closed);
    }

    /// Whether load balancers may send new requests.
    pub fn is_ready(&self) -> bool {
        *self.0.phase.borrow() == LifecyclePhase::Serving
    }

    /// Ready once `phase`, or a later one, is reached.
    pub fn reached(&self, phase: LifecyclePhase) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.phase.subscribe();
        let state = self.0.clone();
        async move {
            // It cannot fail: `state` keeps the sender alive.
            let _ = receiver.wait_for(|now| *now >= phase).await;
            drop(state);
        }
    }

    /// Counts a request as open until the guard is dropped.
    pub fn open_request(&self) -> OpenGuard {
        self.open(|state| &state.requests)
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn open_connection(&self) -> OpenGuard {
        self.open(|state| &state.connections)
    }

    fn open(&self, count: fn(&LifecycleState) -> &OpenCount) -> OpenGuard {
        count(&self.0).open.fetch_add(1, Ordering::AcqRel);
        OpenGuard { state: self.0.clone(), count }
    }

    fn enter(&self, phase: LifecyclePhase) {
        tracing::info!(?phase, "shutting down");
        self.0.phase.send_replace(phase);
    }
}

/// Counts a request or a connection as open until it is dropped.
pub struct OpenGuard {
    state: Arc<LifecycleState>,
    count: fn(&LifecycleState) -> &OpenCount,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let count = (self.count)(&self.state);
        if count.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            count.empty.notify_waiters();
        }
    }
}

/// How many of something are open.
#[derive(Default)]
struct OpenCount {
    open: AtomicUsize,
    empty: Notify,
}

impl OpenCount {
    fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    async fn none(&self) {
        loop {
            let mut empty = std::pin::pin!(self.empty.notified());
            // Registered before counting, so that a guard dropped in between is noticed.
            empty.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            empty.await;
        }
    }

    async fn none_within(&self, timeout: Duration, clock: Clock) -> bool {
        tokio::select! {
            biased;
            () = self.none() => true,
            () = clock.sleep(timeout) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shut_down(held_for: Option<Duration>) -> (Duration, Vec<(LifecyclePhase, Duration)>) {
        let clock = Clock;
        let start = clock.now();
        let lifecycle = Lifecycle::new(clock);
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for phase in
            [LifecyclePhase::Leaving, LifecyclePhase::Draining, LifecyclePhase::Cutting, LifecyclePhase::Closed]
        {
            let (reached, seen) = (lifecycle.reached(phase), seen.clone());
            tokio::spawn(async move {
                reached.await;
                seen.lock().push((phase, clock.now() - start));
            });
        }
        let request = lifecycle.open_request();
        if let Some(held_for) = held_for {
            tokio::spawn(async move {
                clock.sleep(held_for).await;
                drop(request);
            });
        } else {
            std::mem::forget(request);
        }
        lifecycle.shut_down(Duration::from_secs(5), Duration::from_secs(30)).await;
        let took = clock.now() - start;
        tokio::task::yield_now().await;
        let seen = seen.lock().clone();
        (took, seen)
    }

    fn seconds(seen: &[(LifecyclePhase, Duration)]) -> Vec<(LifecyclePhase, u64)> {
        seen.iter().map(|(phase, at)| (*phase, at.as_secs())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_as_soon_as_the_last_body_has_ended() {
        let (took, seen) = shut_down(Some(Duration::from_secs(12))).await;
        assert_eq!(took.as_secs(), 12);
        // Cutting, if it was entered, is reached at the same instant as closed.
        assert_eq!(seconds(&seen)[..2], [(LifecyclePhase::Leaving, 0), (LifecyclePhase::Draining, 5)]);
        assert!(seen.iter().all(|(phase, at)| *phase < LifecyclePhase::Cutting || at.as_secs() == 12), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_and_then_no_longer_waited_for() {
        let (took, seen) = shut_down(None).await;
        assert_eq!(took.as_secs(), 5 + 30 + ERROR_EVENT_TIMEOUT.as_secs());
        assert_eq!(
            seconds(&seen),
            [
                (LifecyclePhase::Leaving, 0),
                (LifecyclePhase::Draining, 5),
                (LifecyclePhase::Cutting, 35),
                (LifecyclePhase::Closed, 41)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_until_the_shutdown_begins() {
        let lifecycle = Lifecycle::new(Clock);
        assert!(lifecycle.is_ready());
        let leaving = lifecycle.reached(LifecyclePhase::Leaving);
        let shutting_down = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.shut_down(Duration::from_secs(5), Duration::ZERO).await }
        });
        leaving.await;
        assert!(!lifecycle.is_ready());
        shutting_down.await.unwrap();
    }
}
