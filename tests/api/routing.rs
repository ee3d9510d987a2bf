//! Routing: which model and which capacity serve a request. The shares of an alias, stickiness, reserved
//! capacity, residency, and the features of a model.

use crate::support::client::Response;
use crate::support::gateway::{ALLOW_ALL, KEY, OTHER_KEY, provider_table};
use crate::support::{Fault, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, chat, embeddings, soon};
use std::collections::{BTreeMap, BTreeSet};

/// Three tiers of simulated models, and two keys: one may use all of them, one all but premium.
const SIMULATED: &str = r#"
[providers.sim]
protocol          = "sim"
first_token       = "0ms"
tokens_per_second = 1000000

[models]
small  = { deployments = [{ provider = "sim" }] }
middle = { deployments = [{ provider = "sim" }] }
big    = { deployments = [{ provider = "sim" }] }

[tiers]
default  = { models = ["small"], then = ["fallback"] }
fallback = { models = ["middle"], then = ["default"] }
premium  = { models = ["big"], then = ["fallback", "default"] }

[policies.pro]
tiers = ["*"]

[policies.standard]
tiers = ["default", "fallback"]

[[keys]]
name   = "pro"
policy = "pro"
secret = "env:TEST_KEY"

[[keys]]
name   = "standard"
policy = "standard"
secret = "env:OTHER_KEY"
"#;

/// The configuration with the alias `auto` and this stickiness.
fn simulated(sticky: &str) -> String {
    format!(
        "{SIMULATED}[aliases.auto]\nsplit = {{ default = 80, fallback = 15, premium = 5 }}\nsticky = \"{sticky}\"\n"
    )
}

/// The number of answers of each tier; fails the test when one is incomplete.
fn by_tier(answers: &[Response]) -> BTreeMap<String, usize> {
    let mut tiers = BTreeMap::new();
    for answer in answers {
        answer.chat_text().unwrap_or_else(|wrong| panic!("{wrong}"));
        *tiers.entry(answer.tier().to_owned()).or_default() += 1;
    }
    tiers
}

/// Sends 10,000 requests for `auto` with `key`; each tier's share must be within 1.5 percentage points.
async fn check_shares(key: &'static str, expected: &[(&str, f64)]) {
    const REQUESTS: usize = 10_000;
    const SEED: u64 = 20;
    let gateway = TestGateway::start_seeded(&simulated("none"), SEED).await;
    let request = move |_| TestRequest::chat("auto").with_member(r#""max_tokens":1"#).with_key(key);
    let served = by_tier(&TestClients::new(32, &gateway).send_all(REQUESTS, request).await);
    println!("seed {SEED}: {served:?} of {REQUESTS}");
    assert_eq!(served.len(), expected.len(), "{served:?}");
    for (tier, share) in expected {
        let percent = 100.0 * served[*tier] as f64 / REQUESTS as f64;
        assert!((percent - share).abs() <= 1.5, "{tier} served {percent:.2} % instead of {share} %");
    }
}

#[tokio::test]
async fn auto_splits_as_configured() {
    check_shares(KEY, &[("default", 80.0), ("fallback", 15.0), ("premium", 5.0)]).await;
}

#[tokio::test]
async fn auto_splits_over_the_tiers_the_key_may_use() {
    check_shares(OTHER_KEY, &[("default", 84.2), ("fallback", 15.8)]).await;
}

/// The tier that serves each of 100 users, some of them with a stream.
async fn tiers_of_users(gateway: &TestGateway) -> Vec<String> {
    let request = |user: usize| {
        let request = if user.is_multiple_of(2) { TestRequest::chat("auto") } else { TestRequest::stream("auto") };
        request.with_member(&format!(r#""user":"user-{}""#, user % 100))
    };
    let answers = TestClients::new(8, gateway).send_all(300, request).await;
    let tiers: Vec<_> = answers.iter().map(|answer| answer.tier().to_owned()).collect();
    for again in tiers.chunks(100) {
        assert_eq!(again, &tiers[..100], "a user's tier changed from one request to the next");
    }
    tiers[..100].to_vec()
}

#[tokio::test]
async fn a_user_sticks_to_a_tier_across_a_reload() {
    let gateway = TestGateway::start(&simulated("user")).await;
    let before = tiers_of_users(&gateway).await;
    let distinct: BTreeSet<_> = before.iter().collect();
    assert!(distinct.len() >= 2, "all users were given {distinct:?}");
    gateway.reload(&(simulated("user") + "[models.another]\ndeployments = [{ provider = \"sim\" }]\n"));
    assert_eq!(tiers_of_users(&gateway).await, before);
}

#[tokio::test]
async fn a_key_sticks_to_a_tier_across_a_reload() {
    let gateway = TestGateway::start(&simulated("key")).await;
    let mut tiers = Vec::new();
    for reload in 0..2 {
        for key in [KEY, OTHER_KEY] {
            let answers =
                TestClients::new(8, &gateway).send_all(50, move |_| TestRequest::chat("auto").with_key(key)).await;
            let served = by_tier(&answers);
            assert_eq!(served.len(), 1, "one key was served by {served:?}");
            tiers.extend(served.into_keys());
        }
        if reload == 0 {
            gateway.reload(&(simulated("key") + "[models.another]\ndeployments = [{ provider = \"sim\" }]\n"));
        }
    }
    assert_eq!(tiers[..2], tiers[2..]);
}

/// One model with a dedicated and a shared deployment.
struct ReservedCapacity {
    gateway: TestGateway,
    own: ScriptedProvider,
    common: ScriptedProvider,
}

impl ReservedCapacity {
    async fn start(spill: bool) -> Self {
        let own = ScriptedProvider::start("own").await;
        let common = ScriptedProvider::start("common").await;
        let providers = provider_table("own", &own, "eu-central") + &provider_table("common", &common, "us-east");
        let config = format!(
            r#"{providers}
            [models.m]
            deployments = [
              {{ provider = "common" }},
              {{ provider = "own", capacity = "dedicated", spill = {spill} }},
            ]
            {ALLOW_ALL}
            [routing]
            breaker = {{ failures = 5, open = "100ms", open_max = "200ms" }}
            "#
        );
        Self { gateway: TestGateway::start(&config).await, own, common }
    }

    /// The number of answers of each status, of 1,000 requests, some of them streams.
    async fn statuses(&self, model: &'static str) -> BTreeMap<u16, usize> {
        let request = move |number: usize| {
            if number.is_multiple_of(3) { TestRequest::stream(model) } else { TestRequest::chat(model) }
        };
        let mut statuses = BTreeMap::new();
        for answer in TestClients::new(16, &self.gateway).send_all(1_000, request).await {
            *statuses.entry(answer.status).or_default() += 1;
        }
        statuses
    }
}

/// One request of five fails, and later four of five: breakers trip and close again meanwhile.
fn failing_at_times() -> Script {
    let [well, ill] = [chat(Default::default()), Fault::Status503.script().expect("a script")];
    Script::by(move |request| {
        let often = if request.number < 300 { request.number % 5 == 0 } else { request.number % 5 != 0 };
        if often { ill.clone() } else { well.clone() }
    })
}

#[tokio::test]
async fn reserved_requests_never_use_shared_capacity() {
    let capacity = ReservedCapacity::start(false).await;
    capacity.own.answers(failing_at_times());
    let statuses = capacity.statuses("Pro/m").await;
    println!("dedicated capacity failing now and then: {statuses:?}");
    assert!(statuses.keys().all(|status| [200, 502, 503].contains(status)), "{statuses:?}");
    assert!(statuses[&200] > 0 && statuses.len() > 1, "{statuses:?}: the faults were not felt");
    assert_eq!(capacity.common.journal().connections, 0, "shared capacity was touched");
}

#[tokio::test]
async fn shared_requests_never_use_dedicated_capacity() {
    let capacity = ReservedCapacity::start(true).await;
    capacity.common.answers(failing_at_times());
    let statuses = capacity.statuses("m").await;
    println!("shared capacity failing now and then: {statuses:?}");
    assert!(statuses[&200] > 0 && statuses.len() > 1, "{statuses:?}: the faults were not felt");
    assert_eq!(capacity.own.journal().connections, 0, "dedicated capacity was touched");
}

#[tokio::test]
async fn reserved_requests_spill_where_that_is_configured() {
    let capacity = ReservedCapacity::start(true).await;
    let answer = TestRequest::chat("Pro/m").send_to(&capacity.gateway).await;
    assert_eq!(answer.deployment(), "own/Pro/m");
    capacity.own.break_with(Fault::PortClosed).await;
    let statuses = capacity.statuses("Pro/m").await;
    assert_eq!(statuses, BTreeMap::from([(200, 1_000)]));
    let answer = TestRequest::chat("Pro/m").send_to(&capacity.gateway).await;
    assert_eq!(answer.deployment(), "common/m");
}

#[tokio::test]
async fn without_spilling_reserved_capacity_that_is_down_is_an_error() {
    let capacity = ReservedCapacity::start(false).await;
    capacity.own.break_with(Fault::PortClosed).await;
    let down = async {
        while capacity.gateway.sum("tierway_breaker_transitions_total") == 0 {
            let answer = TestRequest::chat("Pro/m").send_to(&capacity.gateway).await;
            assert_eq!(answer.status, 502);
            answer.assert_may_retry();
        }
    };
    soon("the breaker to trip", down).await;
    // One request at a time finds out whether it is back.
    let answer = TestRequest::chat("Pro/m").send_to(&capacity.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert_eq!(capacity.common.journal().connections, 0);
}

#[tokio::test]
async fn a_request_never_leaves_its_residency() {
    let eu = ScriptedProvider::start("eu").await;
    let us = ScriptedProvider::start("us").await;
    let providers = provider_table("eu", &eu, "eu-central") + &provider_table("us", &us, "us-east");
    let config = format!(
        r#"{providers}
        [models]
        both     = {{ deployments = [{{ provider = "us" }}, {{ provider = "eu" }}] }}
        american = {{ deployments = [{{ provider = "us" }}] }}
        [tiers]
        default = {{ models = ["both"], then = ["abroad"] }}
        abroad  = {{ models = ["american"] }}
        [policies.resident]
        tiers   = ["*"]
        regions = ["eu-*"]
        [[keys]]
        name   = "resident"
        policy = "resident"
        secret = "env:TEST_KEY"
        [routing]
        retry_after_wait_max = "0s"
        breaker = {{ failures = 5, open = "10s", open_max = "10s" }}
        "#
    );
    let gateway = TestGateway::start(&config).await;
    for name in ["both", "default"] {
        let answer = TestRequest::chat(name).send_to(&gateway).await;
        assert_eq!((answer.deployment(), answer.header("x-tierway-region")), ("eu/both", Some("eu-central")));
    }
    for name in ["american", "abroad"] {
        let answer = TestRequest::chat(name).send_to(&gateway).await;
        assert_eq!(answer.refusal(), (403, "residency_unavailable".into()));
        answer.assert_no_retry();
    }

    eu.break_with(Fault::Status503).await;
    let refused = async {
        for number in 0_u32.. {
            let name = if number.is_multiple_of(2) { "both" } else { "default" };
            let answer = TestRequest::chat(name).send_to(&gateway).await;
            match answer.refusal() {
                (503, code) => {
                    assert_eq!(code, "no_deployment_available");
                    return answer.retry_after();
                }
                (status, code) => assert_eq!((status, code.as_str()), (502, "upstream_error")),
            }
        }
        unreachable!("there is no end of numbers")
    };
    soon("a request between two trials", refused).await;
    assert_eq!(us.journal().connections, 0, "the residency was left");
}

#[tokio::test]
async fn a_model_serves_only_its_features() {
    let [plain, seeing, vectors] = [
        ScriptedProvider::start("plain").await,
        ScriptedProvider::start("seeing").await,
        ScriptedProvider::start("vectors").await,
    ];
    vectors.answers(embeddings(2));
    let providers = provider_table("plain", &plain, "a")
        + &provider_table("seeing", &seeing, "b")
        + &provider_table("vectors", &vectors, "c");
    let config = format!(
        r#"{providers}
        [models]
        plain   = {{ deployments = [{{ provider = "plain" }}], features = [] }}
        seeing  = {{ deployments = [{{ provider = "seeing" }}], features = ["vision", "tools"] }}
        vectors = {{ deployments = [{{ provider = "vectors" }}], endpoints = ["embeddings"] }}
        [tiers]
        default = {{ models = ["plain", "vectors"], then = ["better"] }}
        better  = {{ models = ["seeing"] }}
        {ALLOW_ALL}"#
    );
    let gateway = TestGateway::start(&config).await;
    let image = r#"{"model":"default","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#;
    let served = [
        (TestRequest::chat("default"), "plain/plain"),
        (TestRequest::new("/v1/chat/completions", image), "seeing/seeing"),
        (
            TestRequest::chat("default").with_member(r#""tools":[{"type":"function","function":{"name":"f"}}]"#),
            "seeing/seeing",
        ),
        (TestRequest::new("/v1/embeddings", r#"{"model":"default","input":"Hi"}"#), "vectors/vectors"),
    ];
    for (request, deployment) in served {
        let answer = request.send_to(&gateway).await;
        assert_eq!((answer.status, answer.attempts()), (200, 1), "{}", answer.text());
        assert_eq!(answer.deployment(), deployment, "{}", request.body());
    }
    let schema = r#""response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{}}}"#;
    let refused = [
        TestRequest::chat("default").with_member(schema),
        TestRequest::chat("plain")
            .with_member(r#""tools":[{"type":"function","function":{"name":"f"}}]"#)
            .header("x-tierway-no-fallback", "true"),
        TestRequest::chat("vectors").header("x-tierway-no-fallback", "true"),
        TestRequest::new("/v1/embeddings", r#"{"model":"plain","input":"Hi"}"#),
        TestRequest::new("/v1/completions", r#"{"model":"default","prompt":"Hi"}"#),
    ];
    for request in refused {
        let answer = request.send_to(&gateway).await;
        assert_eq!(answer.refusal(), (400, "invalid_value".into()), "{}", request.body());
        assert_eq!(answer.json()["error"]["param"], "model");
        answer.assert_no_retry();
    }
}
