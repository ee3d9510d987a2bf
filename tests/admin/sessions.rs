//! Sessions of browsers, and what those who are signed in watch: the event stream and the history.

use crate::admin_gateway::{AdminGateway, bearer, send};
use crate::support::client::Client;
use crate::support::gateway::{ADMIN_TOKEN, KEY, VIEWER_TOKEN};
use serde_json::{Value, json};
use tierway::domain::secret::Secret;
use tierway::http::ops::OperatorTokens;
use tierway::telemetry::live::MOST_WATCHERS;

const SESSION: &str = "/admin/v1/session";

/// A browser that signed in.
struct Browser {
    /// The header lines of its cookie, and of what a change presents besides.
    cookie: String,
    csrf: String,
}

impl Browser {
    async fn sign_in(admin: &AdminGateway, token: &str) -> Self {
        let answer = admin.ask("POST", SESSION, &bearer(token), None).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let set = answer.header("set-cookie").expect("a cookie").to_owned();
        assert!(set.starts_with("tierway_session=tws_") && set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = set.split(';').next().unwrap_or_default();
        let csrf = answer.json()["csrf"].as_str().expect("a text").to_owned();
        Self { cookie: format!("cookie: theme=dark; {cookie}\r\n"), csrf: format!("x-tierway-csrf: {csrf}\r\n") }
    }

    async fn status(&self, admin: &AdminGateway, method: &str, path: &str, body: Option<Value>) -> u16 {
        let headers = format!("{}{}", self.cookie, self.csrf);
        admin.ask(method, path, &headers, body.map(|body| body.to_string()).as_deref()).await.status
    }
}

fn new_key(name: &str) -> Value {
    json!({ "name": name, "policy": "standard" })
}

#[tokio::test]
async fn a_browser_signs_in_and_out() {
    let admin = AdminGateway::start().await;
    let browser = Browser::sign_in(&admin, ADMIN_TOKEN).await;
    let read = admin.ask("GET", SESSION, &browser.cookie, None).await.json();
    assert_eq!(read["role"], "operator");
    assert_eq!(browser.csrf, format!("x-tierway-csrf: {}\r\n", read["csrf"].as_str().expect("a text")));
    assert_eq!(browser.status(&admin, "POST", "/admin/v1/keys", Some(new_key("a"))).await, 201);
    let rows = admin.done(200, "GET", "/admin/v1/audit?name=a", None).await;
    assert_eq!(rows["data"][0]["who"], "admin token, by a browser's session");
    let out = admin.ask("DELETE", SESSION, &format!("{}{}", browser.cookie, browser.csrf), None).await;
    assert_eq!(out.status, 200);
    assert!(out.header("set-cookie").is_some_and(|set| set.starts_with("tierway_session=; Path=/admin; Max-Age=0")));
    assert_eq!(browser.status(&admin, "GET", "/admin/v1/keys", None).await, 401, "it is gone");
    let by_token = admin.done(200, "GET", SESSION, None).await;
    assert_eq!((&by_token["csrf"], &by_token["expires"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_session_changes_nothing_without_what_its_page_was_given() {
    let admin = AdminGateway::start().await;
    let (browser, other) = (Browser::sign_in(&admin, ADMIN_TOKEN).await, Browser::sign_in(&admin, ADMIN_TOKEN).await);
    let before = admin.state().await;
    for csrf in ["", "x-tierway-csrf: \r\n", "x-tierway-csrf: tws_wrong\r\n", &other.csrf] {
        let headers = format!("{}{csrf}", browser.cookie);
        for (method, path, body) in [
            ("POST", "/admin/v1/keys", Some(new_key("a").to_string())),
            ("DELETE", SESSION, None),
            ("POST", SESSION, None),
            ("DELETE", "/admin/v1/faults/1", None),
        ] {
            let refused = admin.ask(method, path, &headers, body.as_deref()).await;
            assert_eq!((refused.status, &refused.json()["error"]["param"]), (403, &json!("x-tierway-csrf")), "{csrf}");
        }
    }
    assert_eq!(admin.state().await, before);
    assert_eq!(browser.status(&admin, "GET", "/admin/v1/keys", None).await, 200, "it goes on");
}

#[tokio::test]
async fn a_session_has_the_role_of_its_token_and_ends_with_it() {
    let admin = AdminGateway::start().await;
    let viewer = Browser::sign_in(&admin, VIEWER_TOKEN).await;
    assert_eq!(admin.ask("GET", SESSION, &viewer.cookie, None).await.json()["role"], "viewer");
    for (path, body) in [
        ("/admin/v1/keys", new_key("a")),
        ("/admin/v1/faults", json!({ "kind": "refuse", "region": "eu-central", "expires_in": "1m" })),
    ] {
        assert_eq!(viewer.status(&admin, "POST", path, Some(body)).await, 403, "{path}");
    }
    assert_eq!(viewer.status(&admin, "GET", "/admin/v1/keys", None).await, 200);
    let operator = Browser::sign_in(&admin, ADMIN_TOKEN).await;
    let app = &admin.gateway.app;
    let secret = |text: &str| Some(Secret::new(text));
    let tokens = OperatorTokens { admin_token: secret("twa_another"), ..OperatorTokens::default() };
    app.ops.store(tokens.into());
    for gone in [&viewer, &operator] {
        let headers = format!("{}{}", gone.cookie, gone.csrf);
        assert_eq!(send(&admin.gateway, "GET", "/admin/v1/keys", &headers, None).await.status, 401);
    }
}

#[tokio::test]
async fn a_wrong_token_is_not_made_right_by_a_session() {
    let admin = AdminGateway::start().await;
    let browser = Browser::sign_in(&admin, ADMIN_TOKEN).await;
    for presented in [bearer("twa_wrong"), bearer(KEY)] {
        let headers = format!("{}{}{presented}", browser.cookie, browser.csrf);
        assert_eq!(admin.ask("GET", "/admin/v1/keys", &headers, None).await.status, 401);
    }
    for path in ["/v1/models", "/metrics"] {
        assert_eq!(send(&admin.gateway, "GET", path, &browser.cookie, None).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_link_signs_one_browser_in_and_nothing_else() {
    let admin = AdminGateway::start().await;
    let link = admin.gateway.app.sessions.make_link().expect("chance");
    let link = link.expose();
    for (method, path) in [("GET", SESSION), ("GET", "/admin/v1/keys"), ("DELETE", SESSION)] {
        assert_eq!(admin.ask(method, path, &bearer(link), None).await.status, 401, "{method} {path}");
    }
    let browser = Browser::sign_in(&admin, link).await;
    assert_eq!(browser.status(&admin, "POST", "/admin/v1/keys", Some(new_key("a"))).await, 201);
    assert_eq!(admin.ask("POST", SESSION, &bearer(link), None).await.status, 401, "it is used up");
}

/// Opens the event stream.
async fn watch(admin: &AdminGateway, headers: &str) -> Client {
    let mut client = Client::connect(admin.gateway.addr).await;
    client.send(format!("GET /admin/v1/live HTTP/1.1\r\nhost: tests\r\n{headers}\r\n")).await;
    let (status, headers) = client.head().await;
    assert_eq!(status, 200);
    assert!(headers.iter().any(|(name, value)| name == "content-type" && value == "text/event-stream"), "{headers:?}");
    client
}

/// The next event of this kind.
async fn next(client: &mut Client, kind: &str) -> Value {
    loop {
        let frame = client.frame().await.expect("the stream goes on");
        if frame.raw.starts_with(format!("event: {kind}\n").as_bytes()) {
            return frame.json();
        }
    }
}

#[tokio::test]
async fn who_watches_sees_deployments_requests_and_events() {
    let admin = AdminGateway::start().await;
    let mut client = watch(&admin, &bearer(VIEWER_TOKEN)).await;
    let deployment = next(&mut client, "deployment").await;
    assert_eq!((&deployment["deployment"], &deployment["state"]), (&json!("eu/org/model"), &json!("closed")));
    assert_eq!(next(&mut client, "second").await["requests"], 0);
    let (_, id) = admin.chat(KEY).await;
    assert_eq!(next(&mut client, "request").await["request_id"], id.as_str());
    let mut requests = 0;
    while requests == 0 {
        let second = next(&mut client, "second").await;
        requests = second["requests"].as_u64().expect("a count");
        assert!(requests == 0 || second["deployments"][0]["attempts"] == 1, "{second}");
    }
    let fault = json!({ "kind": "refuse", "region": "eu-central", "expires_in": "1m" });
    admin.done(201, "POST", "/admin/v1/faults", Some(fault)).await;
    let event = next(&mut client, "event").await;
    assert_eq!(
        (&event["kind"], &event["subject"], &event["detail"]),
        (&json!("fault_injected"), &json!("eu-central"), &json!("refuse"))
    );
    assert_eq!(next(&mut client, "second").await["faults_active"], 1);
}

#[tokio::test]
async fn a_stream_ends_with_the_session_that_opened_it() {
    let admin = AdminGateway::start().await;
    let browser = Browser::sign_in(&admin, ADMIN_TOKEN).await;
    let mut client = watch(&admin, &browser.cookie).await;
    next(&mut client, "second").await;
    assert_eq!(browser.status(&admin, "DELETE", SESSION, None).await, 200);
    while client.frame().await.is_ok() {}
}

#[tokio::test]
async fn so_many_watch_and_one_more_is_asked_to_come_back() {
    let admin = AdminGateway::start().await;
    let mut all = Vec::new();
    for _ in 0..MOST_WATCHERS {
        all.push(watch(&admin, &bearer(VIEWER_TOKEN)).await);
    }
    let refused = admin.ask("GET", "/admin/v1/live", &bearer(VIEWER_TOKEN), None).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("slow_down")));
}

#[tokio::test]
async fn the_history_has_what_ended_and_what_happened() {
    let admin = AdminGateway::start().await;
    for _ in 0..3 {
        assert_eq!(admin.chat(KEY).await.0, 200);
    }
    let fault = json!({ "kind": "refuse", "region": "eu-central", "expires_in": "1m" });
    admin.done(201, "POST", "/admin/v1/faults", Some(fault)).await;
    let mut history = Value::Null;
    // The second that runs is not complete.
    while sum(&history["requests"]) < 3 {
        history = admin.done(200, "GET", "/admin/v1/history", None).await;
    }
    assert_eq!((sum(&history["served"]), sum(&history["faults"]), sum(&history["attempts"])), (3, 0, 3));
    assert_eq!((&history["span"], &history["step_s"]), (&json!("15m"), &json!(1)));
    let lists = ["requests", "first_token_p50_us", "first_token_p99_us", "cost_usd"];
    let lengths = lists.map(|list| history[list].as_array().expect("a list").len());
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{history}");
    // 30 tokens in and 10 out, at 1 and 2 USD for a million, three times, in one second or several.
    let costs = history["cost_usd"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let micro: f64 = costs.map(|cost| cost.parse::<f64>().expect("a decimal") * 1e6).sum();
    assert_eq!(micro.round(), 150.0);
    assert_eq!(history["events"][0]["kind"], "fault_injected");
    for span in ["6h", "7d"] {
        admin.done(200, "GET", &format!("/admin/v1/history?span={span}"), None).await;
    }
}

fn sum(list: &Value) -> u64 {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).sum()
}

#[tokio::test]
async fn the_gateway_says_what_it_is() {
    let admin = AdminGateway::start().await;
    let gateway = admin.ask("GET", "/admin/v1/gateway", &bearer(VIEWER_TOKEN), None).await.json();
    assert_eq!((&gateway["fault_api"], &gateway["simulated"]), (&json!(true), &json!(false)));
    assert_eq!((&gateway["clients_at"], &gateway["regions"]), (&Value::Null, &json!(["eu-central"])));
    assert!(gateway["policies"].as_array().expect("a list").contains(&json!("prepaid")), "{gateway}");
}
