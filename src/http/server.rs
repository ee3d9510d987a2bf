//! Connections: accepting them, speaking HTTP/1.1 or HTTP/2 on them, letting them go.
//!
//! Our own loop, because the framework's has no limit on connections or on how long a head may take,
//! and waits for ever on an open stream at shutdown. It must never spin, and never let one client's
//! slowness cost another.
//!
//! Start reading at [`serve`].

use super::lifecycle::{Lifecycle, Phase, Present};
use super::wire::{Open, Patience, Watched, Wire};
use crate::clock::Clock;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::ServiceExt;

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

/// Serves `router` on `listener` until `lifecycle` says otherwise, then until the last connection is
/// gone or everything is closed.
pub async fn serve(listener: TcpListener, router: Router, lifecycle: Lifecycle, clock: Clock, door: Door) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(most_connections(door)));
    let mut last_call = pin!(lifecycle.reached(match door {
        Door::Public => Phase::Draining,
        Door::Ops => Phase::Closed,
    }));
    loop {
        tokio::select! {
            biased;
            () = &mut last_call => break,
            Some(ended) = connections.join_next() => note(ended),
            (socket, place) = accept(&listener, &places, clock) => {
                let present = (door == Door::Public).then(|| lifecycle.connection());
                let connection = Connection { router: router.clone(), lifecycle: lifecycle.clone(), clock };
                connections.spawn(async move {
                    connection.converse(socket).await;
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

/// What one connection's task needs.
struct Connection {
    router: Router,
    lifecycle: Lifecycle,
    clock: Clock,
}

impl Connection {
    async fn converse(&self, socket: TcpStream) {
        // Frames are small and each one counts. A socket that cannot do this is still served.
        let _ = socket.set_nodelay(true);
        let wire = Arc::new(Wire::new(self.clock));
        let io = TokioIo::new(Watched::new(socket, wire.clone()));
        let builder = speaker();
        let mut conversation = pin!(builder.serve_connection(io, service_fn(|request| self.hand_on(request, &wire))));
        let mut draining = pin!(self.lifecycle.reached(Phase::Draining));
        let mut leaving = false;
        let mut look_again = self.clock.now();
        loop {
            tokio::select! {
                // Errors are the client's: it left, or it does not speak HTTP.
                _ = conversation.as_mut() => return,
                () = draining.as_mut(), if !leaving => {
                    leaving = true;
                    conversation.as_mut().graceful_shutdown();
                }
                () = self.clock.sleep_until(look_again) => match wire.patience(self.clock.now()) {
                    Patience::Until(at) => look_again = at,
                    Patience::Spent if !leaving => {
                        leaving = true;
                        look_again = self.clock.now() + GOODBYE;
                        conversation.as_mut().graceful_shutdown();
                    }
                    Patience::Spent | Patience::Lost => return,
                },
            }
        }
    }

    /// One request to the routes; it is open until its response's body has ended.
    fn hand_on(
        &self,
        request: Request<Incoming>,
        wire: &Arc<Wire>,
    ) -> impl Future<Output = Result<Response<Counted>, std::convert::Infallible>> + Send + 'static {
        let guards = (wire.request(request.version() == Version::HTTP_2), self.lifecycle.request());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(wire.clone());
        let router = self.router.clone();
        async move {
            let response = router.oneshot(request).await?;
            Ok(response.map(|body| Counted { body, _guards: guards }))
        }
    }
}

/// How we speak HTTP. Headers of a slow client are timed by [`Wire`], which covers what hyper's own
/// timer does not: the time before the protocol is known, and HTTP/2.
fn speaker() -> Builder<TokioExecutor> {
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

/// A response's body, by which its request is counted as open.
struct Counted {
    body: Body,
    _guards: (Open, Present),
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
