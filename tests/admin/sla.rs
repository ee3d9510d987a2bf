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
    // The metrics count by the same rules.
    let counted = |name: &str| admin.gateway.metric(&format!("tierway_sla_{name}{{policy=\"all\"}}"));
    assert_eq!(["eligible_total", "failed_total", "error_budget_ratio"].map(counted), [2.0, 0.0, 0.001]);
    let same = admin.done(200, "GET", "/admin/v1/sla?policy=all", None).await;
    assert_eq!(same["data"][0]["keys"], report["keys"]);
}

#[tokio::test]
async fn what_a_drill_breaks_counts_neither_way() {
    let admin = AdminGateway::start().await;
    // Another model of the tier serves what the first one cannot.
    let two = admin.config.replace("failures = 1000000", "failures = 3").replace(
        "[tiers.default]\nmodels = [\"org/model\"]",
        "[models.\"org/other\"]\ndeployments = [{ provider = \"eu\" }]\nprice = { input = \"1.00\", output = \"2.00\" }\n\
         context = 1000\nmax_output = 100\n[tiers.default]\nmodels = [\"org/model\", \"org/other\"]",
    );
    assert!(two.contains("org/other"), "{two}");
    admin.gateway.reload(&two);
    let fault = json!({ "kind": "status", "status": 503, "deployment": "eu/org/model", "expires_in": "1m" });
    let fault = admin.done(201, "POST", "/admin/v1/faults", Some(fault)).await;
    // The first requests meet the fault; those after them, a breaker that it opened.
    let (mut attempted, mut passed_over) = (0, 0);
    for _ in 0..20 {
        let (status, id) = admin.chat(KEY).await;
        assert_eq!(status, 200);
        admin.wait_for_receipt(&id).await;
        let receipt = admin.done(200, "GET", &format!("/admin/v1/ledger/{id}"), None).await;
        let marked =
            |list: &str| receipt[list].as_array().expect("a list").iter().any(|one| one["injected_fault"] == true);
        assert!(marked("attempts") || marked("passed_over"), "{receipt:#}");
        attempted += usize::from(marked("attempts"));
        passed_over += usize::from(marked("passed_over"));
    }
    assert!(attempted >= 3 && passed_over > 0, "{attempted} {passed_over}");
    let figures = admin.done(200, "GET", "/admin/v1/sla", None).await["data"][0]["figures"].take();
    let counted = ["requests", "eligible", "failed"].map(|name| figures[name].clone());
    assert_eq!(counted, [json!(20), json!(0), json!(0)], "{figures:#}");
    assert_eq!(admin.gateway.metric("tierway_sla_eligible_total{policy=\"all\"}"), 0.0);
    let id = fault["id"].as_str().expect("an id");
    admin.done(200, "DELETE", &format!("/admin/v1/faults/{id}"), None).await;
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
