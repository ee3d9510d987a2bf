//! What operators change through the API is in the audit, and what is refused is not.

use crate::admin_gateway::AdminGateway;
use serde_json::{Value, json};

#[tokio::test]
async fn every_change_of_the_api_has_a_row() {
    let admin = AdminGateway::start().await;
    let made = admin.operate("POST", "/admin/v1/keys", Some(json!({ "name": "k", "policy": "standard" }))).await;
    assert_eq!(made.status, 201);
    admin.done(200, "PATCH", "/admin/v1/keys/k", Some(json!({ "max_concurrent": 3, "team": "growth" }))).await;
    admin.done(200, "POST", "/admin/v1/keys/k/rotate", None).await;
    admin.done(201, "POST", "/admin/v1/credits/grants", Some(json!({ "team": "growth", "amount": "2.5" }))).await;
    admin.done(200, "POST", "/admin/v1/deployments/eu%2Forg%2Fmodel/resume", None).await;
    for refused in [json!({ "name": "k", "policy": "standard" }), json!({ "name": "x", "policy": "none" })] {
        assert!(admin.operate("POST", "/admin/v1/keys", Some(refused)).await.status >= 400);
    }
    assert_eq!(admin.operate("POST", "/admin/v1/deployments/nothing/resume", None).await.status, 404);
    let rows = admin.done(200, "GET", "/admin/v1/audit", None).await["data"].take();
    let rows = rows.as_array().expect("a list");
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let shown: Vec<(String, String, String)> =
        rows.iter().rev().map(|row| (text(row, "command"), text(row, "kind"), text(row, "name"))).collect();
    let expected = [
        ("create_key", "key", "k"),
        ("change_key", "key", "k"),
        ("rotate_key", "key", "k"),
        ("grant_credit", "team", "growth"),
        ("resume_deployment", "deployment", "eu/org/model"),
    ];
    assert_eq!(shown, expected.map(|(command, kind, name)| (command.into(), kind.into(), name.into())));
    for row in rows {
        assert_eq!(
            (text(row, "who"), text(row, "origin")),
            ("admin token".to_owned(), "127.0.0.1".to_owned()),
            "{row}"
        );
        assert!(text(row, "request_id").starts_with("req_"));
    }
    assert_eq!(rows[4]["request_id"].as_str(), made.header("x-request-id"));
    let limit = json!({ "field": "max_concurrent", "before": null, "after": "3" });
    assert!(rows[3]["changes"].as_array().expect("a list").contains(&limit), "{}", rows[3]);
    // By page, and by what is looked for.
    let page = admin.done(200, "GET", "/admin/v1/audit?limit=2&kind=key", None).await;
    let numbers =
        |page: &Value| page["data"].as_array().map(|rows| rows.iter().map(|row| row["number"].clone()).collect());
    assert_eq!((numbers(&page), &page["has_more"]), (Some(vec![json!(3), json!(2)]), &json!(true)));
    let rest = format!("/admin/v1/audit?limit=2&kind=key&after={}", page["next"].as_str().expect("a cursor"));
    let page = admin.done(200, "GET", &rest, None).await;
    assert_eq!((numbers(&page), &page["has_more"]), (Some(vec![json!(1)]), &json!(false)));
    let none = admin.done(200, "GET", "/admin/v1/audit?until=2020-01-01&name=k", None).await;
    assert_eq!(numbers(&none), Some(vec![]));
}
