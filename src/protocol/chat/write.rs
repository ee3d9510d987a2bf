//! Answers of chat completions, completions and embeddings as a host writes them, streamed or whole.
//!
//! It never chooses what is said, and knows neither time nor chance: both come with what is to be written.
//!
//! Start reading in [`ChatWriter`].

use crate::domain::call::Endpoint;
use crate::domain::usage::Usage;
use crate::protocol::chat::answer::DONE_FRAME;
use crate::protocol::chat::form::ToolKind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    /// More of its text, or of what its tool call is called with.
    pub content: Option<&'a str>,
    /// The tool call that it is.
    pub call: Option<WrittenToolCall<'a>>,
    /// Why it ends, in its last piece.
    pub finish_reason: Option<&'static str>,
}

/// A tool call, aside from what the tool is called with.
#[derive(Clone, Copy, Debug)]
pub struct WrittenToolCall<'a> {
    /// How the tool was described.
    pub kind: ToolKind,
    /// The call's id and the tool's name: in a stream, in its first piece only.
    pub head: Option<(&'a str, &'a str)>,
}

/// One choice of a whole answer.
#[derive(Debug)]
pub struct AnswerChoice<'a> {
    /// Its text, or what its tool call is called with.
    pub content: String,
    /// The tool call that it is.
    pub call: Option<WrittenToolCall<'a>>,
    /// Why it ends.
    pub finish_reason: &'static str,
}

impl ChatWriter<'_> {
    /// What ids of answers on `endpoint` begin with.
    pub fn id_prefix(endpoint: Endpoint) -> &'static str {
        match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
            Endpoint::Embeddings => "embd",
            Endpoint::Messages
            | Endpoint::CountTokens
            | Endpoint::Responses
            | Endpoint::InputTokens
            | Endpoint::Conversations
            | Endpoint::StoredResponses => "msg",
        }
    }

    /// A frame with `piece`.
    pub fn write_piece(&self, piece: ChoiceFrame<'_>, out: &mut BytesMut) {
        let ChoiceFrame { index, role, content, call, finish_reason } = piece;
        let (delta, text) = match self.endpoint {
            Endpoint::Chat => (Some(MessageObject::new(role, content.map(Into::into), call, Some(0))), None),
            _ => (None, Some(content.unwrap_or_default().into())),
        };
        let choice = ChoiceObject { index, message: None, delta, text, logprobs: None, finish_reason };
        self.write_frame(vec![choice], None, out);
    }

    /// The last frames of a stream: its usage and its end.
    pub fn write_end(&self, usage: Usage, out: &mut BytesMut) {
        self.write_frame(Vec::new(), Some(usage.into()), out);
        out.extend_from_slice(DONE_FRAME);
    }

    /// A whole completion.
    pub fn write_whole<'c>(&self, choices: impl Iterator<Item = AnswerChoice<'c>>, usage: Usage, out: &mut BytesMut) {
        let choice = |(index, written): (usize, AnswerChoice<'c>)| {
            let AnswerChoice { content, call, finish_reason } = written;
            let content = Some(content.into());
            let (message, text) = match self.endpoint {
                Endpoint::Chat => (Some(MessageObject::new(Some("assistant"), content, call, None)), None),
                _ => (None, content),
            };
            let finish_reason = Some(finish_reason);
            ChoiceObject { index, message, delta: None, text, logprobs: None, finish_reason }
        };
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            _ => "text_completion",
        };
        write_json(&self.completion(object, choices.enumerate().map(choice).collect(), Some(usage.into())), out);
    }

    /// A list of embeddings, one for each input; with `base64` as the bytes of little-endian 32-bit floats.
    pub fn write_embeddings(
        &self,
        vectors: impl Iterator<Item = Vec<f32>>,
        base64: bool,
        usage: Usage,
        out: &mut BytesMut,
    ) {
        let embedding = |(index, vector): (usize, Vec<f32>)| {
            let embedding = match base64 {
                true => VectorObject::Base64(
                    STANDARD.encode(vector.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()),
                ),
                false => VectorObject::Numbers(vector),
            };
            EmbeddingObject { object: "embedding", index, embedding }
        };
        let data = vectors.enumerate().map(embedding).collect();
        write_json(&EmbeddingsObject { object: "list", data, model: self.model, usage: usage.into() }, out);
    }

    fn write_frame(&self, choices: Vec<ChoiceObject<'_>>, usage: Option<ChatUsageObject>, out: &mut BytesMut) {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
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
    content: Option<MessageText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCallObject<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCallObject<'a>>,
}

/// Beside a tool call there is no text, and that is said.
#[derive(Serialize)]
#[serde(untagged)]
enum MessageText<'a> {
    Text(Cow<'a, str>),
    None,
}

#[derive(Serialize)]
struct ToolCallObject<'a> {
    /// In a stream, the place of the call among those of its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionCallObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<CustomCallObject<'a>>,
}

#[derive(Serialize)]
struct FunctionCallObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct CustomCallObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    input: Cow<'a, str>,
}

impl<'a> MessageObject<'a> {
    /// `index` is the place of a call among those of its message, in a stream.
    fn new(
        role: Option<&'static str>,
        content: Option<Cow<'a, str>>,
        call: Option<WrittenToolCall<'a>>,
        index: Option<usize>,
    ) -> Self {
        let mut message = Self { role, content: None, tool_calls: None, function_call: None };
        let Some(WrittenToolCall { kind, head }) = call else {
            return Self { content: content.map(MessageText::Text), ..message };
        };
        let (id, name) = head.unzip();
        let input = content.unwrap_or_default();
        message.content = role.map(|_| MessageText::None);
        let called = ToolCallObject { index, id, kind: None, function: None, custom: None };
        match kind {
            ToolKind::Legacy => message.function_call = Some(FunctionCallObject { name, arguments: input }),
            ToolKind::Function => {
                let function = Some(FunctionCallObject { name, arguments: input });
                message.tool_calls = Some([ToolCallObject { kind: id.map(|_| "function"), function, ..called }]);
            }
            ToolKind::Custom => {
                let custom = Some(CustomCallObject { name, input });
                message.tool_calls = Some([ToolCallObject { kind: id.map(|_| "custom"), custom, ..called }]);
            }
        }
        message
    }
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
    embedding: VectorObject,
}

#[derive(Serialize)]
#[serde(untagged)]
enum VectorObject {
    Numbers(Vec<f32>),
    Base64(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::ByTokenClass;

    const USAGE: Usage = Usage { input: 3, cached_input: 0, output: 2, reasoning: 0, apart: ByTokenClass::NONE };

    fn check(endpoint: Endpoint, write: impl Fn(ChatWriter<'_>, &mut BytesMut), expected: &str) {
        let mut out = BytesMut::new();
        write(ChatWriter { endpoint, id: "i", created: 7, model: "m" }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn frames_are_written_as_hosts_write_them() {
        let piece = ChoiceFrame { index: 1, role: Some("assistant"), content: Some("a\""), ..ChoiceFrame::default() };
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
            |writer, out| {
                let choice = AnswerChoice { content: "Hi".to_owned(), call: None, finish_reason: "length" };
                writer.write_whole([choice].into_iter(), USAGE, out);
            },
            "{\"id\":\"i\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":0,\
             \"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"logprobs\":null,\"finish_reason\":\"length\"}],\
             \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}",
        );
        check(
            Endpoint::Embeddings,
            |writer, out| writer.write_embeddings([vec![0.5]].into_iter(), false, Usage { output: 0, ..USAGE }, out),
            "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5]}],\"model\":\"m\",\
             \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0,\"total_tokens\":3}}",
        );
    }
    #[test]
    fn tool_calls_are_written_as_hosts_write_them() {
        let head = Some(("call_1", "f"));
        let piece = |kind, head, role| ChoiceFrame {
            role,
            content: Some("{"),
            call: Some(WrittenToolCall { kind, head }),
            ..ChoiceFrame::default()
        };
        let check = |piece: ChoiceFrame<'_>, delta: &str| {
            let expected = format!(
                "data: {{\"id\":\"i\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[{{\"index\":0,\
                 \"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
            );
            check(Endpoint::Chat, |writer, out| writer.write_piece(piece, out), &expected);
        };
        check(
            piece(ToolKind::Function, head, Some("assistant")),
            r#"{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{"}}]}"#,
        );
        check(piece(ToolKind::Function, None, None), r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#);
        check(piece(ToolKind::Custom, None, None), r#"{"tool_calls":[{"index":0,"custom":{"input":"{"}}]}"#);
        check(piece(ToolKind::Legacy, None, None), r#"{"function_call":{"arguments":"{"}}"#);
    }
}
