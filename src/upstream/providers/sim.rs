//! A provider without a network, for trying Tierway out, for drills and for load.
//!
//! The same request always gets the same answer: text, token counts, id and date derive from the
//! request's bytes, and failures from the random value of the request. It writes the bytes a real host would
//! write, at the times it would; what they mean is decided where every provider's bytes are read.
//!
//! Start reading in [`SimProvider::open`].

mod answer;

use super::{ReplySource, UpstreamReply};
use crate::domain::call::Call;
use crate::protocol::chat::answer::ChatQuirks;
use crate::protocol::chat::form::FormProblem;
use crate::protocol::{ErrorDetails, Grammar};
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
            let kind = "server_error";
            let details = ErrorDetails { status: 500, kind, message: "a simulated failure", ..invalid(None) };
            return error(call, details, now);
        }
        if call.expected_choices() > MAX_CHOICES {
            let text = "the simulated provider answers at most 2048 choices or inputs";
            return error(call, ErrorDetails { message: text, ..invalid(None) }, now);
        }
        let answer = match SimAnswer::new(call, request.ceiling, request.model.name().clone()) {
            Ok(answer) => answer,
            Err(FormProblem { param, message }) => {
                let message = format!("Invalid '{param}': {message}.");
                let details = ErrorDetails { message: &message, ..invalid(Some(param)) };
                return error(call, details, now);
            }
        };
        let (content_type, script) = match call.metadata().stream {
            true => ("text/event-stream", SimScript::Steps { answer, next: 0 }),
            false => ("application/json", SimScript::Whole(answer)),
        };
        reply(call, StatusCode::OK, content_type, SimBody::new(script, self.setup, now))
    }
}

fn reply(call: &Call, status: StatusCode, content_type: &'static str, body: SimBody) -> UpstreamReply {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    UpstreamReply {
        status,
        headers,
        source: ReplySource::simulated(body),
        grammar: Grammar::answering(call.endpoint(), ChatQuirks::default()),
    }
}

fn invalid(param: Option<&str>) -> ErrorDetails<'_> {
    let kind = "invalid_request_error";
    ErrorDetails { status: 400, kind, code: None, param, message: "", request_id: None }
}

/// What a provider replies that refuses `call` with `status`.
pub(in crate::upstream) fn refused_with(call: &Call, status: u16, message: &str, now: Instant) -> UpstreamReply {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    error(call, ErrorDetails { status, kind, message, ..invalid(None) }, now)
}

fn error(call: &Call, details: ErrorDetails<'_>, now: Instant) -> UpstreamReply {
    let text = details.body(call.dialect());
    let status = StatusCode::from_u16(details.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let at_once = SimSetup { first_token: Duration::ZERO, tokens_per_second: 0, error_rate_bp: 0 };
    reply(call, status, "application/json", SimBody::new(SimScript::Text(text.into()), at_once, now))
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
    use crate::domain::call::{Endpoint, RequestMetadata, Splice};
    use crate::domain::failure::Failure;
    use crate::domain::id::ProviderId;
    use crate::domain::memory::InFlightAllowance;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::AnswerMode;
    use crate::upstream::ForwardedFields;
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
            mode: AnswerMode::of(call.metadata().stream, false),
            headers: &HeaderMap::new(),
            fields: ForwardedFields::default(),
            ceiling: None,
            timeouts: timeouts(),
            fault: None,
            draw,
            allowance: &InFlightAllowance::default(),
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
    async fn messages_say_the_same_whole_and_streamed() {
        let whole = answer(&call(Endpoint::Messages, STREAM, |metadata| metadata.stream = false)).await;
        let (text, _) =
            ask(QUICK, &call(Endpoint::Messages, STREAM, |_| {}), RandomValue(0)).await.expect("it answers");
        let payload = |frame: &str| -> Value {
            let (_, data) = frame.split_once("\ndata: ").expect("each event has a name");
            serde_json::from_str(data).expect("its payload is JSON")
        };
        let events: Vec<Value> = text.split_terminator("\n\n").map(payload).collect();
        let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert_eq!(Some(&*said), whole["content"][0]["text"].as_str());
        assert_eq!((&events[0]["type"], &whole["type"]), (&"message_start".into(), &"message".into()));
        assert_eq!(events.last().map(|event| &event["type"]), Some(&"message_stop".into()));
        let end = &events[events.len() - 2];
        assert_eq!(end["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
        assert_eq!((&end["delta"]["stop_reason"], &whole["stop_reason"]), (&"end_turn".into(), &"end_turn".into()));
        let cut = answer(&call(Endpoint::Messages, WHOLE, |metadata| metadata.max_output = Some(3))).await;
        assert_eq!((&cut["stop_reason"], &cut["usage"]["output_tokens"]), (&"max_tokens".into(), &3.into()));
        let count = answer(&call(Endpoint::CountTokens, WHOLE, |_| {})).await;
        assert_eq!(count["input_tokens"], cut["usage"]["input_tokens"]);
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
            let body = r#"{"model":"m","prompt":"a","input":["a","b","c"]}"#;
            let given = answer(&call(endpoint, body, many)).await;
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
                mode: AnswerMode::Whole,
                headers: &HeaderMap::new(),
                fields: ForwardedFields::default(),
                ceiling: None,
                timeouts: timeouts(),
                fault: None,
                draw: RandomValue(1).salted(*seed),
                allowance: &InFlightAllowance::default(),
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
            SimScript::Steps { answer: SimAnswer::new(&call, None, "m".into()).expect("it is text"), next: 0 },
            sim.setup,
            Clock.now(),
        );
        let first = std::future::poll_fn(|cx| body.poll_chunk(cx)).await;
        assert!(first.is_some_and(|first| first.ends_with(b"data: [DONE]\n\n")));
        assert_eq!(std::future::poll_fn(|cx| body.poll_chunk(cx)).await, None);
    }
    /// The whole answer to `body`, and the same read from a stream: its text, or its first tool call.
    async fn both(endpoint: Endpoint, body: &'static str) -> (Value, String) {
        let whole = answer(&call(endpoint, body, |_| {})).await;
        let streamed = call(endpoint, body, |metadata| metadata.stream = true);
        let (text, _) = ask(QUICK, &streamed, RandomValue(0)).await.expect("it answers");
        let frames = frames(&text);
        let choices = || frames.iter().map(|frame| &frame["choices"][0]);
        let places =
            ["/delta/content", "/delta/tool_calls/0/function/arguments", "/delta/function_call/arguments", "/text"];
        let said = choices().filter_map(|choice| places.iter().find_map(|place| choice.pointer(place)?.as_str()));
        let said: String = said.collect();
        assert_eq!(frames.last().map(|frame| &frame["usage"]), Some(&whole["usage"]));
        let reasons: Vec<&Value> =
            choices().map(|choice| &choice["finish_reason"]).filter(|one| one.is_string()).collect();
        assert_eq!(reasons, [&whole["choices"][0]["finish_reason"]]);
        (whole, said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_is_called_whole_and_streamed() {
        let body = r#"{"model":"m","tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object",
            "properties":{"city":{"enum":["Oslo"]},"days":{"type":"integer","minimum":1,"maximum":1}},
            "required":["city","days"]}}}],"tool_choice":"required"}"#;
        let (whole, streamed) = both(Endpoint::Chat, body).await;
        let choice = &whole["choices"][0];
        let called = &choice["message"]["tool_calls"][0];
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&"tool_calls".into(), &Value::Null));
        assert_eq!((&called["type"], &called["function"]["name"]), (&"function".into(), &"weather".into()));
        assert!(called["id"].as_str().is_some_and(|id| id.starts_with("call_")), "{called}");
        let arguments = called["function"]["arguments"].as_str().expect("it is text");
        assert_eq!(serde_json::from_str::<Value>(arguments).ok(), Some(serde_json::json!({"city": "Oslo", "days": 1})));
        assert_eq!(streamed, arguments);
        let legacy = r#"{"model":"m","functions":[{"name":"f","parameters":{"type":"object","properties":{}}}]}"#;
        let (whole, streamed) = both(Endpoint::Chat, legacy).await;
        assert_eq!(whole["choices"][0]["finish_reason"], "function_call");
        let called = &whole["choices"][0]["message"]["function_call"];
        assert_eq!((&called["name"], &called["arguments"], &*streamed), (&"f".into(), &"{}".into(), "{}"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_fits_its_schema_whole_and_streamed() {
        let body = r#"{"model":"m","response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{
            "type":"object","properties":{"n":{"const":7},"s":{"type":"string"}},"required":["n","s"]}}}}"#;
        let (whole, streamed) = both(Endpoint::Chat, body).await;
        let said = whole["choices"][0]["message"]["content"].as_str().expect("it is text");
        let document: Value = serde_json::from_str(said).expect("it is JSON");
        assert!(document["n"] == 7 && document["s"].is_string(), "{document}");
        assert_eq!(streamed, said);
        let cut = answer(&call(Endpoint::Chat, body, |metadata| metadata.max_output = Some(1))).await;
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
        assert_eq!(cut["usage"]["completion_tokens"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_is_repeated_before_each_of_its_choices() {
        let (whole, streamed) = both(Endpoint::Completions, r#"{"model":"m","echo":true,"prompt":"Once"}"#).await;
        let said = whole["choices"][0]["text"].as_str().expect("it is text");
        assert!(said.starts_with("OnceThis answer is simulated"), "{said}");
        assert_eq!(streamed, said);
        let body = r#"{"model":"m","echo":true,"prompt":["Once","Twice"]}"#;
        let many =
            |metadata: &mut RequestMetadata| (metadata.choices, metadata.inputs, metadata.max_output) = (2, 2, Some(0));
        let given = answer(&call(Endpoint::Completions, body, many)).await;
        let texts: Vec<&str> = (0..4).filter_map(|index| given["choices"][index]["text"].as_str()).collect();
        assert_eq!(texts, ["Once", "Once", "Twice", "Twice"]);
        assert_eq!(given["usage"]["completion_tokens"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn vectors_are_the_same_as_numbers_and_as_base64() {
        let numbers = r#"{"model":"m","input":"a","dimensions":5}"#;
        let given = answer(&call(Endpoint::Embeddings, numbers, |_| {})).await;
        let vector: Vec<f32> = serde_json::from_value(given["data"][0]["embedding"].clone()).expect("numbers");
        let length: f32 = vector.iter().map(|number| number * number).sum();
        assert!(vector.len() == 5 && (length - 1.0).abs() < 1e-5, "{vector:?}");
        let encoded = r#"{"model":"m","input":["b","a"],"dimensions":5,"encoding_format":"base64"}"#;
        let given = answer(&call(Endpoint::Embeddings, encoded, |_| {})).await;
        let text = given["data"][1]["embedding"].as_str().expect("it is text");
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("it is base64");
        let decoded: Vec<f32> =
            bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect();
        assert_eq!(decoded, vector);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_host_would_answer_is_rejected() {
        let call = call(Endpoint::Chat, r#"{"model":"m","tool_choice":"required"}"#, |_| {});
        let error = ask(QUICK, &call, RandomValue(0)).await.expect_err("it refuses");
        assert_eq!(error.failure, Failure::Rejected);
        let said = error.provider_error.expect("it says why");
        let body = String::from_utf8_lossy(&said.body).into_owned();
        assert!(body.contains("\"param\":\"tool_choice\"") && body.contains("a tool is required"), "{body}");
    }
}
