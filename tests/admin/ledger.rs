//! The ledger and sums over it, as operators read them.

use crate::admin_gateway::AdminGateway;
use crate::config::MODEL;
use crate::support::gateway::KEY;
use serde_json::{Value, json};

/// Four requests of two keys, the last of them refused; their ids, oldest first. A fifth has no key.
async fn busy(admin: &AdminGateway) -> Vec<String> {
    let key = json!({ "name": "g", "policy": "all", "team": "growth" });
    let secret = admin.done(201, "POST", "/admin/v1/keys", Some(key)).await["secret"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for secret in [KEY, &secret, KEY] {
        ids.push(admin.chat(secret).await.1);
    }
    admin.chat("wrong").await;
    ids.push(admin.chat_with(KEY, "unknown").await.1);
    for id in &ids {
        admin.wait_for_receipt(id).await;
    }
    ids
}

fn ids(list: &Value) -> Vec<String> {
    let items = list["data"].as_array().expect("a list").iter();
    items.map(|one| one["request_id"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn requests_are_listed_the_newest_first() {
    let admin = AdminGateway::start().await;
    let asked = busy(&admin).await;
    let newest: Vec<_> = asked.iter().rev().cloned().collect();
    let list = async |query: &str| admin.done(200, "GET", &format!("/admin/v1/ledger?{query}"), None).await;
    assert_eq!(ids(&list("").await), newest);
    assert_eq!(ids(&list("key=g").await), [asked[1].clone()]);
    assert_eq!(ids(&list("team=growth&since=1h").await), [asked[1].clone()]);
    assert_eq!(ids(&list("key=-").await), Vec::<String>::new());
    assert_eq!(ids(&list("reason=model_not_found").await), [asked[3].clone()]);
    assert_eq!(ids(&list(&format!("model={}", MODEL.replace('/', "%2F"))).await), newest[1..]);
    assert_eq!(ids(&list("until=1h").await), Vec::<String>::new());
    assert_eq!(ids(&list("since=2999-01-01").await), Vec::<String>::new());
    assert_eq!(ids(&list("until=2999-01-01T00:00:00Z").await), newest);
    let first = list("limit=3").await;
    assert_eq!((ids(&first), &first["has_more"]), (newest[..3].to_vec(), &json!(true)));
    let rest = list(&format!("limit=3&after={}", first["next"].as_str().unwrap())).await;
    assert_eq!((ids(&rest), &rest["next"]), (newest[3..].to_vec(), &Value::Null));
}

#[tokio::test]
async fn one_request_is_found_by_its_name() {
    let admin = AdminGateway::start().await;
    let asked = busy(&admin).await;
    let found = admin.done(200, "GET", &format!("/admin/v1/ledger/{}", asked[1]), None).await;
    assert_eq!((&found["key"], &found["team"], &found["outcome"]), (&json!("g"), &json!("growth"), &json!("served")));
    assert_eq!((&found["attempts"][0]["reason"], &found["model"]), (&json!("served"), &json!(MODEL)));
    assert_ne!(found["cost_usd"], "0");
    for nobody in ["req_00000000000000000000000000000000", "req_1", "x%2Fy", "%ff"] {
        let refused = admin.refused(404, "GET", &format!("/admin/v1/ledger/{nobody}"), None).await;
        assert_eq!(refused, ("not_found".into(), None));
    }
}

#[tokio::test]
async fn usage_is_summed_by_whatever_is_asked() {
    let admin = AdminGateway::start().await;
    busy(&admin).await;
    let usage = async |query: &str| admin.done(200, "GET", &format!("/admin/v1/usage?{query}"), None).await;
    let by_key = usage("").await;
    assert_eq!((&by_key["by"], &by_key["total"]["requests"]), (&json!(["key"]), &json!(4)));
    let rows: Vec<_> =
        by_key["data"].as_array().unwrap().iter().map(|row| (row["key"].clone(), row["requests"].clone())).collect();
    assert_eq!(rows, [(json!("app"), json!(3)), (json!("g"), json!(1))]);
    let one = usage("by=team,model&since=30d&key=g").await;
    assert_eq!((&one["data"][0]["team"], &one["data"][0]["model"]), (&json!("growth"), &json!(MODEL)));
    assert_eq!(
        (&one["data"][0]["cost_usd"], &one["data"].as_array().map(Vec::len)),
        (&one["total"]["cost_usd"], &Some(1))
    );
    assert!(one["since"].is_string() && one["until"].is_null());
    assert_eq!(usage("until=30d").await["data"], json!([]));
    for (query, param) in [
        ("by=", "by"),
        ("by=key,key", "by"),
        ("by=Key", "by"),
        ("since=yesterday", "since"),
        ("who=x", "who"),
        ("key=a&key=b", "key"),
    ] {
        let refused = admin.refused(400, "GET", &format!("/admin/v1/usage?{query}"), None).await;
        assert_eq!(refused, ("invalid_value".into(), Some(param.into())), "{query}");
    }
}

#[tokio::test]
async fn a_gateway_without_a_ledger_reports_that() {
    let admin = AdminGateway::without_database().await;
    for path in ["usage", "ledger", "ledger/req_00000000000000000000000000000000"] {
        assert_eq!(admin.refused(404, "GET", &format!("/admin/v1/{path}"), None).await, ("no_ledger".into(), None));
    }
    let made = admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "k", "policy": "all" }))).await;
    assert_eq!(admin.chat(made["secret"].as_str().unwrap()).await.0, 200);
}
