//! A provider without a network, for trying Tierway out, for drills and for load.
//!
//! The same request always gets the same answer: text, token counts, id and date derive from the
//! request's bytes, and failures from the draw handed in. It writes the bytes a real host would
//! write, at the times it would; what they mean is decided where every provider's bytes are read.
//!
//! Start reading in [`Sim::open`].

use super::{Reply, Source, Tolerance};
use crate::domain::call::{Call, Endpoint};
use crate::domain::chance::Draw;
use crate::upstream::{Order, SimSetup};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A date no answer of a real provider bears: 2023-11-14.
const CREATED: u64 = 1_700_000_000;
/// The most choices or inputs it answers; as OpenAI does for embeddings.
const MAX_CHOICES: u32 = 2048;
/// An answer's natural length in tokens: from this on, and this many more at most.
const SHORTEST: u64 = 16;
const SPREAD: u64 = 48;
/// The dimensions of its embeddings.
const DIMENSIONS: u64 = 16;
/// How much of a body's end decides the answer: a conversation differs at its end.
const SEED_BYTES: usize = 4096;
const ERROR_SALT: u64 = 0x51;
/// How every answer begins, so that nobody takes it for a model's.
const OPENING: [&str; 8] = ["This", " answer", " is", " simulated", ":", " the", " river", " says"];
/// What it goes on with, a token each.
const WORDS: [&str; 16] = [
    " one", " river", " carries", " the", " light", " of", " many", " stones", " and", " slowly", " turns", " toward",
    " open", " water", " without", " hurry",
];

/// A simulated provider.
pub(super) struct Sim {
    setup: SimSetup,
}

impl Sim {
    /// One that behaves as `setup` says.
    pub(super) fn new(setup: SimSetup) -> Self {
        Self { setup }
    }

    /// The reply to `order`, its clock beginning at `now`.
    pub(super) fn open(&self, order: &Order<'_>, now: Instant) -> Reply {
        let call = order.call;
        if order.draw.salted(ERROR_SALT).below(10_000) < u64::from(self.setup.error_rate_bp) {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "a simulated failure", now);
        }
        if call.expected_choices() > MAX_CHOICES {
            let text = "the simulated provider answers at most 2048 choices or inputs";
            return error(StatusCode::BAD_REQUEST, "invalid_request_error", text, now);
        }
        let answer = Answer::new(call, order.model.name().clone());
        let (content_type, script) = match call.facts().stream {
            true => ("text/event-stream", Script::Steps { answer, next: 0 }),
            false => ("application/json", Script::Whole(answer)),
        };
        reply(StatusCode::OK, content_type, SimBody::new(script, self.setup, now))
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: SimBody) -> Reply {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    Reply { status, headers, source: Source::Sim(body), tolerance: Tolerance::default() }
}

fn error(status: StatusCode, kind: &str, message: &str, now: Instant) -> Reply {
    let text = format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":null}}}}"#);
    let at_once = SimSetup { first_token: Duration::ZERO, tokens_per_second: 0, error_rate_bp: 0 };
    reply(status, "application/json", SimBody::new(Script::Text(text.into()), at_once, now))
}

/// The bytes of a simulated reply, each when it is due.
pub(in crate::upstream) struct SimBody {
    script: Script,
    setup: SimSetup,
    sent: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl SimBody {
    fn new(script: Script, setup: SimSetup, sent: Instant) -> Self {
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
enum Script {
    /// A stream: step `n` holds the n-th token of each choice, the last one the end.
    Steps { answer: Answer, next: u64 },
    /// A whole answer.
    Whole(Answer),
    /// These bytes.
    Text(Bytes),
    /// Nothing.
    Over,
}

impl Script {
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

/// An answer, as far as it is decided by the request.
struct Answer {
    endpoint: Endpoint,
    model: Arc<str>,
    seed: Draw,
    /// The tokens of each choice, and whether the ceiling cut them; empty for embeddings.
    lengths: Vec<(u64, bool)>,
    inputs: u32,
    input_tokens: u64,
    id: String,
}

impl Answer {
    fn new(call: &Call, model: Arc<str>) -> Self {
        let seed = seed_of(call.body());
        let ceiling = call.facts().max_output.unwrap_or(u64::MAX);
        let length = |choice: u32| {
            let natural = SHORTEST + seed.salted(u64::from(choice)).below(SPREAD);
            (natural.min(ceiling), ceiling < natural)
        };
        let endpoint = call.endpoint();
        let (choices, prefix) = match endpoint {
            Endpoint::Chat => (call.expected_choices(), "chatcmpl"),
            Endpoint::Completions => (call.expected_choices(), "cmpl"),
            Endpoint::Embeddings => (0, "embd"),
        };
        Self {
            endpoint,
            model,
            seed,
            lengths: (0..choices).map(length).collect(),
            inputs: call.facts().inputs,
            input_tokens: call.estimated_input_tokens(),
            id: format!("{prefix}-sim-{:016x}", seed.0),
        }
    }

    fn longest(&self) -> u64 {
        self.lengths.iter().map(|(length, _)| *length).max().unwrap_or(0)
    }

    fn token(&self, choice: usize, position: u64) -> &'static str {
        if let Some(opening) = usize::try_from(position).ok().and_then(|at| OPENING.get(at)) {
            return opening;
        }
        let draw = self.seed.salted(((choice as u64) << 32) + position);
        WORDS[draw.below(WORDS.len() as u64) as usize]
    }

    fn usage(&self) -> Usage {
        let output = self.lengths.iter().map(|(length, _)| *length).sum();
        Usage { prompt_tokens: self.input_tokens, completion_tokens: output, total_tokens: self.input_tokens + output }
    }

    /// Frames of one step: in the first, chat says its role; a choice past its last token finishes;
    /// after the last of them come usage and `[DONE]`.
    fn write_step(&self, step: u64, out: &mut BytesMut) {
        if step == 0 && self.endpoint == Endpoint::Chat {
            for choice in 0..self.lengths.len() {
                self.write_frame(Some(self.piece(choice, Some("assistant"), Some(""), None)), out);
            }
        }
        for (choice, (length, cut)) in self.lengths.iter().enumerate() {
            if step < *length {
                self.write_frame(Some(self.piece(choice, None, Some(self.token(choice, step)), None)), out);
            } else if step == *length {
                let reason = if *cut { "length" } else { "stop" };
                self.write_frame(Some(self.piece(choice, None, None, Some(reason))), out);
            }
        }
        if step > self.longest() {
            self.write_frame(None, out);
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }

    fn piece<'a>(
        &self,
        index: usize,
        role: Option<&'static str>,
        content: Option<&'a str>,
        finish_reason: Option<&'static str>,
    ) -> Choice<'a> {
        let chat = self.endpoint == Endpoint::Chat;
        Choice {
            index,
            message: None,
            delta: chat.then_some(Said { role, content: content.map(Into::into) }),
            text: (!chat).then(|| content.unwrap_or_default().into()),
            logprobs: None,
            finish_reason,
        }
    }

    /// A frame with `choice`, or the one with usage.
    fn write_frame(&self, choice: Option<Choice<'_>>, out: &mut BytesMut) {
        let usage = choice.is_none().then(|| self.usage());
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions | Endpoint::Embeddings => "text_completion",
        };
        out.extend_from_slice(b"data: ");
        write_json(&self.completion(object, choice.into_iter().collect(), usage), out);
        out.extend_from_slice(b"\n\n");
    }

    fn write_whole(&self, out: &mut BytesMut) {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completions => "text_completion",
            Endpoint::Embeddings => return write_json(&self.embeddings(), out),
        };
        let choices = (0..self.lengths.len()).map(|index| self.whole_choice(index)).collect();
        write_json(&self.completion(object, choices, Some(self.usage())), out);
    }

    fn whole_choice(&self, index: usize) -> Choice<'static> {
        let (length, cut) = self.lengths[index];
        let said: String = (0..length).map(|position| self.token(index, position)).collect();
        let (message, text) = match self.endpoint {
            Endpoint::Chat => (Some(Said { role: Some("assistant"), content: Some(said.into()) }), None),
            Endpoint::Completions | Endpoint::Embeddings => (None, Some(said.into())),
        };
        let finish_reason = Some(if cut { "length" } else { "stop" });
        Choice { index, message, delta: None, text, logprobs: None, finish_reason }
    }

    fn completion<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<Choice<'a>>,
        usage: Option<Usage>,
    ) -> Completion<'a> {
        Completion { id: &self.id, object, created: CREATED, model: &self.model, choices, usage }
    }

    fn embeddings(&self) -> Embeddings<'_> {
        let vector = |index: u32| {
            let seed = self.seed.salted(u64::from(index));
            (0..DIMENSIONS).map(|dimension| 2.0 * seed.salted(dimension).unit() - 1.0).collect()
        };
        let data = (0..self.inputs).map(|index| Embedding { object: "embedding", index, embedding: vector(index) });
        Embeddings { object: "list", data: data.collect(), model: &self.model, usage: self.usage() }
    }
}

/// FNV-1a over the body's end and its length.
fn seed_of(body: &[u8]) -> Draw {
    let end = &body[body.len().saturating_sub(SEED_BYTES)..];
    let hash = end.iter().fold(0xcbf2_9ce4_8422_2325_u64 ^ body.len() as u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Draw(hash)
}

fn write_json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("plain structs with string keys, written to memory");
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct Embeddings<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: u32,
    embedding: Vec<f64>,
}
