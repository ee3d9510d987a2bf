//! Several operators at once: no change is lost, and a change of an outdated version is refused.

use crate::admin_gateway::{AdminGateway, bearer};
use crate::support::gateway::ADMIN_TOKEN;
use serde_json::json;
use std::sync::Arc;

const KEY: &str = "/admin/v1/keys/k";

async fn admin() -> AdminGateway {
    let admin = AdminGateway::start().await;
    admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "k", "policy": "all" }))).await;
    admin.done(201, "POST", "/admin/v1/teams", Some(json!({ "name": "t" }))).await;
    admin
}

fn only(etag: &str) -> String {
    format!("{}if-match: {etag}\r\n", bearer(ADMIN_TOKEN))
}

#[tokio::test]
async fn a_change_is_made_only_of_the_state_it_names() {
    let admin = admin().await;
    for (path, change) in [(KEY, r#"{"team":"a"}"#), ("/admin/v1/teams/t", r#"{"budget":null}"#)] {
        let etag = admin.operate("GET", path, None).await.header("etag").expect("a version").to_owned();
        let head = admin.operate("HEAD", path, None).await;
        assert_eq!(head.header("etag"), Some(etag.as_str()));
        let changed = admin.ask("PATCH", path, &only(&etag), Some(change)).await;
        assert_eq!(changed.status, 200);
        let newer = changed.header("etag").expect("a version").to_owned();
        assert_ne!(newer, etag);
        for stale in [etag.clone(), format!("W/{newer}"), "\"\"".into(), "\"0\", \"x\"".into()] {
            let refused = admin.ask("PATCH", path, &only(&stale), Some(change)).await;
            assert_eq!(
                (refused.status, refused.json()["error"]["code"].as_str()),
                (412, Some("precondition_failed")),
                "{stale}"
            );
        }
        assert_eq!(admin.operate("GET", path, None).await.header("etag"), Some(newer.as_str()));
        for fits in ["*".to_owned(), format!("{etag}, {newer}")] {
            let before = admin.operate("GET", path, None).await.header("etag").expect("a version").to_owned();
            let fits = fits.replace(&newer, &before);
            assert_eq!(admin.ask("PATCH", path, &only(&fits), Some(change)).await.status, 200, "{fits}");
        }
        for wrong in ["7", "\"7", "a", ",", ""] {
            let refused = admin.ask("PATCH", path, &only(wrong), Some(change)).await;
            assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("if-match")), "{wrong}");
        }
    }
    let etag = admin.operate("GET", KEY, None).await.header("etag").expect("a version").to_owned();
    assert_eq!(admin.ask("POST", &format!("{KEY}/rotate"), &only(&etag), None).await.status, 200);
    assert_eq!(admin.ask("POST", &format!("{KEY}/rotate"), &only(&etag), None).await.status, 412);
    assert_eq!(admin.done(200, "GET", KEY, None).await["secrets"].as_array().map(Vec::len), Some(2));
}

/// Ten writers, each of its own field or value, without an expected version.
#[tokio::test]
async fn ten_writers_of_one_key_lose_nothing() {
    let admin = Arc::new(admin().await);
    let fields = [
        json!({ "team": "a" }),
        json!({ "requests_per_minute": 11 }),
        json!({ "tokens_per_minute": 12 }),
        json!({ "max_concurrent": 13 }),
        json!({ "budget": { "limit": "14", "window": "day" } }),
        json!({ "expires": "2037-01-31" }),
        json!({ "policy": "prepaid" }),
        json!({ "disabled": true }),
        json!({}),
    ];
    let writers = fields.into_iter().map(|change| {
        let admin = admin.clone();
        tokio::spawn(async move { admin.done(200, "PATCH", KEY, Some(change)).await })
    });
    let rotation = tokio::spawn({
        let admin = admin.clone();
        async move { admin.done(200, "POST", &format!("{KEY}/rotate"), None).await }
    });
    let writers: Vec<_> = writers.chain([rotation]).collect();
    for writer in writers {
        writer.await.expect("it does not panic");
    }
    let key = admin.done(200, "GET", KEY, None).await;
    let all = ["team", "requests_per_minute", "tokens_per_minute", "max_concurrent", "policy", "disabled"]
        .map(|field| key[field].clone());
    assert_eq!(all, [json!("a"), json!(11), json!(12), json!(13), json!("prepaid"), json!(true)]);
    assert_eq!((&key["budget"]["limit"], &key["expires"]), (&json!("14"), &json!("2037-02-01T00:00:00.000Z")));
    assert_eq!(key["secrets"].as_array().map(Vec::len), Some(2));
}

/// Each increments the value it read, if no other changed it meanwhile.
#[tokio::test]
async fn ten_writers_who_say_what_they_expect_count_to_ten() {
    let admin = Arc::new(admin().await);
    admin.done(200, "PATCH", KEY, Some(json!({ "requests_per_minute": 1 }))).await;
    let writers: Vec<_> = (0..10)
        .map(|_| {
            let admin = admin.clone();
            tokio::spawn(async move {
                loop {
                    let read = admin.operate("GET", KEY, None).await;
                    let etag = only(read.header("etag").expect("a version"));
                    let more = read.json()["requests_per_minute"].as_u64().expect("a number") + 1;
                    let change = json!({ "requests_per_minute": more }).to_string();
                    match admin.ask("PATCH", KEY, &etag, Some(&change)).await.status {
                        200 => break,
                        status => assert_eq!(status, 412),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("it does not panic");
    }
    assert_eq!(admin.done(200, "GET", KEY, None).await["requests_per_minute"], 11);
}

#[tokio::test]
async fn of_ten_who_make_the_same_key_one_does() {
    let admin = Arc::new(AdminGateway::start().await);
    for (path, thing) in
        [("/admin/v1/keys", json!({ "name": "x", "policy": "all" })), ("/admin/v1/teams", json!({ "name": "x" }))]
    {
        let makers: Vec<_> = (0..10)
            .map(|_| {
                let (admin, thing) = (admin.clone(), thing.clone());
                tokio::spawn(async move { admin.operate("POST", path, Some(thing)).await.status })
            })
            .collect();
        let mut statuses = Vec::new();
        for maker in makers {
            statuses.push(maker.await.expect("it does not panic"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409, 409, 409]);
    }
    assert_eq!(admin.done(200, "GET", "/admin/v1/keys/x", None).await["secrets"].as_array().map(Vec::len), Some(1));
}
