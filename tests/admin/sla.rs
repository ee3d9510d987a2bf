//! SLAs as operators read them; what counts and how a month is closed is tested on the database.

use crate::admin_gateway::AdminGateway;
use crate::support::gateway::KEY;
use serde_json::{Value, json};

#[tokio::test]
async fn the_month_that_is_running_is_reported_to_date() {
    let admin = AdminGateway::start().await;
    for _ in 0..2 {
        let id = admin.chat(KEY).await.1;
        admin.wait_for_receipt(&id).await;
    }
    let list = admin.done(200, "GET", "/admin/v1/sla", None).await;
    let report = &list["data"][0];
    assert_eq!((&report["policy"], &report["is_over"]), (&json!("all"), &json!(false)), "{list:#}");
    assert_eq!((&report["promise"]["uptime"], &report["promise"]["measure"]), (&json!("99.9%"), &json!("requests")));
    let figures = &report["figures"];
    assert_eq!((&figures["eligible"], &figures["failed"], &figures["uptime"]), (&json!(2), &json!(0), &json!("100%")));
    assert_eq!((&report["step"], &report["closings"]), (&Value::Null, &json!([])));
    let same = admin.done(200, "GET", "/admin/v1/sla?policy=all", None).await;
    assert_eq!(same["data"][0]["keys"], report["keys"]);
}

#[tokio::test]
async fn what_cannot_be_reported_is_refused() {
    let admin = AdminGateway::start().await;
    for (query, field) in [("policy=none", "policy"), ("month=8999-12", "month"), ("month=2026-13", "month")] {
        let (_, param) = admin.refused(400, "GET", &format!("/admin/v1/sla?{query}"), None).await;
        assert_eq!(param.as_deref(), Some(field), "{query}");
    }
    let admin = AdminGateway::without_database().await;
    assert_eq!(admin.refused(404, "GET", "/admin/v1/sla", None).await.0, "no_ledger");
}
