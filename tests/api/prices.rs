//! The price catalogue over real sockets: what it says is listed, charged and measured.
//!
//! The provider's address is its own at each run, so an operator's catalogue names it.

use crate::support::gateway::{TestEnvironment, provider_table};
use crate::support::{Script, ScriptedProvider, TestGateway};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tierway::config::{ConfigSource, Environment, Snapshot, load};

/// The environment of every test, and a catalogue beside the configuration.
struct WithCatalogue(TestEnvironment);

const CATALOGUE: &str = r#"
as_of = "2026-11-30"
source = "a test"

[hosts.scripted]
address = ["127.0.0.1:*"]

[hosts.scripted.models]
"small" = { context = 4096, max_output = 100, price = [{ input = "1", cached_input = "0.1", cache_write = "2", output = "2", per_1000_searches = "10", above = [{ tokens = 50, input = "3", output = "4" }] }] }
"seeing" = { context = 100000, max_output = 10, image_tokens = { typical = 600, most = 1500 }, price = [{ input = "1", output = "2" }] }
"tiered" = { context = 100000, max_output = 10, price = [{ input = "1", output = "2" }], variants = [{ when = "service_tier=priority", input = "2", output = "4" }] }
"first" = { match = ["twin*"] }
"second" = { match = ["*twin"] }
"#;

impl Environment for WithCatalogue {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.0.variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("tierway.prices.toml") => Ok(CATALOGUE.to_owned()),
            _ => self.0.read(path),
        }
    }
}

fn compiled(provider: &ScriptedProvider, more: &str) -> Arc<Snapshot> {
    configured(provider, more, "1")
}

fn with_limit(provider: &ScriptedProvider, limit: &str) -> Arc<Snapshot> {
    configured(provider, "", limit)
}

fn configured(provider: &ScriptedProvider, more: &str, limit: &str) -> Arc<Snapshot> {
    let table = provider_table("eu", provider, "eu");
    let text = format!(
        r#"{table}
        [models.small]
        deployments = [{{ provider = "eu" }}]
        {more}
        [policies.paying]
        models = ["*"]
        budget = {{ limit = "{limit}", window = "none" }}
        [[keys]]
        name   = "one"
        policy = "paying"
        secret = "env:TEST_KEY"
        "#
    );
    loaded(text)
}

fn loaded(text: String) -> Arc<Snapshot> {
    let source = ConfigSource::File { path: "tierway.toml".into(), text };
    let environment = WithCatalogue(TestEnvironment::default());
    Arc::new(load(&source, &environment, &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false))))
}

/// A whole answer of `small` with this `usage`.
fn answer(usage: &Value) -> Script {
    answer_of("small", usage)
}

fn answer_of(model: &str, usage: &Value) -> Script {
    Script::status(200).json(&json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": model, "usage": usage,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "Hi" }, "finish_reason": "stop" }],
    }))
}

#[tokio::test]
async fn a_catalogues_price_is_charged_with_its_classes_and_thresholds() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start_snapshot(compiled(&provider, ""), 1).await;
    // Nano-dollars per token: 1,000 in, 100 cached, 2,000 written to the cache, 2,000 out; 3,000 and 4,000 above.
    let details = json!({ "cached_tokens": 10, "cache_write_tokens": 20 });
    for (prompt, details, expected) in [
        (40, details.clone(), 10 * 1_000 + 10 * 100 + 20 * 2_000 + 5 * 2_000),
        (50, json!({}), 50 * 1_000 + 5 * 2_000),
        (51, json!({}), 51 * 3_000 + 5 * 4_000),
        (60, details, 30 * 3_000 + 10 * 100 + 20 * 2_000 + 5 * 4_000),
    ] {
        provider.answers_once(answer(&json!({
            "prompt_tokens": prompt, "completion_tokens": 5, "prompt_tokens_details": details,
        })));
        let before = gateway.ledger.count();
        let response = gateway.chat(r#"{"model":"small","messages":[]}"#).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let receipts = gateway.receipts(before + 1).await;
        let receipt = receipts.last().expect("the request left one");
        assert_eq!(receipt.cost.0, expected, "{receipt:?}");
        let (price, usage) = (receipt.price.expect("it has a price"), receipt.usage.expect("it was counted"));
        assert_eq!(price.cost(usage), receipt.cost, "the receipt shows the price that was charged");
    }
}

#[tokio::test]
async fn a_price_that_the_catalogue_has_for_a_member_is_held_and_charged_with_it() {
    let provider = ScriptedProvider::start("eu").await;
    let models = "[models.tiered]\ndeployments = [{ provider = \"eu\" }]";
    let gateway = TestGateway::start_snapshot(compiled(&provider, models), 1).await;
    provider.answers(answer_of("tiered", &json!({ "prompt_tokens": 40, "completion_tokens": 5 })));
    for (tier, status, expected) in [
        ("default", 200, 40 * 1_000 + 5 * 2_000),
        ("priority", 200, 40 * 2_000 + 5 * 4_000),
        // No price is known for it.
        ("flex", 400, 0),
    ] {
        let before = gateway.ledger.count();
        let response = gateway.chat(&format!(r#"{{"model":"tiered","service_tier":"{tier}","messages":[]}}"#)).await;
        assert_eq!(response.status, status, "{tier}: {}", response.text());
        let receipts = gateway.receipts(before + 1).await;
        assert_eq!(receipts.last().expect("the request left one").cost.0, expected, "{tier}");
    }
    // A budget that one usual request fits into, and no other.
    let limit = "0.0005";
    let gateway = TestGateway::start_snapshot(configured(&provider, models, limit), 1).await;
    let body = |tier: &str| format!(r#"{{"model":"tiered","service_tier":"{tier}","messages":[]}}"#);
    assert_eq!(gateway.chat(&body("priority")).await.refusal(), (429, "insufficient_quota".into()));
    assert_eq!(gateway.chat(&body("default")).await.status, 200);
}

#[tokio::test]
async fn a_catalogues_price_is_listed_and_its_age_is_a_metric() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start_snapshot(compiled(&provider, ""), 1).await;
    let listed = gateway.get("/v1/models/small").await.json();
    assert_eq!(listed["context_length"], 4_096);
    let expected = json!({
        "input": "1", "cached_input": "0.1", "output": "2", "request": "0", "cache_write": "2", "catalogue": "2026-11-30",
    });
    assert_eq!(listed["pricing"], expected);
    let days = |metrics: &str| -> Option<u64> {
        metrics.lines().find_map(|line| line.strip_prefix("tierway_price_age_days "))?.parse().ok()
    };
    let expected = gateway.app.relay.active_config().snapshot.catalogue.age_days(tierway::clock::Clock.unix_ms());
    gateway.app.relay.publish_states();
    assert_eq!(days(&gateway.telemetry.metrics.render()), Some(expected));
}

#[tokio::test]
async fn what_the_configuration_says_takes_the_place_of_the_catalogues() {
    let provider = ScriptedProvider::start("eu").await;
    let own = r#"price = { input = "7", output = "7" }"#;
    let snapshot = compiled(&provider, own);
    assert_eq!(snapshot.catalogue.models[0].filled, ["context", "max_output"]);
    let gateway = TestGateway::start_snapshot(snapshot, 1).await;
    let listed = gateway.get("/v1/models/small").await.json();
    assert_eq!(listed["pricing"]["input"], "7");
    assert_eq!(listed["pricing"]["catalogue"], Value::Null);
    provider.answers(answer(&json!({ "prompt_tokens": 100, "completion_tokens": 1 })));
    let response = gateway.chat(r#"{"model":"small","messages":[]}"#).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(gateway.receipts(1).await[0].cost.0, 101 * 7_000);
}

#[tokio::test]
async fn a_hold_covers_the_price_of_a_long_input() {
    let provider = ScriptedProvider::start("eu").await;
    // A token is a byte or more, so that the input may be above 50 tokens: all of it is held at the higher price.
    provider.answers(answer(&json!({ "prompt_tokens": 60, "completion_tokens": 1 })));
    let body = format!(r#"{{"model":"small","n":128,"messages":[],"user":"{}"}}"#, "x".repeat(2_000));
    let held = (body.len() as i64 + 256) * 3_000 + 128 * 100 * 4_000;
    let limit = |nano: i64| tierway::domain::money::NanoUsd(nano).to_string();
    for (limit, expected) in [(limit(held), 200), (limit(held - 1), 429)] {
        let gateway = TestGateway::start_snapshot(with_limit(&provider, &limit), 1).await;
        let response = gateway.chat(&body).await;
        assert_eq!(response.status, expected, "{limit}: {}", response.text());
    }
}

#[tokio::test]
async fn a_name_that_two_entries_match_has_no_price() {
    let provider = ScriptedProvider::start("eu").await;
    let limits = "context = 100\nmax_output = 10\n";
    let text = format!(
        "{}[models.twin]\n{limits}deployments = [{{ provider = \"eu\" }}]\n",
        provider_table("eu", &provider, "eu")
    );
    let source = ConfigSource::File { path: "tierway.toml".into(), text };
    let snapshot = load(&source, &WithCatalogue(TestEnvironment::default()), &[]);
    let snapshot = snapshot.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let model = &snapshot.catalogue.models[0];
    assert_eq!(model.unpriced, ["eu/twin has no price: twin may be any of first, second"]);
    assert!(snapshot.table.prices(snapshot.table.models[0].shared[0]).is_none());
}

#[tokio::test]
async fn an_image_costs_what_the_catalogue_says_and_not_its_bytes() {
    let provider = ScriptedProvider::start("eu").await;
    let message = |images: usize| {
        let url = format!("data:image/png;base64,{}", "A".repeat(1 << 20));
        let parts = vec![json!({"type": "image_url", "image_url": {"url": url}}); images];
        json!({"model": "seeing", "messages": [{"role": "user", "content": parts}]}).to_string()
    };
    let config = |policy: &str| {
        let table = provider_table("eu", &provider, "eu");
        loaded(format!(
            r#"{table}
            [models.seeing]
            deployments = [{{ provider = "eu" }}]
            typical_output = 10
            [policies.all]
            models = ["*"]
            {policy}
            [[keys]]
            name   = "one"
            policy = "all"
            secret = "env:TEST_KEY"
            "#
        ))
    };
    // The most that any image takes is held, of a context that costs 0.1.
    let budget = r#"budget = { limit = "0.003", window = "none" }"#;
    // A rate counts one at its typical size.
    for (policy, images, expected) in
        [(budget, 1, 200), (budget, 2, 429), ("tokens_per_minute = 900", 1, 200), ("tokens_per_minute = 900", 2, 429)]
    {
        let gateway = TestGateway::start_snapshot(config(policy), 1).await;
        provider.answers(answer(&json!({"prompt_tokens": 40, "completion_tokens": 5})));
        let answer = gateway.chat(&message(images)).await;
        assert_eq!(answer.status, expected, "{policy}, {images}: {answer:?}");
    }
}
