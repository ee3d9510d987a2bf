//! A body means here what it means to a provider, and chooses nothing that its key may not have: names that some providers
//! read and some do not, members that choose a model, a host or a price, and answers of another model than was asked for.
//!
//! What readers in other languages make of generated bodies is tested in `tests/readers`; the table of all names that
//! are read is in `protocol::chat::request`.

use crate::budgets::{budget, priced_config};
use crate::support::gateway::provider_table;
use crate::support::{Script, ScriptedProvider, TestGateway, TestRequest};
use serde_json::{Value, json};

/// Two models at one provider, the second a thousand times the price; `provider` and `policy` are further settings.
fn config(server: &ScriptedProvider, provider: &str, policy: &str) -> String {
    format!(
        r#"{}{provider}
        [models.cheap]
        price       = {{ input = "0.01", output = "0.02" }}
        context     = 4096
        max_output  = 100
        deployments = [{{ provider = "p" }}]
        [models.dear]
        price       = {{ input = "10", output = "20" }}
        context     = 4096
        max_output  = 100
        deployments = [{{ provider = "p", upstream_model = "own/dear" }}]
        [policies.poor]
        models = ["cheap"]
        {policy}
        [[keys]]
        name   = "one"
        policy = "poor"
        secret = "env:TEST_KEY"
        "#,
        provider_table("p", server, "p")
    )
}

/// Checks that `request` is refused because of `param`, and that nothing was sent.
async fn refused(gateway: &TestGateway, provider: &ScriptedProvider, request: &TestRequest, param: &str) -> String {
    let answer = request.send_to(gateway).await;
    assert_eq!(answer.refusal(), (400, "invalid_value".into()), "{}", request.body());
    assert_eq!(answer.json()["error"]["param"], param, "{}", request.body());
    answer.assert_no_retry();
    assert_eq!(provider.attempts(), 0, "{}", request.body());
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn a_name_that_some_providers_take_for_another_is_refused() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = TestGateway::start(&config(&provider, "", "")).await;
    for (member, param) in [
        (r#""Model":"own/dear""#, "model"),
        (r#""MODEL":null"#, "model"),
        (r#""\u004dodel":"own/dear""#, "model"),
        ("\"\u{17f}tream\":true", "stream"),
        ("\"max_to\u{212a}ens\":100000", "max_tokens"),
        (r#""N":128"#, "n"),
        (r#""stream_options":{"Include_Usage":false}"#, "stream_options.include_usage"),
        (r#""Messages":[]"#, "messages"),
    ] {
        let message = refused(&gateway, &provider, &TestRequest::chat("cheap").with_member(member), param).await;
        assert!(message.contains("another spelling"), "{message}");
    }
    let part = TestRequest::new(
        "/v1/chat/completions",
        r#"{"model":"cheap","messages":[{"role":"user","Content":[{"type":"image_url"}]}]}"#,
    );
    refused(&gateway, &provider, &part, "messages[].content").await;
    let embeddings = TestRequest::new("/v1/embeddings", r#"{"model":"cheap","input":"a","Input":["b"]}"#);
    refused(&gateway, &provider, &embeddings, "input").await;
}

#[tokio::test]
async fn names_that_are_not_read_stay_as_they_are() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = TestGateway::start(&config(&provider, "", "")).await;
    let body = concat!(
        r#"{"model":"cheap","Temperature":1,"metadata":{"Model":"x","N":"1"},"user":"Model","messages":[{"role":"user","#,
        r#""content":"{\"Model\":1}","Name":"n"},{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"N\":1}"}}]}],"#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"Type":{},"Model":{}}}}}]}"#,
    );
    let answer = gateway.chat(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(String::from_utf8_lossy(&provider.journal().only().request.body), body);
}

#[tokio::test]
async fn members_that_choose_a_host_are_refused_unless_they_are_allowed() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = TestGateway::start(&config(&provider, "", "")).await;
    let members = [
        (r#""models":["own/dear"]"#, "models"),
        (r#""Models":["own/dear"]"#, "models"),
        (r#""provider":{"order":["x"]}"#, "provider"),
        (r#""route":"fallback""#, "route"),
        (r#""fallbacks":[{"cheap":["dear"]}]"#, "fallbacks"),
        (r#""api_base":"http://127.0.0.1:9""#, "api_base"),
        (r#""ap\u0069_key":"sk-x""#, "api_key"),
        (r#""lora_path":"own/dear""#, "lora_path"),
        (r#""kv_transfer_params":{"remote_host":"127.0.0.1"}"#, "kv_transfer_params"),
        (r#""__proto__":{"model":"own/dear"}"#, "__proto__"),
    ];
    for (member, param) in members {
        let message = refused(&gateway, &provider, &TestRequest::chat("cheap").with_member(member), param).await;
        assert!(message.contains("another model, host or credential"), "{message}");
    }
    let allowed = r#"body_allow = ["models", "Provider", "route", "fallbacks", "api_base", "api_key", "lora_path",
        "kv_transfer_params", "__proto__"]"#;
    let gateway = TestGateway::start(&config(&provider, allowed, "")).await;
    for (member, _) in members {
        let answer = TestRequest::chat("cheap").with_member(member).send_to(&gateway).await;
        assert_eq!(answer.status, 200, "{member}: {}", answer.text());
    }
    provider.clear();
    let gateway = TestGateway::start(&config(&provider, r#"body_deny = ["Store"]"#, "")).await;
    refused(&gateway, &provider, &TestRequest::chat("cheap").with_member(r#""store":false"#), "store").await;
    assert_eq!(TestRequest::chat("cheap").with_member(r#""stored":false"#).send_to(&gateway).await.status, 200);
}

#[tokio::test]
async fn members_that_change_the_price_are_refused_where_money_applies() {
    let provider = ScriptedProvider::start("p").await;
    let members = [
        (r#""service_tier":"priority""#, "service_tier"),
        (r#""service_tier":"flex""#, "service_tier"),
        (r#""service_tier":{}"#, "service_tier"),
        (r#""web_search_options":{}"#, "web_search_options"),
        (r#""plugins":[{"id":"web"}]"#, "plugins"),
        (r#""data_sources":[{"type":"azure_search"}]"#, "data_sources"),
        (r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search"}]"#, "tools[].type"),
        (r#""deferred":true"#, "deferred"),
        (r#""n_predict":-1"#, "n_predict"),
        (r#""N_Predict":4096"#, "n_predict"),
        (r#""n_cmpl":8"#, "n_cmpl"),
        (r#""auto_max_new_tokens":true"#, "auto_max_new_tokens"),
        (r#""max_new_tokens":4096"#, "max_new_tokens"),
        (r#""options":{"num_predict":-1}"#, "options"),
        (r#""generationConfig":{"candidateCount":8}"#, "generationconfig"),
        (r#""prediction":{"type":"content","content":"long"}"#, "prediction"),
    ];
    let paid = TestGateway::start(&config(&provider, "", &budget(1_000_000_000))).await;
    for (member, param) in members {
        let message = refused(&paid, &provider, &TestRequest::chat("cheap").with_member(member), param).await;
        assert!(message.contains("change the price"), "{message}");
    }
    let usual = [
        r#""service_tier":"auto""#,
        r#""service_tier":"default""#,
        r#""service_tier":null"#,
        r#""plugins":[]"#,
        r#""deferred":false"#,
        r#""n_predict":null"#,
        r#""min_tokens":5,"ignore_eos":true,"best_of":2"#,
    ];
    for member in usual {
        let answer = TestRequest::chat("cheap").with_member(member).send_to(&paid).await;
        assert_eq!(answer.status, 200, "{member}: {}", answer.text());
    }
    let free = TestGateway::start(&config(&provider, "", "")).await;
    let allowing: Vec<&str> = members.iter().map(|(_, param)| *param).collect();
    let allowing = format!("body_allow = {allowing:?}");
    let allowed = TestGateway::start(&config(&provider, &allowing, &budget(1_000_000_000))).await;
    for gateway in [free, allowed] {
        for (member, _) in members {
            let answer = TestRequest::chat("cheap").with_member(member).send_to(&gateway).await;
            assert_eq!(answer.status, 200, "{member}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_deployment_that_takes_the_member_serves_it() {
    let (first, second) = (ScriptedProvider::start("first").await, ScriptedProvider::start("second").await);
    let config = priced_config(&[("first", &first), ("second", &second)], "", "");
    let config = config.replacen("region = \"second\"", "region = \"second\"\nbody_allow = [\"models\"]", 1);
    let gateway = TestGateway::start(&config).await;
    let answer = TestRequest::chat("small").with_member(r#""models":["a"]"#).send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment()), (200, "second/small"));
    assert_eq!(first.attempts(), 0);
}

/// An answer, whole or streamed, that says it is of `model`.
fn answer_of(model: &'static str) -> Script {
    Script::by(move |request| {
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
        let part = |object: &str, choice: Value| json!({"id": "c", "object": object, "created": 1, "model": model, "choices": [choice]});
        if request.streams() {
            let said = part("chat.completion.chunk", json!({"index": 0, "delta": {"content": "Hi"}}));
            let mut end = part("chat.completion.chunk", json!({"index": 0, "delta": {}, "finish_reason": "stop"}));
            end["usage"] = usage;
            return Script::sse().frame(&said.to_string()).frame(&end.to_string()).done();
        }
        let message = json!({"role": "assistant", "content": "Hi"});
        let mut whole = part("chat.completion", json!({"index": 0, "message": message, "finish_reason": "stop"}));
        whole["usage"] = usage;
        Script::status(200).json(&whole)
    })
}

#[tokio::test]
async fn an_answer_of_another_model_is_charged_and_named_as_that_and_counted() {
    let provider = ScriptedProvider::start("p").await;
    // Nano-dollars: 10 tokens in and 5 out.
    let (cheap, dear) = (10 * 10 + 5 * 20, 10 * 10_000 + 5 * 20_000);
    for request in [TestRequest::chat("cheap"), TestRequest::stream("cheap")] {
        for (model, name, cost, counted) in [
            ("cheap", "cheap", cheap, (0.0, 0.0)),
            ("cheap-2026-11-30", "cheap", cheap, (0.0, 0.0)),
            ("own/dear", "dear", dear, (1.0, 0.0)),
            ("unheard-of", "cheap", cheap, (0.0, 1.0)),
        ] {
            // One for each: what costs more than was held pauses its key there.
            let gateway = TestGateway::start(&config(&provider, "", &budget(1_000_000_000))).await;
            provider.answers(answer_of(model));
            let answer = request.send_to(&gateway).await;
            assert_eq!((answer.status, answer.header("x-tierway-model")), (200, Some(name)), "{model}");
            let receipts = gateway.receipts(1).await;
            let receipt = receipts.last().expect("the request left one");
            assert_eq!(receipt.cost.0, cost, "{model}: {receipt:?}");
            assert_eq!(receipt.served.as_ref().map(|served| &*served.model), Some(name), "{model}");
            let metric = |configured: &str| {
                gateway.metric(&format!("tierway_answers_by_another_model_total{{configured=\"{configured}\"}}"))
            };
            assert_eq!((metric("yes"), metric("no")), counted, "{model}");
        }
    }
}
