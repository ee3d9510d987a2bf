//! The error table as clients receive it: one line for each row that a request can reach.
//!
//! A line is what an SDK acts on: status, type, code, parameter and retry headers. The snapshots of the
//! texts are next to the table itself.

use crate::config::{Config, MODEL, chat_request};
use crate::support::client::Response;
use crate::support::gateway::{BEARER, OTHER_KEY};
use crate::support::{
    BodyEnd, Client, Ending, Fault, Gate, Script, ScriptedProvider, TestGateway, chat_stream, chat_whole,
};
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;

const CHAT: &str = "/v1/chat/completions";

/// Such as `404 invalid_request_error model_not_found model, x-should-retry: false`. Times to wait are in
/// whole seconds, rounded up.
fn line(response: &Response) -> String {
    assert_eq!(response.end, BodyEnd::Clean, "{response:?}");
    let error = response.json()["error"].take();
    let text = |key: &str| error[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!("{} {} {} {}", response.status, text("type"), text("code"), text("param"));
    if let Some(value) = response.header("x-should-retry") {
        line.push_str(&format!(", x-should-retry: {value}"));
    }
    if let Some(seconds) = response.header("retry-after") {
        let ms: u64 = response.header("retry-after-ms").expect("both headers or none").parse().expect("a number");
        assert_eq!(seconds, ms.div_ceil(1000).to_string(), "both forms say the same");
        line.push_str(&format!(", retry-after: {seconds}"));
    }
    let message = text("message");
    assert!(message.len() > 15 && !message.contains("eu/"), "a sentence without a deployment: {message}");
    line
}

async fn start(change: impl FnOnce(Config) -> Config) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&change(Config::of(&provider)).text()).await;
    (gateway, provider)
}

/// A second model that the first key may not use, and a key bound to another region.
const NARROW: &str = r#"
[providers.us]
protocol = "openai"
base_url = "http://127.0.0.1:9/v1"
credential = "env:CREDENTIAL"
region = "us-east"
[models."us/model"]
deployments = [{ provider = "us" }]
[models."org/large"]
deployments = [{ provider = "eu" }]
[tiers.premium]
models = ["org/large"]
[policies.elsewhere]
tiers = ["*"]
regions = ["us-*"]
[[keys]]
name = "elsewhere"
policy = "elsewhere"
secret = "env:OTHER_KEY"
"#;

#[tokio::test]
async fn refusals_of_what_was_asked() {
    let provider = ScriptedProvider::start("eu").await;
    let config = Config::of(&provider)
        .more(NARROW)
        .text()
        .replace("tiers = [\"*\"]\n\n[[keys]]", "tiers = [\"default\"]\n\n[[keys]]");
    let gateway = TestGateway::start(&config).await;
    let check = async |path: &str, body: &str, expected: &str| {
        assert_eq!(line(&gateway.post(path, &[], body).await), expected, "{body}");
    };
    check(CHAT, "{", "400 invalid_request_error invalid_json -, x-should-retry: false").await;
    check(CHAT, "{}", "400 invalid_request_error invalid_value model, x-should-retry: false").await;
    let unknown = r#"{"model":"org/modle"}"#;
    check(CHAT, unknown, "404 invalid_request_error model_not_found model, x-should-retry: false").await;
    let forbidden = r#"{"model":"org/large"}"#;
    check(CHAT, forbidden, "403 invalid_request_error model_not_allowed model, x-should-retry: false").await;
    let embeddings = format!(r#"{{"model":"{MODEL}","input":"x"}}"#);
    let not_served = "400 invalid_request_error invalid_value model, x-should-retry: false";
    check("/v1/embeddings", &embeddings, not_served).await;
    check("/v1/nothing", "", "404 invalid_request_error unknown_url -, x-should-retry: false").await;

    let mut client = gateway.connect().await;
    client.get(CHAT, &[("authorization", BEARER)]).await;
    let wrong = client.response().await;
    assert_eq!(line(&wrong), "405 invalid_request_error method_not_allowed -, x-should-retry: false");
    client.post(CHAT, &[("authorization", "Bearer nobody")], "{}").await;
    let unknown = client.response().await;
    assert_eq!(line(&unknown), "401 invalid_request_error invalid_api_key -, x-should-retry: false");
    client.post(CHAT, &[("authorization", &format!("Bearer {OTHER_KEY}"))], &chat_request("")).await;
    let elsewhere = client.response().await;
    assert_eq!(line(&elsewhere), "403 invalid_request_error residency_unavailable model, x-should-retry: false");
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn the_nearest_names_are_those_the_key_may_use() {
    let (gateway, _provider) = start(|config| config.more(NARROW)).await;
    let response = gateway.chat(r#"{"model":"org/modle"}"#).await;
    assert!(response.text().contains("'org/model'"), "{response:?}");
}

#[tokio::test]
async fn refusals_of_the_body_as_such() {
    let (gateway, provider) = start(|config| config.server("max_body = \"1KiB\"")).await;
    let large = gateway.chat(&"x".repeat(1025)).await;
    assert_eq!(line(&large), "413 invalid_request_error request_too_large -, x-should-retry: false");
    let unread = gateway.post(CHAT, &[("content-encoding", "lzma")], "{}").await;
    assert_eq!(line(&unread), "415 invalid_request_error unsupported_content_encoding -, x-should-retry: false");
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn over_a_limit() {
    let (gateway, _provider) = start(|config| config.policy("requests_per_minute = 1")).await;
    assert_eq!(gateway.chat(&chat_request("")).await.status, 200);
    assert_eq!(
        line(&gateway.chat(&chat_request("")).await),
        "429 rate_limit_error rate_limit_exceeded -, retry-after: 60"
    );

    let (gateway, provider) = start(|config| config.policy("max_concurrent = 1")).await;
    let refused = while_another_runs(&gateway, &provider, &chat_request("")).await;
    assert!(line(&refused).starts_with("429 rate_limit_error rate_limit_exceeded -, retry-after: "), "{refused:?}");

    let (gateway, _provider) = start(|config| config.policy("tokens_per_minute = 10")).await;
    let never = gateway.chat(&chat_request(r#""max_tokens":1000,"#)).await;
    assert_eq!(line(&never), "429 rate_limit_error rate_limit_exceeded -, x-should-retry: false");
}

#[tokio::test]
async fn full() {
    let (gateway, provider) = start(|config| config.deployment("max_concurrent = 1")).await;
    let shed = while_another_runs(&gateway, &provider, &chat_request("")).await;
    let line = line(&shed);
    let (row, wait) = line.split_once(", retry-after: ").unwrap_or_else(|| panic!("{shed:?}"));
    assert_eq!(row, "429 rate_limit_error slow_down -");
    assert!(["1", "2"].contains(&wait), "a second, thirty percent more or less: {wait}");
}

/// The answer to `request` while another request is in progress at the provider.
async fn while_another_runs(gateway: &TestGateway, provider: &ScriptedProvider, request: &str) -> Response {
    let gate = Gate::new();
    provider.answers(chat_whole("Hello").wait_before_headers(&gate));
    let mut first = gateway.connect().await;
    first.post(CHAT, &[("authorization", BEARER)], &chat_request("")).await;
    gate.reached(1).await;
    let response = gateway.chat(request).await;
    gate.open();
    assert_eq!(first.response().await.status, 200);
    response
}

/// What may pass: the client may try again, as it would at the provider itself.
const SPENT: &str = "502 server_error upstream_error -";

#[tokio::test]
async fn every_attempt_failed() {
    for fault in [
        Fault::PortClosed,
        Fault::Reset,
        Fault::Status500,
        Fault::Status503,
        Fault::Status529,
        Fault::Status401,
        Fault::Status404,
        Fault::GarbageBody,
        Fault::GarbageWire,
        Fault::ErrorInside200,
        Fault::FinBeforeFirstToken,
        Fault::ResetBeforeFirstToken,
    ] {
        // A new gateway each: what one fault leaves behind must not change the next one.
        let (gateway, provider) = start(|config| config).await;
        provider.break_with(fault).await;
        for members in ["", r#""stream":true,"#] {
            let reported = line(&gateway.chat(&chat_request(members)).await);
            let expected = match fault {
                Fault::FinBeforeFirstToken | Fault::ResetBeforeFirstToken => "502 server_error upstream_truncated -",
                // Only the operator can mend it.
                Fault::Status401 => "502 server_error upstream_error -, x-should-retry: false",
                // The only provider's word: the request may be to blame as well.
                Fault::Status404 => "404 invalid_request_error model_not_found -, x-should-retry: false",
                _ => SPENT,
            };
            assert_eq!(reported, expected, "{fault:?} {members}");
        }
    }
}

#[tokio::test]
async fn nothing_came_in_time() {
    const LATE: &str = "504 server_error upstream_timeout -";
    let limits = "first_token = \"150ms\"\nmax_attempts = 1";
    let (gateway, provider) = start(|config| config.routing(limits).model("whole = \"150ms\"")).await;
    for fault in [Fault::SilentBeforeHeaders, Fault::SilentAfterHeaders] {
        provider.break_with(fault).await;
        for members in ["", r#""stream":true,"#] {
            assert_eq!(line(&gateway.chat(&chat_request(members)).await), LATE, "{fault:?} {members}");
        }
    }
    let (gateway, provider) = start(|config| config).await;
    provider.break_with(Fault::SilentBeforeHeaders).await;
    let reported = gateway.post(CHAT, &[("x-tierway-deadline-ms", "150")], &chat_request("")).await;
    assert_eq!(line(&reported), LATE, "the client's own deadline");
    let (gateway, provider) = start(|config| config.routing("total = \"150ms\"")).await;
    provider.break_with(Fault::SilentBeforeHeaders).await;
    assert_eq!(line(&gateway.chat(&chat_request("")).await), LATE, "total");
}

#[tokio::test]
async fn all_are_resting() {
    let (gateway, provider) = start(|config| config).await;
    provider.answers(Script::status(429).header("retry-after", "7"));
    let reported = line(&gateway.chat(&chat_request("")).await);
    assert_eq!(reported, "503 server_error no_deployment_available -, x-should-retry: true, retry-after: 7");
    // Two more of different requests, and it rests: nothing is sent before the time is over.
    for _ in 0..2 {
        gateway.chat(&chat_request("")).await;
    }
    let rested = line(&gateway.chat(&chat_request("")).await);
    assert!(rested.starts_with("503 server_error no_deployment_available -"), "{rested}");
    assert_eq!(provider.attempts(), 3);
}

/// A part of a whole answer is never presented as the answer, wherever it was cut.
#[tokio::test]
async fn a_whole_answer_cut_anywhere_is_no_answer() {
    let (gateway, provider) = start(|config| config.routing("max_attempts = 1")).await;
    let script = chat_whole("Hello");
    provider.answers(script.clone());
    assert_eq!(gateway.chat(&chat_request("")).await.status, 200);
    let length = script.frames_for(&provider.at_rest().await.only().request).concat().len();
    for bytes in (0..length).step_by(5) {
        for ending in [Ending::Clean, Ending::Fin, Ending::Rst] {
            provider.answers(script.clone().cut_at_body_byte(bytes, ending));
            let reported = line(&gateway.chat(&chat_request("")).await);
            let truncated = "502 server_error upstream_truncated -";
            assert_eq!(reported, truncated, "{ending:?} at byte {bytes} of {length}");
        }
    }
}

/// The row for an error after the status was sent; the details are tested in `streams`.
#[tokio::test]
async fn broken_after_the_first_token() {
    let (gateway, provider) = start(|config| config).await;
    provider.answers(chat_stream("Hello", 3).cut_after_frame(3, Ending::Fin));
    let response = gateway.chat(&chat_request(r#""stream":true,"#)).await;
    assert_eq!((response.status, response.end), (200, BodyEnd::Fin));
    let error = response.frames().pop().expect("the error event").json()["error"].take();
    assert_eq!(
        (&error["type"], &error["param"], &error["code"]),
        (&"server_error".into(), &serde_json::Value::Null, &"upstream_stream_interrupted".into())
    );
    // Its one attempt answered and did not serve the request.
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!((receipt.outcome, receipt.attempts[0].reason), (Outcome::Broken, Reason::Reset));
    let broke = format!("tierway_attempts_total{{deployment=\"{}\",reason=\"reset\"}}", receipt.attempts[0].deployment);
    assert_eq!((gateway.metric(&broke), gateway.sum("tierway_attempts_total{")), (1.0, 1));
    assert_eq!(receipt.served.as_ref().map(|served| &served.deployment), Some(&receipt.attempts[0].deployment));
}

/// The gateway waits ten seconds for a body that stops arriving, then refuses it. Slow, but the only way
/// to check that a client can read the refusal.
#[tokio::test]
async fn too_slow_a_body() {
    let (gateway, provider) = start(|config| config).await;
    let mut client = Client::connect(gateway.addr).await;
    client
        .send(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {BEARER}\r\ncontent-length: 100\r\n\r\n{{"))
        .await;
    let begun = std::time::Instant::now();
    let response = client.response().await;
    assert_eq!(line(&response), "408 timeout request_timeout -");
    assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(provider.attempts(), 0);
}
