//! What the gateway adds to a request and to what comes back: the wish for usage, its name, configured headers, what of a
//! client's is passed on, and the provider's own name for a request.

use crate::budgets::{CEILING, INPUT, OUTPUT, budget, priced_config};
use crate::config::{Config, chat_request};
use crate::support::gateway::{BEARER, CREDENTIAL, KEY, compile};
use crate::support::{BodyEnd, Gate, Script, ScriptedProvider, TestGateway, chat_stream, chat_whole, soon};
use serde_json::json;
use std::sync::Arc;
use tierway::config::{ConfigSource, load};
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;

const CHAT: &str = "/v1/chat/completions";

async fn start(change: impl FnOnce(Config) -> Config) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&change(Config::of(&provider)).text()).await;
    (gateway, provider)
}

/// Frames of a stream of two tokens, and what comes between the last choice and `[DONE]`.
fn ending(frames: &[&str]) -> Script {
    let script = Script::sse()
        .frame(r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}"#)
        .frame(r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    frames.iter().fold(script, |script, frame| script.frame(frame)).done()
}

#[tokio::test]
async fn a_stream_that_is_refused_for_our_wish_is_served_and_the_wish_is_dropped() {
    let refusal = json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]});
    let strict = move |status| {
        let refusal = refusal.clone();
        Script::by(move |request| match request.json().get("stream_options") {
            Some(_) => Script::status(status).json(&refusal),
            None => ending(&[]),
        })
    };
    let (gateway, provider) = start(|config| config).await;
    let stream = chat_request(r#""stream":true,"#);
    for (number, asked) in [(1, vec![true, false]), (2, vec![false])] {
        provider.clear();
        provider.answers(strict(422));
        let answer = gateway.chat(&stream).await;
        assert_eq!((answer.status, answer.header("x-tierway-attempts")), (200, Some("1")), "{answer:?}");
        let journal = provider.at_rest().await;
        let sent = journal.requests().map(|request| request.json().get("stream_options").is_some());
        assert_eq!(sent.collect::<Vec<_>>(), asked);
        assert_eq!(journal.requests().last().expect("a request").body, stream.as_bytes(), "as the client wrote it");
        let receipts = gateway.receipts(number).await;
        let receipt = receipts.last().expect("one for each request");
        let output = receipt.usage.map(|usage| usage.output);
        assert_eq!((receipt.outcome, receipt.attempts.len(), output), (Outcome::Served, 1, Some(2)));
    }
    assert_eq!(gateway.sum("tierway_attempts_total{"), 2);
    // What a host says of the client's own words is its last word, and nothing is remembered.
    let (gateway, provider) = start(|config| config).await;
    for number in 1..=2 {
        provider.clear();
        provider.answers(Script::by(|request| match request.json().get("stream_options") {
            Some(_) => Script::status(500).body("TypeError: unexpected keyword argument 'stream_options'"),
            None => Script::status(400).body("too hot"),
        }));
        let answer = gateway.chat(&stream).await;
        assert_eq!((answer.status, answer.text(), answer.header("x-tierway-attempts")), (400, "too hot", Some("1")));
        assert_eq!(provider.at_rest().await.requests().count(), 2);
        gateway.receipts(number).await;
    }
    // What the client itself asks for is the host's to refuse.
    provider.answers(strict(400));
    let own = gateway.chat(&chat_request(r#""stream":true,"stream_options":{"include_usage":true},"#)).await;
    assert_eq!(own.status, 400);
    assert!(own.text().contains("extra_forbidden"), "{own:?}");
    gateway.receipts(3).await;
}

#[tokio::test]
async fn frames_of_usage_alone_are_for_clients_that_asked() {
    let usage = r#"{"prompt_tokens":9,"completion_tokens":1}"#;
    let (gateway, provider) = start(|config| config).await;
    let shapes = [
        format!(r#"{{"id":"c","choices":[],"usage":{usage}}}"#),
        format!(r#"{{"id":"c","choices":null,"usage":{usage}}}"#),
        format!(r#"{{"id":"c","usage":{usage}}}"#),
        format!(r#"{{"id":"c","choices":[{{"index":0}}],"usage":{usage}}}"#),
        format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":null}}],"usage":{usage}}}"#),
        format!(r#"{{"id":"c","choices":[],"x_groq":{{"id":"r","usage":{usage}}}}}"#),
        r#"{"id":"c","choices":[],"usage":null}"#.to_owned(),
        r#"{"id":"c","choices":[]}"#.to_owned(),
    ];
    for shape in &shapes {
        for (asks, frames) in [("", 3), (r#""stream_options":{"include_usage":true},"#, 4)] {
            provider.answers(ending(&[shape]));
            let answer = gateway.chat(&chat_request(&format!(r#""stream":true,{asks}"#))).await;
            assert_eq!(answer.frames().len(), frames, "{shape}: {}", answer.text());
            assert_eq!(answer.text().contains(shape), frames == 4, "{}", answer.text());
            assert!(frames == 4 || !answer.text().contains("usage"), "{}", answer.text());
        }
    }
    let receipts = gateway.receipts(2 * shapes.len() as u64).await;
    let counted = receipts.iter().filter(|receipt| receipt.usage.is_some_and(|usage| usage.input == 9));
    assert_eq!(counted.filter(|receipt| !receipt.estimated).count(), 12);
}

#[tokio::test]
async fn a_provider_gets_our_name_what_is_configured_and_what_is_listed() {
    let configured = r#"
        headers = { X-Title = "Mine", api-key = "env:OTHER_KEY" }
        forward_headers = ["X-Trace", "x-none"]
        forward_query = ["api-version"]
    "#;
    let (gateway, provider) = start(|config| config.provider(configured)).await;
    provider.answers(chat_whole("Hello"));
    let sent =
        [("x-trace", "t-1"), ("x-title", "theirs"), ("x-other", "o"), ("cookie", "c=1"), ("user-agent", "client/1")];
    let answer = gateway.post(&format!("{CHAT}?api-version=2&other=3"), &sent, &chat_request("")).await;
    assert_eq!(answer.status, 200);
    let journal = provider.at_rest().await;
    let request = &journal.only().request;
    assert_eq!(request.path, "/v1/chat/completions?api-version=2");
    let ours = format!("tierway/{}", env!("CARGO_PKG_VERSION"));
    for (name, expected) in [
        ("x-title", Some("Mine")),
        ("api-key", Some(crate::support::gateway::OTHER_KEY)),
        ("x-trace", Some("t-1")),
        ("user-agent", Some(&*ours)),
        ("authorization", Some(&*format!("Bearer {CREDENTIAL}"))),
        ("x-other", None),
        ("cookie", None),
    ] {
        assert_eq!(request.header(name), expected, "{name}");
    }
    // Another provider's list is not this one's.
    let (gateway, provider) = start(|config| {
        config.more("[providers.us]\nprotocol = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nforward_headers = [\"x-trace\"]\nforward_query = [\"api-version\"]")
    })
    .await;
    provider.answers(chat_whole("Hello"));
    gateway.post(&format!("{CHAT}?api-version=2"), &sent, &chat_request("")).await;
    let journal = provider.at_rest().await;
    let request = &journal.only().request;
    assert_eq!((request.header("x-trace"), &*request.path), (None, "/v1/chat/completions"));
}

#[test]
fn what_may_never_be_passed_on_is_refused_by_check() {
    let provider = "base_url = \"http://127.0.0.1:9/v1\"\n";
    let refused = |line: &str| {
        let text = Config::at("http://127.0.0.1:9/v1").provider(line).text();
        assert!(text.contains(provider));
        let source = ConfigSource::File { path: "tierway.toml".into(), text };
        let environment = crate::support::gateway::TestEnvironment::default();
        load(&source, &environment, &[]).err().map(|problems| problems.render(false))
    };
    for name in
        ["authorization", "Cookie", "x-api-key", "connection", "transfer-encoding", "host", "content-length", "a b"]
    {
        let problems = refused(&format!("forward_headers = [\"{name}\"]"));
        assert!(problems.is_some_and(|problems| problems.contains("forward_headers")), "{name}");
    }
    for name in ["api_key", "key", "token", "access_token", "a=b"] {
        let problems = refused(&format!("forward_query = [\"{name}\"]"));
        assert!(problems.is_some_and(|problems| problems.contains("forward_query")), "{name}");
    }
    for line in [
        r#"headers = { authorization = "env:OTHER_KEY" }"#,
        r#"headers = { x-api-key = "sk-written-out" }"#,
        r#"headers = { connection = "close" }"#,
        r#"headers = { x-a = "1", X-A = "2" }"#,
        "headers = { x-a = \"a\\nb\" }",
    ] {
        let problems = refused(line).unwrap_or_else(|| panic!("{line} is accepted"));
        assert!(problems.contains("headers") && !problems.contains("sk-written-out"), "{problems}");
    }
    assert_eq!(refused(r#"forward_headers = ["user-agent", "http-referer"]"#), None);
    let masked: Arc<_> =
        compile(&Config::at("http://127.0.0.1:9/v1").provider(r#"headers = { x-a = "env:OTHER_KEY" }"#).text());
    assert!(!format!("{masked:?}").contains("tw_test_canary_other_key"));
}

#[tokio::test]
async fn the_providers_name_for_a_request_is_on_its_receipt() {
    let (gateway, provider) = start(|config| config.routing("max_attempts = 1")).await;
    let answer = json!({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]});
    let named = |script: Script, name: &'static str, id: &'static str| script.header(name, id);
    for (number, name) in (1..).zip(["x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "cf-ray"]) {
        provider.answers(named(Script::status(200).json(&answer), name, "r-1"));
        gateway.chat(&chat_request("")).await;
        let receipts = gateway.receipts(number).await;
        let receipt = receipts.last().expect("one for each request");
        assert_eq!(receipt.provider_request_id(), Some("r-1"), "{name}");
    }
    provider.answers(named(Script::status(500), "x-request-id", "r-2"));
    gateway.chat(&chat_request("")).await;
    let receipts = gateway.receipts(6).await;
    let receipt = receipts.last().expect("one for each request");
    assert_eq!((receipt.outcome, receipt.provider_request_id()), (Outcome::Failed, Some("r-2")));
    let log = soon("the access log to be written", async {
        while gateway.access_log().lines().count() < 6 {
            tokio::task::yield_now().await;
        }
        gateway.access_log()
    })
    .await;
    assert_eq!(log.matches(r#""provider_request_id":"r-1""#).count(), 5, "{log}");
    assert_eq!(log.matches(r#""provider_request_id":"r-2""#).count(), 1, "{log}");
}

#[tokio::test]
async fn a_fault_of_the_providers_own_is_passed_on_in_its_masked_words() {
    let (gateway, provider) = start(|config| config.routing("max_attempts = 1")).await;
    let said = json!({"error": {"message": format!("No worker for api key: {CREDENTIAL} is free")}});
    provider.answers(Script::status(503).json(&said));
    let answer = gateway.chat(&chat_request("")).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("upstream_error")));
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("The provider said: \"No worker"), "{message}");
    assert!(!message.contains(CREDENTIAL), "{message}");
    let receipts = gateway.receipts(1).await;
    assert_eq!(receipts[0].reason, Reason::UpstreamStatus);
    // A long one is cut, and one that is no sentence is not repeated.
    for (said, is_repeated) in
        [("no worker ".repeat(10_000), true), ("<html><body>no worker</body></html>".to_owned(), false)]
    {
        provider.answers(Script::status(503).body(said));
        let answer = gateway.chat(&chat_request("")).await;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status, message.contains("no worker")), (502, is_repeated), "{message}");
        assert!(message.len() < 600, "{message}");
    }
}

#[tokio::test]
async fn a_large_refusal_is_passed_on() {
    let (gateway, provider) = start(|config| config).await;
    for (megabytes, kept) in [(3, 3 << 20), (9, 8 << 20)] {
        provider
            .answers(Script::status(422).header("content-type", "application/json").body("x".repeat(megabytes << 20)));
        let answer = gateway.chat(&chat_request("")).await;
        assert_eq!((answer.status, answer.body.len()), (422, kept));
    }
}

#[tokio::test]
async fn a_client_that_closed_its_sending_side_is_served_where_that_is_configured() {
    let (gateway, provider) = start(|config| config.server("half_close = true")).await;
    for (number, members) in [(1, ""), (2, r#""stream":true,"#)] {
        // The answer begins only when the provider has seen the request, and the gateway the end of what is sent.
        let gate = Gate::new();
        let script = if members.is_empty() { chat_whole("Hello") } else { chat_stream("Hello", 3) };
        provider.answers(script.wait_before_headers(&gate));
        let mut client = gateway.connect().await;
        client.post(CHAT, &[("authorization", BEARER)], &chat_request(members)).await;
        client.close_sending().await;
        gate.reached(1).await;
        gate.open();
        let answer = client.response().await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Clean));
        assert_eq!(client.closed().await, BodyEnd::Fin);
        let receipts = gateway.receipts(number).await;
        assert_eq!(receipts.last().map(|receipt| receipt.outcome), Some(Outcome::Served));
    }
}

#[tokio::test]
async fn bodies_and_keys_are_read_as_the_official_clients_would_be_forgiven() {
    let (gateway, provider) = start(|config| config.policy("tokens_per_minute = 1000000")).await;
    provider.answers(chat_whole("Hello"));
    let body = chat_request(r#""max_tokens":100.0,"n":1.0,"stream":null,"#);
    let answer = gateway.chat(&body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(provider.at_rest().await.only().request.body, body.as_bytes());
    for bearer in [format!("Bearer  {KEY} "), format!("Bearer Bearer {KEY}"), format!("bearer\t{KEY}")] {
        let mut client = gateway.connect().await;
        client.post(CHAT, &[("authorization", &bearer)], &chat_request("")).await;
        assert_eq!(client.response().await.status, 200, "{bearer}");
    }
}

#[tokio::test]
async fn media_count_at_their_usual_size_for_a_rate() {
    let (gateway, provider) = start(|config| config.policy("tokens_per_minute = 5000")).await;
    provider.answers(chat_whole("Hello"));
    let data = "A".repeat(1 << 20);
    let body = chat_request("").replace(
        r#""content":"Hi""#,
        &format!(r#""content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]"#),
    );
    let answer = gateway.chat(&body.replace(r#""messages""#, r#""max_tokens":5,"messages""#)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = chat_request(r#""max_tokens":5,"#).replace("Hi", &data);
    assert_eq!(gateway.chat(&text).await.status, 429, "as much text is too much");
}

#[tokio::test]
async fn a_hold_for_an_image_is_the_whole_context_where_nothing_is_known_of_images() {
    let provider = ScriptedProvider::start("p").await;
    let whole_context = 4_096 * INPUT + CEILING * OUTPUT;
    let image = |bytes: usize| {
        let url = format!("data:image/png;base64,{}", "A".repeat(bytes));
        let part = json!({"type": "image_url", "image_url": {"url": url}});
        json!({"model": "small", "messages": [{"role": "user", "content": [part]}]}).to_string()
    };
    for (limit, expected) in [(whole_context - 1, 429), (whole_context, 200)] {
        for bytes in [8, 1 << 20] {
            let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(limit), "")).await;
            provider.answers(chat_whole("Hello"));
            let answer = gateway.chat(&image(bytes)).await;
            assert_eq!(answer.status, expected, "{bytes} bytes of {limit}: {answer:?}");
        }
    }
}
