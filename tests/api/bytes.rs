//! Bytes: what a client wrote reaches the provider unchanged, except for the spans the gateway must edit,
//! and the provider's answer reaches the client as it was sent.
//!
//! Headers are allow-lists in both directions, compared as whole sets, so that a new header fails a test.

use crate::config::{Config, MODEL, chat_request};
use crate::support::gateway::{BEARER, CREDENTIAL, KEY};
use crate::support::journal::Request;
use crate::support::{Client, Script, ScriptedProvider, TestGateway, chat_stream};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;

const CHAT: &str = "/v1/chat/completions";
/// Every case is reproducible from it.
const SEED: [u8; 32] = *b"bytes in, bytes out, as they are";
const CASES: u32 = 300;

/// The ways to name the model, in JSON, and what the provider calls it, in JSON.
const NAMES: [(&str, &str); 6] = [
    // The provider uses the same name: nothing is edited, whatever the escapes.
    (r#""same""#, r#""same""#),
    (r#""org/model""#, r#""up-stream""#),
    (r#""org\/mod\u0065l""#, r#""up-stream""#),
    (r#""Pro/org/model""#, r#""dedicated""#),
    (r#""auto""#, r#""up-stream""#),
    (r#""default""#, r#""up-stream""#),
];

/// A configuration in which names are edited in every possible way.
fn config(provider: &ScriptedProvider) -> String {
    let base_url = provider.base_url();
    Config::of(provider)
        .deployment(r#"upstream_model = "up-stream""#)
        .other_deployment(r#"{ provider = "reserved", capacity = "dedicated", upstream_model = "dedicated" }"#)
        .policy("reserved = true\nmodels = [\"same\"]")
        .more(&format!(
            r#"
[providers.reserved]
protocol = "openai"
base_url = "{base_url}"
credential = "env:CREDENTIAL"
region = "eu-west"
[models.same]
deployments = [{{ provider = "eu" }}]
[models."org/dedicated"]
deployments = [{{ provider = "eu" }}]
[aliases.auto]
split = {{ default = 100 }}
"#
        ))
        .text()
}

/// A request in pieces: `{`, members, `}`, and the name the model has upstream.
#[derive(Clone, Debug)]
struct RequestText {
    /// Whitespace before the opening brace.
    lead: String,
    before: Vec<String>,
    /// `"model" : ` as the client writes it.
    model_key: String,
    name: (&'static str, &'static str),
    after: Vec<String>,
    stream: bool,
    tail: String,
}

impl RequestText {
    /// The body with this model, and with `first` before all members.
    fn body(&self, model: &str, first: &str) -> String {
        let Self { lead, before, model_key, after, tail, .. } = self;
        let model = format!("{model_key}{model}");
        let stream = self.stream.then(|| r#""stream": true"#.to_owned());
        let members: Vec<_> =
            before.iter().cloned().chain([model]).chain(stream).chain(after.iter().cloned()).collect();
        format!("{lead}{{{first}{}{tail}}}", members.join(","))
    }

    /// The body that the client sends.
    fn sent(&self) -> String {
        self.body(self.name.0, "")
    }

    /// The body that the provider must read: the upstream name, and usage requested on streams; nothing else changed.
    fn expected(&self) -> String {
        let first = if self.stream { r#""stream_options":{"include_usage":true},"# } else { "" };
        self.body(self.name.1, first)
    }
}

/// Blanks, mostly some.
pub fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

/// JSON values whose text a parser would not reproduce.
pub fn value() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "12345678901234567890123456789",
        "-0",
        "-0.0",
        "1E400",
        "1.0e-07",
        "0.10000000000000000000001",
        "100",
        "1e2",
        "true",
        "null",
        r#""\u00e9\/\ud83d\ude00 é""#,
        r#""\u0000\b\f""#,
        r#""a\"b\\""#,
        r#""{\"model\":\"other\",""#,
        r#""data: [DONE]""#,
        "{}",
        "[]",
        r#"{"model":"inner","model":"twice"}"#,
        r#"{ "stream" : true , "usage":null}"#,
    ]);
    let leaf = prop_oneof![
        odd.prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-zA-Z0-9 äöü€\u{1F600}]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec((space(), inner.clone(), space()), 0..3).prop_map(|items| {
            let items: Vec<_> = items.into_iter().map(|(left, item, right)| format!("{left}{item}{right}")).collect();
            format!("[{}]", items.join(","))
        });
        let object = prop::collection::vec((space(), "[a-z]{0,3}", space(), inner), 0..3).prop_map(|members| {
            let members =
                members.into_iter().map(|(left, key, right, value)| format!("{left}\"{key}\"{right}:{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        });
        prop_oneof![list, object]
    })
}

/// Members that the gateway does not read, some of them twice; only the provider interprets them.
fn members() -> impl Strategy<Value = Vec<String>> {
    let key = prop_oneof![
        "x_[a-z]{0,4}".prop_map(|key| format!("\"{key}\"")),
        Just(r#""temper\u0061ture""#.to_owned()),
        Just(r#""model_name""#.to_owned()),
        Just(r#""metadata""#.to_owned()),
    ];
    let member = (space(), key, space(), space(), value(), space())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
    prop::collection::vec(member, 0..4)
}

fn request_text() -> impl Strategy<Value = RequestText> {
    let key = prop_oneof![Just(r#""model""#), Just(r#""\u006dodel""#)];
    let model_key = (space(), key, space(), space()).prop_map(|(a, key, b, c)| format!("{a}{key}{b}:{c}"));
    (space(), members(), model_key, prop::sample::select(NAMES.to_vec()), members(), any::<bool>(), space()).prop_map(
        |(lead, before, model_key, name, after, stream, tail)| RequestText {
            lead,
            before,
            model_key,
            name,
            after,
            stream,
            tail,
        },
    )
}

/// The request's own body, which is a JSON object with a model, and a choice in it.
fn answer_to(body: &str) -> String {
    body.replacen('{', r#"{"choices":[{"message":{"content":"x"}}],"#, 1)
}

/// Answers with the request's own body and a choice; streams as usual. The `accept` header
/// decides which, because some of these numbers cannot be parsed here.
fn echo(request: &Request) -> Script {
    match request.header("accept") {
        Some("text/event-stream") => chat_stream("Hello", 1),
        _ => Script::status(200)
            .header("content-type", "application/json")
            .body(answer_to(&String::from_utf8_lossy(&request.body))),
    }
}

#[test]
fn requests_and_answers_pass_byte_for_byte() {
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads");
    let (provider, gateway, client) = runtime.block_on(async {
        let provider = ScriptedProvider::start("eu").await;
        provider.answers(Script::by(echo));
        let gateway = TestGateway::start(&config(&provider)).await;
        let client = gateway.connect().await;
        (provider, gateway, RefCell::new(client))
    });
    println!("seed {SEED:?}");
    let cases = Cases { cases: CASES, failure_persistence: None, ..Cases::default() };
    let mut runner = TestRunner::new_with_rng(cases, TestRng::from_seed(RngAlgorithm::ChaCha, &SEED));
    let checked = runner.run(&request_text(), |request_text| {
        let mut client = client.borrow_mut();
        provider.clear();
        let response = runtime.block_on(async {
            client.post(CHAT, &[("authorization", BEARER)], &request_text.sent()).await;
            client.response().await
        });
        prop_assert_eq!(response.status, 200, "{:?}", response);
        let journal = provider.journal();
        let received = String::from_utf8_lossy(&journal.only().request.body).into_owned();
        prop_assert_eq!(received.as_str(), request_text.expected());
        if !request_text.stream {
            prop_assert_eq!(response.text(), answer_to(&received));
        }
        Ok(())
    });
    runtime.block_on(async move { drop(gateway) });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn usage_is_asked_for_without_touching_the_other_options() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_stream("Hello", 1));
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let check = async |options: &str, expected: &str| {
        provider.clear();
        let with = |options: &str| format!(r#"{{"model":"{MODEL}", "stream":true {options}, "seed" : 1}}"#);
        assert_eq!(gateway.chat(&with(options)).await.status, 200, "{options}");
        assert_eq!(provider.journal().only().request.body, with(expected), "{options}");
    };
    check(r#", "stream_options": null"#, r#", "stream_options": {"include_usage":true}"#).await;
    check(r#", "stream_options":{ }"#, r#", "stream_options":{"include_usage":true }"#).await;
    check(r#", "stream_options": { "x" : 1e5 }"#, r#", "stream_options": {"include_usage":true, "x" : 1e5 }"#).await;
    check(
        r#", "stream_options":{"include_usage" : false , "x":-0}"#,
        r#", "stream_options":{"include_usage" : true , "x":-0}"#,
    )
    .await;
    check(
        r#", "stream_options":{"include_obfuscation":false,"include_usage":true}"#,
        r#", "stream_options":{"include_obfuscation":false,"include_usage":true}"#,
    )
    .await;
}

#[tokio::test]
async fn a_member_we_read_may_not_be_given_twice_in_any_spelling() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let check = async |members: &str, param: &str| {
        let response = gateway.chat(&format!("{{{members}}}")).await;
        assert_eq!(response.status, 400, "{members}: {response:?}");
        let error = &response.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&"invalid_value".into(), &param.into()), "{members}");
        assert_eq!(provider.attempts(), 0, "{members}");
    };
    check(r#""model":"org/model","model":"org/model""#, "model").await;
    check(r#""model":"org/model","\u006dodel":"other""#, "model").await;
    check(r#""mode\u006C":"org/model","messages":[],"model":"other""#, "model").await;
    for (name, value) in [
        ("stream", "true"),
        ("stream_options", "{}"),
        ("n", "1"),
        ("user", "\"u\""),
        ("max_tokens", "5"),
        ("max_completion_tokens", "5"),
        ("tools", "[]"),
        ("messages", "[]"),
        ("response_format", "{}"),
    ] {
        check(&format!(r#""model":"org/model","{name}":{value},"{name}":{value}"#), name).await;
        let escaped: String = name.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        check(&format!(r#""model":"org/model","{name}":{value},"{escaped}":{value}"#), name).await;
    }
    check(
        r#""model":"org/model","stream":true,"stream_options":{"include_usage":false,"include_usage":true}"#,
        "stream_options.include_usage",
    )
    .await;
}

/// The names of `headers`, in lower case.
fn names(headers: &[(String, String)]) -> BTreeSet<String> {
    headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn only_listed_headers_are_sent_upstream() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let given = [
        ("api-key", KEY),
        ("x-api-key", KEY),
        ("cookie", "session=of-the-client"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("connection", "keep-alive, X-Hop, traceparent"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("x-hop", "1"),
        ("traceparent", "00-named-by-connection"),
        ("tracestate", "vendor=1"),
        ("idempotency-key", "once"),
        ("openai-beta", "assistants=v2"),
        ("openai-organization", "org-of-the-client"),
        ("openai-project", "proj-of-the-client"),
        ("x-stainless-lang", "python"),
        ("x-stainless-retry-count", "0"),
        ("accept", "application/json"),
        ("accept-encoding", "br"),
        ("user-agent", "OpenAI/Python"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-host", "elsewhere.example"),
        ("origin", "https://app.example"),
        ("referer", "https://app.example/secret"),
        ("x-tierway-no-fallback", "true"),
        ("x-tierway-deadline-ms", "60000"),
        ("x-request-id", "of-the-client"),
        ("expect", "100-continue"),
    ];
    let response = gateway.post(CHAT, &given, &chat_request("")).await;
    assert_eq!(response.status, 200, "{response:?}");
    let journal = provider.journal();
    let request = &journal.only().request;
    let allowed = [
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "authorization",
        "tracestate",
        "openai-beta",
        "x-stainless-lang",
        "x-stainless-retry-count",
        "user-agent",
    ];
    assert_eq!(names(&request.headers), set(&allowed), "{}", String::from_utf8_lossy(&request.head));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {CREDENTIAL}").as_str()));
    assert_eq!(request.header("host"), Some(provider.addr().to_string().as_str()));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    let ours = concat!("tierway/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(ours), "not the client's name");
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/chat/completions"));
    assert!(!String::from_utf8_lossy(&request.head).contains(KEY));
}

#[tokio::test]
async fn a_trace_is_continued_upstream() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    gateway.post(CHAT, &[("traceparent", trace)], &chat_request("")).await;
    assert_eq!(provider.journal().only().request.header("traceparent"), Some(trace));
}

/// Headers that every answer of the gateway may carry.
const OURS: [&str; 6] =
    ["content-length", "content-type", "date", "x-request-id", "x-tierway-attempts", "x-tierway-overhead-us"];
/// Headers that name the deployment that served.
const SERVED: [&str; 4] = ["x-tierway-deployment", "x-tierway-model", "x-tierway-region", "x-tierway-tier"];

/// `script` with headers that a provider may send and clients must not receive.
fn with_unlisted_headers(script: Script) -> Script {
    [
        ("Set-Cookie", "session=of-the-provider"),
        ("Location", "https://elsewhere.example/"),
        ("Content-Location", "/elsewhere"),
        ("Server", "provider/1.0"),
        ("Via", "1.1 provider"),
        ("CF-Ray", "1"),
        ("WWW-Authenticate", "Bearer"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Access-Control-Allow-Origin", "*"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-tokens", "1"),
        ("x-ratelimit-reset-requests", "1s"),
        ("openai-organization", "org-of-the-operator"),
        ("x-request-id", "req_of_the_provider"),
        ("x-tierway-model", "forged"),
        ("x-tierway-cost-usd", "0"),
        ("x-should-retry", "true"),
        ("Retry-After", "5"),
        ("Link", "<https://elsewhere.example>; rel=next"),
    ]
    .into_iter()
    .fold(script, |script, (name, value)| script.header(name, value))
}

#[tokio::test]
async fn only_listed_headers_are_returned_to_the_client() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let check = async |script: Script, members: &str, status: u16, expected: BTreeSet<String>| {
        provider.answers(with_unlisted_headers(script));
        let response = gateway.chat(&chat_request(members)).await;
        assert_eq!((response.status, names(&response.headers)), (status, expected), "{response:?}");
        assert_ne!(response.header("x-request-id"), Some("req_of_the_provider"));
        assert!(response.header("x-tierway-model").is_none_or(|model| model == MODEL));
    };
    let served = &set(&OURS) | &set(&SERVED);
    let whole = Script::status(200).header("openai-processing-ms", "12").header("openai-version", "2020-10-01");
    let whole = whole.header("content-type", "application/json").body(r#"{"choices":[{"message":{"content":"x"}}]}"#);
    check(whole, "", 200, &served | &set(&["openai-processing-ms", "openai-version"])).await;
    let stream =
        Script::sse().frame(r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}"#).done();
    let of_streams =
        &(&served - &set(&["content-length"])) | &set(&["transfer-encoding", "cache-control", "x-accel-buffering"]);
    check(stream, r#""stream":true,"#, 200, of_streams).await;
    let refused = Script::status(400).header("content-type", "application/json").body(r#"{"error":{"message":"no"}}"#);
    check(refused, "", 400, &served | &set(&["x-should-retry"])).await;
    // Its Retry-After is ours to pass on, in both forms.
    let waits = ["retry-after", "retry-after-ms", "x-should-retry"];
    check(Script::status(500), "", 503, &set(&OURS) | &set(&waits)).await;
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let elsewhere = ScriptedProvider::start("elsewhere").await;
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/chat/completions", elsewhere.base_url());
        provider.answers(Script::status(status).header("location", &to));
        let response = gateway.chat(&chat_request("")).await;
        assert_eq!((response.status, response.header("location")), (502, None), "{status}");
    }
    assert_eq!(elsewhere.journal().connections, 0);
}

#[tokio::test]
async fn a_providers_refusal_of_a_request_reaches_the_client_verbatim() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    for (status, content_type, body) in [
        (400, "application/json", "{ \"error\" : {\"message\":\"\\u00e9\", \"big\":12345678901234567890} }\n"),
        (413, "text/plain; charset=latin1", "too \u{e9} large"),
        (415, "application/problem+json", "{}"),
        (422, "application/json", "{\"detail\":[1e0]}"),
    ] {
        provider.answers(Script::status(status).header("content-type", content_type).body(body));
        let response = gateway.chat(&chat_request("")).await;
        assert_eq!((response.status, response.text()), (status, body));
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(response.header("x-should-retry"), Some("false"));
    }
}

/// Ambiguously framed requests are refused by the HTTP layer.
#[tokio::test]
async fn nothing_ambiguous_is_forwarded() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let body = chat_request("");
    let (length, head) = (body.len(), format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {BEARER}\r\n"));
    for framing in [
        format!("content-length: {length}\r\ncontent-length: 5\r\n\r\n{body}"),
        format!("content-length: +{length}\r\n\r\n{body}"),
        format!("content-length: {length}, {length}x\r\n\r\n{body}"),
        format!("transfer-encoding: xchunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("transfer-encoding: chunked, identity\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("transfer-encoding: chunked\r\n\r\n+{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("transfer-encoding: chunked\r\n\r\n{length:x}\n{body}\n0\n\n"),
        format!("Content-Length : {length}\r\n\r\n{body}"),
        format!("x: a\r\n content-length: {length}\r\n\r\n{body}"),
        format!("x\0y: 1\r\ncontent-length: {length}\r\n\r\n{body}"),
    ] {
        let mut client = Client::connect(gateway.addr).await;
        client.send(format!("{head}{framing}")).await;
        let response = client.response().await;
        assert!((400..=499).contains(&response.status), "{framing:?}: {response:?}");
        assert_eq!(provider.attempts(), 0, "{framing:?}");
    }
    // Both given: the chunks are used and the length is not forwarded.
    let mut client = Client::connect(gateway.addr).await;
    client
        .send(format!("{head}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"))
        .await;
    let response = client.response().await;
    match response.status {
        200 => {
            let sent = provider.journal().only().request.clone();
            assert_eq!((&*sent.body, sent.header("transfer-encoding")), (body.as_bytes(), None));
            assert_eq!(sent.header("content-length"), Some(length.to_string().as_str()));
        }
        status => assert_eq!((status, provider.attempts()), (400, 0)),
    }
}
