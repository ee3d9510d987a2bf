//! Key identity: two keys whose names have the same FNV-1a hash share no budget, no limit and no evidence at a
//! breaker.

use crate::support::gateway::{KEY, OTHER_KEY, provider_table};
use crate::support::{ChatAnswer, Fault, Script, ScriptedProvider, TestGateway, TestRequest, chat};

/// Two names with one FNV-1a-64 hash.
const TWINS: [&str; 2] = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];

/// One model, and a key with each of the two names; `first` and `second` are the keys' settings.
async fn twins(first: &str, second: &str) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("p").await;
    let config = format!(
        r#"{}
        [models.small]
        price       = {{ input = "1", output = "2" }}
        context     = 4096
        max_output  = 100
        deployments = [{{ provider = "p" }}]
        [policies.open]
        models = ["*"]
        [[keys]]
        name   = "{}"
        policy = "open"
        secret = "env:TEST_KEY"
        {first}
        [[keys]]
        name   = "{}"
        policy = "open"
        secret = "env:OTHER_KEY"
        {second}
        "#,
        provider_table("p", &provider, "east"),
        TWINS[0],
        TWINS[1],
    );
    (TestGateway::start(&config).await, provider)
}

/// The statuses of `times` requests with `key`.
async fn statuses(gateway: &TestGateway, key: &str, times: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        statuses.push(TestRequest::chat("small").with_key(key).send_to(gateway).await.status);
    }
    statuses
}

#[tokio::test]
async fn each_key_has_its_own_budget_whichever_name_comes_first() {
    let (large, none) = (r#"budget = { limit = "10", window = "month" }"#, "");
    let tiny = r#"budget = { limit = "0.0001", window = "month" }"#;
    for (first, second, expected) in [(tiny, large, [429, 200]), (large, tiny, [200, 429]), (tiny, none, [429, 200])] {
        let (gateway, _provider) = twins(first, second).await;
        assert_eq!(statuses(&gateway, KEY, 3).await, [expected[0]; 3], "{first} | {second}");
        assert_eq!(statuses(&gateway, OTHER_KEY, 3).await, [expected[1]; 3], "{first} | {second}");
    }
}

#[tokio::test]
async fn a_limit_counts_only_the_requests_of_its_own_key() {
    let (gateway, _provider) = twins("requests_per_minute = 2", "requests_per_minute = 2").await;
    assert_eq!(statuses(&gateway, KEY, 3).await, [200, 200, 429]);
    assert_eq!(statuses(&gateway, OTHER_KEY, 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn failures_of_one_key_do_not_affect_another() {
    let (gateway, provider) = twins("", "").await;
    let (fails, answers) = (Fault::Status500.script().expect("a script"), chat(ChatAnswer::default()));
    provider.answers(Script::by(move |request| match request.json()["user"].is_string() {
        true => fails.clone(),
        false => answers.clone(),
    }));
    assert_eq!(statuses(&gateway, OTHER_KEY, 1).await, [200]);
    for _ in 0..12 {
        TestRequest::chat("small").with_key(KEY).with_member(r#""user":"one""#).send_to(&gateway).await;
    }
    assert_eq!(statuses(&gateway, OTHER_KEY, 3).await, [200; 3], "two keys used it, and only one of them failed");
}
