//! Probes of SLAs, in paused time: the gateway sends them by itself, over the path of every request.

use crate::support::gateway::{ALLOW_ALL, BEARER, compile};
use axum::body::Body;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::domain::receipt::{Outcome, Receipt};
use tierway::domain::replica::{ReplicaHistory, ReplicaView};
use tierway::http::public_handler;
use tierway::random::Rng;
use tierway::store::Stores;
use tierway::store::divided::ReplicaDivision;
use tierway::store::memory::MemoryLedger;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;

const MODELS: &str = r#"
[providers.near]
protocol    = "sim"
first_token = "40ms"

[models."org/model"]
price       = { input = "0.10", output = "0.25" }
context     = 1000
max_output  = 100
deployments = [{ provider = "near" }]

[tiers.default]
models = ["org/model"]

[sla]
probe = "30s"
"#;

/// One request a minute for each key, and little money.
fn config(more: &str) -> String {
    let policy =
        "reserved = true\nsla = { uptime = \"99.9%\" }\nrequests_per_minute = 1\nbudget = { limit = \"0.01\" }";
    format!("{MODELS}{ALLOW_ALL}{more}").replace("reserved = true", policy)
}

/// A gateway without a listener, whose probes are sent in the runtime of the test.
struct Probed {
    gateway: Gateway,
    ledger: Arc<MemoryLedger>,
    telemetry: Arc<Telemetry>,
}

impl Probed {
    async fn start(config: &str, division: ReplicaDivision) -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        let log = AccessLog::to_writer(Box::new(std::io::sink()));
        let telemetry = Arc::new(Telemetry::new(log, BuildMetadata { version: "0.0.0-test", revision: None }));
        let stores = Stores { ledger: ledger.clone(), division: Arc::new(division), ..Stores::memory().await };
        let gateway = Gateway::build(compile(config), None, telemetry.clone(), Rng::seeded(1), Clock, stores);
        let gateway = gateway.unwrap_or_else(|error| panic!("the gateway cannot be built: {error}"));
        tokio::spawn(gateway.probe_slas());
        Self { gateway, ledger, telemetry }
    }

    fn receipts(&self) -> Vec<Arc<Receipt>> {
        self.ledger.recent()
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.telemetry.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in\n{text}")).parse().expect("a metric's value is a number")
    }

    async fn chat(&self) -> u16 {
        let request =
            http::Request::post("/v1/chat/completions").header("host", "tests").header("authorization", BEARER);
        let body = r#"{"model":"default","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}"#;
        let request = request.body(Body::from(body)).unwrap();
        let answer = public_handler(self.gateway.app.clone(), false).handle(request, None).await;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        status
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_probed_at_its_interval_and_its_keys_keep_what_is_theirs() {
    let probed = Probed::start(&config(""), ReplicaDivision::default()).await;
    assert_eq!(probed.metric("tierway_sla_probes_total{policy=\"everything\"}"), 0.0, "it is seen from the start");
    tokio::time::sleep(Duration::from_secs(125)).await;
    let receipts = probed.receipts();
    assert_eq!(receipts.len(), 5, "at 0, 30, 60, 90 and 120 s, which no limit of the policy holds");
    for receipt in &receipts {
        let seen = (receipt.key.as_deref(), receipt.policy.as_deref(), receipt.team.as_deref());
        assert_eq!(seen, (Some("sla probe"), Some("everything"), None));
        assert_eq!((receipt.outcome, receipt.status, receipt.stream), (Outcome::Served, 200, true));
        assert_eq!((receipt.asked_model.as_deref(), receipt.attempts.len()), (Some("default"), 1));
        assert!(receipt.cost.0 > 0 && receipt.charges.is_empty(), "the operator sees what it cost, and nobody pays");
    }
    assert_eq!(probed.metric("tierway_sla_probes_total{policy=\"everything\"}"), 5.0);
    assert_eq!(probed.metric("tierway_sla_eligible_total{policy=\"everything\"}"), 0.0);
    // The key has its one request of the minute, and its budget.
    assert_eq!([probed.chat().await, probed.chat().await], [200, 429]);
    assert_eq!(probed.metric("tierway_sla_eligible_total{policy=\"everything\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn slow_probes_are_sent_as_often_as_quick_ones() {
    let slow = config("").replace("\"40ms\"", "\"50s\"").replace("probe = \"30s\"", "probe = \"5s\"");
    let probed = Probed::start(&slow, ReplicaDivision::default()).await;
    tokio::time::sleep(Duration::from_secs(132)).await;
    let received: Vec<i64> = probed.receipts().iter().map(|receipt| receipt.received_unix_ms).collect();
    assert!(received.len() >= 16, "those that were sent in the first 80 s have ended, one each 5 s: {received:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_no_provider_answers_has_failed() {
    let dead = config("").replace("first_token = \"40ms\"", "first_token = \"40ms\"\nerror_rate = \"100%\"");
    let probed = Probed::start(&dead, ReplicaDivision::default()).await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert!(probed.receipts().iter().all(|receipt| receipt.status >= 500), "{:?}", probed.receipts());
    assert_eq!(probed.metric("tierway_sla_probes_failed_total{policy=\"everything\"}"), 3.0);
    assert_eq!(probed.metric("tierway_sla_failed_total{policy=\"everything\"}"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_that_was_not_asked_for_nor_by_a_second_gateway_nor_while_it_stops() {
    let check = async |config: &str, division: ReplicaDivision, stops: bool| {
        let probed = Probed::start(config, division).await;
        if stops {
            let lifecycle = probed.gateway.lifecycle.clone();
            tokio::spawn(async move { lifecycle.shut_down(Duration::from_secs(3_600), Duration::from_secs(1)).await });
        }
        tokio::time::sleep(Duration::from_secs(125)).await;
        probed.receipts().len()
    };
    assert_eq!(check(&config("").replace("[sla]\nprobe = \"30s\"", ""), ReplicaDivision::default(), false).await, 0);
    let second = ReplicaDivision::default();
    second.set(ReplicaHistory::default().observe(ReplicaView { alive: 2, before: 1, joined: None }, Duration::ZERO));
    assert_eq!(check(&config(""), second, false).await, 0);
    assert!(check(&config(""), ReplicaDivision::default(), true).await <= 1, "but for one at its start");
}
