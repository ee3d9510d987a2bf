//! Budgets over real sockets: what the provider's journal says, times the price, never passes a limit.
//!
//! The oracle is the provider: what it was asked and what it wrote. How leases and windows behave is proven
//! in `tests/lease_store_contract.rs`; here it is the whole path, from the refusal's words to the receipt.

use crate::support::client::Response;
use crate::support::gateway::{KEY, OTHER_KEY, reached};
use crate::support::journal::{Exchange, Request};
use crate::support::{
    Ask, Chat, Client, Crowd, Ending, Gate, Piece, Script, ScriptedProvider, TestGateway, Usage, chat, chat_stream,
};
use serde_json::json;
use std::sync::Arc;
use tierway::domain::money::NanoUsd;
use tierway::domain::receipt::{Outcome, Reason, Receipt};
use tokio::task::JoinSet;

/// Nano-dollars for a token in and a token out, as [`house`] prices them.
pub(crate) const INPUT: i64 = 1_000;
pub(crate) const OUTPUT: i64 = 2_000;
/// Output tokens of an answer, at most.
pub(crate) const CEILING: i64 = 100;
/// What a template may add to a body, in tokens.
const TEMPLATE: i64 = 256;

/// One model at each of `providers`, in their order, and two keys of one team under `policy`.
pub(crate) fn house(providers: &[(&str, &ScriptedProvider)], policy: &str, more: &str) -> String {
    let reach: String = providers.iter().map(|(name, provider)| reached(name, provider, name)).collect();
    let deployments: Vec<String> = providers.iter().map(|(name, _)| format!("{{ provider = \"{name}\" }}")).collect();
    format!(
        r#"{reach}
        [routing]
        balance = "ordered"
        [models.small]
        price       = {{ input = "1", output = "2" }}
        context     = 4096
        max_output  = {CEILING}
        first_token = "5s"
        deployments = [{}]
        [policies.paying]
        models = ["*"]
        {policy}
        {more}
        [[keys]]
        name   = "one"
        policy = "paying"
        team   = "growth"
        secret = "env:TEST_KEY"
        [[keys]]
        name   = "other"
        policy = "paying"
        team   = "growth"
        secret = "env:OTHER_KEY"
        "#,
        deployments.join(", ")
    )
}

/// `budget = …` of so many nano-dollars.
pub(crate) fn budget(limit: i64) -> String {
    format!("budget = {{ limit = \"{}\", window = \"month\" }}", NanoUsd(limit))
}

/// What `ask` may cost at most.
pub(crate) fn worst(ask: &Ask) -> i64 {
    worst_with(ask, CEILING)
}

fn worst_with(ask: &Ask, ceiling: i64) -> i64 {
    (ask.body().len() as i64 + TEMPLATE) * INPUT + ceiling * OUTPUT
}

pub(crate) fn using(prompt: u64, completion: u64) -> Chat {
    Chat { usage: Usage { prompt, completion, ..Usage::default() }, ..Chat::default() }
}

pub(crate) const fn price(prompt: i64, completion: i64) -> i64 {
    prompt * INPUT + completion * OUTPUT
}

/// What all receipts together cost, and what their budgets were charged; both must be the same.
pub(crate) fn booked(receipts: &[Arc<Receipt>]) -> i64 {
    for receipt in receipts {
        for charge in &receipt.charges {
            assert!(charge.spent <= receipt.cost && charge.leased <= charge.spent, "{receipt:?}");
        }
    }
    receipts.iter().map(|receipt| receipt.cost.0).sum()
}

/// Waits for so many receipts, and for what they held to be back: what is spent of the budget of `name`.
pub(crate) async fn spent(gateway: &TestGateway, name: &str, receipts: u64) -> i64 {
    gateway.receipts(receipts).await;
    let budgets = gateway.relay.budgets();
    let status = budgets.iter().find(|status| &*status.account.name == name);
    let status = status.unwrap_or_else(|| panic!("no budget of {name}: {budgets:?}"));
    assert_eq!(status.held, NanoUsd::ZERO, "nothing stays held");
    status.spent.0
}

pub(crate) fn refused(answer: &Response) -> String {
    assert_eq!(answer.refusal(), (429, "insufficient_quota".into()));
    assert_eq!(answer.json()["error"]["type"], "insufficient_quota");
    answer.expect_no_retry();
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn of_many_at_once_exactly_as_many_as_the_budget_holds_are_sent() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let ask = Ask::chat("small");
    let limit = 10 * worst(&ask);
    let gateway = TestGateway::start(&house(&[("p", &provider)], &budget(limit), "")).await;
    provider.answers(chat(using(30, 10)).wait_before_headers(&gate));
    let mut rush = JoinSet::new();
    for _ in 0..40 {
        let (ask, addr) = (ask.clone(), gateway.addr);
        rush.spawn(async move {
            let mut client = Client::connect(addr).await;
            ask.send(&mut client).await;
            client.response().await
        });
    }
    gate.reached(10).await;
    gateway.receipts(30).await;
    gate.open();
    let (served, turned): (Vec<_>, Vec<_>) = rush.join_all().await.into_iter().partition(|one| one.status == 200);
    assert_eq!((served.len(), turned.len(), provider.attempts()), (10, 30, 10));
    for answer in &turned {
        let said = refused(answer);
        assert!(said.starts_with("The budget of this key has 0 USD left of "), "{said}");
        assert!(said.contains("-01T00:00:00.000Z"), "{said}");
        assert_eq!(answer.attempts(), 0);
    }
    for answer in &served {
        assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(price(30, 10)).to_string().as_str()));
    }
    assert_eq!(spent(&gateway, "one", 40).await, 10 * price(30, 10));
    assert_eq!(booked(&gateway.receipts(40).await), 10 * price(30, 10));
    // What was held and not spent came back, and another key's budget was never touched.
    assert_eq!(ask.at(&gateway).await.status, 200);
    assert_eq!(ask.clone().by(OTHER_KEY).at(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "other", 42).await, price(30, 10));
}

/// What the provider of [`a_budget_holds_whatever_goes_wrong`] does with a request: by its number.
fn anything(request: &Request) -> Script {
    let answer = Chat { text: "0123456789".into(), frames: 10, ..using(30, 10) };
    let streams = request.streams();
    match request.number % 7 {
        0 => Script::status(503).json(&json!({"error": {"message": "busy"}})),
        1 if streams => chat(answer).cut_after_frame(4, Ending::Rst),
        2 if streams => chat(answer).cut_after_frame(0, Ending::Fin),
        1 | 2 => Script::status(200).json(&json!({"choices": [{"message": {"content": "no usage"}}]})),
        3 if streams => chat_stream("0123456789", 10).cut_after_frame(7, Ending::Clean),
        4 => Script::status(200).header("content-type", "text/html").body("<html>"),
        _ => chat(answer),
    }
}

/// What that provider may bill for it: nothing for an error, else the prompt and what it wrote.
fn bill(exchange: &Exchange) -> i64 {
    let streams = exchange.request.streams();
    match exchange.request.number % 7 {
        0 => 0,
        1 if streams => price(30, 3),
        2 if streams => price(30, 0),
        3 if streams => price(30, 6),
        _ => price(30, 10),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_holds_whatever_goes_wrong() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::by(anything));
    second.answers(Script::by(anything));
    let limit = 60 * worst(&Ask::chat("small"));
    let breaker =
        "[routing]\nbalance = \"ordered\"\nretry_budget = \"100%\"\nbreaker = { failures = 100000, ratio = \"0.01%\" }";
    let config = house(&[("a", &first), ("b", &second)], &budget(limit), "")
        .replace("[routing]\n        balance = \"ordered\"", breaker);
    let gateway = TestGateway::start(&config).await;
    let asks = 600;
    let make = |number: usize| if number.is_multiple_of(2) { Ask::chat("small") } else { Ask::stream("small") };
    let answers = Crowd::of(24, &gateway).ask(asks, make).await;
    let receipts = gateway.receipts(asks as u64).await;
    let refusals = answers.iter().filter(|answer| answer.status == 429).count();
    let exchanges = [first.at_rest().await, second.at_rest().await].map(|journal| journal.exchanges).concat();
    let billed: i64 = exchanges.iter().map(bill).sum();
    let spent = spent(&gateway, "one", asks as u64).await;
    println!("{} exchanges, {refusals} refusals, {billed} billed, {spent} of {limit} booked", exchanges.len());
    assert!(billed <= spent && spent <= limit, "{billed} billed, {spent} of {limit} booked");
    assert_eq!(booked(&receipts), spent, "ledger and budget agree");
    assert!(refusals > 0 && exchanges.len() > 100, "the budget ran dry");
    for receipt in receipts.iter().filter(|receipt| !receipt.estimated && receipt.attempts.len() == 1) {
        let whole = receipt.outcome == Outcome::Served;
        assert_eq!(receipt.cost.0, if whole { price(30, 10) } else { 0 }, "{receipt:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_was_sent_and_not_answered_is_charged_and_the_next_holds_anew() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::status(200).header("content-type", "text/html").body("<html>"));
    second.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    let providers = [("a", &first), ("b", &second)];
    let gateway = TestGateway::start(&house(&providers, &budget(3 * worst(&ask) - 1), "")).await;
    let answer = ask.at(&gateway).await;
    assert_eq!((answer.said().as_deref(), answer.attempts()), (Ok("Hello"), 2));
    let cost = worst(&ask) + price(30, 10);
    assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(cost).to_string().as_str()));
    assert_eq!(spent(&gateway, "one", 1).await, cost);
    assert!(gateway.receipts(1).await[0].estimated);
    // The first attempt still fits; the second would not any more.
    let answer = ask.at(&gateway).await;
    refused(&answer);
    assert_eq!((first.attempts(), second.attempts()), (2, 1));
    let receipt = gateway.receipts(2).await[1].clone();
    assert_eq!((receipt.cost.0, receipt.attempts.len(), receipt.reason), (worst(&ask), 1, Reason::InsufficientQuota));
    assert_eq!(spent(&gateway, "one", 2).await, cost + worst(&ask));
}

#[tokio::test]
async fn a_hold_taken_for_a_cheap_attempt_covers_no_dearer_one() {
    let [unread, cheap, dear] =
        [ScriptedProvider::start("a").await, ScriptedProvider::start("b").await, ScriptedProvider::start("c").await];
    unread.answers(Script::status(200).header("content-type", "text/html").body("<html>"));
    cheap.answers(Script::status(503));
    dear.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    // The dear one costs ten times as much. After the first attempt was charged there is a nano-dollar too little.
    let limit = 11 * worst(&ask) - 1;
    let config = house(&[("a", &unread), ("b", &cheap), ("c", &dear)], &budget(limit), "")
        .replace("{ provider = \"c\" }", "{ provider = \"c\", price = { input = \"10\", output = \"20\" } }");
    let gateway = TestGateway::start(&config).await;
    refused(&ask.at(&gateway).await);
    assert_eq!([&unread, &cheap, &dear].map(ScriptedProvider::attempts), [1, 1, 0]);
    assert_eq!(spent(&gateway, "one", 1).await, worst(&ask));
    // With it, it is served.
    gateway.reload(&config.replace(&budget(limit), &budget(limit + 1 + worst(&ask))));
    assert_eq!(ask.at(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 2).await, 2 * worst(&ask) + 10 * price(30, 10));
}

#[tokio::test]
async fn an_error_costs_nothing_and_its_hold_serves_the_next_attempt() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::status(503));
    second.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    let providers = [("a", &first), ("b", &second)];
    let gateway = TestGateway::start(&house(&providers, &budget(worst(&ask)), "")).await;
    assert_eq!(ask.at(&gateway).await.attempts(), 2);
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_was_given() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let ask = Ask::stream("small");
    let gateway = TestGateway::start(&house(&[("p", &provider)], &budget(worst(&ask)), "")).await;
    // After a role frame and four of content.
    provider.answers(chat_stream("0123456789", 10).wait_after_frame(5, &gate));
    let mut client = gateway.connect().await;
    ask.send(&mut client).await;
    client.head().await;
    let mut frames = 0;
    while frames < 5 {
        let Piece::Data(data) = client.piece().await else { panic!("the stream goes on") };
        frames += data.windows(2).filter(|pair| pair == b"\n\n").count();
    }
    drop(client);
    let receipts = gateway.receipts(1).await;
    let receipt = &receipts[0];
    assert_eq!((receipt.outcome, receipt.estimated), (Outcome::Abandoned, true));
    assert_eq!(receipt.cost.0, (ask.body().len() as i64 + TEMPLATE) * INPUT + 4 * OUTPUT);
    assert_eq!(spent(&gateway, "one", 1).await, receipt.cost.0);

    // Before the first token nothing is known: all that was held.
    let config = house(&[("p", &provider)], &budget(3 * worst(&ask)), "");
    gateway.reload(&config);
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 2).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    ask.send(&mut client).await;
    gate.reached(1).await;
    drop(client);
    assert_eq!(gateway.receipts(2).await[1].cost.0, worst(&ask));
}

#[tokio::test]
async fn an_answer_without_usage_is_never_free() {
    let provider = ScriptedProvider::start("p").await;
    let ask = Ask::chat("small");
    let gateway = TestGateway::start(&house(&[("p", &provider)], &budget(10 * worst(&ask)), "")).await;
    let body = json!({"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]});
    provider.answers(Script::status(200).json(&body));
    let answer = ask.at(&gateway).await;
    // Nothing is known of this model yet: a token is a byte of what it says.
    let cost = (ask.body().len() as i64 + TEMPLATE) * INPUT + 5 * OUTPUT;
    assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(cost).to_string().as_str()));
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!((receipt.cost.0, receipt.estimated), (cost, true));
    assert_eq!(spent(&gateway, "one", 1).await, cost);
}

#[tokio::test]
async fn a_provider_that_serves_more_than_was_asked_is_paid_alarmed_and_stopped() {
    let provider = ScriptedProvider::start("p").await;
    let ask = Ask::stream("small");
    let limit = 3 * worst(&ask);
    let gateway = TestGateway::start(&house(&[("p", &provider)], &budget(limit), "")).await;
    provider.answers(chat(using(4_000, 10_000)));
    assert_eq!(ask.at(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 1).await, price(4_000, 10_000));
    assert_eq!(gateway.metric("tierway_answers_beyond_hold_total"), 1.0);
    let said = refused(&ask.at(&gateway).await);
    assert!(said.contains(" has 0 USD left of "), "{said}");
    assert_eq!(provider.attempts(), 1);
    // Until an operator acts.
    gateway.reload(&house(&[("p", &provider)], &budget(price(4_000, 10_000) + worst(&ask)), ""));
    provider.answers(chat(using(30, 10)));
    assert_eq!(ask.at(&gateway).await.status, 200);
}

/// Prices are long past and far ahead here: when each begins is proven in `domain::pricing`.
#[tokio::test]
async fn a_request_is_held_and_charged_at_the_price_in_force_and_its_receipt_names_it() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    let plain = "price       = { input = \"1\", output = \"2\" }";
    let check = async |prices: &str, version: &str, cost: i64, worst: i64| {
        let house = house(&[("p", &provider)], &budget(worst), "");
        let gateway = TestGateway::start(&house.replace(plain, prices)).await;
        assert_eq!(ask.at(&gateway).await.status, 200);
        let receipt = gateway.receipts(1).await[0].clone();
        assert_eq!((receipt.cost.0, receipt.price_version.as_deref()), (cost, Some(version)));
        let gateway =
            TestGateway::start(&house.replace(plain, prices).replace(&budget(worst), &budget(worst - 1))).await;
        refused(&ask.at(&gateway).await);
        assert_eq!(gateway.receipts(1).await[0].price_version, None);
    };
    let (one, two) = (price(30, 10), worst(&ask));
    check(plain, "1/2", one, two).await;
    let later = "{ from = \"2020-01-01\", input = \"2\", output = \"4\", version = \"new\" }, \
                 { from = 2999-01-01, input = \"90\", output = \"90\" }";
    check(&format!("price = [{{ input = \"1\", output = \"2\" }}, {later}]"), "new", 2 * one, 2 * two).await;
}

#[tokio::test]
async fn a_request_keeps_its_price_when_another_is_configured() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let ask = Ask::chat("small");
    let config = house(&[("p", &provider)], &budget(3 * worst(&ask)), "");
    let gateway = TestGateway::start(&config).await;
    provider.answers(chat(using(30, 10)).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    ask.send(&mut client).await;
    gate.reached(1).await;
    gateway.reload(&config.replace("input = \"1\"", "input = \"3\""));
    gate.open();
    assert_eq!(client.response().await.status, 200);
    provider.answers(chat(using(30, 10)));
    assert_eq!(ask.at(&gateway).await.status, 200);
    let receipts = gateway.receipts(2).await;
    let charged = receipts.iter().map(|receipt| (receipt.cost.0, receipt.price_version.as_deref()));
    let dearer = price(30, 10) + 2 * 30 * INPUT;
    assert_eq!(charged.collect::<Vec<_>>(), [(price(30, 10), Some("1/2")), (dearer, Some("3/2"))]);
}

#[tokio::test]
async fn an_answer_is_shortened_to_what_is_left_where_the_policy_says_so() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(using(30, 10)));
    let check = async |ask: Ask, room: i64, sent: serde_json::Value| {
        provider.clear();
        let limit = worst_with(&ask, room);
        let policy = format!("{}\nclamp = true", budget(limit));
        let gateway = TestGateway::start(&house(&[("p", &provider)], &policy, "")).await;
        let answer = ask.at(&gateway).await;
        assert_eq!(answer.header("x-tierway-clamped"), Some(format!("max_tokens={room}").as_str()), "{ask:?}");
        let journal = provider.journal();
        let body = journal.only().request.json();
        let ceilings = json!([body["max_tokens"], body["max_completion_tokens"]]);
        assert_eq!(ceilings, sent, "{ask:?}");
        let mut as_it_came: serde_json::Value = serde_json::from_str(ask.body()).expect("JSON");
        let mut as_it_went = body;
        for name in ["max_tokens", "max_completion_tokens", "stream_options"] {
            as_it_came.as_object_mut().expect("an object").remove(name);
            as_it_went.as_object_mut().expect("an object").remove(name);
        }
        assert_eq!(as_it_came, as_it_went, "nothing else changed");
        assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));
    };
    check(Ask::chat("small"), 17, json!([17, null])).await;
    check(Ask::stream("small"), 1, json!([1, null])).await;
    check(Ask::chat("small").with(r#""max_tokens":90"#), 50, json!([50, null])).await;
    check(Ask::chat("small").with(r#""max_completion_tokens" : 90"#), 50, json!([null, 50])).await;
    check(Ask::stream("small").with(r#""max_tokens":5,"max_completion_tokens":90"#), 50, json!([5, 50])).await;
    check(Ask::chat("small").with(r#""max_tokens":null"#), 50, json!([50, null])).await;

    // Not where even one token is too much, nor where the policy does not say so.
    provider.clear();
    let ask = Ask::chat("small");
    for policy in [format!("{}\nclamp = true", budget(worst_with(&ask, 1) - 1)), budget(worst_with(&ask, 50))] {
        let gateway = TestGateway::start(&house(&[("p", &provider)], &policy, "")).await;
        refused(&ask.at(&gateway).await);
    }
    assert_eq!(provider.attempts(), 0);
    // What fits is sent as it came.
    let policy = format!("{}\nclamp = true", budget(worst(&ask)));
    let gateway = TestGateway::start(&house(&[("p", &provider)], &policy, "")).await;
    assert_eq!(ask.at(&gateway).await.header("x-tierway-clamped"), None);
    assert_eq!(provider.journal().only().request.body, ask.body());
}

#[tokio::test]
async fn a_team_and_a_policy_share_one_budget_over_their_keys() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    let limit = worst(&ask) + price(30, 10);
    let shared = [
        (format!("[teams.growth]\n{}", budget(limit)), "growth", "the team 'growth'"),
        (format!("[policies.paying.total]\n{}", budget(limit)), "paying", "the policy 'paying'"),
    ];
    for (more, name, whose) in shared {
        let gateway = TestGateway::start(&house(&[("p", &provider)], &budget(10 * limit), &more)).await;
        assert_eq!(ask.clone().by(KEY).at(&gateway).await.status, 200);
        gateway.receipts(1).await;
        assert_eq!(ask.clone().by(OTHER_KEY).at(&gateway).await.status, 200);
        gateway.receipts(2).await;
        let said = refused(&ask.clone().by(KEY).at(&gateway).await);
        assert!(said.starts_with(&format!("The budget of {whose} has ")), "{said}");
        assert_eq!(spent(&gateway, name, 3).await, 2 * price(30, 10));
        assert_eq!(spent(&gateway, "one", 3).await, price(30, 10), "a refusal holds nothing of the key's own");
        gateway.relay.publish_states();
        let scope = if name == "growth" { "team" } else { "policy" };
        let series = format!("{{name=\"{name}\",scope=\"{scope}\",window=\"month UTC\"}}");
        assert_eq!(gateway.metric(&format!("tierway_budget_spent_nanousd{series}")), 2.0 * price(30, 10) as f64);
        assert_eq!(gateway.metric(&format!("tierway_budget_limit_nanousd{series}")), limit as f64);
        assert_eq!(gateway.metric(&format!("tierway_budget_held_nanousd{series}")), 0.0);
    }
}

#[tokio::test]
async fn a_lower_limit_applies_at_once_and_what_was_spent_stays_spent() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(using(30, 10)));
    let ask = Ask::chat("small");
    let config = |limit| house(&[("p", &provider)], &budget(limit), "");
    let gateway = TestGateway::start(&config(100 * worst(&ask))).await;
    assert_eq!(ask.at(&gateway).await.status, 200);
    gateway.receipts(1).await;
    gateway.reload(&config(worst(&ask)));
    refused(&ask.at(&gateway).await);
    // A configuration without the budget, and back: nothing is forgotten.
    gateway.reload(&house(&[("p", &provider)], "", ""));
    assert!(gateway.relay.budgets().is_empty());
    assert_eq!(ask.at(&gateway).await.status, 200);
    gateway.reload(&config(worst(&ask)));
    refused(&ask.at(&gateway).await);
    gateway.reload(&config(worst(&ask) + price(30, 10)));
    assert_eq!(ask.at(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 5).await, 2 * price(30, 10), "what no budget paid for is nobody's");
}
