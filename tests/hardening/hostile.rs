//! A hostile provider: whatever it sends, the client reads the healthy region's answer and nothing of
//! the hostile one's.
//!
//! Start reading at [`check`].

use crate::config::{Config, chat_request};
use crate::endless::Endless;
use crate::machine::Memory;
use crate::support::client::Response;
use crate::support::{ChatAnswer, Ending, Script, ScriptedProvider, TestGateway, chat, soon};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A word that only the hostile provider sends.
const POISON: &str = "poison";
/// Timeouts short enough for a test.
const ROUTING: &str =
    "balance = \"ordered\"\nretry_budget = \"100%\"\nfirst_token = \"1s\"\nwhole = \"2s\"\nidle = \"1s\"";

/// The hostile region first, the healthy one as its fallback.
fn config(hostile: &str, healthy: &ScriptedProvider) -> String {
    let url = healthy.base_url();
    let region = format!(
        "[providers.us]\nprotocol = \"openai\"\nbase_url = \"{url}\"\ncredential = \"env:CREDENTIAL\"\nregion = \"us-east\""
    );
    Config::at(hostile).other_deployment(r#"{ provider = "us" }"#).routing(ROUTING).more(&region).text()
}

async fn healthy() -> ScriptedProvider {
    let provider = ScriptedProvider::start("us").await;
    provider.answers(chat(ChatAnswer::default()));
    provider
}

fn body(stream: bool) -> String {
    chat_request(if stream { r#""stream":true,"# } else { "" })
}

/// Fails the test unless `response` is the healthy region's alone.
fn is_healthy(case: &str, response: &Response) {
    assert_eq!(response.chat_text().as_deref(), Ok("Hello"), "{case}");
    assert_eq!(response.header("x-tierway-region"), Some("us-east"), "{case}");
    assert_eq!(response.attempts(), 2, "{case}");
    assert!(!format!("{response:?}").contains(POISON), "{case}: {response:?}");
    assert!(!response.headers.iter().any(|(name, _)| matches!(&**name, "set-cookie" | "location")), "{case}");
}

/// A head and these bytes.
fn wire(head: &str, body: &str) -> Script {
    Script::wire(format!("HTTP/1.1 {head}\r\n\r\n{body}")).end(Ending::Fin)
}

/// A whole answer whose text is [`POISON`].
fn poison() -> String {
    format!(r#"{{"choices":[{{"index":0,"message":{{"content":"{POISON}"}},"finish_reason":"stop"}}]}}"#)
}

/// The same as one frame of a stream, and its end.
fn poisoned_stream() -> String {
    let choice = format!(r#"{{"index":0,"delta":{{"content":"{POISON}"}},"finish_reason":"stop"}}"#);
    format!("data: {{\"choices\":[{choice}]}}\n\ndata: [DONE]\n\n")
}

/// Answers that break the protocol for a stream as for a whole answer.
fn breaches() -> Vec<(&'static str, Script)> {
    let (whole, json) = (poison(), "content-type: application/json");
    let length = whole.len();
    let ok = |headers: &str| wire(&format!("200 OK\r\n{json}\r\n{headers}"), &poison());
    let coded = |coding: &str, body: &'static [u8]| {
        Script::status(200).header("content-type", "application/json").header("content-encoding", coding).body(body)
    };
    let moved =
        |status: &str| wire(&format!("{status}\r\nlocation: http://127.0.0.1:1/{POISON}\r\ncontent-length: 0"), "");
    vec![
        ("a length too long", ok(&format!("content-length: {}", length + 1))),
        ("a length too short", ok(&format!("content-length: {}", length - 1))),
        ("a gibibyte promised", ok("content-length: 1073741824")),
        ("more than there is promised", ok("content-length: 18446744073709551614")),
        ("a length beyond numbers", ok("content-length: 99999999999999999999999")),
        ("a negative length", ok("content-length: -1")),
        ("two lengths", ok(&format!("content-length: {length}\r\ncontent-length: 1"))),
        ("an endless chunk", ok("transfer-encoding: chunked").cut_at_wire_byte(90, Ending::Fin)),
        ("no chunk size", wire(&format!("200 OK\r\n{json}\r\ntransfer-encoding: chunked"), "zz\r\n{}\r\n0\r\n\r\n")),
        (
            "a chunk size beyond numbers",
            wire(&format!("200 OK\r\n{json}\r\ntransfer-encoding: chunked"), "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ),
        ("an unknown transfer encoding", ok("transfer-encoding: xchunked").end(Ending::Stall)),
        ("gzip that is none", coded("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\xffpoison")),
        ("an unknown coding", coded("poison", b"poison")),
        ("switching protocols", wire("101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade", POISON)),
        ("moved for good", moved("301 Moved Permanently")),
        ("found elsewhere", moved("302 Found")),
        ("elsewhere by the same method", moved("307 Temporary Redirect")),
        ("for good by the same method", moved("308 Permanent Redirect")),
        ("not modified", wire("304 Not Modified", "")),
        ("no content", wire("204 No Content\r\nset-cookie: a=poison", "")),
        ("NUL in a value", ok(&format!("x: a\0b\r\ncontent-length: {length}"))),
        ("NUL for an answer", Script::wire("\0".repeat(1000)).end(Ending::Fin)),
        ("no HTTP", Script::wire("SSH-2.0-poison\r\n").end(Ending::Fin)),
        ("HTTP/0.9", Script::wire(poison()).end(Ending::Fin)),
        ("a thousand headers", ok(&format!("{}content-length: {length}", "x: a\r\n".repeat(1000)))),
        ("a status of four digits", wire("2000 OK\r\ncontent-length: 0", "")),
        ("NULs in JSON", wire(&format!("200 OK\r\n{json}\r\ncontent-length: 4"), "{\0\0}")),
        ("deep JSON", Script::status(200).header("content-type", "application/json").body("[".repeat(100_000))),
        ("an error inside", Script::status(200).json(&serde_json::json!({"error": {"message": POISON}}))),
        ("a page", Script::status(200).header("content-type", "text/html").body(format!("<p>{POISON}</p>"))),
    ]
}

#[tokio::test]
async fn breaches_of_protocol_fall_back() {
    let (hostile, healthy) = (ScriptedProvider::start("eu").await, healthy().await);
    let gateway = TestGateway::start(&config(&hostile.base_url(), &healthy)).await;
    let before = Memory::now();
    for stream in [false, true] {
        for (case, script) in breaches() {
            hostile.answers(script);
            let case = format!("{case}, stream: {stream}");
            is_healthy(&case, &gateway.chat(&body(stream)).await);
        }
    }
    before.has_hardly_grown("breaches of protocol");
}

/// Bytes after the end of an answer do not belong to the next request on that connection.
#[tokio::test]
async fn an_answer_too_many_is_discarded() {
    let (hostile, healthy) = (ScriptedProvider::start("eu").await, healthy().await);
    let gateway = TestGateway::start(&config(&hostile.base_url(), &healthy)).await;
    let honest = poison().replace(POISON, "Hello");
    let answer = |text: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    };
    for stray in [answer(&poison()), "\r\n".to_owned(), POISON.to_owned()] {
        hostile.answers(Script::wire(answer(&honest) + &stray));
        for number in 0..10 {
            let response = gateway.chat(&body(false)).await;
            assert_eq!(response.chat_text().as_deref(), Ok("Hello"), "answer {number} before {stray:?}");
        }
    }
}

/// Headers that even a good answer must not pass on.
#[tokio::test]
async fn headers_of_the_provider_are_not_passed_on() {
    let (hostile, healthy) = (ScriptedProvider::start("eu").await, healthy().await);
    let gateway = TestGateway::start(&config(&hostile.base_url(), &healthy)).await;
    for stream in [false, true] {
        hostile.answers(Script::by(move |request| {
            let names = [
                "set-cookie",
                "location",
                "refresh",
                "link",
                "alt-svc",
                "www-authenticate",
                "access-control-allow-origin",
                "strict-transport-security",
                "clear-site-data",
                "openai-organization",
                "x-ratelimit-limit-requests",
                "x-request-id",
                "x-tierway-cost-usd",
                "x-should-retry",
                "retry-after",
            ];
            let script = if request.streams() { Script::sse() } else { Script::status(200) };
            let script = names.iter().fold(script, |script, name| script.header(name, POISON));
            match request.streams() {
                true => script.body(poisoned_stream().replace(POISON, "Hello")),
                false => {
                    let script = script.header("content-type", "application/json");
                    script.body(poison().replace(POISON, "Hello"))
                }
            }
        }));
        let response = gateway.chat(&body(stream)).await;
        assert_eq!(response.chat_text().as_deref(), Ok("Hello"));
        assert!(!format!("{response:?}").contains(POISON), "{response:?}");
    }
}

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
const MIB: usize = 1024 * 1024;

/// Asks a provider that sends `head` and then `more` without end: the request falls back within `limit`, and at
/// most `most` bytes were read.
async fn check(case: &str, stream: bool, (head, more): (&str, &[u8]), pause: Duration, limit: Duration, most: usize) {
    let (hostile, healthy) = (Endless::start(head, more, pause).await, healthy().await);
    let gateway = TestGateway::start(&config(&hostile.base_url, &healthy)).await;
    let (before, begun) = (Memory::now(), Instant::now());
    let response = soon(case, gateway.chat(&body(stream))).await;
    is_healthy(case, &response);
    let (lasted, sent) = (begun.elapsed(), hostile.sent.load(Ordering::Relaxed));
    println!("{case}: fell back after {lasted:.1?} and {sent} bytes");
    assert!(lasted < limit, "{case}: {lasted:?}");
    assert!(sent < most, "{case}: {sent} bytes");
    before.has_hardly_grown(case);
}

/// The most bytes in the kernel's buffers beyond what the gateway reads: those of both ends of a connection, which this
/// system lets grow with how fast is read.
static KERNEL: LazyLock<usize> = LazyLock::new(|| {
    let most =
        |file: &str| -> Option<usize> { std::fs::read_to_string(file).ok()?.split_whitespace().last()?.parse().ok() };
    let both =
        ["/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"].into_iter().filter_map(most).sum::<usize>();
    both.max(12 * MIB)
});
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn endless_heads_fall_back() {
    let x = "x".repeat(16 * 1024);
    for (case, head, more) in [
        ("an endless header line", "HTTP/1.1 200 OK\r\nx: ", &*x),
        ("endless headers", "HTTP/1.1 200 OK\r\n", "x-a: b\r\nx-c: d\r\n"),
        ("an endless status line", "HTTP/1.1 200 ", &*x),
        ("endless blanks", "HTTP/1.1 200 OK\r\n", " "),
        ("endless empty lines", "", "\r\n"),
    ] {
        let more = more.repeat((16 * 1024 / more.len()).max(1));
        check(case, false, (head, more.as_bytes()), Duration::ZERO, AT_ONCE, *KERNEL).await;
    }
    // Nothing of these is kept; they end with the timeout of the answer.
    for (case, more) in [
        ("endless interim answers", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("endless early hints", "HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"),
    ] {
        let more = more.repeat(100);
        check(case, false, ("", more.as_bytes()), Duration::from_millis(10), Duration::from_secs(5), *KERNEL).await;
    }
}

#[tokio::test]
async fn endless_streams_without_a_token_fall_back() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let slowly = Duration::from_millis(20);
    for (case, more, pause) in [
        ("endless comments", ": poison\n\n", slowly),
        ("endless empty lines", "\n", slowly),
        ("endless roles", role, slowly),
        ("a flood of comments", ": poison\n\n", Duration::ZERO),
    ] {
        let more = if pause.is_zero() { more.repeat(16 * 1024 / more.len()) } else { more.to_owned() };
        check(case, true, (SSE, more.as_bytes()), pause, AT_ONCE, *KERNEL).await;
    }
    // Any frame may be as large as a picture.
    for (case, more) in [
        ("an endless comment", ":::::::::::::::"),
        ("an endless frame", "data: poison\n"),
        ("an endless name of a field", "poison"),
    ] {
        let more = more.repeat(16 * 1024 / more.len());
        let limit = Duration::from_secs(10);
        check(case, true, (SSE, more.as_bytes()), Duration::ZERO, limit, 64 * MIB + 2 * *KERNEL).await;
    }
}

#[tokio::test]
async fn endless_whole_answers_fall_back() {
    let blanks = vec![b' '; 64 * 1024];
    check("an endless answer", false, (JSON, &blanks), Duration::ZERO, Duration::from_secs(5), 64 * MIB + *KERNEL)
        .await;
    check("a page in place of a stream", true, (JSON, &blanks), Duration::ZERO, AT_ONCE, *KERNEL).await;
    let unwell = "HTTP/1.1 500 Internal Server Error\r\n\r\n";
    check("an endless error", false, (unwell, &blanks), Duration::ZERO, AT_ONCE, *KERNEL).await;
}

/// Its status is what its client must get; how long it is does not matter.
#[tokio::test]
async fn an_endless_rejection_is_cut() {
    let rejected = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\r\n";
    let hostile = Endless::start(rejected, &[b' '; 64 * 1024], Duration::ZERO).await;
    let gateway = TestGateway::start(&config(&hostile.base_url, &healthy().await)).await;
    let response = soon("an endless rejection", gateway.chat(&body(false))).await;
    assert_eq!((response.status, response.attempts()), (400, 1));
    let sent = hostile.sent.load(Ordering::Relaxed);
    assert!(sent < 8 * MIB + *KERNEL, "{sent} bytes");
}
