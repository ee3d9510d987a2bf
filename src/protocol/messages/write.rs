//! Answers of Messages that we make up ourselves: text, whole or streamed, and counts of tokens.
//!
//! Start reading in [`MessagesWriter`].

use crate::domain::usage::Usage;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes one answer, of one block of text.
pub struct MessagesWriter<'a> {
    /// Its id.
    pub id: &'a str,
    /// The model that it is said to be of.
    pub model: &'a str,
}

impl MessagesWriter<'_> {
    /// The events that a stream begins with.
    pub fn write_start(&self, input_tokens: u64, out: &mut BytesMut) {
        let message = self.message(json!([]), None, Usage { input: input_tokens, ..Usage::default() });
        write_event("message_start", &json!({"type": "message_start", "message": message}), out);
        let block = json!({"type": "text", "text": ""});
        write_event(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0, "content_block": block}),
            out,
        );
    }

    /// The event of a further piece of text.
    pub fn write_piece(&self, text: &str, out: &mut BytesMut) {
        let delta = json!({"type": "text_delta", "text": text});
        write_event("content_block_delta", &json!({"type": "content_block_delta", "index": 0, "delta": delta}), out);
    }

    /// The events that a stream ends with.
    pub fn write_end(&self, stop_reason: &str, output_tokens: u64, out: &mut BytesMut) {
        write_event("content_block_stop", &json!({"type": "content_block_stop", "index": 0}), out);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": null});
        let usage = json!({"output_tokens": output_tokens});
        write_event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage}), out);
        write_event("message_stop", &json!({"type": "message_stop"}), out);
    }

    /// A whole answer.
    pub fn write_whole(&self, text: &str, stop_reason: &str, usage: Usage, out: &mut BytesMut) {
        write_json(&self.message(json!([{"type": "text", "text": text}]), Some(stop_reason), usage), out);
    }

    fn message(&self, content: Value, stop_reason: Option<&str>, usage: Usage) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {
                "input_tokens": usage.input,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": usage.output,
            },
        })
    }
}

/// The answer to a call that counts tokens.
pub fn write_count(input_tokens: u64, out: &mut BytesMut) {
    write_json(&json!({"input_tokens": input_tokens}), out);
}

fn write_event(name: &str, event: &Value, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_json(event, out);
    out.extend_from_slice(b"\n\n");
}

fn write_json(value: &impl Serialize, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("texts and numbers always serialise");
}
