//! The ready-made answers compared with what OpenAI sends.

use serde_json::{Value, json};

use super::{STREAM, WHOLE, asked};
use crate::support::{
    ChatAnswer, Script, ScriptedProvider, ToolCall, Usage, chat, chat_stream, chat_whole, completion, embeddings,
};

/// The answer of `script` to `request`: the whole object, or the data of each frame.
async fn answer_of(script: Script, request: &str) -> Vec<String> {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(script);
    let response = asked(&provider, request).await.response().await;
    match response.header("content-type") {
        Some("application/json") => vec![response.text().to_owned()],
        _ => response.frames().iter().filter_map(|frame| frame.data()).collect(),
    }
}

async fn json_answer_of(script: Script, request: &str) -> Vec<Value> {
    let answer_of = answer_of(script, request).await;
    let json = answer_of.iter().filter(|data| *data != "[DONE]");
    json.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// The value at `pointer` in each frame.
fn each(frames: &[Value], pointer: &str) -> Vec<Value> {
    let values = frames.iter().map(|frame| frame.pointer(pointer));
    values.map(|value| value.cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_stream_equals_what_openai_sends_byte_for_byte() {
    let frame = |delta: &str, finish: &str| {
        format!(
            r#"{{"id":"chatcmpl-eu-0000001","object":"chat.completion.chunk","created":1700000000,"model":"small","system_fingerprint":"fp_scripted","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}"#
        )
    };
    assert_eq!(
        answer_of(chat_stream("Hällo", 2), STREAM).await,
        [
            frame(r#"{"role":"assistant","content":""}"#, "null"),
            frame(r#"{"content":"Hä"}"#, "null"),
            frame(r#"{"content":"llo"}"#, "null"),
            frame("{}", r#""stop""#),
            "[DONE]".to_owned(),
        ]
    );
}

#[tokio::test]
async fn usage_comes_in_a_frame_of_its_own_when_it_is_asked_for() {
    let asking = r#"{"model":"small","stream":true,"stream_options":{"include_usage":true}}"#;
    let answer_of = answer_of(chat_stream("Hello", 1), asking).await;
    let (frames, last) = answer_of.split_at(answer_of.len() - 2);
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| frame.ends_with(r#"],"usage":null}"#)));
    let usage: Value = serde_json::from_str(&last[0]).unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], 20);
    assert_eq!(usage["usage"]["completion_tokens"], 10);
    assert_eq!(last[1], "[DONE]");
}

#[tokio::test]
async fn a_whole_answer_carries_its_usage() {
    let usage = Usage { prompt: 100, cached: 60, completion: 30, reasoning: 5 };
    let script = chat(ChatAnswer { text: "Hi".to_owned(), usage, ..ChatAnswer::default() });
    let answer_of = answer_of(script, WHOLE).await;
    assert!(answer_of[0].starts_with(
        r#"{"id":"chatcmpl-eu-0000001","object":"chat.completion","created":1700000000,"model":"small","system_fingerprint":"fp_scripted","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}],"usage":{"#
    ));
    let answer_of: Value = serde_json::from_str(&answer_of[0]).unwrap();
    assert_eq!(
        answer_of["usage"],
        json!({
            "prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
        })
    );
}

#[tokio::test]
async fn every_choice_asked_for_is_answered() {
    let two = r#"{"model":"small","stream":true,"n":2}"#;
    let frames = json_answer_of(chat_stream("Hello", 1), two).await;
    let indices = each(&frames, "/choices/0/index");
    assert_eq!(indices, [0, 1, 0, 1, 0, 1]);
    let finished = each(&frames[4..], "/choices/0/finish_reason");
    assert_eq!(finished, ["stop", "stop"]);

    let whole = json_answer_of(chat_whole("Hello"), r#"{"model":"small","n":2}"#).await;
    assert_eq!(whole[0]["choices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tools_are_called_in_pieces_or_whole() {
    let script = chat(ChatAnswer {
        frames: 2,
        tool_calls: vec![
            ToolCall { name: "weather", arguments: r#"{"in":"Rome"}"# },
            ToolCall { name: "time", arguments: "{}" },
        ],
        ..ChatAnswer::default()
    });
    let frames = json_answer_of(script.clone(), STREAM).await;
    let first = "/choices/0/delta/tool_calls/0";
    assert_eq!(frames[0].pointer("/choices/0/delta/content"), Some(&Value::Null));
    assert_eq!(each(&frames[1..7], &format!("{first}/index")), [0, 0, 0, 1, 1, 1]);
    assert_eq!(
        frames[1].pointer(first).unwrap(),
        &json!({"index": 0, "id": "call_0", "type": "function", "function": {"name": "weather", "arguments": ""}})
    );
    let arguments = each(&frames[2..4], &format!("{first}/function/arguments"));
    assert_eq!(arguments, [r#"{"in":"#, r#""Rome"}"#]);
    assert_eq!(frames[7].pointer("/choices/0/finish_reason").unwrap(), "tool_calls");
    assert_eq!(frames.len(), 8);

    let whole = json_answer_of(script, WHOLE).await;
    let message = whole[0].pointer("/choices/0/message").unwrap();
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][1]["function"]["arguments"], "{}");
    assert_eq!(whole[0]["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn reasoning_comes_before_the_text() {
    let script = chat(ChatAnswer { reasoning: "Hm".to_owned(), frames: 2, ..ChatAnswer::default() });
    let frames = json_answer_of(script.clone(), STREAM).await;
    let reasoning = each(&frames, "/choices/0/delta/reasoning_content");
    assert_eq!(reasoning, [Value::Null, json!("H"), json!("m"), Value::Null, Value::Null, Value::Null]);
    let whole = json_answer_of(script, WHOLE).await;
    assert_eq!(whole[0]["choices"][0]["message"]["reasoning_content"], "Hm");
}

#[tokio::test]
async fn completions_answer_with_text() {
    let frames = json_answer_of(completion("Hello", 2), STREAM).await;
    assert_eq!(each(&frames, "/choices/0/text"), ["He", "llo", ""]);
    assert_eq!(frames[2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(frames[2]["object"], "text_completion");
    let whole = json_answer_of(completion("Hello", 2), WHOLE).await;
    assert_eq!(whole[0]["choices"][0]["text"], "Hello");
    assert_eq!(whole[0]["usage"]["total_tokens"], 30);
}

#[tokio::test]
async fn there_is_one_embedding_per_input() {
    let two = json_answer_of(embeddings(3), r#"{"model":"vec","input":["a","b"]}"#).await;
    assert_eq!(each(&two, "/model"), ["vec"]);
    assert_eq!(two[0]["data"][1]["index"], 1);
    assert_eq!(two[0]["data"][1]["embedding"], json!([0.375, 0.5, 0.625]));
    let one = json_answer_of(embeddings(3), r#"{"model":"vec","input":"a"}"#).await;
    assert_eq!(one[0]["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_carry_headers_that_must_not_be_forwarded() {
    let provider = ScriptedProvider::start("eu").await;
    let response = asked(&provider, WHOLE).await.response().await;
    for name in ["set-cookie", "openai-organization", "x-ratelimit-remaining-requests"] {
        assert!(response.header(name).is_some(), "{name}");
    }
}
