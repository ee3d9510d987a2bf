//! What is held is what is asked for, and what a provider does beyond that: over real sockets, against a provider that
//! reads its ceiling by one name alone, serves more than it is asked for, or goes on when it is left.

use crate::budgets::{
    CEILING, INPUT, OUTPUT, answer_using, budget, budget_refusal, price, priced_config, spent, worst_case,
};
use crate::support::gateway::{ADMIN_TOKEN, OTHER_KEY, VIEWER_TOKEN};
use crate::support::journal::Request;
use crate::support::{
    ChatAnswer, Gate, Piece, Script, ScriptedProvider, TestGateway, TestRequest, Usage, chat, chat_stream, soon,
};
use serde_json::{Value, json};
use std::time::Duration;
use tierway::config::KeyHash;
use tierway::domain::money::NanoUsd;
use tierway::domain::receipt::Outcome;

/// What a provider writes that reads no ceiling.
const UNLIMITED: u64 = 20 * CEILING as u64;
const NAMES: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Answers with as many tokens as it is asked for by `name`, the only one that it knows.
fn knows_only(name: &'static str) -> Script {
    Script::by(move |request: &Request| {
        let asked = request.json()[name].as_f64().map(|tokens| tokens as u64).filter(|tokens| *tokens > 0);
        chat(answer_using(30, asked.unwrap_or(UNLIMITED)))
    })
}

/// The one provider calls its ceiling `name`.
fn with_name(config: &str, name: &str) -> String {
    config.replace("[providers.p]\n", &format!("[providers.p]\nmax_tokens_name = \"{name}\"\n"))
}

#[tokio::test]
async fn whatever_a_client_calls_its_ceiling_the_provider_reads_what_is_held() {
    let ceiling = CEILING as u64;
    // A spelling, what the host of each name reads, and what is held.
    let spellings: [(&str, [u64; 2], u64); 13] = [
        (r#""x":1"#, [ceiling; 2], ceiling),
        (r#""max_tokens":7"#, [7; 2], 7),
        (r#""max_completion_tokens":7"#, [7; 2], 7),
        (r#""max_completion_tokens":7.0"#, [7; 2], 7),
        (r#""max_tokens":null"#, [ceiling; 2], ceiling),
        (r#""max_tokens":0"#, [ceiling; 2], ceiling),
        (r#""max_completion_tokens":0"#, [ceiling; 2], ceiling),
        (r#""max_tokens":0,"max_completion_tokens":null"#, [ceiling; 2], ceiling),
        (r#""max_tokens":5000"#, [ceiling; 2], ceiling),
        (r#""max_completion_tokens":5000"#, [ceiling; 2], ceiling),
        (r#""max_tokens":7,"max_completion_tokens":50"#, [7, 50], 50),
        (r#""max_completion_tokens":null,"max_tokens":50"#, [50; 2], 50),
        (r#""max\u005ftokens":7"#, [7; 2], 7),
    ];
    for (place, name) in NAMES.into_iter().enumerate() {
        let provider = ScriptedProvider::start("p").await;
        provider.answers(knows_only(name));
        for (spelling, read, held) in spellings {
            for request in [TestRequest::chat("small"), TestRequest::stream("small")] {
                let request = request.with_member(spelling);
                provider.clear();
                provider.answers(knows_only(name));
                let least = worst_case(&request) - (CEILING - held as i64) * OUTPUT;
                let start = async |limit: i64| {
                    let config = priced_config(&[("p", &provider)], &budget(limit), "");
                    TestGateway::start(&with_name(&config, name)).await
                };
                let case = format!("{spelling} at a host of {name}");
                budget_refusal(&request.send_to(&start(least - 1).await).await);
                let gateway = start(least).await;
                assert_eq!(request.send_to(&gateway).await.status, 200, "{case}");
                let body = provider.journal().only().request.json();
                assert_eq!(body[name].as_f64(), Some(read[place] as f64), "{case}: {body}");
                assert_eq!(body[NAMES[1 - place]], Value::Null, "{case}: {body}");
                assert_eq!(spent(&gateway, "one", 1).await, price(30, read[place] as i64), "{case}");
                assert_eq!(gateway.metric("tierway_answers_beyond_hold_total"), 0.0, "{case}");
            }
        }
    }
}

/// Servers write, and count, as many choices as `best_of` says, also for chat.
#[tokio::test]
async fn every_choice_that_is_written_is_held_for() {
    let provider = ScriptedProvider::start("p").await;
    for (members, answers) in [(r#""best_of":20"#, 20), (r#""best_of":2,"n":3"#, 3), (r#""best_of":null"#, 1)] {
        let request = TestRequest::chat("small").with_member(members);
        let least = worst_case(&request) + (answers - 1) * CEILING * OUTPUT;
        let start =
            async |limit: i64| TestGateway::start(&priced_config(&[("p", &provider)], &budget(limit), "")).await;
        budget_refusal(&request.send_to(&start(least - 1).await).await);
        assert_eq!(request.send_to(&start(least).await).await.status, 200, "{members}");
    }
}

#[tokio::test]
async fn where_no_money_is_held_a_body_is_sent_as_it_came() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(knows_only("max_completion_tokens"));
    let config = with_name(&priced_config(&[("p", &provider)], "", ""), "max_completion_tokens");
    let gateway = TestGateway::start(&config).await;
    for member in [r#""max_tokens":7"#, r#""max_tokens":0,"max_completion_tokens":5000"#, r#""x":1"#] {
        provider.clear();
        let request = TestRequest::chat("small").with_member(member);
        assert_eq!(request.send_to(&gateway).await.status, 200, "{member}");
        assert_eq!(provider.journal().only().request.body, request.body());
    }
}

/// A host that does not know the name is asked again by the other, once, and remembered: its client wrote the right one.
#[tokio::test]
async fn a_host_that_refuses_our_name_of_the_ceiling_gets_it_by_the_other() {
    let provider = ScriptedProvider::start("p").await;
    for (name, other, said) in [
        (
            "max_tokens",
            "max_completion_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        ("max_completion_tokens", "max_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
    ] {
        provider.answers(Script::by(move |request: &Request| match request.json()[name] {
            Value::Null => chat(answer_using(30, request.json()[other].as_u64().unwrap_or(UNLIMITED))),
            _ => Script::status(400).json(&json!({"error": {"message": said}})),
        }));
        let config = priced_config(&[("p", &provider)], &budget(1_000_000_000), "");
        let gateway = TestGateway::start(&with_name(&config, name)).await;
        for (receipts, (member, exchanges, read)) in (1..).zip([
            (format!("\"{other}\":7"), 2, 7),
            (format!("\"{other}\":9"), 1, 9),
            ("\"x\":1".to_owned(), 1, CEILING),
        ]) {
            provider.clear();
            let answer = TestRequest::chat("small").with_member(&member).send_to(&gateway).await;
            assert_eq!((answer.status, answer.attempts(), provider.attempts()), (200, 1, exchanges), "{member}");
            let receipt = gateway.receipts(receipts).await[receipts as usize - 1].clone();
            assert_eq!(receipt.cost.0, price(30, read), "{member}");
        }
        // Where it is the client's own word, or about something else, the host has the last one.
        let gateway = TestGateway::start(&with_name(&config, name)).await;
        provider.clear();
        assert_eq!(
            TestRequest::chat("small").with_member(&format!("\"{name}\":7")).send_to(&gateway).await.status,
            400
        );
        assert_eq!(provider.attempts(), 1);
    }
}

/// Hosts refuse a ceiling beside so much input that both are more than the context: none is written then, and the
/// context is held.
#[tokio::test]
async fn beside_a_long_input_the_context_is_held_and_no_ceiling_written() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(3_000, 1_000)));
    let text = "x".repeat(8_000);
    let body = format!(r#"{{"model":"small","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let request = TestRequest::new("/v1/chat/completions", body);
    let limit = 4_096 * (INPUT + OUTPUT);
    let config = |limit: i64| priced_config(&[("p", &provider)], &budget(limit), "");
    budget_refusal(&request.send_to(&TestGateway::start(&config(limit - 1)).await).await);
    let gateway = TestGateway::start(&config(limit)).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(provider.journal().only().request.body, request.body());
    assert_eq!(spent(&gateway, "one", 1).await, price(3_000, 1_000));
}

/// Keys `one` and `other` of teams of their own, `third` of `one`'s, `free` without a budget.
fn pausing_config(providers: &[(&str, &ScriptedProvider)], more: &str) -> String {
    let config = priced_config(providers, &budget(1_000_000_000), "[policies.free]\nmodels = [\"*\"]\n");
    let (before, after) = config.rsplit_once("team   = \"growth\"").expect("two keys have it");
    let hash = |secret: &str| KeyHash::of(secret).0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = |name: &str, policy: &str, team: &str| {
        format!(
            "[[keys]]\nname = \"{name}\"\npolicy = \"{policy}\"\nteam = \"{team}\"\nhash = \"sha256:{}\"\n",
            hash(name)
        )
    };
    format!(
        "{before}team   = \"search\"{after}\n{}{}{}[server]\nviewer_token = \"env:VIEWER_TOKEN\"\n{more}",
        key("third", "paying", "growth"),
        key("fourth", "paying", "ads"),
        key("free", "free", "ads"),
    )
}

async fn status_of(gateway: &TestGateway, key: &str) -> (u16, String) {
    let request = TestRequest::chat("small").header("x-tierway-no-fallback", "true");
    let request = if key == "one" { request } else { request.with_key(key) };
    let answer = request.send_to(gateway).await;
    if answer.status == 200 { (200, answer.deployment().to_owned()) } else { answer.refusal() }
}

async fn resume(gateway: &TestGateway, token: &str, deployment: &str) -> (u16, Value) {
    let mut client = gateway.connect().await;
    let path = format!("/admin/v1/deployments/{deployment}/resume");
    client.post(&path, &[("authorization", &format!("Bearer {token}"))], "").await;
    let answer = client.response().await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn an_answer_beyond_its_hold_pauses_its_key_there_and_a_second_teams_all_budgets() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(4_000, 10_000)));
    let gateway = TestGateway::start(&pausing_config(&[("p", &provider)], "")).await;
    let served = (200, "p/small".to_owned());
    let paused = (503, "budget_paused".to_owned());
    let mut receipts = 0;
    let mut check = async |key: &str, expected: &(u16, String)| {
        assert_eq!(status_of(&gateway, key).await, *expected, "{key}");
        receipts += 1;
        gateway.receipts(receipts).await;
    };
    let pause = || {
        gateway.relay.publish_states();
        gateway.metric("tierway_deployment_budget_pause{deployment=\"p/small\"}")
    };
    check("one", &served).await;
    check("one", &paused).await;
    assert_eq!(pause(), 1.0);
    // A second key of the team: then the team, and nobody else.
    check("third", &served).await;
    check("third", &paused).await;
    assert_eq!(pause(), 1.0);
    check(OTHER_KEY, &served).await;
    for key in ["one", "third", OTHER_KEY, "fourth"] {
        check(key, &paused).await;
    }
    check("free", &served).await;
    assert_eq!((pause(), provider.attempts()), (2.0, 4));
    assert_eq!(gateway.metric("tierway_answers_beyond_hold_total"), 3.0);
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert!(answer.retry_after() > Duration::from_secs(3_500), "{answer:?}");
    assert!(!answer.text().contains("p/small"), "{answer:?}");

    // It is stated, and an operator ends it.
    assert_eq!(resume(&gateway, VIEWER_TOKEN, "p%2Fsmall").await.0, 403);
    assert_eq!(resume(&gateway, ADMIN_TOKEN, "p%2Flarge").await.0, 404);
    let mut client = gateway.connect().await;
    client.get("/admin/v1/status", &[("authorization", &format!("Bearer {VIEWER_TOKEN}"))]).await;
    let status = client.response().await.json();
    let stated = &status["deployments"][0]["budget_pause"];
    assert_eq!((&stated["scope"], &stated["keys"]), (&json!("all"), &json!(["one", "third", "other"])), "{status}");
    assert_eq!(status["flows"], false);
    let (code, status) = resume(&gateway, ADMIN_TOKEN, "p%2Fsmall").await;
    assert_eq!((code, &status["flows"], &status["deployments"][0]["budget_pause"]), (200, &json!(true), &Value::Null));
    assert_eq!(pause(), 0.0);
    provider.answers(chat(answer_using(30, 10)));
    assert_eq!(status_of(&gateway, "fourth").await, served);
}

#[tokio::test]
async fn what_is_paused_at_one_deployment_is_served_by_another_and_ends_by_time() {
    let (liar, honest) = (ScriptedProvider::start("p").await, ScriptedProvider::start("q").await);
    liar.answers(chat(answer_using(4_000, 10_000)));
    honest.answers(chat(answer_using(30, 10)));
    let providers = [("p", &liar), ("q", &honest)];
    let short = pausing_config(&providers, "").replace("[routing]\n", "[routing]\nbeyond_hold_pause = \"300ms\"\n");
    let gateway = TestGateway::start(&short).await;
    assert_eq!(status_of(&gateway, "one").await.1, "p/small");
    gateway.receipts(1).await;
    assert_eq!(status_of(&gateway, "one").await.1, "q/small");
    assert_eq!(status_of(&gateway, "free").await.1, "p/small");
    soon("the pause to end", async { while status_of(&gateway, "one").await.1 != "p/small" {} }).await;

    let never = short.replace("\"300ms\"", "\"0s\"");
    let gateway = TestGateway::start(&never).await;
    for receipts in 1..4 {
        assert_eq!(status_of(&gateway, "one").await.1, "p/small");
        gateway.receipts(receipts).await;
    }
}

/// The budget's text is the more useful one where nothing is left of it.
#[tokio::test]
async fn an_empty_budget_is_said_before_a_pause() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(4_000, 10_000)));
    let request = TestRequest::chat("small");
    let config = priced_config(&[("p", &provider)], &budget(worst_case(&request)), "");
    let gateway = TestGateway::start(&config).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 1).await, price(4_000, 10_000));
    budget_refusal(&request.send_to(&gateway).await);
}

#[tokio::test]
async fn a_reply_without_success_is_never_paid_for() {
    let page = |status| Script::status(status).header("content-type", "text/html").body("<html>No</html>");
    let elsewhere = |status| Script::status(status).header("location", "http://127.0.0.1:9/");
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let redirects = [301, 302, 303, 307, 308].map(elsewhere);
    let pages = [300, 304, 403, 404, 500].map(page);
    for script in redirects.into_iter().chain(pages).chain([Script::wire(upgrade)]) {
        let provider = ScriptedProvider::start("p").await;
        provider.answers(script);
        let request = TestRequest::chat("small");
        let config = priced_config(&[("p", &provider)], &budget(worst_case(&request)), "");
        let gateway = TestGateway::start(&config).await;
        assert_ne!(request.send_to(&gateway).await.status, 200);
        let receipt = gateway.receipts(1).await[0].clone();
        assert_eq!((receipt.cost, receipt.attempts.is_empty()), (NanoUsd::ZERO, false), "{receipt:?}");
        assert_eq!(spent(&gateway, "one", 1).await, 0);
    }
}

/// `priced_config` of one provider that is left like this.
fn abandoned_config(provider: &ScriptedProvider, limit: i64, on_abandon: &str) -> String {
    let config = priced_config(&[("p", provider)], &format!("{}\nmax_concurrent = 1", budget(limit)), "");
    config.replace("[providers.p]\n", &format!("[providers.p]\non_abandon = \"{on_abandon}\"\n"))
}

/// Reads `frames` frames of the answer to `request`, and leaves.
async fn disconnect_after(gateway: &TestGateway, request: &TestRequest, frames: usize) {
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    client.head().await;
    let mut read = 0;
    while read < frames {
        let Piece::Data(data) = client.piece().await else { panic!("the stream continues") };
        read += data.windows(2).filter(|pair| pair == b"\n\n").count();
    }
}

/// Waits until no client is left.
async fn until_left(gateway: &TestGateway) {
    let left = async {
        while gateway.metric("tierway_in_flight") > 0.0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon("the gateway to see that its client left", left).await;
}

fn ten_tokens() -> ChatAnswer {
    let usage = Usage { prompt: 30, completion: 10, ..Usage::default() };
    ChatAnswer { text: "0123456789".to_owned(), frames: 10, usage, ..ChatAnswer::default() }
}

#[tokio::test]
async fn what_is_left_at_a_provider_that_goes_on_is_charged_in_full() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let request = TestRequest::stream("small");
    let gateway = TestGateway::start(&abandoned_config(&provider, worst_case(&request), "charge_hold")).await;
    provider.answers(chat(ten_tokens()).wait_after_frame(5, &gate));
    disconnect_after(&gateway, &request, 5).await;
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!((receipt.outcome, receipt.estimated), (Outcome::Abandoned, true));
    assert_eq!((receipt.cost.0, spent(&gateway, "one", 1).await), (worst_case(&request), worst_case(&request)));
}

#[tokio::test]
async fn an_answer_that_is_read_on_keeps_its_slot_and_hold_and_costs_what_was_counted() {
    let provider = ScriptedProvider::start("p").await;
    for request in [TestRequest::stream("small"), TestRequest::chat("small")] {
        let (gate, limit) = (Gate::new(), 3 * worst_case(&request));
        let gateway = TestGateway::start(&abandoned_config(&provider, limit, "read_on")).await;
        provider.clear();
        if request.body().contains("stream") {
            provider.answers(chat(ten_tokens()).wait_after_frame(5, &gate));
            disconnect_after(&gateway, &request, 5).await;
        } else {
            provider.answers(chat(ten_tokens()).wait_before_headers(&gate));
            let mut client = gateway.connect().await;
            request.send(&mut client).await;
            gate.reached(1).await;
            drop(client);
        }
        until_left(&gateway).await;
        // The provider is not left, and everything is kept meanwhile.
        assert_eq!(gateway.relay.budgets()[0].held, NanoUsd(worst_case(&request)));
        assert_eq!(request.send_to(&gateway).await.refusal(), (429, "rate_limit_exceeded".into()));
        assert_eq!(provider.journal().open(), 1);
        gate.open();
        let receipts = gateway.receipts(2).await;
        let receipt = receipts.iter().find(|receipt| receipt.outcome == Outcome::Abandoned).expect("the client left");
        assert_eq!((receipt.cost.0, receipt.estimated, receipt.status), (price(30, 10), false, 499), "{receipt:?}");
        assert_eq!(spent(&gateway, "one", 2).await, price(30, 10));
        provider.answers(chat(ten_tokens()));
        assert_eq!(request.send_to(&gateway).await.status, 200, "the slot is free again");
    }
}

/// The request's own time, or the gateway's end: then all that is held is charged.
#[tokio::test]
async fn what_is_read_on_is_bounded_and_then_charged_in_full() {
    let provider = ScriptedProvider::start("p").await;
    for (total, request, stops) in [
        ("600ms", TestRequest::stream("small"), false),
        ("600ms", TestRequest::chat("small"), false),
        ("10m", TestRequest::stream("small"), true),
        ("10m", TestRequest::chat("small"), true),
    ] {
        let gate = Gate::new();
        provider.clear();
        let config = abandoned_config(&provider, worst_case(&request), "read_on");
        let config = config.replace("[routing]\n", &format!("[routing]\ntotal = \"{total}\"\nsilent_after = \"5s\"\n"));
        let gateway = TestGateway::start(&config).await;
        let streams = request.body().contains("stream");
        let script = chat(ten_tokens());
        let waits = if streams { script.wait_after_frame(5, &gate) } else { script.wait_before_headers(&gate) };
        provider.answers(waits);
        if streams {
            disconnect_after(&gateway, &request, 5).await;
        } else {
            let mut client = gateway.connect().await;
            request.send(&mut client).await;
            gate.reached(1).await;
            drop(client);
        }
        until_left(&gateway).await;
        if stops {
            soon("what is read on to end", gateway.relay.close_budget_pool()).await;
        }
        let receipt = gateway.receipts(1).await[0].clone();
        assert_eq!((receipt.outcome, receipt.estimated), (Outcome::Abandoned, true), "{total}, {receipt:?}");
        assert_eq!(receipt.cost.0, worst_case(&request), "{total}, {receipt:?}");
    }
}

/// After its client left, a request makes no further attempt.
#[tokio::test]
async fn nothing_new_is_begun_for_a_client_that_left() {
    let (provider, other) = (ScriptedProvider::start("p").await, ScriptedProvider::start("q").await);
    let (gate, request) = (Gate::new(), TestRequest::chat("small"));
    let config = priced_config(&[("p", &provider), ("q", &other)], &budget(3 * worst_case(&request)), "");
    let config = config.replace("[providers.p]\n", "[providers.p]\non_abandon = \"read_on\"\n");
    let gateway = TestGateway::start(&config.replace("[routing]\n", "[routing]\nsilent_after = \"10s\"\n")).await;
    provider.answers(Script::status(503).wait_before_headers(&gate));
    other.answers(chat_stream("Hello", 2));
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    gate.reached(1).await;
    drop(client);
    until_left(&gateway).await;
    gate.open();
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!(
        (receipt.outcome, receipt.cost, other.attempts()),
        (Outcome::Abandoned, NanoUsd::ZERO, 0),
        "{receipt:?}"
    );
}
