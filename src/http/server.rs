//! Connections: accepting them, speaking HTTP/1.1 or HTTP/2 on them, letting them go.
//!
//! Our own loop, because the framework's has no limit on connections or on how long a head may take,
//! and waits for ever on an open stream at shutdown. It must never spin, and never let one client's
//! slowness cost another.
//!
//! Start reading at [`serve`].

use super::connection::{Connection, IdleLimit, Watched};
use super::layers::EntryPoint;
use super::lifecycle::{Lifecycle, Phase};
use super::response_body::ResponseBody;
use super::tls::{Socket, Tls};
use crate::clock::Clock;
use axum::body::Body;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Connections the system may hold for us before we accept them.
const BACKLOG: u32 = 1024;
/// How long accepting rests after it failed: out of descriptors, the next one fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors a process is taken to have where the system does not say.
const USUAL_DESCRIPTORS: usize = 8192;
/// How long a connection that idled too long may take to close with good manners.
const GOODBYE: Duration = Duration::from_secs(1);
/// An operators' address is asked by few.
const OPS_CONNECTIONS: usize = 256;
/// The largest head and the largest buffer of an HTTP/1.1 connection.
const HTTP1_BUFFER: usize = 64 * 1024;
/// Requests at once on an HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
/// The largest head of an HTTP/2 request.
const HTTP2_HEAD: u32 = 32 * 1024;
/// Request bytes an HTTP/2 stream, and all of a connection's, may send ahead of being read.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams a client may reset before we have looked at them, and ones we reset for its errors,
/// before the connection is closed: the reset flood of 2023 and its kin.
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_LOCAL_RESETS: usize = 128;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// With one byte, a stream takes the next buffer only when the one before it has gone to the
/// connection: [`ending`](super::ending) builds on it, and no stream hoards what its client is slow to take.
const MAX_SEND_BUFFER: usize = 1;

/// Who a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Clients: it closes first.
    Public,
    /// Operators: it stays open while the public one drains.
    Ops,
}

impl Door {
    fn closes_at(self) -> Phase {
        match self {
            Self::Public => Phase::Draining,
            Self::Ops => Phase::Closed,
        }
    }
}

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}. {}", advice(.source))]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Takes `address`; to be called inside the runtime. Port 0 lets the system choose one.
///
/// # Errors
/// [`BindError`], which says what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait until the connections of the last run are forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| BindError { address, source })
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "Another process listens there: stop it, or set another address in [server].",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need a privilege: set a higher one in [server].",
        io::ErrorKind::AddrNotAvailable => "This machine has no such address: set one it has in [server].",
        _ => "Set another address in [server].",
    }
}

/// How connections to one address are served.
#[derive(Clone)]
pub struct Service {
    /// What answers.
    pub entry: EntryPoint,
    /// Whether we are open.
    pub lifecycle: Lifecycle,
    /// The one source of time.
    pub clock: Clock,
    /// Who connects.
    pub door: Door,
    /// How they begin; `None`: with plain HTTP.
    pub tls: Option<Tls>,
}

/// Serves on `listener` until the lifecycle says otherwise, then until the last connection is gone or
/// everything is closed.
pub async fn serve(listener: TcpListener, service: Service) {
    let places = Arc::new(Semaphore::new(most_connections(service.door)));
    serve_within(places, listener, service).await;
}

async fn serve_within(places: Arc<Semaphore>, listener: TcpListener, service: Service) {
    let Service { lifecycle, clock, door, .. } = &service;
    let (clock, door) = (*clock, *door);
    let mut connections = JoinSet::new();
    let mut last_call = pin!(lifecycle.reached(door.closes_at()));
    loop {
        tokio::select! {
            biased;
            () = &mut last_call => break,
            Some(ended) = connections.join_next() => note(ended),
            (socket, place) = accept(&listener, &places, clock) => {
                let present = (door == Door::Public).then(|| lifecycle.connection());
                let service = service.clone();
                connections.spawn(async move {
                    service.serve_connection(socket).await;
                    drop((place, present));
                });
            }
        }
    }
    drop(listener);
    let all_gone = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    tokio::select! {
        () = all_gone => {}
        () = lifecycle.reached(Phase::Closed) => {}
    }
    connections.shutdown().await;
}

/// The next connection, once there is a place for it. Those without one wait in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>, clock: Clock) -> (TcpStream, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return (socket, place),
            // That one client gave up while it waited.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections at the moment");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A panic in a body ends its connection, which no client can take for an end in good order.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a bug of ours ended a connection");
    }
}

/// Half of what the process may open: each request may need as many again to reach a provider.
fn most_connections(door: Door) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let half = open_files(&limits).unwrap_or(USUAL_DESCRIPTORS) / 2;
    let most = half.clamp(1, Semaphore::MAX_PERMITS);
    if door == Door::Ops { most.min(OPS_CONNECTIONS) } else { most }
}

/// The soft limit on open files in the words of Linux; `None` where there is none or no such line.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Service {
    /// One connection, from its first byte to its last.
    async fn serve_connection(&self, socket: TcpStream) {
        // Frames are small and each one counts. A socket that cannot do this is still served.
        let _ = socket.set_nodelay(true);
        let connection = Arc::new(Connection::new(self.clock));
        let socket = match &self.tls {
            None => Socket::Plain(socket),
            // Boxed, so that a plain connection has no room for it.
            Some(tls) => match Box::pin(self.tls_handshake(tls, socket, &connection)).await {
                Some(socket) => socket,
                None => return,
            },
        };
        let io = TokioIo::new(Watched::new(socket, connection.clone()));
        let builder = protocol_builder();
        let mut conversation =
            pin!(builder.serve_connection(io, service_fn(|request| self.handle(request, &connection))));
        let mut closing = pin!(self.lifecycle.reached(self.door.closes_at()));
        let mut leaving = false;
        let mut look_again = self.clock.now();
        loop {
            tokio::select! {
                // Errors are the client's: it left, or it does not speak HTTP.
                _ = conversation.as_mut() => return,
                () = closing.as_mut(), if !leaving => {
                    leaving = true;
                    conversation.as_mut().graceful_shutdown();
                }
                () = self.clock.sleep_until(look_again) => {
                    let now = self.clock.now();
                    drop(connection.let_go(now));
                    match connection.patience(now) {
                        IdleLimit::Until(at) => look_again = at,
                        IdleLimit::Spent if !leaving => {
                            leaving = true;
                            look_again = now + GOODBYE;
                            conversation.as_mut().graceful_shutdown();
                        }
                        IdleLimit::Spent | IdleLimit::Lost => return,
                    }
                }
            }
        }
    }

    /// The handshake and the first head together may take as long as a head alone. When we leave,
    /// nobody who has not asked for anything yet is waited for.
    async fn tls_handshake(&self, tls: &Tls, socket: TcpStream, connection: &Connection) -> Option<Socket> {
        let IdleLimit::Until(end) = connection.patience(self.clock.now()) else { return None };
        tokio::select! {
            greeted = tls.tls_handshake(socket) => greeted,
            () = self.lifecycle.reached(self.door.closes_at()) => None,
            () = self.clock.sleep_until(end) => None,
        }
    }

    /// One request to the routes; it is open until its response's body has ended.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, std::convert::Infallible>> + Send + 'static {
        let guards = (connection.request(request.version() == Version::HTTP_2), self.lifecycle.request());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connection.clone());
        let (entry, connection, clock) = (self.entry.clone(), connection.clone(), self.clock);
        async move {
            let response = entry.answer(request).await;
            Ok(response.map(|body| ResponseBody::new(body, guards, &connection, clock)))
        }
    }
}

/// How we speak HTTP. Headers of a slow client are timed by [`Connection`], which covers what hyper's own
/// timer does not: the time before the protocol is known, and HTTP/2.
fn protocol_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that closes its side has left: what it asked for is cancelled.
        .half_close(false)
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
    use crate::http::connection;
    use crate::http::tls::testing::Ends;
    use crate::http::upload::{Held, Upload};
    use crate::random::Rng;
    use crate::relay::BodyLimits;
    use axum::extract::Request;
    use axum::routing::{get, post};
    use bytes::Bytes;
    use http_body::Frame;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    const HEAD: &[u8] = b"GET /works HTTP/1.1\r\nhost: tierway\r\n\r\n";

    /// More than the system holds for a connection.
    const LARGE: usize = 32 * 1024 * 1024;

    /// A served router, with what tests need to reach.
    struct Served {
        address: SocketAddr,
        lifecycle: Lifecycle,
        /// Tells when a request to `/hangs` has begun, and when it was dropped.
        send: mpsc::UnboundedReceiver<&'static str>,
        serving: tokio::task::JoinHandle<()>,
    }

    /// Says so when it is dropped.
    struct Farewell(mpsc::UnboundedSender<&'static str>);

    impl Drop for Farewell {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }

    fn served(door: Door, most: usize) -> Served {
        served_with(door, most, None)
    }

    fn served_with(door: Door, most: usize, tls: Option<Tls>) -> Served {
        let (tell, send) = mpsc::unbounded_channel();
        let tell_floods = tell.clone();
        let hangs = async move || -> &'static str {
            let _farewell = Farewell(tell.clone());
            let _ = tell.send("begun");
            std::future::pending().await
        };
        let tell = tell_floods;
        let floods = async move || Body::new(Flood { _farewell: Farewell(tell.clone()) });
        let refuses = async |request: Request| {
            let (parts, body) = request.into_parts();
            let body_limits = BodyLimits { max_body: 1, max_in_flight_bytes: 1 };
            drop(Upload::new(body, &parts.headers, body_limits, Arc::<Held>::default(), Clock));
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
        let entry = EntryPoint::new(router, Clock, Arc::new(Rng::seeded(1)));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new(Clock);
        let places = Arc::new(Semaphore::new(most));
        let service = Service { entry, lifecycle: lifecycle.clone(), clock: Clock, door, tls };
        let serving = tokio::spawn(serve_within(places, listener, service));
        Served { address, lifecycle, send, serving }
    }

    /// A body that never says anything and never ends, or panics.
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

    /// A body that always has more to say.
    struct Flood {
        _farewell: Farewell,
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

    /// What comes until one answer of `/works` is whole.
    async fn read_answer(socket: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"works") {
            assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        String::from_utf8(read).unwrap()
    }

    /// What comes until the server closes, and when it does.
    async fn read_to_end(socket: &mut TcpStream) -> (String, u64) {
        let start = Clock.now();
        let mut read = String::new();
        socket.read_to_string(&mut read).await.unwrap();
        (read, (Clock.now() - start).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_head_is_dropped_after_ten_seconds() {
        let served = served(Door::Public, 10);
        for said in [&b""[..], b"GET /works HT", b"PRI * HTTP/2.0\r\n"] {
            let mut socket = connect(&served).await;
            socket.write_all(said).await.unwrap();
            assert_eq!(read_to_end(&mut socket).await, (String::new(), 10), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickling_head_is_dropped_all_the_same() {
        let served = served(Door::Public, 10);
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
        // It may be told by a reset, since it goes on sending.
        let _ = reading.read_to_end(&mut read).await;
        assert_eq!((read, (Clock.now() - start).as_secs()), (Vec::new(), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_idle_longer_than_a_load_balancer_keeps_it() {
        let served = served(Door::Public, 10);
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
    async fn an_idle_http2_connection_is_reported_to_go() {
        let served = served(Door::Public, 10);
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
    async fn a_panic_in_a_body_is_no_end() {
        let served = served(Door::Public, 10);
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
        let served = served(Door::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /trickles HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(3 * 3600), read_to_end(&mut socket)).await;
        assert!(ended.is_err(), "{ended:?}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_takes_its_request_with_it() {
        let mut served = served(Door::Public, 10);
        for half in [false, true] {
            let mut socket = connect(&served).await;
            socket.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
            assert_eq!(served.send.recv().await, Some("begun"));
            // Closing the sending side alone is leaving too.
            socket.shutdown().await.unwrap();
            let kept = half.then_some(socket);
            assert_eq!(served.send.recv().await, Some("dropped"), "half: {half}");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn a_client_reads_the_refusal_of_a_body_it_is_still_sending() {
        let served = served(Door::Public, 10);
        let megabytes = 8 * 1024 * 1024;
        let mut socket = connect(&served).await;
        let head = format!(
            "POST /refuses HTTP/1.1\r\nhost: tierway\r\ncontent-length: {megabytes}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![b' '; megabytes]).await.expect("the body is taken");
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.starts_with("HTTP/1.1 413"), "{read}");
    }

    #[tokio::test]
    async fn a_client_that_asks_first_is_reported_at_once() {
        let served = served(Door::Public, 10);
        let mut socket = connect(&served).await;
        let head = b"POST /refuses HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.starts_with("HTTP/1.1 413"), "{read}");
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_there_is_room() {
        let served = served(Door::Public, 1);
        let mut first = connect(&served).await;
        first.write_all(HEAD).await.unwrap();
        read_answer(&mut first).await;
        let mut second = connect(&served).await;
        second.write_all(HEAD).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), second.readable()).await;
        assert!(early.is_err(), "served beside the first");
        drop(first);
        read_answer(&mut second).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_takes_a_place_and_gives_it_back() {
        let ends = Ends::new();
        let served = served_with(Door::Public, 1, Some(ends.tls.clone()));
        let _silent = connect(&served).await;
        let start = Clock.now();
        let mut second = ends.connect(served.address).await;
        assert_eq!((Clock.now() - start).as_secs(), 10, "it waited until the silent one was let go");
        second.write_all(HEAD).await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"works") {
            assert_ne!(second.read_buf(&mut read).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn leaving_closes_idle_connections_and_refuses_new_ones() {
        let served = served(Door::Public, 10);
        let mut idle = connect(&served).await;
        idle.write_all(HEAD).await.unwrap();
        read_answer(&mut idle).await;
        served.lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await;
        assert_eq!(read_to_end(&mut idle).await.0, "");
        served.serving.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn leaving_waits_for_open_requests_and_then_no_longer() {
        let mut served = served(Door::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        assert_eq!(served.send.recv().await, Some("begun"));
        let start = Clock.now();
        served.lifecycle.shut_down(Duration::from_secs(5), Duration::from_secs(30)).await;
        served.serving.await.unwrap();
        assert_eq!(served.send.recv().await, Some("dropped"));
        // Five to be seen leaving, thirty to finish, six for last words, one to say goodbye.
        assert_eq!((Clock.now() - start).as_secs(), 42);
    }

    #[tokio::test(start_paused = true)]
    async fn leaving_waits_until_an_answer_has_left() {
        let served = served(Door::Public, 10);
        let mut socket = connect(&served).await;
        socket.write_all(b"GET /large HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        // The answer is on its way, and its body at an end: the rest waits for the client.
        socket.readable().await.unwrap();
        let lifecycle = served.lifecycle.clone();
        let leaving = tokio::spawn(async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await });
        Clock.sleep(Duration::from_secs(10)).await;
        let (read, _) = read_to_end(&mut socket).await;
        assert!(read.len() > LARGE, "{} bytes", read.len());
        leaving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn operators_see_the_gateway_leave() {
        let served = served(Door::Ops, 10);
        let request = served.lifecycle.request();
        let leaving = tokio::spawn({
            let lifecycle = served.lifecycle.clone();
            async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await }
        });
        served.lifecycle.reached(Phase::Draining).await;
        let mut socket = connect(&served).await;
        socket.write_all(HEAD).await.unwrap();
        assert!(read_answer(&mut socket).await.starts_with("HTTP/1.1 200"));
        drop(request);
        leaving.await.unwrap();
        served.serving.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let said = bind(address).unwrap_err().to_string();
        assert!(said.contains(&address.to_string()) && said.contains("Another process listens there"), "{said}");
    }

    #[test]
    fn the_limit_on_open_files_is_read_from_the_systems_words() {
        let check = |limits: &str, expected: Option<usize>| assert_eq!(open_files(limits), expected, "{limits}");
        let linux = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             62987                62987                processes \n\
                     Max open files            1024                 524288               files     \n";
        check(linux, Some(1024));
        check("Max open files            unlimited            unlimited            files", None);
        check("", None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_stream_whose_window_stays_shut_is_let_go() {
        let mut served = served(Door::Public, 9);
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
        let dropped = tokio::time::timeout(Duration::from_secs(600), served.send.recv()).await;
        assert_eq!(dropped, Ok(Some("dropped")));
        assert!(Clock.now() - start >= connection::UNTAKEN_TIMEOUT);
        // The others on the connection have nothing to do with it; the stream itself ends as broken off.
        let (answer, _) = streams.send_request(ask("/works"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), http::StatusCode::OK);
        body.flow_control().release_capacity(0).unwrap();
        drop(body);
    }
}
