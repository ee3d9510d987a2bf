//! Faults that operators inject: what clients see of them, and who may inject which.
//!
//! Start reading at [`each_kind_is_routed_round`].

use crate::support::gateway::{ADMIN_TOKEN, ALLOW_ALL, VIEWER_TOKEN, provider_table};
use crate::support::{Response, ScriptedProvider, TestGateway, TestRequest, soon};
use serde_json::{Value, json};

/// Two regions, of which `east` is asked first.
struct Staging {
    gateway: TestGateway,
    east: ScriptedProvider,
    west: ScriptedProvider,
}

/// The configuration of two regions; `drill` is its table of that name.
fn config(east: &ScriptedProvider, west: &ScriptedProvider, drill: &str) -> String {
    format!(
        "{}{}[models.m]\ndeployments = [{{ provider = \"east\" }}, {{ provider = \"west\" }}]\n{ALLOW_ALL}\
         [server]\nviewer_token = \"env:VIEWER_TOKEN\"\n[routing]\nbalance = \"ordered\"\nfirst_token = \"2s\"\n\
         silent_after = \"200ms\"\n{drill}",
        provider_table("east", east, "us-east"),
        provider_table("west", west, "us-west"),
    )
}

impl Staging {
    async fn start() -> Self {
        let (east, west) = (ScriptedProvider::start("east").await, ScriptedProvider::start("west").await);
        let gateway = TestGateway::start(&config(&east, &west, "[drill]\nenabled = true\n")).await;
        Self { gateway, east, west }
    }

    /// A request to the fault API with `token`.
    async fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Response {
        let mut client = self.gateway.connect().await;
        let body = body.map_or_else(String::new, |body| {
            let body = body.to_string();
            format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        });
        let end = if body.is_empty() { "\r\n" } else { "" };
        let path = format!("/admin/v1/{path}");
        client
            .send(format!("{method} {path} HTTP/1.1\r\nhost: tests\r\nauthorization: Bearer {token}\r\n{body}{end}"))
            .await;
        client.response().await
    }

    /// Injects a fault and returns it.
    async fn inject(&self, fault: Value) -> Value {
        let answer = self.ask("POST", "faults", ADMIN_TOKEN, Some(&fault)).await;
        assert_eq!(answer.status, 201, "{fault}: {answer:?}");
        answer.json()
    }

    /// The code and field of the error that `fault` is refused with.
    async fn refused(&self, fault: Value) -> (String, String) {
        let answer = self.ask("POST", "faults", ADMIN_TOKEN, Some(&fault)).await;
        assert_eq!(answer.status, 400, "{fault}: {answer:?}");
        let param = answer.json()["error"]["param"].as_str().unwrap_or_default().to_owned();
        (param, answer.text().to_owned())
    }

    async fn listed(&self) -> Vec<Value> {
        let answer = self.ask("GET", "faults", VIEWER_TOKEN, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"].as_array().expect("a list").clone()
    }

    fn active(&self) -> f64 {
        self.gateway.relay.publish_states();
        self.gateway.metric("tierway_faults_active")
    }
}

#[tokio::test]
async fn each_kind_is_routed_round() {
    for (fault, sent) in [
        (json!({ "kind": "refuse" }), false),
        (json!({ "kind": "status", "status": 503 }), false),
        (json!({ "kind": "status", "status": 401 }), false),
        (json!({ "kind": "status", "status": 429 }), false),
        (json!({ "kind": "delay", "delay_ms": 60_000 }), false),
        (json!({ "kind": "cut", "frames": 0 }), true),
    ] {
        for stream in [false, true] {
            // Its reply breaks within a whole answer, and before the first frame of a stream.
            let staging = Staging::start().await;
            let mut asked = fault.clone();
            (asked["region"], asked["expires_in"]) = ("us-east".into(), "1m".into());
            staging.inject(asked.clone()).await;
            let request = if stream { TestRequest::stream("m") } else { TestRequest::chat("m") };
            let answer = request.send_to(&staging.gateway).await;
            let case = format!("{asked} stream {stream}: {answer:?}");
            assert_eq!((answer.status, answer.deployment()), (200, "west/m"), "{case}");
            assert!(answer.chat_text().is_ok() && answer.attempts() == 2, "{case}");
            assert_eq!((staging.east.attempts() > 0, staging.west.attempts()), (sent, 1), "{case}");
        }
    }
}

#[tokio::test]
async fn a_delay_is_waited_out_where_it_is_short() {
    let staging = Staging::start().await;
    staging.inject(json!({ "kind": "delay", "delay_ms": 100, "deployment": "east/m", "expires_in": "1m" })).await;
    let answer = TestRequest::stream("m").send_to(&staging.gateway).await;
    assert_eq!((answer.status, answer.deployment(), answer.attempts()), (200, "east/m", 1), "{answer:?}");
    let receipts = staging.gateway.receipts(1).await;
    assert!(receipts[0].first_token.is_some_and(|took| took.as_millis() >= 100), "{receipts:?}");
}

#[tokio::test]
async fn a_stream_that_is_cut_says_so() {
    let staging = Staging::start().await;
    staging.inject(json!({ "kind": "cut", "frames": 2, "deployment": "east/m", "expires_in": "1m" })).await;
    let answer = TestRequest::stream("m").send_to(&staging.gateway).await;
    let text = answer.text();
    assert!(answer.status == 200 && answer.deployment() == "east/m", "{answer:?}");
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn it_is_seen_audited_and_ends_by_itself() {
    let staging = Staging::start().await;
    let fault = json!({ "kind": "refuse", "region": "us-east", "share": 100, "expires_in": "1s" });
    let injected = staging.inject(fault).await;
    assert_eq!((&injected["id"], &injected["kind"]), (&"1".into(), &"refuse".into()));
    assert_eq!((&injected["region"], &injected["deployment"]), (&"us-east".into(), &Value::Null));
    assert!(injected["expires"].is_string());
    let long = staging
        .inject(json!({ "kind": "delay", "delay_ms": 5, "deployment": "west/m", "share": 7, "expires_in": "10m" }))
        .await;
    soon("the end of the first fault", async {
        while staging.listed().await.len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((staging.listed().await, staging.active()), (vec![long], 1.0));
    let answer = TestRequest::chat("m").send_to(&staging.gateway).await;
    assert_eq!((answer.status, answer.deployment()), (200, "east/m"), "{answer:?}");
    assert_eq!(staging.ask("DELETE", "faults/1", ADMIN_TOKEN, None).await.status, 404);
    assert_eq!(staging.ask("DELETE", "faults/2", ADMIN_TOKEN, None).await.status, 200);
    assert_eq!((staging.listed().await, staging.active()), (vec![], 0.0));
    let rows = staging.ask("GET", "audit?kind=fault", VIEWER_TOKEN, None).await.json();
    let rows: Vec<String> = rows["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| format!("{} {} {}", row["command"], row["name"], row["changes"][0]["after"]))
        .collect();
    let expected = [
        "\"end_fault\" \"deployment west/m\" null",
        "\"inject_fault\" \"deployment west/m\" \"delay 5 ms\"",
        "\"inject_fault\" \"region us-east\" \"refuse\"",
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn what_is_wrong_with_a_fault_is_named() {
    let staging = Staging::start().await;
    for (fault, field, says) in [
        (json!({ "kind": "refuse", "region": "us-east" }), "expires_in", "every fault ends by itself"),
        (json!({ "kind": "refuse", "region": "us-east", "expires_in": "11m" }), "expires_in", "10m"),
        (json!({ "kind": "refuse", "region": "us-east", "expires_in": "0s" }), "expires_in", "1s"),
        (json!({ "kind": "refuse", "region": "mars", "expires_in": "1m" }), "region", "us-east, us-west"),
        (json!({ "kind": "refuse", "deployment": "m", "expires_in": "1m" }), "deployment", "east/m, west/m"),
        (json!({ "kind": "refuse", "expires_in": "1m" }), "deployment", "'region'"),
        (json!({ "kind": "refuse", "region": "us-east", "deployment": "east/m", "expires_in": "1m" }), "region", "one"),
        (json!({ "kind": "delay", "region": "us-east", "expires_in": "1m" }), "delay_ms", "a delay needs it"),
        (json!({ "kind": "status", "status": 200, "region": "us-east", "expires_in": "1m" }), "status", "400 to 599"),
        (json!({ "kind": "refuse", "status": 503, "region": "us-east", "expires_in": "1m" }), "status", "only"),
        (json!({ "kind": "refuse", "region": "us-east", "share": 101, "expires_in": "1m" }), "share", "1 to 100"),
    ] {
        let (param, text) = staging.refused(fault.clone()).await;
        assert!(param == field && text.contains(says), "{fault}: {text}");
    }
    assert_eq!((staging.listed().await, staging.active()), (vec![], 0.0));
}

#[tokio::test]
async fn only_an_operator_injects_and_only_where_it_is_enabled() {
    let staging = Staging::start().await;
    let fault = json!({ "kind": "refuse", "region": "us-east", "expires_in": "1m" });
    assert_eq!(staging.ask("POST", "faults", VIEWER_TOKEN, Some(&fault)).await.status, 403);
    staging.inject(fault.clone()).await;
    assert_eq!(staging.ask("DELETE", "faults/1", VIEWER_TOKEN, None).await.status, 403);
    assert_eq!(staging.active(), 1.0);
    // A configuration that does not enable them ends those that are in force.
    staging.gateway.reload(&config(&staging.east, &staging.west, ""));
    assert_eq!(staging.active(), 0.0);
    for (method, path, body) in
        [("GET", "faults", None), ("POST", "faults", Some(&fault)), ("DELETE", "faults/1", None)]
    {
        let answer = staging.ask(method, path, ADMIN_TOKEN, body).await;
        assert_eq!((answer.status, &*answer.code()), (404, "faults_disabled"), "{method}: {answer:?}");
    }
    let answer = TestRequest::chat("m").send_to(&staging.gateway).await;
    assert_eq!((answer.status, answer.deployment()), (200, "east/m"), "{answer:?}");
}
