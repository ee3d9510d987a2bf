//! An answer's body on its way to the client, and how a broken stream ends.
//!
//! A truncated answer must never look complete: after the last good frame come an error event in the client's
//! dialect and an aborted transport, since some clients notice only the one and some only the other. The
//! difficulty is that hyper drops what it received in the same turn as a body's error, and that an HTTP/2 reset
//! discards what its stream has queued. So the body waits until neither can lose the event, and only then fails.
//!
//! Start reading at [`OutgoingBody`].

use super::conn::connection::Connection;
use super::error::ApiError;
use crate::clock::Clock;
use crate::protocol::Dialect;
use crate::protocol::sse::{BLANK_LINE, KEEP_ALIVE_COMMENT, ends_frame};
use crate::relay::{ReplyBody, StreamFailure};
use crate::telemetry::InFlight;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How long a stream may be silent before a comment is sent: proxies on the way give up after 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client that does not read may delay the end of a broken stream.
const ERROR_EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Fires when streams must end, whatever they still have to say.
pub type StopFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where an answer's bytes come from.
pub trait AnswerSource: Send + Unpin + 'static {
    /// The next bytes: whole frames on a stream. `None` is the end of a complete answer.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamFailure>>>;
    /// Ends it from our side.
    fn cut(&mut self) -> StreamFailure;
    /// All its bytes, where known.
    fn exact_len(&self) -> Option<u64>;
    /// The number of the event that follows a break, where events are numbered.
    fn next_number(&self) -> u64 {
        0
    }
}

impl AnswerSource for ReplyBody {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamFailure>>> {
        self.poll_frames(cx)
    }

    fn cut(&mut self) -> StreamFailure {
        self.cut()
    }

    fn exact_len(&self) -> Option<u64> {
        self.exact_len()
    }

    fn next_number(&self) -> u64 {
        self.next_number()
    }
}

/// The transport is to be aborted: HTTP/1.1 closes without the last chunk, HTTP/2 resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct AbortError;

/// An answer's body. Dropping it before its end drops its source, which takes that for a client that left.
pub struct OutgoingBody<S> {
    source: S,
    stage: BodyStage,
    /// `None` for a whole answer.
    streaming: Option<Streaming>,
    /// Bytes a whole answer has still to send, where known.
    remaining: Option<u64>,
    /// The request counts as in flight until its body ends.
    _in_flight: InFlight,
}

enum BodyStage {
    Flowing,
    /// The error event was returned.
    Leaving(StreamEnd),
    Ended,
}

/// Waits until an abort cannot lose the error event.
enum StreamEnd {
    /// HTTP/1.1 and its body share a task: what was returned before `since` was read is sent once
    /// there is one flush more than that.
    Flushed { connection: Arc<Connection>, since: Option<u64>, timeout: Pin<Box<Sleep>> },
    /// An HTTP/2 stream takes one buffer at a time (`server::MAX_SEND_BUFFER`): being asked for more
    /// after an empty line says that all of the event before it has left the stream's queue for the
    /// connection's, which a reset does not touch.
    Queued { blank_due: bool },
}

impl StreamEnd {
    fn on(connection: Arc<Connection>) -> Self {
        if connection.is_http2() {
            return Self::Queued { blank_due: true };
        }
        Self::Flushed { connection, since: None, timeout: Box::pin(tokio::time::sleep(ERROR_EVENT_TIMEOUT)) }
    }

    /// Something more to send; `None` when nothing can be lost any more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Queued { blank_due } => {
                Poll::Ready(std::mem::take(blank_due).then_some(Bytes::from_static(BLANK_LINE)))
            }
            Self::Flushed { connection, since, timeout } => {
                let since = *since.get_or_insert_with(|| connection.flushes());
                if connection.poll_flushed(since, cx).is_pending() {
                    ready!(timeout.as_mut().poll(cx));
                }
                Poll::Ready(None)
            }
        }
    }
}

/// What happens while nothing comes from the source.
enum StreamEvent {
    /// The stream is to be ended.
    Stop,
    /// It may have been silent for [`KEEP_ALIVE`].
    Silence,
}

struct Streaming {
    clock: Clock,
    dialect: Dialect,
    /// `None` where the connection is not watched: then the error event cannot be waited for.
    connection: Option<Arc<Connection>>,
    /// What may happen while nothing comes: polled when it happens, not at each frame (`make instructions`: 400 of it).
    events: FuturesUnordered<Pin<Box<dyn Future<Output = StreamEvent> + Send>>>,
    /// When the last byte was returned. The timer is moved only when it fires, not at each frame.
    last_sent: Instant,
    /// Whether what was returned ends with a whole frame: a comment may follow.
    between_frames: bool,
}

impl<S: AnswerSource> OutgoingBody<S> {
    /// A whole answer.
    pub fn whole(source: S, in_flight: InFlight) -> Self {
        let remaining = source.exact_len();
        Self { source, stage: BodyStage::Flowing, streaming: None, remaining, _in_flight: in_flight }
    }

    /// A stream of events in `dialect`, going out on `connection`, to be ended early when `stop` fires.
    pub fn stream(
        source: S,
        in_flight: InFlight,
        connection: Option<Arc<Connection>>,
        stop: StopFuture,
        dialect: Dialect,
        clock: Clock,
    ) -> Self {
        let events = FuturesUnordered::<Pin<Box<dyn Future<Output = StreamEvent> + Send>>>::new();
        events.push(Box::pin(stop.map(|()| StreamEvent::Stop)));
        let mut streaming =
            Streaming { clock, dialect, connection, events, last_sent: clock.now(), between_frames: true };
        streaming.watch_silence();
        Self { source, stage: BodyStage::Flowing, streaming: Some(streaming), remaining: None, _in_flight: in_flight }
    }

    fn poll_flowing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AbortError>>> {
        match self.source.poll_frames(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.note(&bytes);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(self.break_off(broken))),
            Poll::Ready(None) => {
                self.stage = BodyStage::Ended;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(streaming) = &mut self.streaming else { return Poll::Pending };
                match ready!(streaming.poll_event(cx)) {
                    StreamEvent::Stop => {
                        let broken = self.source.cut();
                        Poll::Ready(Some(self.break_off(broken)))
                    }
                    StreamEvent::Silence => Poll::Ready(Some(Ok(Bytes::from_static(KEEP_ALIVE_COMMENT)))),
                }
            }
        }
    }

    fn note(&mut self, bytes: &Bytes) {
        if let Some(streaming) = &mut self.streaming {
            streaming.last_sent = streaming.clock.now();
            streaming.between_frames = ends_frame(bytes);
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
            if *remaining == 0 {
                self.stage = BodyStage::Ended;
            }
        }
    }

    /// The dialect's error event, for a stream whose end can be watched; the transport's abort otherwise.
    fn break_off(&mut self, broken: StreamFailure) -> Result<Bytes, AbortError> {
        let watched = self.streaming.as_ref().and_then(|streaming| Some((streaming.connection.clone()?, streaming)));
        let Some((connection, streaming)) = watched else {
            self.stage = BodyStage::Ended;
            return Err(AbortError);
        };
        let event = ApiError::broken(&broken).details().break_frame(streaming.dialect, self.source.next_number());
        self.stage = BodyStage::Leaving(StreamEnd::on(connection));
        Ok(event)
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AbortError>>> {
        let BodyStage::Leaving(end) = &mut self.stage else { return Poll::Ready(None) };
        let rest = ready!(end.poll_rest(cx));
        if rest.is_none() {
            self.stage = BodyStage::Ended;
        }
        Poll::Ready(Some(rest.ok_or(AbortError)))
    }
}

impl<S: AnswerSource> Body for OutgoingBody<S> {
    type Data = Bytes;
    type Error = AbortError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AbortError>>> {
        let next = match self.stage {
            BodyStage::Flowing => self.poll_flowing(cx),
            BodyStage::Leaving(_) => self.poll_leaving(cx),
            BodyStage::Ended => Poll::Ready(None),
        };
        next.map(|end| end.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, BodyStage::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Streaming {
    /// Ready when it is to stop, or when nothing was returned for [`KEEP_ALIVE`] and the last frame is whole.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<StreamEvent> {
        while let Some(event) = ready!(self.events.poll_next_unpin(cx)) {
            if matches!(event, StreamEvent::Stop) {
                return Poll::Ready(event);
            }
            let now = self.clock.now();
            let silent = now >= self.last_sent + KEEP_ALIVE;
            if silent {
                self.last_sent = now;
            }
            self.watch_silence();
            if silent && self.between_frames {
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }

    fn watch_silence(&mut self) {
        let timer = self.clock.sleep_until(self.last_sent + KEEP_ALIVE);
        self.events.push(Box::pin(timer.map(|()| StreamEvent::Silence)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn::lifecycle::Lifecycle;
    use crate::http::conn::listener::{ListenerKind, bind};
    use crate::http::conn::server::{HttpServer, serve};
    use crate::http::conn::tls::ServerTls;
    use crate::http::conn::tls::testing::TlsTestPair;
    use crate::http::request_handler::{RequestArrival, RequestHandler};
    use crate::random::Rng;
    use crate::telemetry::metrics::{BuildMetadata, Metrics};
    use axum::Router;
    use axum::extract::Request;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpStream;

    const FRAME: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n";

    enum Step {
        Frame(&'static str),
        Break(StreamFailure),
        Silence,
    }

    /// A source that does what its script says, then ends.
    struct Script {
        steps: VecDeque<Step>,
        exact_len: Option<u64>,
    }

    impl AnswerSource for Script {
        fn poll_frames(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamFailure>>> {
            match self.steps.front() {
                Some(Step::Silence) => return Poll::Pending,
                Some(Step::Frame(_) | Step::Break(_)) | None => {}
            }
            Poll::Ready(self.steps.pop_front().map(|step| match step {
                Step::Frame(text) => Ok(Bytes::from_static(text.as_bytes())),
                Step::Break(broken) => Err(broken),
                Step::Silence => unreachable!("returned above"),
            }))
        }

        fn cut(&mut self) -> StreamFailure {
            StreamFailure::ShuttingDown
        }

        fn exact_len(&self) -> Option<u64> {
            self.exact_len
        }
    }

    fn script(steps: impl IntoIterator<Item = Step>) -> Script {
        Script { steps: steps.into_iter().collect(), exact_len: None }
    }

    fn in_flight() -> InFlight {
        Metrics::new(BuildMetadata { version: "0", revision: None }, || 0).request_started()
    }

    fn stream(source: Script, connection: Option<Arc<Connection>>, stop: StopFuture) -> OutgoingBody<Script> {
        OutgoingBody::stream(source, in_flight(), connection, stop, Dialect::Chat, Clock)
    }

    fn never() -> StopFuture {
        Box::pin(std::future::pending())
    }

    async fn next(body: &mut OutgoingBody<Script>) -> Option<Result<String, AbortError>> {
        let frame = body.frame().await?;
        Some(frame.map(|frame| String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8")))
    }

    fn error_text(broken: StreamFailure) -> String {
        let event = ApiError::broken(&broken).details().break_frame(Dialect::Chat, 0);
        String::from_utf8(event.to_vec()).expect("UTF-8")
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_sends_a_comment_every_fifteen_seconds() {
        let start = Clock.now();
        let mut body = stream(script([Step::Frame(FRAME), Step::Silence]), None, never());
        assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME);
        for after in [15, 30, 45] {
            assert_eq!(next(&mut body).await.unwrap().unwrap(), ": keep-alive\n\n");
            assert_eq!((Clock.now() - start).as_secs(), after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_puts_the_comment_off() {
        let start = Clock.now();
        let mut body = stream(script([Step::Frame(FRAME), Step::Silence]), None, never());
        tokio::time::advance(Duration::from_secs(10)).await;
        next(&mut body).await.unwrap().unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert_eq!((Clock.now() - start).as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn no_comment_stands_inside_a_frame() {
        let mut body = stream(script([Step::Frame("data: {\"cho"), Step::Silence]), None, never());
        next(&mut body).await.unwrap().unwrap();
        let comment = tokio::time::timeout(10 * KEEP_ALIVE, next(&mut body)).await;
        assert!(comment.is_err(), "{comment:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_silent_stream_with_an_error() {
        let connection = Arc::new(Connection::new(Clock));
        let stop = Box::pin(Clock.sleep(Duration::from_secs(7)));
        let mut body = stream(script([Step::Silence]), Some(connection), stop);
        assert_eq!(next(&mut body).await.unwrap().unwrap(), error_text(StreamFailure::ShuttingDown));
        // Nobody flushes: the end is not put off for ever.
        assert!(next(&mut body).await.unwrap().is_err());
        assert!(next(&mut body).await.is_none());
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_whole_answer_knows_its_length_and_its_end() {
        let source = Script { exact_len: Some(5), ..script([Step::Frame("{\"a\""), Step::Frame("}")]) };
        let mut body = OutgoingBody::whole(source, in_flight());
        assert_eq!(body.size_hint().exact(), Some(5));
        next(&mut body).await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(1), false));
        next(&mut body).await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_whole_answer_that_breaks_is_aborted_without_an_event() {
        let mut body = OutgoingBody::whole(script([Step::Break(StreamFailure::Interrupted)]), in_flight());
        assert!(next(&mut body).await.unwrap().is_err());
    }

    /// A server whose `/breaks` breaks after a frame, `/ends` ends well and `/chats` says much.
    async fn served(tls: Option<ServerTls>) -> (SocketAddr, Lifecycle) {
        let answer = |steps: fn() -> Vec<Step>| {
            get(async move |request: Request| {
                let connection = RequestArrival::connection(request.extensions()).cloned();
                axum::body::Body::new(stream(script(steps()), connection, never()))
            })
        };
        let chatty = || {
            let words = std::iter::repeat_n((), 200).map(|()| Step::Frame(FRAME));
            words.chain([Step::Break(StreamFailure::OutOfTime)]).collect()
        };
        let router = Router::new()
            .route("/breaks", answer(|| vec![Step::Frame(FRAME), Step::Break(StreamFailure::Interrupted)]))
            .route("/ends", answer(|| vec![Step::Frame(FRAME)]))
            .route("/chats", answer(chatty));
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap().reachable().unwrap();
        let lifecycle = Lifecycle::new(Clock);
        let handler = RequestHandler::new(router, Clock, Arc::new(Rng::seeded(1)));
        let server = HttpServer {
            handler,
            lifecycle: lifecycle.clone(),
            clock: Clock,
            kind: ListenerKind::Public,
            tls,
            half_close: false,
            limits: Arc::default(),
        };
        tokio::spawn(serve(listener, server));
        (address, lifecycle)
    }

    /// The path that is asked for in this round, and how its answer breaks.
    fn break_of(round: usize) -> (&'static str, StreamFailure) {
        match round % 2 {
            0 => ("/breaks", StreamFailure::Interrupted),
            _ => ("/chats", StreamFailure::OutOfTime),
        }
    }

    async fn http1(address: SocketAddr, path: &str) -> String {
        let (read, end) = http1_on(TcpStream::connect(address).await.unwrap(), path).await;
        end.expect("closed, not reset");
        read
    }

    /// What came, and how it ended.
    async fn http1_on(mut io: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (String, std::io::Result<usize>) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: tierway\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let end = io.read_to_end(&mut read).await;
        (String::from_utf8(read).unwrap(), end)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn over_http1_the_error_always_arrives_and_the_end_never() {
        let (address, _lifecycle) = served(None).await;
        assert!(http1(address, "/ends").await.ends_with("0\r\n\r\n"));
        for round in 0..500 {
            let (path, broken) = break_of(round);
            let read = http1(address, path).await;
            let event = error_text(broken);
            assert!(read.contains(&event), "round {round}: {read}");
            assert!(!read.contains("\r\n0\r\n"), "round {round}: {read}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn over_tls_a_broken_answer_is_not_closed_in_good_order() {
        let ends = TlsTestPair::new();
        let (address, _lifecycle) = served(Some(ends.tls.clone())).await;
        let (read, end) = http1_on(ends.connect(address).await, "/ends").await;
        assert!(read.ends_with("0\r\n\r\n") && end.is_ok(), "{end:?}: {read}");
        for round in 0..200 {
            let (path, broken) = break_of(round);
            let (read, end) = http1_on(ends.connect(address).await, path).await;
            assert!(read.contains(&error_text(broken)), "round {round}: {read}");
            assert!(!read.contains("\r\n0\r\n"), "round {round}: {read}");
            // No close_notify: whoever reads to the end knows that it was not one.
            let kind = end.expect_err("a truncation").kind();
            assert_eq!(kind, std::io::ErrorKind::UnexpectedEof, "round {round}");
        }
    }

    /// What came on one HTTP/2 stream, and whether it was reset.
    async fn http2(client: h2::client::SendRequest<Bytes>, path: &'static str) -> (String, bool) {
        let mut client = client.ready().await.unwrap();
        let request = http::Request::get(format!("http://tierway{path}")).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut read = Vec::new();
        let reset = loop {
            match body.data().await {
                None => break false,
                Some(Err(error)) => break error.is_reset(),
                Some(Ok(data)) => {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    read.extend_from_slice(&data);
                }
            }
        };
        (String::from_utf8(read).unwrap(), reset)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn over_http2_the_error_always_arrives_and_the_stream_is_reset() {
        let (address, _lifecycle) = served(None).await;
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        broken_streams_on(socket, 50).await;
        let ends = TlsTestPair::new();
        let (address, _lifecycle) = served(Some(ends.tls.clone())).await;
        broken_streams_on(ends.connect(address).await, 20).await;
    }

    async fn broken_streams_on(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, rounds: usize) {
        // A window smaller than the answers: what is sent must wait for the client.
        let (client, connection) =
            h2::client::Builder::new().initial_window_size(300).handshake::<_, Bytes>(io).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(http2(client.clone(), "/ends").await, (FRAME.to_owned(), false));
        for round in 0..rounds {
            let mut streams = tokio::task::JoinSet::new();
            for turn in 0..20 {
                let (path, broken) = break_of(turn);
                let client = client.clone();
                streams.spawn(async move { (http2(client, path).await, error_text(broken)) });
            }
            for ((read, reset), event) in streams.join_all().await {
                assert!(read.trim_end().ends_with(event.trim_end()), "round {round}: {read}");
                assert!(reset, "round {round}");
            }
        }
    }
}
