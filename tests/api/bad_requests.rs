//! Bad requests: each is answered with what is wrong with it, in a body the client can read, and none
//! reaches the provider.
//!
//! The key is checked first: without one a client learns nothing else, also not which paths exist.

use crate::config::{Config, MODEL, chat_request};
use crate::support::client::Response;
use crate::support::gateway::{ADMIN_TOKEN, BEARER, KEY, OTHER_KEY};
use crate::support::{Client, ScriptedProvider, TestGateway, chat_whole, soon};
use async_compression::tokio::bufread::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use std::collections::BTreeMap;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";
const MAX_BODY: usize = 64 * 1024;
/// More bytes than all buffers between client and gateway.
const HUGE: usize = 16 * 1024 * 1024;

async fn gateway() -> (TestGateway, ScriptedProvider) {
    with(|config| config).await
}

async fn with(change: impl FnOnce(Config) -> Config) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let config = Config::of(&provider).server("max_body = \"64KiB\"");
    let gateway = TestGateway::start(&change(config).text()).await;
    (gateway, provider)
}

/// Sends `head`, its first line and headers without the last empty line, then `body`.
async fn raw(gateway: &TestGateway, head: &str, body: &[u8]) -> Response {
    let mut client = Client::connect(gateway.addr).await;
    client.send([format!("{head}host: tests\r\n\r\n").as_bytes(), body].concat()).await;
    client.response().await
}

/// A chat request with a body of any bytes.
async fn post_bytes(gateway: &TestGateway, headers: &str, body: &[u8]) -> Response {
    let length = body.len();
    let head = format!("POST {CHAT} HTTP/1.1\r\nauthorization: {BEARER}\r\ncontent-length: {length}\r\n{headers}");
    raw(gateway, &head, body).await
}

/// Fails the test unless `response` is an error of ours: this status, type, code and parameter.
fn assert_error(response: &Response, status: u16, code: &str, param: Option<&str>) {
    let error = response.json()["error"].take();
    let keys: Vec<_> = error.as_object().map(|error| error.keys().map(String::as_str).collect()).unwrap_or_default();
    assert_eq!(keys.len(), 4, "all four keys: {response:?}");
    assert_eq!(
        (response.status, error["code"].as_str(), error["param"].as_str()),
        (status, Some(code), param),
        "{response:?}"
    );
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.header("x-request-id").is_some_and(|id| id.len() > 16), "{response:?}");
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_refused() {
    let (gateway, provider) = gateway().await;
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"model":"{MODEL}","x":{open}{close}}}"#)
    };
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"\"model\"",
        b"{",
        b"{\"model\":\"org/model\"",
        b"{\"model\":\"org/model\",}",
        b"{\"model\":\"org/model\"} x",
        b"{'model':'org/model'}",
        b"{\"model\":\"org/model\",\"x\":\"\xff\xfe\"}",
        b"\x1f\x8b\x08",
    ];
    let too_deep = deep(129);
    for body in bodies.into_iter().chain([too_deep.as_bytes()]) {
        let response = post_bytes(&gateway, "", body).await;
        assert_error(&response, 400, "invalid_json", None);
        assert_eq!(response.header("x-should-retry"), Some("false"));
    }
    assert_eq!(provider.attempts(), 0);
    assert_eq!(gateway.chat(&deep(128)).await.status, 200);
    let refused = gateway.receipts(14).await;
    assert!(refused[..13].iter().all(|r| (r.outcome, r.reason) == (Outcome::Refused, Reason::InvalidJson)));
}

#[tokio::test]
async fn fields_that_are_read_must_have_their_type() {
    let (gateway, provider) = gateway().await;
    let check = async |members: &str, param: &str| {
        let response = gateway.chat(&format!("{{{members}}}")).await;
        assert_error(&response, 400, "invalid_value", Some(param));
    };
    check("", "model").await;
    check(r#""model":null"#, "model").await;
    check(r#""model":"""#, "model").await;
    check(r#""model":7"#, "model").await;
    check(r#""model":"org/model","stream":"yes""#, "stream").await;
    check(r#""model":"org/model","n":0"#, "n").await;
    check(r#""model":"org/model","n":129"#, "n").await;
    check(r#""model":"org/model","n":1.5"#, "n").await;
    check(r#""model":"org/model","max_tokens":-1"#, "max_tokens").await;
    check(r#""model":"org/model","stream":true,"stream_options":[]"#, "stream_options").await;
    check(r#""model":"org/model","messages":{}"#, "messages").await;
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn x_tierway_headers_must_have_valid_values() {
    let (gateway, provider) = gateway().await;
    for value in ["", "0", "-5", "1.5", "soon", "1e3", "99999999999999999999999"] {
        let response = gateway.post(CHAT, &[("x-tierway-deadline-ms", value)], &chat_request("")).await;
        assert_error(&response, 400, "invalid_value", Some("x-tierway-deadline-ms"));
    }
    let twice = [("x-tierway-deadline-ms", "5000"), ("x-tierway-deadline-ms", "6000")];
    let response = gateway.post(CHAT, &twice, &chat_request("")).await;
    assert_error(&response, 400, "invalid_value", Some("x-tierway-deadline-ms"));
    let odd = gateway.post(CHAT, &[("x-tierway-no-fallback", "maybe")], &chat_request("")).await;
    assert_error(&odd, 400, "invalid_value", Some("x-tierway-no-fallback"));
    assert_eq!(provider.attempts(), 0);
}

/// Sends all of `body` before reading anything, as simple clients do, and returns what can be read
/// then. What the server no longer accepts is lost.
async fn send_all_then_read(gateway: &TestGateway, head: String, body: Vec<u8>) -> String {
    let mut stream = TcpStream::connect(gateway.addr).await.expect("the gateway accepts");
    soon("the answer to a body nobody wants", async {
        stream.write_all(head.as_bytes()).await.expect("a head is read");
        // Where the server closes before it has read all, writing fails; the answer must be there all the same.
        let _ = stream.write_all(&body).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"}") {
            match stream.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("the answer was lost: {error}, {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8(answer).expect("an answer of text")
    })
    .await
}

fn head_of(framing: &str, key: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: tests\r\nauthorization: Bearer {key}\r\n{framing}\r\n\r\n")
}

/// `body` in chunks of 64 KiB.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(64 * 1024) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_too_large_a_body_can_read_why_it_is_refused() {
    let (gateway, provider) = gateway().await;
    let body = vec![b' '; HUGE];
    let declared = format!("content-length: {HUGE}");
    let answer = send_all_then_read(&gateway, head_of(&declared, KEY), body.clone()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("request_too_large"), "{answer}");
    let answer = send_all_then_read(&gateway, head_of("transfer-encoding: chunked", KEY), chunked(&body)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("request_too_large"), "{answer}");
    // Without a key the body is not read, and the client reads the refusal as well.
    for (framing, body) in [(declared.as_str(), body.clone()), ("transfer-encoding: chunked", chunked(&body))] {
        let answer = send_all_then_read(&gateway, head_of(framing, "nobody"), body).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_api_key"), "{answer}");
    }
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_reads_the_refusal_without_sending() {
    let (gateway, _provider) = gateway().await;
    for (key, length, status) in [("nobody", 100, 401), (KEY, HUGE, 413)] {
        let mut client = Client::connect(gateway.addr).await;
        client.send(head_of(&format!("content-length: {length}\r\nexpect: 100-continue"), key)).await;
        assert_eq!(client.response().await.status, status, "answered without a byte of the body");
    }
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_accepted() {
    let (gateway, _provider) = gateway().await;
    let request = chat_request("");
    let exact = format!("{request}{}", " ".repeat(MAX_BODY - request.len()));
    assert_eq!(gateway.chat(&exact).await.status, 200);
    assert_error(&gateway.chat(&format!("{exact} ")).await, 413, "request_too_large", None);
}

async fn read(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.expect("reading from memory does not fail");
    bytes
}

/// `body` in every encoding that is accepted; `deflate` in both of its readings.
async fn encoded(body: &[u8]) -> [(&'static str, Vec<u8>); 6] {
    [
        ("identity", body.to_vec()),
        ("gzip", read(GzipEncoder::new(body)).await),
        ("br", read(BrotliEncoder::new(body)).await),
        ("zstd", read(ZstdEncoder::new(body)).await),
        ("deflate", read(ZlibEncoder::new(body)).await),
        ("deflate", read(DeflateEncoder::new(body)).await),
    ]
}

#[tokio::test]
async fn encoded_bodies_are_read_and_forwarded_plain() {
    let (gateway, provider) = gateway().await;
    let request = chat_request(r#""big":12345678901234567890,"#);
    for (encoding, body) in encoded(request.as_bytes()).await {
        provider.clear();
        let response = post_bytes(&gateway, &format!("content-encoding: {encoding}\r\n"), &body).await;
        assert_eq!(response.status, 200, "{encoding}: {response:?}");
        let journal = provider.journal();
        let sent = &journal.only().request;
        assert_eq!((&*sent.body, sent.header("content-encoding")), (request.as_bytes(), None), "{encoding}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_encoded_as_declared_is_refused() {
    let (gateway, provider) = gateway().await;
    for (encoding, body) in encoded(chat_request("").as_bytes()).await.into_iter().skip(1) {
        let header = format!("content-encoding: {encoding}\r\n");
        let cut = &body[..body.len() / 2];
        assert_error(&post_bytes(&gateway, &header, cut).await, 400, "invalid_json", None);
        assert_error(&post_bytes(&gateway, &header, b"\xff\xff not encoded at all").await, 400, "invalid_json", None);
    }
    for unknown in ["compress", "gzip, br", "x-gzip, gzip", "aes128gcm"] {
        let response = post_bytes(&gateway, &format!("content-encoding: {unknown}\r\n"), b"{}").await;
        assert_error(&response, 415, "unsupported_content_encoding", None);
    }
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn a_small_body_that_decodes_to_a_large_one_is_refused() {
    let (gateway, provider) = gateway().await;
    for (encoding, body) in encoded(&vec![b' '; 16 * MAX_BODY]).await.into_iter().skip(1) {
        assert!(body.len() < MAX_BODY, "{encoding} makes it small: {}", body.len());
        let response = post_bytes(&gateway, &format!("content-encoding: {encoding}\r\n"), &body).await;
        assert_error(&response, 413, "request_too_large", None);
    }
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn every_bad_key_gets_the_same_answer() {
    let old = "[[keys]]\nname = \"old\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"\nexpires = \"2020-01-01\"";
    let (gateway, provider) = with(|config| config.more(old)).await;
    let expired = format!("authorization: Bearer {OTHER_KEY}\r\n");
    let keys = [
        "",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "authorization: Bearer nobody\r\n",
        &format!("authorization: Bearer {}\r\n", "x".repeat(5000)),
        &format!("authorization: Basic {KEY}\r\n"),
        &format!("authorization: {KEY}\r\n"),
        &format!("authorization: Bearer {KEY}x\r\n"),
        &format!("authorization: Bearer {}\r\n", &KEY[..KEY.len() - 1]),
        &format!("authorization: Bearer {ADMIN_TOKEN}\r\n"),
        "authorization: Bearer \u{e4}\r\n",
        "api-key: nobody\r\n",
        &expired,
    ];
    let mut reported = BTreeMap::new();
    for key in keys {
        // Path and method make no difference either: without a key a client does not learn which paths exist.
        let paths = [CHAT, "/v1/embeddings", "/v1/nothing", "/v1/models", "/v1/models/org/model", "/v1"];
        for (method, path) in ["POST", "GET", "PUT"].into_iter().flat_map(|method| paths.map(|path| (method, path))) {
            let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: 2\r\n{key}");
            let response = raw(&gateway, &head, b"{}").await;
            assert_error(&response, 401, "invalid_api_key", None);
            // Except headers that differ from request to request; a list of models has no attempts.
            let aside = ["x-request-id", "date", "x-tierway-overhead-us", "x-tierway-attempts"];
            let unlike = |name: &str| !aside.contains(&name);
            let headers: Vec<_> = response.headers.into_iter().filter(|(name, _)| unlike(name)).collect();
            reported.insert(format!("{headers:?} {:?}", response.body), format!("{method} {path} with {key}"));
        }
    }
    assert_eq!(reported.len(), 1, "{reported:#?}");
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn a_key_may_be_presented_in_two_ways() {
    let (gateway, _provider) = gateway().await;
    for header in [format!("authorization: bearer {KEY}"), format!("api-key: {KEY}")] {
        let response = raw(&gateway, &format!("GET /v1/models HTTP/1.1\r\n{header}\r\n"), b"").await;
        assert_eq!(response.status, 200, "{header}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_allowed_ones() {
    let (gateway, _provider) = gateway().await;
    let check = async |method: &str, path: &str, allow: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nauthorization: {BEARER}\r\n");
        let response = raw(&gateway, &head, b"").await;
        assert_error(&response, 405, "method_not_allowed", None);
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    };
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        check(method, CHAT, "POST").await;
    }
    check("GET", "/v1/embeddings", "POST").await;
    check("POST", "/v1/models", "GET, HEAD").await;
    check("DELETE", "/v1/models/org/model", "GET, HEAD").await;
    check("POST", "/healthz", "GET, HEAD").await;
    check("DELETE", "/metrics", "GET, HEAD").await;
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_unknown_url() {
    let (gateway, provider) = gateway().await;
    for path in ["/v1/nothing", "/v1", "/v1/", "/v1/chat", "//v1/nothing/", "/v1/v1/chat", "/v1/%63hat"] {
        for method in ["GET", "POST"] {
            let head = format!("{method} {path} HTTP/1.1\r\nauthorization: {BEARER}\r\ncontent-length: 0\r\n");
            assert_error(&raw(&gateway, &head, b"").await, 404, "unknown_url", None);
        }
    }
    let receipts = gateway.receipts(14).await;
    assert!(receipts.iter().all(|r| (r.reason, r.endpoint) == (Reason::UnknownUrl, None)));
    // Outside /v1 no key is checked, and no receipt is written.
    assert_error(&raw(&gateway, "GET /elsewhere HTTP/1.1\r\n", b"").await, 404, "unknown_url", None);
    assert_eq!((gateway.ledger.count(), provider.attempts()), (14, 0));
}

/// All a server sends before it closes, to a request that asks it to.
async fn whole_connection(gateway: &TestGateway, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.addr).await.expect("the gateway accepts");
    stream
        .write_all(format!("{request}host: tests\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .expect("it is read");
    String::from_utf8(soon("the connection to close", read(stream)).await).expect("text")
}

#[tokio::test]
async fn health_needs_no_key() {
    let (gateway, _provider) = gateway().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        let got = whole_connection(&gateway, &format!("GET {path} HTTP/1.1\r\n")).await;
        let (head, body) = got.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("status"), "{got}");
        let got = whole_connection(&gateway, &format!("HEAD {path} HTTP/1.1\r\n")).await;
        let (head, body) = got.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{got}");
    }
    assert_eq!(gateway.ledger.count(), 0);
}

#[tokio::test]
async fn metrics_need_a_token_unless_they_are_open() {
    let (opened, _provider) = with(|config| config.telemetry("metrics = \"open\"")).await;
    let open = raw(&opened, "GET /metrics HTTP/1.1\r\n", b"").await;
    assert_eq!(open.status, 200);
    assert!(open.text().contains("tierway_build_info"), "{}", open.text());
    assert!(open.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));

    let (gateway, _provider) = gateway().await;
    let ask = async |token: &str| {
        raw(&gateway, &format!("GET /metrics HTTP/1.1\r\nauthorization: Bearer {token}\r\n"), b"").await.status
    };
    assert_eq!(raw(&gateway, "GET /metrics HTTP/1.1\r\n", b"").await.status, 401);
    assert_eq!((ask(ADMIN_TOKEN).await, ask(KEY).await), (200, 401), "without a token of its own");

    let (gateway, _provider) = with(|config| config.telemetry("metrics_token = \"env:OTHER_KEY\"")).await;
    let check = async |token: &str, status: u16| {
        let response = raw(&gateway, &format!("GET /metrics HTTP/1.1\r\n{token}"), b"").await;
        assert_eq!(response.status, status, "{token}");
    };
    check("", 401).await;
    check(&format!("authorization: Bearer {OTHER_KEY}x\r\n"), 401).await;
    check(&format!("authorization: {BEARER}\r\n"), 401).await;
    check(&format!("authorization: Bearer {OTHER_KEY}\r\n"), 200).await;
    check(&format!("authorization: Bearer {ADMIN_TOKEN}\r\n"), 200).await;
}

#[tokio::test]
async fn models_are_those_the_key_may_use() {
    let narrow = r#"
[tiers.other]
models = ["org/other"]
[models."org/other"]
price = { input = "0.07", output = "0.25" }
context = 131072
deployments = [{ provider = "eu" }]
[aliases.auto]
split = { default = 50, other = 50 }
[policies.narrow]
tiers = ["other"]
[[keys]]
name = "narrow"
policy = "narrow"
secret = "env:OTHER_KEY"
"#;
    let (gateway, _provider) = with(|config| config.more(narrow)).await;
    let get = async |path: &str, key: &str| {
        raw(&gateway, &format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {key}\r\n"), b"").await
    };
    let list = async |key: &str| {
        let list = get("/v1/models", key).await.json();
        assert_eq!(list["object"], "list");
        let ids: Vec<_> = list["data"].as_array().expect("a list").iter().map(|m| m["id"].clone()).collect();
        ids.iter().map(|id| id.as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(KEY).await, [MODEL, "org/other", "auto", "default", "other"]);
    assert_eq!(list(OTHER_KEY).await, ["org/other", "auto", "other"]);
    for path in ["/v1/models/org/other", "/v1/models/org%2Fother", "/v1/models/org%2fother"] {
        let model = get(path, OTHER_KEY).await.json();
        assert_eq!((&model["id"], &model["object"]), (&"org/other".into(), &"model".into()), "{path}");
        assert_eq!((&model["context_length"], &model["regions"][0]), (&131_072.into(), &"eu-central".into()));
        assert_eq!(model["pricing"]["input"], "0.07");
    }
    // A model that the key may not use is answered as if it did not exist.
    for path in
        ["/v1/models/org/model", "/v1/models/org%2Fmodel", "/v1/models/default", "/v1/models/%ff", "/v1/models/eu"]
    {
        assert_error(&get(path, OTHER_KEY).await, 404, "model_not_found", Some("model"));
    }
    assert_error(&get("/v1/models/org/other", "nobody").await, 401, "invalid_api_key", None);
    assert_eq!(gateway.ledger.count(), 0, "asking for models leaves no receipt");
}

#[tokio::test]
async fn a_bad_request_does_not_end_the_connection() {
    let (gateway, provider) = gateway().await;
    provider.answers(chat_whole("Hello"));
    let mut client = gateway.connect().await;
    for (request, status) in [("{", 400), (r#"{"model":"nothing"}"#, 404), (&*chat_request(""), 200), ("[]", 400)] {
        client.post(CHAT, &[("authorization", BEARER)], request).await;
        assert_eq!(client.response().await.status, status, "{request}");
    }
}

/// What hyper refuses while it parses has no body, and ends the connection.
#[tokio::test]
async fn invalid_http_is_refused_without_a_receipt() {
    let (gateway, _provider) = gateway().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    for (bytes, status) in [("nonsense\r\n\r\n", "400"), (&*long, "414"), (&*large, "431")] {
        let mut stream = TcpStream::connect(gateway.addr).await.expect("the gateway accepts");
        // It may close before it has read all.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = [0; 12];
        soon("a bare answer", stream.read_exact(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer == format!("HTTP/1.1 {status}") || answer == "HTTP/1.1 431", "{answer}");
    }
    assert_eq!(gateway.relay.entered(), 0);
}
