//! Steps down: from tier to tier as configured, only where the answer stays true, and back again by
//! itself. What clients are told while nothing works.

use crate::support::client::Response;
use crate::support::gateway::{OPEN_DOOR, OTHER_KEY, reached};
use crate::support::{Ask, Crowd, Fault, Script, ScriptedProvider, TestGateway, soon};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A gateway with a model and a provider for each of three tiers.
struct House {
    gateway: TestGateway,
    premium: ScriptedProvider,
    fallback: ScriptedProvider,
    default: ScriptedProvider,
}

/// How long a breaker stays open at first.
const OPEN: Duration = Duration::from_millis(400);

impl House {
    async fn start() -> Self {
        Self::with("").await
    }

    /// The house with more configuration: keys of `[routing]`, then tables.
    async fn with(more: &str) -> Self {
        let premium = ScriptedProvider::start("gold").await;
        let fallback = ScriptedProvider::start("silver").await;
        let default = ScriptedProvider::start("bronze").await;
        let providers = reached("gold", &premium, "us-east")
            + &reached("silver", &fallback, "eu-central")
            + &reached("bronze", &default, "ap-south");
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
            {OPEN_DOOR}
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

    /// What was sent to the providers: premium's, fallback's, default's.
    fn attempts(&self) -> [usize; 3] {
        [self.premium.attempts(), self.fallback.attempts(), self.default.attempts()]
    }
}

/// What served: tier, model, deployment, region.
fn place(answer: &Response) -> [&str; 4] {
    let header = |name| answer.header(name).unwrap_or_default();
    [answer.tier(), header("x-tierway-model"), answer.deployment(), header("x-tierway-region")]
}

const PREMIUM: [&str; 4] = ["premium", "big", "gold/big", "us-east"];
const FALLBACK: [&str; 4] = ["fallback", "middle", "silver/middle", "eu-central"];
const DEFAULT: [&str; 4] = ["default", "small", "bronze/small", "ap-south"];

/// Asks for `name` with these tiers broken; every time a fresh house, so that no breaker has a say.
async fn check(name: &str, broken: &[&str], expected: [&str; 4], attempts: u64) {
    for ask in [Ask::chat(name), Ask::stream(name)] {
        let house = House::start().await;
        house.break_tiers(broken).await;
        let answer = ask.at(&house.gateway).await;
        assert_eq!(answer.said().as_deref(), Ok("Hello"), "{name} without {broken:?}");
        assert_eq!(place(&answer), expected, "{name} without {broken:?}");
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
async fn auto_steps_down_the_chain_of_the_tier_it_drew() {
    for broken in [&["default"][..], &["fallback"], &["premium"], &["premium", "default"], &["premium", "fallback"]] {
        let house = House::start().await;
        house.break_tiers(broken).await;
        let answers = Crowd::of(8, &house.gateway).ask(200, |_| Ask::chat("auto")).await;
        assert!(answers.iter().all(|answer| answer.said().as_deref() == Ok("Hello")), "without {broken:?}");
        let served: BTreeSet<_> = answers.iter().map(place).collect();
        let drawn = [DEFAULT, FALLBACK, PREMIUM];
        let alive = drawn.into_iter().filter(|place| !broken.contains(&place[0])).collect();
        assert_eq!(served, alive, "without {broken:?}");
    }
}

#[tokio::test]
async fn a_chain_is_walked_only_as_far_as_the_policy_allows() {
    let narrow = "[policies.narrow]\ntiers = [\"premium\", \"default\"]\n[[keys]]\nname = \"narrow\"\npolicy = \"narrow\"\nsecret = \"env:OTHER_KEY\"";
    let house = House::with(narrow).await;
    house.break_tiers(&["premium"]).await;
    let answer = Ask::chat("big").by(OTHER_KEY).at(&house.gateway).await;
    assert_eq!((place(&answer), answer.attempts()), (DEFAULT, 2));
    assert_eq!(house.attempts(), [1, 0, 1]);
    let answer = Ask::chat("middle").by(OTHER_KEY).at(&house.gateway).await;
    assert_eq!(answer.refusal(), (403, "model_not_allowed".into()));
}

#[tokio::test]
async fn a_client_may_forbid_any_other_model() {
    let house = House::start().await;
    house.break_tiers(&["premium"]).await;
    let answer = Ask::chat("big").header("x-tierway-no-fallback", "true").at(&house.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    answer.expect_no_retry();
    assert_eq!(answer.header("x-tierway-model"), None, "nothing served it");
    let [premium, others @ ..] = house.attempts();
    assert!(premium >= 1);
    assert_eq!(others, [0, 0], "no other model may be asked");
    let answer = Ask::chat("big").header("x-tierway-no-fallback", "false").at(&house.gateway).await;
    assert_eq!(place(&answer), FALLBACK);
    let answer = Ask::chat("big").header("x-tierway-no-fallback", "perhaps").at(&house.gateway).await;
    assert_eq!(answer.refusal(), (400, "invalid_value".into()));
}

#[tokio::test]
async fn a_total_outage_is_reported_as_it_is_and_hardly_multiplied() {
    let house = House::start().await;
    let outage = Instant::now();
    house.break_tiers(&["premium", "fallback", "default"]).await;
    let answer = Ask::chat("premium").at(&house.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert_eq!(answer.attempts(), 3);
    answer.expect_no_retry();

    let mut crowd = Crowd::of(16, &house.gateway);
    let tripped =
        async { while crowd.ask(16, |_| Ask::chat("premium")).await.iter().any(|answer| answer.status != 503) {} };
    soon("every breaker to trip", tripped).await;

    let before: usize = house.attempts().iter().sum();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.extend(crowd.ask(100, |number| [Ask::chat("auto"), Ask::stream("premium")][number % 2].clone()).await);
    }
    let attempts = house.attempts().iter().sum::<usize>() - before;
    let per_request = attempts as f64 / answers.len() as f64;
    println!("{attempts} attempts for {} requests in a total outage: {per_request:.3} each", answers.len());
    assert!(per_request <= 1.2, "a total outage is multiplied");
    for answer in &answers {
        match answer.refusal() {
            (503, code) => {
                assert_eq!((code.as_str(), answer.attempts()), ("no_deployment_available", 0));
                // A breaker that is open is so for 1.2 times its share of the doubling at most; an outage of
                // this age has not doubled beyond its own age. One that is being probed says a second.
                let most = (outage.elapsed() * 2 + OPEN).mul_f64(1.2).max(Duration::from_secs(1));
                let wait = answer.expect_wait();
                assert!(wait <= most, "told to wait {wait:?}");
            }
            (status, code) => {
                assert_eq!((status, code.as_str()), (502, "upstream_error"), "this one was a probe");
                answer.expect_no_retry();
            }
        }
    }
    let unavailable = answers.iter().filter(|answer| answer.status == 503).count();
    assert!(unavailable * 10 >= answers.len() * 9, "{unavailable} of {} were told at once", answers.len());
    for deployment in ["gold/big", "silver/middle", "bronze/small"] {
        assert_eq!(house.gateway.transitions(deployment, r#"reason="consecutive",to="open""#), 1.0, "{deployment}");
    }
}

#[tokio::test]
async fn an_outage_ends_by_itself_when_the_providers_are_back() {
    let house = House::start().await;
    house.break_tiers(&["premium", "fallback", "default"]).await;
    let tripped = async {
        while house.gateway.transitions("gold/big", r#"reason="probe",to="open""#) < 1.0 {
            Ask::chat("premium").at(&house.gateway).await;
        }
    };
    soon("a lost probe", tripped).await;

    house.break_tiers(&[]).await;
    let healed = Instant::now();
    // The trip and one lost probe: the current backoff is the second.
    let backoff = 2 * OPEN;
    let premium_is_back = async {
        loop {
            let answer = Ask::chat("premium").at(&house.gateway).await;
            match answer.status {
                200 if answer.tier() == "premium" => return,
                // A client that comes back when it was told to.
                503 => tokio::time::sleep(answer.expect_wait()).await,
                _ => {}
            }
        }
    };
    soon("premium to serve again", premium_is_back).await;
    let took = healed.elapsed();
    println!("recovered {took:.1?} after the providers were back; 2 x the current backoff is {:.1?}", 2 * backoff);
    assert!(took <= 20 * backoff, "ten times what is promised");
    assert_eq!(house.gateway.transitions("gold/big", r#"reason="recovered",to="closed""#), 1.0);
    assert_eq!(house.gateway.metric(r#"tierway_breaker_state{deployment="gold/big",state="closed"}"#), 1.0);
    assert_eq!(house.gateway.metric(r#"tierway_breaker_state{deployment="gold/big",state="open"}"#), 0.0);
}

/// A refusal of the request itself.
fn refusal(status: u16, message: &str) -> Script {
    Script::status(status).header("x-request-id", "req_theirs").json(&json!({
        "error": {"message": message, "type": "invalid_request_error", "param": "temperature", "code": "theirs"},
    }))
}

#[tokio::test]
async fn what_the_first_model_refuses_reaches_the_client_as_it_came() {
    for status in [400, 413, 415, 422] {
        let house = House::start().await;
        house.premium.answers(refusal(status, "temperature must be below 2"));
        for ask in [Ask::chat("premium"), Ask::stream("big")] {
            house.premium.clear();
            let answer = ask.at(&house.gateway).await;
            let theirs = house.premium.journal().only().request.clone();
            let [body] = &refusal(status, "temperature must be below 2").frames_for(&theirs)[..] else {
                panic!("one frame")
            };
            assert_eq!((answer.status, &answer.body), (status, body));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.attempts(), 1);
            answer.expect_no_retry();
            assert_ne!(answer.header("x-request-id"), Some("req_theirs"));
        }
        assert_eq!(house.attempts()[1..], [0, 0], "nobody else is asked the same wrong thing");
        assert_eq!(
            house.gateway.sum("tierway_breaker_transitions_total"),
            0,
            "the client's mistake is not the provider's"
        );
    }
}

#[tokio::test]
async fn what_a_later_model_refuses_is_not_reported_to_the_client() {
    let house = House::start().await;
    house.break_tiers(&["premium"]).await;
    house.fallback.answers(refusal(400, "no such parameter"));
    let answer = Ask::chat("premium").at(&house.gateway).await;
    assert_eq!((place(&answer), answer.attempts()), (DEFAULT, 3));

    house.default.answers(refusal(422, "nor here"));
    let answer = Ask::chat("premium").at(&house.gateway).await;
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
async fn a_request_too_long_goes_once_to_a_larger_context() {
    let house = House::start().await;
    house.default.answers(too_long());
    let answer = Ask::chat("default").at(&house.gateway).await;
    assert_eq!((place(&answer), answer.attempts()), (FALLBACK, 2));
    assert_eq!(house.gateway.sum("tierway_breaker_transitions_total"), 0);

    // Once: too long there as well, nothing else is tried, and the client learns the first model's words.
    house.premium.answers(too_long());
    house.fallback.answers(too_long());
    house.default.clear();
    let answer = Ask::chat("premium").at(&house.gateway).await;
    assert_eq!(answer.attempts(), 2);
    assert_eq!(house.default.attempts(), 0, "a smaller context cannot help");
    assert_eq!(answer.refusal(), (400, "context_length_exceeded".into()));
}

#[tokio::test]
async fn a_request_too_long_for_the_largest_context_is_reported_at_once() {
    let house = House::start().await;
    house.fallback.answers(too_long());
    let answer = Ask::chat("fallback").at(&house.gateway).await;
    assert_eq!(answer.refusal(), (400, "context_length_exceeded".into()));
    assert_eq!(answer.attempts(), 1);
    assert_eq!(house.attempts(), [0, 1, 0]);
}

#[tokio::test]
async fn an_embedding_never_changes_its_model() {
    let house = House::start().await;
    house.break_tiers(&["premium"]).await;
    let ask = Ask::new("/v1/embeddings", r#"{"model":"premium","input":"Hi"}"#);
    let answer = ask.at(&house.gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert_eq!(house.attempts()[1..], [0, 0], "another model's vectors are another space");
}
