//! Clients whose base URL is not quite right: served where the path still names one endpoint, otherwise told what a base
//! URL looks like. Nothing of it leads to operators' paths or past a key.

use crate::config::{Config, MODEL, chat_request};
use crate::support::gateway::{ADMIN_TOKEN, BEARER};
use crate::support::{Client, ScriptedProvider, TestGateway, chat_stream, chat_whole};
use tierway::domain::reason::Reason;

async fn gateway() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    (TestGateway::start(&Config::of(&provider).text()).await, provider)
}

/// The bases that clients were seen with, before the path that their library appends.
const BASES: [&str; 10] =
    ["/v1", "", "/", "/v1/", "//v1", "/v1/v1", "/v1//v1/", "/openai/v1", "/api/v1", "/inference/v1"];

#[tokio::test]
async fn each_base_url_reaches_each_endpoint() {
    let (gateway, provider) = gateway().await;
    for base in BASES {
        for end in ["", "/", "//"] {
            provider.answers(chat_whole("Hello"));
            let path = format!("{base}/chat/completions{end}");
            let answer = gateway.post(&path, &[], &chat_request("")).await;
            assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "{path}");
            let path = format!("{base}/models{end}?limit=1");
            let listed = gateway.get(&path).await;
            assert!(listed.status == 200 && listed.text().contains(MODEL), "{path}: {listed:?}");
            let path = format!("{base}/models/{MODEL}{end}");
            let found = gateway.get(&path).await;
            assert_eq!((found.status, found.json()["id"].as_str()), (200, Some(MODEL)), "{path}");
        }
    }
    provider.answers(chat_stream("Hello", 3));
    let streamed = gateway.post("/chat/completions/", &[], &chat_request(r#""stream":true,"#)).await;
    assert_eq!(streamed.chat_text().as_deref(), Ok("Hello"));
    let encoded = gateway.get(&format!("/models/{}", MODEL.replace('/', "%2F"))).await;
    assert_eq!(encoded.status, 200, "{encoded:?}");
    // What is encoded is part of a name or a segment: it is never taken for a slash between two.
    for path in ["/v1/models/org%2F%2Fmodel", "/v1/models/%2F", "/v1%2Fmodels", "/v1%2Fchat%2Fcompletions"] {
        assert_eq!(gateway.get(path).await.status, 404, "{path}");
    }
    let embeddings = gateway.post("/embeddings", &[], &format!(r#"{{"model":"{MODEL}","input":"x"}}"#)).await;
    assert_eq!(embeddings.refusal(), (400, "invalid_value".to_owned()), "the endpoint exists; this model lacks it");
}

#[tokio::test]
async fn another_spelling_is_no_way_past_a_key_or_a_method() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    for path in ["/chat/completions", "//v1//chat/completions/", "/models", "/v1/v1/models/x", "//v1/nothing"] {
        for method in ["GET", "POST", "DELETE"] {
            client.send(format!("{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n")).await;
            assert_eq!(client.response().await.refusal(), (401, "invalid_api_key".to_owned()), "{method} {path}");
        }
    }
    let wrong = gateway.get("/chat/completions").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    let wrong = gateway.post("//v1/models/", &[], "{}").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
    client.send(format!("HEAD /models/ HTTP/1.1\r\nhost: t\r\nauthorization: {BEARER}\r\n\r\n")).await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn a_path_that_names_no_endpoint_says_what_a_base_url_is() {
    let (gateway, provider) = gateway().await;
    for path in [
        "/v1/chat/completions/chat/completions",
        "/v1/responses/resp_1/nothing",
        "/elsewhere/v1/chat/completions",
        "/openai/deployments/m/chat/completions",
        "/v2/chat/completions",
        "/",
    ] {
        let refused = gateway.post(path, &[], &chat_request("")).await;
        assert_eq!(refused.refusal(), (404, "unknown_url".to_owned()), "{path}");
        let said = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(said.contains(&format!("'{path}'")) && said.contains("base URL is"), "{said}");
        assert!(said.contains("'https://HOST:PORT/v1'"), "{said}");
    }
    // Below /v1 a request leaves a receipt; elsewhere it is nobody's.
    let receipts = gateway.receipts(2).await;
    assert!(receipts.iter().all(|receipt| receipt.reason == Reason::UnknownUrl), "{receipts:?}");
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn operators_paths_have_one_spelling() {
    let (gateway, _provider) = gateway().await;
    let mut client = Client::connect(gateway.addr).await;
    let token = format!("Bearer {ADMIN_TOKEN}");
    for (path, expected) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/admin/v1/status", 200),
        ("//metrics", 404),
        ("/v1/metrics", 401),
        ("//admin/v1/status", 404),
        ("/admin//v1/status", 404),
        ("/admin/v1/status/", 404),
        ("/admin/v1/models", 404),
        ("/admin/v1/chat/completions", 404),
        ("/v1/admin/v1/status", 401),
        ("/openai/v1/metrics", 404),
    ] {
        client.get(path, &[("authorization", &token)]).await;
        assert_eq!(client.response().await.status, expected, "{path}");
    }
}
