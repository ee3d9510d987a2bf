//! The status that operators read: whose fault it is that a deployment does not get its traffic.

use crate::support::gateway::{ADMIN_TOKEN, ALLOW_ALL, CREDENTIAL, VIEWER_TOKEN, provider_table};
use crate::support::{Fault, ScriptedProvider, TestGateway, TestRequest, soon};
use serde_json::Value;

const SENTENCE: &str = "Refused by the script";

/// A healthy region and one that is about to break.
struct Gateway {
    gateway: TestGateway,
    bad: ScriptedProvider,
    _good: ScriptedProvider,
}

impl Gateway {
    async fn start() -> Self {
        let (bad, good) = (ScriptedProvider::start("bad").await, ScriptedProvider::start("good").await);
        let config = format!(
            "{}{}[models.broken]\ndeployments = [{{ provider = \"bad\" }}]\nfirst_token = \"800ms\"\n\
             [models.small]\ndeployments = [{{ provider = \"good\" }}]\n{ALLOW_ALL}\
             [tiers.default]\nmodels = [\"small\", \"broken\"]\n\
             [server]\nviewer_token = \"env:VIEWER_TOKEN\"\n\
             [routing]\nsilent_after = \"200ms\"\nmax_attempts = 1\n",
            provider_table("bad", &bad, "east"),
            provider_table("good", &good, "west"),
        );
        Self { gateway: TestGateway::start(&config).await, bad, _good: good }
    }

    async fn status(&self, token: &str) -> Value {
        let mut client = self.gateway.connect().await;
        client.get("/admin/v1/status", &[("authorization", &format!("Bearer {token}"))]).await;
        let answer = client.response().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        for secret in [CREDENTIAL, ADMIN_TOKEN, VIEWER_TOKEN] {
            assert!(!answer.text().contains(secret), "{answer:?}");
        }
        answer.json()
    }

    async fn deployment(&self, name: &str) -> Value {
        let mut status = self.status(VIEWER_TOKEN).await;
        let all = status["deployments"].as_array_mut().expect("a list");
        all.iter_mut().find(|one| one["deployment"] == name).expect("it is listed").take()
    }

    /// Asks until the broken deployment has this state, and returns its status.
    async fn asked_until(&self, state: &str) -> Value {
        soon(state, async {
            loop {
                TestRequest::stream("broken").send_to(&self.gateway).await;
                let deployment = self.deployment("bad/broken").await;
                if deployment["state"] == state {
                    return deployment;
                }
            }
        })
        .await
    }
}

/// A provider with this fault is in `state` for `cause`, and its last failure is for `reason`.
async fn check(fault: Fault, [state, cause, reason]: [&str; 3], credential: &str) {
    let gateway = Gateway::start().await;
    gateway.bad.break_with(fault).await;
    TestRequest::chat("small").send_to(&gateway.gateway).await;
    let broken = gateway.asked_until(state).await;
    let case = format!("{fault:?}: {broken:#}");
    assert_eq!((&broken["cause"], &broken["provider"]), (&cause.into(), &"bad".into()), "{case}");
    assert_eq!(broken["url"], gateway.bad.base_url(), "{case}");
    assert!(broken["since"].is_string() && broken["next_probe"].is_string(), "{case}");
    let failure = &broken["last_failure"];
    assert_eq!((&failure["reason"], &failure["credential"]), (&reason.into(), &"CREDENTIAL".into()), "{case}");
    if let Some(status) = failure["status"].as_u64() {
        let detail = failure["detail"].as_str().expect("a line");
        assert!(detail.contains(&format!("HTTP {status}")) && detail.contains(SENTENCE), "{case}");
    }
    assert_eq!(broken["credentials"][0]["name"], "CREDENTIAL", "{case}");
    assert_eq!(broken["credentials"][0]["state"], credential, "{case}");
    assert_eq!(broken["last_success"], Value::Null, "{case}");

    let good = gateway.deployment("good/small").await;
    assert_eq!((&good["state"], &good["cause"]), (&"closed".into(), &Value::Null), "{case}");
    assert_eq!((&good["last_failure"], &good["tiers"]), (&Value::Null, &vec!["default"].into()), "{case}");
    assert!(good["last_success"].is_string() && good["whole_answer"]["p50_us"].is_u64(), "{case}");
    assert_eq!(gateway.status(ADMIN_TOKEN).await["flows"], false, "{case}");
}

#[tokio::test]
async fn a_refused_credential_is_named_by_its_variable() {
    check(Fault::Status401, ["resting", "credential_refused", "credential_refused"], "refused").await;
}

#[tokio::test]
async fn a_throttled_credential_is_named_with_when_it_is_tried_again() {
    check(Fault::Status429, ["resting", "throttled", "throttled"], "throttled").await;
}

#[tokio::test]
async fn a_broken_provider_is_named_with_what_it_said() {
    check(Fault::Status503, ["open", "consecutive", "upstream_status"], "accepted").await;
    check(Fault::PortClosed, ["open", "consecutive", "unreachable"], "accepted").await;
}

#[tokio::test]
async fn an_unknown_model_rests() {
    check(Fault::Status404, ["resting", "not_found", "upstream_not_found"], "accepted").await;
}

#[tokio::test]
async fn a_silent_provider_is_named_before_its_breaker_opens() {
    check(Fault::SilentBeforeHeaders, ["silent", "silent", "first_token_timeout"], "accepted").await;
}

#[tokio::test]
async fn what_a_client_did_wrong_is_no_failure_of_a_deployment() {
    let gateway = Gateway::start().await;
    let refused = crate::support::Script::status(400).json(&serde_json::json!({ "error": { "message": "no" } }));
    gateway.bad.answers_once(refused);
    TestRequest::chat("broken").send_to(&gateway.gateway).await;
    assert_eq!(gateway.deployment("bad/broken").await["last_failure"], Value::Null);
    assert_eq!(gateway.status(VIEWER_TOKEN).await["flows"], true);
}
