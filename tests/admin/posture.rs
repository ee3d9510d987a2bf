//! The six questions of a buyer: a fresh gateway says how to measure each; after traffic and drills each is answered with its
//! source and date.

use crate::admin_gateway::{AdminGateway, bearer};
use crate::support::gateway::{KEY, VIEWER_TOKEN};
use serde_json::Value;
use tierway::domain::drill::report::{DrillReport, ReportedCheck};

const NOVEMBER: i64 = 1_793_491_200_000;

fn report(scenario: &str, name: &str) -> DrillReport {
    let check = ReportedCheck {
        name: name.into(),
        measured: "312 ms".into(),
        objective: Some("1000 ms".into()),
        detail: "p50 41 ms".into(),
        passed: true,
    };
    DrillReport {
        scenario: scenario.into(),
        finished_unix_ms: NOVEMBER,
        configuration: "tierway.toml".into(),
        region: "eu-central".into(),
        policies: vec!["all".into()],
        passed: true,
        checks: vec![check],
    }
}

async fn posture(admin: &AdminGateway, query: &str) -> Vec<Value> {
    let path = format!("/admin/v1/posture{query}");
    let answer = admin.ask("GET", &path, &bearer(VIEWER_TOKEN), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["answers"].as_array().expect("a list").clone()
}

fn measured(answers: &[Value]) -> Vec<bool> {
    answers.iter().map(|answer| answer["measured"] == true).collect()
}

/// Every fact of an answer as `topic: value`.
fn facts(answer: &Value) -> String {
    let facts = answer["facts"].as_array().expect("a list").iter();
    let text = |fact: &Value, member: &str| fact[member].as_str().expect("a text").to_owned();
    facts.map(|fact| format!("{}: {}\n", text(fact, "topic"), text(fact, "value"))).collect()
}

#[tokio::test]
async fn a_fresh_gateway_says_six_times_how_to_measure() {
    let admin = AdminGateway::start().await;
    let answers = posture(&admin, "").await;
    assert_eq!(measured(&answers), [false; 6]);
    for answer in &answers {
        let how = answer["how_to_measure"].as_str().expect("it says how");
        assert!(how.contains("`tierway "), "{how}");
        let mut facts = answer["facts"].as_array().expect("a list").iter();
        assert!(facts.all(|fact| fact["source"].as_str().is_some_and(|source| !source.is_empty())), "{answer:#}");
    }
    assert!(
        facts(&answers[4])
            .contains("policy standard: each key: 100 requests in any 60 s, sliding; 50 requests at once")
    );
}

#[tokio::test]
async fn after_traffic_and_drills_all_six_are_measured() {
    let admin = AdminGateway::start().await;
    admin.keep_drill(report("region-down", "time to route around, p99")).await;
    admin.keep_drill(report("burst-10x", "first token of pro while full, p99")).await;
    for _ in 0..3 {
        let (status, id) = admin.chat(KEY).await;
        assert_eq!(status, 200);
        admin.wait_for_receipt(&id).await;
    }
    let answers = posture(&admin, "").await;
    assert_eq!(measured(&answers), [true; 6], "{answers:#?}");
    for answer in &answers {
        assert_eq!(answer["how_to_measure"], Value::Null, "{answer:#}");
        for fact in answer["facts"].as_array().expect("a list") {
            assert!(
                fact["source"].as_str().is_some_and(|source| !source.is_empty()) && fact["at"].is_string(),
                "{fact}"
            );
        }
    }
    let said: Vec<String> = answers.iter().map(facts).collect();
    assert!(said[0].contains("tier default in eu-central: whole answer p50 "), "{}", said[0]);
    assert!(said[1].contains("region eu-central: 100% of answers (3)"), "{}", said[1]);
    assert!(said[1].contains("policy all: is bound to no region: eu-central"), "{}", said[1]);
    assert!(
        said[2].contains("first token of pro while full, p99: 312 ms, at most 1000 ms: PASS (p50 41 ms)"),
        "{}",
        said[2]
    );
    assert!(!said[2].contains("region-down") && !said[3].contains("burst-10x"), "each drill answers its own question");
    assert!(said[3].contains("drill region-down, eu-central: PASS; time to route around, p99: 312 ms"), "{}", said[3]);
    assert!(said[3].contains("no request needed another attempt"), "{}", said[3]);
    assert!(said[4].contains("in production: 0 of 3 requests were refused by them"), "{}", said[4]);
    assert!(said[5].contains("100% uptime, 0 of 3 failed") && said[5].contains("credits paid: none"), "{}", said[5]);
    let drilled = answers[3]["facts"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|fact| fact["source"] == "drill region-down on tierway.toml");
    assert_eq!(drilled.expect("it is there")["at"], "2026-11-01T00:00:00.000Z");
}

#[tokio::test]
async fn one_policy_is_answered_for_alone() {
    let admin = AdminGateway::start().await;
    let (_, id) = admin.chat(KEY).await;
    admin.wait_for_receipt(&id).await;
    let (of_all, of_standard) = (posture(&admin, "?policy=all").await, posture(&admin, "?policy=standard").await);
    assert_eq!(measured(&of_all), [true, true, false, false, true, true]);
    assert_eq!(measured(&of_standard), [false; 6], "its keys sent nothing, and it promises nothing");
    let limits = facts(&of_standard[4]);
    assert!(limits.contains("policy standard") && !limits.contains("policy all"), "{limits}");
    let (_, param) = admin.refused(400, "GET", "/admin/v1/posture?policy=none", None).await;
    assert_eq!(param.as_deref(), Some("policy"));
    let admin = AdminGateway::without_database().await;
    assert_eq!(admin.refused(404, "GET", "/admin/v1/posture", None).await.0, "no_ledger");
}
