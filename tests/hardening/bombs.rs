//! Decompression bombs and costly JSON: bodies that are small to send and large to read. They are
//! refused in bounded memory, also many at once.

use crate::config::{Config, MODEL, chat_request};
use crate::machine::{Memory, others_are_answered};
use crate::support::client::Response;
use crate::support::gateway::BEARER;
use crate::support::{Client, ScriptedProvider, TestGateway, chat_whole};
use async_compression::Level;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";
/// The decoded size of a bomb in bytes, sixteen times the limit.
const UNPACKED: usize = 16 * 1024 * 1024;
/// The limit on a body in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How many of each kind are sent at the same time.
const PARALLEL: usize = 8;

async fn gateway() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let config = Config::of(&provider).server("max_body = \"1MiB\"");
    (TestGateway::start(&config.text()).await, provider)
}

async fn packed(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.expect("reading from memory does not fail");
    bytes
}

async fn post(gateway: SocketAddr, headers: &str, body: &[u8]) -> Response {
    let mut client = Client::connect(gateway).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: tests\r\nauthorization: {BEARER}\r\n{headers}\r\n");
    client.send([head.as_bytes(), body].concat()).await;
    client.response().await
}

/// Sends the same request [`PARALLEL`] times at once.
async fn at_once(gateway: SocketAddr, headers: &str, body: &[u8]) -> Vec<Response> {
    let mut posts = JoinSet::new();
    for _ in 0..PARALLEL {
        let (headers, body) = (headers.to_owned(), body.to_vec());
        posts.spawn(async move { post(gateway, &headers, &body).await });
    }
    posts.join_all().await
}

#[tokio::test]
async fn a_body_that_decodes_to_a_thousand_times_its_size_is_refused() {
    let (gateway, provider) = gateway().await;
    let zeros = vec![b' '; UNPACKED];
    let bombs = [
        ("gzip", packed(GzipEncoder::with_quality(&zeros[..], Level::Fastest)).await),
        ("deflate", packed(ZlibEncoder::with_quality(&zeros[..], Level::Fastest)).await),
        ("br", packed(BrotliEncoder::with_quality(&zeros[..], Level::Fastest)).await),
        ("zstd", packed(ZstdEncoder::with_quality(&zeros[..], Level::Fastest)).await),
    ];
    let before = Memory::now();
    for (encoding, bomb) in bombs {
        let headers = format!("content-encoding: {encoding}\r\ncontent-length: {}\r\n", bomb.len());
        let attack = async {
            for response in at_once(gateway.addr, &headers, &bomb).await {
                assert_eq!(response.refusal(), (413, "request_too_large".to_owned()), "{encoding}");
            }
        };
        others_are_answered(&gateway, attack).await;
        before.has_hardly_grown(&format!("{PARALLEL} × {} bytes of {encoding}", bomb.len()));
    }
    assert!(provider.journal().requests().all(|request| request.body == chat_request("")));
}

/// JSON that costs more to parse than to send: `(description, text, status of the answer)`.
fn costly_json() -> Vec<(&'static str, String, u16)> {
    let deep = 400_000;
    let keys: String = (0..50_000).map(|number| format!("\"k{number}\":0,")).collect();
    let same = "\"model\":\"x\",".repeat(50_000);
    vec![
        ("lists in lists", "[".repeat(2 * deep), 400),
        ("lists in lists, closed", format!("{}{}", "[".repeat(deep), "]".repeat(deep)), 400),
        ("objects in objects", "{\"a\":".repeat(100_000), 400),
        ("lists in a member", format!("{{\"model\":\"{MODEL}\",\"messages\":{}", "[".repeat(deep)), 400),
        ("one member a thousand times over", format!("{{{same}\"a\":0}}"), 400),
        ("a long number", format!("{{\"model\":\"{MODEL}\",\"n\":{}}}", "9".repeat(2 * deep)), 400),
        ("a long name", format!("{{\"model\":\"{}\"}}", "m".repeat(2 * deep)), 400),
        ("escapes", format!("{{\"model\":\"{}\"}}", "\\u006d".repeat(100_000)), 400),
        // Not refused by the gateway: it is parsed once and forwarded.
        ("many members", chat_request(&keys), 200),
    ]
}

#[tokio::test]
async fn json_that_is_costly_to_read_is_refused_or_cheap() {
    let (gateway, _provider) = gateway().await;
    let before = Memory::now();
    for (what, json, expected) in costly_json() {
        let headers = format!("content-length: {}\r\n", json.len());
        let attack = async {
            for response in at_once(gateway.addr, &headers, json.as_bytes()).await {
                assert_eq!(response.status, expected, "{what}: {}", response.text());
            }
        };
        others_are_answered(&gateway, attack).await;
        before.has_hardly_grown(&format!("{PARALLEL} × {what}"));
    }
}

#[tokio::test]
async fn a_flood_of_tiny_chunks_is_read_in_bounded_memory() {
    let (gateway, provider) = gateway().await;
    let before = Memory::now();
    let headers = "transfer-encoding: chunked\r\n";
    let request = chat_request("");
    let chunks = |bytes: &str| bytes.bytes().map(|byte| format!("1\r\n{}\r\n", byte as char)).collect::<String>();
    let bytes = chunks(&request) + &chunks(&" ".repeat(MAX_BODY - request.len())) + "0\r\n\r\n";
    let flood = async {
        let response = post(gateway.addr, headers, bytes.as_bytes()).await;
        assert_eq!(response.chat_text().as_deref(), Ok("Hello"));
    };
    others_are_answered(&gateway, flood).await;
    assert!(provider.journal().requests().any(|request| request.body.len() == MAX_BODY));
    before.has_hardly_grown("a million chunks");
}
