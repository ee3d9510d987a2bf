//! A second attempt beside the first: hedges that a policy asks for, rescues from a silent deployment, and a share of
//! the client's time for what is untried. The first good frame wins; the other attempt is cancelled at once and booked.
//!
//! The provider's journal is the oracle: what it received, and when the gateway left.

use crate::budgets::{answer_using, budget, budget_refusal, price, priced_config, spent, worst_case};
use crate::support::gateway::{ALLOW_ALL, provider_table};
use crate::support::{
    ChatAnswer, Client, Gate, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, chat, chat_stream, soon,
};
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{Outcome, Receipt};
use tokio::time::Instant;

/// Hedges every late request after a fixed time.
const HEDGE: &str = r#"hedge = { after = "50ms", at_least = "50ms", extra = "100%" }"#;
/// Long enough for a hedge to be sent if it is to be.
const LATE: Duration = Duration::from_millis(500);
/// Silence is found after half a second, while nothing is known of a deployment.
const SOON_SILENT: &str = "silent_after = \"500ms\"";
const PROMISED: Duration = Duration::from_millis(100);
/// Ten times that, for a busy machine; the measured time is printed.
const BOUND: Duration = Duration::from_secs(1);
/// How often a cancellation is measured.
const TIMES: usize = 5;

/// Two providers of one model, the first preferred.
async fn pair() -> [ScriptedProvider; 2] {
    let [first, second] = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    for provider in [&first, &second] {
        provider.answers(chat(answer_using(30, 10)));
    }
    [first, second]
}

/// The configuration of `pair`, with lines of the policy and of `[routing]`.
fn of_pair(pair: &[ScriptedProvider; 2], policy: &str, routing: &str) -> String {
    let config = priced_config(&[("eu", &pair[0]), ("us", &pair[1])], policy, "");
    let first_token = if routing.is_empty() { "5s" } else { "2s" };
    config
        .replace("balance = \"ordered\"", &format!("balance = \"ordered\"\n{routing}"))
        .replace("first_token = \"5s\"", &format!("first_token = \"{first_token}\""))
}

/// A client whose request is sent, and not read.
async fn sent(gateway: &TestGateway, request: &TestRequest) -> Client {
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    client
}

/// Where each attempt was made, and how it ended.
fn attempts(receipt: &Receipt) -> Vec<(&str, Reason)> {
    receipt.attempts.iter().map(|attempt| (&*attempt.deployment, attempt.reason)).collect()
}

/// From the first attempt being sent to the second.
fn between_attempts(receipt: &Receipt) -> Duration {
    let started = |number: usize| receipt.attempts[number].started.expect("it was sent");
    started(1) - started(0)
}

/// An event stream that gives a sign of life so often, with a pause between two, and then answers as `answer`.
fn alive_for(signs: usize, answer: Script) -> Script {
    const PAUSE: Duration = Duration::from_millis(100);
    Script::by(move |request| {
        let alive = (0..signs).fold(Script::sse(), |script, _| script.body(": alive\n\n").wait(PAUSE));
        answer.frames_for(request).into_iter().fold(alive, Script::body)
    })
}

#[tokio::test]
async fn the_first_good_frame_wins_and_the_other_attempt_is_cancelled_and_booked() {
    let pair = pair().await;
    let request = TestRequest::stream("small");
    let worst = worst_case(&request);
    let both = price(30, 10) + worst;
    let limit = (TIMES as i64 - 1) * both + 2 * worst;
    let gateway = TestGateway::start(&of_pair(&pair, &format!("{HEDGE}\n{}", budget(limit)), "")).await;
    let mut longest = Duration::ZERO;
    for time in 1..=TIMES {
        pair[0].clear();
        let (never, middle) = (Gate::new(), Gate::new());
        pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(&never));
        pair[1].answers(chat(ChatAnswer { frames: 4, ..answer_using(30, 10) }).wait_after_frame(2, &middle));
        let mut client = sent(&gateway, &request).await;
        let (status, _) = client.head().await;
        let answered = Instant::now();
        assert_eq!(status, 200);
        let closed = pair[0].at_rest().await.only().client_closed_at().expect("the loser is cancelled");
        longest = longest.max(closed.saturating_duration_since(answered));
        middle.open();
        while client.frame().await.is_ok() {}
        assert_eq!(spent(&gateway, "one", time as u64).await, time as i64 * both, "both are booked");
        let receipt = gateway.receipts(time as u64).await[time - 1].clone();
        assert_eq!(attempts(&receipt), [("eu/small", Reason::Overtaken), ("us/small", Reason::Served)]);
        assert_eq!((receipt.cost.0, receipt.estimated, receipt.outcome), (both, true, Outcome::Served));
        assert!(between_attempts(&receipt) >= Duration::from_millis(50), "{receipt:?}");
        assert!(receipt.failover.is_some(), "{receipt:?}");
    }
    println!("the loser: cancelled within {longest:?} (promised: {PROMISED:?})");
    assert!(longest < BOUND, "{longest:?}");
    assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "to be overtaken trips no breaker");
}

#[tokio::test]
async fn the_first_attempt_wins_where_it_answers_first() {
    let pair = pair().await;
    let request = TestRequest::chat("small");
    let worst = worst_case(&request);
    let gateway = TestGateway::start(&of_pair(&pair, &format!("{HEDGE}\n{}", budget(2 * worst)), "")).await;
    let (first, never) = (Gate::new(), Gate::new());
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(&first));
    pair[1].answers(chat(answer_using(30, 10)).wait_before_headers(&never));
    let mut client = sent(&gateway, &request).await;
    never.reached(1).await;
    first.open();
    let answer = client.response().await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "eu/small", 2));
    assert!(pair[1].at_rest().await.only().client_closed_at().is_some(), "the loser is cancelled");
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10) + worst);
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!(attempts(&receipt), [("eu/small", Reason::Served), ("us/small", Reason::Overtaken)]);
    assert_eq!(receipt.failover, None, "nothing failed over");
}

#[tokio::test]
async fn a_hedge_that_fails_leaves_the_first_attempt_alone() {
    let pair = pair().await;
    let request = TestRequest::chat("small");
    let gateway =
        TestGateway::start(&of_pair(&pair, &format!("{HEDGE}\n{}", budget(2 * worst_case(&request))), "")).await;
    let first = Gate::new();
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(&first));
    pair[1].answers(Script::status(503));
    let mut client = sent(&gateway, &request).await;
    pair[1].attempted(1).await;
    let failed = async {
        while gateway.relay.attempts_in_flight() > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon("the hedge to fail", failed).await;
    first.open();
    let answer = client.response().await;
    assert_eq!((answer.status, answer.deployment()), (200, "eu/small"));
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10), "an error costs nothing");
    assert_eq!(gateway.receipts(1).await[0].attempts[0].reason, Reason::Served);
}

#[tokio::test]
async fn a_percentile_is_waited_for_and_nothing_is_hedged_while_it_is_unknown() {
    let pair = pair().await;
    let hedge = r#"hedge = { after = "p95", at_least = "50ms", extra = "100%" }"#;
    let gateway = TestGateway::start(&of_pair(&pair, hedge, "")).await;
    let usual = Duration::from_millis(300);
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(usual));
    let request = TestRequest::stream("small");
    let first = request.send_to(&gateway).await;
    assert_eq!((first.status, first.attempts()), (200, 1));
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(&Gate::new()));
    let late = request.send_to(&gateway).await;
    assert_eq!((late.status, late.deployment(), late.attempts()), (200, "us/small", 2));
    let receipt = gateway.receipts(2).await[1].clone();
    assert!(between_attempts(&receipt) >= usual, "{receipt:?}");
}

#[tokio::test]
async fn no_hedge_without_a_policy_that_asks_for_one_nor_without_money_for_both() {
    let pair = pair().await;
    let request = TestRequest::stream("small");
    let worst = worst_case(&request);
    let gateway = TestGateway::start(&of_pair(&pair, &budget(10 * worst), "")).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(LATE));
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "eu/small", 1));

    let gateway = TestGateway::start(&of_pair(&pair, &format!("{HEDGE}\n{}", budget(2 * worst - 1)), "")).await;
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "eu/small", 1));
    assert_eq!(pair[1].attempts(), 0, "nothing is sent without a hold");
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));
    // With that nano-dollar there is one.
    gateway.reload(&of_pair(&pair, &format!("{HEDGE}\n{}", budget(2 * worst + price(30, 10))), ""));
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "us/small", 2));
    assert_eq!(spent(&gateway, "one", 2).await, 2 * price(30, 10) + worst);
}

#[tokio::test]
async fn hedges_never_exceed_their_share_of_the_requests() {
    const REQUESTS: usize = 60;
    let pair = pair().await;
    let hedge = r#"hedge = { after = "50ms", at_least = "50ms", extra = "10%" }"#;
    let gateway = TestGateway::start(&of_pair(&pair, hedge, "")).await;
    for provider in &pair {
        provider.answers(chat(answer_using(30, 10)).wait_before_headers(Duration::from_millis(200)));
    }
    let answers = TestClients::new(10, &gateway).send_all(REQUESTS, |_| TestRequest::stream("small")).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    gateway.receipts(REQUESTS as u64).await;
    let hedges = pair[0].attempts() + pair[1].attempts() - REQUESTS;
    println!("{hedges} hedges of {REQUESTS} requests that were all late; a tenth is allowed");
    assert!((1..=REQUESTS / 10).contains(&hedges), "{hedges} hedges");
}

/// Whether a late first attempt of `request` is hedged by `second`, under `config` with the providers `eu` and `us`.
async fn is_hedged(config: &str, pair: &[ScriptedProvider; 2], request: &TestRequest) -> bool {
    pair[1].clear();
    let gateway = TestGateway::start(config).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(LATE));
    let answer = request.send_to(&gateway).await;
    let hedged = pair[1].attempts() > 0;
    assert_eq!((answer.status, answer.attempts()), (200, if hedged { 2 } else { 1 }), "{answer:?}");
    hedged
}

/// Two providers in two regions, `models` and what follows them, and one policy that hedges.
fn hedging(pair: &[ScriptedProvider; 2], models: &str, policy: &str) -> String {
    let providers = provider_table("eu", &pair[0], "eu-central") + &provider_table("us", &pair[1], "us-east");
    let allowed = ALLOW_ALL.replace("[[keys]]", &format!("{HEDGE}\n{policy}\n[[keys]]"));
    format!("{providers}\n[routing]\nbalance = \"ordered\"\n{models}\n{allowed}")
}

#[tokio::test]
async fn a_hedge_stays_within_the_model_the_residency_and_the_capacity_of_its_request() {
    let pair = pair().await;
    let two_models = r#"
        [models]
        small = { deployments = [{ provider = "eu" }] }
        large = { deployments = [{ provider = "us" }] }
        [tiers]
        default = { models = ["small"], then = ["more"] }
        more    = { models = ["large"] }
        "#;
    let request = TestRequest::stream("default");
    let config = hedging(&pair, two_models, "");
    assert!(is_hedged(&config, &pair, &request).await, "by another model, where the client allows it");
    assert!(!is_hedged(&config, &pair, &request.header("x-tierway-no-fallback", "true")).await);

    let one_model = "[models.small]\ndeployments = [{ provider = \"eu\" }, { provider = \"us\" }]\n";
    let request = TestRequest::stream("small");
    assert!(is_hedged(&hedging(&pair, one_model, ""), &pair, &request).await);
    assert!(!is_hedged(&hedging(&pair, one_model, r#"regions = ["eu-*"]"#), &pair, &request).await);

    let [own, common] = [r#"provider = "eu", capacity = "dedicated""#, r#"provider = "us""#];
    let models = format!("[models.small]\ndeployments = [{{ {own} }}, {{ {common} }}]\n");
    assert!(!is_hedged(&hedging(&pair, &models, ""), &pair, &TestRequest::stream("Pro/small")).await);
    let models = models.replace(", capacity = \"dedicated\"", "").replace("\"us\"", "\"us\", capacity = \"dedicated\"");
    assert!(!is_hedged(&hedging(&pair, &models, ""), &pair, &request).await);
}

#[tokio::test]
async fn a_full_deployment_and_one_with_an_open_breaker_get_no_hedge() {
    let pair = pair().await;
    let models = "[models.small]\ndeployments = [{ provider = \"eu\" }, { provider = \"us\", max_concurrent = 1 }]\n";
    let gateway = TestGateway::start(&hedging(&pair, models, "")).await;
    let (first, second) = (Gate::new(), Gate::new());
    pair[0].answers_once(chat(answer_using(30, 10)).wait_before_headers(&first));
    pair[1].answers_once(chat(answer_using(30, 10)).wait_before_headers(&second));
    let request = TestRequest::stream("small");
    let mut occupying = sent(&gateway, &request).await;
    second.reached(1).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(LATE));
    assert_eq!(request.send_to(&gateway).await.attempts(), 1, "it is full");
    assert_eq!(pair[1].attempts(), 1);
    first.open();
    assert_eq!(occupying.response().await.status, 200);

    let open = "balance = \"ordered\"\nbreaker = { failures = 1, open = \"60s\", open_max = \"60s\" }";
    let gateway = TestGateway::start(&hedging(&pair, models, "").replace("balance = \"ordered\"", open)).await;
    pair[1].clear();
    pair[1].answers(Script::status(503));
    for _ in 0..2 {
        let answer = request.send_to(&gateway).await;
        assert_eq!((answer.status, answer.deployment()), (200, "eu/small"));
    }
    assert_eq!(pair[1].attempts(), 1, "the first hedge opened its breaker");
}

#[tokio::test]
async fn a_silent_deployment_is_waited_for_where_there_is_no_money_for_a_second_attempt() {
    let pair = pair().await;
    let request = TestRequest::stream("small");
    let worst = worst_case(&request);
    let config = |limit| of_pair(&pair, &budget(limit), SOON_SILENT);
    let gateway = TestGateway::start(&config(2 * worst - 1)).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(Duration::from_millis(1_200)));
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "eu/small", 1));
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));

    // No longer than its timeouts allow: then the budget is what the client can do something about.
    let gateway = TestGateway::start(&config(2 * worst - 1)).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(&Gate::new()));
    budget_refusal(&request.send_to(&gateway).await);
    assert_eq!(spent(&gateway, "one", 1).await, worst);
    assert_eq!(pair[1].attempts(), 0, "nothing is sent without a hold");

    let gateway = TestGateway::start(&config(2 * worst)).await;
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "us/small", 2));
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10) + worst);
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!(attempts(&receipt), [("eu/small", Reason::Overtaken), ("us/small", Reason::Served)]);
    assert!(between_attempts(&receipt) >= Duration::from_millis(500), "{receipt:?}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_and_pays_for_both_attempts() {
    let pair = pair().await;
    for (request, policy, routing) in
        [(TestRequest::stream("small"), HEDGE, ""), (TestRequest::stream("small"), "", SOON_SILENT)]
    {
        pair.iter().for_each(ScriptedProvider::clear);
        let worst = worst_case(&request);
        let gateway = TestGateway::start(&of_pair(&pair, &format!("{policy}\n{}", budget(2 * worst)), routing)).await;
        let both = Gate::new();
        pair.iter().for_each(|provider| provider.answers(chat_stream("Hello", 1).wait_before_headers(&both)));
        let client = sent(&gateway, &request).await;
        both.reached(2).await;
        let left = Instant::now();
        drop(client);
        for provider in &pair {
            let closed = provider.at_rest().await.only().client_closed_at().expect("it is cancelled");
            let took = closed.saturating_duration_since(left);
            println!("{routing} {policy}: seen by the provider within {took:?} (promised: {PROMISED:?})");
            assert!(took < BOUND, "{took:?}");
        }
        assert_eq!(spent(&gateway, "one", 1).await, 2 * worst);
        let receipt = gateway.receipts(1).await[0].clone();
        assert_eq!(attempts(&receipt), [("eu/small", Reason::ClientGone), ("us/small", Reason::ClientGone)]);
        assert_eq!((receipt.outcome, receipt.cost.0), (Outcome::Abandoned, 2 * worst));
    }
}

#[tokio::test]
async fn the_clients_time_is_shared_among_what_is_untried() {
    let pair = pair().await;
    let third = ScriptedProvider::start("ap").await;
    let providers = [("eu", &pair[0]), ("us", &pair[1]), ("ap", &third)];
    for header in ["x-stainless-read-timeout", "x-stainless-timeout", "x-tierway-deadline-ms"] {
        let gateway = TestGateway::start(&priced_config(&providers, "", "")).await;
        [&pair[0], &pair[1], &third].into_iter().for_each(ScriptedProvider::clear);
        let value = if header.ends_with("-ms") { "3000" } else { "3" };
        let request = TestRequest::stream("small").header(header, value);
        // A third of the time is for each of three.
        pair[0].answers(alive_for(100, chat_stream("Hello", 1)));
        pair[1].answers(chat_stream("Hello", 1));
        let answer = request.send_to(&gateway).await;
        assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "us/small", 2), "{header}");
        let receipt = gateway.receipts(1).await[0].clone();
        let share = between_attempts(&receipt);
        println!("{header}: a second attempt after {share:?} of 3 s");
        assert!((Duration::from_millis(800)..Duration::from_millis(2_500)).contains(&share), "{header}: {share:?}");

        // What is slow and alive is not cancelled for that.
        let never = Gate::new();
        pair[0].answers(alive_for(15, chat_stream("Hello", 1)));
        pair[1].answers(chat_stream("Hello", 1).wait_before_headers(&never));
        let answer = request.send_to(&gateway).await;
        assert_eq!((answer.status, answer.deployment()), (200, "eu/small"), "{header}");
        assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
        assert_eq!(third.attempts(), 0, "no third one is started");
    }
}

#[tokio::test]
async fn what_is_slow_and_alive_is_left_alone() {
    let pair = pair().await;
    let gateway = TestGateway::start(&of_pair(&pair, "", SOON_SILENT)).await;
    pair[0].answers(alive_for(15, chat_stream("Hello", 1)));
    let answer = TestRequest::stream("small").send_to(&gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "eu/small", 1));
    assert_eq!(pair[1].attempts(), 0);
}

#[tokio::test]
async fn a_timeout_that_cannot_be_one_is_ignored() {
    let pair = pair().await;
    let gateway = TestGateway::start(&of_pair(&pair, "", "")).await;
    pair[0].answers(chat(answer_using(30, 10)).wait_before_headers(Duration::from_millis(20)));
    let values =
        ["", "soon", "-1", "0", "0.0", "NaN", "inf", "1e9", "1,5", "1.2.3", "99999999999999999999", "3 s", "0x10", "."];
    for header in ["x-stainless-read-timeout", "x-stainless-timeout"] {
        for value in values {
            let answer = TestRequest::chat("small").header(header, value).send_to(&gateway).await;
            assert_eq!((answer.status, answer.attempts()), (200, 1), "{header}: {value:?}");
        }
        // Twice is nothing that can be relied on.
        let twice = TestRequest::chat("small").header(header, "0.001").header(header, "0.001");
        assert_eq!(twice.send_to(&gateway).await.attempts(), 1, "{header}");
    }
    assert_eq!(pair[1].attempts(), 0);
}
