//! The objects OpenAI sends, with its keys in its order, and the headers it sends.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{journal::Request, script::Script};

/// Tokens as the provider reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, the cached ones included.
    pub prompt: u64,
    /// Tokens of the prompt that came from the provider's cache.
    pub cached: u64,
    /// Tokens of the answer, the reasoning included.
    pub completion: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { prompt: 20, cached: 0, completion: 10, reasoning: 0 }
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning, "audio_tokens": 0},
        })
        .serialize(serializer)
    }
}

#[derive(Clone, Serialize)]
pub(super) struct ChatChoice {
    pub(super) index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<Message>,
    pub(super) logprobs: (),
    pub(super) finish_reason: Option<&'static str>,
}

/// A message, or the part of one in a frame.
#[derive(Clone, Default, Serialize)]
pub(super) struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    /// `Some(None)` is `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Vec<Call>>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct Call {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) function: Function,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'static str>,
    pub(super) arguments: String,
}

#[derive(Serialize)]
pub(super) struct TextChoice {
    pub(super) text: String,
    pub(super) index: u64,
    pub(super) logprobs: (),
    pub(super) finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Envelope<Choice> {
    id: String,
    object: &'static str,
    created: u64,
    model: Value,
    system_fingerprint: &'static str,
    choices: Vec<Choice>,
    /// `Some(None)` is `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

/// The prefix of the id, and the name of the object.
pub(super) type Kind = (&'static str, &'static str);

/// One object with all choices.
pub(super) fn whole<Choice: Serialize>(request: &Request, kind: Kind, choices: Vec<Choice>, usage: Usage) -> Script {
    let body = envelope(request, kind, choices, Some(Some(usage)));
    as_openai(Script::status(200)).header("content-type", "application/json").body(body)
}

/// One frame per choice, the usage if asked for, and the end.
pub(super) fn streamed<Choice: Serialize>(request: &Request, kind: Kind, frames: Vec<Choice>, usage: Usage) -> Script {
    let asked = request.json()["stream_options"]["include_usage"] == true;
    let no_usage_yet = asked.then_some(None);
    let mut script = as_openai(Script::sse());
    for choice in frames {
        script = script.frame(&envelope(request, kind, vec![choice], no_usage_yet));
    }
    if asked {
        let none: Vec<Choice> = Vec::new();
        script = script.frame(&envelope(request, kind, none, Some(Some(usage))));
    }
    script.done()
}

/// The error object OpenAI sends.
pub(super) fn error(message: &str, kind: &str, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// The headers OpenAI sends with every answer, including those that must not be forwarded.
pub(super) fn as_openai(script: Script) -> Script {
    script
        .header("x-request-id", "req_of_the_provider")
        .header("openai-organization", "org-of-the-operator")
        .header("openai-processing-ms", "12")
        .header("openai-version", "2020-10-01")
        .header("x-ratelimit-remaining-requests", "41")
        .header("set-cookie", "__cf_bm=of-the-provider; path=/")
}

fn envelope<Choice: Serialize>(
    request: &Request,
    (prefix, object): Kind,
    choices: Vec<Choice>,
    usage: Option<Option<Usage>>,
) -> String {
    let envelope = Envelope {
        // Of constant length, so that a cut at a byte is at the same place for every request.
        id: format!("{prefix}-{}-{:07}", request.provider, request.number),
        object,
        created: 1_700_000_000,
        model: request.json()["model"].take(),
        system_fingerprint: "fp_scripted",
        choices,
        usage,
    };
    serde_json::to_string(&envelope).expect("plain data is JSON")
}
