//! Anthropic's Messages, before a provider that speaks them: bytes in both directions, errors in the
//! client's dialect, usage.
//!
//! Start reading at [`a_whole_answer_passes_as_it_came`].

use crate::support::gateway::{CREDENTIAL, KEY};
use crate::support::{BodyEnd, Ending, Response, Script, ScriptedProvider, TestGateway, chat_whole};
use serde_json::json;
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// A stream as Anthropic sends it, by frame; the first token is in the fourth. Streams that break are in `cuts.rs`.
const FRAMES: [&str; 8] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-upstream\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":20,\"cache_creation_input_tokens\":1000,\"cache_read_input_tokens\":300,\"cache_creation\":{\"ephemeral_5m_input_tokens\":600,\"ephemeral_1h_input_tokens\":400},\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}   }\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":50}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];
/// With what a reader of JSON that wrote it anew would spoil.
const WHOLE: &str = r#"{ "id":"msg_1","type":"message","role":"assistant","model":"claude-upstream","content":[{"type":"text","text":"H\u00e9"}],"stop_reason":"end_turn","stop_sequence":null,"big":12345678901234567890.10,"usage":{"input_tokens":20,"cache_creation_input_tokens":1000,"cache_read_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":600,"ephemeral_1h_input_tokens":400},"output_tokens":50,"output_tokens_details":{"thinking_tokens":5}}}"#;

fn request(more: &str) -> String {
    format!(
        r#"{{ "max_tokens":64, "model" : "claude",{more}"messages":[{{"role":"user","content":"H\u00e9\/llo"}}],"x":1e400}}"#
    )
}

fn stream() -> Script {
    FRAMES.iter().fold(Script::sse(), |script, frame| script.body(*frame))
}

fn whole(body: &'static str) -> Script {
    Script::status(200).header("content-type", "application/json").header("request-id", "req_theirs").body(body)
}

/// `claude` at providers that speak Messages, `gpt` at one that speaks chat completions.
fn config(providers: &[(&str, &ScriptedProvider)], policy: &str) -> String {
    let mut text = String::from(
        "[routing]\nbalance = \"ordered\"\nbreaker = { failures = 1000000, min_requests = 1000000 }\n\
         [tiers.default]\nmodels = [\"claude\"]\n[tiers.other]\nmodels = [\"gpt\"]\n\
         [[keys]]\nname = \"app\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n",
    );
    text += &format!("[policies.all]\ntiers = [\"*\"]\n{policy}\n");
    for (at, (name, provider)) in providers.iter().enumerate() {
        // With the version of the API and without: both are asked at the same paths.
        let url = provider.base_url();
        let url = if at == 0 { url.trim_end_matches("/v1") } else { &url };
        text += &format!(
            "[providers.{name}]\nprotocol = \"anthropic\"\nbase_url = \"{url}\"\ncredential = \"env:CREDENTIAL\"\n"
        );
    }
    let (_, first) = providers[0];
    text += &format!("[providers.chat]\nprotocol = \"openai\"\nbase_url = \"{}\"\n", first.base_url());
    let deployments: Vec<String> = providers
        .iter()
        .map(|(name, _)| format!("{{ provider = \"{name}\", upstream_model = \"claude-upstream\" }}"))
        .collect();
    text += &format!(
        "[models.claude]\ncontext = 200000\nmax_output = 1000\nprice = {{ input = \"3\", cached_input = \"0.3\", \
         cache_write = \"3.75\", cache_write_1h = \"6\", output = \"15\" }}\ndeployments = [{}]\n\
         [models.gpt]\ncontext = 8000\nmax_output = 100\nprice = {{ input = \"1\", output = \"1\" }}\n\
         deployments = [{{ provider = \"chat\" }}]\n",
        deployments.join(", ")
    );
    text
}

async fn before(script: Script) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(script);
    let gateway = TestGateway::start(&config(&[("eu", &provider)], "")).await;
    (gateway, provider)
}

/// The answer is an error as Anthropic writes them; its message.
fn error_of(answer: &Response, status: u16, kind: &str) -> String {
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["type"], &body["error"]["type"]),
        (status, &json!("error"), &json!(kind)),
        "{body}"
    );
    assert_eq!(answer.header("request-id"), body["request_id"].as_str(), "{answer:?}");
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    body["error"]["message"].as_str().expect("an error has a message").to_owned()
}

/// 20 uncached, 300 read, 600 written for minutes and 400 for an hour, 50 of output: at the prices of [`config`], in
/// nano-dollars.
const COST: i64 = 20 * 3_000 + 300 * 300 + 600 * 3_750 + 400 * 6_000 + 50 * 15_000;

#[tokio::test]
async fn a_whole_answer_passes_as_it_came() {
    let (gateway, provider) = before(whole(WHOLE)).await;
    let headers = [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "a-2026-01-01,b-2026-02-02"),
        ("x-app", "cli"),
        ("openai-beta", "x=y"),
    ];
    let answer = gateway.post("/v1/messages?beta=true&key=secret", &headers, &request("")).await;
    assert_eq!((answer.status, answer.text()), (200, WHOLE));
    assert_eq!(answer.header("request-id"), Some("req_theirs"), "the official clients show it");
    let journal = provider.at_rest().await;
    let sent = &journal.only().request;
    assert_eq!((&*sent.method, &*sent.path), ("POST", "/v1/messages?beta=true"));
    assert_eq!(
        std::str::from_utf8(&sent.body).expect("text"),
        request("").replace("\"claude\"", "\"claude-upstream\"")
    );
    assert_eq!(sent.header("x-api-key"), Some(CREDENTIAL));
    assert_eq!(sent.header("anthropic-version"), Some("2026-10-21"));
    assert_eq!(sent.header("anthropic-beta"), Some("a-2026-01-01,b-2026-02-02"));
    for none in ["authorization", "x-app", "openai-beta"] {
        assert_eq!(sent.header(none), None, "{none}");
    }
    let receipt = gateway.receipts(1).await.remove(0);
    let usage = receipt.usage.expect("it was counted");
    assert_eq!((usage.input, usage.cached_input, usage.output, usage.reasoning), (1320, 300, 50, 5));
    assert_eq!((receipt.outcome, receipt.cost.0), (Outcome::Served, COST));
}

#[tokio::test]
async fn a_stream_passes_as_it_came_and_is_counted() {
    let (gateway, provider) = before(stream()).await;
    let answer = gateway.post(MESSAGES, &[], &request("\"stream\":true,")).await;
    assert_eq!((answer.status, answer.end, answer.text()), (200, BodyEnd::Clean, &*FRAMES.concat()));
    let journal = provider.at_rest().await;
    // A client that does not say which version it speaks.
    assert_eq!(journal.only().request.header("anthropic-version"), Some("2023-06-01"));
    let receipt = gateway.receipts(1).await.remove(0);
    assert_eq!((receipt.outcome, receipt.cost.0), (Outcome::Served, COST));
}

#[tokio::test]
async fn a_key_comes_as_anthropics_clients_send_it() {
    let (gateway, _provider) = before(whole(WHOLE)).await;
    let mut client = gateway.connect().await;
    client.post(MESSAGES, &[("x-api-key", KEY)], &request("")).await;
    assert_eq!(client.response().await.status, 200);
    let mut client = gateway.connect().await;
    client.post(MESSAGES, &[("x-api-key", KEY), ("authorization", "Bearer other")], &request("")).await;
    error_of(&client.response().await, 400, "invalid_request_error");
    let mut client = gateway.connect().await;
    client.post(MESSAGES, &[("x-api-key", "wrong")], &request("")).await;
    error_of(&client.response().await, 401, "authentication_error");
}

/// A model that thinks for longer than a first token may take, and says nothing but that it is there.
#[tokio::test]
async fn pings_are_signs_of_life_before_a_late_first_token() {
    let provider = ScriptedProvider::start("eu").await;
    let mut script = Script::sse().body(FRAMES[0]).body(FRAMES[1]);
    for _ in 0..12 {
        script = script.wait(Duration::from_millis(100)).body(FRAMES[2]);
    }
    provider.answers(FRAMES[3..].iter().fold(script, |script, frame| script.body(*frame)));
    let config = config(&[("eu", &provider)], "").replace("[routing]\n", "[routing]\nfirst_token = \"1s\"\n");
    let gateway = TestGateway::start(&config).await;
    let answer = gateway.post(MESSAGES, &[], &request("\"stream\":true,")).await;
    assert_eq!((answer.status, answer.header("x-tierway-attempts")), (200, Some("1")), "{answer:?}");
    let expected = [&FRAMES[..2].concat(), &FRAMES[2].repeat(12), &FRAMES[3..].concat()].map(String::as_str).concat();
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn an_error_event_after_the_first_token_ends_the_stream_with_ours() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let script = FRAMES[..5].iter().chain([&error]).fold(Script::sse(), |script, frame| script.body(*frame));
    let (gateway, _provider) = before(script).await;
    let answer = gateway.post(MESSAGES, &[], &request("\"stream\":true,")).await;
    let body = answer.text();
    assert!(answer.status == 200 && answer.end == BodyEnd::Fin && !body.contains("message_stop"), "{answer:?}");
    assert!(body.starts_with(&FRAMES[..4].concat()), "{body}");
    assert_eq!(body.matches("event: error\n").count(), 1, "{body}");
    assert_eq!(gateway.receipts(1).await[0].reason, Reason::ErrorInside);
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_served_by_another_provider() {
    let (one, two) = (ScriptedProvider::start("one").await, ScriptedProvider::start("two").await);
    let gateway = TestGateway::start(&config(&[("one", &one), ("two", &two)], "")).await;
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let error_event = format!("event: error\ndata: {overloaded}\n\n");
    let failures = [
        ("a status of its own", Script::status(529).header("content-type", "application/json").body(overloaded)),
        ("an error inside a 200", Script::sse().body(FRAMES[0]).body(error_event)),
        ("a cut opening", stream().cut_after_frame(2, Ending::Fin)),
        ("a reset", stream().cut_after_frame(0, Ending::Rst)),
    ];
    for (what, failure) in failures {
        one.answers(failure);
        for (more, script, expected) in
            [("\"stream\":true,", stream(), FRAMES.concat()), ("", whole(WHOLE), WHOLE.to_owned())]
        {
            two.answers(script);
            let answer = gateway.post(MESSAGES, &[], &request(more)).await;
            assert_eq!((answer.status, answer.text()), (200, &*expected), "{what}: {more}");
            assert_eq!(answer.header("x-tierway-attempts"), Some("2"), "{what}: {more}");
        }
    }
}

#[tokio::test]
async fn every_error_is_one_of_anthropics() {
    let (gateway, provider) = before(whole(WHOLE)).await;
    let ask = async |path: &str, body: &str| gateway.post(path, &[], body).await;
    let message = error_of(&ask(MESSAGES, &request("").replace("claude", "claud")).await, 404, "not_found_error");
    assert!(message.contains("'claude'"), "{message}");
    error_of(&ask(MESSAGES, "{").await, 400, "invalid_request_error");
    let message = error_of(&ask(MESSAGES, r#"{"model":"claude","messages":[]}"#).await, 400, "invalid_request_error");
    assert!(message.contains("max_tokens"), "{message}");
    for twice in [r#""MAX_TOKENS":9,"#, r#""max_tokens":9,"#, r#""m\u0061x_tokens":9,"#] {
        error_of(&ask(MESSAGES, &request(twice)).await, 400, "invalid_request_error");
    }
    for denied in [r#""container":"c","#, r#""fallbacks":["x"],"#, r#""thread":{"id":"t"},"#] {
        error_of(&ask(MESSAGES, &request(denied)).await, 400, "invalid_request_error");
    }
    // Of the other dialect: which models would serve it.
    for path in [MESSAGES, COUNT] {
        let message = error_of(&ask(path, &request("").replace("claude", "gpt")).await, 400, "invalid_request_error");
        assert!(message.contains("Messages") && message.contains("'claude'"), "{message}");
    }
    let reversed = ask("/v1/chat/completions", &request("")).await;
    let message = reversed.json()["error"]["message"].as_str().expect("OpenAI's shape").to_owned();
    assert!(reversed.status == 400 && message.contains("chat completions") && message.contains("'gpt'"), "{message}");
    assert_eq!(provider.attempts(), 0);
    // Where the path does not tell, the version that every client of it sends does.
    let unknown = gateway.post("/v1/nowhere", &[("anthropic-version", "2023-06-01")], "{}").await;
    error_of(&unknown, 404, "not_found_error");
    assert!(gateway.post("/v1/nowhere", &[], "{}").await.json()["error"]["code"].is_string());
    // What the provider says of the request itself passes as it came.
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: roles"},"request_id":"req_theirs"}"#;
    provider.answers(Script::status(400).header("content-type", "application/json").body(refusal));
    let answer = ask(MESSAGES, &request("")).await;
    assert_eq!((answer.status, answer.text()), (400, refusal));
    // A credential of ours that is refused is no fault of the client's.
    let credential = r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#;
    provider.answers(Script::status(401).header("content-type", "application/json").body(credential));
    error_of(&ask(MESSAGES, &request("")).await, 502, "api_error");
}

#[tokio::test]
async fn money_is_held_for_what_a_message_may_cost_and_a_count_is_free() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(Script::by(|request| match request.path.ends_with("/count_tokens") {
        true => Script::status(200).json(&json!({"input_tokens": 2095})),
        false => whole(WHOLE),
    }));
    // A token is a byte or more: some 4,400 of them at the price of the dearest, and the output. Beside what one costs,
    // there is no room for a second one.
    let pad = format!("\"pad\":\"{}\",", "x".repeat(4_000));
    let budget = "budget = { limit = \"0.031\", window = \"month\" }";
    let gateway = TestGateway::start(&config(&[("eu", &provider)], budget)).await;
    assert_eq!(gateway.post(MESSAGES, &[], &request(&pad)).await.status, 200);
    let refused = gateway.post(MESSAGES, &[], &request(&pad)).await;
    error_of(&refused, 402, "billing_error");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    for server_tool in [r#""tools":[{"type":"web_search_20250305","name":"web_search"}],"#, r#""speed":"fast","#] {
        let message = error_of(&gateway.post(MESSAGES, &[], &request(server_tool)).await, 400, "invalid_request_error");
        assert!(message.contains("price"), "{message}");
    }
    let count = gateway.post(COUNT, &[], r#"{"model":"claude","messages":[]}"#).await;
    assert_eq!((count.status, count.json()), (200, json!({"input_tokens": 2095})));
    let receipts = gateway.receipts(gateway.relay.entered()).await;
    let costs: Vec<i64> = receipts.iter().map(|receipt| receipt.cost.0).collect();
    assert_eq!((costs[0], costs.last()), (COST, Some(&0)), "{costs:?}");
}

#[tokio::test]
async fn a_ceiling_above_the_models_own_is_lowered_where_money_is_held() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(whole(WHOLE));
    let budget = "budget = { limit = \"1\", window = \"month\" }";
    let gateway = TestGateway::start(&config(&[("eu", &provider)], budget)).await;
    let body = request("").replace("\"max_tokens\":64", "\"max_tokens\":64000");
    assert_eq!(gateway.post(MESSAGES, &[], &body).await.status, 200);
    let journal = provider.at_rest().await;
    let sent = std::str::from_utf8(&journal.only().request.body).expect("text");
    assert!(sent.contains("\"max_tokens\":1000,"), "{sent}");
}

#[tokio::test]
async fn models_are_listed_as_the_client_reads_them() {
    let (gateway, _provider) = before(whole(WHOLE)).await;
    let get = async |path: &str| {
        let mut client = gateway.connect().await;
        client.get(path, &[("x-api-key", KEY), ("anthropic-version", "2023-06-01")]).await;
        client.response().await
    };
    let list = get("/v1/models?limit=1").await.json();
    assert_eq!((&list["data"][0]["type"], &list["data"][0]["id"]), (&json!("model"), &json!("claude")));
    assert_eq!(
        (&list["has_more"], &list["first_id"], &list["last_id"]),
        (&json!(true), &json!("claude"), &json!("claude"))
    );
    assert_eq!(get("/v1/models?after_id=claude").await.json()["data"][0]["id"], "gpt");
    let one = get("/v1/models/claude").await.json();
    assert_eq!(
        (&one["type"], &one["display_name"], &one["max_input_tokens"]),
        (&json!("model"), &json!("claude"), &json!(200_000))
    );
    let unknown = get("/v1/models/nothing").await;
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(gateway.get("/v1/models").await.json()["object"], "list");
}

#[tokio::test]
async fn a_provider_of_chat_completions_is_asked_as_before() {
    let (gateway, provider) = before(chat_whole("Hi")).await;
    assert_eq!(gateway.chat(r#"{"model":"gpt","messages":[]}"#).await.status, 200);
    let journal = provider.at_rest().await;
    let sent = &journal.only().request;
    assert_eq!((sent.header("anthropic-version"), sent.header("x-api-key")), (None, None));
}
