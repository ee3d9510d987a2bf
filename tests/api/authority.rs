//! What a key may do is read again once its request's body is there: whatever was changed while the client sent it counts.
//!
//! Each client asks with `Expect: 100-continue`, and sends its body after the change: its key was accepted before.

use crate::budgets::{answer_using, priced_config, worst_case};
use crate::support::client::Response;
use crate::support::gateway::{ADMIN_TOKEN, BEARER, KEY, VIEWER_TOKEN};
use crate::support::{Client, ScriptedProvider, TestGateway, TestRequest, chat};
use std::time::Duration;
use tierway::admin::{KeyEdit, NewGrant, NewKey, TeamEdit};
use tierway::domain::budget::{BudgetPeriod, BudgetSpec, Scope};
use tierway::domain::money::NanoUsd;
use tierway::domain::register::Holder;
use tierway::domain::secret::Secret;

const CHAT: &str = "/v1/chat/completions";

/// A request whose key was accepted, and whose body is still to come.
struct Begun {
    client: Client,
    body: String,
}

impl Begun {
    async fn of(gateway: &TestGateway, method: &str, path: &str, bearer: &str, body: &str) -> Self {
        let mut client = gateway.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: tests\r\nauthorization: {bearer}\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head).await;
        assert_eq!(client.interim().await, 100, "the key is accepted, and the body read");
        Self { client, body: body.to_owned() }
    }

    async fn chat(gateway: &TestGateway, key: &str) -> Self {
        Self::of(gateway, "POST", CHAT, &format!("Bearer {key}"), TestRequest::chat("small").body()).await
    }

    async fn end(mut self) -> Response {
        self.client.send(self.body).await;
        self.client.response().await
    }
}

async fn started(provider: &ScriptedProvider, policy: &str) -> TestGateway {
    provider.answers(chat(answer_using(30, 10)));
    TestGateway::start(&priced_config(&[("p", provider)], policy, "")).await
}

async fn stored_key(gateway: &TestGateway) -> Secret {
    let new = NewKey { name: "app".to_owned(), policy: "paying".to_owned(), ..NewKey::default() };
    let live = gateway.relay.active_config();
    let issued = gateway.app.admin.create_key(&live.snapshot, new).await.unwrap_or_else(|error| panic!("{error}"));
    issued.secret.expect("a new key has a secret")
}

async fn edit(gateway: &TestGateway, edit: KeyEdit) {
    let live = gateway.relay.active_config();
    gateway.app.admin.edit_key(&live.snapshot, "app", None, &edit).await.unwrap_or_else(|error| panic!("{error}"));
}

fn nothing() -> BudgetSpec {
    BudgetSpec { limit: NanoUsd::ZERO, window: BudgetPeriod::Ever }
}

#[tokio::test]
async fn a_stored_keys_change_counts_for_bodies_that_are_still_coming() {
    let invalid = (401, "invalid_api_key".to_owned());
    let over_budget = (429, "insufficient_quota".to_owned());
    let cases: [(&str, KeyEdit, (u16, String)); 4] = [
        ("disabled", KeyEdit { disabled: Some(true), ..KeyEdit::default() }, invalid.clone()),
        ("expired", KeyEdit { expires: Some(Some(1_000)), ..KeyEdit::default() }, invalid.clone()),
        ("given a budget", KeyEdit { budget: Some(Some(nothing())), ..KeyEdit::default() }, over_budget.clone()),
        (
            "tightened",
            KeyEdit { tokens_per_minute: Some(Some(1)), ..KeyEdit::default() },
            (429, "rate_limit_exceeded".to_owned()),
        ),
    ];
    let provider = ScriptedProvider::start("p").await;
    for (case, change, expected) in cases {
        let gateway = started(&provider, "").await;
        let secret = stored_key(&gateway).await;
        let begun = Begun::chat(&gateway, secret.expose()).await;
        edit(&gateway, change).await;
        assert_eq!(begun.end().await.refusal(), expected, "{case}");
        let receipt = gateway.receipts(1).await.remove(0);
        assert_eq!(receipt.key.as_deref(), Some("app"), "{case}: whose it was is known all the same");
    }
    let gateway = started(&provider, "").await;
    let secret = stored_key(&gateway).await;
    let begun = Begun::chat(&gateway, secret.expose()).await;
    let live = gateway.relay.active_config();
    let rotated = gateway.app.admin.rotate_key(&live.snapshot, "app", None, Duration::ZERO).await.expect("it is there");
    assert_eq!(begun.end().await.refusal(), invalid, "rotated away");
    let begun = Begun::chat(&gateway, rotated.secret.expect("a new secret").expose()).await;
    edit(&gateway, KeyEdit { disabled: Some(true), ..KeyEdit::default() }).await;
    edit(&gateway, KeyEdit { disabled: Some(false), ..KeyEdit::default() }).await;
    assert_eq!(begun.end().await.status, 200, "what is allowed again is served");
    assert_eq!(provider.attempts(), 1);
}

#[tokio::test]
async fn money_that_is_taken_back_or_limited_meanwhile_is_not_spent() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "credit = \"only\"").await;
    let live = gateway.relay.active_config();
    let grant = async |amount: i64| {
        let holder = Holder { scope: Scope::Key, name: "one".into() };
        let new = NewGrant { holder, amount: NanoUsd(amount), reason: String::new(), by: "test".to_owned() };
        gateway.app.admin.grant(&live.snapshot, new).await.unwrap_or_else(|error| panic!("{error}"));
        gateway.relay.apply_store_changes();
    };
    let worst = worst_case(&TestRequest::chat("small"));
    grant(worst).await;
    let begun = Begun::chat(&gateway, KEY).await;
    grant(-worst).await;
    assert_eq!(begun.end().await.refusal(), (429, "insufficient_quota".to_owned()), "emptied");
    let begun = Begun::chat(&gateway, KEY).await;
    grant(worst).await;
    assert_eq!(begun.end().await.status, 200, "credit that came meanwhile pays");
    grant(100 * worst).await;
    let begun = Begun::chat(&gateway, KEY).await;
    gateway.app.admin.create_team(&live.snapshot, "growth", Some(nothing())).await.expect("it is new");
    gateway.relay.apply_store_changes();
    assert_eq!(begun.end().await.refusal(), (429, "insufficient_quota".to_owned()), "the team is limited");
    let begun = Begun::chat(&gateway, KEY).await;
    let unlimited = TeamEdit { budget: Some(None) };
    gateway.app.admin.edit_team(&live.snapshot, "growth", None, &unlimited).await.expect("it is there");
    gateway.relay.apply_store_changes();
    assert_eq!(begun.end().await.status, 200, "and no more");
    assert_eq!(provider.attempts(), 2);
}

#[tokio::test]
async fn a_reload_counts_for_bodies_that_are_still_coming() {
    let provider = ScriptedProvider::start("p").await;
    let config = priced_config(&[("p", &provider)], "", "");
    let of_other = config.replace("secret = \"env:TEST_KEY\"", &format!("hash = \"sha256:{:064}\"", 1));
    let cases = [
        ("the key is removed", of_other, (401, "invalid_api_key")),
        ("a model is forbidden", config.replace("models = [\"*\"]", "models = []"), (403, "model_not_allowed")),
        ("the model is removed", config.replace("models.small", "models.large"), (404, "model_not_found")),
        (
            "a limit is set",
            priced_config(&[("p", &provider)], "tokens_per_minute = 1", ""),
            (429, "rate_limit_exceeded"),
        ),
        (
            "a budget is set",
            priced_config(&[("p", &provider)], "budget = { limit = \"0.000000001\", window = \"month\" }", ""),
            (429, "insufficient_quota"),
        ),
    ];
    for (case, changed, (status, code)) in cases {
        let gateway = started(&provider, "").await;
        let begun = Begun::chat(&gateway, KEY).await;
        gateway.reload(&changed);
        assert_eq!(begun.end().await.refusal(), (status, code.to_owned()), "{case}");
    }
    assert_eq!(provider.attempts(), 0);
}

#[tokio::test]
async fn an_operators_token_is_read_again_too() {
    let provider = ScriptedProvider::start("p").await;
    let gateway = started(&provider, "").await;
    let body = r#"{"name":"late","policy":"paying"}"#;
    let path = "/admin/v1/keys";
    let begun = Begun::of(&gateway, "POST", path, &format!("Bearer {ADMIN_TOKEN}"), body).await;
    let viewer = tierway::http::ops::OperatorTokens {
        viewer_token: Some(Secret::new(ADMIN_TOKEN)),
        admin_token: Some(Secret::new(VIEWER_TOKEN)),
        ..Default::default()
    };
    gateway.app.ops.store(viewer.into());
    assert_eq!(begun.end().await.status, 403, "it may only look now");
    let begun = Begun::of(&gateway, "POST", path, &format!("Bearer {VIEWER_TOKEN}"), body).await;
    gateway.app.ops.store(std::sync::Arc::default());
    assert_eq!(begun.end().await.status, 401, "it is none any more");
    let live = gateway.relay.active_config();
    assert!(gateway.app.admin.key(&live.snapshot, "late").is_err(), "nothing was made");
    assert_eq!(gateway.post(CHAT, &[("authorization", BEARER)], "{}").await.status, 400);
}
