//! What the tests of this module share: calls made from JSON texts, and a provider on a real socket that
//! answers with exactly the bytes of a test.
//!
//! It never judges what the code under test makes of those bytes.

use super::providers::ReplySource;
use super::*;
use crate::domain::call::{Call, Endpoint, RequestMetadata};
use crate::domain::failure::Failure;
use crate::domain::id::ProviderId;
use crate::domain::memory::InFlightAllowance;
use crate::domain::random::RandomValue;
use crate::domain::routing::AnswerMode;
use crate::domain::secret::Secret;
use bytes::Bytes;
use http::HeaderMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// The metadata of a body whose `"model":` has no white space behind it.
pub(super) fn metadata(body: &str) -> RequestMetadata {
    let start = body.find(r#""model":"#).expect("the body names a model") + 8;
    let end = start + 1 + body[start + 1..].find('"').expect("the model is a string") + 1;
    RequestMetadata {
        model: body[start + 1..end - 1].into(),
        model_span: start..end,
        stream: body.contains(r#""stream":true"#),
        ..RequestMetadata::without_model()
    }
}

/// A chat call.
pub(super) fn call(body: &'static str) -> Call {
    Call::new(Endpoint::Chat, Bytes::from_static(body.as_bytes()), metadata(body))
}

/// A source of `reads`, all of them ready, that then ends.
pub(super) fn fed(reads: impl IntoIterator<Item = Bytes>) -> ReplySource {
    let (sender, source) = feed();
    reads.into_iter().for_each(|read| sender.send(Ok(read)).expect("the source is alive"));
    source
}

/// A source fed from outside; it ends when the sender is dropped.
pub(super) fn feed() -> (mpsc::UnboundedSender<io::Result<Bytes>>, ReplySource) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, ReplySource::network(reqwest::Body::wrap(ChannelBody(receiver))))
}

struct ChannelBody(mpsc::UnboundedReceiver<io::Result<Bytes>>);

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|read| read.map(|read| read.map(http_body::Frame::data)))
    }
}

/// One OpenAI-compatible provider at `base_url`, with the credential `secret`.
pub(super) fn setup(base_url: String) -> ProviderSetup {
    let host = NetworkSetup {
        api: HostProtocol::OpenAi,
        base_url,
        credentials: vec![Secret::new("secret")],
        http2: false,
        finish_reason_optional: false,
        skip_malformed_frames: false,
        max_completion_tokens: false,
        asks_usage: true,
        fields: FieldSetup::default(),
        connection: ConnectionSetup::default(),
    };
    ProviderSetup {
        name: "p".into(),
        protocol: ProviderProtocol::Network(host),
        connect_timeout: Duration::from_secs(10),
    }
}

/// That provider alone.
pub(super) fn upstreams(base_url: String) -> Upstreams {
    Upstreams::build(vec![setup(base_url)], None, Clock).expect("the provider can be built")
}

/// Longer than any test takes.
pub(super) fn timeouts() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts { first_token: long, whole: long, idle: long, deadline: Clock.now() + 2 * long }
}

/// Sends `call` as model `m` to the first provider.
pub(super) async fn send(
    upstreams: &Upstreams,
    call: &Call,
    timeouts: Timeouts,
) -> Result<UpstreamAnswer, AttemptError> {
    let request = UpstreamRequest {
        provider: ProviderId(0),
        credential: 0,
        model: &UpstreamModel::new("m"),
        call,
        mode: AnswerMode::of(call.metadata().stream, false),
        headers: &HeaderMap::new(),
        fields: ForwardedFields::default(),
        ceiling: None,
        timeouts,
        fault: None,
        draw: RandomValue(0),
        allowance: &InFlightAllowance::default(),
    };
    upstreams.send(request, &()).await
}

/// Reads `body` to its end: what came, and how it ended.
pub(super) async fn drain(body: &mut AnswerBody) -> (String, Option<Failure>) {
    let mut all = Vec::new();
    loop {
        match poll_fn(|cx| body.poll_frames(cx)).await {
            Some(Ok(bytes)) => all.extend_from_slice(&bytes),
            Some(Err(failure)) => return (String::from_utf8(all).expect("tests send text"), Some(failure)),
            None => return (String::from_utf8(all).expect("tests send text"), None),
        }
    }
}

/// One thing a scripted provider does on a connection.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Read one request, head and body.
    Read,
    /// Write these bytes.
    Write(Vec<u8>),
    /// Close by FIN.
    Close,
    /// Close by RST.
    Reset,
    /// Keep the connection open and silent until the other side closes it.
    Hold,
}

/// A provider that plays one script on every connection.
pub(super) struct Scripted {
    /// Where it listens.
    pub(super) at: SocketAddr,
    /// Whole requests as they were read.
    pub(super) requests: mpsc::UnboundedReceiver<Vec<u8>>,
    /// One message for each connection that the other side closed while held.
    pub(super) hung_up: mpsc::UnboundedReceiver<()>,
    /// One message for each connection accepted.
    pub(super) accepted: mpsc::UnboundedReceiver<()>,
}

impl Scripted {
    /// Starts listening on a port the system chose.
    pub(super) async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let at = listener.local_addr().expect("a bound listener has an address");
        let (request_seen, requests) = mpsc::unbounded_channel();
        let (gone, hung_up) = mpsc::unbounded_channel();
        let (came, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = came.send(());
                tokio::spawn(play(socket, script.clone(), request_seen.clone(), gone.clone()));
            }
        });
        Self { at, requests, hung_up, accepted }
    }

    /// Its base URL.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.at)
    }

    /// The next request it read, as text.
    pub(super) async fn request(&mut self) -> String {
        let request = tokio::time::timeout(Duration::from_secs(10), self.requests.recv()).await;
        String::from_utf8(request.expect("a request comes").expect("the listener runs")).expect("tests send text")
    }

    /// Waits until the other side closes a held connection.
    pub(super) async fn hangs_up(&mut self) {
        let gone = tokio::time::timeout(Duration::from_secs(10), self.hung_up.recv()).await;
        assert_eq!(gone, Ok(Some(())), "the connection is closed");
    }
}

async fn play(
    mut socket: TcpStream,
    script: Vec<Act>,
    requests: mpsc::UnboundedSender<Vec<u8>>,
    gone: mpsc::UnboundedSender<()>,
) {
    for act in script {
        match act {
            Act::Read => match read_request(&mut socket).await {
                Some(request) => drop(requests.send(request)),
                None => return,
            },
            Act::Write(bytes) => {
                if socket.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Close => return,
            Act::Reset => {
                // With data unread or linger zero the kernel sends RST instead of FIN.
                let _ = socket.set_zero_linger();
                return;
            }
            Act::Hold => {
                let mut rest = [0; 1024];
                while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
                let _ = gone.send(());
                return;
            }
        }
    }
}

/// Reads one request with a `content-length`; `None` when the connection ends before it is whole.
async fn read_request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(head) = memchr::memmem::find(&request, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length =
                text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
            if request.len() >= head + 4 + length.unwrap_or(0) {
                return Some(request);
            }
        }
        let mut buffer = vec![0; 64 * 1024];
        let read = socket.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
}

/// A 200 with a `content-length`.
pub(super) fn whole(content_type: &str, body: &str) -> Vec<u8> {
    respond("200 OK", &format!("content-type: {content_type}\r\n"), body)
}

/// Any answer with a `content-length`; `headers` end with CRLF each.
pub(super) fn respond(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The head of a chunked event stream.
pub(super) const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
/// The end of a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// `bytes` as one chunk of a chunked body.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}
