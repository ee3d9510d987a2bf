//! What a simulated provider answers: words drawn from the request, or what the request asks the answer to be, written
//! as a host of chat completions does.
//!
//! The same request always gives the same answer, whole or streamed. It never knows the time.
//!
//! Start reading in [`SimAnswer::new`].

use crate::domain::call::{Call, Endpoint};
use crate::domain::random::{FNV_BASIS, RandomValue, fnv1a};
use crate::domain::usage::Usage;
use crate::protocol::chat::form::{AnswerForm, FormProblem, ToolKind};
use crate::protocol::chat::write::{AnswerChoice, ChatWriter, ChoiceFrame, WrittenToolCall};
use crate::protocol::messages::write::{MessagesWriter, write_count};
use bytes::BytesMut;
use std::sync::Arc;

/// A date no answer of a real provider has: 2023-11-14, in Unix seconds.
const CREATED: u64 = 1_700_000_000;
/// An answer's natural length in tokens: from this on, and this many more at most.
const SHORTEST: u64 = 16;
const SPREAD: u64 = 48;
/// How many characters of a document, or of what a tool is called with, make a token.
const TOKEN_CHARACTERS: usize = 4;
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
    form: AnswerForm,
    /// The text that every choice has, by tokens; empty where it is words.
    pieces: Vec<Box<str>>,
    /// The tokens of each choice, and whether the ceiling cut them; empty for embeddings.
    lengths: Vec<(u64, bool)>,
    /// The ids of the tool calls, one for each choice.
    call_ids: Vec<String>,
    /// How many choices each prompt has.
    choices_of_prompt: usize,
    input_tokens: u64,
    id: String,
}

impl SimAnswer {
    /// The answer to `call`, each of its choices within `ceiling` or else the client's own.
    ///
    /// # Errors
    /// [`FormProblem`] for a request that no host would answer.
    pub(super) fn new(call: &Call, ceiling: Option<u64>, model: Arc<str>) -> Result<Self, FormProblem> {
        let seed = seed_of(call.body());
        let form = AnswerForm::of(call, seed)?;
        let pieces = match &form {
            AnswerForm::Document(text) => tokens_of_text(text),
            AnswerForm::ToolCall(called) => tokens_of_text(&called.input),
            AnswerForm::Text | AnswerForm::Echo(_) | AnswerForm::Vectors(_) => Vec::new(),
        };
        let ceiling = ceiling.or(call.metadata().max_output).unwrap_or(u64::MAX);
        let length = |choice: u32| {
            let drawn = || SHORTEST + seed.salted(u64::from(choice)).below(SPREAD);
            let natural = if pieces.is_empty() { drawn() } else { pieces.len() as u64 };
            (natural.min(ceiling), ceiling < natural)
        };
        let endpoint = call.endpoint();
        let choices = if endpoint.writes_text() { call.expected_choices() } else { 0 };
        let prefix = ChatWriter::id_prefix(endpoint);
        Ok(Self {
            endpoint,
            model,
            seed,
            lengths: (0..choices).map(length).collect(),
            call_ids: (0..choices).map(|choice| format!("call_sim_{:016x}_{choice}", seed.0)).collect(),
            choices_of_prompt: call.metadata().choices.max(1) as usize,
            form,
            pieces,
            input_tokens: call.estimated_input_tokens(None),
            id: format!("{prefix}-sim-{:016x}", seed.0),
        })
    }

    /// How many tokens its longest choice has.
    pub(super) fn longest(&self) -> u64 {
        self.lengths.iter().map(|(length, _)| *length).max().unwrap_or(0)
    }

    fn token(&self, choice: usize, position: u64) -> &str {
        if !self.pieces.is_empty() {
            return usize::try_from(position).ok().and_then(|at| self.pieces.get(at)).map_or("", |piece| piece);
        }
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

    /// Frames of one step: in the first, chat says its role and a completion repeats its prompt; a choice past its last
    /// token finishes; after the last of them come usage and the stream's end.
    pub(super) fn write_step(&self, step: u64, out: &mut BytesMut) {
        if self.endpoint == Endpoint::Messages {
            return self.write_messages_step(step, out);
        }
        let writer = self.writer();
        let piece = |index| ChoiceFrame { index, ..ChoiceFrame::default() };
        if step == 0 {
            for choice in 0..self.lengths.len() {
                let role = (self.endpoint == Endpoint::Chat).then_some("assistant");
                let content = self.prompt(choice);
                if role.is_some() || !content.is_empty() {
                    let call = self.tool_call(choice, true);
                    writer.write_piece(ChoiceFrame { role, content: Some(content), call, ..piece(choice) }, out);
                }
            }
        }
        for (choice, (length, cut)) in self.lengths.iter().enumerate() {
            if step < *length {
                let call = self.tool_call(choice, false);
                let next = ChoiceFrame { content: Some(self.token(choice, step)), call, ..piece(choice) };
                writer.write_piece(next, out);
            } else if step == *length {
                let last = ChoiceFrame { finish_reason: Some(self.finish_reason(*cut)), ..piece(choice) };
                writer.write_piece(last, out);
            }
        }
        if step > self.longest() {
            writer.write_end(self.usage(), out);
        }
    }

    /// The same in Messages, which has one choice.
    fn write_messages_step(&self, step: u64, out: &mut BytesMut) {
        let writer = self.messages_writer();
        let (length, cut) = self.lengths.first().copied().unwrap_or_default();
        if step == 0 {
            writer.write_start(self.input_tokens, out);
        }
        if step < length {
            writer.write_piece(self.token(0, step), out);
        } else if step == length {
            writer.write_end(stop_reason(cut), length, out);
        }
    }

    fn messages_writer(&self) -> MessagesWriter<'_> {
        MessagesWriter { id: &self.id, model: &self.model }
    }

    /// The prompt that `choice` repeats; empty where it does not.
    fn prompt(&self, choice: usize) -> &str {
        match &self.form {
            AnswerForm::Echo(prompts) => prompts.get(choice / self.choices_of_prompt).map_or("", |prompt| prompt),
            _ => "",
        }
    }

    fn tool_call(&self, choice: usize, first: bool) -> Option<WrittenToolCall<'_>> {
        let AnswerForm::ToolCall(called) = &self.form else { return None };
        let id = self.call_ids.get(choice).map_or("", String::as_str);
        Some(WrittenToolCall { kind: called.kind, head: first.then_some((id, called.name.as_str())) })
    }

    fn finish_reason(&self, cut: bool) -> &'static str {
        match &self.form {
            _ if cut => "length",
            AnswerForm::ToolCall(called) if called.kind == ToolKind::Legacy => "function_call",
            AnswerForm::ToolCall(_) => "tool_calls",
            _ => "stop",
        }
    }

    /// All of it, as one document.
    pub(super) fn write_whole(&self, out: &mut BytesMut) {
        if let AnswerForm::Vectors(vectors) = &self.form {
            let made = vectors.seeds.iter().map(|seed| vector(*seed, vectors.dimensions));
            return self.writer().write_embeddings(made, vectors.base64, self.usage(), out);
        }
        match self.endpoint {
            // A simulated provider has no Responses: none is asked of it.
            Endpoint::Chat
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Responses
            | Endpoint::InputTokens
            | Endpoint::Conversations
            | Endpoint::StoredResponses => {}
            Endpoint::Messages => {
                let (length, cut) = self.lengths.first().copied().unwrap_or_default();
                let text: String = (0..length).map(|position| self.token(0, position)).collect();
                return self.messages_writer().write_whole(&text, stop_reason(cut), self.usage(), out);
            }
            Endpoint::CountTokens => return write_count(self.input_tokens, out),
        }
        let choices = self.lengths.iter().enumerate().map(|(index, (length, cut))| {
            let mut content = self.prompt(index).to_owned();
            content.extend((0..*length).map(|position| self.token(index, position)));
            let call = self.tool_call(index, true);
            AnswerChoice { content, call, finish_reason: self.finish_reason(*cut) }
        });
        self.writer().write_whole(choices, self.usage(), out);
    }
}

/// Why an answer in Messages ends.
fn stop_reason(cut: bool) -> &'static str {
    if cut { "max_tokens" } else { "end_turn" }
}

/// A vector of length 1, as hosts give them.
fn vector(seed: RandomValue, dimensions: usize) -> Vec<f32> {
    let drawn: Vec<f64> = (0..dimensions as u64).map(|dimension| 2.0 * seed.salted(dimension).unit() - 1.0).collect();
    let length = drawn.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    drawn.into_iter().map(|number| (number / length) as f32).collect()
}

fn tokens_of_text(text: &str) -> Vec<Box<str>> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(TOKEN_CHARACTERS).map(|token| token.iter().collect::<String>().into()).collect()
}

/// FNV-1a over the body's end and its length.
fn seed_of(body: &[u8]) -> RandomValue {
    let end = &body[body.len().saturating_sub(SEED_BYTES)..];
    RandomValue(fnv1a(FNV_BASIS ^ body.len() as u64, end))
}
