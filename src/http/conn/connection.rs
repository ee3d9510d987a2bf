//! What one client connection is doing: when its bytes were flushed, how many requests are open on it,
//! and which timeout applies.
//!
//! [`MonitoredStream`] wraps the transport and records reads, writes and flushes; [`Connection`] is
//! shared by the connection's task and the bodies sent on it. Nothing here reads or changes a byte.
//!
//! Start reading at [`Connection::check_timeouts`].

// circle: response_body.rs: a body counts as open on its connection, which drops it if its client does not read it.
use super::response_body::{BodyHandle, UnreadBody};
// circle: table.rs: a connection has its place among those without a key, and the table asks it to give way.
use super::table::PeerSlot;
use super::workers::WorkerLoad;
use crate::clock::Clock;
use crate::domain::memory::{InFlightAllowance, InFlightReservation};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// The longest time from the first byte of a request's head to its last. For the first request it is
/// counted from the moment the connection was accepted.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time a connection may be idle between requests. Load balancers usually close theirs
/// after 60 s: with more than that it is they who close, and none sends into a closing connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The longest time the socket may accept nothing of what is ready to be sent. Meanwhile the answer
/// stays in memory and the provider's connection stays open.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for one stream on an HTTP/2 connection whose other streams go on. Twice as long, because
/// a client with a small window may read it byte by byte.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);
/// From here on what waits to be read counts for its key, where there is room for it, and is dropped where there is none.
pub const UNREAD_COUNTED: Duration = Duration::from_secs(5);
/// What it counts, in bytes: as much as the buffers of its two connections may hold, which nothing else counts.
pub const UNREAD_BYTES: u64 = 512 * 1024;

/// One connection, shared by its task and the bodies sent on it.
pub struct Connection {
    clock: Clock,
    /// Whether its process drains.
    draining: AtomicBool,
    /// Wakes its task when it is to give way.
    giving_way: Notify,
    /// Where its requests are counted for its worker.
    load: Option<Arc<WorkerLoad>>,
    /// Locked for a few instructions at a time, never across a write.
    state: Mutex<ConnectionState>,
}

struct ConnectionState {
    /// The address of its client, as far as it is known.
    peer: Option<IpAddr>,
    /// Whether a key was accepted on it.
    has_key: bool,
    /// Counts it for its address for as long as it has no key.
    keyless: Option<PeerSlot>,
    /// Whether it is to close if it is idle: another connection needs its place.
    gives_way: bool,
    /// What the key of its last answer may hold in memory.
    allowance: Option<InFlightAllowance>,
    /// What waits for a socket that accepts no more bytes.
    unread: Option<InFlightReservation>,
    /// How often everything written so far had been passed to the operating system.
    flushes: u64,
    /// Bodies that wait for the next flush.
    flush_wakers: Vec<Waker>,
    /// Since when the socket accepts no more bytes; `None` while it does.
    stalled_since: Option<Instant>,
    http2: bool,
    /// Requests whose response has not ended.
    open_requests: usize,
    /// The bodies being sent on an HTTP/2 connection.
    bodies: Vec<BodyHandle>,
    read_phase: ReadPhase,
}

/// What the client is sending while no request is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReadPhase {
    /// Nothing since the connection was accepted, at this instant.
    Accepted(Instant),
    /// The first head; the connection was accepted at this instant.
    FirstHead(Instant),
    /// Nothing since the last request ended, at this instant.
    Idle(Instant),
    /// A later head, whose first byte came at this instant.
    NextHead(Instant),
}

/// What the connection's task has to do about its timeouts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutAction {
    /// Nothing before this instant.
    CheckAt(Instant),
    /// It was idle for [`IDLE_TIMEOUT`] or for its [`DrainGrace`], or it gives way: close it gracefully.
    CloseIdle,
    /// Its client is too slow, or has not sent a whole head when it gives way: drop it.
    Abort,
}

/// A connection without an open request.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleConnection {
    /// Whether a key was accepted on it.
    pub has_key: bool,
    /// The address of its client, as far as it is known.
    pub peer: Option<IpAddr>,
    /// Since when; for one that sends a head, when that began.
    pub since: Instant,
}

/// How long a connection may be idle while its process drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainGrace {
    /// When the process began to drain: what was idle by then is counted from here.
    pub since: Instant,
    /// How long from then, or from the end of the last request.
    pub idle: Duration,
}

impl Connection {
    /// A connection accepted at `clock.now()`.
    pub fn new(clock: Clock) -> Self {
        let state = ConnectionState {
            peer: None,
            has_key: false,
            keyless: None,
            gives_way: false,
            allowance: None,
            unread: None,
            flushes: 0,
            flush_wakers: Vec::new(),
            stalled_since: None,
            http2: false,
            open_requests: 0,
            bodies: Vec::new(),
            read_phase: ReadPhase::Accepted(clock.now()),
        };
        Self {
            clock,
            draining: AtomicBool::new(false),
            giving_way: Notify::new(),
            load: None,
            state: Mutex::new(state),
        }
    }

    /// The same, whose requests are counted in `load`.
    pub(super) fn counted_in(mut self, load: Arc<WorkerLoad>) -> Self {
        self.load = Some(load);
        self
    }

    /// The same of a client at this address; `None` for a local socket.
    pub fn of_peer(mut self, peer: Option<IpAddr>) -> Self {
        self.state.get_mut().peer = peer;
        self
    }

    /// The address of its client: behind a trusted proxy, of the one whose request was the last.
    pub fn peer(&self) -> Option<IpAddr> {
        self.state.lock().peer
    }

    /// Records that a trusted proxy forwards a request of this client. What a key of another one allowed is over.
    pub fn forwards_for(&self, peer: Option<IpAddr>) {
        let before = {
            let mut state = self.state.lock();
            (state.peer, state.has_key) = (peer, false);
            state.keyless.take()
        };
        drop(before);
    }

    /// Counts it as one without a key until one is accepted on it.
    pub(super) fn count_as_keyless(&self, slot: Option<PeerSlot>) {
        let mut state = self.state.lock();
        if !state.has_key {
            state.keyless = slot;
        }
    }

    /// Records that a key was accepted on it.
    pub fn key_accepted(&self) {
        let counted = {
            let mut state = self.state.lock();
            state.has_key = true;
            state.keyless.take()
        };
        drop(counted);
    }

    /// Records what the key may hold in memory that is answered on it.
    pub fn answers_within(&self, allowance: InFlightAllowance) {
        let before = self.state.lock().allowance.replace(allowance);
        drop(before);
    }

    /// What it is while no request is open on it.
    pub(super) fn idle(&self) -> Option<IdleConnection> {
        let state = self.state.lock();
        let since = match state.read_phase {
            ReadPhase::Accepted(since)
            | ReadPhase::FirstHead(since)
            | ReadPhase::Idle(since)
            | ReadPhase::NextHead(since) => since,
        };
        (state.open_requests == 0).then_some(IdleConnection { has_key: state.has_key, peer: state.peer, since })
    }

    /// Has it close if it is idle.
    pub fn give_way(&self) {
        self.state.lock().gives_way = true;
        self.giving_way.notify_one();
    }

    /// Ready when it is to give way.
    pub async fn asked_to_give_way(&self) {
        self.giving_way.notified().await;
    }

    /// Whether it is to give way.
    #[cfg(test)]
    pub fn is_to_give_way(&self) -> bool {
        self.state.lock().gives_way
    }

    /// Records that the process drains.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the next answer is to be the last.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Records that a request's head has been read. Its response has ended when the guard is dropped.
    pub fn open_request(self: &Arc<Self>, http2: bool) -> OpenRequest {
        if let Some(load) = &self.load {
            load.opened();
        }
        let mut state = self.state.lock();
        state.http2 = http2;
        state.open_requests += 1;
        OpenRequest(self.clone())
    }

    /// Whether the connection speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.state.lock().http2
    }

    /// How often everything written so far had been passed to the operating system.
    pub fn flushes(&self) -> u64 {
        self.state.lock().flushes
    }

    /// Ready once there were more than `since` flushes.
    pub fn poll_flushed(&self, since: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.flushes > since {
            return Poll::Ready(());
        }
        if !state.flush_wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.flush_wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Includes `body` in [`Connection::take_unread`] from now on.
    pub fn monitor(&self, body: BodyHandle) {
        let mut state = self.state.lock();
        // The handles of ended streams are removed here; few streams are open at once.
        state.bodies.retain(BodyHandle::is_alive);
        state.bodies.push(body);
    }

    /// Takes the bodies that were not polled for [`UNREAD_TIMEOUT`] before `now`, or for [`UNREAD_COUNTED`] where there is
    /// no room for them. They count as open
    /// until the caller drops them, after this connection's lock is released.
    #[must_use]
    pub fn take_unread(&self, now: Instant) -> Vec<UnreadBody> {
        // Copied first: a body being polled may lock this connection, so it must not be locked here.
        let (bodies, allowance) = {
            let state = self.state.lock();
            (state.bodies.clone(), state.allowance.clone())
        };
        bodies.iter().filter_map(|body| body.take_unread(now, allowance.as_ref())).collect()
    }

    /// Which timeout has passed at `now`, or when to look again. `draining` is given once the process drains.
    pub fn check_timeouts(&self, now: Instant, draining: Option<DrainGrace>) -> TimeoutAction {
        let mut state = self.state.lock();
        let gives_way = std::mem::take(&mut state.gives_way);
        // No timeout that starts after `now` can pass before this. The shortest one, of an idle connection, is there only
        // while the process drains.
        let soonest = now + draining.map_or(HEAD_TIMEOUT, |grace| grace.idle.min(HEAD_TIMEOUT));
        if let Some(since) = state.stalled_since {
            let end = since + STALL_TIMEOUT;
            let is_over = now >= end || (now >= since + UNREAD_COUNTED && !state.holds_unread());
            return if is_over { TimeoutAction::Abort } else { TimeoutAction::CheckAt(soonest.min(end)) };
        }
        if state.open_requests > 0 {
            return TimeoutAction::CheckAt(soonest);
        }
        if gives_way {
            return if matches!(state.read_phase, ReadPhase::Idle(_)) {
                TimeoutAction::CloseIdle
            } else {
                TimeoutAction::Abort
            };
        }
        let idle_end = |since: Instant, limit: Duration| match draining {
            Some(grace) => (since + limit).min(since.max(grace.since) + grace.idle),
            None => since + limit,
        };
        let (end, action) = match state.read_phase {
            ReadPhase::FirstHead(since) | ReadPhase::NextHead(since) => (since + HEAD_TIMEOUT, TimeoutAction::Abort),
            ReadPhase::Accepted(since) if draining.is_none() => (since + HEAD_TIMEOUT, TimeoutAction::Abort),
            ReadPhase::Accepted(since) => (idle_end(since, HEAD_TIMEOUT), TimeoutAction::CloseIdle),
            ReadPhase::Idle(since) => (idle_end(since, IDLE_TIMEOUT), TimeoutAction::CloseIdle),
        };
        if now >= end { action } else { TimeoutAction::CheckAt(soonest.min(end)) }
    }

    fn record_flush(&self) {
        let mut state = self.state.lock();
        state.flushes += 1;
        state.flush_wakers.drain(..).for_each(Waker::wake);
    }

    /// Records whether the socket accepted what was written.
    fn record_write(&self, accepted: bool) {
        let mut state = self.state.lock();
        match (accepted, state.stalled_since) {
            (true, Some(_)) => (state.stalled_since, state.unread) = (None, None),
            (false, None) => state.stalled_since = Some(self.clock.now()),
            _ => {}
        }
    }

    fn record_read(&self) {
        let mut state = self.state.lock();
        match state.read_phase {
            ReadPhase::Accepted(since) => state.read_phase = ReadPhase::FirstHead(since),
            // HTTP/2 sends pings and window updates between requests; our own pings find a dead client.
            ReadPhase::Idle(_) if state.open_requests == 0 && !state.http2 => {
                state.read_phase = ReadPhase::NextHead(self.clock.now());
            }
            _ => {}
        }
    }
}

impl ConnectionState {
    /// Whether what waits to be read counts for its key, now if it did not before; `false` where there is no room for it.
    fn holds_unread(&mut self) -> bool {
        if self.unread.is_none()
            && let Some(allowance) = &self.allowance
        {
            self.unread = counted_unread(allowance);
            return self.unread.is_some();
        }
        true
    }
}

/// One unread answer's part of `allowance`; `None` where there is no room for it.
pub fn counted_unread(allowance: &InFlightAllowance) -> Option<InFlightReservation> {
    let mut unread = allowance.reservation();
    unread.grow(UNREAD_BYTES).then_some(unread)
}

/// Counts a request as open on its connection until it is dropped.
pub struct OpenRequest(Arc<Connection>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if let Some(load) = &self.0.load {
            load.ended();
        }
        let now = self.0.clock.now();
        let mut state = self.0.state.lock();
        state.open_requests -= 1;
        state.read_phase = ReadPhase::Idle(now);
    }
}

/// A connection's transport that records reads, writes and flushes.
pub struct MonitoredStream<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> MonitoredStream<S> {
    /// Records what passes through `stream` in `connection`.
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.connection.record_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.record_write(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.connection.record_write(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper and h2 flush only when their own buffers are empty: everything they were given has been
    /// written by then.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.connection.record_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_between_requests_has_its_own_timeout() {
        let clock = Clock;
        let connection = Arc::new(Connection::new(clock));
        let start = clock.now();
        let check = |after_s: u64, expected: TimeoutAction| {
            assert_eq!(connection.check_timeouts(start + Duration::from_secs(after_s), None), expected, "{after_s} s");
        };
        let until = |after_s: u64| TimeoutAction::CheckAt(start + Duration::from_secs(after_s));
        // A first head must be complete within ten seconds, however many bytes have come.
        connection.record_read();
        check(9, until(10));
        check(10, TimeoutAction::Abort);
        // While a request is open the client need not send anything.
        let open = connection.open_request(false);
        check(500, until(510));
        drop(open);
        check(1, until(11));
        check(74, until(75));
        check(75, TimeoutAction::CloseIdle);
        // The first byte of the next head starts its ten seconds.
        tokio::time::advance(Duration::from_secs(3)).await;
        connection.record_read();
        tokio::time::advance(Duration::from_secs(3)).await;
        connection.record_read();
        check(6, until(13));
        check(13, TimeoutAction::Abort);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_process_drains_an_idle_connection_has_a_grace_and_a_head_its_time() {
        let connection = Arc::new(Connection::new(Clock));
        let start = Clock.now();
        let second = |count: u64| start + Duration::from_secs(count);
        let draining = Some(DrainGrace { since: second(2), idle: Duration::from_secs(5) });
        // Nothing has come: the client connected ahead of its first request.
        assert_eq!(connection.check_timeouts(second(6), draining), TimeoutAction::CheckAt(second(7)));
        assert_eq!(connection.check_timeouts(second(7), draining), TimeoutAction::CloseIdle);
        connection.record_read();
        assert_eq!(connection.check_timeouts(second(7), draining), TimeoutAction::CheckAt(second(10)));
        let open = connection.open_request(false);
        // The end of an answer that began before wakes nobody: its connection is looked at as often as it may be idle.
        assert_eq!(connection.check_timeouts(second(8), draining), TimeoutAction::CheckAt(second(13)));
        tokio::time::advance(Duration::from_secs(20)).await;
        drop(open);
        assert_eq!(connection.check_timeouts(second(24), draining), TimeoutAction::CheckAt(second(25)));
        assert_eq!(connection.check_timeouts(second(25), draining), TimeoutAction::CloseIdle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_ping_does_not_start_a_request() {
        let connection = Arc::new(Connection::new(Clock));
        let start = Clock.now();
        drop(connection.open_request(true));
        connection.record_read();
        assert_eq!(connection.check_timeouts(start + IDLE_TIMEOUT, None), TimeoutAction::CloseIdle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_aborted_after_a_minute() {
        let connection = Arc::new(Connection::new(Clock));
        let start = Clock.now();
        let _open = connection.open_request(false);
        connection.record_write(false);
        tokio::time::advance(Duration::from_secs(30)).await;
        connection.record_write(false);
        assert_eq!(
            connection.check_timeouts(start + Duration::from_secs(59), None),
            TimeoutAction::CheckAt(start + STALL_TIMEOUT)
        );
        assert_eq!(connection.check_timeouts(start + STALL_TIMEOUT, None), TimeoutAction::Abort);
        connection.record_write(true);
        assert!(matches!(connection.check_timeouts(start + STALL_TIMEOUT, None), TimeoutAction::CheckAt(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_counts_for_its_key_and_ends_where_there_is_no_room() {
        let allowance = InFlightAllowance { max: 4 * UNREAD_BYTES, ..InFlightAllowance::default() };
        let (start, stalled) = (Clock.now(), |connection: &Arc<Connection>| connection.record_write(false));
        let connections: Vec<_> = (0..3).map(|_| Arc::new(Connection::new(Clock))).collect();
        let open: Vec<_> = connections.iter().map(|connection| connection.open_request(false)).collect();
        connections.iter().for_each(|connection| connection.answers_within(allowance.clone()));
        connections.iter().for_each(stalled);
        let check = |second: u64| {
            let aborted = connections.iter().map(|connection| {
                connection.check_timeouts(start + Duration::from_secs(second), None) == TimeoutAction::Abort
            });
            aborted.collect::<Vec<_>>()
        };
        assert_eq!((check(4), allowance.all.bytes()), (vec![false; 3], 0));
        // Half of all is the key's.
        assert_eq!((check(5), allowance.all.bytes()), (vec![false, false, true], 2 * UNREAD_BYTES));
        connections[0].record_write(true);
        assert_eq!((check(6), allowance.all.bytes()), (vec![false; 3], 2 * UNREAD_BYTES));
        drop((connections, open));
        assert_eq!(allowance.all.bytes(), 0);
    }

    #[test]
    fn a_wait_for_a_flush_ends_only_with_a_later_flush() {
        let connection = Connection::new(Clock);
        let cx = &mut Context::from_waker(Waker::noop());
        connection.record_flush();
        let since = connection.flushes();
        assert!(connection.poll_flushed(since, cx).is_pending());
        connection.record_flush();
        assert!(connection.poll_flushed(since, cx).is_ready());
    }
}
