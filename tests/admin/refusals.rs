//! Every refusal of the admin API; none of them changes anything.

use crate::admin_gateway::{AdminGateway, bearer};
use crate::support::gateway::{ADMIN_TOKEN, VIEWER_TOKEN, compile};
use serde_json::{Value, json};
use tierway::cli::reload::apply;
use tierway::config::ConfigChange;
use tierway::domain::secret::Secret;

#[tokio::test]
async fn every_refusal_has_its_row() {
    let admin = AdminGateway::start().await;
    admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "k", "policy": "standard" }))).await;
    let before = admin.state().await;
    let check = async |method: &str, path: &str, body, expected| refused(&admin, method, path, body, expected).await;
    check("GET", "nothing", None, (404, "unknown_url", None)).await;
    check("GET", "keys/", None, (404, "unknown_url", None)).await;
    check("PUT", "keys/k", None, (405, "method_not_allowed", None)).await;
    check("GET", "keys/nobody", None, (404, "not_found", None)).await;
    check("PATCH", "teams/nobody", Some(json!({})), (404, "not_found", None)).await;
    check("POST", "keys/nobody/rotate", None, (404, "not_found", None)).await;
    check("PATCH", "keys/app", Some(json!({ "team": "x" })), (409, "conflict", None)).await;
    check("POST", "keys/app/rotate", None, (409, "conflict", None)).await;
    check("PATCH", "teams/sales", Some(json!({ "budget": null })), (409, "conflict", None)).await;
    check("POST", "teams", Some(json!({ "name": "sales" })), (409, "conflict", Some("name"))).await;
    let key = |more: Value| {
        let mut key = json!({ "name": "n", "policy": "standard" });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(key)
    };
    check("POST", "keys", key(json!({ "name": "k" })), (409, "conflict", Some("name"))).await;
    check("POST", "keys", key(json!({ "name": "app" })), (409, "conflict", Some("name"))).await;
    check("POST", "keys", key(json!({ "policy": "gold" })), (400, "invalid_value", Some("policy"))).await;
    check(
        "POST",
        "keys",
        key(json!({ "requests_per_minute": 101 })),
        (400, "invalid_value", Some("requests_per_minute")),
    )
    .await;
    let loose = json!({ "budget": { "limit": "500.01", "window": "month" } });
    check("POST", "keys", key(loose), (400, "invalid_value", Some("budget"))).await;
    let nowhere = json!({ "budget": { "limit": "5", "window": "month", "zone": "Nowhere" } });
    check("POST", "keys", key(nowhere), (400, "invalid_value", Some("budget.zone"))).await;
    check("PATCH", "keys/k", Some(json!({ "max_concurrent": 51 })), (400, "invalid_value", Some("max_concurrent")))
        .await;
    check("POST", "keys/k/rotate", Some(json!({ "overlap": "1w" })), (400, "invalid_value", Some("overlap"))).await;
    check("GET", "keys?limit=1001", None, (400, "invalid_value", Some("limit"))).await;
    check("GET", "keys/k?limit=1", None, (400, "invalid_value", Some("limit"))).await;
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn credit_is_one_holders_who_is_there() {
    let admin = AdminGateway::start().await;
    let before = admin.state().await;
    let check = async |body: Value, param: &str| {
        refused(&admin, "POST", "credits/grants", Some(body), (400, "invalid_value", Some(param))).await;
    };
    check(json!({ "amount": "1" }), "key").await;
    check(json!({ "amount": "1", "key": "nobody" }), "key").await;
    check(json!({ "amount": "1", "team": "nobody" }), "team").await;
    check(json!({ "amount": "1", "team": "sales", "key": "app" }), "team").await;
    check(json!({ "amount": "0.00", "key": "app" }), "amount").await;
    assert_eq!(admin.state().await, before);
}

/// After a reload with another token, the new token is valid and the old one is not.
#[tokio::test]
async fn a_reload_applies_another_viewer_token() {
    let admin = AdminGateway::start().await;
    let look = async || admin.ask("GET", "/admin/v1/keys", &bearer(VIEWER_TOKEN), None).await.status;
    assert_eq!(look().await, 200);
    for (token, expected) in [("env:OTHER_KEY", 401), ("env:VIEWER_TOKEN", 200)] {
        let config = admin.config.replace("env:VIEWER_TOKEN", token);
        let change = ConfigChange { snapshot: compile(&config), needs_restart: Vec::new() };
        apply(Ok(change), &admin.gateway.app, Some(&Secret::new(ADMIN_TOKEN)));
        assert_eq!(look().await, expected, "{token}");
    }
    assert_eq!(admin.operate("GET", "/admin/v1/keys", None).await.status, 200, "the admin token made at start stays");
}

/// The status, code and field of an error.
type ExpectedError<'a> = (u16, &'a str, Option<&'a str>);

async fn refused(admin: &AdminGateway, method: &str, path: &str, body: Option<Value>, expected: ExpectedError<'_>) {
    let (status, code, param) = expected;
    let refused = admin.refused(status, method, &format!("/admin/v1/{path}"), body).await;
    assert_eq!(refused, (code.to_owned(), param.map(str::to_owned)), "{method} {path}");
}

#[tokio::test]
async fn a_body_is_json_or_refused() {
    let admin = AdminGateway::start().await;
    let check = async |headers: &str, body: Option<&str>, expected: (u16, &str)| {
        let headers = format!("{}{headers}", bearer(ADMIN_TOKEN));
        let refused = admin.ask("POST", "/admin/v1/keys", &headers, body).await;
        let error = refused.json();
        assert_eq!(
            (refused.status, error["error"]["code"].as_str().unwrap_or_default()),
            expected,
            "{headers} {body:?}"
        );
    };
    let good = r#"{"name":"k","policy":"all"}"#;
    check("content-type: text/plain\r\n", Some(good), (415, "unsupported_media_type")).await;
    check("content-type: application/jsonp\r\n", Some(good), (415, "unsupported_media_type")).await;
    check("", None, (415, "unsupported_media_type")).await;
    check("content-encoding: lzma\r\n", Some(good), (415, "unsupported_content_encoding")).await;
    let deep = "[".repeat(10_000);
    for bad in ["{", "nothing", "{} {}", "\u{feff}{}", "{\"name\":\"\\ud800\"}", &deep] {
        check("", Some(bad), (400, "invalid_json")).await;
    }
    for bad in ["[]", "null", "1", "\"x\""] {
        check("", Some(bad), (400, "invalid_json")).await;
    }
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(64 * 1024));
    check("", Some(&large), (413, "request_too_large")).await;
    check("", Some(r#"{"name":"k","policy":"all","name":"l"}"#), (400, "invalid_value")).await;
    assert_eq!(admin.state().await[0]["data"].as_array().map(Vec::len), Some(1), "only the key of the file is there");
    let json = "content-type: Application/JSON; charset=utf-8\r\n";
    let made = admin.ask("POST", "/admin/v1/keys", &format!("{}{json}", bearer(ADMIN_TOKEN)), Some(good)).await;
    assert_eq!(made.status, 201);
}

#[tokio::test]
async fn without_a_token_nothing_is_reported() {
    let admin = AdminGateway::start().await;
    for path in [
        "/admin",
        "/admin/",
        "/admin/v1",
        "/admin/v1/nothing",
        "/admin/v1/keys",
        "/admin/v1/keys/app/rotate",
        "/admin/v2/keys",
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            for body in [None, Some("{"), Some(r#"{"name":"x","policy":"all"}"#)] {
                let answer = admin.ask(method, path, "content-type: text/plain\r\n", body).await;
                assert_eq!((answer.status, answer.header("allow")), (401, None), "{method} {path}");
                assert_eq!(answer.json()["error"]["code"], "invalid_token");
            }
        }
    }
}

#[tokio::test]
async fn who_may_only_look_is_refused_before_anything_is_read() {
    let admin = AdminGateway::start().await;
    let answer = admin.ask("POST", "/admin/v1/keys", &bearer(VIEWER_TOKEN), Some("{")).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (403, Some("forbidden")));
    let head = admin.ask("HEAD", "/admin/v1/keys/app", &bearer(VIEWER_TOKEN), None).await;
    assert_eq!((head.status, head.header("etag")), (200, None), "what is in the file has no version");
    let metrics = crate::admin_gateway::send(&admin.gateway, "GET", "/metrics", &bearer(VIEWER_TOKEN), None).await;
    assert_eq!(metrics.status, 200);
}
