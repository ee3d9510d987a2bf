//! Web pages that call the gateway from a browser: preflights without a key, answers that a page may read, and nothing
//! for pages that are not configured or for operators' paths.

use crate::config::{Config, chat_request};
use crate::support::client::Response;
use crate::support::gateway::{ADMIN_TOKEN, BEARER};
use crate::support::{ScriptedProvider, TestGateway, chat_stream, chat_whole};

const PAGE: &str = "https://app.example.com";
const CHAT: &str = "/v1/chat/completions";
/// What the official Node client adds to a request from a browser.
const SDK_HEADERS: &str = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,\
                           x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,\
                           x-stainless-runtime-version,x-stainless-timeout";

fn config(provider: &ScriptedProvider, origins: &str) -> String {
    Config::of(provider).server(origins).text()
}

async fn gateway(origins: &str) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    (TestGateway::start(&config(&provider, origins)).await, provider)
}

async fn preflight(gateway: &TestGateway, path: &str, origin: &str) -> Response {
    let mut client = gateway.connect().await;
    let head = format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: t\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: {SDK_HEADERS}\r\n\r\n"
    );
    client.send(head).await;
    client.response().await
}

fn allowed(response: &Response) -> Option<&str> {
    response.header("access-control-allow-origin")
}

/// Fails the test unless a page of `origin` may read `response` with our headers.
fn assert_readable(response: &Response, origin: &str) {
    assert_eq!(allowed(response), Some(origin), "{response:?}");
    assert_eq!(response.header("vary"), Some("origin"), "{response:?}");
    assert_eq!(response.header("access-control-allow-credentials"), None);
    let exposed = response.header("access-control-expose-headers").expect("a list");
    for name in ["x-request-id", "x-tierway-deployment", "x-tierway-cost-usd", "retry-after", "retry-after-ms"] {
        assert!(exposed.split(", ").any(|exposed| exposed == name), "{name} of {exposed}");
    }
}

#[tokio::test]
async fn a_preflight_needs_no_key_and_leaves_no_receipt() {
    let (gateway, provider) = gateway(&format!("cors_origins = [\"{PAGE}\", \"http://localhost:3000\"]")).await;
    for path in [CHAT, "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/org/model", "//v1/models/"] {
        let answer = preflight(&gateway, path, PAGE).await;
        assert_eq!((answer.status, allowed(&answer)), (204, Some(PAGE)), "{path}");
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains("POST") && methods.contains("GET"), "{methods}");
        assert_eq!(answer.header("access-control-allow-headers"), Some(SDK_HEADERS));
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")), "{answer:?}");
        assert!(answer.header("x-request-id").is_some() && answer.body.is_empty(), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    assert_eq!(allowed(&preflight(&gateway, CHAT, "http://localhost:3000").await), Some("http://localhost:3000"));
    // It is not told which paths exist; the request that follows is, and can be read.
    for path in ["/v1/nothing", "/v1", "/v1/v1/chat/completions", "/chat/completions"] {
        let answer = preflight(&gateway, path, PAGE).await;
        assert_eq!((answer.status, allowed(&answer)), (204, Some(PAGE)), "{path}");
    }
    let spelled = preflight(&gateway, CHAT, "HTTPS://App.Example.com").await;
    assert_eq!(allowed(&spelled), Some("HTTPS://App.Example.com"));
    assert_eq!(gateway.relay.entered(), 0, "no preflight enters the request path");
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn whole_answers_streams_and_errors_can_be_read() {
    let (gateway, provider) = gateway(&format!("cors_origins = \"{PAGE}\"")).await;
    let origin = [("origin", PAGE)];
    provider.answers(chat_whole("Hello"));
    let whole = gateway.post(CHAT, &origin, &chat_request("")).await;
    assert_eq!(whole.chat_text().as_deref(), Ok("Hello"));
    assert_readable(&whole, PAGE);
    provider.answers(chat_stream("Hello", 3));
    let stream = gateway.post("/chat/completions", &origin, &chat_request(r#""stream":true,"#)).await;
    assert_eq!(stream.chat_text().as_deref(), Ok("Hello"));
    assert_readable(&stream, PAGE);
    let unread = gateway.post(CHAT, &origin, "{").await;
    assert_eq!(unread.status, 400);
    assert_readable(&unread, PAGE);
    let mut wrong = gateway.connect().await;
    wrong.send(format!("DELETE {CHAT} HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\norigin: {PAGE}\r\n\r\n")).await;
    let wrong = wrong.response().await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_readable(&wrong, PAGE);
    let nowhere = gateway.post("/v1/nothing", &origin, "{}").await;
    assert_eq!(nowhere.status, 404);
    assert_readable(&nowhere, PAGE);
    let mut client = gateway.connect().await;
    client.get("/v1/models", &origin).await;
    let keyless = client.response().await;
    assert_eq!(keyless.status, 401);
    assert_readable(&keyless, PAGE);
    client.get("/v1/models", &[("authorization", BEARER), origin[0]]).await;
    assert_readable(&client.response().await, PAGE);
}

#[tokio::test]
async fn a_page_of_another_origin_reads_nothing() {
    let (gateway, provider) = gateway(&format!("cors_origins = [\"{PAGE}\"]")).await;
    for origin in ["https://evil.example", "null", "http://app.example.com", "https://app.example.com:8443"] {
        let answer = preflight(&gateway, CHAT, origin).await;
        assert_eq!((answer.status, allowed(&answer)), (204, None), "{origin}");
        assert_eq!(answer.header("access-control-allow-headers"), None);
        // A key was sent, so it is served: it is the browser that keeps the answer from the page.
        provider.answers(chat_whole("Hello"));
        let answer = gateway.post(CHAT, &[("origin", origin)], &chat_request("")).await;
        assert_eq!((answer.status, allowed(&answer)), (200, None), "{origin}");
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    // Without an origin it is no page; what is kept of the answer must not be given to one.
    let answer = gateway.get("/v1/models").await;
    assert_eq!((allowed(&answer), answer.header("vary")), (None, Some("origin")));
}

#[tokio::test]
async fn operators_paths_are_for_no_page() {
    let (gateway, _provider) = gateway("cors_origins = [\"*\"]").await;
    let mut client = gateway.connect().await;
    for path in ["/admin/v1/status", "/admin/v1/keys", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let answer = preflight(&gateway, path, PAGE).await;
        assert!(answer.status >= 400 && allowed(&answer).is_none(), "{path}: {answer:?}");
        client.get(path, &[("authorization", &format!("Bearer {ADMIN_TOKEN}")), ("origin", PAGE)]).await;
        let answer = client.response().await;
        assert!(allowed(&answer).is_none() && answer.header("vary").is_none(), "{path}: {answer:?}");
    }
    let any = preflight(&gateway, CHAT, PAGE).await;
    assert_eq!((any.status, allowed(&any)), (204, Some("*")));
    let answer = gateway.get("/v1/models").await;
    assert_eq!(allowed(&answer), None, "nothing is said to what is no page");
}

#[tokio::test]
async fn without_the_setting_there_is_no_cors_and_a_reload_changes_it() {
    let (gateway, provider) = gateway("").await;
    let answer = preflight(&gateway, CHAT, PAGE).await;
    assert_eq!((answer.status, allowed(&answer)), (401, None));
    provider.answers(chat_whole("Hello"));
    let answer = gateway.post(CHAT, &[("origin", PAGE)], &chat_request("")).await;
    assert_eq!((answer.status, allowed(&answer), answer.header("vary")), (200, None, None));
    gateway.reload(&config(&provider, &format!("cors_origins = [\"{PAGE}\"]")));
    assert_eq!(allowed(&preflight(&gateway, CHAT, PAGE).await), Some(PAGE));
    gateway.reload(&config(&provider, "cors_origins = []"));
    assert_eq!(allowed(&preflight(&gateway, CHAT, PAGE).await), None);
}
