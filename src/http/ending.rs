//! An answer's body on its way to the client, and how a broken stream ends.
//!
//! A truncated answer must never look complete: after the last good frame come one `error` event and
//! an aborted transport, since some clients notice only the one and some only the other. The trap is
//! that hyper drops what it was handed in the same turn as a body's error, and that an HTTP/2 reset
//! throws away what its stream has queued. So the body waits until the event is out of their reach,
//! and only then errs.
//!
//! Start reading at [`AnswerBody`].

use super::connection::Connection;
use super::error::ApiError;
use crate::clock::Clock;
use crate::relay::{ReplyBody, StreamInterruption};
use crate::telemetry::InFlight;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How often a silent stream says that it lives: proxies on the way give up after 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client that does not read may hold up the end of a broken stream.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(5);
/// A comment: clients ignore it.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// An empty line between events: clients ignore it.
const BLANK: Bytes = Bytes::from_static(b"\n");

/// Fires when streams must end, whatever they still have to say.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where an answer's bytes come from.
pub trait Source: Send + Unpin + 'static {
    /// The next bytes: whole frames on a stream. `None` is the honest end.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamInterruption>>>;
    /// Ends it from our side.
    fn cut(&mut self) -> StreamInterruption;
    /// All its bytes, where known.
    fn exact_len(&self) -> Option<u64>;
}

impl Source for ReplyBody {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamInterruption>>> {
        self.poll_frames(cx)
    }

    fn cut(&mut self) -> StreamInterruption {
        self.cut()
    }

    fn exact_len(&self) -> Option<u64> {
        self.exact_len()
    }
}

/// The transport is to be aborted: HTTP/1.1 closes without the last chunk, HTTP/2 resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Aborted;

/// An answer on its way out. Dropping it before its end drops its source, which then knows that the
/// client left.
pub struct AnswerBody<S> {
    source: S,
    stage: Stage,
    /// `None` for a whole answer.
    streaming: Option<Streaming>,
    /// Bytes a whole answer has still to send, where known.
    remaining: Option<u64>,
    /// The request counts as in flight until its body ends.
    _in_flight: InFlight,
}

enum Stage {
    Flowing,
    /// The error event was handed out.
    Leaving(StreamEnd),
    Ended,
}

/// Waits until the error event is out of an abort's reach.
enum StreamEnd {
    /// HTTP/1.1 and its body share a task: what was handed out before `since` was read is gone once
    /// there is one flush more than that.
    Flushed { connection: Arc<Connection>, since: Option<u64>, patience: Pin<Box<Sleep>> },
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
        Self::Flushed { connection, since: None, patience: Box::pin(tokio::time::sleep(LAST_WORD_PATIENCE)) }
    }

    /// Something more to hand out; `None` when nothing can be lost any more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Queued { blank_due } => Poll::Ready(std::mem::take(blank_due).then_some(BLANK)),
            Self::Flushed { connection, since, patience } => {
                let since = *since.get_or_insert_with(|| connection.flushes());
                if connection.poll_flushed(since, cx).is_pending() {
                    ready!(patience.as_mut().poll(cx));
                }
                Poll::Ready(None)
            }
        }
    }
}

struct Streaming {
    clock: Clock,
    /// `None` where nobody watches the connection: the last word cannot be waited for then.
    connection: Option<Arc<Connection>>,
    stop: Stop,
    /// When the last byte was handed out. The timer is moved only when it fires, not at each frame.
    heard: Instant,
    keep_alive: Pin<Box<Sleep>>,
    /// Whether what was handed out ends with a whole frame: a comment may follow.
    between_frames: bool,
}

impl<S: Source> AnswerBody<S> {
    /// A whole answer.
    pub fn whole(source: S, in_flight: InFlight) -> Self {
        let remaining = source.exact_len();
        Self { source, stage: Stage::Flowing, streaming: None, remaining, _in_flight: in_flight }
    }

    /// A stream of events, going out on `connection`, to be ended early when `stop` fires.
    pub fn stream(
        source: S,
        in_flight: InFlight,
        connection: Option<Arc<Connection>>,
        stop: Stop,
        clock: Clock,
    ) -> Self {
        let heard = clock.now();
        let keep_alive = Box::pin(tokio::time::sleep_until((heard + KEEP_ALIVE).into()));
        let streaming = Streaming { clock, connection, stop, heard, keep_alive, between_frames: true };
        Self { source, stage: Stage::Flowing, streaming: Some(streaming), remaining: None, _in_flight: in_flight }
    }

    fn poll_flowing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        match self.source.poll_frames(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.note(&bytes);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(self.break_off(broken))),
            Poll::Ready(None) => {
                self.stage = Stage::Ended;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(streaming) = &mut self.streaming else { return Poll::Pending };
                if streaming.stop.as_mut().poll(cx).is_ready() {
                    let broken = self.source.cut();
                    return Poll::Ready(Some(self.break_off(broken)));
                }
                ready!(streaming.poll_silence(cx));
                Poll::Ready(Some(Ok(COMMENT)))
            }
        }
    }

    fn note(&mut self, bytes: &Bytes) {
        if let Some(streaming) = &mut self.streaming {
            streaming.heard = streaming.clock.now();
            streaming.between_frames = ends_frame(bytes);
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
            if *remaining == 0 {
                self.stage = Stage::Ended;
            }
        }
    }

    /// The error event, for a stream whose end can be watched; the transport's abort otherwise.
    fn break_off(&mut self, broken: StreamInterruption) -> Result<Bytes, Aborted> {
        let connection = self.streaming.as_ref().and_then(|streaming| streaming.connection.clone());
        let Some(connection) = connection else {
            self.stage = Stage::Ended;
            return Err(Aborted);
        };
        self.stage = Stage::Leaving(StreamEnd::on(connection));
        Ok(error_event(broken))
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Stage::Leaving(word) = &mut self.stage else { return Poll::Ready(None) };
        let rest = ready!(word.poll_rest(cx));
        if rest.is_none() {
            self.stage = Stage::Ended;
        }
        Poll::Ready(Some(rest.ok_or(Aborted)))
    }
}

impl<S: Source> Body for AnswerBody<S> {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let next = match self.stage {
            Stage::Flowing => self.poll_flowing(cx),
            Stage::Leaving(_) => self.poll_leaving(cx),
            Stage::Ended => Poll::Ready(None),
        };
        next.map(|end| end.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Streaming {
    /// Ready when the client has heard nothing for [`KEEP_ALIVE`] and stands between two frames.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.keep_alive.as_mut().poll(cx));
            let now = self.clock.now();
            let silent = now >= self.heard + KEEP_ALIVE;
            if silent {
                self.heard = now;
            }
            self.keep_alive.as_mut().reset((self.heard + KEEP_ALIVE).into());
            if silent && self.between_frames {
                return Poll::Ready(());
            }
        }
    }
}

/// What a broken stream says last.
fn error_event(broken: StreamInterruption) -> Bytes {
    let mut event = b"data: ".to_vec();
    event.extend(ApiError::broken(broken).json());
    event.extend(b"\n\n");
    event.into()
}

fn ends_frame(bytes: &[u8]) -> bool {
    [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| bytes.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::layers::EntryPoint;
    use crate::http::lifecycle::Lifecycle;
    use crate::http::server::{Door, Service, bind, serve};
    use crate::http::tls::Tls;
    use crate::http::tls::testing::Ends;
    use crate::random::Rng;
    use crate::telemetry::metrics::{Build, Metrics};
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
        Break(StreamInterruption),
        Silence,
    }

    /// A source that does what its script says, then ends.
    struct Script {
        steps: VecDeque<Step>,
        exact_len: Option<u64>,
    }

    impl Source for Script {
        fn poll_frames(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamInterruption>>> {
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

        fn cut(&mut self) -> StreamInterruption {
            StreamInterruption::ShuttingDown
        }

        fn exact_len(&self) -> Option<u64> {
            self.exact_len
        }
    }

    fn script(steps: impl IntoIterator<Item = Step>) -> Script {
        Script { steps: steps.into_iter().collect(), exact_len: None }
    }

    fn in_flight() -> InFlight {
        Metrics::new(Build { version: "0", revision: None }, || 0).request_started()
    }

    fn stream(source: Script, connection: Option<Arc<Connection>>, stop: Stop) -> AnswerBody<Script> {
        AnswerBody::stream(source, in_flight(), connection, stop, Clock)
    }

    fn never() -> Stop {
        Box::pin(std::future::pending())
    }

    async fn next(body: &mut AnswerBody<Script>) -> Option<Result<String, Aborted>> {
        let frame = body.frame().await?;
        Some(frame.map(|frame| String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8")))
    }

    fn error_text(broken: StreamInterruption) -> String {
        String::from_utf8(error_event(broken).to_vec()).expect("UTF-8")
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_every_fifteen_seconds_that_it_lives() {
        let start = Clock.now();
        let mut body = stream(script([Step::Frame(FRAME), Step::Silence]), None, never());
        assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME);
        for after in [15, 30, 45] {
            assert_eq!(next(&mut body).await.unwrap().unwrap(), ": keep-alive\n\n");
            assert_eq!((Clock.now() - start).as_secs(), after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_heard_puts_the_comment_off() {
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
        assert_eq!(next(&mut body).await.unwrap().unwrap(), error_text(StreamInterruption::ShuttingDown));
        // Nobody flushes: the end is not put off for ever.
        assert!(next(&mut body).await.unwrap().is_err());
        assert!(next(&mut body).await.is_none());
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_whole_answer_knows_its_length_and_its_end() {
        let source = Script { exact_len: Some(5), ..script([Step::Frame("{\"a\""), Step::Frame("}")]) };
        let mut body = AnswerBody::whole(source, in_flight());
        assert_eq!(body.size_hint().exact(), Some(5));
        next(&mut body).await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(1), false));
        next(&mut body).await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_whole_answer_that_breaks_is_aborted_without_an_event() {
        let mut body = AnswerBody::whole(script([Step::Break(StreamInterruption::Interrupted)]), in_flight());
        assert!(next(&mut body).await.unwrap().is_err());
    }

    /// A server whose `/breaks` breaks after a frame, `/ends` ends well and `/chats` says much.
    async fn served(tls: Option<Tls>) -> (SocketAddr, Lifecycle) {
        let answer = |steps: fn() -> Vec<Step>| {
            get(async move |request: Request| {
                let connection = request.extensions().get::<Arc<Connection>>().cloned();
                axum::body::Body::new(stream(script(steps()), connection, never()))
            })
        };
        let chatty = || {
            let words = std::iter::repeat_n((), 200).map(|()| Step::Frame(FRAME));
            words.chain([Step::Break(StreamInterruption::OutOfTime)]).collect()
        };
        let router = Router::new()
            .route("/breaks", answer(|| vec![Step::Frame(FRAME), Step::Break(StreamInterruption::Interrupted)]))
            .route("/ends", answer(|| vec![Step::Frame(FRAME)]))
            .route("/chats", answer(chatty));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new(Clock);
        let entry = EntryPoint::new(router, Clock, Arc::new(Rng::seeded(1)));
        let service = Service { entry, lifecycle: lifecycle.clone(), clock: Clock, door: Door::Public, tls };
        tokio::spawn(serve(listener, service));
        (address, lifecycle)
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
            let (path, broken) =
                [("/breaks", StreamInterruption::Interrupted), ("/chats", StreamInterruption::OutOfTime)][round % 2];
            let read = http1(address, path).await;
            let event = error_text(broken);
            assert!(read.contains(&event), "round {round}: {read}");
            assert!(!read.contains("\r\n0\r\n"), "round {round}: {read}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn over_tls_a_broken_answer_is_not_closed_in_good_order() {
        let ends = Ends::new();
        let (address, _lifecycle) = served(Some(ends.tls.clone())).await;
        let (read, end) = http1_on(ends.connect(address).await, "/ends").await;
        assert!(read.ends_with("0\r\n\r\n") && end.is_ok(), "{end:?}: {read}");
        for round in 0..200 {
            let (path, broken) =
                [("/breaks", StreamInterruption::Interrupted), ("/chats", StreamInterruption::OutOfTime)][round % 2];
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
        let ends = Ends::new();
        let (address, _lifecycle) = served(Some(ends.tls.clone())).await;
        broken_streams_on(ends.connect(address).await, 20).await;
    }

    async fn broken_streams_on(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, rounds: usize) {
        // A window smaller than the answers: what was said must wait for room.
        let (client, connection) =
            h2::client::Builder::new().initial_window_size(300).handshake::<_, Bytes>(io).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(http2(client.clone(), "/ends").await, (FRAME.to_owned(), false));
        for round in 0..rounds {
            let mut streams = tokio::task::JoinSet::new();
            for turn in 0..20 {
                let (path, broken) =
                    [("/breaks", StreamInterruption::Interrupted), ("/chats", StreamInterruption::OutOfTime)][turn % 2];
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
