//! How the front door opens, leaves and closes.
//!
//! A [`Lifecycle`] is shared by everything that must know: `/readyz`, the accept loops, every
//! connection, every stream. It counts requests until their *body* ends. It never touches a socket.
//!
//! Start reading at [`Lifecycle::shut_down`].

use crate::clock::Clock;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long the last words of cut streams may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How long connections without a request may take to close with good manners, at least.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where the gateway stands; it only ever moves forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Everything is open.
    Serving,
    /// Still serving, but saying 503 on `/readyz`: load balancers are given time to see it.
    Leaving,
    /// No new connections; each open one closes after the requests on it.
    Draining,
    /// Streams still open are ended with an error.
    Cutting,
    /// Whatever is left is dropped.
    Closed,
}

/// The phase everything agrees on, and what is still open.
#[derive(Clone)]
pub struct Lifecycle(Arc<Shared>);

struct Shared {
    clock: Clock,
    phase: watch::Sender<Phase>,
    requests: OpenCount,
    connections: OpenCount,
}

impl Lifecycle {
    /// Serving, with nothing open.
    pub fn new(clock: Clock) -> Self {
        let phase = watch::Sender::new(Phase::Serving);
        Self(Arc::new(Shared { clock, phase, requests: OpenCount::default(), connections: OpenCount::default() }))
    }

    /// Leaves in good order: says so for `lb_grace`, stops accepting, lets open requests finish for up
    /// to `drain`, ends streams still open with an error. When this returns every accept loop is about
    /// to return.
    pub async fn shut_down(&self, lb_grace: Duration, drain: Duration) {
        let Shared { clock, requests, connections, .. } = &*self.0;
        self.enter(Phase::Leaving);
        clock.sleep(lb_grace).await;
        self.enter(Phase::Draining);
        let end = clock.now() + drain;
        if !requests.none_within(drain, *clock).await {
            tracing::warn!(open = requests.count(), "requests still open after the drain time are ended");
            self.enter(Phase::Cutting);
            requests.none_within(LAST_WORDS, *clock).await;
        }
        // A body has ended when its last bytes are handed to its connection, not when they have left.
        let left = end.saturating_duration_since(clock.now());
        connections.none_within(left.max(GOODBYE), *clock).await;
        self.enter(Phase::Closed);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        *self.0.phase.borrow() == Phase::Serving
    }

    /// Ready once `phase`, or a later one, is reached.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.phase.subscribe();
        let shared = self.0.clone();
        async move {
            // It cannot fail: `shared` holds the sender.
            let _ = receiver.wait_for(|now| *now >= phase).await;
            drop(shared);
        }
    }

    /// A request is open until this is dropped.
    pub fn request(&self) -> Present {
        self.present(|shared| &shared.requests)
    }

    /// A connection is open until this is dropped.
    pub fn connection(&self) -> Present {
        self.present(|shared| &shared.connections)
    }

    fn present(&self, tally: fn(&Shared) -> &OpenCount) -> Present {
        tally(&self.0).open.fetch_add(1, Ordering::AcqRel);
        Present { shared: self.0.clone(), tally }
    }

    fn enter(&self, phase: Phase) {
        tracing::info!(?phase, "shutting down");
        self.0.phase.send_replace(phase);
    }
}

/// Something open, counted until it is dropped.
pub struct Present {
    shared: Arc<Shared>,
    tally: fn(&Shared) -> &OpenCount,
}

impl Drop for Present {
    fn drop(&mut self) {
        let tally = (self.tally)(&self.shared);
        if tally.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            tally.empty.notify_waiters();
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
            // Enlisted before counting, so that the last one to go cannot slip between the two.
            empty.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            empty.await;
        }
    }

    async fn none_within(&self, patience: Duration, clock: Clock) -> bool {
        tokio::select! {
            biased;
            () = self.none() => true,
            () = clock.sleep(patience) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shut_down(held_for: Option<Duration>) -> (Duration, Vec<(Phase, Duration)>) {
        let clock = Clock;
        let start = clock.now();
        let lifecycle = Lifecycle::new(clock);
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        for phase in [Phase::Leaving, Phase::Draining, Phase::Cutting, Phase::Closed] {
            let (reached, seen) = (lifecycle.reached(phase), seen.clone());
            tokio::spawn(async move {
                reached.await;
                seen.lock().unwrap().push((phase, clock.now() - start));
            });
        }
        let request = lifecycle.request();
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
        let seen = seen.lock().unwrap().clone();
        (took, seen)
    }

    fn seconds(seen: &[(Phase, Duration)]) -> Vec<(Phase, u64)> {
        seen.iter().map(|(phase, at)| (*phase, at.as_secs())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_as_soon_as_the_last_body_has_ended() {
        let (took, seen) = shut_down(Some(Duration::from_secs(12))).await;
        assert_eq!(took.as_secs(), 12);
        // Cutting is passed in the same instant as closing.
        assert_eq!(seconds(&seen)[..2], [(Phase::Leaving, 0), (Phase::Draining, 5)]);
        assert!(seen.iter().all(|(phase, at)| *phase < Phase::Cutting || at.as_secs() == 12), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_cuts_what_does_not_end_and_then_stops_waiting() {
        let (took, seen) = shut_down(None).await;
        assert_eq!(took.as_secs(), 5 + 30 + LAST_WORDS.as_secs());
        assert_eq!(
            seconds(&seen),
            [(Phase::Leaving, 0), (Phase::Draining, 5), (Phase::Cutting, 35), (Phase::Closed, 41)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_until_it_begins_to_leave() {
        let lifecycle = Lifecycle::new(Clock);
        assert!(lifecycle.is_ready());
        let leaving = lifecycle.reached(Phase::Leaving);
        let shutting_down = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.shut_down(Duration::from_secs(5), Duration::ZERO).await }
        });
        leaving.await;
        assert!(!lifecycle.is_ready());
        shutting_down.await.unwrap();
    }
}
