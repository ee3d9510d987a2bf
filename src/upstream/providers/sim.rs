//! A provider without a network, for trying Tierway out, for drills and for load.
//!
//! The same request always gets the same answer: text, token counts, id and date derive from the
//! request's bytes, and failures from the random value of the request. It writes the bytes a real host would
//! write, at the times it would; what they mean is decided where every provider's bytes are read.
//!
//! Start reading in [`SimProvider::open`].

mod answer;

use super::{ReplySource, UpstreamReply};
use crate::protocol::chat::answer::ChatQuirks;
use crate::protocol::{Dialect, ErrorDetails, Grammar};
use crate::upstream::{SimSetup, UpstreamRequest};
use answer::SimAnswer;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// The most choices or inputs it answers; as OpenAI does for embeddings.
const MAX_CHOICES: u32 = 2048;
const ERROR_SALT: u64 = 0x51;

/// A simulated provider.
pub(super) struct SimProvider {
    setup: SimSetup,
}

impl SimProvider {
    /// One that behaves as `setup` says.
    pub(super) fn new(setup: SimSetup) -> Self {
        Self { setup }
    }

    /// The reply to `request`, its clock beginning at `now`.
    pub(super) fn open(&self, request: &UpstreamRequest<'_>, now: Instant) -> UpstreamReply {
        let call = request.call;
        if request.draw.salted(ERROR_SALT).below(10_000) < u64::from(self.setup.error_rate_bp) {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "a simulated failure", now);
        }
        if call.expected_choices() > MAX_CHOICES {
            let text = "the simulated provider answers at most 2048 choices or inputs";
            return error(StatusCode::BAD_REQUEST, "invalid_request_error", text, now);
        }
        let answer = SimAnswer::new(call, request.model.name().clone());
        let (content_type, script) = match call.metadata().stream {
            true => ("text/event-stream", SimScript::Steps { answer, next: 0 }),
            false => ("application/json", SimScript::Whole(answer)),
        };
        reply(StatusCode::OK, content_type, SimBody::new(script, self.setup, now))
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: SimBody) -> UpstreamReply {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    UpstreamReply { status, headers, source: ReplySource::Sim(body), grammar: Grammar::Chat(ChatQuirks::default()) }
}

fn error(status: StatusCode, kind: &str, message: &str, now: Instant) -> UpstreamReply {
    let text = ErrorDetails { kind, code: None, param: None, message }.body(Dialect::Chat);
    let at_once = SimSetup { first_token: Duration::ZERO, tokens_per_second: 0, error_rate_bp: 0 };
    reply(status, "application/json", SimBody::new(SimScript::Text(text.into()), at_once, now))
}

/// The bytes of a simulated reply, each when it is due.
pub(in crate::upstream) struct SimBody {
    script: SimScript,
    setup: SimSetup,
    sent: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl SimBody {
    fn new(script: SimScript, setup: SimSetup, sent: Instant) -> Self {
        Self { script, setup, sent, sleep: Box::pin(tokio::time::sleep_until(sent.into())) }
    }

    /// Everything that is due by now, in one piece; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        while let Some(tokens) = self.script.tokens_before_next() {
            let due = tokio::time::Instant::from_std(self.sent + self.setup.after(tokens));
            if self.sleep.deadline() != due {
                self.sleep.as_mut().reset(due);
            }
            let waited = self.sleep.as_mut().poll(cx);
            if waited.is_pending() && !out.is_empty() {
                break;
            }
            ready!(waited);
            self.script.write_next(&mut out);
        }
        Poll::Ready((!out.is_empty()).then(|| out.freeze()))
    }
}

impl SimSetup {
    /// When the token after `tokens` others is there.
    fn after(&self, tokens: u64) -> Duration {
        let each = match self.tokens_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        self.first_token + each.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX))
    }
}

/// What is left to write.
enum SimScript {
    /// A stream: step `n` holds the n-th token of each choice, the last one the end.
    Steps { answer: SimAnswer, next: u64 },
    /// A whole answer.
    Whole(SimAnswer),
    /// These bytes.
    Text(Bytes),
    /// Everything is written.
    Over,
}

impl SimScript {
    /// How many tokens come before what is next; `None` at the end.
    fn tokens_before_next(&self) -> Option<u64> {
        match self {
            Self::Steps { next, .. } => Some(*next),
            Self::Whole(answer) => Some(answer.longest()),
            Self::Text(_) => Some(0),
            Self::Over => None,
        }
    }

    fn write_next(&mut self, out: &mut BytesMut) {
        match std::mem::replace(self, Self::Over) {
            Self::Steps { answer, next } => {
                answer.write_step(next, out);
                if next <= answer.longest() {
                    *self = Self::Steps { answer, next: next + 1 };
                }
            }
            Self::Whole(answer) => answer.write_whole(out),
            Self::Text(text) => out.extend_from_slice(&text),
            Self::Over => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::call::{Call, Endpoint, RequestMetadata, Splice};
    use crate::domain::failure::Failure;
    use crate::domain::id::ProviderId;
    use crate::domain::random::RandomValue;
    use crate::upstream::testing::{drain, metadata, timeouts};
    use crate::upstream::{AttemptError, ProviderProtocol, ProviderSetup, UpstreamModel, Upstreams};
    use serde_json::Value;

    const QUICK: SimSetup =
        SimSetup { first_token: Duration::from_millis(200), tokens_per_second: 100, error_rate_bp: 0 };
    const WHOLE: &str = r#"{"model":"m","prompt":"a"}"#;
    const STREAM: &str = r#"{"model":"m","stream":true}"#;

    fn call(endpoint: Endpoint, body: &'static str, change: impl FnOnce(&mut RequestMetadata)) -> Call {
        let mut metadata = metadata(body);
        change(&mut metadata);
        Call::new(endpoint, Bytes::from_static(body.as_bytes()), metadata)
    }

    /// The whole answer to `call` and the time it took.
    async fn ask(setup: SimSetup, call: &Call, draw: RandomValue) -> Result<(String, Duration), AttemptError> {
        let setup =
            ProviderSetup { name: "s".into(), protocol: ProviderProtocol::Sim(setup), connect_timeout: Duration::ZERO };
        let upstreams = Upstreams::build(vec![setup], None, Clock).expect("a simulation can be built");
        let start = Clock.now();
        let request = UpstreamRequest {
            provider: ProviderId(0),
            credential: 0,
            model: &UpstreamModel::new("up"),
            call,
            headers: &HeaderMap::new(),
            timeouts: timeouts(),
            draw,
        };
        let mut answer = upstreams.send(request, &()).await?;
        let (text, failure) = drain(&mut answer.body).await;
        assert_eq!(failure, None, "{text}");
        Ok((text, Clock.now() - start))
    }

    async fn answer(call: &Call) -> Value {
        let (text, _) = ask(QUICK, call, RandomValue(0)).await.unwrap_or_else(|error| panic!("{error:?}"));
        serde_json::from_str(&text).expect("the answer is JSON")
    }

    /// The frames of a stream, `[DONE]` aside.
    fn frames(text: &str) -> Vec<Value> {
        let text = text.strip_suffix("data: [DONE]\n\n").expect("the stream is complete");
        let payload = |frame: &str| serde_json::from_str(frame.strip_prefix("data: ").expect("it is a frame"));
        text.split_terminator("\n\n").map(|frame| payload(frame).expect("its payload is JSON")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_says_what_the_whole_answer_says() {
        let whole = answer(&call(Endpoint::Chat, STREAM, |metadata| metadata.stream = false)).await;
        let (text, took) = ask(QUICK, &call(Endpoint::Chat, STREAM, |_| {}), RandomValue(0)).await.expect("it answers");
        let frames = frames(&text);
        let said: String = frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(Some(&*said), whole["choices"][0]["message"]["content"].as_str());
        assert_eq!(frames.last().map(|frame| &frame["usage"]), Some(&whole["usage"]));
        assert_eq!(whole["model"], "up");
        // The first token, each of the others, the end.
        let tokens = whole["usage"]["completion_tokens"].as_u64().expect("it counts");
        assert_eq!(took.as_millis() as u64, 200 + (tokens + 1) * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_request_gets_the_same_answer_and_another_does_not() {
        let of = async |body| answer(&call(Endpoint::Completions, body, |_| {})).await;
        assert_eq!(of(WHOLE).await, of(WHOLE).await);
        assert_ne!(of(WHOLE).await["choices"], of(r#"{"model":"m","prompt":"b"}"#).await["choices"]);
    }

    #[tokio::test(start_paused = true)]
    async fn every_choice_and_input_is_answered() {
        let many = |metadata: &mut RequestMetadata| (metadata.choices, metadata.inputs) = (2, 3);
        for (endpoint, list, expected) in [(Endpoint::Completions, "choices", 6), (Endpoint::Embeddings, "data", 3)] {
            let given = answer(&call(endpoint, WHOLE, many)).await;
            assert_eq!(given[list].as_array().map(Vec::len), Some(expected), "{given}");
        }
        let (text, _) =
            ask(QUICK, &call(Endpoint::Completions, STREAM, many), RandomValue(0)).await.expect("it answers");
        assert_eq!(text.matches("\"finish_reason\":\"stop\"").count(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ceiling_is_kept_and_said() {
        let given = answer(&call(Endpoint::Chat, WHOLE, |metadata| metadata.max_output = Some(3))).await;
        assert_eq!(
            (&given["choices"][0]["finish_reason"], &given["usage"]["completion_tokens"]),
            (&"length".into(), &3.into())
        );
        let none = call(Endpoint::Chat, STREAM, |metadata| metadata.max_output = Some(0));
        let (text, _) = ask(QUICK, &none, RandomValue(0)).await.expect("it answers");
        assert_eq!(frames(&text).len(), 3, "a role, an end, a usage: {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn usage_the_client_did_not_ask_for_is_hidden() {
        let ask_usage = Some(Splice { at: 1..1, with: Bytes::new() });
        let (text, _) =
            ask(QUICK, &call(Endpoint::Chat, STREAM, |metadata| metadata.ask_usage = ask_usage), RandomValue(0))
                .await
                .expect("it answers");
        assert!(!text.contains("usage"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_as_often_as_asked_for() {
        let call = call(Endpoint::Chat, WHOLE, |_| {});
        let sim = SimProvider::new(SimSetup { error_rate_bp: 2_500, ..QUICK });
        let failed = (0..4_000).filter(|seed| {
            let request = UpstreamRequest {
                provider: ProviderId(0),
                credential: 0,
                model: &UpstreamModel::new("up"),
                call: &call,
                headers: &HeaderMap::new(),
                timeouts: timeouts(),
                draw: RandomValue(1).salted(*seed),
            };
            sim.open(&request, Clock.now()).status == 500
        });
        let failed = failed.count();
        assert!((900..1_100).contains(&failed), "{failed} of 4,000");
        let always = SimSetup { error_rate_bp: 10_000, ..QUICK };
        let error = ask(always, &call, RandomValue(0)).await.expect_err("it always fails");
        assert_eq!(error.failure, Failure::Status(500));
    }

    #[tokio::test(start_paused = true)]
    async fn more_choices_than_it_answers_are_rejected() {
        let call = call(Endpoint::Completions, WHOLE, |metadata| metadata.inputs = MAX_CHOICES + 1);
        let error = ask(QUICK, &call, RandomValue(0)).await.expect_err("it refuses");
        assert_eq!(error.failure, Failure::Rejected);
        assert!(error.provider_error.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_everything_comes_in_one_piece() {
        let setup = SimSetup { first_token: Duration::ZERO, tokens_per_second: 0, error_rate_bp: 0 };
        let sim = SimProvider::new(setup);
        let call = call(Endpoint::Chat, STREAM, |_| {});
        let mut body = SimBody::new(
            SimScript::Steps { answer: SimAnswer::new(&call, "m".into()), next: 0 },
            sim.setup,
            Clock.now(),
        );
        let first = std::future::poll_fn(|cx| body.poll_chunk(cx)).await;
        assert!(first.is_some_and(|first| first.ends_with(b"data: [DONE]\n\n")));
        assert_eq!(std::future::poll_fn(|cx| body.poll_chunk(cx)).await, None);
    }
}
