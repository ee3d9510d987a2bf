//! Hosts whose answers are untidy and read well by every official client: wrong labels, encodings nobody asked for,
//! the other form than was asked for, junk behind the end. And answers that are none, whatever their status.
//!
//! A table for each class; a complete answer is complete for the client, and a truncation is one.

use crate::config::{Config, MODEL, chat_request};
use crate::support::{BodyEnd, Ending, Response, Script, ScriptedProvider, TestGateway};
use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use serde_json::{Value, json};
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;
use tokio::io::{AsyncWrite, AsyncWriteExt};

const HELLO: &str = r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}"#;
const STOP: &str =
    r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const WHOLE: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#;
const USAGE: &str = r#"{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#;
const DONE: &str = "data: [DONE]\n\n";

fn frame(payload: &str) -> String {
    format!("data: {payload}\n\n")
}

fn stream_request() -> String {
    chat_request(r#""stream":true,"stream_options":{"include_usage":true},"#)
}

/// The text of a stream that is complete for a client, put together from its deltas; panics for any other.
fn streamed_text(response: &Response) -> String {
    assert_eq!((response.status, response.end), (200, BodyEnd::Clean), "{response:?}");
    let label = response.header("content-type").unwrap_or_default();
    assert!(label.starts_with("text/event-stream"), "{response:?}");
    let text = response.text();
    let rest = text.strip_suffix(DONE).unwrap_or_else(|| panic!("no end in {response:?}"));
    let payloads = rest.lines().filter_map(|line| line.strip_prefix("data: "));
    let delta = |payload: &str| -> Value { serde_json::from_str(payload).expect("an official client reads it") };
    let text = |delta: Value| delta["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    payloads.map(delta).map(text).collect()
}

/// The text of a whole answer.
fn whole_text(response: &Response) -> String {
    assert_eq!((response.status, response.end), (200, BodyEnd::Clean), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    let answer = response.json();
    let choice = &answer["choices"][0];
    assert_eq!((&answer["object"], &choice["finish_reason"]), (&"chat.completion".into(), &"stop".into()));
    assert_eq!(choice["message"]["role"], "assistant");
    choice["message"]["content"].as_str().expect("a text").to_owned()
}

/// A gateway before `provider` alone.
async fn gateway(provider: &ScriptedProvider) -> TestGateway {
    TestGateway::start(&Config::of(provider).text()).await
}

async fn compressed<W: AsyncWrite + Unpin>(
    mut encoder: W,
    parts: &[&str],
    take: impl Fn(&mut W) -> Vec<u8>,
) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    for part in parts {
        encoder.write_all(part.as_bytes()).await.expect("memory takes all");
        // Each part can be decoded as soon as it is there.
        encoder.flush().await.expect("memory takes all");
        pieces.push(take(&mut encoder).into());
    }
    encoder.shutdown().await.expect("memory takes all");
    pieces.push(take(&mut encoder).into());
    pieces
}

/// `parts` in the coding called `label`, flushed after each.
async fn encoded(label: &str, parts: &[&str]) -> Vec<Bytes> {
    macro_rules! with {
        ($encoder:ty) => {
            compressed(<$encoder>::new(Vec::new()), parts, |encoder| std::mem::take(encoder.get_mut())).await
        };
    }
    match label {
        "gzip" | "x-gzip" => with!(GzipEncoder<Vec<u8>>),
        "br" => with!(BrotliEncoder<Vec<u8>>),
        "zstd" => with!(ZstdEncoder<Vec<u8>>),
        "deflate" => with!(ZlibEncoder<Vec<u8>>),
        "raw deflate" => with!(DeflateEncoder<Vec<u8>>),
        _ => parts.iter().map(|part| Bytes::copy_from_slice(part.as_bytes())).collect(),
    }
}

fn bodies(script: Script, pieces: Vec<Bytes>) -> Script {
    pieces.into_iter().filter(|piece| !piece.is_empty()).fold(script, Script::body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_judged_and_not_their_label() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let stream = [frame(HELLO), frame(STOP), frame(USAGE), DONE.to_owned()].concat();
    let starts = ["", "\u{feff}", "\n\n", ": hello\n\n", "event: message\n", "id: 1\n", "retry: 5\n\n"];
    for label in [None, Some("application/json"), Some("text/plain"), Some("text/event-stream"), Some("")] {
        let labelled = |script: Script| match label {
            Some(label) => script.header("content-type", label),
            None => script,
        };
        for start in starts {
            provider.answers(labelled(Script::status(200)).body(format!("{start}{stream}")));
            let streamed = gateway.chat(&stream_request()).await;
            assert_eq!(streamed_text(&streamed), "Hello", "{label:?} {start:?}");
            let passed = format!("{}{stream}", start.trim_start_matches('\u{feff}'));
            assert_eq!(streamed.body, passed, "{label:?}: its bytes pass as they came, but for a byte order mark");
            assert_eq!(whole_text(&gateway.chat(&chat_request("")).await), "Hello", "{label:?} {start:?}");
        }
        // Lines that no standard names, which only more bytes or a label tell from something else.
        for start in ["trace: abc\n", "}\n", "<!-- x -->\n\n"] {
            provider.answers(labelled(Script::status(200)).body(format!("{start}{stream}")));
            assert_eq!(streamed_text(&gateway.chat(&stream_request()).await), "Hello", "{label:?} {start:?}");
            assert_eq!(whole_text(&gateway.chat(&chat_request("")).await), "Hello", "{label:?} {start:?}");
        }
        for start in ["", "\u{feff}", "\n \n"] {
            provider.answers(labelled(Script::status(200)).body(format!("{start}{WHOLE}")));
            let streamed = gateway.chat(&stream_request()).await;
            assert_eq!(streamed_text(&streamed), "Hello", "{label:?} {start:?}");
            let chunk = streamed.frames()[0].json();
            assert_eq!(
                (&chunk["object"], &chunk["usage"]["total_tokens"]),
                (&"chat.completion.chunk".into(), &8.into())
            );
            let whole = gateway.chat(&chat_request("")).await;
            assert_eq!((whole.status, &whole.body[..]), (200, format!("{start}{WHOLE}").as_bytes()));
        }
    }
    for receipt in gateway.receipts(gateway.relay.entered()).await {
        let usage = receipt.usage.expect("the provider's count");
        assert_eq!((receipt.outcome, usage.input, usage.output, receipt.estimated), (Outcome::Served, 3, 5, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_may_begin_with_a_line_of_json() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let stream = [frame(HELLO), frame(STOP), DONE.to_owned()].concat();
    for end in ["\n", "\n\n"] {
        provider.answers(Script::sse().body(format!("{{\"status\":\"starting\"}}{end}{stream}")));
        assert_eq!(streamed_text(&gateway.chat(&stream_request()).await), "Hello");
        assert_eq!(whole_text(&gateway.chat(&chat_request("")).await), "Hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_nobody_asked_for_is_not_in_a_stream_that_came_whole() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    provider.answers(Script::status(200).body(WHOLE));
    let streamed = gateway.chat(&chat_request(r#""stream":true,"#)).await;
    assert_eq!(streamed_text(&streamed), "Hello");
    assert!(!streamed.text().contains("usage"), "{streamed:?}");
    assert_eq!(gateway.receipts(1).await[0].usage.map(|usage| usage.output), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codings_are_undone_as_the_bytes_come() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let parts = [frame(HELLO), frame(STOP), DONE.to_owned()];
    let stream = parts.concat();
    for coding in ["gzip", "x-gzip", "br", "zstd", "deflate", "raw deflate", "none", "Identity", "utf-8", "plain GZIP"]
    {
        let label = coding.trim_start_matches("raw ").trim_start_matches("plain ");
        let script = || Script::sse().header("content-encoding", label);
        let pieces = encoded(coding, &parts.each_ref().map(String::as_str)).await;
        provider.answers(bodies(script(), pieces.clone()));
        let streamed = gateway.chat(&stream_request()).await;
        assert_eq!((streamed.header("content-encoding"), streamed.text()), (None, stream.as_str()), "{coding}");
        // Each frame goes out as soon as its bytes are there: the provider waits for ever behind the first one.
        provider.answers(bodies(script(), pieces[..1].to_vec()).end(Ending::Stall));
        let mut client = gateway.connect().await;
        client
            .post("/v1/chat/completions", &[("authorization", crate::support::gateway::BEARER)], &stream_request())
            .await;
        assert_eq!(client.head().await.0, 200, "{coding}");
        assert_eq!(client.frame().await.expect("the first frame").raw, frame(HELLO), "{coding}");
        drop(client);
        // Cut within the coding, before the finish: a truncation.
        provider.answers(bodies(script(), pieces[..1].to_vec()));
        let cut = gateway.chat(&stream_request()).await;
        assert!(cut.end != BodyEnd::Clean && !cut.text().contains("[DONE]"), "{coding}: {cut:?}");

        let whole = encoded(coding, &[WHOLE]).await;
        provider.answers(bodies(Script::status(200).header("content-encoding", label), whole));
        assert_eq!(gateway.chat(&chat_request("")).await.text(), WHOLE, "{coding}");
        let error = r#"{"error":{"message":"no such thing","type":"invalid_request_error"}}"#;
        let refused = encoded(coding, &[error]).await;
        provider.answers(bodies(Script::status(400).header("content-encoding", label), refused));
        let refused = gateway.chat(&chat_request("")).await;
        assert_eq!((refused.status, refused.text()), (400, error), "{coding}");
        assert_eq!(refused.header("content-encoding"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coding_that_no_header_names_is_undone() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let stream = [frame(HELLO), frame(STOP), DONE.to_owned()].concat();
    for coding in ["gzip", "zstd"] {
        provider.answers(bodies(Script::sse(), encoded(coding, &[&stream]).await));
        assert_eq!(gateway.chat(&stream_request()).await.text(), stream, "{coding}");
        provider.answers(bodies(Script::status(200), encoded(coding, &[WHOLE]).await));
        assert_eq!(gateway.chat(&chat_request("")).await.text(), WHOLE, "{coding}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stacked_codings_are_undone_in_turn_and_a_broken_one_is_no_answer() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let inner = encoded("gzip", &[WHOLE]).await.concat();
    let mut outer = BrotliEncoder::new(Vec::new());
    outer.write_all(&inner).await.expect("memory takes all");
    outer.shutdown().await.expect("memory takes all");
    provider.answers(Script::status(200).header("content-encoding", "gzip, identity, br").body(outer.into_inner()));
    assert_eq!(gateway.chat(&chat_request("")).await.text(), WHOLE);
    let check = async |label: &str, body: Vec<u8>, reason: Reason| {
        provider.answers(Script::status(200).header("content-encoding", label).body(body));
        assert_eq!(gateway.chat(&chat_request("")).await.status, 502, "{label}");
        let receipts = gateway.receipts(gateway.relay.entered()).await;
        assert_eq!(receipts.last().map(|receipt| receipt.reason), Some(reason), "{label}");
    };
    check("gzip", inner[..inner.len() / 2].to_vec(), Reason::Truncated).await;
    let mut broken = inner.clone();
    broken[12] ^= 0xff;
    broken[13] ^= 0xff;
    broken[14] ^= 0xff;
    check("gzip", broken, Reason::Garbage).await;
    check("gzip,gzip,gzip,gzip,gzip", inner, Reason::Unreadable).await;
    // A small body that expands to more than any answer may have.
    let mut bomb = GzipEncoder::new(Vec::new());
    for _ in 0..65 {
        bomb.write_all(&[b' '; 1 << 20]).await.expect("memory takes all");
    }
    bomb.shutdown().await.expect("memory takes all");
    check("gzip", bomb.into_inner(), Reason::Unreadable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_finished_answer_changes_nothing() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let whole = [frame(HELLO), frame(STOP), frame(USAGE)].concat();
    let junk =
        ["", "data: {\"error\":{\"message\":\"late\"}}\n\n", "data: {oops\n\n", "data: ping\n\n", "data: {\"cho", "x"];
    for ending in Ending::ALL {
        for junk in junk {
            // An empty chunk would be the last one.
            let script = Script::sse().body(format!("{whole}{junk}"));
            provider.answers(script.end(ending));
            let streamed = gateway.chat(&stream_request()).await;
            assert_eq!(streamed_text(&streamed), "Hello", "{ending:?} {junk:?}");
            assert!(streamed.text().starts_with(&whole) && streamed.text().ends_with(DONE), "{streamed:?}");
            if junk.is_empty() {
                assert_eq!(whole_text(&gateway.chat(&chat_request("")).await), "Hello", "{ending:?}");
            }
        }
        if ending != Ending::Clean {
            // One token more, and the finish reason was none.
            let script = Script::sse().body([frame(HELLO), frame(STOP), frame(HELLO)].concat()).end(ending);
            if ending != Ending::Stall {
                provider.answers(script);
                let cut = gateway.chat(&stream_request()).await;
                assert!(cut.end != BodyEnd::Clean && !cut.text().contains("[DONE]"), "{ending:?}: {cut:?}");
            }
        }
    }
    let receipts = gateway.receipts(gateway.relay.entered()).await;
    let served = receipts.iter().filter(|receipt| receipt.outcome == Outcome::Served);
    assert!(served.clone().count() == receipts.len() - 2);
    assert!(served.clone().all(|receipt| receipt.usage.is_some_and(|usage| usage.output == 5) && !receipt.estimated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_may_ignore_how_many_choices_it_is_asked_for() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let request = chat_request(r#""n":3,"stream":true,"#);
    let came = [frame(HELLO), frame(STOP)].concat();
    for end in ["", DONE] {
        provider.answers(Script::sse().body(format!("{came}{end}")));
        assert_eq!(streamed_text(&gateway.chat(&request).await), "Hello", "{end:?}");
    }
    provider.answers(Script::sse().body(came).end(Ending::Rst));
    let cut = gateway.chat(&request).await;
    assert!(cut.end != BodyEnd::Clean && !cut.text().contains("[DONE]"), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_200_without_an_answer_is_a_failure_and_another_provider_answers() {
    let (bad, good) = (ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await);
    let config = Config::of(&bad)
        .other_deployment(r#"{ provider = "us" }"#)
        .routing("balance = \"ordered\"")
        .model("endpoints = [\"chat\", \"embeddings\"]")
        .more(&format!(
            "[providers.us]\nprotocol = \"openai\"\ncredential = \"env:CREDENTIAL\"\nbase_url = \"{}\"",
            good.base_url()
        ));
    good.answers(Script::by(|request| match request.json()["stream"] == true {
        true => Script::sse().body([frame(HELLO), frame(STOP), DONE.to_owned()].concat()),
        false => Script::status(200).json(&serde_json::from_str(WHOLE).expect("it is JSON")),
    }));
    let gateway = TestGateway::start(&config.text()).await;
    let finished = |reason: &str| json!({"choices": [{"index": 0, "message": {"content": "x"}, "delta": {"content": "x"}, "finish_reason": reason}]});
    let none = [
        json!({}),
        json!({"detail": "Not authenticated"}),
        json!({"code": 1302, "message": "too many requests"}),
        json!({"error": {"message": "x"}}),
        json!({"error": "x"}),
        json!({"choices": []}),
        json!({"choices": null}),
        json!({"object": "list", "data": []}),
        finished("error"),
        finished("network_error"),
    ];
    for body in none {
        for script in [Script::status(200).json(&body), Script::sse().frame(&body.to_string())] {
            bad.answers(script);
            assert_eq!(streamed_text(&gateway.chat(&stream_request()).await), "Hello", "{body}");
            assert_eq!(whole_text(&gateway.chat(&chat_request("")).await), "Hello", "{body}");
        }
    }
    let embeddings = format!(r#"{{"model":"{MODEL}","input":"x"}}"#);
    bad.answers(Script::status(200).json(&json!({"object": "list", "data": [], "usage": {"prompt_tokens": 1}})));
    good.answers(Script::status(200).json(&json!({"data": [{"embedding": [1.0]}]})));
    assert_eq!(gateway.post("/v1/embeddings", &[], &embeddings).await.json()["data"][0]["embedding"][0], 1.0);
    assert!(gateway.receipts(gateway.relay.entered()).await.iter().all(|receipt| receipt.outcome == Outcome::Served));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_prelude_commits_and_a_picture_passes() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider).await;
    let role = frame(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#);
    let prelude = role.repeat(64 * 1024 / role.len() + 1);
    provider.answers(Script::sse().body([prelude, frame(HELLO), frame(STOP), DONE.to_owned()].concat()));
    assert_eq!(streamed_text(&gateway.chat(&stream_request()).await), "Hello");
    let picture = "A".repeat(20 << 20);
    let delta = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"Hello","images":["{picture}"]}}}}]}}"#);
    provider.answers(Script::sse().body([frame(&delta), frame(STOP), DONE.to_owned()].concat()));
    let streamed = gateway.chat(&stream_request()).await;
    assert_eq!(streamed_text(&streamed), "Hello");
    assert!(streamed.body.len() > picture.len());
}
