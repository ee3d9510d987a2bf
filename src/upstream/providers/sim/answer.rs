//! What a simulated provider answers: words drawn from the request, written as a host of chat completions does.
//!
//! The same request always gives the same answer, whole or streamed. It never knows the time.
//!
//! Start reading in [`SimAnswer::new`].

use crate::domain::call::{Call, Endpoint};
use crate::domain::random::{FNV_BASIS, RandomValue, fnv1a};
use crate::domain::usage::Usage;
use crate::protocol::chat::write::{ChatWriter, ChoiceFrame};
use bytes::BytesMut;
use std::sync::Arc;

/// A date no answer of a real provider has: 2023-11-14, in Unix seconds.
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
/// How it continues, a token each.
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
        let choices = if endpoint.writes_text() { call.expected_choices() } else { 0 };
        let prefix = ChatWriter::id_prefix(endpoint);
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

    fn usage(&self) -> Usage {
        let output = self.lengths.iter().map(|(length, _)| *length).sum();
        Usage { input: self.input_tokens, output, ..Usage::default() }
    }

    fn writer(&self) -> ChatWriter<'_> {
        ChatWriter { endpoint: self.endpoint, id: &self.id, created: CREATED, model: &self.model }
    }

    /// Frames of one step: in the first, chat says its role; a choice past its last token finishes;
    /// after the last of them come usage and the stream's end.
    pub(super) fn write_step(&self, step: u64, out: &mut BytesMut) {
        let writer = self.writer();
        let piece = |index| ChoiceFrame { index, ..ChoiceFrame::default() };
        if step == 0 && self.endpoint == Endpoint::Chat {
            for choice in 0..self.lengths.len() {
                let first = ChoiceFrame { role: Some("assistant"), content: Some(""), ..piece(choice) };
                writer.write_piece(first, out);
            }
        }
        for (choice, (length, cut)) in self.lengths.iter().enumerate() {
            if step < *length {
                let next = ChoiceFrame { content: Some(self.token(choice, step)), ..piece(choice) };
                writer.write_piece(next, out);
            } else if step == *length {
                let last = ChoiceFrame { finish_reason: Some(finish_reason(*cut)), ..piece(choice) };
                writer.write_piece(last, out);
            }
        }
        if step > self.longest() {
            writer.write_end(self.usage(), out);
        }
    }

    /// All of it, as one document.
    pub(super) fn write_whole(&self, out: &mut BytesMut) {
        if !self.endpoint.writes_text() {
            return self.writer().write_embeddings((0..self.inputs).map(|index| self.vector(index)), self.usage(), out);
        }
        let choices = self.lengths.iter().enumerate().map(|(index, (length, cut))| {
            let text = (0..*length).map(|position| self.token(index, position)).collect();
            (text, finish_reason(*cut))
        });
        self.writer().write_whole(choices, self.usage(), out);
    }

    fn vector(&self, index: u32) -> Vec<f64> {
        let seed = self.seed.salted(u64::from(index));
        (0..DIMENSIONS).map(|dimension| 2.0 * seed.salted(dimension).unit() - 1.0).collect()
    }
}

fn finish_reason(cut: bool) -> &'static str {
    if cut { "length" } else { "stop" }
}

/// FNV-1a over the body's end and its length.
fn seed_of(body: &[u8]) -> RandomValue {
    let end = &body[body.len().saturating_sub(SEED_BYTES)..];
    RandomValue(fnv1a(FNV_BASIS ^ body.len() as u64, end))
}
