//! What the front door knows of one connection: when its bytes left, whether a request is open on
//! it, how long it may stay silent.
//!
//! [`Watched`] wraps the socket and notes what passes; [`Connection`] is what the connection's task and the
//! bodies on it share. Nothing here reads or changes a byte.

use super::response_body::{Handle, LetGo};
use crate::clock::Clock;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a request's head may take, from its first byte, and the first one from the connection on.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may idle between requests: longer than the 60 s that load balancers keep
/// theirs, so that it is always they who close and none of them sends into a closing connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take nothing of what is ready for it: its answer is held, and a provider's
/// connection with it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for one stream among others on an HTTP/2 connection, whose pieces may leave byte by byte.
pub const UNTAKEN_TIMEOUT: Duration = Duration::from_secs(120);

/// One connection, as its task and the bodies on it share it.
pub struct Connection {
    clock: Clock,
    /// Held for a few instructions at a time, never across a write.
    state: Mutex<State>,
}

struct State {
    /// How often all that had been written was handed to the system.
    flushes: u64,
    /// Bodies that wait for the next flush.
    waiting: Vec<Waker>,
    /// Since when the socket takes no more bytes.
    stalled: Option<Instant>,
    http2: bool,
    /// Requests whose response has not ended.
    open: usize,
    /// The bodies of an HTTP/2 connection that are on their way.
    bodies: Vec<Handle>,
    phase: Phase,
}

/// Between requests: what the client is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No request yet, since then.
    Fresh(Instant),
    /// Nothing came since the last request ended, then.
    Idle(Instant),
    /// The first byte of something came then.
    Head(Instant),
}

/// How long a silent connection may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleLimit {
    /// It is fine; ask again then.
    Until(Instant),
    /// It has idled long enough: to be closed with good manners.
    Spent,
    /// Its client is too slow to be served: to be dropped.
    Lost,
}

impl Connection {
    /// A connection accepted at `clock.now()`.
    pub fn new(clock: Clock) -> Self {
        let phase = Phase::Fresh(clock.now());
        let state =
            State { flushes: 0, waiting: Vec::new(), stalled: None, http2: false, open: 0, bodies: Vec::new(), phase };
        Self { clock, state: Mutex::new(state) }
    }

    /// Notes that a request's head has been read; its response has ended when the guard is dropped.
    pub fn request(self: &Arc<Self>, http2: bool) -> Open {
        let mut state = self.state();
        state.http2 = http2;
        state.open += 1;
        Open(self.clone())
    }

    /// Whether the connection speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.state().http2
    }

    /// How often everything written so far was handed to the system.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Ready once there were more than `since` flushes.
    pub fn poll_flushed(&self, since: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.flushes > since {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Watches over a body from now on.
    pub fn watch(&self, body: Handle) {
        let mut state = self.state();
        // They come and go with their streams, of which there are few at once.
        state.bodies.retain(Handle::is_alive);
        state.bodies.push(body);
    }

    /// Takes away the bodies that nobody has asked for since [`UNTAKEN_TIMEOUT`] before `now`. They
    /// count as open until they are dropped, which must not happen in here.
    #[must_use]
    pub fn let_go(&self, now: Instant) -> Vec<LetGo> {
        // A body being polled may ask us something: we must not wait for it while others wait for us.
        let bodies = self.state().bodies.clone();
        bodies.iter().filter_map(|body| body.let_go(now)).collect()
    }

    /// How long this connection may stay as it is.
    pub fn patience(&self, now: Instant) -> IdleLimit {
        let state = self.state();
        // Whatever begins after now can be late only then.
        let soonest = now + HEAD_TIMEOUT;
        if let Some(since) = state.stalled {
            let end = since + STALL_TIMEOUT;
            return if now >= end { IdleLimit::Lost } else { IdleLimit::Until(soonest.min(end)) };
        }
        if state.open > 0 {
            return IdleLimit::Until(soonest);
        }
        match state.phase {
            Phase::Fresh(since) | Phase::Head(since) if now >= since + HEAD_TIMEOUT => IdleLimit::Lost,
            Phase::Fresh(since) | Phase::Head(since) => IdleLimit::Until(since + HEAD_TIMEOUT),
            Phase::Idle(since) if now >= since + IDLE_TIMEOUT => IdleLimit::Spent,
            Phase::Idle(since) => IdleLimit::Until(soonest.min(since + IDLE_TIMEOUT)),
        }
    }

    fn flushed(&self) {
        let mut state = self.state();
        state.flushes += 1;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Notes whether the socket took what it was handed.
    fn written(&self, taken: bool) {
        let mut state = self.state();
        match (taken, state.stalled) {
            (true, Some(_)) => state.stalled = None,
            (false, None) => state.stalled = Some(self.clock.now()),
            _ => {}
        }
    }

    fn received(&self) {
        let mut state = self.state();
        // HTTP/2 has pings and window updates of its own: its silence is watched by our pings.
        if state.open == 0 && !state.http2 && matches!(state.phase, Phase::Idle(_)) {
            state.phase = Phase::Head(self.clock.now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request is open on a connection for as long as this lives.
pub struct Open(Arc<Connection>);

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut state = self.0.state();
        state.open -= 1;
        state.phase = Phase::Idle(now);
    }
}

/// A connection's socket, noting what passes.
pub struct Watched<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    /// Watches `socket` for `connection`.
    pub fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.connection.written(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.connection.written(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper and h2 flush the socket only when their own buffers are empty: everything handed to them
    /// has left by then.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_be_silent_as_long_as_its_place_in_a_request_allows() {
        let clock = Clock;
        let connection = Arc::new(Connection::new(clock));
        let start = clock.now();
        let check = |after_s: u64, expected: IdleLimit| {
            assert_eq!(connection.patience(start + Duration::from_secs(after_s)), expected, "{after_s} s");
        };
        let until = |after_s: u64| IdleLimit::Until(start + Duration::from_secs(after_s));
        // A first head must come within ten seconds, whatever trickles in.
        connection.received();
        check(9, until(10));
        check(10, IdleLimit::Lost);
        // While a request is open nothing is asked of the client here.
        let open = connection.request(false);
        check(500, until(510));
        drop(open);
        check(1, until(11));
        check(74, until(75));
        check(75, IdleLimit::Spent);
        // The first byte of the next head starts its ten seconds.
        tokio::time::advance(Duration::from_secs(3)).await;
        connection.received();
        tokio::time::advance(Duration::from_secs(3)).await;
        connection.received();
        check(6, until(13));
        check(13, IdleLimit::Lost);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_may_ping_without_starting_a_request() {
        let connection = Arc::new(Connection::new(Clock));
        let start = Clock.now();
        drop(connection.request(true));
        connection.received();
        assert_eq!(connection.patience(start + IDLE_TIMEOUT), IdleLimit::Spent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_lost_after_a_minute() {
        let connection = Arc::new(Connection::new(Clock));
        let start = Clock.now();
        let _open = connection.request(false);
        connection.written(false);
        tokio::time::advance(Duration::from_secs(30)).await;
        connection.written(false);
        assert_eq!(connection.patience(start + Duration::from_secs(59)), IdleLimit::Until(start + STALL_TIMEOUT));
        assert_eq!(connection.patience(start + STALL_TIMEOUT), IdleLimit::Lost);
        connection.written(true);
        assert!(matches!(connection.patience(start + STALL_TIMEOUT), IdleLimit::Until(_)));
    }

    #[test]
    fn whoever_waits_for_a_flush_sees_only_a_later_one() {
        let connection = Connection::new(Clock);
        let cx = &mut Context::from_waker(Waker::noop());
        connection.flushed();
        let since = connection.flushes();
        assert!(connection.poll_flushed(since, cx).is_pending());
        connection.flushed();
        assert!(connection.poll_flushed(since, cx).is_ready());
    }
}
