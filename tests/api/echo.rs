//! A provider that sends its credential back, in every place that reaches a client: it is masked, and nothing else is
//! changed.

use crate::config::{Config, chat_request};
use crate::support::client::Response;
use crate::support::gateway::CREDENTIAL;
use crate::support::{Ending, Script, ScriptedProvider, TestGateway};

const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"TEXT"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
const FRAME: &str = r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":null}]}"#;
const LAST: &str =
    r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

async fn gateway() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    (TestGateway::start(&Config::of(&provider).text()).await, provider)
}

#[track_caller]
fn shows_none(response: &Response, place: &str) -> String {
    let all = format!("{:?}\n{}", response.headers, String::from_utf8_lossy(&response.body));
    assert!(!all.contains(CREDENTIAL), "{place}: {all}");
    assert!(all.contains("********"), "{place}: {all}");
    String::from_utf8_lossy(&response.body).into_owned()
}

#[tokio::test]
async fn an_error_that_is_passed_on_has_a_mask_in_its_place() {
    for status in [400, 413, 422] {
        let (gateway, provider) = gateway().await;
        let body =
            format!(r#"{{"error":{{"message":"You sent {CREDENTIAL}","code":"x"}},"headers":["{CREDENTIAL}"]}}"#);
        provider.answers(
            Script::status(status)
                .header("content-type", "application/json")
                .header("x-request-id", CREDENTIAL)
                .body(body.clone()),
        );
        let response = gateway.chat(&chat_request("")).await;
        assert_eq!(response.status, status);
        assert_eq!(shows_none(&response, "an error"), body.replace(CREDENTIAL, "********"));
        let receipts = gateway.receipts(1).await;
        assert_eq!(receipts[0].attempts[0].provider_request_id.as_deref(), Some("********"));
    }
}

#[tokio::test]
async fn a_whole_answer_has_a_mask_in_its_place() {
    let (gateway, provider) = gateway().await;
    let body = CHAT.replace("TEXT", &format!("a {CREDENTIAL} b"));
    provider.answers(
        Script::status(200)
            .header("openai-version", CREDENTIAL)
            .header("content-type", "application/json")
            .body(body.clone()),
    );
    let response = gateway.chat(&chat_request("")).await;
    assert_eq!(response.status, 200);
    assert!(shows_none(&response, "an answer").contains(r#""content":"a ******** b""#));
}

/// As frames of their own, and with every cut of the wire that divides the credential.
#[tokio::test]
async fn a_stream_has_a_mask_in_its_place_wherever_it_is_cut() {
    let frame = format!("data: {}\n\n", FRAME.replace("TEXT", CREDENTIAL));
    let at = frame.find(CREDENTIAL).expect("it is there");
    for cut in [at, at + 1, at + CREDENTIAL.len() / 2, at + CREDENTIAL.len() - 1, at + CREDENTIAL.len()] {
        let (gateway, provider) = gateway().await;
        let script = Script::sse().frame(&FRAME.replace("TEXT", "Hello")).body(frame[..cut].to_owned());
        provider.answers(script.body(frame[cut..].to_owned()).frame(LAST).done());
        let response = gateway.chat(&chat_request(r#""stream":true,"#)).await;
        assert_eq!(response.status, 200);
        let body = shows_none(&response, "a stream");
        assert!(body.contains("Hello") && body.contains("[DONE]"), "{body}");
    }
}

#[tokio::test]
async fn what_only_begins_like_it_is_passed_on_also_at_the_end() {
    let (gateway, provider) = gateway().await;
    let begun = &CREDENTIAL[..CREDENTIAL.len() - 1];
    let body = format!(r#"{{"error":{{"message":"{begun}","code":"x"}}}}{begun}"#);
    provider
        .answers(Script::status(400).header("content-type", "application/json").body(body.clone()).end(Ending::Fin));
    let response = gateway.chat(&chat_request("")).await;
    assert_eq!((response.status, String::from_utf8_lossy(&response.body).into_owned()), (400, body));
}
