//! Step-down: from tier to tier as configured, only where the answer stays correct, and back by itself.
//! What clients receive while no deployment works.

use crate::support::client::Response;
use crate::support::gateway::{ALLOW_ALL, OTHER_KEY, provider_table};
use crate::support::{Fault, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, soon};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A gateway with a model and a provider for each of three tiers.
struct ThreeTiers {
    gateway: TestGateway,
    premium: ScriptedProvider,
    fallback: ScriptedProvider,
    default: ScriptedProvider,
}

/// How long a breaker stays open at first.
const OPEN: Duration = Duration::from_millis(400);

impl ThreeTiers {
    async fn start() -> Self {
        Self::with("").await
    }

    /// The same with more configuration: keys of `[routing]`, then tables.
    async fn with(more: &str) -> Self {
        let premium = ScriptedProvider::start("gold").await;
        let fallback = ScriptedProvider::start("silver").await;
        let default = ScriptedProvider::start("bronze").await;
        let providers = provider_table("gold", &premium, "us-east")
            + &provider_table("silver", &fallback, "eu-central")
            + &provider_table("bronze", &default, "ap-south");
        let config = format!(
            r#"{providers}
            [models]
            big    = {{ deployments = [{{ provider = "gold" }}], context = 1000, endpoints = ["chat", "embeddings"] }}
            middle = {{ deployments = [{{ provider = "silver" }}], context = 8000, endpoints = ["chat", "embeddings"] }}
            small  = {{ deployments = [{{ provider = "bronze" }}], context = 500 }}

            [tiers]
            default  = {{ models = ["small"], then = ["fallback"] }}
            fallback = {{ models = ["middle"], then = ["default"] }}
            premium  = {{ models = ["big"], then = ["fallback", "default"] }}

            [aliases.auto]
            split = {{ default = 80, fallback = 15, premium = 5 }}
            {ALLOW_ALL}
            [routing]
            breaker = {{ failures = 5, open = "400ms", open_max = "10s" }}
            {more}"#
        );
        Self { gateway: TestGateway::start(&config).await, premium, fallback, default }
    }

    async fn break_tiers(&self, broken: &[&str]) {
        for (tier, provider) in [("premium", &self.premium), ("fallback", &self.fallback), ("default", &self.default)] {
            match broken.contains(&tier) {
                true => provider.break_with(Fault::Status503).await,
                false => provider.heal().await,
            }
        }
    }

    /// Requests received by the providers of premium, fallback and default.
    fn attempts(&self) -> [usize; 3] {
        [self.premium.attempts(), self.fallback.attempts(), self.default.attempts()]
    }
}

/// What served: tier, model, deployment, region.
fn served_by(answer: &Response) -> [&str; 4] {
    let header = |name| answer.header(name).unwrap_or_default();
    [answer.tier(), header("x-tierway-model"), answer.deployment(), header("x-tierway-region")]
}

const PREMIUM: [&str; 4] = ["premium", "big", "gold/big", "us-east"];
const FALLBACK: [&str; 4] = ["fallback", "middle", "silver/middle", "eu-central"];
const DEFAULT: [&str; 4] = ["default", "small", "bronze/small", "ap-south"];

/// Requests `name` with these tiers broken; each time with a new gateway, so that no breaker interferes.
async fn check(name: &str, broken: &[&str], expected: [&str; 4], attempts: u64) {
    for request in [TestRequest::chat(name), TestRequest::stream(name)] {
        let tiers = ThreeTiers::start().await;
        tiers.break_tiers(broken).await;
        let answer = request.send_to(&tiers.gateway).await;
        assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "{name} without {broken:?}");
        assert_eq!(served_by(&answer), expected, "{name} without {broken:?}");
        assert_eq!(answer.attempts(), attempts, "{name} without {broken:?}");
    }
}

#[tokio::test]
async fn a_tier_steps_down_its_chain_as_written() {
    check("premium", &[], PREMIUM, 1).await;
    check("premium", &["premium"], FALLBACK, 2).await;
    check("premium", &["premium", "fallback"], DEFAULT, 3).await;
    check("fallback", &["fallback"], DEFAULT, 2).await;
    check("default", &["default", "premium"], FALLBACK, 2).await;
}

#[tokio::test]
async fn a_named_model_steps_down_the_chain_of_its_tier() {
    check("big", &[], PREMIUM, 1).await;
    check("big", &["premium"], FALLBACK, 2).await;
    check("big", &["premium", "fallback"], DEFAULT, 3).await;
    check("small", &["default"], FALLBACK, 2).await;
}

#[tokio::test]
async fn auto_steps_down_the_chain_of_the_tier_it_chose() {
    for broken in [&["default"][..], &["fallback"], &["premium"], &["premium", "default"], &["premium", "fallback"]] {
        let tiers = ThreeTiers::start().await;
        tiers.break_tiers(broken).await;
        let answers = TestClients::new(8, &tiers.gateway).send_all(200, |_| TestRequest::chat("auto")).await;
        assert!(answers.iter().all(|answer| answer.chat_text().as_deref() == Ok("Hello")), "without {broken:?}");
        let served: BTreeSet<_> = answers.iter().map(served_by).collect();
        let all_tiers = [DEFAULT, FALLBACK, PREMIUM];
        let alive = all_tiers.into_iter().filter(|served| !broken.contains(&served[0])).collect();
        assert_eq!(served, alive, "without {broken:?}");
    }
}

/// Once the breaker is open the tier meant is not tried at all, and its requests are still counted.
#[tokio::test]
async fn every_answer_from_elsewhere_is_a_fallback() {
    const REQUESTS: u64 = 40;
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium"]).await;
    for number in 0..REQUESTS {
        let request = if number % 2 == 0 { TestRequest::stream("premium") } else { TestRequest::chat("premium") };
        assert_eq!(served_by(&request.send_to(&tiers.gateway).await), FALLBACK);
    }
    let (gateway, receipts) = (&tiers.gateway, tiers.gateway.receipts(REQUESTS).await);
    let from_premium = |reason: &str| {
        let labels = format!("from=\"premium:big\",reason=\"{reason}\",to=\"fallback:middle\"");
        gateway.metric(&format!("tierway_fallbacks_total{{{labels}}}")) as u64
    };
    let (tried, passed_over) = (from_premium("upstream_status"), from_premium("passed_over"));
    assert_eq!((tried + passed_over, gateway.sum("tierway_fallbacks_total{")), (REQUESTS, REQUESTS));
    assert_eq!(tried, gateway.attempts_at("gold/big"));
    assert!(tried > 0 && passed_over > 0, "{tried} {passed_over}");
    // The series stay when the states of deployments are published.
    gateway.relay.publish_states();
    assert_eq!(gateway.sum("tierway_fallbacks_total{"), REQUESTS);

    for receipt in &receipts {
        let meant = receipt.meant.as_ref().expect("there was a plan");
        assert_eq!((&*meant.model, meant.tier.as_deref()), ("big", Some("premium")));
        let [first, .., last] = &receipt.attempts[..] else {
            assert_eq!(receipt.failover, None, "its only attempt served");
            continue;
        };
        let (sent, sent_again) = (first.started.expect("it was sent"), last.started.expect("it was sent"));
        assert!(sent + first.duration <= sent_again, "one after the other");
        let failover = receipt.failover.expect("the second attempt served");
        assert_eq!(sent + failover, sent_again + last.duration);
        assert_eq!((first.region.as_deref(), last.region.as_deref()), (Some("us-east"), Some("eu-central")));
    }
    let failed_over = receipts.iter().filter(|receipt| receipt.failover.is_some()).count() as u64;
    assert_eq!((failed_over, gateway.sum("tierway_failovers_total{")), (tried, tried));
    for mode in ["stream", "whole"] {
        let of_mode =
            receipts.iter().filter(|receipt| receipt.failover.is_some() && receipt.stream == (mode == "stream"));
        let labels = format!("from_region=\"us-east\",mode=\"{mode}\",reason=\"upstream_status\"");
        let counted = gateway.metric(&format!("tierway_failover_seconds_count{{{labels}}}"));
        assert_eq!(counted, of_mode.count() as f64, "{mode}");
    }
}

#[tokio::test]
async fn a_chain_is_followed_only_as_far_as_the_policy_allows() {
    let narrow = "[policies.narrow]\ntiers = [\"premium\", \"default\"]\n[[keys]]\nname = \"narrow\"\npolicy = \"narrow\"\nsecret = \"env:OTHER_KEY\"";
    let tiers = ThreeTiers::with(narrow).await;
    tiers.break_tiers(&["premium"]).await;
    let answer = TestRequest::chat("big").with_key(OTHER_KEY).send_to(&tiers.gateway).await;
    assert_eq!((served_by(&answer), answer.attempts()), (DEFAULT, 2));
    assert_eq!(tiers.attempts(), [1, 0, 1]);
    let answer = TestRequest::chat("middle").with_key(OTHER_KEY).send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (403, "model_not_allowed".into()));
}

#[tokio::test]
async fn a_client_may_forbid_any_other_model() {
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium"]).await;
    let answer = TestRequest::chat("big").header("x-tierway-no-fallback", "true").send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    answer.assert_may_retry();
    assert_eq!(answer.header("x-tierway-model"), None, "nothing served it");
    let [premium, others @ ..] = tiers.attempts();
    assert!(premium >= 1);
    assert_eq!(others, [0, 0], "no other model may be asked");
    let answer = TestRequest::chat("big").header("x-tierway-no-fallback", "false").send_to(&tiers.gateway).await;
    assert_eq!(served_by(&answer), FALLBACK);
    let answer = TestRequest::chat("big").header("x-tierway-no-fallback", "perhaps").send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (400, "invalid_value".into()));
}

#[tokio::test]
async fn a_total_outage_is_reported_and_causes_few_extra_attempts() {
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium", "fallback", "default"]).await;
    let answer = TestRequest::chat("premium").send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert_eq!(answer.attempts(), 3);
    answer.assert_may_retry();

    let mut clients = TestClients::new(16, &tiers.gateway);
    let before: usize = tiers.attempts().iter().sum();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.extend(
            clients
                .send_all(100, |number| [TestRequest::chat("auto"), TestRequest::stream("premium")][number % 2].clone())
                .await,
        );
    }
    let attempts = tiers.attempts().iter().sum::<usize>() - before;
    let per_request = attempts as f64 / answers.len() as f64;
    println!("{attempts} attempts for {} requests in a total outage: {per_request:.3} each", answers.len());
    // A fallback to a deployment that no attempt has ended at so far is free: a few of those in flight at the start.
    assert!(attempts as f64 <= 1.2 * answers.len() as f64 + 16.0, "a total outage is multiplied");
    for answer in &answers {
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        answer.assert_may_retry();
    }
}

#[tokio::test]
async fn an_outage_ends_by_itself_when_the_providers_are_back() {
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium", "fallback", "default"]).await;
    let tripped = async {
        while tiers.gateway.transitions("gold/big", r#"reason="probe",to="open""#) < 1.0 {
            TestRequest::chat("premium").send_to(&tiers.gateway).await;
        }
    };
    soon("a failed probe", tripped).await;

    tiers.break_tiers(&[]).await;
    let healed = Instant::now();
    // After the trip and one failed probe, the current backoff is the second one.
    let backoff = 2 * OPEN;
    let premium_is_back = async {
        loop {
            let answer = TestRequest::chat("premium").send_to(&tiers.gateway).await;
            match answer.status {
                200 if answer.tier() == "premium" => return,
                // A client that retries when it is advised to.
                503 => tokio::time::sleep(answer.retry_after()).await,
                _ => {}
            }
        }
    };
    soon("premium to serve again", premium_is_back).await;
    let took = healed.elapsed();
    println!("recovered {took:.1?} after the providers were back; 2 x the current backoff is {:.1?}", 2 * backoff);
    assert!(took <= 20 * backoff, "ten times the promised time");
    assert_eq!(tiers.gateway.transitions("gold/big", r#"reason="recovered",to="closed""#), 1.0);
    assert_eq!(tiers.gateway.metric(r#"tierway_breaker_state{deployment="gold/big",state="closed"}"#), 1.0);
    assert_eq!(tiers.gateway.metric(r#"tierway_breaker_state{deployment="gold/big",state="open"}"#), 0.0);
}

/// A refusal of the request itself.
fn refusal(status: u16, message: &str) -> Script {
    Script::status(status).header("x-request-id", "req_theirs").json(&json!({
        "error": {"message": message, "type": "invalid_request_error", "param": "temperature", "code": "theirs"},
    }))
}

#[tokio::test]
async fn a_refusal_by_the_first_model_reaches_the_client_verbatim() {
    for status in [400, 413, 415, 422] {
        let tiers = ThreeTiers::start().await;
        tiers.premium.answers(refusal(status, "temperature must be below 2"));
        for request in [TestRequest::chat("premium"), TestRequest::stream("big")] {
            tiers.premium.clear();
            let answer = request.send_to(&tiers.gateway).await;
            let theirs = tiers.premium.journal().only().request.clone();
            let [body] = &refusal(status, "temperature must be below 2").frames_for(&theirs)[..] else {
                panic!("one frame")
            };
            assert_eq!((answer.status, &answer.body), (status, body));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.attempts(), 1);
            answer.assert_no_retry();
            assert_ne!(answer.header("x-request-id"), Some("req_theirs"));
        }
        assert_eq!(tiers.attempts()[1..], [0, 0], "no other provider receives the same invalid request");
        assert_eq!(
            tiers.gateway.sum("tierway_breaker_transitions_total"),
            0,
            "the client's mistake is not the provider's"
        );
    }
}

#[tokio::test]
async fn a_refusal_by_a_later_model_is_not_returned_to_the_client() {
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium"]).await;
    tiers.fallback.answers(refusal(400, "no such parameter"));
    let answer = TestRequest::chat("premium").send_to(&tiers.gateway).await;
    assert_eq!((served_by(&answer), answer.attempts()), (DEFAULT, 3));

    tiers.default.answers(refusal(422, "nor here"));
    let answer = TestRequest::chat("premium").send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()), "the first model's error, not the last one's");
    assert!(!answer.text().contains("nor here"));
}

/// The error of a request longer than the model's context.
fn too_long() -> Script {
    Script::status(400).json(&json!({
        "error": {
            "message": "This model's maximum context length is 1000 tokens.",
            "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
        },
    }))
}

#[tokio::test]
async fn a_request_too_long_is_tried_once_with_a_larger_context() {
    let tiers = ThreeTiers::start().await;
    tiers.default.answers(too_long());
    let answer = TestRequest::chat("default").send_to(&tiers.gateway).await;
    assert_eq!((served_by(&answer), answer.attempts()), (FALLBACK, 2));
    assert_eq!(tiers.gateway.sum("tierway_breaker_transitions_total"), 0);

    // Once: if it is too long there as well, nothing else is tried, and the client gets the first model's error.
    tiers.premium.answers(too_long());
    tiers.fallback.answers(too_long());
    tiers.default.clear();
    let answer = TestRequest::chat("premium").send_to(&tiers.gateway).await;
    assert_eq!(answer.attempts(), 2);
    assert_eq!(tiers.default.attempts(), 0, "a smaller context cannot help");
    assert_eq!(answer.refusal(), (400, "context_length_exceeded".into()));
}

#[tokio::test]
async fn a_request_too_long_for_the_largest_context_is_reported_at_once() {
    let tiers = ThreeTiers::start().await;
    tiers.fallback.answers(too_long());
    let answer = TestRequest::chat("fallback").send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (400, "context_length_exceeded".into()));
    assert_eq!(answer.attempts(), 1);
    assert_eq!(tiers.attempts(), [0, 1, 0]);
}

#[tokio::test]
async fn an_embedding_never_changes_its_model() {
    let tiers = ThreeTiers::start().await;
    tiers.break_tiers(&["premium"]).await;
    let request = TestRequest::new("/v1/embeddings", r#"{"model":"premium","input":"Hi"}"#);
    let answer = request.send_to(&tiers.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert_eq!(tiers.attempts()[1..], [0, 0], "another model's vectors are another space");
}
