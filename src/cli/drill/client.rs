//! One client of a drill: a request over HTTP, and what it saw of the answer.
//!
//! It retries nothing: what it is given is what the gateway gave.
//!
//! Start reading at [`ask`].

use crate::clock::Clock;
use crate::domain::drill::DrillOutcome;
use crate::domain::secret::Secret;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The tokens of each answer: fewer than a simulated provider has to say.
const TOKENS: usize = 12;
/// The words that these are: a colon is a token of its own.
const WORDS: usize = TOKENS - 1;
/// The longest that an answer is waited for: longer than the gateway needs to try everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct ClientRequest {
    pub(super) model: Arc<str>,
    pub(super) key: Secret,
    pub(super) stream: bool,
    /// Makes it different from the others.
    pub(super) number: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct ClientAnswer {
    /// The gateway's name for the request, where an answer began.
    pub(super) id: Option<String>,
    /// From sent to the first bytes of the body.
    pub(super) first_bytes: Option<Duration>,
    pub(super) outcome: DrillOutcome,
}

impl ClientAnswer {
    fn failed(why: impl Into<Arc<str>>) -> Self {
        Self { id: None, first_bytes: None, outcome: DrillOutcome::Failed(why.into()) }
    }
}

/// Sends `request` to the gateway at `gateway`, on a connection of its own, and reads the answer to its end.
pub(super) async fn ask(gateway: SocketAddr, request: &ClientRequest, clock: Clock) -> ClientAnswer {
    let sent = clock.now();
    tokio::select! {
        answer = exchange(gateway, request, sent, clock) => {
            answer.unwrap_or_else(|error| ClientAnswer::failed(format!("no answer: {error}")))
        }
        () = clock.sleep(PATIENCE) => ClientAnswer::failed(format!("no whole answer within {} s", PATIENCE.as_secs())),
    }
}

async fn exchange(
    gateway: SocketAddr,
    request: &ClientRequest,
    sent: Instant,
    clock: Clock,
) -> anyhow::Result<ClientAnswer> {
    let body = json!({
        "model": &*request.model,
        "stream": request.stream,
        "max_tokens": TOKENS,
        "messages": [{ "role": "user", "content": format!("Request {} of a drill", request.number) }],
    });
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the request.
    tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header(HOST, gateway.to_string())
        .header(AUTHORIZATION, format!("Bearer {}", request.key.expose()))
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string())?;
    let asked_stream = body["stream"] == true;
    let response = sender.send_request(request).await?;
    Ok(read(response, asked_stream, sent, clock).await)
}

async fn read(response: Response<Incoming>, stream: bool, sent: Instant, clock: Clock) -> ClientAnswer {
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let (mut bytes, mut first_bytes, mut broke) = (Vec::new(), None, false);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            broke = true;
            break;
        };
        if let Some(data) = frame.data_ref() {
            first_bytes.get_or_insert_with(|| clock.now().saturating_duration_since(sent));
            bytes.extend_from_slice(data);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let outcome = match (status, stream) {
        (200, true) => streamed(&text, broke),
        (200, false) => whole(&text, broke),
        _ => DrillOutcome::Failed(format!("{status} {}", code(&text)).into()),
    };
    ClientAnswer { id, first_bytes: first_bytes.filter(|_| status == 200), outcome }
}

fn code(text: &str) -> String {
    let error = serde_json::from_str::<Value>(text).unwrap_or_default();
    error["error"]["code"].as_str().unwrap_or("without a code").to_owned()
}

/// How an answer ended that came in one piece.
fn whole(text: &str, broke: bool) -> DrillOutcome {
    let Ok(answer) = serde_json::from_str::<Value>(text) else { return DrillOutcome::Broken };
    if broke || !answer["error"].is_null() {
        return DrillOutcome::Broken;
    }
    complete(answer["choices"][0]["message"]["content"].as_str().unwrap_or_default())
}

/// How a stream ended: only `[DONE]` says that it is complete.
fn streamed(text: &str, broke: bool) -> DrillOutcome {
    let (mut said, mut done) = (String::new(), false);
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let Ok(frame) = serde_json::from_str::<Value>(data) else { return DrillOutcome::Broken };
        if !frame["error"].is_null() {
            return DrillOutcome::Broken;
        }
        said.push_str(frame["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    if broke || !done { DrillOutcome::Broken } else { complete(&said) }
}

fn complete(said: &str) -> DrillOutcome {
    if said.split_whitespace().count() == WORDS { DrillOutcome::Answered } else { DrillOutcome::TruncatedUnsaid }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(words: usize, end: &str) -> String {
        let frame = |word: usize| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\" w{word}\"}}}}]}}\n\n");
        format!("{}{end}", (0..words).map(frame).collect::<String>())
    }

    #[test]
    fn a_stream_is_whole_with_all_its_words_and_its_end() {
        let error = "data: {\"error\":{\"code\":\"upstream_truncated\"}}\n\n";
        for (words, end, broke, expected) in [
            (WORDS, "data: [DONE]\n\n", false, DrillOutcome::Answered),
            (WORDS - 1, "data: [DONE]\n\n", false, DrillOutcome::TruncatedUnsaid),
            (0, "data: [DONE]\n\n", false, DrillOutcome::TruncatedUnsaid),
            (WORDS, "", false, DrillOutcome::Broken),
            (WORDS, "data: [DONE]\n\n", true, DrillOutcome::Broken),
            (3, error, false, DrillOutcome::Broken),
        ] {
            assert_eq!(streamed(&frames(words, end), broke), expected, "{words} {end} {broke}");
        }
    }

    #[test]
    fn a_whole_answer_is_whole_with_all_its_words() {
        let of = |words: usize| json!({ "choices": [{ "message": { "content": "w ".repeat(words) } }] }).to_string();
        assert_eq!(whole(&of(WORDS), false), DrillOutcome::Answered);
        assert_eq!(whole(&of(WORDS - 1), false), DrillOutcome::TruncatedUnsaid);
        assert_eq!(whole(&of(WORDS), true), DrillOutcome::Broken);
        assert_eq!(whole(&of(WORDS)[..20], false), DrillOutcome::Broken);
        assert_eq!(code("{\"error\":{\"code\":\"rate_limit_exceeded\"}}"), "rate_limit_exceeded");
    }
}
