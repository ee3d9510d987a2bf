//! The dialects of the mix: how each writes a request, an answer, its usage and its errors.
//!
//! Client and provider share it; the gateway has its own. Start reading in [`Dialect::usage`], which says what each counts
//! as input.

use crate::script::{Tokens, UsageReport};

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Chat,
    Messages,
    Responses,
}

impl Dialect {
    /// What is spoken behind a request line.
    pub fn of(start: &str) -> Self {
        match start {
            start if start.contains("/messages ") => Self::Messages,
            start if start.contains("/responses ") => Self::Responses,
            _ => Self::Chat,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
            Self::Responses => "/v1/responses",
        }
    }

    /// The rest of a body, with a request's number in the place of the client's user.
    pub fn members(self, tag: u64, text: &str) -> String {
        match self {
            Self::Chat => format!(r#""user":"tag-{tag}","messages":[{{"role":"user","content":"{text}"}}]"#),
            Self::Messages => {
                format!(r#""metadata":{{"user_id":"tag-{tag}"}},"messages":[{{"role":"user","content":"{text}"}}]"#)
            }
            Self::Responses => format!(r#""user":"tag-{tag}","store":false,"input":"{text}""#),
        }
    }

    /// The number that a body was sent with.
    pub fn tag(self, asked: &serde_json::Value) -> Option<u64> {
        let user = if self == Self::Messages { &asked["metadata"]["user_id"] } else { &asked["user"] };
        user.as_str()?.strip_prefix("tag-")?.parse().ok()
    }

    /// The member by which the provider reads the ceiling.
    pub fn ceiling_name(self, at_a: bool) -> &'static str {
        match self {
            Self::Chat if at_a => "max_tokens",
            Self::Chat => "max_completion_tokens",
            Self::Messages => "max_tokens",
            Self::Responses => "max_output_tokens",
        }
    }

    /// A usage object. `other_way`: by the convention of others, which is a fault.
    pub fn usage(self, report: UsageReport, tokens: Tokens, other_way: bool) -> String {
        let Tokens { input, cached, output } = tokens;
        let said = match report {
            UsageReport::Negative => format!("-{output}"),
            UsageReport::Absurd => format!("{output}000000000000"),
            _ => output.to_string(),
        };
        let total = input + output;
        match self {
            Self::Chat => format!(
                r#"{{"prompt_tokens":{input},"completion_tokens":{said},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
            ),
            // What was read from the cache is counted beside the input.
            Self::Messages => {
                let uncached = if other_way { input } else { input - cached };
                format!(r#"{{"input_tokens":{uncached},"cache_read_input_tokens":{cached},"output_tokens":{said}}}"#)
            }
            // It is a part of the input.
            Self::Responses => {
                let all = if other_way { input - cached } else { input };
                format!(
                    r#"{{"input_tokens":{all},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{said},"total_tokens":{total}}}"#
                )
            }
        }
    }

    /// A whole answer of so many tokens.
    pub fn whole(self, output: u64, usage: Option<&str>) -> String {
        let text = "tok ".repeat(output as usize);
        let usage = usage.map(|usage| format!(r#","usage":{usage}"#)).unwrap_or_default();
        match self {
            Self::Chat => format!(
                r#"{{"choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]{usage}}}"#
            ),
            Self::Messages => format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn"{usage}}}"#
            ),
            Self::Responses => format!(
                r#"{{"id":"resp_1","object":"response","status":"completed","output":[{{"type":"message","id":"msg_1","content":[{{"type":"output_text","text":"{text}"}}]}}]{usage}}}"#
            ),
        }
    }

    /// The events before the first token; of Messages the first of them counts the input.
    pub fn opening(self, report: UsageReport, tokens: Tokens, other_way: bool) -> Vec<String> {
        match self {
            Self::Chat => vec![data(r#"{"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}"#)],
            Self::Messages => {
                let begun = self.usage(UsageReport::Once, Tokens { output: 1, ..tokens }, other_way);
                let usage = if report == UsageReport::Missing { String::new() } else { format!(r#","usage":{begun}"#) };
                vec![
                    event("message_start", &format!(r#","message":{{"id":"msg_1","content":[]{usage}}}"#)),
                    event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
                ]
            }
            Self::Responses => {
                vec![event("response.created", r#","response":{"id":"resp_1","status":"in_progress","output":[]}"#)]
            }
        }
    }

    /// An event with a token, and with a count where every one has it.
    pub fn token(self, usage: Option<&str>) -> String {
        match self {
            Self::Chat => {
                let usage = usage.map(|usage| format!(r#","usage":{usage}"#)).unwrap_or_default();
                data(&format!(
                    r#"{{"choices":[{{"index":0,"delta":{{"content":"tok "}},"finish_reason":null}}]{usage}}}"#
                ))
            }
            Self::Messages => event("content_block_delta", r#","index":0,"delta":{"type":"text_delta","text":"tok "}"#),
            Self::Responses => event("response.output_text.delta", r#","item_id":"msg_1","delta":"tok ""#),
        }
    }

    /// The events behind the last token, with these counts in turn.
    pub fn closing(self, usages: &[String], late: Option<&str>) -> Vec<String> {
        let mut events = Vec::new();
        match self {
            Self::Chat => {
                events.push(data(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#));
                let counted = |usage: &str| data(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
                events.extend(usages.iter().map(|usage| counted(usage)));
                events.push(data("[DONE]"));
                events.extend(late.map(counted));
            }
            Self::Messages => {
                events.push(event("content_block_stop", r#","index":0"#));
                let delta =
                    |usage: &str| event("message_delta", &format!(r#","delta":{{"stop_reason":"end_turn"}}{usage}"#));
                let counted = |usage: &str| delta(&format!(r#","usage":{usage}"#));
                match usages {
                    [] => events.push(delta("")),
                    usages => events.extend(usages.iter().map(|usage| counted(usage))),
                }
                events.push(event("message_stop", ""));
                events.extend(late.map(counted));
            }
            Self::Responses => {
                let (last, before) =
                    usages.split_last().map_or((None, usages), |(last, before)| (Some(&**last), before));
                let counted = |usage: &str| {
                    event("response.in_progress", &format!(r#","response":{{"id":"resp_1","usage":{usage}}}"#))
                };
                events.extend(before.iter().map(|usage| counted(usage)));
                events.push(event("response.completed", &format!(r#","response":{}"#, self.whole(1, last))));
                events.extend(late.map(counted));
            }
        }
        events
    }

    /// Whether a stream that ended in good order is complete.
    pub fn is_complete(self, stream: &[u8]) -> bool {
        let last = match self {
            Self::Chat => return stream.ends_with(b"data: [DONE]\n\n"),
            Self::Messages => "event: message_stop\n",
            Self::Responses => "event: response.completed\n",
        };
        memchr::memmem::find(stream, last.as_bytes()).is_some()
    }

    /// The status and code of an error, as chat has them.
    pub fn refusal(self, status: u16, body: &[u8]) -> (u16, String) {
        let error: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let word = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        match (self, status) {
            (Self::Messages, 402) if word("type") == "billing_error" => (429, "insufficient_quota".to_owned()),
            (Self::Messages, 503) if word("message").starts_with("Money cannot be kept account of") => {
                (503, "ledger_unavailable".to_owned())
            }
            (Self::Messages, status) => (status, word("type")),
            _ => (status, word("code")),
        }
    }

    /// The body of an error of the provider.
    pub fn error(self) -> &'static str {
        match self {
            Self::Messages => r#"{"type":"error","error":{"type":"api_error","message":"busy"}}"#,
            Self::Chat | Self::Responses => r#"{"error":{"message":"busy","type":"server_error"}}"#,
        }
    }
}

fn data(json: &str) -> String {
    format!("data: {json}\n\n")
}

fn event(name: &str, rest: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n")
}
