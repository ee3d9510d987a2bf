//! Role × route × field, generated from the API's own document: a new operation or field is tested without a new
//! test.

use crate::admin_gateway::{AdminGateway, bearer, send};
use crate::document::Described;
use crate::support::gateway::{ADMIN_TOKEN, KEY, METRICS_TOKEN, VIEWER_TOKEN};
use crate::validator::faults;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tierway::http::{ops_handler, public_handler};

/// Methods to try at every path.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"];
/// Credentials that are no operator's.
const NOBODY: [&str; 6] = [
    "",
    "Bearer ",
    "Bearer wrong",
    "Basic dHc6dHc=",
    "Bearer tw_test_canary_client_key",
    "Bearer twm_canary_metrics_token",
];

/// A deployment of the gateway, as it is written in a path.
const DEPLOYMENT: &str = "eu%2Forg%2Fmodel";

/// A gateway in which the example of every operation can be run.
async fn with_examples() -> (AdminGateway, String) {
    let admin = AdminGateway::start().await;
    admin.done(201, "POST", "/admin/v1/keys", Some(json!({ "name": "k", "policy": "standard" }))).await;
    admin.done(201, "POST", "/admin/v1/teams", Some(json!({ "name": "k" }))).await;
    let (_, id) = admin.chat(KEY).await;
    admin.wait_for_receipt(&id).await;
    (admin, id)
}

/// A name that exists.
fn name<'a>(operation: &Described, request: &'a str) -> &'a str {
    match &*operation.path {
        path if path.contains("request_id") => request,
        path if path.contains("deployments") => DEPLOYMENT,
        // The first one that is injected.
        path if path.contains("faults") => "1",
        _ => "k",
    }
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_operations() {
    let admin = AdminGateway::start().await;
    let described: BTreeSet<String> = admin.document.operations().into_iter().map(|one| one.path).collect();
    let pattern = regex::Regex::new(r#"RouteId\(\d+\): "(/admin[^"]*)""#).expect("the pattern is one");
    for entry in [public_handler(admin.gateway.app.clone(), true), ops_handler(admin.gateway.app.clone())] {
        let printed = format!("{entry:?}");
        let routed: BTreeSet<String> = pattern.captures_iter(&printed).map(|found| found[1].to_owned()).collect();
        assert_eq!(routed, described);
    }
    let clients_only = format!("{:?}", public_handler(admin.gateway.app.clone(), false));
    assert!(!clients_only.contains("/admin"), "operators have an address of their own there");
    for path in described {
        let here = admin.document.operations().into_iter().filter(|one| one.path == path);
        let mut methods: BTreeSet<String> = here.map(|one| one.method).collect();
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        for method in METHODS.into_iter().filter(|method| !methods.contains(*method)) {
            let at = path.replace("{name}", "k").replace("{request_id}", "x").replace("{id}", "1");
            let answer = admin.ask(method, &at, &bearer(ADMIN_TOKEN), None).await;
            let allowed: BTreeSet<String> =
                answer.header("allow").unwrap_or_default().split(", ").map(str::to_owned).collect();
            assert_eq!((answer.status, &allowed), (405, &methods), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_token_permits_what_its_role_may_do_and_nothing_else() {
    let (admin, request) = with_examples().await;
    let before = admin.state().await;
    let mut tried = 0;
    for operation in admin.document.operations() {
        let path = operation.at(name(&operation, &request));
        let example = operation.body()["example"].as_object().map(|body| Value::Object(body.clone()).to_string());
        for presented in NOBODY {
            let header = if presented.is_empty() { String::new() } else { format!("authorization: {presented}\r\n") };
            let answer = admin.ask(&operation.method, &path, &header, example.as_deref()).await;
            assert_eq!(answer.status, 401, "{operation:?} {presented}");
            tried += 1;
        }
        if operation.is_stream() {
            continue;
        }
        let answer = admin.ask(&operation.method, &path, &bearer(VIEWER_TOKEN), example.as_deref()).await;
        assert_eq!(answer.status, if operation.changes() { 403 } else { operation.success() }, "{operation:?}");
        tried += 1;
    }
    assert_eq!(admin.state().await, before, "nobody changed anything");
    // Teams are created before their keys, and both before their credit; what is taken away is needed no longer.
    let mut operations = admin.document.operations();
    operations.sort_by_key(|one| (one.method == "DELETE", one.path.contains("credits"), one.path.contains("keys")));
    for operation in operations.into_iter().filter(|operation| !operation.is_stream()) {
        let path = operation.at(name(&operation, &request));
        let example = operation.body()["example"].as_object().map(|body| Value::Object(body.clone()));
        let answer = admin.operate(&operation.method, &path, example).await;
        assert_eq!(answer.status, operation.success(), "{operation:?}: {answer:?}");
        tried += 1;
    }
    assert_ne!(admin.state().await, before);
    println!("{tried} requests");
    for token in [ADMIN_TOKEN, VIEWER_TOKEN] {
        let models = send(&admin.gateway, "GET", "/v1/models", &bearer(token), None).await;
        assert_eq!(models.status, 401, "an operator's token is no client's key");
    }
    assert_eq!(send(&admin.gateway, "GET", "/metrics", &bearer(METRICS_TOKEN), None).await.status, 200);
}

/// Values of every kind, most of them wrong for most fields.
fn values() -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(4_294_967_296_u64),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({ "x": 1 }),
        json!({ "limit": "1" }),
    ];
    let long = "x".repeat(20_000);
    let texts = [
        "",
        " ",
        "x",
        "-",
        "0",
        "-1",
        "1e9",
        "NaN",
        "10000000000",
        "99999999999999999999",
        "0.0000000001",
        "2037-02-30",
        "2037-13-01",
        "2037-01-01T00:00:00",
        "24",
        "-1h",
        "sha256:00",
        "day ",
        "a\u{0}b",
        "a\u{7}b",
        "a\nb",
        "\u{202e}b",
        "é",
        "😀",
        "' OR 1=1 --",
        "<script>",
        "../..",
        "\"q\"",
        &long,
    ];
    values.extend(texts.map(Value::from));
    values
}

/// Every field of `schema`, including nested ones: its path, and its schema.
fn fields(schema: &Value, place: &str) -> Vec<(String, Value, bool)> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&name.into()));
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (name, field) in properties {
        let at = format!("{place}{name}");
        found.extend(fields(&field, &format!("{at}.")));
        found.push((at, field, required(&name)));
    }
    found
}

/// `body` with `value`, or nothing, at `place`; parent objects are made from the examples.
fn with(body: &Value, schema: &Value, place: &str, value: Option<Value>) -> Value {
    let mut body = body.clone();
    if let Some((parent, child)) = place.split_once('.') {
        let inner = &schema["properties"][parent];
        body[parent] = with(&inner["examples"][0], inner, child, value);
    } else if let Some(value) = value {
        body[place] = value;
    } else {
        body.as_object_mut().expect("an object").remove(place);
    }
    body
}

#[tokio::test]
async fn a_wrong_field_of_a_body_is_named_and_changes_nothing() {
    let (admin, _) = with_examples().await;
    admin.done(201, "POST", "/admin/v1/teams", Some(json!({ "name": "growth" }))).await;
    let before = admin.state().await;
    let mut tried = 0;
    for operation in admin.document.operations().into_iter().filter(|one| !one.body().is_null()) {
        let (schema, path) = (&operation.body()["schema"], operation.at("k"));
        let example = &operation.body()["example"];
        for (place, field, required) in fields(schema, "") {
            let mut wrong: Vec<_> =
                values().into_iter().filter(|value| !faults(&field, value).is_empty()).map(Some).collect();
            assert!(wrong.len() > 10, "{place} takes nearly everything");
            wrong.extend(required.then_some(None));
            for value in wrong {
                let body = with(example, schema, &place, value.clone());
                let answer = admin.operate(&operation.method, &path, Some(body)).await;
                let reported = answer.json()["error"]["param"].as_str().unwrap_or_default().to_owned();
                // The error about an object with invalid members names the first of them.
                let named =
                    reported == place || reported.strip_prefix(&place).is_some_and(|rest| rest.starts_with('.'));
                let case = format!("{} {path} {place}={value:?}: {answer:?}", operation.method);
                assert!(answer.status == 400 && named, "{case}");
                tried += 1;
            }
        }
        let inside: BTreeSet<String> =
            fields(schema, "").into_iter().filter_map(|(at, ..)| Some(at.rsplit_once('.')?.0.to_owned())).collect();
        for parent in inside.into_iter().map(|parent| format!("{parent}.")).chain([String::new()]) {
            for unknown in ["unknown", "Name", "", "a\u{0}b", "__proto__", "é"] {
                let place = format!("{parent}{unknown}");
                let answer =
                    admin.operate(&operation.method, &path, Some(with(example, schema, &place, Some(json!(1))))).await;
                assert_eq!(answer.status, 400, "{place}");
                assert!(unknown.is_empty() || answer.json()["error"]["param"] == place.as_str(), "{place}: {answer:?}");
                tried += 1;
            }
        }
    }
    println!("{tried} requests");
    assert_eq!(admin.state().await, before);
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let (admin, request) = with_examples().await;
    let texts = values().into_iter().filter_map(|value| Some(value.as_str()?.to_owned()));
    let texts: Vec<String> = texts.filter(|text| text.len() < 10_000).chain(["x".repeat(4_000)]).collect();
    let mut tried = 0;
    for operation in admin.document.operations().into_iter().filter(|one| one.method == "GET") {
        let path = operation.at(name(&operation, &request));
        for (parameter, schema) in operation.query() {
            for text in &texts {
                let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
                let answer = admin.operate("GET", &format!("{path}?{parameter}={encoded}"), None).await;
                let read = match schema["type"].as_str() {
                    Some("integer") => text.parse::<u64>().ok().map(Value::from),
                    Some("array") => Some(text.split(',').map(Value::from).collect()),
                    _ => Some(Value::from(text.as_str())),
                };
                let right = read.is_some_and(|value| faults(&schema, &value).is_empty());
                assert!(right || answer.status == 400, "{path}?{parameter}={text}: {answer:?}");
                assert!(answer.status != 400 || answer.json()["error"]["param"] == parameter.as_str(), "{answer:?}");
                tried += 1;
            }
            for twice in [format!("{parameter}=1&{parameter}=1"), format!("{parameter}=%ff")] {
                let answer = admin.operate("GET", &format!("{path}?{twice}"), None).await;
                assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(parameter)));
            }
        }
        let answer = admin.operate("GET", &format!("{path}?unknown=1"), None).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("unknown")));
    }
    println!("{tried} requests");
}
