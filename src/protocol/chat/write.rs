//! Answers of chat completions, completions and embeddings as a host writes them, streamed or whole.
//!
//! It never chooses what is said, and knows neither time nor chance: both come with what is to be written.
//!
//! Start reading in [`ChatWriter`].

use crate::domain::call::Endpoint;
use crate::domain::usage::Usage;
use crate::protocol::chat::answer::DONE_FRAME;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use std::borrow::Cow;

/// Writes one answer; what its documents and frames have in common.
#[derive(Clone, Copy, Debug)]
pub struct ChatWriter<'a> {
    /// What is answered.
    pub endpoint: Endpoint,
    /// The answer's id.
    pub id: &'a str,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// The model's name.
    pub model: &'a str,
}

/// What one frame of a stream adds to one choice.
#[derive(Clone, Copy, Default, Debug)]
pub struct ChoiceFrame<'a> {
    /// The choice it belongs to, counted from 0.
    pub index: usize,
    /// Who speaks, in the first piece of a chat's choice.
    pub role: Option<&'static str>,
    /// More of its text.
    pub content: Option<&'a str>,
    /// Why it ends, in its last piece.
    pub finish_reason: Option<&'static str>,
}

impl ChatWriter<'_> {
    /// What ids of answers on `endpoint` begin with.
    pub fn id_prefix(endpoint: Endpoint) -> &'static str {
        match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
            Endpoint::Embeddings => "embd",
        }
    }

    /// A frame with `piece`.
    pub fn write_piece(&self, piece: ChoiceFrame<'_>, out: &mut BytesMut) {
        let ChoiceFrame { index, role, content, finish_reason } = piece;
        let (delta, text) = match self.endpoint {
            Endpoint::Chat => (Some(MessageObject { role, content: content.map(Into::into) }), None),
            Endpoint::Completions | Endpoint::Embeddings => (None, Some(content.unwrap_or_default().into())),
        };
        let choice = ChoiceObject { index, message: None, delta, text, logprobs: None, finish_reason };
        self.write_frame(vec![choice], None, out);
    }

    /// The last frames of a stream: its usage and its end.
    pub fn write_end(&self, usage: Usage, out: &mut BytesMut) {
        self.write_frame(Vec::new(), Some(usage.into()), out);
        out.extend_from_slice(DONE_FRAME);
    }

    /// A whole completion: the text of each choice, and why it ends.
    pub fn write_whole(&self, choices: impl Iterator<Item = (String, &'static str)>, usage: Usage, out: &mut BytesMut) {
        let choice = |(index, (content, finish_reason)): (usize, (String, &'static str))| {
            let content = Some(content.into());
            let (message, text) = match self.endpoint {
                Endpoint::Chat => (Some(MessageObject { role: Some("assistant"), content }), None),
                Endpoint::Completions | Endpoint::Embeddings => (None, content),
            };
            let finish_reason = Some(finish_reason);
            ChoiceObject { index, message, delta: None, text, logprobs: None, finish_reason }
        };
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completions | Endpoint::Embeddings => "text_completion",
        };
        write_json(&self.completion(object, choices.enumerate().map(choice).collect(), Some(usage.into())), out);
    }

    /// A list of embeddings, one for each input.
    pub fn write_embeddings(&self, vectors: impl Iterator<Item = Vec<f64>>, usage: Usage, out: &mut BytesMut) {
        let embedding = |(index, embedding)| EmbeddingObject { object: "embedding", index, embedding };
        let data = vectors.enumerate().map(embedding).collect();
        write_json(&EmbeddingsObject { object: "list", data, model: self.model, usage: usage.into() }, out);
    }

    fn write_frame(&self, choices: Vec<ChoiceObject<'_>>, usage: Option<ChatUsageObject>, out: &mut BytesMut) {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions | Endpoint::Embeddings => "text_completion",
        };
        out.extend_from_slice(b"data: ");
        write_json(&self.completion(object, choices, usage), out);
        out.extend_from_slice(b"\n\n");
    }

    fn completion<'b>(
        &'b self,
        object: &'static str,
        choices: Vec<ChoiceObject<'b>>,
        usage: Option<ChatUsageObject>,
    ) -> CompletionObject<'b> {
        CompletionObject { id: self.id, object, created: self.created, model: self.model, choices, usage }
    }
}

fn write_json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("plain structs with string keys, written to memory");
}

#[derive(Serialize)]
struct CompletionObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChoiceObject<'a>>,
    usage: Option<ChatUsageObject>,
}

#[derive(Serialize)]
struct ChoiceObject<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<MessageObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct MessageObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct ChatUsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl From<Usage> for ChatUsageObject {
    fn from(usage: Usage) -> Self {
        let Usage { input, output, .. } = usage;
        Self { prompt_tokens: input, completion_tokens: output, total_tokens: input + output }
    }
}

#[derive(Serialize)]
struct EmbeddingsObject<'a> {
    object: &'static str,
    data: Vec<EmbeddingObject>,
    model: &'a str,
    usage: ChatUsageObject,
}

#[derive(Serialize)]
struct EmbeddingObject {
    object: &'static str,
    index: usize,
    embedding: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage { input: 3, cached_input: 0, output: 2, reasoning: 0 };

    fn check(endpoint: Endpoint, write: impl Fn(ChatWriter<'_>, &mut BytesMut), expected: &str) {
        let mut out = BytesMut::new();
        write(ChatWriter { endpoint, id: "i", created: 7, model: "m" }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn frames_are_written_as_hosts_write_them() {
        let piece = ChoiceFrame { index: 1, role: Some("assistant"), content: Some("a\""), finish_reason: None };
        check(
            Endpoint::Chat,
            |writer, out| writer.write_piece(piece, out),
            "data: {\"id\":\"i\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":1,\
             \"delta\":{\"role\":\"assistant\",\"content\":\"a\\\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        );
        let last = ChoiceFrame { finish_reason: Some("stop"), ..ChoiceFrame::default() };
        check(
            Endpoint::Completions,
            |writer, out| writer.write_piece(last, out),
            "data: {\"id\":\"i\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\
             \"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        );
        check(
            Endpoint::Chat,
            |writer, out| writer.write_end(USAGE, out),
            "data: {\"id\":\"i\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[],\
             \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n",
        );
    }

    #[test]
    fn whole_answers_are_written_as_hosts_write_them() {
        check(
            Endpoint::Chat,
            |writer, out| writer.write_whole([("Hi".to_owned(), "length")].into_iter(), USAGE, out),
            "{\"id\":\"i\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\
             \"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"logprobs\":null,\"finish_reason\":\"length\"}],\
             \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}",
        );
        check(
            Endpoint::Embeddings,
            |writer, out| writer.write_embeddings([vec![0.5]].into_iter(), Usage { output: 0, ..USAGE }, out),
            "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5]}],\"model\":\"m\",\
             \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0,\"total_tokens\":3}}",
        );
    }
}
