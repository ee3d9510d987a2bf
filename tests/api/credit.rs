//! Credit over real sockets: the order in which it is spent, and that none is spent twice.
//!
//! Configuration, prices and oracle are those of `budgets.rs`.

use crate::budgets::{answer_using, budget, budget_refusal, price, priced_config, worst_case};
use crate::support::gateway::{KEY, OTHER_KEY};
use crate::support::{ScriptedProvider, TestClients, TestGateway, TestRequest, chat};
use tierway::admin::NewGrant;
use tierway::domain::budget::Scope;
use tierway::domain::money::NanoUsd;
use tierway::domain::register::Holder;

/// The cost of an answer of the provider, in nano-dollars.
const ANSWER: i64 = price(30, 10);

async fn grant(gateway: &TestGateway, scope: Scope, name: &str, amount: i64) {
    let holder = Holder { scope, name: name.into() };
    let new = NewGrant { holder, amount: NanoUsd(amount), reason: String::new(), by: "test".to_owned() };
    let live = gateway.relay.active_config();
    gateway.app.admin.grant(&live.snapshot, new).await.unwrap_or_else(|error| panic!("{error}"));
    gateway.relay.apply_store_changes();
}

/// What is spent of an account in the window whose name begins with `window`, after this many receipts.
async fn spent(gateway: &TestGateway, name: &str, window: &str, receipts: u64) -> i64 {
    gateway.receipts(receipts).await;
    let statuses = gateway.relay.budgets();
    let of_name = statuses.iter().find(|one| &*one.account.name == name && one.account.window.starts_with(window));
    let status = of_name.unwrap_or_else(|| panic!("no {window} of {name}: {statuses:?}"));
    assert_eq!(status.held, NanoUsd::ZERO, "nothing stays held");
    status.spent.0
}

async fn started(provider: &ScriptedProvider, policy: &str, more: &str) -> TestGateway {
    provider.answers(chat(answer_using(30, 10)));
    TestGateway::start(&priced_config(&[("p", provider)], policy, more)).await
}

#[tokio::test]
async fn the_keys_credit_is_spent_first_then_its_teams_then_the_budget() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, &budget(worst_case(&request)), "").await;
    grant(&gateway, Scope::Key, "one", worst_case(&request)).await;
    grant(&gateway, Scope::Team, "growth", worst_case(&request)).await;
    // The first hold fits the key's credit; part of the next hold is taken from the team's.
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", "credit", 1).await, ANSWER);
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", "credit", 2).await, 2 * ANSWER, "the first in the order pays first");
    assert_eq!(spent(&gateway, "growth", "credit", 2).await, 0);
    assert_eq!(spent(&gateway, "one", "month", 2).await, 0, "what credit pays counts against no budget");
    let receipts = gateway.receipts(2).await;
    for receipt in &receipts {
        let charged: Vec<_> = receipt.charges.iter().map(|charge| (&*charge.account.window, charge.spent.0)).collect();
        assert_eq!(charged, [("credit", ANSWER)]);
    }
}

#[tokio::test]
async fn one_answer_may_be_paid_by_all_three_to_the_nano_dollar() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, &budget(worst_case(&request)), "").await;
    grant(&gateway, Scope::Key, "one", 7).await;
    grant(&gateway, Scope::Team, "growth", 11).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", "credit", 1).await, 7);
    assert_eq!(spent(&gateway, "growth", "credit", 1).await, 11);
    assert_eq!(spent(&gateway, "one", "month", 1).await, ANSWER - 18);
    assert_eq!(gateway.receipts(1).await[0].charges.iter().map(|charge| charge.spent.0).sum::<i64>(), ANSWER);
    // The credit is used up: from now on only the budget pays.
    assert_eq!(request.send_to(&gateway).await.status, 429, "the budget no longer covers the worst case");
}

#[tokio::test]
async fn where_only_credit_pays_nothing_is_served_without_credit() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, "credit = \"only\"", "").await;
    let message = budget_refusal(&request.send_to(&gateway).await);
    assert!(message.starts_with("The credit of this key has 0 USD left of 0, "), "{message}");
    grant(&gateway, Scope::Key, "one", worst_case(&request) - 1).await;
    let message = budget_refusal(&request.send_to(&gateway).await);
    assert!(message.starts_with("The credit of this key has "), "{message}");
    assert_eq!(provider.attempts(), 0);
    // One nano-dollar of the team's credit is enough for the rest.
    grant(&gateway, Scope::Team, "growth", 1).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", "credit", 3).await, ANSWER);
    // Only that nano-dollar is available to the other key.
    budget_refusal(&request.clone().with_key(OTHER_KEY).send_to(&gateway).await);
    // A negative grant takes effect at once.
    grant(&gateway, Scope::Key, "one", ANSWER - worst_case(&request) + 1).await;
    budget_refusal(&request.send_to(&gateway).await);
    assert_eq!(provider.attempts(), 1);
}

#[tokio::test]
async fn budgets_are_ceilings_where_only_credit_pays() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let policy = format!("credit = \"only\"\n{}", budget(worst_case(&request) + ANSWER - 1));
    let gateway = started(&provider, &policy, "").await;
    grant(&gateway, Scope::Key, "one", 100 * worst_case(&request)).await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    gateway.receipts(1).await;
    let message = budget_refusal(&request.send_to(&gateway).await);
    assert!(message.starts_with("The budget of this key has "), "{message}");
    assert_eq!(spent(&gateway, "one", "credit", 2).await, ANSWER);
    assert_eq!(spent(&gateway, "one", "month", 2).await, ANSWER);
}

#[tokio::test]
async fn credit_lets_a_clamped_answer_be_longer() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let policy = format!("clamp = true\n{}", budget(worst_case(&request) - 100 * 2_000));
    let gateway = started(&provider, &policy, "").await;
    budget_refusal(&request.send_to(&gateway).await);
    grant(&gateway, Scope::Key, "one", 40 * 2_000).await;
    let answer = request.send_to(&gateway).await;
    assert_eq!(answer.header("x-tierway-clamped"), Some("max_tokens=40"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_is_never_overspent_by_many_at_once() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, "credit = \"only\"", "").await;
    let (of_key, of_team) = (20 * worst_case(&request), 10 * worst_case(&request) + 5);
    grant(&gateway, Scope::Key, "one", of_key).await;
    grant(&gateway, Scope::Team, "growth", of_team).await;
    let count = 1_000;
    let copy = request.clone();
    let make = move |number: usize| copy.clone().with_key(if number.is_multiple_of(3) { OTHER_KEY } else { KEY });
    let answers = TestClients::new(16, &gateway).send_all(count, make).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let receipts = gateway.receipts(count as u64).await;
    let [of_one, of_growth] = [("one", "credit"), ("growth", "credit")];
    let key = spent(&gateway, of_one.0, of_one.1, count as u64).await;
    let team = spent(&gateway, of_growth.0, of_growth.1, count as u64).await;
    let cost: i64 = receipts.iter().map(|receipt| receipt.cost.0).sum();
    println!("{served} served: {key} of {of_key} and {team} of {of_team} nano-dollars");
    assert!(key <= of_key && team <= of_team);
    assert_eq!((key + team, provider.attempts()), (cost, served));
    assert_eq!(cost, served as i64 * ANSWER);
    // What is left is less than one request may cost: no lease kept it back.
    assert!(of_team - team < worst_case(&request), "{} left", of_team - team);
}
