//! Stored keys and teams, which are not in the file, over real sockets: a key works from the moment it is
//! created, and for no request after it ends.

use crate::budgets::{answer_using, budget, budget_refusal, price, priced_config, worst_case};
use crate::support::client::Response;
use crate::support::{ScriptedProvider, TestGateway, TestRequest, chat};
use std::time::Duration;
use tierway::admin::{KeyEdit, NewKey, TeamEdit};
use tierway::domain::budget::{BudgetPeriod, BudgetSpec};
use tierway::domain::limit::Limits;
use tierway::domain::money::NanoUsd;
use tierway::domain::register::{KeyOverrides, KeyState};
use tierway::domain::secret::{KeyHash, Secret};

async fn started(provider: &ScriptedProvider, policy: &str) -> TestGateway {
    provider.answers(chat(answer_using(30, 10)));
    TestGateway::start(&priced_config(&[("p", provider)], policy, "")).await
}

async fn create_key(gateway: &TestGateway, new: NewKey) -> Secret {
    let live = gateway.relay.active_config();
    let issued = gateway.app.admin.create_key(&live.snapshot, new).await.unwrap_or_else(|error| panic!("{error}"));
    issued.secret.expect("a new key has a secret")
}

async fn edit(gateway: &TestGateway, edit: KeyEdit) {
    let live = gateway.relay.active_config();
    gateway.app.admin.edit_key(&live.snapshot, "app", None, &edit).await.unwrap_or_else(|error| panic!("{error}"));
}

fn app() -> NewKey {
    NewKey { name: "app".to_owned(), policy: "paying".to_owned(), ..NewKey::default() }
}

async fn send_with(gateway: &TestGateway, secret: &Secret) -> Response {
    TestRequest::chat("small").with_key(secret.expose()).send_to(gateway).await
}

fn assert_unknown_key(answer: &Response) {
    assert_eq!(answer.refusal(), (401, "invalid_api_key".to_owned()));
}

fn budget_without_end(limit: i64) -> BudgetSpec {
    BudgetSpec { limit: NanoUsd(limit), window: BudgetPeriod::Ever }
}

#[tokio::test]
async fn a_key_works_from_its_creation_until_it_is_disabled_or_expires() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = create_key(&gateway, app()).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    edit(&gateway, KeyEdit { disabled: Some(true), ..KeyEdit::default() }).await;
    assert_unknown_key(&send_with(&gateway, &secret).await);
    edit(&gateway, KeyEdit { disabled: Some(false), ..KeyEdit::default() }).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    edit(&gateway, KeyEdit { expires: Some(Some(1_000)), ..KeyEdit::default() }).await;
    assert_unknown_key(&send_with(&gateway, &secret).await);
    edit(&gateway, KeyEdit { expires: Some(None), ..KeyEdit::default() }).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    let receipts = gateway.receipts(3).await;
    assert!(receipts.iter().all(|receipt| receipt.key.as_deref() == Some("app")), "{receipts:?}");
    let live = gateway.relay.active_config();
    let key = gateway.app.admin.key(&live.snapshot, "app").expect("it is there");
    assert_eq!(key.state, KeyState::Active);
    assert!(key.stored.expect("it is stored").secrets[0].last_used_unix_ms.is_some());
}

#[tokio::test]
async fn both_secrets_work_during_an_overlap_and_the_old_one_ends_at_once_without_it() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let first = create_key(&gateway, app()).await;
    let rotate = async |overlap| {
        let live = gateway.relay.active_config();
        let issued = gateway.app.admin.rotate_key(&live.snapshot, "app", None, overlap).await;
        issued.unwrap_or_else(|error| panic!("{error}")).secret.expect("a new key has a secret")
    };
    let second = rotate(Duration::from_secs(3600)).await;
    assert_eq!(send_with(&gateway, &first).await.status, 200);
    assert_eq!(send_with(&gateway, &second).await.status, 200);
    let third = rotate(Duration::ZERO).await;
    assert_unknown_key(&send_with(&gateway, &first).await);
    assert_unknown_key(&send_with(&gateway, &second).await);
    assert_eq!(send_with(&gateway, &third).await.status, 200);
}

#[tokio::test]
async fn a_secret_of_any_shape_is_imported_by_its_hash() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = Secret::new("sk-from-another-gateway");
    let live = gateway.relay.active_config();
    let new = NewKey { hash: Some(KeyHash::of(secret.expose())), ..app() };
    let issued = gateway.app.admin.create_key(&live.snapshot, new.clone()).await.expect("it is new");
    assert!(issued.secret.is_none());
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    let twice = gateway.app.admin.create_key(&live.snapshot, NewKey { name: "two".to_owned(), ..new }).await;
    assert_eq!(twice.unwrap_err().to_string(), "the key 'app' has this secret already; every key needs one of its own");
}

#[tokio::test]
async fn a_stored_keys_own_ceilings_and_budget_hold_and_change_at_once() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, &budget(100 * worst_case(&request))).await;
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let own = KeyOverrides { limits, budget: Some(budget_without_end(worst_case(&request))) };
    let secret = create_key(&gateway, NewKey { own, ..app() }).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    gateway.receipts(1).await;
    budget_refusal(&send_with(&gateway, &secret).await);
    assert_eq!(send_with(&gateway, &secret).await.refusal(), (429, "rate_limit_exceeded".to_owned()));
    let more = Some(Some(budget_without_end(2 * worst_case(&request))));
    edit(&gateway, KeyEdit { requests_per_minute: Some(Some(9)), budget: more, ..KeyEdit::default() }).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    gateway.receipts(4).await;
    let statuses = gateway.relay.budgets();
    let spent: Vec<_> = statuses.iter().filter(|one| &*one.account.name == "app").map(|one| one.spent.0).collect();
    assert_eq!(spent, [2 * price(30, 10); 2], "its own and its policy's for each key");
}

#[tokio::test]
async fn a_stored_teams_budget_binds_the_files_keys_too_and_changes_at_once() {
    let provider = ScriptedProvider::start("p").await;
    let request = TestRequest::chat("small");
    let gateway = started(&provider, "").await;
    assert_eq!(request.send_to(&gateway).await.status, 200);
    let live = gateway.relay.active_config();
    let admin = &gateway.app.admin;
    admin
        .create_team(&live.snapshot, "growth", Some(budget_without_end(worst_case(&request))))
        .await
        .expect("it is new");
    gateway.relay.apply_store_changes();
    assert_eq!(request.send_to(&gateway).await.status, 200);
    gateway.receipts(2).await;
    let message = budget_refusal(&request.send_to(&gateway).await);
    assert!(message.starts_with("The budget of this key's team has not the "), "{message}");
    let of_team = create_key(&gateway, NewKey { team: Some("growth".to_owned()), ..app() }).await;
    budget_refusal(&send_with(&gateway, &of_team).await);
    let more = TeamEdit { budget: Some(Some(budget_without_end(3 * worst_case(&request)))) };
    admin.edit_team(&live.snapshot, "growth", None, &more).await.expect("it is there");
    gateway.relay.apply_store_changes();
    assert_eq!(send_with(&gateway, &of_team).await.status, 200);
}

#[tokio::test]
async fn a_reload_changes_what_a_stored_key_may_do() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = create_key(&gateway, app()).await;
    assert_eq!(send_with(&gateway, &secret).await.status, 200);
    let config = priced_config(&[("p", &provider)], "requests_per_minute = 1", "");
    gateway.reload(&config.replace("models = [\"*\"]", "models = []"));
    assert_eq!(send_with(&gateway, &secret).await.refusal(), (403, "model_not_allowed".to_owned()));
    // A key whose policy is removed is refused; a reload that would remove the policy is refused by name.
    let without = config.replace("paying", "other");
    let snapshot = crate::support::gateway::compile(&without);
    let clashes = gateway.app.admin.clashes(&snapshot);
    assert_eq!(clashes, ["stored keys have the policy `paying`, which the configuration does not have"]);
    gateway.reload(&without);
    assert_unknown_key(&send_with(&gateway, &secret).await);
}
