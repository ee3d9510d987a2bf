//! One request of a drill over HTTP, and what its client saw of the answer.
//!
//! It retries nothing: what it is given is what the gateway gave. Clients that retry are in `retry.rs`.
//!
//! Start reading at [`ask`].

use crate::cli::gateway_client::{GatewayClient, GatewayClientError};
use crate::clock::Clock;
use crate::domain::drill::DrillOutcome;
use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body::Body;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tokens of each answer: fewer than a simulated provider has to say.
const TOKENS: usize = 12;
/// The words that these are from a simulated provider: a colon is a token of its own.
pub(super) const WORDS: usize = TOKENS - 1;
/// The longest that an answer is waited for: longer than the gateway needs to try everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client of one key.
pub(super) struct KeyClient {
    pub(super) gateway: GatewayClient,
    /// Of chat completions, behind the gateway's address.
    pub(super) path: &'static str,
    /// The words of an answer that is whole, where they are known; else it is one that says that it has ended.
    pub(super) words: Option<usize>,
}

/// What is asked for.
#[derive(Clone)]
pub(super) struct ClientRequest {
    pub(super) client: Arc<KeyClient>,
    pub(super) model: Arc<str>,
    pub(super) stream: bool,
    /// Makes it different from the others.
    pub(super) number: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct ClientAnswer {
    /// The gateway's name for the request, where a reply began.
    pub(super) id: Option<String>,
    /// From sent to the first bytes of the body, where it is an answer.
    pub(super) first_bytes: Option<Duration>,
    pub(super) outcome: DrillOutcome,
    /// Where there is no answer.
    pub(super) refused: Option<RefusalStatus>,
    /// The attempts at providers, as the head of the reply has them.
    pub(super) attempts: u32,
    /// Where it was served, as the head of the reply has it.
    pub(super) region: Option<Arc<str>>,
}

/// A reply that is no answer.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RefusalStatus {
    /// `None`: no reply came.
    pub(super) status: Option<u16>,
    /// `x-should-retry`.
    pub(super) should_retry: Option<bool>,
    /// In either form.
    pub(super) retry_after: Option<Duration>,
}

impl ClientAnswer {
    fn failed(why: impl Into<Arc<str>>) -> Self {
        Self {
            id: None,
            first_bytes: None,
            outcome: DrillOutcome::Failed(why.into()),
            refused: Some(RefusalStatus::default()),
            attempts: 0,
            region: None,
        }
    }
}

/// Sends `request`, on a connection of its own, and reads the answer to its end. Its time is counted from `since`.
pub(super) async fn ask(request: &ClientRequest, since: Instant, clock: Clock) -> ClientAnswer {
    tokio::select! {
        answer = exchange(request, since, clock) => answer,
        () = clock.sleep(PATIENCE) => ClientAnswer::failed(format!("no whole answer within {} s", PATIENCE.as_secs())),
    }
}

async fn exchange(request: &ClientRequest, since: Instant, clock: Clock) -> ClientAnswer {
    let body = json!({
        "model": &*request.model,
        "stream": request.stream,
        "max_tokens": TOKENS,
        "messages": [{ "role": "user", "content": format!("Request {} of a drill", request.number) }],
    });
    let KeyClient { gateway, path, .. } = &*request.client;
    match gateway.send(Method::POST, path, Some(Bytes::from(body.to_string()))).await {
        Ok(response) => read(response, request, since, clock).await,
        Err(GatewayClientError::Unreachable(why)) => ClientAnswer::failed(format!("no answer: {why}")),
        Err(other) => ClientAnswer::failed(format!("no answer: {other:?}")),
    }
}

async fn read(response: Response<Incoming>, request: &ClientRequest, since: Instant, clock: Clock) -> ClientAnswer {
    let (head, mut body) = response.into_parts();
    let status = head.status.as_u16();
    let (mut bytes, mut first_bytes, mut broke) = (Vec::new(), None, false);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            broke = true;
            break;
        };
        if let Some(data) = frame.data_ref() {
            first_bytes.get_or_insert_with(|| clock.now().saturating_duration_since(since));
            bytes.extend_from_slice(data);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let words = request.client.words;
    let outcome = match (status, request.stream) {
        (200, true) => streamed(&text, broke, words),
        (200, false) => whole(&text, broke, words),
        _ => DrillOutcome::Failed(format!("{status} {}", code(&text)).into()),
    };
    let is_answer = status == 200;
    ClientAnswer {
        id: header(&head.headers, "x-request-id").map(str::to_owned),
        first_bytes: first_bytes.filter(|_| is_answer),
        outcome,
        refused: (!is_answer).then(|| RefusalStatus::of(status, &head.headers)),
        attempts: header(&head.headers, "x-tierway-attempts").and_then(|text| text.parse().ok()).unwrap_or_default(),
        region: header(&head.headers, "x-tierway-region").filter(|_| is_answer).map(Into::into),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl RefusalStatus {
    fn of(status: u16, headers: &HeaderMap) -> Self {
        let number = |name| header(headers, name).and_then(|text| text.parse::<f64>().ok());
        let seconds = number("retry-after-ms").map(|ms| ms / 1_000.0).or_else(|| number("retry-after"));
        Self {
            status: Some(status),
            should_retry: header(headers, "x-should-retry").map(|text| text == "true"),
            retry_after: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }
}

fn code(text: &str) -> String {
    let error = serde_json::from_str::<Value>(text).unwrap_or_default();
    error["error"]["code"].as_str().unwrap_or("without a code").to_owned()
}

/// How an answer ended that came in one piece.
fn whole(text: &str, broke: bool, words: Option<usize>) -> DrillOutcome {
    let Ok(answer) = serde_json::from_str::<Value>(text) else { return DrillOutcome::Broken };
    if broke || !answer["error"].is_null() {
        return DrillOutcome::Broken;
    }
    let choice = &answer["choices"][0];
    complete(choice["message"]["content"].as_str().unwrap_or_default(), choice["finish_reason"].is_string(), words)
}

/// How a stream ended: only `[DONE]` says that it is complete.
fn streamed(text: &str, broke: bool, words: Option<usize>) -> DrillOutcome {
    let (mut said, mut finished, mut done) = (String::new(), false, false);
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let Ok(frame) = serde_json::from_str::<Value>(data) else { return DrillOutcome::Broken };
        if !frame["error"].is_null() {
            return DrillOutcome::Broken;
        }
        let choice = &frame["choices"][0];
        said.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        finished |= choice["finish_reason"].is_string();
    }
    if broke || !done { DrillOutcome::Broken } else { complete(&said, finished, words) }
}

fn complete(said: &str, finished: bool, words: Option<usize>) -> DrillOutcome {
    let is_whole = words.map_or(finished, |words| said.split_whitespace().count() == words);
    if is_whole { DrillOutcome::Answered } else { DrillOutcome::TruncatedUnsaid }
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
            assert_eq!(streamed(&frames(words, end), broke, Some(WORDS)), expected, "{words} {end} {broke}");
        }
    }

    #[test]
    fn a_whole_answer_is_whole_with_all_its_words() {
        let of = |words: usize| json!({ "choices": [{ "message": { "content": "w ".repeat(words) } }] }).to_string();
        let whole = |text: &str, broke| whole(text, broke, Some(WORDS));
        assert_eq!(whole(&of(WORDS), false), DrillOutcome::Answered);
        assert_eq!(whole(&of(WORDS - 1), false), DrillOutcome::TruncatedUnsaid);
        assert_eq!(whole(&of(WORDS), true), DrillOutcome::Broken);
        assert_eq!(whole(&of(WORDS)[..20], false), DrillOutcome::Broken);
    }

    #[test]
    fn an_answer_of_unknown_length_is_whole_where_it_says_so() {
        let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
        let ended = format!("{finish}data: [DONE]\n\n");
        assert_eq!(streamed(&frames(3, &ended), false, None), DrillOutcome::Answered);
        assert_eq!(streamed(&frames(3, "data: [DONE]\n\n"), false, None), DrillOutcome::TruncatedUnsaid);
        assert_eq!(streamed(&frames(3, finish), false, None), DrillOutcome::Broken);
        let of = |reason: Value| json!({ "choices": [{ "message": {}, "finish_reason": reason }] }).to_string();
        assert_eq!(whole(&of("stop".into()), false, None), DrillOutcome::Answered);
        assert_eq!(whole(&of(Value::Null), false, None), DrillOutcome::TruncatedUnsaid);
        assert_eq!(code("{\"error\":{\"code\":\"rate_limit_exceeded\"}}"), "rate_limit_exceeded");
    }
}
