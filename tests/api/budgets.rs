//! Budgets over real sockets: the provider's journal, times the price, never exceeds a limit.
//!
//! The oracle is the provider: the requests it received and the tokens it wrote. Leases and windows are tested
//! in `tests/lease_store_contract.rs`; these tests cover the whole path, from the refusal's text to the receipt.

use crate::support::client::Response;
use crate::support::gateway::{KEY, OTHER_KEY, provider_table};
use crate::support::journal::{Exchange, Request};
use crate::support::{
    ChatAnswer, Client, Ending, Gate, Piece, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, Usage,
    chat, chat_stream,
};
use serde_json::json;
use std::sync::Arc;
use tierway::domain::money::NanoUsd;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{Outcome, Receipt};
use tokio::task::JoinSet;

/// Nano-dollars per input and output token in [`priced_config`].
pub(crate) const INPUT: i64 = 1_000;
pub(crate) const OUTPUT: i64 = 2_000;
/// Most output tokens of an answer.
pub(crate) const CEILING: i64 = 100;
/// Most tokens a chat template may add to a body.
const TEMPLATE: i64 = 256;

/// One model at each of `providers`, in their order, and two keys of one team under `policy`.
pub(crate) fn priced_config(providers: &[(&str, &ScriptedProvider)], policy: &str, more: &str) -> String {
    let provider_tables: String =
        providers.iter().map(|(name, provider)| provider_table(name, provider, name)).collect();
    let deployments: Vec<String> = providers.iter().map(|(name, _)| format!("{{ provider = \"{name}\" }}")).collect();
    format!(
        r#"{provider_tables}
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

/// `budget = …` with this limit in nano-dollars.
pub(crate) fn budget(limit: i64) -> String {
    format!("budget = {{ limit = \"{}\", window = \"month\" }}", NanoUsd(limit))
}

/// The most `request` may cost, in nano-dollars.
pub(crate) fn worst_case(request: &TestRequest) -> i64 {
    worst_case_with(request, CEILING)
}

fn worst_case_with(request: &TestRequest, ceiling: i64) -> i64 {
    (request.body().len() as i64 + TEMPLATE) * INPUT + ceiling * OUTPUT
}

pub(crate) fn answer_using(prompt: u64, completion: u64) -> ChatAnswer {
    ChatAnswer { usage: Usage { prompt, completion, ..Usage::default() }, ..ChatAnswer::default() }
}

pub(crate) const fn price(prompt: i64, completion: i64) -> i64 {
    prompt * INPUT + completion * OUTPUT
}

/// The cost of all receipts in nano-dollars; fails the test when a budget was charged more than a receipt's cost.
pub(crate) fn total_cost(receipts: &[Arc<Receipt>]) -> i64 {
    for receipt in receipts {
        for charge in &receipt.charges {
            assert!(charge.spent <= receipt.cost && charge.leased <= charge.spent, "{receipt:?}");
        }
    }
    receipts.iter().map(|receipt| receipt.cost.0).sum()
}

/// Waits for `receipts` receipts and returns what is spent of the budget of `name`; nothing may be held any more.
pub(crate) async fn spent(gateway: &TestGateway, name: &str, receipts: u64) -> i64 {
    gateway.receipts(receipts).await;
    let budgets = gateway.relay.budgets();
    let status = budgets.iter().find(|status| &*status.account.name == name);
    let status = status.unwrap_or_else(|| panic!("no budget of {name}: {budgets:?}"));
    assert_eq!(status.held, NanoUsd::ZERO, "nothing stays held");
    status.spent.0
}

pub(crate) fn budget_refusal(answer: &Response) -> String {
    assert_eq!(answer.refusal(), (429, "insufficient_quota".into()));
    assert_eq!(answer.json()["error"]["type"], "insufficient_quota");
    answer.assert_no_retry();
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn of_many_concurrent_requests_exactly_as_many_as_the_budget_covers_are_sent() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let request = TestRequest::chat("small");
    let limit = 10 * worst_case(&request);
    let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(limit), "")).await;
    provider.answers(chat(answer_using(30, 10)).wait_before_headers(&gate));
    let mut clients = JoinSet::new();
    for _ in 0..40 {
        let (request, addr) = (request.clone(), gateway.addr);
        clients.spawn(async move {
            let mut client = Client::connect(addr).await;
            request.send(&mut client).await;
            client.response().await
        });
    }
    gate.reached(10).await;
    gateway.receipts(30).await;
    gate.open();
    let (served, refused): (Vec<_>, Vec<_>) = clients.join_all().await.into_iter().partition(|one| one.status == 200);
    assert_eq!((served.len(), refused.len(), provider.attempts()), (10, 30, 10));
    for answer in &refused {
        let message = budget_refusal(answer);
        assert!(message.starts_with("The budget of this key has 0 USD left of "), "{message}");
        assert!(message.contains("-01T00:00:00.000Z"), "{message}");
        assert_eq!(answer.attempts(), 0);
    }
    for answer in &served {
        assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(price(30, 10)).to_string().as_str()));
    }
    assert_eq!(spent(&gateway, "one", 40).await, 10 * price(30, 10));
    assert_eq!(total_cost(&gateway.receipts(40).await), 10 * price(30, 10));
    // What was held and not spent was released, and another key's budget was never touched.
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(request.clone().with_key(OTHER_KEY).send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "other", 42).await, price(30, 10));
}

/// The answer of the provider in [`a_budget_holds_under_every_failure`], chosen by the request's number.
fn mixed_answer(request: &Request) -> Script {
    let answer = ChatAnswer { text: "0123456789".into(), frames: 10, ..answer_using(30, 10) };
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

/// What that provider may bill for an exchange: nothing for an error, else the prompt and the tokens it wrote.
fn billable(exchange: &Exchange) -> i64 {
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
async fn a_budget_holds_under_every_failure() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::by(mixed_answer));
    second.answers(Script::by(mixed_answer));
    let limit = 60 * worst_case(&TestRequest::chat("small"));
    let breaker =
        "[routing]\nbalance = \"ordered\"\nretry_budget = \"100%\"\nbreaker = { failures = 100000, ratio = \"0.01%\" }";
    let config = priced_config(&[("a", &first), ("b", &second)], &budget(limit), "")
        .replace("[routing]\n        balance = \"ordered\"", breaker);
    let gateway = TestGateway::start(&config).await;
    let count = 600;
    let make = |number: usize| {
        if number.is_multiple_of(2) { TestRequest::chat("small") } else { TestRequest::stream("small") }
    };
    let answers = TestClients::new(24, &gateway).send_all(count, make).await;
    let receipts = gateway.receipts(count as u64).await;
    let refusals = answers.iter().filter(|answer| answer.status == 429).count();
    let exchanges = [first.at_rest().await, second.at_rest().await].map(|journal| journal.exchanges).concat();
    let billed: i64 = exchanges.iter().map(billable).sum();
    let spent = spent(&gateway, "one", count as u64).await;
    println!("{} exchanges, {refusals} refusals, {billed} billed, {spent} of {limit} charged", exchanges.len());
    assert!(billed <= spent && spent <= limit, "{billed} billed, {spent} of {limit} charged");
    assert_eq!(total_cost(&receipts), spent, "ledger and budget agree");
    assert!(refusals > 0 && exchanges.len() > 100, "the budget was used up");
    for receipt in receipts.iter().filter(|receipt| !receipt.estimated && receipt.attempts.len() == 1) {
        let whole = receipt.outcome == Outcome::Served;
        assert_eq!(receipt.cost.0, if whole { price(30, 10) } else { 0 }, "{receipt:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_was_sent_and_not_answered_is_charged_and_the_next_takes_a_new_hold() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::status(200).header("content-type", "text/html").body("<html>"));
    second.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let providers = [("a", &first), ("b", &second)];
    let gateway = TestGateway::start(&priced_config(&providers, &budget(3 * worst_case(&request) - 1), "")).await;
    let answer = request.send_to(&gateway).await;
    assert_eq!((answer.chat_text().as_deref(), answer.attempts()), (Ok("Hello"), 2));
    let cost = worst_case(&request) + price(30, 10);
    assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(cost).to_string().as_str()));
    assert_eq!(spent(&gateway, "one", 1).await, cost);
    assert!(gateway.receipts(1).await[0].estimated);
    // The budget still covers the first attempt, but no second one.
    let answer = request.send_to(&gateway).await;
    budget_refusal(&answer);
    assert_eq!((first.attempts(), second.attempts()), (2, 1));
    let receipt = gateway.receipts(2).await[1].clone();
    assert_eq!(
        (receipt.cost.0, receipt.attempts.len(), receipt.reason),
        (worst_case(&request), 1, Reason::InsufficientQuota)
    );
    assert_eq!(spent(&gateway, "one", 2).await, cost + worst_case(&request));
}

#[tokio::test]
async fn a_hold_taken_for_a_cheap_attempt_covers_no_more_expensive_one() {
    let [unread, cheap, dear] =
        [ScriptedProvider::start("a").await, ScriptedProvider::start("b").await, ScriptedProvider::start("c").await];
    unread.answers(Script::status(200).header("content-type", "text/html").body("<html>"));
    cheap.answers(Script::status(503));
    dear.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    // The expensive one costs ten times as much. After the first attempt was charged, one nano-dollar is missing.
    let limit = 11 * worst_case(&request) - 1;
    let config = priced_config(&[("a", &unread), ("b", &cheap), ("c", &dear)], &budget(limit), "")
        .replace("{ provider = \"c\" }", "{ provider = \"c\", price = { input = \"10\", output = \"20\" } }");
    let gateway = TestGateway::start(&config).await;
    budget_refusal(&request.send_to(&gateway).await);
    assert_eq!([&unread, &cheap, &dear].map(ScriptedProvider::attempts), [1, 1, 0]);
    assert_eq!(spent(&gateway, "one", 1).await, worst_case(&request));
    // With that nano-dollar it is served.
    gateway.reload(&config.replace(&budget(limit), &budget(limit + 1 + worst_case(&request))));
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 2).await, 2 * worst_case(&request) + 10 * price(30, 10));
}

#[tokio::test]
async fn an_error_costs_nothing_and_its_hold_serves_the_next_attempt() {
    let (first, second) = (ScriptedProvider::start("a").await, ScriptedProvider::start("b").await);
    first.answers(Script::status(503));
    second.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let providers = [("a", &first), ("b", &second)];
    let gateway = TestGateway::start(&priced_config(&providers, &budget(worst_case(&request)), "")).await;
    assert_eq!(request.send_to(&gateway).await.attempts(), 2);
    assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));
}

#[tokio::test]
async fn a_client_that_disconnects_pays_for_what_it_received() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let request = TestRequest::stream("small");
    let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(worst_case(&request)), "")).await;
    // After a role frame and four of content.
    provider.answers(chat_stream("0123456789", 10).wait_after_frame(5, &gate));
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    client.head().await;
    let mut frames = 0;
    while frames < 5 {
        let Piece::Data(data) = client.piece().await else { panic!("the stream continues") };
        frames += data.windows(2).filter(|pair| pair == b"\n\n").count();
    }
    drop(client);
    let receipts = gateway.receipts(1).await;
    let receipt = &receipts[0];
    assert_eq!((receipt.outcome, receipt.estimated), (Outcome::Abandoned, true));
    assert_eq!(receipt.cost.0, (request.body().len() as i64 + TEMPLATE) * INPUT + 4 * OUTPUT);
    assert_eq!(spent(&gateway, "one", 1).await, receipt.cost.0);

    // Before the first token nothing is known: the whole hold is charged.
    let config = priced_config(&[("p", &provider)], &budget(3 * worst_case(&request)), "");
    gateway.reload(&config);
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 2).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    gate.reached(1).await;
    drop(client);
    assert_eq!(gateway.receipts(2).await[1].cost.0, worst_case(&request));
}

#[tokio::test]
async fn an_answer_without_usage_is_never_free() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(10 * worst_case(&request)), "")).await;
    let body = json!({"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]});
    provider.answers(Script::status(200).json(&body));
    let answer = request.send_to(&gateway).await;
    // Nothing is known of this model yet: every byte of its answer counts as a token.
    let cost = (request.body().len() as i64 + TEMPLATE) * INPUT + 5 * OUTPUT;
    assert_eq!(answer.header("x-tierway-cost-usd"), Some(NanoUsd(cost).to_string().as_str()));
    let receipt = gateway.receipts(1).await[0].clone();
    assert_eq!((receipt.cost.0, receipt.estimated), (cost, true));
    assert_eq!(spent(&gateway, "one", 1).await, cost);
}

#[tokio::test]
async fn an_answer_beyond_its_hold_is_charged_counted_and_ends_further_spending() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::stream("small");
    let limit = 3 * worst_case(&request);
    let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(limit), "")).await;
    provider.answers(chat(answer_using(4_000, 10_000)));
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 1).await, price(4_000, 10_000));
    assert_eq!(gateway.metric("tierway_answers_beyond_hold_total"), 1.0);
    let message = budget_refusal(&request.send_to(&gateway).await);
    assert!(message.contains(" has 0 USD left of "), "{message}");
    assert_eq!(provider.attempts(), 1);
    // Until an operator raises the limit, and ends the pause of the key at that deployment.
    assert!(gateway.relay.resume("p/small"));
    gateway.reload(&priced_config(&[("p", &provider)], &budget(price(4_000, 10_000) + worst_case(&request)), ""));
    provider.answers(chat(answer_using(30, 10)));
    assert_eq!(request.send_to(&gateway).await.status, 200);
}

/// Prices begin in the distant past and future here: the moment at which one begins is tested in `domain::pricing`.
#[tokio::test]
async fn a_request_is_held_and_charged_at_the_current_price_and_its_receipt_names_it() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let plain = "price       = { input = \"1\", output = \"2\" }";
    let check = async |prices: &str, version: &str, cost: i64, limit: i64| {
        let config = priced_config(&[("p", &provider)], &budget(limit), "");
        let gateway = TestGateway::start(&config.replace(plain, prices)).await;
        assert_eq!(request.send_to(&gateway).await.status, 200);
        let receipt = gateway.receipts(1).await[0].clone();
        assert_eq!((receipt.cost.0, receipt.price_version.as_deref()), (cost, Some(version)));
        let gateway =
            TestGateway::start(&config.replace(plain, prices).replace(&budget(limit), &budget(limit - 1))).await;
        budget_refusal(&request.send_to(&gateway).await);
        assert_eq!(gateway.receipts(1).await[0].price_version, None);
    };
    let (one, two) = (price(30, 10), worst_case(&request));
    check(plain, "1/2", one, two).await;
    let later = "{ from = \"2020-01-01\", input = \"2\", output = \"4\", version = \"new\" }, \
                 { from = 2999-01-01, input = \"90\", output = \"90\" }";
    check(&format!("price = [{{ input = \"1\", output = \"2\" }}, {later}]"), "new", 2 * one, 2 * two).await;
}

#[tokio::test]
async fn a_request_keeps_its_price_when_another_is_configured() {
    let (provider, gate) = (ScriptedProvider::start("p").await, Gate::new());
    let request = TestRequest::chat("small");
    let config = priced_config(&[("p", &provider)], &budget(3 * worst_case(&request)), "");
    let gateway = TestGateway::start(&config).await;
    provider.answers(chat(answer_using(30, 10)).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    request.send(&mut client).await;
    gate.reached(1).await;
    gateway.reload(&config.replace("input = \"1\"", "input = \"3\""));
    gate.open();
    assert_eq!(client.response().await.status, 200);
    provider.answers(chat(answer_using(30, 10)));
    assert_eq!(request.send_to(&gateway).await.status, 200);
    let receipts = gateway.receipts(2).await;
    let charged = receipts.iter().map(|receipt| (receipt.cost.0, receipt.price_version.as_deref()));
    let dearer = price(30, 10) + 2 * 30 * INPUT;
    assert_eq!(charged.collect::<Vec<_>>(), [(price(30, 10), Some("1/2")), (dearer, Some("3/2"))]);
}

#[tokio::test]
async fn an_answer_is_clamped_to_what_is_left_where_the_policy_allows_it() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(30, 10)));
    let check = async |request: TestRequest, room: i64, sent: serde_json::Value| {
        provider.clear();
        let limit = worst_case_with(&request, room);
        let policy = format!("{}\nclamp = true", budget(limit));
        let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &policy, "")).await;
        let answer = request.send_to(&gateway).await;
        assert_eq!(answer.header("x-tierway-clamped"), Some(format!("max_tokens={room}").as_str()), "{request:?}");
        let journal = provider.journal();
        let body = journal.only().request.json();
        let ceilings = json!([body["max_tokens"], body["max_completion_tokens"]]);
        assert_eq!(ceilings, sent, "{request:?}");
        let mut as_it_came: serde_json::Value = serde_json::from_str(request.body()).expect("JSON");
        let mut as_it_went = body;
        for name in ["max_tokens", "max_completion_tokens", "stream_options"] {
            as_it_came.as_object_mut().expect("an object").remove(name);
            as_it_went.as_object_mut().expect("an object").remove(name);
        }
        assert_eq!(as_it_came, as_it_went, "nothing else changed");
        assert_eq!(spent(&gateway, "one", 1).await, price(30, 10));
    };
    check(TestRequest::chat("small"), 17, json!([17, null])).await;
    check(TestRequest::stream("small"), 1, json!([1, null])).await;
    check(TestRequest::chat("small").with_member(r#""max_tokens":90"#), 50, json!([50, null])).await;
    // By the name that the provider knows, and once.
    check(TestRequest::chat("small").with_member(r#""max_completion_tokens" : 90"#), 50, json!([50, null])).await;
    check(
        TestRequest::stream("small").with_member(r#""max_tokens":5,"max_completion_tokens":90"#),
        50,
        json!([5, null]),
    )
    .await;
    check(TestRequest::chat("small").with_member(r#""max_tokens":null"#), 50, json!([50, null])).await;

    // Not where even one token is too expensive, nor where the policy does not allow it.
    provider.clear();
    let request = TestRequest::chat("small");
    for policy in
        [format!("{}\nclamp = true", budget(worst_case_with(&request, 1) - 1)), budget(worst_case_with(&request, 50))]
    {
        let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &policy, "")).await;
        budget_refusal(&request.send_to(&gateway).await);
    }
    assert_eq!(provider.attempts(), 0);
    // A request that fits is sent with the ceiling that is held for it, and is no clamped one.
    let policy = format!("{}\nclamp = true", budget(worst_case(&request)));
    let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &policy, "")).await;
    assert_eq!(request.send_to(&gateway).await.header("x-tierway-clamped"), None);
    let sent = String::from_utf8_lossy(&provider.journal().only().request.body).into_owned();
    assert_eq!(sent.replacen(r#""max_tokens":100,"#, "", 1), request.body());
}

#[tokio::test]
async fn a_team_and_a_policy_share_one_budget_over_their_keys() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let limit = worst_case(&request) + price(30, 10);
    let shared = [
        (format!("[teams.growth]\n{}", budget(limit)), "growth", "this key's team"),
        (format!("[policies.paying.total]\n{}", budget(limit)), "paying", "this key's policy"),
    ];
    for (more, name, whose) in shared {
        let gateway = TestGateway::start(&priced_config(&[("p", &provider)], &budget(10 * limit), &more)).await;
        assert_eq!(request.clone().with_key(KEY).send_to(&gateway).await.status, 200);
        gateway.receipts(1).await;
        assert_eq!(request.clone().with_key(OTHER_KEY).send_to(&gateway).await.status, 200);
        gateway.receipts(2).await;
        let message = budget_refusal(&request.clone().with_key(KEY).send_to(&gateway).await);
        assert!(message.starts_with(&format!("The budget of {whose} has not the ")), "{message}");
        assert!(!message.contains("left of"), "what others share is for operators: {message}");
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
    provider.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let config = |limit| priced_config(&[("p", &provider)], &budget(limit), "");
    let gateway = TestGateway::start(&config(100 * worst_case(&request))).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    gateway.receipts(1).await;
    gateway.reload(&config(worst_case(&request)));
    budget_refusal(&request.send_to(&gateway).await);
    // A configuration without the budget, and back: what was spent is kept.
    gateway.reload(&priced_config(&[("p", &provider)], "", ""));
    assert!(gateway.relay.budgets().is_empty());
    assert_eq!(request.send_to(&gateway).await.status, 200);
    gateway.reload(&config(worst_case(&request)));
    budget_refusal(&request.send_to(&gateway).await);
    gateway.reload(&config(worst_case(&request) + price(30, 10)));
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 5).await, 2 * price(30, 10), "what no budget paid for is charged to none");
}
