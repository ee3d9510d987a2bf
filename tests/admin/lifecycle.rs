//! Keys, teams and credit from their creation to their end.

use crate::admin_gateway::AdminGateway;
use serde_json::{Value, json};

fn secret(issued: &Value) -> String {
    issued["secret"].as_str().expect("it is shown once").to_owned()
}

#[tokio::test]
async fn a_key_is_created_used_rotated_and_disabled() {
    let admin = AdminGateway::start().await;
    let made = admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "app-2", "policy": "standard" }))).await;
    let first = secret(&made);
    assert!(first.starts_with("tw_standard_"));
    assert_eq!((&made["state"], &made["source"], &made["team"]), (&json!("active"), &json!("store"), &Value::Null));
    assert_eq!(made["effective"]["requests_per_minute"], 100);
    assert_eq!(
        made["effective"]["budgets"][0],
        json!({ "of": "key", "name": "app-2", "limit": "500", "window": "month", "zone": "UTC" })
    );
    assert_eq!(admin.chat(&first).await.0, 200);

    let key = "/admin/v1/keys/app-2";
    let rotated = admin.done(200, "POST", &format!("{key}/rotate"), None).await;
    let second = secret(&rotated);
    assert_eq!((admin.chat(&first).await.0, admin.chat(&second).await.0), (200, 200));
    let shown = admin.done(200, "GET", key, None).await;
    assert!(shown["secrets"][0]["ends"].is_string() && shown["secrets"][1]["ends"].is_null(), "{shown}");
    assert!(shown["secrets"][0]["last_used"].is_string() && shown["secrets"][1]["last_used"].is_string(), "{shown}");

    let third = secret(&admin.done(200, "POST", &format!("{key}/rotate"), Some(json!({ "overlap": "0s" }))).await);
    let statuses = [admin.chat(&first).await.0, admin.chat(&second).await.0, admin.chat(&third).await.0];
    assert_eq!(statuses, [401, 401, 200]);

    let disabled = admin.done(200, "PATCH", key, Some(json!({ "disabled": true }))).await;
    assert_eq!((&disabled["state"], &disabled["disabled"]), (&json!("disabled"), &json!(true)));
    assert_eq!(admin.chat(&third).await.0, 401);
    let expired = admin.done(200, "PATCH", key, Some(json!({ "disabled": false, "expires": "2020-01-31" }))).await;
    assert_eq!((&expired["state"], &expired["expires"]), (&json!("expired"), &json!("2020-02-01T00:00:00.000Z")));
    assert_eq!(admin.chat(&third).await.0, 401);
    admin.done(200, "PATCH", key, Some(json!({ "expires": null }))).await;
    assert_eq!(admin.chat(&third).await.0, 200);
}

#[tokio::test]
async fn a_key_is_changed_field_by_field() {
    let admin = AdminGateway::start().await;
    let budget = json!({ "limit": "5.5", "window": "day", "zone": "Europe/Paris" });
    let all = json!({
        "name": "team/app:1", "policy": "standard", "team": "growth", "requests_per_minute": 50, "tokens_per_minute": 1000,
        "max_concurrent": 4, "budget": budget, "expires": "2037-01-31T12:00:00+02:00",
    });
    let made = admin.done(201, "POST", "/admin/v1/keys", Some(all.clone())).await;
    for (field, value) in all.as_object().expect("an object") {
        let expected = if field == "expires" { json!("2037-01-31T10:00:00.000Z") } else { value.clone() };
        assert_eq!(made[field], expected, "{field}");
    }
    let path = "/admin/v1/keys/team%2Fapp:1";
    let changes = [
        ("policy", json!("all"), json!("all")),
        ("team", json!("sales"), json!("sales")),
        ("team", Value::Null, Value::Null),
        ("requests_per_minute", json!(10), json!(10)),
        ("requests_per_minute", Value::Null, Value::Null),
        ("tokens_per_minute", json!(9_007_199_254_740_991_u64), json!(9_007_199_254_740_991_u64)),
        ("tokens_per_minute", Value::Null, Value::Null),
        ("max_concurrent", json!(1), json!(1)),
        ("max_concurrent", Value::Null, Value::Null),
        (
            "budget",
            json!({ "limit": "0.000000001", "window": "none" }),
            json!({ "limit": "0.000000001", "window": "none", "zone": null }),
        ),
        ("budget", Value::Null, Value::Null),
        ("expires", json!("2037-01-31"), json!("2037-02-01T00:00:00.000Z")),
        ("expires", Value::Null, Value::Null),
    ];
    let mut before = made;
    before.as_object_mut().expect("an object").remove("secret");
    for (field, value, expected) in changes {
        let after = admin.done(200, "PATCH", path, Some(json!({ field: value }))).await;
        assert_eq!(after[field], expected, "{field}");
        assert_eq!(admin.done(200, "GET", path, None).await, after);
        for other in
            ["policy", "team", "requests_per_minute", "tokens_per_minute", "max_concurrent", "budget", "expires"]
        {
            assert!(other == field || after[other] == before[other], "{field} changed {other}");
        }
        before = after;
    }
}

#[tokio::test]
async fn a_secret_that_exists_is_imported_by_its_hash() {
    let admin = AdminGateway::start().await;
    let hash = "sha256:f3c1a2b4d5e6978012345678deadbeefcafebabe0123456789abcdef55aa55aa";
    let made =
        admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "old", "policy": "all", "hash": hash }))).await;
    assert_eq!((&made["secret"], &made["secrets"][0]["id"]), (&Value::Null, &json!("f3c1a2b4d5e6")));
    let twice = json!({ "name": "other", "policy": "all", "hash": hash });
    assert_eq!(
        admin.refused(409, "POST", "/admin/v1/keys", Some(twice)).await,
        ("conflict".into(), Some("hash".into()))
    );
    let listed = admin.operate("GET", "/admin/v1/keys", None).await;
    assert!(!listed.text().contains(&hash[7..]));
}

#[tokio::test]
async fn a_teams_budget_applies_to_all_its_keys_at_once() {
    let admin = AdminGateway::start().await;
    let team = json!({ "name": "growth", "budget": { "limit": "0.000001", "window": "month" } });
    let made = admin.done(201, "POST", "/admin/v1/teams", Some(team)).await;
    assert_eq!(made["budget"], json!({ "limit": "0.000001", "window": "month", "zone": "UTC" }));
    let key = json!({ "name": "g", "policy": "all", "team": "growth" });
    let secret = secret(&admin.done(201, "POST", "/admin/v1/keys", Some(key)).await);
    assert_eq!(admin.chat(&secret).await.0, 429);
    admin
        .done(200, "PATCH", "/admin/v1/teams/growth", Some(json!({ "budget": { "limit": "1", "window": "month" } })))
        .await;
    assert_eq!(admin.chat(&secret).await.0, 200);
    admin.done(200, "PATCH", "/admin/v1/teams/growth", Some(json!({ "budget": null }))).await;
    assert_eq!(admin.done(200, "GET", "/admin/v1/teams/growth", None).await["budget"], Value::Null);
    let names = |list: &Value| {
        list["data"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&admin.done(200, "GET", "/admin/v1/teams", None).await), ["growth", "sales"]);
    assert_eq!(names(&admin.done(200, "GET", "/admin/v1/keys?team=growth", None).await), ["g"]);
    assert_eq!(names(&admin.done(200, "GET", "/admin/v1/keys?policy=all", None).await), ["app", "g"]);
    assert_eq!(names(&admin.done(200, "GET", "/admin/v1/keys?policy=all&team=-", None).await), [Value::Null; 0]);
}

#[tokio::test]
async fn credit_is_granted_spent_and_taken_back() {
    let admin = AdminGateway::start().await;
    let key = json!({ "name": "p", "policy": "prepaid", "team": "growth" });
    let secret = secret(&admin.done(201, "POST", "/admin/v1/keys", Some(key)).await);
    assert_eq!(admin.chat(&secret).await.0, 429, "nothing is served that credit does not cover");
    let grants = "/admin/v1/credits/grants";
    let given =
        admin.done(201, "POST", grants, Some(json!({ "key": "p", "amount": "10.00", "reason": "invoice 7" }))).await;
    assert_eq!(
        (&given["key"], &given["team"], &given["amount"], &given["reason"]),
        (&json!("p"), &Value::Null, &json!("10"), &json!("invoice 7"))
    );
    let (status, id) = admin.chat(&secret).await;
    assert_eq!(status, 200);
    admin.wait_for_receipt(&id).await;
    admin.done(201, "POST", grants, Some(json!({ "team": "growth", "amount": "2.50" }))).await;
    admin.done(201, "POST", grants, Some(json!({ "key": "p", "amount": "-4" }))).await;
    let balances = admin.done(200, "GET", "/admin/v1/credits", None).await;
    let of = |at: usize, field: &str| balances["data"][at][field].as_str().expect("money").to_owned();
    assert_eq!((of(0, "granted"), of(1, "granted"), of(1, "left")), ("6".into(), "2.5".into(), "2.5".into()));
    assert_ne!(of(0, "spent"), "0");
    let ids = |list: &Value| {
        list["data"].as_array().expect("a list").iter().map(|one| one["amount"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&admin.done(200, "GET", grants, None).await), ["10", "2.5", "-4"]);
    assert_eq!(ids(&admin.done(200, "GET", &format!("{grants}?key=p"), None).await), ["10", "-4"]);
    assert_eq!(ids(&admin.done(200, "GET", &format!("{grants}?team=growth"), None).await), ["2.5"]);
}

#[tokio::test]
async fn lists_are_read_page_by_page_without_loss() {
    let admin = AdminGateway::start().await;
    for at in 0..7 {
        admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": format!("k{at}"), "policy": "all" }))).await;
        admin.done(201, "POST", "/admin/v1/teams", Some(json!({ "name": format!("t{at}") }))).await;
        let holder = if at % 2 == 0 { "key" } else { "team" };
        let grant = json!({ holder: format!("{}{at}", &holder[..1]), "amount": "1" });
        admin.done(201, "POST", "/admin/v1/credits/grants", Some(grant)).await;
    }
    for (path, expected) in [("keys", 8), ("teams", 8), ("credits", 7), ("credits/grants", 7)] {
        let whole = admin.done(200, "GET", &format!("/admin/v1/{path}"), None).await;
        assert_eq!((&whole["has_more"], &whole["next"]), (&json!(false), &Value::Null));
        assert_eq!(whole["data"].as_array().map(Vec::len), Some(expected), "{path}");
        for limit in [1, 3, 7, 8, 1000] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let page = admin.done(200, "GET", &format!("/admin/v1/{path}?limit={limit}{after}"), None).await;
                found.extend(page["data"].as_array().expect("a list").clone());
                let Some(next) = page["next"].as_str() else { break };
                assert_eq!(page["data"].as_array().map(Vec::len), Some(limit), "a page with more after it is full");
                after = format!("&after={next}");
            }
            assert_eq!(Value::Array(found), whole["data"], "{path} by {limit}");
        }
    }
}
