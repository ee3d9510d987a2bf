//! What a simulated provider says: OpenAI's shapes around words drawn from the request.
//!
//! The same request always gives the same answer, whole or streamed. It never knows the time.

use crate::domain::call::{Call, Endpoint};
use crate::domain::random::RandomValue;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;

/// A date no answer of a real provider bears: 2023-11-14.
const CREATED: u64 = 1_700_000_000;
/// An answer's natural length in tokens: from this on, and this many more at most.
const SHORTEST: u64 = 16;
const SPREAD: u64 = 48;
/// The dimensions of its embeddings.
const DIMENSIONS: u64 = 16;
/// How much of a body's end decides the answer: a conversation differs at its end.
const SEED_BYTES: usize = 4096;
/// How every answer begins, so that nobody takes it for a model's.
const OPENING: [&str; 8] = ["This", " answer", " is", " simulated", ":", " the", " river", " says"];
/// What it goes on with, a token each.
const WORDS: [&str; 16] = [
    " one", " river", " carries", " the", " light", " of", " many", " stones", " and", " slowly", " turns", " toward",
    " open", " water", " without", " hurry",
];

/// An answer, as far as it is decided by the request.
pub(super) struct SimAnswer {
    endpoint: Endpoint,
    model: Arc<str>,
    seed: RandomValue,
    /// The tokens of each choice, and whether the ceiling cut them; empty for embeddings.
    lengths: Vec<(u64, bool)>,
    inputs: u32,
    input_tokens: u64,
    id: String,
}

impl SimAnswer {
    /// The answer to `call`.
    pub(super) fn new(call: &Call, model: Arc<str>) -> Self {
        let seed = seed_of(call.body());
        let ceiling = call.metadata().max_output.unwrap_or(u64::MAX);
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
            inputs: call.metadata().inputs,
            input_tokens: call.estimated_input_tokens(),
            id: format!("{prefix}-sim-{:016x}", seed.0),
        }
    }

    /// How many tokens its longest choice has.
    pub(super) fn longest(&self) -> u64 {
        self.lengths.iter().map(|(length, _)| *length).max().unwrap_or(0)
    }

    fn token(&self, choice: usize, position: u64) -> &'static str {
        if let Some(opening) = usize::try_from(position).ok().and_then(|at| OPENING.get(at)) {
            return opening;
        }
        let draw = self.seed.salted(((choice as u64) << 32) + position);
        WORDS[draw.below(WORDS.len() as u64) as usize]
    }

    fn usage(&self) -> SimUsage {
        let output = self.lengths.iter().map(|(length, _)| *length).sum();
        SimUsage {
            prompt_tokens: self.input_tokens,
            completion_tokens: output,
            total_tokens: self.input_tokens + output,
        }
    }

    /// Frames of one step: in the first, chat says its role; a choice past its last token finishes;
    /// after the last of them come usage and `[DONE]`.
    pub(super) fn write_step(&self, step: u64, out: &mut BytesMut) {
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
    ) -> SimChoice<'a> {
        let chat = self.endpoint == Endpoint::Chat;
        SimChoice {
            index,
            message: None,
            delta: chat.then_some(SimMessage { role, content: content.map(Into::into) }),
            text: (!chat).then(|| content.unwrap_or_default().into()),
            logprobs: None,
            finish_reason,
        }
    }

    /// A frame with `choice`, or the one with usage.
    fn write_frame(&self, choice: Option<SimChoice<'_>>, out: &mut BytesMut) {
        let usage = choice.is_none().then(|| self.usage());
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions | Endpoint::Embeddings => "text_completion",
        };
        out.extend_from_slice(b"data: ");
        write_json(&self.completion(object, choice.into_iter().collect(), usage), out);
        out.extend_from_slice(b"\n\n");
    }

    /// All of it, as one JSON document.
    pub(super) fn write_whole(&self, out: &mut BytesMut) {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completions => "text_completion",
            Endpoint::Embeddings => return write_json(&self.embeddings(), out),
        };
        let choices = (0..self.lengths.len()).map(|index| self.whole_choice(index)).collect();
        write_json(&self.completion(object, choices, Some(self.usage())), out);
    }

    fn whole_choice(&self, index: usize) -> SimChoice<'static> {
        let (length, cut) = self.lengths[index];
        let said: String = (0..length).map(|position| self.token(index, position)).collect();
        let (message, text) = match self.endpoint {
            Endpoint::Chat => (Some(SimMessage { role: Some("assistant"), content: Some(said.into()) }), None),
            Endpoint::Completions | Endpoint::Embeddings => (None, Some(said.into())),
        };
        let finish_reason = Some(if cut { "length" } else { "stop" });
        SimChoice { index, message, delta: None, text, logprobs: None, finish_reason }
    }

    fn completion<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<SimChoice<'a>>,
        usage: Option<SimUsage>,
    ) -> SimCompletion<'a> {
        SimCompletion { id: &self.id, object, created: CREATED, model: &self.model, choices, usage }
    }

    fn embeddings(&self) -> SimEmbeddings<'_> {
        let vector = |index: u32| {
            let seed = self.seed.salted(u64::from(index));
            (0..DIMENSIONS).map(|dimension| 2.0 * seed.salted(dimension).unit() - 1.0).collect()
        };
        let data = (0..self.inputs).map(|index| SimEmbedding { object: "embedding", index, embedding: vector(index) });
        SimEmbeddings { object: "list", data: data.collect(), model: &self.model, usage: self.usage() }
    }
}

/// FNV-1a over the body's end and its length.
fn seed_of(body: &[u8]) -> RandomValue {
    let end = &body[body.len().saturating_sub(SEED_BYTES)..];
    let hash = end.iter().fold(0xcbf2_9ce4_8422_2325_u64 ^ body.len() as u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    RandomValue(hash)
}

fn write_json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("plain structs with string keys, written to memory");
}

#[derive(Serialize)]
struct SimCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<SimChoice<'a>>,
    usage: Option<SimUsage>,
}

#[derive(Serialize)]
struct SimChoice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<SimMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<SimMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct SimMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct SimUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct SimEmbeddings<'a> {
    object: &'static str,
    data: Vec<SimEmbedding>,
    model: &'a str,
    usage: SimUsage,
}

#[derive(Serialize)]
struct SimEmbedding {
    object: &'static str,
    index: u32,
    embedding: Vec<f64>,
}
