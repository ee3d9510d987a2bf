//! The phases of the process, from serving to closed, and what is open in it.
//!
//! A [`Lifecycle`] is shared by everything that depends on the phase: `/readyz`, the accept loops,
//! every connection, every stream. A request counts as open until its response's *body* has ended.
//! Nothing here touches a socket.
//!
//! There are two ways to the end: [`Lifecycle::shut_down`], when the process is stopped, and
//! [`Lifecycle::be_succeeded`], when another process accepts from the same listeners. Start reading there.

use crate::clock::Clock;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The longest time that streams ended by the shutdown may take to send their error event.
const ERROR_EVENT_TIMEOUT: Duration = Duration::from_secs(6);
/// The time that connections still open after that are given to close gracefully.
const GRACEFUL_CLOSE: Duration = Duration::from_secs(1);
/// How long a draining connection may be idle before it is closed. Within it the next request is answered, and its
/// answer ends the connection: a client that sends while we close would read no answer.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// The same while a successor serves: nobody waits for the end of this process.
const IDLE_GRACE_SUCCEEDED: Duration = Duration::from_secs(5);
/// The same on the operators' address, at the end.
const IDLE_GRACE_CLOSING: Duration = Duration::from_millis(500);

/// How far the process is on its way from serving to closed. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LifecyclePhase {
    /// Connections and requests are accepted.
    Serving,
    /// Serving, with 503 on `/readyz`: load balancers have time to notice.
    Leaving,
    /// No new connections; each open one closes after the next answer on it, or once it was idle for a while.
    Draining,
    /// Streams still open are ended with an error.
    Cutting,
    /// The operators' address, which was served until here, closes as the clients' did.
    Closing,
    /// Whatever is still open is dropped.
    Closed,
}

/// The process's phase, and how much is open. A clone is the same one.
#[derive(Clone)]
pub struct Lifecycle(Arc<LifecycleState>);

struct LifecycleState {
    clock: Clock,
    phase: watch::Sender<LifecyclePhase>,
    /// Whether another process accepts from the same listeners.
    succeeded: watch::Sender<bool>,
    requests: OpenCount,
    connections: OpenCount,
    ops_connections: OpenCount,
}

impl Lifecycle {
    /// Serving, with nothing open.
    pub fn new(clock: Clock) -> Self {
        let phase = watch::Sender::new(LifecyclePhase::Serving);
        let succeeded = watch::Sender::new(false);
        let [requests, connections, ops_connections] = std::array::from_fn(|_| OpenCount::default());
        Self(Arc::new(LifecycleState { clock, phase, succeeded, requests, connections, ops_connections }))
    }

    /// Shuts down: is not ready for `lb_grace`, then stops accepting, lets open requests finish for up
    /// to `drain`, and ends the streams still open with an error. When this returns, every accept loop
    /// is about to return.
    pub async fn shut_down(&self, lb_grace: Duration, drain: Duration) {
        self.enter(LifecyclePhase::Leaving);
        self.0.clock.sleep(lb_grace).await;
        self.drain(drain).await;
    }

    /// The same without `lb_grace`, because a successor accepts from the same listeners: the address stays ready,
    /// and so is this process to the load balancers still connected to it.
    pub async fn be_succeeded(&self, drain: Duration) {
        self.0.succeeded.send_replace(true);
        self.drain(drain).await;
    }

    async fn drain(&self, drain: Duration) {
        let LifecycleState { clock, requests, connections, ops_connections, .. } = &*self.0;
        self.enter(LifecyclePhase::Draining);
        let ended = tokio::select! {
            biased;
            () = self.nothing_open() => true,
            () = clock.sleep(drain) => false,
        };
        if !ended {
            let (requests_open, connections_open) = (requests.count(), connections.count());
            tracing::warn!(requests_open, connections_open, "what is still open after the drain time is ended");
            self.enter(LifecyclePhase::Cutting);
            requests.none_within(ERROR_EVENT_TIMEOUT, *clock).await;
        }
        self.enter(LifecyclePhase::Closing);
        let (clients, operators) =
            (connections.none_within(GRACEFUL_CLOSE, *clock), ops_connections.none_within(GRACEFUL_CLOSE, *clock));
        tokio::join!(clients, operators);
        self.enter(LifecyclePhase::Closed);
    }

    /// Waits until no request and no connection is open; a connection of operators counts if it drains already. A
    /// connection outlives the body of its last answer, which has ended when its bytes were given to the connection,
    /// before they are sent.
    async fn nothing_open(&self) {
        let LifecycleState { requests, connections, ops_connections, .. } = &*self.0;
        loop {
            requests.none().await;
            connections.none().await;
            if self.is_succeeded() {
                ops_connections.none().await;
            }
            // A connection that was waited for may have brought another request.
            if requests.count() == 0 {
                return;
            }
        }
    }

    /// Whether load balancers may send new requests.
    pub fn is_ready(&self) -> bool {
        *self.0.phase.borrow() == LifecyclePhase::Serving || self.is_succeeded()
    }

    /// Whether another process accepts from the same listeners.
    pub fn is_succeeded(&self) -> bool {
        *self.0.succeeded.borrow()
    }

    /// How long a connection may be idle while this process drains.
    pub fn idle_grace(&self) -> Duration {
        match *self.0.phase.borrow() {
            _ if self.is_succeeded() => IDLE_GRACE_SUCCEEDED,
            phase if phase >= LifecyclePhase::Closing => IDLE_GRACE_CLOSING,
            _ => IDLE_GRACE,
        }
    }

    /// Ready once [`Lifecycle::is_succeeded`].
    pub fn succeeded(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.succeeded.subscribe();
        let state = self.0.clone();
        async move {
            // It cannot fail: `state` keeps the sender alive.
            let _ = receiver.wait_for(|succeeded| *succeeded).await;
            drop(state);
        }
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

    /// Counts a client's connection as open until the guard is dropped.
    pub fn open_connection(&self) -> OpenGuard {
        self.open(|state| &state.connections)
    }

    /// Counts an operator's connection as open until the guard is dropped.
    pub fn open_ops_connection(&self) -> OpenGuard {
        self.open(|state| &state.ops_connections)
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

    #[tokio::test(start_paused = true)]
    async fn with_a_successor_the_address_stays_ready_and_requests_that_come_late_are_waited_for() {
        let (clock, lifecycle) = (Clock, Lifecycle::new(Clock));
        let start = clock.now();
        let connection = lifecycle.open_connection();
        tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move {
                lifecycle.reached(LifecyclePhase::Draining).await;
                // An idle connection brings a request, whose stream ends after ten seconds.
                clock.sleep(Duration::from_secs(4)).await;
                let request = lifecycle.open_request();
                clock.sleep(Duration::from_secs(10)).await;
                drop((request, connection));
            }
        });
        lifecycle.be_succeeded(Duration::from_secs(30)).await;
        assert_eq!((clock.now() - start).as_secs(), 14);
        assert!(lifecycle.is_ready());
    }
}
