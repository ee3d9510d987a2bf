//! Request smuggling and header tricks: whatever a client writes, the provider reads exactly one
//! well-formed request with the client's body, or none at all.
//!
//! Every case is followed by a valid request on the same connection, so that bytes left over by one
//! framing and read as a request by another become visible.
//!
//! Start reading at [`attack`].

use crate::config::{Config, chat_request};
use crate::machine::drain;
use crate::support::gateway::{BEARER, CREDENTIAL, KEY};
use crate::support::journal::Request;
use crate::support::{ScriptedProvider, TestGateway, chat_whole};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The headers that may reach the provider, the credential and the framing included.
const FORWARDED: [&str; 11] = [
    "host",
    "authorization",
    "accept",
    "accept-encoding",
    "content-type",
    "content-length",
    "traceparent",
    "tracestate",
    "idempotency-key",
    "openai-beta",
    "user-agent",
];
/// Ends the connection, where the case before it left it usable.
const LAST: &str = "GET /livez HTTP/1.1\r\nhost: tests\r\nconnection: close\r\n\r\n";

/// The result of an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AttackResult {
    /// One request with the body reaches the provider, and the connection stays usable.
    Served,
    /// The same, but nothing after it is read from this connection.
    ServedLast,
    /// Nothing reaches the provider: this status.
    Refused(u16),
    /// The same, and nothing after it is read from this connection.
    RefusedLast(u16),
}
use AttackResult::{Refused, RefusedLast, Served, ServedLast};

impl AttackResult {
    fn is_refusal(self) -> bool {
        matches!(self, Refused(_) | RefusedLast(_))
    }
}

/// The body that every case carries, holding a request of its own.
fn body() -> String {
    chat_request(r#""user":"POST /v1/chat/completions HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n","#)
}

/// `body` in one chunk.
fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// A chat request to be smuggled behind another one.
fn hidden() -> String {
    let body = chat_request(r#""user":"smuggled","#);
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: tests\r\nauthorization: {BEARER}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

struct Bench {
    gateway: TestGateway,
    provider: ScriptedProvider,
}

impl Bench {
    async fn start() -> Self {
        let provider = ScriptedProvider::start("eu").await;
        provider.answers(chat_whole("Hello"));
        let gateway = TestGateway::start(&Config::of(&provider).text()).await;
        Self { gateway, provider }
    }

    /// A POST with these lines after the request line and these bytes after the head.
    async fn post(&self, case: &str, lines: &str, after: &str, expected: AttackResult) {
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nauthorization: {BEARER}\r\n{lines}\r\n");
        self.attack(case, &(head + after), expected).await;
    }

    /// A well-framed POST with these lines added.
    async fn header(&self, lines: &str, expected: AttackResult) {
        let (body, host) = (body(), "host: tests\r\n");
        let length = body.len();
        self.post(lines, &format!("{host}content-length: {length}\r\n{lines}"), &body, expected).await;
    }

    /// A well-framed request that begins with this line.
    async fn line(&self, line: &str, expected: AttackResult) {
        let body = body();
        let length = body.len();
        let head = format!("{line}\r\nhost: tests\r\nauthorization: {BEARER}\r\ncontent-length: {length}\r\n\r\n");
        self.attack(line, &(head + &body), expected).await;
    }

    async fn attack(&self, case: &str, bytes: &str, expected: AttackResult) {
        self.provider.clear();
        let socket = TcpStream::connect(self.gateway.addr).await.expect("the gateway accepts");
        let (reader, mut writer) = socket.into_split();
        // It may close before it has read all.
        let _ = writer.write_all([bytes, LAST].concat().as_bytes()).await;
        let answer = String::from_utf8_lossy(&drain(&format!("the end of {case:?}"), reader).await).into_owned();
        let statuses: Vec<u16> =
            answer.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok()).collect();
        let journal = self.provider.journal();
        let requests: Vec<&Request> = journal.requests().collect();
        let (first, more) = (statuses.first().copied(), statuses.len().saturating_sub(1));
        let became = match (first, more) {
            (Some(200), 0) => ServedLast,
            (Some(200), 1) => Served,
            (Some(status @ 400..500), 0) => RefusedLast(status),
            (Some(status @ 400..500), 1) => Refused(status),
            other => panic!("{case:?}: {other:?}: {answer}"),
        };
        assert_eq!(became, expected, "{case:?}: {answer}");
        match requests.as_slice() {
            [] => assert!(expected.is_refusal(), "{case:?}: an answer without a request: {answer}"),
            [request] => {
                assert!(!expected.is_refusal(), "{case:?} reached the provider: {request:?}");
                self.is_plain(case, request);
            }
            many => panic!("{case:?} became {} requests: {many:#?}", many.len()),
        }
    }

    /// Fails the test unless `request` is what a valid request would have become.
    fn is_plain(&self, case: &str, request: &Request) {
        assert_eq!((&*request.method, &*request.path), ("POST", "/v1/chat/completions"), "{case:?}");
        assert_eq!(request.body, body(), "{case:?}");
        for (name, _) in &request.headers {
            let forwarded = FORWARDED.contains(&name.as_str()) || name.starts_with("x-stainless-");
            assert!(forwarded, "{case:?}: `{name}` was forwarded");
        }
        assert_eq!(request.header("content-length"), Some(&*request.body.len().to_string()), "{case:?}");
        assert_eq!(request.header("transfer-encoding"), None, "{case:?}");
        let ours = concat!("tierway/", env!("CARGO_PKG_VERSION"));
        assert_eq!(request.header("user-agent"), Some(ours), "{case:?}");
        assert_eq!(request.header("host"), Some(&*self.provider.addr().to_string()), "{case:?}");
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {CREDENTIAL}")), "{case:?}");
        assert_eq!(request.header("content-type"), Some("application/json"), "{case:?}");
        assert!(!String::from_utf8_lossy(&request.head).contains(KEY), "{case:?}: the client's key was forwarded");
    }
}

#[tokio::test]
async fn lengths_that_disagree_are_refused_or_end_the_connection() {
    let bench = Bench::start().await;
    let body = body();
    let length = body.len();
    let longer = length + 5;
    let check = async |lines: &str, after: &str, expected: AttackResult| {
        bench.post(lines, &format!("host: tests\r\n{lines}"), after, expected).await;
    };
    let plain = |length: &str| format!("content-length: {length}\r\n");
    check(&plain(&length.to_string()), &body, Served).await;
    check(&(plain(&length.to_string()) + &plain(&length.to_string())), &body, Served).await;
    check(&(plain(&length.to_string()) + &plain(&longer.to_string())), &body, RefusedLast(400)).await;
    check(&(plain(&longer.to_string()) + &plain(&length.to_string())), &body, RefusedLast(400)).await;
    for bad in
        ["+LEN", "-LEN", "LEN, LEN", "LEN,9", "LEN 9", "0xLEN", "LEN;a", "LEN.0", "\u{b2}", "", "99999999999999999999"]
    {
        check(&plain(&bad.replace("LEN", &length.to_string())), &body, RefusedLast(400)).await;
    }
    check(&format!("content-length:  {length} \t\r\n"), &body, Served).await;
    check(&format!("content-length:\t0{length}\r\n"), &body, Served).await;
    check(&format!("content-length : {length}\r\n"), &body, RefusedLast(400)).await;
    check(&format!("content-length\r\n : {length}\r\n"), &body, RefusedLast(400)).await;
    // No length at all: no body, and what follows is a request of its own.
    check("", "", Refused(400)).await;
}

#[tokio::test]
async fn a_transfer_encoding_is_chunked_or_refused() {
    let bench = Bench::start().await;
    let chunks = chunked(&body());
    let check = async |value: &str, expected: AttackResult| {
        bench.post(value, &format!("host: tests\r\ntransfer-encoding: {value}\r\n"), &chunks, expected).await;
    };
    for value in ["chunked", "Chunked", " chunked ", "chunked\r\ntransfer-encoding: chunked"] {
        check(value, Served).await;
    }
    for value in ["xchunked", "chunked, identity", "identity", "", "\"chunked\"", "chunked;q=1", "chunked\u{b}", "gzip"]
    {
        check(value, RefusedLast(400)).await;
    }
    check("chunked\r\ntransfer-encoding: identity", RefusedLast(400)).await;
    check("\r\n chunked", RefusedLast(400)).await;
    let old = format!("POST /v1/chat/completions HTTP/1.0\r\nauthorization: {BEARER}\r\nconnection: keep-alive\r\n");
    let old = old + "transfer-encoding: chunked\r\n\r\n" + &chunks;
    bench.attack("chunks in HTTP/1.0", &old, RefusedLast(400)).await;
}

/// A proxy that reads by length sees one request where the gateway, reading chunks, sees a second.
#[tokio::test]
async fn nothing_after_a_chunked_body_is_read_as_a_request() {
    let bench = Bench::start().await;
    let smuggled = chunked(&body()) + &hidden();
    let length = smuggled.len();
    let check = async |lines: String| {
        bench.post(&lines, &format!("host: tests\r\n{lines}\r\n"), &smuggled, ServedLast).await;
    };
    check(format!("content-length: {length}\r\ntransfer-encoding: chunked")).await;
    check(format!("transfer-encoding: chunked\r\ncontent-length: {length}")).await;
    check(format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\nconnection: keep-alive")).await;
    check("transfer-encoding: chunked\r\ncontent-length: nonsense".to_owned()).await;
    // Refused before its body is read, it must not leave the body to be read as a request either.
    let key_less = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n");
    bench
        .attack("both, without a key", &(key_less + "transfer-encoding: chunked\r\n\r\n" + &smuggled), RefusedLast(401))
        .await;
}

#[tokio::test]
async fn chunks_are_well_formed_or_refused() {
    let bench = Bench::start().await;
    let body = body();
    let size = format!("{:x}", body.len());
    let check = async |chunks: String, expected: AttackResult| {
        bench.post(&chunks, "host: tests\r\ntransfer-encoding: chunked\r\n", &chunks, expected).await;
    };
    let chunk = |size: &str| format!("{size}\r\n{body}\r\n0\r\n\r\n");
    check(chunk(&size.to_uppercase()), Served).await;
    check(chunk(&format!("0000{size}")), Served).await;
    check(chunk(&format!("{size};name=value")), Served).await;
    check(format!("{size}\r\n{body}\r\n0\r\nauthorization: {BEARER}\r\nhost: evil\r\n\r\n"), Served).await;
    for bad in ["fffffffffffffffff", "10000000000000000", "-SIZE", "+SIZE", "0xSIZE", "SIZE\n", "", "g", "SIZE;a\n"] {
        check(chunk(&bad.replace("SIZE", &size)), RefusedLast(400)).await;
    }
    check(chunk(&format!("{size};{}", "a".repeat(20_000))), RefusedLast(400)).await;
    // Longer and shorter than its size.
    check(format!("{size}\r\n{body}x\r\n0\r\n\r\n"), RefusedLast(400)).await;
    check(format!("{size}\n{body}\n0\n\n"), RefusedLast(400)).await;
    check(format!("{size}\r\n{body}0\r\n\r\n"), RefusedLast(400)).await;
}

#[tokio::test]
async fn headers_are_well_formed_or_refused() {
    let bench = Bench::start().await;
    for bad in [
        "x-folded: a\r\n b\r\n",
        "x-nul: a\0b\r\n",
        "x-cr: a\rb\r\n",
        "x-cr: a\r\r\n",
        "x name: a\r\n",
        "x-name : a\r\n",
        " x-leading: a\r\n",
        ": empty\r\n",
        "no-colon\r\n",
        "x-(comment): a\r\n",
        "\u{e9}: a\r\n",
    ] {
        bench.header(bad, RefusedLast(400)).await;
    }
    for harmless in [
        "x_under_score: a\r\n",
        "content_length: 0\r\n",
        "transfer_encoding: chunked\r\n",
        "x-empty:\r\n",
        "x-latin: \u{e9}\r\n",
        "x-bare-line-feed: a\n",
        "cookie: a=b\r\ncookie: c=d\r\n",
        "proxy-authorization: Basic eA==\r\n",
        "x-forwarded-host: evil\r\nforwarded: host=evil\r\nx-original-url: /admin\r\nx-rewrite-url: /admin\r\n",
        "x-http-method-override: GET\r\n",
        "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nconnection: upgrade, http2-settings\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "te: trailers\r\ntrailer: authorization\r\nkeep-alive: 5\r\n",
        "expect: nothing\r\n",
        "connection: authorization\r\n",
        "connection: content-length, host, content-type\r\n",
        "connection: accept-encoding\r\n",
        "x-stainless-lang: rust\r\n",
        "x-stainless-authorization: a\r\n",
        "accept-encoding: gzip\r\n",
        "content-type: text/plain\r\ncontent-type: text/html\r\n",
        "proxy-authorization: Bearer tw_other\r\n",
    ] {
        bench.header(harmless, Served).await;
    }
    bench.header(&"x-many: a\r\n".repeat(200), RefusedLast(431)).await;
    for name in ["authorization: Bearer", "api-key:", "x-api-key:", "X-Goog-Api-Key: bearer"] {
        bench.header(&format!("{name} {KEY}\r\n"), Served).await;
        bench.header(&format!("{name} tw_other\r\n"), Refused(400)).await;
    }
    bench.header("x-tierway-no-fallback: true\r\nx-tierway-no-fallback: false\r\n", Refused(400)).await;
}

#[tokio::test]
async fn a_request_names_one_host_and_any_will_do() {
    let bench = Bench::start().await;
    let body = body();
    let length = body.len();
    let check = async |hosts: &str, expected: AttackResult| {
        let lines = format!("{hosts}content-length: {length}\r\n");
        bench.post(&lines, &lines, &body, expected).await;
    };
    for host in ["evil", "127.0.0.1:1", "EVIL.example:443", "[::1]:8080", "evil:"] {
        check(&format!("host: {host}\r\n"), Served).await;
    }
    for hosts in [
        "",
        "host:\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nHost: a\r\n",
        "host: a, b\r\n",
        "host: a,b\r\n",
        "host: evil:99999\r\n",
        "host: a b\r\n",
        "host: user@evil/x?y\r\n",
        "host: http://evil\r\n",
        "x-forwarded-host: evil\r\n",
    ] {
        check(hosts, Refused(400)).await;
    }
    let url = async |authority: &str, host: &str, expected: AttackResult| {
        let head = format!(
            "POST http://{authority}/v1/chat/completions HTTP/1.1\r\n{host}authorization: {BEARER}\r\n\
             content-length: {length}\r\n\r\n"
        );
        bench.attack(&head, &(head.clone() + &body), expected).await;
    };
    url("tests", "host: tests\r\n", Served).await;
    url("tests:80", "host: TESTS\r\n", Served).await;
    url("tests", "host: evil\r\n", Refused(400)).await;
    url("tests:81", "host: tests\r\n", Refused(400)).await;
    url("tests@evil", "host: tests\r\n", Refused(400)).await;
    url("tests", "", Refused(400)).await;
}

#[tokio::test]
async fn over_http_2_the_host_is_the_authority() {
    let bench = Bench::start().await;
    let mut client = bench.gateway.connect_h2().await;
    let cases: [(&[&str], u16); 6] = [
        (&[], 200),
        (&["tests"], 200),
        (&["TESTS:80"], 200),
        (&["evil"], 400),
        (&["tests", "tests"], 400),
        (&["a b"], 400),
    ];
    for (hosts, expected) in cases {
        let hosts = hosts.iter().map(|host| ("host", *host));
        let headers: Vec<_> = hosts.chain([("authorization", BEARER)]).collect();
        let mut answer = client.post("/v1/chat/completions", &headers, &body()).await.expect("an answer");
        assert_eq!(answer.status, expected, "{headers:?}");
        answer.rest().await;
    }
    assert_eq!(bench.provider.attempts(), 3);
}

#[tokio::test]
async fn a_target_is_the_path_it_is_or_nothing() {
    let bench = Bench::start().await;
    for same in [
        "POST /v1/chat/completions? HTTP/1.1",
        "POST /v1/chat/completions?model=x&api-version=/../ HTTP/1.1",
        "POST /v1/chat/completions#fragment HTTP/1.1",
        "POST http://tests/v1/chat/completions HTTP/1.1",
    ] {
        bench.line(same, Served).await;
    }
    for spelling in ["//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/chat/completions"] {
        bench.line(&format!("POST {spelling} HTTP/1.1"), Served).await;
    }
    bench.line("POST /v1/chat/completions HTTP/1.0", ServedLast).await;
    for other in [
        "/v1/../v1/chat/completions",
        "/v1/./chat/completions",
        "/v1/%63hat/completions",
        "/%76%31/chat/completions",
        "/v1%2fchat%2fcompletions",
        "/v1/chat/completions;x",
        "/v1/chat/completions%00",
        "/v1/chat/completions%20",
        "/V1/chat/completions",
        "/v1/chat/completions/../../../livez",
        "/livez/../v1/chat/completions",
        "*",
    ] {
        bench.line(&format!("POST {other} HTTP/1.1"), Refused(404)).await;
    }
    for bad in [
        "POST /v1/chat/completions",
        "POST  /v1/chat/completions HTTP/1.1",
        "POST /v1/chat /completions HTTP/1.1",
        "POST /v1/chat/completions HTTP/1.2",
        "POST /v1/chat/completions HTTP/2.0",
        "POST /v1/chat/completions http/1.1",
        "POST /v1/chat/completions HTTP/1.1 ",
        "POST v1/chat/completions HTTP/1.1",
        "P\tST /v1/chat/completions HTTP/1.1",
        "POST /v1/chat\0/completions HTTP/1.1",
    ] {
        bench.line(bad, RefusedLast(400)).await;
    }
    bench.line("POST http://evil.example/v1/chat/completions HTTP/1.1", Refused(400)).await;
    bench.line("CONNECT 127.0.0.1:22 HTTP/1.1", Refused(400)).await;
    bench.line("TRACE /v1/chat/completions HTTP/1.1", Refused(405)).await;
    bench.line("post /v1/chat/completions HTTP/1.1", Refused(405)).await;
}
