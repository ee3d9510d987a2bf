//! The dialects that clients and hosts speak to each other, each with a request, an answer and an error of its own.
//!
//! Everything is in the spelling of the dialect's own host. It never depends on the gateway: what a complete answer is, is
//! said here once more.

use super::client::{BodyEnd, Response};
use super::journal::Request;
use super::script::Script;
use super::{ChatAnswer, chat};
use serde_json::{Value, json};

/// What is spoken at one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestDialect {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
}

impl TestDialect {
    /// What is spoken at this path.
    pub fn of(path: &str) -> Self {
        match path.split('?').next().unwrap_or_default() {
            path if path.contains("/messages") => Self::Messages,
            path if path.contains("/responses") => Self::Responses,
            _ => Self::Chat,
        }
    }

    /// Where it is spoken.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
        }
    }

    /// `protocol` of a provider that speaks it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "openai",
            Self::Messages => "anthropic",
        }
    }

    /// A line of a model that serves it.
    pub fn served(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages => "",
            Self::Responses => "endpoints = [\"chat\", \"responses\"]\n",
        }
    }

    /// A body with more members, each with a comma before it.
    pub fn body(self, model: &str, stream: bool, members: &str) -> String {
        let rest = match self {
            Self::Chat => r#""messages":[{"role":"user","content":"Hi"}]"#,
            Self::Messages => r#""max_tokens":64,"messages":[{"role":"user","content":"Hi"}]"#,
            Self::Responses => r#""input":"Hi""#,
        };
        format!(r#"{{"model":"{model}","stream":{stream},{rest}{members}}}"#)
    }

    /// The events of a stream that says `text` in two parts; the first of them is number [`opening`](Self::opening).
    pub fn frames(self, text: &str) -> Vec<String> {
        let half = text.floor_char_boundary(text.len() / 2);
        let (one, two) = (json!(&text[..half]), json!(&text[half..]));
        let named = |name: &str, rest: String| format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n");
        match self {
            Self::Chat => {
                let frame = |delta: String, end: &str| {
                    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{end}}}]}}\n\n")
                };
                vec![
                    frame(r#"{"role":"assistant"}"#.to_owned(), "null"),
                    frame(format!("{{\"content\":{one}}}"), "null"),
                    frame(format!("{{\"content\":{two}}}"), "null"),
                    frame("{}".to_owned(), "\"stop\""),
                    "data: [DONE]\n\n".to_owned(),
                ]
            }
            Self::Messages => {
                let delta = |text: &Value| format!(r#","index":0,"delta":{{"type":"text_delta","text":{text}}}"#);
                vec![
                    named("message_start", r#","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":20,"cache_read_input_tokens":300,"output_tokens":1}}"#.to_owned()),
                    named("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#.to_owned()),
                    named("ping", String::new()),
                    named("content_block_delta", delta(&one)),
                    named("content_block_delta", delta(&two)),
                    named("content_block_stop", r#","index":0"#.to_owned()),
                    named("message_delta", r#","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":50}"#.to_owned()),
                    named("message_stop", String::new()),
                ]
            }
            Self::Responses => {
                let numbered =
                    |name: &str, number: u32, rest: String| named(name, format!(",\"sequence_number\":{number}{rest}"));
                vec![
                    numbered(
                        "response.created",
                        0,
                        r#","response":{"id":"resp_1","status":"in_progress","output":[]}"#.to_owned(),
                    ),
                    numbered(
                        "response.in_progress",
                        1,
                        r#","response":{"id":"resp_1","status":"in_progress","output":[]}"#.to_owned(),
                    ),
                    numbered(
                        "response.output_item.added",
                        2,
                        r#","output_index":0,"item":{"type":"message","id":"msg_1","content":[]}"#.to_owned(),
                    ),
                    numbered("response.output_text.delta", 3, format!(",\"item_id\":\"msg_1\",\"delta\":{one}")),
                    numbered("response.output_text.delta", 4, format!(",\"item_id\":\"msg_1\",\"delta\":{two}")),
                    numbered("response.output_text.done", 5, format!(",\"text\":{}", json!(text))),
                    numbered("response.completed", 6, format!(",\"response\":{}", self.whole(text))),
                ]
            }
        }
    }

    /// How many events of a stream come before the first part of its text.
    pub fn opening(self) -> usize {
        match self {
            Self::Chat => 1,
            Self::Messages | Self::Responses => 3,
        }
    }

    /// A whole answer.
    pub fn whole(self, text: &str) -> String {
        let text = json!(text);
        match self {
            Self::Chat => format!(
                r#"{{"choices":[{{"index":0,"message":{{"role":"assistant","content":{text}}},"finish_reason":"stop"}}]}}"#
            ),
            Self::Messages => format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":{text}}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":20,"cache_read_input_tokens":300,"output_tokens":50}}}}"#
            ),
            Self::Responses => format!(
                r#"{{"id":"resp_1","object":"response","status":"completed","error":null,"model":"m","output":[{{"type":"message","id":"msg_1","role":"assistant","content":[{{"type":"output_text","text":{text},"annotations":[]}}]}}],"usage":{{"input_tokens":20,"output_tokens":50,"total_tokens":70}}}}"#
            ),
        }
    }

    /// An answer that says `text`, streamed where that is asked for.
    pub fn answer(self, text: &str) -> Script {
        if self == Self::Chat {
            return chat(ChatAnswer { text: text.to_owned(), ..ChatAnswer::default() });
        }
        let text = text.to_owned();
        Script::by(move |request| match request.streams() {
            true => self.frames(&text).into_iter().fold(Script::sse(), Script::body),
            false => Script::status(200).header("content-type", "application/json").body(self.whole(&text)),
        })
    }

    /// The body of an error.
    pub fn error(self, status: u16, message: &str, kind: &str, code: Option<&str>) -> Value {
        match self {
            Self::Chat | Self::Responses => super::openai::error(message, kind, code),
            Self::Messages => {
                let kind = match status {
                    401 => "authentication_error",
                    404 => "not_found_error",
                    429 => "rate_limit_error",
                    529 => "overloaded_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_theirs"})
            }
        }
    }

    /// An error in the place of an event of a stream.
    pub fn error_event(self, message: &str) -> Value {
        match self {
            Self::Chat | Self::Messages => self.error(500, message, "server_error", None),
            Self::Responses => {
                json!({"type": "error", "sequence_number": 0, "code": "server_error", "message": message})
            }
        }
    }

    /// The text of a complete answer; otherwise what is wrong with it.
    pub fn text_of(self, answer: &Response) -> Result<String, String> {
        if self == Self::Chat {
            return answer.chat_text();
        }
        if answer.status != 200 || answer.end != BodyEnd::Clean {
            return Err(format!("{} ending {:?}: {}", answer.status, answer.end, answer.text()));
        }
        let is_stream = answer.header("content-type").is_some_and(|form| form.starts_with("text/event-stream"));
        let said = |value: &Value| value.as_str().map(str::to_owned);
        if !is_stream {
            let json = answer.json();
            let found = match self {
                Self::Chat => Value::Null,
                Self::Messages => json["content"][0]["text"].clone(),
                Self::Responses => json["output"][0]["content"][0]["text"].clone(),
            };
            return said(&found).ok_or_else(|| answer.text().to_owned());
        }
        let events: Vec<Value> = answer.frames().iter().map(|frame| frame.json()).collect();
        let delta =
            |event: &Value| said(if self == Self::Messages { &event["delta"]["text"] } else { &event["delta"] });
        match events.last().is_some_and(|last| last["type"] == self.last_event()) {
            true => Ok(events.iter().filter_map(delta).collect()),
            false => Err(format!("a stream without its end: {}", answer.text())),
        }
    }

    /// The type of the event that ends a complete stream.
    pub fn last_event(self) -> &'static str {
        match self {
            Self::Chat => "[DONE]",
            Self::Messages => "message_stop",
            Self::Responses => "response.completed",
        }
    }
}

/// What a host says that speaks every dialect: "Hello", in that of the path it is asked at.
pub fn hello() -> Script {
    Script::by(|request: &Request| TestDialect::of(&request.path).answer("Hello"))
}
