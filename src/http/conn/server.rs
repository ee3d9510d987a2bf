//! The accept loop, and the task that serves one connection over HTTP/1.1 or HTTP/2.
//!
//! The loop is ours because `axum::serve` has no limit on connections and none on how long a
//! request's head may take, and waits without end for open streams at shutdown
//! (`docs/adr/0008-own-accept-loop.md`). It must never spin, and never let one client's slowness
//! delay another.
//!
//! Start reading at [`serve`].

use super::connection::{Connection, DrainGrace, MonitoredStream, TimeoutAction};
use super::forwarded::{forwarded_address, is_of};
use super::lifecycle::{Lifecycle, LifecyclePhase};
use super::listener::{Listener, ListenerKind, TransportStream, moved_to};
use super::response_body::ResponseBody;
use super::table::ConnectionTable;
use super::tls::{MaybeTlsStream, ServerTls};
use super::workers::{WorkerLoad, Workers};
use crate::clock::Clock;
use crate::config::ConnectionLimits;
use crate::http::request_handler::RequestHandler;
use axum::body::Body;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::either::Either;

/// The pause after accepting failed: out of file descriptors, the next call fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most connections where neither the configuration nor the limit on open files sets fewer: what so many strangers
/// could make us hold is still bounded.
const MOST_CONNECTIONS: usize = 64 * 1024;
/// The longest time that an idle connection may take to close gracefully.
const GRACEFUL_CLOSE: Duration = Duration::from_secs(1);
/// The most connections to the operators' address.
const OPS_CONNECTIONS: usize = 256;
/// The largest head and the largest buffer of an HTTP/1.1 connection, in bytes.
const HTTP1_BUFFER: usize = 64 * 1024;
/// The most requests at once on an HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
/// The largest head of an HTTP/2 request, in bytes.
const HTTP2_HEAD: u32 = 32 * 1024;
/// The most request bytes that one HTTP/2 stream, and all of a connection together, may send before
/// we read them.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The most streams that a client may reset before we have accepted them, and that we may reset for
/// the client's errors; then the connection is closed (CVE-2023-44487, "rapid reset").
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_LOCAL_RESETS: usize = 128;
/// How often a silent HTTP/2 connection is pinged, and the longest time the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// With one byte, a stream takes its next buffer only when the one before it has gone to the
/// connection. [`ending`](crate::http::ending) depends on that, and no stream buffers what its client
/// is slow to read.
const MAX_SEND_BUFFER: usize = 1;

/// How the connections to one address are served.
#[derive(Clone)]
pub struct HttpServer {
    /// Answers every request.
    pub handler: RequestHandler,
    /// The process's phase, and what is open in it.
    pub lifecycle: Lifecycle,
    /// The source of time.
    pub clock: Clock,
    /// Whom the address serves.
    pub kind: ListenerKind,
    /// The handshake a connection begins with; `None` for plain HTTP.
    pub tls: Option<ServerTls>,
    /// Whether a client that has closed its sending side is still answered.
    pub half_close: bool,
    /// How many connections there may be, and whose they are.
    pub limits: Arc<ConnectionLimits>,
}

/// Serves on `listener`, in the runtime that this is called in, until its [`ListenerKind`] closes, then until the last
/// connection has ended or the process is [`LifecyclePhase::Closed`].
pub async fn serve(listener: Listener, server: HttpServer) {
    AcceptLoop::new(Workers::current(), server).run(listener, 0).await;
}

/// The same by `workers`: each accepts from its own one of `listeners`, which are one socket ([`Listener::shared_by`]).
pub async fn serve_by(workers: Workers, listeners: Vec<Listener>, server: HttpServer) {
    let accepting = AcceptLoop::new(workers.clone(), server);
    let mut loops = JoinSet::new();
    for (number, (runtime, listener)) in workers.runtimes().zip(listeners).enumerate() {
        loops.spawn_on(accepting.clone().run(listener, number), runtime);
    }
    while let Some(ended) = loops.join_next().await {
        // The gateway must not go on without one of its workers.
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

/// What the workers that serve one listener share.
#[derive(Clone)]
struct AcceptLoop {
    workers: Workers,
    slots: Arc<Semaphore>,
    table: Arc<ConnectionTable>,
    server: HttpServer,
}

impl AcceptLoop {
    fn new(workers: Workers, server: HttpServer) -> Self {
        let slots = Arc::new(Semaphore::new(max_connections(server.kind, server.limits.max)));
        let table = Arc::new(ConnectionTable::new(server.limits.keyless_per_address));
        Self { workers, slots, table, server }
    }

    /// The loop of the worker numbered `own`.
    async fn run(self, listener: Listener, own: usize) {
        let Self { slots, table, server, .. } = &self;
        let (lifecycle, clock) = (&server.lifecycle, server.clock);
        let mut connections = JoinSet::new();
        let mut closing = pin!(server.closing());
        // A connection that was accepted and has no slot yet.
        let mut waiting = None;
        loop {
            tokio::select! {
                biased;
                () = &mut closing => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (socket, slot) = accept(&listener, slots, table, &mut waiting, clock) => {
                    self.spawn(&mut connections, own, socket, Some(slot));
                }
            }
        }
        // It would be refused otherwise, and nobody else has it.
        if let Some(socket) = waiting {
            self.spawn(&mut connections, own, socket, None);
        }
        listener.close(lifecycle.is_succeeded());
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        tokio::select! {
            () = all_ended => {}
            () = lifecycle.reached(LifecyclePhase::Closed) => {}
        }
        connections.shutdown().await;
    }

    /// Starts the task of a connection that `own` accepted, at the worker that is to serve it.
    fn spawn(
        &self,
        connections: &mut JoinSet<()>,
        own: usize,
        socket: TransportStream,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let (number, runtime, counted) = self.workers.assign(own);
        let moved = if number == own { Ok(socket) } else { moved_to(runtime, socket) };
        let socket = match moved {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "a connection was lost between two workers"),
        };
        let open = match self.server.kind {
            ListenerKind::Public => self.server.lifecycle.open_connection(),
            ListenerKind::Ops => self.server.lifecycle.open_ops_connection(),
        };
        let (server, table) = (self.server.clone(), self.table.clone());
        let task = async move {
            server.serve_connection(socket, &table, counted.load()).await;
            drop((slot, open, counted));
        };
        connections.spawn_on(task, runtime);
    }
}

/// The next connection and its slot, for which idle connections give way. One connection waits for its slot in
/// `waiting`, so that nothing is lost when this is dropped; others wait in the operating system's queue.
async fn accept(
    listener: &Listener,
    slots: &Arc<Semaphore>,
    table: &ConnectionTable,
    waiting: &mut Option<TransportStream>,
    clock: Clock,
) -> (TransportStream, OwnedSemaphorePermit) {
    while waiting.is_none() {
        match listener.accept().await {
            Ok(socket) => *waiting = Some(socket),
            // This one client disconnected while it was queued.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections at the moment");
                // Most likely there are no descriptors left.
                table.make_room(clock.now());
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return (waiting.take().expect("one was accepted"), slot);
        }
        table.make_room(clock.now());
        // Those that are busy now may be idle soon.
        tokio::select! {
            biased;
            slot = slots.clone().acquire_owned() => {
                let slot = slot.expect("the semaphore is never closed");
                return (waiting.take().expect("one was accepted"), slot);
            }
            () = clock.sleep(ACCEPT_PAUSE) => {}
        }
    }
}

/// A panic in a body aborts its connection, so no client takes the answer for complete.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a bug of ours ended a connection");
    }
}

/// As many as are configured, else half of the files that the process may open: each request may need another one for
/// its provider.
fn max_connections(kind: ListenerKind, configured: Option<usize>) -> usize {
    let half = getrlimit(Resource::Nofile).current.map_or(MOST_CONNECTIONS, |files| (files / 2) as usize);
    let max = configured.unwrap_or(half.min(MOST_CONNECTIONS)).clamp(1, Semaphore::MAX_PERMITS);
    if kind == ListenerKind::Ops { max.min(OPS_CONNECTIONS) } else { max }
}

impl HttpServer {
    /// One connection, from its first byte to its last.
    async fn serve_connection(&self, socket: TransportStream, table: &ConnectionTable, load: &Arc<WorkerLoad>) {
        let mut peer = None;
        if let Either::Left(tcp) = &socket {
            // Frames are small and must not wait for each other. A socket that cannot do this is still served.
            let _ = tcp.set_nodelay(true);
            peer = tcp.peer_addr().ok().map(|address| address.ip());
        }
        let connection = Arc::new(Connection::new(self.clock).of_peer(peer).counted_in(load.clone()));
        let _entry = table.enter(&connection);
        let is_proxy = peer.is_some_and(|peer| is_of(peer, &self.limits.trusted_proxies));
        if !is_proxy && !count_keyless(&connection, table) {
            return;
        }
        let Some(stream) = self.transport(socket, &connection).await else { return };
        let io = TokioIo::new(MonitoredStream::new(stream, connection.clone()));
        let builder = protocol_builder(self.half_close);
        let mut http = pin!(builder.serve_connection(
            io,
            service_fn(|request| {
                if is_proxy {
                    self.note_forwarded(&request, &connection, table);
                }
                self.handle(request, &connection)
            })
        ));
        let mut events = self.events(&connection);
        let (mut draining, mut shutting_down, mut next_check) = (None, false, self.clock.now());
        events.push(self.check_at(next_check));
        loop {
            let event = tokio::select! {
                // An answer that begins after this must know of it.
                biased;
                Some(event) = events.next() => event,
                // An error is the client's: it disconnected, or it does not speak HTTP.
                _ = http.as_mut() => return,
            };
            let now = self.clock.now();
            match event {
                // Counted from the first reason for it.
                ConnectionEvent::Closing if draining.is_some() => continue,
                ConnectionEvent::Closing => {
                    connection.drain();
                    draining = Some(DrainGrace { since: now, idle: self.lifecycle.idle_grace() });
                }
                ConnectionEvent::Cutting => {
                    if !std::mem::replace(&mut shutting_down, true) {
                        http.as_mut().graceful_shutdown();
                    }
                    continue;
                }
                ConnectionEvent::GiveWay => events.push(give_way(&connection)),
                // Replaced by another one.
                ConnectionEvent::CheckDue(at) if at != next_check => continue,
                ConnectionEvent::CheckDue(_) => {}
            }
            drop(connection.take_unread(now));
            // HTTP/2 can say which requests will still be answered; the client sends others elsewhere.
            if draining.is_some() && !shutting_down && connection.is_http2() {
                shutting_down = true;
                http.as_mut().graceful_shutdown();
            }
            // What closes gracefully may still have an answer to send.
            next_check = match connection.check_timeouts(now, draining.filter(|_| !shutting_down)) {
                TimeoutAction::CheckAt(at) => at,
                TimeoutAction::CloseIdle if !shutting_down => {
                    shutting_down = true;
                    http.as_mut().graceful_shutdown();
                    now + GRACEFUL_CLOSE
                }
                TimeoutAction::CloseIdle | TimeoutAction::Abort => return,
            };
            events.push(self.check_at(next_check));
        }
    }

    /// What may happen to `connection` besides what its client does. Each is polled when it is woken itself, and not
    /// whenever anything is read or written (`make instructions`: 2,000 of a whole request, 700 of a frame).
    fn events<'a>(&self, connection: &'a Connection) -> FuturesUnordered<EventFuture<'a>> {
        let events = FuturesUnordered::<EventFuture<'a>>::new();
        // Each by itself: a select of the first two would be 1.5 KB of every connection.
        let (closing, succeeded) = (self.lifecycle.reached(self.kind.closes_at()), self.lifecycle.succeeded());
        events.push(Box::pin(closing.map(|()| ConnectionEvent::Closing)));
        events.push(Box::pin(succeeded.map(|()| ConnectionEvent::Closing)));
        let cutting = self.lifecycle.reached(self.kind.cut_at());
        events.push(Box::pin(cutting.map(|()| ConnectionEvent::Cutting)));
        events.push(give_way(connection));
        events
    }

    fn check_at(&self, at: Instant) -> EventFuture<'static> {
        let clock = self.clock;
        Box::pin(async move {
            clock.sleep_until(at).await;
            ConnectionEvent::CheckDue(at)
        })
    }

    /// Ready once no further connections are accepted here.
    fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let closing = self.lifecycle.reached(self.kind.closes_at());
        let succeeded = self.lifecycle.succeeded();
        async move {
            tokio::select! {
                () = closing => {}
                () = succeeded => {}
            }
        }
    }

    /// What `connection` is served over; `None` where it ended before.
    async fn transport(&self, socket: TransportStream, connection: &Connection) -> Option<MaybeTlsStream> {
        match &self.tls {
            None => Some(MaybeTlsStream::Left(socket)),
            // Boxed, so that a plain connection's task does not reserve memory for it.
            Some(tls) => Box::pin(self.tls_handshake(tls, socket, connection)).await,
        }
    }

    /// The handshake, which shares the first head's timeout. At shutdown it is waited for as long as for an idle
    /// connection.
    async fn tls_handshake(
        &self,
        tls: &ServerTls,
        socket: TransportStream,
        connection: &Connection,
    ) -> Option<MaybeTlsStream> {
        let TimeoutAction::CheckAt(end) = connection.check_timeouts(self.clock.now(), None) else { return None };
        let closed = async {
            self.closing().await;
            self.clock.sleep(self.lifecycle.idle_grace()).await;
        };
        tokio::select! {
            stream = tls.handshake(socket) => stream,
            () = closed => None,
            () = connection.asked_to_give_way() => None,
            () = self.clock.sleep_until(end) => None,
        }
    }

    /// Records whose request a trusted proxy forwards on `connection`, which counts for that client from now on.
    fn note_forwarded(&self, request: &Request<Incoming>, connection: &Connection, table: &ConnectionTable) {
        let client = forwarded_address(request.headers(), &self.limits.trusted_proxies);
        connection.forwards_for(client);
        count_keyless(connection, table);
    }

    /// Answers one request, which counts as open until its response's body has ended. An answer that begins while the
    /// process drains says that it is the last on its connection, so that no client sends another into a closing one.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, std::convert::Infallible>> + Send + 'static {
        let http2 = request.version() == Version::HTTP_2;
        let guards = (connection.open_request(http2), self.lifecycle.open_request());
        let request = request.map(Body::new);
        let (handler, connection, clock) = (self.handler.clone(), connection.clone(), self.clock);
        // Boxed, so that a connection reserves no memory for it while its answer is sent, and between requests: 5.8 KB
        // (`cargo test --test allocations an_open_stream`).
        Box::pin(async move {
            let mut response = handler.handle(request, Some(connection.clone())).await;
            if !http2 && connection.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| ResponseBody::new(body, guards, &connection, clock)))
        })
    }
}

/// What happens to a connection besides what its client does.
enum ConnectionEvent {
    /// No further connections are accepted.
    Closing,
    /// What is still open is ended.
    Cutting,
    /// It is to close if it is idle.
    GiveWay,
    /// Its timeouts were to be checked at this instant.
    CheckDue(Instant),
}

type EventFuture<'a> = Pin<Box<dyn Future<Output = ConnectionEvent> + Send + 'a>>;

fn give_way(connection: &Connection) -> EventFuture<'_> {
    Box::pin(async move {
        connection.asked_to_give_way().await;
        ConnectionEvent::GiveWay
    })
}

/// Counts `connection` as one without a key; `false` where its address has too many of them. A local address is more likely
/// that of a proxy on this machine, which speaks for many, than a stranger's, and is not counted.
fn count_keyless(connection: &Connection, table: &ConnectionTable) -> bool {
    let Some(peer) = connection.peer().filter(|peer| !peer.to_canonical().is_loopback()) else { return true };
    let slot = table.count_keyless(peer);
    let fits = slot.is_some();
    connection.count_as_keyless(slot);
    fits
}

/// The limits of HTTP/1.1 and HTTP/2. [`Connection`] times the head of a request, because hyper's own
/// timer covers neither the time before the protocol is known nor HTTP/2.
fn protocol_builder(half_close: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // Otherwise a client that closes its sending side has disconnected: its request is cancelled.
        .half_close(half_close)
        .max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEAD)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn::connection::UNREAD_TIMEOUT;
    use crate::http::conn::listener::bind;
    use crate::http::conn::tls::testing::TlsTestPair;
    use crate::http::upload::Upload;
    use crate::random::Rng;
    use axum::extract::Request;
    use axum::routing::{get, post};
    use bytes::Bytes;
    use http_body::Frame;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;

    const HEAD: &[u8] = b"GET /works HTTP/1.1\r\nhost: tierway\r\n\r\n";

    /// More bytes than the operating system buffers for a connection.
    const LARGE: usize = 32 * 1024 * 1024;

    /// A running server, with what the tests use.
    struct Served {
        address: SocketAddr,
        lifecycle: Lifecycle,
        /// Receives "begun" when a request to `/hangs` has begun, and "dropped" when it was dropped.
        events: mpsc::UnboundedReceiver<&'static str>,
        serving: tokio::task::JoinHandle<()>,
    }

    /// Sends "dropped" when it is dropped.
    struct DropNotice(mpsc::UnboundedSender<&'static str>);

    impl Drop for DropNotice {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }

    fn served(kind: ListenerKind, max: usize) -> Served {
        served_with(kind, max, None)
    }

    fn served_with(kind: ListenerKind, max: usize, tls: Option<ServerTls>) -> Served {
        let (sender, events) = mpsc::unbounded_channel();
        let flood_sender = sender.clone();
        let hangs = async move || -> &'static str {
            let _notice = DropNotice(sender.clone());
            let _ = sender.send("begun");
            std::future::pending().await
        };
        let floods = async move || Body::new(Flood { _notice: DropNotice(flood_sender.clone()) });
        let refuses = async |request: Request| {
            let (parts, body) = request.into_parts();
            drop(Upload::new(body, &parts.headers, 1, Clock));
            http::StatusCode::PAYLOAD_TOO_LARGE
        };
        let router = axum::Router::new()
            .route("/works", get(async || "works"))
            .route("/hangs", get(hangs))
            .route("/refuses", post(refuses))
            .route("/panics", get(async || Body::new(Endless { panics: true })))
            .route("/trickles", get(async || Body::new(Endless { panics: false })))
            .route("/large", get(async || vec![b' '; LARGE]))
            .route("/floods", get(floods));
        let handler = RequestHandler::new(router, Clock, Arc::new(Rng::seeded(1)));
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap().reachable().unwrap();
        let lifecycle = Lifecycle::new(Clock);
        let limits = Arc::default();
        let server =
            HttpServer { handler, lifecycle: lifecycle.clone(), clock: Clock, kind, tls, half_close: false, limits };
        let accepting =
            AcceptLoop { slots: Arc::new(Semaphore::new(max)), ..AcceptLoop::new(Workers::current(), server) };
        let serving = tokio::spawn(accepting.run(listener, 0));
        Served { address, lifecycle, events, serving }
    }

    /// A body that sends nothing and never ends, or panics.
    struct Endless {
        panics: bool,
    }

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            assert!(!self.panics, "on purpose");
            Poll::Pending
        }
    }

    /// A body that always has more to send.
    struct Flood {
        _notice: DropNotice,
    }

    impl http_body::Body for Flood {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
        }
    }

    async fn connect(served: &Served) -> TcpStream {
        TcpStream::connect(served.address).await.unwrap()
    }

    /// What is received until one answer of `/works` is complete.
    async fn read_answer(socket: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"works") {
            assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        String::from_utf8(read).unwrap()
    }

    /// What is received until the server closes, and after how many seconds it does.
    async fn read_to_end(socket: &mut TcpStream) -> (String, u64) {
        let start = Clock.now();
        let mut read = String::new();
        socket.read_to_string(&mut read).await.unwrap();
        (read, (Clock.now() - start).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_head_is_dropped_after_ten_seconds() {
        let served = served(ListenerKind::Public, 10);
        for sent in [&b""[..], b"GET /works HT", b"PRI * HTTP/2.0\r\n"] {
            let mut socket = connect(&served).await;
            socket.write_all(sent).await.unwrap();
            assert_eq!(read_to_end(&mut socket).await, (String::new(), 10), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_sent_byte_by_byte_is_dropped_after_ten_seconds() {
        let served = served(ListenerKind::Public, 10);
        let (mut reading, mut writing) = connect(&served).await.into_split();
        tokio::spawn(async move {
            for byte in HEAD {
                if writing.write_all(&[*byte]).await.is_err() {
                    return;
                }
                Clock.sleep(Duration::from_secs(1)).await;
            }
        });
        let start = Clock.now();
        let mut read = Vec::new();
        // It may end with a reset, since the client goes on sending.
        let _ = reading.read_to_end(&mut read).await;
        assert_eq!((read, (Clock.now() - start).as_secs()), (Vec::new(), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_idle_longer_than_a_load_balancer_keeps_it() {
        let served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        for _ in 0..3 {
            socket.write_all(HEAD).await.unwrap();
            assert!(read_answer(&mut socket).await.starts_with("HTTP/1.1 200"));
            Clock.sleep(Duration::from_secs(74)).await;
        }
        let (rest, after) = read_to_end(&mut socket).await;
        assert_eq!((rest.as_str(), after), ("", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_http2_connection_is_closed_gracefully() {
        let served = served(ListenerKind::Public, 10);
        let (client, connection) = h2::client::handshake(connect(&served).await).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = http::Request::get("http://tierway/works").body(()).unwrap();
        let response = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), http::StatusCode::OK);
        drop(response);
        let start = Clock.now();
        connection.await.unwrap().expect("closed in good order");
        assert_eq!((Clock.now() - start).as_secs(), 75);
    }

    #[tokio::test]
    async fn a_panic_in_a_body_is_not_the_end_of_an_answer() {
        let served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /panics HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        let (read, _) = read_to_end(&mut socket).await;
        assert!(!read.ends_with("0\r\n\r\n"), "{read}");
        let mut other = connect(&served).await;
        other.write_all(HEAD).await.unwrap();
        read_answer(&mut other).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_response_may_be_silent_for_hours() {
        let served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /trickles HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(3 * 3600), read_to_end(&mut socket)).await;
        assert!(ended.is_err(), "{ended:?}");
    }

    #[tokio::test]
    async fn a_request_is_dropped_when_its_client_disconnects() {
        let mut served = served(ListenerKind::Public, 10);
        for half in [false, true] {
            let mut socket = connect(&served).await;
            socket.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
            assert_eq!(served.events.recv().await, Some("begun"));
            // Closing the sending side alone counts as disconnecting.
            socket.shutdown().await.unwrap();
            let kept = half.then_some(socket);
            assert_eq!(served.events.recv().await, Some("dropped"), "half: {half}");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn a_client_reads_the_refusal_of_a_body_it_is_still_sending() {
        let served = served(ListenerKind::Public, 10);
        let megabytes = 8 * 1024 * 1024;
        let mut socket = connect(&served).await;
        let head = format!(
            "POST /refuses HTTP/1.1\r\nhost: tierway\r\ncontent-length: {megabytes}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![b' '; megabytes]).await.expect("the body is accepted");
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.starts_with("HTTP/1.1 413"), "{read}");
    }

    #[tokio::test]
    async fn a_client_that_expects_100_continue_reads_the_refusal_at_once() {
        let served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        let head = b"POST /refuses HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.starts_with("HTTP/1.1 413"), "{read}");
    }

    #[tokio::test]
    async fn a_connection_waits_for_one_that_is_busy() {
        let mut served = served(ListenerKind::Public, 1);
        let mut first = connect(&served).await;
        first.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        assert_eq!(served.events.recv().await, Some("begun"));
        let mut second = connect(&served).await;
        second.write_all(HEAD).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), second.readable()).await;
        assert!(early.is_err(), "served beside the first");
        drop(first);
        read_answer(&mut second).await;
    }

    #[tokio::test]
    async fn idle_connections_give_way_to_others() {
        let pair = TlsTestPair::new();
        for tls in [None, Some(pair.tls.clone())] {
            let is_plain = tls.is_none();
            let served = served_with(ListenerKind::Public, 2, tls);
            // Connected, within a head, and (where that is no handshake) between requests.
            let (mut silent, mut sending) = (connect(&served).await, connect(&served).await);
            sending.write_all(b"GET /wor").await.unwrap();
            let mut open = Vec::new();
            for _ in 0..3 {
                let mut next = connect(&served).await;
                if is_plain {
                    next.write_all(HEAD).await.unwrap();
                    assert!(read_answer(&mut next).await.starts_with("HTTP/1.1 200"));
                }
                open.push(next);
            }
            if is_plain {
                assert_eq!(read_to_end(&mut silent).await.0, "");
                assert_eq!(read_to_end(&mut sending).await.0, "");
            } else {
                let ended = silent.read(&mut [0; 1]).await;
                assert!(ended.is_err() || ended.is_ok_and(|read| read == 0), "the handshake gave way");
            }
        }
    }

    #[tokio::test]
    async fn a_shutdown_closes_idle_connections_and_refuses_new_ones() {
        let served = served(ListenerKind::Public, 10);
        let mut idle = connect(&served).await;
        idle.write_all(HEAD).await.unwrap();
        read_answer(&mut idle).await;
        served.lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await;
        assert_eq!(read_to_end(&mut idle).await.0, "");
        served.serving.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_open_requests_only_so_long() {
        let mut served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        assert_eq!(served.events.recv().await, Some("begun"));
        let start = Clock.now();
        served.lifecycle.shut_down(Duration::from_secs(5), Duration::from_secs(30)).await;
        served.serving.await.unwrap();
        assert_eq!(served.events.recv().await, Some("dropped"));
        // Five not ready, thirty to drain, six for error events, one to close gracefully.
        assert_eq!((Clock.now() - start).as_secs(), 42);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_until_an_answer_was_sent() {
        let served = served(ListenerKind::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /large HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        // The answer's body has ended; the rest of its bytes wait for the client to read.
        socket.readable().await.unwrap();
        let lifecycle = served.lifecycle.clone();
        let shutdown = tokio::spawn(async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await });
        Clock.sleep(Duration::from_secs(10)).await;
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.len() > LARGE, "{} bytes", read.len());
        shutdown.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_operators_address_is_served_while_the_gateway_drains() {
        let served = served(ListenerKind::Ops, 10);
        let request = served.lifecycle.open_request();
        let shutdown = tokio::spawn({
            let lifecycle = served.lifecycle.clone();
            async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await }
        });
        served.lifecycle.reached(LifecyclePhase::Draining).await;
        let mut socket = connect(&served).await;
        socket.write_all(HEAD).await.unwrap();
        assert!(read_answer(&mut socket).await.starts_with("HTTP/1.1 200"));
        drop(request);
        shutdown.await.unwrap();
        served.serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_drains_the_next_answer_on_a_connection_is_its_last() {
        for succeeded in [false, true] {
            let served = served(ListenerKind::Public, 10);
            let [mut used, mut unused, mut late] =
                [connect(&served).await, connect(&served).await, connect(&served).await];
            used.write_all(HEAD).await.unwrap();
            assert!(!read_answer(&mut used).await.contains("connection: close"));
            // Both are accepted once a third is served.
            late.write_all(HEAD).await.unwrap();
            read_answer(&mut late).await;
            let (lifecycle, drain) = (served.lifecycle.clone(), Duration::from_secs(600));
            let ending = tokio::spawn(async move {
                if succeeded {
                    lifecycle.be_succeeded(drain).await
                } else {
                    lifecycle.shut_down(Duration::ZERO, drain).await
                }
            });
            served.lifecycle.reached(LifecyclePhase::Draining).await;
            let start = Clock.now();
            for socket in [&mut used, &mut unused] {
                Clock.sleep(Duration::from_millis(400)).await;
                socket.write_all(HEAD).await.unwrap();
                let (read, _) = read_to_end(socket).await;
                assert!(read.starts_with("HTTP/1.1 200") && read.contains("connection: close"), "{read}");
            }
            assert_eq!(read_to_end(&mut late).await.0, "");
            assert_eq!((Clock.now() - start).as_secs(), if succeeded { 5 } else { 1 });
            ending.await.unwrap();
            served.serving.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_accepts_from_the_operators_address_as_well() {
        let served = served(ListenerKind::Ops, 10);
        let mut kept = connect(&served).await;
        kept.write_all(HEAD).await.unwrap();
        read_answer(&mut kept).await;
        let request = served.lifecycle.open_request();
        let lifecycle = served.lifecycle.clone();
        let ending = tokio::spawn(async move { lifecycle.be_succeeded(Duration::from_secs(600)).await });
        served.lifecycle.reached(LifecyclePhase::Draining).await;
        kept.write_all(HEAD).await.unwrap();
        assert!(read_to_end(&mut kept).await.0.contains("connection: close"));
        let refused = async { while TcpStream::connect(served.address).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(600), refused).await.expect("it does not accept any more");
        drop(request);
        ending.await.unwrap();
    }

    #[test]
    fn operators_have_few_connections_and_clients_as_many_as_configured() {
        assert_eq!(max_connections(ListenerKind::Public, Some(100_000)), 100_000);
        assert_eq!(max_connections(ListenerKind::Ops, Some(100_000)), OPS_CONNECTIONS);
        assert!((1..=MOST_CONNECTIONS).contains(&max_connections(ListenerKind::Public, None)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_stream_whose_window_stays_closed_is_dropped() {
        let mut served = served(ListenerKind::Public, 9);
        let (streams, connection) = h2::client::Builder::new()
            .initial_window_size(0)
            .handshake::<_, Bytes>(connect(&served).await)
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut streams = streams.ready().await.unwrap();
        let ask = |path: &str| http::Request::get(format!("http://tierway{path}")).body(()).unwrap();
        let (answer, _) = streams.send_request(ask("/floods"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let start = Clock.now();
        let dropped = tokio::time::timeout(Duration::from_secs(600), served.events.recv()).await;
        assert_eq!(dropped, Ok(Some("dropped")));
        assert!(Clock.now() - start >= UNREAD_TIMEOUT);
        // Other streams on the connection go on; this one ends as broken off.
        let (answer, _) = streams.send_request(ask("/works"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), http::StatusCode::OK);
        body.flow_control().release_capacity(0).unwrap();
        drop(body);
    }
}
