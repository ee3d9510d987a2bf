//! Ready-made answers in OpenAI's format, including the order of the keys.
//!
//! They follow the request: its model is echoed, and its `n` and `stream_options.include_usage` are
//! honoured. Numbers are fixed; the id names the provider and the request.

use serde_json::json;

use super::{
    journal::Request,
    openai::{Call, ChatChoice, Function, Message, TextChoice, Usage, as_openai, streamed, whole},
    script::Script,
};

/// A function call that the model asks for.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, JSON as text.
    pub arguments: &'static str,
}

/// A chat answer in detail: `Chat { text: "Hi".into(), ..Chat::default() }`.
#[derive(Clone, Debug)]
pub struct ChatAnswer {
    /// The text of the answer.
    pub text: String,
    /// Number of content frames of a stream; at most one per character.
    pub frames: usize,
    /// Reasoning before the text, in the same number of frames; none when empty.
    pub reasoning: String,
    /// Calls instead of the text, their arguments in the same number of frames; none when empty.
    pub tool_calls: Vec<ToolCall>,
    /// The tokens reported.
    pub usage: Usage,
}

impl Default for ChatAnswer {
    fn default() -> Self {
        Self {
            text: "Hello".to_owned(),
            frames: 1,
            reasoning: String::new(),
            tool_calls: Vec::new(),
            usage: Usage::default(),
        }
    }
}

/// A chat answer, streamed when the request asks for a stream.
pub fn chat(chat: ChatAnswer) -> Script {
    Script::by(move |request| match request.streams() {
        true => chat.streamed(request),
        false => chat.whole(request),
    })
}

/// A whole chat answer, even when the request asks for a stream.
pub fn chat_whole(text: &str) -> Script {
    let chat = ChatAnswer { text: text.to_owned(), ..ChatAnswer::default() };
    Script::by(move |request| chat.whole(request))
}

/// A streamed chat answer, even when the request asks for a whole one: a role frame, `frames` frames of
/// content, a frame with the finish reason, a usage frame if asked for, and `[DONE]`. With `n` > 1, each
/// but the last two once per choice.
pub fn chat_stream(text: &str, frames: usize) -> Script {
    let chat = ChatAnswer { text: text.to_owned(), frames, ..ChatAnswer::default() };
    Script::by(move |request| chat.streamed(request))
}

/// An answer to `/v1/completions`, in `frames` frames of text when the request asks for a stream.
pub fn completion(text: &str, frames: usize) -> Script {
    let text = text.to_owned();
    Script::by(move |request| {
        let choice =
            |text: &str, finish_reason| TextChoice { text: text.to_owned(), index: 0, logprobs: (), finish_reason };
        let object = ("cmpl", "text_completion");
        if !request.streams() {
            let choices = vec![choice(&text, Some("stop"))];
            return whole(request, object, choices, Usage::default());
        }
        let mut choices: Vec<_> = split(&text, frames).iter().map(|piece| choice(piece, None)).collect();
        choices.push(choice("", Some("stop")));
        streamed(request, object, choices, Usage::default())
    })
}

/// An answer to `/v1/embeddings`: one vector of `dimensions` numbers per input.
pub fn embeddings(dimensions: usize) -> Script {
    Script::by(move |request| {
        let body = request.json();
        let inputs = body["input"].as_array().map_or(1, Vec::len);
        let data = (0..inputs).map(|index| {
            let first = index * dimensions;
            let vector: Vec<_> = (first..first + dimensions).map(|at| at as f64 / 8.0).collect();
            json!({"object": "embedding", "index": index, "embedding": vector})
        });
        as_openai(Script::status(200)).json(&json!({
            "object": "list",
            "data": data.collect::<Vec<_>>(),
            "model": body["model"],
            "usage": {"prompt_tokens": 20, "total_tokens": 20},
        }))
    })
}

impl ChatAnswer {
    fn whole(&self, request: &Request) -> Script {
        let calls = !self.tool_calls.is_empty();
        let message = Message {
            role: Some("assistant"),
            content: Some((!calls).then(|| self.text.clone())),
            reasoning_content: Some(self.reasoning.clone()).filter(|text| !text.is_empty()),
            tool_calls: calls.then(|| self.whole_calls()),
        };
        let choice = |index| ChatChoice {
            index,
            message: Some(message.clone()),
            delta: None,
            logprobs: (),
            finish_reason: Some(self.finish_reason()),
        };
        let choices = (0..choices(request)).map(choice).collect();
        whole(request, ("chatcmpl", "chat.completion"), choices, self.usage)
    }

    fn streamed(&self, request: &Request) -> Script {
        let mut deltas = self.deltas();
        deltas.push(Message::default());
        let last = deltas.len() - 1;
        let mut frames = Vec::new();
        for (at, delta) in deltas.into_iter().enumerate() {
            frames.extend((0..choices(request)).map(|index| ChatChoice {
                index,
                message: None,
                delta: Some(delta.clone()),
                logprobs: (),
                finish_reason: (at == last).then(|| self.finish_reason()),
            }));
        }
        let object = ("chatcmpl", "chat.completion.chunk");
        streamed(request, object, frames, self.usage)
    }

    /// The content of a stream, frame by frame, without the finish reason.
    fn deltas(&self) -> Vec<Message> {
        let calls = !self.tool_calls.is_empty();
        let mut deltas =
            vec![Message { role: Some("assistant"), content: Some((!calls).then(String::new)), ..Message::default() }];
        deltas.extend(
            split(&self.reasoning, self.frames)
                .into_iter()
                .map(|piece| Message { reasoning_content: Some(piece), ..Message::default() }),
        );
        if calls {
            deltas.extend(self.call_deltas());
        } else {
            deltas.extend(
                split(&self.text, self.frames)
                    .into_iter()
                    .map(|piece| Message { content: Some(Some(piece)), ..Message::default() }),
            );
        }
        deltas
    }

    fn call_deltas(&self) -> Vec<Message> {
        let delta = |call| Message { tool_calls: Some(vec![call]), ..Message::default() };
        let mut deltas = Vec::new();
        for (index, mut call) in self.whole_calls().into_iter().enumerate() {
            let arguments = std::mem::take(&mut call.function.arguments);
            call.index = Some(index);
            deltas.push(delta(call));
            deltas.extend(split(&arguments, self.frames).into_iter().map(|arguments| {
                delta(Call { index: Some(index), function: Function { name: None, arguments }, ..Call::default() })
            }));
        }
        deltas
    }

    fn whole_calls(&self) -> Vec<Call> {
        let calls = self.tool_calls.iter().enumerate();
        calls
            .map(|(at, call)| Call {
                index: None,
                id: Some(format!("call_{at}")),
                kind: Some("function"),
                function: Function { name: Some(call.name), arguments: call.arguments.to_owned() },
            })
            .collect()
    }

    fn finish_reason(&self) -> &'static str {
        match self.tool_calls.is_empty() {
            true => "stop",
            false => "tool_calls",
        }
    }
}

fn choices(request: &Request) -> u64 {
    request.json()["n"].as_u64().unwrap_or(1)
}

/// Cuts `text` into `pieces` of nearly the same number of characters, none of them empty.
fn split(text: &str, pieces: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces = pieces.clamp(1, characters.len().max(1));
    let bound = |piece: usize| piece * characters.len() / pieces;
    (0..pieces)
        .map(|piece| characters[bound(piece)..bound(piece + 1)].iter().collect())
        .filter(|piece: &String| !piece.is_empty())
        .collect()
}
