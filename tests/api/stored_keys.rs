//! Keys and teams that are not in the file, over real sockets: a key works from the moment it is made, and
//! not a request longer than it should.

use crate::budgets::{budget, house, price, refused, using, worst};
use crate::support::client::Response;
use crate::support::{Ask, ScriptedProvider, TestGateway, chat};
use std::time::Duration;
use tierway::admin::{KeyEdit, NewKey, TeamEdit};
use tierway::domain::authorize::Limits;
use tierway::domain::budget::{BudgetPeriod, BudgetSpec};
use tierway::domain::money::NanoUsd;
use tierway::domain::register::{KeyOverrides, KeyState};
use tierway::domain::secret::{KeyHash, Secret};

async fn started(provider: &ScriptedProvider, policy: &str) -> TestGateway {
    provider.answers(chat(using(30, 10)));
    TestGateway::start(&house(&[("p", provider)], policy, "")).await
}

async fn made(gateway: &TestGateway, new: NewKey) -> Secret {
    let live = gateway.relay.active_config();
    let issued = gateway.app.admin.create_key(&live.snapshot, new).await.unwrap_or_else(|error| panic!("{error}"));
    issued.secret.expect("it is made here")
}

async fn edit(gateway: &TestGateway, edit: KeyEdit) {
    let live = gateway.relay.active_config();
    gateway.app.admin.edit_key(&live.snapshot, "app", None, &edit).await.unwrap_or_else(|error| panic!("{error}"));
}

fn app() -> NewKey {
    NewKey { name: "app".to_owned(), policy: "paying".to_owned(), ..NewKey::default() }
}

async fn asked(gateway: &TestGateway, secret: &Secret) -> Response {
    Ask::chat("small").by(secret.expose()).at(gateway).await
}

fn stranger(answer: &Response) {
    assert_eq!(answer.refusal(), (401, "invalid_api_key".to_owned()));
}

fn allowance(limit: i64) -> BudgetSpec {
    BudgetSpec { limit: NanoUsd(limit), window: BudgetPeriod::Ever }
}

#[tokio::test]
async fn a_key_works_from_the_moment_it_is_made_until_it_is_taken_away() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = made(&gateway, app()).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    edit(&gateway, KeyEdit { disabled: Some(true), ..KeyEdit::default() }).await;
    stranger(&asked(&gateway, &secret).await);
    edit(&gateway, KeyEdit { disabled: Some(false), ..KeyEdit::default() }).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    edit(&gateway, KeyEdit { expires: Some(Some(1_000)), ..KeyEdit::default() }).await;
    stranger(&asked(&gateway, &secret).await);
    edit(&gateway, KeyEdit { expires: Some(None), ..KeyEdit::default() }).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    let receipts = gateway.receipts(5).await;
    let names: Vec<_> = receipts.iter().map(|receipt| receipt.key.as_deref()).collect();
    assert_eq!(names, [Some("app"), None, Some("app"), None, Some("app")]);
    let live = gateway.relay.active_config();
    let key = gateway.app.admin.key(&live.snapshot, "app").expect("it is there");
    assert_eq!(key.state, KeyState::Active);
    assert!(key.stored.expect("it is stored").secrets[0].last_used_unix_ms.is_some());
}

#[tokio::test]
async fn both_secrets_work_while_they_overlap_and_the_old_one_ends_at_once_without() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let first = made(&gateway, app()).await;
    let rotate = async |overlap| {
        let live = gateway.relay.active_config();
        let issued = gateway.app.admin.rotate_key(&live.snapshot, "app", None, overlap).await;
        issued.unwrap_or_else(|error| panic!("{error}")).secret.expect("it is made here")
    };
    let second = rotate(Duration::from_secs(3600)).await;
    assert_eq!(asked(&gateway, &first).await.status, 200);
    assert_eq!(asked(&gateway, &second).await.status, 200);
    let third = rotate(Duration::ZERO).await;
    stranger(&asked(&gateway, &first).await);
    stranger(&asked(&gateway, &second).await);
    assert_eq!(asked(&gateway, &third).await.status, 200);
}

#[tokio::test]
async fn a_secret_of_any_shape_is_imported_by_its_hash() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = Secret::new("sk-from-another-house");
    let live = gateway.relay.active_config();
    let new = NewKey { hash: Some(KeyHash::of(secret.expose())), ..app() };
    let issued = gateway.app.admin.create_key(&live.snapshot, new.clone()).await.expect("it is new");
    assert!(issued.secret.is_none());
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    let twice = gateway.app.admin.create_key(&live.snapshot, NewKey { name: "two".to_owned(), ..new }).await;
    assert_eq!(twice.unwrap_err().to_string(), "the key 'app' has this secret already; every key needs one of its own");
}

#[tokio::test]
async fn a_stored_keys_own_ceilings_and_budget_hold_and_change_at_once() {
    let provider = ScriptedProvider::start("p").await;
    let ask = Ask::chat("small");
    let gateway = started(&provider, &budget(100 * worst(&ask))).await;
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let own = KeyOverrides { limits, budget: Some(allowance(worst(&ask))) };
    let secret = made(&gateway, NewKey { own, ..app() }).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    gateway.receipts(1).await;
    refused(&asked(&gateway, &secret).await);
    assert_eq!(asked(&gateway, &secret).await.refusal(), (429, "rate_limit_exceeded".to_owned()));
    let more = Some(Some(allowance(2 * worst(&ask))));
    edit(&gateway, KeyEdit { requests_per_minute: Some(Some(9)), budget: more, ..KeyEdit::default() }).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    gateway.receipts(4).await;
    let statuses = gateway.relay.budgets();
    let spent: Vec<_> = statuses.iter().filter(|one| &*one.account.name == "app").map(|one| one.spent.0).collect();
    assert_eq!(spent, [2 * price(30, 10); 2], "its own and its policy's for each key");
}

#[tokio::test]
async fn a_stored_teams_budget_binds_the_files_keys_too_and_changes_at_once() {
    let provider = ScriptedProvider::start("p").await;
    let ask = Ask::chat("small");
    let gateway = started(&provider, "").await;
    assert_eq!(ask.at(&gateway).await.status, 200);
    let live = gateway.relay.active_config();
    let admin = &gateway.app.admin;
    admin.create_team(&live.snapshot, "growth", Some(allowance(worst(&ask)))).await.expect("it is new");
    gateway.relay.apply_store_changes();
    assert_eq!(ask.at(&gateway).await.status, 200);
    gateway.receipts(2).await;
    let said = refused(&ask.at(&gateway).await);
    assert!(said.starts_with("The budget of the team 'growth' has "), "{said}");
    let of_team = made(&gateway, NewKey { team: Some("growth".to_owned()), ..app() }).await;
    refused(&asked(&gateway, &of_team).await);
    let more = TeamEdit { budget: Some(Some(allowance(3 * worst(&ask)))) };
    admin.edit_team(&live.snapshot, "growth", None, &more).await.expect("it is there");
    gateway.relay.apply_store_changes();
    assert_eq!(asked(&gateway, &of_team).await.status, 200);
}

#[tokio::test]
async fn a_reload_changes_what_a_stored_key_may_do() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let secret = made(&gateway, app()).await;
    assert_eq!(asked(&gateway, &secret).await.status, 200);
    let config = house(&[("p", &provider)], "requests_per_minute = 1", "");
    gateway.reload(&config.replace("models = [\"*\"]", "models = []"));
    assert_eq!(asked(&gateway, &secret).await.refusal(), (403, "model_not_allowed".to_owned()));
    // A policy that is gone lets nobody in; a reload that would take it away is refused by name.
    let without = config.replace("paying", "other");
    let snapshot = crate::support::gateway::compile(&without);
    let clashes = gateway.app.admin.clashes(&snapshot);
    assert_eq!(clashes, ["stored keys have the policy `paying`, which the configuration does not have"]);
    gateway.reload(&without);
    stranger(&asked(&gateway, &secret).await);
}
